//! What people do in a world: they write, call and download.

#![expect(clippy::indexing_slicing, reason = "the world numbers its people itself")]

use std::time::Duration;

use shoal_topology::Time;

use super::{Event, World};
use crate::workload::{Activity, Workload};
use crate::world::measure::{CALL_GAP_S, Service};
use crate::world::person::Letter;
use crate::world::settings::span;

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
                self.people[from as usize].write(letter);
                self.work(from);
            }
            Activity::Call { from, to, .. } if from < people && to < people => {
                self.speak(number, 0);
            }
            Activity::Download { person, bytes, .. } if person < people => {
                let downloads = self.people[person as usize].downloads.get_or_insert_default();
                downloads.add(number, bytes, now);
                self.work(person);
            }
            _ => {}
        }
    }

    /// Both ends of a call say something.
    pub(super) fn speak(&mut self, activity: u32, tick: u32) {
        let Some(Activity::Call { from, to, at, seconds }) =
            self.workload.activities.get(activity as usize).copied()
        else {
            return;
        };
        if f64::from(tick) * CALL_GAP_S >= seconds {
            return;
        }
        let room = self.settings.people.softphone_packets;
        for (speaker, listener) in [(from, to), (to, from)] {
            let letter = Letter { from: speaker, to: listener, activity, tick };
            self.service.voice += 1;
            self.service.voice_unsent += self.people[speaker as usize].speak(letter, room);
            self.work(speaker);
        }
        let next = spoken(at + self.warm_up, tick + 1);
        self.wheel.insert(next, Event::Call { activity, tick: tick + 1 });
    }
}

/// When a datagram of a call is spoken.
fn spoken(begin: Time, tick: u32) -> Time {
    begin + span(f64::from(tick) * CALL_GAP_S)
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
