use rand::RngExt;

use super::super::*;
use super::world::*;
use crate::{Body, State, Waiting};

#[test]
fn a_message_arrives_and_its_writer_hears_of_it() {
    let mut world = World::new(2, Net::GOOD, 1);
    let name = world.write(0, 1, "hello");
    world.run_until(BEGIN + 5 * MINUTE);
    assert_eq!(world.texts(1), ["hello"]);
    // The second copy is nothing new.
    assert_eq!(world.nodes[0].posted.len(), 2);
    assert_eq!(world.nodes[0].states[&name], State::Left);
    // An acknowledgement of its own comes within hours, and earlier with an answer.
    let mut silent = World::new(2, Net::GOOD, 2);
    let unanswered = silent.write(0, 1, "hello");
    silent.run_until(BEGIN + 10 * HOUR);
    assert_eq!(silent.nodes[0].states[&unanswered], State::Delivered);
    world.write(1, 0, "hello yourself");
    world.run_until(BEGIN + 6 * MINUTE);
    assert_eq!(world.nodes[0].states[&name], State::Delivered);
    assert_eq!(world.texts(0), ["hello yourself"]);
}

#[test]
fn a_message_that_cannot_leave_says_for_what_it_waits() {
    let mut world = World::new(2, Net::GOOD, 21);
    world.disconnect(0);
    let name = world.write(0, 1, "hello");
    assert_eq!(world.nodes[0].states[&name], State::Queued(Waiting::Offline));
    let mut behind = world.roster.clone();
    behind.is_current = false;
    world.input(0, Input::Roster(behind));
    world.connect(0);
    assert_eq!(world.nodes[0].states[&name], State::Queued(Waiting::Directory));
    // Whoever begins anew has no link.
    world.nodes[0].is_on = false;
    world.restart(0);
    world.outputs(0);
    assert_eq!(world.nodes[0].states[&name], State::Queued(Waiting::Offline));
    world.connect(0);
    world.run_until(BEGIN + MINUTE);
    assert_eq!(world.nodes[0].states[&name], State::Left);
}

#[test]
fn both_may_begin_at_once() {
    let mut world = World::new(2, Net::GOOD, 3);
    for n in 0..20 {
        world.write(0, 1, &format!("a{n}"));
        world.write(1, 0, &format!("b{n}"));
    }
    world.run_until(BEGIN + DAY);
    assert_eq!((world.texts(0).len(), world.texts(1).len()), (20, 20));
    let all = world.nodes.iter().flat_map(|node| node.states.values());
    assert!(all.clone().count() == 40 && all.into_iter().all(|state| *state == State::Delivered));
}

#[test]
fn long_messages_go_in_parts_and_come_whole() {
    let mut world = World::new(2, Net::BAD, 4);
    let long: Vec<String> = (1..=8).map(|n| format!("{n}").repeat(n * PART - 1)).collect();
    for text in &long {
        world.write(0, 1, text);
    }
    let too_long = Body::Text("x".repeat(8 * PART));
    let refused = world.nodes[0].engine.send(world.now, 1, &too_long, 0);
    assert_eq!(refused, Err(NotSent::TooLong));
    world.run_until(BEGIN + 2 * DAY);
    assert_eq!(world.texts(1), long);
}

/// Two who write at random instants, while their programs are killed again and again, some of them after they saved and before
/// they did what follows.
fn killed(seed: u64, messages: usize, kills: usize) -> (World, usize) {
    let mut world = World::new(2, Net::BAD, seed);
    let (span, mut taken) = (2 * DAY, 0);
    let mut instants: Vec<(u64, usize)> = Vec::new();
    for what in 0..messages + kills {
        instants.push((BEGIN + world.rng.random_range(0..span), what));
    }
    instants.sort_unstable();
    for (at, what) in instants {
        world.run_until(at);
        let n = world.rng.random_range(0..2);
        if what < messages {
            let name = world.write(n, 1 - n as u32, &format!("message {what}"));
            // A program that dies before it has saved what was written never took it.
            taken += usize::from(is_known(&world.nodes[n], &name));
        } else if world.rng.random_bool(0.5) {
            world.restart(n);
        } else {
            world.nodes[n].dies_after = Some(world.rng.random_range(0..4));
        }
    }
    world.run_until(BEGIN + span + 12 * DAY);
    (world, taken)
}

#[test]
fn every_message_is_shown_once_though_programs_are_killed() {
    for seed in seeds(5) {
        let (world, taken) = killed(seed, 1_000, 100);
        check_shown(&world, taken);
    }
}

fn check_shown(world: &World, taken: usize) {
    let mut all = [world.texts(0), world.texts(1)].concat();
    all.sort_unstable();
    let before = all.len();
    all.dedup();
    assert_eq!(before, all.len(), "none twice");
    assert!(taken > 950 && all.len() == taken, "{} of {taken}", all.len());
    for node in &world.nodes {
        for (name, state) in &node.states {
            let other = &world.nodes[1 - name.device as usize];
            let is_shown = other.disk.contains_key(&Key::Received(*name));
            assert!(
                is_shown || matches!(state, State::Expired(_)) || !is_known(node, name),
                "{name:?}: {state:?}"
            );
        }
    }
}

/// True if a message that was written is on the disk of its writer, or was until it was delivered.
fn is_known(node: &Node, name: &crate::MessageName) -> bool {
    node.disk.contains_key(&Key::Outgoing(*name))
}

#[test]
fn states_from_old_backups_lose_no_message() {
    for seed in seeds(6) {
        set_back(seed);
    }
}

/// This seed; or as many from it on as SHOAL_TEST_SEEDS says.
pub(super) fn seeds(first: u64) -> std::ops::Range<u64> {
    let count = std::env::var("SHOAL_TEST_SEEDS").ok().and_then(|text| text.parse().ok());
    first..first + count.unwrap_or(1)
}

/// Two who write, and are set back to an older state again and again.
fn set_back(seed: u64) {
    let mut world = World::new(2, Net::BAD, seed);
    let mut backups = [world.nodes[0].disk.clone(), world.nodes[1].disk.clone()];
    let mut text = 0;
    for step in 0..3_000u64 {
        world.run_until(BEGIN + step * MINUTE);
        let n = world.rng.random_range(0..2);
        if world.rng.random_bool(0.3) {
            world.write(n, 1 - n as u32, &format!("message {text}"));
            text += 1;
        }
        if step % 100 == 37 {
            backups[n] = world.nodes[n].disk.clone();
        }
        if step % 211 == 110 {
            world.nodes[n].disk = backups[n].clone();
            world.restart(n);
        }
    }
    world.run_until(world.now + 12 * DAY);
    for n in 0..2 {
        let own = world.nodes[n].disk.keys().filter_map(|key| match key {
            Key::Outgoing(name) => Some(*name),
            _ => None,
        });
        let own: Vec<_> = own.collect();
        let other = &world.nodes[1 - n].disk;
        let lost: Vec<_> =
            own.iter().filter(|name| !other.contains_key(&Key::Received(**name))).collect();
        assert!(
            own.len() > 100 && lost.is_empty(),
            "{} of {} lost: {lost:?}",
            lost.len(),
            own.len()
        );
    }
}

#[test]
fn who_was_away_for_six_days_gets_all_once_and_in_order() {
    let mut world = World::new(2, Net::GOOD, 7);
    world.write(0, 1, "before");
    world.run_until(BEGIN + HOUR);
    world.disconnect(1);
    let mut sent = vec!["before".to_owned()];
    for n in 0..300u64 {
        world.run_until(BEGIN + 2 * HOUR + n * 6 * DAY / 300);
        let text = format!("{n}");
        world.write(0, 1, &text);
        sent.push(text);
        if n % 50 == 0 {
            world.rotate(0);
        }
    }
    world.run_until(BEGIN + 6 * DAY + 2 * HOUR);
    // To a device that is silent for a day: one copy at once, then one a day.
    let posted = world.nodes[0].posted.len();
    assert!(posted < 300 * 6, "{posted}");
    world.connect(1);
    world.run_until(world.now + 5 * MINUTE);
    assert_eq!(world.texts(1), sent);
    world.run_until(world.now + 2 * DAY);
    assert_eq!(world.texts(1), sent);
    assert!(world.nodes[0].states.values().all(|state| *state == State::Delivered));
}

#[test]
fn whoever_comes_back_does_not_show_at_once_whom_he_repeats_to() {
    let mut world = World::new(3, Net::GOOD, 8);
    world.disconnect(1);
    world.disconnect(2);
    for to in [1, 2] {
        world.write(0, to, "hello");
    }
    world.run_until(BEGIN + HOUR);
    world.disconnect(0);
    // Both were to be tried again meanwhile.
    world.run_until(BEGIN + 12 * HOUR);
    let before = world.nodes[0].posted.len();
    world.connect(0);
    world.run_until(world.now + 1_000);
    assert_eq!(world.nodes[0].posted.len(), before);
    let back = world.now;
    world.run_until(back + 12 * HOUR);
    let since: Vec<u64> =
        world.nodes[0].posted[before..].iter().map(|(at, _)| (at - back) / MINUTE).collect();
    assert!(
        (2..=6).contains(&since.len()) && since.iter().any(|minutes| *minutes >= 1),
        "{since:?}"
    );
    // What is new leaves at once.
    let before = world.nodes[0].posted.len();
    world.write(0, 1, "new");
    assert_eq!(world.nodes[0].posted.len(), before + 1);
}

#[test]
fn nobody_is_asked_for_keys_again_and_again() {
    let mut world = World::new(2, Net::GOOD, 9);
    // Its gateway knows nothing of it.
    world.enrol(|roster| _ = roster.devices.insert(7, listed(7, 7)));
    let name = world.write(0, 7, "hello");
    world.run_until(BEGIN + 2 * DAY);
    let sought = world.nodes[0].sought;
    assert!((8..=26).contains(&sought), "{sought} in two days");
    assert_eq!(world.nodes[0].states[&name], State::Queued(Waiting::NoKeys));
    world.run_until(BEGIN + 15 * DAY);
    assert_eq!(world.nodes[0].states[&name], State::Expired(Waiting::NoKeys));
}

#[test]
fn a_removed_device_is_written_to_no_more_and_its_owners_others_are() {
    let mut world = World::new(3, Net::GOOD, 10);
    world.disconnect(1);
    let name = world.write(0, 1, "for the person");
    world.run_until(BEGIN + HOUR);
    let before = world.nodes[0].posted.len();
    // Device 2 belongs to person 1 now, and device 1 to nobody.
    world.enrol(|roster| {
        roster.devices.remove(&1);
        roster.devices.insert(2, listed(2, 1));
    });
    world.connect(1);
    world.run_until(BEGIN + 2 * DAY);
    assert_eq!(world.texts(2), ["for the person"]);
    assert_eq!(world.nodes[0].states[&name], State::Delivered);
    // What was under way reached it; nothing since.
    let after = world.nodes[0].posted[before..].to_vec();
    assert!(after.iter().all(|(_, packet)| !world.opens(1, packet)), "nothing for who was removed");
    // And nothing is taken from it.
    let came = world.shown(0).len();
    let said = world.nodes[1].engine.send(world.now, 0, &Body::Text("I am still here".into()), 0);
    assert!(said.is_ok());
    world.run_until(world.now + DAY);
    assert_eq!(world.shown(0).len(), came);
    // Without any device of the person its messages end at once, and say why.
    let name = world.write(0, 1, "more");
    world.enrol(|roster| _ = roster.devices.remove(&2));
    assert_eq!(world.nodes[0].states[&name], State::Expired(Waiting::Removed));
    let nobody = world.nodes[0].engine.send(world.now, 1, &Body::Text("more".into()), 0);
    assert_eq!(nobody, Err(NotSent::NoDevice));
}

#[test]
fn nothing_leaves_before_the_directory_is_there_and_a_new_device_was_held() {
    let mut world = World::new(2, Net::GOOD, 11);
    world.enrol(|roster| roster.is_current = false);
    let name = world.write(0, 1, "hello");
    world.run_until(BEGIN + HOUR);
    assert!(world.nodes[0].posted.is_empty());
    let until = (BEGIN + 5 * HOUR) / 1_000;
    world.enrol(|roster| {
        roster.is_current = true;
        roster.devices.insert(1, crate::RosterDevice { held_until: until, ..listed(1, 1) });
    });
    world.run_until(BEGIN + 4 * HOUR);
    assert!(world.nodes[0].posted.is_empty());
    assert_eq!(world.nodes[0].states[&name], State::Queued(Waiting::Held));
    world.run_until(BEGIN + 6 * HOUR);
    assert_eq!(world.texts(1), ["hello"]);
}

#[test]
fn a_session_is_new_with_each_period_of_the_other_one() {
    let mut world = World::new(2, Net::GOOD, 12);
    for day in 0..4 {
        world.run_until(BEGIN + day * DAY + HOUR);
        world.rotate(0);
        world.rotate(1);
        world.write(0, 1, "hello");
        world.run_until(world.now + MINUTE);
        world.write(1, 0, "hello");
    }
    world.run_until(world.now + HOUR);
    let sessions = &world.nodes[0].engine.peers[&1].sessions;
    let mut periods: Vec<[u8; 4]> =
        sessions.values().filter_map(|session| session.their_key()).collect();
    periods.dedup();
    assert!(periods.len() == 4, "{periods:?}");
    assert_eq!((world.texts(0).len(), world.texts(1).len()), (4, 4));
}
