//! An adversary who holds the frames of one client, and reads where what was held comes out: on all links into gateways, and at
//! all gateways for each of their clients.
//!
//! Frames that are held come together when they are let go, and so does what they bring, some hops later: to the own
//! gateway at rest, to that of the peer in a call. For each second of a trial that is a ratio of likelihoods
//! ([`crate::adversary::at_gateway::likelihood`]) that the frames go to one place or that they do not.

use crate::adversary::at_gateway::Seen;
use crate::adversary::at_gateway::attacks::TRIAL_S;
use crate::adversary::at_gateway::decision::{Decision, decide};
use crate::adversary::at_gateway::experiments::{Busy, Case, Ran, SETTLED_S, delays};
use crate::adversary::at_gateway::likelihood::{Question, Way, series};
use crate::trace::{Flow, Party};
use crate::world::{Attack, Observed};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;
/// How often frames are held, seconds.
const EVERY_S: f64 = 10.0;
/// Gateways, so that one of them says little of whom it serves.
const GATEWAYS: u16 = 10;

/// What the adversary reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HoldReading {
    /// Links between nodes: of which gateway is the one with whom the client is in a call?
    Links,
    /// What arrives for each client at all gateways: who is it?
    Gateways,
}

impl HoldReading {
    /// What it asks, for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Links => "all links: at which gateway the peer is",
            Self::Gateways => "all gateways: who of all is the peer",
        }
    }
}

/// What becomes of an adversary.
#[derive(Clone, Debug)]
pub struct HoldFinding {
    /// How it holds, in words.
    pub name: String,
    /// What it reads.
    pub reading: HoldReading,
    /// When it decides.
    pub decision: Decision,
}

/// Holds of these lengths, milliseconds, 0 for none, in a network of so many pairs in a call and as many idle ones, for so long,
/// from a seed.
///
/// # Errors
/// A setting that cannot be.
pub fn rows(holds_ms: &[f64], size: (u32, f64, u64)) -> anyhow::Result<Vec<HoldFinding>> {
    let mut all = Vec::new();
    for hold_ms in holds_ms {
        let (case, ran) = run(*hold_ms, size)?;
        for reading in [HoldReading::Links, HoldReading::Gateways] {
            let name = match *hold_ms {
                0.0 => "nothing is held".into(),
                ms => format!("frames up of one client are held for {} s every 10 s", ms / 1e3),
            };
            all.push(HoldFinding { name, reading, decision: decision(&case, &ran, reading) });
        }
    }
    Ok(all)
}

fn run(hold_ms: f64, size: (u32, f64, u64)) -> anyhow::Result<(Case, Ran)> {
    let mut case = Case::new("call", Busy::Call, size);
    case.settings.network.gateways = GATEWAYS;
    case.settings.observer.links = Observed::Listed;
    case.settings.observer.list = vec!["node * > node *".into()];
    let hold = |person: u32| Attack {
        links: format!("person {person} > node *"),
        begin_s: SETTLED_S + f64::from(person * 13 % 97) / 10.0,
        hold_ms,
        every_s: EVERY_S,
        ..Attack::default()
    };
    if hold_ms > 0.0 {
        case.settings.attacks = targets(&case).map(hold).collect();
    }
    let ran = case.run()?;
    Ok((case, ran))
}

/// The first of each pair.
fn targets(case: &Case) -> impl Iterator<Item = u32> + use<> {
    (0..4 * case.pairs).step_by(2)
}

/// False alarms are all candidates but the peer, and all of them where the client is in no call.
fn decision(case: &Case, ran: &Ran, reading: HoldReading) -> Decision {
    let people = 4 * case.pairs;
    let gateways = u32::from(GATEWAYS).min(people);
    let (mut busy, mut idle) = (Vec::new(), Vec::new());
    for target in targets(case) {
        let Some(seen) = ran.seen(target) else { continue };
        let peer = target ^ 1;
        let in_a_call = target % 4 < 2;
        let candidates = if reading == HoldReading::Links { gateways } else { people };
        let own = if reading == HoldReading::Links { target % gateways } else { target };
        let right = if reading == HoldReading::Links { peer % gateways } else { peer };
        for candidate in (0..candidates).filter(|candidate| *candidate != own) {
            let scores = match reading {
                HoldReading::Links => on_links(ran, seen, candidate),
                HoldReading::Gateways => at_gateways(ran, seen, candidate),
            };
            let trials = scores.chunks_exact(TRIAL_S as usize).map(<[f64]>::to_vec);
            if in_a_call && candidate == right { busy.extend(trials) } else { idle.extend(trials) }
        }
    }
    decide(&busy, &idle, 1.0, &[10.0, 30.0, TRIAL_S])
}

/// The seconds that are looked at.
fn steps(ran: &Ran) -> (u64, u64, usize) {
    let count = (ran.workload.end.as_secs_f64() - SETTLED_S) as usize;
    ((SETTLED_S * 1e9) as u64, SECOND, count)
}

fn at_gateways(ran: &Ran, held: &Seen, person: u32) -> Vec<f64> {
    let Some(seen) = ran.seen(person) else { return Vec::new() };
    let asked = |question| series(seen, question, (&ran.way(), ran.shares()), steps(ran));
    // Against a call with anybody: who is held himself, and in a call, does not follow his own frames either.
    let (with, anybody) = (asked(Question::With(held)), asked(Question::InACall));
    with.iter().zip(&anybody).map(|(with, anybody)| with - anybody).collect()
}

/// What leaves the last layer for a gateway, given a client's frames.
fn on_links(ran: &Ran, held: &Seen, gateway: u32) -> Vec<f64> {
    let trace = &ran.report.view.trace;
    let nodes = trace.links.keys().flat_map(|link| [link.from, link.to]);
    let last = nodes.filter_map(|party| match party {
        Party::Node(node) => Some(node),
        _ => None,
    });
    let first = last.max().unwrap_or(0) + 1 - u32::from(GATEWAYS);
    let node = Party::Node(first + gateway);
    let mut into: Vec<u64> = Vec::new();
    for (link, flow) in trace.links.iter().filter(|(link, _)| link.to == node) {
        if let (Party::Node(_), Flow::Packets { times, .. }) = (link.from, flow) {
            into.extend(times);
        }
    }
    into.sort_unstable();
    // Three links: the fourth begins where it is seen.
    let hops = f64::from(ran.report.view.public.hops);
    let way = Way::new(&delays(&ran.class), ran.report.view.public.latency_s * hops / (hops + 3.0));
    let shares = ran.shares();
    let share = shares.loops - shares.slots;
    let mean = share * shares.up_per_s;
    let whole = into.len() as f64 / ran.workload.end.as_secs_f64();
    let others = (whole - mean).max(0.1 * whole).max(0.1);
    let (begin, step, count) = steps(ran);
    let one = |n: usize| {
        let (from, to) = (begin + n as u64 * step, begin + (n as u64 + 1) * step);
        let first = into.partition_point(|at| *at < from);
        let here = into.iter().skip(first).take_while(|at| **at < to);
        let ratio = |at: &u64| ((others + way.rate(held, share, *at)) / (others + mean)).ln();
        let more = way.expected(held, share, (from, to)) - mean * step as f64 / 1e9;
        here.map(ratio).sum::<f64>() - more
    };
    (0..count).map(one).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_client_for_a_second_finds_the_peer_on_links_and_at_gateways() {
        let last =
            |found: &HoldFinding| found.decision.found.last().map_or(0.0, |(_, share)| share.value);
        let found = rows(&[0.0, 1_000.0], (4, 66.0, 1)).unwrap();
        let [none_on_links, none_at_gateways, links, gateways] = &found[..] else {
            unreachable!("{found:?}")
        };
        assert!(last(links) > 0.7 && last(gateways) > 0.7, "{links:?} {gateways:?}");
        for none in [none_on_links, none_at_gateways] {
            assert!(last(none) < 0.3 && none.decision.p > 1e-3, "{none:?}");
        }
    }
}
