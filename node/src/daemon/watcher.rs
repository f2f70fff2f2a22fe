//! Follows the documents: from authorities and from the topology file to everything in the node that depends on them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shoal_host::admin::Readiness;
use shoal_host::authorities::AuthorityLinks;
use shoal_host::exit::chain;
use shoal_host::link::{Allow, Listed};
use shoal_host::network;
use shoal_host::secret;
use shoal_topology::consensus::{Schedule, SessionId};
use shoal_topology::reputation::report::{Report, SignedReport};
use shoal_topology::wire::authorities::ToAuthority;
use shoal_topology::{
    Document, DocumentStore, Epoch, EquivocationProof, FURTHER_EPOCHS, Network, Role,
    SecretIdentity, SignedDocument, VerifiedDocument,
};
use tokio::sync::{mpsc, watch};

use super::engine_thread::{EngineEvent, Events, NodeClock};
use super::keys::Keyring;
use super::links::{Neighbourhood, OutgoingLinks};
use super::metrics::{Shared, Subsystem};
use super::summary::InUse;
use super::topology::{File, objection, unix_ms};
use super::{Config, NodeError};
use crate::engine::Input;
use crate::neighbours::Neighbours;
use crate::opener::Opener;

/// The document of the next epoch goes to clients when so much of this one is left, and amendments at multiples of it.
const ANNOUNCED_BEFORE: u64 = 10;

/// Follows the documents.
pub(super) struct Watcher<'a> {
    /// The file of the topology document.
    pub(super) file: File,
    /// The directory of long-lived files.
    pub(super) data_dir: PathBuf,
    /// The network, with its authorities.
    pub(super) network: Network,
    /// Documents from authorities, not yet verified.
    pub(super) received: mpsc::Receiver<Vec<u8>>,
    /// Links to the authorities.
    pub(super) authority_links: AuthorityLinks,
    /// The key by which reports are signed.
    pub(super) secret: SecretIdentity,
    /// From the engine: what its loops show.
    pub(super) reports: mpsc::Receiver<Report>,
    /// When authorities look at reports.
    pub(super) schedule: Schedule,
    /// The session for which the last report was asked for.
    pub(super) reported: Option<SessionId>,
    /// The mix keys.
    pub(super) keys: Keyring,
    /// What opens packets, which is told the epoch.
    pub(super) opener: &'a Opener,
    /// Where the engine is told of documents and epochs.
    pub(super) events: &'a Events,
    /// What all tasks write down.
    pub(super) shared: &'a Shared,
    /// The clock of the engine.
    pub(super) clock: NodeClock,
    /// Who may connect, by the documents.
    pub(super) allow: &'a Allow,
    /// The addresses of nodes, by the documents.
    pub(super) listed: &'a Listed,
    /// Whom frames are taken from, for those who read links.
    pub(super) around: watch::Sender<Neighbourhood>,
    /// The links to the next hops.
    pub(super) outgoing: OutgoingLinks,
    /// The documents that are in use, or soon.
    pub(super) documents: DocumentStore,
    /// The epoch that the node was last told of.
    pub(super) present: Option<Epoch>,
    /// Why the document that came cannot be used, if none can.
    pub(super) trouble: Option<String>,
    /// Two documents of one epoch were seen.
    pub(super) contradiction: Option<String>,
}

impl Watcher<'_> {
    /// Takes what came, and says how the node stands.
    pub(super) async fn look(&mut self) -> Readiness {
        let now = unix_ms();
        // First of all: what is announced and what is compared with the document below is of the present epoch then.
        let _ = self.keys.advance(now);
        self.shared.stands(Subsystem::Keys, self.keys.complaint());
        self.shared.keys_until.store(self.keys.until(), Ordering::Relaxed);
        let unwritten = self.keys.unwritten();
        self.shared.stands(Subsystem::Tags, unwritten.as_deref());
        self.authority_links.announce(&ToAuthority::Descriptor(self.keys.descriptor().encode()));
        self.report(now).await;
        while let Ok(bytes) = self.received.try_recv() {
            match SignedDocument::verify(&bytes, &self.network, now / 1_000) {
                Ok(document) => {
                    let held =
                        VerifiedDocument { document: Arc::new(document), signed: bytes.into() };
                    if self.take(held.clone(), now).await {
                        self.keep(&held.signed);
                    }
                }
                // Authorities give all that they hold, the older ones too.
                Err(shoal_topology::Error::Stale { .. }) if self.documents.newest().is_some() => {}
                Err(error) => self.refused(format!("an authority sent a document: {error}")),
            }
        }
        match self.file.read(&self.network, now / 1_000) {
            Ok(Some(held)) => _ = self.take(held, now).await,
            Ok(None) => {}
            Err(why) => self.refused(why),
        }
        // Nothing below is done any more: two documents that enough authorities signed leave none to go by.
        if let Some(why) = &self.contradiction {
            return Readiness::NotReady(why.clone());
        }
        self.shared.use_document(self.in_use(now / 1_000));
        let Some(epoch) = self.documents.epoch_at(now / 1_000) else {
            return Readiness::NotReady(self.no_document(now / 1_000));
        };
        if self.present != Some(epoch) {
            self.present = Some(epoch);
            self.epoch(epoch);
            // After the opener, so that no packet of the new epoch is refused when the engine already goes by it.
            self.events.post(EngineEvent::Input(Input::Epoch(epoch))).await;
        }
        let Some(held) = self.documents.at(epoch) else {
            let newest = self.documents.newest().map(|held| held.document.check_time(now / 1_000));
            let why = match newest {
                Some(Err(error)) => error.to_string(),
                _ => self.no_document(now / 1_000),
            };
            return Readiness::NotReady(why);
        };
        self.shared.follow(&held.document);
        let own = self.keys.descriptor().body();
        if let Some(why) = objection(&held.document, &own.identity, epoch, own) {
            return Readiness::NotReady(self.listed_later(epoch, now).unwrap_or(why));
        }
        if let Some(why) = unwritten {
            return Readiness::NotReady(format!(
                "packets are refused, since what was opened cannot be written down in the runtime directory: {why}"
            ));
        }
        if self.shared.links_up.load(Ordering::Relaxed) == 0 {
            return Readiness::NotReady("no link to a next hop stands yet".into());
        }
        Readiness::Ready
    }

    fn keep(&self, signed: &[u8]) {
        let failed = self.file.keep(signed).err().map(|error| chain(&error));
        if self.shared.stands(Subsystem::Topology, failed.as_deref())
            && let Some(why) = failed
        {
            tracing::warn!("cannot keep the topology document for the next start: {why}");
        }
    }

    /// Which document is in use.
    fn in_use(&self, now: u64) -> Option<InUse> {
        let present = self.documents.epoch_at(now)?;
        let Document { epoch, amendment, begins, .. } = *self.documents.at(present)?.document;
        let newest = &self.documents.newest()?.document;
        let epoch_s = u64::from(newest.epoch_s);
        let until = newest.begins.saturating_add(epoch_s * (1 + FURTHER_EPOCHS));
        Some(InUse { epoch: epoch.0, amendment, begins, until, present: present.0, epoch_s })
    }

    /// The operator has changed what the node says of itself, or whom it lets in.
    pub(super) async fn configure(&mut self, config: &Config) -> Result<(), NodeError> {
        self.keys.configure(config)?;
        // The engine keeps the key of the inboxes.
        let settings = Box::new(config.gateway_settings([0; 32]));
        self.events.post(EngineEvent::Input(Input::Configure(settings))).await;
        self.shared.describe_anew(config);
        Ok(())
    }

    /// What to say of a node that the document in use does not list and a later one does.
    fn listed_later(&self, epoch: Epoch, now: u64) -> Option<String> {
        let own = self.keys.descriptor().body();
        let lists = |held: &&VerifiedDocument| {
            let document = &held.document;
            document.epoch > epoch
                && objection(document, &own.identity, document.epoch, own).is_none()
        };
        let begins = self.documents.iter().find(lists)?.document.begins;
        let wait = begins.saturating_sub(now / 1_000);
        Some(format!("the next topology document lists this node: its work begins in {wait} s"))
    }

    /// Has the engine report shortly before each session of the authorities, and passes on what it reported.
    async fn report(&mut self, now: u64) {
        let session = self.schedule.session(now + self.schedule.round_ms() / 2);
        if self.reported.replace(session) != Some(session) && self.authority_links.links() > 0 {
            let part = self.part(session, now);
            self.events.post(EngineEvent::Input(Input::Report { part })).await;
        }
        while let Ok(report) = self.reports.try_recv() {
            let signed = SignedReport::new(report, &self.secret);
            // To all of them: an authority that alone had a report could keep it to itself.
            self.authority_links.tell_all(&ToAuthority::Report(signed.encode()));
        }
    }

    /// Number of the report before a session: sessions since the epoch of the document began that reports are of. It goes on
    /// when a document lasts longer, and when the node starts again.
    fn part(&self, session: SessionId, now: u64) -> u16 {
        let in_use =
            self.documents.epoch_at(now / 1_000).and_then(|epoch| self.documents.at(epoch));
        let since = in_use.map_or(0, |held| session.epoch.0.saturating_sub(held.document.epoch.0));
        let part = since.saturating_mul(self.schedule.sessions()) + u64::from(session.index);
        u16::try_from(part).unwrap_or(u16::MAX)
    }

    /// Why there is no document, at this second of Unix time.
    fn no_document(&self, unix_s: u64) -> String {
        self.trouble.clone().unwrap_or_else(|| network::no_document(&self.network, unix_s))
    }

    fn refused(&mut self, why: String) {
        match self.documents.newest() {
            Some(_) => tracing::warn!("{why}; the document before it stays in use"),
            None => self.trouble = Some(why),
        }
    }

    fn epoch(&self, epoch: Epoch) {
        if let Some(held) = self.documents.at(epoch) {
            self.opener.update(&held.document, epoch);
            let error = Duration::from_secs(u64::from(held.document.parameters.clock_error_s));
            self.keys.keep_time(self.opener, self.clock.now(), unix_ms(), error);
            let neighbours =
                Neighbours::of(&held.document, &self.keys.descriptor().body().identity);
            let layer = neighbours.map_or(0, |neighbours| usize::from(neighbours.layer));
            self.shared.layer.store(layer, Ordering::Relaxed);
        }
    }

    /// Takes a verified document; whether it brought something new.
    async fn take(&mut self, held: VerifiedDocument, now: u64) -> bool {
        match self.documents.insert(held.clone()) {
            Ok(true) => {}
            Ok(false) => return false,
            Err(proof) => {
                self.stop(&proof).await;
                return false;
            }
        }
        let Some(epoch) = self.documents.epoch_at(now / 1_000) else { return false };
        let first = self.present.is_none();
        self.present = Some(epoch);
        // The opener has the document before links follow it and before the engine does, so that what comes can be
        // opened.
        self.epoch(epoch);
        let document = held.document.clone();
        self.keys.follow(&document.parameters);
        let own = self.keys.descriptor().body();
        // A node that is listed from the next epoch on has its links when that begins, as others have theirs to it.
        let neighbours = Neighbours::around(&self.documents, &own.identity);
        self.opener.share_among(neighbours.iter().flat_map(Neighbours::previous).count());
        if own.role == Role::Mix {
            // A gateway is open to clients, whom no list names; a mix has business with its neighbours alone.
            let previous =
                neighbours.iter().flat_map(Neighbours::previous).map(|node| node.0).collect();
            self.allow.replace(previous);
        }
        let nodes = self.documents.iter().flat_map(|held| &held.document.nodes);
        let addresses = nodes.flat_map(|node| &node.descriptor.body().addresses);
        self.listed.replace(addresses.map(|address| address.ip().to_canonical()).collect());
        // The queues are there before the engine has the document, which sends by it at once.
        let queues = self.outgoing.follow(&self.documents, neighbours.as_ref());
        self.events.post(EngineEvent::Neighbours(queues)).await;
        let parts = held.signed.len() / 2_000 + 1;
        self.around.send_replace(Neighbourhood { neighbours: neighbours.map(Arc::new), parts });
        let wait = if first { Duration::ZERO } else { until_announced(&document, epoch, now) };
        let announce = self.clock.now() + wait;
        let VerifiedDocument { document, signed } = held;
        let input = Input::Document { document, signed, epoch, announce };
        self.events.post(EngineEvent::Input(input)).await;
        true
    }

    /// More authorities lie than the network can bear: the node does nothing of its own any more, and keeps the proof.
    async fn stop(&mut self, proof: &EquivocationProof) {
        if self.contradiction.is_some() {
            return;
        }
        for (number, signed) in [(1, &proof.first), (2, &proof.second)] {
            let name = format!("proof-{}-{number}.document", proof.epoch);
            if let Err(error) = secret::replace(&self.data_dir.join(name), signed) {
                tracing::error!("cannot keep the proof: {error}");
            }
        }
        tracing::error!("{proof}");
        self.contradiction = Some(proof.to_string());
        self.events.post(EngineEvent::Input(Input::Stale)).await;
    }
}

/// How long until clients begin to get a document: the same instants of the epoch's clock at every gateway.
fn until_announced(document: &Document, present: Epoch, now_ms: u64) -> Duration {
    let length = 1_000 * u64::from(document.epoch_s);
    let step = (length / ANNOUNCED_BEFORE).max(1);
    let at = if document.epoch > present {
        (1_000 * document.begins).saturating_sub(step)
    } else {
        let begins = 1_000 * document.begins;
        begins + (now_ms.saturating_sub(begins) / step + 1) * step
    };
    Duration::from_millis(at.saturating_sub(now_ms))
}
