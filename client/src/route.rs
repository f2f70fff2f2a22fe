//! From documents to packets: which hops, with which keys and delays, in which epoch.

#[cfg(test)]
mod properties;

use std::sync::Arc;
use std::time::Duration;

use shoal_sphinx::{Address, Hop, PublicKey};
use shoal_topology::{
    Class, DelayLaw, Document, DocumentStore, Epoch, EquivocationProof, FURTHER_EPOCHS, Identity,
    ListedNode, Paths, Role, Standing, Stream, Time, VerifiedDocument,
};

use crate::uplink::{Slot, Turn};

/// What is at the end of a path.
#[derive(Clone, Copy)]
pub struct Recipient {
    /// Where packets for it wait: its inbox, named by hop 4's routing.
    pub address: Address,
    /// The key for which the last layer of a packet is made.
    pub key: PublicKey,
}

/// Draws paths and delays by the documents and the client's class: cover by the same law as data.
///
/// Nodes go by their identity: their indices differ from one document to the next.
pub struct Router {
    documents: DocumentStore,
    delay: DelayLaw,
    /// Second of Unix time at `Time::ZERO`; what comes in is seconds, and no better is needed. It stays while what comes in
    /// agrees to a second: else the beginnings of epochs would move with the fraction at which a document comes.
    unix_at_zero: Option<u64>,
    paths_rng: Stream,
    delays_rng: Stream,
    /// What was drawn from lately, the earliest epoch first: this epoch's, and the next one's for SURBs.
    tables: Vec<Table>,
}

/// The paths and keys of one epoch, as one document lists them.
struct Table {
    epoch: Epoch,
    document: Arc<Document>,
    paths: Paths,
    /// Indices of the first layer's mixes.
    first_hops: Arc<[u16]>,
    /// By index: reading one costs as much as a third of a multiplication.
    keys: Vec<Option<PublicKey>>,
}

/// A path that has been drawn.
pub struct Route {
    /// The hops from the first mix to the recipient, each with its delay.
    pub hops: Vec<Hop>,
    /// The mixes, layer 1 first.
    pub mixes: Vec<Identity>,
}

impl Router {
    /// Without documents. Draws from these streams.
    pub fn new((paths_rng, delays_rng): (Stream, Stream)) -> Self {
        Self {
            documents: DocumentStore::default(),
            delay: DelayLaw::INTERACTIVE,
            unix_at_zero: None,
            paths_rng,
            delays_rng,
            tables: Vec::new(),
        }
    }

    /// Takes a verified document. `unix_s` is the second of Unix time at `now`. True if it brings something new.
    ///
    /// # Errors
    /// It contradicts one that is held; nothing changes.
    pub fn insert(
        &mut self,
        now: Time,
        unix_s: u64,
        held: VerifiedDocument,
    ) -> Result<bool, EquivocationProof> {
        let at_zero = unix_s.saturating_sub(now.as_nanos() / 1_000_000_000);
        // Both are cut to seconds. Beyond that the machine's clock was set.
        let known = self.unix_at_zero.filter(|known| known.abs_diff(at_zero) <= 1);
        self.unix_at_zero = known.or(Some(at_zero));
        let new = self.documents.insert(held)?;
        let documents = &self.documents;
        let same = |table: &Table| {
            let held = documents.at(table.epoch);
            held.is_some_and(|held| Arc::ptr_eq(&held.document, &table.document))
        };
        // Tables of documents that were replaced go; those of others keep what was read from them.
        self.tables.retain(same);
        Ok(new)
    }

    /// Delays as this class wants them.
    pub fn set_class(&mut self, class: &Class) {
        self.delay = class.delay;
    }

    /// The second of Unix time at `now`.
    pub fn unix_s(&self, now: Time) -> u64 {
        self.unix_at_zero.unwrap_or_default() + now.as_nanos() / 1_000_000_000
    }

    /// The document in use: the latest that has begun; before the first has, that one. It may be stale.
    pub fn document(&self, now: Time) -> Option<&Arc<Document>> {
        let unix_s = self.unix_s(now);
        // The latest that has begun, whether stale or not: that it is stale is for the caller to see.
        let begun = self.documents.iter().filter(|held| held.document.begins <= unix_s).last();
        begun.or(self.documents.iter().next()).map(|held| &held.document)
    }

    /// The epoch whose keys are used now, no later than the last one that the document in use has keys of.
    pub fn epoch(&self, now: Time) -> Option<Epoch> {
        let document = self.document(now)?;
        let last = Epoch(document.epoch.0.saturating_add(FURTHER_EPOCHS));
        Some(document.epoch_at(self.unix_s(now)).min(last))
    }

    /// The document of an epoch, by which frames of that epoch name first hops.
    pub fn document_at(&self, epoch: Epoch) -> Option<&Arc<Document>> {
        self.documents.at(epoch).map(|held| &held.document)
    }

    /// True if SURBs for the epoch after the present one are given out at `at`, beside those for the present one: from
    /// [`Document::surb_lead`] before it begins, or up to half of that later for who is `late` (0 to 1), so that a client's
    /// tunnels do not do it together.
    pub fn prepares_next(&self, at: Time, late: f64) -> bool {
        let Some((document, epoch)) = self.document(at).zip(self.epoch(at)) else { return false };
        let next = Epoch(epoch.0.saturating_add(1));
        let lead = document.surb_lead().mul_f64(1.0 - late.clamp(0.0, 1.0) / 2.0);
        self.documents.at(next).is_some() && at + lead >= self.begins(document, next)
    }

    /// When the next epoch begins.
    pub fn next_epoch(&self, now: Time) -> Time {
        let (Some(document), Some(epoch)) = (self.document(now), self.epoch(now)) else {
            return Time::NEVER;
        };
        let next = self.begins(document, Epoch(epoch.0.saturating_add(1)));
        // Of a stale document, and of one that has not begun, nothing follows by itself but its own beginning.
        let begins = self.begins(document, document.epoch);
        [begins, next].into_iter().find(|at| *at > now).unwrap_or(Time::NEVER)
    }

    fn begins(&self, document: &Document, epoch: Epoch) -> Time {
        let epochs = epoch.0.saturating_sub(document.epoch.0);
        let unix_s = document.begins.saturating_add(epochs.saturating_mul(document.epoch_s.into()));
        Time::from_secs(unix_s.saturating_sub(self.unix_at_zero.unwrap_or_default()))
    }

    /// True if an epoch ended, and since then so much more passed.
    pub fn has_ended(&self, now: Time, epoch: Epoch, more: Duration) -> bool {
        let (Some(document), Some(present)) = (self.document(now), self.epoch(now)) else {
            return false;
        };
        // Of a stale document the present epoch is the last one, which has ended, too.
        if epoch.0 > present.0 {
            return false;
        }
        let back = present.0 - epoch.0;
        let present_ends = self.begins(document, Epoch(present.0.saturating_add(1)));
        let length = Duration::from_secs(u64::from(document.epoch_s).saturating_mul(back));
        now + length >= present_ends + more
    }

    /// The epoch near the present one that has this low byte: one of the last two, this one, or one of the next two.
    pub fn near(&self, now: Time, low_byte: u8) -> Option<Epoch> {
        let present = self.epoch(now)?.0;
        let mut near = (present.saturating_sub(2)..=present.saturating_add(2)).map(Epoch);
        near.find(|epoch| epoch.low_byte() == low_byte)
    }

    /// True if two gateways differ in operator.
    pub fn compatible(&mut self, now: Time, entry: &Identity, exit: &Identity) -> bool {
        let Some(table) = self.epoch(now).and_then(|epoch| self.table(epoch)) else { return false };
        match (gateway(&table.document, entry), gateway(&table.document, exit)) {
            (Some(entry), Some(exit)) => table.paths.compatible(entry, exit),
            _ => false,
        }
    }

    /// True if a slot leads where the document says that paths of its epoch are drawn by: not so for one that comes
    /// before the instant from which slots follow that document.
    pub fn leads(&mut self, slot: &Slot) -> bool {
        self.table(slot.way.epoch).is_some_and(|table| table.edition() == slot.way.edition)
    }

    /// A path for what fills a slot: the slot's first hop, mixes of the layers behind it, the gateway `exit`, and, unless the
    /// gateway itself is the end, `end`. `None` if the epoch's document has no such path.
    pub fn draw_up(
        &mut self,
        slot: &Slot,
        exit: &Identity,
        end: Option<Recipient>,
    ) -> Option<Route> {
        let at = self.table_at(slot.way.epoch)?;
        let paths = &self.tables.get(at)?.paths;
        let mixes = paths.draw_after(&mut self.paths_rng, usize::from(slot.way.first))?;
        self.route(at, &mixes, exit, end)
    }

    /// A path for a SURB of an epoch: a mix of each layer, the gateway `own`, and the client.
    pub fn draw_back(&mut self, epoch: Epoch, own: &Identity, end: Recipient) -> Option<Route> {
        let at = self.table_at(epoch)?;
        let table = self.tables.get(at)?;
        let mixes = table.paths.draw(&mut self.paths_rng)?;
        self.route(at, &mixes, own, Some(end))
    }

    fn route(
        &mut self,
        table: usize,
        mixes: &[usize],
        exit: &Identity,
        end: Option<Recipient>,
    ) -> Option<Route> {
        let table = self.tables.get(table)?;
        let exit = gateway(&table.document, exit)?;
        let mut hops = Vec::with_capacity(mixes.len() + 2);
        let (layers, max_delay) =
            (table.document.parameters.layers, table.document.parameters.max_delay());
        for (layer, mix) in (1..).zip(mixes) {
            let delay = self.delay.draw(&mut self.delays_rng, layer, layers);
            // Cut, since a mix drops what asks for more.
            hops.push(table.hop(*mix, delay.min(max_delay))?);
        }
        // No delay there: what goes down to a client waits for its instants anyway.
        hops.push(table.hop(exit, Duration::ZERO)?);
        if let Some(end) = end {
            hops.push(Hop { address: end.address, key: end.key, delay: Duration::ZERO });
        }
        let identity = |mix: &usize| table.document.node(*mix).map(ListedNode::identity);
        let mixes = mixes.iter().filter_map(identity).collect();
        Some(Route { hops, mixes })
    }

    /// A gateway, drawn uniformly, for what is to be dropped there in an epoch: any, also the own one.
    pub fn any_gateway(&mut self, epoch: Epoch) -> Option<Identity> {
        use rand::seq::IndexedRandom;
        let at = self.table_at(epoch)?;
        let table = self.tables.get(at)?;
        let exit = *table.paths.gateways().choose(&mut self.paths_rng)?;
        table.document.node(exit).map(ListedNode::identity)
    }

    /// Says whether the document in use lists this gateway, and how it stands.
    pub fn gateway(&self, now: Time, identity: &Identity) -> Option<Standing> {
        let document = self.document(now)?;
        document.node(gateway(document, identity)?).map(|node| node.standing)
    }

    /// Where slots lead from `now` on: in this epoch, and in the next one if it has keys already. None without a document.
    pub fn turns(&mut self, now: Time) -> Vec<Turn> {
        let Some(present) = self.epoch(now) else { return Vec::new() };
        let mut turns: Vec<Turn> = self.turn(present, Time::ZERO).into_iter().collect();
        let next = Epoch(present.0.saturating_add(1));
        let from = self.document(now).map_or(now, |document| self.begins(document, next));
        // Where the next epoch has begun already, the present one is the last that the document has.
        if from > now {
            turns.extend(self.turn(next, from));
        }
        turns
    }

    fn turn(&mut self, epoch: Epoch, from: Time) -> Option<Turn> {
        let at = self.table_at(epoch)?;
        let table = self.tables.get(at)?;
        let (edition, first_hops) = (table.edition(), table.first_hops.clone());
        Some(Turn { from, epoch, edition, first_hops })
    }

    fn table(&mut self, epoch: Epoch) -> Option<&Table> {
        let at = self.table_at(epoch)?;
        self.tables.get(at)
    }

    /// Where the table of an epoch is; it is made if it is missing, and the earliest of three goes, or the last one if the
    /// earliest is asked for.
    fn table_at(&mut self, epoch: Epoch) -> Option<usize> {
        if let Some(at) = self.tables.iter().position(|table| table.epoch == epoch) {
            return Some(at);
        }
        let document = self.documents.at(epoch)?.document.clone();
        let keys = document.nodes.iter().map(|node| node.descriptor.body().key(epoch)).collect();
        let paths = Paths::at(&document, epoch);
        let first_hops = document.in_layer_at(epoch, 1);
        let first_hops = first_hops.filter_map(|index| u16::try_from(index).ok()).collect();
        self.tables.push(Table { epoch, document, paths, first_hops, keys });
        // Two epochs are drawn from at a time: the present one, and the next one for SURBs.
        self.tables.sort_by_key(|table| table.epoch);
        if self.tables.len() > 2 {
            let earliest = self.tables.first().is_some_and(|table| table.epoch == epoch);
            self.tables.remove(if earliest { 2 } else { 0 });
        }
        self.tables.iter().position(|table| table.epoch == epoch)
    }
}

impl Table {
    fn edition(&self) -> (Epoch, u16) {
        (self.document.epoch, self.document.amendment)
    }

    fn hop(&self, index: usize, delay: Duration) -> Option<Hop> {
        let address = self.document.node(index)?.identity().0;
        Some(Hop { address, key: (*self.keys.get(index)?)?, delay })
    }
}

/// The index of a gateway in a document's list.
fn gateway(document: &Document, identity: &Identity) -> Option<usize> {
    let index = document.index_of(identity)?;
    let node = document.node(index)?;
    (node.descriptor.body().role == Role::Gateway).then_some(index)
}
