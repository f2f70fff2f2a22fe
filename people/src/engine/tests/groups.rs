use std::collections::BTreeSet;

use rand::RngExt;

use super::super::*;
use super::conversations::seeds;
use super::world::*;
use crate::{Body, GroupAct, GroupRole, NotAllowed, State};

fn names(world: &World, n: usize, group: GroupId) -> Vec<u32> {
    let head = world.nodes[n].engine.group(&group);
    head.map(|head| head.people.iter().map(|one| one.person).collect()).unwrap_or_default()
}

#[test]
fn what_is_written_to_a_group_is_read_by_all_who_belong_to_it() {
    let mut world = World::new(5, Net::GOOD, 60);
    let group = world.found(0, &[1, 2, 3]);
    let name = world.write_to(0, group, "hello");
    world.run_until(BEGIN + 10 * MINUTE);
    for n in 1..4 {
        assert_eq!(world.texts(n), ["hello"], "{n}");
        assert_eq!(names(&world, n, group), [0, 1, 2, 3]);
    }
    assert!(world.nodes[4].engine.groups().next().is_none());
    assert_eq!(world.nodes[0].states[&name], State::Left);
    // Each is told of as it arrives; and an answer goes to all.
    world.write_to(1, group, "good morning");
    world.run_until(BEGIN + 20 * MINUTE);
    assert_eq!(world.nodes[0].reached[&name], (1, 3));
    assert_eq!(world.texts(3), ["hello", "good morning"]);
    assert_eq!(world.texts(0), ["good morning"]);
    world.run_until(BEGIN + DAY);
    assert_eq!(world.nodes[0].reached[&name], (3, 3));
    assert_eq!(world.nodes[0].states[&name], State::Delivered);
    // A text leaves once, what was done to the group twice.
    let mut once = World::new(2, Net::GOOD, 61);
    let group = once.found(0, &[1]);
    once.run_until(BEGIN + 10 * MINUTE);
    let before = once.nodes[0].posted.len();
    once.write_to(0, group, "hello");
    once.run_until(BEGIN + 20 * MINUTE);
    assert_eq!((before, once.nodes[0].posted.len()), (2, 3));
}

#[test]
fn whoever_was_removed_reads_nothing_more_and_is_read_no_more() {
    let mut world = World::new(4, Net::GOOD, 62);
    let group = world.found(0, &[1, 2]);
    world.run_until(BEGIN + 10 * MINUTE);
    world.disconnect(1);
    // What he wrote before he was removed is read, though it comes after he was.
    world.write_to(1, group, "before");
    world.run_until(BEGIN + 20 * MINUTE);
    world.act(0, group, GroupAct::Remove(vec![1]));
    world.write_to(0, group, "without him");
    // He has not heard of it, and goes on.
    world.run_until(BEGIN + 30 * MINUTE);
    world.write_to(1, group, "after");
    world.connect(1);
    world.run_until(BEGIN + 6 * HOUR);
    assert_eq!(world.texts(1), [""; 0]);
    assert_eq!(world.texts(2), ["before", "without him"], "whatever came first");
    assert_eq!(world.texts(0), ["before"]);
    assert_eq!(world.nodes[2].engine.counts().refused, 1);
    assert_eq!(names(&world, 1, group), [0, 2], "he was told");
    let refused = world.nodes[1].engine.send(
        world.now,
        Conversation::Group(group),
        &Body::Text("more".into()),
        0,
    );
    assert_eq!(refused, Err(NotAllowed::NoMember.into()));
    // Whoever is added later knows who belongs to it and what was done, and none of what was written.
    world.act(0, group, GroupAct::Add(vec![3]));
    world.run_until(BEGIN + 7 * HOUR);
    world.write_to(2, group, "welcome");
    world.run_until(BEGIN + 12 * HOUR);
    assert_eq!(world.texts(3), ["welcome"]);
    assert_eq!(names(&world, 3, group), [0, 2, 3]);
    // He comes back, and misses nothing that was not for him.
    world.act(0, group, GroupAct::Add(vec![1]));
    world.write_to(0, group, "back");
    world.run_until(BEGIN + 3 * DAY);
    assert_eq!(world.texts(1), ["back"]);
    assert_eq!(world.nodes[1].missed, 0);
}

#[test]
fn a_message_that_comes_before_what_it_names_waits_for_it() {
    let mut world = World::new(4, Net::GOOD, 63);
    let group = world.found(0, &[1, 2]);
    world.run_until(BEGIN + 10 * MINUTE);
    world.act(0, group, GroupAct::Appoint(1, GroupRole::Admin));
    world.run_until(BEGIN + 20 * MINUTE);
    // The others know of what is done now, and this one loses it: both copies.
    world.lose_for(2, true);
    world.act(0, group, GroupAct::Add(vec![3]));
    world.run_until(BEGIN + 40 * MINUTE);
    world.lose_for(2, false);
    world.write_to(3, group, "hello");
    world.run_until(BEGIN + 41 * MINUTE);
    assert_eq!(world.texts(2), [""; 0]);
    assert_eq!(names(&world, 2, group), [0, 1, 2]);
    // It is still there after the program was killed, and shown when its writer has said what is lacking.
    world.restart(2);
    world.outputs(2);
    world.run_until(BEGIN + 3 * HOUR);
    assert_eq!(world.texts(2), ["hello"]);
    assert_eq!(names(&world, 2, group), [0, 1, 2, 3]);
    let left = world.nodes[2].disk.keys().filter(|key| matches!(key, Key::Early(_)));
    assert_eq!(left.count(), 0);
}

#[test]
fn what_two_admins_do_at_once_is_done() {
    let mut world = World::new(6, Net::BAD, 64);
    let group = world.found(0, &[1, 2]);
    world.act(0, group, GroupAct::Appoint(1, GroupRole::Admin));
    world.run_until(BEGIN + DAY);
    for n in [0, 1] {
        world.disconnect(n);
    }
    world.act(0, group, GroupAct::Add(vec![3]));
    world.act(1, group, GroupAct::Add(vec![4, 3]));
    world.act(1, group, GroupAct::Rename("Books".into()));
    world.act(0, group, GroupAct::Remove(vec![2]));
    world.run_until(BEGIN + DAY + HOUR);
    for n in [0, 1] {
        world.connect(n);
    }
    world.run_until(BEGIN + 4 * DAY);
    for n in [0, 1, 3, 4] {
        let head = world.nodes[n].engine.group(&group).unwrap();
        assert_eq!(names(&world, n, group), [0, 1, 3, 4], "{n}");
        assert_eq!(head.name, "Books");
    }
    // Who did it last is told that it did not count at first.
    assert!(world.nodes[1].groups.iter().any(|changed| !changed.undone.is_empty()));
}

#[test]
fn strangers_change_and_write_nothing() {
    let mut world = World::new(4, Net::GOOD, 65);
    let group = world.found(0, &[1, 2]);
    world.run_until(BEGIN + 10 * MINUTE);
    let head = world.nodes[0].engine.group(&group).unwrap().clone();
    // A stranger knows the group's name and last entry, and writes as if he belonged to it.
    let devices = world.nodes[3].engine.devices_of_people(&[0, 1, 2]);
    let (to, mark) = (Conversation::Group(group), Some(head.mark));
    let at = (world.now, world.now, world.now);
    let text = Body::Text("hello".into());
    let engine = &mut world.nodes[3].engine;
    engine.queue(at, to, mark, devices.clone(), &text, 0).unwrap();
    // He asks for the log, and makes one of his own in its name.
    engine
        .queue(at, to, Some(GroupMark::of_log(group)), devices.clone(), &Body::WantEntries(None), 0)
        .unwrap();
    engine.queue(at, to, Some(GroupMark::of_log(group)), devices, &text, 0).unwrap();
    engine.pump(world.now);
    engine.flush();
    world.outputs(3);
    world.run_until(BEGIN + DAY);
    for n in 0..3 {
        assert_eq!(world.texts(n), [""; 0]);
        assert_eq!(world.nodes[n].engine.counts().refused, 2);
        assert_eq!(world.nodes[n].engine.group(&group), Some(&head));
    }
    assert!(world.nodes[3].engine.groups().next().is_none());
}

#[test]
fn a_message_to_one_person_does_not_wait_behind_a_group() {
    let mut world = World::new(40, Net::GOOD, 66);
    let all: Vec<u32> = (1..39).collect();
    let group = world.found(0, &all);
    world.run_until(BEGIN + HOUR);
    let before = world.nodes[0].posted.len();
    world.write_to(0, group, "to all");
    world.write_to(0, group, "to all again");
    world.write(0, 39, "to one");
    let ahead = world.nodes[0].posted.len() - before;
    assert!(ahead <= POSTED_GROUPS + 1, "{ahead}");
    world.run_until(BEGIN + HOUR + 4 * MINUTE);
    assert_eq!(world.texts(39), ["to one"]);
    assert_eq!(world.texts(7), ["to all", "to all again"]);
}

#[test]
fn a_group_with_more_devices_than_a_class_writes_to_is_refused_beforehand() {
    let mut world = World::with_devices(8, 2, Net::GOOD, 67);
    world.nodes[0].engine.settings.group_devices = 5;
    let refused = world.nodes[0].engine.found_group(world.now, "a", &[1, 2, 3]);
    assert_eq!(refused, Err(NotSent::TooMany(6, 5)));
    let group = world.found(0, &[1, 2]);
    assert_eq!(world.nodes[0].engine.group_devices(&group), (5, 5));
    let refused = world.nodes[0].engine.act(world.now, group, GroupAct::Add(vec![3]));
    assert_eq!(refused, Err(NotSent::TooMany(7, 5)));
    assert_eq!(names(&world, 0, group), [0, 1, 2]);
    // Nobody is in it whom the organisation does not have.
    let unknown = Err(NotAllowed::Unknown(99).into());
    assert_eq!(world.nodes[0].engine.act(world.now, group, GroupAct::Add(vec![99])), unknown);
    let refused = world.nodes[0].engine.found_group(world.now, "a", &[1, 99]);
    assert_eq!(refused, Err(NotAllowed::Unknown(99).into()));
}

/// Thirty people with two devices each, a twentieth of all packets lost, two admins who do things at once: each device shows each
/// message once that was written to its owner, and all end with one state.
#[test]
fn thirty_people_with_two_devices_each_miss_nothing() {
    seeds(68).for_each(thirty_people);
}

fn thirty_people(seed: u64) {
    let mut world = World::with_devices(62, 2, Net::BAD, seed);
    let all: Vec<u32> = (1..30).collect();
    let group = world.found(0, &all);
    world.act(0, group, GroupAct::Appoint(1, GroupRole::Admin));
    world.run_until(BEGIN + 12 * HOUR);
    let mut written: Vec<(String, u32)> = Vec::new();
    for n in 0..30 {
        let at = world.now + world.rng.random_range(0..20 * MINUTE);
        world.run_until(at);
        match n {
            10 => world.act(0, group, GroupAct::Rename("Books".into())),
            11 => world.act(2, group, GroupAct::Add(vec![30])),
            12 => world.act(2, group, GroupAct::Expire(86_400)),
            _ => {}
        }
        let device = world.rng.random_range(0..60);
        let text = format!("{n} of {device}");
        world.write_to(device as usize, group, &text);
        written.push((text, device));
    }
    let until = world.now + 5 * DAY;
    world.run_until(until);
    for device in 0..60 {
        let shown = world.texts(device as usize);
        let expected: BTreeSet<&String> =
            written.iter().filter(|(_, by)| *by != device).map(|(text, _)| text).collect();
        let got: BTreeSet<&String> = shown.iter().collect();
        assert_eq!(got.len(), shown.len(), "none twice");
        assert_eq!(got, expected, "{device}");
        assert_eq!(world.nodes[device as usize].missed, 0, "nor is a gap named");
        let head = world.nodes[device as usize].engine.group(&group).unwrap();
        assert_eq!(Some(head), world.nodes[0].engine.group(&group), "{device}");
        assert_eq!((head.name.as_str(), head.people.len(), head.expires_s), ("Books", 31, 86_400));
    }
}

/// Programs of a group are killed again and again, some after they saved and before they did what follows.
#[test]
fn a_group_whose_programs_are_killed_shows_each_message_once() {
    seeds(90).for_each(killed);
}

fn killed(seed: u64) {
    let mut world = World::new(5, Net::BAD, seed);
    let group = world.found(0, &[1, 2, 3]);
    world.run_until(BEGIN + DAY);
    let mut written = Vec::new();
    for n in 0..150 {
        let at = world.now + world.rng.random_range(0..20 * MINUTE);
        world.run_until(at);
        let by = world.rng.random_range(0..4);
        match n % 3 {
            0 => world.restart(by),
            1 => world.nodes[by].dies_after = Some(world.rng.random_range(0..6)),
            _ => {
                let text = format!("message {n}");
                let name = world.write_to(by, group, &text);
                if world.nodes[by].disk.contains_key(&Key::Outgoing(name)) {
                    written.push((text, by));
                }
            }
        }
        if n % 40 == 20 && world.nodes[0].dies_after.is_none() {
            let is_there = names(&world, 0, group).contains(&4);
            let act = if is_there { GroupAct::Remove } else { GroupAct::Add };
            world.act(0, group, act(vec![4]));
        }
    }
    let until = world.now + 5 * DAY;
    world.run_until(until);
    assert!(written.len() > 40);
    for n in 0..4 {
        let mut shown = world.texts(n);
        shown.sort_unstable();
        let mut expected: Vec<&String> =
            written.iter().filter(|(_, by)| *by != n).map(|(text, _)| text).collect();
        expected.sort_unstable();
        assert_eq!(shown.iter().collect::<Vec<_>>(), expected, "{n}");
        assert_eq!(world.nodes[n].engine.group(&group), world.nodes[0].engine.group(&group));
    }
}

#[test]
fn who_says_nothing_acknowledges_what_all_others_wrote() {
    let mut world = World::new(3, Net::GOOD, 70);
    let group = world.found(0, &[1, 2]);
    world.run_until(BEGIN + 10 * MINUTE);
    let mut names = Vec::new();
    for n in 0..30 {
        let at = world.now + 15_000;
        world.run_until(at);
        names.push((0, world.write_to(0, group, &format!("a{n}"))));
        let at = world.now + 15_000;
        world.run_until(at);
        names.push((1, world.write_to(1, group, &format!("b{n}"))));
        if n == 12 {
            names.push((2, world.write_to(2, group, "c")));
        }
    }
    let until = world.now + DAY;
    world.run_until(until);
    for (by, name) in names {
        let node = &world.nodes[by];
        assert_eq!(node.states[&name], State::Delivered, "{name:?} {:?}", node.reached.get(&name));
    }
}
