//! The server's side of SOCKS5 (RFC 1928, RFC 1929, and Tor's RESOLVE and RESOLVE_PTR) as a machine without
//! IO.
//!
//! Feed what the application sends to [`Handshake::handle`] and do what the [`Step`] says. The final reply is
//! not the machine's to send: it goes out when the far connection stands, made by [`reply`], [`reply_ip`] or
//! [`reply_name`].

pub mod datagram;
mod host;
mod reply;
#[cfg(test)]
mod tests;

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

pub use host::{BadHostName, Host, HostName};
pub use reply::{ReplyCode, reply, reply_ip, reply_name};

use datagram::TargetError;

const SOCKS4: u8 = 4;
const SOCKS5: u8 = 5;
const TLS_HANDSHAKE: u8 = 0x16;
const NO_AUTHENTICATION: u8 = 0;
const USER_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
/// Greeting (2 + 255), user and password (3 + 510), request (4 + 1 + 255 + 2).
const LONGEST_HANDSHAKE: usize = 257 + 513 + 262;

/// What begins a request of HTTP (RFC 9110, section 9.1); "PRI " begins HTTP/2.
const HTTP_METHODS: [&[u8]; 10] = [
    b"GET ",
    b"POST ",
    b"CONNECT ",
    b"HEAD ",
    b"PUT ",
    b"OPTIONS ",
    b"DELETE ",
    b"PATCH ",
    b"TRACE ",
    b"PRI ",
];

/// How much an application may send ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes after the request that may come in before the handshake is done. An application that sends more
    /// at once is refused, so keep this at least as large as one read from the socket.
    pub early_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { early_bytes: 64 * 1024 }
    }
}

/// What an application asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A TCP connection.
    Connect,
    /// A relay of datagrams. The host and port of the request are where the application will send from, as far as it
    /// knows: zeros, a name that is none, anything.
    UdpAssociate,
    /// The address of a name (Tor's extension 0xF0). The host may be an address already.
    Resolve,
    /// The name of an address (Tor's extension 0xF1). The host is an address.
    ResolvePtr,
}

/// A request, well-formed in all its parts. `Debug` shows the command alone.
#[derive(Clone, PartialEq, Eq)]
pub struct SocksRequest {
    /// What is asked for.
    pub command: Command,
    /// The host that the request is about.
    pub host: Host,
    /// The port there; 0 only where the command has no use for it.
    pub port: u16,
    /// The group it belongs to, when the application gave a user name and password.
    pub isolation: Option<Isolation>,
}

/// User name and password. They authenticate nobody: requests with different ones never share a connection.
///
/// No `Debug`: applications put secrets here.
#[derive(Clone, PartialEq, Eq, Hash, Zeroize, ZeroizeOnDrop)]
pub struct Isolation {
    /// As given, 0 to 255 bytes.
    pub user: Vec<u8>,
    /// As given, 0 to 255 bytes.
    pub password: Vec<u8>,
}

/// What to do next. `Debug` shows no contents.
#[derive(PartialEq, Eq)]
pub enum Step {
    /// Read, and call `handle` with what came.
    NeedMore,
    /// Send this, then call `handle` with nothing: more may have come already.
    Send(Vec<u8>),
    /// The handshake is over but for the final reply.
    Done {
        /// What is asked for.
        request: SocksRequest,
        /// What the application sent ahead, the first bytes of its stream.
        leftover: Vec<u8>,
    },
    /// Send these bytes (perhaps none) and close. Shut down writing first and read for a moment what still
    /// comes: closing on unread bytes resets the connection, and the application may never see why.
    Refuse {
        /// What to send before closing.
        reply: Vec<u8>,
        /// The reason, for a counter.
        reason: SocksRefusal,
    },
}

/// Why a handshake ended without a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SocksRefusal {
    /// HTTP; the reply is a page that explains, if it is a person who asks and not another page.
    #[error("the application speaks HTTP to the SOCKS port")]
    Http,
    /// TLS; perhaps an HTTPS proxy was configured.
    #[error("the application speaks TLS to the SOCKS port")]
    Tls,
    /// SOCKS4 or 4a.
    #[error("the application speaks SOCKS4; only SOCKS5 is served")]
    Socks4,
    /// The first bytes are of neither protocol.
    #[error("the application speaks neither SOCKS5 nor anything known")]
    NotSocks,
    /// It offers neither "no authentication" nor "user name and password".
    #[error("the application offers no authentication method that is served")]
    NoMethod,
    /// The user name message is malformed.
    #[error("malformed user name and password")]
    BadAuthentication,
    /// The request is malformed.
    #[error("malformed SOCKS request")]
    BadRequest,
    /// BIND, or a command nobody knows.
    #[error("a SOCKS command that is not served")]
    Command,
    /// An unknown address type, or a name where the command needs an address.
    #[error("an address type that is not served here")]
    AddressType,
    /// The name is no host name.
    #[error("the target is no host name")]
    BadHost,
    /// The port is 0, which nobody can connect to.
    #[error("the target has port 0")]
    PortZero,
    /// More was sent ahead than the limits allow.
    #[error("too much was sent before the handshake was done")]
    TooMuch,
    /// `handle` was called after the end: a mistake of the caller.
    #[error("the handshake is over")]
    Over,
}

/// The handshake of one connection. It holds at most 1,032 bytes and the early bytes that its limits allow.
pub struct Handshake {
    limits: Limits,
    state: HandshakeState,
    input: Vec<u8>,
}

enum HandshakeState {
    Greeting,
    Authentication,
    Request(Option<Isolation>),
    Over,
}

/// The outcome of looking at the input once.
enum Look {
    Short,
    /// Drop so many bytes of the input, send this, go on in this state.
    Next(usize, Vec<u8>, HandshakeState),
    /// Drop so many bytes; the request is complete.
    Request(usize, SocksRequest),
    Refuse(Vec<u8>, SocksRefusal),
}

impl Handshake {
    /// A handshake that waits for the first byte.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: HandshakeState::Greeting, input: Vec::new() }
    }

    /// Takes what the application sent, in pieces of any size. After [`Step::Done`] and [`Step::Refuse`] it
    /// is over.
    pub fn handle(&mut self, input: &[u8]) -> Step {
        if self.input.len() + input.len() > LONGEST_HANDSHAKE + self.limits.early_bytes {
            return self.refuse(Vec::new(), SocksRefusal::TooMuch);
        }
        self.input.extend_from_slice(input);
        let look = match &mut self.state {
            HandshakeState::Greeting => greeting(&self.input),
            HandshakeState::Authentication => authentication(&self.input),
            HandshakeState::Request(isolation) => request(&self.input, isolation),
            HandshakeState::Over => Look::Refuse(Vec::new(), SocksRefusal::Over),
        };
        match look {
            Look::Short => Step::NeedMore,
            Look::Next(used, answer, state) => {
                self.consume(used);
                self.state = state;
                Step::Send(answer)
            }
            Look::Request(used, request) => {
                self.consume(used);
                self.state = HandshakeState::Over;
                Step::Done { request, leftover: std::mem::take(&mut self.input) }
            }
            Look::Refuse(reply, reason) => self.refuse(reply, reason),
        }
    }

    fn consume(&mut self, used: usize) {
        let rest = self.input.get(used..).unwrap_or_default().to_vec();
        // The user name and password may have stood here.
        self.input.zeroize();
        self.input = rest;
    }

    fn refuse(&mut self, reply: Vec<u8>, reason: SocksRefusal) -> Step {
        self.input.zeroize();
        self.state = HandshakeState::Over;
        Step::Refuse { reply, reason }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.input.zeroize();
    }
}

fn greeting(input: &[u8]) -> Look {
    match input {
        [] | [SOCKS5] => Look::Short,
        [SOCKS5, count, rest @ ..] => {
            let Some(methods) = rest.get(..usize::from(*count)) else {
                return Look::Short;
            };
            let used = 2 + methods.len();
            // Both offered: an application that has a user name to give wants to be kept apart.
            if methods.contains(&USER_PASSWORD) {
                Look::Next(used, vec![SOCKS5, USER_PASSWORD], HandshakeState::Authentication)
            } else if methods.contains(&NO_AUTHENTICATION) {
                Look::Next(used, vec![SOCKS5, NO_AUTHENTICATION], HandshakeState::Request(None))
            } else {
                Look::Refuse(vec![SOCKS5, NO_METHOD], SocksRefusal::NoMethod)
            }
        }
        [SOCKS4, ..] => Look::Refuse(reply::SOCKS4_REJECTED.to_vec(), SocksRefusal::Socks4),
        [TLS_HANDSHAKE, ..] => Look::Refuse(Vec::new(), SocksRefusal::Tls),
        _ => {
            if let Some(method) = HTTP_METHODS.iter().find(|m| input.starts_with(m)) {
                let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else {
                    return Look::Short;
                };
                let head = input.get(..end).unwrap_or_default();
                let page =
                    if reply::a_person_asks(head) { reply::http_page(method) } else { Vec::new() };
                Look::Refuse(page, SocksRefusal::Http)
            } else if HTTP_METHODS.iter().any(|m| m.starts_with(input)) {
                Look::Short
            } else {
                Look::Refuse(Vec::new(), SocksRefusal::NotSocks)
            }
        }
    }
}

/// RFC 1929, but for empty names and passwords, which are accepted: curl sends them.
fn authentication(input: &[u8]) -> Look {
    match input {
        [] | [1] => return Look::Short,
        [1, ..] => {}
        _ => return Look::Refuse(vec![1, 1], SocksRefusal::BadAuthentication),
    }
    let text = |at: usize| {
        let length = usize::from(*input.get(at)?);
        Some((input.get(at + 1..at + 1 + length)?.to_vec(), at + 1 + length))
    };
    let Some((user, at)) = text(1) else {
        return Look::Short;
    };
    let Some((password, used)) = text(at) else {
        return Look::Short;
    };
    let isolation = Isolation { user, password };
    Look::Next(used, vec![1, 0], HandshakeState::Request(Some(isolation)))
}

fn request(input: &[u8], isolation: &mut Option<Isolation>) -> Look {
    let no = |code, reason| Look::Refuse(reply(code, None), reason);
    let malformed = || no(ReplyCode::GeneralFailure, SocksRefusal::BadRequest);
    match input {
        [] => return Look::Short,
        [SOCKS5, ..] => {}
        _ => return malformed(),
    }
    let command = match input.get(1) {
        None => return Look::Short,
        Some(1) => Command::Connect,
        Some(3) => Command::UdpAssociate,
        Some(0xf0) => Command::Resolve,
        Some(0xf1) => Command::ResolvePtr,
        Some(_) => return no(ReplyCode::CommandNotSupported, SocksRefusal::Command),
    };
    match input.get(2) {
        None => return Look::Short,
        Some(0) => {}
        Some(_) => return malformed(),
    }
    let target = input.get(3..).unwrap_or_default();
    let target = match command {
        Command::UdpAssociate => datagram::take_hint(target),
        _ => datagram::take_target(target),
    };
    let (host, port, used) = match target {
        Ok(target) => target,
        Err(TargetError::Short) => return Look::Short,
        Err(TargetError::AddressType) => {
            return no(ReplyCode::AddressTypeNotSupported, SocksRefusal::AddressType);
        }
        Err(TargetError::Name) => return no(ReplyCode::HostUnreachable, SocksRefusal::BadHost),
    };
    if command == Command::Connect && port == 0 {
        return no(ReplyCode::GeneralFailure, SocksRefusal::PortZero);
    }
    if command == Command::ResolvePtr && matches!(host, Host::Name(_)) {
        return no(ReplyCode::AddressTypeNotSupported, SocksRefusal::AddressType);
    }
    Look::Request(3 + used, SocksRequest { command, host, port, isolation: isolation.take() })
}

impl fmt::Debug for SocksRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocksRequest").field("command", &self.command).finish_non_exhaustive()
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeedMore => f.write_str("NeedMore"),
            Self::Send(_) => f.write_str("Send(..)"),
            Self::Done { request, .. } => f.debug_tuple("Done").field(request).finish(),
            Self::Refuse { reason, .. } => f.debug_tuple("Refuse").field(reason).finish(),
        }
    }
}

/// For fuzzing: the first byte chooses the size of the pieces, the rest is input. Panics when a bound is
/// broken.
#[doc(hidden)]
pub fn fuzz_handshake(data: &[u8]) {
    let Some((size, input)) = data.split_first() else {
        return;
    };
    let limits = Limits { early_bytes: 300 };
    let mut handshake = Handshake::new(limits);
    for piece in input.chunks(usize::from(*size).max(1)) {
        let mut step = handshake.handle(piece);
        while let Step::Send(_) = step {
            step = handshake.handle(&[]);
        }
        assert!(handshake.input.len() <= LONGEST_HANDSHAKE + limits.early_bytes);
        match step {
            Step::Done { .. } | Step::Refuse { .. } => return,
            // Nothing that waits for more may hold more than the longest message, a user name and password.
            _ => assert!(handshake.input.len() < 513),
        }
    }
    let _ = datagram::parse(input);
}
