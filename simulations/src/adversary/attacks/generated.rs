//! Traffic that is made up: calls over a network in which each protection can be switched off.
//!
//! The deployed engines cannot be told to do without their protections. So attacks are tried on this: each must find what it
//! looks for where the protection is off, and nothing where it is on.

use std::time::Duration;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Stream, Time, exponential};

use crate::trace::{Flow, Link, Party, Pass, Public, Record, Sizes, Trace, Truth, View};

/// What is generated. Everybody is in class call; all gateways are corrupt, and all mixes if that is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Calls {
    /// Even; each calls the one half of them further.
    pub people: u32,
    /// How long it is observed, seconds.
    pub seconds: u32,
    /// Mixes in each layer.
    pub mixes: u32,
    /// True if a path is kept for all packets of a person to a gateway.
    pub kept: bool,
    /// True if the middle mix delays by U(0, 40 ms) rather than by Exp(10 ms).
    pub uniform: bool,
    /// True if packets of calls are of another epoch than loops.
    pub epochs: bool,
    /// True if operators have a gateway and a mix in each layer, and all on a path differ: so that mixes of the far
    /// gateway's operator are missing among first hops.
    pub operators_rule: bool,
    /// True if calls last throughout rather than for 4 to 40 s.
    pub throughout: bool,
    /// True if people send loops where they are not in a call.
    pub cover: bool,
    /// True if mixes tell what they see, too.
    pub corrupt_mixes: bool,
    /// The seed from which everything is drawn.
    #[serde(skip)]
    pub seed: u64,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            people: 40,
            seconds: 200,
            mixes: 10,
            kept: false,
            uniform: true,
            epochs: false,
            operators_rule: false,
            throughout: false,
            cover: true,
            corrupt_mixes: false,
            seed: 1,
        }
    }
}

/// Gateways: person p is at the p-th, in turn.
pub const GATEWAYS: u32 = 3;
const LINK: Duration = Duration::from_millis(20);
const GAP: Duration = Duration::from_millis(40);

/// What is seen, and what really happened: one call of each pair.
pub fn view(settings: &Calls) -> (View, Truth) {
    let seed = Seed::from_u64(settings.seed).part("generated");
    let mut draws = seed.stream("calls");
    let half = settings.people / 2;
    let end_s = f64::from(settings.seconds);
    let call = |caller: u32| {
        let start_s = draws.random::<f64>() * (end_s - 45.0);
        let duration_s = 4.0 + 36.0 * draws.random::<f64>();
        let (start_s, duration_s) =
            if settings.throughout { (0.0, end_s) } else { (start_s, duration_s) };
        let start = Time::from_nanos((start_s * 1e9) as u64);
        Record { caller, callee: caller + half, start, duration_s }
    };
    let mut records: Vec<Record> = (0..half).map(call).collect();
    let mut made =
        MadeTraffic { settings, trace: Trace::default(), passes: Vec::new(), packets: 0 };
    for person in 0..settings.people {
        let call = records.get((person % half) as usize).copied();
        made.person(person, call, &mut seed.stream(&format!("person {person}")));
    }
    records.sort_by_key(|record| record.start);
    for flow in made.trace.links.values_mut() {
        if let Flow::Packets { times, .. } = flow {
            times.sort_unstable();
        }
    }
    made.passes.sort_by_key(|pass| pass.left);
    let public = Public {
        people: settings.people,
        begin: Time::ZERO,
        end: Time::from_secs(u64::from(settings.seconds)),
        hops: 3,
        hop_mean_s: 0.01,
        uniform_s: if settings.uniform { 0.04 } else { 0.0 },
        latency_s: 0.12,
        resting_up_per_s: if settings.cover { 27.0 } else { 0.0 },
        resting_down_per_s: if settings.cover { 50.0 } else { 0.0 },
        call_per_s: 25.0,
    };
    (View { public, trace: made.trace, passes: made.passes }, Truth { records })
}

struct MadeTraffic<'a> {
    settings: &'a Calls,
    trace: Trace,
    passes: Vec<Pass>,
    packets: u64,
}

impl MadeTraffic<'_> {
    /// All that one person sends: payload every 40 ms, to the other side in a call, and a loop every half second.
    fn person(&mut self, person: u32, call: Option<Record>, draws: &mut Stream) {
        let half = self.settings.people / 2;
        let other = (person + half) % self.settings.people;
        let seconds = self.settings.seconds;
        let kept = [person, other].map(|to| self.path((person, to), draws));
        let phase = GAP.mul_f64(draws.random());
        let payload = (0..seconds * 25).map(|k| (Time::ZERO + phase + GAP * k, true));
        let phase = Duration::from_millis(500).mul_f64(draws.random());
        let loops =
            (0..seconds * 2).map(|k| (Time::ZERO + phase + Duration::from_millis(500) * k, false));
        let slots: Vec<(Time, bool)> = payload.chain(loops).collect();
        for (at, payload) in slots {
            let calls = call.is_some_and(|call| {
                let end = call.start + Duration::from_secs_f64(call.duration_s);
                payload && call.start <= at && at < end
            });
            let to = if calls { other } else { person };
            let own = if calls { kept[1] } else { kept[0] };
            if !calls && !self.settings.cover {
                continue;
            }
            let path = if self.settings.kept { own } else { self.path((person, to), draws) };
            self.packet((person, to), path, at, draws);
        }
        // What goes down says nothing.
        if !self.settings.cover {
            return;
        }
        let gateway = self.gateway(person);
        for k in 0..seconds * 50 {
            self.saw(gateway, Party::Person(person), Time::from_millis(u64::from(k) * 20));
        }
    }

    /// A mix of each layer. By the rule, none of them is of an operator of either gateway: the k-th mix of a layer and the k-th
    /// gateway are of one.
    fn path(&self, (from, to): (u32, u32), draws: &mut Stream) -> [u32; 3] {
        let barred = [from % GATEWAYS, to % GATEWAYS];
        [(); 3].map(|()| {
            loop {
                let mix = draws.random_range(0..self.settings.mixes);
                if !self.settings.operators_rule || !barred.contains(&mix) {
                    return mix;
                }
            }
        })
    }

    fn gateway(&self, person: u32) -> Party {
        Party::Node(3 * self.settings.mixes + person % GATEWAYS)
    }

    fn saw(&mut self, from: Party, to: Party, at: Time) {
        let flow = self.trace.links.entry(Link { from, to });
        let flow = flow.or_insert(Flow::Packets { times: Vec::new(), sizes: Sizes::Same(2400) });
        if let Flow::Packets { times, .. } = flow {
            times.push(at.as_nanos());
        }
    }

    fn packet(&mut self, (from, to): (u32, u32), path: [u32; 3], at: Time, draws: &mut Stream) {
        let (entry, exit) = (self.gateway(from), self.gateway(to));
        let epoch = u8::from(self.settings.epochs && from != to);
        // Its bytes on each link.
        let bytes = 8 * self.packets;
        self.packets += 1;
        let mut now = at;
        self.saw(Party::Person(from), entry, now);
        now += LINK;
        let (mut last, mut arrived, mut before) = (entry, now, Party::Person(from));
        for (layer, index) in (0..).zip(path) {
            let mix = Party::Node(layer * self.settings.mixes + index);
            self.saw(last, mix, now);
            if layer == 0 || self.settings.corrupt_mixes {
                let epoch = if layer == 0 { 0 } else { epoch };
                self.pass(last, (arrived, before), (now, mix), (bytes + u64::from(layer), epoch));
            }
            let delay = if layer == 1 && self.settings.uniform {
                GAP.mul_f64(draws.random())
            } else {
                exponential(draws, Duration::from_millis(10))
            };
            (before, last, arrived) = (last, mix, now + LINK);
            now = arrived + delay;
        }
        self.saw(last, exit, now);
        if self.settings.corrupt_mixes {
            self.pass(last, (arrived, before), (now, exit), (bytes + 3, epoch));
        }
        now += LINK;
        let left = now + GAP.mul_f64(draws.random());
        self.pass(exit, (now, last), (left, Party::Person(to)), (bytes + 4, epoch));
    }

    fn pass(
        &mut self,
        node: Party,
        (arrived, from): (Time, Party),
        (left, to): (Time, Party),
        (came, epoch): (u64, u8),
    ) {
        let Party::Node(node) = node else { return };
        self.passes.push(Pass { node, arrived, from, left, to, came, went: came + 1, epoch });
    }
}
