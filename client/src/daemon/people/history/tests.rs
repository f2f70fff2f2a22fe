use std::fs;
use std::time::Instant;

use shoal_people::{State, Waiting};

use super::*;

const NOW: u64 = 20_000 * DAY_S + 40_000;

fn message(n: u32, text: &str) -> MessageRecord {
    MessageRecord {
        name: MessageName { device: 7, stream: 9, sequence: n },
        conversation: Conversation::Person(3),
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
        Content::Change(..) | Content::TakenBack | Content::Done(_) => panic!("no message"),
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
        let all = history.messages(3.into(), None, 10).unwrap();
        assert_eq!(texts(&all), ["by a clock that is ahead", "third", "fourth"]);
        let before = history.messages(3.into(), Some(numbers[1]), 1).unwrap();
        assert_eq!(texts(&before), ["third"]);
        assert_eq!(
            texts(&history.untaken().unwrap()),
            ["by a clock that is ahead", "fourth", "third"]
        );
        assert!(history.messages(4.into(), None, 10).unwrap().is_empty());
        let conversations = history.conversations().unwrap();
        let Overview { of, unread, last } = &conversations[0];
        let expected = (Conversation::Person(3), 3, numbers[1]);
        assert_eq!((*of, *unread, last.as_ref().unwrap().0), expected);
    }
    let mut history = open(dir.path());
    assert_eq!(history.set_read(3.into(), numbers[1], NOW).unwrap(), numbers[..2]);
    history.taken(numbers[1]).unwrap();
    drop(history);
    let mut history = open(dir.path());
    assert_eq!(texts(&history.untaken().unwrap()), ["third"]);
    assert_eq!(history.unread(3.into()), 1);
    let mut changes = history.begin(Vec::new());
    let state = Some(State::Queued(Waiting::Turn));
    history.change(&mut changes, numbers[2], |record| record.state = state.clone()).unwrap();
    history.commit(changes).unwrap();
    assert_eq!(history.read(numbers[2]).unwrap().unwrap().state, state);
    // Two of one second come the wrong way round.
    let mut soon = message(6, "and sixth");
    soon.sent_at -= 1;
    add(&mut history, &[soon, message(5, "fifth")]);
    assert_eq!(texts(&history.messages(3.into(), None, 2).unwrap()), ["fifth", "and sixth"]);
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
    history.set_read(3.into(), numbers[2], NOW).unwrap();
    assert!(history.over(NOW + 59).is_empty());
    assert_eq!(history.over(NOW + 60), numbers[2..]);
    drop(history);
    let file = dir.path().join("people/messages.redb");
    let before = fs::read(&file).unwrap();
    let mut history = open(dir.path());
    history.erase(&[numbers[1], numbers[2]]).unwrap();
    assert_eq!(texts(&history.messages(3.into(), None, 10).unwrap()), ["stays"]);
    assert!(history.number(&message(2, "").name).is_none());
    drop(history);
    let mut history = open(dir.path());
    assert_eq!(texts(&history.messages(3.into(), None, 10).unwrap()), ["stays"]);
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

/// A change of the message with that sequence, which has one of its own.
fn change(n: u32, of: u32, text: Option<&str>) -> MessageRecord {
    let of = MessageName { device: 7, stream: 9, sequence: of };
    let content = Content::Change(of, text.map(str::to_owned));
    MessageRecord { content, ..message(n, "") }
}

/// What comes in one piece: messages, and changes of them.
fn comes(history: &mut History, records: Vec<MessageRecord>) -> Vec<u64> {
    let mut changes = history.begin(Vec::new());
    let mut shown = Vec::new();
    for record in records {
        if history.number_in(&changes, &record.name).is_some() {
            continue;
        }
        let of = match &record.content {
            Content::Change(of, _) => Some(*of),
            _ => None,
        };
        if let Some(of) = of {
            shown.extend(history.change_by(&mut changes, (of, &record), false).unwrap());
        } else if let Some(record) = history.with_changes(&mut changes, record).unwrap() {
            shown.push(history.add(&mut changes, &record).unwrap());
        }
    }
    history.commit(changes).unwrap();
    shown
}

fn all(history: &History) -> Vec<String> {
    texts(&history.messages(3.into(), None, 100).unwrap())
}

#[test]
fn changes_and_messages_that_come_in_any_order_and_in_any_pieces_end_in_one_state() {
    let records = || {
        vec![
            message(1, "first"),
            change(2, 1, Some("second")),
            change(3, 1, Some("third")),
            message(4, "other"),
            change(5, 4, None),
            change(6, 4, Some("too late")),
        ]
    };
    let mut rng = shoal_topology::Seed::from_u64(1).stream("order");
    for round in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let mut history = open(dir.path());
        let mut left = records();
        rand::seq::SliceRandom::shuffle(&mut left[..], &mut rng);
        while !left.is_empty() {
            let count = rand::RngExt::random_range(&mut rng, 1..=left.len());
            comes(&mut history, left.drain(..count).collect());
            if round % 3 == 0 {
                drop(history);
                history = open(dir.path());
            }
            if round % 3 == 1 {
                let over = history.over(NOW);
                history.erase(&over).unwrap();
            }
        }
        let over = history.over(NOW);
        history.erase(&over).unwrap();
        assert_eq!(all(&history), ["third"], "round {round}");
        // Changes that found their message are gone with their keys: what is left is the key of the day, and that of an edit which came
        // after its message was erased, and waits.
        let keys = (0..100).filter(|id| history.store.buckets.sealer(*id).is_some());
        assert_eq!(keys.count(), 1 + history.waiting.len());
        assert_eq!(history.search("third").unwrap().len(), 1);
        assert_eq!(history.unread(3.into()), 1);
        assert!(history.untaken().unwrap().iter().all(|(_, record)| record.edit.is_some()));
        // All of it comes once more, as from a writer that lost what it knew.
        comes(&mut history, records()[..3].to_vec());
        assert_eq!(all(&history), ["third"], "round {round}");
    }
}

#[test]
fn nobody_changes_what_another_one_wrote_and_changes_of_nothing_take_little_room_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = open(dir.path());
    comes(&mut history, vec![message(1, "mine")]);
    let mut other = change(2, 1, None);
    other.name.device = 8;
    assert!(comes(&mut history, vec![other]).is_empty());
    // A device of somebody else that says it has that number.
    assert!(
        comes(&mut history, vec![MessageRecord { person: 4, ..change(2, 1, None) }]).is_empty()
    );
    assert_eq!(all(&history), ["mine"]);
    for n in 0..300 {
        comes(&mut history, vec![change(1_000 + n, 10_000 + n, Some("nothing"))]);
    }
    assert_eq!((history.waiting.len(), history.displaced), (CHANGES, 300 - CHANGES as u64));
    assert!(
        history.messages(3.into(), None, 100).unwrap().len() == 1
            && history.untaken().unwrap().len() == 1
    );
    let over = history.over(NOW + 16 * DAY_S);
    history.erase(&over).unwrap();
    assert_eq!((history.waiting.len(), history.displaced), (0, 300));
    // What was erased here is not waited for.
    let mut changes = history.begin(Vec::new());
    let late = change(9, 5, Some("late"));
    let of = MessageName { device: 7, stream: 9, sequence: 5 };
    assert_eq!(history.change_by(&mut changes, (of, &late), true).unwrap(), None);
    history.commit(changes).unwrap();
    assert!(history.waiting.is_empty());
}

#[test]
fn what_is_taken_back_is_read_no_more_and_is_erased_though_the_program_ends_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = open(dir.path());
    let numbers = add(&mut history, &[message(1, "goes"), message(2, "stays")]);
    let mut changes = history.begin(Vec::new());
    history.take_back(&mut changes, numbers[0]).unwrap();
    history.commit(changes).unwrap();
    for _ in 0..2 {
        assert_eq!(all(&history), ["stays"]);
        assert!(history.read(numbers[0]).unwrap().is_none());
        assert_eq!(history.over(NOW), numbers[..1]);
        drop(history);
        history = open(dir.path());
    }
    history.erase(&numbers[..1]).unwrap();
    assert_eq!((all(&history).len(), history.over(NOW).len()), (1, 0));
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
            record.conversation = Conversation::Person(n % 50);
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
