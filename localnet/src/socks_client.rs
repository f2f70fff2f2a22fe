//! A small SOCKS5 client, for measurements and checks: name and port in, a connection out.

#![allow(clippy::disallowed_methods)] // It opens real connections.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Connects to `host:port` through the proxy; user name and password isolate.
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
    let mut tcp = TcpStream::connect(proxy).await?;
    tcp.set_nodelay(true)?;
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
    let mut request = vec![5, 1, 0, 3, u8::try_from(host.len())?];
    request.extend(host.as_bytes());
    request.extend(port.to_be_bytes());
    tcp.write_all(&request).await?;
    let mut head = [0; 4];
    tcp.read_exact(&mut head).await?;
    let [_, code, _, kind] = head;
    let rest = match kind {
        1 => 6,
        4 => 18,
        3 => usize::from(tcp.read_u8().await?) + 2,
        _ => bail!("the proxy's reply is malformed"),
    };
    let mut bound = vec![0; rest];
    tcp.read_exact(&mut bound).await?;
    if code != 0 {
        bail!("the proxy refuses with code {code}");
    }
    Ok(tcp)
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
