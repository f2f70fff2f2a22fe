//! One daemon of a localnet: a task of this process or a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use shoal_client::daemon as client;
use shoal_host::exit::chain;
use shoal_host::logs;
use shoal_host::shutdown::Shutdown;
use shoal_node::daemon as node;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::Options;

/// What a daemon of the localnet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum DaemonKind {
    /// What `shoal-node run` runs.
    Node,
    /// What `shoal-client run` runs.
    Client,
    /// What `shoal-client serve` runs.
    Service,
}

impl DaemonKind {
    /// What the verb `daemon` calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Client => "client",
            Self::Service => "service",
        }
    }
}

/// One daemon, and where it is found.
pub struct Daemon {
    /// A name, unique in the localnet.
    pub name: String,
    /// Which program it is.
    pub kind: DaemonKind,
    /// Its configuration file.
    pub config: PathBuf,
    /// Its control socket.
    pub control: PathBuf,
    /// Its listener, if it has one: for nodes the link port, for clients SOCKS.
    pub listen: Option<SocketAddr>,
    /// Its admin page.
    pub admin: SocketAddr,
    /// Process, if it has one of its own.
    pub pid: Option<u32>,
    pub(super) run: Option<Run>,
}

/// How it runs.
pub(super) enum Run {
    Task(JoinHandle<anyhow::Result<()>>, Shutdown),
    Process(Box<Child>),
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Daemon {
    /// Starts it, as a task or a process.
    ///
    /// # Errors
    /// A configuration that cannot be read, a program that cannot be started.
    pub(super) async fn start(&mut self, options: &Options) -> anyhow::Result<()> {
        if options.processes {
            let log = self.config.with_extension("log");
            let log = std::fs::File::create(&log)
                .with_context(|| format!("making the log {}", log.display()))?;
            let child = spawn(options.program.as_deref(), self.kind, &self.config, log.into())
                .with_context(|| format!("starting {}", self.name))?;
            self.pid = child.id();
            self.run = Some(Run::Process(Box::new(child)));
            return Ok(());
        }
        let shutdown = Shutdown::new();
        let (kind, config) = (self.kind, self.config.clone());
        let task = tokio::spawn(run(kind, config, shutdown.clone()));
        self.run = Some(Run::Task(task, shutdown));
        Ok(())
    }

    /// Why it ended, if it did. From then on it does not run.
    pub(super) async fn ended(&mut self) -> Option<String> {
        match self.run.take()? {
            // What a task gave can be had once: whoever asked again would end this program.
            Run::Task(task, _) if task.is_finished() => Some(match task.await {
                Ok(Ok(())) => "no reason given".into(),
                Ok(Err(error)) => chain(error.as_ref()),
                Err(error) => format!("a fault of the program: {error}"),
            }),
            Run::Process(mut child) => match child.try_wait() {
                Ok(Some(status)) => {
                    let log = std::fs::read_to_string(self.config.with_extension("log"));
                    Some(format!("{status}: {}", log.unwrap_or_default().trim()))
                }
                _ => {
                    self.run = Some(Run::Process(child));
                    None
                }
            },
            running @ Run::Task(..) => {
                self.run = Some(running);
                None
            }
        }
    }

    /// Kills it without warning and waits until it is gone.
    ///
    /// # Errors
    /// It has no process of its own.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let Some(Run::Process(child)) = &mut self.run else { bail!("no process of its own") };
        child.kill().await?;
        self.run = None;
        self.pid = None;
        Ok(())
    }

    /// Starts it again, after [`Daemon::kill`].
    ///
    /// # Errors
    /// As when it was first started.
    pub async fn restart(&mut self, options: &Options) -> anyhow::Result<()> {
        self.start(options).await
    }
}

/// Starts a daemon as a process of its own, by the verb `daemon` of a program, this one if none is named. It ends when its
/// standard input does.
pub(crate) fn spawn(
    program: Option<&Path>,
    kind: DaemonKind,
    config: &Path,
    log: Stdio,
) -> anyhow::Result<Child> {
    let program = match program {
        Some(program) => program.to_owned(),
        None => std::env::current_exe().context("finding this program")?,
    };
    let child = Command::new(program)
        .args(["daemon", kind.name()])
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        // Ctrl-C at the terminal is for the launcher, which ends the others in order.
        .process_group(0)
        .spawn();
    Ok(child?)
}

/// Runs one daemon until `shutdown`: what `shoal-node run`, `shoal-client run` and `serve` do.
///
/// # Errors
/// Why it ended.
pub async fn run(kind: DaemonKind, config: PathBuf, shutdown: Shutdown) -> anyhow::Result<()> {
    match kind {
        DaemonKind::Node => {
            let (config, _) = node::Config::load(&config, &[])?;
            node::run(config, shutdown).await?;
        }
        DaemonKind::Client => {
            let (config, _) = client::config::read(&config, &[])?;
            client::run(config, shutdown).await?;
        }
        DaemonKind::Service => {
            let (config, _) = client::config::read(&config, &[])?;
            client::serve(config, shutdown).await?;
        }
    }
    Ok(())
}

/// Runs one node with faults injected, until `shutdown`.
///
/// # Errors
/// Why it ended.
pub async fn run_with_faults(
    config: PathBuf,
    faults: node::Faults,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let (config, _) = node::Config::load(&config, &[])?;
    Ok(node::run_with_faults(config, faults, shutdown).await?)
}

/// The log level that a daemon's configuration asks for.
pub fn log_level(config: &Path) -> String {
    let text = std::fs::read_to_string(config).unwrap_or_default();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("log"));
    let level = line.map(|rest| rest.trim_matches(|c: char| !c.is_ascii_alphabetic()).to_owned());
    level.filter(|level| logs::level(level).is_ok()).unwrap_or_else(|| "warn".into())
}
