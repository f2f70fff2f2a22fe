//! What founds a network: the network file and the table of parameters, written and looked at.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use shoal_host::authorities::AuthorityAddress;
use shoal_host::network;
use shoal_topology::{Identity, Network, Parameters};

use super::NodeError;

/// Shortest and longest epoch of a new network, seconds. Epochs are shorter in networks for trial alone.
const EPOCHS_S: (u32, u32) = (60, 86_400);
/// Shortest epoch of a network for trial, seconds.
const TRIAL_EPOCH_S: u32 = 2;

/// A network file, for people and programs.
pub struct ShownNetwork {
    network: Network,
    authority_addresses: Vec<AuthorityAddress>,
}

/// Writes the network file of a new network, which must not be there.
///
/// # Errors
/// What is wrong with the network, or that the file cannot be written.
pub fn found(
    network: Network,
    authority_addresses: Vec<AuthorityAddress>,
    file: &Path,
) -> Result<ShownNetwork, NodeError> {
    let shortest = if network.trial { TRIAL_EPOCH_S } else { EPOCHS_S.0 };
    if !(shortest..=EPOCHS_S.1).contains(&network.epoch_s) {
        return Err(NodeError::Config(format!(
            "--epoch {}s: wants {shortest} seconds to a day; the usual 20m suits networks of all sizes{}",
            network.epoch_s,
            if network.trial {
                ""
            } else {
                ", and shorter epochs than a minute are for trial (--trial)"
            }
        )));
    }
    network::check(&network, &authority_addresses).map_err(NodeError::Config)?;
    let text = network::to_toml(&network, &authority_addresses);
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(file);
    made.and_then(|mut made| made.write_all(text.as_bytes())).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            NodeError::Exists(file.to_owned())
        } else {
            NodeError::Write(file.to_owned(), error)
        }
    })?;
    look(file)
}

/// Reads and checks a network file.
///
/// # Errors
/// What is wrong with it.
pub fn look(file: &Path) -> Result<ShownNetwork, NodeError> {
    Ok(ShownNetwork {
        network: network::load(file)?,
        authority_addresses: network::authority_addresses(file)?,
    })
}

impl ShownNetwork {
    /// Lines for a terminal.
    pub fn text(&self) -> String {
        let network = &self.network;
        let (n, needed) = (network.authorities.len(), network.threshold());
        let mut text = format!(
            "network {:?}{}\nfingerprint: {}\nepochs of {} s; of {n} authorities {needed} sign a document, and {} may lie\n",
            network.name,
            if network.trial { ", for trial: it hides nobody" } else { "" },
            network.fingerprint(),
            network.epoch_s,
            match network.liars() {
                0 => "none".into(),
                liars => liars.to_string(),
            },
        );
        for authority in &network.authorities {
            let at = self.address(authority).unwrap_or_else(|| "no address".into());
            text += &format!("authority {authority} at {at}\n");
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let network = &self.network;
        let authority = |authority: &Identity| json!({ "identity": authority.to_string(), "address": self.address(authority) });
        json!({
            "network": network.name,
            "trial": network.trial,
            "fingerprint": network.fingerprint(),
            "epoch_s": network.epoch_s,
            "signatures": network.threshold(),
            "liars": network.liars(),
            "authorities": network.authorities.iter().map(authority).collect::<Vec<_>>(),
        })
    }

    fn address(&self, authority: &Identity) -> Option<String> {
        let authority_address = self
            .authority_addresses
            .iter()
            .find(|authority_address| authority_address.identity == *authority)?;
        Some(authority_address.address.to_string())
    }

    /// What whoever founds it should know.
    pub fn warnings(&self) -> Vec<String> {
        super::authority::bears_no_liar(&self.network).into_iter().collect()
    }
}

/// Checks a file of parameters, and gives all of them, those that it leaves out too.
///
/// # Errors
/// What is wrong with it.
pub fn read_parameters(file: &Path) -> Result<Parameters, NodeError> {
    let parameters: Parameters = shoal_host::config::load(file, &[])?.config;
    let wrong = |error| NodeError::Config(format!("{}: {error}", file.display()));
    parameters.check().map_err(wrong)?;
    Ok(parameters)
}

/// A file of parameters, with a comment for every one.
pub fn parameters_toml(parameters: &Parameters) -> String {
    let Parameters {
        layers,
        min_mixes_per_layer,
        min_packets_per_s,
        distinct_jurisdictions,
        max_delay_us,
        clock_error_s,
        node_loops_per_s,
        draw_every,
        loop_late_us,
        warn_bits,
        refuse_bits,
        inbox_packets,
        inbox_expiry_s,
        classes,
        trial: _,
    } = parameters;
    let mut text = format!(
        r#"# Parameters of a Shoal network. All authorities have the same; a file need only have the lines that differ from these.
# To change them, `next_parameters` and `next_from_epoch` in the authorities' configuration.

# Layers of mixes, 1 to 3, and the least number of mixes in each. While nodes are missing a document may have fewer, at least
# one; clients have a least number of their own.
layers = {layers}
min_mixes_per_layer = {min_mixes_per_layer}

# Packets a second that a mix must declare to take (its `max_packets_per_s`).
min_packets_per_s = {min_packets_per_s}

# Whether mixes of a path must stand under different laws, as their operators say.
distinct_jurisdictions = {distinct_jurisdictions}

# The longest delay at a mix, microseconds; a packet that asks for more is dropped. And how far clocks may be apart, seconds.
max_delay_us = {max_delay_us}
clock_error_s = {clock_error_s}

# Loops that each node sends a second, and after how long, beyond what others take, one counts as late, microseconds.
node_loops_per_s = {node_loops_per_s:?}
loop_late_us = {loop_late_us}

# Epochs from one draw of the layers to the next.
draw_every = {draw_every}

# Bits of expected anonymity below which clients warn, and below which they send nothing of the user's.
warn_bits = {warn_bits:?}
refuse_bits = {refuse_bits:?}

# Packets that a gateway keeps for a client that is away, and for how long, seconds.
inbox_packets = {inbox_packets}
inbox_expiry_s = {inbox_expiry_s}
"#
    );
    text += "\n# Classes of clients: payload slots and loops a second, the share of empty payload slots that carry a loop, frames down\n\
             # a second, mean exponential and longest uniform delay in the mixes, and the share of all packets that is expected.\n";
    for class in classes {
        text += &format!(
            "\n[[classes]]\nname = {}\npayload_per_s = {:?}\nloops_per_s = {:?}\nloop_share = {:?}\ndown_per_s = {:?}\n\
             delay = {{ exponential_us = {}, uniform_us = {} }}\nweight = {:?}\n",
            toml::Value::from(class.name.clone()),
            class.payload_per_s,
            class.loops_per_s,
            class.loop_share,
            class.down_per_s,
            class.delay.exponential_us,
            class.delay.uniform_us,
            class.weight,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use shoal_topology::SecretIdentity;

    use super::*;

    fn network(n: u8) -> (Network, Vec<AuthorityAddress>) {
        let identity = |n| SecretIdentity::from_bytes(&[n; 32]).identity();
        let authority_address = |n: u8| AuthorityAddress {
            identity: identity(n),
            address: ([127, 0, 0, 1], 9_000 + u16::from(n)).into(),
        };
        let authorities = (1..=n).map(identity).collect();
        let network = Network { name: "a".into(), authorities, epoch_s: 1_200, trial: false };
        (network, (1..=n).map(authority_address).collect())
    }

    #[test]
    fn a_network_is_founded_once_and_shown_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("network.toml");
        let (network, authority_addresses) = network(4);
        let shown = found(network.clone(), authority_addresses.clone(), &file).unwrap();
        assert!(shown.text().contains(&network.fingerprint()), "{}", shown.text());
        assert!(shown.text().contains("of 4 authorities 3 sign a document, and 1 may lie"));
        assert!(shown.warnings().is_empty());
        assert_eq!(shown.json()["authorities"][3]["address"], "127.0.0.1:9004");
        assert!(matches!(found(network, authority_addresses, &file), Err(NodeError::Exists(_))));
    }

    #[test]
    fn a_network_that_cannot_work_is_not_founded() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |change: &dyn Fn(&mut Network, &mut Vec<AuthorityAddress>)| {
            let (mut network, mut authority_addresses) = network(4);
            change(&mut network, &mut authority_addresses);
            let file = dir.path().join("network.toml");
            let refused = found(network, authority_addresses, &file).err().unwrap().to_string();
            assert!(!file.exists());
            refused
        };
        type Change = &'static dyn Fn(&mut Network, &mut Vec<AuthorityAddress>);
        let changes: [(&str, Change); 8] = [
            ("for trial", &|n, _| n.epoch_s = 1),
            ("a day", &|n, _| n.epoch_s = 86_401),
            ("stands there twice", &|n, _| n.authorities[1] = n.authorities[0]),
            ("no key", &|n, _| n.authorities[2] = Identity([0; 32])),
            ("name", &|n, _| n.name.clear()),
            ("at least one", &|n, s| (n.authorities.clear(), s.clear()).0),
            ("the same address", &|_, s| s[1].address = s[0].address),
            ("no address in particular", &|_, s| s[1].address = "0.0.0.0:9001".parse().unwrap()),
        ];
        for (words, change) in changes {
            let said = refused(change);
            assert!(said.contains(words), "{said:?} does not say {words:?}");
        }
    }

    #[test]
    fn the_parameters_that_are_printed_explain_every_one_and_are_the_defaults() {
        let text = parameters_toml(&Parameters::default());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("parameters.toml");
        std::fs::write(&file, &text).unwrap();
        assert_eq!(read_parameters(&file).unwrap(), Parameters::default());
        let debug = format!("{:?}", Parameters::default());
        let names = debug.split([' ', '{', ',']).filter_map(|word| word.strip_suffix(':'));
        for name in names.filter(|name| *name != "trial" && *name != "classes") {
            assert!(text.contains(&format!("{name} = ")), "{name} is not there");
        }
        std::fs::write(&file, "layrs = 3\n").unwrap();
        let error = read_parameters(&file).unwrap_err().to_string();
        assert!(error.contains("did you mean `layers`?"), "{error}");
        std::fs::write(&file, "draw_every = 0\n").unwrap();
        let error = read_parameters(&file).unwrap_err().to_string();
        assert!(error.contains("parameters.toml: the table of parameters is invalid"), "{error}");
    }
}
