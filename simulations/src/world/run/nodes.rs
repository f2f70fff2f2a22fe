//! What happens at nodes, and what they want done.

#![expect(clippy::indexing_slicing, reason = "the world numbers its nodes and people itself")]

use std::time::Duration;

use shoal_node::{Arrived, InboxId, Input, Output, SessionId};
use shoal_sphinx::{Downward, Frame, Peeled};
use shoal_topology::{Epoch, Identity, Time};

use super::{AGAIN, Event, KeptDescriptor, NodeArrival, World, fingerprint, party, person};
use crate::trace::Party;
use crate::world::network::Power;
use crate::world::spans::span;

impl World {
    /// A node's clock passes into the next epoch of the only document.
    pub(super) fn epoch(&mut self, node: u32) {
        let number = node as usize;
        let epoch = self.network.epoch(number, self.now);
        if let Some(held) = self.network.held() {
            self.nodes[number].opener.update(&held.document, epoch);
        }
        self.node(number, Input::Epoch(epoch));
        self.wheel.insert(self.network.next_epoch(number, self.now), Event::Epoch(node));
    }

    /// The service connects to one of its gateways.
    pub(super) fn join_exit(&mut self, index: u32) {
        let Some(gateway) = self.exit_gateways.get(index as usize).copied() else { return };
        let (peer, origin) = (Identity([index as u8; 32]), Default::default());
        self.node(gateway as usize, Input::Joined { session: SessionId(0), peer, origin });
    }

    /// A client's frame comes to its gateway.
    pub(super) fn client_sent(&mut self, session: u64, node: usize, sent: Time, frame: Frame) {
        let now = self.now;
        if self.nodes[node].power == Power::Off {
            self.faults.missed += 1;
            return;
        }
        if self.corrupt.is(node) {
            let (from, fingerprint) = (party(session), fingerprint(&frame.packet));
            let came = NodeArrival { at: now, from, fingerprint, epoch: frame.epoch };
            self.corrupt.came(node, came, &frame.packet);
        }
        if let Some(person) = person(session) {
            self.watched.up(person, (sent, now), &frame);
        }
        let input = Input::Client { session: SessionId(session), frame: Ok(frame) };
        self.node(node, input);
    }

    /// A frame from a node is opened and goes to the engine.
    pub(super) fn arrive(&mut self, node: usize, from: u32, frame: Frame) {
        let now = self.now;
        if self.nodes[node].power == Power::Off {
            self.faults.missed += 1;
            return;
        }
        self.hops += 1;
        if self.faults.takes(node) {
            return;
        }
        let came = self.corrupt.is(node).then(|| {
            let (from, fingerprint) = (Party::Node(from), fingerprint(&frame.packet));
            NodeArrival { at: now, from, fingerprint, epoch: frame.epoch }
        });
        let slot = self.release.slot(&frame.packet);
        self.frames.push((now, frame));
        let opener = &self.nodes[node].opener;
        opener.open_batch(&mut self.frames, &mut self.room, &mut self.arrived);
        while let Some(mut arrived) = self.arrived.pop() {
            if let Ok(Arrived { peeled: Peeled::Forward { next, delay, .. }, epoch, .. }) =
                &mut arrived
            {
                self.watched.came(next, now, from, *epoch);
                if let Some(slot) = slot {
                    *delay = self.release.delay(now, slot);
                }
            }
            #[cfg(test)]
            if let Ok(Arrived { peeled: Peeled::Forward { next, packet, .. }, epoch, .. }) =
                &arrived
            {
                self.arrivals.opened(next, packet, now, *epoch);
            }
            if let (Some(came), Ok(Arrived { peeled, .. })) = (came, &arrived) {
                match peeled {
                    Peeled::Forward { packet, .. } => self.corrupt.came(node, came, packet),
                    Peeled::Final { .. } => self.corrupt.ended(node, came),
                }
            }
            self.node(node, Input::Arrived(arrived));
        }
    }

    /// Something happens to a node; what it wants done is done.
    pub(super) fn node(&mut self, node: usize, input: Input) {
        if self.nodes[node].power == Power::Off {
            return;
        }
        self.nodes[node].engine.handle(self.now, input);
        while let Some(output) = self.nodes[node].engine.poll_output() {
            self.output(node, output);
        }
        self.schedule_node(node);
    }

    pub(super) fn schedule_node(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if let Some(at) = node.engine.next_wake()
            && at < node.scheduled
        {
            node.scheduled = at;
            self.wheel.insert(at, Event::Node(number as u32));
        }
    }

    fn output(&mut self, node: usize, output: Output) {
        let now = self.now;
        match output {
            Output::Send { to, frame } => {
                let Some(to) = self.network.number(&to) else { return };
                if self.directory.as_mut().is_some_and(|directory| !directory.links(node, to)) {
                    return;
                }
                if self.corrupt.is(node) {
                    self.corrupt.left(node, now, Party::Node(to as u32), &frame.packet);
                }
                let link = self.links.between(node, to);
                let event = |frame| Event::ToNode { node: to as u32, from: node as u32, frame };
                self.send((link, Time::NEVER), frame, event);
            }
            Output::ToClient { session, frame } => self.send_down(node, session.0, frame),
            Output::CloseClient(session) => {
                if let Some(number) = person(session.0)
                    && self.people[number as usize].session == session.0
                {
                    self.people[number as usize].down(now, self.network.unix_ms(now));
                    self.wheel.insert(now + AGAIN, Event::Join(number));
                } else if session.0 == 0 && self.directory.is_some() {
                    let index = self.exit_gateway(node);
                    self.wheel.insert(now + AGAIN, Event::JoinExit(index));
                }
            }
            Output::Report(report) => {
                let watchers = self.directory.as_mut().map(|directory| &mut directory.watchers);
                if let Some(watcher) = watchers.and_then(|watchers| watchers.get_mut(node)) {
                    watcher.reports.push(report);
                }
            }
            // There are no strangers.
            Output::LetIn(_) => {}
            Output::StoreDescriptor { inbox, descriptor: bytes, not_after } => {
                let kept = KeptDescriptor { bytes, not_after };
                self.descriptors.insert((node as u32, inbox), kept);
            }
            Output::Forget(inbox) => {
                self.descriptors.remove(&(node as u32, inbox));
                self.inboxes.remove(&(node as u32, inbox));
            }
            Output::DiscardDescriptor(inbox) => {
                self.descriptors.remove(&(node as u32, inbox));
            }
            Output::Discard { inbox, packets } => {
                let waiting = self.inboxes.entry((node as u32, inbox)).or_default();
                waiting.drain(..waiting.len().min(packets as usize));
            }
            Output::Store { inbox, frame } => {
                self.inboxes.entry((node as u32, inbox)).or_default().push_back((now, frame));
            }
            Output::Fetch { inbox, max } => self.fetch(node, inbox, max),
        }
    }

    /// A gateway sends something to a client.
    fn send_down(&mut self, node: usize, session: u64, frame: Frame) {
        let now = self.now;
        let person = person(session);
        let link = match person {
            Some(person) => self.links.down(person),
            None => self.links.service_down(self.exit_gateway(node)),
        };
        let next = now + span(1.0 / self.network.class.down_per_s);
        let mut frame = frame;
        if frame.field == Downward::Dummy as u16 {
            let epoch = self.epoch_at(node);
            match person.and_then(|n| self.injector.instead(n, now, epoch.low_byte())) {
                Some(injected) => frame = injected,
                // A dummy would change nothing at the client: it ends at the link.
                None => {
                    self.links.send(link, now, next);
                    return;
                }
            }
        } else if let Some(person) = person
            && frame.field == Downward::Packet as u16
        {
            self.watched.down(person, now);
            self.injector.passes(person, &frame.packet);
        }
        if self.corrupt.is(node) && frame.field == Downward::Packet as u16 {
            self.corrupt.left(node, now, party(session), &frame.packet);
        }
        let event = |frame| Event::ToClient { session, gateway: node as u32, frame };
        self.send((link, next), frame, event);
    }

    /// The present epoch of a node.
    fn epoch_at(&self, node: usize) -> Epoch {
        let watcher = self.directory.as_ref().and_then(|directory| directory.watchers.get(node));
        match watcher {
            Some(watcher) => watcher.present().unwrap_or(Epoch(0)),
            None => self.network.epoch(node, self.now),
        }
    }

    /// Packets that waited for a client.
    fn fetch(&mut self, node: usize, inbox: InboxId, max: usize) {
        let now = self.now;
        let expiry = Duration::from_secs(u64::from(self.network.parameters.inbox_expiry_s));
        let waiting = self.inboxes.entry((node as u32, inbox)).or_default();
        let expired = waiting.iter().take_while(|(at, _)| now.since(*at) > expiry).count();
        waiting.drain(..expired);
        let count = max.min(waiting.len());
        let frames = waiting.drain(..count).map(|(_, frame)| frame).collect();
        let engine = &mut self.nodes[node].engine;
        if expired > 0 {
            engine.handle(now, Input::Expired { inbox, packets: expired as u32 });
        }
        engine.handle(now, Input::Fetched { inbox, frames });
    }

    /// A frame takes a link, on which the next one leaves at an instant that may be known.
    pub(super) fn send(
        &mut self,
        (link, next): (u32, Time),
        mut frame: Frame,
        event: impl Fn(Frame) -> Event,
    ) {
        let Some(passage) = self.links.send(link, self.now, next) else { return };
        if passage.tagged {
            // The last bytes of a payload: whole blocks of zeros with the null codec, anything with the real one.
            frame.packet.as_mut_bytes().iter_mut().rev().take(16).for_each(|byte| *byte ^= 0xA5);
        }
        for _ in 1..passage.copies {
            self.wheel.insert(passage.arrives, event(frame.clone()));
        }
        if passage.copies > 0 {
            self.wheel.insert(passage.arrives, event(frame));
        }
    }

    pub(super) fn exit_gateway(&self, node: usize) -> u32 {
        let index = self.exit_gateways.iter().position(|gateway| *gateway as usize == node);
        index.unwrap_or_default() as u32
    }
}
