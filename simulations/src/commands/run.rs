//! `shoal-sim run`: one scenario, once or with several seeds.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::table::{merge, print_table};
use super::{Usage, VERSION};
use crate::experiment::{Context, Measured, Outcome};
use crate::harness::figures::Figure;
use crate::harness::output::{
    OutputDirectory, ResultRow, measured_to_json, write_packets, write_rows, write_truth,
    write_view,
};
use crate::harness::scenario::{self, Kind, Scenario};
use crate::stats;

/// Options of `shoal-sim run`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// The scenario, a TOML file.
    #[arg(value_name = "SCENARIO.toml", required_unless_present_any = ["explain", "list"])]
    pub scenario: Option<PathBuf>,
    /// Print a scenario of this experiment with all its keys, what they mean, and their defaults.
    #[arg(long, value_name = "EXPERIMENT")]
    pub explain: Option<String>,
    /// List the experiments.
    #[arg(long)]
    pub list: bool,
    /// Check the scenario, say what it is, and end.
    #[arg(long, conflicts_with_all = ["explain", "list", "out"])]
    pub check: bool,
    /// Seed of the first run, instead of the scenario's.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Leave results, packets, the observer's trace and figures in this directory.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Threads; one for each core unless given. Results do not depend on it.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Print one line of JSON.
    #[arg(long)]
    pub json: bool,
}

// Long: the steps of the command in their order, each of which needs what the ones before it found.
/// Runs a scenario and prints its figures.
///
/// # Errors
/// [`scenario::BadScenario`], [`Usage`], [`crate::harness::output::Foreign`], or what kept the experiment from ending.
pub fn run(args: &RunArgs, kinds: &'static [Kind], to: &mut dyn Write) -> anyhow::Result<()> {
    if args.list {
        for kind in kinds {
            writeln!(to, "{:20} {}", kind.name, kind.about)?;
        }
        return Ok(());
    }
    if let Some(name) = &args.explain {
        let kind = kinds.iter().find(|kind| kind.name == name).ok_or_else(|| {
            let names: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
            Usage(format!("there is no experiment {name:?}; one of: {}", names.join(", ")))
        })?;
        write!(to, "{}", scenario::explain(kind)?)?;
        return Ok(());
    }
    let file = args.scenario.as_ref().context("no scenario")?;
    let mut scenario = scenario::load(file, kinds)?;
    scenario.seed = args.seed.unwrap_or(scenario.seed);
    let job = json!({
        "experiment": scenario.kind.name,
        "settings": scenario.settings,
        "seed": scenario.seed,
        "runs": scenario.runs,
        "version": VERSION,
    });
    if args.check {
        if args.json {
            writeln!(to, "{job}")?;
        } else {
            writeln!(to, "{}: good, experiment {}", file.display(), scenario.kind.name)?;
            for note in scenario.experiment.notes(scenario.seed)? {
                writeln!(to, "{note}")?;
            }
        }
        return Ok(());
    }
    // Before the work, not after it: is there a place for the results?
    let identity = "manifest.json";
    let dir =
        args.out.as_ref().map(|dir| OutputDirectory::open(dir, identity, &job)).transpose()?;
    dir.iter().for_each(OutputDirectory::tidy);
    let keep = if dir.is_some() { Keep::Everything } else { Keep::Figures };
    let runs = execute(&scenario, args.threads, keep)?;
    let figures: Vec<&[Measured]> =
        runs.iter().map(|run| run.outcome.measured.as_slice()).collect();
    let merged = merge(&figures);
    let hashes: Vec<&str> =
        runs.iter().filter_map(|run| run.outcome.trace_hash.as_deref()).collect();
    let mut summary = json!({
        "scenario": file.display().to_string(),
        "title": scenario.title,
        "trace_hashes": hashes,
        "notes": runs.first().map_or(&[][..], |run| &run.outcome.notes),
        "measured": by_name(&merged),
    });
    if let Some(dir) = dir {
        let files = leave(&dir, &scenario, &runs)?;
        if let Some(summary) = summary.as_object_mut() {
            summary.insert("scenario_text".into(), scenario.text.as_str().into());
            summary.insert("files".into(), files);
        }
        // Last: a directory with a manifest has everything.
        dir.identify(&job, summary.clone())?;
    }
    if args.json {
        if let (Some(summary), Value::Object(job)) = (summary.as_object_mut(), job) {
            summary.remove("scenario_text");
            summary.extend(job);
        }
        writeln!(to, "{summary}")?;
    } else {
        writeln!(to, "{}", scenario.title)?;
        let hashes =
            if hashes.is_empty() { String::new() } else { format!(", trace {}", hashes.join(" ")) };
        writeln!(to, "seed {}, runs {}{hashes}\n", scenario.seed, scenario.runs)?;
        for note in runs.first().iter().flat_map(|run| &run.outcome.notes) {
            writeln!(to, "{note}")?;
        }
        print_table(to, &merged)?;
    }
    Ok(())
}

/// A run that ended.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) outcome: Outcome,
}

/// What of the runs is kept in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Packets of all runs and the trace of the first, too.
    Everything,
    /// The figures alone.
    Figures,
}

/// All runs of a scenario, in the order of their seeds whatever the threads do.
fn execute(scenario: &Scenario, threads: Option<usize>, keep: Keep) -> anyhow::Result<Vec<Run>> {
    let bar = bar(scenario.runs * STEPS);
    let done: Vec<anyhow::Result<Run>> = pool(threads)?.install(|| {
        (0..scenario.runs)
            .into_par_iter()
            .map(|number| {
                let seed = scenario.seed.wrapping_add(number);
                let last = AtomicU64::new(0);
                let progress = |share: f64| {
                    let now = (share.clamp(0.0, 1.0) * STEPS as f64) as u64;
                    bar.inc(now.saturating_sub(last.fetch_max(now, Ordering::Relaxed)));
                };
                let mut outcome =
                    scenario
                        .experiment
                        .run(&Context { seed, progress: &progress })
                        .with_context(|| format!("{} with seed {seed}", scenario.kind.name))?;
                progress(1.0);
                if keep == Keep::Figures || number > 0 {
                    outcome.observed = None;
                }
                if keep == Keep::Figures {
                    outcome.packets = Vec::new();
                }
                Ok(Run { seed, outcome })
            })
            .collect()
    });
    bar.finish_and_clear();
    // Of several errors the first run's, whichever came first.
    done.into_iter().collect()
}

/// Parts of a run that a progress bar tells apart.
const STEPS: u64 = 1_000;

/// A bar on a terminal, nothing elsewhere.
pub(crate) fn bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// More than any machine has cores for.
const MOST_THREADS: usize = 1_024;

/// So many threads; one for each core unless given.
pub(crate) fn pool(threads: Option<usize>) -> anyhow::Result<rayon::ThreadPool> {
    if threads.is_some_and(|threads| !(1..=MOST_THREADS).contains(&threads)) {
        Err(Usage(format!("threads must be 1 to {MOST_THREADS}")))?;
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .build()
        .context("starting threads")
}

/// Figures by name, as JSON.
pub(crate) fn by_name(measured: &[Measured]) -> Value {
    let all: Map<String, Value> = measured
        .iter()
        .map(|measured| {
            let mut value = measured_to_json(measured);
            value.as_object_mut().and_then(|value| value.remove("name"));
            (measured.name.clone(), value)
        })
        .collect();
    all.into()
}

/// Writes all files but the manifest; gives their names and sizes.
fn leave(dir: &OutputDirectory, scenario: &Scenario, runs: &[Run]) -> anyhow::Result<Value> {
    let path = dir.path();
    let mut files = vec!["results.parquet".to_owned()];
    let rows: Vec<ResultRow> = runs
        .iter()
        .flat_map(|run| {
            let row = |measured: &Measured| ResultRow {
                labels: Vec::new(),
                seed: run.seed,
                measured: measured.clone(),
            };
            run.outcome.measured.iter().map(row)
        })
        .collect();
    write_rows(&path.join("results.parquet"), &rows)?;
    if runs.iter().any(|run| !run.outcome.packets.is_empty()) {
        let packets = runs.iter().map(|run| (run.seed, run.outcome.packets.as_slice()));
        write_packets(&path.join("packets.parquet"), packets)?;
        files.push("packets.parquet".into());
    }
    // Of several runs the first leaves its trace: the others differ by their seeds alone.
    let observed = runs.first().and_then(|run| run.outcome.observed.as_ref());
    if let Some((view, truth)) = observed {
        write_view(path, view)?;
        write_truth(path, truth)?;
        files.extend(
            ["public.json", "trace.parquet", "passes.parquet", "truth.parquet"].map(String::from),
        );
    }
    files.extend(draw(path, scenario, runs)?);
    let mut sizes = Vec::new();
    for name in files {
        let bytes = fs::metadata(path.join(&name)).with_context(|| name.clone())?.len();
        sizes.push(json!({ "name": name, "bytes": bytes }));
    }
    Ok(sizes.into())
}

/// Latency and entropy of the packets that were followed.
fn draw(dir: &Path, scenario: &Scenario, runs: &[Run]) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    for (name, figure) in runs.first().iter().flat_map(|run| &run.outcome.figures) {
        files.extend(figure.save(dir, name)?);
    }
    let packets = || runs.iter().flat_map(|run| &run.outcome.packets);
    let latencies: Vec<f64> =
        packets().map(|packet| packet.delivered.saturating_sub(packet.sent) as f64 / 1e9).collect();
    if latencies.is_empty() {
        return Ok(files);
    }
    let public =
        runs.first().and_then(|run| run.outcome.observed.as_ref()).map(|(view, _)| &view.public);
    let theory = public.filter(|public| public.hops > 0 && public.hop_mean_s > 0.0).map(|public| {
        let (rate, uniform) = (1.0 / public.hop_mean_s, public.uniform_s);
        let hops = public.hops.saturating_sub(u32::from(uniform > 0.0));
        let end = public.latency_s + public.hop_mean_s * f64::from(hops) * 6.0 + uniform;
        let share = |x: f64| stats::erlang_cdf(x.max(0.0), hops, rate);
        // The distribution function of Erlang + U(0, w) is the mean of Erlang's over a window of w.
        let mean = |x: f64| {
            let steps = if uniform > 0.0 { 64 } else { 1 };
            let part = |step| share(x - uniform * (f64::from(step) + 0.5) / f64::from(steps));
            (0..steps).map(part).sum::<f64>() / f64::from(steps)
        };
        let point = |step: u32| {
            let at = end * f64::from(step) / 400.0;
            (at, mean(at - public.latency_s))
        };
        let name = format!(
            "Erlang({hops}), mean {} s a hop, U(0, {uniform} s), and {} s of links",
            public.hop_mean_s, public.latency_s
        );
        (name, (0..=400).map(point).collect())
    });
    let latency = Figure::Distribution {
        title: format!("{}: latency", scenario.title),
        x: "time from sending to delivery, seconds".into(),
        values: latencies,
        theory,
    };
    files.extend(latency.save(dir, "latency")?);
    let entropies: Vec<f64> =
        packets().map(|packet| packet.entropy_bits).filter(|bits| bits.is_finite()).collect();
    if !entropies.is_empty() {
        let entropy = Figure::Distribution {
            title: format!("{}: anonymity of packets", scenario.title),
            x: "entropy of a packet, bits".into(),
            values: entropies,
            theory: None,
        };
        files.extend(entropy.save(dir, "entropy")?);
    }
    Ok(files)
}

#[cfg(test)]
#[path = "run/tests.rs"]
mod tests;
