//! UDP ASSOCIATE, at both ends of a stream. Datagrams travel as QUIC datagrams, or on the stream when they are too
//! long for that.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::dial::UdpAssociation;
use super::hub::{Stream, TunnelIo};
use super::owner::Owner;
use super::permits::UdpQuotas;
use crate::request::UdpPacket;
use crate::socks::{Host, datagram};
use crate::tunnel::Pseudonym;

/// The longest datagram there is.
const LONGEST: usize = 65_535;
/// Datagrams of one association that wait for a name; more are dropped, as a full queue would.
const LOOKUPS: usize = 16;
/// How long an association may be silent: at a full exit, and at an empty one.
const IDLE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(5);

async fn send<E: TunnelIo>(stream: &Stream<E>, packet: &UdpPacket) -> Result<(), u64> {
    if stream.send_datagram(packet.encode_datagram()) {
        return Ok(());
    }
    stream.write(&packet.encode_on_stream()).await
}

/// Joins the user's socket and the stream, until the connection that asked for it ends (RFC 1928, section 7).
pub(super) async fn client<E: TunnelIo>(
    mut tcp: TcpStream,
    stream: &Stream<E>,
    mut rest: Vec<u8>,
    (socket, owner): (UdpSocket, Owner),
) {
    let association = stream.index();
    let mut datagrams = stream.datagrams();
    let user: std::cell::Cell<Option<SocketAddr>> = None.into();
    let from_user = async {
        let mut buf = vec![0; LONGEST];
        while let Ok((n, from)) = socket.recv_from(&mut buf).await {
            // The first address from which whoever asked for the association sends.
            match user.get() {
                Some(user) if user == from => {}
                None if owner.may_send_from(from) => user.set(Some(from)),
                _ => continue,
            }
            let Ok(parsed) = datagram::parse(buf.get(..n).unwrap_or_default()) else { continue };
            let (host, port, data) = (parsed.host, parsed.port, parsed.data.to_vec());
            if send(stream, &UdpPacket { association, host, port, data }).await.is_err() {
                return;
            }
        }
    };
    let deliver = async |packet: UdpPacket| {
        if let Some(user) = user.get() {
            let bytes = datagram::build(&packet.host, packet.port, &packet.data);
            let _ = socket.send_to(&bytes, user).await;
        }
    };
    let short = async {
        while let Some(data) = datagrams.recv().await {
            if let Ok(packet) = UdpPacket::decode_datagram(&data) {
                deliver(packet).await;
            }
        }
    };
    let long = async {
        let decode = |bytes: &[u8]| UdpPacket::decode_on_stream(association, bytes);
        while let Ok(packet) = stream.message(&mut rest, decode).await {
            deliver(packet).await;
        }
    };
    let closed = async {
        let mut buf = [0; 64];
        while matches!(tcp.read(&mut buf).await, Ok(n) if n > 0) {}
    };
    tokio::select! {
        () = from_user => {}
        () = closed => {}
        () = long => {}
        () = short => {}
    }
}

/// How long an association may be silent when so many of so many permits are taken: the fuller, the shorter.
fn idle_limit((taken, most): (usize, usize)) -> Duration {
    let free = most.saturating_sub(taken) as f64 / most.max(1) as f64;
    IDLE.0 + (IDLE.1 - IDLE.0).mul_f64(free)
}

/// Relays datagrams at the exit's end of a tunnel.
pub(super) async fn service<E: TunnelIo<Tunnel = Pseudonym> + 'static>(
    stream: &Stream<E>,
    mut rest: Vec<u8>,
    association: UdpAssociation,
    shared: UdpQuotas,
) {
    let heard = Cell::new(Instant::now());
    let active = || heard.set(Instant::now());
    let id = stream.index();
    let mut datagrams = stream.datagrams();
    let association = Rc::new(association);
    let lookups = Arc::new(Semaphore::new(LOOKUPS));
    // A name may take seconds to look up: the datagrams behind it do not wait.
    let dispatch = |packet: UdpPacket| {
        // What waits for nothing takes no permit: an address, or a name that was looked up lately.
        if let Some(addresses) = association.known(&packet.host) {
            active();
            if association.send_now(addresses, packet.port, &packet.data).is_err() {
                stream.lose_datagram();
            }
            return;
        }
        let (Ok(permit), Some(shared)) =
            (lookups.clone().try_acquire_owned(), shared.lookups.take(stream.tunnel()))
        else {
            return stream.lose_datagram();
        };
        active();
        let association = association.clone();
        tokio::task::spawn_local(async move {
            let sent = association.send(&packet.host, packet.port, &packet.data);
            let _ = shared.hold(sent).await;
            drop(permit);
        });
    };
    let short = async {
        while let Some(data) = datagrams.recv().await {
            if let Ok(packet) = UdpPacket::decode_datagram(&data) {
                dispatch(packet);
            }
        }
    };
    let long = async {
        let decode = |bytes: &[u8]| UdpPacket::decode_on_stream(id, bytes);
        while let Ok(packet) = stream.message(&mut rest, decode).await {
            dispatch(packet);
        }
    };
    let back = async {
        let mut buf = vec![0; LONGEST];
        while let Ok((n, from)) = association.receive(&mut buf).await {
            active();
            let data = buf.get(..n).unwrap_or_default().to_vec();
            let packet =
                UdpPacket { association: id, host: Host::Ip(from.ip()), port: from.port(), data };
            if send(stream, &packet).await.is_err() {
                return;
            }
        }
    };
    let idle = async {
        loop {
            let limit = idle_limit(shared.associations.load());
            let silent = heard.get().elapsed();
            if silent >= limit {
                return;
            }
            tokio::time::sleep((limit - silent).min(LOOK)).await;
        }
    };
    tokio::select! {
        () = short => {}
        () = long => {}
        () = back => {}
        () = idle => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuller_an_exit_is_the_sooner_a_silent_association_goes() {
        assert_eq!(idle_limit((0, 128)), Duration::from_secs(300));
        assert_eq!(idle_limit((128, 128)), Duration::from_secs(30));
        assert!(idle_limit((64, 128)) < Duration::from_secs(166));
    }
}
