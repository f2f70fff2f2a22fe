//! What a machine can do, for an operator who must declare a rate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::Rng as _;
use shoal_sphinx::backend::{Backend, Reference};
use shoal_sphinx::{Codec, Hop, Packet, SecretKey};
use shoal_topology::{Seed, Stream};

/// Alternations with the reference. Their medians shrug off what else the machine does meanwhile.
const ROUNDS: usize = 31;
/// Packets opened, and built, in a turn.
const PEELED: usize = 64;
const BUILT: usize = 16;
/// How long all cores peel.
const ALL_CORES: Duration = Duration::from_secs(2);

/// Microseconds for one: a hop opened, a packet sealed to five hops, a SURB of five hops.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Times {
    /// Opening, with blinding and payload.
    pub peel_us: f64,
    /// A packet to five hops.
    pub seal5_us: f64,
    /// A SURB of five hops.
    pub surb_us: f64,
}

/// What was measured. A ratio is the reference's time over ours, from the same run.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Figures {
    /// Name of the backend.
    pub backend: &'static str,
    /// What the processor calls itself.
    pub cpu: String,
    /// The backend's.
    #[serde(flatten)]
    pub times: Times,
    /// Those of `sphinx-packet`, in turns with the backend.
    pub reference: Times,
    /// How many times as fast hops are opened.
    pub peel_ratio: f64,
    /// How many times as fast packets are sealed.
    pub seal5_ratio: f64,
    /// How many times as fast SURBs are made.
    pub surb_ratio: f64,
    /// Hops opened a second, on all cores at once.
    pub peel_per_s_all_cores: f64,
    /// Those cores.
    pub cores: usize,
}

struct Material {
    rng: Stream,
    secret: SecretKey,
    path: Vec<Hop>,
    packets: Vec<Packet>,
}

impl Material {
    fn new() -> Self {
        let mut rng = Seed::from_u64(1).stream("bench");
        let secrets: Vec<SecretKey> = (0..5).map(|_| SecretKey::generate(&mut rng)).collect();
        let hop = |secret: &SecretKey| {
            let mut address = [0; 32];
            rng.fill_bytes(&mut address);
            Hop { address, key: secret.public(), delay: Duration::from_millis(15) }
        };
        let path: Vec<Hop> = secrets.iter().map(hop).collect();
        let sealed = |_| Backend::best().codec().seal(&mut rng, &path, [1; 16], &[5; 2_000]).ok();
        let packets = (0..PEELED).filter_map(sealed).collect();
        let secret = secrets.first().cloned().unwrap_or_else(|| SecretKey::from_bytes([1; 32]));
        Self { rng, secret, path, packets }
    }

    /// One turn with a codec.
    fn turn(&mut self, codec: &dyn Codec) -> Times {
        let packets = self.packets.clone();
        let peel_us = us(PEELED, || {
            for packet in packets {
                let opened = codec.open(&self.secret, packet);
                std::hint::black_box(opened.and_then(|opened| codec.peel(opened)).is_ok());
            }
        });
        self.build(codec, peel_us)
    }

    /// One turn with `sphinx-packet` alone, without the checks that our codec adds to it.
    fn turn_of_reference(&mut self) -> Times {
        let peel_us = us(PEELED, || {
            for packet in &self.packets {
                std::hint::black_box(Reference::process(&self.secret, packet));
            }
        });
        self.build(&Reference, peel_us)
    }

    fn build(&mut self, codec: &dyn Codec, peel_us: f64) -> Times {
        let message = [5; 2_000];
        let seal5_us = us(BUILT, || {
            for _ in 0..BUILT {
                let sealed = codec.seal(&mut self.rng, &self.path, [1; 16], &message);
                std::hint::black_box(sealed.is_ok());
            }
        });
        let surb_us = us(BUILT, || {
            for _ in 0..BUILT {
                std::hint::black_box(codec.surb(&mut self.rng, &self.path, [1; 16]).is_ok());
            }
        });
        Times { peel_us, seal5_us, surb_us }
    }
}

/// Microseconds for one of `count`.
fn us(count: usize, work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1e6 / count as f64
}

fn median(turns: &[Times], of: impl Fn(&Times) -> f64) -> f64 {
    let mut values: Vec<f64> = turns.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn medians(turns: &[Times]) -> Times {
    Times {
        peel_us: median(turns, |turn| turn.peel_us),
        seal5_us: median(turns, |turn| turn.seal5_us),
        surb_us: median(turns, |turn| turn.surb_us),
    }
}

/// Measures a backend against the reference; takes some seconds.
pub fn bench(backend: Backend) -> Figures {
    let codec = backend.codec();
    let mut material = Material::new();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(material.turn_of_reference());
        ours.push(material.turn(&*codec));
    }
    let (times, reference) = (medians(&ours), medians(&theirs));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let peel = |secret: &SecretKey, packet: &Packet| {
        let opened = codec.open(secret, packet.clone());
        opened.and_then(|opened| codec.peel(opened)).is_ok()
    };
    Figures {
        backend: backend.name(),
        cpu: cpu(),
        times,
        reference,
        peel_ratio: reference.peel_us / times.peel_us,
        seal5_ratio: reference.seal5_us / times.seal5_us,
        surb_ratio: reference.surb_us / times.surb_us,
        peel_per_s_all_cores: all_cores(peel, cores),
        cores,
    }
}

/// Hops that `sphinx-packet` opens a second, on so many threads.
pub fn reference_all_cores(cores: usize) -> f64 {
    all_cores(Reference::process, cores)
}

fn all_cores(open: impl Fn(&SecretKey, &Packet) -> bool + Sync, cores: usize) -> f64 {
    let material = Material::new();
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let opened: u64 = std::thread::scope(|scope| {
        let work = || {
            let mut opened = 0;
            while !stop.load(Ordering::Relaxed) {
                for packet in &material.packets {
                    opened += u64::from(std::hint::black_box(open(&material.secret, packet)));
                }
            }
            opened
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        std::thread::sleep(ALL_CORES);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
    });
    opened as f64 / began.elapsed().as_secs_f64()
}

fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = text.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    named.map_or_else(|| std::env::consts::ARCH.into(), |name| name.trim().to_owned())
}
