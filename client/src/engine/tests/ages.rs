//! Pseudonyms age: ten minutes after its first stream a group takes no more, and another one begins.

use super::shares::User;
use super::*;
use crate::world::World;

/// As if what takes minutes took seconds.
fn hasten(world: &mut World, id: GroupId) {
    let ages = &mut world.client.groups.get_mut(&id).unwrap().ages;
    ages.lifetime = Duration::from_secs(12);
    ages.lead = Duration::from_secs(3);
    ages.linger = Duration::from_secs(4);
}

fn of(world: &mut World, name: &[u8]) -> GroupId {
    let isolation = Isolation::new(Some((name, b"")));
    world.client.group(world.now, isolation, Target::Exit).unwrap()
}

#[test]
fn a_pseudonym_lives_for_eight_to_ten_minutes_and_no_two_for_as_long() {
    let mut client = client();
    (0..50_u8).for_each(|n| _ = group(&mut client, &[n]));
    let mut lives: Vec<Duration> =
        client.groups.values().map(|group| group.ages.lifetime).collect();
    assert!(lives.iter().all(|life| (480..=600).contains(&life.as_secs())));
    lives.sort();
    lives.dedup();
    assert_eq!(lives.len(), 50);
}

#[test]
fn new_streams_go_to_a_new_pseudonym_and_old_ones_go_on_until_they_end() {
    let mut world = World::new(1, 10_000);
    let mut old = User::new(&mut world, b"alice");
    hasten(&mut world, old.group);
    world.run(Time::from_secs(3));
    old.downloads(&mut world);
    while world.now < Time::from_secs(14) {
        world.run(world.now + Duration::from_millis(50));
        old.downloads(&mut world);
        let present = of(&mut world, b"alice");
        assert!(present == old.group, "{:?}", world.now);
    }
    // Another one stands already: it began before it was needed.
    assert_eq!(world.client.groups.len(), 2);
    world.run(Time::from_secs(16));
    let mut new = User::new(&mut world, b"alice");
    assert!(new.group != old.group && world.client.stage(new.group) == Some(GroupStage::Connected));
    let names = [old.group, new.group].map(|id| world.client.pseudonym(id));
    assert_ne!(names[0], names[1]);
    // Both carry streams.
    let before = old.read;
    while world.now < Time::from_secs(40) {
        world.run(world.now + Duration::from_millis(50));
        old.downloads(&mut world);
        new.downloads(&mut world);
        assert_eq!(of(&mut world, b"alice"), new.group);
    }
    assert!(
        old.read - before > 100_000 && new.read > 100_000,
        "{} {}",
        old.read - before,
        new.read
    );
    // The old one goes some time after its last stream, and nothing of the new one with it.
    old.rests(&mut world);
    let rested = world.now;
    while world.client.stage(old.group).is_some() {
        world.run(world.now + Duration::from_millis(50));
        new.downloads(&mut world);
    }
    let after = world.now.since(rested).as_secs_f64();
    assert!((4.0..4.6).contains(&after), "{after} s");
    assert_eq!(world.client.stage(new.group), Some(GroupStage::Connected));
}

#[test]
fn a_pseudonym_that_nobody_asks_for_has_no_successor() {
    let mut world = World::new(2, 10_000);
    let mut old = User::new(&mut world, b"alice");
    hasten(&mut world, old.group);
    world.run(Time::from_secs(3));
    old.downloads(&mut world);
    // One stream for minutes, and no other.
    world.client.groups.get_mut(&old.group).unwrap().ages.lifetime = Duration::from_secs(130);
    for _ in 0..3_000 {
        world.run(world.now + Duration::from_millis(50));
        old.downloads(&mut world);
    }
    assert_eq!(world.client.groups.len(), 1);
    assert_ne!(of(&mut world, b"alice"), old.group, "on first need");
}

#[test]
fn the_bound_counts_old_pseudonyms_too_and_those_without_streams_make_room() {
    let mut client = client();
    let later = Time::from_secs(1_000);
    for i in 0..MAX_GROUPS {
        let id = group(&mut client, &i.to_be_bytes());
        // Two are old: one has a stream.
        let group = client.groups.get_mut(&id).unwrap();
        group.opened = (i < 2).then_some(Time::ZERO);
        group.connected = i < 2;
        group.streams = usize::from(i == 0);
    }
    let mut more =
        |name: &[u8]| client.group(later, Isolation::new(Some((name, b""))), Target::Exit);
    assert!(more(b"one more").is_some());
    assert!(more(b"two more").is_none(), "who has a stream stays");
    assert_eq!(client.groups.len(), MAX_GROUPS);
}

#[test]
fn a_successor_goes_on_with_the_share_of_one_that_has_no_streams_left() {
    let mut world = World::new(3, 10_000);
    let mut old = User::new(&mut world, b"alice");
    hasten(&mut world, old.group);
    world.client.groups.get_mut(&old.group).unwrap().ages.linger = Duration::from_secs(30);
    world.run(Time::from_secs(3));
    while world.now < Time::from_secs(12) {
        world.run(world.now + Duration::from_millis(50));
        old.downloads(&mut world);
    }
    old.rests(&mut world);
    let had = world.client.shares.share(old.group);
    assert!(had > 0.8, "{had}: alone");
    world.run(Time::from_secs(17));
    let mut new = User::new(&mut world, b"alice");
    assert_ne!(new.group, old.group);
    new.downloads(&mut world);
    assert_eq!(world.client.shares.share(new.group), had);
    // And at the instants that follow it is still alone.
    while world.now < Time::from_secs(60) {
        world.run(world.now + Duration::from_millis(50));
        new.downloads(&mut world);
        assert_eq!(world.client.shares.share(new.group), had, "{:?}", world.now);
    }
}
