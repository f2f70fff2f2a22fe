//! The nodes of a world, and the document that lists them.

use std::sync::Arc;

use rand::{Rng, RngExt};
use shoal_node::replay::Replay;
use shoal_node::{Admission, Counters, GatewaySettings, Input, NodeEngine, Opener};
use shoal_sphinx::{Codec, SecretKey};
use shoal_topology::{
    Class, ClientDescriptor, Document, Epoch, EpochKey, Identity, ListedNode, NodeDescriptor,
    Parameters, Role, SecretIdentity, Seed, Signed, SignedDocument, Time, VerifiedDocument,
};

use super::settings::Settings;

/// Unix time at the zero of a world, seconds; with authorities the beginning of the epoch that it lies in.
pub(super) const UNIX: u64 = 1_800_000_000;
/// What documents call the network.
pub(super) const NAME: &str = "simulation";
/// Tags for which a key has room, which is taken as they come.
pub(super) const TAGS: usize = 1 << 34;

fn node_seed(seed: &Seed, number: usize) -> Seed {
    seed.part(&format!("node {number}"))
}

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
    /// Identities of the nodes, in the order of lists.
    secrets: Vec<SecretIdentity>,
    /// What nodes are called, in this order: operators have these names too.
    names: Vec<String>,
    /// What the document fixes, and authorities vote for.
    pub(super) parameters: Parameters,
    /// The only document, where there are no authorities.
    given: Option<Given>,
    codec: Arc<dyn Codec>,
    /// The class of all people.
    pub(super) class: Class,
    /// Numbers of the gateways.
    pub(super) gateways: Vec<u32>,
    /// First eight bytes of the identities, in the order of the list.
    prefixes: Vec<u64>,
    /// The service that downloads come from: the seed of its identity, its key, its inbox.
    pub(super) exit: ([u8; 32], SecretKey, SecretIdentity),
    /// What it says of itself.
    pub(super) exit_descriptor: Signed<ClientDescriptor>,
    /// How far the clock of each node is off, nanoseconds.
    offsets: Vec<i64>,
    /// Unix time at the beginning, seconds.
    unix_s: u64,
    seed: Seed,
}

/// A document that everyone has from the beginning, and the keys that it lists.
struct Given {
    held: VerifiedDocument,
    keys: Vec<SecretKey>,
}

/// Whether a node runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Power {
    On,
    Off,
}

/// A node: its engine, and what opens packets for it.
pub(super) struct Node {
    pub(super) engine: NodeEngine,
    pub(super) opener: Opener,
    pub(super) power: Power,
    /// For when a wake-up is in the wheel.
    pub(super) scheduled: Time,
    /// What it counted before it last started.
    pub(super) before: Vec<Counters>,
}

fn prefix(identity: &[u8; 32]) -> u64 {
    identity.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

impl Network {
    /// Nodes by number: layer by layer, then the gateways.
    pub(super) fn new(settings: &Settings, seed: &Seed) -> anyhow::Result<Self> {
        let network = &settings.network;
        let class = settings.class.class()?;
        let count = network.nodes();
        let mixes = count - usize::from(network.gateways);
        // Frames name nodes by their place in the order of identities. Sorted before they are given out, so that this
        // is also the order of layers.
        let mut secrets: Vec<SecretIdentity> =
            (0..count).map(|n| identity(&node_seed(seed, n), "identity")).collect();
        secrets.sort_by_key(SecretIdentity::identity);
        let exit_seed = seed.part("exit");
        let inbox = identity(&exit_seed, "inbox");
        let secret = SecretKey::generate(&mut exit_seed.stream("key"));
        let two = secrets.iter().skip(mixes).take(2).map(SecretIdentity::identity).collect();
        let mut offsets = seed.stream("clock offsets");
        let offset = network.clock_offset_ms * 1e6;
        let unix_s = match network.authorities {
            0 => UNIX,
            // Epochs count from 1970, and the first one begins with the run.
            _ => UNIX - UNIX % u64::from(network.epoch_s),
        };
        let mut all = Self {
            names: (0..count).map(|n| settings.network.node_name(n)).collect(),
            parameters: parameters(settings, &class),
            given: None,
            codec: settings.codec.codec(),
            class,
            gateways: (mixes as u32..count as u32).collect(),
            prefixes: secrets.iter().map(|secret| prefix(&secret.identity().0)).collect(),
            exit_descriptor: describe_exit(&exit_seed, &secret, &inbox, two),
            exit: (bytes(&exit_seed, "identity"), secret, inbox),
            offsets: (0..count)
                .map(|_| ((offsets.random::<f64>() * 2.0 - 1.0) * offset) as i64)
                .collect(),
            unix_s,
            seed: seed.clone(),
            secrets,
        };
        if network.authorities == 0 {
            all.given = Some(all.give(network.epoch_s)?);
        }
        Ok(all)
    }

    /// The only document.
    fn give(&self, epoch_s: u32) -> anyhow::Result<Given> {
        let secret = |n| SecretKey::generate(&mut node_seed(&self.seed, n).stream("key"));
        let keys: Vec<SecretKey> = (0..self.secrets.len()).map(secret).collect();
        let mixes = self.secrets.len() - self.gateways.len();
        let width = mixes / usize::from(self.parameters.layers);
        let nodes = keys.iter().enumerate().map(|(n, secret)| {
            let layer = if n < mixes { (1 + n / width) as u8 } else { 0 };
            let key = *secret.public().as_bytes();
            let keys = vec![EpochKey { first: Epoch(0), last: Epoch(u64::MAX), key }];
            ListedNode::new(self.describe(n, keys, 0), layer)
        });
        let document = Document {
            network: NAME.into(),
            epoch: Epoch(UNIX / u64::from(epoch_s)),
            // Half of the first epoch is over, so that clocks that are off are off in the same epoch.
            begins: UNIX - u64::from(epoch_s / 2),
            epoch_s,
            amendment: 0,
            parameters: self.parameters.clone(),
            nodes: nodes.collect(),
            draw: Default::default(),
            exits: vec![self.exit_descriptor.clone()],
            heads: Vec::new(),
        };
        document.check()?;
        let signed = SignedDocument::new(&document, []).encode().into();
        Ok(Given { held: VerifiedDocument { document: Arc::new(document), signed }, keys })
    }

    /// The document that everyone holds from the beginning, if there is one.
    pub(super) fn held(&self) -> Option<&VerifiedDocument> {
        self.given.as_ref().map(|given| &given.held)
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.secrets.len()
    }

    /// What a node is called.
    pub(super) fn name(&self, number: usize) -> &str {
        self.names.get(number).map_or("", String::as_str)
    }

    fn role(&self, number: usize) -> Role {
        if number + self.gateways.len() < self.secrets.len() { Role::Mix } else { Role::Gateway }
    }

    /// The identity with which a node signs.
    pub(super) fn secret(&self, number: usize) -> Option<&SecretIdentity> {
        self.secrets.get(number)
    }

    /// What a node says of itself.
    pub(super) fn describe(
        &self,
        number: usize,
        keys: Vec<EpochKey>,
        signed_at: u64,
    ) -> Signed<NodeDescriptor> {
        #[expect(clippy::indexing_slicing, reason = "nodes are numbered here")]
        let secret = &self.secrets[number];
        let body = NodeDescriptor {
            identity: secret.identity(),
            role: self.role(number),
            addresses: vec![std::net::SocketAddr::from(([127, 0, 0, 1], 1))],
            operator: self.name(number).into(),
            jurisdiction: "here".into(),
            packets_per_s: 2_000,
            keys,
            signed_at,
        };
        Signed::<NodeDescriptor>::new(body, secret)
    }

    /// The key of a node for an epoch, where authorities list one for each, after its machine has started again so many
    /// times.
    pub(super) fn epoch_key(&self, number: usize, epoch: Epoch, reboots: u32) -> SecretKey {
        let own = match reboots {
            0 => node_seed(&self.seed, number),
            _ => node_seed(&self.seed, number).part(&format!("reboot {reboots}")),
        };
        SecretKey::generate(&mut own.stream(&format!("key of epoch {epoch}")))
    }

    /// The links between nodes: who sends to whom. With one document from layer to layer; else everyone to everyone, and
    /// the document in use says which of them.
    pub(super) fn pairs(&self) -> Vec<(usize, usize)> {
        let Some(VerifiedDocument { document, .. }) = self.held() else {
            let all = 0..self.secrets.len();
            let to =
                |from: usize| all.clone().filter_map(move |to| (from != to).then_some((from, to)));
            return all.clone().flat_map(to).collect();
        };
        let layers = document.parameters.layers;
        let mut pairs = Vec::new();
        for layer in 0..=layers {
            let next = if layer == layers { 0 } else { layer + 1 };
            for from in document.in_layer(layer) {
                pairs.extend(document.in_layer(next).map(|to| (from, to)));
            }
        }
        pairs
    }

    /// A node that starts for the first time, with the document if there is one.
    pub(super) fn node(&self, number: usize, settings: &Settings, people: u32) -> Option<Node> {
        let mut engine = self.engine(number, settings, people, 0)?;
        if let Some(VerifiedDocument { document, signed }) = self.held().cloned() {
            let epoch = self.epoch(number, Time::ZERO);
            engine.handle(
                Time::ZERO,
                Input::Document { document, signed, epoch, announce: Time::ZERO },
            );
        }
        let opener = self.opener(number, Time::ZERO);
        let (power, scheduled) = (Power::On, Time::NEVER);
        Some(Node { engine, opener, power, scheduled, before: Vec::new() })
    }

    /// The engine of a node that has started so many times before.
    pub(super) fn engine(
        &self,
        number: usize,
        settings: &Settings,
        people: u32,
        starts: usize,
    ) -> Option<NodeEngine> {
        let own = node_seed(&self.seed, number);
        let own = match starts {
            0 => own.part("engine"),
            _ => own.part(&format!("engine {starts}")),
        };
        let settings = shoal_node::NodeSettings {
            identity: self.secret(number)?.identity(),
            role: self.role(number),
            pool_packets: settings.network.pool_packets,
            seed: own,
            gateway: GatewaySettings {
                admission: Admission::anyone(),
                max_clients: people as usize + 2,
                // Services are not what is studied here.
                service_per_s: 100_000.0,
                max_inboxes: people as usize + 2,
                ..GatewaySettings::default()
            },
        };
        Some(NodeEngine::new(settings, self.codec.clone()))
    }

    /// What opens the packets of a node; it knows no tags, and no keys but that of the only document.
    pub(super) fn opener(&self, number: usize, now: Time) -> Opener {
        let opener = Opener::new(self.codec.clone());
        if let Some(given) = &self.given
            && let Some(secret) = given.keys.get(number)
        {
            opener.add_key(Epoch(0), Epoch(u64::MAX), secret.clone(), self.tags());
            opener.update(&given.held.document, self.epoch(number, now));
        }
        opener
    }

    /// A table of replay tags, for one key.
    pub(super) fn tags(&self) -> Replay {
        Replay::new(bytes(&self.seed, "replay tags"), TAGS)
    }

    /// The epoch by a node's clock, by the only document.
    pub(super) fn epoch(&self, number: usize, now: Time) -> Epoch {
        let unix_s = self.unix_nanos(number, now) / 1_000_000_000;
        self.held().map_or(Epoch(0), |held| held.document.epoch_at(unix_s))
    }

    /// When a node's clock passes into its next epoch, by the only document.
    pub(super) fn next_epoch(&self, number: usize, now: Time) -> Time {
        let Some(held) = self.held() else { return Time::NEVER };
        let unix = self.unix_nanos(number, now);
        let length = u64::from(held.document.epoch_s) * 1_000_000_000;
        let begins = held.document.begins * 1_000_000_000;
        let passed = unix.saturating_sub(begins) % length;
        now + std::time::Duration::from_nanos(length - passed)
    }

    /// The second of Unix time for everyone whose clock is right.
    pub(super) fn unix_s(&self, now: Time) -> u64 {
        self.unix_s + now.as_nanos() / 1_000_000_000
    }

    /// The millisecond of Unix time.
    pub(super) fn unix_ms(&self, now: Time) -> u64 {
        1_000 * self.unix_s + now.as_nanos() / 1_000_000
    }

    /// Both of these.
    pub(super) fn unix(&self, now: Time) -> (u64, u64) {
        (self.unix_s(now), self.unix_ms(now))
    }

    /// The nanosecond of Unix time by a node's clock.
    pub(super) fn unix_nanos(&self, number: usize, now: Time) -> u64 {
        let offset = self.offsets.get(number).copied().unwrap_or_default();
        (self.unix_s * 1_000_000_000 + now.as_nanos()).saturating_add_signed(offset)
    }

    /// The number of the node of this identity.
    pub(super) fn number(&self, identity: &Identity) -> Option<usize> {
        self.prefixes.binary_search(&prefix(&identity.0)).ok()
    }

    /// The identity of a node.
    pub(super) fn identity(&self, number: u32) -> Option<Identity> {
        self.secret(number as usize).map(SecretIdentity::identity)
    }

    /// What makes and opens packets.
    pub(super) fn codec(&self) -> Arc<dyn Codec> {
        self.codec.clone()
    }
}

/// What the document fixes. Where authorities make one for each epoch, short epochs leave less time for packets under way
/// and for clocks, as in a localnet.
fn parameters(settings: &Settings, class: &Class) -> Parameters {
    let network = &settings.network;
    let mut parameters = Parameters {
        layers: network.layers,
        min_mixes_per_layer: 1,
        node_loops_per_s: network.node_loops_per_s,
        inbox_packets: network.inbox_packets,
        inbox_expiry_s: network.inbox_expiry_s,
        classes: vec![class.clone()],
        ..Parameters::default()
    };
    if network.authorities > 0 {
        let tenth_us = u64::from(network.epoch_s) * 100_000;
        let longest_us = class.delay.exponential_us.max(class.delay.uniform_us);
        parameters.max_delay_us = parameters.max_delay_us.min(tenth_us).max(longest_us);
        let tenth_s = (network.epoch_s / 10).max(1);
        parameters.clock_error_s = parameters.clock_error_s.min(tenth_s);
        parameters.draw_every = network.draw_every;
    }
    parameters
}

fn describe_exit(
    seed: &Seed,
    secret: &SecretKey,
    inbox: &SecretIdentity,
    gateways: Vec<Identity>,
) -> Signed<ClientDescriptor> {
    let long = identity(seed, "identity");
    let body = ClientDescriptor {
        identity: long.identity(),
        key: *secret.public().as_bytes(),
        inbox: inbox.identity(),
        gateways,
        not_before: 0,
        not_after: u64::MAX,
        attached: Vec::new(),
    };
    Signed::<ClientDescriptor>::new(body, &long)
}
