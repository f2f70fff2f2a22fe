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
mod contract;
mod derive;
mod described;
pub(crate) mod draw;
mod event;
mod margin;
mod schedule;
mod session;
mod state;
#[cfg(test)]
mod tests;
mod vote;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use rand::Rng as _;
use serde::Serialize;

pub use conduct::{Fault, Proof};
pub use event::{Event, NoDocument};
pub use schedule::{Schedule, SessionId};
pub use state::State;
pub use vote::{Basis, PeerMessage, Proposal, SignedVote, Vote};

use crate::reputation::report::Report;
use crate::reputation::{Judgement, Reputation};
use crate::{
    ClientDescriptor, Document, DocumentStore, Epoch, Error, HeadUpdate, Identity, Network,
    NodeDescriptor, NotListed, Parameters, SecretIdentity, Seed, Signature, Signed, Stream,
    VerifiedDocument,
};
use conduct::Conduct;

/// Reports taken of one node in an epoch.
const MAX_PARTS: u16 = 1_024;

/// What an authority is told when it starts.
pub struct AuthoritySettings {
    /// The network, with all authorities.
    pub network: Network,
    /// The secret key of this authority.
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
    /// Organisations whose directories may have a head in the document: their keys, and the names that they go by.
    pub allowed_organisations: Vec<(Identity, String)>,
    /// Where its secrets for draws come from.
    pub seed: Seed,
}

/// What happens to an authority.
pub enum AuthorityInput {
    /// The instant of [`Authority::next_wake`] has come.
    Wake,
    /// Another authority sent this; the link has proven who it is.
    Message {
        /// The authority that sent it.
        from: Identity,
        /// A [`PeerMessage`], encoded.
        bytes: Vec<u8>,
    },
    /// A node sent its signed descriptor.
    Descriptor(Vec<u8>),
    /// A service sent its signed descriptor.
    Exit(Vec<u8>),
    /// An organisation sent the head of its directory, as a [`crate::HeadUpdate`].
    Head(Vec<u8>),
    /// A node sent its signed report.
    Report(Vec<u8>),
    /// A document from elsewhere, with signatures.
    Document(Vec<u8>),
    /// What [`AuthorityOutput::Store`] asked for lies on the disk.
    Stored(u64),
}

/// What an authority wants done.
pub enum AuthorityOutput {
    /// To be kept, once an epoch: what the reports showed so far, for [`Reputation::decode`] after a restart. Nothing waits for it,
    /// and without it an authority begins to judge anew.
    Evidence(Vec<u8>),
    /// Send this to another authority.
    Send {
        /// The authority to send it to.
        to: Identity,
        /// A [`PeerMessage`], encoded.
        bytes: Vec<u8>,
    },
    /// Put this on the disk, in place of what was there, and answer with [`AuthorityInput::Stored`].
    Store {
        /// The name by which the answer says what was stored.
        ticket: u64,
        /// The [`State`], encoded.
        state: Vec<u8>,
    },
    /// A document has enough signatures.
    Document(VerifiedDocument),
    /// An authority is proven to lie: once for each kind of lie.
    Liar {
        /// The authority that lied.
        authority: Identity,
        /// What it signed, for others to verify.
        proof: Box<Proof>,
    },
    /// Something that the operator should read in the log.
    Event(Event),
}

/// Who judges nodes by their reports.
pub trait Judge {
    /// A report that was verified, and the document that its indices are of.
    fn report(&mut self, document: &Document, report: &Report);
    /// What all reports say by now.
    fn judge(&mut self, document: &Document) -> Judgement;
    /// State for [`Reputation::decode`] after a restart; `None`: the judge keeps none.
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

/// What the control socket and the metrics show of an authority.
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
    /// Nodes that described themselves and are not listed in the last document, and why.
    pub left_out: Vec<(String, String)>,
    /// Nodes of the document before, with their operators, that the last one misses: they have not said their keys in time.
    pub missing: Vec<(String, String)>,
    /// Operators without whose nodes the next document would be short, or none.
    pub critical: Vec<String>,
    /// True if the last document has fewer mixes in a layer than this authority's parameters ask for.
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
struct OwnDocument {
    /// The document itself.
    document: Document,
    /// Its canonical bytes: what is signed is their hash.
    body: Vec<u8>,
    /// BLAKE3 of `body`.
    hash: [u8; 32],
    /// From how many votes it was made.
    votes: usize,
    /// It may be signed when this was stored.
    ticket: u64,
    /// It was signed here.
    signed: bool,
    /// Enough authorities signed it.
    certified: bool,
    /// Who did not sign it was counted.
    counted: bool,
}

/// Who signed which body of an epoch and amendment, by its hash: one each. All hold.
type Signatures = BTreeMap<(Epoch, u16), BTreeMap<Identity, ([u8; 32], Signature)>>;

/// The engine of an authority.
///
/// One thread owns it. It calls [`Authority::handle`] for all that happens and, with [`AuthorityInput::Wake`], at
/// [`Authority::next_wake`] at the latest, and after each call takes all outputs by [`Authority::poll_output`], in
/// their order. Time is milliseconds of Unix time by this machine's clock.
/// [`Authority::next_wake`] and [`Authority::status`] go stale with each call. An [`AuthorityOutput::Store`] must be on the
/// disk before its ticket comes back as [`AuthorityInput::Stored`]: the signature that then leaves is bound to it.
pub struct Authority {
    /// What it was told when it started; lists and parameters change by [`Authority::configure`].
    settings: AuthoritySettings,
    /// The identity of `settings.secret`.
    own: Identity,
    /// When sessions and rounds begin.
    schedule: Schedule,
    /// Who judges nodes by their reports.
    judge: Box<dyn Judge + Send>,
    /// Where secrets for draws come from.
    rng: Stream,
    /// What a restart needs, as it was stored last or will be next.
    state: State,
    /// The documents that are in use, or soon.
    documents: DocumentStore,
    /// The latest descriptor of each node on the list.
    nodes: BTreeMap<Identity, Signed<NodeDescriptor>>,
    /// The latest descriptor of each service on the list of exits.
    exits: BTreeMap<Identity, Signed<ClientDescriptor>>,
    /// The latest head of each organisation on the list.
    heads: BTreeMap<Identity, HeadUpdate>,
    /// The last report of each node, by epoch and part: one that comes again is not counted again.
    reported: BTreeMap<Identity, (Epoch, u16)>,
    /// The votes of sessions that are not over.
    ballots: BTreeMap<SessionId, Ballot>,
    /// What votes made here, until the epoch is over.
    made: BTreeMap<(Epoch, u16), OwnDocument>,
    /// Signatures of the other authorities, and the own ones.
    signatures: Signatures,
    /// Hashes of the bodies of documents that are held, or were amended since.
    bodies: BTreeMap<(Epoch, u16), [u8; 32]>,
    /// What the other authorities did that honest ones do not.
    conduct: Conduct,
    /// True if the others were asked for documents in this session or the one before.
    asked: bool,
    /// The session that runs; none before the first call.
    session: Option<SessionId>,
    /// How far the last vote of each other authority came outside of its round, milliseconds.
    strays: BTreeMap<Identity, i64>,
    /// The ticket of the last [`AuthorityOutput::Store`] of a document.
    ticket: u64,
    /// The last trouble, until a document stands.
    trouble: Option<String>,
    /// Authorities whose vote for the last document did not count.
    uncounted: Vec<Identity>,
    /// Nodes that are not listed in the last document, and why.
    left_out: Vec<(Identity, NotListed)>,
    /// Nodes that the last document misses, with their operators.
    missing: Vec<(Identity, String)>,
    /// Operators without whose nodes the next document would be short, or none.
    critical: Vec<String>,
    /// True if the last document has fewer mixes in a layer than `settings` asks for.
    is_short: bool,
    /// What was not taken yet.
    outputs: VecDeque<AuthorityOutput>,
}

impl Authority {
    /// An authority that starts, with what it stored when it last ran.
    pub fn new(
        mut settings: AuthoritySettings,
        judge: Box<dyn Judge + Send>,
        state: Option<State>,
    ) -> Self {
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
            heads: BTreeMap::new(),
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
    pub fn handle(&mut self, now: u64, input: AuthorityInput) {
        // Sessions that are over by now are closed first: the input belongs to the one that runs.
        self.advance(now);
        match input {
            AuthorityInput::Wake => {}
            AuthorityInput::Message { from, bytes } => self.message(now, from, &bytes),
            AuthorityInput::Descriptor(bytes) => self.describe(Some(now), &bytes),
            AuthorityInput::Exit(bytes) => self.describe_exit(&bytes),
            AuthorityInput::Head(bytes) => self.describe_organisation(now, &bytes),
            AuthorityInput::Report(bytes) => self.report(now, &bytes),
            AuthorityInput::Document(bytes) => match self.document(now, &bytes) {
                // Whoever starts again gives what it has, and what it kept may be old. Clocks are compared by votes.
                Ok(()) | Err(Error::Stale { .. }) => {}
                Err(error) => self.refuse("a document", error),
            },
            AuthorityInput::Stored(ticket) => self.stored(now, ticket),
        }
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<AuthorityOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle`] again at the latest, milliseconds of Unix time; `None` before the first call.
    pub fn next_wake(&self) -> Option<u64> {
        let session = self.session?;
        let decided = self.ballots.get(&session).is_none_or(|ballot| ballot.decided);
        let next = self.schedule.next_start(session);
        // A session without votes has nothing to decide.
        Some(if decided { next } else { self.schedule.decides(session).min(next) })
    }

    /// The documents that it holds.
    pub fn documents(&self) -> &DocumentStore {
        &self.documents
    }

    /// The timetable of sessions and rounds.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// What the control socket and the metrics show, as of the last call.
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
        self.outputs.push_back(AuthorityOutput::Event(event));
    }

    fn refuse(&mut self, what: &'static str, why: impl fmt::Display) {
        // Not in the status: anybody on the list could fill it.
        if self.conduct.refuse(what) {
            self.outputs
                .push_back(AuthorityOutput::Event(Event::Refused(format!("{what}: {why}"))));
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
        // The list of liars is stored and outlives a restart; that a proof was shown is not, so it is shown once a
        // run.
        if self.conduct.shows(authority, &proof) {
            self.event(Event::Lied(authority, proof.kind()));
            self.outputs.push_back(AuthorityOutput::Liar { authority, proof: Box::new(proof) });
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
        // To each of them directly: what only some got a liar could withhold from the others.
        for to in self.others() {
            self.outputs.push_back(AuthorityOutput::Send { to, bytes: bytes.clone() });
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
        // Collected first, for deciding changes the ballots. Late rather than never: a thread that slept decides what
        // it has.
        due.into_iter().for_each(|id| self.decide(id));
        if self.session != Some(session) {
            if let Some(before) = self.session {
                self.close(before);
            }
            let begun = self.session.is_some();
            // What was asked for in the session before is no longer expected; what a start asks for in this very call
            // is.
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
        // Signatures of the epoch before may still come for amendments of its document.
        let oldest = Epoch(present.epoch.0.saturating_sub(1));
        self.ballots.retain(|id, _| *id >= present);
        self.made.retain(|(epoch, _), _| *epoch >= oldest);
        self.signatures.retain(|(epoch, _), _| *epoch >= oldest);
        self.reported.retain(|_, (epoch, _)| *epoch >= oldest);
    }

    /// At the end of a session: what did not come to a good end.
    fn close(&mut self, session: SessionId) {
        let epoch = self.target(session);
        // Here and not when signatures are due: until the session is over they may still come.
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
        // Once an epoch is enough: what is lost by a crash is one epoch's loops.
        if session.index == self.schedule.main()
            && let Some(evidence) = self.judge.evidence()
        {
            self.outputs.push_back(AuthorityOutput::Evidence(evidence));
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
