//! Adversaries who decide after a while, as lines of the scoreboard: those who act, stalls that nobody makes,
//! coalitions; the share that is found after a minute, and the seconds to a decision.

use std::fmt::Write as _;

use super::Line;
use crate::adversary::at_gateway::attacks::{ActiveOutcome, GatewayReading};
use crate::adversary::at_gateway::decision::{Decision, FALSE_ALARMS};
use crate::adversary::{coalition, holds};

/// What is asked, in words.
pub fn question(reading: GatewayReading) -> &'static str {
    match reading {
        GatewayReading::InACall => "own gateway: in a call or not",
        GatewayReading::With => "the peer's gateway: with whom",
        GatewayReading::Rate => "own gateway: how much comes",
        GatewayReading::Unreadable => "the exit: unreadable packets",
    }
}

/// An adversary and when it decides.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The system: Shoal, and what is done to it or left out of it.
    pub system: String,
    /// A workload of the scoreboard that stands by itself: one of [`super::ALONE`].
    pub workload: &'static str,
    /// What is asked, in words.
    pub question: String,
    /// When it is answered.
    pub decision: Decision,
}

impl Decided {
    /// Of an adversary who acts.
    pub fn active(outcome: &ActiveOutcome) -> Self {
        Self {
            system: format!("shoal, {}", outcome.name),
            workload: "active",
            question: question(outcome.reading).into(),
            decision: outcome.decision.clone(),
        }
    }

    /// Of one who holds frames and looks everywhere.
    pub fn holds(found: &holds::HoldFinding) -> Self {
        Self {
            system: format!("shoal, {}", found.name),
            workload: "active",
            question: found.reading.name().into(),
            decision: found.decision.clone(),
        }
    }

    /// Of a coalition.
    pub fn coalition(found: &coalition::CoalitionFinding) -> Self {
        Self {
            system: format!("shoal, coalition: {}", found.name),
            workload: "coalition",
            question: found.reading.name().into(),
            decision: found.decision.clone(),
        }
    }
}

/// A line for each adversary, of a system of its own, so that Holm's correction over Shoal itself leaves them out:
/// THREAT-MODEL names them with their size.
pub fn lines(decided: &[Decided]) -> Vec<Line> {
    let line = |one: &Decided| {
        let (seconds, share) = one.decision.found.last()?;
        let minute = (*seconds - 60.0).abs() < 1e-9;
        Some(Line {
            system: one.system.clone(),
            workload: one.workload.into(),
            attack: one.question.clone(),
            score: if minute { "found_in_a_minute" } else { "found_at_the_end" }.into(),
            value: *share,
            prior: FALSE_ALARMS,
            p: one.decision.p,
            beats_prior: false,
        })
    };
    decided.iter().filter_map(line).collect()
}

/// Seconds to a decision, a line for each adversary.
pub fn table(decided: &[Decided]) -> String {
    let mut text = String::from(
        "\nseconds to a decision at 1 % false alarms (median of what is looked for)\n",
    );
    for Decided { system, question, decision, .. } in decided {
        let median = decision.median_s.map_or_else(|| "none".into(), |s| format!("{s:.0}"));
        let (at, share) =
            decision.found.last().map_or((f64::NAN, f64::NAN), |(at, share)| (*at, share.value));
        let share = 100.0 * share;
        let _ = writeln!(text, "{median:>10}  {share:5.1} % after {at:.0} s  {system}; {question}");
    }
    text
}
