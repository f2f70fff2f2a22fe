//! `config.toml`: every field has a default, and [`Config::to_toml`] writes all of them with what they mean.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use shoal_host::config::{ConfigError, resolve};
use shoal_host::host_port::HostPort;
use shoal_host::secret;
use shoal_topology::{Identity, Role};

use crate::engine::gateway::{Admission, GatewaySettings, Keeping, Service, Token};

/// What a node does, as the configuration says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// Holds and reorders packets.
    #[default]
    Mix,
    /// Entry and inbox of clients.
    Gateway,
    /// Signs the topology.
    Authority,
}

impl RoleName {
    /// As documents say it; they do not list authorities.
    pub fn role(self) -> Option<Role> {
        match self {
            Self::Mix => Some(Role::Mix),
            Self::Gateway => Some(Role::Gateway),
            Self::Authority => None,
        }
    }

    /// As the configuration says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mix => "mix",
            Self::Gateway => "gateway",
            Self::Authority => "authority",
        }
    }
}

impl std::str::FromStr for RoleName {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "mix" => Ok(Self::Mix),
            "gateway" => Ok(Self::Gateway),
            "authority" => Ok(Self::Authority),
            _ => Err("wants mix, gateway or authority".into()),
        }
    }
}

/// Whom a gateway lets in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdmissionName {
    /// Everyone.
    #[default]
    Open,
    /// Those with a token of the list.
    Tokens,
}

/// A token of the list.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// What the client shows.
    #[serde(deserialize_with = "token")]
    pub secret: String,
    /// Connections at a time.
    #[serde(default = "one", deserialize_with = "positive")]
    pub connections: usize,
    /// Whether its bearer may be a service (answers at once, without slots).
    #[serde(default)]
    pub service: bool,
}

/// Without the secret.
impl std::fmt::Debug for TokenConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenConfig(..)")
    }
}

fn one() -> usize {
    1
}

/// The table `[gateway]`.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Whom it lets in.
    pub admission: AdmissionName,
    /// Clients at a time.
    #[serde(deserialize_with = "positive")]
    pub max_clients: usize,
    /// Of these, clients without a token from one network.
    #[serde(deserialize_with = "positive")]
    pub max_clients_of_one_network: usize,
    /// The part of `max_clients` that is kept for bearers of tokens, where everyone may come in.
    #[serde(deserialize_with = "part")]
    pub token_share: f64,
    /// Packets a second, each way, of a service.
    #[serde(deserialize_with = "rate")]
    pub service_per_s: f64,
    /// Descriptor queries a second, in all.
    #[serde(deserialize_with = "rate")]
    pub queries_per_s: f64,
    /// Whether packets for absent clients are kept.
    pub inbox: bool,
    /// Inboxes it knows at most.
    #[serde(deserialize_with = "positive")]
    pub max_inboxes: usize,
    /// Packets in all inboxes together, at most.
    pub inbox_packets: usize,
    /// The tokens.
    pub token: Vec<TokenConfig>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            admission: AdmissionName::Open,
            max_clients: 1_000,
            max_clients_of_one_network: 250,
            token_share: 0.1,
            service_per_s: 2_000.0,
            queries_per_s: 1_000.0,
            inbox: true,
            max_inboxes: 100_000,
            inbox_packets: 100_000,
            token: Vec::new(),
        }
    }
}

/// The table `[authority]`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthorityConfig {
    /// The nodes that may be listed.
    #[serde(deserialize_with = "identities")]
    pub nodes: Vec<Identity>,
    /// The services that may be listed as exits.
    #[serde(deserialize_with = "identities")]
    pub exits: Vec<Identity>,
    /// What the network fixes for everyone; empty: the defaults.
    pub parameters: PathBuf,
    /// What it fixes from an epoch on; empty: the same.
    pub next_parameters: PathBuf,
    /// The first epoch of `next_parameters`.
    pub next_from_epoch: u64,
}

fn identities<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Identity>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parse = |text: String| text.parse().map_err(serde::de::Error::custom);
    texts.into_iter().map(parse).collect()
}

/// A node's configuration.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What it does.
    pub role: RoleName,
    /// Where it listens: see [`Config::listen_address`].
    pub listen: HostPort,
    /// Where others reach it; empty: at `listen`. See [`Config::advertised`].
    pub advertise: Vec<HostPort>,
    /// Who runs it.
    #[serde(deserialize_with = "unit")]
    pub operator: String,
    /// Whose law it is under.
    #[serde(deserialize_with = "unit")]
    pub jurisdiction: String,
    /// Long-lived files.
    pub data_dir: PathBuf,
    /// Files that end with the machine's next start; empty: see [`Config::runtime_dir`].
    pub runtime_dir: PathBuf,
    /// The signed topology document.
    pub topology: PathBuf,
    /// The network file.
    pub network: PathBuf,
    /// The admin page; `None`: off.
    #[serde(deserialize_with = "optional_address")]
    pub admin: Option<SocketAddr>,
    /// Threads that peel; 0: one a core.
    #[serde(deserialize_with = "workers")]
    pub workers: usize,
    /// The declared rate.
    #[serde(deserialize_with = "positive")]
    pub max_packets_per_s: usize,
    /// Most memory of all replay tables, MiB.
    #[serde(deserialize_with = "positive")]
    pub replay_mib: usize,
    /// Packets that the delay pool holds.
    #[serde(deserialize_with = "positive")]
    pub pool_packets: usize,
    /// Level of the log.
    #[serde(deserialize_with = "level")]
    pub log: String,
    /// What a gateway needs beside.
    pub gateway: GatewayConfig,
    /// What an authority needs beside.
    pub authority: AuthorityConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            role: RoleName::Mix,
            listen: SocketAddr::from(([127, 0, 0, 1], 9_001)).into(),
            advertise: Vec::new(),
            operator: "unnamed".into(),
            jurisdiction: "unnamed".into(),
            data_dir: "data".into(),
            runtime_dir: PathBuf::new(),
            topology: "topology".into(),
            network: "network.toml".into(),
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 9_101))),
            workers: 0,
            max_packets_per_s: 2_000,
            replay_mib: 512,
            pool_packets: 200_000,
            log: "info".into(),
            gateway: GatewayConfig::default(),
            authority: AuthorityConfig::default(),
        }
    }
}

/// Most threads that open packets.
const MOST_WORKERS: usize = 1_024;

fn workers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    match usize::deserialize(deserializer)? {
        n @ 0..=MOST_WORKERS => Ok(n),
        _ => Err(serde::de::Error::custom(
            "wants a number of threads up to 1024, or 0 for one a core",
        )),
    }
}

fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let secret = String::deserialize(deserializer)?;
    if secret.trim().is_empty() {
        return Err(serde::de::Error::custom("wants a secret, such as 32 random characters"));
    }
    Ok(secret)
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    match i64::deserialize(deserializer)? {
        n @ 1..=1_000_000_000 => Ok(n as usize),
        _ => Err(serde::de::Error::custom("wants a whole number from 1 to 1000000000")),
    }
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let rate = f64::deserialize(deserializer)?;
    if (0.01..=1e6).contains(&rate) {
        Ok(rate)
    } else {
        Err(serde::de::Error::custom("wants a number from 0.01 to 1000000 (per second)"))
    }
}

fn part<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let part = f64::deserialize(deserializer)?;
    if (0.0..=0.9).contains(&part) {
        Ok(part)
    } else {
        Err(serde::de::Error::custom("wants a part from 0.0 to 0.9"))
    }
}

fn unit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if (1..=64).contains(&name.len()) && shoal_topology::is_plain(&name) {
        Ok(name)
    } else {
        Err(serde::de::Error::custom("wants a name of 1 to 64 bytes that all show"))
    }
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    shoal_host::logs::level(&name).map_err(serde::de::Error::custom)?;
    Ok(name)
}

fn optional_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |_| {
        serde::de::Error::custom("wants an address with a port (127.0.0.1:9101), or \"\" for none")
    };
    text.parse().map(Some).map_err(wrong)
}

fn look_up(key: &str, at: &HostPort) -> Result<Vec<SocketAddr>, String> {
    at.look_up().map_err(|error| format!("`{key}`: {at} cannot be looked up: {error}"))
}

impl Config {
    /// Reads a file, puts `key=value` overrides on top, and resolves its paths against the file's directory. The
    /// second value are warnings, one line each.
    ///
    /// # Errors
    /// When the file cannot be read, or says something that is not allowed.
    pub fn load(path: &Path, overrides: &[String]) -> Result<(Self, Vec<String>), ConfigError> {
        let loaded = shoal_host::config::load::<Self>(path, overrides)?;
        Ok((loaded.config.resolved(&loaded.base), loaded.warnings))
    }

    /// With relative paths resolved against `base`.
    #[must_use]
    pub fn resolved(mut self, base: &Path) -> Self {
        for path in [&mut self.data_dir, &mut self.topology, &mut self.network] {
            *path = resolve(base, path);
        }
        for path in [&mut self.authority.parameters, &mut self.authority.next_parameters] {
            if !path.as_os_str().is_empty() {
                *path = resolve(base, path);
            }
        }
        if !self.runtime_dir.as_os_str().is_empty() {
            self.runtime_dir = resolve(base, &self.runtime_dir);
        }
        self
    }

    /// The runtime directory: as configured, else systemd's `$RUNTIME_DIRECTORY`, else a directory of this node's
    /// own under `$XDG_RUNTIME_DIR` or `/dev/shm`, which lie in memory, else `run` in the data directory.
    pub fn runtime_dir(&self) -> PathBuf {
        if !self.runtime_dir.as_os_str().is_empty() {
            return self.runtime_dir.clone();
        }
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(given) = variable("RUNTIME_DIRECTORY") {
            return std::env::split_paths(&given).next().unwrap_or_default();
        }
        let shared = Some(OsString::from("/dev/shm"));
        let shared = shared.filter(|shared| secret::memory_backed(Path::new(shared)));
        if let Some(base) = variable("XDG_RUNTIME_DIR").or(shared) {
            let data =
                std::path::absolute(&self.data_dir).unwrap_or_else(|_| self.data_dir.clone());
            let name = blake3::hash(data.as_os_str().as_encoded_bytes()).to_hex();
            return Path::new(&base).join(format!("shoal-node-{}", &name.as_str()[..16]));
        }
        self.data_dir.join("run")
    }

    /// The file of the identity, which `init` makes.
    pub fn identity_file(&self) -> PathBuf {
        self.data_dir.join("identity.key")
    }

    /// File descriptors that it may come to need: for connections of clients, links to and from nodes, strangers before
    /// they are known, and files.
    pub fn descriptors(&self) -> u64 {
        const NODES_STRANGERS_AND_FILES: usize = 896;
        let others = match self.role {
            RoleName::Mix => 0,
            RoleName::Gateway => self.gateway.max_clients,
            RoleName::Authority => 2 * (self.authority.nodes.len() + self.authority.exits.len()),
        };
        u64::try_from(others.saturating_add(NODES_STRANGERS_AND_FILES)).unwrap_or(u64::MAX)
    }

    /// The control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.runtime_dir().join("control.sock")
    }

    /// The descriptor that `run` writes for whoever signs the topology.
    pub fn descriptor_file(&self) -> PathBuf {
        self.data_dir.join("descriptor")
    }

    /// Where the node listens: of a name the first address that it has now.
    ///
    /// # Errors
    /// The name has none, or nobody says.
    pub fn listen_address(&self) -> Result<SocketAddr, String> {
        let found = look_up("listen", &self.listen)?;
        found.first().copied().ok_or_else(|| "`listen`: wants an address".into())
    }

    /// Where others reach the node: of names all addresses that they have now.
    ///
    /// # Errors
    /// What to configure, in words.
    pub fn advertised(&self) -> Result<Vec<SocketAddr>, String> {
        let addresses = if self.advertise.is_empty() {
            vec![self.listen_address()?]
        } else {
            let found = self.advertise.iter().map(|at| look_up("advertise", at));
            found.collect::<Result<Vec<_>, _>>()?.concat()
        };
        if addresses.len() > 4 {
            return Err("`advertise`: wants at most 4 addresses".into());
        }
        let nobody =
            |ip: IpAddr| ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        if let Some(at) = addresses.iter().find(|at| nobody(at.ip())) {
            return Err(format!("`advertise`: nobody listens at {at}: it is for many at once"));
        }
        if addresses.iter().any(|a| a.ip().is_unspecified() || a.port() == 0) {
            return Err(
                "`advertise`: wants the addresses, with ports, by which other nodes reach this \
                        one, since `listen` names none in particular"
                    .into(),
            );
        }
        Ok(addresses)
    }

    /// What the engine needs to know of a gateway.
    pub(super) fn gateway_settings(&self, inbox_key: [u8; 32]) -> GatewaySettings {
        let token = |token: &TokenConfig| Token {
            secret: token.secret.clone().into_bytes(),
            connections: token.connections,
            service: if token.service { Service::Allowed } else { Service::Refused },
        };
        let tokens = self.gateway.token.iter().map(token).collect();
        GatewaySettings {
            admission: match self.gateway.admission {
                AdmissionName::Open => Admission::Open(tokens),
                AdmissionName::Tokens => Admission::Tokens(tokens),
            },
            max_clients: self.gateway.max_clients,
            max_clients_of_one: self.gateway.max_clients_of_one_network,
            token_places: (self.gateway.max_clients as f64 * self.gateway.token_share) as usize,
            service_per_s: self.gateway.service_per_s,
            queries_per_s: self.gateway.queries_per_s,
            inbox: if self.gateway.inbox { Keeping::On } else { Keeping::Off },
            max_inboxes: self.gateway.max_inboxes,
            max_inbox_packets: self.gateway.inbox_packets,
            inbox_key,
        }
    }

    /// Tags that come at the declared rate in the life of a key, and how many of them its table has room for as far as
    /// memory goes, which the tables of `keys` keys share.
    pub(super) fn replay_capacity(&self, life: Duration, keys: usize) -> (usize, usize) {
        let wanted = (self.max_packets_per_s as f64 * life.as_secs_f64()).ceil() as usize;
        let bytes = self.replay_mib.saturating_mul(1 << 20) / keys.max(1);
        (wanted, wanted.min(bytes / 16))
    }

    /// The file, with a comment for every field.
    pub fn to_toml(&self) -> String {
        let string = |text: &str| toml::Value::String(text.into()).to_string();
        let path = |path: &Path| string(&path.display().to_string());
        let addresses: Vec<String> =
            self.advertise.iter().map(|address| string(&address.to_string())).collect();
        let admin = self.admin.map(|address| address.to_string()).unwrap_or_default();
        let names = |identities: &[Identity]| {
            let names: Vec<String> =
                identities.iter().map(|identity| format!("\n    \"{identity}\",")).collect();
            if names.is_empty() { String::new() } else { names.concat() + "\n" }
        };
        let gateway = &self.gateway;
        let admission = match gateway.admission {
            AdmissionName::Open => "open",
            AdmissionName::Tokens => "tokens",
        };
        let mut text = format!(
            r#"# Configuration of shoal-node. Every line may be left out; its default is what `shoal-node init` writes.
# Relative paths start at the directory of this file. `-o key=value` on the command line goes before it.

# What this node does: "mix", "gateway" or "authority".
role = {role}

# Where it listens for links: an address and a port. 0.0.0.0 and [::] stand for all addresses of this machine; of a name,
# the first address counts that it has at the start.
listen = {listen}

# Where other nodes and clients reach it, 1 to 4 addresses with ports. Empty: at `listen`. Names stand for the addresses
# that they have at the start; when these change, SIGHUP.
advertise = [{advertise}]

# Who runs the node, and whose law it is under: all mixes of one operator stand in one layer, and who runs a gateway runs no mix. 1 to 64 bytes.
operator = {operator}
jurisdiction = {jurisdiction}

# Long-lived files: the identity (identity.key), the descriptor to give to the authorities, the inbox.
data_dir = {data_dir}

# Files that must not outlive the machine's next start: mix keys with what they have opened, control socket. It should
# lie in memory.
# Empty: $RUNTIME_DIRECTORY (systemd), else a directory of its own under $XDG_RUNTIME_DIR or /dev/shm, else `run` in data_dir.
runtime_dir = {runtime_dir}

# The signed topology document. It is read anew whenever it changes.
topology = {topology}

# The network file: the name of the network and the identities of its authorities.
network = {network}

# The admin page: /livez, /readyz, /metrics, on this machine only. "" switches it off.
admin = {admin}

# Threads that open packets, up to 1024. 0: one for each core.
workers = {workers}

# The rate that this node is made for, packets a second. A key must remember what comes at this rate in its life (an
# epoch, and as long as packets are under way): 16 bytes a packet in memory, at most replay_mib MiB for all keys, and 8
# in the runtime directory. What exceeds it is refused. The node's descriptor says it, and a mix below the network's least
# rate (100 unless its authorities say otherwise) is not listed.
max_packets_per_s = {max_packets_per_s}
replay_mib = {replay_mib}

# Packets that wait for their time at once, about 2.5 kB each. When it is full, the newest is dropped.
pool_packets = {pool_packets}

# What is logged: "off", "error", "warn", "info", "debug" or "trace". SHOAL_LOG goes before it.
log = {log}

# For gateways alone.
[gateway]

# Whom it lets in: "open" (everyone as a person; as a service whoever shows a token of the list below) or "tokens"
# (whoever shows one).
admission = {admission}

# Clients at a time, and of these clients without a token from one network (a /24 of IPv4, a /48 of IPv6; many people
# may share an address). One more is refused.
max_clients = {max_clients}
max_clients_of_one_network = {max_clients_of_one_network}

# On an open gateway, the part of max_clients that is kept for bearers of tokens, so that they get in when everyone else has
# filled it: 0.0 to 0.9, and no more than their tokens have connections.
token_share = {token_share:?}

# Packets a second, each way, of a service (an exit, an application). More wait, and then are dropped.
service_per_s = {service_per_s:?}

# Questions for descriptors of its clients that it answers a second, in all. More are dropped.
queries_per_s = {queries_per_s:?}

# Whether packets for clients that are away are kept (encrypted, in data_dir/inbox.redb), how many inboxes it
# knows, and how many packets they hold together. Beyond that, whoever has most gives way: the bearers of a token, or
# the clients of a network. Quota and expiry of one inbox are in the topology document.
inbox = {inbox}
max_inboxes = {max_inboxes}
inbox_packets = {inbox_packets}

# A token: what the client shows, its connections at a time, and whether its bearer may be a service.
# [[gateway.token]]
# secret = "…"
# connections = 1
# service = false

# For authorities alone.
[authority]

# The identities of the nodes that may be listed (`shoal-node identity` prints a node's own), and of the services that may
# be listed as exits (`shoal-client identity`). Whoever asks and is on no list: `shoal-node authority pending`.
nodes = [{nodes}]
exits = [{exits}]

# A TOML file with the parameters of the network, the same at all authorities. "": the defaults, which `shoal-node
# parameters` prints.
parameters = {parameters}

# Parameters that take their place in the document of an epoch, and from then on. So all authorities can be told beforehand,
# one after the other, and change at once. "": none. `shoal-node status` says which epoch it is.
next_parameters = {next_parameters}
next_from_epoch = {next_from_epoch}
"#,
            role = string(self.role.name()),
            listen = string(&self.listen.to_string()),
            advertise = addresses.join(", "),
            operator = string(&self.operator),
            jurisdiction = string(&self.jurisdiction),
            data_dir = path(&self.data_dir),
            runtime_dir = path(&self.runtime_dir),
            topology = path(&self.topology),
            network = path(&self.network),
            admin = string(&admin),
            workers = self.workers,
            max_packets_per_s = self.max_packets_per_s,
            replay_mib = self.replay_mib,
            pool_packets = self.pool_packets,
            log = string(&self.log),
            admission = string(admission),
            max_clients = gateway.max_clients,
            max_clients_of_one_network = gateway.max_clients_of_one_network,
            token_share = gateway.token_share,
            service_per_s = gateway.service_per_s,
            queries_per_s = gateway.queries_per_s,
            inbox = gateway.inbox,
            max_inboxes = gateway.max_inboxes,
            inbox_packets = gateway.inbox_packets,
            nodes = names(&self.authority.nodes),
            exits = names(&self.authority.exits),
            parameters = path(&self.authority.parameters),
            next_parameters = path(&self.authority.next_parameters),
            next_from_epoch = self.authority.next_from_epoch,
        );
        for token in &gateway.token {
            let TokenConfig { secret, connections, service } = token;
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\n[[gateway.token]]\nsecret = {}\nconnections = {connections}\nservice = {service}\n",
                string(secret)
            );
        }
        text
    }
}

#[cfg(test)]
mod tests;
