//! One of four authorities says what it likes, a hundred words a second: there is a document every epoch all the same.

use rand::seq::IndexedRandom as _;

use super::*;
use crate::base::encoding::encode;

/// The liar among four.
const LIAR: usize = 3;
/// Epochs of a run.
const EPOCHS: u64 = 50;
/// Words a second to each of the others.
const WORDS_PER_S: u64 = 100;

/// What is to be seen of a liar in the status of the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    /// Its name, with what it did.
    Did(Fault),
    /// Its name among those whose vote did not count.
    Missed,
    /// A proof that the author lied.
    Proven,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $test:ident, $seen:expr;)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        enum Kind { $($(#[$doc])* $kind,)* }

        const ALL: &[Kind] = &[$(Kind::$kind,)*];

        mod alone {
            use super::*;
            $(#[test] fn $test() { alone(Kind::$kind, $seen) })*
        }
    };
}

kinds! {
    /// Signatures of amendments that cannot be next: which once stopped everything.
    FarAmendments, signatures_for_far_amendments_stop_nothing, Seen::Did(Fault::NotNext);
    /// Signatures for far epochs.
    FarEpochs, signatures_for_far_epochs_stop_nothing, Seen::Did(Fault::NotNext);
    /// Signatures, that hold, of bodies that nobody made.
    UnknownBodies, signatures_of_unknown_bodies_stop_nothing, Seen::Proven;
    /// Signatures that do not hold.
    BadSignatures, bad_signatures_stop_nothing, Seen::Did(Fault::Signature);
    /// Signatures that others made.
    ReplayedSignatures, replayed_signatures_stop_nothing, Seen::Did(Fault::NotNext);
    /// Its own true signature withheld.
    NoSignature, a_withheld_signature_stops_nothing, Seen::Did(Fault::Unsigned);
    /// A secret that it had not promised.
    MisfitReveal, a_secret_that_was_not_promised_stops_nothing, Seen::Proven;
    /// No secret at a draw.
    NoReveal, a_withheld_secret_stops_nothing, Seen::Did(Fault::Withheld);
    /// Votes with two different commitments to the next secret.
    TwoCommitments, two_commitments_stop_nothing, Seen::Proven;
    /// Descriptors that their nodes did not sign.
    MadeUp, made_up_descriptors_stop_nothing, Seen::Proven;
    /// Descriptors that its own node signed as of the end of time.
    Future, descriptors_from_the_future_stop_nothing, Seen::Did(Fault::Future);
    /// Reports and descriptors that are none.
    FalseReports, false_reports_stop_nothing, Seen::Did(Fault::Unreadable);
    /// Votes, each another.
    VoteFlood, a_flood_of_votes_stops_nothing, Seen::Proven;
    /// Votes that it signed several times.
    RepeatedSignatures, votes_with_repeated_signatures_stop_nothing, Seen::Did(Fault::Vote);
    /// A second vote at the last moments of a session, to one alone.
    LastMoment, votes_at_the_last_moment_stop_nothing, Seen::Proven;
    /// Votes of sessions that are over.
    OldVotes, replayed_votes_stop_nothing, Seen::Did(Fault::Untimely);
    /// Votes for sessions to come.
    EarlyVotes, votes_for_sessions_to_come_stop_nothing, Seen::Did(Fault::Untimely);
    /// Documents with wrong signatures.
    FalseCertified, certified_documents_with_wrong_signatures_stop_nothing, Seen::Did(Fault::Document);
    /// Sound documents with more signatures, by nobody.
    MoreSignatures, certified_documents_with_unknown_signatures_stop_nothing, Seen::Did(Fault::Flood);
    /// Documents of epochs that are over.
    OldCertified, old_certified_documents_stop_nothing, Seen::Did(Fault::OldDocument);
    /// An amendment that restores, signed by itself.
    Restoring, amendments_that_restore_stop_nothing, Seen::Did(Fault::Document);
    /// Votes for the demotion of all nodes, and for restoring all.
    DemotesAll, a_demand_to_demote_all_stops_nothing, Seen::Did(Fault::Accusation);
    /// A vote for other parameters than the others vote for.
    Parameters, votes_for_other_parameters_stop_nothing, Seen::Did(Fault::Parameters);
    /// Votes that build on nothing, or on what nobody holds.
    Basis, votes_on_another_basis_stop_nothing, Seen::Did(Fault::Basis);
    /// No vote at all in the session.
    NoVote, a_withheld_vote_stops_nothing, Seen::Missed;
    /// More bytes than a word may have.
    Oversized, oversized_words_stop_nothing, Seen::Did(Fault::Unreadable);
    /// The beginnings of words.
    Truncated, truncated_words_stop_nothing, Seen::Did(Fault::Unreadable);
    /// Random bytes instead of messages.
    Random, random_bytes_stop_nothing, Seen::Did(Fault::Unreadable);
    /// Questions for all documents.
    Asks, endless_questions_stop_nothing, Seen::Did(Fault::Flood);
}

/// What it has heard and can say again.
#[derive(Default)]
struct Heard {
    relays: Vec<Vec<u8>>,
    signatures: Vec<Vec<u8>>,
    certified: Vec<Vec<u8>>,
}

impl Heard {
    /// The first of each kind, and some of the latest.
    fn hear(&mut self, bytes: &[u8]) {
        let list = match PeerMessage::decode(bytes) {
            Ok(PeerMessage::Vote(_)) => &mut self.relays,
            Ok(PeerMessage::Signature { .. }) => &mut self.signatures,
            Ok(PeerMessage::Certified(_)) => &mut self.certified,
            _ => return,
        };
        if list.len() >= 24 {
            list.remove(8);
        }
        list.push(bytes.to_vec());
    }
}

/// A vote of the liar that is not what it would be.
fn twisted(kind: Kind, vote: &mut Vote) {
    let Some(proposal) = &mut vote.proposal else { return };
    match kind {
        Kind::MisfitReveal => proposal.reveal = Some([77; 32]),
        Kind::NoReveal => proposal.reveal = None,
        Kind::MadeUp => {
            let mut body = proposal.nodes[1].body().clone();
            body.operator = "the liar".into();
            proposal.nodes[1] = Signed::<NodeDescriptor>::new(body, &authority(LIAR));
        }
        Kind::Future => {
            let own = node(7, 0).body().identity;
            let of = |node: &&mut Signed<NodeDescriptor>| node.body().identity == own;
            if let Some(node) = proposal.nodes.iter_mut().find(of) {
                let mut body = node.body().clone();
                (body.signed_at, body.keys[0].last) = (u64::MAX, Epoch(1));
                *node = Signed::<NodeDescriptor>::new(body, &node_secret(7));
            }
        }
        Kind::DemotesAll => {
            vote.demote = proposal.nodes.iter().map(|node| node.body().identity).collect();
            proposal.restore = vote.demote.clone();
        }
        Kind::Parameters => {
            (proposal.parameters.layers, proposal.parameters.draw_every) = (2, 1);
            proposal.epoch_s = 1;
        }
        // Also where nobody has a document.
        Kind::Basis => {
            let nobodys = Basis { epoch: Epoch(0), amendment: 0, hash: [3; 32] };
            vote.basis = Some(Basis { hash: [3; 32], ..vote.basis.unwrap_or(nobodys) });
        }
        _ => {}
    }
}

/// What it sends in place of a word of its own.
fn twist(kind: Kind, bytes: Vec<u8>) -> Option<Vec<u8>> {
    match PeerMessage::decode(&bytes) {
        Ok(PeerMessage::Signature { .. })
            if matches!(kind, Kind::NoSignature | Kind::FarAmendments) =>
        {
            None
        }
        Ok(PeerMessage::Certified(_)) if kind == Kind::FarAmendments => None,
        Ok(PeerMessage::Vote(relay)) if relay.signatures.len() == 1 => {
            if kind == Kind::NoVote {
                return None;
            }
            let authorities: Vec<Identity> = (0..4).map(|n| authority(n).identity()).collect();
            let mut vote = relay.verify(&authorities).unwrap();
            twisted(kind, &mut vote);
            Some(PeerMessage::Vote(SignedVote::of(&vote, &authority(LIAR))).encode())
        }
        _ => Some(bytes),
    }
}

/// The liar and the three others.
struct Hostile {
    world: World,
    rng: Stream,
    heard: Arc<Mutex<Heard>>,
    said: u64,
}

impl Hostile {
    fn new(kinds: &[Kind], seed: u64) -> Self {
        let mut world = World::new(4);
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (ear, kinds) = (heard.clone(), kinds.to_vec());
        let mut rng = Seed::from_u64(seed).stream("twists");
        world.twist = Box::new(move |from, to, bytes| {
            if to == LIAR || from == LIAR {
                ear.lock().unwrap().hear(&bytes);
            }
            let kind = kinds.choose(&mut rng).filter(|_| from == LIAR);
            match kind {
                Some(kind) => twist(*kind, bytes),
                None => Some(bytes),
            }
        });
        Self { world, rng: Seed::from_u64(seed).stream("hostile words"), heard, said: 0 }
    }

    fn clock(&self) -> u64 {
        self.world.clock(LIAR)
    }

    /// The vote of this session, if it has one.
    fn vote(&self) -> Option<Vote> {
        let own = self.world.authorities[LIAR].as_ref()?;
        let votes = own.ballots.get(&own.session?)?.votes.get(&own.own)?;
        votes.first().map(|(vote, _)| vote.clone())
    }

    fn sign(&self, epoch: Epoch, amendment: u16, hash: [u8; 32]) -> PeerMessage {
        let of = (epoch, amendment, &hash);
        let signature = SignedDocument::sign(&authority(LIAR), of);
        PeerMessage::Signature { epoch, amendment, hash, signature }
    }

    fn again(&mut self, of: fn(&Heard) -> &Vec<Vec<u8>>) -> Vec<u8> {
        of(&self.heard.lock().unwrap()).choose(&mut self.rng).cloned().unwrap_or_default()
    }

    /// Votes beside its own.
    fn other_vote(&self, kind: Kind, hash: [u8; 32]) -> Vec<u8> {
        let Some(mut vote) = self.vote() else { return PeerMessage::Ask.encode() };
        if let Some(proposal) = &mut vote.proposal {
            proposal.commitment = hash;
        }
        match kind {
            Kind::EarlyVotes if self.said % 51 == 50 => vote.session.epoch.0 = u64::MAX,
            Kind::EarlyVotes => vote.session.epoch.0 += 1 + self.said % 50,
            Kind::VoteFlood => vote.demote = vec![Identity(hash)],
            _ => {}
        }
        let mut relay = SignedVote::of(&vote, &authority(LIAR));
        if kind == Kind::RepeatedSignatures {
            relay.sign(&authority(LIAR));
        }
        PeerMessage::Vote(relay).encode()
    }

    /// Documents that nobody else signed, or that have a signature too many.
    fn other_document(&self, kind: Kind, hash: [u8; 32]) -> Vec<u8> {
        let own = self.world.authorities[LIAR].as_ref().unwrap();
        let Some(held) = own.documents().newest() else { return Vec::new() };
        let signed = if kind == Kind::MoreSignatures {
            let (body, mut signatures): (Vec<u8>, Vec<(Identity, Signature)>) =
                postcard::from_bytes(&held.signed).unwrap();
            let stranger = authority(20 + self.said as usize % 30);
            signatures.insert(0, (stranger.identity(), stranger.sign(Context::Vote, &hash)));
            SignedDocument::from_parts(body, signatures)
        } else {
            let mut document = (*held.document).clone();
            if kind == Kind::Restoring {
                document.amendment += 1;
                document.nodes.iter_mut().for_each(|node| node.standing = Standing::Good);
            } else {
                document.draw.value = hash;
            }
            SignedDocument::new(&document, [&authority(LIAR), &authority(9)])
        };
        PeerMessage::Certified(signed.encode()).encode()
    }

    /// A word of this kind. Where the lie is in its own votes, it asks the others for what they hold.
    fn word(&mut self, kind: Kind) -> Vec<u8> {
        self.said += 1;
        let n = self.said;
        let present = Epoch(self.clock() / START);
        let next = Epoch(present.0 + 1);
        let hash = *blake3::hash(&n.to_le_bytes()).as_bytes();
        let one_of = |list: &Vec<Vec<u8>>| list.get(n as usize % 8).cloned().unwrap_or_default();
        match kind {
            Kind::FarAmendments => self.sign(next, 100 + n as u16 % 900, hash).encode(),
            Kind::FarEpochs => self.sign(Epoch(n * n), 0, hash).encode(),
            Kind::UnknownBodies => self.sign(next, 0, hash).encode(),
            Kind::BadSignatures => {
                let signature = authority(LIAR).sign(Context::Vote, &hash);
                PeerMessage::Signature { epoch: next, amendment: 0, hash, signature }.encode()
            }
            Kind::ReplayedSignatures => self.again(|heard| &heard.signatures),
            Kind::OldVotes => one_of(&self.heard.lock().unwrap().relays),
            Kind::OldCertified => one_of(&self.heard.lock().unwrap().certified),
            Kind::TwoCommitments
            | Kind::VoteFlood
            | Kind::EarlyVotes
            | Kind::RepeatedSignatures => self.other_vote(kind, hash),
            Kind::FalseCertified | Kind::Restoring | Kind::MoreSignatures => {
                self.other_document(kind, hash)
            }
            Kind::Oversized if n.is_multiple_of(400) => {
                vec![0; crate::wire::authorities::MAX_MESSAGE_LEN + 1]
            }
            Kind::Truncated | Kind::Oversized => {
                let mut word = self.again(|heard| &heard.relays);
                word.truncate(self.rng.random_range(0..=word.len() / 2));
                word
            }
            Kind::Random => {
                let mut bytes = vec![0; self.rng.random_range(0..200)];
                self.rng.fill_bytes(&mut bytes);
                bytes
            }
            _ => PeerMessage::Ask.encode(),
        }
    }

    /// Sends one word of a kind to each of the others.
    fn say(&mut self, kind: Kind) {
        let from = authority(LIAR).identity();
        if kind == Kind::LastMoment {
            return self.vote_late();
        }
        let bytes = self.word(if kind == Kind::FalseReports { Kind::Random } else { kind });
        for n in 0..LIAR {
            if kind == Kind::FalseReports {
                self.world.handle(n, AuthorityInput::Report(bytes.clone()));
                self.world.handle(n, AuthorityInput::Exit(bytes.clone()));
                self.world.handle(n, AuthorityInput::Descriptor(bytes.clone()));
            }
            self.world.handle(n, AuthorityInput::Message { from, bytes: bytes.clone() });
        }
    }

    /// Sends another vote to one of the others, around the ends of the rounds in which votes count.
    fn vote_late(&mut self) {
        self.said += 1;
        let into = self.world.now % 5_000;
        let close = [1_250, 2_250].iter().any(|end| (end - 30..end + 30).contains(&into));
        let Some(mut vote) = self.vote().filter(|_| close) else { return };
        vote.demote = vec![Identity([self.said as u8; 32])];
        let relay = SignedVote::of(&vote, &authority(LIAR));
        let (from, to) = (authority(LIAR).identity(), self.said as usize % LIAR);
        let bytes = PeerMessage::Vote(relay).encode();
        self.world.handle(to, AuthorityInput::Message { from, bytes });
    }

    fn run(&mut self, kinds: &[Kind], epochs: u64) {
        let mut kinds_rng = Seed::from_u64(self.said).stream("kinds");
        self.world.run(10_000);
        let end = self.world.now + epochs * START;
        while self.world.now < end {
            self.world.run(1_000 / WORDS_PER_S);
            let kind = *kinds.choose(&mut kinds_rng).unwrap();
            self.say(kind);
        }
    }

    /// A document every epoch, the same at all three; nobody but the liar is named by any, and nothing grows.
    fn check(&self, epochs: u64) {
        self.world.check_documents(&[0, 1, 2], 3..=epochs);
        let bytes = |n: usize| -> Vec<Vec<u8>> {
            self.world.documents[n].iter().map(|document| encode(&**document)).collect()
        };
        assert!(bytes(0) == bytes(1) && bytes(1) == bytes(2), "the same bytes");
        let liar = authority(LIAR).identity().to_string();
        for n in 0..LIAR {
            let authority = self.world.authorities[n].as_ref().unwrap();
            let status = authority.status();
            let faults = status.faults.keys();
            let mut named = status.liars.iter().chain(faults).chain(&status.uncounted);
            assert!(named.all(|name| *name == liar), "{n} accuses others: {status:?}");
            // Documents, votes, bodies, signatures, nodes that report.
            let sizes = authority.sizes();
            assert!(sizes.into_iter().all(|size| size <= 40), "{sizes:?}");
            // Lines for the log: one for each kind and session.
            let lines = self.world.events[n].iter().filter(|event| event.is_trouble()).count();
            assert!(lines as u64 <= 2 * epochs * 16, "{lines} lines");
        }
    }

    /// True if each of the three says so.
    fn is(&self, seen: Seen) -> bool {
        let liar = authority(LIAR).identity();
        let name = liar.to_string();
        (0..LIAR).all(|n| {
            let status = self.world.authorities[n].as_ref().unwrap().status();
            match seen {
                Seen::Did(fault) => {
                    status.faults.get(&name).is_some_and(|faults| faults.contains_key(&fault))
                }
                Seen::Missed => status.uncounted.contains(&name),
                Seen::Proven => status.liars.contains(&name) && self.world.liars[n].contains(&liar),
            }
        })
    }
}

fn alone(kind: Kind, seen: Seen) {
    let mut hostile = Hostile::new(&[kind], 1);
    hostile.run(&[kind], EPOCHS);
    hostile.check(EPOCHS);
    let status = hostile.world.authorities[0].as_ref().unwrap().status();
    assert!(hostile.is(seen), "{kind:?} is not {seen:?}: {:?} {:?}", status.liars, status.faults);
}

#[test]
fn all_kinds_of_hostile_words_together_stop_nothing() {
    assert!(ALL.len() >= 20);
    for seed in 1..=3 {
        let mut hostile = Hostile::new(ALL, seed);
        hostile.said = seed * 1_000;
        hostile.run(ALL, EPOCHS);
        hostile.check(EPOCHS);
        assert!(hostile.is(Seen::Proven), "seed {seed}");
    }
}

#[test]
fn sixteen_signatures_an_epoch_for_amendments_that_nobody_made_stop_nothing() {
    // As few as once stopped everything, when an epoch begins.
    let mut hostile = Hostile::new(&[Kind::FarAmendments], 2);
    for _ in 0..12 {
        hostile.world.run(START - 100);
        (0..16).for_each(|_| hostile.say(Kind::FarAmendments));
        hostile.world.run(100);
    }
    hostile.check(11);
}
