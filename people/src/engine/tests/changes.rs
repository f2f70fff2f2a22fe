use super::super::*;
use super::world::*;
use crate::{Body, State};

#[test]
fn a_change_is_told_as_the_state_of_what_it_changes() {
    let mut world = World::new(2, Net::GOOD, 1);
    let name = world.write(0, 1, "first words");
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
fn a_later_change_has_a_later_second_though_the_clock_was_set_back() {
    let mut world = World::new(2, Net::GOOD, 2);
    let name = world.write(0, 1, "one");
    let at = |world: &mut World, text: &str, after_s| {
        let change = Body::Edit(name, text.into());
        let engine = &mut world.nodes[0].engine;
        let change = engine.send_change(world.now, 1, &change, after_s).unwrap();
        world.run_until(world.now + MINUTE);
        let found = world.shown(1).into_iter().find(|message| message.name == change).unwrap();
        found.sent_at
    };
    let first = at(&mut world, "two", 0);
    // The clock was an hour ahead when the last change was written.
    let ahead = first + 3_600;
    assert_eq!(at(&mut world, "three", ahead), ahead + 1);
}

#[test]
fn what_is_taken_back_before_it_left_is_never_read_and_its_text_is_nowhere() {
    for (length, is_away) in [(5, true), (5 * PART, true), (5, false), (3 * PART, false)] {
        let mut world = World::new(2, Net::GOOD, 3);
        if is_away {
            // Nothing leaves.
            world.disconnect(0);
        }
        let text = "secret ".repeat(1 + length / 7);
        let name = world.write(0, 1, &text);
        world.run_until(BEGIN + 5 * MINUTE);
        let on_disk = |world: &World, n: usize| {
            let all =
                world.nodes[n].disk.iter().filter(|(key, _)| !matches!(key, Key::Received(_)));
            all.filter(|(_, bytes)| bytes.windows(7).any(|bytes| bytes == b"secret ")).count()
        };
        assert_eq!(on_disk(&world, 0), 1);
        let now = world.now;
        world.nodes[0].engine.take_back(now, 1, name, 0).unwrap();
        world.outputs(0);
        world.restart(0);
        assert_eq!(on_disk(&world, 0), 0);
        world.connect(0);
        world.run_until(BEGIN + 2 * DAY);
        let bodies: Vec<Body> = world.shown(1).into_iter().map(|message| message.body).collect();
        match is_away {
            true => assert_eq!(bodies, [Body::Empty]),
            false => assert_eq!(bodies, [Body::Text(text), Body::Delete(name)]),
        }
        assert_eq!(world.nodes[0].states[&name], State::Delivered);
    }
}

#[test]
fn the_text_of_what_has_arrived_is_forgotten_where_that_is_wanted() {
    let mut world = World::new(2, Net::GOOD, 4);
    let name = world.write(0, 1, "secret text");
    let holds = |world: &World| {
        let mut all = world.nodes[0].disk.values();
        all.any(|bytes| bytes.windows(11).any(|bytes| bytes == b"secret text"))
    };
    world.run_until(BEGIN + MINUTE);
    // It has not arrived: somebody may need it.
    world.nodes[0].engine.forget_texts(&[name]);
    world.outputs(0);
    assert!(holds(&world));
    world.write(1, 0, "thank you");
    world.run_until(BEGIN + 2 * MINUTE);
    assert_eq!(world.nodes[0].states[&name], State::Delivered);
    assert!(holds(&world));
    world.nodes[0].engine.forget_texts(&[name]);
    world.outputs(0);
    assert!(!holds(&world));
}
