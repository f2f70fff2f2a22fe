//! The codec of the deployed network, put together from the primitives of `sphinx-packet`.
//!
//! That crate is the judge of the format, and the tests hold both equal, byte for byte. What it does not offer:
//! a look at the version before its parser (which has a debug assertion that a sender can trip), building with
//! one multiplication for each hop, a packet whose every byte follows from the caller's generator, and batches.

use std::time::Duration;

use arrayvec::ArrayVec;
use rand::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::backend::{Kernel, Layer, wipe_stack};
use crate::header::{self, Built, FINAL, FORWARD, HeaderDraft};
use crate::hop_keys::{HOP_LEN, HopKeys, ROUTING_LEN, VERSION, part};
use crate::packet::{pad, unpad};
use crate::{
    Address, Codec, Error, HEADER_LEN, Hop, HopState, MESSAGE_LEN, Opened, Packet, PacketId,
    Payload, Peeled, ReplayTag, SURB_LEN, Seal, SecretKey, Surb, SurbKeys,
};

/// Packets that are opened together.
const BATCH: usize = 32;

/// The wire format itself.
#[derive(Clone, Copy)]
pub struct Sphinx {
    kernel: Kernel,
}

impl Sphinx {
    /// One packet at a time.
    pub const SCALAR: Self = Self::new(Kernel::Scalar);

    pub(crate) const fn new(kernel: Kernel) -> Self {
        Self { kernel }
    }

    /// Opens up to [`BATCH`] packets. The caller wipes the stack, where moved keys stay behind.
    #[inline(never)]
    fn open_some(
        self,
        secret: &SecretKey,
        packets: ArrayVec<Packet, BATCH>,
        mut result: impl FnMut(Result<Opened, Error>),
    ) {
        // In place, so that no copy stays behind on the stack.
        let mut scalars = Zeroizing::new([[0; 32]; BATCH]);
        scalars.fill(*secret.as_bytes());
        let points: ArrayVec<[u8; 32], BATCH> =
            packets.iter().map(|packet| part(packet.as_bytes(), 0)).collect();
        let mut shared = Zeroizing::new([[0; 32]; BATCH]);
        // Arrays of a fixed length on the stack: a batch allocates nothing, and what held keys is wiped where it
        // stood.
        let (scalars, _) = scalars.split_at(packets.len());
        let (shared, _) = shared.split_at_mut(packets.len());
        self.kernel.multiply(scalars, &points, shared);

        let mut keys = ArrayVec::<HopKeys, BATCH>::new();
        self.kernel.hop_keys(shared, |_, derived| keys.push(derived));
        let mac_keys: ArrayVec<[u8; 16], BATCH> = keys.iter().map(|keys| keys.mac).collect();
        let mac_keys = Zeroizing::new(mac_keys);
        let blocks: ArrayVec<&[u8; ROUTING_LEN], BATCH> =
            packets.iter().map(Packet::routing).collect();
        let mut macs = [[0; 16]; BATCH];
        self.kernel.macs(&mac_keys, &blocks, &mut macs);
        drop(blocks);

        for (((packet, keys), shared), mac) in packets.into_iter().zip(keys).zip(shared).zip(macs) {
            // Both in constant time and both always: how long it takes must not tell which bytes of a MAC were right.
            let is_low_order = bool::from(shared.ct_eq(&[0; 32]));
            let is_authentic = bool::from(mac.ct_eq(&part::<16>(packet.as_bytes(), 32)));
            result(match (is_low_order, is_authentic) {
                (true, _) => Err(Error::LowOrder),
                (_, false) => Err(Error::Mac),
                _ => {
                    let tag = ReplayTag(keys.tag);
                    Ok(Opened { tag, packet, state: HopState::Keys(keys) })
                }
            });
        }
    }

    /// Does the rest of a hop's work for up to [`BATCH`] packets. The caller wipes the stack.
    #[inline(never)]
    fn peel_some(
        self,
        opened: ArrayVec<Opened, BATCH>,
        mut result: impl FnMut(Result<Peeled, Error>),
    ) {
        let mut packets: ArrayVec<Looked, BATCH> = opened.into_iter().map(look).collect();

        let mut layers: ArrayVec<Layer<'_>, BATCH> = packets
            .iter_mut()
            .filter_map(|(packet, found)| {
                let (keys, _) = found.as_ref().ok()?;
                Some(Layer { seed: &keys.payload_seed, payload: packet.split_mut().1 })
            })
            .collect();
        // A layer comes off at every hop. At the last one it is the last, and the payload can be read.
        self.kernel.decrypt(&mut layers);
        drop(layers);

        let mut scalars = Zeroizing::new(ArrayVec::<[u8; 32], BATCH>::new());
        let mut points = ArrayVec::<[u8; 32], BATCH>::new();
        for (packet, found) in &packets {
            // The last hop has no next one, so its point is blinded for nobody. What fails has nothing to be blinded.
            if let Ok((keys, Found::Next { .. })) = found {
                scalars.push(keys.blinding);
                points.push(part(packet.as_bytes(), 0));
            }
        }
        let mut blinded = [[0; 32]; BATCH];
        let (now, _) = blinded.split_at_mut(points.len());
        self.kernel.multiply(&scalars, &points, now);

        let mut blinded = blinded.into_iter();
        for (mut packet, found) in packets {
            result(found.map(|(_, found)| match found {
                Found::End { destination, id } => {
                    Peeled::Final { destination, id, payload: Payload(packet) }
                }
                Found::Next { next, delay } => {
                    let (point, _) = packet.split_mut().0.split_at_mut(32);
                    // In the order in which they were pushed above: one for each packet that goes on.
                    point.copy_from_slice(&blinded.next().unwrap_or_default());
                    Peeled::Forward { next, delay, packet }
                }
            }));
        }
    }

    /// Peels the next [`BATCH`] of these, in a frame of its own, since they carry keys. False if there is none.
    #[inline(never)]
    fn peel_next(
        self,
        opened: &mut std::vec::Drain<'_, Opened>,
        peeled: &mut Vec<Result<Peeled, Error>>,
    ) -> bool {
        let some: ArrayVec<Opened, BATCH> = opened.by_ref().take(BATCH).collect();
        let is_some = !some.is_empty();
        self.peel_some(some, |result| peeled.push(result));
        is_some
    }

    /// Packets of these headers, each with the layers of its seeds, the first outermost.
    fn assemble(self, parts: &[Part<'_>]) -> Vec<Result<Packet, Error>> {
        let mut packets: Vec<Result<Packet, Error>> = parts
            .iter()
            .map(|(header, _, message)| {
                let mut packet = Packet::default();
                let (front, payload) = packet.split_mut();
                front.copy_from_slice(header);
                pad(message, payload)?;
                Ok(packet)
            })
            .collect();
        let most = parts.iter().map(|(_, seeds, _)| seeds.len()).max().unwrap_or_default();
        // The layer of the last hop goes on first. Paths of a batch may differ in length; the shorter ones drop out
        // in the end.
        for from_end in 0..most {
            let mut layers: Vec<Layer<'_>> = packets
                .iter_mut()
                .zip(parts)
                .filter_map(|(packet, (_, seeds, _))| {
                    let seed = seeds.iter().rev().nth(from_end)?;
                    Some(Layer { seed, payload: packet.as_mut().ok()?.split_mut().1 })
                })
                .collect();
            self.kernel.encrypt(&mut layers);
        }
        packets
    }
}

/// A header, the seeds of the layers, a message.
type Part<'a> = (&'a [u8], &'a [[u8; 16]], &'a [u8]);

/// What a hop's part of the routing block says.
enum Found {
    Next { next: Address, delay: Duration },
    End { destination: Address, id: PacketId },
}

/// A packet, and what its routing block says.
type Looked = (Packet, Result<(HopKeys, Found), Error>);

/// Reads the routing block, and moves what is left of it up by one hop.
fn look(opened: Opened) -> Looked {
    let Opened { mut packet, state: HopState::Keys(keys), .. } = opened else {
        return (opened.packet, Err(Error::Mac));
    };
    // What comes in at the end is the key stream over zeros.
    // Longer than the block by one hop: what leaves at the front is made up for at the end, so that the length stays.
    let mut routing = [0; ROUTING_LEN + HOP_LEN];
    let (known, _) = routing.split_at_mut(ROUTING_LEN);
    known.copy_from_slice(packet.routing());
    keys.apply_stream(&mut routing);

    // Before anything else is read: another version would have another meaning for the bytes behind it.
    if part::<3>(&routing, 1) != VERSION {
        return (packet, Err(Error::Version));
    }
    let address: Address = part(&routing, 4);
    let found = match part(&routing, 0) {
        [FORWARD] => {
            let (_, rest) = packet.split_mut().0.split_at_mut(32);
            rest.copy_from_slice(&part::<{ HEADER_LEN - 32 }>(&routing, 44));
            let delay = Duration::from_nanos(u64::from_be_bytes(part(&routing, 36)));
            Found::Next { next: address, delay }
        }
        [FINAL] => Found::End { destination: address, id: part(&routing, 36) },
        _ => return (packet, Err(Error::Routing)),
    };
    (packet, Ok((keys, found)))
}

/// Headers for what can be built, in the places of their jobs. The caller wipes the stack.
#[inline(never)]
fn build<'a>(
    kernel: Kernel,
    rng: &mut dyn CryptoRng,
    jobs: impl Iterator<Item = Result<(&'a [Hop], PacketId), Error>>,
) -> Vec<Result<Built, Error>> {
    let (mut drafts, mut failures) = (Vec::new(), Vec::new());
    for job in jobs {
        // Drawn in the order of the jobs and before any of them is built: the batch has the bytes that one at a time
        // would have.
        let draft = job.and_then(|(path, id)| HeaderDraft::new(rng, path, id));
        failures.push(draft.map(|draft| drafts.push(draft)));
    }
    let mut built = header::build(kernel, &drafts).into_iter();
    failures
        .into_iter()
        .map(|failure| failure.and_then(|()| built.next().ok_or(Error::Path)))
        .collect()
}

impl Codec for Sphinx {
    fn seal(
        &self,
        rng: &mut dyn CryptoRng,
        path: &[Hop],
        id: PacketId,
        message: &[u8],
    ) -> Result<Packet, Error> {
        let sealed = self.seal_batch(rng, &[Seal { path, id, message }]);
        sealed.into_iter().next().unwrap_or(Err(Error::Path))
    }

    fn surb(
        &self,
        rng: &mut dyn CryptoRng,
        path: &[Hop],
        id: PacketId,
    ) -> Result<(Surb, SurbKeys), Error> {
        self.surb_batch(rng, &[(path, id)]).into_iter().next().unwrap_or(Err(Error::Path))
    }

    fn reply(&self, surb: Surb, message: &[u8]) -> Result<(Packet, Address), Error> {
        let (header, rest) = surb.as_bytes().split_at(HEADER_LEN);
        // The one layer that the replier puts on, under the key of the last seed.
        let seed = Zeroizing::new([part::<16>(rest, 32)]);
        let packet = self.assemble(&[(header, seed.as_slice(), message)]).into_iter().next();
        Ok((packet.unwrap_or(Err(Error::Path))?, part(rest, 0)))
    }

    fn open(&self, secret: &SecretKey, packet: Packet) -> Result<Opened, Error> {
        let mut opened = Err(Error::Mac);
        self.open_some(secret, ArrayVec::from_iter([packet]), |result| opened = result);
        wipe_stack();
        opened
    }

    fn peel(&self, opened: Opened) -> Result<Peeled, Error> {
        let mut peeled = Err(Error::Mac);
        self.peel_some(ArrayVec::from_iter([opened]), |result| peeled = result);
        wipe_stack();
        peeled
    }

    fn seal_batch(
        &self,
        rng: &mut dyn CryptoRng,
        batch: &[Seal<'_>],
    ) -> Vec<Result<Packet, Error>> {
        let jobs = batch.iter().map(|job| match job.message.len() {
            0..=MESSAGE_LEN => Ok((job.path, job.id)),
            _ => Err(Error::MessageTooLong),
        });
        let headers = build(self.kernel, rng, jobs);
        wipe_stack();
        let parts = headers.iter().zip(batch).filter_map(|(built, job)| {
            let Built { header, seeds } = built.as_ref().ok()?;
            Some((header.as_slice(), seeds.as_slice(), job.message))
        });
        let mut packets = self.assemble(&parts.collect::<Vec<_>>()).into_iter();
        let in_place = |built: &Result<Built, Error>| match built {
            Ok(_) => packets.next().unwrap_or(Err(Error::Path)),
            Err(error) => Err(*error),
        };
        headers.iter().map(in_place).collect()
    }

    fn surb_batch(
        &self,
        rng: &mut dyn CryptoRng,
        batch: &[(&[Hop], PacketId)],
    ) -> Vec<Result<(Surb, SurbKeys), Error>> {
        // All zeros is what packets without an identifier bear: the maker could not tell its reply from them.
        let has_id = |id| if id == [0; 16] { Err(Error::Path) } else { Ok(id) };
        let jobs = batch.iter().map(|(path, id)| Ok((*path, has_id(*id)?)));
        let surb = |built: Result<Built, Error>, (path, id): &(&[Hop], PacketId)| {
            let Built { header, seeds } = built?;
            let mut bytes = Zeroizing::new(Vec::with_capacity(SURB_LEN));
            bytes.extend(header);
            bytes.extend(path.first().ok_or(Error::Path)?.address);
            // Only the seed of the last hop goes out. The others are those that hops add, and only the maker can take
            // them off.
            bytes.extend(seeds.last().ok_or(Error::Path)?);
            Ok((Surb::from_slice(&bytes)?, SurbKeys { id: *id, seeds }))
        };
        let headers = build(self.kernel, rng, jobs).into_iter();
        wipe_stack();
        headers.zip(batch).map(|(built, job)| surb(built, job)).collect()
    }

    fn open_batch(
        &self,
        secret: &SecretKey,
        packets: &mut Vec<Packet>,
        opened: &mut Vec<Result<Opened, Error>>,
    ) {
        let mut packets = packets.drain(..);
        loop {
            let some: ArrayVec<Packet, BATCH> = packets.by_ref().take(BATCH).collect();
            if some.is_empty() {
                return;
            }
            self.open_some(secret, some, |result| opened.push(result));
            wipe_stack();
        }
    }

    fn peel_batch(&self, opened: &mut Vec<Opened>, peeled: &mut Vec<Result<Peeled, Error>>) {
        let mut opened = opened.drain(..);
        while self.peel_next(&mut opened, peeled) {
            wipe_stack();
        }
    }

    fn unseal(&self, keys: &SurbKeys, payload: Payload) -> Result<Vec<u8>, Error> {
        // Each hop removed a layer that was never put on, its maker the one that was.
        let Payload(mut packet) = payload;
        let (_, payload) = packet.split_mut();
        for seed in keys.seeds.iter().rev() {
            self.kernel.encrypt(&mut [Layer { seed, payload }]);
        }
        let seed = keys.seeds.last().ok_or(Error::Payload)?;
        self.kernel.decrypt(&mut [Layer { seed, payload }]);
        unpad(payload.as_slice()).map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::backend::Backend;
    use crate::backend::stack::DEPTH;
    use crate::backend::stack::tests::{found, look_below, words};

    const KEY: [u8; 32] = [0x5d; 32];

    /// Packets for two hops, the secrets that the first shares with their makers, and what it blinds them by.
    fn packets(count: usize) -> (Vec<Packet>, Vec<[u8; 32]>, Vec<[u8; 32]>) {
        let mut rng = rand_chacha::ChaCha12Rng::seed_from_u64(9);
        let hop = |secret| Hop {
            address: [1; 32],
            key: SecretKey::from_bytes(secret).public(),
            delay: Duration::from_millis(1),
        };
        let path = [hop(KEY), hop([0x5e; 32])];
        let job = Seal { path: &path, id: [0; 16], message: b"x" };
        let sealed = Sphinx::SCALAR.seal_batch(&mut rng, &vec![job; count]);
        let packets: Vec<Packet> = sealed.into_iter().map(Result::unwrap).collect();
        let point = |packet: &Packet| part::<32>(packet.as_bytes(), 0);
        let shared: Vec<_> =
            packets.iter().map(|packet| *crate::curve::multiply(&KEY, &point(packet))).collect();
        let blinding = shared.iter().map(|shared| HopKeys::derive(shared).blinding).collect();
        (packets, shared, blinding)
    }

    /// The codecs of this CPU.
    fn codecs() -> impl Iterator<Item = (Backend, Sphinx)> {
        let all = Backend::ALL.into_iter().filter(|backend| *backend != Backend::Reference);
        all.filter_map(|backend| Some((backend, Sphinx::new(backend.kernel().ok()?))))
    }

    #[test]
    fn opening_and_peeling_leave_no_secret_on_the_stack() {
        let mut seen = vec![0; DEPTH];
        for (backend, codec) in codecs() {
            for count in [1, 5, 32] {
                let (packets, shared, blinding) = packets(count);
                let mut secrets = words(&[shared, blinding].concat());
                secrets.extend(words(&[KEY]));
                let key = SecretKey::from_bytes(KEY);
                let mut opened = Vec::with_capacity(count);
                let mut peeled = Vec::with_capacity(count);

                // The test sees what is left where nothing wipes.
                let some: ArrayVec<Packet, BATCH> = packets.iter().cloned().collect();
                codec.open_some(&key, some, |result| opened.push(result));
                look_below(&mut seen);
                let (left, depth) = found(&seen, &secrets);
                assert!(left > 0, "{backend:?}, {count}");
                assert!(depth < DEPTH - 4_096, "{backend:?}, {count}: {depth} bytes deep");

                opened.clear();
                let mut packets = packets;
                wipe_stack();
                codec.open_batch(&key, &mut packets, &mut opened);
                look_below(&mut seen);
                assert_eq!(found(&seen, &secrets).0, 0, "{backend:?}, {count}: opened");
                let mut opened: Vec<Opened> = opened.drain(..).map(Result::unwrap).collect();
                wipe_stack();
                codec.peel_batch(&mut opened, &mut peeled);
                look_below(&mut seen);
                assert_eq!(found(&seen, &secrets).0, 0, "{backend:?}, {count}: peeled");
                assert!(peeled.iter().all(Result::is_ok));
            }
        }
    }

    #[test]
    fn a_multiplication_leaves_no_secret_on_the_stack() {
        let mut seen = vec![0; DEPTH];
        for (backend, codec) in codecs() {
            for count in [1, 8, 19] {
                let scalars: Vec<[u8; 32]> =
                    (0..count).map(|n| [0x33_u8.wrapping_mul(n + 3); 32]).collect();
                let points = vec![crate::curve::BASE_POINT; usize::from(count)];
                let mut products = vec![[0; 32]; usize::from(count)];
                wipe_stack();
                codec.kernel.multiply(&scalars, &points, &mut products);
                look_below(&mut seen);
                let secrets = words(&[scalars.clone(), products.clone()].concat());
                assert_eq!(found(&seen, &secrets).0, 0, "{backend:?}, {count}");
                // What the test itself left.
                wipe_stack();
                codec.kernel.multiply_base(&scalars, &mut products);
                look_below(&mut seen);
                // Its products are public.
                let left = found(&seen, &words(&scalars)).0;
                assert_eq!(left, 0, "{backend:?}, {count}: base point");
            }
        }
        let key = SecretKey::from_bytes(KEY);
        wipe_stack();
        std::hint::black_box(key.public());
        look_below(&mut seen);
        assert_eq!(found(&seen, &words(&[KEY])).0, 0);
    }
}
