//! Against a DNS server of their own.

use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::*;

/// A DNS server with one rule: names under `here.test` are 127.0.0.1 the first time and 127.0.0.2 ever
/// after, `private.test` is 10.0.0.1, `mixed.test` both, `dual.test` 127.0.0.1 and ::1, `silent.test` gets no answer,
/// `no-six.test` none about IPv6, addresses are `host.test`, nothing else exists.
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
        (_, "silent.test") | (28, "no-six.test") => return None,
        (1, "no-six.test" | "dual.test") => vec![vec![127, 0, 0, 1]],
        (28, "dual.test") => vec![Ipv6Addr::LOCALHOST.octets().to_vec()],
        (1, "private.test") => vec![vec![10, 0, 0, 1]],
        (1, "mixed.test") => vec![vec![10, 0, 0, 1], vec![127, 0, 0, 1]],
        (1, name) if name.ends_with(".here.test") => {
            vec![vec![127, 0, 0, if a_queries.fetch_add(1, Ordering::SeqCst) == 0 { 1 } else { 2 }]]
        }
        (12, _) => vec![b"\x04host\x04test\0".to_vec()],
        _ => vec![],
    };
    let found = if records.is_empty() && kind == 1 { 3 } else { 0 };
    let mut bytes =
        [&query[..2], &[0x81, 0x80 | found, 0, 1, 0, records.len() as u8, 0, 0, 0, 0], question]
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
    let mut stream = dialer.connect(&host("only.here.test"), port).await.unwrap().tcp;
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
async fn a_family_that_nobody_answers_for_holds_up_nothing() {
    let dns = Dns::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // A look-up that waited for the other family would end before its answer.
    let timeouts = Timeouts {
        connect: Duration::from_secs(3600),
        lookup: Duration::from_secs(3600),
        ..Timeouts::default()
    };
    let dialer = Dialer::new(DialConfig { timeouts, ..dns.config(LOOPBACK) }).unwrap();
    let within = Duration::from_secs(60);
    let name = host("no-six.test");
    assert!(timeout(within, dialer.connect(&name, port)).await.unwrap().is_ok());
    let Host::Name(name) = name else { panic!() };
    let found = timeout(within, dialer.resolve(&name)).await.unwrap().unwrap();
    assert_eq!(found.0, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
}

#[tokio::test]
async fn names_of_any_letters_that_the_dns_has_are_asked_for() {
    let dns = Dns::start().await;
    for name in [
        "under_score.here.test",
        "ipv4_1-lagg0.here.test",
        "_dmarc.here.test",
        "a_.here.test",
        "-lead.here.test",
    ] {
        let asked = dns.all.load(Ordering::SeqCst);
        let dialer = dns.dialer(LOOPBACK);
        let found = dialer.resolve(&HostName::parse(name).unwrap()).await;
        assert!(found.is_ok() && dns.all.load(Ordering::SeqCst) > asked, "{name}: {found:?}");
    }
}

#[tokio::test]
async fn addresses_of_both_families_are_found_and_those_of_ipv4_come_first() {
    let dns = Dns::start().await;
    let dialer = dns.dialer(&["allow 127.0.0.0/8:*", "allow [::1]:*", "allow *:*"]);
    let (found, _) = dialer.resolve(&HostName::parse("dual.test").unwrap()).await.unwrap();
    let both: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    assert_eq!(found, both);
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
    assert_eq!(dns.all.load(Ordering::SeqCst), asked, "names of the overlay are asked of nobody");
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
    assert_eq!(dialer.connect(&host("silent.test"), 80).await.unwrap_err(), ReplyCode::TtlExpired);
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
    let limits = DialLimits { dials: 1, associations: 1 };
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
    config.hosts.insert(HostName::parse("fixed.test").unwrap(), vec!["127.0.0.9".parse().unwrap()]);
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
    assert_eq!(association.send(&host("private.test"), 53, b"x").await, Err(ReplyCode::NotAllowed));
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
    assert_eq!((memory.names.len(), memory.peers.len()), (ASSOCIATION_NAMES, ASSOCIATION_PEERS));
    assert!(memory.peers.contains(&Ipv4Addr::from(999).into()));
    assert!(memory.known_name(&HostName::parse("n999.test").unwrap()).is_some());
    assert!(memory.known_name(&HostName::parse("n0.test").unwrap()).is_none());
}
