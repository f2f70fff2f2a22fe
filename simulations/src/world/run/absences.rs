//! People whose programs are off for a time, and the keys that wait for them.

#![expect(clippy::indexing_slicing, reason = "the world numbers its people itself")]

use shoal_node::{Input, SessionId};

use super::{Event, World};
use crate::world::network::Power;
use crate::world::person::Stage;
use crate::world::spans::span;

impl World {
    /// Puts the first looks at keys, and all absences, into the wheel.
    pub(super) fn begin_absences(&mut self) {
        for (number, person) in self.people.iter().enumerate() {
            if person.reachable.is_some() {
                self.wheel.insert(self.now, Event::Keys(number as u32));
            }
        }
        for (number, absence) in self.settings.absences.iter().enumerate() {
            let at = self.now + self.warm_up + span(absence.begin_s);
            for person in absence.people.iter().filter(|n| (**n as usize) < self.people.len()) {
                self.wheel.insert(at, Event::Off { absence: number as u32, person: *person });
            }
        }
    }

    /// A person's program ends.
    pub(super) fn switch_off_person(&mut self, absence: u32, number: u32) {
        let Some(absence) = self.settings.absences.get(absence as usize) else { return };
        let until = self.now + span(absence.end_s - absence.begin_s);
        let person = &mut self.people[number as usize];
        // Where absences overlap the last one ends them.
        person.off_until = person.off_until.max(until);
        self.wheel.insert(until, Event::On(number));
        let (session, stage) = (SessionId(person.session), person.stage);
        person.switch_off(self.now, self.network.unix_ms(self.now));
        let gateway = person.gateway as usize;
        if stage != Stage::Away {
            self.node(gateway, Input::Left(session));
        }
    }

    /// It starts again, and connects.
    pub(super) fn switch_on_person(&mut self, number: u32) {
        let person = &mut self.people[number as usize];
        if person.power == Power::On || self.now < person.off_until {
            return;
        }
        person.switch_on(&self.network, &self.settings, (self.base, self.now));
        self.turn_keys(number);
        self.join(number);
    }

    /// A person's program looks at its keys.
    pub(super) fn turn_keys(&mut self, number: u32) {
        let unix = self.network.unix(self.now);
        let person = &mut self.people[number as usize];
        if person.power == Power::Off {
            return;
        }
        if let Some(key) = person.turn_keys(self.now, unix) {
            self.recipients.contacts[number as usize].key = key;
        }
        self.work(number);
    }
}
