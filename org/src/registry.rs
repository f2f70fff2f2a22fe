//! The files of an organisation: keys, directory, invitations, batches that wait for signatures.

mod accounts;
mod requests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_host::secret::{self, Lock};
use shoal_organisation::{
    Admin, Device, Directory, Draft, Entry, Error, Policy, Role, SignedBatch,
};
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::{DirectoryHead, Identity, SecretIdentity, Signed};

use crate::OrgError;
use crate::accounts::{Account, end_sign_in, read_accounts, write_accounts};
use crate::files::{kept_request, read, read_directory, read_invitations, request_file, unix_s};
use crate::invitations::{InvitationRecord, Open};

/// How long it waits for another run on the same files.
const PATIENCE: Duration = Duration::from_secs(5);
/// How far a batch of another admin may be ahead of this machine's clock, seconds.
const MOST_AHEAD_S: u64 = 3_600;

/// The file `organisation.toml`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    /// The key of the organisation.
    key: String,
    /// The network file, with its whole path; empty: none.
    #[serde(default)]
    network: PathBuf,
    /// The address of the service that gives the directory to members; empty: none.
    #[serde(default)]
    service: String,
}

/// What became of entries.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered {
    /// They stand in the directory, by these numbers.
    Standing(Range<u64>),
    /// They lie in this file until another admin has signed them.
    Draft(PathBuf),
}

/// The directory of files that one admin works on, or several. It is locked as long as this is held.
pub struct Registry {
    dir: PathBuf,
    about: About,
    directory: Directory,
    open: Vec<Open>,
    accounts: Vec<Account>,
    _held: Option<Lock>,
}

impl Registry {
    /// Founds an organisation: makes its key, the key of its first owner, and the directory.
    ///
    /// # Errors
    /// The files are there already or cannot be written, or a name cannot be used.
    pub fn init(
        dir: &Path,
        name: &str,
        owner: &str,
        network: Option<&Path>,
    ) -> Result<Self, OrgError> {
        let about = dir.join("organisation.toml");
        if about.exists() {
            return Err(OrgError::Refused(format!(
                "{} is there already: an organisation is founded once; choose another directory",
                about.display()
            )));
        }
        let network = match network {
            Some(path) => {
                shoal_host::network::load(path)?;
                std::path::absolute(path)
                    .map_err(|source| OrgError::File { path: path.into(), source })?
            }
            None => PathBuf::new(),
        };
        // What cannot be used is refused before a key is made.
        let probe = |key: Identity| {
            let role = Some(Role::Owner);
            let owner = Admin { number: 1, name: owner.into(), key, role };
            vec![Entry::Founded { name: name.into() }, Entry::Admin(owner)]
        };
        let [one, other] = [[1; 32], [2; 32]].map(|seed| SecretIdentity::from_bytes(&seed));
        Directory::found(&one, 0, probe(other.identity()))?;
        secret::private_directory(dir)?;
        secret::private_directory(&dir.join("keys"))?;
        let key = |name: &str| -> Result<SecretIdentity, OrgError> {
            let seed = secret::read_or_create(&dir.join("keys").join(name))?;
            Ok(SecretIdentity::from_bytes(&seed))
        };
        let (organisation, admin) = (key("organisation.key")?, key("admin-1.key")?);
        let directory = Directory::found(&organisation, unix_s(), probe(admin.identity()))?;
        let key = organisation.identity().to_string();
        let about = About { key, network, service: String::new() };
        let registry = Self::fresh(dir, about, directory);
        registry.save()?;
        registry.save_about()?;
        Ok(registry)
    }

    /// Makes the files of another admin of an organisation, without a key: `shoal-org admin-key` makes that. What he may do an
    /// owner of the organisation says ([`Entry::Admin`]).
    ///
    /// # Errors
    /// The files are there already or cannot be written, or the directory is none.
    pub fn join(dir: &Path, directory: &Path, key: &str) -> Result<Self, OrgError> {
        let organisation: Identity = key.parse().map_err(shoal_organisation::Error::from)?;
        let directory = read_directory(directory, &organisation)?;
        if dir.join("organisation.toml").exists() {
            return Err(OrgError::Refused(format!(
                "{} has an organisation already",
                dir.display()
            )));
        }
        secret::private_directory(dir)?;
        secret::private_directory(&dir.join("keys"))?;
        let about = About { key: key.into(), network: PathBuf::new(), service: String::new() };
        let registry = Self::fresh(dir, about, directory);
        registry.save()?;
        registry.save_about()?;
        Ok(registry)
    }

    fn fresh(dir: &Path, about: About, directory: Directory) -> Self {
        let (open, accounts) = (Vec::new(), Vec::new());
        Self { dir: dir.into(), about, directory, open, accounts, _held: None }
    }

    /// Opens the files, and verifies the whole directory.
    ///
    /// # Errors
    /// They cannot be read, are damaged, or another run holds them.
    pub fn open(dir: &Path) -> Result<Self, OrgError> {
        let path = dir.join("organisation.toml");
        let text = read(&path).map_err(|error| match error {
            OrgError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                OrgError::Refused(format!(
                    "{} is not there: `shoal-org init` founds an organisation; --dir says where its files are",
                    path.display()
                ))
            }
            error => error,
        })?;
        let wrong = |path: &Path, why: String| OrgError::Contents { path: path.into(), why };
        let text = String::from_utf8(text).map_err(|error| wrong(&path, error.to_string()))?;
        let about: About =
            toml::from_str(&text).map_err(|error| wrong(&path, error.to_string()))?;
        let held = secret::lock(dir, PATIENCE)?;
        if held.is_none() {
            return Err(OrgError::Refused(format!(
                "another shoal-org works on {}: wait for it",
                dir.display()
            )));
        }
        let organisation: Identity = about
            .key
            .parse()
            .map_err(|error: shoal_topology::Error| wrong(&path, error.to_string()))?;
        let directory = read_directory(&dir.join("directory"), &organisation)?;
        let path = dir.join("invitations.json");
        let open = match path.exists() {
            false => Vec::new(),
            true => read_invitations(&path)?,
        };
        let accounts = read_accounts(dir)?;
        let mut registry = Self { dir: dir.into(), about, directory, open, accounts, _held: held };
        registry.read_requests()?;
        registry.read_sign_ins();
        Ok(registry)
    }

    /// Requests lie in files of their own, so that a service that takes them needs no key and no lock.
    fn read_requests(&mut self) -> Result<(), OrgError> {
        for open in &mut self.open {
            let path = request_file(&self.dir, &open.invitation.key);
            open.request = match std::fs::exists(&path) {
                // One that cannot be read is none: whoever takes requests must not be able to stop admins.
                Ok(true) => kept_request(&self.dir, &open.invitation.key),
                Ok(false) => None,
                Err(source) => return Err(OrgError::File { path, source }),
            };
        }
        Ok(())
    }

    fn save(&self) -> Result<(), OrgError> {
        secret::replace(&self.dir.join("directory"), &self.directory.encode())?;
        // Sign-ins have files of their own, beside their requests.
        let invited = self.open.iter().filter(|open| open.signed_in.is_none());
        let records: Vec<InvitationRecord> = invited.map(InvitationRecord::of).collect();
        let mut text = serde_json::to_vec_pretty(&records).unwrap_or_default();
        text.push(b'\n');
        secret::replace(&self.dir.join("invitations.json"), &text)?;
        write_accounts(&self.dir, &self.accounts)
    }

    fn save_about(&self) -> Result<(), OrgError> {
        let text = toml::to_string(&self.about).unwrap_or_default();
        secret::replace(&self.dir.join("organisation.toml"), text.as_bytes())?;
        Ok(())
    }

    /// The directory of people and devices.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The network file that `init` was given.
    pub fn network(&self) -> Option<&Path> {
        Some(self.about.network.as_path()).filter(|path| !path.as_os_str().is_empty())
    }

    /// Says where members get the directory; `None`: from no service.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_service(&mut self, service: Option<ServiceAddress>) -> Result<(), OrgError> {
        self.about.service = service.map(|service| service.to_string()).unwrap_or_default();
        self.save_about()
    }

    /// Where members get the directory.
    pub fn service(&self) -> Option<ServiceAddress> {
        self.about.service.parse().ok()
    }

    /// Keys of admins that lie here, by number. A file is `keys/admin-NUMBER.key`.
    fn admin_keys(&self) -> Result<BTreeMap<u16, SecretIdentity>, OrgError> {
        let mut keys = BTreeMap::new();
        for admin in self.directory.admins().filter(|admin| admin.role.is_some()) {
            let path = self.key_file(admin.number);
            match secret::read(&path) {
                Ok(seed) => {
                    let secret = SecretIdentity::from_bytes(&seed);
                    if secret.identity() != admin.key {
                        let why = format!(
                            "it is not the key that the directory has of admin {}",
                            admin.number
                        );
                        return Err(OrgError::Contents { path, why });
                    }
                    keys.insert(admin.number, secret);
                }
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(keys)
    }

    /// The file of an admin's key.
    pub fn key_file(&self, number: u16) -> PathBuf {
        self.dir.join("keys").join(format!("admin-{number}.key"))
    }

    /// The key to sign as this admin, or as the only one whose key lies here.
    fn signer(&self, admin: Option<u16>) -> Result<(u16, SecretIdentity), OrgError> {
        let mut keys = self.admin_keys()?;
        let refused = |why: String| Err(OrgError::Refused(why));
        let number = match (admin, keys.keys().copied().collect::<Vec<_>>().as_slice()) {
            (Some(number), _) => number,
            (None, [only]) => *only,
            (None, []) => {
                return refused(format!(
                    "no admin's key is in {}",
                    self.dir.join("keys").display()
                ));
            }
            (None, several) => {
                let several: Vec<String> = several.iter().map(ToString::to_string).collect();
                return refused(format!(
                    "keys of admins {} are here: --as says as whom to sign",
                    several.join(", ")
                ));
            }
        };
        match keys.remove(&number) {
            Some(secret) => Ok((number, secret)),
            None => refused(format!(
                "{} is not there, or is no admin's",
                self.key_file(number).display()
            )),
        }
    }

    /// Puts entries into the directory, signed by an admin whose key lies here; or into a draft, where another one has to
    /// sign too.
    ///
    /// # Errors
    /// An entry breaks a rule, or there is no key.
    pub fn enter(&mut self, entries: Vec<Entry>, admin: Option<u16>) -> Result<Entered, OrgError> {
        let (number, secret) = self.signer(admin)?;
        let mut draft = self.directory.draft(unix_s(), entries)?;
        draft.sign(number, &secret);
        self.take(&draft)
    }

    /// Adds the signature of an admin whose key lies here to a draft, and takes it if it is complete.
    ///
    /// # Errors
    /// The draft does not follow the directory, or there is no key.
    pub fn sign(&mut self, draft: SignedBatch, admin: Option<u16>) -> Result<Entered, OrgError> {
        let (number, secret) = self.signer(admin)?;
        let mut draft = Draft::of(self.directory.organisation(), draft);
        draft.sign(number, &secret);
        self.take(&draft)
    }

    /// Says whether a batch that others made could stand if enough admins sign it, by its date too.
    ///
    /// # Errors
    /// It does not follow the directory, breaks a rule, or is of the future.
    pub fn check(&self, signed: &SignedBatch) -> Result<(), OrgError> {
        self.date(signed)?;
        let draft = self.directory.draft(signed.batch.at, signed.batch.entries.clone())?;
        if draft.signed().batch != signed.batch {
            return Err(OrgError::Refused(
                "the draft does not follow the directory here: take the latest one first, or have the draft made anew".into(),
            ));
        }
        Ok(())
    }

    /// A date can never be taken back, and no later one may be before it.
    fn date(&self, signed: &SignedBatch) -> Result<(), OrgError> {
        let (at, now) = (signed.batch.at, unix_s());
        if at > now.saturating_add(MOST_AHEAD_S) {
            return Err(OrgError::Refused(format!(
                "the batch at entry {} is dated {} s from now: look at the clocks of this machine and of the admin who made it",
                signed.batch.number,
                at - now
            )));
        }
        Ok(())
    }

    /// Lets others work on the files: for what only reads from here on.
    pub fn unlock(&mut self) {
        self._held = None;
    }

    /// Takes a batch that others signed.
    ///
    /// # Errors
    /// It does not follow the directory, or cannot stand.
    pub fn take(&mut self, draft: &Draft) -> Result<Entered, OrgError> {
        let signed = draft.signed();
        self.date(signed)?;
        let path = self.draft_file(signed);
        match self.directory.extend(vec![signed.clone()]) {
            Ok(new) => {
                self.close(&new);
                self.save()?;
                if path.exists() {
                    std::fs::remove_file(&path)
                        .map_err(|source| OrgError::File { path, source })?;
                }
                Ok(Entered::Standing(new))
            }
            Err(Error::Approvals { needed, found, .. }) if found > 0 && needed > found => {
                secret::private_directory(&self.dir.join("drafts"))?;
                secret::replace(&path, &signed.encode())?;
                Ok(Entered::Draft(path))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Goes on as the directory file of another admin does, which must continue this one.
    ///
    /// # Errors
    /// It is none, or says something else of what is here.
    pub fn follow(&mut self, path: &Path) -> Result<Range<u64>, OrgError> {
        let other = read_directory(path, &self.directory.organisation())?;
        let own = self.directory.since(0).unwrap_or_default().len();
        let batches = other.since(0).unwrap_or_default();
        let more = batches.get(own..).unwrap_or_default().to_vec();
        if !batches.starts_with(self.directory.since(0).unwrap_or_default()) {
            let why =
                "it does not continue the directory here: one of both is older, or they parted";
            return Err(OrgError::Contents { path: path.into(), why: why.into() });
        }
        more.iter().try_for_each(|signed| self.date(signed))?;
        let new = self.directory.extend(more)?;
        self.close(&new);
        self.save()?;
        Ok(new)
    }

    fn draft_file(&self, signed: &SignedBatch) -> PathBuf {
        let hash = signed.batch.hash();
        let name = data_encoding::HEXLOWER
            .encode(hash.first_chunk::<4>().map_or(&[], |chunk| chunk.as_slice()));
        self.dir.join("drafts").join(format!("{}-{name}.draft", signed.batch.number))
    }

    /// Invitations whose device is in the directory now are over; whose account it is stays.
    fn close(&mut self, new: &Range<u64>) {
        let devices: Vec<Device> = self
            .directory
            .entries(new.clone())
            .filter_map(|listed| match listed.entry {
                Entry::Device(device) => Some(device.clone()),
                _ => None,
            })
            .collect();
        for device in devices {
            let is_of = |open: &&Open| {
                open.request.as_ref().is_some_and(|request| request.device() == device.key)
            };
            for open in self.open.iter().filter(is_of).cloned().collect::<Vec<_>>() {
                self.note_account(device.person, &open);
                self.end(&open.invitation.key);
            }
        }
    }

    /// Ends an invitation, with its request.
    fn end(&mut self, key: &Identity) {
        self.open.retain(|open| open.invitation.key != *key);
        // Without its invitation a request says nothing to anybody, should it stay.
        end_sign_in(&self.dir, key);
    }

    /// Reads a draft.
    ///
    /// # Errors
    /// The file cannot be read, or is none.
    pub fn read_draft(path: &Path) -> Result<SignedBatch, OrgError> {
        let wrong = |error: Error| OrgError::Contents { path: path.into(), why: error.to_string() };
        SignedBatch::decode(&read(path)?).map_err(wrong)
    }

    /// The only person whom a name means.
    ///
    /// # Errors
    /// Nobody, or several.
    pub fn person(&self, name: &str) -> Result<u32, OrgError> {
        match self.directory.find(name).as_slice() {
            [one] => Ok(one.person.id),
            [] => Err(OrgError::Refused(format!("nobody in the directory is called {name:?}"))),
            several => {
                let names: Vec<String> = several
                    .iter()
                    .map(|member| format!("{:?} ({})", member.person.name, member.person.id))
                    .collect();
                Err(OrgError::Refused(format!(
                    "{name:?} can mean {}: say the whole name, or --person NUMBER",
                    names.join(" or ")
                )))
            }
        }
    }

    /// The policy with some values changed.
    pub fn policy_with(&self, change: impl FnOnce(&mut Policy)) -> Entry {
        let mut policy = self.directory.policy();
        change(&mut policy);
        Entry::Policy(policy)
    }

    /// The head of the directory, signed now, and the key by which links to authorities are made.
    ///
    /// # Errors
    /// The organisation's key is not here.
    pub fn head(&self) -> Result<(Signed<DirectoryHead>, SecretIdentity), OrgError> {
        let secret = self.organisation_key()?;
        Ok((self.directory.head(&secret, self.service(), unix_s()), secret))
    }

    /// The seed of the organisation's key.
    pub(crate) fn organisation_seed(&self) -> Result<secret::Secret, OrgError> {
        Ok(secret::read(&self.dir.join("keys/organisation.key"))?)
    }

    fn organisation_key(&self) -> Result<SecretIdentity, OrgError> {
        let seed = self.organisation_seed()?;
        let secret = SecretIdentity::from_bytes(&seed);
        if secret.identity() != self.directory.organisation() {
            let path = self.dir.join("keys/organisation.key");
            return Err(OrgError::Contents {
                path,
                why: "it is not the key of this organisation".into(),
            });
        }
        Ok(secret)
    }
}
