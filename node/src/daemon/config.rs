//! `config.toml`: every field has a default, and [`Config::to_toml`] writes all of them with what they mean.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use shoal_host::config::{ConfigError, resolve};
use shoal_host::host_port::HostPort;
use shoal_host::secret;
use shoal_topology::{Identity, Role};

use crate::engine::gateway::{Admission, GatewaySettings, Keeping, ServiceAccess, Token};

mod template;
#[cfg(test)]
mod tests;

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

    /// The name by which the configuration calls it.
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
    /// Everyone is let in.
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
    /// True if its bearer may be a service (answers at once, without slots).
    #[serde(default)]
    pub service: bool,
}

/// Without the secret, which must not come into a log.
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
    /// True if packets for absent clients are kept.
    pub inbox: bool,
    /// True if they are also kept over a start of the machine.
    pub inbox_survives_reboot: bool,
    /// Inboxes it knows at most.
    #[serde(deserialize_with = "positive")]
    pub max_inboxes: usize,
    /// Packets in all inboxes together, at most.
    pub inbox_packets: usize,
    /// The admission tokens, each with what it allows.
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
            inbox_survives_reboot: true,
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
    /// The organisations whose directories may have a head in the document.
    pub organisation: Vec<OrganisationConfig>,
    /// What the network fixes for everyone; empty: the defaults.
    pub parameters: PathBuf,
    /// What it fixes from an epoch on; empty: the same.
    pub next_parameters: PathBuf,
    /// The first epoch of `next_parameters`.
    pub next_from_epoch: u64,
}

impl AuthorityConfig {
    /// Who may send something, beside the authorities: nodes, services, organisations.
    pub fn senders(&self) -> impl Iterator<Item = &Identity> {
        let organisations = self.organisation.iter().map(|organisation| &organisation.key);
        self.nodes.iter().chain(&self.exits).chain(organisations)
    }

    /// Keys of organisations, and the names that they go by.
    pub fn organisations(&self) -> Vec<(Identity, String)> {
        let listed = self.organisation.iter();
        listed.map(|organisation| (organisation.key, organisation.name.clone())).collect()
    }
}

/// The table `[[authority.organisation]]`.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganisationConfig {
    /// The name that it goes by.
    pub name: String,
    /// Its key, which signs the heads of its directory.
    #[serde(deserialize_with = "identity")]
    pub key: Identity,
}

fn identity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Identity, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
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
    /// The operator who runs it.
    #[serde(deserialize_with = "unit")]
    pub operator: String,
    /// The jurisdiction that it is under.
    #[serde(deserialize_with = "unit")]
    pub jurisdiction: String,
    /// The directory of files that outlive the machine's next start.
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
    /// The declared rate, in packets per second.
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

/// The least size, in bytes, of a `/dev/shm` that is used where no runtime directory is named.
const LEAST_SHARED: u64 = 512 << 20;

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
        // What a container has there is too small for the tags of an epoch.
        let fits = |shared: &OsString| {
            let shared = Path::new(shared);
            secret::memory_backed(shared)
                && secret::size(shared).is_some_and(|size| size >= LEAST_SHARED)
        };
        let shared = Some(OsString::from("/dev/shm")).filter(fits);
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
            RoleName::Authority => 2 * self.authority.senders().count(),
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
            service: if token.service { ServiceAccess::Allowed } else { ServiceAccess::Refused },
        };
        let tokens = self.gateway.token.iter().map(token).collect();
        GatewaySettings {
            admission: match self.gateway.admission {
                AdmissionName::Open => Admission::Open(tokens),
                AdmissionName::Tokens => Admission::Tokens(tokens),
            },
            max_clients: self.gateway.max_clients,
            max_clients_of_one: self.gateway.max_clients_of_one_network,
            token_clients: (self.gateway.max_clients as f64 * self.gateway.token_share) as usize,
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
}
