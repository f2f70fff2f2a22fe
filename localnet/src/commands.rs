//! The verbs about real daemons: `localnet`, `speed`, `load`, and `daemon`, which is one of a localnet.

// It waits for signals and deadlines of the real clock.
#![allow(clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use shoal_client::daemon as client;
use shoal_host::shutdown::Shutdown;
use shoal_host::{logs, memory, stdout};
use shoal_node::daemon::Faults;
use shoal_topology::Parameters;

use crate::launch::{self, Daemon, DaemonKind, Localnet, Options};
use crate::load::{self, Load, Rate};
use crate::speed;

/// What to run.
#[derive(Subcommand)]
pub enum LocalnetVerb {
    /// Run a whole mixnet on loopback: real daemons, an exit, an internal service, clients.
    ///
    /// Example: shoal-sim localnet --socks 127.0.0.1:1080 --for 600
    Localnet(LocalnetArgs),
    /// Measure a localnet: echo, first answers, downloads, idle cost.
    ///
    /// Example: shoal-sim speed --json
    Speed {
        /// Print one line of JSON.
        #[arg(long)]
        json: bool,
        /// Fewer and shorter measurements.
        #[arg(long)]
        quick: bool,
    },
    /// Measure one real mix under a given packet rate: what it forwards, loses, and delays beyond what was asked.
    ///
    /// Example: shoal-sim load --rate 3000 --seconds 10
    Load {
        /// Packets a second; 2000 unless --ratio is given.
        #[arg(long, value_name = "N", conflicts_with = "ratio")]
        rate: Option<u32>,
        /// As many times what the reference opens a second on all cores, measured first.
        #[arg(long, value_name = "TIMES")]
        ratio: Option<f64>,
        /// How long packets are sent, in seconds.
        #[arg(long, default_value_t = 10, value_name = "S")]
        seconds: u32,
        /// Of packets and delays.
        #[arg(long, default_value_t = 1, value_name = "N")]
        seed: u64,
        /// Print one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// One daemon of a localnet that runs in processes of their own. It ends when its standard input does.
    #[command(hide = true)]
    Daemon {
        /// Which of the programs it is.
        kind: DaemonKind,
        /// The configuration file of the program.
        config: PathBuf,
        /// A corrupt node: the share of packets that it drops, 0 to 1.
        #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
        drop_share: f64,
        /// It drops only what clients send, and nothing of services.
        #[arg(long)]
        drop_clients: bool,
        /// It sends packets so much later than it was asked to.
        #[arg(long, value_name = "MS", default_value_t = 0)]
        late_ms: u64,
        /// An authority whose clock is off by so much.
        #[arg(long, value_name = "MS", default_value_t = 0, allow_negative_numbers = true)]
        clock_offset_ms: i64,
    },
}

/// What a localnet consists of, and for how long.
#[derive(clap::Args)]
pub struct LocalnetArgs {
    /// Mixes in each of the three layers.
    #[arg(long, default_value_t = 2, value_name = "N")]
    mixes_per_layer: usize,
    /// Gateways, each of an operator of its own. With four the network stands when any one ends.
    #[arg(long, default_value_t = 4, value_name = "N")]
    gateways: usize,
    /// Authorities whose signatures make a topology document.
    #[arg(long, default_value_t = 4, value_name = "N")]
    authorities: usize,
    /// Length of an epoch.
    #[arg(long, default_value_t = 1200, value_name = "SECONDS")]
    epoch: u64,
    /// Clients with a SOCKS port.
    #[arg(long, default_value_t = 1, value_name = "N")]
    clients: usize,
    /// People of an organisation, each with a client of his own, who can write to each other; two or more.
    #[arg(long, default_value_t = 0, value_name = "N")]
    people: usize,
    /// Their class: text, web, fast or call.
    #[arg(long, default_value = "web", value_name = "NAME")]
    class: String,
    /// SOCKS address of the first client; the others follow. Default: 127.0.0.1:1080, or any free port if that is
    /// taken; port 0: free ports.
    #[arg(long, value_name = "ADDR")]
    socks: Option<SocketAddr>,
    /// End after so many seconds; else at Ctrl-C.
    #[arg(long = "for", value_name = "SECONDS")]
    duration: Option<u64>,
    /// Run the daemons as processes of their own.
    #[arg(long)]
    processes: bool,
    /// Print one line of JSON when ready.
    #[arg(long)]
    json: bool,
    /// Keep everything in this directory, and leave it there.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// DNS server of the exit, address and port; else the system's.
    #[arg(long, value_name = "ADDR")]
    resolver: Option<SocketAddr>,
    /// Level of the daemons' logs: error, warn, info, debug or trace.
    #[arg(long, default_value = "warn", value_name = "LEVEL")]
    log: String,
    /// What the network fixes for everyone: a TOML file of the keys that are not as usual. A localnet kept with --dir
    /// shows them all in its parameters.toml.
    #[arg(long, value_name = "FILE")]
    parameters: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// What did not start or failed; [`Usage`] where no localnet can have the options.
pub fn run(verb: LocalnetVerb) -> anyhow::Result<()> {
    match verb {
        LocalnetVerb::Localnet(args) => localnet(args),
        LocalnetVerb::Speed { json, quick } => speed(json, quick),
        LocalnetVerb::Load { rate, ratio, seconds, seed, json } => {
            let rate = match ratio {
                Some(times) => Rate::TimesReference(times),
                None => Rate::PerSecond(rate.unwrap_or(2_000)),
            };
            load(&Load { rate, seconds, seed }, json)
        }
        LocalnetVerb::Daemon {
            kind,
            config,
            drop_share,
            drop_clients,
            late_ms,
            clock_offset_ms,
        } => {
            let late = Duration::from_millis(late_ms);
            daemon(kind, config, Faults { drop_share, drop_clients, late, clock_offset_ms })
        }
    }
}

/// Options that no localnet can have. Exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")
}

fn localnet(args: LocalnetArgs) -> anyhow::Result<()> {
    let warnings = memory::forbid_dumps();
    logs::init(Some(&args.log), "warn").map_err(|error| Usage(error.to_string()))?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let options = Options {
        mixes_per_layer: args.mixes_per_layer,
        gateways: args.gateways,
        authorities: args.authorities,
        epoch: Duration::from_secs(args.epoch),
        clients: args.clients.max(args.people),
        people: args.people,
        class: args.class,
        socks: args.socks,
        processes: args.processes,
        log: args.log,
        resolver: args.resolver.map_or("system".into(), |address| address.to_string()),
        dir: args.dir,
        parameters: args.parameters.as_deref().map_or(Ok(Parameters::default()), parameters)?,
        ..Options::default()
    };
    launch::check(&options).map_err(|error| Usage(error.to_string()))?;
    runtime()?.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        if !args.json {
            say("Starting a mixnet on loopback ...")?;
        }
        let mut net = tokio::select! {
            net = Localnet::start(options) => net?,
            () = shutdown.wait() => return Ok(()),
        };
        let ready =
            if args.json { net.summary().to_string() } else { explain(&net, args.duration) };
        // Who was not told where the network is cannot use it.
        if let Err(error) = say(&ready) {
            net.stop().await;
            return Err(error);
        }
        let limit = args.duration.map(Duration::from_secs);
        let losses = async {
            loop {
                let (name, why) = net.loses().await;
                tracing::error!("{name} has ended, and the others go on: {why}");
            }
        };
        tokio::select! {
            () = shutdown.wait() => {}
            () = losses => {}
            () = tokio::time::sleep(limit.unwrap_or(Duration::MAX)), if limit.is_some() => {}
        }
        let ending = if args.json { Ok(()) } else { say("Ending ...") };
        net.stop().await;
        ending
    })
}

/// Prints a line about a localnet. A reader that has seen enough (`localnet | grep -m1 Ready`) does not end the network.
fn say(text: &str) -> anyhow::Result<()> {
    match stdout::line(text) {
        Err(error) if stdout::is_unread(&error) => Ok(()),
        said => Ok(said?),
    }
}

/// Where the page of a person is, with a code that opens it.
fn page(config: &Path) -> anyhow::Result<String> {
    let config = client::config::read(config, &[])?.0;
    let way = client::page::open::ask(&config)?;
    Ok(format!("{}#{}", way.address, *way.code))
}

/// What to do with a localnet that is ready, without the last line break.
fn explain(net: &Localnet, duration: Option<u64>) -> String {
    let Some(socks) = net.socks.first() else { return String::new() };
    let (service, target) = (&net.service, net.target);
    let mut lines = vec![
        format!(
            "Ready after {:.1} s: {} daemons, joined by TCP on loopback.\n",
            net.took.as_secs_f64(),
            net.daemons.len()
        ),
        "Try, in another terminal:".into(),
        format!("  curl -x socks5h://{socks} http://{service}/"),
        format!(
            "  curl -x socks5h://{socks} http://{target}/      (through the exit, to a page of this localnet)"
        ),
        format!("  chromium --proxy-server=socks5://{socks}"),
    ];
    let client = net.daemons.iter().find(|daemon| daemon.kind == DaemonKind::Client);
    let status =
        |client: &Daemon| format!("  shoal-client status --socket {}", client.control.display());
    lines.extend(client.map(status));
    for (n, socks) in net.socks.iter().enumerate().skip(1) {
        lines.push(format!("  client {} has its SOCKS port at {socks}", n + 1));
    }
    if let [(name, config), (other, _), ..] = net.people.as_slice() {
        let names: Vec<&str> = net.people.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(", ");
        lines.push(format!(
            "\n{names} belong to one organisation. Their pages, whose codes are good once and for a minute:"
        ));
        let page = |(name, config): &(String, PathBuf)| {
            let address = page(config).unwrap_or_else(|error| error.to_string());
            format!("  {name}: {address}")
        };
        lines.extend(net.people.iter().map(page));
        lines.push(format!("Later, and as {name} in a terminal:"));
        lines.push(format!("  shoal-client open -c {}", config.display()));
        lines.push(format!("  shoal-client chat -c {} {other}", config.display()));
        lines.push(format!("As {}, their admin:", Localnet::ADMIN));
        let files = net.dir().join(Localnet::ORGANISATION);
        let org = format!("  shoal-org --dir {}", files.display());
        if let Some(service) = net.daemons.iter().find(|daemon| daemon.name == "service") {
            let token = service.config.with_file_name("token");
            lines.push(format!(
                "{org} serve -c {} --token {} --publish    (gives members what is new, while it runs)",
                service.config.display(),
                token.display()
            ));
        }
        lines.push(format!("{org} invite Zoe"));
        lines
            .push(format!("{org} remove {other}    (it stands in the document of the next epoch)"));
    }
    lines.push(format!("\nEverything is in {}.", net.dir().display()));
    lines.push(
        "A localnet shows how it works; it hides nobody: its exit may reach this machine, and its nodes are yours.".into(),
    );
    lines.push(match duration {
        Some(seconds) => format!("It ends in {seconds} s, or at Ctrl-C."),
        None => "Ctrl-C ends it.".into(),
    });
    lines.join("\n")
}

fn speed(json: bool, quick: bool) -> anyhow::Result<()> {
    let mut plan = speed::Plan::default();
    if quick {
        plan = speed::Plan {
            echoes: 50,
            first_answers: 10,
            download: 1_000_000,
            idle: Duration::from_secs(5),
        };
    }
    measure(json, async { speed::measure(&plan).await })
}

fn load(load: &Load, json: bool) -> anyhow::Result<()> {
    load.check().map_err(|error| Usage(error.to_string()))?;
    measure(json, async { load::run(load).await })
}

/// Prints what `measurement` gives. Dropped half way, it takes its daemons with it.
fn measure(
    json: bool,
    measurement: impl Future<Output = anyhow::Result<serde_json::Value>>,
) -> anyhow::Result<()> {
    logs::init(Some("error"), "error")?;
    let measured = runtime()?.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        tokio::select! {
            measured = measurement => measured,
            () = shutdown.wait() => anyhow::bail!("interrupted"),
        }
    })?;
    if json {
        stdout::line(&measured)?;
    } else if let Some(fields) = measured.as_object() {
        let line = |(name, value): (&String, _)| format!("{:<32} {value}", name.replace('_', " "));
        stdout::line(fields.iter().map(line).collect::<Vec<_>>().join("\n"))?;
    }
    Ok(())
}

fn parameters(file: &Path) -> anyhow::Result<Parameters> {
    let loaded = shoal_host::config::load(file, &[])?;
    match loaded.warnings.first() {
        Some(unknown) => Err(Usage(unknown.clone()).into()),
        None => Ok(loaded.config),
    }
}

fn daemon(kind: DaemonKind, config: PathBuf, faults: Faults) -> anyhow::Result<()> {
    // The keys of a localnet are worth nothing, so its memory is not locked; dumps are forbidden as they are on any host.
    let warnings = memory::forbid_dumps();
    logs::init(None, &launch::log_level(&config))?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    runtime()?.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        let stop = shutdown.clone();
        // The launcher holds the other end: when it is gone, however it went, so are its daemons.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            stop.trigger();
        });
        match kind {
            DaemonKind::Node if faults != Faults::default() => {
                launch::run_with_faults(config, faults, shutdown).await
            }
            _ => launch::run(kind, config, shutdown).await,
        }
    })
}
