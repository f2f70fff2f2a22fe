//! The admin page.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::time::Duration;

use prometheus::{IntCounter, Registry};
use shoal_host::admin::{AdminError, AdminServer, Readiness};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

const ANY: &str = "127.0.0.1:0";

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_three_pages_say_what_they_should() {
    let registry = Registry::new();
    let counter = IntCounter::new("shoal_packets_total", "Packets.").unwrap();
    registry.register(Box::new(counter.clone())).unwrap();
    counter.inc_by(41);
    let (ready, watched) = watch::channel(Readiness::NotReady("no topology yet".into()));
    let admin = AdminServer::start(ANY.parse().unwrap(), registry, watched).await.unwrap();
    let at = admin.address();

    assert!(get(at, "/livez").await.starts_with("HTTP/1.1 200 "));
    let answer = get(at, "/readyz").await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("no topology yet\n"),
        "{answer}"
    );
    ready.send_replace(Readiness::Ready);
    assert!(get(at, "/readyz").await.starts_with("HTTP/1.1 200 "));
    let answer = get(at, "/metrics").await;
    assert!(answer.contains("\nshoal_packets_total 41\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain"), "{answer}");
    assert!(get(at, "/other").await.starts_with("HTTP/1.1 404 "));
    drop(ready);
    assert!(get(at, "/readyz").await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn web_pages_are_refused_even_by_dns_rebinding() {
    let (_ready, watched) = watch::channel(Readiness::Ready);
    let admin = AdminServer::start(ANY.parse().unwrap(), Registry::new(), watched).await.unwrap();
    let at = admin.address();
    let ask = async |request: String| {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let port = at.port();
    for page in ["/livez", "/readyz", "/metrics", "/other"] {
        let get = |fields: &str| format!("GET {page} HTTP/1.1\r\n{fields}\r\n\r\n");
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "0.0.0.0",
            "a@127.0.0.1",
            "",
        ] {
            for host in [host.to_owned(), format!("{host}:{port}")] {
                let answer = ask(get(&format!("Host: {host}"))).await;
                assert!(answer.starts_with("HTTP/1.1 421 "), "{host}: {answer}");
            }
        }
        let answer = ask(get("Host: localhost\r\nHost: evil.example")).await;
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let answer =
            ask(format!("GET http://evil.example{page} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
        assert!(ask(get("Accept: */*")).await.starts_with("HTTP/1.1 421 "), "no name at all");
        for site in [
            "Origin: https://evil.example",
            "Origin: null",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site",
        ] {
            let answer = ask(get(&format!("Host: 127.0.0.1:{port}\r\n{site}"))).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{site}: {answer}");
            assert!(answer.contains("connection: close"), "{answer}");
        }
    }
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:9", "127.0.0.1:9180"] {
        let person = format!("GET /livez HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: none\r\n\r\n");
        assert!(ask(person).await.starts_with("HTTP/1.1 200 "), "{host}");
    }
    assert!(ask("GET /livez HTTP/1.0\r\n\r\n".into()).await.contains(" 200 "));
}

#[tokio::test]
async fn idle_connections_do_not_shut_others_out() {
    let (_ready, watched) = watch::channel(Readiness::Ready);
    let admin = AdminServer::start(ANY.parse().unwrap(), Registry::new(), watched).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..80 {
        idle.push(TcpStream::connect(admin.address()).await.unwrap());
    }
    let answer =
        tokio::time::timeout(Duration::from_secs(40), get(admin.address(), "/livez")).await;
    assert!(answer.unwrap().starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_port_in_use_and_a_public_address_are_told_apart() {
    let (_ready, watched) = watch::channel(Readiness::Ready);
    let start = |address: SocketAddr| AdminServer::start(address, Registry::new(), watched.clone());
    let first = start(ANY.parse().unwrap()).await.unwrap();
    assert!(matches!(start(first.address()).await, Err(AdminError::PortInUse(_))));
    assert!(matches!(start("0.0.0.0:0".parse().unwrap()).await, Err(AdminError::NotLoopback(_))));
}
