//! Every backend makes of every packet in every batch what `sphinx-packet` makes of it alone.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::sync::Mutex;

use common::{backends, forged, net, on_all_cores, ours, small_order, walk};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use shoal_sphinx::backend::{Backend, Reference};
use shoal_sphinx::*;

/// In CI, unless `SHOAL_TEST_PACKETS` says how many: an emulated CPU takes fewer.
const PACKETS: u64 = 10_000;
const PACKETS_OF_A_SEED: u64 = 100;

/// What a hop makes of a packet.
#[derive(PartialEq)]
enum Outcome {
    Refused(Error),
    Nonsense(ReplayTag, Error),
    Forward(ReplayTag, Address, std::time::Duration, Packet),
    /// Also what its payload says: to its recipient, or to the one who made the SURB.
    Final(ReplayTag, Address, PacketId, Vec<u8>, Result<Vec<u8>, Error>),
}

impl Outcome {
    fn name(&self) -> String {
        match self {
            Self::Refused(error) => format!("refused: {error}"),
            Self::Nonsense(_, error) => format!("not peeled: {error}"),
            Self::Forward(..) => "forward".into(),
            Self::Final(.., Ok(_)) => "final".into(),
            Self::Final(.., Err(error)) => format!("final: {error}"),
        }
    }
}

fn peeled(
    codec: &dyn Codec,
    tag: ReplayTag,
    peeled: Result<Peeled, Error>,
    keys: Option<&SurbKeys>,
) -> Outcome {
    match peeled {
        Err(error) => Outcome::Nonsense(tag, error),
        Ok(Peeled::Forward { next, delay, packet }) => Outcome::Forward(tag, next, delay, packet),
        Ok(Peeled::Final { destination, id, payload }) => {
            let bytes = payload.as_bytes().to_vec();
            let message = match keys {
                Some(keys) => codec.unseal(keys, payload),
                None => payload.message().map(<[u8]>::to_vec),
            };
            Outcome::Final(tag, destination, id, bytes, message)
        }
    }
}

/// A packet on its way, and the keys of the SURB that it spends.
struct Member {
    kind: &'static str,
    packet: Packet,
    keys: Option<SurbKeys>,
}

fn alone(codec: &dyn Codec, hop: &SecretKey, member: &Member) -> Outcome {
    match codec.open(hop, member.packet.clone()) {
        Err(error) => Outcome::Refused(error),
        Ok(opened) => {
            let tag = *opened.tag();
            peeled(codec, tag, codec.peel(opened), member.keys.as_ref())
        }
    }
}

fn in_a_batch(codec: &dyn Codec, hop: &SecretKey, batch: &[Member]) -> Vec<Outcome> {
    // What is there already stays in front.
    let mut results = vec![Err(Error::Length)];
    let mut packets: Vec<Packet> = batch.iter().map(|member| member.packet.clone()).collect();
    codec.open_batch(hop, &mut packets, &mut results);
    assert!(packets.is_empty() && results.len() == 1 + batch.len());
    assert!(matches!(results.remove(0), Err(Error::Length)));

    let (mut opened, mut tags) = (Vec::new(), Vec::new());
    for result in results {
        tags.push(result.map(|result| {
            let tag = *result.tag();
            opened.push(result);
            tag
        }));
    }
    let (count, mut results) = (opened.len(), vec![Err(Error::Length)]);
    codec.peel_batch(&mut opened, &mut results);
    assert!(opened.is_empty() && results.len() == 1 + count);
    let mut results = results.into_iter();
    assert!(matches!(results.next(), Some(Err(Error::Length))));
    let outcome = |(tag, member): (Result<ReplayTag, Error>, &Member)| match tag {
        Err(error) => Outcome::Refused(error),
        Ok(tag) => peeled(codec, tag, results.next().unwrap(), member.keys.as_ref()),
    };
    tags.into_iter().zip(batch).map(outcome).collect()
}

/// Packets that begin at the same hop, some of them replies, some for another key further down.
fn sound(rng: &mut ChaCha12Rng, path: &[Hop], count: usize) -> Vec<Member> {
    let codec = Backend::best_codec();
    (0..count)
        .map(|_| {
            let mut path = path[..rng.random_range(1..=MAX_HOPS)].to_vec();
            let mut kind = "sound";
            if rng.random_ratio(1, 8) {
                let index = rng.random_range(0..path.len());
                path[index].key = SecretKey::generate(rng).public();
                kind = "another key";
            }
            let id = if rng.random() { rng.random() } else { [0; 16] };
            let mut message = vec![0; rng.random_range(0..=MESSAGE_LEN)];
            rng.fill_bytes(&mut message);
            if id != [0; 16] && rng.random() {
                let (surb, keys) = codec.surb(rng, &path, id).unwrap();
                let (packet, _) = codec.reply(surb, &message).unwrap();
                return Member { kind, packet, keys: Some(keys) };
            }
            Member { kind, packet: codec.seal(rng, &path, id, &message).unwrap(), keys: None }
        })
        .collect()
}

/// One of the ways in which a packet can be wrong for this hop.
fn damage(rng: &mut ChaCha12Rng, hop: &SecretKey, member: &mut Member) {
    let bytes = member.packet.as_mut_bytes();
    match rng.random_range(0..4) {
        0 => {
            bytes[rng.random_range(0..HEADER_LEN)] ^= 1 << rng.random_range(0..8);
            member.kind = "header";
        }
        1 => {
            bytes[rng.random_range(HEADER_LEN..PACKET_LEN)] ^= 1 << rng.random_range(0..8);
            member.kind = "payload";
        }
        2 => {
            let mut routing = [0; 300];
            rng.fill_bytes(&mut routing);
            routing[0] = rng.random_range(0..4);
            routing[1..4].copy_from_slice(&[0, 1, 4]);
            if rng.random() {
                routing[rng.random_range(1..4)] ^= rng.random::<u8>();
            }
            member.packet = forged(rng, hop, routing);
            member.kind = "forged";
        }
        _ => {
            let points = small_order();
            bytes[..32].copy_from_slice(&points[rng.random_range(0..points.len())]);
            member.kind = "small order";
        }
    }
}

type Counts = BTreeMap<String, u64>;

/// Batches of packets, each walked down its path; at each hop some are damaged.
fn compare(seed: u64, counts: &Mutex<Counts>) {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let others = ours();
    let mut packets = 0;
    while packets < PACKETS_OF_A_SEED {
        let net = net(rng.next_u64(), MAX_HOPS);
        // Some do not fit into what is opened together.
        let size = if rng.random_ratio(1, 16) { 31..=70 } else { 1..=17 };
        let size = rng.random_range(size);
        packets += size as u64;
        let mut batch = sound(&mut rng, &net.path, size);
        for (index, hop) in net.secrets.iter().enumerate() {
            for member in &mut batch {
                if rng.random_ratio(1, 4) {
                    damage(&mut rng, hop, member);
                }
            }
            let expected: Vec<_> =
                batch.iter().map(|member| alone(&Reference, hop, member)).collect();
            for (backend, codec) in &others {
                let found = in_a_batch(&**codec, hop, &batch);
                for ((found, expected), member) in found.iter().zip(&expected).zip(&batch) {
                    assert!(
                        found == expected,
                        "seed {seed}, {backend:?}, hop {index}, batch of {}, {}: {} for {}",
                        batch.len(),
                        member.kind,
                        found.name(),
                        expected.name()
                    );
                }
            }
            let mut counts = counts.lock().unwrap();
            let mut on = Vec::new();
            for (member, outcome) in batch.into_iter().zip(expected) {
                *counts.entry(member.kind.into()).or_default() += 1;
                *counts.entry(outcome.name()).or_default() += 1;
                if let Outcome::Forward(.., packet) = outcome {
                    on.push(Member { packet, ..member });
                }
            }
            batch = on;
        }
    }
    *counts.lock().unwrap().entry("packets".into()).or_default() += packets;
}

fn compare_all(packets: u64) {
    let counts = Mutex::default();
    on_all_cores(packets.div_ceil(PACKETS_OF_A_SEED), |seed| compare(seed, &counts));
    let counts = counts.into_inner().unwrap();
    assert!(counts["packets"] >= packets);
    // 6 kinds, 7 outcomes, the sum: none of them was forgotten.
    assert!(counts.len() == 14 && counts.values().all(|n| *n > packets / 50), "{counts:?}");
}

#[test]
fn every_backend_makes_of_a_batch_what_the_reference_makes_of_its_members() {
    let packets = std::env::var("SHOAL_TEST_PACKETS");
    compare_all(packets.map_or(PACKETS, |packets| packets.parse().unwrap()));
}

#[test]
#[ignore = "long: scripts/release-check runs it"]
fn every_backend_makes_of_a_million_packets_what_the_reference_makes_of_them() {
    compare_all(1_000_000);
}

#[test]
fn a_batch_of_none_is_none_and_codecs_without_batches_do_one_by_one() {
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let net = net(2, MAX_HOPS);
    let batch = sound(&mut rng, &net.path, 9);
    for (backend, codec) in backends() {
        assert!(in_a_batch(&*codec, &net.secrets[0], &[]).is_empty());
        let found = in_a_batch(&*codec, &net.secrets[0], &batch);
        let one_by_one = batch.iter().map(|member| alone(&*codec, &net.secrets[0], member));
        assert!(found.into_iter().eq(one_by_one), "{backend:?}");
    }
}

#[test]
fn replies_of_one_backend_open_with_another() {
    let mut net = net(9, 5);
    for (_, maker) in backends() {
        for (_, other) in backends() {
            let (surb, keys) = maker.surb(&mut net.rng, &net.path, [5; 16]).unwrap();
            let (packet, _) = other.reply(surb, b"an answer").unwrap();
            let (_, id, payload) = walk(&*other, &net, packet);
            assert_eq!(id, keys.id());
            assert_eq!(maker.unseal(&keys, payload).unwrap(), b"an answer");
        }
    }
}
