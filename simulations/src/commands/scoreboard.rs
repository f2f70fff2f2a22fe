//! `shoal-sim scoreboard`: the same workloads through Shoal and the systems beside it, and what the same attacks make
//! of each.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::{Usage, VERSION, bar, pool};
use crate::adversary::at_gateway::attacks::{self, ActiveOutcome};
use crate::adversary::{coalition, holds};
use crate::experiment::Measured;
use crate::harness::output::{OutputDirectory, scoreboard_figure, write_scoreboard};
use crate::score::scoreboard::active::Decided;
use crate::score::scoreboard::{self, ALONE, Line, Requirement};
use crate::systems::{self, System};
use crate::trace::View;
use crate::workload::{Workload, WorkloadKind, WorkloadSettings};
use crate::world;

/// Options of `shoal-sim scoreboard`.
#[derive(clap::Args, Clone, Debug)]
pub struct ScoreboardArgs {
    /// Shorter windows and fewer people: minutes in place of an hour.
    #[arg(long)]
    pub quick: bool,
    /// What everything is drawn from.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// One workload alone: text, call, download, active (adversaries who act, and stalls), coalition (operators who work
    /// together), structure (the first corrupt path, the entropy of a packet) or off (attacks where a protection is off).
    #[arg(long, value_name = "NAME")]
    pub workload: Option<String>,
    /// These systems alone, each with an option of its own: shoal, telecom, vpn, onion, nym, or a part of the name of
    /// a row of Shoal with corrupt nodes.
    #[arg(long = "system", value_name = "NAME")]
    pub systems: Vec<String>,
    /// Threads; one for each core unless given. Results do not depend on it.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Leave the table as Parquet and JSON, and figures, in this directory.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// Workloads that no system beside Shoal has.
const OF_ITS_OWN: [&str; 4] = ["active", "coalition", "structure", "off"];

impl ScoreboardArgs {
    /// True if a workload that no system beside Shoal has is on the scoreboard.
    fn asks(&self, workload: &str) -> bool {
        let whole = self.workload.is_none() && self.systems.is_empty();
        whole || self.workload.as_deref() == Some(workload)
    }

    /// What becomes of adversaries who decide after a while.
    fn decided(&self) -> anyhow::Result<Vec<Decided>> {
        let (pairs, seconds) = if self.quick { (3, 185.0) } else { (10, 605.0) };
        let size = (pairs, seconds, self.seed);
        let mut all = Vec::new();
        if self.asks("active") {
            let adversaries = attacks::adversaries(size).into_par_iter().with_max_len(1);
            let mut outcomes: Vec<ActiveOutcome> =
                adversaries.map(|active| active.run()).collect::<anyhow::Result<_>>()?;
            outcomes.push(attacks::tags((1, seconds, self.seed), 0.02)?);
            all.extend(outcomes.iter().map(Decided::active));
            let lengths = [200.0, 500.0, 1_000.0, 2_000.0].into_par_iter().with_max_len(1);
            let found: Vec<_> = lengths
                .map(|hold_ms| holds::rows(&[hold_ms], size))
                .collect::<anyhow::Result<_>>()?;
            all.extend(found.iter().flatten().map(Decided::holds));
        }
        if self.asks("coalition") {
            let size = if self.quick { (8, 65.0) } else { (20, 125.0) };
            let found = coalition::rows((size.0, size.1, self.seed))?;
            all.extend(found.iter().map(Decided::coalition));
        }
        if self.asks("off") {
            all.extend(scoreboard::off::decided(size)?);
        }
        Ok(all)
    }

    /// Figures of the network's structure.
    fn structure(&self) -> anyhow::Result<Vec<Measured>> {
        if !self.asks("structure") {
            return Ok(Vec::new());
        }
        scoreboard::structure::figures(self.quick, self.seed)
    }
}

/// What must hold of the scoreboard does not. Exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("of the scoreboard does not hold: {0}")]
struct DoesNotHold(String);

/// A workload, and how people are protected in it.
#[derive(Clone, Copy, Serialize)]
struct Field {
    workload: &'static str,
    kind: WorkloadKind,
    /// The class of Shoal's clients in it.
    class: &'static str,
    /// The window, seconds.
    window_s: f64,
    /// The window where nodes are corrupt: what these know of every packet takes memory.
    corrupt_window_s: f64,
    /// Zero for all of the list.
    people: u32,
}

const FIELDS: [Field; 3] = [
    Field {
        workload: "text",
        kind: WorkloadKind::Messages,
        class: "text",
        window_s: 86_400.0,
        corrupt_window_s: 3_600.0,
        people: 0,
    },
    Field {
        workload: "call",
        kind: WorkloadKind::Calls,
        class: "call",
        window_s: 7_200.0,
        corrupt_window_s: 900.0,
        people: 0,
    },
    Field {
        workload: "download",
        kind: WorkloadKind::Download,
        class: "web",
        window_s: 600.0,
        corrupt_window_s: 600.0,
        people: 60,
    },
];

/// Which nodes of Shoal are corrupt: mixes 0 to 8, three a layer, and gateways 9 and 10.
const CORRUPT: [(&str, &[u32]); 4] = [
    ("shoal, 1 of 2 gateways corrupt", &[9]),
    ("shoal, both gateways corrupt", &[9, 10]),
    ("shoal, 1 mix of each layer corrupt", &[0, 3, 6]),
    ("shoal, all of these corrupt", &[0, 3, 6, 9, 10]),
];

/// Share of the segments that access links of people lose.
const LOSSY: [(&str, f64); 3] = [
    ("shoal, access links lose 0.1 %", 0.001),
    ("shoal, access links lose 0.3 %", 0.003),
    ("shoal, access links lose 1 %", 0.01),
];

/// One system under one workload.
#[derive(Clone, Copy)]
struct Case {
    field: Field,
    system: &'static str,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Shoal(&'static [u32]),
    /// With access links that lose so much, and jitter by 10 ms.
    Lossy(f64),
    Baseline(System),
}

fn cases(args: &ScoreboardArgs) -> Result<Vec<Case>, Usage> {
    let fields = FIELDS
        .into_iter()
        .filter(|field| args.workload.as_ref().is_none_or(|workload| workload == field.workload));
    let mut cases = Vec::new();
    for mut field in fields {
        let downloads = field.kind == WorkloadKind::Download;
        if args.quick {
            field.window_s /= if downloads { 5.0 } else { 24.0 };
            field.corrupt_window_s /= 5.0;
            field.people = if downloads { 20 } else { 60 };
        }
        cases.push(Case { field, system: "shoal", what: What::Shoal(&[]) });
        // Of downloads the question is what a gateway sees.
        for (system, nodes) in CORRUPT.into_iter().take(if downloads { 2 } else { 4 }) {
            let field = Field { window_s: field.corrupt_window_s, ..field };
            cases.push(Case { field, system, what: What::Shoal(nodes) });
        }
        for (system, loss) in LOSSY.into_iter().filter(|_| !downloads) {
            let field = Field { window_s: field.corrupt_window_s, ..field };
            cases.push(Case { field, system, what: What::Lossy(loss) });
        }
        for system in System::ALL.into_iter().filter(|_| !downloads) {
            cases.push(Case { field, system: system.name(), what: What::Baseline(system) });
        }
    }
    if !args.systems.is_empty() {
        let wanted = |case: &Case| {
            let exact = args.systems.iter().any(|name| name == case.system);
            exact || args.systems.iter().any(|n| n != "shoal" && case.system.contains(n.as_str()))
        };
        cases.retain(wanted);
    }
    if cases.is_empty() && !OF_ITS_OWN.iter().any(|workload| args.asks(workload)) {
        let names: BTreeSet<&str> = System::ALL.iter().map(|system| system.name()).collect();
        let names: Vec<&str> = names.into_iter().chain(CORRUPT.map(|(name, _)| name)).collect();
        return Err(Usage(format!(
            "no such case: workloads are text, call, download, {}; systems are shoal, {}",
            OF_ITS_OWN.join(", "),
            names.join(", ")
        )));
    }
    Ok(cases)
}

/// What an adversary sees of a case, and what people did.
fn observe(
    case: &Case,
    seed: u64,
    progress: &(dyn Fn(f64) + Sync),
) -> anyhow::Result<(View, Workload)> {
    let Field { kind, window_s, people, .. } = case.field;
    let mut settings = WorkloadSettings { kind, window_s, people, ..WorkloadSettings::default() };
    settings.download.every_s = 120.0;
    let workload = settings.workload(seed)?;
    let view = match case.what {
        What::Baseline(system) => systems::observe(system, &workload, seed),
        What::Shoal(_) | What::Lossy(_) => {
            let mut settings = world::Settings::default();
            settings.class.name = case.field.class.into();
            if let What::Shoal(corrupt) = case.what {
                settings.observer.corrupt_nodes = corrupt.to_vec();
            }
            if let What::Lossy(loss) = case.what {
                settings.people.access_loss = loss;
                settings.people.access_jitter_ms = 10.0;
            }
            if kind == WorkloadKind::Messages {
                // By the deployed engine of messages, with receipts and second copies.
                settings.people.make_members();
            }
            if kind == WorkloadKind::Download {
                // An epoch changes after a third of it, so that what its byte tells is seen.
                let whole_s = settings.warm_up_s + window_s + settings.drain_s;
                settings.network.epoch_s = (whole_s / 1.5).ceil().max(60.0) as u32;
            }
            world::run(&settings, &workload, seed, &progress)?.view
        }
    };
    Ok((view, workload))
}

/// Runs all cases and all attacks, and prints the table.
///
/// # Errors
/// Wrong options, what kept a case from running, or that something which must hold does not.
pub fn scoreboard(args: &ScoreboardArgs, to: &mut dyn Write) -> anyhow::Result<()> {
    let cases = cases(args)?;
    let job = json!({
        "scoreboard": cases.iter().map(|case| (case.system, case.field)).collect::<Vec<_>>(),
        "seed": args.seed,
        "version": VERSION,
    });
    let identity = "scoreboard.json";
    let dir =
        args.out.as_ref().map(|dir| OutputDirectory::open(dir, identity, &job)).transpose()?;
    dir.iter().for_each(OutputDirectory::tidy);
    let shown = bar(1_000);
    let shares = Mutex::new(vec![0.0; cases.len()]);
    let ran = pool(args.threads)?.install(|| {
        let run = |(index, case): (usize, &Case)| {
            let told = |share: f64| {
                let mut shares = shares.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if let Some(of) = shares.get_mut(index) {
                    *of = share;
                }
                let sum: f64 = shares.iter().sum();
                shown.set_position((sum / shares.len() as f64 * 1_000.0) as u64);
            };
            // Attacks take about as long as what they attack.
            let (view, did) = observe(case, args.seed, &|share| told(share / 2.0))?;
            let (system, workload) = (case.system, case.field.workload);
            let lines = match case.field.kind {
                WorkloadKind::Download => {
                    scoreboard::downloads::lines(system, &view, &did, args.seed)
                }
                _ => scoreboard::score_view(system, workload, &view, &did.truth(), args.seed),
            };
            told(1.0);
            Ok(lines)
        };
        cases.par_iter().enumerate().with_max_len(1).map(run).collect::<anyhow::Result<Vec<_>>>()
    });
    shown.finish_and_clear();
    let mut lines: Vec<Line> = ran?.into_iter().flatten().collect();
    let (decided, structure) =
        pool(args.threads)?.install(|| anyhow::Ok((args.decided()?, args.structure()?)))?;
    lines.extend(scoreboard::active::lines(&decided));
    if args.asks("off") {
        lines.extend(pool(args.threads)?.install(|| scoreboard::off::lines(args.seed)));
    }
    scoreboard::correct(&mut lines);
    let checks: Vec<Requirement> = scoreboard::requirements(&lines);
    let decision = |one: &Decided| {
        json!({
            "adversary": one.system,
            "question": one.question,
            "median_s": one.decision.median_s,
            "found": one.decision.found,
        })
    };
    let decisions: Vec<_> = decided.iter().map(decision).collect();
    let report = json!({ "seed": args.seed, "lines": lines, "checks": checks, "decisions": decisions, "structure": structure });
    if let Some(dir) = dir {
        leave(dir.path(), &lines)?;
        dir.identify(&job, report.clone())?;
    }
    if args.json {
        writeln!(to, "{report}")?;
    } else {
        write!(to, "{}", scoreboard::table(&lines, &checks))?;
        if !decided.is_empty() {
            write!(to, "{}", scoreboard::active::table(&decided))?;
        }
        if !structure.is_empty() {
            write!(to, "{}", scoreboard::structure::table(&structure))?;
        }
    }
    // A sample says little of how well attacks succeed on other systems; all else must hold of it too.
    let baseline =
        |check: &Requirement| System::ALL.iter().any(|s| check.what.starts_with(s.name()));
    let judged = checks.iter().filter(|check| !args.quick || !baseline(check));
    let failed: Vec<&str> =
        judged.filter(|check| !check.holds).map(|check| check.what.as_str()).collect();
    if failed.is_empty() { Ok(()) } else { Err(DoesNotHold(failed.join("; ")).into()) }
}

/// The table as Parquet, and a figure of each workload.
fn leave(dir: &Path, lines: &[Line]) -> anyhow::Result<()> {
    write_scoreboard(&dir.join("scoreboard.parquet"), lines)?;
    let own =
        |line: &&Line| !line.system.contains("corrupt") && !ALONE.contains(&line.workload.as_str());
    let plain = lines.iter().filter(own).filter(|line| !line.system.contains("access")).cloned();
    let plain: Vec<Line> = plain.collect();
    for Field { workload, .. } in FIELDS {
        // Downloads have a score of their own: nobody is at their other end.
        let scores = ["r_precision", scoreboard::downloads::SCORE];
        let drawn = scores.iter().find_map(|score| scoreboard_figure(&plain, workload, score));
        if let Some(figure) = drawn {
            figure.save(dir, &format!("scoreboard-{workload}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::experiment::Estimate;

    #[test]
    fn a_scoreboard_of_downloads_alone_leaves_its_table_and_a_figure_of_their_score() {
        let line = |score: &str, value: f64| Line {
            system: "shoal".into(),
            workload: "download".into(),
            attack: "link_rate".into(),
            score: score.into(),
            value: Estimate::exact(value),
            prior: 0.01,
            p: 1.0,
            beats_prior: false,
        };
        let files = |lines: &[Line]| {
            let dir = tempfile::tempdir().unwrap();
            leave(dir.path(), lines).unwrap();
            ["scoreboard.parquet", "scoreboard-download.svg"]
                .map(|file| dir.path().join(file).exists())
        };
        assert_eq!(files(&[line(scoreboard::downloads::SCORE, 0.0)]), [true, true]);
        assert_eq!(files(&[line("signs", f64::NAN)]), [true, false]);
    }
}
