//! What happens at clients and at the service, and what they want sent.

#![expect(clippy::indexing_slicing, reason = "the world numbers its nodes and people itself")]

use shoal_client::engine::{Arrival, ClientOutput, Handle, contact_of_person};
use shoal_node::{Input, Origin, SessionId};
use shoal_sphinx::{Downward, Frame};
use shoal_topology::wire::client_gateway::{Away, ControlMessage, Hello, Mode, Notice};
use shoal_topology::{Identity, Time, exponential};

use super::{AGAIN, Event, World, activity, person};
use crate::world::letter::Letter;
use crate::world::network::Power;
use crate::world::person::{Person, Stage};
use crate::world::spans::span;

impl World {
    pub(super) fn client_receives(&mut self, session: u64, gateway: u32, frame: Frame) {
        let now = self.now;
        let field = Downward::from_field(frame.field);
        let Some(number) = person(session) else {
            match field {
                Some(Downward::Notice) => self.exit_notice(gateway, &frame),
                Some(Downward::Packet) => {
                    if let Some(gateway) = self.network.identity(gateway) {
                        let before = self.exit.unreadable();
                        self.exit.frame(now, gateway, frame);
                        if self.exit.unreadable() > before && now >= Time::ZERO + self.warm_up {
                            self.unreadable.push(Time::ZERO + now.since(Time::ZERO + self.warm_up));
                        }
                    }
                    self.work_exit();
                }
                Some(Downward::Document) => self.exit_document(gateway, &frame),
                _ => {}
            }
            return;
        };
        let person = &mut self.people[number as usize];
        if person.session != session {
            return;
        }
        match field {
            Some(Downward::Notice) => self.notice(number, &frame),
            Some(Downward::Packet) => {
                #[cfg(test)]
                let was = self.arrivals.taken(number, &frame.packet);
                let arrival = person.client.handle_frame(now, frame);
                #[cfg(test)]
                self.arrivals.is(number, was, person, arrival);
                match arrival {
                    Arrival::FromOthers | Arrival::NoCredit | Arrival::Media => self.work(number),
                    Arrival::Loop | Arrival::Nothing => {}
                }
            }
            Some(Downward::Document) => self.document(number, &frame),
            _ => {}
        }
    }

    /// A part of a document came from a person's gateway.
    fn document(&mut self, number: u32, frame: &Frame) {
        let (now, unix_s) = (self.now, self.network.unix_s(self.now));
        let Some(directory) = &mut self.directory else { return };
        let person = &mut self.people[number as usize];
        let Some(bytes) = person.part(frame) else { return };
        let Some(held) = directory.verify(bytes, unix_s) else { return };
        if person.follow(now, unix_s, held).is_err() {
            directory.contradictions += 1;
        }
        self.work(number);
    }

    /// A part of a document came from a gateway of the service.
    fn exit_document(&mut self, gateway: u32, frame: &Frame) {
        let (now, unix_s) = (self.now, self.network.unix_s(self.now));
        let Some(directory) = &mut self.directory else { return };
        let Some(bytes) = self.exit.part(gateway, frame) else { return };
        let Some(held) = directory.verify(bytes, unix_s) else { return };
        if self.exit.follow(now, unix_s, held).is_err() {
            directory.contradictions += 1;
        }
        self.work_exit();
    }

    fn notice(&mut self, number: u32, frame: &Frame) {
        let now = self.now;
        let person = &mut self.people[number as usize];
        let Some(gateway) = self.network.identity(person.gateway) else { return };
        match Notice::unpack(&frame.packet) {
            Ok(Notice::Challenge { nonce }) => {
                let unix_s = self.network.unix_s(now);
                let hello = person.hello((&gateway, unix_s), &nonce, &self.network.class.name);
                let (session, gateway) = (person.session, person.gateway);
                if let Some(frame) = hello {
                    let event = |frame| Event::FromClient { session, gateway, sent: now, frame };
                    self.send((self.links.up(number), Time::NEVER), frame, event);
                }
            }
            Ok(Notice::Welcome) => {
                person.up(now, self.network.unix(now), gateway);
                self.work(number);
            }
            Ok(Notice::Refused(_)) | Err(_) => self.refused += 1,
        }
    }

    fn exit_notice(&mut self, gateway: u32, frame: &Frame) {
        let now = self.now;
        let Ok(Notice::Challenge { nonce }) = Notice::unpack(&frame.packet) else { return };
        let Some(identity) = self.network.identity(gateway) else { return };
        let index = self.exit_gateway(gateway as usize);
        let (_, _, inbox) = &self.network.exit;
        let proof = Hello::prove(inbox, &identity, &Identity([index as u8; 32]), &nonce);
        let hello = Hello {
            inbox: inbox.identity(),
            proof,
            token: Vec::new(),
            mode: Mode::Service,
            descriptor: None,
            documents: Vec::new(),
            away: Away::Keep,
        };
        if let Ok(packet) = hello.pack() {
            let frame = Frame { epoch: 0, field: shoal_sphinx::CLIENT_CONTROL, packet };
            let event = |frame| Event::FromClient { session: 0, gateway, sent: now, frame };
            self.send((self.links.service_up(index), Time::NEVER), frame, event);
        }
    }

    pub(super) fn join(&mut self, number: u32) {
        let person = &mut self.people[number as usize];
        if person.stage != Stage::Away || person.power == Power::Off {
            return;
        }
        if self.nodes[person.gateway as usize].power == Power::Off {
            self.wheel.insert(self.now + AGAIN, Event::Join(number));
            return;
        }
        let peer = person.connect(number);
        let (session, gateway) = (SessionId(person.session), person.gateway as usize);
        if let Some(churn) = &mut person.churn {
            let stay = exponential(churn, span(self.settings.people.online_mean_s));
            self.wheel.insert(self.now + stay, Event::Leave(number));
        }
        // Gateways give documents to so many from one network: with authorities everyone is alone in one.
        let origin = self.directory.as_ref().map_or(Origin(0), |_| Origin(u64::from(number) + 1));
        self.node(gateway, Input::Joined { session, peer, origin });
    }

    pub(super) fn leave(&mut self, number: u32) {
        let person = &mut self.people[number as usize];
        if person.stage == Stage::Away {
            return;
        }
        person.down(self.now, self.network.unix_ms(self.now));
        let (session, gateway) = (SessionId(person.session), person.gateway as usize);
        if let Some(churn) = &mut person.churn {
            let away = exponential(churn, span(self.settings.people.offline_mean_s));
            self.wheel.insert(self.now + away, Event::Join(number));
        }
        self.node(gateway, Input::Left(session));
    }

    /// Somebody interrupts a person's connection. It comes back as soon as a client dials again.
    pub(super) fn interrupt(&mut self, interruption: u32, number: u32) {
        let Some(every_s) =
            self.settings.interruptions.get(interruption as usize).map(|one| one.every_s)
        else {
            return;
        };
        let next = self.now + span(every_s);
        self.wheel.insert(next, Event::Interrupt { interruption, person: number });
        let person = &mut self.people[number as usize];
        if person.stage == Stage::Away {
            return;
        }
        person.down(self.now, self.network.unix_ms(self.now));
        let (session, gateway) = (SessionId(person.session), person.gateway as usize);
        self.wheel.insert(self.now + AGAIN, Event::Join(number));
        self.node(gateway, Input::Left(session));
    }

    /// A person's slots and timeouts.
    pub(super) fn wake(&mut self, number: u32) {
        let now = self.now;
        let person = &mut self.people[number as usize];
        if person.client.next_timeout() <= now {
            person.client.handle_timeout(now);
        }
        let (session, gateway) = (person.session, person.gateway);
        let link = self.links.up(number);
        let slots = person.slots.clone();
        while slots.next_slot() <= now {
            let frame = slots.take(now);
            let next = slots.next_slot();
            self.release.sent(now, &frame.packet);
            let event = |frame| Event::FromClient { session, gateway, sent: now, frame };
            self.send((link, next), frame, event);
        }
        self.work(number);
    }

    /// What came for a person's programs, and what they want sent.
    pub(super) fn work(&mut self, number: u32) {
        let (now, unix_ms) = (self.now, self.network.unix_ms(self.now));
        let Self { people, service, workload, recipients, warm_up, .. } = self;
        let pairs = &recipients.pairs;
        let person = &mut people[number as usize];
        if person.power == Power::Off {
            return;
        }
        let mut take = |person: &mut Person| {
            while let Some(output) = person.client.poll_output() {
                match output {
                    ClientOutput::Message(handle, message) => {
                        if let Some(reachable) = &mut person.reachable {
                            reachable.came(now);
                            if let Some(member) = &mut reachable.member {
                                member.came(handle, message, unix_ms);
                                continue;
                            }
                        }
                        // A letter that no session vouches for is none.
                        if let Some(letter) = Letter::read(&message, pairs, number) {
                            let what = (letter.activity, letter.tick);
                            activity::received(service, workload, *warm_up, what, now);
                            authenticated(person, &letter, handle, now);
                        }
                    }
                    ClientOutput::Failed(group, why) => {
                        if let Some(downloads) = &mut person.downloads {
                            downloads.failed(group, why);
                        }
                    }
                    ClientOutput::Media(media) => {
                        if let Some(letter) = Letter::read(&media, pairs, number) {
                            let what = (letter.activity, letter.tick);
                            activity::received(service, workload, *warm_up, what, now);
                        }
                    }
                    ClientOutput::EpochChanged => person.client.follow_from(now, now),
                    // Everyone stays where the scenario puts them.
                    ClientOutput::LeaveGateway => person.dissatisfied += 1,
                    ClientOutput::Left(id) => {
                        let left = person.reachable.as_mut();
                        let left = left.is_some_and(|of| of.left(id, unix_ms));
                        service.letters_left += u64::from(left);
                    }
                    ClientOutput::Returned(id, _) => {
                        if let Some(reachable) = &mut person.reachable {
                            service.letters_returned += 1;
                            reachable.returned(id, (now, unix_ms));
                        }
                    }
                    ClientOutput::Described(of, found) => {
                        let reachable = person.reachable.as_mut();
                        if let Some(member) = reachable.and_then(|of| of.member.as_mut()) {
                            member.described(&of, found.as_deref().ok(), unix_ms);
                        }
                    }
                    ClientOutput::Connected(_)
                    | ClientOutput::Tunnel(..)
                    | ClientOutput::ComeBack => {}
                }
            }
        };
        take(person);
        if let Some(mut downloads) = person.downloads.take() {
            downloads.work(now, &mut person.client, service);
            person.downloads = Some(downloads);
        }
        person.produce((now, unix_ms), recipients);
        activity::ended(service, workload, *warm_up, person, now);
        let at = person.next_wake(now, unix_ms);
        if at < person.scheduled {
            person.scheduled = at;
            self.wheel.insert(at, Event::Person(number));
        }
    }

    pub(super) fn work_exit(&mut self) {
        let now = self.now;
        for send in self.exit.work(now) {
            let Some(gateway) = self.network.number(&send.gateway) else { continue };
            let link = self.links.service_up(self.exit_gateway(gateway));
            let gateway = gateway as u32;
            let event = |frame| Event::FromClient { session: 0, gateway, sent: now, frame };
            self.send((link, Time::NEVER), send.frame, event);
        }
        let at = self.exit.next_wake();
        if at < self.exit.scheduled {
            self.exit.scheduled = at;
            self.wheel.insert(at, Event::Exit);
        }
    }
}

/// What people's sessions do: they know whose a letter is.
fn authenticated(person: &mut Person, letter: &Letter, handle: Handle, now: Time) {
    person.client.authenticated(now, contact_of_person(letter.from), handle);
}
