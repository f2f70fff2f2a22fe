//! The nodes of a world, and the document that lists them.

use std::sync::Arc;

use rand::{Rng, RngExt};
use shoal_node::replay::Replay;
use shoal_node::{Admission, Engine, GatewaySettings, Input, Opener};
use shoal_sphinx::{Codec, SecretKey};
use shoal_topology::{
    Class, ClientDescriptor, Document, Epoch, EpochKey, Identity, ListedNode, NodeDescriptor,
    Parameters, Role, SecretIdentity, Seed, Signed, SignedDocument, Time, VerifiedDocument,
};

use super::settings::Settings;

/// Unix time at the zero of a world, seconds.
pub(super) const UNIX: u64 = 1_800_000_000;

/// A key pair drawn for a purpose.
pub(super) fn identity(seed: &Seed, purpose: &str) -> SecretIdentity {
    SecretIdentity::from_bytes(&bytes(seed, purpose))
}

/// 32 bytes drawn for a purpose.
pub(super) fn bytes(seed: &Seed, purpose: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    seed.stream(purpose).fill_bytes(&mut bytes);
    bytes
}

/// What the network is before anybody joins.
pub(super) struct Network {
    pub(super) document: Arc<Document>,
    signed: Arc<[u8]>,
    secrets: Vec<SecretKey>,
    codec: Arc<dyn Codec>,
    /// The class of all people.
    pub(super) class: Class,
    /// Numbers of the gateways.
    pub(super) gateways: Vec<u32>,
    /// First eight bytes of the identities, in the order of the list.
    prefixes: Vec<u64>,
    /// The service that downloads come from: the seed of its identity, its key, its inbox.
    pub(super) exit: ([u8; 32], SecretKey, SecretIdentity),
    /// How far the clock of each node is off, nanoseconds.
    offsets: Vec<i64>,
    seed: Seed,
}

/// A node.
pub(super) struct Node {
    pub(super) engine: Engine,
    pub(super) opener: Opener,
    /// For when a wake-up is in the wheel.
    pub(super) scheduled: Time,
}

fn prefix(identity: &[u8; 32]) -> u64 {
    identity.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

impl Network {
    /// Nodes by number: layer by layer, then the gateways.
    pub(super) fn new(settings: &Settings, seed: &Seed) -> anyhow::Result<Self> {
        let network = &settings.network;
        let class = settings.class.class()?;
        let layers = usize::from(network.layers);
        let width = usize::from(network.mixes_per_layer);
        let mixes = layers * width;
        let count = mixes + usize::from(network.gateways);
        // Frames name nodes by their place in the order of identities. Sorted before they are given out, so that this
        // is also the order of layers.
        let node_seed = |n: usize| seed.part(&format!("node {n}"));
        let mut longs: Vec<SecretIdentity> =
            (0..count).map(|n| identity(&node_seed(n), "identity")).collect();
        longs.sort_by_key(SecretIdentity::identity);
        let secrets: Vec<SecretKey> =
            (0..count).map(|n| SecretKey::generate(&mut node_seed(n).stream("key"))).collect();
        let nodes = longs.iter().zip(&secrets).enumerate().map(|(n, (long, secret))| {
            let (role, layer) =
                if n < mixes { (Role::Mix, (1 + n / width) as u8) } else { (Role::Gateway, 0) };
            let key = *secret.public().as_bytes();
            let body = NodeDescriptor {
                identity: long.identity(),
                role,
                addresses: vec![std::net::SocketAddr::from(([127, 0, 0, 1], 1))],
                operator: node_name(settings, n),
                jurisdiction: "here".into(),
                packets_per_s: 2_000,
                keys: vec![EpochKey { first: Epoch(0), last: Epoch(u64::MAX), key }],
                signed_at: 0,
            };
            ListedNode::new(Signed::<NodeDescriptor>::new(body, long), layer)
        });
        let nodes: Vec<ListedNode> = nodes.collect();
        let gateways: Vec<u32> = (mixes as u32..count as u32).collect();

        let exit_seed = seed.part("exit");
        let long = identity(&exit_seed, "identity");
        let inbox = identity(&exit_seed, "inbox");
        let secret = SecretKey::generate(&mut exit_seed.stream("key"));
        let two = nodes.iter().skip(mixes).take(2).map(ListedNode::identity);
        let descriptor = ClientDescriptor {
            identity: long.identity(),
            key: *secret.public().as_bytes(),
            inbox: inbox.identity(),
            gateways: two.collect(),
            not_before: 0,
            not_after: u64::MAX,
        };
        let parameters = Parameters {
            layers: network.layers,
            min_mixes_per_layer: 1,
            node_loops_per_s: network.node_loops_per_s,
            classes: vec![class.clone()],
            ..Parameters::default()
        };
        let document = Document {
            network: "simulation".into(),
            epoch: Epoch(UNIX / u64::from(network.epoch_s)),
            // Half of the first epoch is over, so that clocks that are off are off in the same epoch.
            begins: UNIX - u64::from(network.epoch_s / 2),
            epoch_s: network.epoch_s,
            amendment: 0,
            parameters,
            nodes,
            draw: Default::default(),
            exits: vec![Signed::<ClientDescriptor>::new(descriptor, &long)],
        };
        document.check()?;
        let mut offsets = seed.stream("clock offsets");
        let offset = network.clock_offset_ms * 1e6;
        Ok(Self {
            prefixes: document.nodes.iter().map(|node| prefix(&node.identity().0)).collect(),
            signed: SignedDocument::new(&document, []).encode().into(),
            document: Arc::new(document),
            secrets,
            codec: settings.codec.codec(),
            class,
            gateways,
            exit: (bytes(&exit_seed, "identity"), secret, inbox),
            offsets: (0..count)
                .map(|_| ((offsets.random::<f64>() * 2.0 - 1.0) * offset) as i64)
                .collect(),
            seed: seed.clone(),
        })
    }

    /// The document as everyone holds it.
    pub(super) fn held(&self) -> VerifiedDocument {
        VerifiedDocument { document: self.document.clone(), signed: self.signed.clone() }
    }

    /// The engine of a node, with the document.
    pub(super) fn node(&self, number: usize, settings: &Settings, people: u32) -> Option<Node> {
        let listed = self.document.node(number)?;
        let role = listed.descriptor.body().role;
        let own = self.seed.part(&format!("node {number}"));
        let settings = shoal_node::Settings {
            identity: listed.identity(),
            role,
            pool_packets: settings.network.pool_packets,
            seed: own.part("engine"),
            gateway: GatewaySettings {
                admission: Admission::anyone(),
                max_clients: people as usize + 2,
                // Services are not what is studied here.
                service_per_s: 100_000.0,
                max_inboxes: people as usize + 2,
                ..GatewaySettings::default()
            },
        };
        let mut engine = Engine::new(settings, self.codec.clone());
        let epoch = self.epoch(number, Time::ZERO);
        let (document, signed) = (self.document.clone(), self.signed.clone());
        engine
            .handle(Time::ZERO, Input::Document { document, signed, epoch, announce: Time::ZERO });
        let opener = self.opener(number, Time::ZERO)?;
        Some(Node { engine, opener, scheduled: Time::NEVER })
    }

    /// What opens the packets of a node; it knows no tags.
    pub(super) fn opener(&self, number: usize, now: Time) -> Option<Opener> {
        let opener = Opener::new(self.codec.clone());
        let secret = self.secrets.get(number)?.clone();
        let replay = Replay::new(bytes(&self.seed, "replay tags"), 1 << 34);
        opener.add_key(Epoch(0), Epoch(u64::MAX), secret, replay);
        opener.update(&self.document, self.epoch(number, now));
        Some(opener)
    }

    /// The epoch by a node's clock.
    pub(super) fn epoch(&self, number: usize, now: Time) -> Epoch {
        self.document.epoch_at(self.unix_nanos(number, now) / 1_000_000_000)
    }

    /// When a node's clock passes into its next epoch.
    pub(super) fn next_epoch(&self, number: usize, now: Time) -> Time {
        let unix = self.unix_nanos(number, now);
        let length = u64::from(self.document.epoch_s) * 1_000_000_000;
        let begins = self.document.begins * 1_000_000_000;
        let passed = unix.saturating_sub(begins) % length;
        now + std::time::Duration::from_nanos(length - passed)
    }

    fn unix_nanos(&self, number: usize, now: Time) -> u64 {
        let offset = self.offsets.get(number).copied().unwrap_or_default();
        (UNIX * 1_000_000_000 + now.as_nanos()).saturating_add_signed(offset)
    }

    /// The number of the node of this identity.
    pub(super) fn number(&self, identity: &Identity) -> Option<usize> {
        self.prefixes.binary_search(&prefix(&identity.0)).ok()
    }

    /// The identity of a node.
    pub(super) fn identity(&self, number: u32) -> Option<Identity> {
        self.document.node(number as usize).map(ListedNode::identity)
    }

    /// What makes and opens packets.
    pub(super) fn codec(&self) -> Arc<dyn Codec> {
        self.codec.clone()
    }
}

/// What a node is called in files: "mix-1-2" (layer and place in it) or "gateway-1".
pub(super) fn node_name(settings: &Settings, number: usize) -> String {
    let width = usize::from(settings.network.mixes_per_layer);
    let mixes = width * usize::from(settings.network.layers);
    if number < mixes {
        format!("mix-{}-{}", 1 + number / width, 1 + number % width)
    } else {
        format!("gateway-{}", 1 + number - mixes)
    }
}
