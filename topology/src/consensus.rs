//! The authorities' part without IO: they agree by signed votes on who the nodes are, and sign the same document.
//!
//! Every vote is broadcast by the protocol of Dolev and Strong ("Authenticated algorithms for Byzantine agreement", SIAM J.
//! Comput. 1983): a vote with k signatures counts until the end of round k, and whoever finds one adds its own and passes it
//! on. After f + 1 rounds all honest authorities hold the same set of votes for each author; an author of whom there are
//! two is proven to lie, and counts for nothing. From equal votes follow equal documents ([`derive`]).
//!
//! Agreement needs clocks and messages that keep to the rounds. That no two documents of one epoch are certified does
//! not: an authority stores what it will sign before it signs, and signs one document for each epoch and amendment, so that
//! two would need more than f liars ([`crate::Network::threshold`]).

mod certify;
mod conduct;
mod derive;
pub(crate) mod draw;
mod event;
mod margin;
mod schedule;
mod state;
#[cfg(test)]
mod tests;
mod vote;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use rand::Rng as _;
use serde::Serialize;

pub use conduct::{Fault, Proof};
pub use derive::NoDocument;
pub use event::Event;
pub use schedule::{Schedule, SessionId};
pub use state::State;
pub use vote::{Basis, PeerMessage, Proposal, SignedVote, Vote};

use crate::base::encoding::encode;
use crate::reputation::report::{Report, SignedReport};
use crate::reputation::{Judgement, Reputation};
use crate::{
    ClientDescriptor, Document, DocumentStore, Epoch, Error, FURTHER_EPOCHS, Identity, Network,
    NoPlace, NodeDescriptor, Parameters, SecretIdentity, Seed, Signature, Signed, SignedDocument,
    Stream, VerifiedDocument,
};
use conduct::{Conduct, broke_promise};

/// Reports taken of one node in an epoch.
const MAX_PARTS: u16 = 1_024;

/// What an authority is told when it starts.
pub struct Settings {
    /// The network, with all authorities.
    pub network: Network,
    /// This one's key.
    pub secret: SecretIdentity,
    /// Length of an epoch, seconds.
    pub epoch_s: u32,
    /// What the network shall fix for everyone, from an epoch on: the last whose epoch has come holds. The first holds before
    /// the others in any case.
    pub parameters: Vec<(Epoch, Parameters)>,
    /// Nodes that may be listed.
    pub allowed: Vec<Identity>,
    /// Services that may be listed as exits.
    pub allowed_exits: Vec<Identity>,
    /// Where its secrets for draws come from.
    pub seed: Seed,
}

/// What happens to an authority.
pub enum Input {
    /// It is [`Authority::next_wake`].
    Wake,
    /// Another authority sent this; the link has proven who it is.
    Message {
        /// Who.
        from: Identity,
        /// A [`PeerMessage`].
        bytes: Vec<u8>,
    },
    /// A node sent its signed descriptor.
    Descriptor(Vec<u8>),
    /// A service sent its signed descriptor.
    Exit(Vec<u8>),
    /// A node sent its signed report.
    Report(Vec<u8>),
    /// A document from elsewhere, with signatures.
    Document(Vec<u8>),
    /// What [`Output::Store`] asked for lies on the disk.
    Stored(u64),
}

/// What an authority wants done.
pub enum Output {
    /// To be kept, once an epoch: what the reports showed so far, for [`Reputation::decode`] after a restart. Nothing waits for it,
    /// and without it an authority begins to judge anew.
    Evidence(Vec<u8>),
    /// Send this to another authority.
    Send {
        /// To whom.
        to: Identity,
        /// What.
        bytes: Vec<u8>,
    },
    /// Put this on the disk, in place of what was there, and answer with [`Input::Stored`].
    Store {
        /// Named in the answer.
        ticket: u64,
        /// [`State`] in its encoding.
        state: Vec<u8>,
    },
    /// A document has enough signatures.
    Document(VerifiedDocument),
    /// An authority is proven to lie: once for each kind of lie.
    Liar {
        /// Who.
        authority: Identity,
        /// What it signed.
        proof: Box<Proof>,
    },
    /// For the log.
    Event(Event),
}

/// Who judges nodes by their reports.
pub trait Judge {
    /// A report that was verified, and the document that its places are of.
    fn report(&mut self, document: &Document, report: &Report);
    /// What all reports say by now.
    fn judge(&mut self, document: &Document) -> Judgement;
    /// What it must be given when it starts again, if it would know what it knows.
    fn evidence(&self) -> Option<Vec<u8>> {
        None
    }
}

impl Judge for Reputation {
    fn report(&mut self, document: &Document, report: &Report) {
        self.report(document, report);
    }

    fn judge(&mut self, document: &Document) -> Judgement {
        self.judge(document)
    }

    fn evidence(&self) -> Option<Vec<u8>> {
        Some(self.encode())
    }
}

/// For `status`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Status {
    /// Nodes that described themselves, and services.
    pub described: (usize, usize),
    /// Authorities that were proven to lie.
    pub liars: Vec<String>,
    /// What other authorities did since the start that honest ones do not while links and clocks are sound.
    pub faults: BTreeMap<String, BTreeMap<Fault, u64>>,
    /// What nodes and services sent in vain since the start.
    pub refused: u64,
    /// Epoch and amendment of the latest document.
    pub latest: Option<(u64, u16)>,
    /// The last trouble, until a document stands.
    pub trouble: Option<String>,
    /// Authorities whose vote for the last document did not count.
    pub uncounted: Vec<String>,
    /// Nodes that described themselves and have no place in the last document, and why.
    pub left_out: Vec<(String, String)>,
    /// Nodes of the document before, with their operators, that the last one misses: they have not said their keys in time.
    pub missing: Vec<(String, String)>,
    /// Operators without whose nodes the next document would be short, or none.
    pub critical: Vec<String>,
    /// Whether the last document has fewer mixes in a layer than this authority's parameters ask for.
    pub is_short: bool,
}

/// The votes of one session, by author.
#[derive(Default)]
struct Ballot {
    /// At most two of an author: two prove that it lies.
    votes: BTreeMap<Identity, Vec<(Vote, SignedVote)>>,
    decided: bool,
}

/// A document that was made here.
struct Made {
    document: Document,
    body: Vec<u8>,
    hash: [u8; 32],
    votes: usize,
    /// It may be signed when this was stored.
    ticket: u64,
    signed: bool,
    certified: bool,
    /// Who did not sign it was counted.
    counted: bool,
}

/// Who signed which body of an epoch and amendment, by its hash: one each. All hold.
type Signatures = BTreeMap<(Epoch, u16), BTreeMap<Identity, ([u8; 32], Signature)>>;

/// An authority.
pub struct Authority {
    settings: Settings,
    own: Identity,
    schedule: Schedule,
    judge: Box<dyn Judge + Send>,
    rng: Stream,
    state: State,
    documents: DocumentStore,
    nodes: BTreeMap<Identity, Signed<NodeDescriptor>>,
    exits: BTreeMap<Identity, Signed<ClientDescriptor>>,
    reported: BTreeMap<Identity, (Epoch, u16)>,
    ballots: BTreeMap<SessionId, Ballot>,
    made: BTreeMap<(Epoch, u16), Made>,
    signatures: Signatures,
    /// Hashes of the bodies of documents that are held, or were amended since.
    bodies: BTreeMap<(Epoch, u16), [u8; 32]>,
    conduct: Conduct,
    /// Whether the others were asked for documents in this session or the one before.
    asked: bool,
    session: Option<SessionId>,
    /// How far the last vote of each other authority came outside of its round, milliseconds.
    strays: BTreeMap<Identity, i64>,
    ticket: u64,
    trouble: Option<String>,
    uncounted: Vec<Identity>,
    left_out: Vec<(Identity, NoPlace)>,
    missing: Vec<(Identity, String)>,
    critical: Vec<String>,
    is_short: bool,
    outputs: VecDeque<Output>,
}

impl Authority {
    /// An authority that starts, with what it stored when it last ran.
    pub fn new(mut settings: Settings, judge: Box<dyn Judge + Send>, state: Option<State>) -> Self {
        let parameters = std::mem::take(&mut settings.parameters);
        settings.parameters = for_network(&settings.network, parameters);
        let mut rng = settings.seed.stream("secrets of draws");
        let own = settings.secret.identity();
        let fresh = state.is_none();
        let mut state = state.unwrap_or_default();
        if fresh {
            rng.fill_bytes(&mut state.current);
            rng.fill_bytes(&mut state.next);
        }
        let liars = settings.network.authorities.len().saturating_sub(1) / 3;
        let mut authority = Self {
            schedule: Schedule::new(settings.epoch_s, liars),
            own,
            judge,
            rng,
            documents: DocumentStore::default(),
            nodes: BTreeMap::new(),
            exits: BTreeMap::new(),
            reported: BTreeMap::new(),
            ballots: BTreeMap::new(),
            made: BTreeMap::new(),
            signatures: BTreeMap::new(),
            bodies: BTreeMap::new(),
            conduct: Conduct::default(),
            asked: false,
            session: None,
            strays: BTreeMap::new(),
            ticket: 0,
            trouble: None,
            uncounted: Vec::new(),
            left_out: Vec::new(),
            missing: Vec::new(),
            critical: Vec::new(),
            is_short: false,
            outputs: VecDeque::new(),
            state,
            settings,
        };
        for bytes in authority.state.descriptors.clone() {
            authority.describe(None, &bytes);
        }
        authority
    }

    /// Takes note of something at `now`, milliseconds of Unix time.
    pub fn handle(&mut self, now: u64, input: Input) {
        self.advance(now);
        match input {
            Input::Wake => {}
            Input::Message { from, bytes } => self.message(now, from, &bytes),
            Input::Descriptor(bytes) => self.describe(Some(now), &bytes),
            Input::Exit(bytes) => self.describe_exit(&bytes),
            Input::Report(bytes) => self.report(now, &bytes),
            Input::Document(bytes) => match self.document(now, &bytes) {
                // Whoever starts again gives what it has, and what it kept may be old. Clocks are compared by votes.
                Ok(()) | Err(Error::Stale { .. }) => {}
                Err(error) => self.refuse("a document", error),
            },
            Input::Stored(ticket) => self.stored(now, ticket),
        }
    }

    /// Goes by these lists and votes for these parameters from now on: what an operator changes while it runs. Nodes and
    /// services that are not on the lists any more are forgotten.
    pub fn configure(
        &mut self,
        allowed: Vec<Identity>,
        allowed_exits: Vec<Identity>,
        parameters: Vec<(Epoch, Parameters)>,
    ) {
        self.nodes.retain(|node, _| allowed.contains(node));
        self.exits.retain(|exit, _| allowed_exits.contains(exit));
        (self.settings.allowed, self.settings.allowed_exits) = (allowed, allowed_exits);
        self.settings.parameters = for_network(&self.settings.network, parameters);
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle`] again at the latest, milliseconds of Unix time; `None` before the first call.
    pub fn next_wake(&self) -> Option<u64> {
        let session = self.session?;
        let decided = self.ballots.get(&session).is_none_or(|ballot| ballot.decided);
        let next = self.schedule.next_start(session);
        Some(if decided { next } else { self.schedule.decides(session).min(next) })
    }

    /// The documents that it holds.
    pub fn documents(&self) -> &DocumentStore {
        &self.documents
    }

    /// When things happen.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// For `status`.
    pub fn status(&self) -> Status {
        let newest = self.documents.newest();
        Status {
            described: (self.nodes.len(), self.exits.len()),
            liars: self.state.liars.iter().map(Identity::to_string).collect(),
            faults: (self.conduct.faults.iter())
                .map(|(authority, faults)| (authority.to_string(), faults.clone()))
                .collect(),
            refused: self.conduct.refused,
            latest: newest.map(|held| (held.document.epoch.0, held.document.amendment)),
            trouble: self.trouble.clone(),
            uncounted: self.uncounted.iter().map(Identity::to_string).collect(),
            left_out: (self.left_out.iter().map(|(n, why)| (n.to_string(), why.to_string())))
                .collect(),
            missing: self.missing.iter().map(|(n, by)| (n.to_string(), by.clone())).collect(),
            critical: self.critical.clone(),
            is_short: self.is_short,
        }
    }

    /// What it keeps, for tests that nothing grows: documents, votes of sessions that are not over, bodies made and
    /// signatures of them, nodes whose reports were taken.
    pub fn sizes(&self) -> [usize; 5] {
        [
            self.documents.iter().count(),
            self.ballots.values().flat_map(|ballot| ballot.votes.values()).map(Vec::len).sum(),
            self.made.len(),
            self.signatures.values().map(BTreeMap::len).sum(),
            self.reported.len(),
        ]
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Certified { .. } => self.trouble = None,
            Event::None { why: NoDocument::Nothing, .. } => return,
            // The others carry on.
            Event::Uncounted(_) | Event::AllCounted | Event::LeftOut(_) => {}
            // There is a document all the same.
            Event::Missing(_) | Event::Short { .. } | Event::Whole | Event::Critical(_) => {}
            // What others do can be said by them at will: it has a place of its own in the status.
            Event::Fault(..) | Event::Lied(..) => {}
            _ => self.trouble = Some(event.to_string()),
        }
        self.outputs.push_back(Output::Event(event));
    }

    fn refuse(&mut self, what: &'static str, why: impl fmt::Display) {
        // Not in the status: anybody on the list could fill it.
        if self.conduct.refuse(what) {
            self.outputs.push_back(Output::Event(Event::Refused(format!("{what}: {why}"))));
        }
    }

    /// Counts what another authority did, and says it once a session.
    fn fault(&mut self, authority: Identity, fault: Fault) {
        if self.conduct.fault(authority, fault) {
            self.event(Event::Fault(authority, fault));
        }
    }

    fn lied(&mut self, authority: Identity, proof: Proof) {
        if !self.state.liars.contains(&authority) {
            self.state.liars.push(authority);
        }
        if self.conduct.shows(authority, &proof) {
            self.event(Event::Lied(authority, proof.kind()));
            self.outputs.push_back(Output::Liar { authority, proof: Box::new(proof) });
        }
    }

    /// What the document of an epoch shall fix.
    fn parameters(&self, epoch: Epoch) -> Parameters {
        let all = &self.settings.parameters;
        let at = all.iter().rposition(|(from, _)| *from <= epoch).unwrap_or_default();
        all.get(at).map(|(_, parameters)| parameters.clone()).unwrap_or_default()
    }

    /// How far clocks may be apart, seconds.
    fn clock_error_s(&self, now: u64) -> u64 {
        u64::from(self.parameters(self.schedule.epoch(now)).clock_error_s)
    }

    fn others(&self) -> impl Iterator<Item = Identity> + use<> {
        let own = self.own;
        let authorities = self.settings.network.authorities.clone();
        authorities.into_iter().filter(move |authority| *authority != own)
    }

    fn tell_others(&mut self, word: &PeerMessage) {
        let bytes = word.encode();
        for to in self.others() {
            self.outputs.push_back(Output::Send { to, bytes: bytes.clone() });
        }
    }

    fn ask(&mut self) {
        self.asked = true;
        self.tell_others(&PeerMessage::Ask);
    }

    /// Does what is due.
    fn advance(&mut self, now: u64) {
        let session = self.schedule.session(now);
        if self.session.is_none() {
            // What the last run held, and what the others hold.
            for bytes in self.state.documents.clone() {
                // What is stale by now is asked for.
                let _ = self.document(now, &bytes);
            }
            self.ask();
        }
        let due: Vec<SessionId> = self
            .ballots
            .iter()
            .filter(|(id, ballot)| !ballot.decided && self.schedule.decides(**id) <= now)
            .map(|(id, _)| *id)
            .collect();
        due.into_iter().for_each(|id| self.decide(id));
        if self.session != Some(session) {
            if let Some(before) = self.session {
                self.close(before);
            }
            let begun = self.session.is_some();
            self.asked &= !begun;
            self.session = Some(session);
            self.conduct.begin_session();
            self.forget(session);
            // One that starts in the middle of a session only listens in it.
            if begun || now <= self.schedule.start(session) + self.schedule.round_ms() / 4 {
                self.vote(session);
            }
        }
    }

    /// What belongs to sessions and epochs that are over goes.
    fn forget(&mut self, present: SessionId) {
        let oldest = Epoch(present.epoch.0.saturating_sub(1));
        self.ballots.retain(|id, _| *id >= present);
        self.made.retain(|(epoch, _), _| *epoch >= oldest);
        self.signatures.retain(|(epoch, _), _| *epoch >= oldest);
        self.reported.retain(|_, (epoch, _)| *epoch >= oldest);
    }

    /// At the end of a session: what did not come to a good end.
    fn close(&mut self, session: SessionId) {
        let epoch = self.target(session);
        let unfinished = self.made.iter().find(|((of, _), made)| *of == epoch && !made.certified);
        if let Some((key, made)) = unfinished {
            let by = self.signatures.get(key);
            let same = |by: &BTreeMap<Identity, ([u8; 32], Signature)>| {
                by.values().filter(|(hash, _)| *hash == made.hash).count()
            };
            let found = by.map_or(0, same);
            let needed = self.settings.network.threshold();
            self.event(Event::Uncertified { epoch, signatures: (found, needed) });
        }
        self.count_unsigned(epoch);
        // Most of the others, however many lie.
        let mut strays: Vec<i64> = self.strays.values().copied().collect();
        strays.sort_unstable();
        let far = i64::try_from(self.schedule.round_ms() / 2).unwrap_or(i64::MAX);
        let median = strays.get(strays.len() / 2).copied().unwrap_or_default();
        if 2 * strays.len() > self.settings.network.authorities.len() - 1 && median.abs() > far {
            self.event(Event::Clock(median));
        }
        self.strays.clear();
        if session.index == self.schedule.main()
            && let Some(evidence) = self.judge.evidence()
        {
            self.outputs.push_back(Output::Evidence(evidence));
        }
    }

    /// Counts who did not sign what was made here and enough others signed.
    fn count_unsigned(&mut self, epoch: Epoch) {
        let mut unsigned = Vec::new();
        for (key, made) in &mut self.made {
            if key.0 != epoch || !made.certified || made.counted {
                continue;
            }
            made.counted = true;
            let by = self.signatures.get(key);
            let signed = |who: &Identity| {
                by.and_then(|by| by.get(who)).is_some_and(|(hash, _)| *hash == made.hash)
            };
            let authorities = self.settings.network.authorities.iter();
            unsigned.extend(authorities.filter(|who| !signed(who)).copied());
        }
        // Who is away does not sign either: that is said by whose votes count.
        let voted = |who: &Identity| !self.uncounted.contains(who);
        for authority in unsigned.into_iter().filter(voted).collect::<Vec<_>>() {
            self.fault(authority, Fault::Unsigned);
        }
    }

    /// The epoch whose document a session makes or amends.
    fn target(&self, session: SessionId) -> Epoch {
        if session.index == self.schedule.main() {
            Epoch(session.epoch.0.saturating_add(1))
        } else {
            session.epoch
        }
    }

    fn basis(&self, session: SessionId) -> Option<Basis> {
        self.documents.at(session.epoch).map(|held| Basis::of(&held.document))
    }

    fn held(&self, basis: &Basis) -> Option<VerifiedDocument> {
        self.documents.iter().find(|held| basis.names(&held.document)).cloned()
    }

    /// Says what it wants.
    fn vote(&mut self, session: SessionId) {
        let main = session.index == self.schedule.main();
        let basis = self.basis(session);
        let in_use = self.documents.at(session.epoch).map(|held| held.document.clone());
        let judged = in_use.as_ref().map(|document| self.judge.judge(document)).unwrap_or_default();
        if !main && judged.demote.is_empty() {
            return;
        }
        let vote = Vote {
            network: self.settings.network.name.clone(),
            author: self.own,
            session,
            basis,
            demote: judged.demote.clone(),
            proposal: main.then(|| self.proposal(session, in_use.as_deref(), judged)),
        };
        let relay = SignedVote::of(&vote, &self.settings.secret);
        self.tell_others(&PeerMessage::Vote(relay.clone()));
        self.ballots.entry(session).or_default().votes.insert(self.own, vec![(vote, relay)]);
    }

    fn proposal(
        &mut self,
        session: SessionId,
        in_use: Option<&Document>,
        judged: Judgement,
    ) -> Proposal {
        let epoch = self.target(session);
        let epoch_s = u64::from(self.settings.epoch_s);
        let (begins, ends) = (epoch.0 * epoch_s, (epoch.0 + 1 + FURTHER_EPOCHS) * epoch_s);
        let parameters = self.parameters(epoch);
        let every = u64::from(parameters.draw_every.max(1));
        let promised = in_use.map(|document| document.draw.commitments.as_slice());
        let kept = (self.own, derive::commitment(&self.state.current));
        let kept = promised.is_some_and(|promised| promised.contains(&kept));
        // The same rule as that by which documents are derived: a newly listed epoch brings a draw.
        let last = in_use.map_or(0, |document| document.epoch.0 + FURTHER_EPOCHS);
        let draws = (last + 1..=epoch.0 + FURTHER_EPOCHS).any(|e| e.is_multiple_of(every));
        let reveal = (kept && draws).then_some(self.state.current);
        let commitment = if reveal.is_some() { &self.state.next } else { &self.state.current };
        let usable = |node: &&Signed<NodeDescriptor>| {
            let body = node.body();
            self.settings.allowed.contains(&body.identity)
                && (epoch.0..=epoch.0 + FURTHER_EPOCHS).all(|e| body.has_key(Epoch(e)))
        };
        let valid = |exit: &&Signed<ClientDescriptor>| {
            let body = exit.body();
            self.settings.allowed_exits.contains(&body.identity)
                && body.not_before <= begins
                && body.not_after >= ends.min(begins + epoch_s)
        };
        Proposal {
            epoch_s: self.settings.epoch_s,
            parameters,
            nodes: self.nodes.values().filter(usable).cloned().collect(),
            pools: judged.pools,
            exits: self.exits.values().filter(valid).cloned().collect(),
            restore: judged.restore,
            commitment: derive::commitment(commitment),
            reveal,
        }
    }

    fn message(&mut self, now: u64, from: Identity, bytes: &[u8]) {
        if !self.settings.network.authorities.contains(&from) || from == self.own {
            return;
        }
        if !self.conduct.hears(from, self.settings.network.authorities.len()) {
            return self.fault(from, Fault::Flood);
        }
        match PeerMessage::decode(bytes) {
            Ok(PeerMessage::Vote(relay)) => self.relay(now, from, relay),
            Ok(PeerMessage::Signature { epoch, amendment, hash, signature }) => {
                self.signature(now, from, (epoch, amendment, hash), signature);
            }
            Ok(PeerMessage::Certified(bytes)) => self.given(now, from, &bytes),
            Ok(PeerMessage::Ask) if !self.conduct.answers(from) => self.fault(from, Fault::Flood),
            Ok(PeerMessage::Ask) => {
                let held: Vec<Vec<u8>> =
                    self.documents.iter().map(|held| held.signed.to_vec()).collect();
                for document in held {
                    let bytes = PeerMessage::Certified(document).encode();
                    self.outputs.push_back(Output::Send { to: from, bytes });
                }
            }
            Err(_) => self.fault(from, Fault::Unreadable),
        }
    }

    fn relay(&mut self, now: u64, from: Identity, mut relay: SignedVote) {
        let Ok(vote) = relay.verify(&self.settings.network.authorities) else {
            return self.fault(from, Fault::Vote);
        };
        if vote.network != self.settings.network.name || vote.author == self.own {
            return;
        }
        let (id, author) = (vote.session, vote.author);
        if author == from {
            self.time(now, id, author);
        }
        let round = self.schedule.round_ms();
        let early = now + round / 2 < self.schedule.start(id);
        let late = now > self.schedule.closes(id, relay.signatures.len());
        if early || late || self.schedule.session(self.schedule.start(id)) != id {
            // Who passes others' votes on may be a little late.
            let decided = self.schedule.decides(id);
            let over = decided.saturating_add(self.schedule.session_ms()) < now;
            if author == from || over {
                self.fault(from, Fault::Untimely);
            }
            return;
        }
        let error = self.clock_error_s(now);
        let ballot = self.ballots.entry(id).or_default();
        let known = ballot.votes.entry(author).or_default();
        if ballot.decided || known.len() >= 2 || known.iter().any(|(_, r)| r.vote == relay.vote) {
            return;
        }
        if !relay.signatures.iter().any(|(authority, _)| *authority == self.own) {
            relay.sign(&self.settings.secret);
        }
        let is_of_the_future = vote.is_of_the_future(now / 1_000 + 2 * error);
        let mut proof = vote.made_up().then(|| Proof::MadeUp(relay.clone()));
        known.push((vote, relay.clone()));
        if let [(_, one), (_, other)] = known.as_slice() {
            proof = Some(Proof::Votes(one.clone(), other.clone()));
        }
        // With more than f + 1 signatures an honest one passed it on before.
        if relay.signatures.len() <= self.schedule.passes() {
            self.tell_others(&PeerMessage::Vote(relay));
        }
        if is_of_the_future {
            self.fault(author, Fault::Future);
        }
        if let Some(proof) = proof {
            self.lied(author, proof);
        }
    }

    /// Notes how far a vote came outside of the first round.
    fn time(&mut self, now: u64, id: SessionId, author: Identity) {
        let signed = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
        let (now, start) = (signed(now), signed(self.schedule.start(id)));
        let end = start.saturating_add(signed(self.schedule.round_ms()));
        let stray = if now < start { now - start } else { (now - end).max(0) };
        self.strays.insert(author, stray);
    }

    /// Counts the votes of a session.
    fn decide(&mut self, id: SessionId) {
        let Some(ballot) = self.ballots.get_mut(&id) else { return };
        ballot.decided = true;
        let (votes, relays): (Vec<Vote>, Vec<SignedVote>) = std::mem::take(&mut ballot.votes)
            .into_values()
            .filter_map(|votes| match <[_; 1]>::try_from(votes) {
                Ok([one]) => Some(one),
                Err(_) => None,
            })
            .unzip();
        let epoch = self.target(id);
        if id.index == self.schedule.main() {
            self.count(&votes);
        }
        self.examine(&votes, &relays);
        let made = self.derive(id, &votes);
        match made {
            Ok(document) => self.store(document, votes.len()),
            Err(why) => {
                if let NoDocument::Basis(_) = why {
                    self.ask();
                }
                let held = self.documents.at(id.epoch).map(|held| held.document.clone());
                let missing = match (&why, held) {
                    (NoDocument::Unsound(_), Some(held)) => self.missing(&held, epoch),
                    _ => Vec::new(),
                };
                let mut missing: Vec<String> = missing.into_iter().map(|(_, by)| by).collect();
                missing.dedup();
                self.event(Event::None { epoch, why, missing });
            }
        }
    }

    /// Looks for secrets that were promised and others revealed, or none, and for accusations that nobody shares.
    fn examine(&mut self, votes: &[Vote], relays: &[SignedVote]) {
        let Some(held) =
            derive::basis(votes, self.settings.network.liars()).and_then(|basis| self.held(&basis))
        else {
            return;
        };
        let promised = &held.document.draw.commitments;
        let revealed = |vote: &Vote| vote.proposal.as_ref().map(|p| p.reveal.is_some());
        let draws = votes.iter().filter(|vote| revealed(vote) == Some(true)).count();
        let nodes = held.document.nodes.len();
        let (mut proofs, mut faults) = (Vec::new(), Vec::new());
        for (vote, relay) in votes.iter().zip(relays) {
            if !vote.basis.is_some_and(|basis| basis.names(&held.document)) {
                faults.push((vote.author, Fault::Basis));
            } else if broke_promise(vote, promised) {
                let proof = Proof::Reveal(relay.clone(), held.signed.to_vec());
                proofs.push((vote.author, proof));
            }
            let parameters = |vote: &Vote| vote.proposal.as_ref().map(|p| p.parameters.clone());
            let same = votes.iter().filter(|other| parameters(other) == parameters(vote)).count();
            if 2 * same < votes.len() {
                faults.push((vote.author, Fault::Parameters));
            }
            let owed = promised.iter().any(|(who, _)| *who == vote.author);
            if owed && 2 * draws > votes.len() && revealed(vote) == Some(false) {
                faults.push((vote.author, Fault::Withheld));
            }
            let others = || votes.iter().filter(|other| other.author != vote.author);
            let alone = |node: &&Identity| others().all(|other| !other.demote.contains(node));
            if vote.demote.iter().filter(alone).count() > (nodes / 8).max(1) {
                faults.push((vote.author, Fault::Accusation));
            }
        }
        proofs.into_iter().for_each(|(author, proof)| self.lied(author, proof));
        faults.into_iter().for_each(|(author, fault)| self.fault(author, fault));
    }

    /// Says whose vote does not count, when these are others than before.
    fn count(&mut self, votes: &[Vote]) {
        let mut uncounted = self.settings.network.authorities.clone();
        uncounted.retain(|authority| votes.iter().all(|vote| vote.author != *authority));
        if uncounted != self.uncounted {
            self.uncounted.clone_from(&uncounted);
            let all = uncounted.is_empty();
            self.event(if all { Event::AllCounted } else { Event::Uncounted(uncounted) });
        }
    }

    fn derive(&mut self, id: SessionId, votes: &[Vote]) -> Result<Document, NoDocument> {
        let basis = derive::basis(votes, self.settings.network.liars());
        let held = match &basis {
            Some(basis) => Some(self.held(basis).ok_or(NoDocument::Basis(*basis))?.document),
            None => None,
        };
        let network = &self.settings.network;
        if id.index == self.schedule.main() {
            let (document, left_out) =
                derive::document(network, self.target(id), votes, held.as_deref())?;
            let left_out: Vec<(Identity, NoPlace)> =
                left_out.into_iter().map(|(node, why)| (node.identity(), why)).collect();
            if left_out != self.left_out {
                self.left_out.clone_from(&left_out);
                self.event(Event::LeftOut(left_out));
            }
            self.take_stock(&document, held.as_deref());
            Ok(document)
        } else {
            derive::amendment(network, votes, &*held.ok_or(NoDocument::Nothing)?)
        }
    }

    /// Has a document stored before it is signed, unless another of its epoch and number was signed before.
    fn store(&mut self, document: Document, votes: usize) {
        let key = (document.epoch, document.amendment);
        let body = encode(&document);
        let hash = *blake3::hash(&body).as_bytes();
        if !self.state.may_sign(key.0, key.1, hash) || self.made.contains_key(&key) {
            return;
        }
        self.ticket += 1;
        let ticket = self.ticket;
        let (signed, certified, counted) = (false, false, false);
        let made = Made { document, body, hash, votes, ticket, signed, certified, counted };
        self.made.insert(key, made);
        self.save(ticket);
    }

    fn save(&mut self, ticket: u64) {
        self.state.documents = self.documents.iter().map(|held| held.signed.to_vec()).collect();
        let nodes = self.nodes.values().map(Signed::<NodeDescriptor>::encode);
        self.state.descriptors = nodes.collect();
        self.outputs.push_back(Output::Store { ticket, state: self.state.encode() });
    }

    fn stored(&mut self, now: u64, ticket: u64) {
        let stored = self.made.iter_mut().find(|(_, made)| made.ticket == ticket && !made.signed);
        let Some(((epoch, amendment), made)) = stored else { return };
        made.signed = true;
        let (epoch, amendment) = (*epoch, *amendment);
        let hash = made.hash;
        let of = (epoch, amendment, &hash);
        let signature = SignedDocument::sign(&self.settings.secret, of);
        self.tell_others(&PeerMessage::Signature { epoch, amendment, hash, signature });
        self.signature(now, self.own, (epoch, amendment, hash), signature);
    }

    /// Whether it is on the list. Of two descriptors of a node the later holds.
    fn keep_node(&mut self, signed: Signed<NodeDescriptor>) -> bool {
        let body = signed.body();
        let listed = self.settings.allowed.contains(&body.identity);
        let known = self.nodes.get(&body.identity);
        if listed && known.is_none_or(|known| known.body().signed_at < body.signed_at) {
            self.nodes.insert(body.identity, signed);
        }
        listed
    }

    fn keep_exit(&mut self, signed: Signed<ClientDescriptor>) -> bool {
        let body = signed.body();
        let listed = self.settings.allowed_exits.contains(&body.identity);
        let known = self.exits.get(&body.identity);
        if listed && known.is_none_or(|known| known.body().not_before <= body.not_before) {
            self.exits.insert(body.identity, signed);
        }
        listed
    }

    /// Takes a descriptor, at a time unless it was kept.
    fn describe(&mut self, now: Option<u64>, bytes: &[u8]) {
        let what = "a node's descriptor";
        let in_future = |now: u64, at: u64| at > now / 1_000 + self.clock_error_s(now);
        match Signed::<NodeDescriptor>::decode(bytes) {
            // It would hold for ever against all that the node says later.
            Ok(signed) if now.is_some_and(|now| in_future(now, signed.body().signed_at)) => {
                self.refuse(what, "it was signed in the future: look at the node's clock");
            }
            Ok(signed) => {
                if !self.keep_node(signed) {
                    self.refuse(what, "the node is not on the list");
                }
            }
            Err(error) => self.refuse(what, error),
        }
    }

    fn describe_exit(&mut self, bytes: &[u8]) {
        match Signed::<ClientDescriptor>::decode(bytes) {
            Ok(signed) => {
                if !self.keep_exit(signed) {
                    self.refuse("an exit's descriptor", "the service is not on the list");
                }
            }
            Err(error) => self.refuse("an exit's descriptor", error),
        }
    }

    fn report(&mut self, now: u64, bytes: &[u8]) {
        let report = match SignedReport::decode(bytes) {
            Ok(report) => report,
            Err(error) => return self.refuse("a report", error),
        };
        let report = report.body();
        let present = self.schedule.epoch(now).0;
        let recent = present.saturating_sub(1)..=present;
        let Some(held) =
            self.documents.at(report.epoch).filter(|_| recent.contains(&report.epoch.0))
        else {
            return;
        };
        let new = self
            .reported
            .get(&report.node)
            .is_none_or(|last| *last < (report.epoch, report.part) && report.part < MAX_PARTS);
        if held.document.index_of(&report.node).is_none() || !new {
            return;
        }
        self.reported.insert(report.node, (report.epoch, report.part));
        let document = held.document.clone();
        self.judge.report(&document, report);
    }
}

/// Parameters to vote for, of a network that was founded for trial or was not; the defaults where there are none.
fn for_network(
    network: &Network,
    mut parameters: Vec<(Epoch, Parameters)>,
) -> Vec<(Epoch, Parameters)> {
    if parameters.is_empty() {
        parameters.push((Epoch(0), Parameters::default()));
    }
    parameters.iter_mut().for_each(|(_, parameters)| parameters.trial = network.trial);
    parameters
}
