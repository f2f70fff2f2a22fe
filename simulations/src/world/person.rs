//! A person: a client with its slots, and what its programs want sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rand::Rng;
use shoal_client::engine::{Client, ClientSettings, Contact, NotPosted, Replies};
use shoal_client::sender::{Produced, Sender, SlotQueue};
use shoal_client::uplink::{Filled, Uplink};
use shoal_people::Roster;
use shoal_sphinx::{CLIENT_CONTROL, Frame, PublicKey, SecretKey};
use shoal_topology::wire::client_gateway::{
    Assembly, Away, ControlMessage, DocumentPart, Hello, Mode,
};
use shoal_topology::{
    EquivocationProof, Identity, SecretIdentity, Seed, Stream, Time, VerifiedDocument,
};

use super::exit::Downloads;
use super::letter::{Letter, Recipients};
use super::member::MemberDevice;
use super::network::{Network, Power, identity};
use super::reachable::Reachable;
use super::settings::{Settings, SharedGateway};

/// Documents that it tells its gateway to have: that in use, the next, and amendments.
const DOCUMENTS: usize = 8;

/// Whether a person is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// It has no connection.
    Away,
    /// Its gateway has not let it in yet.
    Joining,
    /// It is in.
    Online,
}

/// What an engine had done when it ended with its program.
#[derive(Clone, Copy, Default)]
pub(super) struct Done {
    slots: u64,
    filler: u64,
    media_late: u64,
}

/// A person, with the client.
pub(super) struct Person {
    pub(super) client: Sender,
    /// Whether its program runs.
    pub(super) power: Power,
    /// Until when its program is off, as far as that is known.
    pub(super) off_until: Time,
    /// What engines before this one did.
    before: Vec<Done>,
    /// Its own seed.
    seed: Seed,
    /// What its program keeps so that others can write to it by its address.
    pub(super) reachable: Option<Box<Reachable>>,
    /// The slots of its link.
    pub(super) slots: Arc<SlotQueue>,
    pub(super) gateway: u32,
    pub(super) stage: Stage,
    /// Number of its connection; zero for none yet.
    pub(super) session: u64,
    /// For when a wake-up is in the wheel.
    pub(super) scheduled: Time,
    pub(super) churn: Option<Box<Stream>>,
    pub(super) downloads: Option<Box<Downloads>>,
    /// When it is free for another call.
    pub(super) call_until: Time,
    inbox: SecretIdentity,
    /// Times that it would have left its gateway for another one.
    pub(super) dissatisfied: u64,
    /// The documents that it has, as it tells its gateway, which would send them else; the latest last.
    documents: Vec<[u8; 8]>,
    /// Parts of the one that is coming.
    assembly: Box<Assembly>,
    peer: Identity,
    peers: Box<Stream>,
    /// Messages, which wait until they are sent.
    letters: VecDeque<Letter>,
}

impl Person {
    /// A person, and how others reach it.
    pub(super) fn new(
        network: &Network,
        settings: &Settings,
        gateway: u32,
        base: Instant,
        seed: &Seed,
    ) -> Option<(Self, Contact)> {
        let inbox = identity(seed, "inbox");
        let at = network.identity(gateway)?;
        let unix @ (unix_s, _) = network.unix(Time::ZERO);
        let mut reachable = (settings.people.key_period_s > 0).then(|| {
            let period_s = settings.people.key_period_s;
            Box::new(Reachable::new(period_s, (inbox.identity(), at), seed, unix_s))
        });
        let secret = match &reachable {
            Some(reachable) => reachable.key(unix_s)?,
            None => SecretKey::generate(&mut seed.stream("packets key")),
        };
        let contact = Contact { inbox: inbox.identity(), key: secret.public(), gateway: at };
        let secrets = (secret, contact.inbox);
        let mut client = engine(network, settings, (base, Time::ZERO), secrets, seed);
        if let Some(reachable) = &mut reachable {
            reachable.begin(&mut client, unix);
        }
        if let Some(held) = network.held() {
            client.set_document(Time::ZERO, unix_s, held.clone()).ok()?;
        }
        let churns = settings.people.online_mean_s > 0.0;
        let person = Self {
            slots: client.slots(),
            client,
            power: Power::On,
            off_until: Time::ZERO,
            before: Vec::new(),
            seed: seed.clone(),
            reachable,
            gateway,
            stage: Stage::Away,
            session: 0,
            scheduled: Time::NEVER,
            churn: churns.then(|| Box::new(seed.stream("churn"))),
            downloads: None,
            inbox,
            dissatisfied: 0,
            documents: network.held().iter().map(|h| DocumentPart::tag_of(&h.signed)).collect(),
            assembly: Box::default(),
            peer: Identity([0; 32]),
            peers: Box::new(seed.stream("throwaway identities")),
            letters: VecDeque::new(),
            call_until: Time::ZERO,
        };
        Some((person, contact))
    }

    /// It is the member with this number of an organisation.
    ///
    /// # Errors
    /// Its messages cannot begin.
    pub(super) fn enrol(
        &mut self,
        (network, settings): (&Network, &Settings),
        number: u32,
        roster: &Roster,
    ) -> anyhow::Result<()> {
        let Some(reachable) = &mut self.reachable else { return Ok(()) };
        let unix_ms = network.unix_ms(Time::ZERO);
        let own = (number, reachable.identity());
        let of_class = (settings, &network.class);
        let seed = self.seed.part("messages");
        let member = MemberDevice::new(own, of_class, roster.clone(), seed, unix_ms)?;
        reachable.enrol(member, unix_ms);
        Ok(())
    }

    /// Its program ends, and with it what the engine knows.
    pub(super) fn switch_off(&mut self, now: Time, unix_ms: u64) {
        if self.stage != Stage::Away {
            self.down(now, unix_ms);
        }
        (self.power, self.scheduled) = (Power::Off, Time::NEVER);
    }

    /// Its program starts again, with what lies on its disk: only those have something there whom others can write to by
    /// an address.
    pub(super) fn switch_on(
        &mut self,
        network: &Network,
        settings: &Settings,
        (base, now): (Instant, Time),
    ) {
        self.before.push(self.of_engine());
        let (unix @ (unix_s, _), starts) = (network.unix(now), self.before.len());
        let seed = self.seed.part(&format!("start {starts}"));
        let Some(reachable) = &mut self.reachable else { return };
        reachable.open(unix_s);
        let Some(key) = reachable.key(unix_s) else { return };
        let secrets = (key, self.inbox.identity());
        let mut client = engine(network, settings, (base, now), secrets, &seed);
        if !reachable.begin(&mut client, unix) {
            return;
        }
        self.documents.clear();
        if let Some(held) = network.held()
            && client.set_document(now, unix_s, held.clone()).is_ok()
        {
            self.documents.push(DocumentPart::tag_of(&held.signed));
        }
        (self.slots, self.client, self.power) = (client.slots(), client, Power::On);
    }

    /// What its engine has done so far.
    fn of_engine(&self) -> Done {
        let filled: Filled = self.slots.filled();
        let media_late = self.client.counts().media_late;
        Done { slots: filled.total(), filler: filled.filler, media_late }
    }

    fn done(&self, of: impl Fn(Done) -> u64) -> u64 {
        of(self.of_engine()) + self.before.iter().copied().map(of).sum::<u64>()
    }

    /// Slots that passed, and those of them that random bytes took.
    pub(super) fn filled(&self) -> (u64, u64) {
        (self.done(|done| done.slots), self.done(|done| done.filler))
    }

    /// Media of calls that made way for later ones.
    pub(super) fn media_late(&self) -> u64 {
        self.done(|done| done.media_late)
    }

    /// A new connection begins: who it is on it.
    pub(super) fn connect(&mut self, number: u32) -> Identity {
        let generation = self.session >> 32;
        self.session = (generation + 1) << 32 | (u64::from(number) + 1);
        self.stage = Stage::Joining;
        *self.assembly = Assembly::default();
        // Any bytes will do: the link that would prove it is not simulated.
        self.peers.fill_bytes(&mut self.peer.0);
        self.peer
    }

    /// Its answer to a gateway's challenge, at this second of Unix time.
    pub(super) fn hello(
        &self,
        (gateway, unix_s): (&Identity, u64),
        nonce: &[u8; 32],
        class: &str,
    ) -> Option<Frame> {
        let reachable = self.reachable.as_ref();
        let hello = Hello {
            inbox: self.inbox.identity(),
            proof: Hello::prove(&self.inbox, gateway, &self.peer, nonce),
            token: Vec::new(),
            mode: Mode::Class(class.to_owned()),
            descriptor: reachable.and_then(|reachable| reachable.descriptor(unix_s)),
            documents: self.documents.clone(),
            away: Away::Keep,
        };
        Some(Frame { epoch: 0, field: CLIENT_CONTROL, packet: hello.pack().ok()? })
    }

    /// The gateway let it in: its schedule begins.
    pub(super) fn up(&mut self, now: Time, unix: (u64, u64), gateway: Identity) {
        self.stage = Stage::Online;
        if let Some(reachable) = &mut self.reachable {
            reachable.up(now, unix);
        }
        self.client.set_link(now, Some(gateway));
    }

    /// The connection ended.
    pub(super) fn down(&mut self, now: Time, unix_ms: u64) {
        self.stage = Stage::Away;
        self.reachable.iter_mut().for_each(|of| of.down(unix_ms));
        self.client.set_link(now, None);
    }

    /// A part of a document came; the document, if it was the last.
    pub(super) fn part(&mut self, frame: &Frame) -> Option<Vec<u8>> {
        self.assembly.add(DocumentPart::unpack(&frame.packet).ok()?)
    }

    /// A document was verified. With the first one the schedule begins.
    ///
    /// # Errors
    /// It contradicts another one.
    pub(super) fn follow(
        &mut self,
        now: Time,
        unix_s: u64,
        held: VerifiedDocument,
    ) -> Result<(), EquivocationProof> {
        let tag = DocumentPart::tag_of(&held.signed);
        self.documents.retain(|other| *other != tag);
        self.documents.push(tag);
        let beyond = self.documents.len().saturating_sub(DOCUMENTS);
        self.documents.drain(..beyond);
        let known = self.client.epoch(now).is_some();
        self.client.set_document(now, unix_s, held)?;
        if !known && self.stage == Stage::Online {
            self.client.restart(now);
        }
        Ok(())
    }

    /// Turns the keys of its periods. Its present one, if it has such.
    pub(super) fn turn_keys(&mut self, now: Time, unix: (u64, u64)) -> Option<PublicKey> {
        let (unix_s, _) = unix;
        let reachable = self.reachable.as_mut()?;
        let is_linked = self.stage == Stage::Online;
        if is_linked {
            reachable.drain(now, unix_s);
        }
        reachable.turn_keys(&mut self.client, unix);
        if is_linked {
            reachable.renew(&mut self.client, now, unix_s);
        }
        Some(reachable.key(unix_s)?.public())
    }

    /// Writes a message.
    pub(super) fn write(&mut self, letter: Letter, times: (Time, u64)) {
        match &mut self.reachable {
            Some(reachable) => reachable.write(letter, times),
            None => self.letters.push_back(letter),
        }
    }

    /// Fills what the slots have room for.
    pub(super) fn produce(&mut self, (now, unix_ms): (Time, u64), to: &Recipients) {
        loop {
            if self.stage == Stage::Online
                && let Some(reachable) = &mut self.reachable
            {
                reachable.post(&mut self.client, (now, unix_ms), to);
            } else if self.stage == Stage::Online && !self.letters.is_empty() {
                self.post(now, to);
            }
            if self.client.produce(now, now) == Produced::Nothing {
                return;
            }
        }
    }

    /// What programs want sent is handed over no sooner than it can leave, so that they may still drop it.
    fn post(&mut self, now: Time, to: &Recipients) {
        for _ in 0..self.client.room(now) {
            if self.client.is_paused() {
                return;
            }
            let Some(letter) = self.letters.pop_front() else { return };
            let Some(contact) = to.contacts.get(letter.to as usize) else { continue };
            let bytes = letter.bytes(&to.pairs);
            // One without a path is lost, as it would be to its user.
            if self.client.post(now, contact, &bytes) == Err(NotPosted::Full) {
                self.letters.push_front(letter);
                return;
            }
        }
    }

    /// When it wants to be called again.
    pub(super) fn next_wake(&mut self, now: Time, unix_ms: u64) -> Time {
        let next_try = self.reachable.as_mut().map_or(Time::NEVER, |of| of.next_try(now, unix_ms));
        self.client.next_timeout().min(self.slots.next_slot()).min(next_try)
    }
}

/// An engine with its slots, which has no document yet.
fn engine(
    network: &Network,
    settings: &Settings,
    times: (Instant, Time),
    secrets: (SecretKey, Identity),
    seed: &Seed,
) -> Sender {
    let client_settings = ClientSettings {
        allow_shared_gateway: settings.people.shared_gateway == SharedGateway::Allowed,
        replies: if settings.people.strict { Replies::Resting } else { Replies::Downlink },
        // What is studied here may be small.
        allow_small_crowd: true,
        // Everyone has everyone's descriptor, or asks for it.
        reachable: true,
        letters_at_once: !settings.trial.letters_wait,
        tunnel: shoal_client::tunnel::TunnelSettings {
            // As the daemon has it: three hops each way and the slots.
            initial_rtt: 3 * network.class.delay.total_mean(3),
            ..Default::default()
        },
        ..ClientSettings::default()
    };
    let class = network.class.clone();
    let uplink = Uplink::new(&seed.part("uplink"), class.clone(), times.1);
    let client = Client::new(network.codec(), times, seed, class, secrets, client_settings);
    let sender = Sender::new(client, uplink);
    if settings.trial.credits { sender } else { sender.without_credit() }
}
