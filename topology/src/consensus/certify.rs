//! From a body that was made here to a document that enough authorities signed.

use std::sync::Arc;

use super::conduct::{Fault, Proof};
use super::event::Event;
use super::vote::PeerMessage;
use super::{Authority, AuthorityOutput, vote};
use crate::{Epoch, Error, HeadUpdate, Identity, Signature, SignedDocument, VerifiedDocument};

impl Authority {
    /// Says whether signatures of this epoch and amendment are kept: of those documents that are made in these
    /// sessions, and of the ones in force. So at most two of each authority for each of three epochs.
    fn can_be_next(&self, now: u64, (epoch, amendment): (Epoch, u16)) -> Option<bool> {
        let present = self.schedule.epoch(now).0;
        if !(present.saturating_sub(1)..=present.saturating_add(1)).contains(&epoch.0) {
            return Some(false);
        }
        match self.held_of(epoch) {
            // Late, and no fault: its sender may not have the amendment yet.
            Some(held) if amendment < held => None,
            Some(held) => Some(amendment <= held.saturating_add(1)),
            None if amendment == 0 => Some(true),
            // Whoever started just now does not know what the others hold. What has not begun has no amendments.
            None if epoch.0 <= present => None,
            None => Some(false),
        }
    }

    /// The amendment of the document of an epoch that is held.
    fn held_of(&self, epoch: Epoch) -> Option<u16> {
        let mut held = self.documents.iter().map(|held| &held.document);
        held.find(|document| document.epoch == epoch).map(|document| document.amendment)
    }

    /// Takes a signature of another authority, or the own one: one for each epoch and amendment. It is verified at once, for
    /// what is signed needs no body; two prove a lie.
    pub(super) fn signature(
        &mut self,
        now: u64,
        from: Identity,
        (epoch, amendment, hash): (Epoch, u16, [u8; 32]),
        signature: Signature,
    ) {
        let key = (epoch, amendment);
        match self.can_be_next(now, key) {
            Some(true) => {}
            Some(false) => return self.fault(from, Fault::NotNext),
            None => return,
        }
        let known = self.signatures.get(&key).and_then(|by| by.get(&from)).copied();
        if known.is_some_and(|(known, _)| known == hash) {
            return;
        }
        // It must be by whoever sent it: the link has proven that one.
        if !SignedDocument::holds(&from, (epoch, amendment, &hash), &signature) {
            return self.fault(from, Fault::Signature);
        }
        if let Some(known) = known {
            // Both were verified, so both are kept as proof; the first stays the one that counts.
            let signed = [known, (hash, signature)];
            return self
                .lied(from, Proof::Signatures { authority: from, epoch, amendment, signed });
        }
        self.signatures.entry(key).or_default().insert(from, (hash, signature));
        self.certify(now, key);
    }

    /// Makes a document of what was made here, when enough others signed the same.
    fn certify(&mut self, now: u64, key: (Epoch, u16)) {
        let Some(made) = self.made.get(&key).filter(|made| !made.certified) else { return };
        let Some(by) = self.signatures.get(&key) else { return };
        // Signatures of other bodies stay where they are: they may be right, and this body wrong.
        let same = by.iter().filter(|(_, (hash, _))| *hash == made.hash);
        let same: Vec<(Identity, Signature)> =
            same.map(|(authority, (_, signature))| (*authority, *signature)).collect();
        if same.len() < self.settings.network.threshold() {
            return;
        }
        let signed = SignedDocument::from_parts(made.body.clone(), same).encode();
        if let Err(error) = self.document(now, &signed) {
            self.refuse("the document that was made here", error);
        }
    }

    /// Takes a document that another authority gives. What is known already is not verified again, with whatever
    /// signatures it comes.
    pub(super) fn given(&mut self, now: u64, from: Identity, bytes: &[u8]) {
        match self.document(now, bytes) {
            Ok(()) => {}
            // Whoever was asked gives all that it holds, old ones too.
            Err(Error::Stale { .. }) if self.asked => {}
            Err(Error::Stale { .. }) => self.fault(from, Fault::OldDocument),
            Err(_) => self.fault(from, Fault::Document),
        }
    }

    /// Takes a document that enough authorities signed, whoever made it.
    ///
    /// # Errors
    /// It is none, or cannot be used.
    pub(super) fn document(&mut self, now: u64, bytes: &[u8]) -> Result<(), Error> {
        let claim = SignedDocument::claim(bytes);
        if claim.is_some_and(|(epoch, amendment, hash)| {
            self.bodies.get(&(epoch, amendment)) == Some(&hash)
        }) {
            return Ok(());
        }
        let network = &self.settings.network;
        // All rules again, also for what was made here: what the others would refuse must not be sent to them.
        let document = Arc::new(SignedDocument::verify(bytes, network, now / 1_000)?);
        let key = (document.epoch, document.amendment);
        let held = VerifiedDocument { document: document.clone(), signed: bytes.into() };
        match self.documents.insert(held.clone()) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(two) => {
                self.event(Event::Contradiction(two.epoch));
                return Ok(());
            }
        }
        if let Some((.., hash)) = claim {
            self.bodies.insert(key, hash);
            let oldest = self.documents.iter().next().map_or(Epoch(0), |held| held.document.epoch);
            self.bodies.retain(|(epoch, _), _| *epoch >= oldest);
        }
        // The certified one may be another than was made here; then this one never counts as certified.
        let made = self.made.get_mut(&key).filter(|made| made.document == *document);
        let votes = made.map_or(0, |made| {
            made.certified = true;
            made.votes
        });
        // Who is listed need not say again who it is, when this one starts anew.
        for node in &document.nodes {
            self.keep_node(node.descriptor.clone());
        }
        for exit in &document.exits {
            self.keep_exit(exit.clone());
        }
        for head in &document.heads {
            self.keep_head(HeadUpdate { head: head.clone(), proof: Vec::new() });
        }
        // What this one promised for the next draw is what it will reveal.
        let next = (self.own, vote::commitment(&self.state.next));
        if document.draw.commitments.contains(&next) {
            self.state.current = self.state.next;
            rand::Rng::fill_bytes(&mut self.rng, &mut self.state.next);
        }
        let of = self.settings.network.authorities.len();
        self.event(Event::Certified { epoch: key.0, amendment: key.1, votes: (votes, of) });
        // For those who made another one, or none. Each passes it on once, since a second time it is known.
        self.tell_others(&PeerMessage::Certified(bytes.to_vec()));
        self.outputs.push_back(AuthorityOutput::Document(held));
        // Nothing waits for it: without it a restart asks the others.
        self.save(0);
        Ok(())
    }
}
