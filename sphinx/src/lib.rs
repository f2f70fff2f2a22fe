//! Sphinx packets: seal, peel and single-use reply blocks (SURBs), in one fixed size. No IO.
//!
//! The wire format is that of the crate `sphinx-packet`, version 260 and no other (Danezis and Goldberg,
//! "Sphinx", IEEE S&P 2009, with LIONESS payloads and SURBs that carry one payload key seed). The work is behind
//! [`Codec`], so that a simulation of 10^7 packets can take [`NullCodec`], of the same lengths, in its place.
//!
//! ```
//! use std::time::Duration;
//!
//! use rand_chacha::rand_core::SeedableRng as _;
//! use shoal_sphinx::{Codec as _, Hop, Peeled, SecretKey, Sphinx};
//!
//! let mut rng = rand_chacha::ChaCha12Rng::seed_from_u64(1);
//! let secret = SecretKey::generate(&mut rng);
//! let hop = Hop { address: [1; 32], key: secret.public(), delay: Duration::ZERO };
//!
//! let packet = Sphinx::SCALAR.seal(&mut rng, &[hop], [0; 16], b"hello")?;
//! let opened = Sphinx::SCALAR.open(&secret, packet)?;
//! // Here a hop looks whether it has seen `opened.tag()` before.
//! let Peeled::Final { payload, .. } = Sphinx::SCALAR.peel(opened)? else { panic!("one hop") };
//! assert_eq!(payload.message()?, b"hello");
//! # Ok::<(), shoal_sphinx::Error>(())
//! ```

pub mod backend;
mod curve;
mod error;
mod frame;
mod header;
mod hop_keys;
mod key;
mod null;
mod packet;
pub mod replay;
mod sphinx;

pub use error::Error;
pub use frame::{CLIENT_CONTROL, Downward, FRAME_LEN, FRAME_VERSION, Frame};
pub use key::{PublicKey, SecretKey};
pub use null::NullCodec;
pub use packet::{Packet, Payload, ReplayTag, Surb, SurbKeys};
pub use sphinx::Sphinx;

use std::time::Duration;

use rand::CryptoRng;

/// Bytes of a packet's header: point 32, MAC 16, routing 5 × 60.
pub const HEADER_LEN: usize = 348;
/// Bytes of a packet's payload.
pub const PAYLOAD_LEN: usize = 2048;
/// Bytes of a packet.
pub const PACKET_LEN: usize = HEADER_LEN + PAYLOAD_LEN;
/// Longest message: the payload less 16 zero bytes in front and one byte where the padding begins.
pub const MESSAGE_LEN: usize = PAYLOAD_LEN - 17;
/// Bytes of a SURB: header, address of the first hop 32, seed of the payload key 16.
pub const SURB_LEN: usize = HEADER_LEN + 32 + 16;
/// Most hops of a path.
pub const MAX_HOPS: usize = 5;

/// The 32 bytes by which a hop is named inside a packet: the identity of a node, the inbox of a client.
pub type Address = [u8; 32];

/// What a SURB or a loop is found by when it comes back. All zero means "none".
pub type PacketId = [u8; 16];

/// One hop of a path.
#[derive(Clone, Copy)]
pub struct Hop {
    /// The identity of the node, or the inbox of the recipient.
    pub address: Address,
    /// Its key for the epoch in which the packet travels.
    pub key: PublicKey,
    /// How long it shall hold the packet, to the nanosecond. The last hop's is not carried.
    pub delay: Duration,
}

/// What a hop finds in a packet.
pub enum Peeled {
    /// A packet to pass on.
    Forward {
        /// The node or inbox that it goes on to.
        next: Address,
        /// The delay that the sender drew for this hop.
        delay: Duration,
        /// The packet without this hop's layer.
        packet: Packet,
    },
    /// A packet that ends here.
    Final {
        /// The destination its sender wrote: the hop's own address, in a sound packet.
        destination: Address,
        /// The identifier its sender wrote: that of a SURB or a loop, or zero.
        id: PacketId,
        /// [`Payload::message`] of a packet that was sealed to here; [`Codec::unseal`] of a reply.
        payload: Payload,
    },
}

/// A packet whose replay tag is known and whose header is authentic, before the expensive part is paid for.
pub struct Opened {
    tag: ReplayTag,
    packet: Packet,
    state: HopState,
}

/// What opening leaves for peeling.
enum HopState {
    Keys(hop_keys::HopKeys),
    Reference(Box<(sphinx_packet::header::shared_secret::ExpandedSharedSecret, hop_keys::HopKeys)>),
    NullCodec,
}

impl Opened {
    /// By which a second copy of the packet is recognised.
    pub fn tag(&self) -> &ReplayTag {
        &self.tag
    }
}

/// A packet to be sealed: see [`Codec::seal`].
#[derive(Clone, Copy)]
pub struct Seal<'a> {
    /// The hops that open it, the first one first.
    pub path: &'a [Hop],
    /// The identifier that the last hop finds.
    pub id: PacketId,
    /// What the last hop finds.
    pub message: &'a [u8],
}

/// What makes and opens packets.
///
/// Each method draws the same number of bytes from its generator in every implementation, and none if it fails, so
/// that exchanging one for another changes no later draw. A batch gives the results of its members one by one, in
/// their order, and draws in that order; one that fails costs only itself.
pub trait Codec: Send + Sync {
    /// Seals `message` (at most [`MESSAGE_LEN`] bytes) for the last hop of `path` (1 to [`MAX_HOPS`] hops).
    ///
    /// # Errors
    /// [`Error::Path`] or [`Error::MessageTooLong`]: the caller's mistake.
    fn seal(
        &self,
        rng: &mut dyn CryptoRng,
        path: &[Hop],
        id: PacketId,
        message: &[u8],
    ) -> Result<Packet, Error>;

    /// Makes a SURB that ends at the last hop of `path`, and the keys with which its maker, and nobody else,
    /// opens the reply. `id` must not be zero.
    ///
    /// # Errors
    /// [`Error::Path`]: the caller's mistake.
    fn surb(
        &self,
        rng: &mut dyn CryptoRng,
        path: &[Hop],
        id: PacketId,
    ) -> Result<(Surb, SurbKeys), Error>;

    /// Spends a SURB: the packet to send, and the address of its first hop.
    ///
    /// # Errors
    /// [`Error::MessageTooLong`]. A SURB that means nothing makes a packet that its first hop refuses.
    fn reply(&self, surb: Surb, message: &[u8]) -> Result<(Packet, Address), Error>;

    /// Derives the keys of this hop, checks the point and the MAC, and gives the replay tag.
    ///
    /// # Errors
    /// [`Error::LowOrder`] or [`Error::Mac`]: the packet is not for this key, or was changed.
    fn open(&self, secret: &SecretKey, packet: Packet) -> Result<Opened, Error>;

    /// The rest of a hop's work: routing, blinding, payload. Call it only for a tag that is new.
    ///
    /// # Errors
    /// [`Error::Version`] or [`Error::Routing`]: whoever built the packet wrote nonsense.
    fn peel(&self, opened: Opened) -> Result<Peeled, Error>;

    /// [`Self::seal`], of a batch.
    fn seal_batch(
        &self,
        rng: &mut dyn CryptoRng,
        batch: &[Seal<'_>],
    ) -> Vec<Result<Packet, Error>> {
        batch.iter().map(|job| self.seal(rng, job.path, job.id, job.message)).collect()
    }

    /// [`Self::surb`], of a batch.
    fn surb_batch(
        &self,
        rng: &mut dyn CryptoRng,
        batch: &[(&[Hop], PacketId)],
    ) -> Vec<Result<(Surb, SurbKeys), Error>> {
        batch.iter().map(|(path, id)| self.surb(rng, path, *id)).collect()
    }

    /// [`Self::open`], of a batch. It takes all packets out of `packets` and adds as many results to `opened`.
    fn open_batch(
        &self,
        secret: &SecretKey,
        packets: &mut Vec<Packet>,
        opened: &mut Vec<Result<Opened, Error>>,
    ) {
        opened.extend(packets.drain(..).map(|packet| self.open(secret, packet)));
    }

    /// [`Self::peel`], of a batch. It takes all packets out of `opened` and adds as many results to `peeled`.
    fn peel_batch(&self, opened: &mut Vec<Opened>, peeled: &mut Vec<Result<Peeled, Error>>) {
        peeled.extend(opened.drain(..).map(|opened| self.peel(opened)));
    }

    /// Opens the reply to one's own SURB.
    ///
    /// # Errors
    /// [`Error::Payload`]: the reply was changed on its way, or the keys are another SURB's.
    fn unseal(&self, keys: &SurbKeys, payload: Payload) -> Result<Vec<u8>, Error>;
}
