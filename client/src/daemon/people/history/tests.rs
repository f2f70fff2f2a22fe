use std::fs;
use std::time::Instant;

use shoal_people::Waiting;

use super::*;

const NOW: u64 = 20_000 * DAY_S + 40_000;

fn message(n: u32, text: &str) -> MessageRecord {
    MessageRecord {
        name: MessageName { device: 7, stream: 9, sequence: n },
        person: 3,
        is_own: false,
        sent_at: NOW + u64::from(n),
        came_at: NOW + u64::from(n) + 2,
        content: Content::Text(text.into()),
        state: None,
        is_read: false,
        edit: None,
        expires_s: 0,
        expires_at: 0,
    }
}

fn open(dir: &Path) -> History {
    History::open(&dir.join("people")).unwrap()
}

fn add(history: &mut History, records: &[MessageRecord]) -> Vec<u64> {
    let mut changes = history.begin(Vec::new());
    let numbers = records.iter().map(|record| history.add(&mut changes, record).unwrap()).collect();
    history.commit(changes).unwrap();
    numbers
}

fn texts(found: &[(u64, MessageRecord)]) -> Vec<String> {
    let text = |record: &MessageRecord| match &record.content {
        Content::Text(text) => text.clone(),
        Content::Unknown(kind) => format!("kind {kind}"),
    };
    found.iter().map(|(_, record)| text(record)).collect()
}

#[test]
fn messages_stand_in_the_order_of_writing_and_no_clock_puts_one_behind_those_that_come_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = open(dir.path());
    let mut ahead = message(1, "by a clock that is ahead");
    ahead.sent_at += 1_000_000;
    let numbers = add(&mut history, &[ahead, message(4, "fourth"), message(3, "third")]);
    let mut now = Some(history);
    for _ in 0..2 {
        // As it is, and as it is read again.
        let history = now.take().unwrap_or_else(|| open(dir.path()));
        let all = history.messages(3, None, 10).unwrap();
        assert_eq!(texts(&all), ["by a clock that is ahead", "third", "fourth"]);
        let before = history.messages(3, Some(numbers[1]), 1).unwrap();
        assert_eq!(texts(&before), ["third"]);
        assert_eq!(
            texts(&history.untaken().unwrap()),
            ["by a clock that is ahead", "fourth", "third"]
        );
        assert!(history.messages(4, None, 10).unwrap().is_empty());
        let conversations = history.conversations().unwrap();
        let Conversation { person, unread, last } = &conversations[0];
        assert_eq!((*person, *unread, last.as_ref().unwrap().0), (3, 3, numbers[1]));
    }
    let mut history = open(dir.path());
    assert_eq!(history.set_read(3, numbers[1], NOW).unwrap(), numbers[..2]);
    history.taken(numbers[1]).unwrap();
    drop(history);
    let mut history = open(dir.path());
    assert_eq!(texts(&history.untaken().unwrap()), ["third"]);
    assert_eq!(history.unread(3), 1);
    let mut changes = history.begin(Vec::new());
    let state = Some(State::Queued(Waiting::Turn));
    history.change(&mut changes, numbers[2], |record| record.state = state.clone()).unwrap();
    history.commit(changes).unwrap();
    assert_eq!(history.read(numbers[2]).unwrap().unwrap().state, state);
    // Two of one second come the wrong way round.
    let mut soon = message(6, "and sixth");
    soon.sent_at -= 1;
    add(&mut history, &[soon, message(5, "fifth")]);
    assert_eq!(texts(&history.messages(3, None, 2).unwrap()), ["fifth", "and sixth"]);
    let next = add(&mut history, &[message(7, "seventh")]);
    history.erase(&next).unwrap();
    drop(history);
    assert!(
        add(&mut open(dir.path()), &[message(8, "eighth")])[0] > next[0],
        "numbers are given once"
    );
}

#[test]
fn a_message_that_was_erased_cannot_be_opened_by_what_lay_on_the_disk_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = open(dir.path());
    let mut single = message(3, "with a key of its own");
    single.expires_s = 60;
    let numbers = add(&mut history, &[message(1, "stays"), message(2, "goes"), single]);
    history.set_read(3, numbers[2], NOW).unwrap();
    assert!(history.expired(NOW + 59).is_empty());
    assert_eq!(history.expired(NOW + 60), numbers[2..]);
    drop(history);
    let file = dir.path().join("people/messages.redb");
    let before = fs::read(&file).unwrap();
    let mut history = open(dir.path());
    history.erase(&[numbers[1], numbers[2]]).unwrap();
    assert_eq!(texts(&history.messages(3, None, 10).unwrap()), ["stays"]);
    assert!(history.number(&message(2, "").name).is_none());
    drop(history);
    let mut history = open(dir.path());
    assert_eq!(texts(&history.messages(3, None, 10).unwrap()), ["stays"]);
    assert_eq!(texts(&history.search("STAY").unwrap()), ["stays"]);
    assert!(history.search("goes").unwrap().is_empty());
    // What the disk may still have somewhere, under the keys that there are now.
    let new = add(&mut history, &[message(5, "later")]);
    drop(history);
    fs::write(&file, before).unwrap();
    let store = Store::open(&dir.path().join("people")).unwrap();
    for number in numbers {
        assert!(store.read(number).unwrap().is_none(), "message {number} opens");
    }
    assert!(store.read(new[0]).unwrap().is_none(), "it is the file from before");
}

#[test]
fn of_several_edits_the_last_that_was_written_counts_in_whichever_order_they_come() {
    let edit = |stream, sequence, sent_at| {
        let by = MessageName { device: 7, stream, sequence };
        Edit { by, sent_at }
    };
    // The clock was set back within a stream; and a program began anew.
    let edits = [
        (edit(9, 2, NOW + 9), "second"),
        (edit(9, 3, NOW), "third"),
        (edit(4, 1, NOW + 20), "last"),
    ];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 1, 0], [2, 0, 1]] {
        let mut record = message(1, "first");
        order.iter().for_each(|n| record.edited(edits[*n].0, edits[*n].1));
        assert_eq!(record.content, Content::Text("last".into()), "{order:?}");
    }
    let mut record = message(1, "first");
    [1, 0].iter().for_each(|n| record.edited(edits[*n].0, edits[*n].1));
    assert_eq!(record.content, Content::Text("third".into()));
}

#[test]
fn the_messages_of_other_keys_are_said_and_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    add(&mut open(dir.path()), &[message(1, "one")]);
    let master = dir.path().join("people/master.key");
    fs::remove_file(&master).unwrap();
    let error = History::open(&dir.path().join("people")).err().unwrap();
    assert!(matches!(error, StoreError::Secret(_) | StoreError::Keys(_)), "{error}");
    assert!(fs::metadata(dir.path().join("people/messages.redb")).unwrap().len() > 0);
}

/// A figure for docs/measurements.md.
#[test]
#[ignore = "a measurement: run it alone, in release"]
fn what_a_search_takes() {
    const MESSAGES: u32 = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let mut history = open(dir.path());
    let began = Instant::now();
    for first in (0..MESSAGES).step_by(1_000) {
        let of = |n: u32| {
            let mut record = message(
                n,
                &format!(
                    "message {n} says what one hundred bytes say, or nearly as many as that, no more"
                ),
            );
            (record.person, record.sent_at) = (n % 50, NOW + 60 * u64::from(n));
            record.came_at = record.sent_at;
            record
        };
        add(&mut history, &(first..first + 1_000).map(of).collect::<Vec<_>>());
    }
    let written = began.elapsed();
    drop(history);
    let began = Instant::now();
    let history = open(dir.path());
    let opened = began.elapsed();
    let began = Instant::now();
    let found = history.search("MESSAGE 99999 SAYS").unwrap();
    let searched = began.elapsed();
    assert_eq!(found.len(), 1);
    println!(
        "{{\"messages\": {MESSAGES}, \"written_s\": {:.3}, \"opened_s\": {:.3}, \"searched_s\": {:.3}}}",
        written.as_secs_f64(),
        opened.as_secs_f64(),
        searched.as_secs_f64()
    );
}
