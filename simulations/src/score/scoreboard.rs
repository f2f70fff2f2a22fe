//! The scoreboard: the same workload, the same attacks, one table.

pub mod active;
pub mod downloads;
pub mod off;
pub mod structure;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Time};

pub use table::table;

use crate::adversary::attacks::{self, Answer, Attack};
use crate::experiment::Estimate;
use crate::score::scores::{self, RecordKind};
use crate::stats;
use crate::trace::{Truth, View};

/// The chance that any line of a system is said to beat the prior when none does.
pub const ALPHA: f64 = 0.05;

/// Attacks that need more than links of clients: without it they make no line.
const NEEDS_MORE: [&str; 9] = [
    "direct",
    "inside",
    "first_mixes",
    "first_hops",
    "missing_mixes",
    "last_mixes",
    "epoch_bytes",
    "arrival_counts",
    "follow",
];

/// Attacks that rebuild rows: where they rebuild none, they score zero.
const MAKES_ROWS: [&str; 7] =
    ["matching", "flow_starts", "records", "first_mixes", "first_hops", "last_mixes", "follow"];

/// Shoal, and Shoal with corrupt nodes, are corrected together: their systems begin like this.
const SHOAL: &str = "shoal";

/// Workloads whose rows each stand by themselves: adversaries that THREAT-MODEL names with their size, and rows in which a
/// protection is off.
pub const ALONE: [&str; 3] = ["active", "coalition", off::WORKLOAD];

/// A line of the table: one score of one attack on one system.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The system: "shoal", "telecom", ...
    pub system: String,
    /// The workload: "text" or "call".
    pub workload: String,
    /// The name of the attack.
    pub attack: String,
    /// The score, as in [`scores::Score::name`].
    pub score: String,
    /// Its value, 0 to 1, with its 95 % interval.
    pub value: Estimate,
    /// The prior-only guess.
    pub prior: f64,
    /// One-sided p-value of "no better than the prior".
    pub p: f64,
    /// True if p is significant after Holm's correction over all lines of the system, and over all of Shoal whichever
    /// nodes are corrupt; set by [`correct`].
    pub beats_prior: bool,
}

/// Runs all attacks on a view and scores what they find. [`correct`] must follow, once all lines of a system are
/// there. Attacks that have nothing to go by (no link from person to person, no corrupt node) make no line.
pub fn score_view(
    system: &str,
    workload: &str,
    view: &View,
    truth: &Truth,
    seed: u64,
) -> Vec<Line> {
    let single = attacks::single().into_iter();
    let mut answers: BTreeMap<&'static str, Answer> =
        single.map(|attack| (attack.name(), attack.run(view))).collect();
    let records = attacks::combine(view, &answers);
    answers.insert(attacks::Records.name(), records);
    let score = |attack: Box<dyn Attack>| {
        let answer = answers.get(attack.name())?;
        Some(score_answer((system, workload, attack.name()), answer, view, truth, seed))
    };
    attacks::all().into_iter().filter_map(score).flatten().collect()
}

/// The lines of one attack's answer: (system, workload, attack).
pub fn score_answer(
    (system, workload, attack): (&str, &str, &str),
    answer: &Answer,
    view: &View,
    truth: &Truth,
    seed: u64,
) -> Vec<Line> {
    if answer.is_empty() && NEEDS_MORE.contains(&attack) {
        return Vec::new();
    }
    let seed = Seed::from_u64(seed).part("scoreboard").part(system).part(workload).part(attack);
    let (people, kind) = (view.public.people, RecordKind::of(truth));
    let mut all = scores::scores(answer, truth, people, kind, &seed);
    if answer.rows.is_empty() && MAKES_ROWS.contains(&attack) {
        all.extend(scores::of_rows(answer, truth, people, kind, &seed));
    }
    if attack == "records" {
        let (begin, end) = (view.public.begin.as_nanos(), view.public.end.as_nanos());
        let middle = Time::from_nanos(begin / 2 + end / 2);
        all.extend(scores::graph::scores(&answer.rows, truth, middle, people, &seed));
    }
    let line = |score: scores::Score| Line {
        system: system.into(),
        workload: workload.into(),
        attack: attack.into(),
        score: score.name.into(),
        value: score.value,
        prior: score.prior,
        p: score.p,
        beats_prior: false,
    };
    all.into_iter().map(line).collect()
}

/// What is corrected together.
fn family(line: &Line) -> &str {
    let alone = ALONE.contains(&line.workload.as_str());
    if !alone && line.system.starts_with(SHOAL) { SHOAL } else { &line.system }
}

/// Says which lines beat the prior, corrected over all lines of the same system, and over all of Shoal together.
pub fn correct(lines: &mut [Line]) {
    let families: BTreeSet<String> = lines.iter().map(|line| family(line).to_owned()).collect();
    for name in families {
        let mut own: Vec<&mut Line> =
            lines.iter_mut().filter(|line| family(line) == name).collect();
        let adjusted = stats::holm(&own.iter().map(|line| line.p).collect::<Vec<f64>>());
        for (line, p) in own.iter_mut().zip(adjusted) {
            line.beats_prior = p < ALPHA;
        }
    }
}

/// Something that must hold of the table.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Requirement {
    /// What, in words.
    pub what: String,
    /// What was obtained.
    pub obtained: f64,
    /// What is needed.
    pub needed: f64,
    /// True if it holds.
    pub holds: bool,
}

/// R-precision that the best attack must reach, by system and workload. As section 3 of `reproduce` shows, without mixing and
/// cover nearly all edges are found (.899 at 3 s of mixing already), and calls that are pushed down are.
const SUCCEEDS: [(&str, &str, f64); 7] = [
    ("telecom", "text", 0.999),
    ("telecom", "call", 0.999),
    ("vpn", "text", 0.9),
    ("vpn", "call", 0.9),
    ("onion", "text", 0.9),
    ("onion", "call", 0.9),
    ("nym", "call", 0.5),
];

/// What is not hidden, by a part of the name of the system, and the workload: THREAT-MODEL says so, and how much of it
/// shows.
const NAMED: [(&str, &str); 4] = [
    // A coalition that owns paths from end to end.
    ("all of these corrupt", "text"),
    ("all of these corrupt", "call"),
    // Gateways see that more arrives for who downloads.
    ("1 of 2 gateways corrupt", "download"),
    ("both gateways corrupt", "download"),
];

fn is_named(line: &Line) -> bool {
    let fits = |(system, workload): &(&str, &str)| {
        line.system.ends_with(system) && line.workload == *workload
    };
    NAMED.iter().any(fits)
}

/// What must hold: no attack beats the prior on Shoal, whichever nodes are corrupt, but where THREAT-MODEL names it; and on each
/// baseline that is in the table, and where a protection is off, it succeeds. `lines` must have gone through [`correct`].
pub fn requirements(lines: &[Line]) -> Vec<Requirement> {
    let mut checks = Vec::new();
    let of_shoal = || lines.iter().filter(|line| family(line) == SHOAL);
    if of_shoal().next().is_some() {
        let judged = of_shoal().filter(|line| !is_named(line));
        let beaten: Vec<String> = judged
            .filter(|line| line.beats_prior)
            .map(|line| format!("{} ({}, {})", line.attack, line.system, line.workload))
            .collect();
        let which = if beaten.is_empty() {
            String::new()
        } else {
            format!(
                ": {}",
                beaten
                    .iter()
                    .cloned()
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        };
        checks.push(Requirement {
            what: format!("{SHOAL}: scores that beat the prior{which}"),
            obtained: beaten.len() as f64,
            needed: 0.0,
            holds: beaten.is_empty(),
        });
    }
    for line in lines.iter().filter(|line| line.workload == off::WORKLOAD) {
        // That which is made up with paths as they are is there for comparison.
        let fresh = line.system.contains("paths fresh");
        checks.extend((!fresh).then(|| Requirement {
            what: format!("{}: {}, {}", line.system, line.attack, line.score),
            obtained: line.value.value,
            needed: line.prior,
            holds: line.beats_prior && line.value.value > line.prior,
        }));
    }
    for (system, workload, needed) in SUCCEEDS {
        let own = lines.iter().filter(|l| l.system == system && l.workload == workload);
        let precision = own.filter(|line| line.score == "r_precision");
        let best = precision.max_by(|a, b| a.value.value.total_cmp(&b.value.value));
        if let Some(best) = best {
            checks.push(Requirement {
                what: format!(
                    "{system}, {workload}: R-precision of the best attack ({})",
                    best.attack
                ),
                obtained: best.value.value,
                needed,
                holds: best.value.value >= needed && best.beats_prior,
            });
        }
    }
    checks
}

/// The lines and the checks as JSON.
///
/// # Errors
/// None that these types can cause.
pub fn json(lines: &[Line], checks: &[Requirement]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct All<'a> {
        lines: &'a [Line],
        checks: &'a [Requirement],
    }
    serde_json::to_string_pretty(&All { lines, checks })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
