//! The network file: what a user gets with the software. The name of a network, the keys of its authorities, the length
//! of its epochs.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use shoal_topology::{Identity, Network};

use crate::authorities::AuthorityAddress;
use crate::config::{self, ConfigError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    authorities: Vec<AuthorityKey>,
    #[serde(default)]
    addresses: BTreeMap<String, Address>,
    #[serde(default = "usual", deserialize_with = "length")]
    epoch_s: u32,
    #[serde(default)]
    trial: bool,
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
struct AuthorityKey(Identity);

impl TryFrom<String> for AuthorityKey {
    type Error = shoal_topology::Error;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Address(SocketAddr);

impl TryFrom<String> for Address {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        config::parse_address(&text).map(Self)
    }
}

/// Reads a network file.
///
/// # Errors
/// As [`config::load`] and [`check`].
pub fn load(path: &Path) -> Result<Network, ConfigError> {
    let file: File = config::load(path, &[])?.config;
    let network = Network {
        name: file.name,
        authorities: file.authorities.into_iter().map(|k| k.0).collect(),
        epoch_s: file.epoch_s,
        trial: file.trial,
    };
    let location = path.display().to_string();
    let wrong = |message| ConfigError::Invalid { location, key: None, message };
    check(&network, &[]).map_err(wrong)?;
    Ok(network)
}

/// Checks what a network file says, and where its authorities listen.
///
/// # Errors
/// What is wrong, and what to do.
pub fn check(network: &Network, authority_addresses: &[AuthorityAddress]) -> Result<(), String> {
    if !(1..=64).contains(&network.name.len()) || !shoal_topology::is_plain(&network.name) {
        return Err("`name`: a network has a name of 1 to 64 bytes, on one line".into());
    }
    if network.authorities.is_empty() {
        return Err("`authorities`: a network has at least one authority".into());
    }
    let mut known = HashSet::new();
    for authority in &network.authorities {
        if !authority.is_key() {
            return Err(format!(
                "`authorities`: {authority} is no key: a character of it is not as its owner said"
            ));
        }
        if !known.insert(authority) {
            return Err(format!("`authorities`: {authority} stands there twice"));
        }
    }
    let mut addresses = HashSet::new();
    for AuthorityAddress { identity, address } in authority_addresses {
        if address.ip().is_unspecified() || address.port() == 0 {
            return Err(format!(
                "`addresses`: {address} is no address in particular; nodes have to reach the authority {identity} there"
            ));
        }
        if !addresses.insert(address) {
            return Err(format!("`addresses`: two authorities have the same address, {address}"));
        }
    }
    Ok(())
}

/// Where authorities listen, as a network file says; those whose address it does not give are left out.
///
/// # Errors
/// As [`load`].
pub fn authority_addresses(path: &Path) -> Result<Vec<AuthorityAddress>, ConfigError> {
    let network = load(path)?;
    let file: File = config::load(path, &[])?.config;
    let authority_address = |(key, Address(address)): (String, Address)| {
        let identity = key.parse().ok().filter(|identity| network.authorities.contains(identity));
        let identity = identity.ok_or_else(|| ConfigError::Invalid {
            location: path.display().to_string(),
            key: Some(format!("addresses.{key}")),
            message: "is none of the `authorities`".into(),
        })?;
        Ok(AuthorityAddress { identity, address })
    };
    let authority_addresses =
        file.addresses.into_iter().map(authority_address).collect::<Result<Vec<_>, _>>()?;
    let location = path.display().to_string();
    let wrong = |message| ConfigError::Invalid { location, key: None, message };
    check(&network, &authority_addresses).map_err(wrong)?;
    Ok(authority_addresses)
}

/// The text of a network file.
pub fn to_toml(network: &Network, authority_addresses: &[AuthorityAddress]) -> String {
    let keys: Vec<String> =
        network.authorities.iter().map(|key| format!("    \"{key}\",\n")).collect();
    let authority_addresses: Vec<String> = authority_addresses
        .iter()
        .map(|authority_address| {
            format!("{} = \"{}\"\n", authority_address.identity, authority_address.address)
        })
        .collect();
    let name = toml::Value::from(network.name.clone());
    format!(
        "# A Shoal network: its name, and the keys of the authorities that sign its topology.\n\
         name = {name}\nauthorities = [\n{}]\n\n\
         # How long an epoch is, seconds: its nodes' keys last as long. Everybody must say the same. None of what stands up to\n\
         # here and in the next line ever changes: `shoal-node network show` prints a fingerprint of it to compare.\n\
         epoch_s = {}\n\n\
         # Whether it is for trial: clients then serve people who are too few to hide each other, and say so.\n\
         trial = {}\n\n\
         # Where nodes reach the authorities. Clients do not: their gateways give them the topology.\n[addresses]\n{}",
        keys.concat(),
        network.epoch_s,
        network.trial,
        authority_addresses.concat()
    )
}

/// What to say while there is no document: when there may be one, at this second of Unix time.
pub fn no_document(network: &Network, unix_s: u64) -> String {
    format!(
        "there is no topology document yet: authorities make one for each epoch, and the next begins at {}",
        crate::logs::utc(network.next_epoch_begins(unix_s))
    )
}

#[cfg(test)]
mod tests {
    use shoal_topology::SecretIdentity;

    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let key = |n| SecretIdentity::from_bytes(&[n; 32]).identity();
        let authorities = vec![key(7)];
        let network = Network { name: "a \"b\"".into(), authorities, epoch_s: 10, trial: false };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("network.toml");
        let address = "127.0.0.1:9001".parse().unwrap();
        let authority_address = AuthorityAddress { identity: key(7), address };
        std::fs::write(&path, to_toml(&network, &[authority_address])).unwrap();
        assert_eq!(load(&path).unwrap(), network);
        assert_eq!(authority_addresses(&path).unwrap(), [authority_address]);
        let other = AuthorityAddress { identity: key(8), address };
        std::fs::write(&path, to_toml(&network, &[other])).unwrap();
        assert!(authority_addresses(&path).unwrap_err().to_string().contains("is none of the"));

        let trial = Network { trial: true, ..network.clone() };
        std::fs::write(&path, to_toml(&trial, &[])).unwrap();
        assert!(load(&path).unwrap().trial);

        let without =
            to_toml(&network, &[]).replace("epoch_s = 10", "").replace("trial = false", "");
        std::fs::write(&path, &without).unwrap();
        let usual = load(&path).unwrap();
        assert_eq!((usual.epoch_s, usual.trial), (Network::EPOCH_S, false));
        std::fs::write(&path, without.replace("[addresses]", "epoch_s = 0\n[addresses]")).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("1 to 31536000"));

        std::fs::write(&path, "name = \"x\"\nauthorities = [\"short\"]\n").unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("network.toml:2") && error.contains("52 characters"), "{error}");
        let says = |text: &str, words: &str| {
            std::fs::write(&path, text).unwrap();
            let error = authority_addresses(&path).unwrap_err().to_string();
            assert!(error.contains("network.toml") && error.contains(words), "{error}");
        };
        let sound = to_toml(&network, &[authority_address]);
        says(&sound.replace("epoch_s", "epoch"), "did you mean `epoch_s`?");
        says(&sound.replace("127.0.0.1:9001", "authority.example:9001"), "names are not looked up");
        says(&sound.replace("127.0.0.1", "0.0.0.0"), "no address in particular");
        let twice = Network { authorities: vec![key(7); 2], ..network.clone() };
        says(&to_toml(&twice, &[]), "stands there twice");
        let mistyped = Network { authorities: vec![Identity([0; 32])], ..network.clone() };
        says(&to_toml(&mistyped, &[]), "is no key");
        says(&to_toml(&Network { name: String::new(), ..network.clone() }, &[]), "`name`");
    }
}
