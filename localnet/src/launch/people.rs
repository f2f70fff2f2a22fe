//! The organisation of a localnet's people. Its directory is made here, with all of them in it, so that nobody waits for an admin.

use anyhow::Context as _;
use shoal_client::daemon as client;
use shoal_host::secret;
use shoal_node::daemon::{AuthorityConfig, OrganisationConfig};
use shoal_organisation::{Admin, Device, Directory, Entry, Person, PersonFlags, Policy, Role};
use shoal_topology::{DirectoryHead, Identity, SecretIdentity, Signed};

use super::{Daemon, Path};

/// What the organisation is called.
const NAME: &str = "localnet";
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
    /// Makes the directory with the owners of these clients in it, and makes each client a member.
    pub(super) fn found(dir: &Path, clients: &[Daemon]) -> anyhow::Result<Self> {
        // Kept, so that a directory that is used again has the same organisation, whose messages are there.
        let key = |name: &str| secret::read_or_create(&dir.join(name));
        let (own, admin) = (key("organisation.key")?, key("admin.key")?);
        let (own, admin) = (SecretIdentity::from_bytes(&own), SecretIdentity::from_bytes(&admin));
        let (name_of_admin, role) = ("Olga Owner".into(), Some(Role::Owner));
        let mut entries = vec![
            Entry::Founded { name: NAME.into() },
            Entry::Admin(Admin { number: 1, name: name_of_admin, key: admin.identity(), role }),
            // Nothing is held back from new devices: all are.
            Entry::Policy(Policy { hold_s: 0, marked_hold_s: 0, ..Policy::default() }),
        ];
        let mut members = Vec::new();
        for (n, daemon) in clients.iter().enumerate() {
            let (config, _) = client::config::read(&daemon.config, &[])?;
            let id = u32::try_from(n)?;
            let (unit, flags) = (String::new(), PersonFlags::default());
            entries.push(Entry::Person(Person { id, name: name(n), unit, flags }));
            let key = client::identity(&config)?.0;
            let gateways = config.gateways.iter().map(|gateway| gateway.identity).collect();
            let name = daemon.name.clone();
            entries.push(Entry::Device(Device {
                id,
                person: id,
                name,
                key,
                gateways,
                vouched: None,
            }));
            members.push(config);
        }
        // At no time: whoever looks how new a device is finds that it is old.
        let directory =
            Directory::found(&own, 0, entries).context("the organisation's directory")?;
        for config in &members {
            client::enrol(config, &directory)?;
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
