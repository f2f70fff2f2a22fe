//! The directories of all daemons of a localnet: configurations, keys, ports.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context as _, bail};
use shoal_client::daemon as client;
use shoal_host::authorities::AuthorityAddress;
use shoal_host::{network, secret};
use shoal_node::daemon as node;
use shoal_topology::{Network, SecretIdentity};

use super::founders::Founders;
use super::{Daemon, DaemonKind, Options};

/// Where systems do not look for the ports of outgoing connections: one of these would take the port of a daemon that is
/// down for a moment.
const LISTENING: std::ops::Range<u16> = 10_000..32_000;
/// Ports that a localnet leases together.
const BLOCK: u16 = 50;
/// Blocks that are tried.
const TRIES: usize = 1_000;

/// Blocks of ports that no other localnet of this user takes, as long as this is kept.
pub(super) struct PortLeases(Vec<File>);

/// Free ports of loopback, held until the iterator is dropped: two daemons do not get the same. Between that and the instant at which the
/// daemons have them the leases keep off the next localnet.
struct Ports {
    held: Vec<TcpListener>,
    leases: PortLeases,
    /// What is left of the block that was leased last.
    left: std::ops::Range<u16>,
}

impl Ports {
    fn new() -> Self {
        Self { held: Vec::new(), leases: PortLeases(Vec::new()), left: 0..0 }
    }

    fn next(&mut self) -> anyhow::Result<SocketAddr> {
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
        let listener = loop {
            if let Some(listener) = self.left.by_ref().find_map(free) {
                break listener;
            }
            if !self.lease() {
                break TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                    .context("no free port on loopback")?;
            }
        };
        let address = listener.local_addr()?;
        self.held.push(listener);
        Ok(address)
    }

    /// Leases another block, where there is one and leases can be kept.
    fn lease(&mut self) -> bool {
        let dir = std::env::temp_dir()
            .join(format!("shoal-ports-{}", rustix::process::getuid().as_raw()));
        if secret::private_directory(&dir).is_err() {
            return false;
        }
        let blocks = (LISTENING.end - LISTENING.start) / BLOCK;
        let leased = (0..TRIES).find_map(|_| {
            let drawn = secret::fresh().ok()?.first_chunk().copied().map(u16::from_le_bytes)?;
            let block = drawn % blocks;
            let options = File::options().write(true).create(true).truncate(false).clone();
            let file = options.open(dir.join(block.to_string())).ok()?;
            file.try_lock().ok().map(|()| (block, file))
        });
        let Some((block, file)) = leased else { return false };
        self.leases.0.push(file);
        let begin = LISTENING.start + block * BLOCK;
        self.left = begin..begin + BLOCK;
        true
    }
}

/// Writes the directories of all daemons.
pub(super) struct LaunchPlan<'a> {
    options: &'a Options,
    dir: &'a Path,
    ports: Ports,
    /// By which gateways know services.
    token: String,
}

/// With so many gateways people and services have two each, and none is both's.
const APART: usize = 4;

/// The gateways of services, by number: the last ones, as people have the first.
fn of_services(count: usize) -> [usize; 2] {
    [count - 1, count - 2]
}

/// The gateways of a client: two of those that no service has where there are two, else the first and the second, so that
/// whichever ends leaves it and the services with different ones; people are dealt out to them in turn.
fn of_client(n: usize, count: usize) -> [usize; 2] {
    match count {
        0..=2 => [n % 2, (n + 1) % 2],
        3 => [0, 1],
        _ => [n % (count - 2), (n + 1) % (count - 2)],
    }
}

/// Services with their descriptors.
pub(super) type Services = Vec<(Daemon, shoal_topology::ClientDescriptor)>;

impl<'a> LaunchPlan<'a> {
    /// Frees the ports, for the daemons to take. What it returns is kept as long as they run.
    pub(super) fn free(self) -> PortLeases {
        self.ports.leases
    }

    pub(super) fn new(options: &'a Options, dir: &'a Path) -> anyhow::Result<Self> {
        let secret = secret::fresh()?;
        let token = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { options, dir, ports: Ports::new(), token })
    }

    pub(super) fn authorities(&mut self) -> anyhow::Result<(Vec<Daemon>, Founders)> {
        let (mut daemons, mut configs) = (Vec::new(), Vec::new());
        let (mut secrets, mut authority_addresses) = (Vec::new(), Vec::new());
        for n in 1..=self.options.authorities {
            let name = format!("authority-{n}");
            let config = node::Config {
                role: node::RoleName::Authority,
                listen: self.ports.next()?.into(),
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
            authority_addresses
                .push(AuthorityAddress { identity: own.identity(), address: listens(&config)? });
            secrets.push(own);
            configs.push((daemon.config.clone(), config));
            daemons.push(daemon);
        }
        let network = Network {
            name: "localnet".into(),
            authorities: secrets.iter().map(SecretIdentity::identity).collect(),
            epoch_s: u32::try_from(self.options.epoch.as_secs())?,
            // A handful of clients hide nobody, and everyone who looks at one is to see that.
            trial: self.options.trial,
        };
        let text = network::to_toml(&network, &authority_addresses);
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
            kind: DaemonKind::Node,
            control: config.clone().resolved(&dir).control_socket(),
            config: path,
            listen: Some(listens(config)?),
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

    pub(super) fn nodes(&mut self) -> anyhow::Result<Vec<Daemon>> {
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
                listen: self.ports.next()?.into(),
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

    pub(super) fn services(
        &mut self,
        nodes: &[Daemon],
        target: SocketAddr,
    ) -> anyhow::Result<Services> {
        let exit = format!(
            "[serve]\nkind = \"exit\"\nresolver = \"{}\"\n\
             # A localnet's exit may reach this machine: an exit of a real network must not.\n\
             policy = [\"allow 127.0.0.0/8:*\", \"allow [::1]/128:*\", \"deny *:25\", \"allow *:*\"]\n",
            self.options.resolver
        );
        let service = format!("[serve]\nkind = \"target\"\ntarget = \"{target}\"\n");
        let mut services = Vec::new();
        for (name, text) in [("exit", exit), ("service", service)] {
            let gateways = of_services(self.options.gateways);
            let daemon =
                self.client(name, DaemonKind::Service, &gateways, nodes, None, ("", &text))?;
            let (config, _) = client::config::read(&daemon.config, &[])?;
            let body = client::descriptor(&config)?.body().clone();
            services.push((daemon, body));
        }
        Ok(services)
    }

    pub(super) fn clients(&mut self, nodes: &[Daemon]) -> anyhow::Result<Vec<Daemon>> {
        let count = self.options.gateways;
        // Where people and services may have to share one there must be somebody who lets them.
        let shared = count < APART;
        (0..self.options.clients)
            .map(|n| {
                let socks = self.socks(n)?;
                // A person of the organisation has a page, at a port of its own.
                let (reachable, page) = match n < self.options.people {
                    true => ("reachable = true\n", format!("[page]\nlisten = \"{}\"\n\n", self.ports.next()?)),
                    false => ("", String::new()),
                };
                let text = format!(
                    "{page}[socks]\nlisten = \"{socks}\"\n\n[protect]\n\
                     # A localnet is small: it goes on where a real client would stop.\n\
                     allow_shared_gateway = {shared}\nmin_mixes_per_layer = 1\nallow_small_crowd = {}\n",
                    !self.options.trial
                );
                let gateways = of_client(n, count);
                self.client(
                    &format!("client-{}", n + 1),
                    DaemonKind::Client,
                    &gateways,
                    nodes,
                    Some(socks),
                    (reachable, &text),
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
                self.ports.held.push(listener);
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
        kind: DaemonKind,
        gateways: &[usize],
        nodes: &[Daemon],
        listen: Option<SocketAddr>,
        (keys, tables): (&str, &str),
    ) -> anyhow::Result<Daemon> {
        let dir = self.dir.join(name);
        secret::private_directory(&dir)?;
        let admin = self.ports.next()?;
        let mut toml = format!(
            "# A client of a localnet; `shoal-client init DIR` writes one with every key explained.\n\
             network = \"../network.toml\"\nclass = \"{}\"\nlog = \"{}\"\n",
            self.options.class, self.options.log
        );
        if kind == DaemonKind::Service {
            secret::replace(&dir.join("token"), self.token.as_bytes())?;
            toml.push_str("token = \"token\"\n");
        }
        toml.push_str(keys);
        write!(toml, "\n[admin]\nlisten = \"{admin}\"\n\n")?;
        for gateway in gateways {
            let name = format!("gateway-{}", gateway + 1);
            let gateway = nodes.iter().find(|node| node.name == name).context("no such gateway")?;
            let (config, _) = node::Config::load(&gateway.config, &[])?;
            let identity = node::prepare(&config)?.identity;
            let address = gateway.listen.context("a gateway listens")?;
            write!(toml, "[[gateways]]\nidentity = \"{identity}\"\naddress = \"{address}\"\n\n")?;
        }
        toml.push_str(tables);
        let path = dir.join("client.toml");
        secret::replace(&path, toml.as_bytes())?;
        let (config, _) = client::config::read(&path, &[])?;
        client::make(&config)?;
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

fn listens(config: &node::Config) -> anyhow::Result<SocketAddr> {
    config.listen_address().map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_death_of_one_gateway_leaves_people_and_services_with_the_same_one() {
        for count in 3..12 {
            let services = of_services(count);
            for n in 0..20 {
                let people = of_client(n, count);
                assert!(people.iter().chain(&services).all(|gateway| *gateway < count));
                assert!(people[0] != people[1] && services[0] != services[1]);
                for dead in 0..count {
                    let left =
                        |of: [usize; 2]| of.into_iter().filter(move |gateway| *gateway != dead);
                    let apart = left(people).any(|own| left(services).any(|other| other != own));
                    assert!(apart, "{count} gateways, client {n}, {dead} is dead");
                    let never = people.iter().all(|own| !services.contains(own));
                    assert!(never || count < APART, "{count} gateways, client {n}");
                }
            }
        }
    }
}
