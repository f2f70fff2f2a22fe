//! A session: what an authority votes, which votes count, and the document that follows from them.

use super::conduct::{Fault, Proof, broke_promise};
use super::derive;
use super::event::{Event, NoDocument};
use super::schedule::SessionId;
use super::vote::{self, Basis, PeerMessage, Proposal, SignedVote, Vote};
use super::{Authority, AuthorityOutput, OwnDocument};
use crate::base::encoding::encode;
use crate::reputation::Judgement;
use crate::{
    ClientDescriptor, Document, Epoch, FURTHER_EPOCHS, Identity, NodeDescriptor, NotListed, Signed,
    SignedDocument, VerifiedDocument,
};

impl Authority {
    /// The epoch whose document a session makes or amends.
    pub(super) fn target(&self, session: SessionId) -> Epoch {
        if session.index == self.schedule.main() {
            Epoch(session.epoch.0.saturating_add(1))
        } else {
            session.epoch
        }
    }

    pub(super) fn basis(&self, session: SessionId) -> Option<Basis> {
        self.documents.at(session.epoch).map(|held| Basis::of(&held.document))
    }

    pub(super) fn held(&self, basis: &Basis) -> Option<VerifiedDocument> {
        self.documents.iter().find(|held| basis.names(&held.document)).cloned()
    }

    /// Votes in a session, if there is anything to say.
    pub(super) fn vote(&mut self, session: SessionId) {
        let main = session.index == self.schedule.main();
        let basis = self.basis(session);
        let in_use = self.documents.at(session.epoch).map(|held| held.document.clone());
        // In every session, though most say nothing: judging is also what lets old evidence fade.
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

    pub(super) fn proposal(
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
        let kept = (self.own, vote::commitment(&self.state.current));
        let kept = promised.is_some_and(|promised| promised.contains(&kept));
        // The same rule as that by which documents are derived: a newly listed epoch brings a draw.
        let last = in_use.map_or(0, |document| document.epoch.0 + FURTHER_EPOCHS);
        let draws = (last + 1..=epoch.0 + FURTHER_EPOCHS).any(|e| e.is_multiple_of(every));
        // Revealed only where the document brings a draw and has this authority's commitment: a secret that is
        // revealed too early is one that others can choose by.
        let reveal = (kept && draws).then_some(self.state.current);
        let commitment = if reveal.is_some() { &self.state.next } else { &self.state.current };
        // Documents list nodes with keys for all of their epochs alone.
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
            heads: self.heads(in_use),
            restore: judged.restore,
            commitment: vote::commitment(commitment),
            reveal,
        }
    }

    pub(super) fn message(&mut self, now: u64, from: Identity, bytes: &[u8]) {
        // The link has proven who it is; this asks whether that is an authority of this network.
        if !self.settings.network.authorities.contains(&from) || from == self.own {
            return;
        }
        // Before anything is read: a flood must not cost more than counting it.
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
                    self.outputs.push_back(AuthorityOutput::Send { to: from, bytes });
                }
            }
            Err(_) => self.fault(from, Fault::Unreadable),
        }
    }

    pub(super) fn relay(&mut self, now: u64, from: Identity, mut relay: SignedVote) {
        // Against whoever passed it on, not its author: nobody knows who that is.
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
        // Half a round of tolerance for clocks. Later the number of signatures decides: a vote with k of them counts
        // until the end of round k (Dolev and Strong), so whoever withholds one until the last moment has too few.
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
        // Only of sessions that are near: the check above bounds how many ballots there can be.
        let ballot = self.ballots.entry(id).or_default();
        let known = ballot.votes.entry(author).or_default();
        // A third vote of one author proves no more than two, and would be passed on for nothing.
        if ballot.decided || known.len() >= 2 || known.iter().any(|(_, r)| r.vote == relay.vote) {
            return;
        }
        if !relay.signatures.iter().any(|(authority, _)| *authority == self.own) {
            relay.sign(&self.settings.secret);
        }
        let is_of_the_future = vote.is_of_the_future(now / 1_000 + 2 * error);
        let mut proof = vote.made_up().then(|| Proof::MadeUp(relay.clone()));
        // Kept although it may be made up: it must be passed on, or honest authorities would hold different sets.
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
    pub(super) fn time(&mut self, now: u64, id: SessionId, author: Identity) {
        let signed = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
        let (now, start) = (signed(now), signed(self.schedule.start(id)));
        let end = start.saturating_add(signed(self.schedule.round_ms()));
        let stray = if now < start { now - start } else { (now - end).max(0) };
        self.strays.insert(author, stray);
    }

    /// Counts the votes of a session.
    pub(super) fn decide(&mut self, id: SessionId) {
        let Some(ballot) = self.ballots.get_mut(&id) else { return };
        ballot.decided = true;
        let (votes, relays): (Vec<Vote>, Vec<SignedVote>) = std::mem::take(&mut ballot.votes)
            .into_values()
            // An author with two votes counts for nothing. All honest authorities hold both by now, so they drop it
            // alike.
            .filter_map(|votes| match <[_; 1]>::try_from(votes) {
                Ok([one]) => Some(one),
                Err(_) => None,
            })
            .unzip();
        let epoch = self.target(id);
        // In the others who has nothing to say does not vote, so a missing vote says nothing.
        if id.index == self.schedule.main() {
            self.count(&votes);
        }
        self.examine(&votes, &relays);
        let made = self.derive(id, &votes);
        match made {
            Ok(document) => self.store(document, votes.len()),
            Err(why) => {
                // The others have a document that is not here; they give it when asked.
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
    pub(super) fn examine(&mut self, votes: &[Vote], relays: &[SignedVote]) {
        let Some(held) =
            derive::basis(votes, self.settings.network.liars()).and_then(|basis| self.held(&basis))
        else {
            return;
        };
        let promised = &held.document.draw.commitments;
        let revealed = |vote: &Vote| vote.proposal.as_ref().map(|p| p.reveal.is_some());
        // Whether this session brings a draw is told by most votes, not by the own clock.
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
            // A minority, so that two configurations in halves accuse nobody.
            if 2 * same < votes.len() {
                faults.push((vote.author, Fault::Parameters));
            }
            let owed = promised.iter().any(|(who, _)| *who == vote.author);
            if owed && 2 * draws > votes.len() && revealed(vote) == Some(false) {
                faults.push((vote.author, Fault::Withheld));
            }
            let others = || votes.iter().filter(|other| other.author != vote.author);
            let alone = |node: &&Identity| others().all(|other| !other.demote.contains(node));
            // A few that nobody shares are honest doubts; an eighth of the network is not.
            if vote.demote.iter().filter(alone).count() > (nodes / 8).max(1) {
                faults.push((vote.author, Fault::Accusation));
            }
        }
        proofs.into_iter().for_each(|(author, proof)| self.lied(author, proof));
        faults.into_iter().for_each(|(author, fault)| self.fault(author, fault));
    }

    /// Says whose vote does not count, when these are others than before.
    pub(super) fn count(&mut self, votes: &[Vote]) {
        let mut uncounted = self.settings.network.authorities.clone();
        uncounted.retain(|authority| votes.iter().all(|vote| vote.author != *authority));
        if uncounted != self.uncounted {
            self.uncounted.clone_from(&uncounted);
            let all = uncounted.is_empty();
            self.event(if all { Event::AllCounted } else { Event::Uncounted(uncounted) });
        }
    }

    pub(super) fn derive(&mut self, id: SessionId, votes: &[Vote]) -> Result<Document, NoDocument> {
        let basis = derive::basis(votes, self.settings.network.liars());
        let held = match &basis {
            Some(basis) => Some(self.held(basis).ok_or(NoDocument::Basis(*basis))?.document),
            None => None,
        };
        let network = &self.settings.network;
        if id.index == self.schedule.main() {
            let (document, left_out) =
                derive::document(network, self.target(id), votes, held.as_deref())?;
            let left_out: Vec<(Identity, NotListed)> =
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
    pub(super) fn store(&mut self, document: Document, votes: usize) {
        let key = (document.epoch, document.amendment);
        let body = encode(&document);
        let hash = *blake3::hash(&body).as_bytes();
        // The state notes the hash before it is stored and long before it is signed: after a crash in between, the
        // same document may be signed and no other.
        if !self.state.may_sign(key.0, key.1, hash) || self.made.contains_key(&key) {
            return;
        }
        // Tickets begin at 1, so that 0 can stand for what nobody waits for.
        self.ticket += 1;
        let ticket = self.ticket;
        let (signed, certified, counted) = (false, false, false);
        let made = OwnDocument { document, body, hash, votes, ticket, signed, certified, counted };
        self.made.insert(key, made);
        self.save(ticket);
    }

    pub(super) fn save(&mut self, ticket: u64) {
        self.state.documents = self.documents.iter().map(|held| held.signed.to_vec()).collect();
        let nodes = self.nodes.values().map(Signed::<NodeDescriptor>::encode);
        self.state.descriptors = nodes.collect();
        self.outputs.push_back(AuthorityOutput::Store { ticket, state: self.state.encode() });
    }

    pub(super) fn stored(&mut self, now: u64, ticket: u64) {
        // Only now may the signature leave: what was sent cannot be unsaid, and a restart must know of it.
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
}
