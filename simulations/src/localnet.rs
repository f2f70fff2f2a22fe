//! A whole mixnet on loopback: every daemon the real one, with a configuration, keys, sockets and data of its own,
//! joined by TCP alone. The first document is signed here, with the keys of the authorities, so that nobody waits for
//! the first vote; all later ones are voted.

// A launcher of daemons lives in the world: clocks and sockets are its business.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use shoal_client::daemon as client;
use shoal_daemon::council::Seat;
use shoal_daemon::shutdown::Shutdown;
use shoal_daemon::{control, logs, network, secret};
use shoal_node::daemon as node;
use shoal_topology::address::ServiceAddress;
use shoal_topology::{
    Document, Epoch, ListedNode, Network, Parameters, Role, SecretIdentity, SignedDocument,
};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// How long daemons may take until all are ready.
const READY: Duration = Duration::from_secs(30);
/// How long they may take to end.
const END: Duration = Duration::from_secs(5);
/// The port that the internal service is asked for; any would do.
const SERVICE_PORT: u16 = 80;

/// What a localnet consists of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Mixes in each of the three layers.
    pub mixes_per_layer: usize,
    /// Gateways, each of an operator of its own; at least two.
    pub gateways: usize,
    /// Authorities that sign the topology.
    pub authorities: usize,
    /// Length of an epoch.
    pub epoch: Duration,
    /// Clients with a SOCKS port.
    pub clients: usize,
    /// Their class.
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
    /// The `shoal-sim` that processes run; else this program.
    pub program: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mixes_per_layer: 2,
            gateways: 2,
            authorities: 4,
            epoch: Duration::from_secs(1200),
            clients: 1,
            class: "web".into(),
            socks: None,
            processes: false,
            log: "warn".into(),
            resolver: "system".into(),
            dir: None,
            parameters: Parameters::default(),
            program: None,
        }
    }
}

/// What a daemon of the localnet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `shoal-node run`.
    Node,
    /// `shoal-client run`.
    Client,
    /// `shoal-client serve`.
    Service,
}

/// One daemon, and where it is found.
pub struct Daemon {
    /// A name, unique in the localnet.
    pub name: String,
    /// Which program it is.
    pub kind: Kind,
    /// Its configuration.
    pub config: PathBuf,
    /// Its control socket.
    pub control: PathBuf,
    /// Its listener, if it has one: for nodes the link port, for clients SOCKS.
    pub listen: Option<SocketAddr>,
    /// Its admin page.
    pub admin: SocketAddr,
    /// Process, if it has one of its own.
    pub pid: Option<u32>,
    run: Option<Run>,
}

enum Run {
    Task(JoinHandle<anyhow::Result<()>>, Shutdown),
    Process(Box<Child>),
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
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
    page: JoinHandle<()>,
    dir: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Free ports of loopback, held until the iterator is dropped: two daemons do not get the same.
struct Ports(Vec<TcpListener>);

/// Where systems do not look for the ports of outgoing connections: one of these would take the port of a daemon that is
/// down for a moment.
const LISTENING: std::ops::Range<u16> = 10_000..32_000;
/// Ports that are tried of these.
const TRIES: usize = 100;

impl Ports {
    fn next(&mut self) -> anyhow::Result<SocketAddr> {
        let listener = (0..TRIES).find_map(|_| {
            let drawn = secret::fresh().ok()?.first_chunk().copied().map(u16::from_le_bytes)?;
            let port = LISTENING.start + drawn % (LISTENING.end - LISTENING.start);
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
        });
        let listener = match listener {
            Some(listener) => listener,
            None => {
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?
            }
        };
        let address = listener.local_addr()?;
        self.0.push(listener);
        Ok(address)
    }
}

impl Localnet {
    /// Starts everything and waits until all daemons are ready and the internal service has answered.
    ///
    /// # Errors
    /// What did not start, and why.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let began = Instant::now();
        check(&options)?;
        let (dir, temporary) = directory(&options)?;
        let (page, target) = page().await?;
        let mut plan = Plan::new(&options, &dir)?;
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
        let socks: Vec<SocketAddr> = clients.iter().filter_map(|client| client.listen).collect();

        founders.found(&options, &dir, &nodes, &exits)?;
        drop(plan); // frees the ports that the daemons take now
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
            page,
            dir,
            temporary,
        };
        for daemon in &mut localnet.daemons {
            daemon.start(&options).await?;
        }
        if let Err(error) = localnet.wait().await {
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
                    "kind": match daemon.kind {
                        Kind::Node => "node", Kind::Client => "client", Kind::Service => "service",
                    },
                    "listen": daemon.listen.map(|address| address.to_string()),
                    "admin": daemon.admin.to_string(),
                    "control": daemon.control,
                    "config": daemon.config,
                    "pid": daemon.pid,
                })
            })
            .collect();
        let socks: Vec<String> = self.socks.iter().map(ToString::to_string).collect();
        json!({
            "ready": true,
            "socks": socks,
            "service": self.service,
            "nodes": nodes,
            "seconds": (self.took.as_secs_f64() * 1000.0).round() / 1000.0,
        })
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
            let answer = crate::socks::get(*socks, &self.service, "/").await;
            let page = answer.context("the internal service does not answer")?;
            if !page.contains("Shoal") {
                bail!("the internal service answers something else");
            }
        }
        Ok(())
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

impl Daemon {
    /// Starts it, as a task or a process.
    ///
    /// # Errors
    /// A configuration that cannot be read, a program that cannot be started.
    async fn start(&mut self, options: &Options) -> anyhow::Result<()> {
        if options.processes {
            let exe = match &options.program {
                Some(program) => program.clone(),
                None => std::env::current_exe().context("finding this program")?,
            };
            let log = std::fs::File::create(self.config.with_extension("log"))?;
            let child = Command::new(exe)
                .arg("daemon")
                .arg(match self.kind {
                    Kind::Node => "node",
                    Kind::Client => "client",
                    Kind::Service => "service",
                })
                .arg(&self.config)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(log)
                .kill_on_drop(true)
                // Ctrl-C at the terminal is for the launcher, which ends the others in order.
                .process_group(0)
                .spawn()
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

    /// Why it ended, if it did.
    async fn ended(&mut self) -> Option<String> {
        match &mut self.run {
            Some(Run::Task(task, _)) if task.is_finished() => Some(match task.await {
                Ok(Ok(())) => "no reason given".into(),
                Ok(Err(error)) => format!("{error:#}"),
                Err(error) => error.to_string(),
            }),
            Some(Run::Process(child)) => {
                let status = child.try_wait().ok()??;
                let log = std::fs::read_to_string(self.config.with_extension("log"));
                Some(format!("{status}: {}", log.unwrap_or_default().trim()))
            }
            _ => None,
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

/// Runs one daemon until `shutdown`: what `shoal-node run`, `shoal-client run` and `serve` do.
///
/// # Errors
/// Why it ended.
pub async fn run(kind: Kind, config: PathBuf, shutdown: Shutdown) -> anyhow::Result<()> {
    match kind {
        Kind::Node => {
            let (config, _) = node::Config::load(&config, &[])?;
            node::run(config, shutdown).await?;
        }
        Kind::Client => {
            let (config, _) = client::config::read(&config, &[])?;
            client::run(config, shutdown).await?;
        }
        Kind::Service => {
            let (config, _) = client::config::read(&config, &[])?;
            client::serve(config, shutdown).await?;
        }
    }
    Ok(())
}

/// Runs one node whose operator is corrupt, until `shutdown`.
///
/// # Errors
/// Why it ended.
pub async fn run_corrupt(
    config: PathBuf,
    misconduct: node::Misconduct,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let (config, _) = node::Config::load(&config, &[])?;
    Ok(node::run_corrupt(config, misconduct, shutdown).await?)
}

/// The log level that a daemon's configuration asks for.
pub fn log_level(config: &Path) -> String {
    let text = std::fs::read_to_string(config).unwrap_or_default();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("log"));
    let level = line.map(|rest| rest.trim_matches(|c: char| !c.is_ascii_alphabetic()).to_owned());
    level.filter(|level| logs::level(level).is_ok()).unwrap_or_else(|| "warn".into())
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
    if options.epoch < Duration::from_secs(2) || options.epoch > Duration::from_secs(31_536_000) {
        bail!("--epoch must lie between 2 seconds and a year");
    }
    options.parameters.check().context("--parameters")?;
    if options.parameters.class(&options.class).is_none() {
        let names: Vec<_> = options.parameters.classes.iter().map(|c| c.name.as_str()).collect();
        bail!("--class {}: the classes are {}", options.class, names.join(", "));
    }
    Ok(())
}

fn directory(options: &Options) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    if let Some(dir) = &options.dir {
        secret::private_directory(dir)?;
        return Ok((std::path::absolute(dir)?, None));
    }
    let dir = temporary("shoal-localnet-")?;
    Ok((dir.path().to_owned(), Some(dir)))
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

/// Writes the directories of all daemons.
struct Plan<'a> {
    options: &'a Options,
    dir: &'a Path,
    ports: Ports,
    /// By which gateways know services.
    token: String,
}

type Services = Vec<(Daemon, shoal_topology::ClientDescriptor)>;

impl<'a> Plan<'a> {
    fn new(options: &'a Options, dir: &'a Path) -> anyhow::Result<Self> {
        let secret = secret::fresh()?;
        let token = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { options, dir, ports: Ports(Vec::new()), token })
    }

    fn authorities(&mut self) -> anyhow::Result<(Vec<Daemon>, Founders)> {
        let (mut daemons, mut configs) = (Vec::new(), Vec::new());
        let (mut secrets, mut seats) = (Vec::new(), Vec::new());
        for n in 1..=self.options.authorities {
            let name = format!("authority-{n}");
            let config = node::Config {
                role: node::RoleName::Authority,
                listen: self.ports.next()?,
                operator: format!("operator of {name}"),
                jurisdiction: "localnet".into(),
                runtime_dir: "run".into(),
                admin: Some(self.ports.next()?),
                log: self.options.log.clone(),
                network: "../network.toml".into(),
                ..node::Config::default()
            };
            let daemon = self.node(&name, &config)?;
            let seed = secret::read(&self.dir.join(&name).join("data/identity.key"))?;
            let own = SecretIdentity::from_bytes(&seed);
            seats.push(Seat { identity: own.identity(), address: config.listen });
            secrets.push(own);
            configs.push((daemon.config.clone(), config));
            daemons.push(daemon);
        }
        let network = Network {
            name: "localnet".into(),
            authorities: secrets.iter().map(SecretIdentity::identity).collect(),
            epoch_s: u32::try_from(self.options.epoch.as_secs())?,
        };
        let text = network::to_toml(&network, &seats);
        secret::replace(&self.dir.join("network.toml"), text.as_bytes())?;
        Ok((daemons, Founders { configs, secrets, network }))
    }

    /// Writes the directory of a node or an authority.
    fn node(&self, name: &str, config: &node::Config) -> anyhow::Result<Daemon> {
        let dir = self.dir.join(name);
        secret::private_directory(&dir)?;
        // A directory that is used again keeps its keys; its ports are new, and so is the network's first document.
        for stale in ["config.toml", "topology", "data/authority.state"] {
            match std::fs::remove_file(dir.join(stale)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        let path = node::init(&dir, config)?;
        Ok(Daemon {
            name: name.into(),
            kind: Kind::Node,
            control: config.clone().resolved(&dir).control_socket(),
            config: path,
            listen: Some(config.listen),
            admin: config.admin.context("an admin page")?,
            pid: None,
            run: None,
        })
    }

    /// All come from one address, and the services have a token.
    fn gateway(&self) -> node::GatewayConfig {
        let token =
            node::TokenConfig { secret: self.token.clone(), connections: 1_000, service: true };
        let default = node::GatewayConfig::default();
        node::GatewayConfig {
            max_clients_of_one_network: default.max_clients,
            token: vec![token],
            ..default
        }
    }

    fn nodes(&mut self) -> anyhow::Result<Vec<Daemon>> {
        let mut daemons = Vec::new();
        let layers = usize::from(self.options.parameters.layers);
        let mixes = (1..=layers).flat_map(|layer| {
            (1..=self.options.mixes_per_layer).map(move |n| format!("mix-{layer}-{n}"))
        });
        let gateways = (1..=self.options.gateways).map(|n| format!("gateway-{n}"));
        for name in mixes.chain(gateways) {
            let gateway = name.starts_with("gateway");
            let config = node::Config {
                role: if gateway { node::RoleName::Gateway } else { node::RoleName::Mix },
                listen: self.ports.next()?,
                operator: format!("operator of {name}"),
                jurisdiction: "localnet".into(),
                runtime_dir: "run".into(),
                admin: Some(self.ports.next()?),
                workers: 1,
                log: self.options.log.clone(),
                network: self.dir.join("network.toml"),
                gateway: self.gateway(),
                ..node::Config::default()
            };
            daemons.push(self.node(&name, &config)?);
        }
        Ok(daemons)
    }

    fn services(&mut self, nodes: &[Daemon], target: SocketAddr) -> anyhow::Result<Services> {
        let exit = format!(
            "[serve]\nkind = \"exit\"\nresolver = \"{}\"\n\
             # A localnet's exit may reach this machine: an exit of a real network must not.\n\
             policy = [\"allow 127.0.0.0/8:*\", \"allow [::1]/128:*\", \"deny *:25\", \"allow *:*\"]\n",
            self.options.resolver
        );
        let service = format!("[serve]\nkind = \"target\"\ntarget = \"{target}\"\n");
        let mut services = Vec::new();
        for (name, text) in [("exit", exit), ("service", service)] {
            // The last gateway first: the first client sits at the first.
            let gateways: Vec<usize> = (0..self.options.gateways).rev().take(2).collect();
            let daemon = self.client(name, Kind::Service, &gateways, nodes, None, &text)?;
            let (config, _) = client::config::read(&daemon.config, &[])?;
            let body = client::descriptor(&config)?.body().clone();
            services.push((daemon, body));
        }
        Ok(services)
    }

    fn clients(&mut self, nodes: &[Daemon]) -> anyhow::Result<Vec<Daemon>> {
        let count = self.options.gateways;
        (0..self.options.clients)
            .map(|n| {
                let socks = self.socks(n)?;
                let text = format!(
                    "[socks]\nlisten = \"{socks}\"\n\n[protect]\n\
                     # A localnet is small: it goes on where a real client would stop.\n\
                     allow_shared_gateway = true\nmin_mixes_per_layer = 1\nallow_small_crowd = true\n"
                );
                let gateways = [n % count, (n + 1) % count];
                self.client(
                    &format!("client-{}", n + 1),
                    Kind::Client,
                    &gateways,
                    nodes,
                    Some(socks),
                    &text,
                )
            })
            .collect()
    }

    /// The SOCKS address of a client: as asked, or 1080 if it is free, or any.
    fn socks(&mut self, n: usize) -> anyhow::Result<SocketAddr> {
        let offset = u16::try_from(n).unwrap_or(u16::MAX);
        let wanted = match self.options.socks {
            Some(address) if address.port() == 0 => return self.ports.next(),
            Some(address) => address,
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, 1080)),
        };
        let port =
            wanted.port().checked_add(offset).context("--socks: no port left for all clients")?;
        let address = SocketAddr::new(wanted.ip(), port);
        match TcpListener::bind(address) {
            Ok(listener) => {
                self.ports.0.push(listener);
                Ok(address)
            }
            Err(_) if self.options.socks.is_none() => self.ports.next(),
            Err(error) => {
                bail!("cannot listen for SOCKS on {address}: {error}; choose another with --socks")
            }
        }
    }

    fn client(
        &mut self,
        name: &str,
        kind: Kind,
        gateways: &[usize],
        nodes: &[Daemon],
        listen: Option<SocketAddr>,
        text: &str,
    ) -> anyhow::Result<Daemon> {
        let dir = self.dir.join(name);
        secret::private_directory(&dir)?;
        let admin = self.ports.next()?;
        let mut toml = format!(
            "# A client of a localnet; `shoal-client init DIR` writes one with every key explained.\n\
             network = \"../network.toml\"\nclass = \"{}\"\nlog = \"{}\"\n",
            self.options.class, self.options.log
        );
        if kind == Kind::Service {
            secret::replace(&dir.join("token"), self.token.as_bytes())?;
            toml.push_str("token = \"token\"\n");
        }
        write!(toml, "\n[admin]\nlisten = \"{admin}\"\n\n")?;
        for gateway in gateways {
            let name = format!("gateway-{}", gateway + 1);
            let gateway = nodes.iter().find(|node| node.name == name).context("no such gateway")?;
            let (config, _) = node::Config::load(&gateway.config, &[])?;
            let identity = node::prepare(&config)?.identity;
            let address = gateway.listen.context("a gateway listens")?;
            write!(toml, "[[gateways]]\nidentity = \"{identity}\"\naddress = \"{address}\"\n\n")?;
        }
        toml.push_str(text);
        let path = dir.join("client.toml");
        secret::replace(&path, toml.as_bytes())?;
        let (config, _) = client::config::read(&path, &[])?;
        Ok(Daemon {
            name: name.into(),
            kind,
            control: client::socket(&config),
            config: path,
            listen,
            admin,
            pid: None,
            run: None,
        })
    }
}

/// The authorities, before anything runs.
struct Founders {
    /// Their configurations, and the files these are in.
    configs: Vec<(PathBuf, node::Config)>,
    secrets: Vec<SecretIdentity>,
    network: Network,
}

impl Founders {
    /// What everyone agrees on before the first vote: who may be listed, and a first document, which a network that
    /// nobody waits for makes by voting.
    fn found(
        &self,
        options: &Options,
        dir: &Path,
        nodes: &[Daemon],
        exits: &[PathBuf],
    ) -> anyhow::Result<()> {
        let parameters = parameters(options);
        secret::replace(
            &dir.join("parameters.toml"),
            toml::to_string(&parameters).context("writing the parameters")?.as_bytes(),
        )?;
        let (mut listed, mut files) = (Vec::new(), Vec::new());
        for daemon in nodes {
            let (config, _) = node::Config::load(&daemon.config, &[])?;
            let descriptor = node::descriptor(&config)?;
            // A mix's name says its first layer: mix-LAYER-NUMBER.
            let layer = match descriptor.body().role {
                Role::Mix => {
                    daemon.name.split('-').nth(1).and_then(|l| l.parse().ok()).unwrap_or(1)
                }
                Role::Gateway => 0,
            };
            listed.push(ListedNode::new(descriptor, layer));
            files.push(config.topology);
        }
        listed.sort_by_key(ListedNode::identity);
        let services = exits.iter().map(|config| {
            let (config, _) = client::config::read(config, &[])?;
            Ok(client::descriptor(&config)?)
        });
        let services = services.collect::<anyhow::Result<Vec<_>>>()?;
        for (path, config) in &self.configs {
            let mut config = config.clone();
            config.authority = node::AuthorityConfig {
                nodes: listed.iter().map(ListedNode::identity).collect(),
                exits: services.iter().map(|exit| exit.body().identity).collect(),
                parameters: "../parameters.toml".into(),
            };
            secret::replace(path, config.to_toml().as_bytes())?;
            files.push(path.with_file_name("topology"));
        }
        let length = options.epoch.as_secs();
        let epoch = unix_s() / length;
        let document = Document {
            network: self.network.name.clone(),
            epoch: Epoch(epoch),
            begins: epoch * length,
            epoch_s: u32::try_from(length)?,
            amendment: 0,
            parameters,
            nodes: listed,
            draw: Default::default(),
            exits: services,
        };
        document.check()?;
        // As many as a document needs: no more must be necessary.
        let signed =
            SignedDocument::new(&document, self.secrets.iter().take(self.network.threshold()));
        let bytes = signed.encode();
        files.iter().try_for_each(|file| secret::replace(file, &bytes))?;
        Ok(())
    }
}

/// What the network fixes for everyone. Short epochs leave less time for packets under way and for clocks.
fn parameters(options: &Options) -> Parameters {
    let mut parameters = options.parameters.clone();
    let least = u16::try_from(options.mixes_per_layer).unwrap_or(u16::MAX);
    parameters.min_mixes_per_layer = parameters.min_mixes_per_layer.min(least);
    let tenth = u64::try_from(options.epoch.as_micros()).unwrap_or(u64::MAX) / 10;
    let longest = parameters
        .classes
        .iter()
        .map(|class| class.delay.exponential_us.max(class.delay.uniform_us));
    let longest = longest.max().unwrap_or_default();
    parameters.max_delay_us = parameters.max_delay_us.min(tenth).max(longest);
    parameters.clock_error_s =
        parameters.clock_error_s.min(u32::try_from(tenth / 1_000_000).unwrap_or(u32::MAX)).max(1);
    parameters.draw_every = parameters.draw_every.min(6);
    parameters
}
