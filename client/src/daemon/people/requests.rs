//! What programs ask.

use serde_json::{Value, json};
use shoal_people::{Body, State};

use super::deliver::named;
use super::history::{Content, Edit, MessageRecord, Overview};
use super::*;
use crate::daemon::mail::{Meant, MessageRequest, Whom};

/// Most messages of one answer.
const MOST: usize = 500;
/// Messages of an answer where nobody says how many.
const USUAL: usize = 50;
/// The longest text to search for, bytes.
const WANTED: usize = 1_000;

fn no_message(number: u64) -> String {
    format!("there is no message of the number {number}")
}

fn not_kept(why: &str) -> String {
    format!(
        "the message is not on the disk: {why}; it is sent as soon as it is there, unless the client ends before"
    )
}

impl Messages {
    /// Answers a program.
    ///
    /// # Errors
    /// Why not, for people.
    pub(super) fn answer(&mut self, request: MessageRequest) -> Result<Value, String> {
        let failed = |error: StoreError| format!("the messages cannot be used: {}", chain(&error));
        match request {
            MessageRequest::Send(to, text, expires_s) => self.send(&to, text, expires_s),
            MessageRequest::Groups(None) => Ok(self.groups()),
            MessageRequest::Groups(Some(group)) => self.show_group(&group),
            MessageRequest::Found(name, people) => self.found(&name, &people),
            MessageRequest::Act(group, deed) => self.act_on(&group, deed),
            MessageRequest::Conversations => {
                let all = self.history.conversations().map_err(failed)?;
                Ok(self.overviews(all))
            }
            MessageRequest::Messages(of, before, last) => {
                let (of, _) = self.any_conversation(&of)?;
                let last = last.unwrap_or(USUAL).min(MOST);
                let all = self.history.messages(of, before, last).map_err(failed)?;
                Ok(self.list(&all))
            }
            MessageRequest::Message(number) => {
                let found = self.history.read(number).map_err(failed)?;
                Ok(self.list(&found.map(|record| (number, record)).into_iter().collect::<Vec<_>>()))
            }
            MessageRequest::Read(of, up_to) => {
                let (of, _) = self.any_conversation(&of)?;
                let read = self.history.set_read(of, up_to, unix_ms() / 1_000).map_err(failed)?;
                read.into_iter().for_each(|number| self.changed(number, of));
                Ok(json!({}))
            }
            MessageRequest::Search(text) => {
                if text.trim().is_empty() || text.len() > WANTED {
                    return Err(format!("text: search for 1 to {WANTED} bytes"));
                }
                let found = self.history.search(text.trim()).map_err(failed)?;
                Ok(self.list(&found))
            }
            MessageRequest::Edit(number, text) => self.edit(number, text),
            MessageRequest::Delete(number, true) => self.take_back(number),
            MessageRequest::Delete(number, false) => {
                self.history.conversation(number).ok_or_else(|| no_message(number))?;
                self.erase(&[number]).map_err(failed)?;
                self.deliver();
                Ok(json!({}))
            }
            MessageRequest::Verify(whom, is_same, compared) => {
                let (person, name) = self.person(&whom)?;
                let (organisation, people) = self.membership.keys_of(person)?;
                let digits = digits(&organisation, people);
                if compared.is_some_and(|compared| compared != digits) {
                    return Err("the digits are others now, since a device of one of you came or went: compare them again".into());
                }
                if let Some(is_same) = is_same {
                    self.history.verify(person, is_same).map_err(failed)?;
                }
                let verified = self.history.is_verified(person);
                Ok(
                    json!({ "person": person, "name": name, "digits": digits, "verified": verified }),
                )
            }
            MessageRequest::Taken(up_to) => {
                self.history.taken(up_to).map_err(failed)?;
                Ok(json!({}))
            }
            MessageRequest::Status => Ok(self.status()),
        }
    }

    /// Conversations, as programs are told them.
    fn overviews(&self, all: Vec<Overview>) -> Value {
        let shown = all.into_iter().map(|Overview { of, unread, last }| {
            let last = last.map(|(number, record)| self.shown(number, &record));
            let mut shown = json!({ "unread": unread, "last": last });
            groups::put_conversation(&mut shown, of);
            let (name, verified) = match of {
                Conversation::Group(group) => (self.group_name(&group), None),
                Conversation::Person(person) => {
                    let is_verified = self.history.is_verified(person);
                    (self.membership.name_of(person), Some(is_verified))
                }
            };
            if let Some(shown) = shown.as_object_mut() {
                shown.insert("name".into(), name.into());
                shown.extend(verified.map(|is| ("verified".into(), is.into())));
            }
            shown
        });
        json!({ "conversations": shown.collect::<Vec<_>>() })
    }

    /// How the client is. Of packets that were of no use there are totals alone.
    fn status(&self) -> Value {
        let mut status = self.membership.status();
        let counts = self.engine.as_ref().map(People::counts).unwrap_or_default();
        if let Some(status) = status.as_object_mut() {
            status.insert("trouble".into(), json!(self.trouble));
            let dropped = json!({
                "unreadable": counts.unreadable,
                "unknown": counts.unknown,
                "displaced": counts.displaced + self.history.displaced,
                "broken": counts.broken,
                "no_room": counts.no_room,
                "refused": counts.refused,
                "lost": self.lost.load(Ordering::Relaxed),
            });
            status.insert("dropped".into(), dropped);
        }
        status
    }

    fn list(&self, all: &[(u64, MessageRecord)]) -> Value {
        let shown = all.iter().map(|(number, record)| self.shown(*number, record));
        json!({ "messages": shown.collect::<Vec<_>>() })
    }

    /// The number and the name of whoever is meant.
    pub(super) fn person(&self, whom: &Whom) -> Result<(u32, String), String> {
        match whom {
            Whom::Name(name) => self.membership.person(name),
            Whom::Number(person) => Ok((*person, self.membership.name_of(*person))),
        }
    }

    /// The same of whoever was ever written with.
    fn anybody(&self, whom: &Whom) -> Result<(u32, String), String> {
        match whom {
            Whom::Name(name) => self.membership.anybody(name),
            Whom::Number(_) => self.person(whom),
        }
    }

    /// The conversation that is meant, also of a group that one belongs to no more, and what it is called.
    fn any_conversation(&self, of: &Meant) -> Result<(Conversation, String), String> {
        match of {
            Meant::Person(whom) => {
                let (person, name) = self.anybody(whom)?;
                Ok((Conversation::Person(person), name))
            }
            Meant::Group(group) => {
                let group = self.group(group)?;
                Ok((Conversation::Group(group), self.group_name(&group)))
            }
        }
    }

    fn send(&mut self, to: &Meant, text: String, expires_s: u32) -> Result<Value, String> {
        let (to, name) = match to {
            Meant::Person(whom) => {
                let (person, name) = self.person(whom)?;
                (Conversation::Person(person), name)
            }
            Meant::Group(_) => self.any_conversation(to)?,
        };
        if matches!(to, Conversation::Person(person) if self.membership.is_own(person)) {
            return Err("this is you: write to somebody else".into());
        }
        if text.trim().is_empty() {
            return Err("text: there is nothing in it".into());
        }
        let (now, body) = (unix_ms(), Body::Text(text.clone()));
        let engine = self.engine()?;
        let message = engine.send(now, to, &body, expires_s);
        let message = message.map_err(|error| format!("{name}: {error}"))?;
        let (person, expires_s) = match to {
            Conversation::Person(person) => (person, expires_s),
            Conversation::Group(group) => {
                let of_group = engine.group(&group).map_or(0, |head| head.expires_s);
                let expires_s = if expires_s == 0 { of_group } else { expires_s };
                (engine.person().unwrap_or_default(), expires_s)
            }
        };
        let record = MessageRecord {
            name: message,
            conversation: to,
            person,
            is_own: true,
            sent_at: now / 1_000,
            came_at: 0,
            content: Content::Text(text),
            state: None,
            is_read: false,
            edit: None,
            expires_s,
            // From when it has left.
            expires_at: 0,
        };
        self.written.insert(message, record);
        self.deliver();
        match (self.history.number(&message), &self.trouble) {
            (None, Some(why)) => Err(not_kept(why)),
            (number, _) => Ok(json!({ "message": named(&message), "number": number })),
        }
    }

    /// What sends messages.
    ///
    /// # Errors
    /// Nothing can be sent, and why.
    pub(super) fn engine(&mut self) -> Result<&mut People, String> {
        self.membership.may_write()?;
        if let (false, Some(why)) = (self.undone.is_empty(), &self.trouble) {
            return Err(format!("messages cannot be kept now: {why}"));
        }
        // Who was found by name may stand in a directory that came just now.
        self.follow();
        let trouble = self.trouble.clone();
        self.engine.as_mut().ok_or_else(|| {
            trouble.unwrap_or_else(|| {
                "this client is no member of an organisation yet, or has no keys: again in a moment".into()
            })
        })
    }

    /// A message that was written here.
    fn own(&self, number: u64) -> Result<MessageRecord, String> {
        let failed = |error: StoreError| format!("the messages cannot be used: {}", chain(&error));
        let record =
            self.history.read(number).map_err(failed)?.ok_or_else(|| no_message(number))?;
        match record.is_own {
            true if !record.is_notice() => Ok(record),
            true => Err("this says what was done to the group: it stays as it is".into()),
            false => {
                Err("this message was written by somebody else, and its writer alone can change it"
                    .into())
            }
        }
    }

    /// Another text in place of that of a message that was written here.
    fn edit(&mut self, number: u64, text: String) -> Result<Value, String> {
        let record = self.own(number)?;
        if matches!(record.state, Some(State::Expired(_))) {
            return Err("this message did not arrive and is sent no more: write it anew".into());
        }
        let after = record.edit.map_or(record.sent_at, |edit| edit.sent_at);
        let change = Body::Edit(record.name, text.clone());
        let now = unix_ms();
        let by = self.engine()?.send_change(now, record.conversation, &change, after);
        let by = by.map_err(|error| error.to_string())?;
        let edit = Edit { by, sent_at: (now / 1_000).max(after + 1) };
        self.edits.insert(record.name, (edit, Zeroizing::new(text)));
        self.deliver();
        match (self.edits.contains_key(&record.name), &self.trouble) {
            (true, Some(why)) => Err(not_kept(why)),
            _ => Ok(json!({})),
        }
    }

    /// A message that was written here goes at both ends.
    fn take_back(&mut self, number: u64) -> Result<Value, String> {
        let record = self.own(number)?;
        let after = record.edit.map_or(record.sent_at, |edit| edit.sent_at);
        let gone = self.engine()?.take_back(unix_ms(), record.conversation, record.name, after);
        gone.map_err(|error| error.to_string())?;
        self.taken_back.insert(number);
        self.deliver();
        match (self.taken_back.remove(&number), &self.trouble) {
            (true, Some(why)) => {
                let why = not_kept(why);
                self.taken_back.insert(number);
                return Err(why);
            }
            // The engine had nothing to keep of it.
            (true, None) => self.erase(&[number]).map_err(|error| chain(&error))?,
            (false, _) => self.changed(number, record.conversation),
        }
        Ok(json!({}))
    }

    /// What came and no program has taken.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn untaken(&mut self) -> Result<Vec<Event>, StoreError> {
        let untaken = self.history.untaken().inspect_err(|error| error!("{}", chain(error)))?;
        let event = |(number, record): &(u64, MessageRecord)| {
            let mut event = self.shown(*number, record);
            event.insert("event".into(), "received".into());
            event.into()
        };
        Ok(untaken.iter().map(event).collect())
    }
}
