//! A TCP connection to a server, also to one that has said all that it has to say, and reset it, before anybody looked.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::TcpStream;

/// A connection that was established.
#[derive(Debug)]
pub struct Connection {
    /// The socket, connected or reset since.
    pub tcp: TcpStream,
    /// It has been reset since. What the server said before can be read, and the end after it is no orderly one: a
    /// socket reports its error once.
    pub(super) is_reset: bool,
}

impl From<TcpStream> for Connection {
    fn from(tcp: TcpStream) -> Self {
        Self { tcp, is_reset: false }
    }
}

impl Connection {
    /// Connects, however long that takes.
    ///
    /// # Errors
    /// What the system says.
    pub async fn to(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let tcp = TcpStream::from_std(socket.into())?;
        tcp.writable().await?;
        let is_reset = match tcp.take_error()? {
            None => false,
            // Who refuses gives another error.
            Some(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Some(error) => return Err(error),
        };
        // Small writes come out of the tunnel as they were put in.
        let _ = tcp.set_nodelay(true);
        Ok(Self { tcp, is_reset })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_a_server_said_before_a_quick_reset_is_not_lost() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // In the way of `Connection::to`, so that the reset comes before anybody looks.
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut far, b"full, come back later").unwrap();
        let linger = Some(std::time::Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(&far, linger).unwrap();
        drop(far);
        let near = std::net::TcpStream::from(socket);
        near.set_nonblocking(true).unwrap();
        let mut near = TcpStream::from_std(near).unwrap();
        near.writable().await.unwrap();
        let error = near.take_error().unwrap().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let mut said = Vec::new();
        near.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"full, come back later");
    }

    #[tokio::test]
    async fn who_refuses_is_told_from_who_resets() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!Connection::to(address).await.unwrap().is_reset);
        drop(listener);
        let refused = Connection::to(address).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}
