//! Hosts: an address, or a name that could stand in the DNS.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where a request wants to go. `Debug` hides it: whom someone talks to is no matter for a log.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name, for the exit to resolve.
    Name(HostName),
    /// An address, which needs no resolution.
    Ip(IpAddr),
}

/// A host name as DNS can carry it: 1 to 253 characters, labels of 1 to 63 letters, digits, `-` and `_`.
///
/// Lower case, without the dot at the end. `Debug` hides it; `as_str` gives it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HostName(String);

/// Bytes that are no host name. They are not repeated, so that the error can be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a host name: 1 to 253 characters, labels of 1 to 63 letters, digits, '-' or '_', the last no number"
)]
pub struct BadHostName;

const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

impl Host {
    /// Reads a host as people and programs write it: an address, also in brackets, or a name.
    pub fn parse(text: &[u8]) -> Result<Self, BadHostName> {
        let text = std::str::from_utf8(text).map_err(|_| BadHostName)?;
        let bracketed = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Some(inner) = bracketed {
            return inner.parse::<Ipv6Addr>().map(Self::from).map_err(|_| BadHostName);
        }
        match text.parse::<IpAddr>() {
            Ok(ip) => Ok(Self::Ip(ip)),
            Err(_) => HostName::parse(text).map(Self::Name),
        }
    }
}

impl HostName {
    /// Checks a name, and lowers its case.
    pub fn parse(text: &str) -> Result<Self, BadHostName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() || text.len() > MAX_NAME || !text.split('.').all(is_label) {
            return Err(BadHostName);
        }
        // "127.1" or "0x7f000001": some resolvers would read an address where the policy saw a name.
        if text.rsplit('.').next().is_none_or(is_number) {
            return Err(BadHostName);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_label(label: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(known)
}

fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name(_) => "Name(..)",
            Self::Ip(_) => "Ip(..)",
        })
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostName(..)")
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

impl From<Ipv4Addr> for Host {
    fn from(ip: Ipv4Addr) -> Self {
        Self::Ip(ip.into())
    }
}

impl From<Ipv6Addr> for Host {
    fn from(ip: Ipv6Addr) -> Self {
        Self::Ip(ip.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lowered_and_addresses_recognised() {
        let name = |t: &str| Host::Name(HostName(t.into()));
        assert_eq!(Host::parse(b"Example.COM."), Ok(name("example.com")));
        assert_eq!(Host::parse(b"_dns.a-b.test"), Ok(name("_dns.a-b.test")));
        assert_eq!(Host::parse(b"localhost"), Ok(name("localhost")));
        assert_eq!(Host::parse(b"127.0.0.1"), Ok(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(Host::parse(b"::1"), Ok(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(Host::parse(b"[::1]"), Ok(Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn what_no_resolver_should_see_is_refused() {
        let long_label = "a".repeat(64) + ".test";
        let long_name = "a.".repeat(127) + "test";
        for bad in [
            "",
            ".",
            "a..b",
            ".a",
            "a b",
            "a\0b",
            "a\nb",
            "a/b",
            "a@b",
            "a:80",
            "h\u{f6}st",
            "127.1",
            "0x7f000001",
            "a.0x1",
            "1.2.3.4.5",
            "2130706433",
            "[127.0.0.1]",
            "[::1",
            "fe80::1%eth0",
            "*",
            &long_label,
            &long_name,
        ] {
            assert_eq!(Host::parse(bad.as_bytes()), Err(BadHostName), "{bad}");
        }
        assert_eq!(Host::parse(b"\xff.test"), Err(BadHostName));
    }

    #[test]
    fn debug_shows_no_target() {
        let shown = format!("{:?} {:?}", Host::parse(b"secret.test"), Host::parse(b"192.0.2.9"));
        assert!(!shown.contains("secret") && !shown.contains("192"), "{shown}");
    }
}
