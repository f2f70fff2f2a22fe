//! What a machine can do, for an operator who must declare a rate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::Rng as _;
use shoal_sphinx::backend::{Backend, Part, Reference, Unavailable};
use shoal_sphinx::{Codec, Error, Hop, Opened, Packet, Peeled, Seal, SecretKey};
use shoal_topology::{Seed, Stream};

/// Alternations with the reference. Their medians shrug off what else the machine does meanwhile.
const ROUNDS: usize = 31;
/// Packets opened, and built, in a turn, at least.
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
    /// Packets that it was given at once.
    pub batch: usize,
    /// What the processor calls itself.
    pub cpu: String,
    /// What the backend takes.
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
    /// Hops opened a second, on one core.
    pub peel_per_s_one_core: f64,
    /// Hops opened a second, on all cores at once.
    pub peel_per_s_all_cores: f64,
    /// How many cores were busy for `peel_per_s_all_cores`.
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
        let sealed = |_| Backend::best_codec().seal(&mut rng, &path, [1; 16], &[5; 2_000]).ok();
        let packets = (0..PEELED).filter_map(sealed).collect();
        let secret = secrets.first().cloned().unwrap_or_else(|| SecretKey::from_bytes([1; 32]));
        Self { rng, secret, path, packets }
    }

    /// One turn with a codec, in batches.
    fn turn(&mut self, codec: &dyn Codec, batch: usize) -> Times {
        let (mut packets, mut room) = (self.batches(batch), BenchBuffers::default());
        let count = packets.iter().map(Vec::len).sum();
        let peel_us = us(count, || {
            packets.iter_mut().for_each(|batch| _ = peel(codec, &self.secret, batch, &mut room));
        });
        self.build(codec, batch, peel_us)
    }

    /// One turn with `sphinx-packet` alone, without the checks that our codec adds to it.
    fn turn_of_reference(&mut self) -> Times {
        let peel_us = us(self.packets.len(), || {
            for packet in &self.packets {
                std::hint::black_box(Reference::process(&self.secret, packet));
            }
        });
        self.build(&Reference, 1, peel_us)
    }

    /// Copies of the packets, in batches of this size.
    fn batches(&self, batch: usize) -> Vec<Vec<Packet>> {
        let count = self.packets.len().next_multiple_of(batch);
        let packets: Vec<Packet> = self.packets.iter().cycle().take(count).cloned().collect();
        packets.chunks(batch).map(<[Packet]>::to_vec).collect()
    }

    fn build(&mut self, codec: &dyn Codec, batch: usize, peel_us: f64) -> Times {
        let message = [5; 2_000];
        let seal = Seal { path: &self.path, id: [1; 16], message: &message };
        let (seals, surbs) = (vec![seal; batch], vec![(self.path.as_slice(), [1; 16]); batch]);
        let turns = BUILT.div_ceil(batch);
        let seal5_us = us(turns * batch, || {
            for _ in 0..turns {
                std::hint::black_box(codec.seal_batch(&mut self.rng, &seals));
            }
        });
        let surb_us = us(turns * batch, || {
            for _ in 0..turns {
                std::hint::black_box(codec.surb_batch(&mut self.rng, &surbs));
            }
        });
        Times { peel_us, seal5_us, surb_us }
    }
}

/// Where packets are on their way through a codec.
#[derive(Default)]
struct BenchBuffers {
    opened: Vec<Result<Opened, Error>>,
    sound: Vec<Opened>,
    peeled: Vec<Result<Peeled, Error>>,
}

/// Opens a batch, as workers do but for the replay table; how many were sound.
fn peel(
    codec: &dyn Codec,
    secret: &SecretKey,
    batch: &mut Vec<Packet>,
    room: &mut BenchBuffers,
) -> usize {
    codec.open_batch(secret, batch, &mut room.opened);
    room.sound.extend(room.opened.drain(..).filter_map(Result::ok));
    codec.peel_batch(&mut room.sound, &mut room.peeled);
    room.peeled.drain(..).filter(|peeled| std::hint::black_box(peeled).is_ok()).count()
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

/// Measures a backend, in batches of this size, against the reference; takes some seconds.
///
/// # Errors
/// [`Unavailable`]: the backend does not run here.
pub fn bench(backend: Backend, batch: usize) -> Result<Figures, Unavailable> {
    let codec = backend.codec()?;
    let mut material = Material::new();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(material.turn_of_reference());
        ours.push(material.turn(&*codec, batch));
    }
    let (times, reference) = (medians(&ours), medians(&theirs));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let batches = material.batches(batch);
    let secret = &material.secret;
    let worker = || {
        let (mut packets, mut room) = (Vec::new(), BenchBuffers::default());
        let (codec, batches) = (&codec, &batches);
        move || {
            let one = |batch: &Vec<Packet>| {
                packets.extend(batch.iter().cloned());
                peel(&**codec, secret, &mut packets, &mut room)
            };
            batches.iter().map(one).sum()
        }
    };
    Ok(Figures {
        backend: backend.name(),
        batch,
        cpu: cpu(),
        times,
        reference,
        peel_ratio: reference.peel_us / times.peel_us,
        seal5_ratio: reference.seal5_us / times.seal5_us,
        surb_ratio: reference.surb_us / times.surb_us,
        peel_per_s_one_core: on_cores(worker, 1),
        peel_per_s_all_cores: on_cores(worker, cores),
        cores,
    })
}

/// Microseconds that each part of a hop's work takes a packet, in batches of this size.
///
/// # Errors
/// [`Unavailable`]: the backend does not run here.
pub fn parts(backend: Backend, batch: usize) -> Result<Vec<(&'static str, f64)>, Unavailable> {
    let turns = PEELED.div_ceil(batch);
    let time = |(name, mut part): Part| {
        let mut times: Vec<f64> =
            (0..ROUNDS).map(|_| us(turns * batch, || (0..turns).for_each(|_| part()))).collect();
        times.sort_by(f64::total_cmp);
        (name, times.get(ROUNDS / 2).copied().unwrap_or_default())
    };
    Ok(backend.parts(batch)?.into_iter().map(time).collect())
}

/// Hops that `sphinx-packet` opens a second, on so many threads.
pub fn reference_all_cores(cores: usize) -> f64 {
    let Material { packets, secret, .. } = &Material::new();
    let opens = |packet: &&Packet| std::hint::black_box(Reference::process(secret, packet));
    on_cores(|| || packets.iter().filter(opens).count(), cores)
}

/// What threads do a second, each with a worker of its own that says how much it did in a turn.
fn on_cores<W: FnMut() -> usize + Send>(worker: impl Fn() -> W, cores: usize) -> f64 {
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let done: usize = std::thread::scope(|scope| {
        let work = |mut turn: W| {
            let mut done = 0;
            while !stop.load(Ordering::Relaxed) {
                done += turn();
            }
            done
        };
        let threads: Vec<_> = (0..cores)
            .map(|_| {
                let turn = worker();
                scope.spawn(move || work(turn))
            })
            .collect();
        std::thread::sleep(ALL_CORES);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
    });
    done as f64 / began.elapsed().as_secs_f64()
}

fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = text.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    named.map_or_else(|| std::env::consts::ARCH.into(), |name| name.trim().to_owned())
}
