//! A whole mixnet on loopback: every daemon the real one, with a configuration, keys, sockets and data of its own,
//! joined by TCP alone. The first document is signed here, with the keys of the authorities, so that nobody waits for
//! the first vote; all later ones are voted.

// A launcher of daemons lives in the world: clocks and sockets are its business.
#![allow(clippy::disallowed_methods)]

mod daemon;
mod founders;
mod people;
mod plan;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use shoal_host::{control, secret};
use shoal_topology::Parameters;
use shoal_topology::directory::address::ServiceAddress;
use tokio::task::JoinHandle;

use daemon::Run;
pub(crate) use daemon::spawn;
pub use daemon::{Daemon, DaemonKind, log_level, run, run_with_faults};
use people::Organisation;
use plan::{LaunchPlan, PortLeases};

/// How long daemons may take until all are ready.
const READY: Duration = Duration::from_secs(30);
/// How often a network that runs looks whether a daemon has ended.
const LOOK: Duration = Duration::from_millis(500);
/// How long they may take to end.
const END: Duration = Duration::from_secs(5);
/// The port that the internal service is asked for; any would do.
const SERVICE_PORT: u16 = 80;

/// What a localnet consists of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Mixes in each of the three layers.
    pub mixes_per_layer: usize,
    /// Gateways, each of an operator of its own; at least two. With four or more people and services share none, so that
    /// whichever ends leaves both with another one.
    pub gateways: usize,
    /// Authorities that sign the topology.
    pub authorities: usize,
    /// Length of an epoch.
    pub epoch: Duration,
    /// Clients with a SOCKS port.
    pub clients: usize,
    /// Of these, the first so many belong to people of an organisation, who can write to each other.
    pub people: usize,
    /// The class of all of them.
    pub class: String,
    /// SOCKS address of the first client; the others follow on the ports after it. Port 0 takes free ones.
    pub socks: Option<SocketAddr>,
    /// Separate processes instead of threads.
    pub processes: bool,
    /// Level of the daemons' logs.
    pub log: String,
    /// The exit's resolver: `system`, or the address of a DNS server.
    pub resolver: String,
    /// Where everything is kept; it is left there. Else a temporary directory, which is removed.
    pub dir: Option<PathBuf>,
    /// What the network fixes for everyone.
    pub parameters: Parameters,
    /// The network is founded for trial: clients serve its few people. Else they are told to serve them all the same.
    pub trial: bool,
    /// The program whose verb `daemon` processes run; else this one.
    pub program: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mixes_per_layer: 2,
            gateways: 4,
            authorities: 4,
            epoch: Duration::from_secs(1200),
            clients: 1,
            people: 0,
            class: "web".into(),
            socks: None,
            processes: false,
            log: "warn".into(),
            resolver: "system".into(),
            dir: None,
            parameters: Parameters::default(),
            trial: true,
            program: None,
        }
    }
}

impl std::fmt::Debug for Localnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Localnet").field("daemons", &self.daemons.len()).finish_non_exhaustive()
    }
}

/// A localnet that runs. [`Localnet::stop`] ends it in order; dropped, its processes are killed.
pub struct Localnet {
    /// All daemons: nodes, services, clients.
    pub daemons: Vec<Daemon>,
    /// SOCKS addresses, one for each client.
    pub socks: Vec<SocketAddr>,
    /// Address of the internal service, with port.
    pub service: String,
    /// Where the internal service's target listens.
    pub target: SocketAddr,
    /// Time from start to ready.
    pub took: Duration,
    /// The people of its organisation: name, and the configuration of the client.
    pub people: Vec<(String, PathBuf)>,
    page: JoinHandle<()>,
    dir: PathBuf,
    /// And so would two with the same ports.
    _leases: PortLeases,
    /// Held as long as it runs: two in one directory would take each other's files.
    _lock: secret::Lock,
    temporary: Option<tempfile::TempDir>,
}

impl Localnet {
    /// Who the admin of its organisation is.
    pub const ADMIN: &str = people::OWNER;
    /// Where the files of its organisation's admin are, in its directory.
    pub const ORGANISATION: &str = people::FILES;

    /// Starts everything and waits until all daemons are ready and the internal service has answered.
    ///
    /// # Errors
    /// What did not start, and why.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let began = Instant::now();
        check(&options)?;
        let (dir, lock, temporary) = directory(&options)?;
        let (page, target) = page().await?;
        let mut plan = LaunchPlan::new(&options, &dir)?;
        let (authorities, founders) = plan.authorities()?;
        let nodes = plan.nodes()?;
        let services = plan.services(&nodes, target)?;
        let service = services
            .iter()
            .find(|(daemon, _)| daemon.name == "service")
            .map(|(_, body)| ServiceAddress {
                identity: body.identity.0,
                gateway: body.gateways.first().map_or([0; 32], |gateway| gateway.0),
            })
            .context("no service")?;
        let exits = services.iter().filter(|(daemon, _)| daemon.name.starts_with("exit"));
        let exits = exits.map(|(daemon, _)| daemon.config.clone()).collect::<Vec<_>>();
        let clients = plan.clients(&nodes)?;
        let services_and_clients = services.iter().map(|(daemon, _)| daemon).chain(&clients);
        let all = authorities.iter().chain(&nodes).chain(services_and_clients);
        all.clone().try_for_each(|daemon| check_socket(&daemon.control, &dir))?;
        let socks: Vec<SocketAddr> = clients.iter().filter_map(|client| client.listen).collect();

        let members = clients.get(..options.people).unwrap_or(&clients);
        let organisation = match members {
            [] => None,
            members => Some(Organisation::found(&dir, members)?),
        };
        founders.found(&options, &dir, (&nodes, &exits), organisation.as_ref())?;
        let people = members.iter().enumerate();
        let people = people.map(|(n, daemon)| (people::name(n), daemon.config.clone())).collect();
        let leases = plan.free();
        let mut daemons: Vec<Daemon> = authorities;
        daemons.extend(nodes);
        daemons.extend(services.into_iter().map(|(daemon, _)| daemon));
        daemons.extend(clients);
        let mut localnet = Self {
            daemons,
            socks,
            service: format!("{service}:{SERVICE_PORT}"),
            target,
            took: Duration::ZERO,
            people,
            page,
            dir,
            _lock: lock,
            _leases: leases,
            temporary,
        };
        if let Err(error) = localnet.begin(&options).await {
            localnet.stop().await;
            return Err(error);
        }
        localnet.took = began.elapsed();
        Ok(localnet)
    }

    /// Where everything is kept.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `--json` prints.
    pub fn summary(&self) -> Value {
        let nodes: Vec<Value> = self
            .daemons
            .iter()
            .map(|daemon| {
                json!({
                    "name": daemon.name,
                    "kind": daemon.kind.name(),
                    "listen": daemon.listen.map(|address| address.to_string()),
                    "admin": daemon.admin.to_string(),
                    "control": daemon.control,
                    "config": daemon.config,
                    "pid": daemon.pid,
                })
            })
            .collect();
        let socks: Vec<String> = self.socks.iter().map(ToString::to_string).collect();
        let person = |(name, config): &(String, PathBuf)| json!({ "name": name, "config": config });
        json!({
            "ready": true,
            "people": self.people.iter().map(person).collect::<Vec<_>>(),
            "socks": socks,
            "service": self.service,
            "nodes": nodes,
            "seconds": (self.took.as_secs_f64() * 1000.0).round() / 1000.0,
        })
    }

    /// Starts all daemons and waits for them.
    async fn begin(&mut self, options: &Options) -> anyhow::Result<()> {
        for daemon in &mut self.daemons {
            daemon.start(options).await.with_context(|| format!("starting {}", daemon.name))?;
        }
        self.wait().await
    }

    /// Waits until every daemon says that it is ready, and the internal service answers.
    async fn wait(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        for daemon in &mut self.daemons {
            loop {
                if let Some(why) = daemon.ended().await {
                    bail!("{} ended: {why}", daemon.name);
                }
                let status = control::query(&daemon.control).await;
                match &status {
                    Ok(status) if status.get("ready") == Some(&Value::Bool(true)) => break,
                    _ => {}
                }
                if Instant::now() > deadline {
                    let why = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                    bail!("{} is not ready after {} s: {why}", daemon.name, READY.as_secs());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        for socks in &self.socks {
            let answer = crate::socks_client::get(*socks, &self.service, "/").await;
            let page = answer.context("the internal service does not answer")?;
            if !page.contains("Shoal") {
                bail!("the internal service answers something else");
            }
        }
        Ok(())
    }

    /// Waits until another daemon ends by itself: its name and why. The rest of the network goes on.
    pub async fn loses(&mut self) -> (String, String) {
        loop {
            for daemon in &mut self.daemons {
                if let Some(why) = daemon.ended().await {
                    return (daemon.name.clone(), why);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends everything in order, and removes the temporary directory.
    pub async fn stop(mut self) {
        for daemon in &mut self.daemons {
            match &mut daemon.run {
                Some(Run::Task(_, shutdown)) => shutdown.trigger(),
                // Closing its standard input tells a process to end.
                Some(Run::Process(child)) => drop(child.stdin.take()),
                None => {}
            }
        }
        let deadline = tokio::time::Instant::now() + END;
        for daemon in &mut self.daemons {
            match daemon.run.take() {
                Some(Run::Task(task, _)) => {
                    let _ = tokio::time::timeout_at(deadline, task).await;
                }
                Some(Run::Process(mut child)) => {
                    let ended = tokio::time::timeout_at(deadline, child.wait()).await;
                    if ended.is_err() {
                        let _ = child.kill().await;
                    }
                }
                None => {}
            }
        }
        self.page.abort();
        if let Some(temporary) = self.temporary.take() {
            let _ = temporary.close();
        }
    }
}

/// Whether a control socket can be made there, by the length of its path.
fn check_socket(socket: &Path, dir: &Path) -> anyhow::Result<()> {
    control::check_path(socket)
        .with_context(|| format!("choose a shorter directory with --dir than {}", dir.display()))
}

/// Whether a localnet can have these options.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn check(options: &Options) -> anyhow::Result<()> {
    if !(1..=100).contains(&options.mixes_per_layer) {
        bail!("--mixes-per-layer must lie between 1 and 100");
    }
    if !(2..=100).contains(&options.gateways) {
        bail!(
            "--gateways must lie between 2 and 100: a path has two gateways of different operators"
        );
    }
    if !(1..=100).contains(&options.authorities) {
        bail!("--authorities must lie between 1 and 100");
    }
    if !(1..=1_000).contains(&options.clients) {
        bail!("--clients must lie between 1 and 1,000");
    }
    if options.people == 1 || options.people > options.clients {
        bail!("--people: an organisation has two people or more, and each a client");
    }
    if options.epoch < Duration::from_secs(2) || options.epoch > Duration::from_secs(31_536_000) {
        bail!("--epoch must lie between 2 seconds and a year");
    }
    if options.socks.is_some_and(|socks| !socks.ip().is_loopback()) {
        bail!(
            "--socks must be a loopback address, such as 127.0.0.1:1080: whoever reaches the port uses it"
        );
    }
    options.parameters.check().context("--parameters")?;
    if options.parameters.class(&options.class).is_none() {
        let names: Vec<_> = options.parameters.classes.iter().map(|c| c.name.as_str()).collect();
        bail!("--class {}: the classes are {}", options.class, names.join(", "));
    }
    Ok(())
}

/// Where everything is kept, held for this launcher alone, and what removes it in the end.
fn directory(
    options: &Options,
) -> anyhow::Result<(PathBuf, secret::Lock, Option<tempfile::TempDir>)> {
    let (path, temporary) = match &options.dir {
        Some(dir) => (std::path::absolute(dir)?, None),
        None => {
            let dir = temporary("shoal-localnet-")?;
            (dir.path().to_owned(), Some(dir))
        }
    };
    let foreign = ["client.toml", "config.toml", "organisation.toml"];
    if let Some(found) = foreign.iter().map(|name| path.join(name)).find(|file| file.exists()) {
        bail!(
            "{} is another program's: choose a --dir of the localnet's own, which is made if need be",
            found.display()
        );
    }
    secret::private_directory(&path)?;
    let lock = secret::lock(&path, Duration::ZERO)?;
    let lock = lock.with_context(|| {
        format!("a localnet runs in {}: stop it, or choose another --dir", path.display())
    })?;
    Ok((path, lock, temporary))
}

/// A directory of one's own, in memory where there is room: mix keys must not touch a disk.
pub(crate) fn temporary(prefix: &str) -> anyhow::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let parent =
        if secret::memory_backed(memory) { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .tempdir_in(&parent)
        .with_context(|| format!("making a directory in {}", parent.display()))
}

/// A page for the internal service, so that there is something to fetch.
async fn page() -> anyhow::Result<(JoinHandle<()>, SocketAddr)> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let hello = "<!doctype html><title>Shoal</title><h1>Shoal</h1>\
        <p>This page came from an internal service of your localnet: through three mixes and a gateway, \
        and back by single-use reply blocks.</p>\n";
    let router = axum::Router::new().fallback(async move || axum::response::Html(hello));
    let task = tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    });
    Ok((task, address))
}
