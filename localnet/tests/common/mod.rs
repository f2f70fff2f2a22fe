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

use shoal_localnet::launch::{Localnet, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
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

/// A TCP server that runs `serve` for each connection.
pub async fn server<F, T>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp));
        }
    });
    address
}

pub async fn echo() -> SocketAddr {
    server(|mut tcp| async move {
        let (mut from, mut to) = tcp.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    })
    .await
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

/// What a SOCKS request got: the reply's code, the bound address if it is IPv4, the connection.
/// The metrics of a daemon.
pub async fn metrics(admin: SocketAddr) -> String {
    let mut tcp = TcpStream::connect(admin).await.unwrap();
    tcp.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut page = String::new();
    tcp.read_to_string(&mut page).await.unwrap();
    page
}

pub struct Answer {
    pub code: u8,
    pub bound: Option<SocketAddr>,
    pub tcp: TcpStream,
}

/// Asks a SOCKS5 proxy, by hand: commands that the library's small client does not have.
pub async fn ask(proxy: SocketAddr, command: u8, host: &str, port: u16) -> Answer {
    let mut tcp = TcpStream::connect(proxy).await.unwrap();
    tcp.write_all(&[5, 1, 0]).await.unwrap();
    let mut head = [0; 2];
    tcp.read_exact(&mut head).await.unwrap();
    assert_eq!(head, [5, 0]);
    let mut request = vec![5, command, 0];
    match host.parse::<Ipv4Addr>() {
        Ok(ip) => {
            request.push(1);
            request.extend(ip.octets());
        }
        Err(_) => {
            request.extend([3, host.len() as u8]);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    tcp.write_all(&request).await.unwrap();
    let mut head = [0; 4];
    tokio::time::timeout(Duration::from_secs(40), tcp.read_exact(&mut head))
        .await
        .expect("every request ends within its stated time")
        .unwrap();
    let mut bound = None;
    if head[3] == 1 {
        let mut rest = [0; 6];
        tcp.read_exact(&mut rest).await.unwrap();
        let ip = Ipv4Addr::new(rest[0], rest[1], rest[2], rest[3]);
        bound = Some(SocketAddr::from((ip, u16::from_be_bytes([rest[4], rest[5]]))));
    }
    Answer { code: head[1], bound, tcp }
}
