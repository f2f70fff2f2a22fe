//! `shoal-sim attack`: attacks on a trace that a run left behind.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Value, json};
use shoal_topology::{Seed, Time};

use super::table::number;
use crate::adversary::attacks::{self, Answer};
use crate::harness::figures::Figure;
use crate::harness::output::{read_truth, read_view, write_atomic};
use crate::score::scores::{self, Claims, Score};
use crate::trace::{Party, Pass, Public, Record, Trace, Truth, View};

/// Options of `shoal-sim attack`.
#[derive(clap::Args, Clone, Debug)]
pub struct AttackArgs {
    /// What `shoal-sim run --out` left.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// At the view of each corrupt gateway alone: what it passed, and the links that end at it.
    #[arg(long)]
    pub each_gateway: bool,
    /// Of the priors' permutations.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Print one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// What an attack found, and how good it is.
#[derive(Clone, Debug)]
pub struct AttackResult {
    /// The attack's name.
    pub attack: &'static str,
    /// What it found.
    pub answer: Answer,
    /// Its scores; none where the truth is not known.
    pub scores: Vec<Score>,
    /// How many calls it rebuilt, where it claims to have rebuilt any.
    pub claims: Option<Claims>,
}

/// Reads a directory, runs all attacks on what was observed, then scores them; leaves `attack.json` and the timeline.
///
/// # Errors
/// The directory has no trace, or cannot be written.
pub fn attack(args: &AttackArgs, to: &mut dyn Write) -> anyhow::Result<()> {
    let view = read_view(&args.dir)?;
    if view.trace.links.is_empty() && view.passes.is_empty() {
        anyhow::bail!(
            "nothing was observed in {}: trace.parquet and passes.parquet have no rows, so there is nothing to attack; run \
             the scenario with observer.links = \"all\", or name observer.corrupt_nodes",
            args.dir.display()
        );
    }
    if args.each_gateway {
        return each_gateway(args, &view, to);
    }
    // All attacks have ended before the truth is read.
    let answers = guess(&view);
    let truth = read_truth(&args.dir, view.public.people)?;
    let seed = Seed::from_u64(args.seed);
    let found = score(answers, truth.as_ref(), view.public.people, &seed);
    let report = json!({ "dir": args.dir.display().to_string(), "seed": args.seed, "attacks": to_json(&found) });
    write_atomic(&args.dir.join("attack.json"), |file| Ok(writeln!(file, "{report:#}")?))?;
    if let Some(truth) = truth {
        draw(&args.dir, &view.public, truth, &found)?;
    }
    if args.json {
        writeln!(to, "{report}")?;
        return Ok(());
    }
    let what = ["attack", "score", "value", "95 % interval", "prior", "p"];
    let [attack, score, value, interval, prior, p] = what;
    writeln!(to, "{attack:16}  {score:24}  {value:>9}  {interval:23}  {prior:>9}  {p}")?;
    for found in &found {
        if found.scores.is_empty() {
            let (pairs, rows) = (found.answer.pairs.len(), found.answer.rows.len());
            writeln!(to, "{:16}  {pairs} pairs, {rows} rows", found.attack)?;
        }
        for score in &found.scores {
            let interval = format!("{} to {}", number(score.value.low), number(score.value.high));
            writeln!(
                to,
                "{:16}  {:24}  {:>9}  {interval:23}  {:>9}  {:.4}",
                found.attack,
                score.name,
                number(score.value.value),
                number(score.prior),
                score.p
            )?;
        }
        if let Some(Claims { records, rebuilt, claims, right }) = found.claims {
            writeln!(
                to,
                "{:16}  {rebuilt} of {records} calls of 3 s and more rebuilt; {right} of {claims} claims true",
                found.attack
            )?;
        }
    }
    Ok(())
}

/// The same by each gateway that tells what it passed; leaves `attack-gateways.json`.
fn each_gateway(args: &AttackArgs, view: &View, to: &mut dyn Write) -> anyhow::Result<()> {
    let gateways: BTreeSet<u32> =
        view.passes.iter().filter(|pass| serves(pass)).map(|pass| pass.node).collect();
    if gateways.is_empty() {
        anyhow::bail!("no gateway is corrupt there: observer.corrupt_nodes names those that are");
    }
    let guess = |gateway: &u32| (*gateway, guess(&at_gateway(view, *gateway)));
    // All attacks at all gateways have ended before the truth is read.
    let answers: Vec<_> = gateways.par_iter().map(guess).collect();
    let truth = read_truth(&args.dir, view.public.people)?;
    let seed = Seed::from_u64(args.seed);
    let mut report = Vec::new();
    for (gateway, answers) in answers {
        let seed = seed.part(&format!("gateway {gateway}"));
        let found = score(answers, truth.as_ref(), view.public.people, &seed);
        let scores = found.iter().flat_map(|found| &found.scores);
        let least = scores.clone().map(|score| score.p).fold(1.0, f64::min);
        let rows: usize = found.iter().map(|found| found.answer.rows.len()).sum();
        if !args.json {
            writeln!(
                to,
                "gateway {gateway}: {} scores, least p {least:.4}; {rows} rows",
                scores.count()
            )?;
        }
        for (attack, claims) in found.iter().filter_map(|f| Some((f.attack, f.claims?))) {
            let Claims { records, rebuilt, claims, right } = claims;
            if !args.json {
                writeln!(
                    to,
                    "  {attack}: {rebuilt} of {records} calls of 3 s and more rebuilt; {right} of {claims} claims true"
                )?;
            }
        }
        report.push(json!({ "gateway": gateway, "least_p": least, "attacks": to_json(&found) }));
    }
    let report =
        json!({ "dir": args.dir.display().to_string(), "seed": args.seed, "gateways": report });
    write_atomic(&args.dir.join("attack-gateways.json"), |file| Ok(writeln!(file, "{report:#}")?))?;
    if args.json {
        writeln!(to, "{report}")?;
    }
    Ok(())
}

/// True if a pass has a person at one end: only gateways have such.
fn serves(pass: &Pass) -> bool {
    [pass.from, pass.to].into_iter().any(|party| matches!(party, Party::Person(_)))
}

/// What one gateway sees.
fn at_gateway(view: &View, gateway: u32) -> View {
    let node = Party::Node(gateway);
    let links = view.trace.links.iter().filter(|(link, _)| [link.from, link.to].contains(&node));
    View {
        public: view.public.clone(),
        trace: Trace { links: links.map(|(link, flow)| (*link, flow.clone())).collect() },
        passes: view.passes.iter().filter(|pass| pass.node == gateway).copied().collect(),
    }
}

fn guess(view: &View) -> Vec<(&'static str, Answer)> {
    attacks::all().iter().map(|attack| (attack.name(), attack.run(view))).collect()
}

fn score(
    answers: Vec<(&'static str, Answer)>,
    truth: Option<&Truth>,
    people: u32,
    seed: &Seed,
) -> Vec<AttackResult> {
    let one = |(attack, answer): (&'static str, Answer)| {
        let scores = truth.map_or_else(Vec::new, |truth| {
            let kind = scores::RecordKind::of(truth);
            scores::scores(&answer, truth, people, kind, &seed.part(attack))
        });
        let claims = truth.filter(|_| !answer.rows.is_empty()).map(|t| Claims::of(&answer, t));
        AttackResult { attack, answer, scores, claims: claims.filter(|claims| claims.claims > 0) }
    };
    answers.into_iter().map(one).collect()
}

fn to_json(found: &[AttackResult]) -> Value {
    let score = |score: &Score| {
        json!({
            "score": score.name,
            "value": score.value.value,
            "low": score.value.low,
            "high": score.value.high,
            "prior": score.prior,
            "p": score.p,
        })
    };
    let one = |found: &AttackResult| {
        json!({
            "attack": found.attack,
            "pairs": found.answer.pairs.len(),
            "rows": found.answer.rows.len(),
            "claims": found.claims.map(|c| json!({
                "calls_of_3_s": c.records,
                "rebuilt": c.rebuilt,
                "claims": c.claims,
                "true": c.right,
            })),
            "scores": found.scores.iter().map(score).collect::<Vec<_>>(),
        })
    };
    found.iter().map(one).collect::<Vec<_>>().into()
}

/// The true records above the rows of the attack that made most of them right.
fn draw(dir: &Path, public: &Public, truth: Truth, found: &[AttackResult]) -> anyhow::Result<()> {
    let right = |found: &&AttackResult| {
        let score = found.scores.iter().find(|score| score.name == "start_within_10_s");
        score.map_or(0.0, |score| score.value.value)
    };
    let rebuilt = found.iter().filter(|found| !found.answer.rows.is_empty());
    // Where none rebuilds a row, what stays hidden is shown all the same.
    let best = rebuilt.max_by(|a, b| right(a).total_cmp(&right(b)));
    let (name, mut rows) =
        best.map_or(("records", Vec::new()), |best| (best.attack, best.answer.rows.clone()));
    rows.sort_by(|a, b| b.score.total_cmp(&a.score));
    // As many as there really were: those that it is surest of.
    rows.truncate(truth.records.len());
    let record = |row: &attacks::RebuiltRecord| Record {
        caller: row.caller,
        callee: row.callee,
        start: Time::from_nanos((row.start_s.max(0.0) * 1e9) as u64),
        duration_s: row.duration_s,
    };
    let figure = Figure::Timeline {
        title: format!("Call records, and what the attack \"{}\" made of the trace", name),
        people: public.people,
        begin_s: public.begin.as_secs_f64(),
        end_s: public.end.as_secs_f64(),
        reconstructed: rows.iter().map(record).collect(),
        truth,
    };
    figure.save(dir, "timeline")?;
    Ok(())
}
