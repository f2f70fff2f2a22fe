//! What programs ask about groups.

use serde_json::{Value, json};
use shoal_people::{Conversation, GroupAct, GroupId, GroupRole, NotAllowed, NotSent};

use super::*;
use crate::daemon::mail::{GroupDeed, Whom};

/// The identifier of a group, as programs are told it.
pub(super) fn hex(group: &GroupId) -> String {
    group.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Says which conversation something is of.
pub(super) fn put_conversation(event: &mut Value, of: Conversation) {
    let Some(event) = event.as_object_mut() else { return };
    match of {
        Conversation::Person(person) => event.insert("person".into(), person.into()),
        Conversation::Group(group) => event.insert("group".into(), hex(&group).into()),
    };
}

fn role(role: GroupRole) -> &'static str {
    match role {
        GroupRole::Owner => "owner",
        GroupRole::Admin => "admin",
        GroupRole::Member => "member",
    }
}

impl Messages {
    /// What a group is called; nothing if it is not known here.
    pub(super) fn group_name(&self, group: &GroupId) -> String {
        let head = self.engine.as_ref().and_then(|engine| engine.group(group));
        head.map(|head| head.name.clone()).unwrap_or_default()
    }

    /// The group that is meant: by its identifier, or by a name that no other one has.
    ///
    /// # Errors
    /// None is meant, or several.
    pub(super) fn group(&self, meant: &str) -> Result<GroupId, String> {
        let all = self.engine.iter().flat_map(People::groups);
        let is_it = |(group, head): &(GroupId, &shoal_people::GroupState)| {
            hex(group) == meant || head.name == meant
        };
        let found: Vec<GroupId> = all.filter(is_it).map(|(group, _)| group).collect();
        match found.as_slice() {
            [only] => Ok(*only),
            [] => Err(format!("there is no group {meant:?} here")),
            several => {
                let all: Vec<String> = several.iter().map(hex).collect();
                Err(format!("{meant:?} can mean {}: say which", all.join(" or ")))
            }
        }
    }

    /// The groups, those too to which the owner of this client belongs no more.
    pub(super) fn groups(&self) -> Value {
        let all = self.engine.iter().flat_map(People::groups).map(|(group, _)| group);
        json!({ "groups": all.map(|group| self.shown_group(&group)).collect::<Vec<_>>() })
    }

    /// One of them.
    pub(super) fn show_group(&self, meant: &str) -> Result<Value, String> {
        Ok(self.shown_group(&self.group(meant)?))
    }

    fn shown_group(&self, group: &GroupId) -> Value {
        let Some(engine) = &self.engine else { return json!({}) };
        let Some(head) = engine.group(group) else { return json!({}) };
        let own = engine.person();
        let people = head.people.iter().map(|one| {
            json!({
                "person": one.person,
                "name": self.membership.name_of(one.person),
                "role": role(one.role),
                "own": own == Some(one.person),
            })
        });
        let (devices, most) = engine.group_devices(group);
        json!({
            "group": hex(group),
            "name": head.name,
            "people": people.collect::<Vec<_>>(),
            "expires_s": head.expires_s,
            "member": own.is_some_and(|own| head.person(own).is_some()),
            "admin": engine.may_act(group),
            "devices": devices,
            "most_devices": most,
        })
    }

    /// Founds a group.
    pub(super) fn found(&mut self, name: &str, people: &[Whom]) -> Result<Value, String> {
        let numbers = self.numbers(people)?;
        let engine = self.engine()?;
        let founded = engine.found_group(unix_ms(), name.trim(), &numbers);
        let group = founded.map_err(|error| self.why_not(&error))?;
        self.deliver();
        Ok(self.shown_group(&group))
    }

    /// Does something to a group.
    pub(super) fn act_on(&mut self, meant: &str, deed: GroupDeed) -> Result<Value, String> {
        let group = self.group(meant)?;
        let act = match deed {
            GroupDeed::Add(people) => GroupAct::Add(self.numbers(&people)?),
            GroupDeed::Remove(people) => GroupAct::Remove(self.numbers(&people)?),
            GroupDeed::Appoint(whom, role) => GroupAct::Appoint(self.person(&whom)?.0, role),
            GroupDeed::Rename(name) => GroupAct::Rename(name.trim().to_owned()),
            GroupDeed::Expire(after) => GroupAct::Expire(after),
            GroupDeed::Leave => GroupAct::Remove(self.engine()?.person().into_iter().collect()),
        };
        let done = self.engine()?.act(unix_ms(), group, act);
        done.map_err(|error| self.why_not(&error))?;
        self.deliver();
        match &self.trouble {
            Some(why) => Err(format!("it is not on the disk: {why}")),
            None => Ok(self.shown_group(&group)),
        }
    }

    /// The numbers of people who are in the directory, those who were removed too where they are named by number.
    fn numbers(&self, people: &[Whom]) -> Result<Vec<u32>, String> {
        let mut numbers = Vec::new();
        for whom in people {
            let (person, name) = self.person(whom)?;
            if numbers.contains(&person) {
                return Err(format!("{name} is named twice"));
            }
            numbers.push(person);
        }
        Ok(numbers)
    }

    /// Why something is not done to a group, with the name of the person whom it is about.
    fn why_not(&self, error: &NotSent) -> String {
        match error {
            NotSent::NotAllowed(
                NotAllowed::Above(person)
                | NotAllowed::There(person)
                | NotAllowed::NotThere(person),
            ) => format!("{}: {error}", self.membership.name_of(*person)),
            error => error.to_string(),
        }
    }

    /// What was done to a group, for programs: what, on whom, and what else it says.
    pub(super) fn told_act(&self, act: &GroupAct) -> Value {
        let people = |people: &[u32]| {
            let named = people.iter().map(|person| self.membership.name_of(*person));
            named.collect::<Vec<_>>()
        };
        match act {
            GroupAct::Create { name, people: all, .. } => {
                json!({ "act": "founded", "called": name, "people": people(all) })
            }
            GroupAct::Add(all) => json!({ "act": "added", "people": people(all) }),
            GroupAct::Remove(all) => json!({ "act": "removed", "people": people(all) }),
            GroupAct::Appoint(person, as_role) => {
                json!({ "act": "appointed", "people": people(&[*person]), "role": role(*as_role) })
            }
            GroupAct::Rename(name) => json!({ "act": "renamed", "called": name }),
            GroupAct::Expire(after) => json!({ "act": "expires", "expires_s": after }),
            GroupAct::Affirm => json!({ "act": "affirmed" }),
        }
    }
}
