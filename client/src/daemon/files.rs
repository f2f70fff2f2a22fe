//! What a client keeps on disk: its keys, mode 0600, and its descriptor for whoever signs the topology.

use std::path::Path;
use std::sync::{Arc, Mutex};

use shoal_host::config::ConfigError;
use shoal_host::secret::{self, SecretError};
use shoal_people::Published;
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::{ClientDescriptor, Identity, SecretIdentity, Seed, Signed};

use super::Config;
use super::clock::unix_s;
use super::config::TEMPLATE;
use super::keyring::ClientKeyring;
use super::mail::Member;
use crate::key_life::Reached;

/// How long a descriptor is valid that goes into topology documents: its key is kept as long as they list it.
const LISTED_S: u64 = 30 * 86_400;

const IDENTITY: &str = "identity.key";
const INBOX: &str = "inbox.key";

/// The keys of a client.
pub(super) struct Keys {
    /// Seed of its long-lived identity.
    pub(super) identity: secret::Secret,
    /// The key that owns the client's inbox.
    pub(super) inbox: SecretIdentity,
    /// Open its packets, one in each period.
    pub(super) periods: ClientKeyring,
}

impl Keys {
    /// Reads them; makes those of periods that are missing. Those that are for long [`init`] alone makes.
    pub(super) fn open(config: &Config) -> Result<Self, SecretError> {
        let (identity, inbox) = lasting(config)?;
        secret::private_directory(&config.data_dir)?;
        let reached = if config.reachable { Reached::WhileAway } else { Reached::WhileHere };
        let lives = (config.key_period_s, reached);
        let periods = ClientKeyring::open(&config.data_dir, lives, unix_s())?;
        Ok(Self { identity, inbox, periods })
    }

    /// The descriptor of the present period, for the gateways. None if there is no key.
    /// Of a member of an organisation it says the number of the device, and how many entries of the directory it holds.
    pub(super) fn descriptor(
        &self,
        gateways: Vec<Identity>,
        member: Option<(u32, u64)>,
    ) -> Option<Signed<ClientDescriptor>> {
        let (begins, until, key) = self.periods.present(unix_s())?;
        let sessions = self.periods.sessions(unix_s()).into_iter().next();
        let sessions = sessions.filter(|keys| keys.begins() == begins);
        let published = member.zip(sessions).map(|((device, size), keys)| {
            Published { keys: keys.public().clone(), device, size }.encode()
        });
        let secret = SecretIdentity::from_bytes(&self.identity);
        let body = ClientDescriptor {
            identity: secret.identity(),
            key: *key.public().as_bytes(),
            inbox: self.inbox.identity(),
            gateways,
            // The period, not the second: a descriptor does not tell when a service started.
            not_before: begins,
            not_after: until,
            attached: published.unwrap_or_default(),
        };
        Some(Signed::<ClientDescriptor>::new(body, &secret))
    }
}

/// Makes the descriptor of the present period, for these gateways.
pub(super) fn descriptor_of(
    keys: Arc<Mutex<Keys>>,
    gateways: Vec<Identity>,
    member: Arc<Member>,
) -> impl Fn() -> Vec<u8> + Send + Sync {
    move || {
        let member = member.describe();
        let signed = keys.lock().ok().and_then(|keys| keys.descriptor(gateways.clone(), member));
        signed.map(|signed| signed.encode()).unwrap_or_default()
    }
}

/// The keys that are for long: of the identity, and of the inbox.
fn lasting(config: &Config) -> Result<(secret::Secret, SecretIdentity), SecretError> {
    let read = |name: &str| secret::identity(&config.data_dir.join(name));
    let (identity, inbox) = (read(IDENTITY)?, read(INBOX)?);
    Ok((identity, SecretIdentity::from_bytes(&inbox)))
}

/// Who a client with this configuration is, and where it is reached if it serves: an address for each of its gateways. Nothing
/// is made or changed.
///
/// # Errors
/// There is no identity, or it cannot be read.
pub fn identity(config: &Config) -> Result<(Identity, Vec<ServiceAddress>), SecretError> {
    let (identity, _) = lasting(config)?;
    let own = SecretIdentity::from_bytes(&identity).identity();
    Ok((own, addresses(&own, config)))
}

/// Where a service is reached, by each of its gateways.
pub(super) fn addresses(own: &Identity, config: &Config) -> Vec<ServiceAddress> {
    let gateways = config.gateways.iter();
    gateways.map(|of| ServiceAddress { identity: own.0, gateway: of.identity.0 }).collect()
}

/// A seed for this run, from the system.
pub(super) fn run_seed() -> std::io::Result<Seed> {
    Ok(Seed::new(*secret::fresh()?))
}

/// The longest token; what comes after is not read.
const TOKEN: u64 = 4_096;

/// What the configured token file holds, for the gateway; nothing if there is none.
pub(super) fn token(config: &Config) -> Result<Vec<u8>, super::ClientError> {
    let Some(path) = &config.token else { return Ok(Vec::new()) };
    match secret::read_private(path, TOKEN) {
        Ok(bytes) => Ok(bytes.trim_ascii().to_vec()),
        Err(error) => {
            let why = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            Err(super::ClientError::Value { key: "token", why })
        }
    }
}

/// The signed descriptor of a client with this configuration; its key of the present period is made if it is missing.
///
/// # Errors
/// There is no identity, or keys cannot be read or made.
pub fn descriptor(config: &Config) -> Result<Signed<ClientDescriptor>, SecretError> {
    let keys = Keys::open(config)?;
    let gateways = config.gateways.iter().map(|gateway| gateway.identity).collect();
    let secret = SecretIdentity::from_bytes(&keys.identity);
    let missing = || SecretError::Malformed(config.data_dir.join("keys"));
    let of_period = keys.descriptor(gateways, None).ok_or_else(missing)?;
    let body = of_period.body().clone();
    let not_after = body.not_after.max(body.not_before.saturating_add(LISTED_S));
    Ok(Signed::<ClientDescriptor>::new(ClientDescriptor { not_after, ..body }, &secret))
}

/// Makes a directory with a commented configuration and fresh keys, and says who the client is from now on. Nothing that
/// exists is overwritten.
///
/// # Errors
/// When something cannot be written, or `client.toml` is there already.
pub fn init(dir: &Path) -> Result<Identity, super::ClientError> {
    secret::private_directory(dir)?;
    let path = dir.join("client.toml");
    if path.exists() {
        return Err(ConfigError::Invalid {
            location: path.display().to_string(),
            key: None,
            message: "exists already; remove it to start anew".into(),
        }
        .into());
    }
    let config = Config { data_dir: dir.join("data"), ..Config::default() };
    make(&config)?;
    secret::replace(&path, TEMPLATE.as_bytes())?;
    Ok(identity(&config)?.0)
}

/// Makes the keys that are for long, if they are not there.
///
/// # Errors
/// They cannot be made.
pub fn make(config: &Config) -> Result<(), SecretError> {
    secret::private_directory(&config.data_dir)?;
    for name in [IDENTITY, INBOX] {
        secret::read_or_create(&config.data_dir.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_identity_is_made_by_init_alone_and_looking_writes_nothing() {
        let dir = std::env::temp_dir().join(format!("shoal-identity-{}", std::process::id()));
        let made = init(&dir).unwrap();
        let config = Config { data_dir: dir.join("data"), ..Config::default() };
        let listing = || {
            let mut names: Vec<_> = std::fs::read_dir(&config.data_dir)
                .unwrap()
                .map(|f| f.unwrap().file_name())
                .collect();
            names.sort();
            names
        };
        let before = listing();
        assert_eq!(identity(&config).unwrap().0, made);
        assert_eq!(listing(), before);
        assert_eq!(descriptor(&config).unwrap().body().identity, made);
        std::fs::remove_file(config.data_dir.join(IDENTITY)).unwrap();
        let left = listing();
        assert!(identity(&config).unwrap_err().to_string().contains("init"));
        assert!(Keys::open(&config).is_err() && descriptor(&config).is_err());
        assert_eq!(listing(), left, "nobody made another one");
        std::fs::remove_dir_all(dir).unwrap();
    }

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
        assert_eq!(refused.exit(), shoal_host::exit::Exit::Config);
        std::fs::remove_dir_all(dir).unwrap();
        assert!(token(&config).unwrap_err().to_string().contains("token"));
    }
}
