//! What a node's program does around the engine where authorities make a document for each epoch: a key for every epoch,
//! a descriptor that says them, reports, and the documents that are in use. `node/src/daemon/{watcher,keys}.rs` do it
//! with files and sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_node::{Neighbours, Opener};
use shoal_topology::consensus::{Schedule, SessionId};
use shoal_topology::reputation::report::Report;
use shoal_topology::{
    Document, DocumentStore, Epoch, EpochKey, Parameters, SignedDocument, VerifiedDocument,
};

use super::network::Network;

/// How often it looks, as in the daemon.
pub(super) const LOOKS: Duration = Duration::from_millis(500);
/// Epochs ahead for which there is a key, as in the daemon.
const AHEAD: u64 = 3;
/// Clients get the document of the next epoch when so much of this one is left, and amendments at multiples of it.
const ANNOUNCED_BEFORE: u64 = 10;

/// Whether a node goes by its documents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trust {
    /// It goes by them.
    Kept,
    /// It saw two of one epoch: it does nothing of its own any more.
    Lost,
}

/// What an authority knows of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// Nothing: there is no link yet.
    Nothing,
    /// An earlier descriptor.
    Before,
    /// The present one.
    All,
}

/// What is to be said to an authority.
pub(super) enum Word {
    /// The first on a link: the authority answers with the documents that it holds.
    First(Vec<u8>),
    /// A descriptor that is new.
    Next(Vec<u8>),
}

/// What a document changes at a node.
pub(super) enum News {
    /// It changes nothing.
    None,
    /// It is for clients from this time on, milliseconds of the node's clock.
    Document { epoch: Epoch, announced_ms: u64 },
    /// It contradicts another one.
    Contradiction,
}

/// A node's program.
pub(super) struct Watcher {
    number: usize,
    /// The public halves.
    keys: BTreeMap<Epoch, [u8; 32]>,
    /// Times that keys were lost with the machine's memory.
    reboots: u32,
    /// Nothing is to be made or erased before, milliseconds of the node's clock.
    due_ms: u64,
    grace: Duration,
    /// The keys that the node last said, and what it says of itself, encoded.
    said: Vec<EpochKey>,
    descriptor: Vec<u8>,
    /// Whom it was told.
    told: Vec<Told>,
    /// Documents that came and were not verified yet.
    received: Vec<Arc<[u8]>>,
    reported: Option<SessionId>,
    /// What the engine reported.
    pub(super) reports: Vec<Report>,
    documents: DocumentStore,
    present: Option<Epoch>,
    neighbours: Option<Neighbours>,
    trust: Trust,
}

impl Watcher {
    /// Of the node of this number, where there are so many authorities.
    pub(super) fn new(number: usize, authorities: usize) -> Self {
        Self {
            number,
            keys: BTreeMap::new(),
            reboots: 0,
            due_ms: 0,
            grace: Parameters::default().key_grace(),
            said: Vec::new(),
            descriptor: Vec::new(),
            told: vec![Told::Nothing; authorities],
            received: Vec::new(),
            reported: None,
            reports: Vec::new(),
            documents: DocumentStore::default(),
            present: None,
            neighbours: None,
            trust: Trust::Kept,
        }
    }

    /// The epoch that the node was last told of.
    pub(super) fn present(&self) -> Option<Epoch> {
        self.present
    }

    /// Whom it takes packets from and sends to, once it is listed.
    pub(super) fn neighbours(&self) -> Option<&Neighbours> {
        self.neighbours.as_ref()
    }

    /// Makes and erases what is due at this millisecond of the node's clock, and says so in the descriptor.
    pub(super) fn renew(&mut self, network: &Network, opener: &Opener, unix_ms: u64, epoch_s: u32) {
        if unix_ms < self.due_ms {
            return;
        }
        let length = 1_000 * u64::from(epoch_s);
        let present = unix_ms / length;
        let ends = |key: Epoch| (key.0 + 1) * length + self.grace.as_millis() as u64;
        for key in self.keys.keys().copied().filter(|key| ends(*key) <= unix_ms).collect::<Vec<_>>()
        {
            opener.erase(key, key);
            self.keys.remove(&key);
        }
        for epoch in (present..=present + AHEAD).map(Epoch) {
            self.keys.entry(epoch).or_insert_with(|| {
                let secret = network.epoch_key(self.number, epoch, self.reboots);
                let public = *secret.public().as_bytes();
                opener.add_key(epoch, epoch, secret, network.tags());
                public
            });
        }
        let over = self.keys.keys().map(|key| (key.0 + 1) * length + self.grace.as_millis() as u64);
        self.due_ms = over.min().unwrap_or(u64::MAX).min((present + 1) * length);
        let keys: Vec<EpochKey> = self
            .keys
            .range(Epoch(present)..)
            .map(|(epoch, key)| EpochKey { first: *epoch, last: *epoch, key: *key })
            .collect();
        if self.said != keys {
            self.said.clone_from(&keys);
            self.descriptor = network.describe(self.number, keys, unix_ms / 1_000).encode();
            for told in self.told.iter_mut().filter(|told| **told == Told::All) {
                *told = Told::Before;
            }
        }
    }

    /// What an authority that runs has not been told.
    pub(super) fn untold(&mut self, authority: usize) -> Option<Word> {
        match std::mem::replace(self.told.get_mut(authority)?, Told::All) {
            Told::Nothing => Some(Word::First(self.descriptor.clone())),
            Told::Before => Some(Word::Next(self.descriptor.clone())),
            Told::All => None,
        }
    }

    /// The link to an authority has ended.
    pub(super) fn forget(&mut self, authority: usize) {
        if let Some(told) = self.told.get_mut(authority) {
            *told = Told::Nothing;
        }
    }

    /// The number of the report that is due shortly before a session, once.
    pub(super) fn report_due(&mut self, schedule: &Schedule, unix_ms: u64) -> Option<u16> {
        let session = schedule.session(unix_ms + schedule.round_ms() / 2);
        if self.reported.replace(session) == Some(session) {
            return None;
        }
        let in_use = self.documents.epoch_at(unix_ms / 1_000);
        let in_use = in_use.and_then(|epoch| self.documents.at(epoch));
        let since = in_use.map_or(0, |held| session.epoch.0.saturating_sub(held.document.epoch.0));
        let part = since.saturating_mul(schedule.sessions()) + u64::from(session.index);
        Some(u16::try_from(part).unwrap_or(u16::MAX))
    }

    /// A document came.
    pub(super) fn receive(&mut self, signed: Arc<[u8]>) {
        self.received.push(signed);
    }

    /// What came since the last look.
    pub(super) fn received(&mut self) -> Vec<Arc<[u8]>> {
        std::mem::take(&mut self.received)
    }

    /// Verifies a document.
    ///
    /// # Errors
    /// It cannot be used. Authorities give all that they hold, the older ones too: those are no error.
    pub(super) fn verify(
        &self,
        signed: Arc<[u8]>,
        network: &shoal_topology::Network,
        unix_ms: u64,
    ) -> Result<Option<VerifiedDocument>, shoal_topology::Error> {
        match SignedDocument::verify(&signed, network, unix_ms / 1_000) {
            Ok(document) => Ok(Some(VerifiedDocument { document: Arc::new(document), signed })),
            Err(shoal_topology::Error::Stale { .. }) if self.documents.newest().is_some() => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a verified document.
    pub(super) fn take(
        &mut self,
        network: &Network,
        opener: &Opener,
        held: &VerifiedDocument,
        unix_ms: u64,
    ) -> News {
        match self.documents.insert(held.clone()) {
            Ok(true) => {}
            Ok(false) => return News::None,
            Err(_) if self.trust == Trust::Lost => return News::None,
            Err(_) => {
                self.trust = Trust::Lost;
                return News::Contradiction;
            }
        }
        let Some(epoch) = self.documents.epoch_at(unix_ms / 1_000) else { return News::None };
        let first = self.present.is_none();
        self.turn(opener, epoch);
        self.grace = held.document.parameters.key_grace();
        self.due_ms = 0;
        let own = network.secret(self.number).map(|secret| secret.identity());
        self.neighbours = own.and_then(|own| Neighbours::around(&self.documents, &own));
        let announced_ms = if first { unix_ms } else { announced(&held.document, epoch, unix_ms) };
        News::Document { epoch, announced_ms }
    }

    /// The present epoch, if it is another one than the node was last told.
    pub(super) fn advance(&mut self, opener: &Opener, unix_ms: u64) -> Option<Epoch> {
        let epoch = self.documents.epoch_at(unix_ms / 1_000)?;
        if self.present == Some(epoch) {
            return None;
        }
        self.turn(opener, epoch);
        Some(epoch)
    }

    fn turn(&mut self, opener: &Opener, epoch: Epoch) {
        self.present = Some(epoch);
        if let Some(held) = self.documents.at(epoch) {
            opener.update(&held.document, epoch);
        }
    }

    /// The program ends: keys and their tags stay, and the last document does.
    pub(super) fn stop(&mut self) -> Option<VerifiedDocument> {
        let kept = self.documents.newest().cloned();
        self.told.fill(Told::Nothing);
        self.received.clear();
        self.reports.clear();
        (self.reported, self.present, self.neighbours) = (None, None, None);
        self.documents = DocumentStore::default();
        kept
    }

    /// The machine starts again, after [`Self::stop`]: the runtime directory is empty, so that all keys are gone.
    pub(super) fn reboot(&mut self, opener: &Opener) {
        std::mem::take(&mut self.keys).into_keys().for_each(|key| opener.erase(key, key));
        self.reboots += 1;
        self.due_ms = 0;
        self.said.clear();
    }

    /// Keys that it has, for tests that nothing grows.
    #[cfg(test)]
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }
}

/// When clients begin to get a document: the same instants of the epoch's clock at every gateway.
fn announced(document: &Document, present: Epoch, now_ms: u64) -> u64 {
    let length = 1_000 * u64::from(document.epoch_s);
    let step = (length / ANNOUNCED_BEFORE).max(1);
    let begins = 1_000 * document.begins;
    let at = if document.epoch > present {
        begins.saturating_sub(step)
    } else {
        begins + (now_ms.saturating_sub(begins) / step + 1) * step
    };
    at.max(now_ms)
}
