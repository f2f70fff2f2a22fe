//! What a client and its gateway say to each other, and the first byte of what clients say to each other.
//!
//! Every word travels in a frame like all others: two bytes of length, postcard, zeros up to 2,396.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shoal_sphinx::{PACKET_LEN, Packet};

use crate::base::encoding::{decode, encode};
use crate::{Context, Error, Identity, SecretIdentity, Signature};

/// First byte of every message inside a packet.
pub mod kind {
    /// Cover: a loop to oneself, recognised by its identifier.
    pub const LOOP: u8 = 0;
    /// A part of a tunnel.
    pub const TUNNEL: u8 = 1;
    /// To a gateway: which descriptor has this identity? 32 bytes of identity, a SURB.
    pub const QUERY: u8 = 2;
    /// From a gateway, by SURB: one byte (1 found, 0 not), the descriptor.
    pub const ANSWER: u8 = 3;
    /// Cover that a gateway drops.
    pub const DROP: u8 = 4;
    /// From a person to a person.
    pub const MESSAGE: u8 = 5;
    /// Media of a call, for a person; with nothing behind it, silence.
    pub const MEDIA: u8 = 8;
}

/// How a client uses its link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Mode {
    /// A person's: slots up, fixed instants down, by the class of this name.
    Class(String),
    /// A service's: at once, in both directions.
    Service,
}

/// What becomes of packets for a client that is away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Away {
    /// They wait in its inbox, up to the quota.
    Keep,
    /// They are dropped, and the inbox goes with the link: of a client that will have another one next time.
    Drop,
}

/// A client's first word, in answer to [`Notice::Challenge`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Which inbox it asks for.
    pub inbox: Identity,
    /// Proof that the inbox is its own, bound to this channel.
    pub proof: Signature,
    /// Admission token: opaque, empty on an open gateway.
    pub token: Vec<u8>,
    /// How it uses the link.
    pub mode: Mode,
    /// Its signed descriptor, if others shall be able to ask for it.
    pub descriptor: Option<Vec<u8>>,
    /// The documents that it has, by their [tags](DocumentPart::tag_of): it is not given them again.
    pub documents: Vec<[u8; 8]>,
    /// What becomes of packets for it when it has left.
    pub away: Away,
}

impl Hello {
    /// What is signed: the channel is the gateway's identity, the client's throwaway identity (both proven by the
    /// handshake of the link) and the gateway's nonce, so that a proof is worth nothing on another one.
    pub fn prove(
        inbox: &SecretIdentity,
        gateway: &Identity,
        peer: &Identity,
        nonce: &[u8; 32],
    ) -> Signature {
        inbox.sign(Context::Inbox, &[gateway.0, peer.0, *nonce].concat())
    }

    /// True if the proof holds on this channel.
    pub fn is_proven(&self, gateway: &Identity, peer: &Identity, nonce: &[u8; 32]) -> bool {
        let channel = [gateway.0, peer.0, *nonce].concat();
        self.inbox.verify(Context::Inbox, &channel, &self.proof)
    }
}

/// A client's word to its gateway within a session: its descriptor of another period. A person's takes a slot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Renew {
    /// The signed client descriptor, encoded.
    pub descriptor: Vec<u8>,
}

/// Why a gateway does not take a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// The proof of the inbox key does not hold.
    Proof,
    /// The token is not on the list.
    Token,
    /// The token has as many connections as it may.
    Connections,
    /// The class is not in the document.
    Class,
    /// The descriptor is malformed, or does not name this inbox and gateway.
    Descriptor,
    /// The gateway has no topology document yet, or a stale one.
    NotReady,
    /// The gateway is full.
    Full,
    /// The inbox has connected too often lately.
    TooOften,
    /// The token is on the list, and its bearer may not be a service.
    NoService,
    /// Services need a token here, and none was shown.
    NoToken,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Proof => "the proof of the inbox key does not hold",
            Self::Token => "the admission token is not on the gateway's list",
            Self::Connections => "the admission token has as many connections as it may",
            Self::Class => "the network has no class of this name",
            Self::Descriptor => "the gateway refuses the client descriptor",
            Self::NotReady => "the gateway has no valid topology document",
            Self::Full => "the gateway is full",
            Self::TooOften => "this client has connected too often lately",
            Self::NoService => {
                "the admission token is for people: whoever runs the gateway lets a service in by `service = true` beside the \
                 token"
            }
            Self::NoToken => {
                "the gateway wants an admission token, and services always need one: ask whoever runs it"
            }
        })
    }
}

/// A word from a gateway to its client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Notice {
    /// The first: what to sign.
    Challenge {
        /// A number that is fresh for this connection.
        nonce: [u8; 32],
    },
    /// The client is in; the topology document follows.
    Welcome,
    /// The client is not in; the link closes.
    Refused(Refusal),
}

/// A part of a topology document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DocumentPart {
    /// First bytes of the document's hash: parts of two documents do not mix.
    pub tag: [u8; 8],
    /// The index of the part, from 0.
    pub index: u16,
    /// How many parts there are.
    pub parts: u16,
    /// The bytes of this part.
    pub bytes: Vec<u8>,
}

/// Bytes of a document in one part.
const PART_LEN: usize = 2_300;

impl DocumentPart {
    /// By which the parts of a signed document belong together.
    pub fn tag_of(document: &[u8]) -> [u8; 8] {
        let hash = blake3::hash(document);
        hash.as_bytes().first_chunk().copied().unwrap_or_default()
    }

    /// Cuts a signed document.
    pub fn cut(document: &[u8]) -> Vec<Self> {
        let tag = Self::tag_of(document);
        let chunks = document.chunks(PART_LEN);
        let parts = u16::try_from(chunks.len()).unwrap_or(u16::MAX);
        chunks
            .zip(0..parts)
            .map(|(bytes, index)| Self { tag, index, parts, bytes: bytes.to_vec() })
            .collect()
    }
}

/// Puts parts together. Bounded by the largest document, unless it is told otherwise.
pub struct Assembly {
    tag: [u8; 8],
    parts: Vec<Option<Vec<u8>>>,
    most: usize,
}

impl Default for Assembly {
    fn default() -> Self {
        Self::of_at_most(crate::directory::document::MAX_DOCUMENT_LEN)
    }
}

impl Assembly {
    /// Of what has so many bytes at most.
    pub fn of_at_most(bytes: usize) -> Self {
        Self { tag: [0; 8], parts: Vec::new(), most: bytes }
    }

    /// Takes a part; gives the document's bytes when it was the last one missing.
    pub fn add(&mut self, part: DocumentPart) -> Option<Vec<u8>> {
        let parts = usize::from(part.parts);
        // Before room is made: the number of parts is whatever the peer says.
        if parts * PART_LEN > self.most + PART_LEN || part.bytes.len() > PART_LEN {
            return None;
        }
        // Another document: what there was of the last one is given up, so that one assembly never holds two.
        if self.tag != part.tag || self.parts.len() != parts {
            self.tag = part.tag;
            self.parts = vec![None; parts];
        }
        *self.parts.get_mut(usize::from(part.index))? = Some(part.bytes);
        if self.parts.iter().any(Option::is_none) {
            return None;
        }
        let whole: Vec<u8> =
            std::mem::take(&mut self.parts).into_iter().flatten().flatten().collect();
        // A gateway could mix parts; signatures would show it, but at the cost of verifying them.
        (blake3::hash(&whole).as_bytes().get(..8) == Some(&self.tag)).then_some(whole)
    }
}

/// Something that fills a frame's 2,396 bytes.
pub trait ControlMessage: Serialize + DeserializeOwned {
    /// Packs it.
    ///
    /// # Errors
    /// [`Error::TooLong`].
    fn pack(&self) -> Result<Packet, Error> {
        let bytes = encode(self);
        let (what, len, max) = ("word to a gateway", bytes.len(), PACKET_LEN - 2);
        let too_long = || Error::TooLong { what, len, max };
        let mut packet = Packet::default();
        let (head, body) = packet.as_mut_bytes().split_at_mut(2);
        head.copy_from_slice(&u16::try_from(len).map_err(|_| too_long())?.to_be_bytes());
        body.get_mut(..len).ok_or_else(too_long)?.copy_from_slice(&bytes);
        Ok(packet)
    }

    /// Unpacks it.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    fn unpack(packet: &Packet) -> Result<Self, Error> {
        let what = "word between client and gateway";
        let (head, body) = packet.as_bytes().split_at(2);
        let len = head.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
        let (word, padding) = body.split_at_checked(len).ok_or(Error::Malformed { what })?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(Error::Malformed { what });
        }
        decode(what, word, PACKET_LEN)
    }
}

impl ControlMessage for Hello {}
impl ControlMessage for Renew {}
impl ControlMessage for Notice {}
impl ControlMessage for DocumentPart {}
