//! The authorities of a world: the deployed engines, joined by links that take time, each with a disk that does too.
//!
//! As every engine: something happens ([`Authorities::take`]), then [`Authorities::poll_output`] until there is nothing,
//! then again at [`Authorities::next_wake`].

#![expect(clippy::indexing_slicing, reason = "the authorities are numbered here")]

use std::collections::VecDeque;
use std::time::Duration;

use shoal_topology::consensus::{
    Authority, AuthorityInput, AuthorityOutput, AuthoritySettings as Founding, Schedule, State,
};
use shoal_topology::reputation::Reputation;
use shoal_topology::{
    Epoch, Identity, Network, Parameters, SecretIdentity, Seed, Time, VerifiedDocument,
};

use super::history::History;
use super::liar::Liar;
use super::network::{NAME, Network as Nodes, UNIX, identity};
use super::settings::{Lie, Settings};
use super::spans::millis;

/// What an authority's disk takes.
const DISK: Duration = Duration::from_millis(10);

/// What becomes due at an authority.
pub(super) enum Due {
    /// It is [`Authorities::next_wake`].
    Wake,
    /// A message, a descriptor or a report came.
    Input(AuthorityInput),
    /// A state is on the disk, if the program that wrote it still runs.
    Stored { start: u64, ticket: u64, state: Vec<u8> },
    /// The next round of a liar.
    Lie,
}

/// What authorities want done.
pub(super) enum Sent {
    /// This becomes due at an authority then.
    Due(usize, Time, Due),
    /// An authority gives all nodes this document.
    Document(VerifiedDocument),
}

/// A machine that runs an authority.
struct AuthorityHost {
    secret: SecretIdentity,
    /// None while it is away.
    engine: Option<Authority>,
    disk: Option<Vec<u8>>,
    /// What reports showed, on the disk too.
    evidence: Option<Vec<u8>>,
    /// How far its clock is ahead, milliseconds.
    ahead_ms: i64,
    starts: u64,
    liar: Option<Liar>,
    /// For when a wake-up is under way.
    scheduled: Time,
}

/// The authorities, and the hosts that run them.
pub(super) struct Authorities {
    /// What everyone has of them.
    pub(super) network: Network,
    /// When they do what.
    pub(super) schedule: Schedule,
    pub(super) history: History,
    machines: Vec<AuthorityHost>,
    parameters: Parameters,
    allowed: Vec<Identity>,
    exit: (Identity, Vec<u8>),
    latency: Duration,
    /// Unix time at the beginning, milliseconds.
    begin_ms: u64,
    seed: Seed,
    outputs: VecDeque<Sent>,
}

impl Authorities {
    /// Authorities for these nodes, none of which runs yet; nothing if there are none.
    pub(super) fn new(settings: &Settings, nodes: &Nodes, seed: &Seed) -> Option<Self> {
        let count = settings.network.authorities;
        let seed = seed.part("authorities");
        let machine = |n| AuthorityHost {
            secret: identity(&seed, &format!("authority {n}")),
            engine: None,
            disk: None,
            evidence: None,
            ahead_ms: 0,
            starts: 0,
            liar: None,
            scheduled: Time::NEVER,
        };
        let machines: Vec<AuthorityHost> = (0..count).map(machine).collect();
        let identities: Vec<Identity> =
            machines.iter().map(|machine| machine.secret.identity()).collect();
        let exit = &nodes.exit_descriptor;
        (count > 0).then(|| Self {
            history: History::new(identities.clone()),
            network: Network {
                name: NAME.into(),
                authorities: identities,
                epoch_s: settings.network.epoch_s,
                trial: false,
            },
            schedule: settings.network.schedule(),
            machines,
            parameters: nodes.parameters.clone(),
            allowed: (0..nodes.nodes() as u32).filter_map(|n| nodes.identity(n)).collect(),
            exit: (exit.body().identity, exit.encode()),
            latency: millis(settings.links.latency_ms),
            begin_ms: nodes.unix_ms(Time::ZERO),
            seed,
            outputs: VecDeque::new(),
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.machines.len()
    }

    /// Whether one runs.
    pub(super) fn runs(&self, n: usize) -> bool {
        self.machines[n].engine.is_some()
    }

    /// Unix time by an authority's clock, milliseconds.
    fn clock(&self, n: usize, now: Time) -> u64 {
        let ms = self.begin_ms + now.as_nanos() / 1_000_000;
        ms.saturating_add_signed(self.machines[n].ahead_ms)
    }

    /// One starts, with what is on its disk. The exit says again who it is.
    pub(super) fn start(&mut self, n: usize, now: Time) {
        let machine = &mut self.machines[n];
        machine.starts += 1;
        let settings = Founding {
            network: self.network.clone(),
            secret: machine.secret.clone(),
            epoch_s: self.network.epoch_s,
            parameters: vec![(Epoch(0), self.parameters.clone())],
            allowed: self.allowed.clone(),
            allowed_exits: vec![self.exit.0],
            allowed_organisations: Vec::new(),
            seed: self.seed.part(&format!("{n} {}", machine.starts)),
        };
        let state = machine.disk.as_ref().and_then(|bytes| State::decode(bytes).ok());
        let known = machine.evidence.as_ref().and_then(|bytes| Reputation::decode(bytes).ok());
        let judge = Box::new(known.unwrap_or_default());
        machine.engine = Some(Authority::new(settings, judge, state));
        self.take(n, now, Due::Wake);
        let exit = Due::Input(AuthorityInput::Exit(self.exit.1.clone()));
        self.outputs.push_back(Sent::Due(n, now + self.latency, exit));
    }

    /// One ends. What it had not on its disk is lost.
    pub(super) fn stop(&mut self, n: usize) {
        let machine = &mut self.machines[n];
        (machine.engine, machine.scheduled) = (None, Time::NEVER);
    }

    /// From now on the clock of one is so much ahead.
    pub(super) fn set_clock(&mut self, n: usize, now: Time, ahead_ms: i64) {
        self.machines[n].ahead_ms = ahead_ms;
        self.take(n, now, Due::Wake);
    }

    /// From now on one lies.
    pub(super) fn lie(&mut self, n: usize, now: Time, lie: Lie) {
        let (secret, all) = (self.machines[n].secret.clone(), self.network.authorities.clone());
        let own = self.seed.part(&format!("liar {n}"));
        self.machines[n].liar = Some(Liar::new(lie, secret, all, &own));
        self.history.records[n].lies_since.get_or_insert(now);
        self.take(n, now, Due::Lie);
    }

    /// Something happens at one of them.
    pub(super) fn take(&mut self, n: usize, now: Time, due: Due) {
        let machine = &mut self.machines[n];
        let input = match due {
            Due::Wake => AuthorityInput::Wake,
            Due::Input(input) => input,
            Due::Stored { start, .. } if start != machine.starts || machine.engine.is_none() => {
                return;
            }
            Due::Stored { ticket, state, .. } => {
                machine.disk = Some(state);
                AuthorityInput::Stored(ticket)
            }
            Due::Lie => return self.say(n, now),
        };
        let clock = self.clock(n, now);
        let Some(engine) = &mut self.machines[n].engine else { return };
        engine.handle(clock, input);
        while let Some(output) = self.machines[n].engine.as_mut().and_then(Authority::poll_output) {
            self.output(n, now, output);
        }
        self.schedule_wake(n, now);
    }

    fn output(&mut self, n: usize, now: Time, output: AuthorityOutput) {
        match output {
            AuthorityOutput::Send { to, bytes } => {
                let Some(to) = self.network.authorities.iter().position(|other| *other == to)
                else {
                    return;
                };
                let words = match &mut self.machines[n].liar {
                    Some(liar) => liar.twist(to, bytes),
                    None => vec![bytes],
                };
                words.into_iter().for_each(|bytes| self.send(n, to, now, bytes));
            }
            AuthorityOutput::Store { ticket, state } => {
                let start = self.machines[n].starts;
                let due = Due::Stored { start, ticket, state };
                self.outputs.push_back(Sent::Due(n, now + DISK, due));
            }
            AuthorityOutput::Evidence(evidence) => self.machines[n].evidence = Some(evidence),
            AuthorityOutput::Document(held) => {
                self.history.published(n, &held);
                self.outputs.push_back(Sent::Document(held));
            }
            AuthorityOutput::Liar { authority, .. } => self.history.proven(n, &authority, now),
            AuthorityOutput::Event(event) => self.history.event(n, &event, now),
        }
    }

    fn send(&mut self, from: usize, to: usize, now: Time, bytes: Vec<u8>) {
        let from = self.network.authorities[from];
        let due = Due::Input(AuthorityInput::Message { from, bytes });
        self.outputs.push_back(Sent::Due(to, now + self.latency, due));
    }

    /// What a liar says beside the engine, and again in the next round.
    fn say(&mut self, n: usize, now: Time) {
        let machine = &mut self.machines[n];
        let newest = machine.engine.as_ref().and_then(|engine| engine.documents().newest());
        let newest = newest.cloned();
        let Some(liar) = &mut machine.liar else { return };
        if machine.engine.is_some() {
            for bytes in liar.words(newest.as_ref()) {
                for to in (0..self.machines.len()).filter(|to| *to != n) {
                    self.send(n, to, now, bytes.clone());
                }
            }
        }
        let next = now + Duration::from_millis(self.schedule.round_ms());
        self.outputs.push_back(Sent::Due(n, next, Due::Lie));
    }

    /// Has it called when it wants to be, unless that is under way.
    fn schedule_wake(&mut self, n: usize, now: Time) {
        let machine = &self.machines[n];
        let Some(wake) = machine.engine.as_ref().and_then(Authority::next_wake) else { return };
        let ms = wake.saturating_add_signed(-machine.ahead_ms).saturating_sub(self.begin_ms);
        let at = Time::from_millis(ms).max(now);
        if at < machine.scheduled || machine.scheduled <= now {
            self.machines[n].scheduled = at;
            self.outputs.push_back(Sent::Due(n, at, Due::Wake));
        }
    }

    /// The next thing to do, until there is none.
    pub(super) fn poll_output(&mut self) -> Option<Sent> {
        self.outputs.pop_front()
    }

    /// What an authority gives a node that has just linked to it.
    pub(super) fn documents(&self, n: usize) -> Vec<VerifiedDocument> {
        let engine = self.machines[n].engine.as_ref();
        engine.map(|engine| engine.documents().iter().cloned().collect()).unwrap_or_default()
    }

    /// What one keeps, for tests that nothing grows: as [`Authority::sizes`], then bytes on its disk and of its evidence.
    #[cfg(test)]
    pub(super) fn sizes(&self, n: usize) -> Option<[usize; 7]> {
        let machine = &self.machines[n];
        let [documents, votes, bodies, signatures, reporters] = machine.engine.as_ref()?.sizes();
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let (disk, evidence) = (len(&machine.disk), len(&machine.evidence));
        Some([documents, votes, bodies, signatures, reporters, disk, evidence])
    }
}

/// The epoch in which a world with authorities begins.
pub(super) fn first_epoch(settings: &Settings) -> u64 {
    UNIX / u64::from(settings.network.epoch_s)
}
