use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::RosterDevice;

fn secret(device: u32) -> SecretIdentity {
    SecretIdentity::from_bytes(&[device as u8 + 1; 32])
}

/// A directory of so many people, each with a device of his number.
fn roster(people: u32) -> Roster {
    let organisation = SecretIdentity::from_bytes(&[200; 32]).identity();
    let listed = |n: u32| {
        let key = secret(n).identity();
        let address = shoal_topology::directory::address::ServiceAddress {
            identity: key.0,
            gateway: [9; 32],
        };
        (n, RosterDevice { person: n, key, address, held_until: 0 })
    };
    Roster {
        organisation,
        size: 10,
        head: 10,
        is_current: true,
        devices: (0..people).map(listed).collect(),
        removed: BTreeMap::new(),
        people: (0..people).collect(),
    }
}

/// A device is removed, and its owner with it.
fn leave(roster: &mut Roster, person: u32) {
    if let Some(device) = roster.devices.remove(&person) {
        roster.removed.insert(person, (device.person, device.key));
    }
    roster.people.remove(&person);
}

fn created(roster: &Roster, people: &[u32]) -> GroupLog {
    let act = GroupAct::Create { nonce: [7; 16], name: "Finance".into(), people: people.to_vec() };
    let entry = GroupEntry { number: 0, previous: [0; 32], at: 1, author: 0, act };
    GroupLog::new(SignedEntry::new(&roster.organisation, entry, &secret(0)), roster).unwrap()
}

fn act(log: &mut GroupLog, by: u32, act: GroupAct, roster: &Roster) -> SignedEntry {
    log.act(2, act, (by, &secret(by)), roster).unwrap().0
}

fn people(log: &GroupLog) -> Vec<u32> {
    log.head().people.iter().map(|one| one.person).collect()
}

#[test]
fn who_may_do_what() {
    let mut roster = roster(8);
    let mut log = created(&roster, &[1, 2, 3]);
    let mut try_it = |by: u32, act: GroupAct| {
        log.act(2, act, (by, &secret(by)), &roster).map(|(entry, _)| entry.entry.number)
    };
    use GroupAct::*;
    assert_eq!(try_it(1, Add(vec![4])), Err(NotAllowed::NoAdmin));
    assert_eq!(try_it(5, Add(vec![5])), Err(NotAllowed::NoMember));
    assert_eq!(try_it(0, Appoint(1, GroupRole::Admin)), Ok(1));
    assert_eq!(try_it(0, Appoint(2, GroupRole::Admin)), Ok(2));
    assert_eq!(try_it(1, Add(vec![4, 5])), Ok(3));
    assert_eq!(try_it(1, Add(vec![5])), Err(NotAllowed::There(5)));
    assert_eq!(try_it(1, Remove(vec![6])), Err(NotAllowed::NotThere(6)));
    assert_eq!(try_it(2, Remove(vec![1])), Err(NotAllowed::Above(1)));
    assert_eq!(try_it(2, Remove(vec![0])), Err(NotAllowed::Above(0)));
    assert_eq!(try_it(1, Appoint(4, GroupRole::Owner)), Err(NotAllowed::Above(4)));
    assert_eq!(try_it(1, Remove(vec![2])), Ok(4));
    assert_eq!(try_it(2, Rename("mine".into())), Err(NotAllowed::NoMember));
    assert_eq!(try_it(3, Remove(vec![3])), Ok(5), "everybody may leave");
    assert_eq!(try_it(0, Rename("a\u{202e}b".into())), Err(NotAllowed::Name));
    assert_eq!(try_it(0, Rename(" ".into())), Err(NotAllowed::Name));
    assert_eq!(try_it(0, Rename("x".repeat(101))), Err(NotAllowed::Name));
    assert_eq!(try_it(1, Appoint(1, GroupRole::Member)), Ok(6), "and have less to say");
    assert_eq!(try_it(1, Appoint(1, GroupRole::Admin)), Err(NotAllowed::NoAdmin));
    assert_eq!(try_it(0, Expire(60)), Ok(7));
    assert_eq!(try_it(0, Expire(60)), Err(NotAllowed::Same));
    assert_eq!(people(&log), [0, 1, 4, 5]);
    assert_eq!((log.head().expires_s, log.head().removed.len()), (60, 2));
    // Its owner leaves the organisation, and nobody is admin: the first of the others is heard.
    leave(&mut roster, 0);
    assert!(log.act(3, Rename("a".into()), (4, &secret(4)), &roster).is_err());
    assert!(log.act(3, Remove(vec![0]), (1, &secret(1)), &roster).is_ok());
}

#[test]
fn an_admin_who_was_removed_does_not_undo_it() {
    let roster = roster(6);
    let mut log = created(&roster, &[1, 2, 3]);
    act(&mut log, 0, GroupAct::Appoint(1, GroupRole::Admin), &roster);
    act(&mut log, 0, GroupAct::Appoint(2, GroupRole::Admin), &roster);
    // What the first of two admins can forge once the owner has removed him: entries before that.
    let before = log.clone();
    act(&mut log, 2, GroupAct::Rename("Books".into()), &roster);
    act(&mut log, 0, GroupAct::Remove(vec![1]), &roster);
    let mut forged = before.clone();
    act(&mut forged, 1, GroupAct::Remove(vec![2]), &roster);
    act(&mut forged, 1, GroupAct::Add(vec![4]), &roster);
    for _ in 0..40 {
        act(&mut forged, 1, GroupAct::Affirm, &roster);
    }
    let held = log.head().clone();
    let inserted = log.insert(forged.all(), &roster);
    assert!(inserted.new > 40 && inserted.done.is_empty() && inserted.undone.is_empty());
    assert_eq!(*log.head(), held);
    // Before the owner has acted it is he who counts, against the later admin: that is what the order is for.
    let mut other = before.clone();
    act(&mut other, 2, GroupAct::Rename("Books".into()), &roster);
    let inserted = other.insert(forged.all(), &roster);
    assert_eq!((inserted.undone.len(), people(&other)), (1, vec![0, 1, 3, 4]));
}

#[test]
fn a_device_that_was_removed_rewrites_nothing() {
    let before = roster(5);
    let mut log = created(&before, &[1, 2]);
    act(&mut log, 0, GroupAct::Appoint(1, GroupRole::Admin), &before);
    let mut known = log.clone();
    let last = act(&mut known, 0, GroupAct::Add(vec![3]), &before);
    // The owner's device is lost and removed; he has none now, and belongs to the organisation still.
    let mut after = before.clone();
    leave(&mut after, 0);
    after.people.insert(0);
    let mut forged = log.clone();
    act(&mut forged, 0, GroupAct::Remove(vec![1]), &before);
    // It is not known to those who have not heard of it, whoever passes it on.
    assert_eq!(log.insert(forged.all(), &after).new, 0);
    assert_eq!(people(&log), [0, 1, 2]);
    assert_eq!(log.insert(vec![last], &after).new, 0, "nor is what the owner did with it last");
    // Where it was known it counts, and whoever has most to say of those who are there affirms it for the others.
    known.insert(Vec::new(), &after);
    assert_eq!(people(&known), [0, 1, 2, 3]);
    assert_eq!([0, 1, 3].map(|n| known.affirms_after(n, &after)), [Some(0), Some(1), Some(3)]);
    leave(&mut after, 0);
    assert_eq!([0, 1, 3].map(|n| known.affirms_after(n, &after)), [None, Some(0), Some(2)]);
    act(&mut known, 1, GroupAct::Affirm, &after);
    assert_eq!(known.affirms_after(1, &after), None);
    assert_eq!(log.insert(known.all(), &after).new, 2);
    assert_eq!(log.head(), known.head());
    // And the forgery counts for less than what anybody does who is there.
    known.insert(forged.all(), &after);
    assert_eq!(log.head(), known.head());
    assert!(people(&known).contains(&1));
}

#[test]
fn entries_that_count_for_nothing_make_room_for_those_of_others() {
    let roster = roster(4);
    let mut log = created(&roster, &[1, 2, 3]);
    let root = log.clone();
    act(&mut log, 0, GroupAct::Appoint(1, GroupRole::Admin), &roster);
    for n in 0..2 * MAX_ENTRIES as u64 {
        let mut junk = root.clone();
        let (entry, _) = junk.act(n, GroupAct::Remove(vec![3]), (3, &secret(3)), &roster).unwrap();
        log.insert(vec![entry], &roster);
    }
    assert!(log.all().len() <= 2 + MAX_ENTRIES);
    let mut other = root.clone();
    let lost = act(&mut other, 2, GroupAct::Remove(vec![2]), &roster);
    log.insert(vec![lost.clone()], &roster);
    assert!(log.all().contains(&lost), "of whoever has few, they stay");
    act(&mut log, 0, GroupAct::Rename("still works".into()), &roster);
}

#[test]
fn a_log_ends_and_says_so() {
    let roster = roster(2);
    let mut log = created(&roster, &[1]);
    for n in 1..MAX_ENTRIES {
        act(&mut log, 0, GroupAct::Expire(n as u32), &roster);
    }
    let refused = log.act(2, GroupAct::Expire(0), (0, &secret(0)), &roster);
    assert_eq!(refused.unwrap_err(), NotAllowed::TooLong);
}

#[test]
fn a_signature_is_for_one_organisation_and_one_author() {
    let roster = roster(3);
    let mut log = created(&roster, &[1]);
    let previous = log.chain().next().unwrap().hash();
    let entry =
        |author| GroupEntry { number: 1, previous, at: 2, author, act: GroupAct::Expire(5) };
    let other = SecretIdentity::from_bytes(&[201; 32]).identity();
    let wrong = [
        SignedEntry::new(&other, entry(0), &secret(0)),
        SignedEntry::new(&roster.organisation, entry(0), &secret(1)),
        SignedEntry::new(&roster.organisation, entry(1), &secret(1)),
    ];
    for signed in wrong {
        assert_eq!(log.insert(vec![signed], &roster).new, 0);
    }
    let right = SignedEntry::new(&roster.organisation, entry(0), &secret(0));
    assert_eq!(log.insert(vec![right.clone(), right], &roster).new, 1);
}

#[test]
fn who_lacks_entries_is_given_those() {
    let roster = roster(6);
    let mut log = created(&roster, &[1, 2]);
    act(&mut log, 0, GroupAct::Appoint(1, GroupRole::Admin), &roster);
    let mut other = log.clone();
    act(&mut other, 1, GroupAct::Add(vec![4]), &roster);
    act(&mut log, 0, GroupAct::Add(vec![3]), &roster);
    act(&mut log, 0, GroupAct::Add(vec![5]), &roster);
    assert_eq!(log.lacking(&other.head().mark).len(), 4, "it is of a line that is not known");
    log.insert(other.all(), &roster);
    assert_eq!(log.lacking(&other.head().mark).len(), 2);
    assert!(log.lacking(&log.head().mark).is_empty());
    let unknown = GroupMark { hash: [0; 8], ..log.head().mark };
    assert_eq!(log.lacking(&unknown).len(), 4);
    let lacking = log.lacking(&other.head().mark);
    // Backwards: each is known when the ones before it have come.
    for entry in lacking.into_iter().rev() {
        other.insert(vec![entry], &roster);
    }
    assert_eq!(other.head(), log.head());
}

#[derive(Clone, Debug)]
enum Step {
    Act {
        by: u32,
        what: u8,
        on: u32,
    },
    /// Some entries go from one to another, in this order.
    Pass {
        from: u32,
        to: u32,
        order: Vec<u8>,
    },
    Leave(u32),
    /// Somebody's device gets the present directory.
    Hear(u32),
}

const PEOPLE: u32 = 6;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let person = 0..PEOPLE;
    let act = (person.clone(), 0u8..7, person.clone()).prop_map(|(by, what, on)| Step::Act {
        by: by / 2,
        what,
        on,
    });
    let pass = (person.clone(), person.clone(), proptest::collection::vec(any::<u8>(), 0..8))
        .prop_map(|(from, to, order)| Step::Pass { from, to, order });
    let leave = (person.clone()).prop_map(Step::Leave);
    let hear = person.prop_map(Step::Hear);
    proptest::collection::vec(prop_oneof![6 => act, 6 => pass, 1 => leave, 2 => hear], 0..60)
}

fn what(what: u8, on: u32, log: &GroupLog) -> GroupAct {
    match what {
        0 => GroupAct::Add(vec![on]),
        1 => GroupAct::Remove(vec![on]),
        2 => GroupAct::Appoint(on, GroupRole::Admin),
        3 => GroupAct::Appoint(on, GroupRole::Member),
        4 => GroupAct::Appoint(on, GroupRole::Owner),
        5 => GroupAct::Rename(format!("{} {on}", log.head().mark.number)),
        _ => GroupAct::Affirm,
    }
}

/// All pass all that they have to all, who have the same directory, and affirm what is to be affirmed, until nothing changes.
fn meet(logs: &mut [GroupLog], roster: &Roster) {
    for round in 0..10 {
        let mut is_over = true;
        for person in 0..PEOPLE {
            let log = &mut logs[person as usize];
            log.insert(Vec::new(), roster);
            let after = log.affirms_after(person, roster);
            is_over &= after.is_none();
            if after.is_some_and(|after| after <= round) && roster.devices.contains_key(&person) {
                act(log, person, GroupAct::Affirm, roster);
            }
        }
        let all: Vec<Vec<SignedEntry>> =
            logs.iter().map(|log| log.chain().cloned().collect()).collect();
        for log in logs.iter_mut() {
            for entries in &all {
                is_over &= log.insert(entries.clone(), roster).new == 0;
            }
        }
        if is_over {
            return;
        }
    }
    panic!("it does not end");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Admins act at once, entries are lost, doubled and come in any order, people leave the organisation, and not all hear of it
    /// at once: those who still belong to it end with one state as soon as each has what the others count.
    #[test]
    fn all_end_with_one_state(steps in steps()) {
        let first = roster(PEOPLE);
        let mut last = first.clone();
        let mut rosters = vec![first.clone(); PEOPLE as usize];
        let mut logs = vec![created(&first, &[1, 2, 3]); PEOPLE as usize];
        for step in steps {
            match step {
                Step::Act { by, what: kind, on } => {
                    let log = &mut logs[by as usize];
                    let act = what(kind, on, log);
                    let roster = &rosters[by as usize];
                    if roster.devices.contains_key(&by) {
                        let _ = log.act(2, act, (by, &secret(by)), roster);
                    }
                }
                Step::Pass { from, to, order } => {
                    let all = logs[from as usize].all();
                    let some = order.iter().filter_map(|at| all.get(usize::from(*at) % (all.len() + 2)));
                    let some: Vec<SignedEntry> = some.cloned().collect();
                    logs[to as usize].insert(some, &rosters[to as usize]);
                }
                // Somebody stays.
                Step::Leave(person) => if last.people.len() > 2 { leave(&mut last, person) },
                Step::Hear(person) => {
                    rosters[person as usize] = last.clone();
                    logs[person as usize].insert(Vec::new(), &last);
                }
            }
        }
        meet(&mut logs, &last);
        let there: BTreeSet<u32> = last.people.clone();
        let heads = there.iter().map(|person| (person, logs[*person as usize].head()));
        let heads = heads.filter(|(person, head)| head.person(**person).is_some());
        let heads: Vec<&GroupState> = heads.map(|(_, head)| head).collect();
        prop_assert!(heads.windows(2).all(|pair| pair[0] == pair[1]), "{heads:?}");
        // What is written down is read as it was.
        for log in &logs {
            let again = GroupLog::load(&log.all(), &last).unwrap();
            prop_assert_eq!(again.head(), log.head());
        }
    }
}
