//! The header of datagrams on a UDP association (RFC 1928, section 7), and the address form shared with
//! requests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Host, HostName};

pub(super) const IPV4: u8 = 1;
pub(super) const NAME: u8 = 3;
pub(super) const IPV6: u8 = 4;

/// A datagram of the local application, or one for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Where it goes; on the way back, where it came from.
    pub host: Host,
    /// The port of the target.
    pub port: u16,
    /// The bytes that it carries.
    pub data: &'a [u8],
}

/// Why a datagram is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// It ends within its header.
    #[error("the datagram ends within its SOCKS header")]
    Short,
    /// The reserved bytes are not zero: it is something else.
    #[error("the datagram has no SOCKS header")]
    Reserved,
    /// It is a fragment. RFC 1928 lets a relay drop those that it does not put together.
    #[error("fragments are not put together")]
    Fragment,
    /// An address type that RFC 1928 does not know.
    #[error("an unknown address type")]
    AddressType,
    /// The name of the target is no host name.
    #[error("the host in the datagram is no host name")]
    Name,
    /// The port is 0, which nothing can be sent to.
    #[error("port 0")]
    Port,
}

/// Reads the header of a datagram from the local application.
pub fn parse(bytes: &[u8]) -> Result<Datagram<'_>, DatagramError> {
    let ([reserved_1, reserved_2, fragment], rest) =
        bytes.split_first_chunk::<3>().ok_or(DatagramError::Short)?;
    if (*reserved_1, *reserved_2) != (0, 0) {
        return Err(DatagramError::Reserved);
    }
    if *fragment != 0 {
        return Err(DatagramError::Fragment);
    }
    match take_target(rest) {
        Ok((_, 0, _)) => Err(DatagramError::Port),
        Ok((host, port, used)) => {
            Ok(Datagram { host, port, data: rest.get(used..).unwrap_or_default() })
        }
        Err(TargetError::Short) => Err(DatagramError::Short),
        Err(TargetError::AddressType) => Err(DatagramError::AddressType),
        Err(TargetError::Name) => Err(DatagramError::Name),
    }
}

/// Puts the header before a datagram for the local application.
pub fn build(host: &Host, port: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3 + 257 + 2 + data.len());
    bytes.extend_from_slice(&[0, 0, 0]);
    match host {
        Host::Ip(ip) => push_ip(&mut bytes, *ip),
        Host::Name(name) => push_name(&mut bytes, name),
    }
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// Address type and address.
pub(super) fn push_ip(bytes: &mut Vec<u8>, ip: IpAddr) {
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

/// Address type, length, name.
pub(super) fn push_name(bytes: &mut Vec<u8>, name: &HostName) {
    let name = name.as_str().as_bytes();
    bytes.push(NAME);
    // A `HostName` has at most 253 bytes.
    bytes.push(name.len() as u8);
    bytes.extend_from_slice(name);
}

/// Why no target could be read; `Short` may mend with more bytes.
#[derive(Clone, Copy)]
pub(super) enum TargetError {
    Short,
    AddressType,
    Name,
}

/// Reads address type, address and port where they say no more than where somebody may send from (RFC 1928, section 6):
/// what is no host is as good as none. How many bytes they took comes last.
pub(super) fn take_hint(bytes: &[u8]) -> Result<(Host, u16, usize), TargetError> {
    let (kind, address, port, used) = take(bytes)?;
    let host = host(kind, address).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    Ok((host, port, used))
}

/// Reads address type, address and port, and says how many bytes they took.
pub(super) fn take_target(bytes: &[u8]) -> Result<(Host, u16, usize), TargetError> {
    let (kind, address, port, used) = take(bytes)?;
    Ok((host(kind, address)?, port, used))
}

/// Address type, bytes of the address, port, and how many bytes all took.
fn take(bytes: &[u8]) -> Result<(u8, &[u8], u16, usize), TargetError> {
    let (kind, rest) = bytes.split_first().ok_or(TargetError::Short)?;
    let (start, length) = match *kind {
        IPV4 => (1, 4),
        IPV6 => (1, 16),
        NAME => (2, usize::from(*rest.first().ok_or(TargetError::Short)?)),
        _ => return Err(TargetError::AddressType),
    };
    let end = start + length;
    // The length is the application's own word, so both are looked up and not cut.
    let (Some(address), Some(port)) = (bytes.get(start..end), bytes.get(end..end + 2)) else {
        return Err(TargetError::Short);
    };
    let port = port.try_into().map(u16::from_be_bytes).map_err(|_| TargetError::Short)?;
    Ok((*kind, address, port, end + 2))
}

fn host(kind: u8, address: &[u8]) -> Result<Host, TargetError> {
    if let Ok(octets) = <[u8; 4]>::try_from(address)
        && kind == IPV4
    {
        return Ok(Ipv4Addr::from(octets).into());
    }
    if let Ok(octets) = <[u8; 16]>::try_from(address)
        && kind == IPV6
    {
        return Ok(Ipv6Addr::from(octets).into());
    }
    // Some programs send an address as a name; it is read as the address that it is, so that policies see it as one.
    Host::parse(address).map_err(|_| TargetError::Name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(bytes: &[u8]) -> Option<DatagramError> {
        parse(bytes).err()
    }

    #[test]
    fn what_is_no_whole_datagram_is_dropped_with_a_reason() {
        assert_eq!(error(&[0, 0]), Some(DatagramError::Short));
        assert_eq!(error(&[0, 0, 0, 1, 127, 0, 0, 1, 0]), Some(DatagramError::Short));
        assert_eq!(error(&[0, 1, 0, 1, 127, 0, 0, 1, 0, 53]), Some(DatagramError::Reserved));
        assert_eq!(error(&[0, 0, 1, 1, 127, 0, 0, 1, 0, 53]), Some(DatagramError::Fragment));
        assert_eq!(error(&[0, 0, 0, 2, 127, 0, 0, 1, 0, 53]), Some(DatagramError::AddressType));
        assert_eq!(error(&[0, 0, 0, 3, 1, b' ', 0, 53]), Some(DatagramError::Name));
        assert_eq!(error(&[0, 0, 0, 1, 127, 0, 0, 1, 0, 0]), Some(DatagramError::Port));
    }

    proptest! {
        #[test]
        fn datagrams_survive_their_header(
            host in prop_oneof![
                any::<u32>().prop_map(|n| Host::from(Ipv4Addr::from(n))),
                any::<u128>().prop_map(|n| Host::from(Ipv6Addr::from(n))),
                "[a-z_-]{1,63}(\\.[a-z]{1,63}){0,2}".prop_map(|n| Host::parse(n.as_bytes()).unwrap()),
            ],
            port in 1u16..,
            data: Vec<u8>,
        ) {
            let bytes = build(&host, port, &data);
            let same = parse(&bytes).ok() == Some(Datagram { host, port, data: &data });
            prop_assert!(same);
        }

        #[test]
        fn random_datagrams_do_no_harm(bytes: Vec<u8>) {
            let _ = parse(&bytes);
            let _ = parse(&[&[0, 0, 0], bytes.as_slice()].concat());
        }
    }
}
