//! An address of a host and a port as configurations have it: in numbers, or with a name that is looked up each time that
//! it is used, since what it stands for may change.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use rustls::pki_types::DnsName;
use serde::{Deserialize, Deserializer};

/// The address at which something listens.
#[derive(Clone, PartialEq, Eq)]
pub enum HostPort {
    /// `192.0.2.1:9001` or `[2001:db8::1]:9001`.
    Address(SocketAddr),
    /// A name and a port, such as `gateway.example:9001`.
    Name(DnsName<'static>, u16),
}

/// A text that is neither.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is no address with a port: write 192.0.2.1:9001, [2001:db8::1]:9001 or host.example:9001"
)]
pub struct BadHostPort(String);

impl HostPort {
    /// The address to use now; the first one, of a name that has several.
    ///
    /// # Errors
    /// The name is not known, or nobody answers for it.
    pub async fn resolve(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Address(address) => Ok(*address),
            Self::Name(host, port) => {
                let mut found = tokio::net::lookup_host((host.as_ref(), *port)).await?;
                found.next().ok_or_else(|| io::ErrorKind::NotFound.into())
            }
        }
    }

    /// All addresses that it has now, for a program that does nothing else yet: this waits for the resolver.
    ///
    /// # Errors
    /// The name is not known, or nobody answers for it.
    pub fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Address(address) => Ok(vec![*address]),
            Self::Name(host, port) => {
                let mut found: Vec<_> = (host.as_ref(), *port).to_socket_addrs()?.collect();
                found.dedup();
                if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
            }
        }
    }
}

impl FromStr for HostPort {
    type Err = BadHostPort;

    fn from_str(text: &str) -> Result<Self, BadHostPort> {
        let bad = || BadHostPort(text.to_owned());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(bad()) } else { Ok(Self::Address(address)) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        let name = DnsName::try_from(host.to_owned()).map_err(|_| bad())?;
        Ok(Self::Name(name, port))
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{}:{port}", host.as_ref()),
        }
    }
}

impl fmt::Debug for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_told_apart_and_the_rest_is_refused() {
        let address = |text: &str| HostPort::Address(text.parse().unwrap());
        assert_eq!("127.0.0.1:80".parse(), Ok(address("127.0.0.1:80")));
        assert_eq!("[::1]:80".parse(), Ok(address("[::1]:80")));
        for (text, host) in [("gw:9001", "gw"), ("a-_b.example.:9001", "a-_b.example.")] {
            let name = DnsName::try_from(host).unwrap();
            assert_eq!(text.parse(), Ok(HostPort::Name(name, 9001)));
        }
        for bad in [
            "",
            "host",
            "host:",
            ":80",
            "host:0",
            "192.0.2.1:0",
            "host:70000",
            "a b:80",
            "::1:80",
            "1.2.3:80",
            "a..b:80",
        ] {
            let refused = bad.parse::<HostPort>().unwrap_err().to_string();
            assert!(refused.contains("host.example:9001"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_when_it_is_used() {
        let local: HostPort = "localhost:80".parse().unwrap();
        assert!(local.resolve().await.unwrap().ip().is_loopback());
        assert!(local.look_up().unwrap().iter().all(|address| address.ip().is_loopback()));
        let unknown: HostPort = "nowhere.invalid:80".parse().unwrap();
        assert!(unknown.resolve().await.is_err() && unknown.look_up().is_err());
    }
}
