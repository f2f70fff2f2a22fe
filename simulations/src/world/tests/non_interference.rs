//! P2: what a client's link shows does not depend on what its user does, to the bit.

use shoal_client::engine::{Replies, download_bytes_per_s};
use shoal_topology::Parameters;

use super::*;

/// What the first of two people does.
#[derive(Clone, Copy)]
enum User {
    Idle,
    /// Downloads again and again, so many bytes each time.
    Downloads(u64),
    /// Downloads so many bytes once, and is idle from then on.
    DownloadsOnce(u64),
    /// Uploads without end.
    Uploads,
}

fn web() -> Settings {
    let mut settings = class("web");
    (settings.warm_up_s, settings.drain_s) = (1.0, 0.0);
    settings.people.join_within_s = 0.0;
    settings.links.latency_ms = 1.0;
    settings
}

/// Two people, of whom the first does this, in a run of so many seconds that has not begun.
fn begin(settings: &Settings, seed: u64, user: User, seconds: u64) -> World {
    // As many as can be done; they wait for each other.
    let (count, bytes) = match user {
        User::Downloads(bytes) => (400, bytes),
        User::DownloadsOnce(bytes) => (1, bytes),
        User::Idle | User::Uploads => (0, 0),
    };
    let download = |_| Activity::Download { person: 0, at: Time::ZERO, bytes };
    let activities = (0..count).map(download).collect();
    let workload = Workload { activities, ..nothing(2, seconds) };
    let mut world = World::new(settings, &workload, seed).unwrap();
    if let User::Uploads = user {
        world.people[0].downloads.get_or_insert_default().hook.uploads = true;
    }
    world
}

/// The same at its end.
fn world(settings: &Settings, seed: u64, user: User, seconds: u64) -> World {
    let mut world = begin(settings, seed, user, seconds);
    let end = world.end();
    world.run_until(end, &|_| ());
    world
}

/// Bytes that the first person moved.
fn moved(world: &World) -> u64 {
    world.people[0].downloads.as_ref().map_or(0, |downloads| downloads.hook.moved)
}

/// What the links of a person show, both ways.
fn shown(world: World) -> [Trace; 2] {
    let trace = world.report().view.trace;
    [0, 1].map(|person| {
        let own = |link: &Link| [link.from, link.to].contains(&Party::Person(person));
        let links = trace.links.iter().filter(|(link, _)| own(link));
        Trace { links: links.map(|(link, flow)| (*link, flow.clone())).collect() }
    })
}

#[test]
fn the_link_of_a_busy_user_is_that_of_an_idle_one_to_the_bit() {
    for seed in 1..=3 {
        let idle = shown(world(&web(), seed, User::Idle, 30));
        for user in [User::Downloads(300_000), User::Uploads] {
            let busy = world(&web(), seed, user, 30);
            let moved = moved(&busy);
            assert!(moved > 500_000, "seed {seed}: the user moved {moved} bytes only");
            let busy = shown(busy);
            assert!(busy[0] == idle[0], "seed {seed}");
            // Nor does it show on the link of somebody else.
            assert!(busy[1] == idle[1], "seed {seed}");
        }
        let class = Parameters::default().class("web").cloned().unwrap();
        let expected = 30.0 * (class.payload_per_s + class.loops_per_s + class.down_per_s);
        let frames = idle[0].links.values().map(Flow::len).sum::<usize>() as f64;
        assert!((0.95 * expected..1.05 * expected).contains(&frames), "{frames} frames");
    }
}

#[test]
fn both_codecs_give_the_same_trace() {
    let [real, null] = [CodecChoice::Sphinx, CodecChoice::Null].map(|codec| {
        let world = world(&Settings { codec, ..web() }, 4, User::Downloads(50_000), 4);
        assert!(moved(&world) > 50_000);
        shown(world)
    });
    assert!(real == null);
}

#[test]
fn loops_come_back_and_a_download_reaches_what_the_slots_carry() {
    let world = world(&web(), 5, User::Downloads(2_000_000), 40);
    let person = &world.people[0];
    let loops = person.client.loops();
    assert!(loops.returned * 100 >= loops.sent.saturating_sub(10) * 95, "{loops:?}");
    let rate = moved(&world) as f64 / 39.0;
    let class = Parameters::default().class("web").cloned().unwrap();
    let carries = download_bytes_per_s(&class, Replies::Downlink);
    let filled = person.slots.filled();
    assert!(rate > 0.85 * carries, "{rate} of {carries} bytes/s; the uplink sent {filled:?}");
    assert_eq!(person.slots.filled().filler, 0);
}

#[test]
fn a_quiet_tunnel_stays_costs_little_and_ends_at_both_ends() {
    let mut busy = begin(&web(), 6, User::DownloadsOnce(100_000), 640);
    let ended = |world: &World| world.people[0].downloads.as_ref().unwrap().hook.ended;
    busy.run_until(Time::from_secs(30), &|_| ());
    assert_eq!(moved(&busy), 100_000);
    let before = busy.exit.service.counts().sent;
    busy.run_until(Time::from_secs(470), &|_| ());
    assert_eq!((ended(&busy), busy.exit.service.sizes().0), (0, 1));
    // A sign of life every 20 s, and its acknowledgement.
    let sent = busy.exit.service.counts().sent - before;
    assert!((15..70).contains(&sent), "{sent} packets in 440 s");
    // A pseudonym that takes no more streams, after eight to ten minutes, and has none is given up, and its service told.
    let end = busy.end();
    busy.run_until(end, &|_| ());
    assert_eq!((ended(&busy), busy.exit.service.sizes().0), (1, 0));
    assert_eq!(busy.people[0].client.sizes().0, 0);
    // Neither the signs of life nor the end show on a link.
    assert!(shown(busy) == shown(world(&web(), 6, User::Idle, 640)));
}
