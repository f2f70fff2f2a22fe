//! What stands inside a packet of a tunnel.
//!
//! To a service: kind 1, pseudonym 16, budget 2 (32nds of a packet/s), epoch 1, SURBs 1, length 2, the SURBs, a QUIC datagram. From
//! a service, by SURB: kind 1, epoch 1, stock 2, next stock 2, length 2, a QUIC datagram. Numbers are big-endian; of epochs the low
//! byte travels.

use shoal_sphinx::{MESSAGE_LEN, SURB_LEN, Surb};
use shoal_topology::wire::client_gateway::kind;

use crate::tunnel::Pseudonym;

/// So many units of a budget are one packet per second: class text has fewer packets than seconds.
pub const BUDGET_UNITS: f64 = 32.0;

/// Bytes before the SURBs of a message to a service.
const HEAD: usize = 23;

/// What a service gets.
pub struct ToService {
    /// The tunnel that the message belongs to.
    pub pseudonym: Pseudonym,
    /// What the service may send in this tunnel; [`BUDGET_UNITS`] are a packet per second.
    pub budget: u16,
    /// Low byte of the epoch whose keys the SURBs use.
    pub epoch: u8,
    /// SURBs for the service to keep.
    pub surbs: Vec<Surb>,
    /// A QUIC datagram; empty if the message only brings SURBs.
    pub datagram: Vec<u8>,
}

impl ToService {
    /// SURBs that fit beside a datagram of this length.
    pub fn room(datagram_len: usize) -> usize {
        MESSAGE_LEN.saturating_sub(HEAD + datagram_len) / SURB_LEN
    }

    /// Its bytes; at most [`MESSAGE_LEN`] if no more SURBs than [`ToService::room`] are in it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MESSAGE_LEN);
        bytes.push(kind::TUNNEL);
        bytes.extend(self.pseudonym);
        bytes.extend(self.budget.to_be_bytes());
        bytes.extend([self.epoch, self.surbs.len() as u8]);
        bytes.extend((self.datagram.len() as u16).to_be_bytes());
        self.surbs.iter().for_each(|surb| bytes.extend_from_slice(surb.as_bytes()));
        bytes.extend_from_slice(&self.datagram);
        bytes
    }

    /// Reads one; `None` for anything that [`ToService::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let [kind, name @ .., b0, b1, epoch, count, l0, l1] = head;
        let (surbs, datagram) = rest.split_at_checked(usize::from(*count) * SURB_LEN)?;
        if *kind != kind::TUNNEL || datagram.len() != usize::from(u16::from_be_bytes([*l0, *l1])) {
            return None;
        }
        Some(Self {
            pseudonym: *name,
            budget: u16::from_be_bytes([*b0, *b1]),
            epoch: *epoch,
            surbs: surbs.chunks(SURB_LEN).filter_map(|surb| Surb::from_slice(surb).ok()).collect(),
            datagram: datagram.to_vec(),
        })
    }
}

/// What a client gets back.
pub struct FromService {
    /// Low byte of the present epoch.
    pub epoch: u8,
    /// SURBs of that epoch that the service still has.
    pub stock: u16,
    /// SURBs of the next epoch, which it keeps until that begins.
    pub next: u16,
    /// A QUIC datagram.
    pub datagram: Vec<u8>,
}

impl FromService {
    /// The message as it is sent: SPECIFICATION.md, section 6.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.datagram.len());
        bytes.extend([kind::TUNNEL, self.epoch]);
        bytes.extend(self.stock.to_be_bytes());
        bytes.extend(self.next.to_be_bytes());
        bytes.extend((self.datagram.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&self.datagram);
        bytes
    }

    /// Reads one; `None` for anything that [`FromService::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let ([kind, epoch, s0, s1, n0, n1, l0, l1], datagram) = bytes.split_first_chunk::<8>()?;
        let sound =
            *kind == kind::TUNNEL && datagram.len() == usize::from(u16::from_be_bytes([*l0, *l1]));
        let (stock, next) = (u16::from_be_bytes([*s0, *s1]), u16::from_be_bytes([*n0, *n1]));
        sound.then(|| Self { epoch: *epoch, stock, next, datagram: datagram.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tunnel::{CLIENT_MTU, SERVICE_MTU};

    #[test]
    fn the_longest_messages_fit() {
        assert_eq!(ToService::room(usize::from(CLIENT_MTU)), 2);
        assert_eq!(ToService::room(0), 5);
        assert!(8 + usize::from(SERVICE_MTU) <= MESSAGE_LEN);
    }

    proptest! {
        #[test]
        fn messages_come_back_as_they_went(
            pseudonym: [u8; 16], budget: u16, epoch: u8, stock: u16, next: u16,
            datagram in proptest::collection::vec(any::<u8>(), 0..1216), fewer in 0usize..5,
        ) {
            let count = ToService::room(datagram.len()).saturating_sub(fewer);
            let surb = Surb::from_slice(&[9; SURB_LEN]).unwrap();
            let message = ToService { pseudonym, budget, epoch, surbs: vec![surb; count], datagram: datagram.clone() };
            let bytes = message.encode();
            prop_assert!(bytes.len() <= MESSAGE_LEN);
            let read = ToService::decode(&bytes).unwrap();
            prop_assert_eq!((read.pseudonym, read.budget, read.surbs.len()), (pseudonym, budget, count));
            prop_assert_eq!(read.epoch, epoch);
            prop_assert_eq!(&read.datagram, &datagram);
            let read = FromService::decode(&FromService { epoch, stock, next, datagram: datagram.clone() }.encode()).unwrap();
            prop_assert_eq!((read.epoch, read.stock, read.next), (epoch, stock, next));
            prop_assert_eq!(read.datagram, datagram);
        }

        #[test]
        fn no_bytes_make_them_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2031)) {
            let _ = ToService::decode(&bytes);
            let _ = FromService::decode(&bytes);
        }
    }
}
