//! A person: a client with its slots, and what its programs want sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rand::Rng;
use shoal_client::engine::{Client, ClientSettings, Contact, NotPosted, Replies};
use shoal_client::sender::{Produced, Sender, SlotQueue};
use shoal_client::uplink::Uplink;
use shoal_sphinx::{CLIENT_CONTROL, Frame, SecretKey};
use shoal_topology::wire::client_gateway::{
    Assembly, Away, ControlMessage, DocumentPart, Hello, Mode,
};
use shoal_topology::{
    EquivocationProof, Identity, SecretIdentity, Seed, Stream, Time, VerifiedDocument,
};

use super::exit::Downloads;
use super::network::{Network, UNIX, bytes, identity};
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

/// The secrets of pairs of people, which stand for their sessions: who has one can vouch for a letter.
pub(super) struct PairKeys {
    root: [u8; 32],
}

impl PairKeys {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { root: bytes(seed, "sessions") }
    }

    /// What vouches for `text` from one of a pair to the other.
    fn code(&self, from: u32, to: u32, text: &[u8]) -> blake3::Hash {
        let mut pair = [from.min(to).to_be_bytes(), from.max(to).to_be_bytes()].concat();
        let key = blake3::keyed_hash(&self.root, &pair);
        pair.clear();
        pair.extend(from.to_be_bytes());
        pair.extend(text);
        blake3::keyed_hash(key.as_bytes(), &pair)
    }
}

/// Something for another person.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Letter {
    /// Number of who wrote it.
    pub(super) from: u32,
    /// Number of whom it is for.
    pub(super) to: u32,
    /// Number of the activity.
    pub(super) activity: u32,
    /// Number of the datagram of a call.
    pub(super) tick: u32,
}

impl Letter {
    /// As it travels: writer, activity, datagram, 4 bytes each, and 16 bytes that vouch for them.
    pub(super) fn bytes(self, pairs: &PairKeys) -> Vec<u8> {
        let words = [self.from, self.activity, self.tick];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let code = pairs.code(self.from, self.to, &bytes);
        bytes.extend(code.as_bytes().iter().take(16));
        bytes
    }

    /// What came for a person, if the writer's session vouches for it.
    pub(super) fn read(message: &[u8], pairs: &PairKeys, to: u32) -> Option<Self> {
        let (text, code) = message.split_at_checked(12)?;
        let word = |n: usize| {
            let bytes = text.get(4 * n..)?.first_chunk::<4>()?;
            Some(u32::from_be_bytes(*bytes))
        };
        let letter = Self { from: word(0)?, to, activity: word(1)?, tick: word(2)? };
        (letter.bytes(pairs).get(12..) == Some(code)).then_some(letter)
    }
}

/// A person, with the client.
pub(super) struct Person {
    pub(super) client: Sender,
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
        let secret = SecretKey::generate(&mut seed.stream("packets key"));
        let contact = Contact {
            inbox: inbox.identity(),
            key: secret.public(),
            gateway: network.identity(gateway)?,
        };
        let client_settings = ClientSettings {
            allow_shared_gateway: settings.people.shared_gateway == SharedGateway::Allowed,
            replies: if settings.people.strict { Replies::Resting } else { Replies::Downlink },
            // What is studied here may be small.
            allow_small_crowd: true,
            // Everyone has everyone's descriptor.
            reachable: true,
            letters_at_once: !settings.trial.letters_wait,
            tunnel: shoal_client::tunnel::TunnelSettings {
                // As the daemon has it: three hops each way and the slots.
                initial_rtt: 3 * network.class.delay.total_mean(3),
                ..Default::default()
            },
            ..ClientSettings::default()
        };
        let mut client = Client::new(
            network.codec(),
            (base, Time::ZERO),
            seed,
            network.class.clone(),
            (secret, contact.inbox),
            client_settings,
        );
        if let Some(held) = network.held() {
            client.set_document(Time::ZERO, UNIX, held.clone()).ok()?;
        }
        let uplink = Uplink::new(&seed.part("uplink"), network.class.clone(), Time::ZERO);
        let mut client = Sender::new(client, uplink);
        if !settings.trial.credits {
            client = client.without_credit();
        }
        let churns = settings.people.online_mean_s > 0.0;
        let person = Self {
            slots: client.slots(),
            client,
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

    /// Its answer to a gateway's challenge.
    pub(super) fn hello(&self, gateway: &Identity, nonce: &[u8; 32], class: &str) -> Option<Frame> {
        let hello = Hello {
            inbox: self.inbox.identity(),
            proof: Hello::prove(&self.inbox, gateway, &self.peer, nonce),
            token: Vec::new(),
            mode: Mode::Class(class.to_owned()),
            descriptor: None,
            documents: self.documents.clone(),
            away: Away::Keep,
        };
        Some(Frame { epoch: 0, field: CLIENT_CONTROL, packet: hello.pack().ok()? })
    }

    /// The gateway let it in: its schedule begins.
    pub(super) fn up(&mut self, now: Time, gateway: Identity) {
        self.stage = Stage::Online;
        self.client.set_link(now, Some(gateway));
    }

    /// The connection ended.
    pub(super) fn down(&mut self, now: Time) {
        self.stage = Stage::Away;
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

    /// Writes a message.
    pub(super) fn write(&mut self, letter: Letter) {
        self.letters.push_back(letter);
    }

    /// Fills what the slots have room for.
    pub(super) fn produce(&mut self, now: Time, contacts: &[Contact], pairs: &PairKeys) {
        loop {
            if self.stage == Stage::Online && !self.letters.is_empty() {
                self.post(now, contacts, pairs);
            }
            if self.client.produce(now, now) == Produced::Nothing {
                return;
            }
        }
    }

    /// What programs want sent is handed over no sooner than it can leave, so that they may still drop it.
    fn post(&mut self, now: Time, contacts: &[Contact], pairs: &PairKeys) {
        for _ in 0..self.client.room(now) {
            if self.client.is_paused() {
                return;
            }
            let Some(letter) = self.letters.pop_front() else { return };
            let Some(contact) = contacts.get(letter.to as usize) else { continue };
            let bytes = letter.bytes(pairs);
            // One without a path is lost, as it would be to its user.
            if self.client.post(now, contact, &bytes) == Err(NotPosted::Full) {
                self.letters.push_front(letter);
                return;
            }
        }
    }

    /// When it wants to be called again.
    pub(super) fn next_wake(&mut self) -> Time {
        self.client.next_timeout().min(self.slots.next_slot())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_read_by_whom_it_is_for_and_if_nothing_of_it_was_changed() {
        let pairs = PairKeys::new(&Seed::from_u64(1));
        let letter = Letter { from: 3, to: 5, activity: 70_000, tick: 9 };
        let bytes = letter.bytes(&pairs);
        assert_eq!(Letter::read(&bytes, &pairs, 5), Some(letter));
        assert_eq!(Letter::read(&bytes, &pairs, 6), None);
        assert_eq!(Letter::read(&bytes, &PairKeys::new(&Seed::from_u64(2)), 5), None);
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            *changed.get_mut(index).unwrap() ^= 1;
            assert_eq!(Letter::read(&changed, &pairs, 5), None, "{index}");
        }
        // It does not come back to its writer.
        assert_eq!(Letter::read(&bytes, &pairs, 3), None);
        assert_eq!(Letter::read(&[], &pairs, 5), None);
    }
}
