//! `shoal-localnet`: the verbs of `shoal-sim` about real daemons, built without the simulator. Without a verb it is
//! `localnet`.

use std::process::ExitCode;

use clap::Parser;
use shoal_host::exit::{Exit, report};
use shoal_host::stdout;
use shoal_localnet::commands::{self, LocalnetArgs, LocalnetVerb, Usage};

/// A whole mixnet on loopback: real daemons, an exit, an internal service, clients. With a verb: measurements of it.
///
/// Example: shoal-localnet --socks 127.0.0.1:1080
#[derive(Parser)]
#[command(name = "shoal-localnet", version, args_conflicts_with_subcommands = true)]
struct LocalnetCli {
    #[command(subcommand)]
    verb: Option<LocalnetVerb>,
    #[command(flatten)]
    localnet: LocalnetArgs,
}

fn main() -> ExitCode {
    let LocalnetCli { verb, localnet } = LocalnetCli::parse();
    let verb = verb.unwrap_or(LocalnetVerb::Localnet(localnet));
    let Err(error) = commands::run(verb) else { return Exit::Done.into() };
    // Who reads our output has seen enough.
    if stdout::is_unread(error.as_ref()) {
        return Exit::Done.into();
    }
    report(error.as_ref());
    if error.is::<Usage>() { Exit::Usage.into() } else { Exit::Failed.into() }
}
