//! The network file: what a user gets with the software. The name of a network, the keys of its authorities, the length
//! of its epochs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use shoal_topology::{Identity, Network};

use crate::config::{self, ConfigError};
use crate::council::Seat;

#[derive(Deserialize)]
struct File {
    name: String,
    authorities: Vec<Key>,
    #[serde(default)]
    addresses: BTreeMap<String, SocketAddr>,
    #[serde(default = "usual", deserialize_with = "length")]
    epoch_s: u32,
}

fn usual() -> u32 {
    Network::EPOCH_S
}

fn length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match i64::deserialize(deserializer)? {
        n @ 1..=31_536_000 => Ok(n as u32),
        _ => Err(serde::de::Error::custom("wants 1 to 31536000 seconds")),
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Key(Identity);

impl TryFrom<String> for Key {
    type Error = shoal_topology::Error;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

/// Reads a network file.
///
/// # Errors
/// As [`config::load`]; also when it names no authority.
pub fn load(path: &Path) -> Result<Network, ConfigError> {
    let file: File = config::load(path, &[])?.config;
    if file.authorities.is_empty() {
        return Err(ConfigError::Invalid {
            place: path.display().to_string(),
            key: Some("authorities".into()),
            message: "a network has at least one authority".into(),
        });
    }
    Ok(Network {
        name: file.name,
        authorities: file.authorities.into_iter().map(|k| k.0).collect(),
        epoch_s: file.epoch_s,
    })
}

/// Where authorities listen, as a network file says; those whose address it does not give are left out.
///
/// # Errors
/// As [`load`].
pub fn seats(path: &Path) -> Result<Vec<Seat>, ConfigError> {
    let network = load(path)?;
    let file: File = config::load(path, &[])?.config;
    let seat = |(key, address): (String, SocketAddr)| {
        let identity = key.parse().ok().filter(|identity| network.authorities.contains(identity));
        let identity = identity.ok_or_else(|| ConfigError::Invalid {
            place: path.display().to_string(),
            key: Some(format!("addresses.{key}")),
            message: "is none of the `authorities`".into(),
        })?;
        Ok(Seat { identity, address })
    };
    file.addresses.into_iter().map(seat).collect()
}

/// The text of a network file.
pub fn to_toml(network: &Network, seats: &[Seat]) -> String {
    let keys: Vec<String> =
        network.authorities.iter().map(|key| format!("    \"{key}\",\n")).collect();
    let seats: Vec<String> =
        seats.iter().map(|seat| format!("{} = \"{}\"\n", seat.identity, seat.address)).collect();
    let name = toml::Value::from(network.name.clone());
    format!(
        "# A Shoal network: its name, and the keys of the authorities that sign its topology.\n\
         name = {name}\nauthorities = [\n{}]\n\n\
         # How long an epoch is, seconds: its nodes' keys last as long. Everybody must say the same.\n\
         epoch_s = {}\n\n\
         # Where nodes reach the authorities. Clients do not: their gateways give them the topology.\n[addresses]\n{}",
        keys.concat(),
        network.epoch_s,
        seats.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let authorities = vec![Identity([7; 32])];
        let network = Network { name: "a \"b\"".into(), authorities, epoch_s: 10 };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("network.toml");
        let address = "127.0.0.1:9001".parse().unwrap();
        let seat = Seat { identity: Identity([7; 32]), address };
        std::fs::write(&path, to_toml(&network, &[seat])).unwrap();
        assert_eq!(load(&path).unwrap(), network);
        assert_eq!(seats(&path).unwrap(), [seat]);
        let other = Seat { identity: Identity([8; 32]), address };
        std::fs::write(&path, to_toml(&network, &[other])).unwrap();
        assert!(seats(&path).unwrap_err().to_string().contains("is none of the"));

        let without = to_toml(&network, &[]).replace("epoch_s = 10", "");
        std::fs::write(&path, &without).unwrap();
        assert_eq!(load(&path).unwrap().epoch_s, Network::EPOCH_S);
        std::fs::write(&path, without.replace("[addresses]", "epoch_s = 0\n[addresses]")).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("1 to 31536000"));

        std::fs::write(&path, "name = \"x\"\nauthorities = [\"short\"]\n").unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("network.toml:2") && error.contains("52 characters"), "{error}");
    }
}
