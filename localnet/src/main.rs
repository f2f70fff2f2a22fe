//! `shoal-localnet`: the verbs of `shoal-sim` about real daemons, without the simulator. The tests of this crate run it.

use std::process::ExitCode;

use clap::Parser;
use shoal_host::exit::{Exit, report};
use shoal_host::stdout;
use shoal_localnet::commands::{self, Usage, Verb};

/// The verbs of shoal-sim about real daemons.
#[derive(Parser)]
#[command(name = "shoal-localnet", version)]
struct LocalnetCli {
    #[command(subcommand)]
    verb: Verb,
}

fn main() -> ExitCode {
    let Err(error) = commands::run(LocalnetCli::parse().verb) else { return Exit::Done.into() };
    // Who reads our output has seen enough.
    if stdout::is_unread(error.as_ref()) {
        return Exit::Done.into();
    }
    report(error.as_ref());
    if error.is::<Usage>() { Exit::Usage.into() } else { Exit::Failed.into() }
}
