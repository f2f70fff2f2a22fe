//! `shoal-client`: the SOCKS5 proxy of a person, or a service.

mod groups;
mod members;
mod messages;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use shoal_client::daemon::people::ask::Asking;
use shoal_client::daemon::{self, ClientError, Config, ServiceKind, config, page};
use shoal_client::engine::{Replies, download_bytes_per_s};
use shoal_host::exit::{Exit, chain, report};
use shoal_host::secret::SecretError;
use shoal_host::shutdown::Shutdown;
use shoal_host::stdout::{self, line};
use shoal_host::{about, control, logs, memory, network, start};
use shoal_topology::Parameters;
use tokio::runtime::{Builder, Runtime};

/// Anonymous connections through the Shoal mixnet: a local SOCKS5 proxy, or a service that others reach.
#[derive(Parser)]
#[command(name = "shoal-client", version = about::version())]
struct Cli {
    #[command(subcommand)]
    verb: ClientVerb,
}

#[derive(Subcommand)]
enum ClientVerb {
    /// Make a directory with a commented configuration and fresh keys, and print the identity.
    ///
    /// Example: shoal-client init ~/.config/shoal
    Init {
        /// The directory to make.
        dir: PathBuf,
    },
    /// Run the SOCKS5 proxy. SIGHUP has it read the configuration again.
    ///
    /// Example: shoal-client run -c client.toml -o socks.listen=127.0.0.1:1081
    Run(Options),
    /// Run a service: an exit to the internet, or an internal target. SIGHUP has it read the configuration again.
    ///
    /// Example: shoal-client serve -c exit.toml
    Serve(Options),
    /// Print the identity: what the authorities list of an exit.
    ///
    /// Example: shoal-client identity -c exit.toml
    Identity(Options),
    /// Print the .shoal addresses of a service, one for each of its gateways: what its clients are told.
    ///
    /// Example: shoal-client address -c wiki.toml
    Address(Options),
    /// Check the configuration and the files that it names, and say what the class costs. Nothing is written.
    ///
    /// Example: shoal-client check -c client.toml
    Check(Options),
    /// Have a running client send a message, the text of which it reads, to somebody in the organisation.
    ///
    /// Example: echo hello | shoal-client send Alice
    Send {
        #[command(flatten)]
        options: Options,
        /// The whole name, or the beginning of a word of it; with --group the name of a group.
        name: String,
        /// It is for all others of a group.
        #[arg(long)]
        group: bool,
        /// Have both ends erase it so many seconds after it was read.
        #[arg(long, value_name = "SECONDS")]
        expires: Option<u32>,
        /// Return when it has left.
        #[arg(long)]
        wait: bool,
    },
    /// Print the conversations: with whom, how much is new, and the last message of each.
    ///
    /// Example: shoal-client inbox
    Inbox {
        #[command(flatten)]
        options: Options,
        /// Print lines of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a conversation, then send each line that is typed and show what comes.
    ///
    /// Example: shoal-client chat Alice
    Chat {
        #[command(flatten)]
        options: Options,
        /// The whole name, or the beginning of a word of it; with --group the name of a group.
        name: String,
        /// Show and write to a group.
        #[arg(long)]
        group: bool,
    },
    /// Print the groups to which you belong, found one, and say who belongs to it.
    #[command(subcommand)]
    Group(groups::GroupVerb),
    /// Print digits that are the same at both ends if nobody stands between: compare them where you know each other.
    ///
    /// Example: shoal-client verify Alice
    Verify {
        #[command(flatten)]
        options: Options,
        /// The whole name, or the beginning of a word of it.
        name: String,
        /// Keep that they were the same.
        #[arg(long)]
        same: bool,
        /// Forget that they were.
        #[arg(long, conflicts_with = "same")]
        different: bool,
    },
    /// Print messages that have a text in them, the latest first.
    ///
    /// Example: shoal-client search lunch
    Search {
        #[command(flatten)]
        options: Options,
        /// The text, in capitals or not.
        text: String,
    },
    /// Print messages that came and no program has taken, and what happens from then on, as lines of JSON.
    ///
    /// Example: shoal-client events --take
    Events {
        #[command(flatten)]
        options: Options,
        /// Have the client count each message as taken when it is printed.
        #[arg(long)]
        take: bool,
        /// Print what waits, and return.
        #[arg(long)]
        once: bool,
    },
    /// Have a running client ask an organisation to let it in, by a code that its admin gave, or by the file with it. Prints the six
    /// digits for the admin, and returns when he has approved.
    ///
    /// Example: shoal-client join alice.toml
    /// Example: shoal-client join --sign-in --organisation acme
    Join {
        #[command(flatten)]
        options: Options,
        /// The file that `shoal-org invite --out` wrote, `-` to read the code, or the code itself, which others on this machine can
        /// then see.
        #[arg(required_unless_present = "sign_in", default_value = "")]
        code: String,
        /// Ask without a code: prints where to sign in at the organisation's own provider, and what to type there.
        #[arg(long, conflicts_with = "code")]
        sign_in: bool,
        /// The organisation, by its name or key, where the network has several.
        #[arg(long, default_value = "")]
        organisation: String,
        /// What the directory calls this device.
        #[arg(long, default_value = "computer")]
        device: String,
        /// Return when the client has taken the code.
        #[arg(long)]
        no_wait: bool,
    },
    /// Print the people of the organisation, or those whom a name means.
    ///
    /// Example: shoal-client contacts alice
    Contacts {
        #[command(flatten)]
        options: Options,
        /// The name, or the beginning of a word of it.
        name: Option<String>,
        /// Print lines of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print how it stands with the organisation, and alarms: what somebody did in your name.
    ///
    /// Example: shoal-client organisation
    Organisation {
        #[command(flatten)]
        options: Options,
        /// Forget the alarms that are printed.
        #[arg(long)]
        seen: bool,
        /// Print a line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Open the messenger of a running client in your browser.
    ///
    /// Example: shoal-client open -c client.toml
    Open {
        #[command(flatten)]
        options: Options,
        /// Print the path of a file for your browser to open, within a minute, instead.
        #[arg(long)]
        print: bool,
        /// Print where the page is, and a code to type there within a minute: for browsers that may not read the file.
        #[arg(long, conflicts_with = "print")]
        code: bool,
    },
    /// Ask a running client how it is. The exit code is 0 when it is ready, and 1 when it is not or nothing runs.
    ///
    /// Example: shoal-client status -c client.toml --json
    Status {
        #[command(flatten)]
        options: Options,
        /// Print the state as JSON, once.
        #[arg(long)]
        json: bool,
        /// Go on asking, and print the first sentence each time that it changes.
        #[arg(long, conflicts_with = "json")]
        watch: bool,
        /// The control socket, instead of the configuration's.
        #[arg(long)]
        socket: Option<PathBuf>,
    },
}

#[derive(clap::Args)]
pub(crate) struct Options {
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

/// The client said itself that it is not ready.
#[derive(Debug, thiserror::Error)]
#[error("not ready")]
struct NotReady;

fn main() -> ExitCode {
    // Before any key is read or made.
    let warnings = memory::forbid_dumps();
    match act(Cli::parse().verb, warnings) {
        Ok(()) => Exit::Done.into(),
        Err(error) if stdout::is_unread(error.as_ref()) => Exit::Done.into(),
        Err(error) => {
            if !error.is::<NotReady>() {
                report(error.as_ref());
            }
            exit(&error).into()
        }
    }
}

fn exit(error: &anyhow::Error) -> Exit {
    if let Some(error) = error.downcast_ref::<ClientError>() {
        return error.exit();
    }
    if let Some(error) = error.downcast_ref::<SecretError>() {
        return error.exit();
    }
    if error.is::<shoal_host::config::ConfigError>() || error.is::<logs::BadLevel>() {
        return Exit::Config;
    }
    Exit::Failed
}

fn read(options: &Options) -> anyhow::Result<Config> {
    let (config, warnings) = config::read(&options.config, &options.overrides)?;
    logs::init(options.log.as_deref(), &config.log)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(config)
}

fn runtime() -> std::io::Result<Runtime> {
    start::runtime(&mut Builder::new_current_thread())
}

fn act(verb: ClientVerb, mut warnings: Vec<String>) -> anyhow::Result<()> {
    match verb {
        ClientVerb::Init { dir } => {
            let identity = daemon::init(&dir)?;
            line(format_args!(
                "Wrote {}. Name a gateway in it, and put network.toml beside it.\nidentity: {identity}",
                dir.join("client.toml").display()
            ))?;
        }
        ClientVerb::Run(options) => {
            let (config, shutdown) = prepare(&options, &mut warnings)?;
            runtime()?.block_on(async {
                shutdown.on_signals()?;
                daemon::run(config, shutdown).await.map_err(anyhow::Error::from)
            })?;
        }
        ClientVerb::Serve(options) => {
            let (config, shutdown) = prepare(&options, &mut warnings)?;
            runtime()?.block_on(async {
                shutdown.on_signals()?;
                daemon::serve(config, shutdown).await.map_err(anyhow::Error::from)
            })?;
        }
        ClientVerb::Identity(options) => line(daemon::identity(&read(&options)?)?.0)?,
        ClientVerb::Address(options) => {
            for address in daemon::identity(&read(&options)?)?.1 {
                line(address)?;
            }
        }
        ClientVerb::Check(options) => check(&read(&options)?)?,
        ClientVerb::Send { options, name, group, expires, wait } => {
            messages::send(asking(&options)?, (&name, group), expires, wait)?;
        }
        ClientVerb::Inbox { options, json } => messages::inbox(asking(&options)?, json)?,
        ClientVerb::Chat { options, name, group } => {
            messages::chat(asking(&options)?, asking(&options)?, (&name, group))?;
        }
        ClientVerb::Group(verb) => groups::act(verb)?,
        ClientVerb::Verify { options, name, same, different } => {
            let same = (same || different).then_some(same);
            messages::verify(asking(&options)?, &name, same)?;
        }
        ClientVerb::Search { options, text } => messages::search(asking(&options)?, &text)?,
        ClientVerb::Events { options, take, once } => {
            messages::events(asking(&options)?, take, once)?;
        }
        ClientVerb::Join { options, code, sign_in, organisation, device, no_wait } => {
            let code = (!sign_in).then_some(code.as_str());
            members::join(asking(&options)?, (code, &organisation, &device), no_wait)?;
        }
        ClientVerb::Contacts { options, name, json } => {
            members::contacts(asking(&options)?, name.as_deref(), json)?;
        }
        ClientVerb::Organisation { options, seen, json } => {
            members::organisation(asking(&options)?, seen, json)?;
        }
        ClientVerb::Open { options, print, code } => open(&options, print, code)?,
        ClientVerb::Status { options, json, watch, socket } => {
            let socket = match socket {
                Some(socket) => socket,
                None => daemon::socket(&config::read(&options.config, &options.overrides)?.0),
            };
            if watch {
                return self::watch(&socket);
            }
            let status = runtime()?.block_on(control::query(&socket))?;
            if json {
                line(&status)?;
            } else {
                line(daemon::status_text::text(&status).trim_end())?;
            }
            if status.get("ready") != Some(&true.into()) {
                return Err(NotReady.into());
            }
        }
    }
    Ok(())
}

/// The running client of a configuration.
pub(crate) fn asking(options: &Options) -> anyhow::Result<Asking> {
    let config = config::read(&options.config, &options.overrides)?.0;
    Ok(Asking::connect(&daemon::socket(&config))?)
}

fn open(options: &Options, print: bool, code: bool) -> anyhow::Result<()> {
    let config = config::read(&options.config, &options.overrides)?.0;
    let way = page::open::ask(&config)?;
    if print {
        line(way.file.display())?;
    } else if code {
        line(format_args!("{}\n{}", way.address, *way.code))?;
    } else {
        page::open::browse(&way.file)?;
    }
    Ok(())
}

/// What `run` and `serve` have in common before they begin.
fn prepare(options: &Options, warnings: &mut Vec<String>) -> anyhow::Result<(Config, Shutdown)> {
    let locked = memory::lock();
    let config = read(options)?;
    warnings.extend(locked);
    warnings.extend(start::raise_descriptors(config.descriptors()));
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok((config, Shutdown::new()))
}

fn check(config: &Config) -> anyhow::Result<()> {
    let network = network::load(&config.network)?;
    let (identity, addresses) = daemon::identity(config)?;
    daemon::check(config)?;
    line(format_args!(
        "The configuration is sound; network {:?}, {} authorities.\nfingerprint of the network: {}\nidentity: {identity}",
        network.name,
        network.authorities.len(),
        network.fingerprint()
    ))?;
    if network.trial {
        line("This network was founded for trial: its people are too few to hide each other.")?;
    }
    if config.serve.kind == ServiceKind::Target {
        for address in addresses {
            line(format_args!("address, if it serves: {address}"))?;
        }
    }
    if let Some(class) = Parameters::default().class(&config.class) {
        let (up, down) = class.bytes_per_day();
        let giga = |bytes: u64| bytes as f64 / 1e9;
        line(format_args!(
            "Class {} costs {:.2} GB up and {:.2} GB down per day, {:.0} GB a month, used or not (the network may define it otherwise).",
            class.name,
            giga(up),
            giga(down),
            giga(30 * (up + down)),
        ))?;
        let kilo = |replies| download_bytes_per_s(class, replies) / 1e3;
        line(format_args!(
            "One download reaches about {:.1} kB/s; with protect.strict, which keeps it from showing to your gateway, {:.1} kB/s. It is {}.",
            kilo(Replies::Downlink),
            kilo(Replies::Resting),
            if config.protect.strict { "on" } else { "off" }
        ))?;
    }
    Ok(())
}

/// Prints how the client is whenever that changes, until somebody ends it.
#[expect(clippy::disallowed_methods, reason = "no engine runs here")]
fn watch(socket: &std::path::Path) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let mut last = String::new();
    loop {
        let now = match runtime.block_on(control::query(socket)) {
            Ok(status) => {
                let summary = status.get("summary").and_then(serde_json::Value::as_str);
                summary.unwrap_or_default().to_owned()
            }
            Err(error) => chain(&error),
        };
        if now != last {
            line(format_args!("{} {now}", logs::now()))?;
            last = now;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}
