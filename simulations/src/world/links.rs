//! The links: what a packet takes, what an observer sees of it, what an active adversary does to it.
//!
//! Each link has random streams of its own and keeps its packets in order, as TCP does.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{Rng, RngExt};
use shoal_sphinx::FRAME_LEN;
use shoal_topology::{Seed, Stream, Time};

use super::access::Access;
use super::ends::Ends;
use super::matrix::LatencyMatrix;
use super::observer::Observer;
use super::settings::{Attack, Settings};
use super::spans::{millis, seconds};
use crate::trace::{Link, Party};

/// An active attack on one link.
struct ActiveAttack {
    settings: Attack,
    begin: Time,
    end: Time,
    rng: Stream,
}

impl ActiveAttack {
    /// When what comes now is let go: now, unless it falls into a time in which all is held.
    fn held_until(&self, now: Time) -> Time {
        let (hold, every) = (millis(self.settings.hold_ms), millis(1e3 * self.settings.every_s));
        if hold.is_zero() || every.is_zero() {
            return now;
        }
        let passed = now.since(self.begin).as_nanos() % every.as_nanos();
        let left = hold.as_nanos().saturating_sub(passed);
        now + Duration::from_nanos(left as u64)
    }
}

/// What few links have.
struct Extra {
    rng: Option<Stream>,
    access: Option<Access>,
    attacks: Vec<ActiveAttack>,
}

/// One direction between two parties.
struct LinkState {
    latency: Duration,
    /// When the last packet arrives: none overtakes it.
    last: Time,
    packets: u64,
    hash: u64,
    /// Number at the observer.
    flow: Option<u32>,
    extra: Option<Box<Extra>>,
}

/// What becomes of a packet.
#[derive(Clone, Copy)]
pub(super) struct Passage {
    /// When it arrives, and how often.
    pub(super) arrives: Time,
    /// Zero if it was dropped, two if there is a copy.
    pub(super) copies: u8,
    /// Whether its payload was changed on the way.
    pub(super) tagged: bool,
}

/// All links. Those between nodes come first, then two for each person (up, down), then two for each gateway of the
/// service.
pub(super) struct Links {
    states: Vec<LinkState>,
    names: Vec<Link>,
    between: Vec<u32>,
    nodes: usize,
    first_person: u32,
    first_service: u32,
    jitter_nanos: u64,
    loss: f64,
    retransmit: Duration,
    pub(super) observer: Observer,
    dropped: u64,
    copied: u64,
}

/// Stands for no link where one could be.
const NONE: u32 = u32::MAX;

impl Links {
    /// Links between so many nodes, as these pairs say, and for these people, each with its gateway.
    pub(super) fn new(
        settings: &Settings,
        (nodes, pairs): (usize, &[(usize, usize)]),
        gateway_of: &[u32],
        service_gateways: &[u32],
        observer: Observer,
        seed: &Seed,
    ) -> anyhow::Result<Self> {
        let mut names = Vec::new();
        let mut between = vec![NONE; nodes * nodes];
        for (from, to) in pairs {
            if let Some(flow) = between.get_mut(from * nodes + to) {
                *flow = names.len() as u32;
                let (from, to) = (Party::Node(*from as u32), Party::Node(*to as u32));
                names.push(Link { from, to });
            }
        }
        let first_person = names.len() as u32;
        let mut both = |party, gateway: &u32| {
            let gateway = Party::Node(*gateway);
            names.push(Link { from: party, to: gateway });
            names.push(Link { from: gateway, to: party });
        };
        for (person, gateway) in gateway_of.iter().enumerate() {
            both(Party::Person(person as u32), gateway);
        }
        let first_service = first_person + 2 * gateway_of.len() as u32;
        service_gateways.iter().for_each(|gateway| both(Party::Service(0), gateway));

        let mut links = Self {
            states: Vec::with_capacity(names.len()),
            names: Vec::new(),
            between,
            nodes,
            first_person,
            first_service,
            jitter_nanos: millis(settings.links.jitter_ms).as_nanos() as u64,
            loss: settings.links.loss,
            retransmit: millis(settings.links.retransmit_ms),
            observer,
            dropped: 0,
            copied: 0,
        };
        let mut making = Making {
            settings,
            locations: Locations::new(settings, seed)?,
            attacks: patterns(settings).map_err(anyhow::Error::msg)?,
            seed: seed.part("links"),
        };
        for link in &names {
            let flow = links.observer.watch(link);
            links.states.push(making.state(link, flow));
        }
        links.names = names;
        Ok(links)
    }

    /// From node to node.
    pub(super) fn between(&self, from: usize, to: usize) -> u32 {
        self.between.get(from * self.nodes + to).copied().unwrap_or(NONE)
    }

    /// From a person to its gateway.
    pub(super) fn up(&self, person: u32) -> u32 {
        self.first_person + 2 * person
    }

    /// From a gateway to its person.
    pub(super) fn down(&self, person: u32) -> u32 {
        self.up(person) + 1
    }

    /// What a packet takes on a link, but for jitter and losses.
    pub(super) fn latency(&self, link: u32) -> Duration {
        self.states.get(link as usize).map_or(Duration::ZERO, |state| state.latency)
    }

    /// From the service to its n-th gateway.
    pub(super) fn service_up(&self, gateway: u32) -> u32 {
        self.first_service + 2 * gateway
    }

    /// The link from a gateway to the service.
    pub(super) fn service_down(&self, gateway: u32) -> u32 {
        self.service_up(gateway) + 1
    }

    /// A frame leaves. The next one on the link leaves at `next`, as far as that is known ([`Time::NEVER`] else).
    pub(super) fn send(&mut self, link: u32, now: Time, next: Time) -> Option<Passage> {
        let state = self.states.get_mut(link as usize)?;
        state.packets += 1;
        state.hash = chain(state.hash, now.as_nanos(), FRAME_LEN as u64);
        if let Some(flow) = state.flow {
            self.observer.saw(flow, now);
        }
        let mut arrives = now + state.latency;
        let (mut copies, mut tagged) = (1, false);
        if let Some(extra) = &mut state.extra {
            if let Some(rng) = &mut extra.rng {
                if self.jitter_nanos > 0 {
                    let jitter = rng.random_range(0..=self.jitter_nanos);
                    arrives += Duration::from_nanos(jitter);
                }
                while self.loss > 0.0 && rng.random::<f64>() < self.loss {
                    arrives += self.retransmit;
                }
            }
            if let Some(access) = &mut extra.access {
                arrives += access.arrives(now, next).since(now + state.latency);
            }
            for attack in extra.attacks.iter_mut().filter(|a| a.begin <= now && now < a.end) {
                arrives += millis(attack.settings.delay_ms);
                arrives = arrives.max(attack.held_until(now) + state.latency);
                let [drop, copy, tag]: [f64; 3] = std::array::from_fn(|_| attack.rng.random());
                tagged |= tag < attack.settings.tag_share;
                if drop < attack.settings.drop_share {
                    self.dropped += 1;
                    copies = 0;
                } else if copy < attack.settings.copy_share {
                    self.copied += 1;
                    copies = 2;
                }
            }
        }
        state.last = state.last.max(arrives);
        Some(Passage { arrives: state.last, copies, tagged })
    }

    /// One hash over instant, link and size of every packet, each link's in order.
    pub(super) fn hash(&self) -> String {
        let mut hasher = Hasher::default();
        for (state, link) in self.states.iter().zip(&self.names) {
            let ends = [link.from, link.to].map(|party| match party {
                Party::Person(n) => u64::from(n),
                Party::Service(n) => 1 << 32 | u64::from(n),
                Party::Node(n) => 2 << 32 | u64::from(n),
            });
            for word in ends.into_iter().chain([state.packets, state.hash]) {
                hasher.add(word);
            }
        }
        hasher.finish()
    }

    /// Packets that an active adversary dropped, and copied.
    pub(super) fn tampered(&self) -> (u64, u64) {
        (self.dropped, self.copied)
    }

    /// Packets on all links.
    pub(super) fn packets(&self) -> u64 {
        self.states.iter().map(|state| state.packets).sum()
    }

    /// Mean of the fixed latencies of the links that this says, with half of the jitter, seconds.
    pub(super) fn mean_latency_s(&self, of: impl Fn(&Link) -> bool) -> f64 {
        let all = self.states.iter().zip(&self.names).filter(|(_, link)| of(link));
        let (sum, count) = all.fold((0.0, 0.0), |(sum, count), (state, _)| {
            (sum + state.latency.as_secs_f64(), count + 1.0)
        });
        if count == 0.0 {
            return 0.0;
        }
        let retransmits = self.loss / (1.0 - self.loss) * self.retransmit.as_secs_f64();
        sum / count + self.jitter_nanos as f64 / 2e9 + retransmits
    }
}

/// A step of the running hash of a link: a bijection of the state for each packet, that mixes well (the finisher of
/// `SplitMix64`, Steele, Lea and Flood, OOPSLA 2014).
fn chain(state: u64, at: u64, size: u64) -> u64 {
    let mut z = state.rotate_left(23) ^ at.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (size << 48);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The hash over the hashes of the links: two chains, so that 128 bits come out.
#[derive(Default)]
struct Hasher(u64, u64);

impl Hasher {
    fn add(&mut self, word: u64) {
        self.0 = chain(self.0, word, 1);
        self.1 = chain(self.1, word, 2);
    }

    fn finish(&self) -> String {
        format!("{:016x}{:016x}", self.0, self.1)
    }
}

/// What links are made from.
struct Making<'a> {
    settings: &'a Settings,
    locations: Locations<'a>,
    attacks: Vec<(Ends, &'a Attack)>,
    seed: Seed,
}

impl Making<'_> {
    /// A link, with its number at the observer.
    fn state(&mut self, link: &Link, flow: Option<u32>) -> LinkState {
        let settings = self.settings;
        let warm_up = seconds(settings.warm_up_s).since(Time::ZERO);
        let own = || self.seed.part(&format!("{:?} {:?}", link.from, link.to));
        let attacks = self.attacks.iter().enumerate();
        let active: Vec<ActiveAttack> = attacks
            .filter(|(_, (ends, _))| ends.fits(link))
            .map(|(n, (_, attack))| ActiveAttack {
                settings: (*attack).clone(),
                begin: seconds(attack.begin_s) + warm_up,
                end: seconds(attack.end_s) + warm_up,
                rng: own().stream(&format!("attack {n}")),
            })
            .collect();
        let latency = self.locations.latency(link);
        let person = [link.from, link.to].iter().any(|end| matches!(end, Party::Person(_)));
        let access = (person && settings.people.access_is_bad()).then(|| {
            let back = self.locations.latency(&Link { from: link.to, to: link.from });
            let jitter = millis(settings.people.access_jitter_ms);
            let loss = settings.people.access_loss;
            Access::new(own().stream("access"), loss, jitter, (latency, back))
        });
        let random = settings.links.jitter_ms > 0.0 || settings.links.loss > 0.0;
        let extra = (random || access.is_some() || !active.is_empty()).then(|| {
            let rng = random.then(|| own().stream("passage"));
            Box::new(Extra { rng, access, attacks: active })
        });
        LinkState { latency, last: Time::ZERO, packets: 0, hash: 0, flow, extra }
    }
}

/// The attacks, each with the links that it is on.
fn patterns(settings: &Settings) -> Result<Vec<(Ends, &Attack)>, String> {
    settings.attacks.iter().map(|attack| Ok((Ends::parse(&attack.links)?, attack))).collect()
}

/// Where parties are.
struct Locations<'a> {
    settings: &'a Settings,
    matrix: Option<LatencyMatrix>,
    draws: Stream,
    drawn: BTreeMap<Party, usize>,
}

impl<'a> Locations<'a> {
    fn new(settings: &'a Settings, seed: &Seed) -> anyhow::Result<Self> {
        let matrix = settings.links.matrix.as_deref().map(LatencyMatrix::read).transpose()?;
        Ok(Self { settings, matrix, draws: seed.stream("places"), drawn: BTreeMap::new() })
    }

    fn latency(&mut self, link: &Link) -> Duration {
        let base = millis(self.settings.links.latency_ms);
        let (from, to) = (self.location(link.from), self.location(link.to));
        self.matrix.as_ref().map_or(base, |matrix| base + matrix.latency(from, to))
    }

    fn location(&mut self, party: Party) -> usize {
        let Some(matrix) = &self.matrix else { return 0 };
        let name = match party {
            Party::Person(n) => format!("person-{}", n + 1),
            Party::Service(_) => "exit".into(),
            Party::Node(n) => self.settings.network.node_name(n as usize),
        };
        let draws = &mut self.draws;
        let locations = matrix.locations() as u64;
        let draw = || (draws.next_u64() % locations) as usize;
        *self.drawn.entry(party).or_insert_with(|| matrix.location(&name).unwrap_or_else(draw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_link_depends_on_every_instant_and_their_order() {
        let of = |times: &[u64]| times.iter().fold(0, |hash, at| chain(hash, *at, 2_400));
        assert_ne!(of(&[1, 2, 3]), of(&[1, 3, 2]));
        assert_ne!(of(&[1, 2, 3]), of(&[1, 2, 4]));
        assert_ne!(of(&[0, 0]), of(&[0]));
    }
}
