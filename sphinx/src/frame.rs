//! What a link carries: frames of 2,400 bytes, and nothing else.

use crate::{Error, PACKET_LEN, Packet};

/// Bytes of a frame: version 1, low byte of the epoch 1, field 2, packet 2,396.
pub const FRAME_LEN: usize = 4 + PACKET_LEN;
/// The one version there is.
pub const FRAME_VERSION: u8 = 1;
/// The field of a frame from a client that speaks to its gateway itself.
pub const CLIENT_CONTROL: u16 = 0xFFFF;

/// The field of a frame from a gateway to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Downward {
    /// A packet for the client.
    Packet = 0,
    /// Nothing: it fills an instant.
    Dummy = 1,
    /// A part of the topology document.
    Document = 2,
    /// A word from the gateway itself.
    Notice = 3,
}

impl Downward {
    /// Of the field of a frame; `None` for values that no gateway sends.
    pub fn from_field(field: u16) -> Option<Self> {
        match field {
            0 => Some(Self::Packet),
            1 => Some(Self::Dummy),
            2 => Some(Self::Document),
            3 => Some(Self::Notice),
            _ => None,
        }
    }
}

/// All that a link carries at once: four bytes and a packet.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Low byte of the epoch whose key opens the packet.
    pub epoch: u8,
    /// From a client: index of the first hop, or [`CLIENT_CONTROL`]. To a client: a [`Downward`]. Else zero.
    pub field: u16,
    /// The packet, or as many bytes of something else.
    pub packet: Packet,
}

impl Frame {
    /// The 2,400 bytes that go over the link.
    pub fn encode(&self) -> Box<[u8; FRAME_LEN]> {
        let mut bytes = Box::new([0; FRAME_LEN]);
        let (head, body) = bytes.split_at_mut(4);
        let field = self.field.to_be_bytes();
        head.copy_from_slice(&[FRAME_VERSION, self.epoch, field[0], field[1]]);
        body.copy_from_slice(self.packet.as_bytes());
        bytes
    }

    /// Reads the 2,400 bytes that a link brought.
    ///
    /// # Errors
    /// [`Error::Version`]: the peer speaks another version.
    pub fn decode(bytes: &[u8; FRAME_LEN]) -> Result<Self, Error> {
        let [version, epoch, high, low, packet @ ..] = bytes;
        if *version != FRAME_VERSION {
            return Err(Error::Version);
        }
        Ok(Self {
            epoch: *epoch,
            field: u16::from_be_bytes([*high, *low]),
            packet: Packet::from_slice(packet)?,
        })
    }
}
