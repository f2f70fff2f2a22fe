//! The network file: what a user gets with the software. The name of a network, the keys of its authorities, the length
//! of its epochs.

use std::path::Path;

use serde::{Deserialize, Deserializer};
use shoal_topology::{Identity, Network};

use crate::config::{self, ConfigError};

#[derive(Deserialize)]
struct File {
    name: String,
    authorities: Vec<Key>,
    #[serde(default = "usual", deserialize_with = "length")]
    epoch_s: u32,
}

fn usual() -> u32 {
    Network::EPOCH_S
}

fn length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match i64::deserialize(deserializer)? {
        n @ 1..=86_400 => Ok(n as u32),
        _ => Err(serde::de::Error::custom("wants 1 to 86400 seconds")),
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

/// The text of a network file.
pub fn to_toml(network: &Network) -> String {
    let keys: Vec<String> =
        network.authorities.iter().map(|key| format!("    \"{key}\",\n")).collect();
    let name = toml::Value::from(network.name.clone());
    format!(
        "# A Shoal network: its name, and the keys of the authorities that sign its topology.\n\
         name = {name}\nauthorities = [\n{}]\n\n\
         # How long an epoch is, seconds: its nodes' keys last as long. Everybody must say the same.\n\
         epoch_s = {}\n",
        keys.concat(),
        network.epoch_s
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
        std::fs::write(&path, to_toml(&network)).unwrap();
        assert_eq!(load(&path).unwrap(), network);

        let without = to_toml(&network).replace("epoch_s = 10", "");
        std::fs::write(&path, &without).unwrap();
        assert_eq!(load(&path).unwrap().epoch_s, Network::EPOCH_S);
        std::fs::write(&path, format!("{without}epoch_s = 0\n")).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("1 to 86400"));

        std::fs::write(&path, "name = \"x\"\nauthorities = [\"short\"]\n").unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("network.toml:2") && error.contains("52 characters"), "{error}");
    }
}
