//! A node's keys and its descriptor.

use shoal_daemon::secret::{self, Secret};
use shoal_sphinx::SecretKey;
use shoal_topology::{Epoch, EpochKey, NodeDescriptor, SecretIdentity, Signed};

use super::topology::unix_s;

use super::{Config, Error};

/// What a node needs before it can run: directories, keys, and the descriptor for whoever signs the topology.
pub struct Prepared {
    /// What the authorities list. Its canonical bytes are in [`Config::descriptor_file`] too.
    pub descriptor: Signed<NodeDescriptor>,
    pub(super) identity_seed: Secret,
    pub(super) mix_key: SecretKey,
    pub(super) inbox_key: Secret,
}

/// Makes what is missing: directories (0700), identity, mix key, descriptor (0600). What is there is kept, so
/// that a node that was killed comes back with the same keys.
///
/// # Errors
/// When files are open to others, belong to others or cannot be written, or no address can be advertised.
pub fn prepare(config: &Config) -> Result<Prepared, Error> {
    let addresses = config.advertised().map_err(Error::Config)?;
    let runtime = config.runtime_dir();
    secret::private_directory(&config.data_dir)?;
    secret::private_directory(&runtime)?;
    let identity_seed = secret::read_or_create(&config.data_dir.join("identity.key"))?;
    let mix_key = SecretKey::from_bytes(*secret::read_or_create(&runtime.join("mix.key"))?);
    let inbox_key = secret::read_or_create(&runtime.join("inbox.key"))?;

    let identity = SecretIdentity::from_bytes(&identity_seed);
    let body = NodeDescriptor {
        identity: identity.identity(),
        role: config.role.role().ok_or_else(|| Error::Config("an authority is no node".into()))?,
        addresses,
        operator: config.operator.clone(),
        jurisdiction: config.jurisdiction.clone(),
        // One key for all epochs, until keys rotate.
        keys: vec![EpochKey {
            first: Epoch(0),
            last: Epoch(u64::MAX),
            key: *mix_key.public().as_bytes(),
        }],
        signed_at: unix_s(),
    };
    let descriptor = Signed::<NodeDescriptor>::new(body, &identity);
    descriptor.verify().map_err(|error| Error::Config(error.to_string()))?;
    let (path, bytes) = (config.descriptor_file(), descriptor.encode());
    if std::fs::read(&path).ok().as_ref() != Some(&bytes) {
        secret::replace(&path, &bytes)?;
    }
    Ok(Prepared { descriptor, identity_seed, mix_key, inbox_key })
}
