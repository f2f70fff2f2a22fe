//! Whose client downloads, and when? A gateway sees more packets arrive for a client that does (THREAT-MODEL.md).

use std::collections::BTreeMap;

use shoal_topology::{Seed, Time};

use super::Line;
use crate::adversary::attacks;
use crate::score::scores::{self, BusyTime};
use crate::stats;
use crate::trace::{Flow, Link, Party, View};
use crate::workload::{Activity, Workload};

/// What is counted: so long, from so long after the request on, nanoseconds. A download that takes a few seconds is
/// under way then.
const SPAN: u64 = 5_000_000_000;
const AFTER: u64 = 1_000_000_000;
/// Whoever has requested nothing for so long is at rest.
const REST: u64 = 30_000_000_000;
/// Share of those at rest who are suspected, too.
const FALSE_ALARMS: f64 = 0.01;

/// The name of the score: the share of downloads that is told apart from rest, at 1 % false alarms.
pub const SCORE: &str = "seen_at_1_pct";

/// Instants at which something is seen for each person.
type Seen = BTreeMap<u32, Vec<u64>>;

/// One line for each thing that can be counted: packets on a client's link, and, where the gateway is corrupt, packets
/// that arrive there for the client; and those of each attack that gives signs of use.
pub fn lines(system: &str, view: &View, workload: &Workload, seed: u64) -> Vec<Line> {
    let mut links = Seen::new();
    for (Link { from, to }, flow) in &view.trace.links {
        let person = match (from, to) {
            (Party::Person(person), _) | (_, Party::Person(person)) => *person,
            _ => continue,
        };
        if let Flow::Packets { times, .. } = flow {
            links.entry(person).or_default().extend(times);
        }
    }
    let mut arrivals = Seen::new();
    for pass in &view.passes {
        if let Party::Person(person) = pass.to {
            arrivals.entry(person).or_default().push(pass.arrived.as_nanos());
        }
    }
    let counted = [("link_rate", links), ("arrival_rate", arrivals)];
    let line = |(attack, mut seen): (&str, Seen)| {
        seen.values_mut().for_each(|times| times.sort_unstable());
        score(&seen, workload).map(|(hits, downloads)| Line {
            system: system.into(),
            workload: "download".into(),
            attack: attack.into(),
            score: SCORE.into(),
            value: stats::proportion(hits, downloads),
            prior: FALSE_ALARMS,
            p: at_least(hits, downloads),
            beats_prior: false,
        })
    };
    counted.into_iter().filter_map(line).chain(signs(system, view, workload, seed)).collect()
}

/// Says whether the signs of any attack tell those who download from those who rest.
fn signs(system: &str, view: &View, workload: &Workload, seed: u64) -> Vec<Line> {
    let seed = Seed::from_u64(seed).part("scoreboard").part(system).part("download");
    let download = |activity: &Activity| match activity {
        Activity::Download { person, at, .. } => {
            let begin_s = at.as_secs_f64() + AFTER as f64 / 1e9;
            Some(BusyTime { person: *person, begin_s, end_s: begin_s + SPAN as f64 / 1e9 })
        }
        _ => None,
    };
    let busy: Vec<BusyTime> = workload.activities.iter().filter_map(download).collect();
    let mut all = Vec::new();
    for attack in attacks::single() {
        let answer = attack.run(view);
        let own = seed.part(attack.name());
        let scores = scores::of_signs(&answer, &busy, view.public.people, &own);
        all.extend(scores.into_iter().map(|score| Line {
            system: system.into(),
            workload: "download".into(),
            attack: attack.name().into(),
            score: score.name.into(),
            value: score.value,
            prior: score.prior,
            p: score.p,
            beats_prior: false,
        }));
    }
    all
}

/// Downloads that are told apart, and all that are judged. `None` where nothing was seen, or nobody was at rest.
fn score(seen: &Seen, workload: &Workload) -> Option<(u64, u64)> {
    let mut requests: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for activity in &workload.activities {
        if let Activity::Download { person, at, .. } = activity {
            requests.entry(*person).or_default().push(at.as_nanos());
        }
    }
    let end = workload.end.since(Time::ZERO).as_nanos() as u64;
    let (mut busy, mut rest) = (Vec::new(), Vec::new());
    for (person, times) in seen {
        let own = requests.get(person).map_or(&[][..], Vec::as_slice);
        let count = |begin: u64| {
            times.partition_point(|at| *at < begin + SPAN) - times.partition_point(|at| *at < begin)
        };
        let spans = |begin: &u64| begin + SPAN <= end;
        busy.extend(own.iter().map(|at| at + AFTER).filter(spans).map(count));
        let is_at_rest =
            |begin: &u64| !own.iter().any(|at| *at < begin + SPAN && begin < &(at + REST));
        rest.extend((0..end).step_by(SPAN as usize).filter(spans).filter(is_at_rest).map(count));
    }
    rest.sort_unstable();
    let suspected = (rest.len() as f64 * FALSE_ALARMS) as usize;
    let threshold = rest.iter().rev().nth(suspected)?;
    let hits = busy.iter().filter(|count| *count > threshold).count();
    (!busy.is_empty()).then_some((hits as u64, busy.len() as u64))
}

/// The chance of so many hits or more by guessing.
fn at_least(hits: u64, of: u64) -> f64 {
    if hits == 0 {
        return 1.0;
    }
    stats::beta_cdf(FALSE_ALARMS, hits as f64, (of - hits + 1) as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_seen_where_the_rate_rises_and_nowhere_else() {
        let download = |person: u32| Activity::Download {
            person,
            at: Time::from_secs(100 + u64::from(person)),
            bytes: 1 << 20,
        };
        let workload = Workload {
            people: 20,
            end: Time::from_secs(300),
            activities: (0..20).map(download).collect(),
        };
        let paced: Vec<u64> = (0..30_000).map(|k| k * 10_000_000).collect();
        let even: Seen = (0..20).map(|person| (person, paced.clone())).collect();
        assert_eq!(score(&even, &workload), Some((0, 20)));
        let mut risen = even.clone();
        for (person, times) in &mut risen {
            let begin = (100 + u64::from(*person)) * 1_000_000_000;
            times.extend((0..300).map(|k| begin + k * 20_000_000));
            times.sort_unstable();
        }
        assert_eq!(score(&risen, &workload), Some((20, 20)));
        assert!(at_least(20, 20) < 1e-9 && at_least(0, 20) == 1.0);
        assert!((at_least(1, 20) - (1.0 - 0.99_f64.powi(20))).abs() < 1e-12);
    }
}
