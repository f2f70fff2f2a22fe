//! What a scenario file says of the world.

mod absences;
mod adversaries;
mod check;
mod faults;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_sphinx::backend::Backend;
use shoal_sphinx::{Codec, NullCodec};
use shoal_topology::consensus::Schedule;
use shoal_topology::{Class, Parameters};

use super::keyed::KeyedCodec;
use crate::experiment::Wrong;
use crate::workload::WorkloadSettings;

pub use absences::Absence;
pub use adversaries::{Attack, Injected, Injection, Interruption, Trial};
pub(super) use faults::Culprit;
pub use faults::{Fault, FaultKind, Lie};

/// Which packets travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodecChoice {
    /// Of the same lengths, without cryptography; older scenarios call it "stand-in".
    #[serde(alias = "stand-in")]
    Null,
    /// As those, but that a hop opens only what was sealed to its key.
    Keyed,
    /// The real ones.
    Sphinx,
}

impl CodecChoice {
    /// What makes and opens them.
    pub fn codec(self) -> Arc<dyn Codec> {
        match self {
            Self::Null => Arc::new(NullCodec),
            Self::Keyed => Arc::new(KeyedCodec::default()),
            Self::Sphinx => Backend::best_codec(),
        }
    }
}

/// The nodes. In traces they are numbered layer by layer from zero, gateways last.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSettings {
    /// Layers of mixes, 1 to 3.
    pub layers: u8,
    /// Mixes in each layer.
    pub mixes_per_layer: u16,
    /// Gateways, at least 2. People are dealt out to them in turn.
    pub gateways: u16,
    /// Authorities, which vote on a document for each epoch. With 0 there is one document from the beginning on, and a
    /// run lasts less than two epochs. With others nodes make a key for each epoch, layers are drawn, whatever nodes are
    /// called, and people join when the first document holds, after one epoch.
    pub authorities: u16,
    /// With authorities: layers are drawn anew every so many epochs.
    pub draw_every: u32,
    /// Loops that each node sends, 1/s.
    pub node_loops_per_s: f64,
    /// Length of an epoch, seconds. Where it is short, a tenth of it is the longest delay that nodes grant, and how far
    /// clocks may be apart.
    pub epoch_s: u32,
    /// How far each node's clock is off at most, milliseconds, in either direction: drawn uniformly. It moves the
    /// node's epoch, nothing else.
    pub clock_offset_ms: f64,
    /// After this long, in seconds, a node forgets the replay tags that it has. In service it keeps them for an epoch;
    /// here that would take 15 bytes for each packet at each hop. With authorities they go with the key of their epoch,
    /// as in service.
    pub replay_tags_s: f64,
    /// Packets that a node's pool holds.
    pub pool_packets: usize,
    /// Packets that an inbox holds for a person who is away.
    pub inbox_packets: u32,
    /// How long it holds them, seconds.
    pub inbox_expiry_s: u32,
    /// Whether what waits at a gateway, and the descriptors that it keeps, are still there when its machine has started
    /// again, as in service unless its operator wants it otherwise.
    pub inbox_survives_reboot: bool,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        let parameters = Parameters::default();
        Self {
            layers: 3,
            mixes_per_layer: 3,
            gateways: 2,
            authorities: 0,
            draw_every: parameters.draw_every,
            node_loops_per_s: parameters.node_loops_per_s,
            epoch_s: 86_400,
            clock_offset_ms: 0.0,
            replay_tags_s: 600.0,
            pool_packets: 1 << 20,
            inbox_packets: parameters.inbox_packets,
            inbox_expiry_s: parameters.inbox_expiry_s,
            inbox_survives_reboot: true,
        }
    }
}

/// After the first document holds, people wait for so long, seconds: gateways have it by then.
const OPENING_S: f64 = 2.0;

impl NetworkSettings {
    /// What a node is called in files: "mix-1-2" (layer and place in it) or "gateway-1".
    pub(super) fn node_name(&self, number: usize) -> String {
        let width = usize::from(self.mixes_per_layer);
        let mixes = width * usize::from(self.layers);
        if number < mixes {
            format!("mix-{}-{}", 1 + number / width, 1 + number % width)
        } else {
            format!("gateway-{}", 1 + number - mixes)
        }
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        usize::from(self.layers) * usize::from(self.mixes_per_layer) + usize::from(self.gateways)
    }

    /// When authorities do what.
    pub(super) fn schedule(&self) -> Schedule {
        Schedule::new(self.epoch_s, usize::from(self.authorities).saturating_sub(1) / 3)
    }

    /// From when on people may join, seconds from the beginning.
    pub(super) fn opens_s(&self) -> f64 {
        if self.authorities == 0 { 0.0 } else { f64::from(self.epoch_s) + OPENING_S }
    }
}

/// The class of all people: a name of the defaults, and what differs from them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassSettings {
    /// "text", "web", "fast" or "call".
    pub name: String,
    /// Payload slots, 1/s.
    pub payload_per_s: Option<f64>,
    /// Loop slots, 1/s.
    pub loops_per_s: Option<f64>,
    /// Share of empty payload slots that carry a loop to oneself, 0 to 1.
    pub loop_share: Option<f64>,
    /// Frames down, at fixed instants, 1/s.
    pub down_per_s: Option<f64>,
    /// Mean of the exponential delays, at all mixes of a path but the second, milliseconds.
    pub exponential_ms: Option<f64>,
    /// The longest of the uniform delays at the second mix, milliseconds: periods of the payload slots.
    pub uniform_ms: Option<f64>,
}

impl Default for ClassSettings {
    fn default() -> Self {
        Self {
            name: "text".into(),
            payload_per_s: None,
            loops_per_s: None,
            loop_share: None,
            down_per_s: None,
            exponential_ms: None,
            uniform_ms: None,
        }
    }
}

impl ClassSettings {
    /// The class that this makes.
    ///
    /// # Errors
    /// A name that no class has.
    pub fn class(&self) -> Result<Class, Wrong> {
        let parameters = Parameters::default();
        let mut class = parameters.class(&self.name).cloned().ok_or_else(|| {
            let names: Vec<&str> = parameters.classes.iter().map(|c| c.name.as_str()).collect();
            Wrong::new("class.name", format!("must be one of {}", names.join(", ")))
        })?;
        let set = |to: &mut f64, value: Option<f64>| *to = value.unwrap_or(*to);
        set(&mut class.payload_per_s, self.payload_per_s);
        set(&mut class.loops_per_s, self.loops_per_s);
        set(&mut class.loop_share, self.loop_share);
        set(&mut class.down_per_s, self.down_per_s);
        let set =
            |to: &mut u64, ms: Option<f64>| *to = ms.map_or(*to, |ms| (ms * 1e3).round() as u64);
        set(&mut class.delay.exponential_us, self.exponential_ms);
        set(&mut class.delay.uniform_us, self.uniform_ms);
        Ok(class)
    }
}

/// Whether one gateway may serve both ends of a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SharedGateway {
    /// It may serve both ends.
    Allowed,
    /// It may not: exits are reached through another.
    Refused,
}

/// The people's side.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeopleSettings {
    /// Whether a download may come through the gateway of who loads it: "allowed" or "refused". People reach each other
    /// through any.
    pub shared_gateway: SharedGateway,
    /// Whether answers keep within the rate of the loops whose place they take, as with `protect.strict`.
    pub strict: bool,
    /// All join at an instant of their own in so many seconds from the start; less than the warm-up.
    pub join_within_s: f64,
    /// How long a person stays, on average, seconds; 0 for always. Exponential.
    pub online_mean_s: f64,
    /// And is away. Exponential.
    pub offline_mean_s: f64,
    /// Chance that a segment of the TCP connection between a person and its gateway is lost, in each direction. It is
    /// sent again as Linux does (fast retransmission, else the timer), and all frames behind it wait.
    pub access_loss: f64,
    /// And what each frame takes there beside, at most, milliseconds; uniform, order is kept.
    pub access_jitter_ms: f64,
    /// Length of the periods of people's keys, whole seconds; a day in service. Each period has a key of its own, which its
    /// person's gateway has in a descriptor; whoever writes has an address and asks for that first. Letters that reach
    /// nobody are tried again, and keys last as in service. With 0 each person has one key, and everyone knows it.
    pub key_period_s: u32,
    /// Whether people are members of one organisation, whose messages have sessions, receipts and second copies, as in service.
    /// It needs keys of periods. Else a message is one packet, and its writer is never told that it has arrived.
    pub members: bool,
    /// Members whose numbers follow each other form groups of so many: what one writes to another one of his group goes to all of
    /// it. 0 for none.
    pub group_size: u32,
}

impl PeopleSettings {
    /// People are members of one organisation, with keys for a day each, as in service.
    pub fn make_members(&mut self) {
        (self.members, self.key_period_s) = (true, 86_400);
    }

    /// Whether access links lose or jitter.
    pub(super) fn access_is_bad(&self) -> bool {
        self.access_loss > 0.0 || self.access_jitter_ms > 0.0
    }
}

impl Default for PeopleSettings {
    fn default() -> Self {
        Self {
            shared_gateway: SharedGateway::Allowed,
            strict: false,
            join_within_s: 5.0,
            online_mean_s: 0.0,
            offline_mean_s: 0.0,
            access_loss: 0.0,
            access_jitter_ms: 0.0,
            key_period_s: 0,
            members: false,
            group_size: 0,
        }
    }
}

/// What links do to packets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkSettings {
    /// What each packet takes on each link, milliseconds; with a matrix, what it takes beside.
    pub latency_ms: f64,
    /// And uniformly up to so much more. Order is kept, as TCP does.
    pub jitter_ms: f64,
    /// Chance that a packet is lost, and sent again; those behind it wait.
    pub loss: f64,
    /// After so long, milliseconds.
    pub retransmit_ms: f64,
    /// A CSV file of latencies in milliseconds, from (row) to (column): the first row and the first column have names.
    /// A party whose name stands there ("mix-1-2", "gateway-1", "person-7", "exit", from 1) is there; all others are
    /// at a place that is drawn for them.
    pub matrix: Option<PathBuf>,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self { latency_ms: 20.0, jitter_ms: 0.0, loss: 0.0, retransmit_ms: 200.0, matrix: None }
    }
}

/// Which links are observed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observed {
    /// All links there are.
    All,
    /// Those between people and gateways.
    Clients,
    /// Those in the list.
    Listed,
    /// No link at all.
    None,
}

/// What the observer sees, and in what form.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObserverSettings {
    /// "all", "clients", "listed" or "none".
    pub links: Observed,
    /// With "listed": links as "person 3 > node 9"; "*" stands for any number, as in "node * > node 4".
    pub list: Vec<String>,
    /// Packets are counted in bins of so many milliseconds; 0 keeps each instant, 8 bytes a packet.
    pub bin_ms: f64,
    /// Nodes, by number, that tell which packet became which.
    pub corrupt_nodes: Vec<u32>,
    /// Keep what each person's gateway sees of it: instant, first hop and epoch of each frame up; instant, last mix and
    /// epoch of each packet that comes for it; instants of packets down.
    pub gateway_view: bool,
}

impl Default for ObserverSettings {
    fn default() -> Self {
        Self {
            links: Observed::All,
            list: Vec::new(),
            bin_ms: 0.0,
            corrupt_nodes: Vec::new(),
            gateway_view: false,
        }
    }
}

/// All settings of a world.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// "null" (the same lengths, no cryptography), "keyed" (as that, but each packet is opened by its keys alone) or "sphinx".
    pub codec: CodecChoice,
    /// Seconds before the observation begins: everybody joins, pools fill.
    pub warm_up_s: f64,
    /// Seconds after it, so that what was sent at its end still arrives and counts.
    pub drain_s: f64,
    /// The nodes, the authorities and their epochs.
    pub network: NetworkSettings,
    /// The class of all people.
    pub class: ClassSettings,
    /// What all people have in common.
    pub people: PeopleSettings,
    /// The links between all parties.
    pub links: LinkSettings,
    /// What the observer sees.
    pub observer: ObserverSettings,
    /// Active attacks on links.
    pub attacks: Vec<Attack>,
    /// Corrupt gateways that inject packets.
    pub injections: Vec<Injection>,
    /// Connections that somebody interrupts.
    pub interruptions: Vec<Interruption>,
    /// People whose programs are off for a time.
    pub absences: Vec<Absence>,
    /// What goes wrong: nodes and authorities that are away, lose packets, have a wrong clock, or lie.
    pub faults: Vec<Fault>,
    /// What is tried with the engines that they do not do in service.
    pub trial: Trial,
    /// What people do, when the world is an experiment of its own; [`super::run`] is given it beside.
    pub workload: WorkloadSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            codec: CodecChoice::Null,
            warm_up_s: 15.0,
            drain_s: 10.0,
            network: NetworkSettings::default(),
            class: ClassSettings::default(),
            people: PeopleSettings::default(),
            links: LinkSettings::default(),
            observer: ObserverSettings::default(),
            attacks: Vec::new(),
            injections: Vec::new(),
            interruptions: Vec::new(),
            absences: Vec::new(),
            faults: Vec::new(),
            trial: Trial::default(),
            workload: WorkloadSettings::default(),
        }
    }
}
