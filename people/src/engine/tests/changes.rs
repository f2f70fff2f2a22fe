use rand::RngExt;

use super::super::*;
use super::world::*;
use crate::{Body, MessageName, State};

#[test]
fn a_change_is_told_as_the_state_of_what_it_changes() {
    let mut world = World::new(2, Net::GOOD, 1);
    let name = world.write(0, 1, "helo");
    world.run_until(BEGIN + 5 * MINUTE);
    world.write(1, 0, "hello yourself");
    world.run_until(BEGIN + 6 * MINUTE);
    assert_eq!(world.nodes[0].states[&name], State::Delivered);
    let edit = world.send(0, 1, &Body::Edit(name, "hello".into()));
    assert!(matches!(world.nodes[0].states[&name], State::Queued(_)));
    world.run_until(BEGIN + 7 * MINUTE);
    assert_eq!(world.nodes[0].states[&name], State::Left);
    // Whoever begins anew is told the same.
    world.nodes[0].states.clear();
    world.restart(0);
    world.run_until(BEGIN + 8 * MINUTE);
    assert_eq!(world.nodes[0].states[&name], State::Left);
    world.write(1, 0, "!");
    world.run_until(BEGIN + 9 * MINUTE);
    assert_eq!(world.nodes[0].states[&name], State::Delivered);
    assert!(!world.nodes[0].states.contains_key(&edit));
    let last = world.shown(1).pop().unwrap();
    assert_eq!((last.name, last.body), (edit, Body::Edit(name, "hello".into())));
    // A change of what has not arrived stands where that stands.
    world.disconnect(1);
    let away = world.write(0, 1, "again");
    world.send(0, 1, &Body::Delete(away));
    world.run_until(BEGIN + 20 * DAY);
    assert!(matches!(world.nodes[0].states[&away], State::Expired(_)));
}

#[test]
fn a_change_that_overtakes_what_it_changes_waits_for_it() {
    for kills in [0, 30] {
        let mut world = World::new(2, Net { delay_ms: 60_000, ..Net::BAD }, 7 + kills);
        let mut written: Vec<MessageName> = Vec::new();
        let mut changes = 0;
        for n in 0..300_u64 {
            let at = world.now + world.rng.random_range(0..2 * MINUTE);
            world.run_until(at);
            if world.rng.random_bool(kills as f64 / 300.0) {
                let n = world.rng.random_range(0..2);
                world.restart(n);
            }
            let of = match world.rng.random_range(0..4) {
                0 if n > 0 => written[world.rng.random_range(0..written.len())],
                1 if n > 0 => *written.last().unwrap(),
                _ => {
                    // Of one part or of several.
                    let text = "text ".repeat(1 + 700 * (n as usize % 2));
                    written.push(world.write(0, 1, &text));
                    continue;
                }
            };
            let text = "more ".repeat(1 + 700 * (n as usize % 3));
            world.send(0, 1, &if n % 7 == 0 { Body::Delete(of) } else { Body::Edit(of, text) });
            changes += 1;
        }
        world.run_until(world.now + 20 * DAY);
        let shown = world.shown(1);
        let changed = shown.iter().filter(|message| message.body.changes().is_some()).count();
        assert_eq!((shown.len() - changed, changed), (written.len(), changes));
        assert_eq!(world.nodes[1].unfounded, 0);
        assert!(!world.nodes[1].disk.keys().any(|key| matches!(key, Key::Early(_))));
    }
}

#[test]
fn changes_of_what_never_comes_take_little_room_and_go() {
    let mut world = World::new(2, Net::GOOD, 3);
    world.write(0, 1, "hello");
    let of = |n: u64| MessageName { device: 0, stream: n, sequence: 1 };
    for n in 0..200 {
        world.send(0, 1, &Body::Delete(of(n)));
        world.run_until(world.now + MINUTE);
    }
    let waiting = |world: &World| {
        world.nodes[1].disk.keys().filter(|key| matches!(key, Key::Early(_))).count()
    };
    assert_eq!(waiting(&world), 64);
    // Somebody else's message is not its own to change, and nothing waits for it.
    world.send(0, 1, &Body::Delete(MessageName { device: 7, stream: 1, sequence: 1 }));
    world.run_until(world.now + HOUR);
    assert_eq!(waiting(&world), 64);
    world.restart(1);
    world.run_until(world.now + 15 * DAY);
    world.enrol(|_| ());
    assert_eq!(waiting(&world), 0);
}
