//! Who may do what, and what it changes.

use super::*;

/// True if it can be shown as a name: neither empty nor longer than that, without characters that control others.
fn is_name(name: &str) -> bool {
    let is_plain = |c: char| {
        !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    !name.trim().is_empty() && name.len() <= MAX_GROUP_NAME && name.chars().all(is_plain)
}

/// True if nobody stands twice.
fn is_set(people: &[u32]) -> bool {
    let mut sorted = people.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.len() == people.len()
}

impl GroupState {
    /// The state after the first entry, signed by a device of this person; none if it is no beginning.
    pub(crate) fn begin(entry: &GroupEntry, hash: &EntryHash, owner: u32) -> Option<Self> {
        let GroupAct::Create { name, people, .. } = &entry.act else { return None };
        let is_first = entry.number == 0 && entry.previous == [0; 32];
        if !is_first || !is_name(name) || people.len() >= MAX_GROUP {
            return None;
        }
        let all: Vec<u32> = std::iter::once(owner).chain(people.iter().copied()).collect();
        if !is_set(&all) {
            return None;
        }
        let role = |person| if person == owner { GroupRole::Owner } else { GroupRole::Member };
        let people = all.into_iter().map(|person| GroupPerson { person, role: role(person) });
        Some(Self {
            mark: GroupMark::new(beginning(hash), 0, hash),
            name: name.clone(),
            expires_s: 0,
            people: people.collect(),
            removed: BTreeMap::new(),
        })
    }

    /// A person of the group.
    pub fn person(&self, person: u32) -> Option<&GroupPerson> {
        self.people.iter().find(|one| one.person == person)
    }

    /// How much a person has to say here: of two, the one with the lower value. None if he does not belong to it.
    pub(crate) fn seniority(&self, person: u32) -> Option<(GroupRole, usize)> {
        let at = self.people.iter().position(|one| one.person == person)?;
        Some((self.people.get(at)?.role, at))
    }

    /// True if a person may act for the group: an owner, an admin; where none of these belongs to the organisation any more, the one
    /// who joined first of those who do.
    pub fn may_act(&self, person: u32, roster: &Roster) -> bool {
        let is_there = |one: &&GroupPerson| roster.people.contains(&one.person);
        let admins = || self.people.iter().filter(|one| one.role <= GroupRole::Admin);
        if admins().any(|one| one.person == person) {
            return true;
        }
        // That he is there himself is not asked: what he did stays valid when he leaves.
        let mut before = self.people.iter().take_while(|one| one.person != person);
        !admins().any(|one| is_there(&one)) && !before.any(|one| is_there(&one))
    }

    /// Whether a person may do this.
    ///
    /// # Errors
    /// He may not, or it would change nothing, and why.
    pub(crate) fn allows(
        &self,
        author: u32,
        act: &GroupAct,
        roster: &Roster,
    ) -> Result<(), NotAllowed> {
        let own = self.seniority(author).ok_or(NotAllowed::NoMember)?;
        let is_own = match act {
            GroupAct::Remove(people) => people.as_slice() == [author],
            other => *other == GroupAct::Affirm,
        };
        if is_own {
            return Ok(());
        }
        if !self.may_act(author, roster) {
            return Err(NotAllowed::NoAdmin);
        }
        // Who acts for want of an admin is above all.
        let is_heir = own.0 > GroupRole::Admin;
        let is_above = |person: u32| -> Result<bool, NotAllowed> {
            let their = self.seniority(person).ok_or(NotAllowed::NotThere(person))?;
            Ok(is_heir || own < their)
        };
        match act {
            GroupAct::Create { .. } => Err(NotAllowed::Malformed),
            GroupAct::Add(people) => {
                if let Some(there) = people.iter().find(|person| self.person(**person).is_some()) {
                    return Err(NotAllowed::There(*there));
                }
                if self.people.len() + people.len() > MAX_GROUP {
                    return Err(NotAllowed::Full);
                }
                if people.is_empty() || !is_set(people) {
                    Err(NotAllowed::Malformed)
                } else {
                    Ok(())
                }
            }
            GroupAct::Remove(people) => {
                if people.is_empty() || !is_set(people) {
                    return Err(NotAllowed::Malformed);
                }
                for person in people {
                    if !is_above(*person)? {
                        return Err(NotAllowed::Above(*person));
                    }
                }
                Ok(())
            }
            GroupAct::Appoint(person, role) => {
                let present = self.person(*person).ok_or(NotAllowed::NotThere(*person))?.role;
                if present == *role {
                    return Err(NotAllowed::Same);
                }
                let is_own = *person == author && present < *role;
                match is_own || (is_above(*person)? && (is_heir || own.0 <= *role)) {
                    true => Ok(()),
                    false => Err(NotAllowed::Above(*person)),
                }
            }
            GroupAct::Rename(name) if !is_name(name) => Err(NotAllowed::Name),
            GroupAct::Rename(name) if *name == self.name => Err(NotAllowed::Same),
            GroupAct::Expire(after) if *after == self.expires_s => Err(NotAllowed::Same),
            GroupAct::Rename(_) | GroupAct::Expire(_) | GroupAct::Affirm => Ok(()),
        }
    }

    /// The state after an entry that is allowed.
    pub(crate) fn after(&self, entry: &GroupEntry, hash: &EntryHash) -> Self {
        let mut state = self.clone();
        state.mark = GroupMark::new(self.mark.group, entry.number, hash);
        match &entry.act {
            GroupAct::Create { .. } | GroupAct::Affirm => {}
            GroupAct::Add(people) => {
                let role = GroupRole::Member;
                state
                    .people
                    .extend(people.iter().map(|person| GroupPerson { person: *person, role }));
                people.iter().for_each(|person| _ = state.removed.remove(person));
            }
            GroupAct::Remove(people) => {
                state.people.retain(|one| !people.contains(&one.person));
                state.removed.extend(people.iter().map(|person| (*person, entry.at)));
            }
            GroupAct::Appoint(person, role) => {
                let of = state.people.iter_mut().find(|one| one.person == *person);
                of.into_iter().for_each(|one| one.role = *role);
            }
            GroupAct::Rename(name) => state.name.clone_from(name),
            GroupAct::Expire(after) => state.expires_s = *after,
        }
        state
    }

    /// What is left of an act that somebody did elsewhere, where part of it is done here already; none if all of it is.
    pub(crate) fn rest_of(&self, act: &GroupAct) -> Option<GroupAct> {
        let is_there = |person: &&u32| self.person(**person).is_some();
        let rest = match act {
            GroupAct::Create { .. } | GroupAct::Affirm => return None,
            GroupAct::Add(people) => {
                GroupAct::Add(people.iter().filter(|person| !is_there(person)).copied().collect())
            }
            GroupAct::Remove(people) => {
                GroupAct::Remove(people.iter().filter(is_there).copied().collect())
            }
            other => other.clone(),
        };
        let is_empty = match &rest {
            GroupAct::Add(people) | GroupAct::Remove(people) => people.is_empty(),
            _ => false,
        };
        (!is_empty).then_some(rest)
    }
}
