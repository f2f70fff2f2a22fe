//! `shoal-sim reproduce`: every number that the simulator must agree with.

use std::io::Write;

use super::{bar, pool};
use crate::literature::check::Effort;
use crate::literature::reproduce;

/// Options of `shoal-sim reproduce`.
#[derive(clap::Args, Clone, Debug)]
pub struct ReproduceArgs {
    /// Fewer samples, so wider intervals: minutes in place of many.
    #[arg(long)]
    pub quick: bool,
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

/// Some checks do not hold. Exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("{fail} of {of} rows do not hold")]
pub struct ChecksFail {
    fail: usize,
    of: usize,
}

/// Computes all checks and prints them.
///
/// # Errors
/// [`ChecksFail`], or what kept a check from being computed.
pub fn reproduce(args: &ReproduceArgs, to: &mut dyn Write) -> anyhow::Result<()> {
    let jobs = reproduce::jobs(if args.quick { Effort::Quick } else { Effort::Full });
    let bar = bar(1_000);
    let done = |share: f64| bar.set_position((share * 1_000.0) as u64);
    let reproduced = pool(args.threads)?.install(|| reproduce::run(&jobs, args.seed, &done));
    bar.finish_and_clear();
    let reproduced = reproduced?;
    if args.json {
        writeln!(to, "{}", serde_json::to_string(&reproduced)?)?;
    } else {
        let mut text = Vec::new();
        reproduced.print(&mut text)?;
        to.write_all(&text)?;
    }
    if reproduced.all_hold() {
        return Ok(());
    }
    let of = reproduced.checks.len();
    Err(ChecksFail { fail: of - reproduced.hold, of }.into())
}
