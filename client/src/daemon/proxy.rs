//! The SOCKS5 listener.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use shoal_host::shutdown::Shutdown;
use shoal_topology::directory::address::{ServiceAddress, is_shoal_host};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use super::config::Socks;
use super::hub::drain;
use super::owner::Owner;
use super::udp;
use super::user::{ProxyContext, Refused};
use super::virtual_addresses::VirtualAddresses;
use crate::engine::{Isolation, Target};
use crate::request::{Request, Response};
use crate::socks::{
    self, Command, Handshake, Host, Limits, ReplyCode, SocksRefusal, SocksRequest, Step,
};

/// A handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// What one read of a handshake takes.
const READ: usize = 4 << 10;

pub(super) async fn serve(
    listener: std::net::TcpListener,
    context: Rc<ProxyContext>,
    config: Socks,
    shutdown: Shutdown,
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let permits = Arc::new(Semaphore::new(config.max_connections));
    let request_timeout = Duration::from_secs(config.request_timeout_s);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.wait() => return,
        };
        let Ok((tcp, _)) = accepted else {
            // Out of file descriptors, most likely: it passes, and a busy loop would not help.
            context.accept_failed.set(context.accept_failed.get() + 1);
            if context.accept_failed.get() == 1 {
                warn!(
                    "a connection of a program cannot be taken, for want of file descriptors most likely: raise the limit on \
                     open files (ulimit -n, or LimitNOFILE of systemd)"
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            context.tally.borrow_mut().turned_away += 1;
            continue;
        };
        let context = context.clone();
        tokio::task::spawn_local(async move {
            let _permit = permit;
            connection(tcp, &context, request_timeout, config.extended_errors).await;
        });
    }
}

async fn connection(
    mut tcp: TcpStream,
    context: &ProxyContext,
    request_timeout: Duration,
    extended: bool,
) {
    let Ok(Some((request, leftover))) = timeout(HANDSHAKE, handshake(&mut tcp, context)).await
    else {
        return;
    };
    context.tally.borrow_mut().open += 1;
    let ended = timeout(request_timeout, answer(&mut tcp, context, &request)).await;
    context.tally.borrow_mut().open -= 1;
    match ended.unwrap_or(Err(ReplyCode::TtlExpired.into())) {
        Err(why) => {
            context.tally.borrow_mut().refused += 1;
            let code = if extended { why.code() } else { why.code().plain() };
            let _ = tcp.write_all(&socks::reply(code, None)).await;
            drain(tcp).await;
        }
        Ok(done) => {
            context.tally.borrow_mut().answered += 1;
            match done {
                Done::Connected(stream, early) => {
                    if tcp.write_all(&socks::reply(ReplyCode::Succeeded, None)).await.is_ok() {
                        stream.relay(tcp.into(), early, leftover).await;
                    }
                }
                Done::Udp(stream, early, socket) => {
                    let Some(owner) = Owner::of(&tcp, request.port) else { return };
                    udp::client(tcp, &stream, early, (socket, owner)).await;
                }
                Done::Said(reply) => {
                    let _ = tcp.write_all(&reply).await;
                    drain(tcp).await;
                }
            }
        }
    }
}

async fn handshake(tcp: &mut TcpStream, context: &ProxyContext) -> Option<(SocksRequest, Vec<u8>)> {
    let mut handshake = Handshake::new(Limits::default());
    let mut buf = [0; READ];
    let mut input = 0;
    loop {
        match handshake.handle(buf.get(..input)?) {
            Step::NeedMore => {
                input = tcp.read(&mut buf).await.ok().filter(|n| *n > 0)?;
            }
            Step::Send(bytes) => {
                tcp.write_all(&bytes).await.ok()?;
                input = 0;
            }
            Step::Done { request, leftover } => return Some((request, leftover)),
            Step::Refuse { reply, reason } => {
                if reason != SocksRefusal::Over {
                    context.tally.borrow_mut().malformed += 1;
                }
                tcp.write_all(&reply).await.ok()?;
                let _ = tcp.shutdown().await;
                let read = async { while matches!(tcp.read(&mut buf).await, Ok(n) if n > 0) {} };
                let _ = timeout(Duration::from_secs(1), read).await;
                return None;
            }
        }
    }
}

enum Done {
    Connected(super::hub::Stream<super::user::User>, Vec<u8>),
    Udp(super::hub::Stream<super::user::User>, Vec<u8>, tokio::net::UdpSocket),
    Said(Vec<u8>),
}

async fn answer(
    tcp: &mut TcpStream,
    context: &ProxyContext,
    request: &SocksRequest,
) -> Result<Done, Refused> {
    let credentials =
        request.isolation.as_ref().map(|i| (i.user.as_slice(), i.password.as_slice()));
    let isolation = Isolation::new(credentials);
    if let (Command::Resolve, Host::Ip(ip)) = (request.command, &request.host) {
        return Ok(Done::Said(socks::reply_ip(*ip)));
    }
    let (target, asked) = match translate(request, &context.virtual_addresses)? {
        Translated::Ask(target, asked) => (target, asked),
        Translated::Resolved(address) => {
            let ip = context.virtual_addresses.borrow_mut().give(address);
            return Ok(Done::Said(socks::reply_ip(ip.into())));
        }
    };
    match request.command {
        Command::UdpAssociate => {
            // The datagrams come from where the request came from, so to the same address of this machine.
            let local = tcp.local_addr().map_err(|_| ReplyCode::GeneralFailure)?.ip();
            let socket = tokio::net::UdpSocket::bind(SocketAddr::new(local, 0)).await;
            let socket = socket.map_err(|_| ReplyCode::GeneralFailure)?;
            let bound = socket.local_addr().map_err(|_| ReplyCode::GeneralFailure)?;
            let (stream, response, rest) = context.ask(isolation, target, &asked).await?;
            if response != Response::UdpReady {
                return Err(ReplyCode::GeneralFailure.into());
            }
            let reply = socks::reply(ReplyCode::Succeeded, Some(bound));
            tcp.write_all(&reply).await.map_err(|_| ReplyCode::GeneralFailure)?;
            Ok(Done::Udp(stream, rest, socket))
        }
        _ => {
            let (stream, response, rest) = context.ask(isolation, target, &asked).await?;
            match response {
                Response::Connected => Ok(Done::Connected(stream, rest)),
                Response::Resolved { addresses, .. } => {
                    // The answer has room for one, and programs that ask so expect an IPv4 address.
                    let one = addresses.iter().find(|ip| ip.is_ipv4()).or(addresses.first());
                    Ok(Done::Said(socks::reply_ip(*one.ok_or(ReplyCode::HostUnreachable)?)))
                }
                Response::ResolvedPtr { name, .. } => Ok(Done::Said(socks::reply_name(&name))),
                _ => Err(ReplyCode::GeneralFailure.into()),
            }
        }
    }
}

/// What a request comes to.
pub(super) enum Translated {
    /// Whom to ask, and what.
    Ask(Target, Request),
    /// A name of the network's own is to be resolved. It never leaves this machine: only its keys do, inside the mixnet.
    Resolved(ServiceAddress),
}

/// Whom a program's request concerns: an exit, or a service of the network.
///
/// # Errors
/// What the program is told.
pub(super) fn translate(
    request: &SocksRequest,
    virtual_addresses: &RefCell<VirtualAddresses>,
) -> Result<Translated, ReplyCode> {
    let (host, port) = (&request.host, request.port);
    if request.command == Command::UdpAssociate {
        return Ok(Translated::Ask(Target::Exit, Request::Udp));
    }
    let service = match host {
        Host::Name(name) if is_shoal_host(name.as_str()) => {
            Some(name.as_str().parse().map_err(|_| ReplyCode::BadServiceAddress)?)
        }
        Host::Ip(IpAddr::V4(ip)) if VirtualAddresses::has(*ip) => {
            Some(virtual_addresses.borrow().find(*ip).ok_or(ReplyCode::HostUnreachable)?)
        }
        _ => None,
    };
    let asked = match (request.command, service, host) {
        (Command::Connect, Some(address), _) => {
            return Ok(Translated::Ask(Target::Service(address), Request::Target { port }));
        }
        (Command::Resolve, Some(address), _) => return Ok(Translated::Resolved(address)),
        (_, Some(_), _) => return Err(ReplyCode::HostUnreachable),
        (Command::Connect, None, _) => Request::Connect { host: host.clone(), port },
        (Command::Resolve, None, Host::Name(name)) => Request::Resolve { name: name.clone() },
        (Command::ResolvePtr, None, Host::Ip(ip)) => Request::ResolvePtr { ip: *ip },
        (_, None, _) => return Err(ReplyCode::AddressTypeNotSupported),
    };
    Ok(Translated::Ask(Target::Exit, asked))
}
