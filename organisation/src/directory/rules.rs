//! What an entry may say after those before it, and who must have signed it.

use shoal_topology::Identity;

use super::{DirectoryState, Member, MemberDevice};
use crate::{Admin, Batch, Device, Entry, Error, FOUNDER, MAX_DEVICES, Person, Removed, Role};

impl DirectoryState {
    /// Takes the entries of a batch that these roles signed for.
    pub(super) fn apply(
        &mut self,
        organisation: &Identity,
        batch: &Batch,
        signers: &[Role],
    ) -> Result<(), Error> {
        // By the policy before it: else a batch could begin with one that lets the rest pass.
        let approvals = if batch.number == 0 { 1 } else { usize::from(self.policy.approvals) };
        for (number, entry) in (batch.number..).zip(&batch.entries) {
            let needed = if entry.empowers() { approvals } else { 1 };
            let found = signers.iter().filter(|role| entry.is_for(**role)).count();
            if found < needed {
                return Err(Error::Approvals { number, needed, found });
            }
            let stands = entry.check().and_then(|()| self.enter(organisation, number, entry));
            stands.map_err(|why| Error::Entry { number, why: why.into() })?;
        }
        // Else nobody could ever sign the next one.
        let approvals = usize::from(self.policy.approvals);
        let owners = self.admins.values().filter(|admin| admin.role == Some(Role::Owner)).count();
        if owners < approvals.max(1) {
            let number = batch.number + batch.entries.len() as u64 - 1;
            let why =
                format!("{owners} owners are left, and {approvals} must sign what comes next");
            return Err(Error::Entry { number, why });
        }
        Ok(())
    }

    fn enter(
        &mut self,
        organisation: &Identity,
        number: u64,
        entry: &Entry,
    ) -> Result<(), &'static str> {
        match entry {
            Entry::Founded { name } if number == 0 => self.name.clone_from(name),
            Entry::Founded { .. } => return Err("an organisation is founded once"),
            _ if number == 0 => {
                return Err("a directory begins with the founding of its organisation");
            }
            Entry::Admin(admin) => self.enter_admin(organisation, admin)?,
            Entry::Person(person) => self.enter_person(number, person)?,
            Entry::Device(device) => self.enter_device(organisation, number, device)?,
            Entry::Remove(removed) => self.remove(*removed)?,
            Entry::Policy(policy) => self.policy = *policy,
            Entry::Announce { .. } => {}
        }
        Ok(())
    }

    fn enter_admin(&mut self, organisation: &Identity, admin: &Admin) -> Result<(), &'static str> {
        let next = self.admins.keys().next_back().map_or(FOUNDER, |last| *last).saturating_add(1);
        match self.admins.get(&admin.number) {
            // Who signed what stays to be seen for ever, so a number keeps its key.
            Some(known) if known.key != admin.key => {
                return Err("an admin keeps his key: list a new one");
            }
            Some(_) => {}
            None if admin.number != next => return Err("a new admin takes the next number"),
            None if admin.key == *organisation => {
                return Err(
                    "the organisation's key is no admin's: it signs heads, perhaps on a machine that is online",
                );
            }
            None if self.admins.values().any(|known| known.key == admin.key) => {
                return Err("two admins have one key");
            }
            None => {}
        }
        self.admins.insert(admin.number, admin.clone());
        Ok(())
    }

    fn enter_person(&mut self, number: u64, person: &Person) -> Result<(), &'static str> {
        let next = self.people.len();
        match self.people.get_mut(person.id as usize) {
            Some(known) if known.is_removed => Err("this person was removed: list a new one"),
            Some(known) => {
                known.person = person.clone();
                Ok(())
            }
            None if person.id as usize != next => Err("a new person takes the next number"),
            None => {
                let (person, devices) = (person.clone(), Vec::new());
                self.people.push(Member { person, since: number, is_removed: false, devices });
                Ok(())
            }
        }
    }

    fn enter_device(
        &mut self,
        organisation: &Identity,
        number: u64,
        device: &Device,
    ) -> Result<(), &'static str> {
        let known = self.devices.get(device.id as usize);
        let said_before = known.is_some_and(|known| known.device.vouched == device.vouched);
        // What was said before stays said, also when the older device is gone.
        if let Some(vouch) = device.vouched.as_ref().filter(|_| !said_before) {
            let by = self.devices.get(vouch.device as usize).filter(|by| !by.is_removed);
            let own = by.filter(|by| by.device.person == device.person && by.device.id < device.id);
            if !own.is_some_and(|by| vouch.holds(&by.device.key, organisation, device)) {
                return Err("the word of an older device does not hold");
            }
        }
        let next = self.devices.len();
        if let Some(known) = self.devices.get_mut(device.id as usize) {
            if known.is_removed {
                return Err("this device was removed: list a new one, with a new key");
            }
            if (known.device.key, known.device.person) != (device.key, device.person) {
                return Err("a device keeps its key and its owner: list a new one");
            }
            known.device = device.clone();
            return Ok(());
        }
        if device.id as usize != next {
            return Err("a new device takes the next number");
        }
        // Else a rogue admin could list somebody's key under another name.
        if self.keys.contains_key(&device.key) {
            return Err(
                "the key of this device is that of another one, or of one that was removed",
            );
        }
        let owner = self.people.get_mut(device.person as usize).filter(|owner| !owner.is_removed);
        let Some(owner) = owner else { return Err("nobody has this number") };
        if owner.devices.len() >= MAX_DEVICES {
            return Err("a person has at most 5 devices: remove one first");
        }
        owner.devices.push(device.id);
        self.keys.insert(device.key, device.id);
        self.devices.push(MemberDevice {
            device: device.clone(),
            since: number,
            is_removed: false,
        });
        Ok(())
    }

    fn remove(&mut self, removed: Removed) -> Result<(), &'static str> {
        let gone = match removed {
            Removed::Person(id) => {
                let member = self.people.get_mut(id as usize).filter(|member| !member.is_removed);
                let Some(member) = member else { return Err("nobody has this number") };
                member.is_removed = true;
                std::mem::take(&mut member.devices)
            }
            Removed::Device(id) => vec![id],
        };
        for id in gone {
            let device = self.devices.get_mut(id as usize).filter(|device| !device.is_removed);
            let Some(device) = device else { return Err("no device has this number") };
            device.is_removed = true;
            if let Some(owner) = self.people.get_mut(device.device.person as usize) {
                owner.devices.retain(|own| *own != id);
            }
        }
        Ok(())
    }
}
