//! What the person's gateway does beside its work: it holds frames, and makes packets up.

use shoal_topology::wire::client_gateway::kind;

use super::*;
use crate::message::{FromService, ToService};

/// What a gateway makes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Forged {
    /// Frames of random bytes.
    Bytes,
    /// A packet to the person's key with an identifier that nobody made.
    Identifier,
    /// A message to the person's key.
    Letter,
    /// A loop once more.
    Replay,
    /// Nothing itself: the exit gives it SURBs, and it sends replies.
    Reply,
}

/// What is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Up,
    Both,
}

impl World {
    /// When the gateway lets go of what comes now.
    pub(super) fn let_go(&self, down: bool) -> Time {
        let Some((span, held, way)) = self.faults.holds else { return self.now };
        let phase = self.now.as_nanos() % span.as_nanos() as u64;
        let held = held.as_nanos() as u64;
        let is_held = phase < held && (!down || way == Way::Both);
        if is_held { self.now + Duration::from_nanos(held - phase) } else { self.now }
    }

    /// A packet to the person's key, as whoever knows that can make it.
    pub(crate) fn for_person(&mut self, id: PacketId, message: &[u8]) -> Packet {
        let (address, key) = (self.person.body.inbox.0, self.person.key().public());
        let hop = Hop { address, key, delay: Duration::ZERO };
        self.codec.seal(&mut self.chance, &[hop], id, message).unwrap()
    }

    /// A letter reaches the person's inbox.
    pub(crate) fn letter(&mut self, message: &[u8]) {
        let message = [&[kind::MESSAGE], message].concat();
        let packet = self.for_person([0; 16], &message);
        self.queue.push_back(packet);
    }

    /// What the gateway sends in place of a dummy.
    pub(super) fn forge(&mut self, what: Forged) -> Option<Packet> {
        use rand::Rng;
        match what {
            Forged::Bytes => {
                let mut packet = Packet::default();
                self.chance.fill_bytes(packet.as_mut_bytes());
                Some(packet)
            }
            Forged::Identifier => {
                let id = self.chance.random();
                Some(self.for_person(id, &[kind::LOOP]))
            }
            Forged::Letter => Some(self.for_person([0; 16], &[kind::MESSAGE, 1, 2, 3])),
            Forged::Replay => self.loops.pop_front(),
            Forged::Reply => {
                let surb = self.given.pop_front()?;
                let mut datagram = vec![0x40; 1_200];
                self.chance.fill_bytes(&mut datagram[1..]);
                let epoch = self.epoch();
                let forged =
                    FromService { epoch: epoch.to_le_bytes()[0], stock: 0, next: 0, datagram };
                let (packet, first) = self.codec.reply(surb, &forged.encode()).unwrap();
                let first = self.names.get(&Identity(first)).copied()?;
                self.push(self.now + LATENCY, Event::ToNode(first, epoch, packet));
                None
            }
        }
    }

    /// The exit gives away the SURBs of a packet that brings no more than these: whether this was one.
    pub(super) fn gives_away(&mut self, packet: &Packet) -> bool {
        if !matches!(self.faults.forged, Some((Forged::Reply, _))) {
            return false;
        }
        let opened = self.codec.open(&self.authority.network.exits[0].key(), packet.clone());
        let Ok(Peeled::Final { payload, .. }) = self.codec.peel(opened.unwrap()) else {
            return false;
        };
        let message = ToService::decode(payload.message().unwrap()).unwrap();
        let only = message.datagram.is_empty();
        if only {
            self.given.extend(message.surbs);
        }
        only
    }
}
