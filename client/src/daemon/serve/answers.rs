//! What a service does with the request at the start of a stream.

use tokio::time::timeout;

use super::{Offer, REQUEST, Server};
use crate::daemon::connection::Connection;
use crate::daemon::dial::Timeouts;
use crate::daemon::hub::Stream;
use crate::daemon::permits::Quotas;
use crate::daemon::stream::{Incoming, bridge, pair};
use crate::daemon::udp;
use crate::request::{Request, Response};
use crate::socks::ReplyCode;

pub(super) async fn answer(stream: &Stream<Server>, offer: &Offer, quotas: &Quotas) {
    let mut rest = Vec::new();
    let request = timeout(REQUEST, stream.message(&mut rest, Request::decode)).await;
    let Ok(Ok(request)) = request else { return };
    let fail = async |code| {
        let _ = stream.write(&Response::Failed(code).encode()).await;
        stream.finish();
        // The answer must be on its way before the stream is dropped; the client reads it to the end.
        let _ = timeout(REQUEST, stream.read(&mut [0; 64])).await;
    };
    let dialer = match (offer, &request) {
        (Offer::Target(target), Request::Target { .. }) => {
            let connection = async { Connection::to(target.resolve().await?).await };
            return match timeout(Timeouts::default().connect, connection).await {
                Ok(Ok(tcp)) => join(stream, tcp, rest).await,
                Ok(Err(_)) => fail(ReplyCode::ConnectionRefused).await,
                Err(_) => fail(ReplyCode::TtlExpired).await,
            };
        }
        (Offer::Program(to), Request::Target { port }) => {
            // A program that does not accept fast enough refuses, as a listener with a full backlog does.
            let Ok(permit) = to.try_reserve() else {
                return fail(ReplyCode::ConnectionRefused).await;
            };
            if stream.write(&Response::Connected.encode()).await.is_ok() {
                let (theirs, pipe) = pair();
                permit.send(Incoming { port: *port, stream: theirs });
                bridge(stream, rest, pipe).await;
            }
            return;
        }
        (Offer::Exit(dialer), _) => dialer,
        (Offer::Target(_) | Offer::Program(_), _) => return fail(ReplyCode::NotAllowed).await,
    };
    let permits = if request == Request::Udp { &quotas.associations } else { &quotas.dials };
    let Some(permit) = permits.take(stream.tunnel()) else {
        return fail(ReplyCode::GeneralFailure).await;
    };
    match request {
        Request::Connect { host, port } => {
            let connected = permit.hold(dialer.connect(&host, port)).await;
            let connected = connected.unwrap_or(Err(ReplyCode::GeneralFailure));
            drop(permit);
            match connected {
                Ok(tcp) => join(stream, tcp, rest).await,
                Err(code) => fail(code).await,
            }
        }
        Request::Resolve { name } => {
            let found = permit.hold(dialer.resolve(&name)).await;
            drop(permit);
            match found.unwrap_or(Err(ReplyCode::GeneralFailure)) {
                Ok((addresses, ttl)) => say(stream, &Response::Resolved { addresses, ttl }).await,
                Err(code) => fail(code).await,
            }
        }
        Request::ResolvePtr { ip } => {
            let found = permit.hold(dialer.resolve_ptr(ip)).await;
            drop(permit);
            match found.unwrap_or(Err(ReplyCode::GeneralFailure)) {
                Ok((name, ttl)) => say(stream, &Response::ResolvedPtr { name, ttl }).await,
                Err(code) => fail(code).await,
            }
        }
        Request::Udp => match dialer.udp().await {
            Ok(association) => {
                if stream.write(&Response::UdpReady.encode()).await.is_ok() {
                    let relay = udp::service(stream, rest, association, quotas.of_udp());
                    let _ = permit.hold(relay).await;
                }
            }
            Err(code) => fail(code).await,
        },
        Request::Target { .. } => fail(ReplyCode::NotAllowed).await,
    }
}

async fn join(stream: &Stream<Server>, connection: Connection, rest: Vec<u8>) {
    if stream.write(&Response::Connected.encode()).await.is_ok() {
        stream.relay(connection, rest, Vec::new()).await;
    }
}

async fn say(stream: &Stream<Server>, response: &Response) {
    if stream.write(&response.encode()).await.is_ok() {
        stream.finish();
        let _ = timeout(REQUEST, stream.read(&mut [0; 64])).await;
    }
}
