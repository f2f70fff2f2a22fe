//! The exit's side of the world: names, connections and datagrams, all under the exit policy.
//!
//! A name is resolved once for each request, every address of the answer is checked, and the very addresses
//! that passed are dialled; a second resolution could be answered with another address (rebinding). Nothing
//! here logs or counts by target. The resolver library does log names: see [`NEVER_LOG`].

mod names;
mod race;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_topology::directory::address::is_shoal_host;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use self::names::{Family, Found, Names};
use self::race::race;
use super::connection::Connection;
use super::own_host::Interfaces;
use crate::policy::{ExitPolicy, undisguised};
use crate::request::MAX_ADDRESSES;
use crate::socks::{Host, HostName, ReplyCode};

/// Log targets that must be off at every level: these libraries write the names they are asked for.
pub const NEVER_LOG: [&str; 3] = ["hickory_resolver", "hickory_net", "hickory_proto"];

/// Names that one association remembers; the oldest makes room.
const ASSOCIATION_NAMES: usize = 64;
/// Peers that one association hears; the oldest makes room.
const ASSOCIATION_PEERS: usize = 256;
/// How long an association keeps a name's addresses, and how long a failure.
const NAME_KEPT: Duration = Duration::from_secs(300);
const FAILURE_KEPT: Duration = Duration::from_secs(5);
/// What is said about names from the configuration, in seconds.
const HOSTS_TTL: u32 = 60;

/// Who answers for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// What `/etc/resolv.conf` and `/etc/hosts` say. Search domains are ignored: they are the operator's own.
    System,
    /// This server alone, over UDP, or TCP for long answers.
    Server(SocketAddr),
}

/// How long each thing may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A connection, from the request to success, resolution included.
    pub connect: Duration,
    /// The longest that a name may take to be resolved.
    pub lookup: Duration,
    /// How long the first address of a name is tried alone before the next is tried beside it (RFC 8305).
    pub stagger: Duration,
}

/// How many things may go on at once. What comes beyond is refused at once with a general failure, and
/// counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialLimits {
    /// Connections being made and names being resolved. Connections that stand do not count.
    pub dials: usize,
    /// UDP associations that are open, of all tunnels together.
    pub associations: usize,
}

/// What a dialer works by.
#[derive(Clone)]
pub struct DialConfig {
    /// Who answers for names.
    pub resolver: Resolver,
    /// Names that are answered from here and never asked of the resolver. The policy applies all the same.
    pub hosts: HashMap<HostName, Vec<IpAddr>>,
    /// What the exit may connect to.
    pub policy: ExitPolicy,
    /// How long each thing may take.
    pub timeouts: Timeouts,
    /// How many things may go on at once.
    pub limits: DialLimits,
}

/// Why an exit cannot start: something in the machine's configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialerError {
    /// The resolver cannot be set up.
    #[error(
        "cannot set up the resolver: {0}; look at /etc/resolv.conf, or name a DNS server in the configuration"
    )]
    Resolver(String),
    /// The host does not say which addresses it has, so the exit could not keep its clients from them.
    #[error("cannot read the addresses of this host's interfaces")]
    Interfaces(#[source] io::Error),
}

/// Makes connections for an exit.
pub struct Dialer {
    /// The resolver that is asked for names.
    names: Names,
    /// Addresses of names that are known without a resolver.
    hosts: HashMap<HostName, Vec<IpAddr>>,
    /// What the exit connects to.
    policy: ExitPolicy,
    /// The addresses of this machine: what it may connect to of its own host is for the policy to say.
    interfaces: Interfaces,
    /// How long each thing may take.
    timeouts: Timeouts,
    /// Connections that are being made, and names that are being resolved for them.
    dials: Semaphore,
    /// Names that datagrams wait for.
    lookups: Semaphore,
    /// UDP associations that are open.
    associations: Arc<Semaphore>,
    /// Requests that were refused because so much was going on.
    refused_busy: AtomicU64,
}

/// A relay of datagrams: its sockets close when it is dropped.
///
/// It hears only hosts to which it has sent (RFC 4787, address-dependent filtering), so that nobody else can
/// reach the client through the exit.
pub struct UdpAssociation {
    dialer: Arc<Dialer>,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    memory: Mutex<Memory>,
    _slot: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Memory {
    names: VecDeque<(HostName, Instant, Result<Vec<IpAddr>, ReplyCode>)>,
    peers: VecDeque<IpAddr>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            lookup: Duration::from_secs(5),
            stagger: Duration::from_millis(250),
        }
    }
}

impl Default for DialLimits {
    fn default() -> Self {
        Self { dials: 256, associations: 128 }
    }
}

impl Default for DialConfig {
    fn default() -> Self {
        Self {
            resolver: Resolver::System,
            hosts: HashMap::new(),
            policy: ExitPolicy::default(),
            timeouts: Timeouts::default(),
            limits: DialLimits::default(),
        }
    }
}

impl Dialer {
    /// Reads the system's resolver configuration, when that is asked for, and the addresses of this host. No packet is
    /// sent yet.
    ///
    /// # Errors
    /// When either cannot be had.
    pub fn new(config: DialConfig) -> Result<Self, DialerError> {
        Ok(Self {
            names: Names::new(config.resolver, config.timeouts.lookup)
                .map_err(|error| DialerError::Resolver(error.to_string()))?,
            hosts: config.hosts,
            policy: config.policy,
            interfaces: Interfaces::read().map_err(DialerError::Interfaces)?,
            timeouts: config.timeouts,
            dials: Semaphore::new(config.limits.dials),
            lookups: Semaphore::new(config.limits.dials),
            associations: Arc::new(Semaphore::new(config.limits.associations)),
            refused_busy: AtomicU64::new(0),
        })
    }

    /// Connects to a host, within `timeouts.connect`. An error is the code to answer with.
    pub async fn connect(&self, host: &Host, port: u16) -> Result<Connection, ReplyCode> {
        let _slot = self.dials.try_acquire().map_err(|_| self.busy())?;
        let allowed = |ip| {
            let target = SocketAddr::new(ip, port);
            let own = self.interfaces.now();
            self.policy.check(&own, target).is_ok().then(|| undisguised(target))
        };
        let ask = async |family| match self.fixed(host) {
            // Whatever its families, it is taken once.
            Some(_) if family == Family::V6 => Err(ReplyCode::HostUnreachable),
            Some(fixed) => fixed,
            None => match host {
                Host::Name(name) => self.names.of(name, family).await,
                Host::Ip(_) => Err(ReplyCode::HostUnreachable),
            },
        };
        let lookups = (ask(Family::V4), ask(Family::V6));
        let connection = race(lookups, allowed, self.timeouts.stagger);
        timeout(self.timeouts.connect, connection).await.unwrap_or(Err(ReplyCode::TtlExpired))
    }

    /// The addresses of a name, at most 16, and the seconds for which they hold. Addresses that the policy
    /// refuses on every port are left out.
    pub async fn resolve(&self, name: &HostName) -> Result<(Vec<IpAddr>, u32), ReplyCode> {
        let _slot = self.dials.try_acquire().map_err(|_| self.busy())?;
        let (mut addresses, ttl) = self.lookup(name).await?;
        let own = self.interfaces.now();
        addresses.retain(|ip| self.policy.check_any_port(&own, *ip).is_ok());
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() { Err(ReplyCode::NotAllowed) } else { Ok((addresses, ttl)) }
    }

    /// The name of an address and the seconds for which it holds, unless the policy refuses the address on
    /// every port: names inside the exit's network are nobody's business.
    pub async fn resolve_ptr(&self, ip: IpAddr) -> Result<(HostName, u32), ReplyCode> {
        self.policy
            .check_any_port(&self.interfaces.now(), ip)
            .map_err(|_| ReplyCode::NotAllowed)?;
        let _slot = self.dials.try_acquire().map_err(|_| self.busy())?;
        self.names.reverse(ip.to_canonical()).await
    }

    /// Opens a relay of datagrams.
    pub async fn udp(self: &Arc<Self>) -> Result<UdpAssociation, ReplyCode> {
        let slot = self.associations.clone().try_acquire_owned().map_err(|_| self.busy())?;
        let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok();
        let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await.ok();
        if v4.is_none() && v6.is_none() {
            return Err(ReplyCode::GeneralFailure);
        }
        for socket in [&v4, &v6].into_iter().flatten() {
            // From here on it is known to be writable, and no datagram waits for that.
            socket.writable().await.map_err(|_| ReplyCode::GeneralFailure)?;
        }
        Ok(UdpAssociation { dialer: self.clone(), v4, v6, memory: Mutex::default(), _slot: slot })
    }

    /// How many requests were refused because too many were going on.
    pub fn refused_busy(&self) -> u64 {
        self.refused_busy.load(Ordering::Relaxed)
    }

    fn busy(&self) -> ReplyCode {
        self.refused_busy.fetch_add(1, Ordering::Relaxed);
        ReplyCode::GeneralFailure
    }

    /// What is known of a host without asking a resolver.
    fn fixed(&self, host: &Host) -> Option<Found> {
        let name = match host {
            Host::Ip(ip) => return Some(Ok((vec![*ip], HOSTS_TTL))),
            Host::Name(name) => name,
        };
        if let Some(addresses) = self.hosts.get(name) {
            return Some(Ok((addresses.clone(), HOSTS_TTL)));
        }
        // Such a name says whom someone wants to reach inside the overlay. Resolvers have no use for it.
        is_shoal_host(name.as_str()).then_some(Err(ReplyCode::HostUnreachable))
    }

    /// Asks once, whatever the answer. What comes back is not checked yet.
    async fn lookup(&self, name: &HostName) -> Found {
        match self.fixed(&Host::Name(name.clone())) {
            Some(fixed) => fixed,
            None => self.names.all(name).await,
        }
    }

    /// The addresses that datagrams may go to on this port. There is no telling whether they arrive, so the family
    /// that nearly every exit has goes first.
    fn allowed(&self, addresses: &[IpAddr], port: u16) -> Result<Vec<SocketAddr>, ReplyCode> {
        let targets = addresses.iter().map(|ip| SocketAddr::new(*ip, port));
        let own = self.interfaces.now();
        let mut allowed: Vec<SocketAddr> = targets
            .filter(|target| self.policy.check(&own, *target).is_ok())
            .map(undisguised)
            .collect();
        allowed.sort_by_key(SocketAddr::is_ipv6);
        if allowed.is_empty() { Err(ReplyCode::NotAllowed) } else { Ok(allowed) }
    }
}

impl UdpAssociation {
    /// Sends a datagram, if the policy allows it. A name is resolved once and its addresses kept for five
    /// minutes. Waits for the resolver at most `timeouts.lookup`.
    pub async fn send(&self, host: &Host, port: u16, data: &[u8]) -> Result<(), ReplyCode> {
        let known = match (self.known(host), host) {
            (Some(known), _) => known,
            (None, Host::Name(name)) => self.name(name).await,
            (None, Host::Ip(_)) => Err(ReplyCode::HostUnreachable),
        };
        self.send_now(known, port, data)
    }

    /// The addresses of a host that needs no look-up: it is an address, or was looked up lately.
    pub fn known(&self, host: &Host) -> Option<Result<Vec<IpAddr>, ReplyCode>> {
        match (host, self.dialer.fixed(host)) {
            (_, Some(fixed)) => Some(fixed.map(|(addresses, _)| addresses)),
            (Host::Name(name), None) => self.memory().known_name(name),
            (Host::Ip(_), None) => None,
        }
    }

    /// Sends a datagram to the first of these addresses to which it can be sent, if the policy allows it.
    ///
    /// # Errors
    /// The policy refuses all, or the system does.
    pub fn send_now(
        &self,
        addresses: Result<Vec<IpAddr>, ReplyCode>,
        port: u16,
        data: &[u8],
    ) -> Result<(), ReplyCode> {
        let mut outcome = Err(ReplyCode::NetworkUnreachable);
        for target in self.dialer.allowed(&addresses?, port)? {
            let Some(socket) = (if target.is_ipv4() { &self.v4 } else { &self.v6 }) else {
                continue;
            };
            // Before the datagram leaves: the answer may be quick.
            self.memory().remember_peer(target.ip());
            match socket.try_send_to(data, target) {
                Ok(_) => return Ok(()),
                Err(error) => outcome = Err(dial_code(&error)),
            }
        }
        outcome
    }

    /// The next datagram from a host to which this association has sent, and its origin. It may be dropped at
    /// any await without losing one. What does not fit into the buffer is cut off: give it 65,535 bytes.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            let socket = tokio::select! {
                socket = readable(self.v4.as_ref()) => socket?,
                socket = readable(self.v6.as_ref()) => socket?,
            };
            match socket.try_recv_from(buffer) {
                Ok((length, origin)) => {
                    let origin = undisguised(origin);
                    if self.memory().peers.contains(&origin.ip()) {
                        return Ok((length, origin));
                    }
                }
                // A report about an earlier datagram; UDP promises nothing.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn name(&self, name: &HostName) -> Result<Vec<IpAddr>, ReplyCode> {
        let found = match self.dialer.lookups.try_acquire() {
            Ok(_slot) => self.dialer.lookup(name).await.map(|(addresses, _)| addresses),
            Err(_) => return Err(self.dialer.busy()),
        };
        self.memory().remember_name(name, &found);
        found
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each change is complete in itself, so a panic elsewhere leaves nothing half done.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn known_name(&mut self, name: &HostName) -> Option<Result<Vec<IpAddr>, ReplyCode>> {
        let now = Instant::now();
        self.names.retain(|(_, until, _)| *until > now);
        self.names.iter().find(|(known, ..)| known == name).map(|(.., found)| found.clone())
    }

    fn remember_name(&mut self, name: &HostName, found: &Result<Vec<IpAddr>, ReplyCode>) {
        let kept = if found.is_ok() { NAME_KEPT } else { FAILURE_KEPT };
        self.names.truncate(ASSOCIATION_NAMES - 1);
        self.names.push_front((name.clone(), Instant::now() + kept, found.clone()));
    }

    fn remember_peer(&mut self, ip: IpAddr) {
        if !self.peers.contains(&ip) {
            self.peers.truncate(ASSOCIATION_PEERS - 1);
            self.peers.push_front(ip);
        }
    }
}

async fn readable(socket: Option<&UdpSocket>) -> io::Result<&UdpSocket> {
    match socket {
        Some(socket) => socket.readable().await.map(|()| socket),
        None => std::future::pending().await,
    }
}

fn dial_code(error: &io::Error) -> ReplyCode {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => ReplyCode::ConnectionRefused,
        ErrorKind::HostUnreachable => ReplyCode::HostUnreachable,
        // Without IPv6 the kernel has no address to come from.
        ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => {
            ReplyCode::NetworkUnreachable
        }
        ErrorKind::TimedOut => ReplyCode::TtlExpired,
        // The exit's own firewall.
        ErrorKind::PermissionDenied => ReplyCode::NotAllowed,
        _ => ReplyCode::GeneralFailure,
    }
}

fn rank(code: ReplyCode) -> u8 {
    match code {
        ReplyCode::ConnectionRefused => 4,
        ReplyCode::TtlExpired => 3,
        ReplyCode::HostUnreachable => 2,
        ReplyCode::NetworkUnreachable => 1,
        _ => 0,
    }
}
