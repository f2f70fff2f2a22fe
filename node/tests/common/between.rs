//! A real mix between two ends that the test plays: before it a gateway, which sends what it likes, behind it the only
//! mix of the last layer, which counts what comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng as _;
use shoal_host::link::{Allow, Endpoint, Identity as LinkKey, Link, LinkSettings};
use shoal_node::daemon::descriptor;
use shoal_sphinx::backend::Backend;
use shoal_sphinx::{FRAME_LEN, Frame, Hop};
use shoal_topology::*;
use tokio::runtime::Runtime;

use super::{Net, Node, Running, metric, within};

const PATIENCE: Duration = Duration::from_secs(30);

pub type Bytes = Box<[u8; FRAME_LEN]>;

/// What came to the sink: each packet by its hash, and how often.
pub type Arrived = Arc<Mutex<HashMap<[u8; 32], u32>>>;

pub struct Between {
    pub net: Net,
    pub runtime: Runtime,
    pub arrived: Arrived,
    generator: Endpoint,
    /// The generator, another gateway, and the sink.
    ends: [testing::TestNode; 3],
    rng: Stream,
}

impl Between {
    pub fn new(epoch_s: u32, max_delay_us: u64, clock_error_s: u32) -> Self {
        let mut net = Net::with_epoch(&[1], epoch_s);
        let parameters = &mut net.network.parameters;
        (parameters.layers, parameters.node_loops_per_s) = (2, 0.0);
        (parameters.max_delay_us, parameters.clock_error_s) = (max_delay_us, clock_error_s);
        parameters.classes.truncate(1);
        let class = &mut parameters.classes[0];
        class.payload_per_s = 500.0;
        class.delay = DelayLaw { exponential_us: 1_000, uniform_us: 2_000 };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (arrived, listen) =
            (Arrived::default(), std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut ends = [([41; 32], 0), ([43; 32], 0), ([42; 32], 2)]
            .map(|(n, l)| testing::TestNode::new(n, l));
        for (operator, end) in ["generator", "other", "sink"].into_iter().zip(&mut ends) {
            end.body.operator = operator.into();
        }
        let generator = runtime.block_on(async {
            let end = |node: &testing::TestNode, listen| {
                let settings =
                    LinkSettings { listen, allow: Allow::anyone(), ..LinkSettings::default() };
                Endpoint::new(&LinkKey::from_seed(&node.secret), settings).unwrap()
            };
            let mut sink = end(&ends[2], Some(listen));
            ends[2].body.addresses = vec![sink.listen_addr().unwrap()];
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
            end(&ends[0], None)
        });
        Self { net, runtime, arrived, generator, ends, rng: Stream::from_seed([6; 32]) }
    }

    pub fn mix(&self) -> &Node {
        &self.net.nodes[0]
    }

    /// Signs the document, with the keys that the mix has at present.
    pub fn sign(&self) {
        let mix = descriptor(&self.mix().config).unwrap();
        let epoch = mix.body().keys[0].first;
        let ends = self.ends.iter().map(testing::TestNode::listed);
        self.net.sign_listed(ends.chain([ListedNode::new(mix, 1)]).collect(), epoch, 0);
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
        let sink = &self.ends[2];
        let (sink, sink_key) = (sink.identity(), sink.key(epoch).public());
        let key = mix.body().key(epoch).unwrap();
        let packet = |_| {
            let delay = most.mul_f64(self.rng.random_range(0.0..1.0));
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
