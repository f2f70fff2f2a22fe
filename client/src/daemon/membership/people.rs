//! What the directory says of people, for those who write to them.

use std::collections::BTreeMap;

use shoal_host::secret::SecretError;
use shoal_people::{Roster, RosterDevice};

use super::*;

/// What was last told of the directory.
#[derive(Clone, PartialEq, Default)]
pub(in crate::daemon) struct RosterMark {
    size: u64,
    head: u64,
    is_current: bool,
    /// The devices that are held back, and until when.
    held: Vec<(u32, u64)>,
}

/// A person, and what the devices that he has now sign with.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::daemon) struct PersonKeys {
    /// The number in the directory.
    pub(in crate::daemon) person: u32,
    /// In any order.
    pub(in crate::daemon) keys: Vec<Identity>,
}

impl Membership {
    /// The number of this device, and whom it may write to: if the directory has it, and this differs from what `mark` says was told.
    pub(in crate::daemon) fn roster(&self, mark: &mut RosterMark) -> Option<(u32, Roster)> {
        let document = self.document();
        let state = self.state();
        let state = state.as_ref()?;
        let (directory, own) = (&state.directory, state.device()?);
        let me = own.device.id;
        let head = document.as_ref().and_then(|document| document.head(&state.kept.organisation));
        // What every document has now, and nothing older: whoever is listed may have been removed since.
        let is_known = head.is_some_and(|head| state.agreed == Some((head.size, head.root)));
        let size = directory.size();
        let devices = directory.devices().filter(|device| !device.is_removed);
        let held_until = |device: u32| state.kept.held_until(device).unwrap_or_default();
        let device = |device: &MemberDevice| {
            let listed = RosterDevice {
                person: device.device.person,
                key: device.device.key,
                address: device.address()?,
                held_until: held_until(device.device.id),
            };
            Some((device.device.id, listed))
        };
        let devices: BTreeMap<u32, RosterDevice> = devices.filter_map(device).collect();
        let held = devices.iter().filter(|(_, device)| device.held_until > 0);
        let now = RosterMark {
            size,
            head: head.map_or(size, |head| head.size.max(size)),
            is_current: is_known && !own.is_removed,
            held: held.map(|(number, device)| (*number, device.held_until)).collect(),
        };
        if now == *mark {
            return None;
        }
        *mark = now.clone();
        let RosterMark { head, is_current, .. } = now;
        let removed = directory.devices().filter(|device| device.is_removed);
        let removed =
            removed.map(|MemberDevice { device, .. }| (device.id, (device.person, device.key)));
        let people = directory.people().filter(|member| !member.is_removed);
        let roster = Roster {
            organisation: state.kept.organisation,
            size,
            head,
            is_current,
            devices,
            removed: removed.collect(),
            people: people.map(|member| member.person.id).collect(),
        };
        Some((me, roster))
    }

    /// The key of this device.
    ///
    /// # Errors
    /// It cannot be read.
    pub(in crate::daemon) fn identity(&self) -> Result<SecretIdentity, SecretError> {
        let seed = secret::identity(&self.0.config.data_dir.join("identity.key"))?;
        Ok(SecretIdentity::from_bytes(&seed))
    }

    /// The only person whom a name means: his number, and his whole name.
    ///
    /// # Errors
    /// Nobody or several are meant.
    pub(in crate::daemon) fn person(&self, name: &str) -> Result<(u32, String), String> {
        let state = self.state();
        let state = member(state.as_ref())?;
        let found = state.directory.find(name);
        match found.as_slice() {
            [member] => Ok((member.person.id, member.person.name.clone())),
            [] => {
                // Nobody who is listed is called so: whoever is was removed.
                Err(match state.directory.find_ever(name).first() {
                    Some(gone) => {
                        format!("{} was removed from {}", gone.person.name, state.kept.name)
                    }
                    None => format!("nobody in the directory is called {name:?}"),
                })
            }
            several => {
                let names: Vec<&str> =
                    several.iter().map(|member| member.person.name.as_str()).collect();
                Err(format!("{name:?} can mean {}: say the whole name", names.join(" or ")))
            }
        }
    }

    /// Whom a name means, also one of those who were removed, and though this client is no member any more: for whoever reads what
    /// there is.
    ///
    /// # Errors
    /// Nobody or several are meant.
    pub(in crate::daemon) fn anybody(&self, name: &str) -> Result<(u32, String), String> {
        self.person(name).or_else(|error| {
            let state = self.state();
            let found = state.as_ref().map(|state| state.directory.find_ever(name));
            match found.as_deref() {
                Some([only]) => Ok((only.person.id, only.person.name.clone())),
                _ => Err(error),
            }
        })
    }

    /// Whether this client may write.
    ///
    /// # Errors
    /// It is no member, and why.
    pub(in crate::daemon) fn may_write(&self) -> Result<(), String> {
        member(self.state().as_ref()).map(|_| ())
    }

    /// What the directory calls a person; a number where it has none.
    pub(in crate::daemon) fn name_of(&self, person: u32) -> String {
        let state = self.state();
        let member = state.as_ref().and_then(|state| state.directory.person(person));
        member.map_or_else(|| format!("person {person}"), |member| member.person.name.clone())
    }

    /// Whose device this is.
    pub(in crate::daemon) fn person_of(&self, device: u32) -> Option<u32> {
        let state = self.state();
        Some(state.as_ref()?.directory.device(device)?.device.person)
    }

    /// True if this person is the owner of this client.
    pub(in crate::daemon) fn is_own(&self, person: u32) -> bool {
        let state = self.state();
        let own = state.as_ref().and_then(MembershipState::device);
        own.is_some_and(|device| device.device.person == person)
    }

    /// The organisation's key, and the keys of the devices of this client's owner and of another person.
    ///
    /// # Errors
    /// This client is no member, or the person is unknown or the owner himself.
    pub(in crate::daemon) fn keys_of(
        &self,
        person: u32,
    ) -> Result<(Identity, [PersonKeys; 2]), String> {
        let state = self.state();
        let state = member(state.as_ref())?;
        let own = state.device().map(|device| device.device.person);
        let own =
            own.filter(|own| *own != person).ok_or("this is you: compare with somebody else")?;
        let keys = |person: u32| {
            let member = state.directory.person(person)?;
            let devices = member.devices.iter().filter_map(|id| state.directory.device(*id));
            let present = devices.filter(|device| !device.is_removed);
            Some(PersonKeys { person, keys: present.map(|device| device.device.key).collect() })
        };
        let both = keys(own).zip(keys(person));
        let (own, other) =
            both.ok_or_else(|| format!("the directory has no person of the number {person}"))?;
        if other.keys.is_empty() {
            let name = state.directory.person(person).map(|member| member.person.name.as_str());
            return Err(format!(
                "{} has no device in {} any more: there is nothing to compare",
                name.unwrap_or_default(),
                state.kept.name
            ));
        }
        Ok((state.kept.organisation, [own, other]))
    }
}

/// The state of a member, or why this client is none.
fn member(state: Option<&MembershipState>) -> Result<&MembershipState, String> {
    let state = state.ok_or("this client belongs to no organisation: shoal-client join")?;
    let name = &state.kept.name;
    if state.was_removed() {
        return Err(format!(
            "this device was removed from {name}, and nobody writes to it any more"
        ));
    }
    let is_member = state.is_member().then_some(state);
    is_member
        .ok_or_else(|| format!("{name} has not let this client in yet: shoal-client organisation"))
}
