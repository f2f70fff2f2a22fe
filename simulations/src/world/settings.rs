//! What a scenario file says of the world.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_sphinx::backend::Backend;
use shoal_sphinx::{Codec, NullCodec};
use shoal_topology::{Class, Parameters, Time};

use super::links::Ends;
use super::matrix::Matrix;
use crate::experiment::Wrong;
use crate::workload::WorkloadSettings;

/// Which packets travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodecChoice {
    /// Of the same lengths, without cryptography; older scenarios call it "stand-in".
    #[serde(alias = "stand-in")]
    Null,
    /// The real ones.
    Sphinx,
}

impl CodecChoice {
    /// What makes and opens them.
    pub fn codec(self) -> Arc<dyn Codec> {
        match self {
            Self::Null => Arc::new(NullCodec),
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
    /// Loops that each node sends, 1/s.
    pub node_loops_per_s: f64,
    /// Length of an epoch, seconds; a run may last two.
    pub epoch_s: u32,
    /// How far each node's clock is off at most, milliseconds, in either direction: drawn uniformly. It moves the
    /// node's epoch, nothing else.
    pub clock_offset_ms: f64,
    /// After this long, in seconds, a node forgets the replay tags that it has. In service it keeps them for an epoch;
    /// here that would take 15 bytes for each packet at each hop.
    pub replay_tags_s: f64,
    /// Packets that a node's pool holds.
    pub pool_packets: usize,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        let parameters = Parameters::default();
        Self {
            layers: 3,
            mixes_per_layer: 3,
            gateways: 2,
            node_loops_per_s: parameters.node_loops_per_s,
            epoch_s: 86_400,
            clock_offset_ms: 0.0,
            replay_tags_s: 600.0,
            pool_packets: 1 << 20,
        }
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
    /// It may.
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
}

impl PeopleSettings {
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
        }
    }
}

/// The links.
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
    /// All.
    All,
    /// Those between people and gateways.
    Clients,
    /// Those in the list.
    Listed,
    /// None.
    None,
}

/// The observer.
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

/// What an active adversary does to links. It acts behind the place of observation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attack {
    /// On which links: as in the observer's list.
    pub links: String,
    /// From when on, seconds of the observation.
    pub begin_s: f64,
    /// Until when.
    pub end_s: f64,
    /// Share of the packets that it drops.
    pub drop_share: f64,
    /// By how much it delays each, milliseconds. Order is kept.
    pub delay_ms: f64,
    /// Share of the packets behind which it sends a copy.
    pub copy_share: f64,
    /// Share of the packets whose payload it changes.
    pub tag_share: f64,
    /// From `begin_s` on, once every `every_s`, it holds all packets for so long, milliseconds, and then lets them go at
    /// once; 0 for never.
    pub hold_ms: f64,
    /// How often it holds, seconds.
    pub every_s: f64,
}

impl Default for Attack {
    fn default() -> Self {
        Self {
            links: String::new(),
            begin_s: 0.0,
            end_s: f64::MAX,
            drop_share: 0.0,
            delay_ms: 0.0,
            copy_share: 0.0,
            tag_share: 0.0,
            hold_ms: 0.0,
            every_s: 2.0,
        }
    }
}

/// What a corrupt gateway puts in place of dummies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Injected {
    /// Random bytes.
    Garbage,
    /// Packets sealed to the person's key, which its descriptor has.
    Sealed,
    /// Packets that it has sent before, such as loops.
    Replayed,
}

/// A corrupt gateway that injects.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Injection {
    /// To whom, by number.
    pub people: Vec<u32>,
    /// What: "garbage", "sealed" or "replayed".
    pub what: Injected,
    /// In place of which share of the dummies.
    pub share: f64,
    /// From when on, seconds of the observation.
    pub begin_s: f64,
}

impl Default for Injection {
    fn default() -> Self {
        Self { people: Vec::new(), what: Injected::Garbage, share: 0.3, begin_s: 0.0 }
    }
}

/// Someone who interrupts the TCP connections of people (RST). They connect again a second later, to the same gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Interruption {
    /// Whose, by number.
    pub people: Vec<u32>,
    /// From when on, seconds of the observation.
    pub begin_s: f64,
    /// How often, seconds.
    pub every_s: f64,
}

impl Default for Interruption {
    fn default() -> Self {
        Self { people: Vec::new(), begin_s: 0.0, every_s: 10.0 }
    }
}

/// What is tried with the engines that they do not do in service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trial {
    /// Whether arrivals from others take the place of loops. Without it the gateway sees what arrives beside the loops.
    pub credits: bool,
    /// Whether letters wait a drawn time before they take a slot. Without it a burst arrives as one.
    pub letters_wait: bool,
    /// A frame leaves its first mix no sooner than so long after the instant of its slot, milliseconds, plus an
    /// exponential delay of mean `release_spread_ms`, in place of the delay that its header asks for; 0 for as it asks. It
    /// stands for an absolute instant in the header, and for clocks that agree.
    pub release_ms: f64,
    /// The mean of that, milliseconds.
    pub release_spread_ms: f64,
}

impl Default for Trial {
    fn default() -> Self {
        Self { credits: true, letters_wait: true, release_ms: 0.0, release_spread_ms: 10.0 }
    }
}

/// All settings of a world.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// "null" (the same lengths, no cryptography) or "sphinx".
    pub codec: CodecChoice,
    /// Seconds before the observation begins: everybody joins, pools fill.
    pub warm_up_s: f64,
    /// Seconds after it, so that what was sent at its end still arrives and counts.
    pub drain_s: f64,
    /// The nodes.
    pub network: NetworkSettings,
    /// The class of all people.
    pub class: ClassSettings,
    /// The people.
    pub people: PeopleSettings,
    /// The links.
    pub links: LinkSettings,
    /// The observer.
    pub observer: ObserverSettings,
    /// Active attacks on links.
    pub attacks: Vec<Attack>,
    /// Corrupt gateways that inject packets.
    pub injections: Vec<Injection>,
    /// Interrupted connections.
    pub interruptions: Vec<Interruption>,
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
            trial: Trial::default(),
            workload: WorkloadSettings::default(),
        }
    }
}

/// Most packets at hops of a run: weeks of a core.
const MOST_EVENTS: f64 = 1e12;
/// Most times that people come and go in a run, each with a handshake.
const MOST_JOINS: f64 = 1e7;

/// Seconds as a time of the world.
pub(super) fn seconds(s: f64) -> Time {
    Time::ZERO + span(s)
}

/// Seconds as a span; what cannot be one is none.
pub(super) fn span(s: f64) -> Duration {
    Duration::try_from_secs_f64(s.max(0.0)).unwrap_or(Duration::MAX)
}

/// Milliseconds as a span.
pub(super) fn millis(ms: f64) -> Duration {
    span(ms / 1e3)
}

fn within(key: &str, value: f64, low: f64, high: f64) -> Result<(), Wrong> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Wrong::new(key, format!("must be {low} to {high}")))
}

impl Settings {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// The first that cannot be.
    pub fn check(&self) -> Result<(), Wrong> {
        within("warm_up_s", self.warm_up_s, 0.0, 1e6)?;
        within("drain_s", self.drain_s, 0.0, 1e6)?;
        let network = &self.network;
        within("network.layers", f64::from(network.layers), 1.0, 3.0)?;
        within("network.mixes_per_layer", f64::from(network.mixes_per_layer), 1.0, 1_000.0)?;
        within("network.gateways", f64::from(network.gateways), 2.0, 1_000.0)?;
        within("network.node_loops_per_s", network.node_loops_per_s, 0.0, 10_000.0)?;
        within("network.epoch_s", f64::from(network.epoch_s), 60.0, 1e9)?;
        within("network.clock_offset_ms", network.clock_offset_ms, 0.0, 30_000.0)?;
        within("network.replay_tags_s", network.replay_tags_s, 1.0, 1e9)?;
        within("network.pool_packets", network.pool_packets as f64, 1.0, 1e8)?;
        let class = self.class.class()?;
        within("class.payload_per_s", class.payload_per_s, 0.01, 100_000.0)?;
        within("class.loops_per_s", class.loops_per_s, 0.01, 100_000.0)?;
        within("class.loop_share", class.loop_share, 0.0, 1.0)?;
        within("class.down_per_s", class.down_per_s, 0.01, 100_000.0)?;
        if class.down_per_s <= class.loops_per_s {
            let why = format!(
                "class.down_per_s, {}, must exceed class.loops_per_s, {}",
                class.down_per_s, class.loops_per_s
            );
            return Err(Wrong::new("class.down_per_s", why).or("class.loops_per_s"));
        }
        within("class.exponential_ms", class.delay.exponential_us as f64 / 1e3, 0.0, 5_000.0)?;
        within("class.uniform_ms", class.delay.uniform_us as f64 / 1e3, 0.0, 5_000.0)?;
        if !class.delay.hides_phase_of(class.payload_per_s) {
            let period_ms = 1e3 / class.payload_per_s;
            let why = format!(
                "class.uniform_ms must be one period of the payload slots, {period_ms} ms by class.payload_per_s, or a whole number of them"
            );
            return Err(Wrong::new("class.uniform_ms", why).or("class.payload_per_s"));
        }
        let people = &self.people;
        if !(0.0..=self.warm_up_s).contains(&people.join_within_s) {
            let (join_s, warm_up_s) = (people.join_within_s, self.warm_up_s);
            let why = format!(
                "all must have joined when the warm-up ends: people.join_within_s, {join_s}, must be 0 to warm_up_s, \
                 {warm_up_s}"
            );
            return Err(Wrong::new("people.join_within_s", why).or("warm_up_s"));
        }
        within("people.online_mean_s", people.online_mean_s, 0.0, 1e9)?;
        within("people.offline_mean_s", people.offline_mean_s, 0.0, 1e9)?;
        if (people.online_mean_s > 0.0) != (people.offline_mean_s > 0.0) {
            let why = "people.online_mean_s and people.offline_mean_s must be given together";
            return Err(Wrong::new("people.offline_mean_s", why).or("people.online_mean_s"));
        }
        within("people.access_loss", people.access_loss, 0.0, 0.5)?;
        within("people.access_jitter_ms", people.access_jitter_ms, 0.0, 1_000.0)?;
        let links = &self.links;
        within("links.latency_ms", links.latency_ms, 0.0, 60_000.0)?;
        within("links.jitter_ms", links.jitter_ms, 0.0, 60_000.0)?;
        within("links.loss", links.loss, 0.0, 0.9)?;
        within("links.retransmit_ms", links.retransmit_ms, 0.0, 60_000.0)?;
        if let Some(matrix) = &links.matrix {
            Matrix::read(matrix).map_err(|why| Wrong::new("links.matrix", format!("{why:#}")))?;
        }
        within("observer.bin_ms", self.observer.bin_ms, 0.0, 1e9)?;
        for pattern in &self.observer.list {
            Ends::parse(pattern).map_err(|why| Wrong::new("observer.list", why))?;
        }
        let nodes = u32::from(network.layers) * u32::from(network.mixes_per_layer)
            + u32::from(network.gateways);
        if self.observer.corrupt_nodes.iter().any(|node| *node >= nodes) {
            let why = format!("there are nodes 0 to {}", nodes - 1);
            return Err(Wrong::new("observer.corrupt_nodes", why));
        }
        self.check_adversaries()
    }

    /// Checks that a run of so many people, whose observation lasts so many seconds, can be, and that it has an end which
    /// somebody will see.
    ///
    /// # Errors
    /// The setting that must be another.
    pub fn check_run(&self, people: u32, observed_s: f64) -> Result<(), Wrong> {
        let total_s = self.warm_up_s + observed_s + self.drain_s;
        let network = &self.network;
        if total_s >= 2.0 * f64::from(network.epoch_s) {
            let least = (total_s / 2.0).floor() + 1.0;
            let why = format!(
                "the run lasts {total_s} s and must end within two epochs: network.epoch_s must be {least} or more, or \
                 workload.window_s shorter"
            );
            return Err(Wrong::new("network.epoch_s", why).or("workload.window_s"));
        }
        let injected =
            self.injections.iter().enumerate().map(|(n, one)| ("injections", n, &one.people));
        let interrupted =
            self.interruptions.iter().enumerate().map(|(n, one)| ("interruptions", n, &one.people));
        for (table, number, named) in injected.chain(interrupted) {
            if let Some(nobody) = named.iter().find(|person| **person >= people) {
                let why = format!(
                    "there is no person {nobody}: people are 0 to {}",
                    i64::from(people) - 1
                );
                return Err(Wrong::new(&format!("{table}.{}.people", number + 1), why));
            }
        }
        let class = self.class.class()?;
        let people = f64::from(people);
        let nodes = f64::from(network.layers) * f64::from(network.mixes_per_layer)
            + f64::from(network.gateways);
        // A packet comes to a gateway, to a mix of each layer, to a gateway again and to its end.
        let hops = f64::from(network.layers) + 3.0;
        let person_per_s = (class.payload_per_s + class.loops_per_s) * hops + class.down_per_s;
        let per_s = people * person_per_s + nodes * network.node_loops_per_s * hops;
        if per_s * total_s > MOST_EVENTS {
            let why = format!(
                "the run must be shorter, or people fewer or slower: {people} people and {nodes} nodes for {total_s} s are \
                 about {:.0e} packets at hops, and {MOST_EVENTS:.0e} are allowed",
                per_s * total_s
            );
            return Err(Wrong::new("workload.window_s", why).or("workload.people"));
        }
        let (online, offline) = (self.people.online_mean_s, self.people.offline_mean_s);
        if online > 0.0 && people * total_s / (online + offline) > MOST_JOINS {
            let why = format!(
                "must be longer, with people.offline_mean_s: {people} people would come and go about {:.0e} times in \
                 {total_s} s, and {MOST_JOINS:.0e} are allowed",
                people * total_s / (online + offline)
            );
            return Err(Wrong::new("people.online_mean_s", why).or("people.offline_mean_s"));
        }
        let forgets = nodes * total_s / network.replay_tags_s;
        let interrupts = |one: &Interruption| one.people.len() as f64 * total_s / one.every_s;
        for (number, one) in self.interruptions.iter().enumerate() {
            if interrupts(one) > MOST_JOINS {
                let why =
                    format!("must be longer: {MOST_JOINS:.0e} interruptions are allowed in a run");
                return Err(Wrong::new(&format!("interruptions.{}.every_s", number + 1), why));
            }
        }
        if forgets > MOST_EVENTS {
            return Err(Wrong::new(
                "network.replay_tags_s",
                "must be longer for a run of this length",
            ));
        }
        Ok(())
    }

    /// Those who act.
    fn check_adversaries(&self) -> Result<(), Wrong> {
        for (number, injection) in self.injections.iter().enumerate() {
            let key = |name: &str| format!("injections.{}.{name}", number + 1);
            within(&key("share"), injection.share, 0.0, 1.0)?;
            within(&key("begin_s"), injection.begin_s, 0.0, 1e9)?;
        }
        for (number, interruption) in self.interruptions.iter().enumerate() {
            let key = |name: &str| format!("interruptions.{}.{name}", number + 1);
            within(&key("begin_s"), interruption.begin_s, 0.0, 1e9)?;
            within(&key("every_s"), interruption.every_s, 0.1, 1e9)?;
        }
        within("trial.release_ms", self.trial.release_ms, 0.0, 5_000.0)?;
        within("trial.release_spread_ms", self.trial.release_spread_ms, 0.0, 5_000.0)?;
        for (number, attack) in self.attacks.iter().enumerate() {
            let key = |name: &str| format!("attacks.{}.{name}", number + 1);
            Ends::parse(&attack.links).map_err(|why| Wrong::new(&key("links"), why))?;
            within(&key("drop_share"), attack.drop_share, 0.0, 1.0)?;
            within(&key("copy_share"), attack.copy_share, 0.0, 1.0)?;
            within(&key("delay_ms"), attack.delay_ms, 0.0, 1e6)?;
            within(&key("tag_share"), attack.tag_share, 0.0, 1.0)?;
            within(&key("hold_ms"), attack.hold_ms, 0.0, 1e6)?;
            within(&key("every_s"), attack.every_s, 0.001, 1e9)?;
            within(&key("begin_s"), attack.begin_s, 0.0, 1e9)?;
            if attack.end_s.is_nan() || attack.end_s < attack.begin_s {
                return Err(Wrong::new(&key("end_s"), "must not be before begin_s of its table"));
            }
        }
        Ok(())
    }
}
