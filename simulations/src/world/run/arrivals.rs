//! What tests ask of packets that come for people: of which epoch they are, and whether they are loops.

use std::collections::HashMap;

use shoal_client::engine::{Arrival, Contact};
use shoal_sphinx::Packet;
use shoal_topology::{Epoch, Time};

use super::super::person::Person;

/// A packet that came.
pub(in crate::world) struct PacketArrival {
    /// Number of whom it is for.
    pub(in crate::world) person: u32,
    /// When it came to the gateway.
    pub(in crate::world) at: Time,
    /// The low byte of the epoch in which it travelled, and of the one that was present.
    pub(in crate::world) epoch: u8,
    pub(in crate::world) present: u8,
    pub(in crate::world) is_loop: bool,
}

/// All of them.
#[derive(Default)]
pub(in crate::world) struct Arrivals {
    people: HashMap<[u8; 32], u32>,
    /// At a gateway, and not down yet: instant and epoch byte, by person and packet.
    waiting: HashMap<(u32, Vec<u8>), (Time, u8)>,
    pub(in crate::world) came: Vec<PacketArrival>,
}

impl Arrivals {
    pub(super) fn of(contacts: &[Contact]) -> Self {
        // Nobody else is asked about.
        let people = contacts.iter().map(|contact| contact.inbox.0).zip(0..).collect();
        Self { people, ..Self::default() }
    }

    /// A node opened a packet that goes to this address next.
    pub(super) fn opened(&mut self, next: &[u8; 32], packet: &Packet, at: Time, epoch: u8) {
        if let Some(person) = self.people.get(next).copied() {
            self.waiting.insert((person, packet.as_bytes().to_vec()), (at, epoch));
        }
    }

    /// A packet came to a person: when to its gateway.
    pub(super) fn taken(&mut self, person: u32, packet: &Packet) -> Option<(Time, u8)> {
        self.waiting.remove(&(person, packet.as_bytes().to_vec()))
    }

    /// It turned out to be this.
    pub(super) fn is(
        &mut self,
        number: u32,
        was: Option<(Time, u8)>,
        person: &Person,
        what: Arrival,
    ) {
        if let Some((at, epoch)) = was
            && let Some(present) = person.client.epoch(at)
        {
            let present = Epoch(present).low_byte();
            let is_loop = what == Arrival::Loop;
            self.came.push(PacketArrival { person: number, at, epoch, present, is_loop });
        }
    }
}
