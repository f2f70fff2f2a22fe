//! Authorities, and what nodes do to follow them.

#![expect(clippy::indexing_slicing, reason = "the world numbers its nodes and people itself")]

use std::sync::Arc;
use std::time::Duration;

use shoal_node::Input;
use shoal_topology::consensus::AuthorityInput;
use shoal_topology::reputation::report::SignedReport;
use shoal_topology::{Time, VerifiedDocument};

use super::{Event, World};
use crate::world::authorities::{Due, Sent};
use crate::world::directory::Directory;
use crate::world::network::Power;
use crate::world::spans::millis;
use crate::world::watcher::{News, Word};

/// Between the starts of two nodes' programs, which do not start in the same moment.
const APART: Duration = Duration::from_millis(37);

impl World {
    /// Authorities start, and nodes look.
    pub(super) fn begin_directory(&mut self) {
        let Some(directory) = &mut self.directory else { return };
        for n in 0..directory.authorities.count() {
            directory.authorities.start(n, self.now);
        }
        for node in 0..self.nodes.len() as u32 {
            self.wheel.insert(Time::ZERO + node * APART, Event::Look(node));
        }
        self.drain_authorities();
    }

    /// Something becomes due at an authority.
    pub(super) fn authority(&mut self, n: usize, due: Due) {
        if let Some(directory) = &mut self.directory {
            directory.authorities.take(n, self.now, due);
        }
        self.drain_authorities();
    }

    /// What authorities want done is done.
    pub(super) fn drain_authorities(&mut self) {
        let Some(Directory { authorities, .. }) = &mut self.directory else { return };
        let latency = millis(self.settings.links.latency_ms);
        while let Some(sent) = authorities.poll_output() {
            match sent {
                Sent::Due(n, at, due) => {
                    let event = Event::Authority { authority: n as u32, due: Box::new(due) };
                    self.wheel.insert(at, event);
                }
                Sent::Document(held) => {
                    for node in 0..self.nodes.len() as u32 {
                        let signed = held.signed.clone();
                        self.wheel.insert(self.now + latency, Event::Document { node, signed });
                    }
                }
            }
        }
    }

    /// A document comes to a node.
    pub(super) fn give(&mut self, node: usize, signed: Arc<[u8]>) {
        if self.nodes[node].power == Power::On
            && let Some(directory) = &mut self.directory
        {
            directory.watchers[node].receive(signed);
        }
    }

    /// What a node's program does twice a second.
    pub(super) fn look(&mut self, n: usize) {
        if self.nodes[n].power == Power::Off {
            return;
        }
        let unix_ms = self.network.unix_nanos(n, self.now) / 1_000_000;
        let epoch_s = self.settings.network.epoch_s;
        let Some(directory) = &mut self.directory else { return };
        directory.watchers[n].renew(&self.network, &self.nodes[n].opener, unix_ms, epoch_s);
        let runs = |to: &usize| directory.authorities.runs(*to);
        let running: Vec<usize> = (0..directory.authorities.count()).filter(runs).collect();
        let watcher = &mut directory.watchers[n];
        let untold = |to: usize| watcher.untold(to).map(|word| (to, word));
        for (to, word) in running.into_iter().filter_map(untold).collect::<Vec<_>>() {
            match word {
                Word::First(descriptor) => {
                    self.tell(to, AuthorityInput::Descriptor(descriptor));
                    self.documents_of(to, n);
                }
                Word::Next(descriptor) => self.tell(to, AuthorityInput::Descriptor(descriptor)),
            }
        }
        self.look_at_reports(n, unix_ms);
        self.look_at_documents(n, unix_ms);
        let Some(directory) = &mut self.directory else { return };
        let turned = directory.watchers[n].advance(&self.nodes[n].opener, unix_ms);
        if let Some(epoch) = turned {
            self.node(n, Input::Epoch(epoch));
        }
    }

    /// A node sends something to an authority.
    fn tell(&mut self, to: usize, input: AuthorityInput) {
        let at = self.now + millis(self.settings.links.latency_ms);
        let due = Box::new(Due::Input(input));
        self.wheel.insert(at, Event::Authority { authority: to as u32, due });
    }

    /// A link to an authority begins: it gives the node what it holds.
    fn documents_of(&mut self, authority: usize, node: usize) {
        let Some(directory) = &self.directory else { return };
        let at = self.now + 2 * millis(self.settings.links.latency_ms);
        for VerifiedDocument { signed, .. } in directory.authorities.documents(authority) {
            self.wheel.insert(at, Event::Document { node: node as u32, signed });
        }
    }

    /// What the engine reported goes to all authorities, and it reports again shortly before each session.
    fn look_at_reports(&mut self, n: usize, unix_ms: u64) {
        let Some(directory) = &mut self.directory else { return };
        let count = directory.authorities.count();
        let reports = std::mem::take(&mut directory.watchers[n].reports);
        let schedule = directory.authorities.schedule;
        let due = directory.watchers[n].report_due(&schedule, unix_ms);
        for report in reports {
            let Some(secret) = self.network.secret(n) else { continue };
            let signed = SignedReport::new(report, secret).encode();
            (0..count).for_each(|to| self.tell(to, AuthorityInput::Report(signed.clone())));
        }
        if let Some(part) = due {
            self.node(n, Input::Report { part });
        }
    }

    /// Documents that came are verified and taken.
    fn look_at_documents(&mut self, n: usize, unix_ms: u64) {
        let Some(directory) = &mut self.directory else { return };
        for signed in directory.watchers[n].received() {
            let Some(directory) = &mut self.directory else { return };
            let network = &directory.authorities.network;
            match directory.watchers[n].verify(signed, network, unix_ms) {
                Ok(Some(held)) => self.take(n, held, unix_ms),
                Ok(None) => {}
                Err(_) => directory.refused_by_nodes += 1,
            }
        }
    }

    /// A node takes a verified document.
    pub(super) fn take(&mut self, n: usize, held: VerifiedDocument, unix_ms: u64) {
        let Some(directory) = &mut self.directory else { return };
        let news = directory.watchers[n].take(&self.network, &self.nodes[n].opener, &held, unix_ms);
        match news {
            News::None => {}
            News::Contradiction => {
                directory.contradictions += 1;
                self.node(n, Input::Stale);
            }
            News::Document { epoch, announced_ms } => {
                directory.relink(&self.network, n);
                let announce = self.now + Duration::from_millis(announced_ms - unix_ms);
                let VerifiedDocument { document, signed } = held;
                self.node(n, Input::Document { document, signed, epoch, announce });
            }
        }
    }
}
