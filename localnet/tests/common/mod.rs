//! A localnet of real daemons for one test at a time, and small servers to reach through it.

// Each test uses a part, and may panic: that is how it fails.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shoal_localnet::launch::{Daemon, Localnet, Options};
use shoal_localnet::socks_client::{Host, SocksReply};
use shoal_localnet::{servers, socks_client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Mutex, MutexGuard};

/// Two localnets at once on two cores would measure each other.
static ONE: Mutex<()> = Mutex::const_new(());

pub async fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().await
}

pub fn options() -> Options {
    Options {
        socks: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        program: Some(env!("CARGO_BIN_EXE_shoal-localnet").into()),
        ..Options::default()
    }
}

pub async fn start(options: &Options) -> Localnet {
    Localnet::start(options.clone()).await.expect("the localnet starts")
}

/// The daemon of that name.
pub fn named<'a>(net: &'a mut Localnet, name: &str) -> &'a mut Daemon {
    net.daemons.iter_mut().find(|daemon| daemon.name == name).unwrap()
}

/// A TCP server that runs `serve` for each connection.
pub async fn server<F, T>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    servers::serve(serve).await.unwrap().0
}

pub async fn echo() -> SocketAddr {
    servers::echo().await.unwrap().0
}

/// Answers every A query with 127.0.0.1, if the name ends in `.behind.the.exit`, AAAA queries for `dual.` with `::1`, and
/// counts queries.
pub async fn dns() -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        let mut buf = [0; 1500];
        while let Ok((n, from)) = socket.recv_from(&mut buf).await {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = socket.send_to(&dns_answer(&buf[..n]), from).await;
        }
    });
    (address, count)
}

/// The query for the address of a name (RFC 1035, section 4).
pub fn dns_query(name: &str) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

fn dns_answer(query: &[u8]) -> Vec<u8> {
    let name_end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap_or(0) + 1;
    let question = &query[12..(name_end + 4).min(query.len())];
    let is_a = question.ends_with(&[0, 1, 0, 1]);
    let name = String::from_utf8_lossy(question).to_lowercase();
    let known = name.contains("behind") && name.contains("exit");
    let is_aaaa = question.ends_with(&[0, 28, 0, 1]) && name.contains("dual");
    let mut answer = query[..2].to_vec();
    answer.extend([
        0x81,
        if known { 0x80 } else { 0x83 },
        0,
        1,
        0,
        u8::from((is_a || is_aaaa) && known),
        0,
        0,
        0,
        0,
    ]);
    answer.extend(question);
    if is_a && known {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    if is_aaaa && known {
        answer.extend([0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16]);
        answer.extend(std::net::Ipv6Addr::LOCALHOST.octets());
    }
    answer
}

/// The metrics of a daemon.
pub async fn metrics(admin: SocketAddr) -> String {
    let mut tcp = TcpStream::connect(admin).await.unwrap();
    tcp.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut page = String::new();
    tcp.read_to_string(&mut page).await.unwrap();
    page
}

/// Asks a SOCKS5 proxy, for whatever it is. Every request ends within its stated time.
pub async fn ask(proxy: SocketAddr, command: u8, host: &str, port: u16) -> SocksReply {
    let host = host.parse().map_or(Host::Name(host), Host::V4);
    let asked = socks_client::ask(proxy, command, host, port, None);
    let answer = tokio::time::timeout(Duration::from_secs(40), asked).await;
    answer.expect("every request ends within its stated time").unwrap()
}
