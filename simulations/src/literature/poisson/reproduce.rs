//! The checks of `reproduce`, sections 2 and 3, that Poisson packets give.

use shoal_topology::Seed;

use super::loopix::Loopix;
use super::network::{CorruptMixes, PoissonTraffic, StratifiedNetwork, Width};
use super::order::{Fifo, Slots};
use super::pool::{Pool, poisson_distance};
use super::theory;
use super::tracked::{Detail, Tracked, TrackingPlan, track};
use crate::anonymity::{Pools, SenderEntropy};
use crate::experiment::Estimate;
use crate::literature::check::{Check, CheckJob, Effort};
use crate::literature::corrupt_paths::{self, CorruptPaths};
use crate::stats;

/// All jobs, the longest first.
pub fn jobs(effort: Effort) -> Vec<CheckJob> {
    let mut jobs = Vec::new();
    for (name, layers, expected) in [
        ("MiXiM, 1 layer", 1, 10.2534),
        ("MiXiM, 2 layers", 2, 13.2960),
        ("MiXiM, 3 layers", 3, 13.0392),
        ("MiXiM, 4 layers", 4, 12.7890),
    ] {
        jobs.push(CheckJob::new(name, move |seed| mixim(seed, effort, layers, expected)));
    }
    jobs.push(CheckJob::new("Loopix, Fig. 5", move |seed| Ok(loopix_5(seed, effort))));
    for (name, hop_mean_s) in [
        ("Loopix, Fig. 4, µ = 0.02", 50.0),
        ("Loopix, Fig. 4, µ = 0.2", 5.0),
        ("Loopix, Fig. 4, µ = 2", 0.5),
        ("Loopix, Fig. 4, µ = 20", 0.05),
        ("Loopix, Fig. 4, µ = 200", 0.005),
    ] {
        jobs.push(CheckJob::new(name, move |seed| Ok(loopix_4(seed, effort, hop_mean_s))));
    }
    jobs.push(CheckJob::new("pool", move |seed| Ok(pool(seed, effort))));
    for (name, layers, expected) in [
        ("heavy traffic, 5 hops", 5, 3.106964),
        ("heavy traffic, 4 hops", 4, 2.919158),
        ("heavy traffic, 3 hops", 3, 2.665492),
        ("heavy traffic, 2 hops", 2, 2.275441),
        ("heavy traffic, 1 hop", 1, std::f64::consts::LOG2_E),
    ] {
        jobs.push(CheckJob::new(name, move |seed| heavy(seed, effort, layers, expected)));
    }
    jobs.push(CheckJob::new("two packets", move |seed| Ok(two_packets(seed, effort))));
    jobs.push(CheckJob::new("corrupt paths", move |seed| Ok(corrupt_paths(seed, effort))));
    jobs.push(CheckJob::new("slots", move |seed| Ok(slots(seed, effort))));
    jobs.push(CheckJob::new("mixing delay", move |seed| delays(seed, effort)));
    jobs.push(CheckJob::new("golden trace", |_| Ok(golden_trace())));
    jobs
}

fn root(seed: u64, job: &str) -> Seed {
    Seed::from_u64(seed).part("reproduce").part(job)
}

fn silent(_: f64) {}

/// Exact table and simulated pool, for each a.
fn pool(seed: u64, effort: Effort) -> Vec<Check> {
    let table = [
        (0.1, 0.193934, 0.951626),
        (1.0, 1.511227, 0.632121),
        (2.0, 2.408791, 0.432332),
        (5.0, 3.754853, 0.198652),
        (10.0, 4.763046, 0.0999955),
        (50.0, 7.086501, 0.02),
    ];
    let mut checks = Vec::new();
    for (a, entropy, inverse) in table {
        let departures = effort.pick(200_000, 3_000_000);
        let pool = Pool { rate_per_s: a, hop_mean_s: 1.0, departures };
        let run = pool.simulate(&root(seed, "pool").part(&format!("a = {a}")), &silent);
        checks.push(Check::exact(
            "2",
            format!("sender entropy, theory, a = {a}"),
            entropy,
            theory::pool_entropy_bits(a),
            6e-7,
        ));
        // The table is rounded; the test asks for what it rounds.
        let (estimate, p) = run.compare(&run.entropy_bits, theory::pool_entropy_bits(a));
        checks.push(Check::equal("2", format!("sender entropy, a = {a}"), entropy, estimate, p));
        let (estimate, p) = run.compare(&run.inverse, theory::inverse_pool(a));
        checks.push(Check::equal("2", format!("1/N at departure, a = {a}"), inverse, estimate, p));
        let (estimate, p) = run.compare(&run.found, a);
        checks.push(Check::equal("2", format!("mean pool, a = {a}"), a, estimate, p));
        let distance = poisson_distance(&run.apart, a);
        let p = stats::kolmogorov_p(distance, run.apart.len());
        checks.push(Check::equal(
            "2",
            format!("distance of the pool from Poisson(a), a = {a}, {} samples", run.apart.len()),
            0.0,
            Estimate::exact(distance),
            p,
        ));
    }
    checks.push(Check::exact(
        "2",
        "sender entropy, theory, a = 10000, beside log2(e a)",
        (std::f64::consts::E * 1e4).log2(),
        theory::pool_entropy_bits(1e4),
        1e-5,
    ));
    checks
}

/// Entropy of forward tracking less log2 Λ, beside the entropy of the Erlang law.
fn heavy(seed: u64, effort: Effort, layers: u32, expected: f64) -> anyhow::Result<Vec<Check>> {
    let rate = 2_000.0;
    let network = StratifiedNetwork {
        layers,
        width: Width::Same(1),
        hop_mean_s: 1.0,
        ..StratifiedNetwork::default()
    };
    let targets = effort.pick(100, 400);
    let seed = root(seed, &format!("heavy {layers}"));
    let tracked = track(&network, &plan(rate, targets, 0), &seed, &silent)?;
    let less = |target: &super::tracked::Followed| target.row.entropy_bits - rate.log2();
    // A thousandth part of a bit is missing at this rate; the rest is the error of the mean.
    let tolerance = effort.pick(0.015, 0.01);
    Ok(vec![
        Check::exact(
            "2",
            format!("h(Erlang({layers}, 1))"),
            expected,
            stats::law::erlang_entropy_bits(layers, 1.0),
            6e-7,
        ),
        Check::within(
            "2",
            format!("entropy less log2 rate, {layers} hops, 2000 packets a mix"),
            expected,
            tolerance,
            tracked.mean(less),
        ),
    ])
}

fn plan(rate_per_s: f64, targets: usize, delays: usize) -> TrackingPlan {
    TrackingPlan {
        traffic: PoissonTraffic::rate(rate_per_s),
        targets,
        every: 0,
        active: 24,
        burn_in_s: None,
        delays,
        detail: Detail::Entropy,
    }
}

fn golden_trace() -> Vec<Check> {
    let sender = [1.0, 1.5, 2.0849625007, 2.0849625007, 2.0424812504, 2.0424812504];
    let mass = [2.0, 4.0, 12.0, 12.0, 24.0, 24.0].map(|n: f64| 1.0 / n);
    let (mut mix, mut pools) = (SenderEntropy::new(), Pools::new(1, 1));
    let mut expected = sender.into_iter().zip(mass).enumerate();
    let mut checks = Vec::new();
    for step in "a b D c D d e D D f D D".split(' ') {
        if step != "D" {
            mix.arrive();
            pools.arrive(0, &[if step == "b" { 1.0 } else { 0.0 }]);
            continue;
        }
        let (mut of_b, entropy) = ([0.0], mix.depart().unwrap_or(f64::NAN));
        pools.depart(0, &mut of_b);
        let Some((number, (bits, mass))) = expected.next() else { continue };
        let number = number + 1;
        let name = format!("golden trace, sender entropy at departure {number}");
        checks.push(Check::exact("2", name, bits, entropy, 1e-9));
        let name = format!("golden trace, mass of b at departure {number}");
        let [of_b] = of_b;
        checks.push(Check::exact("2", name, mass, of_b, 1e-9));
    }
    checks
}

/// Quantiles and the whole law of the mixing delay through three hops.
fn delays(seed: u64, effort: Effort) -> anyhow::Result<Vec<Check>> {
    let network = StratifiedNetwork { hop_mean_s: 0.05, ..StratifiedNetwork::default() };
    let samples = effort.pick(100_000, 1_000_000);
    let Tracked { delays_s, .. } =
        track(&network, &plan(1_000.0, 0, samples), &root(seed, "delays"), &silent)?;
    let delays: Vec<f64> = delays_s.iter().map(|s| s / network.hop_mean_s).collect();
    let mut checks = Vec::new();
    for (name, p, expected) in [
        ("p50", 0.5, 2.6741),
        ("p90", 0.9, 5.3223),
        ("p99", 0.99, 8.4059),
        ("p99.9", 0.999, 11.2289),
    ] {
        let exact = stats::erlang_quantile(p, 3, 1.0);
        let title = format!("Erlang(3, 1), {name}, theory");
        checks.push(Check::exact("2", title, expected, exact, 5.1e-5));
        let below = delays.partition_point(|delay| *delay <= exact) as u64;
        checks.push(Check::equal(
            "2",
            format!("mixing delay of 3 hops, {name}, in mean hop delays"),
            expected,
            stats::quantile_estimate(&delays, p),
            stats::proportion_p(below, delays.len() as u64, p),
        ));
    }
    let distance = stats::kolmogorov_distance(&delays, |x| stats::erlang_cdf(x, 3, 1.0));
    checks.push(Check::equal(
        "2",
        format!("distance of {samples} mixing delays from Erlang(3, 1)"),
        0.0,
        Estimate::exact(distance),
        stats::kolmogorov_p(distance, delays.len()),
    ));
    checks.push(Check::exact(
        "2",
        "distance with 100000 samples, one in a thousand: its probability",
        0.001,
        stats::kolmogorov_p(0.0062, 100_000),
        2e-4,
    ));
    Ok(checks)
}

fn slots(seed: u64, effort: Effort) -> Vec<Check> {
    let cases = [(2.0, 1.0), (45.0, 20.0), (10.0, 9.0)];
    let check = |(slots_per_s, rate_per_s)| {
        let packets = effort.pick(500_000, 5_000_000);
        let slots = Slots { slots_per_s, rate_per_s, packets };
        let name = format!("delay of slots at {slots_per_s}/s fed at {rate_per_s}/s, s");
        let waited = slots.simulate(&root(seed, &name));
        let moments = slots.moments(&waited);
        let expected = theory::slot_delay_s(slots_per_s, rate_per_s);
        Check::equal("2", name, expected, moments.estimate(), moments.p_of(expected))
    };
    cases.into_iter().map(check).collect()
}

fn two_packets(seed: u64, effort: Effort) -> Vec<Check> {
    let table = [(1, 0.5, 0.69673), (1, 1.0, 0.81606), (3, 0.5, 0.59249), (3, 1.0, 0.67811)];
    let mut checks = Vec::new();
    for (hops, gap_in_hop_means, expected) in table {
        let pairs = effort.pick(200_000, 2_000_000);
        let fifo = Fifo { hops, gap_in_hop_means, pairs, ..Fifo::default() };
        let name = format!("two packets in order, {hops} hops, gap {gap_in_hop_means}");
        let exact = theory::in_order(hops, gap_in_hop_means);
        checks.push(Check::exact("2", format!("{name}, theory"), expected, exact, 5.1e-6));
        let ordered = fifo.simulate(&root(seed, &name), &silent);
        let p = stats::proportion_p(ordered, pairs, exact);
        checks.push(Check::equal("2", name, expected, stats::proportion(ordered, pairs), p));
    }
    checks
}

fn corrupt_paths(seed: u64, effort: Effort) -> Vec<Check> {
    let seed = root(seed, "corrupt paths");
    let mut checks = Vec::new();
    for (layers, width, total) in [(3, 10, 6), (3, 10, 15), (2, 5, 4)] {
        let corrupt = CorruptMixes { per_layer: 0, total };
        let settings =
            CorruptPaths { layers, width: Width::Same(width), corrupt, ..CorruptPaths::default() };
        let name = format!("corrupt routes, {total} of {layers} x {width} mixes at random");
        let placed = settings.placements(effort.pick(200_000, 2_000_000), &seed.part(&name));
        let expected = settings.alpha();
        let (estimate, p) = corrupt_paths::compare(&placed, expected);
        checks.push(Check::equal("2", name, expected, estimate, p));
    }
    let users = effort.pick(20_000, 200_000);
    let settings = CorruptPaths { users, ..CorruptPaths::default() };
    let half = theory::half_hit_packets(settings.alpha()).ceil();
    checks.push(Check::exact(
        "2",
        "packets until half are hit, 10 % of 3 layers",
        693.0,
        half,
        1e-9,
    ));
    let hits = settings.first_hits(693, &seed.part("users"));
    let hit = hits.iter().flatten().count() as u64;
    let expected = theory::hit(settings.alpha(), 693.0);
    checks.push(Check::equal(
        "2",
        "users hit after 693 packets, 10 % of 3 layers",
        expected,
        stats::proportion(hit, users),
        stats::proportion_p(hit, users, expected),
    ));
    checks
}

/// End to end 1 s of which 50 ms are for each link, 5,000 packets/s, 10 mixes in a layer.
fn mixim(seed: u64, effort: Effort, layers: u32, expected: f64) -> anyhow::Result<Vec<Check>> {
    let network = StratifiedNetwork {
        layers,
        width: Width::Same(10),
        hop_mean_s: (1.0 - 0.05 * f64::from(layers + 1)) / f64::from(layers),
        link_delay_ms: 50.0,
        corrupt: CorruptMixes::default(),
    };
    let targets = effort.pick(1_000, 4_000);
    let seed = root(seed, &format!("mixim {layers}"));
    let tracked = track(&network, &plan(5_000.0, targets, 0), &seed, &silent)?;
    let entropy = tracked.mean(|target| target.row.entropy_bits);
    let name = format!("MiXiM entropy, {layers} layers, {targets} targets");
    Ok(vec![Check::within("3", name, expected, 0.015, entropy)])
}

fn loopix_5(seed: u64, effort: Effort) -> Vec<Check> {
    // Messages older than 25 mean delays carry no mass that could be seen, and the network has forgotten by then that
    // it began empty: the figure does not depend on more units than these.
    let (burn_in_units, units) = effort.pick((15, 30), (60, 100));
    let repetitions = effort.pick(1_500, 3_000);
    let loopix = Loopix { burn_in_units, units, repetitions, ..Loopix::default() };
    let all = loopix.simulate(&root(seed, "loopix"), &silent);
    let name = format!("Loopix epsilon, Fig. 5, delay rate 1/s, {repetitions} repetitions");
    vec![Check::within("3", name, 0.188, 0.02, all.mean())]
}

fn loopix_4(seed: u64, effort: Effort, hop_mean_s: f64) -> Vec<Check> {
    let check = |rate_per_s: f64| {
        let a = rate_per_s * hop_mean_s;
        let departures = (effort.pick(200.0, 1_000.0) * a).max(effort.pick(1e5, 1e6)) as u64;
        let pool = Pool { rate_per_s, hop_mean_s, departures };
        let name =
            format!("Loopix entropy, Fig. 4, {rate_per_s}/s, delay rate {}/s", 1.0 / hop_mean_s);
        let run = pool.simulate(&root(seed, &name), &silent);
        let expected = theory::pool_entropy_bits(a);
        let (estimate, p) = run.compare(&run.entropy_bits, expected);
        Check::equal("3", name, expected, estimate, p)
    };
    effort
        .pick(vec![100.0, 300.0, 500.0], vec![100.0, 200.0, 300.0, 400.0, 500.0])
        .into_iter()
        .map(check)
        .collect()
}
