//! Small servers on loopback, to reach through a localnet.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Runs `serve` for each connection, until the task is aborted.
///
/// # Errors
/// There is no port.
pub async fn serve<F, T>(serve: F) -> io::Result<(SocketAddr, JoinHandle<()>)>
where
    F: Fn(TcpStream) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp));
        }
    });
    Ok((address, task))
}

/// Sends back what it gets.
///
/// # Errors
/// There is no port.
pub async fn echo() -> io::Result<(SocketAddr, JoinHandle<()>)> {
    serve(|mut tcp| async move {
        let (mut from, mut to) = tcp.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    })
    .await
}

/// Sends so many bytes to whoever connects.
///
/// # Errors
/// There is no port.
pub async fn source(bytes: usize) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    serve(move |mut tcp| async move {
        let zeros = vec![0; 64 << 10];
        let mut left = bytes;
        while let Some(data) = zeros.get(..left.min(zeros.len())).filter(|data| !data.is_empty()) {
            if tcp.write_all(data).await.is_err() {
                return;
            }
            left -= data.len();
        }
    })
    .await
}
