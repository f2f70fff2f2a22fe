//! What every backend builds, in batches, against what `sphinx-packet` builds alone.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::{RngExt, SeedableRng, TryCryptoRng, TryRng};
use rand_chacha::ChaCha12Rng;
use sphinx_packet::header::delays::Delay;
use sphinx_packet::route::{Destination, DestinationAddressBytes, Node, NodeAddressBytes};
use sphinx_packet::version::SINGLE_SEED_SURB_VERSION;
use sphinx_packet::{SURB, SURBMaterial, SphinxPacketBuilder};
use x25519_dalek::StaticSecret;

use super::*;
use crate::backend::{Backend, Layer, Unavailable};
use crate::{Codec, MESSAGE_LEN, PAYLOAD_LEN, Packet, Payload, PublicKey, Seal, SecretKey};

/// Packets, and as many SURBs, in CI, unless `SHOAL_TEST_PACKETS` says how many: an emulated CPU takes fewer.
const JOBS: u64 = 10_000;
const JOBS_OF_A_SEED: u64 = 100;

/// A generator that gives these bytes, and panics when they are used up.
struct Given(VecDeque<u8>);

impl TryRng for Given {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("packets are built from bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("packets are built from bytes")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.iter_mut().for_each(|byte| *byte = self.0.pop_front().unwrap());
        Ok(())
    }
}

impl TryCryptoRng for Given {}

/// The padding that the reference drew for itself, found by opening its header hop by hop.
fn padding_of(header: &[u8], secret: &[u8; 32], path: &[Hop]) -> Vec<u8> {
    let mut sender = Sender::new(secret);
    let mut routing: [u8; ROUTING_LEN] = part(header, 48);
    for hop in path {
        let keys = HopKeys::derive(&sender.share(&hop.key));
        sender.blind(&keys.blinding);
        let mut block = [0; ROUTING_LEN + HOP_LEN];
        block[..ROUTING_LEN].copy_from_slice(&routing);
        keys.apply_stream(&mut block);
        if block[0] == FINAL {
            return block[FINAL_LEN..FINAL_LEN + padding_len(path.len())].to_vec();
        }
        routing = part(&block, HOP_LEN);
    }
    panic!("no last hop");
}

/// What is to be built, and what the reference builds of it, if it can be built.
struct Job {
    path: Vec<Hop>,
    id: PacketId,
    message: Vec<u8>,
    secret: [u8; 32],
    packet: Result<Vec<u8>, Error>,
    surb: Result<Reply, Error>,
}

/// A SURB, the seeds that its maker keeps, and the packet that spends it.
#[derive(Clone)]
struct Reply {
    surb: Vec<u8>,
    seeds: Vec<u8>,
    packet: Vec<u8>,
}

fn hop(rng: &mut ChaCha12Rng) -> Hop {
    let key = match rng.random_range(0..8) {
        // Of a secret; of nobody, close to 2^255 and not reduced; of nobody, on the twist, or outside of the prime
        // subgroup.
        0 => SecretKey::generate(rng).public(),
        1 => {
            let mut u = [0xff; 32];
            (u[0], u[31]) = (rng.random_range(0xef..=0xff), 0x7f);
            PublicKey::from_bytes(u).unwrap()
        }
        _ => PublicKey::from_bytes(rng.random()).unwrap(),
    };
    Hop { address: rng.random(), key, delay: Duration::from_nanos(rng.random()) }
}

impl Job {
    fn new(rng: &mut ChaCha12Rng) -> Self {
        let mut hops = rng.random_range(1..=MAX_HOPS);
        let mut id: PacketId = rng.random();
        let mut length = rng.random_range(0..=MESSAGE_LEN);
        let (mut packet, mut surb) = (None, None);
        match rng.random_range(0..20) {
            0 => {
                hops = [0, MAX_HOPS + 1, 9][rng.random_range(0..3)];
                (packet, surb) = (Some(Error::Path), Some(Error::Path));
            }
            1 => {
                length = MESSAGE_LEN + rng.random_range(1..3);
                packet = Some(Error::MessageTooLong);
            }
            2 => {
                id = [0; 16];
                surb = Some(Error::Path);
            }
            _ => (),
        }
        let path: Vec<Hop> = (0..hops).map(|_| hop(rng)).collect();
        let message: Vec<u8> = (0..length).map(|_| rng.random()).collect();
        let mut job = Self {
            path,
            id,
            message,
            secret: rng.random(),
            packet: Err(Error::Path),
            surb: Err(Error::Path),
        };
        job.packet = packet.map_or_else(|| Ok(job.packet()), Err);
        job.surb = surb.map_or_else(|| Ok(job.surb()), Err);
        job
    }

    fn route(&self) -> (Vec<Node>, Vec<Delay>, Destination) {
        let node = |hop: &Hop| {
            let address = NodeAddressBytes::from_bytes(hop.address);
            Node::new(address, (*hop.key.as_bytes()).into())
        };
        let delay = |hop: &Hop| Delay::new_from_nanos(hop.delay.as_nanos() as u64);
        let last = DestinationAddressBytes::from_bytes(self.path.last().unwrap().address);
        let (nodes, delays) = (self.path.iter().map(node), self.path.iter().map(delay));
        (nodes.collect(), delays.collect(), Destination::new(last, self.id))
    }

    fn packet(&self) -> Vec<u8> {
        let (nodes, delays, destination) = self.route();
        SphinxPacketBuilder::new()
            .with_version(SINGLE_SEED_SURB_VERSION)
            .with_payload_size(PAYLOAD_LEN)
            .with_initial_secret(&StaticSecret::from(self.secret))
            .build_packet(&self.message, &nodes, &destination, &delays)
            .unwrap()
            .to_bytes()
    }

    fn surb(&self) -> Reply {
        let (nodes, delays, destination) = self.route();
        let material = SURBMaterial::new(nodes, delays, destination, SINGLE_SEED_SURB_VERSION);
        let (surb, recovery) =
            SURB::new_recoverable(StaticSecret::from(self.secret), material).unwrap();
        let bytes = surb.to_bytes();
        let message = &self.message[..self.message.len().min(MESSAGE_LEN)];
        let (packet, first) = surb.use_surb(message, PAYLOAD_LEN).unwrap();
        assert_eq!(first.to_bytes(), self.path[0].address);
        Reply { surb: bytes, seeds: recovery.to_bytes()[16..].to_vec(), packet: packet.to_bytes() }
    }

    /// What the reference drew for this header.
    fn drawn(&self, header: &[u8]) -> Vec<u8> {
        [self.secret.to_vec(), padding_of(header, &self.secret, &self.path)].concat()
    }
}

/// The backends of our own that this CPU can run.
fn codecs() -> Vec<(Backend, Arc<dyn Codec>)> {
    let ours = Backend::ALL.into_iter().filter(|backend| *backend != Backend::Reference);
    let runs = |backend: Backend| match backend.codec() {
        Ok(codec) => Some((backend, codec)),
        Err(Unavailable::Cpu) => None,
        Err(wrong) => panic!("{backend:?}: {wrong}"),
    };
    ours.filter_map(runs).collect()
}

/// Batches of jobs. Those that fail draw nothing, and cost only themselves.
fn build_and_compare(seed: u64) {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let (codecs, mut built) = (codecs(), 0);
    while built < JOBS_OF_A_SEED {
        let size = if rng.random_ratio(1, 16) { 31..=70 } else { 1..=17 };
        let jobs: Vec<Job> = (0..rng.random_range(size)).map(|_| Job::new(&mut rng)).collect();
        built += jobs.len() as u64;
        let drawn = |header: fn(&Job) -> Option<&[u8]>| -> VecDeque<u8> {
            jobs.iter().filter_map(|job| Some(job.drawn(header(job)?))).flatten().collect()
        };
        let for_packets = drawn(|job| job.packet.as_deref().ok());
        let for_surbs = drawn(|job| Some(&job.surb.as_ref().ok()?.surb));
        for (backend, codec) in &codecs {
            let context = |index: usize| {
                format!("seed {seed}, {backend:?}, {index} of a batch of {}", jobs.len())
            };
            let seals: Vec<Seal<'_>> = jobs
                .iter()
                .map(|Job { path, id, message, .. }| Seal { path, id: *id, message })
                .collect();
            let mut given = Given(for_packets.clone());
            let packets = codec.seal_batch(&mut given, &seals);
            assert!(given.0.is_empty() && packets.len() == jobs.len());
            for (index, (packet, job)) in packets.into_iter().zip(&jobs).enumerate() {
                let packet = packet.map(|packet| packet.as_bytes().to_vec());
                assert!(packet == job.packet, "{}", context(index));
            }

            let surbs: Vec<_> = jobs.iter().map(|job| (job.path.as_slice(), job.id)).collect();
            let mut given = Given(for_surbs.clone());
            let surbs = codec.surb_batch(&mut given, &surbs);
            assert!(given.0.is_empty() && surbs.len() == jobs.len());
            for (index, (surb, job)) in surbs.into_iter().zip(&jobs).enumerate() {
                match (surb, &job.surb) {
                    (Ok((surb, keys)), Ok(theirs)) => {
                        assert!(surb.as_bytes()[..] == theirs.surb, "{}", context(index));
                        assert!(keys.seeds.concat() == theirs.seeds, "{}", context(index));
                        assert!(keys.id() == job.id, "{}", context(index));
                        let message = &job.message[..job.message.len().min(MESSAGE_LEN)];
                        let (packet, first) = codec.reply(surb, message).unwrap();
                        assert!(packet.as_bytes()[..] == theirs.packet, "{}", context(index));
                        assert!(first == job.path[0].address, "{}", context(index));
                        let arrived = Payload(travelled(packet, &keys.seeds));
                        let opened = codec.unseal(&keys, arrived).unwrap();
                        assert!(opened == message, "{}", context(index));
                    }
                    (Err(error), Err(theirs)) if error == *theirs => (),
                    _ => panic!("{}", context(index)),
                }
            }
        }
    }
}

/// A reply whose payload every hop of a path has decrypted.
fn travelled(mut packet: Packet, seeds: &[[u8; 16]]) -> Packet {
    for seed in seeds {
        Kernel::Scalar.decrypt(&mut [Layer { seed, payload: packet.split_mut().1 }]);
    }
    packet
}

/// On all cores.
fn build_and_compare_all(jobs: u64) {
    let next = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= jobs.div_ceil(JOBS_OF_A_SEED) {
                        return;
                    }
                    if seed % 1_000 == 999 {
                        eprintln!("{} of {jobs}", seed * JOBS_OF_A_SEED);
                    }
                    build_and_compare(seed);
                }
            });
        }
    });
}

/// Also for keys on the twist and outside of the prime subgroup, to which no secret is known.
#[test]
fn what_is_built_is_what_the_reference_builds() {
    let jobs = std::env::var("SHOAL_TEST_PACKETS");
    build_and_compare_all(jobs.map_or(JOBS, |jobs| jobs.parse().unwrap()));
}

#[test]
#[ignore = "long: scripts/release-check runs it"]
fn a_million_that_are_built_are_what_the_reference_builds() {
    build_and_compare_all(1_000_000);
}
