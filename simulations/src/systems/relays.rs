//! Systems that forward at once: telecom, a VPN relay, onion routing.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use shoal_topology::{Seed, Stream, Time, exponential};

use super::SystemSettings;
use super::packets::{HandedPacket, packets};
use crate::trace::{Flow, Link, Party, Trace};
use crate::workload::Workload;

/// The operator's own record: links from person to person.
pub fn telecom(settings: &SystemSettings, workload: &Workload, seed: &Seed) -> Trace {
    let mut seen = SeenPackets::default();
    for packet in packets(&settings.traffic, workload, seed) {
        seen.add(packet.from, packet.to, packet.at, packet.size);
    }
    seen.trace(workload.end)
}

/// Everybody to the relay and back, in real lengths.
pub fn vpn(settings: &SystemSettings, workload: &Workload, seed: &Seed) -> Trace {
    let mut seen = SeenPackets::default();
    let mut jitter = Jitter::new(seed, settings.vpn.link_delay_ms, settings.vpn.jitter_mean_ms);
    for packet in packets(&settings.traffic, workload, seed) {
        let relay = Party::Node(0);
        seen.add(packet.from, relay, packet.at, packet.size);
        seen.add(relay, packet.to, packet.at + jitter.draw(&packet), packet.size);
    }
    seen.trace(workload.end)
}

/// Three relays, the same for all of an activity; each link adds its latency.
pub fn onion(settings: &SystemSettings, workload: &Workload, seed: &Seed) -> Trace {
    let onion = &settings.onion;
    let mut seen = SeenPackets::default();
    let mut jitter = Jitter::new(seed, onion.link_delay_ms, onion.jitter_mean_ms);
    let mut path = (usize::MAX, [Party::Node(0); 3]);
    for packet in packets(&settings.traffic, workload, seed) {
        if path.0 != packet.activity {
            let mut stream = seed.stream(&format!("path of {}", packet.activity));
            path = (packet.activity, three(&mut stream, onion.relays));
        }
        let mut relays = path.1;
        // Both ends of a session use the same relays, each from his own side.
        if packet.to < packet.from {
            relays.reverse();
        }
        for _ in 0..packet.size.div_ceil(onion.payload_bytes).max(1) {
            let (mut at, mut from) = (packet.at, packet.from);
            for to in relays.into_iter().chain([packet.to]) {
                seen.add(from, to, at, onion.cell_bytes);
                at += jitter.draw(&packet);
                from = to;
            }
        }
    }
    seen.trace(workload.end)
}

/// Three different relays.
fn three(stream: &mut Stream, relays: u32) -> [Party; 3] {
    let first = stream.random_range(0..relays);
    let second = (first + stream.random_range(1..relays)) % relays;
    let third = loop {
        let third = stream.random_range(0..relays);
        if third != first && third != second {
            break third;
        }
    };
    [Party::Node(first), Party::Node(second), Party::Node(third)]
}

/// A link's latency: a constant and an exponential, from a stream for each activity.
struct Jitter {
    seed: Seed,
    of: Option<(usize, Stream)>,
    constant: u64,
    mean: Duration,
}

impl Jitter {
    fn new(seed: &Seed, constant_ms: f64, mean_ms: f64) -> Self {
        let mean = Duration::from_nanos((mean_ms * 1e6) as u64);
        Self { seed: seed.part("latency"), of: None, constant: (constant_ms * 1e6) as u64, mean }
    }

    fn draw(&mut self, packet: &HandedPacket) -> u64 {
        let stream = match &mut self.of {
            Some((activity, stream)) if *activity == packet.activity => stream,
            of => {
                let stream = self.seed.stream(&format!("activity {}", packet.activity));
                &mut of.insert((packet.activity, stream)).1
            }
        };
        self.constant + exponential(stream, self.mean).as_nanos() as u64
    }
}

/// Packets as they are seen on links, in any order.
#[derive(Default)]
struct SeenPackets(BTreeMap<Link, Vec<(u64, u32)>>);

impl SeenPackets {
    fn add(&mut self, from: Party, to: Party, at: u64, size: u32) {
        self.0.entry(Link { from, to }).or_default().push((at, size));
    }

    /// In order of time, cut at the end of the observation.
    fn trace(self, end: Time) -> Trace {
        let mut trace = Trace::default();
        for (link, mut packets) in self.0 {
            packets.sort_unstable();
            let mut flow = Flow::new(0);
            for (at, size) in packets.into_iter().filter(|(at, _)| *at < end.as_nanos()) {
                flow.push(Time::from_nanos(at), size);
            }
            trace.links.insert(link, flow);
        }
        trace
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::systems::{System, observe};
    use crate::workload::Activity;

    fn seen(system: System) -> Trace {
        let (at, end) = (Time::from_secs(5), Time::from_secs(60));
        let call = Activity::Call { from: 0, to: 1, at, seconds: 4.0 };
        observe(system, &Workload { people: 2, end, activities: vec![call] }, 3).trace
    }

    #[test]
    fn each_packet_is_seen_on_each_link_of_its_path() {
        // 4 s at 25 packets/s in both directions; 1, 2 and 4 links.
        for (system, links) in [(System::Telecom, 1), (System::Vpn, 2), (System::Onion, 4)] {
            let trace = seen(system);
            assert_eq!(trace.links.len(), 2 * links, "{system:?}");
            assert!(trace.links.values().all(|flow| flow.len() == 100), "{system:?}");
        }
    }

    #[test]
    fn a_call_keeps_its_path_and_has_cells_of_one_length() {
        let trace = seen(System::Onion);
        for (link, flow) in &trace.links {
            assert!(trace.links.contains_key(&Link { from: link.to, to: link.from }));
            let Flow::Packets { sizes, .. } = flow else { unreachable!() };
            assert_eq!(*sizes, crate::trace::Sizes::Same(514));
        }
    }
}
