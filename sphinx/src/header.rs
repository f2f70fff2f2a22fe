//! Headers: what a sender writes into one.

use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::backend::Kernel;
use crate::curve::Sender;
use crate::hop_keys::{HOP_LEN, HopKeys, ROUTING_LEN, VERSION, part};
use crate::{Error, HEADER_LEN, Hop, MAX_HOPS, PacketId};

/// The last hop's part: flag 1, version 3, destination 32, identifier 16.
const FINAL_LEN: usize = 52;
pub(crate) const FORWARD: u8 = 1;
pub(crate) const FINAL: u8 = 2;

/// Bytes between the last hop's part and the filler of a path of `hops`.
pub(crate) fn padding_len(hops: usize) -> usize {
    HOP_LEN * (MAX_HOPS + 1 - hops) - FINAL_LEN
}

/// What the sender of a packet draws.
pub(crate) struct Drawn {
    pub(crate) secret: Zeroizing<[u8; 32]>,
    /// Stands behind the last hop's part; random, not zero, so that the last hop does not learn the length of the
    /// path (Kuhn et al., "Breaking and (Partially) Fixing Provably Secure Onion Routing", IEEE S&P 2020).
    padding: Zeroizing<Vec<u8>>,
}

/// Draws what a packet needs.
///
/// # Errors
/// [`Error::Path`] for a path of no hops, or of too many; nothing is drawn then.
pub(crate) fn draw(rng: &mut dyn CryptoRng, path: &[Hop]) -> Result<Drawn, Error> {
    if path.is_empty() || path.len() > MAX_HOPS {
        return Err(Error::Path);
    }
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill_bytes(secret.as_mut());
    let mut padding = Zeroizing::new(vec![0; padding_len(path.len())]);
    rng.fill_bytes(&mut padding);
    Ok(Drawn { secret, padding })
}

/// A header that is being built.
pub(crate) struct HeaderDraft<'a> {
    path: &'a [Hop],
    id: PacketId,
    drawn: Drawn,
}

impl<'a> HeaderDraft<'a> {
    /// Draws what a header for a path of 1 to [`MAX_HOPS`] hops needs.
    ///
    /// # Errors
    /// [`Error::Path`]; nothing is drawn then.
    pub(crate) fn new(
        rng: &mut dyn CryptoRng,
        path: &'a [Hop],
        id: PacketId,
    ) -> Result<Self, Error> {
        Ok(Self { path, id, drawn: draw(rng, path)? })
    }
}

/// A header, and the seed of the payload key of each hop of the path.
pub(crate) struct Built {
    pub(crate) header: [u8; HEADER_LEN],
    pub(crate) seeds: Zeroizing<Vec<[u8; 16]>>,
}

/// A hop's keys and its key stream.
type Keyed = (HopKeys, Zeroizing<[u8; ROUTING_LEN + HOP_LEN]>);

/// The keys that each draft's sender shares with each hop of its path.
fn share(kernel: Kernel, drafts: &[HeaderDraft<'_>]) -> Vec<Vec<Keyed>> {
    let mut senders: Vec<Sender> =
        drafts.iter().map(|draft| Sender::new(&draft.drawn.secret)).collect();
    let mut keyed: Vec<Vec<Keyed>> =
        drafts.iter().map(|draft| Vec::with_capacity(draft.path.len())).collect();
    let mut scalars = Zeroizing::new(Vec::with_capacity(drafts.len()));
    let mut shared = Zeroizing::new(Vec::with_capacity(drafts.len()));
    for hop in 0..MAX_HOPS {
        // Those who have such a hop; first the ones of whom one multiplication is asked.
        scalars.clear();
        let (mut points, mut indices, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (sender, draft)) in senders.iter().zip(drafts).enumerate() {
            let Some(hop) = draft.path.get(hop) else { continue };
            match sender.scalar(&hop.key) {
                // The product of the blindings so far times the secret is one scalar, so that one multiplication
                // gives the hop's secret.
                Some(scalar) => {
                    scalars.push(*scalar);
                    points.push(*hop.key.as_bytes());
                    indices.push(index);
                }
                // A key on the twist has another order, for which that scalar is wrong: it is multiplied step by
                // step.
                None => others.push((index, sender.share_by_the_long_way(&hop.key))),
            }
        }
        shared.clear();
        shared.resize(scalars.len(), [0; 32]);
        kernel.multiply(&scalars, &points, &mut shared);
        for (index, secret) in others {
            indices.push(index);
            shared.push(*secret);
        }
        kernel.hop_keys(&shared, |i, keys| {
            let index = indices.get(i).copied().unwrap_or_default();
            if let (Some(sender), Some(keyed)) = (senders.get_mut(index), keyed.get_mut(index)) {
                // After this hop's keys: the blinding of a hop counts for the hops behind it.
                sender.blind(&keys.blinding);
                let mut stream = Zeroizing::new([0; ROUTING_LEN + HOP_LEN]);
                keys.apply_stream(stream.as_mut());
                keyed.push((keys, stream));
            }
        });
    }
    keyed
}

/// Headers (Danezis and Goldberg, section 3.2, figure 2), in the order of the drafts.
pub(crate) fn build(kernel: Kernel, drafts: &[HeaderDraft<'_>]) -> Vec<Built> {
    let keyed = share(kernel, drafts);

    // From the last hop to the first: each wraps what the next will see. In a batch, the last hops of all paths are
    // done together, then those before them.
    let mut routing = vec![[0; ROUTING_LEN]; drafts.len()];
    let mut macs = vec![[0; 16]; drafts.len()];
    for from_end in 0..MAX_HOPS {
        let mut indices = Vec::with_capacity(drafts.len());
        let mut mac_keys = Zeroizing::new(Vec::with_capacity(drafts.len()));
        for (index, (draft, keyed)) in drafts.iter().zip(&keyed).enumerate() {
            let Some((keys, stream)) = keyed.iter().rev().nth(from_end) else { continue };
            let (Some(routing), Some(mac)) = (routing.get_mut(index), macs.get(index)) else {
                continue;
            };
            // From the end: what is skipped was wrapped already. The hop before the last names the last one, and so
            // on.
            let mut ahead = draft.path.iter().rev().skip(from_end.saturating_sub(1));
            *routing = match (from_end, ahead.next(), ahead.next()) {
                (1.., Some(next), Some(here)) => {
                    forward_block(here, next, mac, routing, stream.as_slice())
                }
                _ => last_block(draft, keyed),
            };
            indices.push(index);
            mac_keys.push(keys.mac);
        }
        let blocks: Vec<&[u8; ROUTING_LEN]> =
            indices.iter().filter_map(|index| routing.get(*index)).collect();
        let mut made = vec![[0; 16]; blocks.len()];
        kernel.macs(&mac_keys, &blocks, &mut made);
        for (index, made) in indices.iter().zip(made) {
            if let Some(mac) = macs.get_mut(*index) {
                *mac = made;
            }
        }
    }

    let secrets: Zeroizing<Vec<[u8; 32]>> =
        Zeroizing::new(drafts.iter().map(|draft| *draft.drawn.secret).collect());
    let mut points = vec![[0; 32]; drafts.len()];
    kernel.multiply_base(&secrets, &mut points);

    let parts = points.iter().zip(&macs).zip(&routing).zip(&keyed);
    parts
        .map(|(((point, mac), routing), keyed)| {
            let mut header = [0; HEADER_LEN];
            let (front, rest) = header.split_at_mut(32);
            let (middle, back) = rest.split_at_mut(16);
            front.copy_from_slice(point);
            middle.copy_from_slice(mac);
            back.copy_from_slice(routing);
            let seeds = keyed.iter().map(|(keys, _)| keys.payload_seed).collect();
            Built { header, seeds: Zeroizing::new(seeds) }
        })
        .collect()
}

/// The routing block that a hop gets which passes the packet on.
fn forward_block(
    here: &Hop,
    next: &Hop,
    mac: &[u8; 16],
    routing: &[u8; ROUTING_LEN],
    stream: &[u8],
) -> [u8; ROUTING_LEN] {
    let delay = u64::try_from(here.delay.as_nanos()).unwrap_or(u64::MAX);
    let mut block = Zeroizing::new(Vec::with_capacity(ROUTING_LEN + HOP_LEN));
    block.push(FORWARD);
    block.extend(VERSION);
    block.extend(next.address);
    block.extend(delay.to_be_bytes());
    block.extend(mac);
    // All of it: what the cut below takes off at the end is what the filler brings back at this hop.
    block.extend(routing);
    add(&mut block, stream);
    part(&block, 0)
}

/// The routing block that the last hop gets.
fn last_block(draft: &HeaderDraft<'_>, hops: &[Keyed]) -> [u8; ROUTING_LEN] {
    // What will have come in at the end of the block until then.
    let mut filler = Vec::with_capacity(ROUTING_LEN);
    for (_, stream) in hops.iter().take(hops.len() - 1) {
        filler.resize(filler.len() + HOP_LEN, 0);
        // A hop's stream reaches one part beyond the block; its end is what meets the filler there.
        let (_, tail) = stream.split_at(stream.len() - filler.len());
        add(&mut filler, tail);
    }
    let mut block = Zeroizing::new(Vec::with_capacity(ROUTING_LEN));
    block.push(FINAL);
    block.extend(VERSION);
    block.extend(draft.path.last().map_or([0; 32], |hop| hop.address));
    block.extend(draft.id);
    block.extend_from_slice(&draft.drawn.padding);
    if let Some((_, stream)) = hops.last() {
        add(&mut block, stream.as_slice());
    }
    // Not under the last hop's stream: it is already what arrives at that hop.
    block.extend(filler);
    part(&block, 0)
}

/// Adds (XOR) as much of `stream` as `block` is long.
fn add(block: &mut [u8], stream: &[u8]) {
    block.iter_mut().zip(stream).for_each(|(byte, stream)| *byte ^= stream);
}

#[cfg(test)]
mod tests;
