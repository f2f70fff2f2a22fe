//! Adversaries who act, and stalls that nobody makes, as lines of the board: the share that is found after a minute, and
//! the seconds to a decision.

use std::fmt::Write as _;

use super::Line;
use crate::at_gateway::attacks::{Outcome, Reading};
use crate::at_gateway::decision::FALSE_ALARMS;

/// What is asked, in words.
pub fn question(reading: Reading) -> &'static str {
    match reading {
        Reading::InACall => "own gateway: in a call or not",
        Reading::With => "the peer's gateway: with whom",
        Reading::Rate => "own gateway: how much comes",
        Reading::Unreadable => "the exit: unreadable packets",
    }
}

/// A line for each adversary, of a system of its own, so that Holm's correction over Shoal itself leaves them out:
/// THREAT-MODEL names them with their size.
pub fn lines(outcomes: &[Outcome]) -> Vec<Line> {
    let line = |outcome: &Outcome| {
        let (_, share) = outcome.decision.found.last()?;
        Some(Line {
            system: format!("shoal, {}", outcome.name),
            workload: "active".into(),
            attack: question(outcome.reading).into(),
            score: "found_in_a_minute".into(),
            value: *share,
            prior: FALSE_ALARMS,
            p: outcome.decision.p,
            beats_prior: false,
        })
    };
    outcomes.iter().filter_map(line).collect()
}

/// Seconds to a decision, a line for each adversary.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "\nseconds to a decision at 1 % false alarms (median of those who are busy)\n",
    );
    for outcome in outcomes {
        let decided =
            outcome.decision.median_s.map_or_else(|| "none in 60".into(), |s| format!("{s:.0}"));
        let share = outcome.decision.found.last().map_or(f64::NAN, |(_, share)| share.value);
        let _ = writeln!(
            text,
            "{decided:>10}  {:5.1} % in a minute  {}; {}",
            100.0 * share,
            outcome.name,
            question(outcome.reading)
        );
    }
    text
}
