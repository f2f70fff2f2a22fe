//! The addresses of this host, which come and go.

use std::io;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::policy::OwnHost;

/// For so long what was read is used again: a burst of requests reads once.
const FRESH: Duration = Duration::from_secs(1);

/// What an exit keeps its clients from: read at the start and when it is asked for, at most once a second.
pub(super) struct Interfaces {
    read: fn() -> io::Result<OwnHost>,
    last: Mutex<(Instant, Arc<OwnHost>)>,
}

impl Interfaces {
    /// Reads them.
    ///
    /// # Errors
    /// When the system does not say.
    pub(super) fn read() -> io::Result<Self> {
        Self::by(own_host)
    }

    /// As read by something else.
    pub(super) fn by(read: fn() -> io::Result<OwnHost>) -> io::Result<Self> {
        Ok(Self { read, last: Mutex::new((Instant::now(), Arc::new(read()?))) })
    }

    /// What holds now. When the system does not say any more, what it said last.
    pub(super) fn now(&self) -> Arc<OwnHost> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0.elapsed() > FRESH {
            last.0 = Instant::now();
            if let Ok(own) = (self.read)() {
                last.1 = Arc::new(own);
            }
        }
        last.1.clone()
    }
}

fn own_host() -> io::Result<OwnHost> {
    let mut own = OwnHost::default();
    for interface in if_addrs::get_if_addrs()? {
        let prefix = match &interface.addr {
            if_addrs::IfAddr::V4(address) => address.prefixlen,
            if_addrs::IfAddr::V6(address) => address.prefixlen,
        };
        own.add_interface(interface.ip(), prefix);
    }
    // Where addresses come by DHCPv6 the prefix of the link stands in the routes alone. No such file: no IPv6.
    let routes = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    for (base, prefix) in routes.lines().filter_map(on_link) {
        match prefix {
            // The host's own, in the table of local addresses.
            128 => {}
            prefix => own.add_on_link(base, prefix),
        }
    }
    Ok(own)
}

/// The prefix of a line of /proc/net/ipv6_route, if no router lies between: destination, length of its prefix, source,
/// length, next hop, metric, references, uses, flags, interface, all in hexadecimal digits.
fn on_link(line: &str) -> Option<(Ipv6Addr, u8)> {
    const UP: u32 = 1;
    const GATEWAY: u32 = 2;
    const REJECT: u32 = 0x200;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [base, prefix, _, _, _, _, _, _, flags, interface] = words.as_slice() else { return None };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    if flags & UP == 0 || flags & (GATEWAY | REJECT) != 0 || *interface == "lo" {
        return None;
    }
    let base = u128::from_str_radix(base, 16).ok()?;
    let prefix = u8::from_str_radix(prefix, 16).ok()?;
    Some((Ipv6Addr::from(base), prefix))
}

/// True if this is an address of this machine, for tests of what is read.
#[cfg(test)]
fn is_own(ip: std::net::IpAddr) -> bool {
    if_addrs::get_if_addrs().is_ok_and(|all| all.iter().any(|interface| interface.ip() == ip))
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use super::*;
    use crate::policy::ExitPolicy;

    #[test]
    fn the_address_from_which_this_host_reaches_others_is_its_own() {
        let own = own_host().unwrap();
        assert!(is_own([127, 0, 0, 1].into()));
        // No packet is sent: this asks the routes alone.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("9.9.9.9:53").is_err() {
            return;
        }
        let ip = socket.local_addr().unwrap().ip();
        let named = ExitPolicy::parse(&[format!("allow {ip}:*")]).unwrap();
        let wide = ExitPolicy::parse(&["allow *:*", "allow 10.0.0.0/8:*", "allow 172.16.0.0/12:*"]);
        assert!(wide.unwrap().check(&own, SocketAddr::new(ip, 80)).is_err());
        assert_eq!(named.check(&own, SocketAddr::new(ip, 80)), Ok(()));
    }

    #[test]
    fn prefixes_without_a_router_are_on_the_link() {
        let zeros = "0".repeat(32);
        let line = |base: &str, prefix: &str, hop: &str, flags: &str, interface: &str| {
            format!(
                "{base} {prefix} {zeros} 00 {hop} 00000100 00000001 00000000 {flags} {interface}"
            )
        };
        let lan = "2a0104f8000900000000000000000000";
        let router = "fe800000000000000000000000000001";
        let read = on_link(&line(lan, "40", &zeros, "00000001", "eth0"));
        assert_eq!(read, Some(("2a01:4f8:9::".parse().unwrap(), 64)));
        assert_eq!(on_link(&line(lan, "40", router, "00000003", "eth0")), None, "a router");
        assert_eq!(on_link(&line(lan, "40", &zeros, "00200200", "lo")), None, "rejected");
        assert_eq!(on_link(&line(lan, "40", &zeros, "80200001", "lo")), None, "local");
        assert_eq!(on_link("rubbish"), None);
    }
}
