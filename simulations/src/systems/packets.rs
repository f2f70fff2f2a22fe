//! Activities as packets from end to end, before any system carries them.

use rand::RngExt;
use shoal_topology::Seed;

use super::Traffic;
use crate::trace::Party;
use crate::workload::{Activity, Workload};

/// A packet that somebody hands to the system.
#[derive(Clone, Copy, Debug)]
pub struct HandedPacket {
    /// Who sends it.
    pub from: Party,
    /// Who receives it.
    pub to: Party,
    /// When it is handed over, in nanoseconds.
    pub at: u64,
    /// Its length, in bytes.
    pub size: u32,
    /// Which activity it belongs to.
    pub activity: usize,
}

/// The packets of all activities, those of one activity together. Those after the end are not observed.
pub fn packets(traffic: &Traffic, workload: &Workload, seed: &Seed) -> Vec<HandedPacket> {
    let mut all = Vec::new();
    let seed = seed.part("packets");
    for (activity, what) in workload.activities.iter().enumerate() {
        let mut push = |from, to, at: u64, size| {
            if at < workload.end.as_nanos() {
                all.push(HandedPacket { from, to, at, size, activity });
            }
        };
        match *what {
            Activity::Message { from, to, at } => {
                let mut stream = seed.stream(&format!("size of {activity}"));
                let size =
                    stream.random_range(traffic.message_min_bytes..=traffic.message_max_bytes);
                push(Party::Person(from), Party::Person(to), at.as_nanos(), size);
            }
            Activity::Call { from, to, at, seconds } => {
                // Who does not answer still leaves a sign of it: one packet each way.
                let count = (seconds * traffic.call_per_s).round().max(1.0) as u64;
                let gap = 1e9 / traffic.call_per_s;
                for k in 0..count {
                    let there = at.as_nanos() + (k as f64 * gap) as u64;
                    push(Party::Person(from), Party::Person(to), there, traffic.call_bytes);
                    let back = there + (gap / 2.0) as u64;
                    push(Party::Person(to), Party::Person(from), back, traffic.call_bytes);
                }
            }
            Activity::Download { person, at, bytes } => {
                let mut stream = seed.stream(&format!("service of {activity}"));
                let service = Party::Service(stream.random_range(0..traffic.services));
                push(Party::Person(person), service, at.as_nanos(), traffic.message_min_bytes);
                let length = u64::from(traffic.download_packet_bytes);
                let gap = length as f64 / traffic.download_bytes_per_s * 1e9;
                for k in 0..bytes.div_ceil(length) {
                    let size = length.min(bytes - k * length) as u32;
                    let then = at.as_nanos() + (k as f64 * gap) as u64;
                    push(service, Party::Person(person), then, size);
                }
            }
        }
    }
    all
}
