//! Links between real endpoints on loopback.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shoal_host::link::{Allow, Endpoint, FRAME, Identity, LinkError, LinkSettings, Listed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const SHORT: Duration = Duration::from_millis(500);

fn identity(n: u8) -> Identity {
    Identity::from_seed(&[n; 32])
}

fn listening(allow: Allow) -> LinkSettings {
    LinkSettings {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        allow,
        handshake_timeout: Duration::from_secs(20),
        tls_timeout: Duration::from_secs(20),
        ..LinkSettings::default()
    }
}

/// Opens a TCP connection from this address and says nothing.
async fn silent(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// Waits for a while for `counter` to reach `least`.
async fn reaches(counter: &AtomicU64, least: u64) {
    for _ in 0..500 {
        if counter.load(Ordering::Relaxed) >= least {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the counter stays at {}", counter.load(Ordering::Relaxed));
}

fn frame(n: u8) -> Box<[u8; FRAME]> {
    Box::new([n; FRAME])
}

fn dialler() -> Endpoint {
    Endpoint::new(
        &identity(1),
        LinkSettings { handshake_timeout: Duration::from_secs(20), ..LinkSettings::default() },
    )
    .unwrap()
}

fn listener(allow: Allow) -> (Endpoint, SocketAddr) {
    let endpoint = Endpoint::new(&identity(2), listening(allow)).unwrap();
    let address = endpoint.listen_addr().unwrap();
    (endpoint, address)
}

#[tokio::test]
async fn frames_go_both_ways() {
    let (mut b, address) = listener(Allow::list([identity(1).public()].into()));
    let a = dialler();
    let mut up = a.dial(identity(2).public(), address).await.unwrap();
    let mut down = b.accept().await.unwrap();
    assert_eq!(up.peer, identity(2).public());
    assert_eq!(down.peer, identity(1).public());

    up.sender.send(&frame(1)).await.unwrap();
    let many: Vec<_> = (2..42).map(frame).collect();
    up.sender.send_all(&many).await.unwrap();
    assert_eq!(down.receiver.next().await.unwrap(), Some(frame(1)));
    let mut got = Vec::new();
    while got.len() < many.len() {
        let before = got.len();
        let count = down.receiver.next_batch(&mut got, 7).await.unwrap();
        assert!((1..=7).contains(&count) && got.len() == before + count);
    }
    assert_eq!(got, many);

    down.sender.send(&frame(99)).await.unwrap();
    assert_eq!(up.receiver.next().await.unwrap(), Some(frame(99)));
}

#[tokio::test]
async fn what_was_sent_arrives_although_the_sender_left() {
    let (mut b, address) = listener(Allow::anyone());
    let a = dialler();
    let mut up = a.dial(identity(2).public(), address).await.unwrap();
    let many: Vec<_> = (0..60).map(frame).collect();
    up.sender.send_all(&many).await.unwrap();
    up.sender.close().await.unwrap();
    drop(up.receiver);
    let mut down = b.accept().await.unwrap();
    let mut got = Vec::new();
    while down.receiver.next_batch(&mut got, 100).await.unwrap() > 0 {}
    assert_eq!(got, many);
}

#[tokio::test]
async fn a_dropped_endpoint_ends_its_links() {
    let (mut b, address) = listener(Allow::anyone());
    let a = dialler();
    let mut up = a.dial(identity(2).public(), address).await.unwrap();
    let mut down = b.accept().await.unwrap();
    drop(b);
    let ended = tokio::time::timeout(Duration::from_secs(5), up.receiver.next()).await.unwrap();
    assert!(!matches!(ended, Ok(Some(_))));
    let ended = tokio::time::timeout(Duration::from_secs(5), down.receiver.next()).await.unwrap();
    assert!(!matches!(ended, Ok(Some(_))));
    drop(a);
}

#[tokio::test]
async fn a_wrong_key_is_refused() {
    let (b, address) = listener(Allow::anyone());
    let error = dialler().dial(identity(3).public(), address).await.unwrap_err();
    assert!(matches!(error, LinkError::Handshake(_)), "{error:?}");
    reaches(&b.counters().handshake_failures, 1).await;
}

#[tokio::test]
async fn a_peer_off_the_list_is_refused_and_let_in_once_listed() {
    let allow = Allow::list(HashSet::new());
    let (mut b, address) = listener(allow.clone());
    let a = dialler();
    let error = a.dial(identity(2).public(), address).await.unwrap_err();
    assert!(matches!(error, LinkError::Refused), "{error:?}");
    assert_eq!(b.counters().refused_peers.load(Ordering::Relaxed), 1);

    allow.replace([identity(1).public()].into());
    let _up = a.dial(identity(2).public(), address).await.unwrap();
    assert_eq!(b.accept().await.unwrap().peer, identity(1).public());
}

#[tokio::test]
async fn noise_on_the_port_does_no_harm() {
    let (mut b, address) = listener(Allow::anyone());
    for length in [1, 5, 100, 10_000, 100_000] {
        let mut noise = vec![0u8; length];
        noise.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * i * 31 + length) as u8);
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let _ = tcp.write_all(&noise).await;
        let _ = tcp.shutdown().await;
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    }
    reaches(&b.counters().handshake_failures, 5).await;
    let a = dialler();
    let _up = a.dial(identity(2).public(), address).await.unwrap();
    assert!(b.accept().await.is_some());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let (_b, address) = listener(Allow::anyone());
    let settings = LinkSettings { listen: Some(address), ..LinkSettings::default() };
    let error = Endpoint::new(&identity(3), settings.clone()).err().unwrap();
    assert!(matches!(error, LinkError::PortInUse(taken) if taken == address));
    assert!(error.to_string().contains(&address.to_string()));

    // The same when it is no Shoal that listens there.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = LinkSettings { listen: other.local_addr().ok(), ..settings };
    assert!(matches!(Endpoint::new(&identity(3), settings), Err(LinkError::PortInUse(_))));
}

#[tokio::test]
async fn a_half_open_connection_is_dropped_after_the_time_for_tls() {
    assert_eq!(LinkSettings::default().tls_timeout, Duration::from_secs(3));
    let settings = LinkSettings { tls_timeout: SHORT, ..listening(Allow::anyone()) };
    let b = Endpoint::new(&identity(2), settings).unwrap();
    let mut tcp = TcpStream::connect(b.listen_addr().unwrap()).await.unwrap();
    let ended = tokio::time::timeout(SHORT * 10, tcp.read(&mut [0])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)));
    reaches(&b.counters().handshake_failures, 1).await;
}

#[tokio::test]
async fn a_thousand_silent_connections_of_one_address_keep_nobody_out() {
    let (mut b, address) = listener(Allow::anyone());
    let mut held = Vec::new();
    for _ in 0..1_000 {
        held.push(silent("127.0.1.1", address).await);
    }
    reaches(&b.counters().displaced_connections, 1_000 - 64).await;
    let a = dialler();
    let mut up = a.dial(identity(2).public(), address).await.unwrap();
    let mut down = b.accept().await.unwrap();
    up.sender.send(&frame(1)).await.unwrap();
    assert_eq!(down.receiver.next().await.unwrap(), Some(frame(1)));
    assert_eq!(b.counters().displaced_connections.load(Ordering::Relaxed), 1_000 - 64);
    assert_eq!(b.counters().refused_connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn who_says_something_gets_in_although_its_own_network_floods() {
    let (mut b, address) = listener(Allow::anyone());
    let flood = tokio::spawn(async move {
        let mut held = std::collections::VecDeque::new();
        loop {
            held.push_back(silent("127.0.0.1", address).await);
            // Renewed as fast as they are dropped.
            if held.len() > 200 {
                held.pop_front();
            }
        }
    });
    reaches(&b.counters().displaced_connections, 500).await;
    for _ in 0..5 {
        let a = dialler();
        let mut up = a.dial(identity(2).public(), address).await.unwrap();
        up.sender.send(&frame(1)).await.unwrap();
        let mut down = b.accept().await.unwrap();
        assert_eq!(down.receiver.next().await.unwrap(), Some(frame(1)));
    }
    flood.abort();
}

#[tokio::test]
async fn a_link_that_was_never_let_in_makes_room_and_one_that_was_stays() {
    let settings = LinkSettings { max_strangers_of_one: 2, ..listening(Allow::anyone()) };
    let mut b = Endpoint::new(&identity(2), settings).unwrap();
    let address = b.listen_addr().unwrap();
    let mut links = Vec::new();
    for n in 3..7 {
        let a = Endpoint::new(&identity(n), listening(Allow::anyone())).unwrap();
        let up = a.dial(identity(2).public(), address).await.unwrap();
        let down = b.accept().await.unwrap();
        if n == 3 {
            down.standing.admit();
        }
        links.push((a, up, down));
    }
    // The first was let in; of the others the last two fit.
    reaches(&b.counters().displaced_connections, 1).await;
    let ended = tokio::time::timeout(SHORT * 20, links[1].1.receiver.next()).await.unwrap();
    assert!(!matches!(ended, Ok(Some(_))));
    let origin = links[0].2.origin;
    for stays in [0, 2, 3] {
        let (_, up, down) = &mut links[stays];
        up.sender.send(&frame(9)).await.unwrap();
        assert_eq!(down.receiver.next().await.unwrap(), Some(frame(9)));
        assert_eq!(down.origin, origin);
    }
    assert_eq!(b.counters().displaced_connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn strangers_do_not_take_the_room_of_nodes() {
    let listed = Listed::default();
    listed.replace(["127.0.0.1".parse().unwrap()].into());
    let settings = LinkSettings { max_strangers: 4, listed, ..listening(Allow::anyone()) };
    let mut b = Endpoint::new(&identity(2), settings).unwrap();
    let address = b.listen_addr().unwrap();
    // A node whose first byte is still under way, and strangers of more networks than there is room for.
    let mut node = silent("127.0.0.1", address).await;
    let mut held = Vec::new();
    for network in 1..=200 {
        held.push(silent(&format!("127.0.{network}.1"), address).await);
    }
    reaches(&b.counters().displaced_connections, 196).await;
    let closed = tokio::time::timeout(SHORT, node.read(&mut [0])).await;
    assert!(closed.is_err(), "{closed:?}");
    let a = dialler();
    let _up = a.dial(identity(2).public(), address).await.unwrap();
    assert!(b.accept().await.is_some());
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_closed_and_counted_until_another_ends() {
    assert_eq!(LinkSettings::default().max_connections, 1_024);
    let settings = LinkSettings { max_connections: 2, ..listening(Allow::anyone()) };
    let mut b = Endpoint::new(&identity(2), settings).unwrap();
    let address = b.listen_addr().unwrap();
    let peer = |n| {
        let settings =
            LinkSettings { handshake_timeout: Duration::from_secs(20), ..LinkSettings::default() };
        Endpoint::new(&identity(n), settings).unwrap()
    };
    let (first, second, third) = (peer(3), peer(4), peer(5));
    let mut stays = first.dial(identity(2).public(), address).await.unwrap();
    let leaves = second.dial(identity(2).public(), address).await.unwrap();
    let (mut down, ended) = (b.accept().await.unwrap(), b.accept().await.unwrap());
    assert_eq!([down.peer, ended.peer], [identity(3).public(), identity(4).public()]);

    let error = third.dial(identity(2).public(), address).await.unwrap_err();
    assert!(matches!(error, LinkError::Refused), "{error:?}");
    assert_eq!(b.counters().refused_connections.load(Ordering::Relaxed), 1);
    stays.sender.send(&frame(1)).await.unwrap();
    assert_eq!(down.receiver.next().await.unwrap(), Some(frame(1)));

    drop((leaves, ended));
    let mut link = third.dial(identity(2).public(), address).await;
    for _ in 0..50 {
        if link.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        link = third.dial(identity(2).public(), address).await;
    }
    assert!(link.is_ok());
}

#[tokio::test]
async fn a_listener_that_strangers_fill_takes_nodes() {
    let listed = Listed::default();
    listed.replace(["127.0.0.1".parse().unwrap()].into());
    let settings =
        LinkSettings { max_connections: 1, listed: listed.clone(), ..listening(Allow::anyone()) };
    let mut b = Endpoint::new(&identity(2), settings).unwrap();
    let address = b.listen_addr().unwrap();
    let peer = |n| Endpoint::new(&identity(n), listening(Allow::anyone())).unwrap();
    // Two from listed addresses, which take the places of nobody.
    let (first, second) = (peer(3), peer(4));
    let mut links = Vec::new();
    for node in [&first, &second] {
        links.push((node.dial(identity(2).public(), address).await.unwrap(), b.accept().await));
    }
    // The same address, not listed any more, has the one place of strangers.
    listed.replace(HashSet::new());
    let (third, fourth) = (peer(5), peer(6));
    let _third = third.dial(identity(2).public(), address).await.unwrap();
    assert!(fourth.dial(identity(2).public(), address).await.is_err());
    listed.replace(["127.0.0.1".parse().unwrap()].into());
    fourth.dial(identity(2).public(), address).await.unwrap();
}

#[tokio::test]
async fn a_third_connection_of_one_peer_is_refused_until_another_ends() {
    let (mut b, address) = listener(Allow::anyone());
    let a = dialler();
    let first = a.dial(identity(2).public(), address).await.unwrap();
    let _second = a.dial(identity(2).public(), address).await.unwrap();
    let error = a.dial(identity(2).public(), address).await.unwrap_err();
    assert!(matches!(error, LinkError::Refused), "{error:?}");
    reaches(&b.counters().refused_connections, 1).await;

    drop(first);
    let mut ended = b.accept().await.unwrap();
    assert!(!matches!(ended.receiver.next().await, Ok(Some(_))));
    drop(ended);
    let mut third = a.dial(identity(2).public(), address).await;
    for _ in 0..50 {
        if third.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        third = a.dial(identity(2).public(), address).await;
    }
    assert!(third.is_ok());
}

#[tokio::test]
async fn nobody_at_the_address_is_an_error_without_the_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = dialler().dial(identity(2).public(), free).await.unwrap_err();
    let LinkError::Connect(cause) = &error else { panic!("{error:?}") };
    assert_eq!(cause.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(!format!("{error:?} {error} {cause}").contains("127.0.0.1"));
}

#[tokio::test]
async fn a_listener_that_does_not_answer_is_a_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let a = Endpoint::new(
        &identity(1),
        LinkSettings { handshake_timeout: SHORT, ..LinkSettings::default() },
    )
    .unwrap();
    let error = a.dial(identity(2).public(), silent.local_addr().unwrap()).await.unwrap_err();
    assert!(matches!(error, LinkError::Timeout), "{error:?}");
}
