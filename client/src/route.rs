//! From a document to packets: which hops, with which keys and delays.

use std::sync::Arc;
use std::time::Duration;

use rand::CryptoRng;
use shoal_sphinx::{Address, Hop, PublicKey};
use shoal_topology::{
    Class, Document, Epoch, Identity, Paths, Role, Routes, Stream, Time, exponential,
};

/// What is at the end of a path.
#[derive(Clone, Copy)]
pub struct End {
    /// Where packets for it wait: its inbox, named by hop 4's routing.
    pub address: Address,
    /// Its key.
    pub key: PublicKey,
}

/// Draws paths and delays by the document and the client's class: cover by the same law as data.
pub struct Router {
    document: Arc<Document>,
    paths: Paths,
    routes: Routes,
    mean_delay: Duration,
    /// Second of Unix time at `Time::ZERO`; what comes in is seconds, and no better is needed.
    unix_at_zero: u64,
    paths_rng: Stream,
    delays_rng: Stream,
    kept: Vec<Kept>,
    /// The keys of one epoch, by place: reading one costs as much as a third of a multiplication.
    keys: (Epoch, Vec<Option<PublicKey>>),
}

/// A path that a class keeps.
struct Kept {
    ends: (usize, usize),
    until: Time,
    mixes: Vec<usize>,
}

/// A path that has been drawn.
pub struct Route {
    /// Place of the first hop in the document's list: the field of the frame.
    pub first: u16,
    /// Low byte of the epoch whose keys it uses.
    pub epoch: u8,
    /// The hops.
    pub hops: Vec<Hop>,
    /// Places of the mixes.
    pub mixes: Vec<usize>,
}

impl Router {
    /// For a verified document. `unix_s` is the second of Unix time at `now`.
    pub fn new(
        document: Arc<Document>,
        class: Option<&Class>,
        (now, unix_s): (Time, u64),
        (paths_rng, delays_rng): (Stream, Stream),
    ) -> Self {
        Self {
            paths: Paths::new(&document),
            routes: class.map_or(Routes::Fresh, |class| class.routes),
            mean_delay: class.map_or(Duration::from_millis(15), Class::mean_delay),
            unix_at_zero: unix_s.saturating_sub(now.as_nanos() / 1_000_000_000),
            document,
            paths_rng,
            delays_rng,
            kept: Vec::new(),
            keys: (Epoch(0), Vec::new()),
        }
    }

    /// The document in use.
    pub fn document(&self) -> &Arc<Document> {
        &self.document
    }

    /// Gives the generators back, for the router of the next document.
    pub fn into_streams(self) -> (Stream, Stream) {
        (self.paths_rng, self.delays_rng)
    }

    /// Unix time, seconds.
    pub fn unix_s(&self, now: Time) -> u64 {
        self.unix_at_zero + now.as_nanos() / 1_000_000_000
    }

    /// The epoch whose keys are used now, no later than the last one that the document has keys of.
    pub fn epoch(&self, now: Time) -> Epoch {
        let last = Epoch(self.document.epoch.0.saturating_add(shoal_topology::FURTHER_EPOCHS));
        self.document.epoch_at(self.unix_s(now)).min(last)
    }

    /// Whether packets may enter at one gateway and leave at the other.
    pub fn compatible(&self, entry: usize, exit: usize) -> bool {
        self.paths.compatible(entry, exit)
    }

    /// Mix 1 to L, the gateway `exit`, and, unless the gateway itself is the end, `end`. The sender stands at
    /// the gateway `entry`. `None` if the document has no such path.
    pub fn draw(
        &mut self,
        now: Time,
        entry: usize,
        exit: usize,
        end: Option<End>,
    ) -> Option<Route> {
        let mixes = self.mixes(now, entry, exit)?;
        let epoch = self.epoch(now);
        if self.keys.0 != epoch || self.keys.1.is_empty() {
            let nodes = self.document.nodes.iter().map(|node| node.descriptor.body().key(epoch));
            self.keys = (epoch, nodes.collect());
        }
        let mut hops = Vec::with_capacity(mixes.len() + 2);
        for mix in &mixes {
            let delay = exponential(&mut self.delays_rng, self.mean_delay);
            hops.push(self.hop(*mix, delay.min(self.document.parameters.max_delay()))?);
        }
        hops.push(self.hop(exit, Duration::ZERO)?);
        if let Some(end) = end {
            hops.push(Hop { address: end.address, key: end.key, delay: Duration::ZERO });
        }
        let first = u16::try_from(*mixes.first()?).ok()?;
        Some(Route { first, epoch: epoch.low_byte(), hops, mixes })
    }

    /// A gateway, drawn uniformly, that packets from `entry` may leave at.
    pub fn any_gateway(&mut self, entry: usize) -> Option<usize> {
        use rand::seq::IteratorRandom;
        let paths = &self.paths;
        self.document
            .gateways()
            .filter(|exit| paths.compatible(entry, *exit))
            .choose(&mut self.paths_rng)
    }

    /// The place of a gateway in the document's list.
    pub fn gateway(&self, identity: &Identity) -> Option<usize> {
        let index = self.document.index_of(identity)?;
        let node = self.document.node(index)?;
        (node.descriptor.body().role == Role::Gateway).then_some(index)
    }

    /// Places of the first layer's mixes.
    pub fn first_hops(&self) -> Vec<u16> {
        self.document.in_layer(1).filter_map(|index| u16::try_from(index).ok()).collect()
    }

    fn mixes(&mut self, now: Time, entry: usize, exit: usize) -> Option<Vec<usize>> {
        let Routes::KeptSeconds(seconds) = self.routes else {
            return self.paths.draw(&mut self.paths_rng, entry, exit);
        };
        self.kept.retain(|kept| kept.until > now);
        if let Some(kept) = self.kept.iter().find(|kept| kept.ends == (entry, exit)) {
            return Some(kept.mixes.clone());
        }
        let mixes = self.paths.draw(&mut self.paths_rng, entry, exit)?;
        let until = now + Duration::from_secs(u64::from(seconds));
        self.kept.push(Kept { ends: (entry, exit), until, mixes: mixes.clone() });
        Some(mixes)
    }

    fn hop(&self, index: usize, delay: Duration) -> Option<Hop> {
        let address = self.document.node(index)?.identity().0;
        Some(Hop { address, key: (*self.keys.1.get(index)?)?, delay })
    }
}

/// Sixteen random bytes that are not all zero: zero means "no identifier".
pub fn packet_id(rng: &mut impl CryptoRng) -> shoal_sphinx::PacketId {
    let mut id = [0; 16];
    while id == [0; 16] {
        rng.fill_bytes(&mut id);
    }
    id
}
