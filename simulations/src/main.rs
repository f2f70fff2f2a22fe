//! `shoal-sim`: simulations of the mixnet and attacks on them; and by the feature `localnet` the mixnet on loopback and
//! measurements of it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use shoal_program::exit::{Exit, report};
use shoal_program::stdout::{self, Stdout};
use shoal_sim::commands::{self, AttackArgs, GatewayArgs, ReproduceArgs, RunArgs, ScoreboardArgs};
use shoal_sim::harness::output::Foreign;
use shoal_sim::harness::scenario::{self, BadScenario};
use shoal_sim::harness::sweep::{self, SweepArgs};
use shoal_sim::world;

/// A Shoal mixnet on this machine: the real daemons on loopback, or their engines in virtual time.
#[derive(Parser)]
#[command(name = "shoal-sim", version)]
#[cfg_attr(
    not(feature = "localnet"),
    command(about = "The engines of a Shoal mixnet in virtual time")
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    #[cfg(feature = "localnet")]
    #[command(flatten)]
    Localnet(shoal_localnet::commands::LocalnetVerb),
    /// Write examples of every format on the wire, for whoever implements SPECIFICATION.md.
    ///
    /// Example: shoal-sim vectors docs/vectors
    Vectors {
        /// Where the JSON files go; it is made if it is missing.
        dir: PathBuf,
    },
    /// Run a scenario in virtual time: an experiment with its settings, once or with several seeds.
    ///
    /// Example: shoal-sim run simulations/scenarios/mixim-3.toml --json
    Run(RunArgs),
    /// Run a scenario at every point of a grid. It may be interrupted, resumed, and shared by many machines.
    ///
    /// Example: shoal-sim sweep simulations/scenarios/sweep-pool.toml --out results --shard 1/4
    Sweep(SweepArgs),
    /// Attack what `run --out DIR` has left there, from the observer's trace alone, and score what is found.
    ///
    /// Example: shoal-sim attack results --json
    Attack(AttackArgs),
    /// Compute every published or exact number that the simulator must agree with, and say whether it does.
    ///
    /// Example: shoal-sim reproduce --quick
    Reproduce(ReproduceArgs),
    /// Attack the same messages and calls on Shoal and on the systems beside it.
    ///
    /// Example: shoal-sim scoreboard --quick --out board
    Scoreboard(ScoreboardArgs),
    /// Ask what a person's own gateway can tell, and how long adversaries who act need to decide.
    ///
    /// Example: shoal-sim gateway active --pairs 4
    Gateway(GatewayArgs),
    /// Measure the simulator: how many packets a core takes through full node engines, an arrival and a departure each.
    ///
    /// Example: shoal-sim events --json
    Events {
        /// Packets that wait in the pools.
        #[arg(long, default_value_t = 100_000, value_name = "N")]
        pool: usize,
        /// Packets to take through three layers after the pools have filled, 2.5 kB of memory each.
        #[arg(long, default_value_t = 150_000, value_name = "N")]
        packets: usize,
        /// Mixes in each of the three layers.
        #[arg(long, default_value_t = 1, value_name = "N")]
        mixes_per_layer: u16,
        /// Of packets and delays.
        #[arg(long, default_value_t = 1, value_name = "N")]
        seed: u64,
        /// Print one line of JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let ended = match Cli::try_parse() {
        Ok(cli) => act(cli.verb),
        Err(error) if error.use_stderr() => error.exit(),
        // What `--help` and `--version` print.
        Err(asked) => stdout::line(asked.render().to_string().trim_end()).map_err(Into::into),
    };
    let Err(error) = ended.and_then(|()| Ok(Stdout.flush()?)) else { return Exit::Done.into() };
    // Who reads our output has seen enough: `shoal-sim run --explain shoal | head`.
    if stdout::is_unread(error.as_ref()) {
        return Exit::Done.into();
    }
    report(error.as_ref());
    exit(&error).into()
}

/// How the program ends on an error.
fn exit(error: &anyhow::Error) -> Exit {
    #[cfg(feature = "localnet")]
    if error.is::<shoal_localnet::commands::Usage>() {
        return Exit::Usage;
    }
    if error.is::<BadScenario>() {
        Exit::Config
    } else if error.is::<commands::Usage>() || error.is::<Foreign>() {
        Exit::Usage
    } else {
        Exit::Failed
    }
}

fn act(verb: Verb) -> anyhow::Result<()> {
    match verb {
        #[cfg(feature = "localnet")]
        Verb::Localnet(verb) => shoal_localnet::commands::run(verb),
        Verb::Vectors { dir } => vectors(&dir),
        Verb::Run(args) => commands::run(&args, scenario::experiments(), &mut Stdout),
        Verb::Sweep(args) => sweep::sweep(&args, scenario::experiments(), &mut Stdout),
        Verb::Attack(args) => commands::attack(&args, &mut Stdout),
        Verb::Reproduce(args) => commands::reproduce(&args, &mut Stdout),
        Verb::Gateway(args) => commands::gateway(&args, &mut Stdout),
        Verb::Scoreboard(args) => commands::scoreboard(&args, &mut Stdout),
        Verb::Events { pool, packets, mixes_per_layer, seed, json } => {
            events(&world::EventRate { pool, mixes_per_layer, packets, seed }, json)
        }
    }
}

fn vectors(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    for (name, text) in shoal_sim::vectors::all()? {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn events(rate: &world::EventRate, json: bool) -> anyhow::Result<()> {
    let measured = world::event_rate(rate)?;
    let (per_s, pooled) = (measured.events_per_s(), measured.pooled);
    if json {
        let cpu_s = measured.cpu_s;
        let events = measured.events;
        let measured = serde_json::json!({ "events_per_s": per_s, "events": events, "cpu_s": cpu_s, "pooled": pooled });
        stdout::line(measured)?;
    } else {
        stdout::line(format_args!(
            "{per_s:.0} packet-hop events a second of one core, {pooled} packets in the pools"
        ))?;
    }
    Ok(())
}
