//! What gateways see of their people, kept for those who study it.

use std::collections::HashMap;
use std::time::Duration;

use shoal_client::engine::Contact;
use shoal_sphinx::Frame;
use shoal_topology::Time;

use super::settings::Settings;
use super::spans::seconds;
use crate::adversary::at_gateway::{PersonArrival, Seen, Up};

/// The view of each person's gateway. Empty unless it was asked for.
pub(super) struct Watched {
    people: Vec<Seen>,
    inboxes: HashMap<[u8; 32], u32>,
    begin: Time,
    end: Time,
}

impl Watched {
    /// From the end of the warm-up on for so long.
    pub(super) fn new(settings: &Settings, contacts: &[Contact], length: Duration) -> Self {
        let begin = seconds(settings.warm_up_s);
        let watched = if settings.observer.gateway_view { contacts } else { &[] };
        Self {
            people: vec![Seen::default(); watched.len()],
            inboxes: watched.iter().map(|c| c.inbox.0).zip(0..).collect(),
            begin,
            end: begin + length,
        }
    }

    fn at(&mut self, person: u32, now: Time) -> Option<(&mut Seen, u64)> {
        let watches = (self.begin..self.end).contains(&now);
        let seen = self.people.get_mut(person as usize).filter(|_| watches)?;
        Some((seen, now.since(self.begin).as_nanos() as u64))
    }

    /// A frame came up, which left at an instant.
    pub(super) fn up(&mut self, person: u32, (sent, now): (Time, Time), frame: &Frame) {
        if frame.field != shoal_sphinx::CLIENT_CONTROL
            && let Some((seen, at)) = self.at(person, now)
        {
            let sent = at.saturating_sub(now.since(sent).as_nanos() as u64);
            seen.up.push(Up { at, sent, first_hop: frame.field, epoch: frame.epoch });
        }
    }

    /// A packet came that goes to this address next.
    pub(super) fn came(&mut self, next: &[u8; 32], now: Time, from: u32, epoch: u8) {
        if let Some(person) = self.inboxes.get(next).copied()
            && let Some((seen, at)) = self.at(person, now)
        {
            seen.came.push(PersonArrival { at, from, epoch });
        }
    }

    /// A packet went down.
    pub(super) fn down(&mut self, person: u32, now: Time) {
        if let Some((seen, at)) = self.at(person, now) {
            seen.down.push(at);
        }
    }

    /// What was seen, by person.
    pub(super) fn into_seen(self) -> Vec<Seen> {
        self.people
    }
}
