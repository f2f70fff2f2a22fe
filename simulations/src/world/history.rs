//! What authorities made and said in a run, for its figures.

use std::collections::{BTreeMap, BTreeSet};

use shoal_topology::consensus::Event;
use shoal_topology::wire::client_gateway::DocumentPart;
use shoal_topology::{Epoch, Identity, SignedDocument, Standing, Time, VerifiedDocument};

/// Troubles of an authority that are kept in words.
const TROUBLES: usize = 64;

/// A document that an authority published.
#[derive(Clone, Debug)]
pub(super) struct Published {
    /// BLAKE3 of its body.
    pub(super) body: [u8; 32],
    /// Parts in which clients get it.
    pub(super) parts: usize,
    /// Nodes that are listed.
    pub(super) listed: BTreeSet<Identity>,
    /// Of these, those without good standing.
    pub(super) demoted: BTreeSet<Identity>,
}

/// What became of one authority.
#[derive(Clone, Debug, Default)]
pub(super) struct AuthorityRecord {
    /// What it published, by epoch and amendment.
    pub(super) published: BTreeMap<(Epoch, u16), Published>,
    /// Documents that it said to be certified.
    pub(super) certified: u64,
    /// Times that it found its clock off.
    pub(super) clock: u64,
    /// What somebody should have looked after: the first ones.
    pub(super) troubles: Vec<String>,
    /// Since when it lies.
    pub(super) lies_since: Option<Time>,
    /// When each other authority first named it, and first had a proof.
    pub(super) named: BTreeMap<usize, Time>,
    pub(super) proven: BTreeMap<usize, Time>,
}

/// All of them.
pub(super) struct History {
    authorities: Vec<Identity>,
    pub(super) records: Vec<AuthorityRecord>,
}

impl History {
    pub(super) fn new(authorities: Vec<Identity>) -> Self {
        let records = authorities.iter().map(|_| AuthorityRecord::default()).collect();
        Self { authorities, records }
    }

    fn of(&mut self, authority: &Identity) -> Option<&mut AuthorityRecord> {
        let number = self.authorities.iter().position(|other| other == authority)?;
        self.records.get_mut(number)
    }

    /// An authority published a document.
    pub(super) fn published(&mut self, by: usize, held: &VerifiedDocument) {
        let Some(record) = self.records.get_mut(by) else { return };
        let document = &held.document;
        let demoted = |node: &&shoal_topology::ListedNode| node.standing == Standing::Demoted;
        record.published.entry((document.epoch, document.amendment)).or_insert_with(|| Published {
            body: *blake3::hash(&SignedDocument::new(document, []).encode()).as_bytes(),
            parts: DocumentPart::cut(&held.signed).len(),
            listed: document.nodes.iter().map(|node| node.identity()).collect(),
            demoted: document.nodes.iter().filter(demoted).map(|node| node.identity()).collect(),
        });
    }

    /// An authority has a proof that another one lies.
    pub(super) fn proven(&mut self, by: usize, who: &Identity, now: Time) {
        if let Some(record) = self.of(who) {
            record.proven.entry(by).or_insert(now);
            record.named.entry(by).or_insert(now);
        }
    }

    /// An authority told its operator something.
    pub(super) fn event(&mut self, by: usize, event: &Event, now: Time) {
        let mut name = |who: &Identity| {
            if let Some(record) = self.of(who) {
                record.named.entry(by).or_insert(now);
            }
        };
        match event {
            Event::Fault(who, _) | Event::Lied(who, _) => name(who),
            Event::Uncounted(all) => all.iter().for_each(name),
            _ => {}
        }
        let Some(record) = self.records.get_mut(by) else { return };
        match event {
            Event::Certified { .. } => record.certified += 1,
            Event::Clock(_) => record.clock += 1,
            _ => {}
        }
        if event.is_trouble() && record.troubles.len() < TROUBLES {
            record.troubles.push(event.to_string());
        }
    }

    /// Those who never lied.
    pub(super) fn honest(&self) -> impl Iterator<Item = &AuthorityRecord> {
        self.records.iter().filter(|record| record.lies_since.is_none())
    }

    /// The document of an epoch with its last amendment, as the first of the honest ones has it.
    pub(super) fn document(&self, epoch: Epoch) -> Option<&Published> {
        let last = |record: &'_ AuthorityRecord| {
            let all = record.published.range((epoch, 0)..=(epoch, u16::MAX));
            all.last().map(|((_, amendment), _)| *amendment)
        };
        let best = self.honest().max_by_key(|record| last(record))?;
        let all = best.published.range((epoch, 0)..=(epoch, u16::MAX));
        all.last().map(|(_, published)| published)
    }

    /// Epochs and amendments of which honest authorities published documents, and how many different bodies of each.
    pub(super) fn bodies(&self) -> BTreeMap<(Epoch, u16), usize> {
        let mut all: BTreeMap<(Epoch, u16), BTreeSet<[u8; 32]>> = BTreeMap::new();
        for (key, published) in self.honest().flat_map(|record| &record.published) {
            all.entry(*key).or_default().insert(published.body);
        }
        all.into_iter().map(|(key, bodies)| (key, bodies.len())).collect()
    }
}
