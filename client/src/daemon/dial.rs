//! The exit's side of the world: names, connections and datagrams, all under the exit policy.
//!
//! A name is resolved once for each request, every address of the answer is checked, and the very addresses
//! that passed are dialled; a second resolution could be answered with another address (rebinding). Nothing
//! here logs or counts by target. The resolver library does log names: see [`NEVER_LOG`].

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::{NetError, runtime::TokioRuntimeProvider};
use hickory_resolver::proto::rr::RData;
use shoal_topology::address::is_shoal_host;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::own_host::Interfaces;
use crate::policy::{ExitPolicy, undisguised};
use crate::request::MAX_ADDRESSES;
use crate::socks::{Host, HostName, ReplyCode};

/// Log targets that must be off at every level: these libraries write the names they are asked for.
pub const NEVER_LOG: [&str; 3] = ["hickory_resolver", "hickory_net", "hickory_proto"];

/// How many addresses of one name are dialled, the rest being ignored.
const DIALLED_ADDRESSES: usize = 8;
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
    /// A resolution.
    pub lookup: Duration,
    /// How long the first address of a name is tried alone before the next is tried beside it (RFC 8305).
    pub stagger: Duration,
}

/// How many things may go on at once. What comes beyond is refused at once with a general failure, and
/// counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections being made and names being resolved. Connections that stand do not count.
    pub dials: usize,
    /// UDP associations.
    pub associations: usize,
}

/// What a dialer works by.
#[derive(Clone)]
pub struct DialConfig {
    /// Who answers for names.
    pub resolver: Resolver,
    /// Names that are answered from here and never asked of the resolver. The policy applies all the same.
    pub hosts: HashMap<HostName, Vec<IpAddr>>,
    /// What may be reached.
    pub policy: ExitPolicy,
    /// How long each thing may take.
    pub timeouts: Timeouts,
    /// How many things may go on at once.
    pub limits: Limits,
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
    resolver: TokioResolver,
    hosts: HashMap<HostName, Vec<IpAddr>>,
    policy: ExitPolicy,
    interfaces: Interfaces,
    timeouts: Timeouts,
    dials: Semaphore,
    /// Names that datagrams wait for.
    lookups: Semaphore,
    associations: Arc<Semaphore>,
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

impl Default for Limits {
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
            limits: Limits::default(),
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
            resolver: build_resolver(config.resolver, config.timeouts.lookup)
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
    pub async fn connect(&self, host: &Host, port: u16) -> Result<TcpStream, ReplyCode> {
        let _slot = self.dials.try_acquire().map_err(|_| self.busy())?;
        let connection = async {
            let addresses = self.addresses(host).await?.0;
            race(self.allowed(&addresses, port)?, self.timeouts.stagger).await
        };
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
        let answer = timeout(self.timeouts.lookup, self.resolver.reverse_lookup(ip.to_canonical()))
            .await
            .map_err(|_| ReplyCode::TtlExpired)?
            .map_err(|error| lookup_code(&error))?;
        let name = answer.answers().iter().find_map(|record| match &record.data {
            RData::PTR(name) => Some((HostName::parse(&name.0.to_ascii()).ok()?, record.ttl)),
            _ => None,
        });
        name.ok_or(ReplyCode::HostUnreachable)
    }

    /// Opens a relay of datagrams.
    pub async fn udp(self: &Arc<Self>) -> Result<UdpAssociation, ReplyCode> {
        let slot = self.associations.clone().try_acquire_owned().map_err(|_| self.busy())?;
        let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok();
        let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await.ok();
        if v4.is_none() && v6.is_none() {
            return Err(ReplyCode::GeneralFailure);
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

    async fn addresses(&self, host: &Host) -> Result<(Vec<IpAddr>, u32), ReplyCode> {
        match host {
            Host::Ip(ip) => Ok((vec![*ip], HOSTS_TTL)),
            Host::Name(name) => self.lookup(name).await,
        }
    }

    /// The addresses that may be dialled on this port, as they will be dialled, the families taking turns.
    fn allowed(&self, addresses: &[IpAddr], port: u16) -> Result<Vec<SocketAddr>, ReplyCode> {
        let targets = addresses.iter().map(|ip| SocketAddr::new(*ip, port));
        let own = self.interfaces.now();
        let allowed =
            targets.filter(|target| self.policy.check(&own, *target).is_ok()).map(undisguised);
        let (v6, v4): (Vec<_>, Vec<_>) = allowed.partition(SocketAddr::is_ipv6);
        let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
        let mut turns = Vec::new();
        loop {
            let pair = [v6.next(), v4.next()];
            if pair == [None, None] {
                break;
            }
            turns.extend(pair.into_iter().flatten());
        }
        turns.truncate(DIALLED_ADDRESSES);
        if turns.is_empty() { Err(ReplyCode::NotAllowed) } else { Ok(turns) }
    }

    /// Asks once, whatever the answer. What comes back is not checked yet.
    async fn lookup(&self, name: &HostName) -> Result<(Vec<IpAddr>, u32), ReplyCode> {
        if let Some(addresses) = self.hosts.get(name) {
            return Ok((addresses.clone(), HOSTS_TTL));
        }
        // Such a name says whom someone wants to reach inside the overlay. Resolvers have no use for it.
        if is_shoal_host(name.as_str()) {
            return Err(ReplyCode::HostUnreachable);
        }
        // With the dot at its end a name is complete, and no search domain is tried.
        let answer =
            timeout(self.timeouts.lookup, self.resolver.lookup_ip(format!("{}.", name.as_str())))
                .await
                .map_err(|_| ReplyCode::TtlExpired)?
                .map_err(|error| lookup_code(&error))?;
        let ttl = answer.as_lookup().answers().iter().map(|record| record.ttl).min().unwrap_or(0);
        let addresses: Vec<IpAddr> = answer.iter().collect();
        if addresses.is_empty() { Err(ReplyCode::HostUnreachable) } else { Ok((addresses, ttl)) }
    }
}

impl UdpAssociation {
    /// Sends a datagram, if the policy allows it. A name is resolved once and its addresses kept for five
    /// minutes. Waits for the resolver at most `timeouts.lookup`.
    pub async fn send(&self, host: &Host, port: u16, data: &[u8]) -> Result<(), ReplyCode> {
        let addresses = match host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => self.name(name).await?,
        };
        let mut targets = self.dialer.allowed(&addresses, port)?;
        // There is no telling whether datagrams arrive, so the family that nearly every exit has goes first.
        targets.sort_by_key(SocketAddr::is_ipv6);
        let mut outcome = Err(ReplyCode::NetworkUnreachable);
        for target in targets {
            let Some(socket) = (if target.is_ipv4() { &self.v4 } else { &self.v6 }) else {
                continue;
            };
            // Before the datagram leaves: the answer may be quick.
            self.memory().remember_peer(target.ip());
            match socket.send_to(data, target).await {
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
        if let Some(known) = self.memory().known_name(name) {
            return known;
        }
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

/// The first connection that stands. The next address is tried when one has failed or the stagger has passed.
async fn race(targets: Vec<SocketAddr>, stagger: Duration) -> Result<TcpStream, ReplyCode> {
    let mut targets = targets.into_iter();
    let mut attempts = JoinSet::new();
    let mut outcome = ReplyCode::GeneralFailure;
    let mut telling = 0;
    loop {
        if let Some(target) = targets.next() {
            attempts.spawn(TcpStream::connect(target));
        }
        let end = tokio::select! {
            end = attempts.join_next() => end,
            () = sleep(stagger), if targets.len() > 0 => continue,
        };
        match end {
            None => return Err(outcome),
            Some(Ok(Ok(stream))) => {
                // Small writes come out of the tunnel as they were put in.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Some(Ok(Err(error))) => {
                let code = dial_code(&error);
                // Of several failures the one that came farthest says most.
                if rank(code) >= telling {
                    (outcome, telling) = (code, rank(code));
                }
            }
            Some(Err(_)) => {}
        }
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

fn lookup_code(error: &NetError) -> ReplyCode {
    match error {
        NetError::Timeout => ReplyCode::TtlExpired,
        NetError::Busy => ReplyCode::GeneralFailure,
        _ => ReplyCode::HostUnreachable,
    }
}

fn build_resolver(resolver: Resolver, within: Duration) -> Result<TokioResolver, NetError> {
    let mut builder = match resolver {
        Resolver::System => TokioResolver::builder_tokio()?,
        Resolver::Server(server) => {
            let connections =
                [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
            let server = NameServerConfig::new(server.ip(), true, connections.into());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    // A cache shared by all clients would tell each of them, by its speed, where the others have been.
    options.cache_size = 0;
    options.attempts = 1;
    options.timeout = within * 2 / 5;
    options.use_hosts_file = match resolver {
        Resolver::System => ResolveHosts::Always,
        Resolver::Server(_) => ResolveHosts::Never,
    };
    builder.build()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// A DNS server with one rule: names under `here.test` are 127.0.0.1 the first time and 127.0.0.2 ever
    /// after, `private.test` is 10.0.0.1, `mixed.test` both, `silent.test` gets no answer, addresses are
    /// `host.test`, nothing else exists.
    struct Dns {
        address: SocketAddr,
        a: Arc<AtomicUsize>,
        all: Arc<AtomicUsize>,
    }

    impl Dns {
        async fn start() -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let (a, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let dns = Self { address, a: a.clone(), all: all.clone() };
            tokio::spawn(async move {
                let mut buffer = [0; 1500];
                while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                    all.fetch_add(1, Ordering::SeqCst);
                    if let Some(answer) = answer(&buffer[..length], &a) {
                        socket.send_to(&answer, from).await.unwrap();
                    }
                }
            });
            dns
        }

        fn config(&self, rules: &[&str]) -> DialConfig {
            DialConfig {
                resolver: Resolver::Server(self.address),
                policy: ExitPolicy::parse(rules).unwrap(),
                ..DialConfig::default()
            }
        }

        fn dialer(&self, rules: &[&str]) -> Arc<Dialer> {
            Arc::new(Dialer::new(self.config(rules)).unwrap())
        }
    }

    fn answer(query: &[u8], a_queries: &AtomicUsize) -> Option<Vec<u8>> {
        let (mut labels, mut at) = (Vec::new(), 12);
        while query[at] != 0 {
            let end = at + 1 + usize::from(query[at]);
            labels.push(std::str::from_utf8(&query[at + 1..end]).unwrap().to_owned());
            at = end;
        }
        let kind = query[at + 2];
        let question = &query[12..at + 5];
        let name = labels.join(".");
        let records: Vec<Vec<u8>> = match (kind, name.as_str()) {
            (_, "silent.test") => return None,
            (1, "private.test") => vec![vec![10, 0, 0, 1]],
            (1, "mixed.test") => vec![vec![10, 0, 0, 1], vec![127, 0, 0, 1]],
            (1, name) if name.ends_with(".here.test") => {
                vec![vec![
                    127,
                    0,
                    0,
                    if a_queries.fetch_add(1, Ordering::SeqCst) == 0 { 1 } else { 2 },
                ]]
            }
            (12, _) => vec![b"\x04host\x04test\0".to_vec()],
            _ => vec![],
        };
        let found = if records.is_empty() && kind == 1 { 3 } else { 0 };
        let mut bytes = [
            &query[..2],
            &[0x81, 0x80 | found, 0, 1, 0, records.len() as u8, 0, 0, 0, 0],
            question,
        ]
        .concat();
        for record in records {
            bytes.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 77, 0, record.len() as u8]);
            bytes.extend(record);
        }
        Some(bytes)
    }

    fn host(text: &str) -> Host {
        Host::parse(text.as_bytes()).unwrap()
    }

    const LOOPBACK: &[&str] = &["allow 127.0.0.0/8:*", "allow *:*"];

    #[tokio::test]
    async fn a_name_is_resolved_once_and_the_checked_address_is_dialled() {
        let dns = Dns::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialer = dns.dialer(&["allow 127.0.0.1:*"]);
        let mut stream = dialer.connect(&host("only.here.test"), port).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert_eq!(dns.a.load(Ordering::SeqCst), 1);
        assert_eq!(dns.all.load(Ordering::SeqCst), 2, "one question for A, one for AAAA");
        let (mut far, _) = listener.accept().await.unwrap();
        far.write_all(b"hello").await.unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");

        // The server changes its mind: the new address is checked like the first, and refused.
        assert_eq!(
            dialer.connect(&host("only.here.test"), port).await.unwrap_err(),
            ReplyCode::NotAllowed
        );
        assert_eq!(dns.a.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn each_failure_has_its_code() {
        let dns = Dns::start().await;
        let dialer = dns.dialer(LOOPBACK);
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let code = async |name: &str, port| dialer.connect(&host(name), port).await.unwrap_err();
        assert_eq!(code("127.0.0.1", closed).await, ReplyCode::ConnectionRefused);
        assert_eq!(code("a.here.test", closed).await, ReplyCode::ConnectionRefused);
        assert_eq!(code("10.0.0.1", 80).await, ReplyCode::NotAllowed);
        assert_eq!(code("private.test", 80).await, ReplyCode::NotAllowed);
        assert_eq!(code("::ffff:10.0.0.1", 80).await, ReplyCode::NotAllowed);
        assert_eq!(code("nowhere.test", 80).await, ReplyCode::HostUnreachable);
        let asked = dns.all.load(Ordering::SeqCst);
        assert_eq!(code("some.service.shoal", 80).await, ReplyCode::HostUnreachable);
        assert_eq!(
            dns.all.load(Ordering::SeqCst),
            asked,
            "names of the overlay are asked of nobody"
        );
    }

    #[tokio::test]
    async fn forbidden_addresses_of_a_name_are_passed_over() {
        let dns = Dns::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(dns.dialer(LOOPBACK).connect(&host("mixed.test"), port).await.is_ok());
    }

    #[tokio::test]
    async fn everything_ends_within_its_time() {
        let dns = Dns::start().await;
        let timeouts = Timeouts {
            connect: Duration::from_millis(900),
            lookup: Duration::from_millis(400),
            ..Timeouts::default()
        };
        let dialer = Dialer::new(DialConfig { timeouts, ..dns.config(LOOPBACK) }).unwrap();
        let begin = Instant::now();
        assert_eq!(
            dialer.connect(&host("silent.test"), 80).await.unwrap_err(),
            ReplyCode::TtlExpired
        );
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());

        // A listener whose queue is full does not answer at all.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut kept = Vec::new();
        let code = loop {
            let begin = Instant::now();
            match dialer.connect(&host("127.0.0.1"), port).await {
                Ok(stream) => kept.push(stream),
                Err(code) => {
                    assert!(begin.elapsed() < Duration::from_secs(3));
                    break code;
                }
            }
            assert!(kept.len() < 20);
        };
        assert_eq!(code, ReplyCode::TtlExpired);
    }

    #[tokio::test]
    async fn beyond_the_limit_requests_are_refused_and_counted() {
        let dns = Dns::start().await;
        let limits = Limits { dials: 1, associations: 1 };
        let dialer = Arc::new(Dialer::new(DialConfig { limits, ..dns.config(LOOPBACK) }).unwrap());
        let silent = tokio::spawn({
            let dialer = dialer.clone();
            async move { dialer.connect(&host("silent.test"), 80).await.map(drop) }
        });
        while dialer.dials.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            dialer.connect(&host("127.0.0.1"), 80).await.unwrap_err(),
            ReplyCode::GeneralFailure
        );
        let _association = dialer.udp().await.unwrap();
        assert_eq!(dialer.udp().await.err(), Some(ReplyCode::GeneralFailure));
        assert_eq!(dialer.refused_busy(), 2);
        silent.abort();
        let _ = silent.await;
        assert_eq!(dialer.dials.available_permits(), 1);
    }

    #[tokio::test]
    async fn names_and_addresses_are_answered_unless_refused() {
        let dns = Dns::start().await;
        let mut config = dns.config(LOOPBACK);
        config
            .hosts
            .insert(HostName::parse("fixed.test").unwrap(), vec!["127.0.0.9".parse().unwrap()]);
        let dialer = Dialer::new(config).unwrap();
        let resolve = async |name| dialer.resolve(&HostName::parse(name).unwrap()).await;
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(resolve("a.here.test").await, Ok((vec![ip("127.0.0.1")], 77)));
        assert_eq!(resolve("mixed.test").await, Ok((vec![ip("127.0.0.1")], 77)));
        assert_eq!(resolve("private.test").await, Err(ReplyCode::NotAllowed));
        assert_eq!(resolve("nowhere.test").await, Err(ReplyCode::HostUnreachable));
        let asked = dns.all.load(Ordering::SeqCst);
        assert_eq!(resolve("fixed.test").await, Ok((vec![ip("127.0.0.9")], HOSTS_TTL)));
        assert_eq!(dialer.resolve_ptr(ip("10.0.0.1")).await, Err(ReplyCode::NotAllowed));
        assert_eq!(dns.all.load(Ordering::SeqCst), asked);
        assert_eq!(
            dialer.resolve_ptr(ip("9.9.9.9")).await,
            Ok((HostName::parse("host.test").unwrap(), 77))
        );
    }

    #[tokio::test]
    async fn datagrams_go_where_the_policy_allows_and_come_back() {
        let dns = Dns::start().await;
        let association = dns.dialer(LOOPBACK).udp().await.unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = peer.local_addr().unwrap();
        let mut buffer = [0; 100];
        for _ in 0..3 {
            association.send(&host("a.here.test"), address.port(), b"ping").await.unwrap();
        }
        assert_eq!(dns.a.load(Ordering::SeqCst), 1, "resolved once for the association");
        let (length, from) = peer.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"ping");

        // A stranger, on an address never sent to, is not heard.
        let stranger = UdpSocket::bind("127.0.0.3:0").await.unwrap();
        let back = SocketAddr::new(address.ip(), from.port());
        stranger.send_to(b"boo", back).await.unwrap();
        peer.send_to(b"pong", back).await.unwrap();
        let (length, from) = association.receive(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (&b"pong"[..], address));

        assert_eq!(association.send(&host("10.0.0.1"), 53, b"x").await, Err(ReplyCode::NotAllowed));
        assert_eq!(
            association.send(&host("private.test"), 53, b"x").await,
            Err(ReplyCode::NotAllowed)
        );
        assert_eq!(
            association.send(&host("nowhere.test"), 53, b"x").await,
            Err(ReplyCode::HostUnreachable)
        );
    }

    #[tokio::test]
    async fn the_exits_own_host_is_not_reached_by_any_way() {
        let dns = Dns::start().await;
        let mut config = dns.config(&["allow *:*"]);
        let own: IpAddr = [44, 1, 2, 3].into();
        config.hosts.insert(HostName::parse("own.test").unwrap(), vec![own]);
        let mut dialer = Dialer::new(config).unwrap();
        dialer.interfaces = Interfaces::by(|| {
            let mut host = crate::policy::OwnHost::default();
            host.add_interface([44, 1, 2, 3].into(), 24);
            Ok(host)
        })
        .unwrap();
        let dialer = Arc::new(dialer);
        let refused = ReplyCode::NotAllowed;
        let name = HostName::parse("own.test").unwrap();
        assert_eq!(dialer.resolve(&name).await, Err(refused));
        assert_eq!(dialer.resolve_ptr(own).await, Err(refused));
        let association = dialer.udp().await.unwrap();
        for target in ["44.1.2.3", "own.test", "::ffff:44.1.2.3"] {
            assert_eq!(dialer.connect(&host(target), 80).await.err(), Some(refused), "{target}");
            assert_eq!(association.send(&host(target), 53, b"x").await, Err(refused), "{target}");
        }
    }

    #[test]
    fn the_memory_of_an_association_is_bounded() {
        let mut memory = Memory::default();
        for i in 0..1000u32 {
            memory.remember_peer(Ipv4Addr::from(i).into());
            memory.remember_name(&HostName::parse(&format!("n{i}.test")).unwrap(), &Ok(vec![]));
        }
        assert_eq!(
            (memory.names.len(), memory.peers.len()),
            (ASSOCIATION_NAMES, ASSOCIATION_PEERS)
        );
        assert!(memory.peers.contains(&Ipv4Addr::from(999).into()));
        assert!(memory.known_name(&HostName::parse("n999.test").unwrap()).is_some());
        assert!(memory.known_name(&HostName::parse("n0.test").unwrap()).is_none());
    }
}
