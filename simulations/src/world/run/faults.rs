//! What goes wrong begins and ends.

#![expect(clippy::indexing_slicing, reason = "the world numbers its nodes and people itself")]

use std::collections::BTreeMap;

use shoal_node::{InboxId, Input, KnownClient};
use shoal_topology::{ClientDescriptor, Signed, Time};

use super::{AGAIN, Event, World};
use crate::world::faults::Planned;
use crate::world::network::Power;
use crate::world::person::Stage;
use crate::world::settings::{Culprit, FaultKind};

impl World {
    /// A fault begins.
    pub(super) fn fault(&mut self, number: usize) {
        let now = self.now;
        let Some(Planned { fault, culprit, ends, .. }) = self.faults.planned.get(number) else {
            return;
        };
        let (fault, culprit, ends) = (fault.clone(), *culprit, *ends);
        match (fault.kind, culprit) {
            (FaultKind::Restart | FaultKind::Reboot, Culprit::Node(node)) => self.switch_off(node),
            (FaultKind::Lossy, Culprit::Node(node)) => {
                self.faults.set_share(node, fault.share.unwrap_or_default());
            }
            (FaultKind::Restart, Culprit::Authority(n)) => {
                if let Some(directory) = &mut self.directory {
                    directory.authorities.stop(n);
                    directory.watchers.iter_mut().for_each(|watcher| watcher.forget(n));
                }
            }
            (FaultKind::Clock, Culprit::Authority(n)) => {
                let ahead_ms = (fault.ahead_s.unwrap_or_default() * 1e3) as i64;
                self.set_clock(n, ahead_ms);
            }
            (FaultKind::Liar, Culprit::Authority(n)) => {
                if let (Some(directory), Some(lie)) = (&mut self.directory, fault.lie) {
                    directory.authorities.lie(n, now, lie);
                }
                self.drain_authorities();
            }
            _ => {}
        }
        if ends < Time::NEVER {
            self.wheel.insert(ends, Event::Mended(number as u32));
        }
    }

    /// A fault is over.
    pub(super) fn mend(&mut self, number: usize) {
        let now = self.now;
        let Some(planned) = self.faults.planned.get(number) else { return };
        match (planned.fault.kind, planned.culprit) {
            (FaultKind::Restart, Culprit::Node(node)) => self.switch_on(node),
            (FaultKind::Reboot, Culprit::Node(node)) => {
                self.lose_memory(node);
                self.switch_on(node);
            }
            (FaultKind::Lossy, Culprit::Node(node)) => self.faults.set_share(node, 0.0),
            (FaultKind::Restart, Culprit::Authority(n)) => {
                self.faults.restarts += 1;
                if let Some(directory) = &mut self.directory {
                    directory.authorities.start(n, now);
                }
                self.drain_authorities();
            }
            (FaultKind::Clock, Culprit::Authority(n)) => self.set_clock(n, 0),
            _ => {}
        }
    }

    fn set_clock(&mut self, n: usize, ahead_ms: i64) {
        if let Some(directory) = &mut self.directory {
            directory.authorities.set_clock(n, self.now, ahead_ms);
        }
        self.drain_authorities();
    }

    /// A node's program ends: what is in its pool is lost, and clients lose their links to it.
    fn switch_off(&mut self, node: usize) {
        let (now, unix_ms) = (self.now, self.network.unix_ms(self.now));
        (self.nodes[node].power, self.nodes[node].scheduled) = (Power::Off, Time::NEVER);
        for number in 0..self.people.len() {
            let person = &mut self.people[number];
            if person.gateway as usize == node && person.stage != Stage::Away {
                person.down(now, unix_ms);
                self.wheel.insert(now + AGAIN, Event::Join(number as u32));
            }
        }
    }

    /// A node's machine has started again: what lay in its runtime directory is gone. Where there is one document for ever
    /// its key stays: there would be no other.
    fn lose_memory(&mut self, node: usize) {
        if let Some(directory) = &mut self.directory {
            directory.watchers[node].reboot(&self.nodes[node].opener);
        }
        if !self.settings.network.inbox_survives_reboot {
            // The key of the file lay there, and what nobody can read any more is thrown away.
            self.inboxes.retain(|(of, _), _| *of as usize != node);
            self.descriptors.retain(|(of, _), _| *of as usize != node);
        }
    }

    /// It starts again, with its keys, the document that it kept, and what waits for clients.
    fn switch_on(&mut self, node: usize) {
        self.faults.restarts += 1;
        let starts = self.nodes[node].before.len() + 1;
        let people = self.people.len() as u32;
        let Some(engine) = self.network.engine(node, &self.settings, people, starts) else {
            return;
        };
        let before = std::mem::replace(&mut self.nodes[node].engine, engine);
        self.nodes[node].before.push(before.counters().clone());
        self.nodes[node].power = Power::On;
        self.node(node, Input::Known(self.waiting_at(node)));
        let unix_ms = self.network.unix_nanos(node, self.now) / 1_000_000;
        match &mut self.directory {
            Some(directory) => {
                let kept = directory.watchers[node].stop();
                directory.relink(&self.network, node);
                // One that lies there for too long is of no use.
                let fresh = kept.filter(|held| held.document.check_time(unix_ms / 1_000).is_ok());
                if let Some(held) = fresh {
                    self.take(node, held, unix_ms);
                }
            }
            None => {
                let epoch = self.network.epoch(node, self.now);
                if let Some(held) = self.network.held().cloned() {
                    let (document, signed, announce) = (held.document, held.signed, self.now);
                    self.node(node, Input::Document { document, signed, epoch, announce });
                }
            }
        }
        for index in 0..self.exit_gateways.len() {
            if self.exit_gateways[index] as usize == node {
                self.wheel.insert(self.now + AGAIN, Event::JoinExit(index as u32));
            }
        }
    }

    /// What lies on the disk of a gateway, by inbox.
    fn waiting_at(&self, node: usize) -> Vec<KnownClient> {
        let here = (node as u32, InboxId([0; 16]))..=(node as u32, InboxId([255; 16]));
        let mut known: BTreeMap<InboxId, (u32, Option<_>)> = BTreeMap::new();
        for ((_, inbox), packets) in self.inboxes.range(here.clone()) {
            known.entry(*inbox).or_default().0 = packets.len() as u32;
        }
        let unix_s = self.network.unix_s(self.now);
        let descriptors = self.descriptors.range(here);
        for ((_, inbox), kept) in descriptors.filter(|(_, kept)| kept.not_after >= unix_s) {
            let descriptor = Signed::<ClientDescriptor>::decode(&kept.bytes).ok();
            known.entry(*inbox).or_default().1 = descriptor;
        }
        let client = |(inbox, (waiting, descriptor))| KnownClient { inbox, waiting, descriptor };
        known.into_iter().map(client).collect()
    }
}
