//! Which settings of a world can be.

use super::{Injected, Interruption, NetworkSettings, Settings};
use crate::experiment::Wrong;
use crate::world::ends::Ends;
use crate::world::matrix::LatencyMatrix;

/// Most packets at hops of a run: weeks of a core.
const MOST_EVENTS: f64 = 1e12;
/// Most times that people come and go in a run, each with a handshake.
const MOST_JOINS: f64 = 1e7;
/// Most nodes of which authorities make documents: 4 MiB hold several times as many.
const MOST_VOTED: usize = 1_000;

/// Shortest period of keys, seconds: its descriptor goes to the gateway half a minute after it began.
const SHORTEST_PERIOD_S: f64 = 120.0;

pub(super) fn within(key: &str, value: f64, low: f64, high: f64) -> Result<(), Wrong> {
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
        self.network.check()?;
        self.check_class()?;
        self.check_people()?;
        let links = &self.links;
        within("links.latency_ms", links.latency_ms, 0.0, 60_000.0)?;
        within("links.jitter_ms", links.jitter_ms, 0.0, 60_000.0)?;
        within("links.loss", links.loss, 0.0, 0.9)?;
        within("links.retransmit_ms", links.retransmit_ms, 0.0, 60_000.0)?;
        if let Some(matrix) = &links.matrix {
            LatencyMatrix::read(matrix)
                .map_err(|why| Wrong::new("links.matrix", format!("{why:#}")))?;
        }
        within("observer.bin_ms", self.observer.bin_ms, 0.0, 1e9)?;
        for pattern in &self.observer.list {
            Ends::parse(pattern).map_err(|why| Wrong::new("observer.list", why))?;
        }
        let nodes = self.network.nodes() as u32;
        if self.observer.corrupt_nodes.iter().any(|node| *node >= nodes) {
            let why = format!("there are nodes 0 to {}", nodes - 1);
            return Err(Wrong::new("observer.corrupt_nodes", why));
        }
        self.check_authorities()?;
        self.check_adversaries()
    }

    fn check_class(&self) -> Result<(), Wrong> {
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
        Ok(())
    }

    fn check_people(&self) -> Result<(), Wrong> {
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
        self.check_keys()
    }

    /// What keys of periods leave out.
    fn check_keys(&self) -> Result<(), Wrong> {
        let period_s = self.people.key_period_s;
        if period_s == 0 && self.people.members {
            let why = "must be given with people.members: sessions begin with keys of periods";
            return Err(Wrong::new("people.key_period_s", why).or("people.members"));
        }
        if period_s == 0 {
            // Only then there is something that a program finds again when it starts.
            return match self.absences.is_empty() {
                true => Ok(()),
                false => {
                    let why =
                        "must be given with absences: it is the keys that wait for who is away";
                    Err(Wrong::new("people.key_period_s", why).or("absences"))
                }
            };
        }
        within("people.key_period_s", f64::from(period_s), SHORTEST_PERIOD_S, 1e9)?;
        let sealed = self.injections.iter().position(|one| one.what == Injected::Sealed);
        if let Some(number) = sealed {
            let key = format!("injections.{}.what", number + 1);
            let why = "\"sealed\" is to a key that stays: set people.key_period_s to 0, or leave this table out";
            return Err(Wrong::new(&key, why).or("people.key_period_s"));
        }
        Ok(())
    }

    /// What authorities need: time for the first document before anybody joins, and links that bring votes in time.
    fn check_authorities(&self) -> Result<(), Wrong> {
        if self.network.authorities == 0 {
            return Ok(());
        }
        let (opens_s, join_s) = (self.network.opens_s(), self.people.join_within_s);
        if self.warm_up_s < opens_s + join_s {
            let why = format!(
                "must be {} or more: people join when the first document holds, after {opens_s} s (network.epoch_s), \
                 within {join_s} s (people.join_within_s)",
                opens_s + join_s
            );
            return Err(Wrong::new("warm_up_s", why).or("network.epoch_s"));
        }
        let most_ms = self.network.schedule().round_ms() as f64 / 4.0;
        if self.links.latency_ms > most_ms {
            let why = format!(
                "must be {most_ms} or less, a quarter of the authorities' rounds: else votes come too late"
            );
            return Err(Wrong::new("links.latency_ms", why).or("network.epoch_s"));
        }
        let nodes = self.network.nodes();
        if nodes > MOST_VOTED {
            let why = format!(
                "there are {nodes} nodes, and authorities vote for {MOST_VOTED} at most: lower it, or \
                 network.authorities to 0"
            );
            return Err(Wrong::new("network.mixes_per_layer", why).or("network.gateways"));
        }
        Ok(())
    }

    /// Checks that a run of so many people, whose observation lasts so many seconds, can be, and that it has an end which
    /// somebody will see.
    ///
    /// # Errors
    /// The setting that must be another.
    pub fn check_run(&self, people: u32, observed_s: f64) -> Result<(), Wrong> {
        let total_s = self.warm_up_s + observed_s + self.drain_s;
        let network = &self.network;
        if network.authorities == 0 && total_s >= 2.0 * f64::from(network.epoch_s) {
            let least = (total_s / 2.0).floor() + 1.0;
            let why = format!(
                "the run lasts {total_s} s and must end within two epochs: network.epoch_s must be {least} or more, or \
                 workload.window_s shorter; with network.authorities it may last longer"
            );
            return Err(Wrong::new("network.epoch_s", why).or("workload.window_s"));
        }
        self.check_names(people)?;
        self.check_work(f64::from(people), total_s)
    }

    /// Those who are named are there.
    fn check_names(&self, people: u32) -> Result<(), Wrong> {
        let injected =
            self.injections.iter().enumerate().map(|(n, one)| ("injections", n, &one.people));
        let interrupted =
            self.interruptions.iter().enumerate().map(|(n, one)| ("interruptions", n, &one.people));
        let absent = self.absences.iter().enumerate().map(|(n, one)| ("absences", n, &one.people));
        for (table, number, named) in injected.chain(interrupted).chain(absent) {
            if let Some(nobody) = named.iter().find(|person| **person >= people) {
                let why = format!(
                    "there is no person {nobody}: people are 0 to {}",
                    i64::from(people) - 1
                );
                return Err(Wrong::new(&format!("{table}.{}.people", number + 1), why));
            }
        }
        Ok(())
    }

    /// A run of this length ends.
    fn check_work(&self, people: f64, total_s: f64) -> Result<(), Wrong> {
        let (class, network) = (self.class.class()?, &self.network);
        let nodes = network.nodes() as f64;
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
        let mut absences = self.absences.iter().enumerate();
        absences.try_for_each(|(number, absence)| absence.check(number))?;
        let mut faults = self.faults.iter().enumerate();
        faults.try_for_each(|(number, fault)| fault.check(number, self))
    }
}

impl NetworkSettings {
    fn check(&self) -> Result<(), Wrong> {
        within("network.layers", f64::from(self.layers), 1.0, 3.0)?;
        within("network.mixes_per_layer", f64::from(self.mixes_per_layer), 1.0, 1_000.0)?;
        within("network.gateways", f64::from(self.gateways), 2.0, 1_000.0)?;
        within("network.authorities", f64::from(self.authorities), 0.0, 31.0)?;
        within("network.draw_every", f64::from(self.draw_every), 1.0, 1e6)?;
        within("network.node_loops_per_s", self.node_loops_per_s, 0.0, 10_000.0)?;
        // Authorities need rounds of some length, one document for ever does not.
        let shortest_s = if self.authorities > 0 { 10.0 } else { 60.0 };
        within("network.epoch_s", f64::from(self.epoch_s), shortest_s, 1e9)?;
        within("network.clock_offset_ms", self.clock_offset_ms, 0.0, 30_000.0)?;
        within("network.replay_tags_s", self.replay_tags_s, 1.0, 1e9)?;
        within("network.pool_packets", self.pool_packets as f64, 1.0, 1e8)?;
        within("network.inbox_packets", f64::from(self.inbox_packets), 0.0, 1e8)?;
        within("network.inbox_expiry_s", f64::from(self.inbox_expiry_s), 0.0, 1e9)
    }
}
