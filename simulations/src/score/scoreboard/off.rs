//! Rows in which a protection is off, so that a reader sees that the attack works: each must find something.
//!
//! Paths, epochs, delays, cover and the rule of operators are off in traffic that is made up
//! ([`crate::adversary::attacks::generated`]), since the engines cannot do without; credits are off in a world of the
//! engines.

use rayon::prelude::*;

use super::active::Decided;
use super::{Line, score_answer};
use crate::adversary::at_gateway::attacks::{ActiveAdversary, GatewayReading};
use crate::adversary::at_gateway::experiments::{Busy, Case};
use crate::adversary::attacks::generated::{Calls, view};
use crate::adversary::attacks::{
    Attack, EpochBytes, FirstHops, FirstMixes, FlowStarts, Follow, LastMixes, MissingMixes,
};
use crate::adversary::coalition;

/// How the systems of these rows begin.
pub const OFF: &str = "protection off";

/// The workload of these rows.
pub const WORKLOAD: &str = "off";

/// What is off, and what must then be found: an attack and a score of it.
struct Off {
    what: &'static str,
    calls: Calls,
    attack: Box<dyn Attack + Send + Sync>,
    score: &'static str,
}

fn all(seed: u64) -> Vec<Off> {
    let on = Calls { seed, ..Calls::default() };
    let kept = Calls { kept: true, ..on.clone() };
    let row = |what, calls: &Calls, attack: Box<dyn Attack + Send + Sync>, score| Off {
        what,
        calls: calls.clone(),
        attack,
        score,
    };
    vec![
        row("paths kept", &kept, Box::new(FirstMixes), "rebuilt_of_3_s"),
        row("paths kept", &kept, Box::new(FirstHops), "rebuilt_of_3_s"),
        row("paths kept", &kept, Box::new(LastMixes), "rebuilt_of_3_s"),
        row(
            "operators of gateways have mixes",
            &Calls { operators_rule: true, ..on.clone() },
            Box::new(MissingMixes),
            "average_precision",
        ),
        row(
            "replies of another epoch than loops",
            &Calls { epochs: true, ..on.clone() },
            Box::new(EpochBytes),
            "told_from_rest",
        ),
        row(
            "no uniform delay at the middle mix",
            &Calls { uniform: false, ..on.clone() },
            Box::new(Follow),
            "r_precision",
        ),
        row("no cover", &Calls { cover: false, ..on }, Box::new(FlowStarts), "r_precision"),
    ]
}

/// The lines of what is off in traffic that is made up.
pub fn lines(seed: u64) -> Vec<Line> {
    let line = |off: Off| {
        let (view, truth) = view(&off.calls);
        let answer = off.attack.run(&view);
        let system = format!("{OFF}: {}", off.what);
        let names = (system.as_str(), WORKLOAD, off.attack.name());
        let lines = score_answer(names, &answer, &view, &truth, seed);
        lines.into_iter().filter(move |line| line.score == off.score).collect::<Vec<Line>>()
    };
    all(seed).into_par_iter().with_max_len(1).flat_map_iter(line).collect()
}

/// What is off in the engines, and coalitions that have much: when these are decided.
///
/// # Errors
/// A setting that cannot be.
pub fn decided((pairs, seconds, seed): (u32, f64, u64)) -> anyhow::Result<Vec<Decided>> {
    let mut case = Case::new("web", Busy::Messages(0.4), (pairs, seconds, seed));
    case.settings.trial.credits = false;
    let active = ActiveAdversary { name: "no credits".into(), reading: GatewayReading::Rate, case };
    let decided = Decided::active(&active.run()?);
    let mut all = vec![Decided {
        system: format!("{OFF}: messages give no credits"),
        workload: WORKLOAD,
        ..decided
    }];
    all.extend(coalition::controls((pairs, seconds, seed))?.iter().map(|found| Decided {
        system: format!("{OFF}: {}", found.name),
        workload: WORKLOAD,
        ..Decided::coalition(found)
    }));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::scoreboard::{correct, requirements};

    #[test]
    fn every_attack_finds_what_a_protection_that_is_off_no_longer_hides() {
        let mut lines = lines(1);
        correct(&mut lines);
        let checks = requirements(&lines);
        assert_eq!(checks.len(), 7);
        for check in &checks {
            assert!(check.holds, "{checks:?}");
        }
        // What finds nothing fails the check.
        lines.iter_mut().for_each(|line| line.p = 0.5);
        correct(&mut lines);
        assert!(requirements(&lines).iter().all(|check| !check.holds));
    }
}
