//! One real mix on loopback under a given packet rate: what it forwards, what it loses, and how much longer than its
//! sender asked a packet stays.
//!
//! The mix is a process of its own. Before it in the topology stands a gateway, which is the load generator, and
//! behind it the only mix of the last layer, which is the sink; both share the cores with it. Packets are prepared
//! beforehand, and opened once then, so that the sink knows each by the first bytes that it will have.

// It measures real time.
#![allow(clippy::disallowed_methods)]

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use shoal_daemon::link::{Allow, Endpoint, FRAME, Identity as LinkKey, Link, Settings};
use shoal_daemon::{network, secret};
use shoal_node::daemon::{self as node, bench};
use shoal_sphinx::backend::Backend;
use shoal_sphinx::{Frame, Hop, Packet, Peeled, PublicKey, SecretKey};
use shoal_topology::control::kind;
use shoal_topology::{
    Document, Epoch, EpochKey, ListedNode, Network, NodeDescriptor, Parameters, Role,
    SecretIdentity, Seed, Signed, SignedDocument, exponential,
};
use tokio::process::{Child, Command};

/// How long the mix may take to be ready.
const READY: Duration = Duration::from_secs(10);
/// How long the last packet may take, beyond what was asked for it.
const DRAIN: Duration = Duration::from_secs(3);
/// How often the generator sends what is due.
const TICK: Duration = Duration::from_millis(1);
/// Mean delay that senders ask for.
const MEAN_DELAY: Duration = Duration::from_millis(15);
const EPOCH_S: u32 = 86_400;

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// Packets a second.
    pub rate: u32,
    /// For so many seconds.
    pub seconds: u32,
    /// Of delays and packets.
    pub seed: u64,
}

impl Load {
    /// Whether it fits into memory: its packets are prepared beforehand, 2.4 kB each.
    ///
    /// # Errors
    /// What is wrong and what is allowed.
    pub fn check(&self) -> anyhow::Result<()> {
        let packets = u64::from(self.rate) * u64::from(self.seconds);
        if !(1..=2_000_000).contains(&packets) {
            bail!("--rate times --seconds must lie between 1 and 2,000,000 packets");
        }
        Ok(())
    }
}

/// A packet that is ready to go, and what the sink will know it by.
struct Prepared {
    frame: Box<[u8; FRAME]>,
    known_by: [u8; 8],
    delay: Duration,
}

struct Ends {
    gateway: SecretIdentity,
    gateway_seed: [u8; 32],
    sink: SecretIdentity,
    sink_seed: [u8; 32],
    sink_key: PublicKey,
}

/// Runs one mix under a load.
///
/// # Errors
/// When the mix does not start, or a link breaks.
pub async fn run(load: &Load) -> anyhow::Result<Value> {
    load.check()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let reference = bench::reference_all_cores(cores);

    let dir = crate::localnet::temporary("shoal-load-")?;
    let ends = Ends::new()?;
    let sink_at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut sink = endpoint(&ends.sink_seed, Some(sink_at))?;
    let sink_at = sink.listen_addr().context("the sink does not listen")?;
    let config = configure(dir.path(), load, &ends, sink_at)?;
    let mix = node::prepare(&config)?.descriptor.body().clone();
    let mix_key = secret::read_or_create(&config.runtime_dir().join("mix.key"))?;
    let packets = prepare(load, &ends, &mix, &SecretKey::from_bytes(*mix_key), cores)?;

    let mut child = start(dir.path())?;
    let generator = endpoint(&ends.gateway_seed, None)?;
    let arriving = async { sink.accept().await.context("the mix does not link to the sink") };
    let arriving =
        tokio::time::timeout(READY, arriving).await.context("the mix is not ready")??;
    let mut link = dial(&generator, &mix, config.listen).await?;

    let sheet = Arc::new(Sheet::new(&packets));
    let collecting = tokio::spawn(collect(arriving, sheet.clone()));
    let sent = send(&mut link, &packets, load.rate, &sheet).await?;
    let longest = packets.iter().map(|packet| packet.delay).max().unwrap_or_default();
    let deadline = Instant::now() + longest + DRAIN;
    while sheet.count.load(Ordering::Relaxed) < packets.len() as u64 && Instant::now() < deadline {
        tokio::time::sleep(TICK).await;
    }
    let rss = resident_mb(&child);
    collecting.abort();
    drop(child.stdin.take());
    tokio::time::timeout(READY, child.wait()).await.context("the mix does not end")??;

    let arrived: Vec<Option<Duration>> = sheet.arrived();
    let mut excess: Vec<f64> = Vec::new();
    for ((packet, sent), arrived) in packets.iter().zip(&sent).zip(&arrived) {
        if let Some(arrived) = arrived {
            excess.push((arrived.as_secs_f64() - (*sent + packet.delay).as_secs_f64()) * 1e3);
        }
    }
    excess.sort_by(f64::total_cmp);
    let at = |q: f64| excess.get((excess.len().saturating_sub(1) as f64 * q) as usize).copied();
    let (first, last) = (arrived.iter().flatten().min(), arrived.iter().flatten().max());
    let took = last.zip(first).map_or(Duration::ZERO, |(last, first)| *last - *first);
    let forwarded = excess.len() as f64 / took.as_secs_f64().max(1e-3);
    let round = |value: f64| (value * 1e3).round() / 1e3;
    Ok(json!({
        "sent_per_s": load.rate,
        "forwarded_per_s": round(forwarded),
        "excess_delay_p50_ms": at(0.5).map(round),
        "excess_delay_p99_ms": at(0.99).map(round),
        "lost": packets.len() - excess.len(),
        "rss_mb": rss.map(round),
        "reference_peel_per_s_all_cores": round(reference),
        "ratio": round(forwarded / reference),
        "backend": Backend::best().name(),
    }))
}

impl Ends {
    fn new() -> anyhow::Result<Self> {
        let (gateway_seed, sink_seed) = (*secret::fresh()?, *secret::fresh()?);
        Ok(Self {
            gateway: SecretIdentity::from_bytes(&gateway_seed),
            gateway_seed,
            sink: SecretIdentity::from_bytes(&sink_seed),
            sink_seed,
            sink_key: SecretKey::from_bytes(*secret::fresh()?).public(),
        })
    }
}

fn endpoint(seed: &[u8; 32], listen: Option<SocketAddr>) -> anyhow::Result<Endpoint> {
    let settings = Settings { listen, allow: Allow::anyone(), ..Settings::default() };
    Ok(Endpoint::new(&LinkKey::from_seed(seed), settings)?)
}

fn epoch() -> anyhow::Result<Epoch> {
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(Epoch(unix_s / u64::from(EPOCH_S)))
}

/// Writes the mix's configuration, and a topology of two layers in which it stands between the two ends.
fn configure(
    dir: &Path,
    load: &Load,
    ends: &Ends,
    sink_at: SocketAddr,
) -> anyhow::Result<node::Config> {
    let free = || std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
    let config = node::Config {
        role: node::RoleName::Mix,
        listen: free()?,
        operator: "mix".into(),
        jurisdiction: "localnet".into(),
        runtime_dir: "run".into(),
        admin: None,
        workers: 0,
        log: "warn".into(),
        // Room for every packet, and for the mix's own loops.
        max_packets_per_s: load.rate as usize + 100,
        key_lifetime_s: load.seconds as usize + 100,
        ..node::Config::default()
    };
    node::init(dir, &config)?;
    let (config, _) = node::Config::load(&dir.join("config.toml"), &[])?;

    let authority = SecretIdentity::from_bytes(&*secret::fresh()?);
    let network = Network { name: "load".into(), authorities: vec![authority.identity()] };
    secret::replace(&config.network, network::to_toml(&network).as_bytes())?;
    let listed = |identity: &SecretIdentity, role, operator: &str, address, key, layer| {
        let body = NodeDescriptor {
            identity: identity.identity(),
            role,
            addresses: vec![address],
            operator: operator.into(),
            jurisdiction: "localnet".into(),
            keys: vec![EpochKey { first: Epoch(0), last: Epoch(u64::MAX), key }],
        };
        ListedNode { descriptor: Signed::<NodeDescriptor>::new(body, identity), layer }
    };
    // Nobody connects to gateways here. A document has two.
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let other = SecretIdentity::from_bytes(&*secret::fresh()?);
    let key = *ends.sink_key.as_bytes();
    let mix = ListedNode { descriptor: node::prepare(&config)?.descriptor, layer: 1 };
    let mut nodes = vec![
        mix,
        listed(&ends.sink, Role::Mix, "sink", sink_at, key, 2),
        listed(&ends.gateway, Role::Gateway, "generator", nowhere, key, 0),
        listed(&other, Role::Gateway, "other gateway", nowhere, key, 0),
    ];
    nodes.sort_by_key(ListedNode::identity);
    let epoch = epoch()?;
    let document = Document {
        network: network.name,
        epoch,
        begins: epoch.0 * u64::from(EPOCH_S),
        epoch_s: EPOCH_S,
        amendment: 0,
        parameters: Parameters { layers: 2, min_mixes_per_layer: 1, ..Parameters::default() },
        nodes,
        exits: Vec::new(),
    };
    document.check()?;
    secret::replace(&config.topology, &SignedDocument::new(&document, [&authority]).encode())?;
    Ok(config)
}

/// Seals all packets, and opens each once to know it again.
fn prepare(
    load: &Load,
    ends: &Ends,
    mix: &NodeDescriptor,
    mix_key: &SecretKey,
    cores: usize,
) -> anyhow::Result<Vec<Prepared>> {
    let count = load.rate as usize * load.seconds as usize;
    let seed = Seed::from_u64(load.seed);
    let epoch = epoch()?;
    let part = |n: usize| -> anyhow::Result<Vec<Prepared>> {
        let codec = Backend::best_codec();
        let mut rng = seed.stream(&format!("packets {n}"));
        let mut delays = seed.stream(&format!("delays {n}"));
        (0..(count + n) / cores)
            .map(|_| {
                let delay = exponential(&mut delays, MEAN_DELAY);
                let path = [
                    Hop { address: mix.identity.0, key: mix_key.public(), delay },
                    Hop {
                        address: ends.sink.identity().0,
                        key: ends.sink_key,
                        delay: Duration::ZERO,
                    },
                ];
                let packet = codec.seal(&mut rng, &path, [0; 16], &[kind::DROP])?;
                let epoch = epoch.low_byte();
                let frame = Frame { epoch, field: 0, packet: packet.clone() }.encode();
                match codec.peel(codec.open(mix_key, packet)?)? {
                    Peeled::Forward { packet, .. } => {
                        Ok(Prepared { frame, known_by: name(&packet), delay })
                    }
                    Peeled::Final { .. } => bail!("a path of two hops ends at its first"),
                }
            })
            .collect()
    };
    let parts = std::thread::scope(|scope| {
        let part = &part;
        let threads: Vec<_> = (0..cores).map(|n| scope.spawn(move || part(n))).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut packets = Vec::with_capacity(count);
    for part in parts {
        packets.extend(part.map_err(|_| anyhow::anyhow!("preparing packets failed"))??);
    }
    Ok(packets)
}

/// The first bytes of a packet, as good as random.
fn name(packet: &Packet) -> [u8; 8] {
    packet.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// What the sink notes.
struct Sheet {
    start: Instant,
    by_name: HashMap<[u8; 8], usize>,
    /// Nanoseconds from the start, for each packet; zero: not yet.
    at: Vec<AtomicU64>,
    count: AtomicU64,
}

impl Sheet {
    fn new(packets: &[Prepared]) -> Self {
        Self {
            start: Instant::now(),
            by_name: packets.iter().enumerate().map(|(i, p)| (p.known_by, i)).collect(),
            at: packets.iter().map(|_| AtomicU64::new(0)).collect(),
            count: AtomicU64::new(0),
        }
    }

    fn note(&self, packet: &Packet) {
        // What it does not know are the mix's own loops.
        let Some(at) = self.by_name.get(&name(packet)).and_then(|i| self.at.get(*i)) else {
            return;
        };
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if at.swap(now, Ordering::Relaxed) == 0 {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn arrived(&self) -> Vec<Option<Duration>> {
        let at = self.at.iter().map(|at| at.load(Ordering::Relaxed));
        at.map(|nanos| (nanos > 0).then(|| Duration::from_nanos(nanos))).collect()
    }
}

async fn collect(mut link: Link, sheet: Arc<Sheet>) {
    let mut frames = Vec::new();
    while matches!(link.receiver.next_batch(&mut frames, 64).await, Ok(n) if n > 0) {
        for bytes in frames.drain(..) {
            if let Ok(frame) = Frame::decode(&bytes) {
                sheet.note(&frame.packet);
            }
        }
    }
}

/// Sends all packets at the given rate; when each left, from the sheet's start.
async fn send(
    link: &mut Link,
    packets: &[Prepared],
    rate: u32,
    sheet: &Sheet,
) -> anyhow::Result<Vec<Duration>> {
    let began = Instant::now();
    let mut sent = Vec::with_capacity(packets.len());
    while sent.len() < packets.len() {
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as usize;
        let until = due.min(packets.len()).min(sent.len() + 16);
        let Some(batch) = packets.get(sent.len()..until).filter(|batch| !batch.is_empty()) else {
            tokio::time::sleep(TICK).await;
            continue;
        };
        let now = sheet.start.elapsed();
        sent.extend(batch.iter().map(|_| now));
        let frames: Vec<_> = batch.iter().map(|packet| packet.frame.clone()).collect();
        link.sender.send_all(&frames).await?;
    }
    Ok(sent)
}

fn start(dir: &Path) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("finding this program")?;
    let child = Command::new(program)
        .args(["daemon", "node"])
        .arg(dir.join("config.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .process_group(0)
        .spawn();
    child.context("starting the mix")
}

/// The mix listens a moment before it has read its topology.
async fn dial(from: &Endpoint, mix: &NodeDescriptor, at: SocketAddr) -> anyhow::Result<Link> {
    let deadline = Instant::now() + READY;
    loop {
        match from.dial(mix.identity.0, at).await {
            Ok(link) => return Ok(link),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn resident_mb(child: &Child) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()?)).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1024.0)
}
