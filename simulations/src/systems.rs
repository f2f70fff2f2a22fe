//! The same workload through other systems: what an observer of links sees of each.
//!
//! The models are kind to the systems: no loss, no congestion, no connection set-up. What they leave out would
//! only tell an observer more. What is seen is the instant at which a packet leaves the sending end of a link.

mod experiment;
mod nym;
mod packets;
mod relays;

pub use experiment::Baseline;
use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Time};

use crate::experiment::Wrong;
use crate::trace::{Public, View};
use crate::workload::Workload;

/// A system that Shoal is put beside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum System {
    /// Plain telecom: the operator sees who is connected with whom.
    Telecom,
    /// One relay that forwards at once: no mixing, no cover, real lengths.
    Vpn,
    /// Onion routing over three relays (Tor-like): cells of one length, no delays on purpose, no cover.
    Onion,
    /// Loopix with deliveries pushed as they come (Nym-like): Poisson cover up, 3 mixes, no paced downlink.
    Nym,
}

impl System {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Telecom, Self::Vpn, Self::Onion, Self::Nym];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Telecom => "telecom",
            Self::Vpn => "vpn",
            Self::Onion => "onion",
            Self::Nym => "nym",
        }
    }
}

/// What the systems are fed with and how they are built.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SystemSettings {
    /// How activities become packets.
    pub traffic: Traffic,
    /// The relay without mixing.
    pub vpn: Vpn,
    /// Onion routing, as Tor has it.
    pub onion: Onion,
    /// Loopix without paced downlink.
    pub nym: Nym,
}

/// How activities become packets.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Traffic {
    /// Shortest message, bytes; lengths are uniform between the two.
    pub message_min_bytes: u32,
    /// Longest message, bytes.
    pub message_max_bytes: u32,
    /// Packets/s of a call in each direction.
    pub call_per_s: f64,
    /// Length of a call's packet, bytes.
    pub call_bytes: u32,
    /// Speed of a download, bytes/s.
    pub download_bytes_per_s: f64,
    /// Length of a download's packet, bytes.
    pub download_packet_bytes: u32,
    /// Number of services that downloads come from.
    pub services: u32,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            message_min_bytes: 100,
            message_max_bytes: 1000,
            call_per_s: 25.0,
            call_bytes: 200,
            download_bytes_per_s: 500_000.0,
            download_packet_bytes: 1400,
            services: 4,
        }
    }
}

/// The relay without mixing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vpn {
    /// From a client to the relay, milliseconds.
    pub link_delay_ms: f64,
    /// Mean of the exponential jitter on top, milliseconds.
    pub jitter_mean_ms: f64,
}

impl Default for Vpn {
    fn default() -> Self {
        Self { link_delay_ms: 30.0, jitter_mean_ms: 3.0 }
    }
}

/// Settings of onion routing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Onion {
    /// Relays in the network; three different ones make a path.
    pub relays: u32,
    /// Each link, milliseconds.
    pub link_delay_ms: f64,
    /// Mean of the exponential jitter of each link, milliseconds.
    pub jitter_mean_ms: f64,
    /// Length of a cell, bytes (Tor: 514).
    pub cell_bytes: u32,
    /// Of which payload, bytes (Tor: 498).
    pub payload_bytes: u32,
}

impl Default for Onion {
    fn default() -> Self {
        Self {
            relays: 12,
            link_delay_ms: 40.0,
            jitter_mean_ms: 5.0,
            cell_bytes: 514,
            payload_bytes: 498,
        }
    }
}

/// Loopix without paced downlink: the public defaults of Nym's client.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nym {
    /// Poisson stream up, packets/s: a real one where one waits, else cover that a gateway drops.
    pub payload_per_s: f64,
    /// Poisson stream of loops to oneself, packets/s.
    pub loops_per_s: f64,
    /// Mixes that delay.
    pub hops: u32,
    /// Mean of the exponential delay at each, milliseconds.
    pub hop_mean_ms: f64,
    /// Each link, milliseconds; a packet passes `hops` + 1 of them before its delivery is seen.
    pub link_delay_ms: f64,
    /// Payload of a packet, bytes.
    pub payload_bytes: u32,
    /// The longest bin that traffic is counted in, milliseconds.
    pub bin_max_ms: u64,
    /// Bins of an observation beyond which they get longer, up to the longest.
    pub bins: u64,
}

impl Default for Nym {
    fn default() -> Self {
        Self {
            payload_per_s: 50.0,
            loops_per_s: 5.0,
            hops: 3,
            hop_mean_ms: 15.0,
            link_delay_ms: 20.0,
            payload_bytes: 2048,
            bin_max_ms: 1000,
            bins: 72_000,
        }
    }
}

impl SystemSettings {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn check(&self) -> Result<(), Wrong> {
        let t = &self.traffic;
        if t.message_min_bytes == 0 || t.message_max_bytes < t.message_min_bytes {
            return Err(Wrong::new(
                "traffic.message_max_bytes",
                "must be at least traffic.message_min_bytes, which must be at least 1",
            ));
        }
        let positive = [
            ("traffic.call_per_s", t.call_per_s, 1e5),
            ("traffic.download_bytes_per_s", t.download_bytes_per_s, 1e12),
            ("traffic.download_packet_bytes", f64::from(t.download_packet_bytes), 1e9),
            ("traffic.services", f64::from(t.services), 1e6),
            ("onion.payload_bytes", f64::from(self.onion.payload_bytes), 1e9),
            ("nym.payload_per_s", self.nym.payload_per_s, 1e5),
            ("nym.payload_bytes", f64::from(self.nym.payload_bytes), 1e9),
            ("nym.bin_max_ms", self.nym.bin_max_ms as f64, 1e9),
            ("nym.bins", self.nym.bins as f64, 1e8),
        ];
        for (key, value, most) in positive {
            if !(value > 0.0 && value <= most) {
                return Err(Wrong::new(key, format!("must be above 0, and {most} at most")));
            }
        }
        let delays = [
            ("vpn.link_delay_ms", self.vpn.link_delay_ms, 1e7),
            ("vpn.jitter_mean_ms", self.vpn.jitter_mean_ms, 1e7),
            ("onion.link_delay_ms", self.onion.link_delay_ms, 1e7),
            ("onion.jitter_mean_ms", self.onion.jitter_mean_ms, 1e7),
            ("nym.loops_per_s", self.nym.loops_per_s, 1e5),
            ("nym.hop_mean_ms", self.nym.hop_mean_ms, 1e7),
            ("nym.link_delay_ms", self.nym.link_delay_ms, 1e7),
        ];
        for (key, value, most) in delays {
            if !(0.0..=most).contains(&value) {
                return Err(Wrong::new(key, format!("must be 0 to {most}")));
            }
        }
        if self.onion.relays < 3 {
            return Err(Wrong::new("onion.relays", "must be at least 3"));
        }
        Ok(())
    }
}

/// What an observer of all links sees of this workload in this system, with the default settings.
pub fn observe(system: System, workload: &Workload, seed: u64) -> View {
    observe_with(&SystemSettings::default(), system, workload, seed)
}

/// What an observer of all links sees of this workload in this system. The settings must have passed
/// [`SystemSettings::check`].
pub fn observe_with(
    settings: &SystemSettings,
    system: System,
    workload: &Workload,
    seed: u64,
) -> View {
    let seed = Seed::from_u64(seed).part("baseline").part(system.name());
    let public = public(settings, system, workload);
    let trace = match system {
        System::Telecom => relays::telecom(settings, workload, &seed),
        System::Vpn => relays::vpn(settings, workload, &seed),
        System::Onion => relays::onion(settings, workload, &seed),
        System::Nym => nym::observe(settings, workload, &seed),
    };
    View { public, trace, passes: Vec::new() }
}

fn public(settings: &SystemSettings, system: System, workload: &Workload) -> Public {
    let (vpn, onion, nym) = (&settings.vpn, &settings.onion, &settings.nym);
    let latency_ms = match system {
        System::Telecom => 0.0,
        System::Vpn => vpn.link_delay_ms + vpn.jitter_mean_ms,
        System::Onion => 3.0 * (onion.link_delay_ms + onion.jitter_mean_ms),
        System::Nym => f64::from(nym.hops + 2) * nym.link_delay_ms + 1e3 / nym.payload_per_s,
    };
    let nymlike = system == System::Nym;
    let if_nym = |value: f64| if nymlike { value } else { 0.0 };
    Public {
        people: workload.people,
        begin: Time::ZERO,
        end: workload.end,
        hops: if nymlike { nym.hops } else { 0 },
        hop_mean_s: if_nym(nym.hop_mean_ms / 1e3),
        uniform_s: 0.0,
        latency_s: latency_ms / 1e3,
        resting_up_per_s: if_nym(nym.payload_per_s + nym.loops_per_s),
        resting_down_per_s: if_nym(nym.loops_per_s),
        call_per_s: settings.traffic.call_per_s,
    }
}
