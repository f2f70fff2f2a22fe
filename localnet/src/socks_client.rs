//! A small SOCKS5 client, for measurements and checks: name and port in, a connection out.

#![allow(clippy::disallowed_methods)] // It opens real connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The command CONNECT (RFC 1928, section 4).
const CONNECT: u8 = 1;

/// What a request names.
#[derive(Clone, Copy, Debug)]
pub enum Host<'a> {
    /// A name; an address in words goes as one too.
    Name(&'a str),
    /// An address of IPv4.
    V4(Ipv4Addr),
}

/// What a request got.
#[derive(Debug)]
pub struct SocksReply {
    /// The reply's code; 0 is success.
    pub code: u8,
    /// The bound address, if it is IPv4.
    pub bound: Option<SocketAddr>,
    /// The connection to the proxy.
    pub tcp: TcpStream,
}

/// Asks the proxy for anything, and waits for its reply, whatever that is; user name and password isolate.
///
/// # Errors
/// There is no proxy, or it breaks the protocol.
pub async fn ask(
    proxy: SocketAddr,
    command: u8,
    host: Host<'_>,
    port: u16,
    credentials: Option<(&str, &str)>,
) -> anyhow::Result<SocksReply> {
    let mut tcp = TcpStream::connect(proxy).await?;
    tcp.set_nodelay(true)?;
    authenticate(&mut tcp, credentials).await?;
    let mut request = vec![5, command, 0];
    match host {
        Host::V4(ip) => {
            request.push(1);
            request.extend(ip.octets());
        }
        Host::Name(name) => {
            request.extend([3, u8::try_from(name.len())?]);
            request.extend(name.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    tcp.write_all(&request).await?;
    let mut head = [0; 4];
    tcp.read_exact(&mut head).await?;
    let [_, code, _, kind] = head;
    let bound = bound(&mut tcp, kind).await?;
    Ok(SocksReply { code, bound, tcp })
}

/// Agrees on a method, and tells user name and password (RFC 1929).
async fn authenticate(
    tcp: &mut TcpStream,
    credentials: Option<(&str, &str)>,
) -> anyhow::Result<()> {
    let method = if credentials.is_some() { 2 } else { 0 };
    tcp.write_all(&[5, 1, method]).await?;
    let mut reply = [0; 2];
    tcp.read_exact(&mut reply).await?;
    if reply != [5, method] {
        bail!("the proxy offers no method that fits");
    }
    if let Some((user, password)) = credentials {
        let mut message = vec![1, u8::try_from(user.len())?];
        message.extend(user.as_bytes());
        message.push(u8::try_from(password.len())?);
        message.extend(password.as_bytes());
        tcp.write_all(&message).await?;
        tcp.read_exact(&mut reply).await?;
    }
    Ok(())
}

/// Reads the rest of a reply: the bound address, if it is IPv4.
async fn bound(tcp: &mut TcpStream, kind: u8) -> anyhow::Result<Option<SocketAddr>> {
    let length = match kind {
        1 => {
            let ip = Ipv4Addr::from(tcp.read_u32().await?);
            return Ok(Some(SocketAddr::from((ip, tcp.read_u16().await?))));
        }
        4 => 18,
        3 => usize::from(tcp.read_u8().await?) + 2,
        _ => bail!("the proxy's reply is malformed"),
    };
    tcp.read_exact(&mut vec![0; length]).await?;
    Ok(None)
}

/// Connects to `host:port` through the proxy.
///
/// # Errors
/// The proxy's reply, in words.
pub async fn connect(
    proxy: SocketAddr,
    target: &str,
    credentials: Option<(&str, &str)>,
) -> anyhow::Result<TcpStream> {
    let (host, port) = target.rsplit_once(':').context("the target has no port")?;
    let port: u16 = port.parse().context("the target's port")?;
    match ask(proxy, CONNECT, Host::Name(host), port, credentials).await? {
        SocksReply { code: 0, tcp, .. } => Ok(tcp),
        SocksReply { code, .. } => bail!("the proxy refuses with code {code}"),
    }
}

/// Fetches a page over HTTP/1.0 through the proxy, within 30 s.
///
/// # Errors
/// As [`connect`], and when the answer does not come.
pub async fn get(proxy: SocketAddr, target: &str, path: &str) -> anyhow::Result<String> {
    let fetch = async {
        let mut tcp = connect(proxy, target, None).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {target}\r\n\r\n");
        tcp.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    timeout(Duration::from_secs(30), fetch).await.context("no answer in 30 s")?
}
