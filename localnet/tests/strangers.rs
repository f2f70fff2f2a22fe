//! What programs of strangers do that those of this project do not: resets, early answers, bursts, odd names.

// Tests fail by panicking, and measure real time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

mod common;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use common::*;
use shoal_localnet::launch::Options;
use shoal_localnet::socks_client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

/// What comes until the end, and whether that is a reset.
async fn to_the_end(tcp: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut buf = [0; 4096];
    let read = async {
        loop {
            match tcp.read(&mut buf).await {
                Ok(0) => return false,
                Ok(n) => all.extend_from_slice(&buf[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let reset = timeout(LIMIT, read).await.expect("the connection ends");
    (all, reset)
}

/// Closes with a reset.
fn reset(tcp: TcpStream) {
    tcp.set_zero_linger().unwrap();
}

/// A server that says 1,000 bytes and resets; that does so after the client has ended its side; that answers before it has
/// read what it was sent, and closes; that hands on what it got, and whether it ended in a reset.
async fn servers() -> ([SocketAddr; 4], mpsc::Receiver<(Vec<u8>, bool)>) {
    let says = server(|mut tcp| async move {
        tcp.write_all(&[7; 1000]).await.unwrap();
        reset(tcp);
    })
    .await;
    let half_closed = server(|mut tcp| async move {
        let _ = to_the_end(&mut tcp).await;
        tcp.write_all(&[7; 1000]).await.unwrap();
        reset(tcp);
    })
    .await;
    let early = server(|mut tcp| async move {
        let mut head = [0; 100];
        tcp.read_exact(&mut head).await.unwrap();
        tcp.write_all(b"413 too large").await.unwrap();
        // With bytes that nobody has read, this is a reset.
        tokio::time::sleep(Duration::from_millis(300)).await;
    })
    .await;
    let (tell, told) = mpsc::channel(4);
    let listens = server(move |mut tcp| {
        let tell = tell.clone();
        async move {
            let got = to_the_end(&mut tcp).await;
            let _ = tell.send(got).await;
        }
    })
    .await;
    ([says, half_closed, early, listens], told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_stays_one_in_both_directions_and_what_was_said_before_arrives() {
    let _alone = alone().await;
    let net = start(&options()).await;
    let proxy = net.socks[0];
    let ([says, half_closed, early, listens], mut told) = servers().await;
    let connect =
        async |to: SocketAddr| socks_client::connect(proxy, &to.to_string(), None).await.unwrap();

    let mut tcp = connect(says).await;
    assert_eq!(to_the_end(&mut tcp).await, (vec![7; 1000], true));

    let mut tcp = connect(half_closed).await;
    tcp.write_all(b"all that there is").await.unwrap();
    tcp.shutdown().await.unwrap();
    assert_eq!(to_the_end(&mut tcp).await, (vec![7; 1000], true));

    for _ in 0..3 {
        let (mut from, mut to) = connect(early).await.into_split();
        let body = tokio::spawn(async move {
            let _ = to.write_all(&[1; 300_000]).await;
            to
        });
        let mut answer = [0; 13];
        timeout(LIMIT, from.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"413 too large");
        drop(from.reunite(body.await.unwrap()).unwrap());
    }

    let mut tcp = connect(listens).await;
    tcp.write_all(&[9; 500]).await.unwrap();
    // As a program would that has waited for an answer in vain.
    tokio::time::sleep(Duration::from_secs(1)).await;
    reset(tcp);
    let got = timeout(LIMIT, told.recv()).await.unwrap().unwrap();
    assert_eq!(got, (vec![9; 500], true));

    // What is orderly stays so, while the other direction goes on.
    let mut tcp = connect(listens).await;
    tcp.write_all(&[9; 500]).await.unwrap();
    tcp.shutdown().await.unwrap();
    let got = timeout(LIMIT, told.recv()).await.unwrap().unwrap();
    assert_eq!(got, (vec![9; 500], false));
    assert_eq!(to_the_end(&mut tcp).await, (vec![], false));
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_underscores_and_questions_of_tor_programs_are_answered() {
    let _alone = alone().await;
    let (dns, _) = dns().await;
    let net = start(&Options { resolver: dns.to_string(), ..options() }).await;
    let (proxy, echo) = (net.socks[0], echo().await);
    for host in
        ["under_score.behind.the.exit", "ipv4_1-lagg0.behind.the.exit", "a.b_.behind.the.exit"]
    {
        assert_eq!(ask(proxy, 1, host, echo.port()).await.code, 0, "{host}");
    }
    // The address of an address is that address.
    let resolved = ask(proxy, 0xf0, "127.0.0.1", 0).await;
    assert_eq!((resolved.code, resolved.bound.map(|b| b.ip())), (0, Some([127, 0, 0, 1].into())));
    // A name that has addresses of both families.
    let resolved = ask(proxy, 0xf0, "dual.behind.the.exit", 0).await;
    assert_eq!((resolved.code, resolved.bound.map(|b| b.ip())), (0, Some([127, 0, 0, 1].into())));
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_datagrams_at_once_arrive_and_so_do_those_of_programs_that_name_no_address() {
    let _alone = alone().await;
    let net = start(&options()).await;
    // What PySocks sends.
    let association = ask(net.socks[0], 3, "0", 0).await;
    assert_eq!(association.code, 0);
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(association.bound.unwrap()).await.unwrap();
    let mut head = vec![0, 0, 0, 1, 127, 0, 0, 1];
    head.extend(peer.local_addr().unwrap().port().to_be_bytes());
    for n in 0..64_u8 {
        socket.send(&[head.as_slice(), &[n, n]].concat()).await.unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut buf = [0; 10];
    while seen.len() < 64 {
        match timeout(Duration::from_secs(10), peer.recv(&mut buf)).await {
            Ok(Ok(2)) => seen.insert(buf[0]),
            other => panic!("{} of 64 arrived, then {other:?}", seen.len()),
        };
    }
    net.stop().await;
}
