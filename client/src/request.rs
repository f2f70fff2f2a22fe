//! What is said at the start of a stream to a service, and the form of datagrams. No IO.
//!
//! ```text
//! request   version 1 · kind · fields
//!           1 connect: host, port · 2 udp · 3 resolve: name · 4 reverse: address · 5 target: port
//! response  version 1 · kind · fields
//!           1 connected · 2 resolved: ttl u32, count u8, addresses · 3 reverse: ttl u32, name
//!           4 udp ready · 5 failed: code
//! host      0, 4 bytes (IPv4) · 1, 16 bytes (IPv6) · 2, name        name   length u8, bytes
//! ```
//!
//! Numbers are big-endian. A client writes one request, a service one response; what follows is the stream
//! itself (connect, target), framed datagrams (udp), or nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::socks::{Host, HostName, ReplyCode};

const VERSION: u8 = 1;
const IPV4: u8 = 0;
const IPV6: u8 = 1;
const NAME: u8 = 2;

/// Addresses in one answer; a service leaves out what is beyond.
pub const MAX_ADDRESSES: usize = 16;
/// No request is longer, in bytes: version, kind, host with the longest name, port.
pub const MAX_REQUEST: usize = 2 + MAX_HOST + 2;
/// No response is longer, in bytes: version, kind, time to live, count, addresses.
pub const MAX_RESPONSE: usize = 2 + 4 + 1 + MAX_ADDRESSES * 17;
/// No datagram has more before its data, in bytes: association, host, port.
pub const MAX_PACKET_HEADER: usize = 8 + MAX_HOST + 2;
const MAX_HOST: usize = 2 + 253;

/// What a client asks of a service. `Debug` shows the kind alone.
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    /// Of an exit: a TCP connection.
    Connect {
        /// The address or name that the exit connects to.
        host: Host,
        /// The port to connect to, not 0.
        port: u16,
    },
    /// Of an exit: a relay of datagrams, which lives as long as the stream.
    Udp,
    /// Of an exit: the addresses of a name.
    Resolve {
        /// The name that the exit resolves.
        name: HostName,
    },
    /// Of an exit: the name of an address.
    ResolvePtr {
        /// The address whose name is wanted.
        ip: IpAddr,
    },
    /// Of an internal service: a connection to what it serves on this port.
    Target {
        /// The port, as the user gave it, not 0.
        port: u16,
    },
}

/// What a service answers. `Debug` shows the kind, and the code of a failure.
#[derive(Clone, PartialEq, Eq)]
pub enum Response {
    /// The far connection stands. What address the exit has there is not told.
    Connected,
    /// The addresses of the name.
    Resolved {
        /// 1 to [`MAX_ADDRESSES`] of them.
        addresses: Vec<IpAddr>,
        /// How long they hold, in seconds.
        ttl: u32,
    },
    /// The name of the address.
    ResolvedPtr {
        /// The name that the resolver gave.
        name: HostName,
        /// How long it holds, in seconds.
        ttl: u32,
    },
    /// Datagrams may be sent.
    UdpReady,
    /// It did not work; never `Succeeded`.
    Failed(ReplyCode),
}

/// A datagram on its way to the exit or back. `Debug` shows only how much it carries.
#[derive(Clone, PartialEq, Eq)]
pub struct UdpPacket {
    /// The QUIC stream on which the association was made.
    pub association: u64,
    /// Where it goes; on the way back, where it came from.
    pub host: Host,
    /// The port there, not 0.
    pub port: u16,
    /// What it carries: at most 65,535 bytes.
    pub data: Vec<u8>,
}

/// Why bytes from the other end make no sense. The other end is at fault: close the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The peer speaks another version.
    #[error("the other end speaks version {0} of the request protocol, this one {VERSION}")]
    Version(u8),
    /// A kind of message that the version does not have.
    #[error("unknown kind of message {0}")]
    Kind(u8),
    /// A kind of address that the version does not have.
    #[error("unknown kind of address {0}")]
    AddressKind(u8),
    /// A name where an address must be.
    #[error("a name where an address must be")]
    NotAnAddress,
    /// The name is no host name.
    #[error("malformed host name")]
    Name,
    /// The port is 0, which nobody can connect to.
    #[error("port 0")]
    Port,
    /// No address, or too many.
    #[error("{0} addresses in an answer, not 1 to {MAX_ADDRESSES}")]
    Count(u8),
    /// A failure with an unknown code, or with that of success.
    #[error("unknown code of failure {0}")]
    Code(u8),
    /// A datagram that ends too early. (Elsewhere this means: read on.)
    #[error("the datagram ends within its header")]
    Short,
}

impl Request {
    /// Its bytes, at most [`MAX_REQUEST`].
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        match self {
            Self::Connect { host, port } => {
                bytes.push(1);
                push_host(&mut bytes, host);
                bytes.extend_from_slice(&port.to_be_bytes());
            }
            Self::Udp => bytes.push(2),
            Self::Resolve { name } => {
                bytes.push(3);
                push_name(&mut bytes, name);
            }
            Self::ResolvePtr { ip } => {
                bytes.push(4);
                push_ip(&mut bytes, *ip);
            }
            Self::Target { port } => {
                bytes.push(5);
                bytes.extend_from_slice(&port.to_be_bytes());
            }
        }
        bytes
    }

    /// Reads a request from the start of a stream, with the number of bytes that it took; `None`: read on. No
    /// more than [`MAX_REQUEST`] bytes are ever needed.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, DecodeError> {
        read_on(bytes, |r| {
            r.version()?;
            Ok(match r.byte()? {
                1 => Self::Connect { host: r.host()?, port: r.port()? },
                2 => Self::Udp,
                3 => Self::Resolve { name: r.name()? },
                4 => Self::ResolvePtr { ip: r.ip()? },
                5 => Self::Target { port: r.port()? },
                kind => return Err(DecodeError::Kind(kind)),
            })
        })
    }
}

impl Response {
    /// Its bytes, at most [`MAX_RESPONSE`]. Addresses beyond [`MAX_ADDRESSES`] are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        match self {
            Self::Connected => bytes.push(1),
            Self::Resolved { addresses, ttl } => {
                // Left out rather than refused: whoever asked can connect to the first ones.
                let addresses = addresses.iter().take(MAX_ADDRESSES);
                bytes.push(2);
                bytes.extend_from_slice(&ttl.to_be_bytes());
                // At most `MAX_ADDRESSES`, so that the number fits.
                bytes.push(addresses.len() as u8);
                addresses.for_each(|ip| push_ip(&mut bytes, *ip));
            }
            Self::ResolvedPtr { name, ttl } => {
                bytes.push(3);
                bytes.extend_from_slice(&ttl.to_be_bytes());
                push_name(&mut bytes, name);
            }
            Self::UdpReady => bytes.push(4),
            Self::Failed(code) => bytes.extend_from_slice(&[5, code.to_byte()]),
        }
        bytes
    }

    /// Reads a response from the start of a stream, with the number of bytes that it took; `None`: read on.
    /// No more than [`MAX_RESPONSE`] bytes are ever needed.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, DecodeError> {
        read_on(bytes, |r| {
            r.version()?;
            Ok(match r.byte()? {
                1 => Self::Connected,
                2 => {
                    let ttl = u32::from_be_bytes(r.array()?);
                    let count = r.byte()?;
                    // Before any is read: the count bounds what a client keeps of a service that lies.
                    if !(1..=MAX_ADDRESSES).contains(&usize::from(count)) {
                        return Err(DecodeError::Count(count));
                    }
                    let addresses = (0..count).map(|_| r.ip()).collect::<Result<_, _>>()?;
                    Self::Resolved { addresses, ttl }
                }
                3 => Self::ResolvedPtr { ttl: u32::from_be_bytes(r.array()?), name: r.name()? },
                4 => Self::UdpReady,
                5 => match r.byte()? {
                    byte @ 1.. => {
                        Self::Failed(ReplyCode::from_byte(byte).ok_or(DecodeError::Code(byte))?)
                    }
                    byte => return Err(DecodeError::Code(byte)),
                },
                kind => return Err(DecodeError::Kind(kind)),
            })
        })
    }
}

impl UdpPacket {
    /// Its form in a QUIC datagram: association u64, host, port, data to the end.
    pub fn encode_datagram(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_PACKET_HEADER + self.data.len());
        bytes.extend_from_slice(&self.association.to_be_bytes());
        push_host(&mut bytes, &self.host);
        bytes.extend_from_slice(&self.port.to_be_bytes());
        bytes.extend_from_slice(&self.data);
        bytes
    }

    /// Reads a QUIC datagram.
    pub fn decode_datagram(bytes: &[u8]) -> Result<Self, DecodeError> {
        // Not by `read_on`: nothing follows a datagram, so one that is too short will never be complete.
        let mut r = Reader { bytes };
        Ok(Self {
            association: u64::from_be_bytes(r.array()?),
            host: r.host()?,
            port: r.port()?,
            data: r.bytes.to_vec(),
        })
    }

    /// Its form on the stream of the association, for one too large for a QUIC datagram: host, port, length
    /// u16, data. Data beyond 65,535 bytes, which no UDP datagram has, is cut off.
    pub fn encode_on_stream(&self) -> Vec<u8> {
        let length = u16::try_from(self.data.len()).unwrap_or(u16::MAX);
        let data = self.data.get(..usize::from(length)).unwrap_or_default();
        let mut bytes = Vec::with_capacity(MAX_PACKET_HEADER + data.len());
        push_host(&mut bytes, &self.host);
        bytes.extend_from_slice(&self.port.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    /// Reads the next datagram on the stream `association`, with the number of bytes that it took; `None`:
    /// read on. No more than `MAX_PACKET_HEADER + 65,535` bytes are ever needed.
    pub fn decode_on_stream(
        association: u64,
        bytes: &[u8],
    ) -> Result<Option<(Self, usize)>, DecodeError> {
        read_on(bytes, |r| {
            let (host, port) = (r.host()?, r.port()?);
            let length = u16::from_be_bytes(r.array()?);
            Ok(Self { association, host, port, data: r.take(usize::from(length))?.to_vec() })
        })
    }
}

fn push_host(bytes: &mut Vec<u8>, host: &Host) {
    match host {
        Host::Ip(ip) => push_ip(bytes, *ip),
        Host::Name(name) => {
            bytes.push(NAME);
            push_name(bytes, name);
        }
    }
}

fn push_ip(bytes: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            bytes.push(IPV4);
            bytes.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(IPV6);
            bytes.extend_from_slice(&ip.octets());
        }
    }
}

fn push_name(bytes: &mut Vec<u8>, name: &HostName) {
    let name = name.as_str().as_bytes();
    // A `HostName` has at most 253 bytes.
    bytes.push(name.len() as u8);
    bytes.extend_from_slice(name);
}

/// Runs a decoder on the start of a stream, where too few bytes are no error.
fn read_on<T>(
    bytes: &[u8],
    decode: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Option<(T, usize)>, DecodeError> {
    let mut reader = Reader { bytes };
    match decode(&mut reader) {
        Ok(message) => Ok(Some((message, bytes.len() - reader.bytes.len()))),
        // Elsewhere an error: here the rest may still be on its way.
        Err(DecodeError::Short) => Ok(None),
        Err(error) => Err(error),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(DecodeError::Short)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(DecodeError::Short)?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    fn version(&mut self) -> Result<(), DecodeError> {
        match self.byte()? {
            VERSION => Ok(()),
            other => Err(DecodeError::Version(other)),
        }
    }

    fn port(&mut self) -> Result<u16, DecodeError> {
        match u16::from_be_bytes(self.array()?) {
            0 => Err(DecodeError::Port),
            port => Ok(port),
        }
    }

    fn name(&mut self) -> Result<HostName, DecodeError> {
        let length = self.byte()?;
        let text =
            std::str::from_utf8(self.take(usize::from(length))?).map_err(|_| DecodeError::Name)?;
        let name = HostName::parse(text).map_err(|_| DecodeError::Name)?;
        // One form: no capitals, no dot at the end.
        if name.as_str() == text { Ok(name) } else { Err(DecodeError::Name) }
    }

    fn host(&mut self) -> Result<Host, DecodeError> {
        match self.byte()? {
            IPV4 => Ok(Ipv4Addr::from(self.array()?).into()),
            IPV6 => Ok(Ipv6Addr::from(self.array::<16>()?).into()),
            NAME => self.name().map(Host::Name),
            kind => Err(DecodeError::AddressKind(kind)),
        }
    }

    fn ip(&mut self) -> Result<IpAddr, DecodeError> {
        match self.host()? {
            Host::Ip(ip) => Ok(ip),
            Host::Name(_) => Err(DecodeError::NotAnAddress),
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect { .. } => "Connect(..)",
            Self::Udp => "Udp",
            Self::Resolve { .. } => "Resolve(..)",
            Self::ResolvePtr { .. } => "ResolvePtr(..)",
            Self::Target { .. } => "Target(..)",
        })
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("Connected"),
            Self::Resolved { .. } => f.write_str("Resolved(..)"),
            Self::ResolvedPtr { .. } => f.write_str("ResolvedPtr(..)"),
            Self::UdpReady => f.write_str("UdpReady"),
            Self::Failed(code) => write!(f, "Failed({code:?})"),
        }
    }
}

impl fmt::Debug for UdpPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UdpPacket({} bytes)", self.data.len())
    }
}

/// For fuzzing: every decoder on the same bytes. What one accepts must encode to something that decodes
/// alike.
#[doc(hidden)]
pub fn fuzz_decode(bytes: &[u8]) {
    if let Ok(Some((request, used))) = Request::decode(bytes) {
        assert!(
            used <= MAX_REQUEST
                && Request::decode(&request.encode()).is_ok_and(|r| r == Some((request, used)))
        );
    }
    if let Ok(Some((response, used))) = Response::decode(bytes) {
        assert!(
            used <= MAX_RESPONSE
                && Response::decode(&response.encode()).is_ok_and(|r| r == Some((response, used)))
        );
    }
    if let Ok(packet) = UdpPacket::decode_datagram(bytes) {
        assert!(UdpPacket::decode_datagram(&packet.encode_datagram()).is_ok_and(|p| p == packet));
    }
    let _ = UdpPacket::decode_on_stream(0, bytes);
}

#[cfg(test)]
mod tests;
