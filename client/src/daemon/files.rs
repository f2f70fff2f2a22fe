//! What a client keeps on disk: its keys, mode 0600, and its descriptor for whoever signs the topology.

use std::path::Path;

use shoal_daemon::config::ConfigError;
use shoal_daemon::secret::{self, SecretError};
use shoal_topology::{ClientDescriptor, Identity, SecretIdentity, Seed, Signed};

use super::Config;
use super::clock::unix_s;
use super::config::TEMPLATE;
use super::periods::Periods;

/// How long a descriptor is valid that goes into topology documents: its key is kept as long as they list it.
const LISTED_S: u64 = 30 * 86_400;

/// The keys of a client.
pub(super) struct Keys {
    /// Seed of its long-lived identity.
    pub(super) identity: secret::Secret,
    /// Owns its inbox.
    pub(super) inbox: SecretIdentity,
    /// Open its packets, one in each period.
    pub(super) periods: Periods,
}

impl Keys {
    /// Reads them; makes those that are missing.
    pub(super) fn open(config: &Config) -> Result<Self, SecretError> {
        secret::private_directory(&config.data_dir)?;
        let open = |name: &str| secret::read_or_create(&config.data_dir.join(name));
        Ok(Self {
            identity: open("identity.key")?,
            inbox: SecretIdentity::from_bytes(&*open("inbox.key")?),
            periods: Periods::open(&config.data_dir, config.key_period_s, unix_s())?,
        })
    }

    /// The descriptor of the present period, for the gateways. None if there is no key.
    pub(super) fn descriptor(&self, gateways: Vec<Identity>) -> Option<Signed<ClientDescriptor>> {
        let (begins, until, key) = self.periods.present(unix_s())?;
        let secret = SecretIdentity::from_bytes(&self.identity);
        let body = ClientDescriptor {
            identity: secret.identity(),
            key: *key.public().as_bytes(),
            inbox: self.inbox.identity(),
            gateways,
            // The period, not the second: a descriptor does not tell when a service started.
            not_before: begins,
            not_after: until,
        };
        Some(Signed::<ClientDescriptor>::new(body, &secret))
    }
}

/// A seed for this run, from the system.
pub(super) fn run_seed() -> std::io::Result<Seed> {
    Ok(Seed::new(*secret::fresh()?))
}

/// The longest token; what comes after is not read.
const TOKEN: u64 = 4_096;

/// What the configured token file holds, for the gateway; nothing if there is none.
pub(super) fn token(config: &Config) -> Result<Vec<u8>, super::Error> {
    let Some(path) = &config.token else { return Ok(Vec::new()) };
    match secret::read_private(path, TOKEN) {
        Ok(bytes) => Ok(bytes.trim_ascii().to_vec()),
        Err(error) => {
            let why = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            Err(super::Error::Value { key: "token", why })
        }
    }
}

/// The signed descriptor of a client with this configuration; its keys are made if they are missing.
///
/// # Errors
/// Keys that cannot be read.
pub fn descriptor(config: &Config) -> Result<Signed<ClientDescriptor>, SecretError> {
    let keys = Keys::open(config)?;
    let gateways = config.gateways.iter().map(|gateway| gateway.identity).collect();
    let secret = SecretIdentity::from_bytes(&keys.identity);
    let missing = || SecretError::Malformed(config.data_dir.join("keys"));
    let of_period = keys.descriptor(gateways).ok_or_else(missing)?;
    let body = of_period.body().clone();
    let not_after = body.not_after.max(body.not_before.saturating_add(LISTED_S));
    Ok(Signed::<ClientDescriptor>::new(ClientDescriptor { not_after, ..body }, &secret))
}

/// Makes a directory with a commented configuration and fresh keys. Nothing that exists is overwritten.
///
/// # Errors
/// When something cannot be written, or `client.toml` is there already.
pub fn init(dir: &Path) -> Result<(), super::Error> {
    secret::private_directory(dir)?;
    let path = dir.join("client.toml");
    if path.exists() {
        return Err(ConfigError::Invalid {
            place: path.display().to_string(),
            key: None,
            message: "exists already; remove it to start anew".into(),
        }
        .into());
    }
    let config = Config { data_dir: dir.join("data"), ..Config::default() };
    Keys::open(&config)?;
    secret::replace(&path, TEMPLATE.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_that_others_can_read_is_refused_as_a_key_is() {
        let dir = std::env::temp_dir().join(format!("shoal-token-{}", std::process::id()));
        secret::private_directory(&dir).unwrap();
        let path = dir.join("token");
        std::fs::write(&path, "sesame\n").unwrap();
        let config = Config { token: Some(path.clone()), ..Config::default() };
        let mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            token(&config)
        };
        assert_eq!(mode(0o600).unwrap(), b"sesame");
        let refused = mode(0o644).unwrap_err();
        let said = refused.to_string();
        assert!(said.starts_with("token: ") && said.contains("chmod 600 "), "{said}");
        assert!(refused.is_config());
        std::fs::remove_dir_all(dir).unwrap();
        assert!(token(&config).unwrap_err().to_string().contains("token"));
    }
}
