use shoal_topology::{Engine, Seed};

use super::super::*;
use super::world::*;
use crate::packet::{Between, Opener};
use crate::session::Session;
use crate::{Body, Frame, PeriodKeys, State};

impl World {
    /// True if the keys of a device open this packet.
    pub(super) fn opens(&mut self, n: usize, packet: &[u8]) -> bool {
        let engine = &mut self.nodes[n].engine;
        let before = engine.peers.values().filter_map(|peer| peer.kept.heard).max();
        engine.handle(self.now, Input::Packet(PacketNumber(0), packet.to_vec()));
        engine.peers.values().filter_map(|peer| peer.kept.heard).max() > before
    }
}

/// A packet that opens a session with device 1, by whoever has this key, in the name of device `from`.
fn forged(world: &World, from: u32, by: u32, text: &str) -> Vec<u8> {
    let keys = world.nodes[1].engine.keys[0].public().clone();
    let listed = world.roster.devices[&1];
    let period = world.nodes[1].engine.keys[0].begins();
    let between = Between { organisation: &world.roster.organisation, to: &listed.key, period };
    let mut rng = Seed::from_u64(99).stream("attacker");
    // All that is public is what it should be.
    let (identity, secret) = (secret(from).identity(), &secret(by));
    let me = Opener { device: from, identity, secret, size: 10 };
    let mut session = Session::open(world.now, &between, &keys, &me, &mut rng).unwrap();
    let content = Body::Text(text.into()).encode();
    let frame = Frame {
        stream: 5,
        sequence: 1,
        begin: 1,
        oldest: 1,
        before: Vec::new(),
        part: 0,
        parts: 1,
        sent_at: world.now / 1_000,
        group: None,
        ack: None,
        expires_s: 0,
        content,
    };
    session.seal(&frame.encode(), &mut rng).unwrap()
}

#[test]
fn nobody_writes_in_another_ones_name() {
    let mut world = World::new(3, Net::GOOD, 1);
    // Device 2 is a member, and says that it is device 0.
    let packet = forged(&world, 0, 2, "it is me");
    world.comes(1, packet);
    assert!(world.shown(1).is_empty());
    // Under its own name it is heard: so the check above is what refused it.
    let packet = forged(&world, 2, 2, "it is me");
    world.comes(1, packet);
    let shown = world.shown(1);
    assert_eq!((shown.len(), shown[0].person), (1, 2));
    // Nor does anything vouch for the first one, which the gateway might have made.
    assert_eq!(world.nodes[1].vouched, [(PacketNumber(2), 2)]);
}

#[test]
fn a_session_vouches_for_each_copy_of_what_its_device_made_and_for_nothing_else() {
    let mut world = World::new(2, Net::GOOD, 8);
    world.write(0, 1, "first");
    world.run_until(BEGIN + 10 * MINUTE);
    world.write(1, 0, "answer");
    world.run_until(BEGIN + 20 * MINUTE);
    world.write(0, 1, "second");
    world.run_until(BEGIN + 30 * MINUTE);
    let node = &world.nodes[1];
    assert!(node.vouched.iter().all(|(_, by)| *by == 0), "{:?}", node.vouched);
    // Each packet that came, second copies among them.
    let came: Vec<u64> = node.vouched.iter().map(|(PacketNumber(number), _)| *number).collect();
    assert!(came.len() >= 3 && came == (1..=node.came).collect::<Vec<_>>(), "{came:?}");
    let packets: Vec<_> = world.nodes[0].posted.iter().map(|(_, packet)| packet.clone()).collect();
    let before = world.nodes[1].vouched.len();
    for packet in packets.clone() {
        let mut changed = packet.clone();
        *changed.last_mut().unwrap() ^= 1;
        world.comes(1, changed);
        assert_eq!(world.nodes[1].vouched.len(), before, "what was changed");
    }
    // The same once more: nothing new, and of the same device.
    for (n, packet) in packets.into_iter().enumerate() {
        world.comes(1, packet);
        let number = PacketNumber(world.nodes[1].came);
        assert_eq!(world.nodes[1].vouched.get(before + n), Some(&(number, 0)));
    }
}

#[test]
fn a_packet_for_one_device_says_nothing_to_another() {
    let mut world = World::new(3, Net::GOOD, 2);
    world.write(0, 1, "secret");
    world.run_until(BEGIN + MINUTE);
    let packets: Vec<_> = world.nodes[0].posted.iter().map(|(_, packet)| packet.clone()).collect();
    assert!(!packets.is_empty());
    for packet in packets {
        assert!(!world.opens(2, &packet));
    }
}

#[test]
fn changed_and_repeated_packets_do_nothing() {
    let mut world = World::new(2, Net::GOOD, 3);
    world.write(0, 1, "once");
    world.run_until(BEGIN + 10 * MINUTE);
    world.write(1, 0, "answer");
    world.run_until(BEGIN + 20 * MINUTE);
    world.write(0, 1, "twice");
    world.run_until(BEGIN + 30 * MINUTE);
    let packets: Vec<_> = world.nodes[0].posted.iter().map(|(_, packet)| packet.clone()).collect();
    for packet in &packets {
        world.comes(1, packet.clone());
        for at in [0, 1, 5, 700, 1_200, packet.len() - 1] {
            let mut changed = packet.clone();
            if let Some(byte) = changed.get_mut(at) {
                *byte ^= 1;
            }
            world.comes(1, changed);
            world.comes(1, packet[..at.min(packet.len())].to_vec());
        }
    }
    assert_eq!(world.texts(1), ["once", "twice"]);
    // And the conversation goes on.
    let name = world.write(0, 1, "still here");
    world.run_until(world.now + DAY);
    assert_eq!(world.texts(1).len(), 3);
    assert_eq!(world.nodes[0].states[&name], State::Delivered);
}

#[test]
fn a_descriptor_of_another_device_is_not_used() {
    let mut world = World::new(3, Net::GOOD, 4);
    let keys = PeriodKeys::new(&[7; 32], 0).public().clone();
    let name = world.nodes[0].engine.send(world.now, 1, &Body::Text("hello".into()), 0).unwrap();
    while world.nodes[0].engine.poll_output().is_some() {}
    let published = crate::Published { keys, device: 2, size: 10 };
    world.input(0, Input::Described { device: 1, found: Some((published, 0, u64::MAX)) });
    assert!(world.nodes[0].posted.is_empty());
    assert!(matches!(world.nodes[0].states[&name], State::Queued(_)));
}

#[test]
fn what_comes_from_a_device_of_a_directory_that_is_on_its_way_is_kept() {
    let mut world = World::new(2, Net::GOOD, 5);
    let whole = world.roster.clone();
    let mut less = whole.clone();
    less.devices.remove(&0);
    less.size -= 1;
    less.head = whole.size;
    world.input(1, Input::Roster(less));
    world.write(0, 1, "hello");
    world.run_until(BEGIN + MINUTE);
    assert!(world.shown(1).is_empty());
    world.input(1, Input::Roster(whole));
    assert_eq!(world.texts(1), ["hello"]);
}

#[test]
fn no_member_fills_the_memory_of_another() {
    let mut world = World::new(2, Net::GOOD, 6);
    let mut rng = Seed::from_u64(1).stream("junk");
    for n in 0..2_000u32 {
        let packet = forged(&world, 9, 9, "unknown device, and a directory that is longer");
        world.comes(1, packet);
        let mut junk = vec![0; 200];
        rng.fill_bytes(&mut junk);
        junk[0] = (n % 3) as u8;
        world.comes(1, junk);
        if n >= 200 {
            break;
        }
    }
    let engine = &world.nodes[1].engine;
    assert!(engine.strays.len() <= STRAYS && engine.held.len() <= HELD);
    assert!(engine.peers.is_empty());
    let counts = engine.counts();
    // Of 201 openings none is by somebody listed; of the junk a third has no form, a third opens nothing, and of the rest some stay.
    assert_eq!((counts.unknown, counts.displaced), (201, 67 - STRAYS as u64), "{counts:?}");
    assert_eq!(counts.unreadable, 134);
}

#[test]
fn a_lost_state_is_noticed_and_mended_by_a_new_session() {
    let mut world = World::new(2, Net::GOOD, 7);
    world.write(0, 1, "one");
    world.run_until(BEGIN + 10 * MINUTE);
    world.write(1, 0, "two");
    world.run_until(BEGIN + 20 * MINUTE);
    let old = world.nodes[0].disk.clone();
    for n in 0..6 {
        world.write(0, 1, &format!("a{n}"));
        world.run_until(world.now + MINUTE);
        world.write(1, 0, &format!("b{n}"));
        world.run_until(world.now + MINUTE);
    }
    // Its sessions are those of before.
    world.nodes[0].disk = old;
    world.restart(0);
    for n in 0..6 {
        world.write(0, 1, &format!("c{n}"));
        world.run_until(world.now + 2 * MINUTE);
    }
    world.run_until(world.now + DAY);
    let texts = world.texts(1);
    assert!((0..6).all(|n| texts.contains(&format!("c{n}"))), "{texts:?}");
    // What the one that was set back had been told comes again, too.
    let texts = world.texts(0);
    assert!((0..6).all(|n| texts.contains(&format!("b{n}"))), "{texts:?}");
}
