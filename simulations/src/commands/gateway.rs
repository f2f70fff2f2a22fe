//! `shoal-sim gateway`: what a person's own gateway can tell, and what adversaries who act can.

use std::io::Write;

use rayon::prelude::*;
use serde_json::{Value, json};

use super::{Usage, pool};
use crate::adversary::at_gateway::attacks::{
    self, ActiveAdversary, ActiveOutcome, GatewayReading, Instant,
};
use crate::adversary::at_gateway::experiments::{Busy, Case, steady};
use crate::adversary::at_gateway::receipts::{Hint, Ranked, Ring};
use crate::experiment::Estimate;
use crate::score::scoreboard::active::question;

/// Options of `shoal-sim gateway`.
#[derive(clap::Args, Clone, Debug)]
pub struct GatewayArgs {
    /// What to ask: "steady" (whether arrivals follow one law), "onsets" (beginnings, ends, bursts), "active" (stalls,
    /// holds, injections, tags: seconds to a decision), "release" (a release at the first mix that counts from the slot) or
    /// "receipts" (whether receipts tell who wrote).
    pub question: String,
    /// Class of all people, for "steady", "onsets" and "receipts".
    #[arg(long, default_value = "call", value_name = "NAME")]
    pub class: String,
    /// Pairs of people who do something; as many do nothing ("steady": all, for half of the time; "receipts": all).
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub pairs: u32,
    /// How long, of virtual time.
    #[arg(long, default_value_t = 305.0, value_name = "SECONDS")]
    pub seconds: f64,
    /// Share of TCP segments that access links lose.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub access_loss: f64,
    /// Jitter of access links.
    #[arg(long, default_value_t = 0.0, value_name = "MS")]
    pub access_jitter_ms: f64,
    /// Arrivals from others take no loop's place: what the tests must then find.
    #[arg(long)]
    pub without_credits: bool,
    /// People are members of an organisation: their messages have sessions, second copies and receipts.
    #[arg(long)]
    pub members: bool,
    /// With "receipts": how many messages each member writes, one each --every seconds.
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub messages: u32,
    /// With "receipts": the mean time between two of them.
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS", value_parser = seconds)]
    pub every: f64,
    /// Receipts leave at once and do not wait a drawn time: what "receipts" must then find.
    #[arg(long)]
    pub receipts_at_once: bool,
    /// Letters leave at once and do not wait a drawn time: what the tests must then find.
    #[arg(long)]
    pub letters_at_once: bool,
    /// What everything is drawn from.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Threads; one for each core unless given. Results do not depend on it.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Print one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// Permutations of a test.
const PERMUTATIONS: u32 = 10_000;

/// Seconds between two messages.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (1.0..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "must be 1 to 86400".into())
}

/// Answers the question.
///
/// # Errors
/// An unknown question, a setting that cannot be, the writer's.
pub fn gateway(args: &GatewayArgs, to: &mut dyn Write) -> anyhow::Result<()> {
    let answer = match args.question.as_str() {
        "steady" => pool(args.threads)?.install(|| ask_steady(args))?,
        "onsets" => pool(args.threads)?.install(|| ask_onsets(args))?,
        "active" => pool(args.threads)?.install(|| ask_active(args))?,
        "release" => pool(args.threads)?.install(|| ask_release(args))?,
        "receipts" => ask_receipts(args)?,
        other => {
            let why = format!("no question \"{other}\": steady, onsets, active, release, receipts");
            return Err(Usage(why).into());
        }
    };
    if args.json {
        writeln!(
            to,
            "{}",
            json!({ "seed": args.seed, "rows": answer.iter().map(|(_, v)| v).collect::<Vec<_>>() })
        )?;
    } else {
        for (line, _) in answer {
            writeln!(to, "{line}")?;
        }
    }
    Ok(())
}

/// A line for people and a value for programs.
type Row = (String, Value);

fn case(args: &GatewayArgs, busy: Busy, seed: u64) -> Case {
    let mut case = Case::new(&args.class, busy, (args.pairs, args.seconds, seed));
    case.settings.people.access_loss = args.access_loss;
    case.settings.people.access_jitter_ms = args.access_jitter_ms;
    case.settings.trial.credits = !args.without_credits;
    case.settings.trial.letters_wait = !args.letters_at_once;
    if args.members {
        case.settings.people.make_members();
    }
    case
}

/// Who wrote, of a ring of members.
fn ask_receipts(args: &GatewayArgs) -> anyhow::Result<Vec<Row>> {
    let size = (4 * args.pairs, args.messages, args.every);
    let mut ring = Ring::new(&args.class, size, args.seed);
    let trial = &mut ring.settings.trial;
    trial.credits = !args.without_credits;
    trial.letters_wait = !args.letters_at_once;
    trial.receipts_wait = !args.receipts_at_once;
    let (ranked, report) = ring.run()?;
    let of_service = (report.service.message_delays_s.len(), report.service.receipt_delays_s.len());
    let row = |of: &Ranked| {
        let hint = match of.hint {
            Hint::Receipt(mean_s) => format!("receipts {mean_s} s later on average"),
            Hint::Room(within_s) => format!("room for the letter within {within_s} s"),
        };
        let told = if of.is_told { ", told when messages came" } else { "" };
        let line = format!(
            "class {}, {} members, {} messages each; {hint}{told}: the writer is first for {} of {} readers, by chance {:.1}; mean rank {:.2} \
             (0 first, 1 last); p = {:.3}; {} messages read, {} receipts",
            args.class,
            ring.people,
            ring.messages,
            of.first,
            of.readers,
            of.readers as f64 / f64::from(ring.people - 1),
            of.mean_rank,
            of.p,
            of_service.0,
            of_service.1,
        );
        let value = json!({
            "class": args.class, "members": ring.people, "messages": ring.messages, "hint": hint, "told": of.is_told,
            "first": of.first, "readers": of.readers, "mean_rank": of.mean_rank, "p": of.p,
            "read": of_service.0, "receipts": of_service.1,
        });
        (line, value)
    };
    Ok(ranked.iter().map(row).collect())
}

/// What may be done in rest of each class.
fn activities(class: &str) -> Vec<(&'static str, Busy)> {
    let mut all = vec![
        ("nothing", Busy::Nothing),
        ("a message every 10 s", Busy::Messages(10.0)),
        ("a message every 1 s", Busy::Messages(1.0)),
    ];
    if class != "text" {
        all.extend([("a message every 0.4 s", Busy::Messages(0.4)), ("a call", Busy::Call)]);
    }
    all
}

fn ask_steady(args: &GatewayArgs) -> anyhow::Result<Vec<Row>> {
    let ask = |(name, busy): &(&str, Busy)| {
        let (tested, arrivals) = steady(&case(args, *busy, args.seed), PERMUTATIONS)?;
        let largest: Vec<String> =
            tested.differences.iter().take(3).map(|(of, z)| format!("{of} {z:.1}")).collect();
        let line = format!(
            "class {}, {name}: p = {:.4} over {} and {} blocks of 20 s, {arrivals} arrivals; largest: {}",
            args.class,
            tested.p,
            tested.blocks.0,
            tested.blocks.1,
            largest.join(", ")
        );
        let value = json!({
            "class": args.class, "activity": name, "p": tested.p, "arrivals": arrivals,
            "blocks": [tested.blocks.0, tested.blocks.1],
            "differences": tested.differences,
        });
        Ok((line, value))
    };
    activities(&args.class).par_iter().map(ask).collect()
}

fn ask_onsets(args: &GatewayArgs) -> anyhow::Result<Vec<Row>> {
    // Letters wait some seconds, and class text has few slots: what follows a burst shall be over before the next one.
    let every = match args.class.as_str() {
        "text" => 120.0,
        "call" => 60.0,
        _ => 25.0,
    };
    let mut asked: Vec<(Busy, Vec<Instant>)> = [1, 2, 3, 4, 8, 16]
        .map(|count| (Busy::Bursts(count, every), vec![Instant::Written, Instant::Read]))
        .into();
    if args.class != "text" {
        asked.push((Busy::Calls(8.0), vec![Instant::Begin, Instant::End]));
    }
    let ask = |(busy, instants): &(Busy, Vec<Instant>)| {
        let [train, test] = [1_000, 0].map(|more| case(args, *busy, args.seed + more));
        let (learned, ran) = (train.run()?, test.run()?);
        let one = |instant: &Instant| {
            let found = attacks::onsets((&train, &learned), (&test, &ran), *instant)?;
            let of = match busy {
                Busy::Bursts(count, _) => format!(" of {count}"),
                _ => String::new(),
            };
            let line = format!(
                "class {}, {}{of}: found {} at {} false alarms",
                args.class,
                instant.name(),
                percent(found.share),
                percent(found.false_alarms)
            );
            let value = json!({
                "class": args.class, "instant": instant.name(), "busy": format!("{busy:?}"),
                "found": found.share, "false_alarms": found.false_alarms,
            });
            Some((line, value))
        };
        Ok(instants.iter().filter_map(one).collect::<Vec<Row>>())
    };
    let rows = asked.par_iter().map(ask).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(rows.into_iter().flatten().collect())
}

fn ask_active(args: &GatewayArgs) -> anyhow::Result<Vec<Row>> {
    let size = (args.pairs, args.seconds, args.seed);
    let all = attacks::adversaries(size);
    let mut rows = all
        .par_iter()
        .with_max_len(1)
        .map(|active| Ok(row(&active.run()?)))
        .collect::<anyhow::Result<Vec<Row>>>()?;
    rows.push(row(&attacks::tags((1, args.seconds, args.seed), 0.02)?));
    Ok(rows)
}

fn row(outcome: &ActiveOutcome) -> Row {
    let reads = question(outcome.reading);
    let decided = outcome
        .decision
        .median_s
        .map_or_else(|| "no decision in 60 s".into(), |s| format!("decided after {s:.0} s"));
    let found: Vec<String> = outcome
        .decision
        .found
        .iter()
        .map(|(s, of)| format!("{} after {s:.0} s", percent(*of)))
        .collect();
    let (busy, idle) = outcome.trials;
    let line = format!(
        "{}; {reads}: {decided}; found {} ({busy} and {idle} trials)",
        outcome.name,
        found.join(", ")
    );
    let value = json!({
        "adversary": outcome.name, "reading": reads, "median_s": outcome.decision.median_s,
        "found": outcome.decision.found, "trials": [busy, idle],
        "voice_delay_s": [outcome.voice_s.0, outcome.voice_s.1],
    });
    (line, value)
}

/// Stalls and holds with the release at the first mix, and what it costs.
fn ask_release(args: &GatewayArgs) -> anyhow::Result<Vec<Row>> {
    let base: Vec<ActiveAdversary> = attacks::adversaries((args.pairs, args.seconds, args.seed));
    let wanted = |active: &&ActiveAdversary| {
        active.reading == GatewayReading::InACall
            && ["0.3 %", "for 0.2 s"].iter().any(|part| active.name.contains(part))
    };
    let mut jobs = Vec::new();
    for active in base.iter().filter(wanted) {
        for release_ms in [0.0, 60.0, 100.0, 150.0, 250.0] {
            let mut active = active.clone();
            active.case.settings.trial.release_ms = release_ms;
            active.name = match release_ms {
                0.0 => format!("{}; no release", active.name),
                ms => format!("{}; released {ms:.0} ms after the slot", active.name),
            };
            jobs.push(active);
        }
    }
    let ask = |active: &ActiveAdversary| {
        let outcome = active.run()?;
        let (line, value) = row(&outcome);
        let (median, most) = outcome.voice_s;
        let costs = format!("; voice {:.0} ms, 99 %: {:.0} ms", 1e3 * median, 1e3 * most);
        Ok((line + &costs, value))
    };
    jobs.par_iter().with_max_len(1).map(ask).collect()
}

fn percent(of: Estimate) -> String {
    format!("{:.1} % ({:.1} to {:.1})", 100.0 * of.value, 100.0 * of.low, 100.0 * of.high)
}
