//! How well the network hides a client's next packet: its expected anonymity in bits, a lower estimate.
//!
//! **What is estimated.** Somebody who sees all links follows a packet through L layers of W mixes: whatever leaves a mix
//! may be the packet, with its share of what the pool holds (forward tracking). The estimate is the mean entropy of that.
//! With a packets in each pool on average, apart from the one that is followed:
//!
//! - one mix: H1(a), whose exact values are those of a pool of M/M/∞ (`simulations/src/literature/poisson/theory.rs`,
//!   `pool_entropy_bits`); here log2(1 + a·(e − 1.418/(1 + 0.62·a))), which lies below them by 0.07 bits at most for
//!   a up to 50, and meets log2(e·a) beyond;
//! - one mix that delays uniformly: log2(1 + a·(2 − 1.14/(1 + 0.25·a))). Whoever sees it knows of each pair of an arrival
//!   and a departure no more than whether they go together; random matchings of a Poisson stream gave 0.145, 1.136, 1.970,
//!   3.313 and 4.262 bits for a of 0.1, 1, 2, 5 and 10, less than an exponential mix of the same mean by up to 0.45;
//! - L mixes with little traffic: each hop multiplies the candidates, the sum of the mixes' entropies, as they hardly ever
//!   meet again;
//! - L mixes with much traffic: log2(λ·W) + h, where h is the differential entropy of the law of delay: all that leaves the
//!   network while the packet may.
//!
//! The two bounds are joined as −log2(2^−x + 2^−y) − 0.15, and one mix alone is less than all. Of exponential mixes alone
//! tracking shows 0.07 to 0.6 bits more, for L of 2 and 3, W of 1 to 60 and a of 0.1 to 20.
//!
//! **What goes in.** Nodes say how many packets their pools hold, coarsely, and can lie: of the mixes of a layer that are
//! in good standing the lower quartile counts for all, so less than a quarter of them change nothing by claiming more; what
//! is rounded is rounded down; unknown counts as one packet. What flows through one layer flows through all: the layer with
//! the least counts for the whole. The client's own packets do not hide it, and are taken off. And if its own loops get lost,
//! so do, it must be assumed, the packets of others that it hides among (an attacker who lets one in s through keeps one of
//! s).
//!
//! **Delays.** A pool counts the packets of all classes and of nodes' loops, and a client that stays for d hides among those
//! that come while it stays: λ·d = a·d/D, where D is how long the others stay (Little). Pools do not say. The estimate takes
//! half of what lies in a pool for as slow as the slowest that the document has, and half for what equally many clients of
//! each class would put there; never more than a. If all others were of the slowest class, the estimate would be too high
//! for a faster one, as `web` or `call` among `text` alone.

use std::f64::consts::{E, LOG2_E};

use shoal_topology::reputation::report::pool_of;
use shoal_topology::{Class, DelayLaw, Document, Epoch};

/// h(Erlang(L, 1)) in bits, L = 1, 2, 3.
const ERLANG_BITS: [f64; 3] = [LOG2_E, 2.275_441, 2.665_492];
/// By how much the joined bounds exceed what tracking shows, and a little more.
const MARGIN_BITS: f64 = 0.15;
/// Coarse pools are rounded by half a step of half an octave at most: 2^−1/4.
const ROUNDED: f64 = 0.84;
/// Share of a pool that is taken to be of the slowest class.
const SLOWEST: f64 = 0.5;

/// The latest loops of a client's own whose fate is known.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct OwnLoops {
    /// How many loops those are.
    pub sent: u32,
    /// Of these, how many came back in time.
    pub back: u32,
}

impl OwnLoops {
    /// The share of packets that get through; before any loop's fate is known, all.
    fn share(self) -> f64 {
        let sent = f64::from(self.sent);
        ((f64::from(self.back) + 1.0) / (sent + 1.0)).clamp(0.0, 1.0)
    }
}

/// What a client does about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reading {
    /// User traffic leaves.
    Fine,
    /// User traffic leaves, and the user is warned.
    Warn,
    /// Nothing of the user's leaves.
    Refuse,
}

/// Expected anonymity of the next packet of a client of this class, bits: a lower estimate, never negative and never NaN.
/// It grows with each pool and with the class's delay. Zero where a layer has no mix in good standing.
pub fn expected_bits(document: &Document, epoch: Epoch, class: &Class, own: OwnLoops) -> f64 {
    let number = document.parameters.layers;
    let layers: Option<Vec<LayerMixing>> =
        (1..=number).map(|layer| self::layer(document, epoch, layer, class, own)).collect();
    let Some(layers) = layers else { return 0.0 };
    // Packets a second that cross each layer; what flows through one flows through all.
    let delaying = layers.iter().filter(|layer| layer.delay_s > 0.0);
    // A layer in which little is met tells how much really flows: the least of them counts for all.
    let rates = delaying.clone().map(|layer| layer.width * layer.met / layer.delay_s);
    let rate = rates.fold(f64::INFINITY, f64::min);
    let one_mix = delaying.map(|layer| {
        let met = rate * layer.delay_s / layer.width;
        if layer.uniform { one_uniform_mix_bits(met) } else { one_mix_bits(met) }
    });
    let few = one_mix.clone().sum::<f64>();
    let many = rate.log2() + delay_bits(class.delay, number);
    // Two bounds, one tight for few packets and one for many, joined so that the sum is below both.
    let joined = -((-few).exp2() + (-many).exp2()).log2() - MARGIN_BITS;
    let bits = joined.max(one_mix.fold(0.0, f64::max));
    if bits.is_finite() { bits.max(0.0) } else { 0.0 }
}

/// Says whether so many bits are enough. What is no number is not.
pub fn reading(bits: f64, warn: f64, refuse: f64) -> Reading {
    if bits >= warn.max(refuse) {
        Reading::Fine
    } else if bits >= refuse {
        Reading::Warn
    } else {
        Reading::Refuse
    }
}

/// What a packet of a class meets in one layer.
#[derive(Clone, Copy)]
struct LayerMixing {
    /// The number of mixes in the layer.
    width: f64,
    /// The mean delay of a packet of the class, seconds.
    delay_s: f64,
    /// Packets of others that come to one mix while the packet stays there, on average.
    met: f64,
    /// True if the mix delays uniformly.
    uniform: bool,
}

/// A layer of this number, 1 to L. `None` if it has no mix.
fn layer(
    document: &Document,
    epoch: Epoch,
    number: u8,
    class: &Class,
    own: OwnLoops,
) -> Option<LayerMixing> {
    let nodes = document.in_layer_at(epoch, number).filter_map(|index| document.node(index));
    let mut pools: Vec<f64> = nodes.map(|node| (pool_of(node.pool) * ROUNDED).max(1.0)).collect();
    pools.sort_unstable_by(f64::total_cmp);
    // With three mixes, the least: what one claims changes nothing.
    let quartile = *pools.get(pools.len() / 4)?;
    let width = pools.len() as f64;
    let layers = document.parameters.layers;
    let delay = |class: &Class| class.delay.mean(number, layers).as_secs_f64();
    let delay_s = delay(class);
    // The client hides from others, not behind itself: its own packets are taken out of the pool.
    let own_packets = packets_per_s(class) * delay_s / width;
    let others = (quartile - own_packets).max(0.0) * own.share();
    let met = others * share_met(&document.parameters.classes, delay_s, delay);
    Some(LayerMixing { width, delay_s, met, uniform: DelayLaw::is_uniform(number, layers) })
}

/// λ·d / a: what share of a pool's number of packets comes while one stays that is delayed by `own_s` on average.
fn share_met(classes: &[Class], own_s: f64, delay: impl Fn(&Class) -> f64) -> f64 {
    let slowest = classes.iter().map(&delay).fold(0.0, f64::max);
    let rates: f64 = classes.iter().map(packets_per_s).sum();
    let pooled = |class: &Class| packets_per_s(class) * delay(class);
    let usual = classes.iter().map(pooled).sum::<f64>() / rates;
    let met = |other_s: f64| if own_s < other_s { own_s / other_s } else { 1.0 };
    if own_s > 0.0 { SLOWEST * met(slowest) + (1.0 - SLOWEST) * met(usual) } else { 0.0 }
}

fn packets_per_s(class: &Class) -> f64 {
    class.payload_per_s + class.loops_per_s
}

/// Differential entropy of the delay of a packet in all mixes, bits (of seconds).
fn delay_bits(law: DelayLaw, layers: u8) -> f64 {
    const STEPS: u32 = 128;
    let (mean, width) = (law.exponential_us as f64 / 1e6, law.uniform_us as f64 / 1e6);
    let exponential = i32::from(layers) - 1;
    if mean <= 0.0 || exponential <= 0 {
        return width.log2();
    }
    if width <= 0.0 {
        let of_one = usize::try_from(exponential - 1).ok().and_then(|at| ERLANG_BITS.get(at));
        return of_one.copied().unwrap_or_default() + mean.log2();
    }
    // Erlang's distribution function, for one stage or two.
    let within = |t: f64| {
        let x = (t / mean).max(0.0);
        let second = if exponential > 1 { x } else { 0.0 };
        1.0 - (-x).exp() * (1.0 + second)
    };
    let step = (width + 12.0 * mean) / f64::from(STEPS);
    let density = |n: u32| {
        let t = (f64::from(n) + 0.5) * step;
        (within(t) - within(t - width)) / width
    };
    let bits = |f: f64| if f > 0.0 { -f * f.log2() * step } else { 0.0 };
    (0..STEPS).map(|n| bits(density(n))).sum()
}

/// The same of a mix that delays uniformly: from below.
fn one_uniform_mix_bits(a: f64) -> f64 {
    (1.0 + a * (2.0 - 1.14 / (1.0 + 0.25 * a))).log2()
}

/// Entropy of what leaves one exponential mix that holds `a` packets of others on average: from below.
fn one_mix_bits(a: f64) -> f64 {
    (1.0 + a * (E - 1.418 / (1.0 + 0.62 * a))).log2()
}

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use shoal_topology::reputation::report::coarse_pool;
    use shoal_topology::{Parameters, Seed, Standing, exponential, testing};

    use super::*;

    const EPOCH: Epoch = Epoch(5);
    const ALL: OwnLoops = OwnLoops { sent: 64, back: 64 };

    /// `width` mixes in each layer, all with this pool.
    fn document(width: usize, pool: f64) -> Document {
        let mut document =
            testing::TestNetwork::builder().mixes(width).epoch(EPOCH).build().document();
        document.nodes.iter_mut().for_each(|node| node.pool = coarse_pool(pool));
        document
    }

    fn class(document: &Document, name: &str) -> Class {
        document.parameters.class(name).unwrap().clone()
    }

    /// Only packets of one delay, and none of the client's own to speak of.
    fn plain(width: usize, pool: f64) -> (Document, Class) {
        let mut document = document(width, pool);
        let mut class = class(&document, "text");
        class.delay.uniform_us = 2 * class.delay.exponential_us;
        (class.payload_per_s, class.loops_per_s) = (0.01, 0.01);
        document.parameters.classes = vec![class.clone()];
        (document, class)
    }

    fn bits_of(document: &Document, class: &Class) -> f64 {
        expected_bits(document, EPOCH, class, ALL)
    }

    #[test]
    fn one_mix_is_bounded_from_below_by_its_closed_form() {
        // Exact values: the entropy of a pool of M/M/∞ (simulations, `pool_entropy_bits`).
        for (a, exact) in [
            (0.1, 0.193934),
            (1.0, 1.511227),
            (2.0, 2.408791),
            (5.0, 3.754853),
            (10.0, 4.763046),
            (50.0, 7.086501),
        ] {
            let below = exact - one_mix_bits(a);
            assert!((0.0..0.075).contains(&below), "{a}: {below}");
        }
        assert!((one_mix_bits(1e6) - (E * 1e6).log2()).abs() < 1e-5);
    }

    /// Mean entropy of a packet that is followed through three layers in which pools of `a` packets on average are in
    /// their steady state: all packets of a mix are alike, so a number and a mass for each mix will do.
    fn tracked(width: usize, a: f64, targets: usize) -> f64 {
        let mut rng = Seed::from_u64(9).stream("tracking");
        let mut sum = 0.0;
        for _ in 0..targets {
            let mut mixes = vec![(0usize, 0.0f64); 3 * width];
            for mix in &mut mixes {
                // Poisson(a): exponential gaps that fit into a.
                let second = std::time::Duration::from_secs(1);
                let mut passed = exponential(&mut rng, second).as_secs_f64();
                while passed < a {
                    mix.0 += 1;
                    passed += exponential(&mut rng, second).as_secs_f64();
                }
            }
            mixes[0] = (mixes[0].0 + 1, 1.0);
            let mut under_way = 1.0;
            while under_way > 1e-5 {
                let held: usize = mixes.iter().map(|mix| mix.0).sum();
                let arrivals = a * width as f64;
                if rng.random_bool(arrivals / (arrivals + held as f64)) {
                    mixes[rng.random_range(0..width)].0 += 1;
                    continue;
                }
                let mut which = rng.random_range(0..held);
                let at = mixes.iter().position(|mix| {
                    let here = which < mix.0;
                    which = which.saturating_sub(mix.0);
                    here
                });
                let at = at.unwrap();
                let share = mixes[at].1 / mixes[at].0 as f64;
                mixes[at] = (mixes[at].0 - 1, mixes[at].1 - share);
                if at < 2 * width {
                    let next = (at / width + 1) * width + rng.random_range(0..width);
                    mixes[next] = (mixes[next].0 + 1, mixes[next].1 + share);
                } else if share > 0.0 {
                    under_way -= share;
                    sum -= share * share.log2();
                }
            }
        }
        sum / targets as f64
    }

    #[test]
    fn the_estimate_is_less_than_what_tracking_shows_and_not_much_less() {
        for (width, pool) in [(2, 1.2), (3, 4.0), (10, 2.4), (6, 12.0)] {
            let (document, class) = plain(width, pool);
            let truth = tracked(width, pool, 150);
            let bits = bits_of(&document, &class);
            // Rounding of pools costs up to half a bit, and the uniform mix, which is not tracked, as much.
            assert!(bits < truth && bits > truth - 1.7, "{width} {pool}: {bits} {truth}");
        }
    }

    #[test]
    fn it_agrees_with_the_simulator_and_stays_below_it() {
        // docs/measurements.md, anonymity against cost: 3 layers of 10 mixes, all users of one class; text, web, call.
        for (name, users, simulated) in [
            ("text", 100.0, 6.50),
            ("web", 100.0, 8.76),
            ("call", 100.0, 6.80),
            ("text", 1_000.0, 10.56),
            ("web", 1_000.0, 12.20),
            ("call", 1_000.0, 10.73),
        ] {
            let mut class = class(&document(10, 0.0), name);
            // The simulator knows exponential mixes alone: a uniform one of the same mean hides less.
            let mean_us = class.delay.total_mean(3).as_micros() as u64 / 3;
            class.delay = DelayLaw { exponential_us: mean_us, uniform_us: 2 * mean_us };
            let pool = users * packets_per_s(&class) * mean_us as f64 / 1e6 / 10.0;
            let document = self::document(10, pool);
            let bits = bits_of(&document, &class);
            // What is taken for slow costs most where there is little.
            assert!(bits < simulated && bits > simulated - 4.0, "{name} {users}: {bits}");
        }
    }

    #[test]
    fn it_grows_with_pools_and_with_delay() {
        let mut last = 0.0;
        for pool in [0.0, 1.0, 2.0, 5.0, 30.0, 1e3, 1e6, 1e19] {
            let document = document(4, pool);
            let bits = bits_of(&document, &class(&document, "web"));
            assert!(bits > last || (pool <= 1.0 && bits >= last), "{pool}: {bits}");
            last = bits;
        }
        let document = document(4, 50.0);
        let mut last = 0.0;
        for delay in [0, 1_000, 10_000, 15_000, 50_000, 200_000] {
            let mut class = class(&document, "call");
            class.delay = DelayLaw { exponential_us: delay, uniform_us: 2 * delay };
            (class.payload_per_s, class.loops_per_s) = (0.01, 0.01);
            let bits = bits_of(&document, &class);
            assert!(bits > last || delay == 0, "{delay}: {bits}");
            last = bits;
        }
    }

    #[test]
    fn it_falls_with_ones_own_loops_and_ones_own_traffic_hides_nobody() {
        let document = document(4, 20.0);
        let text = class(&document, "text");
        let bits = |sent, back| expected_bits(&document, EPOCH, &text, OwnLoops { sent, back });
        assert_eq!(bits(0, 0), bits(64, 64));
        assert!(bits(64, 40) < bits(64, 64) && bits(64, 0) < bits(64, 40));
        assert!(bits(64, 0) < 2.0, "{}", bits(64, 0));
        // A client that fills all pools by itself.
        let mut loud = text.clone();
        loud.payload_per_s = 1_000.0;
        assert_eq!(bits_of(&document, &loud), 0.0);
    }

    #[test]
    fn less_than_a_quarter_of_a_layer_gains_nothing_by_claims() {
        let mut document = document(8, 10.0);
        // So that pools that are alike tell of flows that are.
        for class in &mut document.parameters.classes {
            class.delay.uniform_us = 2 * class.delay.exponential_us;
        }
        let text = class(&document, "text");
        let honest = bits_of(&document, &text);
        for layer in 1..=3 {
            let liars: Vec<usize> = document.in_layer(layer).take(2).collect();
            liars.into_iter().for_each(|index| document.nodes[index].pool = 127);
        }
        assert_eq!(bits_of(&document, &text), honest);
        // Nor does one layer that is all theirs: what flows through it flows through the others.
        let layer: Vec<usize> = document.in_layer(2).collect();
        layer.into_iter().for_each(|index| document.nodes[index].pool = 127);
        assert_eq!(bits_of(&document, &text), honest);
    }

    #[test]
    fn unknown_pools_count_as_one_packet_and_a_layer_without_mixes_as_none() {
        let (mut document, class) = plain(10, 0.0);
        let unknown = bits_of(&document, &class);
        let (one, _) = plain(10, 1.0);
        assert_eq!(unknown, bits_of(&one, &class));
        assert!((1.0..4.1).contains(&unknown), "{unknown}");
        let layer: Vec<usize> = document.in_layer(2).collect();
        for index in layer {
            document.nodes[index].standing = Standing::Demoted;
        }
        assert_eq!(bits_of(&document, &class), 0.0);
    }

    #[test]
    fn it_is_a_number_whatever_the_document_says() {
        let extremes = [0.0, f64::MIN_POSITIVE, 1e9, f64::MAX, f64::INFINITY, f64::NAN];
        let (sane, text) = plain(2, 30.0);
        for rate in extremes {
            for delay in [0, 1, u64::MAX] {
                for loops in [(0, 0), (0, 5), (u32::MAX, 0), (1, u32::MAX)] {
                    let mut document = sane.clone();
                    let mut class = text.clone();
                    class.delay = DelayLaw { exponential_us: delay, uniform_us: delay };
                    class.payload_per_s = rate;
                    document.parameters.classes = vec![class.clone()];
                    document.nodes[0].pool = 255;
                    let (sent, back) = loops;
                    let bits = expected_bits(&document, EPOCH, &class, OwnLoops { sent, back });
                    assert!(bits.is_finite() && bits >= 0.0, "{rate} {delay} {loops:?} {bits}");
                    document.parameters.classes.clear();
                    assert!(bits_of(&document, &class) >= 0.0);
                    document.parameters.layers = 200;
                    assert_eq!(bits_of(&document, &class), 0.0);
                    document.nodes.clear();
                    assert_eq!(bits_of(&document, &class), 0.0);
                }
            }
        }
    }

    #[test]
    fn it_warns_below_one_floor_and_refuses_below_the_other() {
        let cases = [
            (6.0, Reading::Fine),
            (5.99, Reading::Warn),
            (3.0, Reading::Warn),
            (2.99, Reading::Refuse),
            (0.0, Reading::Refuse),
            (f64::NAN, Reading::Refuse),
        ];
        for (bits, expected) in cases {
            assert_eq!(reading(bits, 6.0, 3.0), expected, "{bits}");
        }
        // Floors the wrong way round: the higher refuses.
        assert_eq!(reading(4.0, 3.0, 6.0), Reading::Refuse);
    }

    /// THREAT-MODEL.md, "Who sees all links", has the figures. To the one person whose all these packets are, they hide nobody.
    #[test]
    fn eleven_clients_of_one_person_lift_the_estimate_over_the_lower_floor_and_thirty_over_the_upper()
     {
        let mut document = document(10, 0.0);
        let (victim, his) = (class(&document, "web"), class(&document, "fast"));
        let mut bits = |clients: u32| {
            for index in 0..document.nodes.len() {
                let layer = document.layer_at(&document.nodes[index], EPOCH);
                let delay_s = victim.delay.mean(layer.max(1), 3).as_secs_f64();
                let rate = packets_per_s(&victim) + f64::from(clients) * packets_per_s(&his);
                document.nodes[index].pool = coarse_pool(rate * delay_s / 10.0);
            }
            bits_of(&document, &victim)
        };
        let mut least = |floor: f64| (0..1_000).find(|clients| bits(*clients) >= floor);
        let Parameters { warn_bits, refuse_bits, .. } = Parameters::default();
        assert_eq!((least(refuse_bits), least(warn_bits)), (Some(11), Some(30)));
    }
}
