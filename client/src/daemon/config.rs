//! The configuration file of a client: every key has a default, and `init` writes them all with what they mean.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use shoal_host::config::{ConfigError, load, resolve};
use shoal_host::host_port::HostPort;
use shoal_host::reload::Source;
use shoal_topology::Identity;

use crate::engine::Replies;
use crate::socks::HostName;

/// A client's configuration, paths resolved.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The network file, with the keys of the authorities.
    pub network: PathBuf,
    /// One or two gateways, the preferred one first.
    pub gateways: Vec<Gateway>,
    /// Class of traffic of `run`.
    pub class: String,
    /// The directory of the client's long-lived keys.
    pub data_dir: PathBuf,
    /// The directory of the control socket.
    pub runtime_dir: PathBuf,
    /// Seconds for which a key opens this client's packets; then the next one does.
    pub key_period_s: u64,
    /// True if others can write to this client (`run`), by its address.
    pub reachable: bool,
    /// File with the admission token of the gateway; none for a person where it is open.
    pub token: Option<PathBuf>,
    /// Least severe level that is logged.
    pub log: String,
    /// The settings of the SOCKS5 proxy.
    pub socks: Socks,
    /// The settings by which nothing is sent rather than too little hidden.
    pub protect: Protect,
    /// The settings of the admin page.
    pub admin: Admin,
    /// The settings of the page in a browser.
    pub page: Page,
    /// What `serve` offers, and to whom.
    pub serve: Serve,
    /// The file that it was read from, if it was.
    #[serde(skip)]
    pub source: Option<Source>,
}

/// A gateway to connect to.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// The identity of the gateway, in base32.
    #[serde(deserialize_with = "identity")]
    pub identity: Identity,
    /// The address at which the gateway listens.
    pub address: HostPort,
}

/// The SOCKS5 proxy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Socks {
    /// Where it listens: a loopback address.
    pub listen: SocketAddr,
    /// Connections at a time, those that have not yet asked for anything included.
    pub max_connections: usize,
    /// A request is answered within this many seconds, with a reply that says how it went.
    pub request_timeout_s: u64,
    /// Tell programs more of `.shoal` addresses than RFC 1928 has codes for.
    pub extended_errors: bool,
}

/// When to fail closed.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Protect {
    /// Let one gateway serve both ends of a tunnel when no other is left.
    pub allow_shared_gateway: bool,
    /// Send nothing of the user's while a layer has fewer mixes in good standing, whatever the network asks for.
    pub min_mixes_per_layer: usize,
    /// Send nothing of the user's below so many bits of expected anonymity; if none, the network says.
    pub min_bits: Option<f64>,
    /// Send however few bits there are.
    pub allow_small_crowd: bool,
    /// Let no more arrive than at rest: downloads are slow, and do not show to the own gateway either.
    pub strict: bool,
}

/// HTTP for the operator.
#[derive(Default, Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where `/livez`, `/readyz` and `/metrics` are; empty turns them off.
    pub listen: String,
}

/// The messenger in a browser on this machine.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Page {
    /// Where it is, if others can write to this client; empty turns it off.
    pub listen: String,
}

impl Page {
    /// Where it is. None if it is turned off.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }
}

/// What `serve` offers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Serve {
    /// An exit to the internet, or one internal target.
    pub kind: ServiceKind,
    /// The internal target of kind `target`.
    pub target: HostPort,
    /// The exit policy.
    pub policy: Vec<String>,
    /// `system`, or the address of a DNS server.
    pub resolver: String,
    /// Names with fixed addresses, asked before the resolver.
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
    /// The most tunnels at a time; how they make room is written at [`crate::tunnel::Tunnels`].
    pub max_tunnels: usize,
}

/// What a service is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceKind {
    /// Connects to where its clients say, by its policy.
    Exit,
    /// Connects to one address.
    Target,
}

fn identity<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Identity, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: "network.toml".into(),
            gateways: Vec::new(),
            class: "web".into(),
            data_dir: "data".into(),
            runtime_dir: "run".into(),
            key_period_s: 86_400,
            reachable: false,
            token: None,
            log: "info".into(),
            socks: Socks::default(),
            protect: Protect::default(),
            admin: Admin::default(),
            page: Page::default(),
            serve: Serve::default(),
            source: None,
        }
    }
}

impl Default for Socks {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1080)),
            max_connections: 8_192,
            request_timeout_s: 30,
            extended_errors: false,
        }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self { listen: "127.0.0.1:7460".into() }
    }
}

impl Default for Protect {
    fn default() -> Self {
        Self {
            allow_shared_gateway: false,
            min_mixes_per_layer: 2,
            min_bits: None,
            allow_small_crowd: false,
            strict: false,
        }
    }
}

impl Protect {
    /// What replies may take of the link.
    pub fn replies(&self) -> Replies {
        if self.strict { Replies::Resting } else { Replies::Downlink }
    }
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            kind: ServiceKind::Exit,
            target: SocketAddr::from(([127, 0, 0, 1], 80)).into(),
            policy: crate::policy::ExitPolicy::DEFAULT_RULES
                .iter()
                .map(ToString::to_string)
                .collect(),
            resolver: "system".into(),
            hosts: BTreeMap::new(),
            max_tunnels: 256,
        }
    }
}

/// Reads the configuration; relative paths start where the file is. The strings are warnings.
///
/// # Errors
/// What is wrong, with file, line and what is allowed.
pub fn read(path: &Path, overrides: &[String]) -> Result<(Config, Vec<String>), ConfigError> {
    let loaded = load::<Config>(path, overrides)?;
    let mut config = loaded.config;
    for dir in [&mut config.network, &mut config.data_dir, &mut config.runtime_dir] {
        *dir = resolve(&loaded.base, dir);
    }
    config.token = config.token.map(|token| resolve(&loaded.base, &token));
    config.check(path)?;
    config.source = Some(Source { path: path.to_owned(), overrides: overrides.to_vec() });
    Ok((config, loaded.warnings))
}

impl Config {
    /// Reads a configuration file, as [`read`] does without overrides.
    ///
    /// # Errors
    /// What is wrong, with file, line and what is allowed.
    pub fn read(path: &Path) -> Result<(Self, Vec<String>), ConfigError> {
        read(path, &[])
    }

    /// File descriptors that it may come to need: for connections of programs, or of a service's clients, and files.
    pub fn descriptors(&self) -> u64 {
        const FILES: usize = 64;
        const OF_A_TUNNEL: usize = 32;
        const PAGE: usize = 96;
        let served = self.serve.max_tunnels.saturating_mul(OF_A_TUNNEL);
        let most = self.socks.max_connections.max(served).saturating_add(FILES + PAGE);
        u64::try_from(most).unwrap_or(u64::MAX)
    }

    /// Checks the values; `path` is where they are from, for the message.
    pub(super) fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |key: &str, message: String| {
            Err(ConfigError::Invalid {
                location: path.display().to_string(),
                key: Some(key.into()),
                message,
            })
        };
        if let [first, second] = self.gateways.as_slice()
            && first.identity == second.identity
        {
            let message = "both are the same one, which is no spare: name another, or one alone";
            return wrong("gateways", message.into());
        }
        if self.gateways.is_empty() || self.gateways.len() > 2 {
            return wrong("gateways", "name one or two gateways, the preferred one first".into());
        }
        if !self.socks.listen.ip().is_loopback() {
            let message =
                "must be a loopback address: whoever reaches this port uses your identity";
            return wrong("socks.listen", message.into());
        }
        if !(1..=600).contains(&self.socks.request_timeout_s) {
            return wrong("socks.request_timeout_s", "must lie between 1 and 600 seconds".into());
        }
        if !(60..=30 * 86_400).contains(&self.key_period_s) {
            return wrong("key_period_s", "must lie between 60 seconds and 30 days".into());
        }
        if !(16..=65_536).contains(&self.socks.max_connections) {
            return wrong("socks.max_connections", "must lie between 16 and 65,536".into());
        }
        if !(1..=4_096).contains(&self.serve.max_tunnels) {
            return wrong("serve.max_tunnels", "must lie between 1 and 4,096".into());
        }
        if self.serve.resolver != "system" && self.serve.resolver.parse::<SocketAddr>().is_err() {
            let message = "must be \"system\" or the address and port of a DNS server";
            return wrong("serve.resolver", message.into());
        }
        if let Some(name) = self.serve.hosts.keys().find(|name| HostName::parse(name).is_err()) {
            return wrong("serve.hosts", format!("{name:?} is not the name of a host"));
        }
        if let Err(error) = crate::policy::ExitPolicy::parse(&self.serve.policy) {
            return wrong("serve.policy", error.to_string());
        }
        if self.protect.min_bits.is_some_and(|bits| !(0.0..=64.0).contains(&bits)) {
            return wrong("protect.min_bits", "must lie between 0 and 64 bits".into());
        }
        self.check_listeners(&wrong)?;
        self.check_rules(&wrong)
    }

    /// Where the admin page and the page of a member are.
    fn check_listeners(
        &self,
        wrong: &dyn Fn(&str, String) -> Result<(), ConfigError>,
    ) -> Result<(), ConfigError> {
        let admin = &self.admin.listen;
        if !admin.is_empty() {
            let message = match admin.parse::<SocketAddr>() {
                Err(_) => Some("must be an address and a port, or empty"),
                Ok(admin) if !admin.ip().is_loopback() => Some(
                    "must be a loopback address: metrics are for this machine; forward them from here",
                ),
                Ok(admin) if admin.port() != 0 && admin == self.socks.listen => {
                    Some("is the address of the SOCKS proxy already: choose another port")
                }
                Ok(_) => None,
            };
            message.map_or(Ok(()), |message| wrong("admin.listen", message.into()))?;
        }
        let page = &self.page.listen;
        if page.is_empty() {
            return Ok(());
        }
        let message = match page.parse::<SocketAddr>() {
            Err(_) => "must be an address and a port, 127.0.0.1:7460 as a rule, or empty",
            Ok(page) if !page.ip().is_loopback() => {
                "must be a loopback address: the page is for a browser on this machine"
            }
            Ok(page) if page.port() != 0 && page == self.socks.listen => {
                "is the address of the SOCKS proxy already: choose another port"
            }
            Ok(page) if page.port() != 0 && admin.parse() == Ok(page) => {
                "is the address of the admin page already: choose another port"
            }
            Ok(_) => return Ok(()),
        };
        wrong("page.listen", message.into())
    }

    /// Rules of the exit that can never match, or that leave nothing.
    fn check_rules(
        &self,
        wrong: &dyn Fn(&str, String) -> Result<(), ConfigError>,
    ) -> Result<(), ConfigError> {
        let rules = &self.serve.policy;
        if self.serve.kind == ServiceKind::Exit && rules.is_empty() {
            let message = "has no rule, so nothing can be reached: the usual ones are \"deny *:25\", \"allow *:*\"";
            return wrong("serve.policy", message.into());
        }
        let everything = rules.iter().position(|rule| {
            let words: Vec<&str> = rule.split_whitespace().collect();
            matches!(words.as_slice(), [_, "*:*"])
        });
        if let Some(at) = everything
            && let Some(never) = rules.get(at + 1)
        {
            let first = rules.get(at).map_or("", String::as_str);
            return wrong(
                "serve.policy",
                format!(
                    "{never:?} never matches: {first:?} stands before it, and the first that matches decides"
                ),
            );
        }
        Ok(())
    }
}

/// The file that `init` writes.
pub const TEMPLATE: &str = r#"# Shoal client. Relative paths start at this file. Every value shown is the default, where one is shown.
# `-o key=value` on the command line overrides a value: -o socks.listen=127.0.0.1:1081

# The network file: the name of the network and the keys of the authorities that sign its topology.
network = "network.toml"

# What your link shows to an observer: a class of the network (text, web, fast, call). All users of a class look
# the same. It says how fast you are, and what it costs, used or not; `shoal-client check` prints that.
class = "web"

# Long-lived keys, mode 0600.
data_dir = "data"

# The control socket of `shoal-client status`.
runtime_dir = "run"

# Seconds for which one key opens your packets; then the next one does, and the old one is erased.
key_period_s = 86400

# Whether others can write to you, by the addresses that `shoal-client address` prints. Then your gateways know you again each
# time that you connect, keep what comes while you are away, and tell whoever asks for your address which key you have.
reachable = false

# File with the admission token for the gateways, if they ask for one; they ask every service.
# token = "token"

# error, warn, info, debug or trace. No level logs an address, a name or a key.
log = "info"

# One or two gateways, the preferred one first. Both should have different operators. The client moves to the
# second when the first does not come back.
# [[gateways]]
# identity = "base32 of its 32-byte identity"
# address = "192.0.2.1:9001"      # or a name, which is looked up at each attempt: "gateway.example:9001"

[socks]
# The proxy: CONNECT, UDP ASSOCIATE, RESOLVE, RESOLVE_PTR. A loopback address. User name and password keep what
# different applications do apart; any will do. RESOLVE of a .shoal address gives one of 198.18.0.0/15, which stands for
# it at this proxy (for programs that want addresses, such as those under torsocks).
listen = "127.0.0.1:1080"
# Connections at a time; one more is closed at once.
max_connections = 8192
# Every request is answered within this time, if only to say that nothing came back.
request_timeout_s = 30
# For programs that know Tor's extended errors: X'F0' no such service, X'F6' a mistyped .shoal address, X'F7' the service
# does not answer. Else these are 4 and 6 (host unreachable, time ran out), as everything of that kind.
extended_errors = false

[protect]
# Your gateway knows where you are, the gateway of a service how much it gets. When a service can be reached in no other
# way, may one gateway be both? If not, the client says so. Messages to people go through any gateway.
allow_shared_gateway = false
# Send nothing of yours while a layer has fewer mixes in good standing than this.
min_mixes_per_layer = 2
# Send nothing of yours while fewer bits of anonymity are expected; without it the network's floor holds.
# min_bits = 3.0
# Send however few they are: for trials, among few people.
allow_small_crowd = false
# Your gateway sees how much arrives for you. Calls and messages take the place of cover, though many messages show in classes
# call and text; answers of more than some tens of kilobytes show in all. With true all answers are kept within the rate of that
# cover, so that downloads do not show either. They are several times slower: `shoal-client check` prints how fast with and without.
strict = false

[admin]
# /livez, /readyz and /metrics (Prometheus), on loopback: "127.0.0.1:9180", say. "" turns them off: a person has
# `shoal-client status`, and every program and user of this machine can ask a port. Nothing there moves with what is asked of
# a person's client; a service's numbers stand still within an epoch, and are rounded.
listen = ""

[page]
# The messenger for a browser on this machine, on loopback, while reachable = true: `shoal-client open` opens it, and nobody else
# on this machine gets in. "" turns it off. Where several people use one machine, each needs a port of his own.
listen = "127.0.0.1:7460"

# What `shoal-client serve` offers; `run` does not use it.
[serve]
# "exit" connects its clients to where they say; "target" to one address, whatever they say.
kind = "exit"
# For kind "target": an address, or a name that is looked up for each connection.
target = "127.0.0.1:80"
# For kind "exit": the first rule that matches decides. Private and special addresses are refused unless a rule
# names a range inside them; so are this machine's own addresses, unless a rule names the very address, and its
# neighbours by IPv6. Behind a NAT the machine does not know its address outside: deny that with a rule.
policy = ["deny *:25", "allow *:*"]
# "system", or the address of a DNS server.
resolver = "system"
# Tunnels at a time; beyond that the one that has been idle longest makes room.
max_tunnels = 256
# Names with fixed addresses, asked before the resolver.
[serve.hosts]
# "intranet.example" = ["192.0.2.10"]
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_explains_every_key() {
        // Field names of the configuration, as `Debug` writes them.
        let debug = format!("{:?}", Config::default());
        let names = debug.split([' ', '{', ',']).filter_map(|word| word.strip_suffix(':'));
        let names: Vec<&str> = names.filter(|name| name.starts_with(char::is_lowercase)).collect();
        assert!(names.contains(&"key_period_s") && names.contains(&"max_tunnels"), "{names:?}");
        // Where a configuration was read stands in none.
        for name in names.into_iter().filter(|name| *name != "source") {
            let lines = || TEMPLATE.lines().map(|line| line.trim_start_matches("# "));
            let has = |line: &str| {
                let line = line.trim_start_matches('[').trim_start_matches("serve.");
                let rest = line.strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with(" =") || rest.starts_with(']'))
            };
            assert!(lines().any(has), "{name} is not explained");
        }
    }

    #[test]
    fn the_template_says_what_the_defaults_are() {
        let (config, warnings) =
            shoal_host::config::parse::<Config>(TEMPLATE, "template", &[]).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }
    #[test]
    fn listeners_beyond_loopback_are_refused() {
        for (key, value) in [
            ("socks.listen", "0.0.0.0:1080"),
            ("admin.listen", "[::]:9100"),
            ("page.listen", "192.0.2.1:7460"),
        ] {
            let over = [
                format!("{key}={value}"),
                "gateways=[{identity=\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",address=\"127.0.0.1:1\"}]".into(),
            ];
            let (config, _) = shoal_host::config::parse::<Config>(TEMPLATE, "t", &over).unwrap();
            let refused = config.check(Path::new("t")).unwrap_err().to_string();
            assert!(refused.contains(key) && refused.contains("loopback"), "{refused}");
        }
    }
    #[test]
    fn the_page_has_a_port_of_its_own() {
        let gateway = "gateways=[{identity=\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",address=\"127.0.0.1:1\"}]";
        for (value, says) in [
            ("127.0.0.1:1080", Some("SOCKS")),
            ("127.0.0.1:9180", Some("admin page")),
            ("localhost:7460", Some("an address and a port")),
            ("[::1]:7460", None),
            ("127.0.0.1:0", None),
            ("", None),
        ] {
            let over = [
                format!("page.listen={value}"),
                "admin.listen=127.0.0.1:9180".into(),
                gateway.into(),
            ];
            let (config, _) = shoal_host::config::parse::<Config>(TEMPLATE, "t", &over).unwrap();
            let checked = config.check(Path::new("t")).map_err(|error| error.to_string());
            match says {
                None => assert_eq!(checked, Ok(()), "{value}"),
                Some(says) => {
                    let refused = checked.unwrap_err();
                    assert!(refused.contains("page.listen") && refused.contains(says), "{refused}");
                }
            }
        }
    }
    #[test]
    fn one_gateway_twice_and_a_port_of_none_are_refused() {
        let gateway =
            |port| format!("{{identity=\"{}\",address=\"127.0.0.1:{port}\"}}", "a".repeat(52));
        let parse = |gateways: String| {
            let over = [format!("gateways=[{gateways}]")];
            shoal_host::config::parse::<Config>(TEMPLATE, "t", &over)
        };
        let (twice, _) = parse([gateway(1), gateway(2)].join(",")).unwrap();
        let refused = twice.check(Path::new("t")).unwrap_err().to_string();
        assert!(refused.contains("no spare"), "{refused}");
        let refused = parse(gateway(0)).unwrap_err().to_string();
        assert!(refused.contains("no address with a port"), "{refused}");
    }
}
