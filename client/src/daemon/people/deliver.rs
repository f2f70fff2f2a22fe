//! What the engine of messages wants done: first to the disk, then to the world.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use shoal_people::{
    Body, Conversation, GroupChanged, GroupDone, GroupMark, MessageName, Output, ReceivedMessage,
    State,
};

use super::history::{Changes, Content, MessageRecord};
use super::*;

/// What programs are told once it lies on the disk.
enum Told {
    /// A message is new.
    New(u64, MessageRecord),
    /// A message is another one, or gone.
    Changed(u64, Conversation),
}

impl Messages {
    /// Does what the engine wants done, as far as the disk takes it.
    pub(super) fn deliver(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        let (mut polled, mut vouched) = (VecDeque::new(), Vec::new());
        for output in std::iter::from_fn(|| engine.poll_output()) {
            match output {
                Output::Vouched(packet, person) => vouched.push((packet, person)),
                output => polled.push_back(output),
            }
        }
        self.undone.append(&mut polled);
        // That does not wait for the disk, which may be slow: what is vouched for late counts as a stranger's.
        for (packet, person) in vouched {
            self.give(ToEngine::Vouch(Handle(packet.0), person));
        }
        let mut was_kept = false;
        while !self.undone.is_empty() {
            // One write for what is saved at once and for what it brings with it.
            let is_save = |output: &Output| matches!(output, Output::Save(_));
            let count =
                1 + self.undone.iter().skip(1).take_while(|output| !is_save(output)).count();
            match self.keep(count) {
                Ok(told) => {
                    was_kept = true;
                    let done: Vec<Output> = self.undone.drain(..count).collect();
                    told.into_iter().for_each(|told| self.announce(told));
                    done.into_iter().for_each(|output| self.act(output));
                }
                Err(error) => return self.stuck(&error),
            }
        }
        if was_kept && self.trouble.take().is_some() {
            tracing::info!("messages can be kept again");
        }
    }

    /// Writes what the next outputs say.
    fn keep(&mut self, count: usize) -> Result<Vec<Told>, StoreError> {
        let pieces = match self.undone.front() {
            // A message that came is kept among the others, in its own place.
            Some(Output::Save(changes)) => changes
                .iter()
                .filter(|(key, _)| !matches!(key, shoal_people::Key::Received(_)))
                .cloned()
                .collect(),
            _ => Vec::new(),
        };
        let mut changes = self.history.begin(pieces);
        let mut told = Vec::new();
        let mut states = BTreeMap::new();
        for output in self.undone.iter().take(count) {
            match output {
                Output::State(name, state) => _ = states.insert(*name, state.clone()),
                Output::Received(message) => {
                    let has_come = self.has_come(message);
                    told.extend(keep_received(&mut self.history, &mut changes, message, has_come)?);
                }
                Output::Group(changed) => {
                    let own = self.engine.as_ref().and_then(People::person);
                    told.extend(keep_done(&mut self.history, &mut changes, changed, own)?);
                }
                _ => {}
            }
        }
        for number in &self.taken_back {
            self.history.take_back(&mut changes, *number)?;
        }
        let names: Vec<MessageName> = states.keys().copied().collect();
        let mut over = Vec::new();
        for (name, state) in states {
            match (self.history.number(&name), self.written.get(&name)) {
                (Some(number), _) => {
                    let edit = self.edits.get(&name);
                    self.history.change(&mut changes, number, |record| {
                        let is_away = matches!(state, State::Left | State::Delivered);
                        if is_away && record.expires_s > 0 && record.expires_at == 0 {
                            record.expires_at = unix_ms() / 1_000 + u64::from(record.expires_s);
                        }
                        record.state = Some(state);
                        if let Some((edit, text)) = edit {
                            record.edited(*edit, text);
                        }
                    })?;
                    let of = self.history.conversation(number).filter(|_| edit.is_some());
                    told.extend(of.map(|of| Told::Changed(number, of)));
                }
                (None, Some(record)) => {
                    let record = MessageRecord { state: Some(state), ..record.clone() };
                    let number = self.history.add(&mut changes, &record)?;
                    told.push(Told::New(number, record));
                }
                // It was erased here, and goes on until it has arrived.
                (None, None) if matches!(state, State::Delivered | State::Expired(_)) => {
                    over.push(name);
                }
                (None, None) => {}
            }
        }
        self.history.commit(changes)?;
        self.taken_back.clear();
        self.written.retain(|name, _| self.history.number(name).is_none());
        names.iter().for_each(|name| _ = self.edits.remove(name));
        self.engine.iter_mut().for_each(|engine| engine.forget_texts(&over));
        Ok(told)
    }

    /// True if the message that this one changes has come, and is not about to be kept: then it was erased here.
    fn has_come(&self, change: &ReceivedMessage) -> bool {
        let Some(of) = change.body.changes() else { return false };
        let is_it = |output: &Output| matches!(output, Output::Received(other) if other.name == of);
        let has_come = self.engine.as_ref().is_some_and(|engine| engine.has_come(&of));
        has_come && !self.undone.iter().any(is_it)
    }

    fn announce(&self, told: Told) {
        match told {
            Told::New(number, record) => {
                let mut event = self.shown(number, &record);
                let what = match (&record.content, record.is_own) {
                    (Content::Done(_), _) => "done",
                    (_, true) => "sent",
                    (_, false) => "received",
                };
                event.insert("event".into(), what.into());
                self.tell(event.into());
            }
            Told::Changed(number, of) => self.changed(number, of),
        }
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Post { letter, to, message } => {
                self.give(ToEngine::Post { letter, to, message });
            }
            Output::Seek { device, address } => {
                self.sought.insert(address, device);
                self.give(ToEngine::Seek(address));
            }
            Output::State(name, state) => {
                let Some(number) = self.history.number(&name) else { return };
                let mut event = Map::new();
                event.insert("event".into(), "state".into());
                event.insert("number".into(), number.into());
                event.insert("message".into(), named(&name).into());
                put_state(&mut event, &state);
                let mut event = Value::from(event);
                if let Some(of) = self.history.conversation(number) {
                    groups::put_conversation(&mut event, of);
                }
                self.tell(event);
            }
            Output::Reached(name, reached, of) => {
                let Some(number) = self.history.number(&name) else { return };
                let mut event = json!({ "event": "reached", "number": number, "message": named(&name), "reached": reached, "of": of });
                if let Some(of) = self.history.conversation(number) {
                    groups::put_conversation(&mut event, of);
                }
                self.tell(event);
            }
            Output::Group(changed) => {
                self.tell(json!({ "event": "group", "group": groups::hex(&changed.group) }));
            }
            Output::Missed(device, parts) => {
                let person = self.membership.person_of(device);
                let name = person.map(|person| self.membership.name_of(person));
                self.tell(
                    json!({ "event": "missed", "person": person, "name": name, "parts": parts }),
                );
            }
            Output::Save(_) | Output::Received(_) | Output::Vouched(..) => {}
        }
    }

    /// A message as programs are shown it.
    pub(super) fn shown(&self, number: u64, record: &MessageRecord) -> Map<String, Value> {
        let mut shown = Map::new();
        let mut put = |key: &str, value: Value| _ = shown.insert(key.into(), value);
        put("number", number.into());
        put("message", named(&record.name).into());
        if let Conversation::Group(group) = record.conversation {
            put("group", groups::hex(&group).into());
            put("group_name", self.group_name(&group).into());
        }
        // In a group the writer, who is the owner of this client himself where the message is his.
        put("person", record.person.into());
        put("name", self.membership.name_of(record.person).into());
        put("own", record.is_own.into());
        match &record.content {
            Content::Text(text) => put("text", text.as_str().into()),
            Content::Unknown(kind) => put("unknown", (*kind).into()),
            Content::Done(act) => put("done", self.told_act(act)),
            Content::Change(..) | Content::TakenBack => {}
        }
        put("sent_at", record.sent_at.into());
        if !record.is_own {
            put("came_at", record.came_at.into());
            put("read", record.is_read.into());
        }
        if record.edit.is_some() {
            put("edited", true.into());
        }
        if record.expires_at > 0 {
            put("expires_at", record.expires_at.into());
        }
        if let Some(state) = &record.state {
            put_state(&mut shown, state);
        }
        if let Some((reached, of)) =
            self.engine.as_ref().and_then(|engine| engine.reached(&record.name))
        {
            shown.insert("reached".into(), reached.into());
            shown.insert("of".into(), of.into());
        }
        shown
    }
}

/// Keeps what came. What programs are told of it. `has_come` is what [`Messages::has_come`] says of it.
fn keep_received(
    history: &mut History,
    changes: &mut Changes,
    message: &ReceivedMessage,
    has_come: bool,
) -> Result<Option<Told>, StoreError> {
    let ReceivedMessage { name, person, sent_at, group, expires_s, body } = message;
    let content = match body {
        Body::Text(text) => Content::Text(text.clone()),
        Body::Edit(of, text) => Content::Change(*of, Some(text.clone())),
        Body::Delete(of) => Content::Change(*of, None),
        Body::Other(kind, _) => Content::Unknown(*kind),
        // Of the engine alone, or what nothing shows yet.
        Body::Reaction(..)
        | Body::Want(_)
        | Body::Read(_)
        | Body::Entries(_)
        | Body::WantEntries(_)
        | Body::Empty => return Ok(None),
    };
    // Where the disk took the first part of what is to be written and not the rest, all of it comes once more.
    if history.number_in(changes, name).is_some() {
        return Ok(None);
    }
    let of_group = |mark: &GroupMark| Conversation::Group(mark.group);
    let record = MessageRecord {
        name: *name,
        conversation: group.as_ref().map_or(Conversation::Person(*person), of_group),
        person: *person,
        is_own: false,
        sent_at: *sent_at,
        came_at: unix_ms() / 1_000,
        content,
        state: None,
        is_read: false,
        edit: None,
        expires_s: *expires_s,
        expires_at: 0,
    };
    if let Some(of) = body.changes() {
        let changed = history.change_by(changes, (of, &record), has_come)?;
        return Ok(changed.map(|number| Told::Changed(number, record.conversation)));
    }
    let Some(record) = history.with_changes(changes, record)? else { return Ok(None) };
    let number = history.add(changes, &record)?;
    Ok(Some(Told::New(number, record)))
}

/// Keeps what was done to a group among what is written to it. What programs are told of it.
fn keep_done(
    history: &mut History,
    changes: &mut Changes,
    changed: &GroupChanged,
    own: Option<u32>,
) -> Result<Vec<Told>, StoreError> {
    let conversation = Conversation::Group(changed.group);
    let named = |done: &GroupDone| MessageName {
        device: done.device,
        stream: u64::from_be_bytes(done.hash),
        // What people write counts from 1.
        sequence: 0,
    };
    let mut told = Vec::new();
    for undone in &changed.undone {
        if let Some(number) = history.number_in(changes, &named(undone)) {
            history.take_back(changes, number)?;
            told.push(Told::Changed(number, conversation));
        }
    }
    // Whoever is new has the log, and is shown of it what was done last.
    let earlier = if changed.is_new { changed.done.len().saturating_sub(1) } else { 0 };
    for done in changed.done.iter().skip(earlier) {
        let name = named(done);
        if history.number_in(changes, &name).is_some() {
            continue;
        }
        let record = MessageRecord {
            name,
            conversation,
            person: done.person,
            is_own: own == Some(done.person),
            sent_at: done.at,
            came_at: unix_ms() / 1_000,
            content: Content::Done(done.act.clone()),
            state: None,
            is_read: true,
            edit: None,
            expires_s: 0,
            expires_at: 0,
        };
        let number = history.add(changes, &record)?;
        told.push(Told::New(number, record));
    }
    Ok(told)
}

/// The name of a message, as programs are told it.
pub(super) fn named(name: &MessageName) -> String {
    format!("{}-{:016x}-{}", name.device, name.stream, name.sequence)
}

/// Where a message stands, for people.
fn put_state(shown: &mut Map<String, Value>, state: &State) {
    let (state, why, next_try) = match state {
        State::Queued(why) => ("queued", Some(why), None),
        State::Left => ("left", None, None),
        State::Delivered => ("delivered", None, None),
        State::Waiting { next_s, why } => ("waiting", Some(why), Some(*next_s)),
        State::Expired(why) => ("expired", Some(why), None),
    };
    shown.insert("state".into(), state.into());
    if let Some(why) = why {
        shown.insert("why".into(), why.to_string().into());
    }
    if let Some(at) = next_try {
        shown.insert("next_try".into(), at.into());
    }
}
