//! The organisation of a localnet's people. Its directory is made here, with all of them in it, so that nobody waits for an admin; from
//! then on its admin works on it, by `shoal-org`.

use anyhow::{Context as _, bail};
use shoal_client::daemon as client;
use shoal_host::secret;
use shoal_node::daemon::{AuthorityConfig, OrganisationConfig};
use shoal_organisation::{Admin, Device, Directory, Entry, Person, PersonFlags, Policy, Role};
use shoal_topology::{DirectoryHead, Identity, SecretIdentity, Signed};

use super::{Daemon, Path};

/// What the organisation is called.
const NAME: &str = "localnet";
/// Who is its admin.
pub(crate) const OWNER: &str = "Olga Owner";
/// Where the admin's files are, in the directory of the localnet.
pub(crate) const FILES: &str = "organisation";
/// What the people are called, in the order of the clients.
const NAMES: [&str; 8] = ["Alice", "Bob", "Carol", "Dave", "Erin", "Frank", "Grace", "Heidi"];

/// The name of the person whose client has this number, counted from 0.
pub(super) fn name(n: usize) -> String {
    NAMES.get(n).map_or_else(|| format!("Person {}", n + 1), |name| (*name).to_owned())
}

/// The organisation, before anything runs.
pub(super) struct Organisation {
    head: Signed<DirectoryHead>,
}

impl Organisation {
    /// The organisation of the owners of these clients, each of them a member: the one whose files lie there, or a new one. The files are
    /// those of its admin, as `shoal-org` has them.
    pub(super) fn found(dir: &Path, clients: &[Daemon]) -> anyhow::Result<Self> {
        let files = dir.join(FILES);
        secret::private_directory(&files)?;
        secret::private_directory(&files.join("keys"))?;
        let key = |name: &str| {
            let seed = secret::read_or_create(&files.join("keys").join(name))?;
            anyhow::Ok(SecretIdentity::from_bytes(&seed))
        };
        let (own, admin) = (key("organisation.key")?, key("admin-1.key")?);
        let path = files.join("directory");
        let what = || format!("the organisation's directory, {}", path.display());
        let directory = match std::fs::read(&path) {
            Ok(bytes) => Directory::decode(&bytes).with_context(what)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let directory = directory(&own, &admin, clients).with_context(what)?;
                let network = std::path::absolute(dir.join("network.toml"))?;
                let about = format!("key = \"{}\"\nnetwork = {network:?}\n", own.identity());
                secret::replace(&files.join("organisation.toml"), about.as_bytes())?;
                secret::replace(&path, &directory.encode())?;
                directory
            }
            Err(error) => return Err(error).with_context(what),
        };
        if directory.organisation() != own.identity() {
            bail!("{}, is another organisation's than the key beside it", what());
        }
        for (n, daemon) in clients.iter().enumerate() {
            let (config, _) = client::config::read(&daemon.config, &[])?;
            // Who is a member, or was removed, knows it.
            if config.data_dir.join("organisation").exists() {
                continue;
            }
            if directory.device_of_key(&client::identity(&config)?.0).is_none() {
                let name = name(n);
                bail!(
                    "{}, does not have {name}: start with as many people as before, or in a new directory",
                    what()
                );
            }
            client::enrol(&config, &directory)?;
        }
        Ok(Self { head: directory.head(&own, None, 0) })
    }

    /// What stands in documents.
    pub(super) fn head(&self) -> Signed<DirectoryHead> {
        self.head.clone()
    }

    /// Has an authority list it.
    pub(super) fn list(&self, config: &mut AuthorityConfig) {
        let key: Identity = self.head.body().identity;
        config.organisation = vec![OrganisationConfig { name: NAME.into(), key }];
    }
}

/// A directory with an owner, and with the owners of these clients.
fn directory(
    own: &SecretIdentity,
    admin: &SecretIdentity,
    clients: &[Daemon],
) -> anyhow::Result<Directory> {
    let (name_of_admin, role) = (OWNER.into(), Some(Role::Owner));
    let mut entries = vec![
        Entry::Founded { name: NAME.into() },
        Entry::Admin(Admin { number: 1, name: name_of_admin, key: admin.identity(), role }),
        // Nothing is held back from new devices: all are.
        Entry::Policy(Policy { hold_s: 0, marked_hold_s: 0, ..Policy::default() }),
    ];
    for (n, daemon) in clients.iter().enumerate() {
        let (config, _) = client::config::read(&daemon.config, &[])?;
        let id = u32::try_from(n)?;
        let (unit, flags) = (String::new(), PersonFlags::default());
        entries.push(Entry::Person(Person { id, name: name(n), unit, flags }));
        let key = client::identity(&config)?.0;
        let gateways = config.gateways.iter().map(|gateway| gateway.identity).collect();
        let (name, vouched) = (daemon.name.clone(), None);
        entries.push(Entry::Device(Device { id, person: id, name, key, gateways, vouched }));
    }
    // At no time: whoever looks how new a device is finds that it is old.
    Ok(Directory::found(own, 0, entries)?)
}
