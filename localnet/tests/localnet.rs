//! The mixnet runs: real daemons on loopback, and applications that go through the SOCKS port.

// Tests fail by panicking, and measure real time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use rand::{Rng, SeedableRng};
use shoal_localnet::launch::Options;
use shoal_localnet::socks_client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_files_arrive_intact_in_both_directions() {
    let _alone = alone().await;
    let net = start(&options()).await;
    let (proxy, echo) = (net.socks[0], echo().await.to_string());

    for _ in 0..20 {
        assert!(socks_client::get(proxy, &net.service, "/").await.unwrap().contains("Shoal"));
    }
    let at_once: Vec<_> = (0..50)
        .map(|_| {
            let service = net.service.clone();
            tokio::spawn(async move { socks_client::get(proxy, &service, "/").await })
        })
        .collect();
    for page in at_once {
        assert!(page.await.unwrap().unwrap().contains("Shoal"));
    }

    // 500 kB go to the exit and come back: up and down at once.
    let mut file = vec![0; 500_000];
    rand_chacha::ChaCha12Rng::seed_from_u64(1).fill_bytes(&mut file);
    let tcp = socks_client::connect(proxy, &echo, None).await.unwrap();
    let (mut from, mut to) = tcp.into_split();
    let sent = file.clone();
    let up = tokio::spawn(async move {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    timeout(Duration::from_secs(90), from.read_to_end(&mut back)).await.unwrap().unwrap();
    up.await.unwrap();
    assert!(back == file, "{} bytes of {} came back, or others", back.len(), file.len());
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_asked_of_the_exits_resolver_and_udp_passes() {
    let _alone = alone().await;
    let (dns, queries) = dns().await;
    let net = start(&Options { resolver: dns.to_string(), ..options() }).await;
    let (proxy, echo) = (net.socks[0], echo().await);

    let target = format!("host.behind.the.exit:{}", echo.port());
    let mut tcp = socks_client::connect(proxy, &target, None).await.unwrap();
    tcp.write_all(b"hello").await.unwrap();
    let mut buf = [0; 5];
    tcp.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"hello");
    assert!(queries.load(Ordering::Relaxed) >= 1, "nobody asked the exit's resolver");

    let resolved = ask(proxy, 0xf0, "other.behind.the.exit", 0).await;
    assert_eq!((resolved.code, resolved.bound.map(|b| b.ip())), (0, Some([127, 0, 0, 1].into())));
    assert_eq!(ask(proxy, 0xf0, "nowhere.example", 0).await.code, 4, "host unreachable");

    let association = ask(proxy, 3, "0.0.0.0", 0).await;
    assert_eq!(association.code, 0);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(association.bound.unwrap()).await.unwrap();
    let mut datagram = vec![0, 0, 0, 1, 127, 0, 0, 1];
    datagram.extend(dns.port().to_be_bytes());
    datagram.extend(dns_query("udp.behind.the.exit"));
    let mut answer = [0; 1500];
    // UDP may lose one; a resolver asks again.
    let mut got = 0;
    for _ in 0..5 {
        socket.send(&datagram).await.unwrap();
        if let Ok(Ok(n)) = timeout(Duration::from_secs(3), socket.recv(&mut answer)).await {
            got = n;
            break;
        }
    }
    assert!(answer[..got].ends_with(&[127, 0, 0, 1]), "{got} bytes came back");
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_of_one_association_are_bounded_and_what_is_beyond_is_counted() {
    let _alone = alone().await;
    // A resolver that never answers, and keeps the names it was asked for.
    let resolver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let options = Options { resolver: resolver.local_addr().unwrap().to_string(), ..options() };
    let names: Arc<Mutex<BTreeSet<Vec<u8>>>> = Arc::default();
    let asked = names.clone();
    tokio::spawn(async move {
        let mut query = [0; 1500];
        while let Ok(n) = resolver.recv(&mut query).await {
            let name = query[12..n].split(|byte| *byte == 0).next().unwrap();
            asked.lock().unwrap().insert(name.to_vec());
        }
    });
    let net = start(&options).await;
    let association = ask(net.socks[0], 3, "0.0.0.0", 0).await;
    assert_eq!(association.code, 0);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(association.bound.unwrap()).await.unwrap();
    for n in 0..60 {
        let name = format!("name-{n:02}.example.");
        let mut datagram = vec![0, 0, 0, 3, name.len() as u8];
        datagram.extend(name.as_bytes());
        datagram.extend([0, 53, 1, 2, 3]);
        socket.send(&datagram).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let exit = net.daemons.iter().find(|daemon| daemon.name == "exit").unwrap();
    let lost = async || {
        let status = shoal_host::control::query(&exit.control).await.unwrap();
        status["datagrams_lost"].as_f64().unwrap()
    };
    let began = Instant::now();
    // A resolution takes 5 s before it is given up; a datagram may be lost on the way.
    while lost().await < 40.0 {
        assert!(began.elapsed() < Duration::from_secs(20), "{} are counted", lost().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let names = names.lock().unwrap().len();
    assert!((1..=16).contains(&names), "{names} names were asked for at once");
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_gets_the_right_reply_and_nonsense_does_no_harm() {
    let _alone = alone().await;
    let net = start(&options()).await;
    let proxy = net.socks[0];
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    assert_eq!(ask(proxy, 1, "127.0.0.1", closed).await.code, 5, "connection refused");
    assert_eq!(ask(proxy, 1, "10.1.2.3", 80).await.code, 2, "not allowed: a private range");
    assert_eq!(ask(proxy, 1, "192.0.2.1", 80).await.code, 2, "not allowed: a documentation range");
    assert_eq!(ask(proxy, 2, "127.0.0.1", 80).await.code, 7, "BIND is not supported");
    assert_eq!(ask(proxy, 1, "mistyped.address.shoal", 80).await.code, 4, "host unreachable");
    let (identity, gateway) = net.service.split_once('.').unwrap();
    let swapped = gateway.split('.').next().unwrap();
    let unknown = format!("{swapped}.{swapped}.shoal");
    assert_eq!(ask(proxy, 1, &unknown, 80).await.code, 4, "the gateway knows no such service");
    let nowhere = format!("{identity}.{identity}.shoal");
    assert_eq!(ask(proxy, 1, &nowhere, 80).await.code, 4, "no such gateway");

    // An address stands for the service, for programs that look names up themselves; others like it stand for nothing.
    let (service, port) = net.service.rsplit_once(':').unwrap();
    let resolved = ask(proxy, 0xf0, service, 0).await;
    let stands = resolved.bound.unwrap().ip();
    assert_eq!((resolved.code, stands.to_string().as_str()), (0, "198.18.0.1"));
    assert!(
        socks_client::get(proxy, &format!("{stands}:{port}"), "/").await.unwrap().contains("Shoal")
    );
    assert_eq!(ask(proxy, 1, "198.18.0.2", 80).await.code, 4, "it stands for nothing");
    assert_eq!(ask(proxy, 0xf0, "mistyped.address.shoal", 0).await.code, 4, "host unreachable");

    let mut http = TcpStream::connect(proxy).await.unwrap();
    http.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut page = String::new();
    http.read_to_string(&mut page).await.unwrap();
    assert!(page.starts_with("HTTP/1.0 501") && page.contains("SOCKS5"), "{page}");

    // Half-open and idle connections, and noise at every listener.
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(proxy).await.unwrap());
    }
    for daemon in &net.daemons {
        for address in daemon.listen.iter().chain([&daemon.admin]) {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            let _ = tcp.write_all(&[0x5a; 10_000]).await;
        }
    }
    assert!(socks_client::get(proxy, &net.service, "/").await.unwrap().contains("Shoal"));
    for daemon in &net.daemons {
        let live = TcpStream::connect(daemon.admin).await.unwrap();
        let (mut from, mut to) = live.into_split();
        to.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        from.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{daemon:?}: {answer}");
    }
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_user_names_have_tunnels_of_their_own() {
    let _alone = alone().await;
    let net = start(&options()).await;
    let (proxy, echo) = (net.socks[0], echo().await.to_string());
    let client = net.daemons.iter().find(|daemon| daemon.name == "client-1").unwrap();
    let tunnels = async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let status = shoal_host::control::query(&client.control).await.unwrap();
        status["tunnels"]["connected"].as_u64().unwrap()
    };
    // One to the internal service stands since the start.
    let before = tunnels().await;
    let _one = socks_client::connect(proxy, &echo, Some(("alice", "a"))).await.unwrap();
    let _same = socks_client::connect(proxy, &echo, Some(("alice", "a"))).await.unwrap();
    assert_eq!(tunnels().await, before + 1);
    let _other = socks_client::connect(proxy, &echo, Some(("bob", "a"))).await.unwrap();
    let _password = socks_client::connect(proxy, &echo, Some(("alice", "b"))).await.unwrap();
    let _none = socks_client::connect(proxy, &echo, None).await.unwrap();
    assert_eq!(tunnels().await, before + 4);
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mix_under_load_forwards_every_packet() {
    let _alone = alone().await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_shoal-localnet"));
    command.args(["load", "--rate", "200", "--seconds", "2", "--json"]).kill_on_drop(true);
    let done = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    let done = done.unwrap().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(figures["lost"], 0, "{figures}");
    for name in ["forwarded_per_s", "excess_delay_p99_ms", "rss_mb", "ratio"] {
        assert!(figures[name].as_f64().is_some_and(|value| value > 0.0), "{name}: {figures}");
    }
}

/// What a daemon's metrics say, without what moves by itself: its own loops, slots that pass, strangers at its port.
async fn of_people(daemon: &shoal_localnet::launch::Daemon) -> BTreeSet<String> {
    let page = metrics(daemon.admin).await;
    let body = page.split_once("\r\n\r\n").unwrap().1;
    let by_itself = [
        "shoal_client_slots_total",
        "shoal_node_loops_",
        "shoal_node_link_",
        "shoal_client_anonymity_bits",
    ];
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter(|line| !by_itself.iter().any(|name| line.starts_with(name)))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_moves_no_number_that_any_daemon_exports() {
    // No epoch ends during the test.
    let net = start(&Options { epoch: Duration::from_secs(86_400), ..options() }).await;
    socks_client::get(net.socks[0], &net.service, "/").await.unwrap();
    let mut before = Vec::new();
    for daemon in &net.daemons {
        let page = of_people(daemon).await;
        assert!(
            !page.is_empty() && page.iter().any(|line| line.contains("_ready 1")),
            "{daemon:?}"
        );
        before.push(page);
    }
    for _ in 0..3 {
        socks_client::get(net.socks[0], &net.service, "/").await.unwrap();
    }
    let client = net.daemons.iter().find(|daemon| daemon.name == "client-1").unwrap();
    // What `status` says is half a second old at most.
    let mut answered = 0;
    for _ in 0..100 {
        let status = shoal_host::control::query(&client.control).await.unwrap();
        answered = status["requests"]["answered"].as_u64().unwrap();
        if answered >= 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(answered >= 4, "{answered}");
    // Twice what the daemons take to make their reports anew.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (daemon, before) in net.daemons.iter().zip(&before) {
        assert_eq!(&of_people(daemon).await, before, "{daemon:?}");
    }
    net.stop().await;
}
