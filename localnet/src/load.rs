//! One real mix on loopback under a given packet rate: what it forwards, what it loses, and how much longer than its
//! sender asked a packet stays.
//!
//! The mix is a process of its own. Before it in the topology stands a gateway, which is the load generator, and
//! behind it the only mix of the last layer, which is the sink; both share the cores with it. Packets are prepared
//! beforehand, or where they are too many for that, by one thread as they go; each is opened once then, so that the
//! sink knows it by the first bytes that it will have.

// It measures real time.
#![allow(clippy::disallowed_methods)]

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use shoal_host::link::{Allow, Endpoint, FRAME, Identity as LinkKey, Link, LinkSettings};
use shoal_host::{network, secret};
use shoal_node::daemon::{self as node, bench};
use shoal_sphinx::backend::Backend;
use shoal_sphinx::{Frame, Hop, Packet, Peeled, PublicKey, Seal, SecretKey};
use shoal_topology::wire::client_gateway::kind;
use shoal_topology::{
    Document, Epoch, EpochKey, ListedNode, Network, NodeDescriptor, Parameters, Role,
    SecretIdentity, Seed, Signed, SignedDocument, exponential,
};
use tokio::process::Child;

use crate::launch::{DaemonKind, spawn, temporary};

/// How long the mix may take to be ready.
const READY: Duration = Duration::from_secs(10);
/// How long the last packet may take, beyond what was asked for it.
const DRAIN: Duration = Duration::from_secs(3);
/// What a tag takes in a replay table that has grown to its size: a slot and a quarter of eight bytes, in MiB.
const TAG_MIB: f64 = 10.0 / 1_048_576.0;
/// How often the generator sends what is due.
const TICK: Duration = Duration::from_millis(1);
/// Mean delay that senders ask for.
const MEAN_DELAY: Duration = Duration::from_millis(15);
/// The longest, so that the last packet has an end.
const LONGEST: Duration = Duration::from_millis(500);
/// Least length of an epoch, and what a run takes beside its load, seconds.
const EPOCH_S: u32 = 3_600;
const AROUND_S: u32 = 300;

/// How fast to send.
#[derive(Clone, Copy, Debug)]
pub enum Rate {
    /// Packets a second.
    PerSecond(u32),
    /// So many times what `sphinx-packet` opens a second on all cores, measured in the same run.
    TimesReference(f64),
}

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// How fast packets are sent.
    pub rate: Rate,
    /// For so many seconds.
    pub seconds: u32,
    /// Of delays and packets.
    pub seed: u64,
}

/// Packets that are prepared together.
const CHUNK: u64 = 1_024;
/// Most packets that are prepared beforehand: 2.4 kB each.
const BEFOREHAND: u64 = 2_000_000;
/// Chunks that stand ready when packets are prepared as they go.
const READY_CHUNKS: usize = 32;

impl Load {
    /// Whether it can be run, as far as that is known before the reference is measured.
    ///
    /// # Errors
    /// What is wrong and what is allowed.
    pub fn check(&self) -> anyhow::Result<()> {
        match self.rate {
            Rate::PerSecond(_) => self.resolve(0.0).map(|_| ()),
            Rate::TimesReference(times) if times.is_finite() && times > 0.0 => Ok(()),
            Rate::TimesReference(times) => bail!("--ratio {times} is not a number above zero"),
        }
    }

    /// Packets a second, and in all.
    ///
    /// # Errors
    /// What is wrong and what is allowed.
    fn resolve(&self, reference: f64) -> anyhow::Result<(u32, u64)> {
        let rate = match self.rate {
            Rate::PerSecond(rate) => rate,
            Rate::TimesReference(times) => (times * reference) as u32,
        };
        let packets = u64::from(rate) * u64::from(self.seconds);
        if !(1..=100_000_000).contains(&packets) {
            bail!(
                "{rate} packets/s for {} s are {packets} packets: change --rate, --ratio or --seconds so that they lie between 1 and 100,000,000",
                self.seconds
            );
        }
        Ok((rate, packets))
    }
}

/// A packet that is ready to go, and what the sink will know it by.
struct Prepared {
    frame: Box<[u8; FRAME]>,
    known_by: [u8; 8],
    delay: Duration,
}

struct EndKeys {
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
    let (rate, packets) = load.resolve(reference)?;

    let dir = temporary("shoal-load-")?;
    let ends = EndKeys::new()?;
    let sink_at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut sink = endpoint(&ends.sink_seed, Some(sink_at))?;
    let sink_at = sink.listen_addr().context("the sink does not listen")?;
    let config = configure(dir.path(), (rate, load.seconds), &ends, sink_at)?;
    let mix = node::descriptor(&config)?.body().clone();
    let epoch = mix.keys.first().context("the mix has no key")?.first;
    let mix_key = secret::read(&config.runtime_dir().join(format!("keys/{epoch}.key")))?;
    let ends = Arc::new(ends);
    let recipe = Recipe {
        packets,
        seed: Seed::from_u64(load.seed),
        epoch,
        mix: mix.identity.0,
        mix_key: SecretKey::from_bytes(*mix_key),
        ends: ends.clone(),
    };
    let mut supply = Supply::start(recipe, cores)?;

    let config_file = dir.path().join("config.toml");
    let mut child = spawn(None, DaemonKind::Node, &config_file, Stdio::inherit())
        .context("starting the mix")?;
    let generator = endpoint(&ends.gateway_seed, None)?;
    let arriving = async { sink.accept().await.context("the mix does not link to the sink") };
    let arriving =
        tokio::time::timeout(READY, arriving).await.context("the mix is not ready")??;
    let mut link =
        dial(&generator, &mix, config.listen_address().map_err(anyhow::Error::msg)?).await?;

    let sheet = Arc::new(Sheet::new());
    let collecting = tokio::spawn(collect(arriving, sheet.clone()));
    let mut warm = None;
    let mut sent = 0;
    let began = Instant::now();
    while sent < packets {
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        sent += send(&mut link, &mut supply, due.min(packets) - sent, &sheet).await?;
        if warm.is_none() && 10 * sent >= packets {
            warm = resident_mb(&child);
        }
    }
    let deadline = Instant::now() + LONGEST + DRAIN;
    while !sheet.is_complete() && Instant::now() < deadline {
        tokio::time::sleep(TICK).await;
    }
    let rss = resident_mb(&child);
    collecting.abort();
    drop(child.stdin.take());
    tokio::time::timeout(READY, child.wait()).await.context("the mix does not end")??;

    let (mut excess, took) = sheet.take();
    excess.sort_by(f32::total_cmp);
    let at = |q: f64| {
        let value = excess.get((excess.len().saturating_sub(1) as f64 * q) as usize).copied();
        value.map(f64::from)
    };
    let forwarded = excess.len() as f64 / took.as_secs_f64().max(1e-3);
    let round = |value: f64| (value * 1e3).round() / 1e3;
    Ok(json!({
        "sent_per_s": rate,
        "forwarded_per_s": round(forwarded),
        "excess_delay_p50_ms": at(0.5).map(round),
        "excess_delay_p99_ms": at(0.99).map(round),
        "lost": packets - excess.len() as u64,
        "rss_mb": rss.map(round),
        "rss_after_a_tenth_mb": warm.map(round),
        "rss_beside_replay_mb": rss.map(|rss| round(rss - packets as f64 * TAG_MIB)),
        "reference_peel_per_s_all_cores": round(reference),
        "ratio": round(forwarded / reference),
        "backend": Backend::best().name(),
    }))
}

impl EndKeys {
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
    let settings = LinkSettings { listen, allow: Allow::anyone(), ..LinkSettings::default() };
    Ok(Endpoint::new(&LinkKey::from_seed(seed), settings)?)
}

/// An epoch's length with which the present one does not end before a run of so many seconds does: all packets are for
/// one key.
fn epoch_s(seconds: u32) -> anyhow::Result<u32> {
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let lasts = |length: &u32| {
        let length = u64::from(*length);
        unix_s % length + u64::from(seconds + AROUND_S) < length
    };
    (EPOCH_S.max(seconds + AROUND_S)..).find(lasts).context("no epoch is so long")
}

/// Writes the mix's configuration, and a topology of two layers in which it stands between the two ends.
fn configure(
    dir: &Path,
    (rate, seconds): (u32, u32),
    ends: &EndKeys,
    sink_at: SocketAddr,
) -> anyhow::Result<node::Config> {
    let free = || std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
    let config = node::Config {
        role: node::RoleName::Mix,
        listen: free()?.into(),
        operator: "mix".into(),
        jurisdiction: "localnet".into(),
        runtime_dir: "run".into(),
        admin: None,
        workers: 0,
        log: "warn".into(),
        // Room for every packet, and for the mix's own loops.
        max_packets_per_s: rate as usize + 100,
        replay_mib: 1 << 20,
        ..node::Config::default()
    };
    node::init(dir, &config)?;
    let (config, _) = node::Config::load(&dir.join("config.toml"), &[])?;

    let authority = SecretIdentity::from_bytes(&*secret::fresh()?);
    let authorities = vec![authority.identity()];
    let network =
        Network { name: "load".into(), authorities, epoch_s: epoch_s(seconds)?, trial: false };
    secret::replace(&config.network, network::to_toml(&network, &[]).as_bytes())?;
    let listed = |identity: &SecretIdentity, role, operator: &str, address, key, layer| {
        let body = NodeDescriptor {
            identity: identity.identity(),
            role,
            addresses: vec![address],
            operator: operator.into(),
            jurisdiction: "localnet".into(),
            packets_per_s: 2_000,
            keys: vec![EpochKey { first: Epoch(0), last: Epoch(u64::MAX), key }],
            signed_at: 0,
        };
        ListedNode::new(Signed::<NodeDescriptor>::new(body, identity), layer)
    };
    // Nobody connects to gateways here. A document has two.
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let other = SecretIdentity::from_bytes(&*secret::fresh()?);
    let key = *ends.sink_key.as_bytes();
    let mix = node::descriptor(&config)?;
    let epoch = mix.body().keys.first().context("the mix has no key")?.first;
    let mix = ListedNode::new(mix, 1);
    let mut nodes = vec![
        mix,
        listed(&ends.sink, Role::Mix, "sink", sink_at, key, 2),
        listed(&ends.gateway, Role::Gateway, "generator", nowhere, key, 0),
        listed(&other, Role::Gateway, "other gateway", nowhere, key, 0),
    ];
    nodes.sort_by_key(ListedNode::identity);
    let document = Document {
        network: network.name,
        epoch,
        begins: epoch.0 * u64::from(network.epoch_s),
        epoch_s: network.epoch_s,
        amendment: 0,
        parameters: Parameters { layers: 2, min_mixes_per_layer: 1, ..Parameters::default() },
        nodes,
        draw: Default::default(),
        exits: Vec::new(),
        heads: Vec::new(),
    };
    document.check()?;
    secret::replace(&config.topology, &SignedDocument::new(&document, [&authority]).encode())?;
    Ok(config)
}

/// What packets are made of.
struct Recipe {
    packets: u64,
    seed: Seed,
    epoch: Epoch,
    mix: [u8; 32],
    mix_key: SecretKey,
    ends: Arc<EndKeys>,
}

impl Recipe {
    fn chunks(&self) -> u64 {
        self.packets.div_ceil(CHUNK)
    }

    /// Seals a chunk of packets, and opens each once to know it again.
    fn chunk(&self, n: u64) -> anyhow::Result<Vec<Prepared>> {
        let codec = Backend::best_codec();
        let mut rng = self.seed.stream(&format!("packets {n}"));
        let mut delays = self.seed.stream(&format!("delays {n}"));
        let sink = Hop {
            address: self.ends.sink.identity().0,
            key: self.ends.sink_key,
            delay: Duration::ZERO,
        };
        let key = self.mix_key.public();
        let paths: Vec<[Hop; 2]> = (0..CHUNK.min(self.packets - n * CHUNK))
            .map(|_| {
                let delay = exponential(&mut delays, MEAN_DELAY).min(LONGEST);
                [Hop { address: self.mix, key, delay }, sink]
            })
            .collect();
        let seals: Vec<Seal<'_>> =
            paths.iter().map(|path| Seal { path, id: [0; 16], message: &[kind::DROP] }).collect();
        let mut packets =
            codec.seal_batch(&mut rng, &seals).into_iter().collect::<Result<Vec<Packet>, _>>()?;
        let epoch = self.epoch.low_byte();
        let frames: Vec<_> = packets
            .iter()
            .map(|packet| Frame { epoch, field: 0, packet: packet.clone() }.encode())
            .collect();
        let (mut opened, mut peeled) = (Vec::new(), Vec::new());
        codec.open_batch(&self.mix_key, &mut packets, &mut opened);
        codec.peel_batch(&mut opened.into_iter().collect::<Result<_, _>>()?, &mut peeled);
        let ready = |((frame, [here, _]), peeled): ((Box<_>, &[Hop; 2]), Result<Peeled, _>)| {
            match peeled? {
                Peeled::Forward { packet, .. } => {
                    Ok(Prepared { frame, known_by: name(&packet), delay: here.delay })
                }
                Peeled::Final { .. } => bail!("a path of two hops ends at its first"),
            }
        };
        frames.into_iter().zip(&paths).zip(peeled).map(ready).collect()
    }
}

/// Packets that are ready, or will be.
struct Supply {
    chunks: Receiver<anyhow::Result<Vec<Prepared>>>,
    ready: std::vec::IntoIter<Prepared>,
}

impl Supply {
    /// Prepares all packets with all cores, or, if they are too many, starts to prepare them with one.
    fn start(recipe: Recipe, cores: usize) -> anyhow::Result<Self> {
        let beforehand = recipe.packets <= BEFOREHAND;
        let room = if beforehand { recipe.chunks() as usize } else { READY_CHUNKS };
        let (sender, chunks) = sync_channel(room);
        let work = Arc::new((recipe, AtomicU64::new(0)));
        let mut threads = Vec::new();
        for _ in 0..if beforehand { cores } else { 1 } {
            let (work, sender) = (work.clone(), sender.clone());
            threads.push(std::thread::Builder::new().name("prepare".into()).spawn(move || {
                let (recipe, next) = &*work;
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= recipe.chunks() || sender.send(recipe.chunk(n)).is_err() {
                        return;
                    }
                }
            })?);
        }
        if beforehand {
            for thread in threads {
                thread.join().map_err(|_| anyhow::anyhow!("preparing packets failed"))?;
            }
        }
        Ok(Self { chunks, ready: Vec::new().into_iter() })
    }

    /// Up to `count` packets.
    fn take(&mut self, count: usize) -> anyhow::Result<Vec<Prepared>> {
        if self.ready.len() == 0 {
            self.ready = self.chunks.recv().context("preparing packets failed")??.into_iter();
        }
        Ok(self.ready.by_ref().take(count).collect())
    }
}

/// The first bytes of a packet, as good as random.
fn name(packet: &Packet) -> [u8; 8] {
    packet.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// What the generator and the sink note.
struct Sheet {
    start: Instant,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    /// When each packet that is under way shall arrive at the earliest.
    due: HashMap<[u8; 8], Duration>,
    /// Milliseconds by which packets came later.
    excess: Vec<f32>,
    first: Option<Duration>,
    last: Duration,
}

impl Sheet {
    fn new() -> Self {
        Self { start: Instant::now(), notes: Mutex::default() }
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self, packets: &[Prepared]) {
        let now = self.start.elapsed();
        self.notes().due.extend(packets.iter().map(|p| (p.known_by, now + p.delay)));
    }

    fn arrived(&self, packets: impl Iterator<Item = Packet>) {
        let now = self.start.elapsed();
        let mut notes = self.notes();
        for packet in packets {
            // What it does not know are the mix's own loops.
            let Some(due) = notes.due.remove(&name(&packet)) else { continue };
            notes.excess.push(((now.as_secs_f64() - due.as_secs_f64()) * 1e3) as f32);
            notes.first.get_or_insert(now);
            notes.last = now;
        }
    }

    fn is_complete(&self) -> bool {
        self.notes().due.is_empty()
    }

    /// By how many milliseconds packets came late, and how long it took from the first to the last.
    fn take(&self) -> (Vec<f32>, Duration) {
        let mut notes = self.notes();
        let took = notes.last.saturating_sub(notes.first.unwrap_or_default());
        (std::mem::take(&mut notes.excess), took)
    }
}

async fn collect(mut link: Link, sheet: Arc<Sheet>) {
    let mut frames = Vec::new();
    while matches!(link.receiver.next_batch(&mut frames, 64).await, Ok(n) if n > 0) {
        let packets = frames.drain(..).filter_map(|bytes| Frame::decode(&bytes).ok());
        sheet.arrived(packets.map(|frame| frame.packet));
    }
}

/// Sends some of what is due; says how much.
async fn send(
    link: &mut Link,
    supply: &mut Supply,
    due: u64,
    sheet: &Sheet,
) -> anyhow::Result<u64> {
    if due == 0 {
        tokio::time::sleep(TICK).await;
        return Ok(0);
    }
    let packets = supply.take(due.min(16) as usize)?;
    sheet.sent(&packets);
    let frames: Vec<_> = packets.into_iter().map(|packet| packet.frame).collect();
    link.sender.send_all(&frames).await?;
    Ok(frames.len() as u64)
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
