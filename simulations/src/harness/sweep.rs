//! A sweep: a scenario at every point of a grid, as a list of jobs that any machines can share.
//!
//! A job is a point and a seed; its result is one file, written when it is whole. Jobs whose results are there are not run
//! again, so a sweep that was interrupted, or shared by many machines, ends with the same bytes as one that was not.

mod grid;
mod merge;

use std::fs;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::commands::Usage;
use crate::experiment::Context;
use crate::harness::output::{OutputDirectory, measured_to_json};
use crate::harness::scenario::Kind;
pub use grid::{Grid, Job};

/// The file that says whose results a directory has.
const IDENTITY: &str = "grid.json";

/// Options of `shoal-sim sweep`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct SweepArgs {
    /// The grid, a TOML file.
    #[arg(value_name = "GRID.toml")]
    pub grid: PathBuf,
    /// Jobs at a time; one for each core unless given. Results do not depend on it.
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Run every N-th job from the I-th on, from 1: for arrays of machines.
    #[arg(long, value_name = "I/N", conflicts_with_all = ["job", "list", "merge"], requires = "out")]
    pub shard: Option<Shard>,
    /// Run this job alone, by its number from 0.
    #[arg(long, value_name = "K", conflicts_with_all = ["list", "merge"], requires = "out")]
    pub job: Option<usize>,
    /// Print the jobs, and which of them are done, and end.
    #[arg(long, conflicts_with = "merge")]
    pub list: bool,
    /// Merge the results of jobs that were run elsewhere; fails if one is missing.
    #[arg(long, requires = "out")]
    pub merge: bool,
    /// Where results are kept; results that are there already are not computed again.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print the results as JSON.
    #[arg(long)]
    pub json: bool,
}

/// One of several equal parts of a sweep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    index: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = Usage;

    fn from_str(text: &str) -> Result<Self, Usage> {
        let parsed = || {
            let (index, of) = text.split_once('/')?;
            let (index, of) = (index.parse().ok()?, of.parse().ok()?);
            (1..=of).contains(&index).then_some(Self { index, of })
        };
        parsed().ok_or_else(|| Usage(format!("{text:?} is no shard; the third of eight is 3/8")))
    }
}

/// Runs a sweep or a part of it; merges when all results are there.
///
/// # Errors
/// [`crate::harness::scenario::BadScenario`], [`Usage`], [`crate::harness::output::Foreign`], or that jobs failed: the
/// others are done.
pub fn sweep(args: &SweepArgs, kinds: &'static [Kind], to: &mut dyn Write) -> anyhow::Result<()> {
    let grid = Grid::load(&args.grid, kinds)?;
    if args.list {
        return list(args, &grid, to);
    }
    let temporary;
    let path = match &args.out {
        Some(out) => out.as_path(),
        None => {
            temporary = tempfile::tempdir().context("making a temporary directory")?;
            temporary.path()
        }
    };
    let dir = OutputDirectory::open(path, IDENTITY, &grid.identity)?;
    dir.tidy();
    let jobs: Vec<&Job> = match (args.job, args.shard) {
        (Some(number), _) => {
            let most = grid.jobs.len() - 1;
            vec![grid.jobs.get(number).ok_or_else(|| Usage(format!("jobs are 0 to {most}")))?]
        }
        (None, Some(shard)) => grid.jobs.iter().skip(shard.index - 1).step_by(shard.of).collect(),
        (None, None) if args.merge => Vec::new(),
        (None, None) => grid.jobs.iter().collect(),
    };
    if !path.join(IDENTITY).exists() {
        dir.identify(&grid.identity, json!({}))?;
    }
    let failed = run_all(&dir, &grid, &jobs, args.jobs)?;
    if let Some((number, error)) = failed.into_iter().next() {
        return Err(error.context(format!(
            "job {number} failed; run the same command again for what is missing"
        )));
    }
    let missing = grid.jobs.iter().filter(|job| result(path, job).is_none()).count();
    if missing > 0 && args.merge {
        anyhow::bail!("{missing} of {} jobs have no result yet", grid.jobs.len());
    }
    // A single job is one of thousands: who sends them out merges once.
    if missing == 0 && args.job.is_none() {
        let merged = merge::merge(&dir, &grid)?;
        return merge::print(to, &merged, args);
    }
    let done = grid.jobs.len() - missing;
    if args.json {
        writeln!(to, "{}", json!({ "jobs": grid.jobs.len(), "done": done }))?;
    } else {
        writeln!(to, "{done} of {} jobs done", grid.jobs.len())?;
    }
    Ok(())
}

/// Runs what is not there yet; gives the errors by number.
fn run_all(
    dir: &OutputDirectory,
    grid: &Grid,
    jobs: &[&Job],
    threads: Option<usize>,
) -> anyhow::Result<Vec<(usize, anyhow::Error)>> {
    let bar = crate::commands::bar(jobs.len() as u64);
    let run = |job: &&Job| -> Option<(usize, anyhow::Error)> {
        let ended =
            if result(dir.path(), job).is_none() { run_one(dir, grid, job) } else { Ok(()) };
        bar.inc(1);
        ended.err().map(|error| (job.number, error))
    };
    let failed =
        crate::commands::pool(threads)?.install(|| jobs.par_iter().filter_map(run).collect());
    bar.finish_and_clear();
    Ok(failed)
}

fn run_one(dir: &OutputDirectory, grid: &Grid, job: &Job) -> anyhow::Result<()> {
    let scenario = grid.scenario(job)?;
    let context = Context { seed: job.seed, progress: &|_| {} };
    let outcome = scenario.experiment.run(&context)?;
    let measured: Vec<Value> = outcome.measured.iter().map(measured_to_json).collect();
    let result = json!({
        "job": job.number,
        "point": job.values(grid),
        "seed": job.seed,
        "trace_hash": outcome.trace_hash,
        "measured": measured,
    });
    dir.write(&file_name(job), |file| Ok(writeln!(file, "{result:#}")?))
}

fn file_name(job: &Job) -> String {
    format!("jobs/{:06}.json", job.number)
}

/// The result of a job, if it is there and whole.
fn result(dir: &Path, job: &Job) -> Option<Value> {
    let text = fs::read_to_string(dir.join(file_name(job))).ok()?;
    let value: Value = serde_json::from_str(&text).ok()?;
    let whole =
        value.get("job") == Some(&json!(job.number)) && value.get("seed") == Some(&json!(job.seed));
    whole.then_some(value)
}

fn list(args: &SweepArgs, grid: &Grid, to: &mut dyn Write) -> anyhow::Result<()> {
    if let Some(out) = args.out.as_ref().filter(|out| out.exists()) {
        OutputDirectory::open(out, IDENTITY, &grid.identity)?;
    }
    for job in &grid.jobs {
        let done = args.out.as_ref().is_some_and(|out| result(out, job).is_some());
        let values = job.values(grid);
        if args.json {
            let line =
                json!({ "job": job.number, "point": values, "seed": job.seed, "done": done });
            writeln!(to, "{line}")?;
        } else {
            let values: Vec<_> =
                values.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            let (number, seed) = (job.number, job.seed);
            writeln!(
                to,
                "{number:6}  seed {seed}  {}{}",
                values.join("  "),
                if done { "  done" } else { "" }
            )?;
        }
    }
    if std::io::stderr().is_terminal() && !args.json {
        writeln!(to, "{} jobs", grid.jobs.len())?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "sweep/tests.rs"]
mod tests;
