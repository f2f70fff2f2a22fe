//! The command line of a node.

#![allow(clippy::disallowed_methods)] // The daemon's own edge of the world.

mod founding;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::{Parser, Subcommand};
use shoal_host::exit::{Exit, chain, report};
use shoal_host::reload::Source;
use shoal_host::shutdown::Shutdown;
use shoal_host::{about, control, logs, memory, network, start, stdout};
use shoal_node::daemon::{self, Config, RoleName};
use shoal_sphinx::backend::Backend;
use tokio::runtime::Builder;

use founding::{AuthorityVerb, NetworkVerb};

/// Of the hops that a machine can open, those that a node on it can promise to forward: TLS, the system calls and the
/// engine take the other half.
const SHARE: f64 = 0.5;

/// A node of a Shoal network: a mix, or a gateway for clients.
#[derive(Parser)]
#[command(version = about::version(), arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: NodeVerb,
}

#[derive(Subcommand)]
enum NodeVerb {
    /// Write a configuration with comments, and an identity, into a directory
    #[command(after_help = "Example: shoal-node init --role gateway /etc/shoal")]
    Init {
        /// mix, gateway or authority
        #[arg(long, value_parser = |s: &str| s.parse::<RoleName>())]
        role: RoleName,
        /// The directory; it is made
        dir: PathBuf,
    },
    /// Run the node until SIGTERM or Ctrl-C; SIGHUP has it read the configuration again
    #[command(after_help = "Example: shoal-node run -c /etc/shoal/config.toml -o log=debug")]
    Run(Given),
    /// Say what is wrong with a configuration, the keys and the topology document, and end
    #[command(after_help = "Example: shoal-node check -c /etc/shoal/config.toml")]
    Check(Given),
    /// Ask a node that runs how it is; the exit code is 0 when it does its work, and 1 when it does not or nothing runs
    #[command(after_help = "Example: shoal-node status -c /etc/shoal/config.toml --json")]
    Status {
        /// The node's configuration
        #[arg(short, long, value_name = "FILE", default_value = "config.toml")]
        config: PathBuf,
        /// The node's control socket, instead of the one that the configuration says
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// One line of JSON
        #[arg(long)]
        json: bool,
        /// Go on asking, and print the first sentence each time that it changes
        #[arg(long, conflicts_with = "json")]
        watch: bool,
    },
    /// Print the identity of a node or an authority, which those who list it want to know
    #[command(after_help = "Example: shoal-node identity -c /etc/shoal/config.toml")]
    Identity(Given),
    /// Found a network, or look at the file of one
    #[command(subcommand)]
    Network(NetworkVerb),
    /// Print the parameters of a network with what they mean: the defaults, or those of a file, which is checked
    #[command(after_help = "Example: shoal-node parameters > /etc/shoal/parameters.toml")]
    Parameters {
        /// A file of parameters
        file: Option<PathBuf>,
    },
    /// Look after the lists of an authority
    #[command(subcommand)]
    Authority(AuthorityVerb),
    /// Look at a topology document
    #[command(subcommand)]
    Topology(Look),
    /// Measure how fast this machine opens and builds packets, beside the reference
    #[command(after_help = "Example: shoal-node bench")]
    Bench {
        /// reference, scalar, avx512 or ifma alone
        #[arg(long, value_name = "NAME", value_parser = backend)]
        backend: Option<Backend>,
        /// Packets that are opened, or built, together
        #[arg(long, value_name = "PACKETS", default_value = "32", value_parser = clap::value_parser!(u16).range(1..=1024))]
        batch: u16,
        /// One line of JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum Look {
    /// Print a document in readable form, without checking who signed it
    #[command(after_help = "Example: shoal-node topology show /etc/shoal/topology")]
    Show {
        /// The document to print
        file: PathBuf,
        /// One line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Check a document: signatures, descriptors, rules, clock
    #[command(
        after_help = "Example: shoal-node topology verify /etc/shoal/topology --network /etc/shoal/network.toml"
    )]
    Verify {
        /// The document to check
        file: PathBuf,
        /// The network file, with the keys of the authorities
        #[arg(long, value_name = "FILE", default_value = "network.toml")]
        network: PathBuf,
    },
}

fn backend(name: &str) -> Result<Backend, String> {
    let names = Backend::ALL.map(Backend::name).join(", ");
    Backend::from_name(name).ok_or_else(|| format!("there are {names}"))
}

#[derive(clap::Args)]
pub(crate) struct Given {
    /// The configuration of the node
    #[arg(short, long, value_name = "FILE", default_value = "config.toml")]
    config: PathBuf,
    /// A value that goes before the file's; may be given several times
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

fn main() -> ExitCode {
    // Before any key is read or made.
    let warnings = memory::forbid_dumps();
    let done = match Arguments::parse().verb {
        NodeVerb::Init { role, dir } => init(role, &dir),
        NodeVerb::Run(given) => run(&given, warnings),
        NodeVerb::Check(given) => check(&given),
        NodeVerb::Status { config, socket, watch: true, .. } => watch(&config, socket),
        NodeVerb::Status { config, socket, json, .. } => status(&config, socket, json),
        NodeVerb::Identity(given) => founding::identity(&given),
        NodeVerb::Network(verb) => founding::network(verb),
        NodeVerb::Parameters { file } => founding::parameters(file),
        NodeVerb::Authority(verb) => founding::authority(verb),
        NodeVerb::Topology(Look::Show { file, json }) => show(&file, json),
        NodeVerb::Topology(Look::Verify { file, network }) => verify(&file, &network),
        NodeVerb::Bench { backend, batch, json } => bench(backend, batch.into(), json),
    };
    match done.and_then(|()| said()) {
        Ok(()) => Exit::Done.into(),
        Err((exit, error)) => {
            if !error.is::<NotReady>() {
                report(&*error);
            }
            exit.into()
        }
    }
}

/// What stdout could not take: the first that failed.
static UNSAID: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Prints a line that was asked for. What cannot be written is the end of the program's: see [`said`].
fn say(line: &str) {
    if let Err(error) = stdout::line(line) {
        UNSAID.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Says whether all that was asked for could be written. When nobody reads it any more, nothing is wrong.
fn said() -> Done {
    match UNSAID.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) if !stdout::is_unread(&error) => Err(failed(error)),
        _ => Ok(()),
    }
}

fn is_unsaid() -> bool {
    UNSAID.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// The node said itself that it does not do its work.
#[derive(Debug, thiserror::Error)]
#[error("not ready")]
struct NotReady;

type Done = Result<(), (Exit, Box<dyn std::error::Error>)>;

fn failed(error: impl std::error::Error + 'static) -> (Exit, Box<dyn std::error::Error>) {
    (Exit::Failed, Box::new(error))
}

fn because(error: daemon::NodeError) -> (Exit, Box<dyn std::error::Error>) {
    (error.exit(), Box::new(error))
}

fn warn(line: &str) {
    let _ = writeln!(std::io::stderr(), "warning: {line}");
}

fn load(given: &Given) -> Result<Config, (Exit, Box<dyn std::error::Error>)> {
    let (config, warnings) =
        Config::load(&given.config, &given.overrides).map_err(|error| because(error.into()))?;
    warnings.iter().for_each(|warning| warn(warning));
    Ok(config)
}

fn init(role: RoleName, dir: &Path) -> Done {
    let config = Config { role, ..Config::default() };
    let path = daemon::init(dir, &config).map_err(because)?;
    say(&format!("wrote {}", path.display()));
    let identity = daemon::identity(&config.resolved(dir)).map_err(because)?;
    say(&format!("identity: {identity}"));
    say(match role {
        RoleName::Authority => {
            "next: give the identity and the address to whoever founds the network (shoal-node network new); put the network \
             file beside config.toml, and the identities of the nodes into [authority];"
        }
        _ => {
            "next: give the identity to the authorities; set `operator`, `jurisdiction`, `listen` and `advertise` in the \
             file, and put the network file beside it;"
        }
    });
    say(&format!("      shoal-node check -c {0} && shoal-node run -c {0}", for_a_shell(&path)));
    Ok(())
}

/// A path as a person can type it after a command.
fn for_a_shell(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "_-./+:@%,".contains(c);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

fn check(given: &Given) -> Done {
    let config = load(given)?;
    let notes = daemon::check(&config).map_err(because)?;
    notes.iter().for_each(|note| warn(note));
    let sound = match notes.len() {
        0 => "the configuration is sound".to_owned(),
        1 => "the configuration can be run with; one warning".into(),
        n => format!("the configuration can be run with; {n} warnings"),
    };
    say(&format!("{}: {sound}", given.config.display()));
    say(&format!("identity: {}", daemon::identity(&config).map_err(because)?));
    if let Ok(network) = network::load(&config.network) {
        say(&format!("network: {:?}, fingerprint {}", network.name, network.fingerprint()));
    }
    Ok(())
}

fn run(given: &Given, mut warnings: Vec<String>) -> Done {
    warnings.extend(memory::lock());
    let config = load(given)?;
    warnings.extend(start::raise_descriptors(config.descriptors()));
    logs::init(None, &config.log).map_err(|error| (Exit::Config, error.into()))?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let runtime = start::runtime(&mut Builder::new_multi_thread()).map_err(failed)?;
    let ended = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals().map_err(failed)?;
        let source = Source { path: given.config.clone(), overrides: given.overrides.clone() };
        daemon::run_reloading(config, source, shutdown).await.map_err(because)
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}

/// What the program says of itself at its control socket.
fn query(
    config: &Path,
    socket: Option<PathBuf>,
) -> Result<serde_json::Value, (Exit, Box<dyn std::error::Error>)> {
    let socket = match socket {
        Some(socket) => socket,
        None => {
            let loaded = Config::load(config, &[]).map_err(|error| because(error.into()))?;
            loaded.0.control_socket()
        }
    };
    let runtime = start::runtime(&mut Builder::new_current_thread()).map_err(failed)?;
    runtime.block_on(control::query(&socket)).map_err(|error| because(error.into()))
}

/// Prints how the node is whenever that changes, until somebody ends it.
fn watch(config: &Path, socket: Option<PathBuf>) -> Done {
    let mut last = String::new();
    while !is_unsaid() {
        let now = match query(config, socket.clone()) {
            Ok(status) => {
                let summary = status.get("summary").and_then(serde_json::Value::as_str);
                summary.unwrap_or_default().to_owned()
            }
            Err((Exit::Failed, error)) => chain(&*error),
            Err(error) => return Err(error),
        };
        // Frames that pass are no news.
        if now != last {
            say(&format!("{} {now}", logs::now()));
            last = now;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

fn status(config: &Path, socket: Option<PathBuf>, json: bool) -> Done {
    let status = query(config, socket)?;
    if json {
        say(&status.to_string());
    } else {
        say(daemon::status::text(&status).trim_end());
    }
    if daemon::status::is_ready(&status) { Ok(()) } else { Err((Exit::Failed, Box::new(NotReady))) }
}

fn show(file: &Path, json: bool) -> Done {
    let shown = daemon::document::show(file).map_err(because)?;
    if json {
        say(&shown.json().to_string())
    } else {
        say(shown.text().trim_end())
    }
    Ok(())
}

fn verify(file: &Path, network: &Path) -> Done {
    say(&daemon::document::verify(file, network).map_err(because)?);
    Ok(())
}

fn bench(forced: Option<Backend>, batch: usize, json: bool) -> Done {
    let best = forced.unwrap_or_else(Backend::best);
    let measured = |backend| daemon::bench::bench(backend, batch);
    if json {
        let figures = measured(best).map_err(failed)?;
        say(&serde_json::to_string(&figures).map_err(failed)?);
        return Ok(());
    }
    let ours = Backend::ALL.into_iter().filter(|backend| *backend != Backend::Reference);
    let backends = forced.map_or_else(|| ours.collect(), |backend| vec![backend]);
    for (n, backend) in backends.into_iter().enumerate() {
        let figures = match measured(backend) {
            Ok(figures) => figures,
            Err(reason) if forced.is_some() => return Err(failed(reason)),
            Err(reason) => {
                say(&format!("{}: {reason}", backend.name()));
                continue;
            }
        };
        if n == 0 {
            say(&format!("{}, batches of {batch}", figures.cpu));
        }
        say(&format!("{}:", backend.name()));
        let (ours, theirs) = (figures.times, figures.reference);
        for (what, ours, theirs, ratio) in [
            ("open a hop", ours.peel_us, theirs.peel_us, figures.peel_ratio),
            ("seal to 5 hops", ours.seal5_us, theirs.seal5_us, figures.seal5_ratio),
            ("make a SURB", ours.surb_us, theirs.surb_us, figures.surb_ratio),
        ] {
            say(&format!(
                "  {what:<16} {ours:8.1} µs   reference {theirs:8.1} µs   {ratio:5.2} times as fast"
            ));
        }
        for (name, us) in daemon::bench::parts(backend, batch).unwrap_or_default() {
            say(&format!("    {name:<20} {us:8.2} µs of opening"));
        }
        let (cores, rate) = (figures.cores, figures.peel_per_s_all_cores);
        let scale = rate / figures.peel_per_s_one_core;
        say(&format!("  all {cores} cores open {rate:.0} hops/s, {scale:.2} times one"));
        if backend == best {
            let declared = (rate * SHARE / 100.0).floor() * 100.0;
            say(&format!(
                "nodes here use {}. Links and queues come on top: declare at most max_packets_per_s = {declared:.0}",
                backend.name()
            ));
        }
    }
    Ok(())
}
