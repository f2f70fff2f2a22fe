//! UDP ASSOCIATE, at both ends of a stream. Datagrams travel as QUIC datagrams, or on the stream when they are too
//! long for that.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::dial::UdpAssociation;
use super::hub::{Ends, Stream};
use crate::request::UdpPacket;
use crate::socks::{Host, datagram};

/// The longest datagram there is.
const LONGEST: usize = 65_535;
/// Datagrams of one association that wait for a name; more are dropped, as a full queue would.
const LOOKUPS: usize = 16;

async fn send<E: Ends>(stream: &Stream<E>, packet: &UdpPacket) -> Result<(), u64> {
    if stream.send_datagram(packet.encode_datagram()) {
        return Ok(());
    }
    stream.write(&packet.encode_on_stream()).await
}

/// Joins the user's socket and the stream, until the connection that asked for it ends (RFC 1928, section 7).
pub(super) async fn client<E: Ends>(
    mut tcp: TcpStream,
    stream: &Stream<E>,
    mut rest: Vec<u8>,
    socket: UdpSocket,
) {
    let association = stream.index();
    let mut datagrams = stream.datagrams();
    let user: std::cell::Cell<Option<SocketAddr>> = None.into();
    let from_user = async {
        let mut buf = vec![0; LONGEST];
        while let Ok((n, from)) = socket.recv_from(&mut buf).await {
            // Whoever sends first from the user's address owns the association.
            if tcp_peer_differs(&user, from) {
                continue;
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

fn tcp_peer_differs(user: &std::cell::Cell<Option<SocketAddr>>, from: SocketAddr) -> bool {
    match user.get() {
        None => {
            user.set(Some(from));
            false
        }
        Some(user) => user != from,
    }
}

/// The exit's end.
pub(super) async fn service<E: Ends + 'static>(
    stream: &Stream<E>,
    mut rest: Vec<u8>,
    association: UdpAssociation,
) {
    let id = stream.index();
    let mut datagrams = stream.datagrams();
    let association = Arc::new(association);
    let lookups = Arc::new(Semaphore::new(LOOKUPS));
    // A name may take seconds to look up: the datagrams behind it do not wait.
    let dispatch = |packet: UdpPacket| {
        let Ok(place) = lookups.clone().try_acquire_owned() else {
            return stream.lose_datagram();
        };
        let association = association.clone();
        tokio::task::spawn_local(async move {
            let _ = association.send(&packet.host, packet.port, &packet.data).await;
            drop(place);
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
            let data = buf.get(..n).unwrap_or_default().to_vec();
            let packet =
                UdpPacket { association: id, host: Host::Ip(from.ip()), port: from.port(), data };
            if send(stream, &packet).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = short => {}
        () = long => {}
        () = back => {}
    }
}
