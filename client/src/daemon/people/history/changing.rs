//! Changes of messages by their writers, which may come before what they change.

use super::*;

impl History {
    /// A person's message was changed by its writer: it gets another text, or is taken back. What has not come waits for that.
    /// Which message is another one now.
    ///
    /// # Errors
    /// It cannot be read, or the change not be kept.
    pub(in super::super) fn change_by(
        &mut self,
        changes: &mut Changes,
        (of, change): (MessageName, &MessageRecord),
        has_come: bool,
    ) -> Result<Option<u64>, StoreError> {
        // Whoever wrote a message changes it, and nobody else.
        if of.device != change.name.device {
            return Ok(None);
        }
        if let Some(number) = self.number_in(changes, &of) {
            let Some((_, record)) = self.seen(changes, number)? else { return Ok(None) };
            if !is_of(&record, change) {
                return Ok(None);
            }
            self.change(changes, number, |record| apply(record, change))?;
            return Ok(Some(number));
        }
        if has_come {
            // It was erased here.
            return Ok(None);
        }
        let of_person = |number: &&u64| {
            self.entries.get(number).is_some_and(|entry| entry.person == change.person)
        };
        let all = self.waiting.values().flatten().filter(of_person);
        let oldest = all.clone().min().copied();
        if let Some(oldest) = oldest.filter(|_| all.count() >= CHANGES) {
            self.take_back(changes, oldest)?;
            self.displaced += 1;
        }
        self.add(changes, change)?;
        Ok(None)
    }

    /// A message that has come, with the changes that waited for it. None if one of them takes it back.
    ///
    /// # Errors
    /// They cannot be read.
    pub(in super::super) fn with_changes(
        &self,
        changes: &mut Changes,
        mut record: MessageRecord,
    ) -> Result<Option<MessageRecord>, StoreError> {
        let new = changes.records.iter().filter(
            |(_, (_, of))| matches!(&of.content, Content::Change(of, _) if *of == record.name),
        );
        let waiting = self.waiting.get(&record.name).into_iter().flatten();
        let numbers: BTreeSet<u64> =
            new.map(|(number, _)| number).chain(waiting).copied().collect();
        for number in numbers {
            let change = self.seen(changes, number)?.map(|(_, change)| change);
            if let Some(change) = change.filter(|change| is_of(&record, change)) {
                apply(&mut record, &change);
            }
            // Erased soon, with its key.
            self.take_back(changes, number)?;
        }
        Ok((record.content != Content::TakenBack).then_some(record))
    }

    /// A message is to be read no more, and erased soon.
    ///
    /// # Errors
    /// It cannot be read.
    pub(in super::super) fn take_back(
        &self,
        changes: &mut Changes,
        number: u64,
    ) -> Result<(), StoreError> {
        self.change(changes, number, |record| record.content = Content::TakenBack)
    }
}

/// True if whoever wrote a message wrote this change of it, in the same conversation.
fn is_of(record: &MessageRecord, change: &MessageRecord) -> bool {
    (record.person, record.conversation) == (change.person, change.conversation)
}

fn apply(record: &mut MessageRecord, change: &MessageRecord) {
    let edit = Edit { by: change.name, sent_at: change.sent_at };
    match &change.content {
        Content::Change(_, Some(text)) => record.edited(edit, text),
        Content::Change(_, None) => record.content = Content::TakenBack,
        _ => {}
    }
}
