//! A real mix between two ends that the test plays: before it a gateway, which sends what it likes, behind it the only
//! mix of the last layer, which counts what comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng as _;
use shoal_host::link::{Allow, Endpoint, Identity as LinkKey, Link, Settings};
use shoal_node::daemon::descriptor;
use shoal_sphinx::backend::Backend;
use shoal_sphinx::{FRAME_LEN, Frame, Hop, SecretKey};
use shoal_topology::*;
use tokio::runtime::Runtime;

use super::{Net, Node, Running, metric, within};

const PATIENCE: Duration = Duration::from_secs(30);
const GATEWAY: [u8; 32] = [41; 32];
const SINK: [u8; 32] = [42; 32];
const OTHER: [u8; 32] = [43; 32];

pub type Bytes = Box<[u8; FRAME_LEN]>;

/// What came to the sink: each packet by its hash, and how often.
pub type Arrived = Arc<Mutex<HashMap<[u8; 32], u32>>>;

pub struct Between {
    pub net: Net,
    pub runtime: Runtime,
    pub arrived: Arrived,
    generator: Endpoint,
    sink_at: std::net::SocketAddr,
    rng: Stream,
}

impl Between {
    pub fn new(epoch_s: u32, max_delay_us: u64, clock_error_s: u32) -> Self {
        let mut net = Net::with_epoch(&[1], epoch_s);
        net.parameters = Parameters {
            layers: 2,
            max_delay_us,
            clock_error_s,
            node_loops_per_s: 0.0,
            ..net.parameters
        };
        net.parameters.classes.truncate(1);
        let class = &mut net.parameters.classes[0];
        class.payload_per_s = 500.0;
        class.delay = DelayLaw { exponential_us: 1_000, uniform_us: 2_000 };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (arrived, listen) =
            (Arrived::default(), std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
        let (generator, sink_at) = runtime.block_on(async {
            let end = |seed: [u8; 32], listen| {
                let settings = Settings { listen, allow: Allow::anyone(), ..Settings::default() };
                Endpoint::new(&LinkKey::from_seed(&seed), settings).unwrap()
            };
            let mut sink = end(SINK, Some(listen));
            let sink_at = sink.listen_addr().unwrap();
            let arrived = arrived.clone();
            tokio::spawn(async move {
                while let Some(mut link) = sink.accept().await {
                    let arrived = arrived.clone();
                    tokio::spawn(async move {
                        let mut frames = Vec::new();
                        while let Ok(1..) = link.receiver.next_batch(&mut frames, 16).await {
                            let mut arrived = arrived.lock().unwrap();
                            for frame in frames.drain(..) {
                                *arrived
                                    .entry(*blake3::hash(&frame[..]).as_bytes())
                                    .or_default() += 1;
                            }
                        }
                    });
                }
            });
            (end(GATEWAY, None), sink_at)
        });
        Self { net, runtime, arrived, generator, sink_at, rng: Stream::from_seed([6; 32]) }
    }

    pub fn mix(&self) -> &Node {
        &self.net.nodes[0]
    }

    /// Signs the document, with the keys that the mix has at present.
    pub fn sign(&self) {
        let mix = descriptor(&self.mix().config).unwrap();
        let epoch = mix.body().keys[0].first;
        let end = |seed: [u8; 32], role, operator: &str, address, layer| {
            let secret = SecretIdentity::from_bytes(&seed);
            let body = NodeDescriptor {
                identity: secret.identity(),
                role,
                addresses: vec![address],
                operator: operator.into(),
                jurisdiction: "here".into(),
                packets_per_s: 2_000,
                keys: vec![EpochKey {
                    first: Epoch(0),
                    last: Epoch(u64::MAX),
                    key: *SecretKey::from_bytes(seed).public().as_bytes(),
                }],
                signed_at: 0,
            };
            ListedNode::new(Signed::<NodeDescriptor>::new(body, &secret), layer)
        };
        let nobody = "127.0.0.1:1".parse().unwrap();
        let nodes = vec![
            ListedNode::new(mix, 1),
            end(SINK, Role::Mix, "sink", self.sink_at, 2),
            end(GATEWAY, Role::Gateway, "generator", nobody, 0),
            end(OTHER, Role::Gateway, "other", nobody, 0),
        ];
        self.net.sign_listed(nodes, epoch, 0);
    }

    pub fn start(&self) -> Running {
        let running = self.mix().start();
        self.linked();
        running
    }

    /// Waits until the mix does its work.
    pub fn linked(&self) {
        within(PATIENCE, "the link to the sink", || {
            metric(self.mix().admin(), "shoal_node_links_up").filter(|up| *up == 1)
        });
    }

    /// A link to the mix, of the gateway's.
    pub fn dial(&self) -> Link {
        let mix = descriptor(&self.mix().config).unwrap().body().identity;
        within(PATIENCE, "a link to the mix", || {
            let dial = self.generator.dial(mix.0, self.mix().config.listen_address().unwrap());
            self.runtime.block_on(dial).ok()
        })
    }

    /// Packets through the mix to the sink, for its key of an epoch, with random delays up to `most`.
    pub fn packets(&mut self, count: usize, epoch: Epoch, most: Duration) -> Vec<Bytes> {
        use rand::RngExt as _;
        let mix = descriptor(&self.mix().config).unwrap();
        let sink = SecretIdentity::from_bytes(&SINK).identity();
        let key = mix.body().key(epoch).unwrap();
        let packet = |_| {
            let delay = most.mul_f64(self.rng.random_range(0.0..1.0));
            let sink_key = SecretKey::from_bytes(SINK).public();
            let path = [
                Hop { address: mix.body().identity.0, key, delay },
                Hop { address: sink.0, key: sink_key, delay: Duration::ZERO },
            ];
            let packet = Backend::best_codec().seal(&mut self.rng, &path, [0; 16], b"x").unwrap();
            Frame { epoch: epoch.low_byte(), field: 0, packet }.encode()
        };
        (0..count).map(packet).collect()
    }

    /// The mix's counter of drops.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.mix().number(&format!("/dropped/{reason}")).unwrap_or_default()
    }

    /// Packets that came to the sink, and how often the one came that came most often.
    pub fn seen(&self) -> (usize, u32) {
        let arrived = self.arrived.lock().unwrap();
        (arrived.len(), arrived.values().copied().max().unwrap_or_default())
    }
}
