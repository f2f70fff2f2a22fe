//! The fixed-size things: packets, payloads, SURBs, tags.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::hop_keys::ROUTING_LEN;
use crate::{Error, HEADER_LEN, MESSAGE_LEN, PACKET_LEN, PAYLOAD_LEN, PacketId, SURB_LEN};

/// A packet of [`PACKET_LEN`] bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet(Box<[u8; PACKET_LEN]>);

impl Packet {
    /// Of exactly these bytes; whether they mean anything, opening shows.
    pub fn new(bytes: Box<[u8; PACKET_LEN]>) -> Self {
        Self(bytes)
    }

    /// A copy of a slice.
    ///
    /// # Errors
    /// [`Error::Length`] if it has not [`PACKET_LEN`] bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Error> {
        let bytes: Box<[u8]> = bytes.into();
        bytes.try_into().map(Self).map_err(|_| Error::Length)
    }

    /// The packet as it is sent.
    pub fn as_bytes(&self) -> &[u8; PACKET_LEN] {
        &self.0
    }

    /// Its bytes, to be filled.
    pub fn as_mut_bytes(&mut self) -> &mut [u8; PACKET_LEN] {
        &mut self.0
    }

    /// The routing block.
    pub(crate) fn routing(&self) -> &[u8; ROUTING_LEN] {
        let header = self.0.first_chunk::<HEADER_LEN>();
        #[expect(clippy::expect_used, reason = "the lengths are constants")]
        header.and_then(|header| header.last_chunk()).expect("a header ends with a routing block")
    }

    /// Header and payload.
    pub(crate) fn split_mut(&mut self) -> (&mut [u8; HEADER_LEN], &mut [u8; PAYLOAD_LEN]) {
        #[expect(clippy::expect_used, reason = "the lengths are constants")]
        let (header, payload) = self.0.split_first_chunk_mut().expect("a packet has a header");
        #[expect(clippy::expect_used, reason = "the lengths are constants")]
        let payload = payload.first_chunk_mut().expect("and a payload behind it");
        (header, payload)
    }
}

impl Default for Packet {
    fn default() -> Self {
        Self(Box::new([0; PACKET_LEN]))
    }
}

/// The payload that the last hop finds, in the place of the packet that it came in.
pub struct Payload(pub(crate) Packet);

impl Payload {
    /// Its bytes, whether they make a message or not.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes().get(HEADER_LEN..).unwrap_or_default()
    }

    /// The message of a packet that was sealed to here.
    ///
    /// # Errors
    /// [`Error::Payload`]: it was changed on its way, or is the reply to a SURB.
    pub fn message(&self) -> Result<&[u8], Error> {
        unpad(self.as_bytes())
    }
}

/// 16 zero bytes, message, a one, zeros.
pub(crate) fn pad(message: &[u8], payload: &mut [u8; PAYLOAD_LEN]) -> Result<(), Error> {
    if message.len() > MESSAGE_LEN {
        return Err(Error::MessageTooLong);
    }
    payload.fill(0);
    let (_, rest) = payload.split_at_mut(16);
    let (body, padding) = rest.split_at_mut(message.len());
    body.copy_from_slice(message);
    if let Some(first) = padding.first_mut() {
        *first = 1;
    }
    Ok(())
}

pub(crate) fn unpad(payload: &[u8]) -> Result<&[u8], Error> {
    let (zeros, rest) = payload.split_at_checked(16).ok_or(Error::Payload)?;
    // Most messages are short: the zeros behind them are skipped by whole chunks, which the compiler compares at once.
    let zero = |chunk: &&[u8]| chunk.iter().fold(0, |all, byte| all | byte) == 0;
    let skipped: usize = rest.rchunks(64).take_while(zero).map(<[u8]>::len).sum();
    let rest = rest.get(..rest.len() - skipped).unwrap_or_default();
    let end = rest.iter().rposition(|b| *b != 0).ok_or(Error::Payload)?;
    match rest.split_at_checked(end) {
        Some((message, [1, ..])) if zeros.iter().all(|b| *b == 0) => Ok(message),
        _ => Err(Error::Payload),
    }
}

/// By which a second copy of a packet is recognised, whatever was done to its payload.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplayTag(pub(crate) [u8; 32]);

impl ReplayTag {
    /// Its bytes, uniform to everyone who has not the hop's key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A single-use reply block: who has it can send one packet to its maker without knowing where that is.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Surb(pub(crate) Box<[u8; SURB_LEN]>);

impl Surb {
    /// A copy of a slice.
    ///
    /// # Errors
    /// [`Error::Length`] if it has not [`SURB_LEN`] bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Error> {
        let bytes: Box<[u8]> = bytes.into();
        bytes.try_into().map(Self).map_err(|_| Error::Length)
    }

    /// The SURB as it is given away.
    pub fn as_bytes(&self) -> &[u8; SURB_LEN] {
        &self.0
    }
}

/// What the maker of a SURB keeps: the identifier of the reply, and the seed of each hop's payload key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SurbKeys {
    pub(crate) id: PacketId,
    pub(crate) seeds: Zeroizing<Vec<[u8; 16]>>,
}

impl SurbKeys {
    /// The identifier that the reply will show.
    pub fn id(&self) -> PacketId {
        self.id
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn padding_is_undone(message in proptest::collection::vec(any::<u8>(), 0..=MESSAGE_LEN)) {
            let mut payload = Box::new([0xaa; PAYLOAD_LEN]);
            pad(&message, &mut payload).unwrap();
            prop_assert_eq!(unpad(payload.as_slice()).unwrap(), &message);
        }

        #[test]
        fn unpadding_never_panics(bytes in proptest::collection::vec(0u8..3, 0..64)) {
            let _ = unpad(&bytes);
        }
    }

    #[test]
    fn a_message_of_one_byte_too_many_is_refused() {
        let mut payload = Box::new([0; PAYLOAD_LEN]);
        assert_eq!(pad(&[1; MESSAGE_LEN + 1], &mut payload), Err(Error::MessageTooLong));
    }
}
