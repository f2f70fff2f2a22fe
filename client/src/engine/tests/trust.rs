//! What a gateway can do by packets of its own and by holding others', and what follows.

use super::super::trust::Pause;
use super::*;
use crate::surbs::Of;
use crate::world::{Forged, MIXES, Way, World};

const DAY_S: u64 = 86_400;

/// Loops that leave in a second, over so many.
fn loops_per_s(world: &mut World, seconds: u64) -> f64 {
    let before = world.slots.filled().loops;
    world.run(world.now + Duration::from_secs(seconds));
    (world.slots.filled().loops - before) as f64 / seconds as f64
}

fn leaves(world: &World) -> usize {
    world.outputs.iter().filter(|output| matches!(output, ClientOutput::LeaveGateway)).count()
}

/// The seconds until the client wants to leave, if it does within so many.
fn left_after(world: &mut World, within: u64) -> Option<u64> {
    world.outputs.clear();
    (1..=within).find(|_| {
        world.run(world.now + Duration::from_secs(1));
        leaves(world) > 0
    })
}

const ALL: [Forged; 4] = [Forged::Bytes, Forged::Identifier, Forged::Letter, Forged::Replay];

#[test]
fn what_a_gateway_makes_up_gives_no_credit_and_the_gateway_is_left_within_ten_seconds() {
    for (seed, what) in ALL.into_iter().enumerate() {
        // The control is the rule of old: whatever is no loop gives credit.
        for credulous in [true, false] {
            let mut world = World::new(seed as u64, 60);
            world.credulous = credulous;
            world.run(Time::from_secs(35));
            let before = loops_per_s(&mut world, 40);
            world.faults.forged = Some((what, 0.3));
            let left = left_after(&mut world, 10);
            let during = loops_per_s(&mut world, 40);
            println!("{what:?}: {before:.1} loops/s, then {during:.1}; left after {left:?} s");
            assert!(left.is_some(), "{what:?}");
            // Some 30/s with a deviation below 6 a second, so below 1 over 40 s.
            let falls = before - during;
            assert_eq!(falls > 5.0, credulous, "{what:?}: from {before} to {during}");
            assert!(credulous || falls.abs() < 4.0, "{what:?}: from {before} to {during}");
            assert_eq!(world.client.evidence().map(|e| e.blame), Some(Blame::Garbage));
        }
    }
}

#[test]
fn strangers_move_nobody_who_can_be_reached_but_replays_do() {
    let settings = ClientSettings { reachable: true, ..ClientSettings::default() };
    for (seed, what) in ALL.into_iter().enumerate() {
        let mut world = World::with(seed as u64, 60, settings.clone());
        world.run(Time::from_secs(35));
        let before = loops_per_s(&mut world, 40);
        world.faults.forged = Some((what, 0.3));
        let left = left_after(&mut world, 40);
        let during = loops_per_s(&mut world, 40);
        // None but the gateway brings a packet twice.
        assert_eq!(left.is_some(), what == Forged::Replay, "{what:?}");
        assert_eq!(world.client.is_pestered(), what != Forged::Replay, "{what:?}");
        assert!((before - during).abs() < 4.0, "{what:?}: from {before} to {during}");
    }
}

#[test]
fn replies_that_no_tunnel_authenticates_give_no_credit_and_their_exit_is_left_not_the_gateway() {
    for credulous in [true, false] {
        let mut world = World::new(5, 60);
        world.credulous = credulous;
        world.run(Time::from_secs(35));
        let before = loops_per_s(&mut world, 40);
        world.download(1_000);
        world.faults.forged = Some((Forged::Reply, 0.3));
        world.outputs.clear();
        let during = loops_per_s(&mut world, 40);
        let (junk, lying) = (world.client.counts().junk, world.client.lying_services());
        let garbage =
            |output: &&ClientOutput| matches!(output, ClientOutput::Failed(_, Failure::Garbage));
        let failed = world.outputs.iter().filter(garbage).count();
        println!(
            "{before:.1} loops/s, then {during:.1}; {junk} replies; the exit was left {failed} times"
        );
        assert!(junk >= 220 && lying == 1 && failed >= 1, "{junk} {lying} {failed}");
        let falls = before - during;
        assert_eq!(falls > 5.0, credulous, "from {before} to {during}");
        assert!(credulous || falls.abs() < 4.0, "from {before} to {during}");
        assert_eq!(leaves(&world), 0, "what an exit can do must not move the link");
    }
}

#[test]
fn an_exit_that_lies_again_is_avoided_twice_as_long_and_for_an_hour_at_most() {
    let mut world = World::new(5, 60);
    world.download(1_000);
    world.run(Time::from_secs(20));
    let mut avoided = Vec::new();
    for _ in 0..7 {
        world.faults.forged = Some((Forged::Reply, 0.9));
        let before = world.client.avoid.values().max().copied();
        while world.client.avoid.values().max().copied() <= before {
            world.run(world.now + Duration::from_millis(100));
            world.download(1_000);
            assert!(world.now < Time::from_secs(2_000), "{avoided:?}");
        }
        // With a tunnel that ended it is avoided for half a minute, whatever ended it.
        let until = world.client.avoid.values().max().unwrap();
        avoided.push(until.since(world.now).as_secs_f64().ceil() as u64);
        world.faults.forged = None;
        world.download(1_000);
        world.run(world.now + Duration::from_secs(20));
    }
    assert_eq!(avoided, [60, 120, 240, 480, 960, 1_920, 3_600]);
    assert_eq!(world.client.lying_services(), 1);
}

#[test]
fn a_mix_that_pauses_in_a_download_makes_no_exit_a_liar() {
    for (seed, pause_ms) in [(7, 1_000), (8, 3_000), (9, 8_000)] {
        let mut world = World::new(seed, 60);
        world.download(4_000_000);
        world.run(Time::from_secs(40));
        let before = world.client.counts().junk;
        // What it held comes at once, behind what others brought meanwhile.
        for pause in (0..pause_ms).rev().step_by(10) {
            world.faults.slow = Some(("mix a", Duration::from_millis(pause)));
            world.run(world.now + Duration::from_millis(10));
        }
        world.faults.slow = None;
        world.run(world.now + Duration::from_secs(10));
        let junk = world.client.counts().junk - before;
        println!("{pause_ms} ms: {junk} replies that the tunnel took for repetitions");
        assert_eq!(world.client.lying_services(), 0, "{pause_ms} ms: {junk}");
        assert!(junk > 24 || pause_ms < 8_000, "{junk}: the mix did not matter");
    }
}

#[test]
fn an_unauthenticated_reply_changes_nothing_of_what_is_known_of_the_service() {
    let mut world = World::new(6, 60);
    world.download(1_000);
    world.run(Time::from_secs(20));
    world.download(0);
    world.run(Time::from_secs(22));
    let missing = |world: &World| {
        world
            .client
            .groups
            .values()
            .map(|group| group.stock.missing(world.now, Of::Present))
            .sum::<usize>()
    };
    let (packets, before) = (world.client.counts().packets, missing(&world));
    world.faults.forged = Some((Forged::Reply, 0.0));
    let id = *world.client.groups.keys().next().unwrap();
    let duplicates = world.client.counts().junk;
    let junk =
        crate::message::FromService { epoch: 250, stock: 480, next: 0, datagram: vec![0x40; 900] };
    for message in [Some(junk.encode()), Some(vec![1, 2, 3]), None] {
        let arrival = world.client.handle_reply(world.now, id, message.as_deref());
        assert_eq!(arrival, Arrival::NoCredit);
    }
    assert_eq!((world.client.counts().packets, missing(&world)), (packets, before));
    assert_eq!(world.client.counts().junk, duplicates + 3);
}

#[test]
fn honest_traffic_gives_its_credit_and_raises_no_suspicion() {
    for seed in 0..2 {
        let mut world = World::new(seed, 60);
        world.download(1_000);
        world.run(Time::from_secs(200));
        let counts = world.client.counts();
        // Replies that came too late for their tunnel or their epoch, and datagrams that came twice.
        let odd = counts.unknown as f64 / counts.packets as f64;
        assert!(counts.packets > 500 && odd < 0.01, "{counts:?}");
        assert_eq!((counts.replayed, world.client.evidence(), world.client.pauses()), (0, None, 0));
        assert_eq!((world.client.lying_services(), leaves(&world)), (0, 0));
        assert!(world.client.lossy_mixes().is_empty());
    }
}

#[test]
fn a_letter_gives_credit_when_its_session_authenticates_it_once() {
    let mut world = World::new(7, 60);
    world.run(Time::from_secs(40));
    world.letter(b"hello");
    world.run(Time::from_secs(41));
    let handle = world.outputs.iter().find_map(|output| match output {
        ClientOutput::Message(handle, message) if message == b"hello" => Some(*handle),
        _ => None,
    });
    let handle = handle.unwrap();
    assert!(world.client.authenticated(world.now, [1; 32], handle));
    assert!(!world.client.authenticated(world.now, [1; 32], handle), "twice");
    assert_eq!(world.client.suspicion.evidence(), None);
    // A call's letters all give credit, others' a quarter of the loops'.
    for (call, expected) in [(false, 20..=101), (true, 300..=300)] {
        if call {
            assert!(world.client.call_accepted([1; 32]));
        }
        let mut given = 0;
        for _ in 0..300 {
            world.outputs.clear();
            world.letter(b"media");
            world.run(world.now + Duration::from_millis(40));
            let came = std::mem::take(&mut world.outputs);
            for output in came {
                if let ClientOutput::Message(handle, _) = output {
                    given += usize::from(world.client.authenticated(world.now, [1; 32], handle));
                }
            }
        }
        assert!(expected.contains(&given) || (call && given >= 298), "{call}: {given}");
    }
    assert_eq!(world.client.evidence(), None, "nobody is suspected for friends");
}

/// A gateway that marks: what goes up (and down) in even seconds waits until the next. The share of the packets in even
/// seconds at the exit, and how many came, before and in so many seconds of it.
fn marked(world: &mut World, holds: Duration, way: Way, seconds: u64) -> [(f64, usize); 2] {
    world.download(400);
    world.run(Time::from_secs(60));
    let share = |world: &mut World, seconds: u64| {
        world.at_exit.clear();
        world.run(world.now + Duration::from_secs(seconds));
        let even = world.at_exit.iter().filter(|at| at.as_nanos() / 1_000_000_000 % 2 == 0);
        (even.count() as f64 / world.at_exit.len().max(1) as f64, world.at_exit.len())
    };
    let before = share(world, 60);
    world.faults.holds = Some((Duration::from_secs(2), holds, way));
    world.outputs.clear();
    [before, share(world, seconds)]
}

#[test]
fn a_gateway_that_holds_frames_for_a_second_is_left_within_a_minute_and_marks_little_until_then() {
    for (seed, way) in [(0, Way::Up), (1, Way::Both), (2, Way::Up)] {
        let mut world = World::new(seed, 60);
        let [before, during] = marked(&mut world, Duration::from_secs(1), way, 60);
        let late = world.client.evidence();
        println!(
            "{way:?}: even {before:?}, then {during:?}; {late:?}; {} pauses",
            world.client.pauses()
        );
        assert_eq!(leaves(&world), 1, "{way:?}: once, and not again and again");
        assert_eq!(late.map(|evidence| evidence.blame), Some(Blame::Late), "{way:?}");
        assert!((0.4..0.6).contains(&before.0), "{before:?}");
        // While loops stand still and for a while after, nothing of the user's leaves to be marked.
        assert!(during.1 * 8 < before.1, "{way:?}: {before:?}, {during:?}");
    }
}

#[test]
fn what_is_left_of_the_mark_is_said() {
    // In each two seconds: held at the start. Packets that reach the exit while their client's are held, in hundredths.
    let mut table = Vec::new();
    for held_ms in [100, 300, 500, 700, 1_000] {
        let mut world = World::new(20, 60);
        let held = Duration::from_millis(held_ms);
        let phase = |at: &Time| at.as_nanos() % 2_000_000_000 < 1_000_000 * held_ms;
        world.download(400);
        world.run(Time::from_secs(60));
        let share = |world: &mut World| {
            world.at_exit.clear();
            world.run(world.now + Duration::from_secs(60));
            let (of, all) =
                (world.at_exit.iter().filter(|at| phase(at)).count(), world.at_exit.len());
            (100 * of / all.max(1), all)
        };
        let before = share(&mut world);
        world.faults.holds = Some((Duration::from_secs(2), held, Way::Up));
        world.outputs.clear();
        let (during, left) = (share(&mut world), leaves(&world));
        println!("held {held_ms} of 2,000 ms: {before:?}, then {during:?}; left: {}", left > 0);
        table.push((held_ms, before, during, left > 0));
    }
    // The longest is answered, one near it as the phases of the slots have it; the others take traffic away, or mark what
    // passes.
    for (held_ms, before, during, left) in table {
        assert!(left == (held_ms > 900) || held_ms == 700, "{held_ms} ms");
        assert!(during.0 < before.0, "{held_ms} ms: it is a mark");
    }
}

#[test]
fn where_both_gateways_are_late_a_client_moves_once_and_says_that_it_is_the_line() {
    let [one, other] = [GATEWAYS[0], GATEWAYS[1]].map(identity);
    let mut world = World::new(3, 60);
    world.client.set_gateways(&[one, other], &GatewayMemory::default());
    world.run(Time::from_secs(40));
    let second = Duration::from_secs(1);
    world.faults.holds = Some((2 * second, second, Way::Up));
    assert!(left_after(&mut world, 60).is_some());
    world.link(GATEWAYS[1]);
    assert_eq!(left_after(&mut world, 200), None, "it is late, too");
    assert_eq!(world.client.evidence().map(|evidence| evidence.blame), Some(Blame::Late));
    // Back at the first, which is late still: the second was, too.
    world.link(GATEWAYS[0]);
    assert_eq!(left_after(&mut world, 200), None);
    assert!(world.client.other_gateway_is_late(world.now));
    // What is lost is the gateway's own doing: for that it is left all the same.
    world.faults.holds = None;
    world.faults.gateway = (1.0, 0.0);
    assert!(left_after(&mut world, 40).is_some());
}

#[test]
fn jitter_of_an_honest_line_moves_nobody() {
    let ms = Duration::from_millis;
    for (seed, span, hold) in [(0, 500, 50), (1, 1_000, 150), (2, 3_000, 300)] {
        let mut world = World::new(seed, 60);
        world.download(10_000);
        world.faults.holds = Some((ms(span), ms(hold), Way::Both));
        assert_eq!(left_after(&mut world, 120), None, "{hold} ms in {span}");
        assert_eq!(world.client.pauses(), 0, "{hold} ms in {span}");
    }
}

#[test]
fn a_late_mix_makes_nobody_leave_the_gateway() {
    let mut world = World::new(4, 60);
    world.faults.slow = Some((MIXES[2], Duration::from_millis(800)));
    assert_eq!(left_after(&mut world, 100), None);
}

#[test]
fn while_loops_stand_still_cover_fills_the_slots_and_traffic_resumes_at_a_drawn_instant() {
    let mut resumed = Vec::new();
    for seed in 0..6 {
        let mut world = World::new(seed, 600);
        world.download(400);
        world.run(Time::from_secs(59));
        // One hold of three seconds, from the sixtieth on.
        world.faults.holds = Some((Duration::from_secs(60), Duration::from_secs(3), Way::Up));
        world.run(Time::from_secs(60));
        let before = world.slots.filled();
        world.run(Time::from_millis(61_500));
        let still = world.slots.filled();
        assert!(world.client.is_paused(), "{seed}");
        world.run(Time::from_millis(63_000));
        let after = world.slots.filled();
        assert_eq!((after.data, after.refill), (still.data, still.refill), "{seed}");
        assert_eq!(after.filler, before.filler, "{seed}: cover was there");
        assert!(after.total() - still.total() > 60, "{seed}: the slots do not stand still");
        world.faults.holds = None;
        while world.client.is_paused() {
            assert_eq!(world.slots.filled().data, still.data, "{seed}");
            world.run(world.now + Duration::from_millis(10));
        }
        resumed.push(world.now.since(Time::from_secs(63)));
        world.at_exit.clear();
        world.run(world.now + Duration::from_secs(2));
        assert!(world.at_exit.len() > 5, "{seed}: it goes on");
    }
    println!("{resumed:?}");
    let (first, last) = (resumed.iter().min().unwrap(), resumed.iter().max().unwrap());
    assert!(*first >= Duration::from_secs(1) && *last <= Duration::from_secs(5), "{resumed:?}");
    assert!(*last - *first > Duration::from_secs(1), "{resumed:?}");
}

#[test]
fn a_client_that_was_moved_comes_back_after_a_day() {
    let [one, other] = [GATEWAYS[0], GATEWAYS[1]].map(identity);
    let mut instants = Vec::new();
    for seed in 0..5 {
        let mut world = World::new(seed, 600);
        world.client.set_gateways(&[one, other], &GatewayMemory::default());
        world.run(Time::from_secs(30));
        world.faults.gateway = (1.0, 0.0);
        assert!(left_after(&mut world, 40).is_some());
        let moved = world.now;
        world.link(GATEWAYS[1]);
        let client = &mut world.client;
        let back = (0..2 * DAY_S).step_by(60).find(|after| {
            client.handle_timeout(moved + Duration::from_secs(*after));
            std::iter::from_fn(|| client.poll_output())
                .any(|out| matches!(out, ClientOutput::ComeBack))
        });
        let back = back.unwrap();
        assert!((DAY_S - 60..DAY_S * 5 / 4 + 120).contains(&back), "{back} s");
        instants.push(back);
    }
    instants.dedup();
    assert!(instants.len() > 2, "drawn: {instants:?}");
}

#[test]
fn a_mix_that_drops_some_packets_is_named_by_the_share_of_loops_that_it_returns() {
    let mut world = World::new(8, 600);
    world.faults.mix = Some((MIXES[2], 0.2));
    world.run(Time::from_secs(120));
    let lossy = world.client.lossy_mixes();
    println!("{lossy:?}");
    assert!(matches!(lossy.as_slice(), [(_, _, back)] if (0.7..0.9).contains(back)), "{lossy:?}");
    assert!(world.client.silent_mixes().is_empty() && world.client.evidence().is_none());
}

#[test]
fn media_of_a_call_do_not_wait_and_letters_do() {
    let (mut client, _) = linked();
    let key = SecretKey::from_bytes([5; 32]).public();
    let contact = Contact { inbox: Identity([3; 32]), key, gateway: identity(GATEWAYS[1]) };
    client.pause = Pause::Until(Time::from_secs(2));
    for n in 0..65 {
        let expected = if n < 64 { Ok(()) } else { Err(NotPosted::Full) };
        assert_eq!(client.post(Time::ZERO, &contact, b"hello").map(drop), expected);
    }
    let user = wants(&mut client, Time::ZERO, (2, 1, 0));
    assert_eq!(client.produce(Time::ZERO, user).len(), 0);
    client.begin_call(contact, Time::ZERO);
    client.speak(Time::ZERO, b"voice").unwrap();
    let mut media =
        Wants { media: wants(&mut client, Time::ZERO, (2, 0, 0)).user, ..Wants::default() };
    media.media.truncate(2);
    assert_eq!(client.produce(Time::ZERO, media).len(), 2, "and silence");
    assert_eq!(client.outbox.len(), 64);
    let later = Time::from_secs(20);
    let user = wants(&mut client, later, (2, 1, 0));
    assert_eq!(client.produce(later, user).len(), 1);
}

#[test]
fn traffic_resumes_at_a_drawn_instant_after_another_link_began() {
    let mut world = World::new(9, 600);
    world.run(Time::from_secs(30));
    assert!(!world.client.is_paused(), "not by the first link");
    world.client.pause = Pause::Still;
    let began = world.now;
    world.link(GATEWAYS[1]);
    assert!(world.client.is_paused(), "whoever cut the link does not choose when traffic goes on");
    world.run(began + Duration::from_secs(1));
    assert!(world.client.is_paused());
    world.run(began + Duration::from_secs(5));
    assert!(!world.client.is_paused());
}

/// A packet with media to the client's key, as its contact's client makes it, or whoever has a descriptor of it.
fn media(client: &mut Client, rng: &mut shoal_topology::Stream) -> shoal_sphinx::Frame {
    let Recipient { address, key } = client.end;
    let hop = shoal_sphinx::Hop { address, key, delay: Duration::ZERO };
    let packet = NullCodec
        .seal(rng, &[hop], [0; 16], &[shoal_topology::wire::client_gateway::kind::MEDIA, 7])
        .unwrap();
    shoal_sphinx::Frame { epoch: 0, field: Downward::Packet as u16, packet }
}

#[test]
fn media_that_no_call_can_bring_are_nobodys_and_speak_against_the_gateway() {
    // Packets/s, and of how many seconds they stand still, so that what they held up comes at once.
    for (per_s, still_s, suspected) in
        [(25, 0, false), (25, 2, false), (50, 0, false), (110, 0, true)]
    {
        let (mut client, _) = linked();
        let mut rng = Seed::from_u64(1).stream("media");
        let key = SecretKey::from_bytes([5; 32]).public();
        let contact = Contact { inbox: Identity([3; 32]), key, gateway: identity(GATEWAYS[1]) };
        let class = client.class().clone();
        assert_eq!(class.payload_per_s, 50.0);
        client.begin_call(contact, Time::from_secs(40));
        let mut came = 0;
        for second in 40..340 {
            let now = Time::from_secs(second);
            let held = still_s > 0 && second % 10 < still_s;
            let number = if held {
                0
            } else if still_s > 0 && second % 10 == still_s {
                3 * per_s
            } else {
                per_s
            };
            for n in 0..number {
                // In time with the second, or all at once.
                let gap = if number == per_s { 1_000_000_000 / per_s } else { 0 };
                let at = now + Duration::from_nanos(gap * n);
                let frame = media(&mut client, &mut rng);
                assert_eq!(client.handle_frame(at, frame), Arrival::Media);
                came += 1;
            }
        }
        assert!(came > 6_000);
        let found = client.suspicion.evidence().map(|evidence| evidence.blame);
        assert_eq!(found, suspected.then_some(Blame::Garbage), "{per_s}/s, {still_s} s");
    }
}
