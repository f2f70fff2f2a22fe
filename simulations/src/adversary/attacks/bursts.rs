//! Packets without cover, grouped: single messages, and flows that last.

use super::view_by_user::Side;
use crate::trace::Public;

/// Packets of one person and direction that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// The person whose packets they are.
    pub person: u32,
    /// First packet, seconds.
    pub start_s: f64,
    /// Last packet, seconds.
    pub end_s: f64,
}

/// Messages and flows of everybody, each in order of start.
#[derive(Default)]
pub struct Bursts {
    /// A packet, or several so close that they must be parts of one message.
    pub messages: Vec<Burst>,
    /// Packets at a rate like that of a call, or above, for more than an instant.
    pub flows: Vec<Burst>,
}

/// Packets of a flow, at least.
const FLOW_PACKETS: usize = 8;

/// Groups one side of all links. Packets of a message come within `parts_s` of each other.
pub fn bursts(side: &Side<'_>, public: &Public, parts_s: f64) -> Bursts {
    let mut all = Bursts::default();
    // A flow pauses no longer than some of its packets would take.
    let pause_s = if public.call_per_s > 0.0 { 10.0 / public.call_per_s } else { 0.0 };
    for person in 0..side.people() {
        let times: Vec<f64> = side.times(person).iter().map(|at| *at as f64 / 1e9).collect();
        for group in times.chunk_by(|a, b| b - a <= pause_s) {
            let burst = |packets: &[f64]| {
                let start_s = packets.first().copied().unwrap_or(0.0);
                let end_s = packets.last().copied().unwrap_or(start_s);
                Burst { person: person as u32, start_s, end_s }
            };
            if group.len() >= FLOW_PACKETS {
                all.flows.push(burst(group));
            } else {
                // Too few packets for a flow: they only happen to be near each other, and are told apart more finely.
                let parts = group.chunk_by(|a, b| b - a <= parts_s);
                all.messages.extend(parts.map(burst));
            }
        }
    }
    for bursts in [&mut all.messages, &mut all.flows] {
        bursts.sort_by(|a, b| a.start_s.total_cmp(&b.start_s).then(a.person.cmp(&b.person)));
    }
    all
}
