//! `shoal-client`: the SOCKS5 proxy of a person, or a service.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shoal_client::daemon::{self, Config, Error, config};
use shoal_client::engine::{Replies, download_bytes_per_s};
use shoal_daemon::exit::{Exit, report};
use shoal_daemon::shutdown::Shutdown;
use shoal_daemon::{control, logs, memory, network};

/// Anonymous connections through the Shoal mixnet: a local SOCKS5 proxy, or a service that others reach.
#[derive(Parser)]
#[command(name = "shoal-client", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a directory with a commented configuration and fresh keys.
    ///
    /// Example: shoal-client init ~/.config/shoal
    Init {
        /// The directory.
        dir: PathBuf,
    },
    /// Run the SOCKS5 proxy.
    ///
    /// Example: shoal-client run -c client.toml -o socks.listen=127.0.0.1:1081
    Run(Options),
    /// Run a service: an exit to the internet, or an internal target.
    ///
    /// Example: shoal-client serve -c exit.toml
    Serve(Options),
    /// Check the configuration and the files that it names, and say what the class costs.
    ///
    /// Example: shoal-client check -c client.toml
    Check(Options),
    /// Ask a running client how it is.
    ///
    /// Example: shoal-client status -c client.toml --json
    Status {
        #[command(flatten)]
        options: Options,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// The control socket, instead of the configuration's.
        #[arg(long)]
        socket: Option<PathBuf>,
    },
}

#[derive(clap::Args)]
struct Options {
    /// The configuration file.
    #[arg(short, long, default_value = "client.toml")]
    config: PathBuf,
    /// Override a value: key=value.
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Least severe level that is logged; overrides the configuration.
    #[arg(long)]
    log: Option<String>,
}

fn main() -> ExitCode {
    // Before any key is read or made.
    let warnings = memory::forbid_dumps();
    match act(Cli::parse().verb, warnings) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            report(error.as_ref());
            let ours = error.downcast_ref::<Error>().is_some_and(Error::is_config);
            let theirs =
                error.is::<shoal_daemon::config::ConfigError>() || error.is::<logs::BadLevel>();
            if ours || theirs { Exit::Config.into() } else { Exit::Failed.into() }
        }
    }
}

fn read(options: &Options) -> anyhow::Result<Config> {
    let (config, warnings) = config::read(&options.config, &options.overrides)?;
    logs::init(options.log.as_deref(), &config.log)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(config)
}

#[expect(clippy::print_stdout, reason = "what a person asked for goes to stdout")]
fn act(verb: Verb, warnings: Vec<String>) -> anyhow::Result<()> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    match verb {
        Verb::Init { dir } => {
            daemon::init(&dir)?;
            println!(
                "Wrote {}. Name a gateway in it, and put network.toml beside it.",
                dir.join("client.toml").display()
            );
        }
        Verb::Run(options) => {
            let locked = memory::lock();
            let config = read(&options)?;
            warnings.iter().chain(&locked).for_each(|warning| tracing::warn!("{warning}"));
            let shutdown = Shutdown::new();
            runtime()?.block_on(async {
                shutdown.on_signals()?;
                daemon::run(config, shutdown).await.map_err(anyhow::Error::from)
            })?;
        }
        Verb::Serve(options) => {
            let locked = memory::lock();
            let config = read(&options)?;
            warnings.iter().chain(&locked).for_each(|warning| tracing::warn!("{warning}"));
            let shutdown = Shutdown::new();
            runtime()?.block_on(async {
                shutdown.on_signals()?;
                daemon::serve(config, shutdown).await.map_err(anyhow::Error::from)
            })?;
        }
        Verb::Check(options) => {
            let config = read(&options)?;
            let network = network::load(&config.network)?;
            daemon::descriptor(&config)?;
            println!(
                "The configuration is sound; network {:?}, {} authorities.",
                network.name,
                network.authorities.len()
            );
            if let Some(class) = shoal_topology::Parameters::default().class(&config.class) {
                let (up, down) = class.bytes_per_day();
                let giga = |bytes: u64| bytes as f64 / 1e9;
                println!(
                    "Class {} costs {:.2} GB up and {:.2} GB down per day, used or not (the network may define it otherwise).",
                    class.name,
                    giga(up),
                    giga(down)
                );
                print_speed(class, &config);
            }
        }
        Verb::Status { options, json, socket } => {
            let socket = match socket {
                Some(socket) => socket,
                None => daemon::socket(&config::read(&options.config, &options.overrides)?.0),
            };
            let status = runtime()?.block_on(control::query(&socket))?;
            if json {
                println!("{status}");
            } else {
                print_status(&status, 0);
            }
        }
    }
    Ok(())
}

/// How fast a download is, with `protect.strict` and without.
#[expect(clippy::print_stdout, reason = "what a person asked for goes to stdout")]
fn print_speed(class: &shoal_topology::Class, config: &Config) {
    let kilo = |replies| download_bytes_per_s(class, replies) / 1e3;
    println!(
        "One download reaches about {:.1} kB/s; with protect.strict, which keeps it from showing to your gateway, {:.1} kB/s. It is {}.",
        kilo(Replies::Downlink),
        kilo(Replies::Resting),
        if config.protect.strict { "on" } else { "off" }
    );
}

/// JSON as indented lines.
#[expect(clippy::print_stdout, reason = "what a person asked for goes to stdout")]
fn print_status(value: &serde_json::Value, indent: usize) {
    let serde_json::Value::Object(fields) = value else { return };
    for (key, value) in fields {
        let key = key.replace('_', " ");
        match value {
            serde_json::Value::Object(_) => {
                println!("{:indent$}{key}:", "");
                print_status(value, indent + 2);
            }
            serde_json::Value::Array(items) if items.is_empty() => {}
            serde_json::Value::Array(items) => {
                println!("{:indent$}{key}:", "");
                items
                    .iter()
                    .filter_map(|item| item.as_str())
                    .for_each(|item| println!("{:indent$}  {item}", ""));
            }
            serde_json::Value::Null => {}
            serde_json::Value::String(text) => println!("{:indent$}{key}: {text}", ""),
            value => println!("{:indent$}{key}: {value}", ""),
        }
    }
}
