//! What an exit connects to: ports and ranges. No IO.
//!
//! A rule is `allow` or `deny`, then `ADDRESS:PORTS`. The address is `*`, an address or a range
//! (`10.0.0.0/8`; IPv6 in brackets, `[2001:db8::]/32`), the ports are `*`, one port or `FROM-TO`. The first
//! rule that matches decides; what no rule matches is refused. Private and special ranges are refused unless
//! a rule allows a range *within* them: `allow *:*` opens the internet, not the exit's own network. Addresses
//! that carry an IPv4 address in them (mapped, 6to4, NAT64, Teredo) must pass as that address too. The exit's own
//! addresses are refused unless a rule names the very address, its neighbours by IPv6 unless one lies within their prefix.

mod own;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

pub use own::OwnHost;

/// The rules of an exit, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitPolicy {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    decision: PolicyDecision,
    /// The addresses that the rule is about; `None` is `*`, all of them.
    range: Option<Range>,
    ports: RangeInclusive<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PolicyDecision {
    Allow,
    Deny,
}

/// Addresses that share their first `prefix` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    base: IpAddr,
    prefix: u8,
}

/// Why a target is refused. The target is not repeated, so that the reason can be counted and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// A rule of the policy denies it.
    #[error("a rule of the exit policy denies it")]
    Denied,
    /// It lies in a private or special range that no rule opens.
    #[error("it lies in a private or special range that the exit policy does not open")]
    Special,
    /// It is the exit's own host or a neighbour of it, which no rule names.
    #[error("it is the exit's own host or on its link, and the exit policy does not name it")]
    Own,
    /// No rule of the policy allows it.
    #[error("no rule of the exit policy allows it")]
    NotAllowed,
}

/// A rule that cannot be read: a mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "exit policy, rule {number} (\"{rule}\"): {problem}; a rule is \"allow\" or \"deny\", then an address, a range or \
     *, a colon, then a port, FROM-TO or *: \"allow *:443\", \"deny 10.0.0.0/8:*\", \"allow [::1]/128:8000-9000\""
)]
pub struct PolicyError {
    /// Its position in the list, counted from 1.
    pub number: usize,
    /// The rule as it was written.
    pub rule: String,
    /// What is wrong with it.
    pub problem: RuleProblem,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleProblem {
    /// It begins with neither verb.
    #[error("it begins with neither \"allow\" nor \"deny\"")]
    Verb,
    /// It has no colon before ports.
    #[error("the ports are missing")]
    NoPorts,
    /// The ports are none, or in the wrong order.
    #[error("\"{0}\" is no port (1 to 65535), no FROM-TO and no *")]
    Ports(String),
    /// What is written for an address is none.
    #[error("\"{0}\" is no address (IPv6 stands in brackets)")]
    Address(String),
    /// What is written for the length of a prefix is none.
    #[error("/{prefix} is no prefix: allowed is 0 to {longest}")]
    Prefix {
        /// The length of the prefix as it was written.
        prefix: String,
        /// The longest that the address has.
        longest: u8,
    },
    /// The address has bits beyond the prefix.
    #[error("the address has bits beyond its prefix; the range would be {0}")]
    Bits(String),
    /// An IPv4 address in the dress of an IPv6 one.
    #[error("write this IPv4 address as IPv4: it would never match")]
    Mapped,
}

impl ExitPolicy {
    /// The policy of an exit that is told nothing: all ports but 25 (mail between servers, where abuse is
    /// worst), and no private or special range.
    pub const DEFAULT_RULES: [&str; 2] = ["deny *:25", "allow *:*"];

    /// Reads the rules. An empty list refuses everything.
    pub fn parse<S: AsRef<str>>(rules: &[S]) -> Result<Self, PolicyError> {
        let rules = rules.iter().enumerate().map(|(i, text)| {
            let text = text.as_ref();
            text.parse::<Rule>().map_err(|problem| PolicyError {
                number: i + 1,
                rule: text.to_owned(),
                problem,
            })
        });
        rules.collect::<Result<_, _>>().map(|rules| Self { rules })
    }

    /// Says whether an exit on the host `own` may connect to this target.
    pub fn check(&self, own: &OwnHost, target: SocketAddr) -> Result<(), Refused> {
        match target.ip() {
            IpAddr::V6(ip) => match embedded(ip) {
                Some((carried, Dress::SameHost)) => {
                    self.check_plain(own, carried.into(), target.port())
                }
                Some((carried, Dress::Gateway)) => {
                    self.check_plain(own, ip.into(), target.port())?;
                    self.check_plain(own, carried.into(), target.port())
                }
                None => self.check_plain(own, ip.into(), target.port()),
            },
            ip => self.check_plain(own, ip, target.port()),
        }
    }

    /// Says whether any port of this address is allowed, so that an answer may name it.
    pub fn check_any_port(&self, own: &OwnHost, ip: IpAddr) -> Result<(), Refused> {
        // The decision changes only where the ports of a rule begin or have just ended.
        let edges =
            self.rules.iter().flat_map(|r| [Some(*r.ports.start()), r.ports.end().checked_add(1)]);
        let mut outcome = self.check(own, SocketAddr::new(ip, 1));
        for port in edges.flatten() {
            outcome = outcome.or_else(|_| self.check(own, SocketAddr::new(ip, port)));
        }
        outcome
    }

    fn check_plain(&self, own: &OwnHost, ip: IpAddr, port: u16) -> Result<(), Refused> {
        let special = SPECIAL.iter().any(|range| range.contains(ip));
        let own = own.names(ip);
        let matching = self
            .rules
            .iter()
            .filter(|r| r.ports.contains(&port) && r.range.is_none_or(|x| x.contains(ip)));
        for rule in matching {
            match rule.decision {
                PolicyDecision::Deny => return Err(Refused::Denied),
                // A rule that allows more than the special range was not written with it in mind.
                PolicyDecision::Allow if special && !rule.names_special() => {}
                PolicyDecision::Allow if own.is_some_and(|own| !rule.lies_within(own)) => {}
                PolicyDecision::Allow => return Ok(()),
            }
        }
        Err(match (special, own) {
            (true, _) => Refused::Special,
            (false, Some(_)) => Refused::Own,
            (false, None) => Refused::NotAllowed,
        })
    }
}

impl Default for ExitPolicy {
    fn default() -> Self {
        let any = |decision, ports| Rule { decision, range: None, ports };
        Self {
            rules: vec![
                any(PolicyDecision::Deny, 25..=25),
                any(PolicyDecision::Allow, 1..=u16::MAX),
            ],
        }
    }
}

impl Rule {
    fn names_special(&self) -> bool {
        SPECIAL.iter().any(|special| self.lies_within(*special))
    }

    fn lies_within(&self, range: Range) -> bool {
        self.range.is_some_and(|named| range.prefix <= named.prefix && range.contains(named.base))
    }
}

impl FromStr for Rule {
    type Err = RuleProblem;

    fn from_str(text: &str) -> Result<Self, RuleProblem> {
        let (verb, target) =
            text.trim().split_once(char::is_whitespace).ok_or(RuleProblem::Verb)?;
        let decision = match verb {
            "allow" => PolicyDecision::Allow,
            "deny" => PolicyDecision::Deny,
            _ => return Err(RuleProblem::Verb),
        };
        let target = target.trim();
        let (range, ports) = target.rsplit_once(':').ok_or(RuleProblem::NoPorts)?;
        if ports.contains(']') {
            return Err(RuleProblem::NoPorts);
        }
        let range = if range == "*" { None } else { Some(range.parse()?) };
        Ok(Self { decision, range, ports: parse_ports(ports)? })
    }
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, RuleProblem> {
    let bad = || RuleProblem::Ports(text.to_owned());
    if text == "*" {
        return Ok(1..=u16::MAX);
    }
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let port = |t: &str| t.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(bad);
    let ports = port(from)?..=port(to)?;
    if ports.is_empty() { Err(bad()) } else { Ok(ports) }
}

impl FromStr for Range {
    type Err = RuleProblem;

    fn from_str(text: &str) -> Result<Self, RuleProblem> {
        let bad = || RuleProblem::Address(text.to_owned());
        // Both [::1]/128 and [::1/128] are in use elsewhere.
        let bare = text.replace(['[', ']'], "");
        let (address, prefix) = match bare.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (bare.as_str(), None),
        };
        let base: IpAddr = address.parse().map_err(|_| bad())?;
        if base.is_ipv6() != text.starts_with('[') {
            return Err(bad());
        }
        let longest = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(text) => text
                .parse()
                .ok()
                .filter(|p| *p <= longest)
                .ok_or_else(|| RuleProblem::Prefix { prefix: text.to_owned(), longest })?,
        };
        let range = Self { base: masked(base, prefix), prefix };
        if range.base != base {
            return Err(RuleProblem::Bits(range.to_string()));
        }
        let mapped = |ip: Ipv6Addr| ip.to_ipv4_mapped().is_some();
        if matches!(base, IpAddr::V6(ip) if mapped(ip) && prefix >= 96) {
            return Err(RuleProblem::Mapped);
        }
        Ok(range)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.base {
            IpAddr::V4(base) => write!(f, "{base}/{}", self.prefix),
            IpAddr::V6(base) => write!(f, "[{base}]/{}", self.prefix),
        }
    }
}

impl Range {
    fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.base.is_ipv4() && masked(ip, self.prefix) == self.base
    }
}

fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from(u32::from(ip) & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from(u128::from(ip) & mask).into()
        }
    }
}

/// How an IPv6 address carries an IPv4 one.
enum Dress {
    /// It is that host, written otherwise.
    SameHost,
    /// A gateway on the way reaches that host.
    Gateway,
}

/// The IPv4 address in a mapped (RFC 4291), 6to4 (RFC 3056), NAT64 (RFC 6052) or Teredo (RFC 4380) address.
fn embedded(ip: Ipv6Addr) -> Option<(Ipv4Addr, Dress)> {
    if let Some(carried) = ip.to_ipv4_mapped() {
        return Some((carried, Dress::SameHost));
    }
    let bits = u128::from(ip);
    let carried = match ip.segments() {
        [0x2002, ..] => (bits >> 80) as u32,
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => bits as u32,
        [0x2001, 0, ..] => !(bits as u32),
        _ => return None,
    };
    Some((carried.into(), Dress::Gateway))
}

/// The address to dial for one that was checked: the same host, without disguise.
pub fn undisguised(target: SocketAddr) -> SocketAddr {
    SocketAddr::new(target.ip().to_canonical(), target.port())
}

const fn v4(a: u8, b: u8, c: u8, prefix: u8) -> Range {
    Range { base: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), prefix }
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Range {
    Range { base: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), prefix }
}

/// Private and special ranges: all that the IANA special-purpose registries (RFC 6890 and successors) do not call globally
/// reachable, and multicast. 2001::/23 is closed whole: what in it is reachable (relays, anycast of protocols, names of
/// drones) is no host of the internet.
const SPECIAL: [Range; 28] = [
    v4(0, 0, 0, 8),       // this network
    v4(10, 0, 0, 8),      // private (RFC 1918)
    v4(100, 64, 0, 10),   // carrier NAT (RFC 6598)
    v4(127, 0, 0, 8),     // loopback
    v4(169, 254, 0, 16),  // link-local, and the metadata services of clouds
    v4(172, 16, 0, 12),   // private (RFC 1918)
    v4(192, 0, 0, 24),    // protocol assignments
    v4(192, 0, 2, 24),    // documentation
    v4(192, 88, 99, 24),  // 6to4 relays
    v4(192, 168, 0, 16),  // private (RFC 1918)
    v4(198, 18, 0, 15),   // benchmarks
    v4(198, 51, 100, 24), // documentation
    v4(203, 0, 113, 24),  // documentation
    v4(224, 0, 0, 4),     // multicast
    v4(240, 0, 0, 4),     // reserved, and broadcast
    v6(0, 0, 0, 96),      // unspecified, loopback, IPv4-compatible
    // IPv4-translated (SIIT, RFC 7915): a translator on the way reaches the host whose address it carries.
    Range { base: IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0)), prefix: 96 },
    v6(0x64, 0xff9b, 1, 48), // NAT64 of the local network (RFC 8215)
    v6(0x100, 0, 0, 64),     // discard
    Range { base: IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 0)), prefix: 64 }, // dummy (RFC 9780)
    v6(0x2001, 0, 0, 23), // protocol assignments, Teredo, benchmarks, ORCHIDs
    v6(0x2001, 0xdb8, 0, 32), // documentation
    v6(0x3fff, 0, 0, 20), // documentation
    v6(0x5f00, 0, 0, 16), // segment routing (RFC 9602)
    v6(0xfc00, 0, 0, 7),  // unique local
    v6(0xfe80, 0, 0, 10), // link-local
    v6(0xfec0, 0, 0, 10), // site-local
    v6(0xff00, 0, 0, 8),  // multicast
];

#[cfg(test)]
mod tests;
