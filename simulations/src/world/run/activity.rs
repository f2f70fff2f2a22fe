//! What people do in a world: they write, call and download.

#![expect(clippy::indexing_slicing, reason = "the world numbers its people itself")]

use std::time::Duration;

use shoal_topology::Time;

use super::{Event, World};
use crate::workload::{Activity, Workload};
use crate::world::letter::Letter;
use crate::world::measure::{CALL_GAP_S, Service};
use crate::world::member::Outcome;
use crate::world::person::{Person, Stage};
use crate::world::spans::span;

/// From ringing, and from hanging up, to the instant that was agreed on: about a round trip.
const AGREED: Duration = Duration::from_millis(600);

impl World {
    pub(super) fn schedule_activity(&mut self, number: u32) {
        if let Some(activity) = self.workload.activities.get(number as usize) {
            let at = activity.at() + self.warm_up;
            self.wheel.insert(at.max(self.now), Event::Activity(number));
        }
    }

    pub(super) fn act(&mut self, number: u32) {
        self.schedule_activity(number + 1);
        let now = self.now;
        let Some(activity) = self.workload.activities.get(number as usize).copied() else { return };
        let people = self.people.len() as u32;
        match activity {
            Activity::Message { from, to, .. } if from < people && to < people => {
                let letter = Letter { from, to, activity: number, tick: 0 };
                let times = (now, self.network.unix_ms(now));
                self.people[from as usize].write(letter, times);
                self.work(from);
            }
            Activity::Call { from, to, seconds, .. } if from < people && to < people => {
                self.ring(number, (from, to), seconds);
            }
            Activity::Download { person, bytes, .. } if person < people => {
                let downloads = self.people[person as usize].downloads.get_or_insert_default();
                downloads.add(number, bytes, now);
                self.work(person);
            }
            _ => {}
        }
    }

    /// Two agree on the instant at which media of both pass their gateways for the first time, so that at neither
    /// gateway media and loops overlap or leave a gap. Who is in a call already, or away, is not reached.
    fn ring(&mut self, activity: u32, (from, to): (u32, u32), seconds: f64) {
        if seconds <= 0.0 {
            return;
        }
        let now = self.now;
        let free = |person: u32| {
            let person = &self.people[person as usize];
            person.stage == Stage::Online && person.call_until <= now
        };
        if from == to || !free(from) || !free(to) {
            let unsaid = 2 * (seconds / CALL_GAP_S).ceil() as u64;
            self.service.voice += unsaid;
            self.service.voice_unsent += unsaid;
            return;
        }
        let begin = now + AGREED;
        for (party, other) in [(from, to), (to, from)] {
            let begin = begin - self.links.latency(self.links.up(party));
            let contact = self.recipients.contacts[other as usize];
            let person = &mut self.people[party as usize];
            person.client.begin_call(contact, begin);
            person.call_until = Time::NEVER;
            self.work(party);
        }
        self.wheel.insert(begin, Event::Call { activity, tick: 0 });
        self.wheel.insert(now + span(seconds), Event::Hang(activity));
    }

    /// They agree on the end in the same way.
    pub(super) fn hang(&mut self, activity: u32) {
        let Some(Activity::Call { from, to, .. }) = self.activity(activity) else { return };
        let end = self.now + AGREED;
        for party in [from, to] {
            let until = end - self.links.latency(self.links.up(party));
            let person = &mut self.people[party as usize];
            person.client.end_call(until);
            person.call_until = end;
            self.work(party);
        }
    }

    fn activity(&self, number: u32) -> Option<Activity> {
        self.workload.activities.get(number as usize).copied()
    }

    /// Both ends of a call say something.
    pub(super) fn speak(&mut self, activity: u32, tick: u32) {
        let Some(Activity::Call { from, to, at, seconds }) = self.activity(activity) else {
            return;
        };
        if f64::from(tick) * CALL_GAP_S >= seconds {
            return;
        }
        let now = self.now;
        for (speaker, listener) in [(from, to), (to, from)] {
            let letter = Letter { from: speaker, to: listener, activity, tick };
            let media = letter.bytes(&self.recipients.pairs);
            self.service.voice += 1;
            let person = &mut self.people[speaker as usize];
            self.service.voice_unsent += u64::from(person.client.speak(now, &media).is_err());
            self.work(speaker);
        }
        let next = spoken(at + self.warm_up, tick + 1);
        self.wheel.insert(next, Event::Call { activity, tick: tick + 1 });
    }
}

/// When a datagram of a call that rang at an instant is spoken.
fn spoken(rang: Time, tick: u32) -> Time {
    rang + AGREED + span(f64::from(tick) * CALL_GAP_S)
}

/// What a person, as a member, was told of messages.
pub(super) fn ended(
    service: &mut Service,
    workload: &Workload,
    warm_up: Duration,
    person: &mut Person,
    now: Time,
) {
    let Some(reachable) = &mut person.reachable else { return };
    for outcome in reachable.outcomes.drain(..) {
        match outcome {
            Outcome::Read(activity) => received(service, workload, warm_up, (activity, 0), now),
            Outcome::Delivered(activity) => service.delivered(activity as usize, now),
            Outcome::Expired => service.messages_expired += 1,
        }
    }
}

/// Something arrived for a person's programs.
pub(super) fn received(
    service: &mut Service,
    workload: &Workload,
    warm_up: Duration,
    (activity, tick): (u32, u32),
    now: Time,
) {
    match workload.activities.get(activity as usize) {
        Some(Activity::Message { at, .. }) => service.read(activity as usize, *at + warm_up, now),
        Some(Activity::Call { at, .. }) => {
            service.heard(activity as usize, spoken(*at + warm_up, tick), now);
        }
        _ => {}
    }
}
