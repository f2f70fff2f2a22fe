//! The exit's own host and its neighbours on the link: what a firewall keeps from the outside, and an exit must not open.

use std::net::{IpAddr, Ipv6Addr};

use super::Range;

/// Prefixes shorter than this are taken for a way to everywhere (a default route in disguise), not for neighbours.
const SHORTEST_ON_LINK: u8 = 32;

/// Addresses of the exit's own interfaces, and the IPv6 prefixes on their links. IPv4 neighbours have private addresses, as
/// a rule, which are refused anyway; where they have not, they are on the internet like everybody else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnHost {
    addresses: Vec<IpAddr>,
    on_link: Vec<Range>,
}

impl OwnHost {
    /// Adds an address of an interface, with the length of its prefix. Loopback is left out: it is a special range, which
    /// rules open as a range.
    pub fn add_interface(&mut self, address: IpAddr, prefix: u8) {
        if address.is_loopback() {
            return;
        }
        self.addresses.push(address);
        if let IpAddr::V6(address) = address {
            self.add_on_link(address, prefix);
        }
    }

    /// Adds a prefix whose hosts are reached without a router.
    pub fn add_on_link(&mut self, base: Ipv6Addr, prefix: u8) {
        // A prefix of full length is one host: its own address, or a route to one.
        if (SHORTEST_ON_LINK..128).contains(&prefix) {
            self.on_link.push(Range { base: super::masked(base.into(), prefix), prefix });
        }
    }

    /// The range that a rule must lie within to open this address; none if it is no neighbour.
    pub(super) fn names(&self, ip: IpAddr) -> Option<Range> {
        if self.addresses.contains(&ip) {
            return Some(Range { base: ip, prefix: if ip.is_ipv4() { 32 } else { 128 } });
        }
        // Of several, the narrowest.
        let around = self.on_link.iter().filter(|range| range.contains(ip));
        around.max_by_key(|range| range.prefix).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ExitPolicy, Refused};
    use super::*;

    /// A host as providers rent them: 44.1.2.3 and 2a01:4f8:1:2::3 of a /64, a VPN, and a default route without a router.
    fn own() -> OwnHost {
        let mut own = OwnHost::default();
        for (address, prefix) in [
            ("127.0.0.1", 8),
            ("::1", 128),
            ("44.1.2.3", 24),
            ("10.5.0.2", 16),
            ("2a01:4f8:1:2::3", 64),
            ("2a01:4f8:9::7", 128),
            ("fe80::1", 64),
        ] {
            own.add_interface(address.parse().unwrap(), prefix);
        }
        own.add_on_link("2a01:4f8:9::".parse().unwrap(), 64);
        own.add_on_link("2000::".parse().unwrap(), 3);
        own.add_on_link("::".parse().unwrap(), 0);
        own
    }

    fn check(rules: &[&str], target: &str) -> Result<(), Refused> {
        let policy = ExitPolicy::parse(rules).unwrap();
        let target: std::net::SocketAddr = target.parse().unwrap();
        let outcome = policy.check(&own(), target);
        assert_eq!(policy.check_any_port(&own(), target.ip()).is_ok(), outcome.is_ok());
        outcome
    }

    #[test]
    fn no_wide_rule_opens_the_exits_own_host_or_its_neighbours() {
        for rules in [
            &ExitPolicy::DEFAULT_RULES[..],
            &["allow *:*"],
            &["allow 0.0.0.0/0:*", "allow [::]/0:*"],
            &["allow 44.1.2.0/24:*", "allow 10.0.0.0/8:*", "allow [2a01:4f8::]/32:*"],
        ] {
            for target in [
                "44.1.2.3:80",
                "10.5.0.2:80",
                "[2a01:4f8:1:2::3]:80",
                // Neighbours: by the prefix of an address, and by a route alone.
                "[2a01:4f8:1:2:ffff::9]:80",
                "[2a01:4f8:9::7]:80",
                "[2a01:4f8:9::8]:80",
                // In disguise.
                "[::ffff:44.1.2.3]:80",
                "[2002:2c01:203::1]:80",
                "[64:ff9b::2c01:203]:80",
            ] {
                let refused = check(rules, target).unwrap_err();
                assert_ne!(refused, Refused::Denied, "{target}");
            }
        }
        // Others are on the internet.
        for target in ["44.1.2.4:80", "[2a01:4f8:1:3::3]:80", "[2606:4700::1]:80", "9.9.9.9:80"] {
            assert_eq!(check(&["allow *:*"], target), Ok(()), "{target}");
        }
    }

    #[test]
    fn a_rule_that_names_the_host_or_the_prefix_opens_it() {
        let rules = ["allow 44.1.2.3:443", "allow 10.5.0.2/32:*", "allow *:*"];
        assert_eq!(check(&rules, "44.1.2.3:443"), Ok(()));
        assert_eq!(check(&rules, "10.5.0.2:80"), Ok(()));
        let policy = ExitPolicy::parse(&rules).unwrap();
        assert_eq!(policy.check(&own(), "44.1.2.3:80".parse().unwrap()), Err(Refused::Own));
        let rules = ["allow [2a01:4f8:1:2::]/64:*"];
        assert_eq!(check(&rules, "[2a01:4f8:1:2::9]:80"), Ok(()));
        assert_eq!(check(&rules, "[2a01:4f8:1:2::3]:80"), Err(Refused::Own), "the host itself");
        assert_eq!(check(&["allow 127.0.0.0/8:*"], "127.0.0.1:80"), Ok(()));
    }

    #[test]
    fn a_rule_that_denies_still_denies() {
        let rules = ["deny 44.1.2.3:*", "allow 44.1.2.3:443"];
        assert_eq!(check(&rules, "44.1.2.3:443"), Err(Refused::Denied));
    }
}
