//! P2: what a client's link shows does not depend on what its user does. The engines of all daemons, in virtual
//! time; with the same seed the trace of a link is the same to the bit.

#[path = "world/mod.rs"]
mod world;

use std::sync::Arc;

use shoal_client::engine::{Replies, download_bytes_per_s};
use shoal_sphinx::{Codec, NullCodec, Sphinx};
use shoal_topology::{Parameters, Time};
use world::{User, World};

fn world(seed: u64, codec: Arc<dyn Codec>, user: User, seconds: u64) -> World {
    let mut world = World::new(seed, codec, &[user, User::Idle]);
    world.run(Time::from_secs(seconds));
    world
}

#[test]
fn the_link_of_a_busy_user_is_that_of_an_idle_one_to_the_bit() {
    for seed in 1..=3 {
        let idle = world(seed, Arc::new(NullCodec), User::Idle, 30);
        for user in [User::Downloads(300_000), User::Uploads] {
            let busy = world(seed, Arc::new(NullCodec), user, 30);
            let person = &busy.people[0];
            let moved = person.downloaded + person.uploaded;
            assert!(moved > 500_000, "seed {seed}: the user moved {moved} bytes only");
            assert_eq!(person.trace, idle.people[0].trace, "seed {seed}");
            // Nor does it show on the link of somebody else.
            assert_eq!(busy.people[1].trace, idle.people[1].trace, "seed {seed}");
        }
        let class = Parameters::default().class("web").cloned().unwrap();
        let expected = 30.0 * (class.payload_per_s + class.loops_per_s + class.down_per_s);
        let frames = idle.people[0].trace.len() as f64;
        assert!((0.95 * expected..1.05 * expected).contains(&frames), "{frames} frames");
    }
}

#[test]
fn both_codecs_give_the_same_trace() {
    let real = world(4, Arc::new(Sphinx::SCALAR) as Arc<dyn Codec>, User::Downloads(50_000), 4);
    let stand_in = world(4, Arc::new(NullCodec), User::Downloads(50_000), 4);
    assert_eq!(real.people[0].trace, stand_in.people[0].trace);
    assert!(real.people[0].downloaded > 50_000 && stand_in.people[0].downloaded > 50_000);
}

#[test]
fn loops_come_back_and_a_download_reaches_what_the_slots_carry() {
    let world = world(5, Arc::new(NullCodec), User::Downloads(2_000_000), 40);
    let person = &world.people[0];
    let loops = person.client.loops();
    assert!(loops.returned * 100 >= loops.sent.saturating_sub(10) * 95, "{loops:?}");
    let rate = person.downloaded as f64 / 39.0;
    let class = Parameters::default().class("web").cloned().unwrap();
    let carries = download_bytes_per_s(&class, Replies::Downlink);
    let filled = person.uplink.filled();
    assert!(rate > 0.85 * carries, "{rate} of {carries} bytes/s; the uplink sent {filled:?}");
    assert_eq!(person.uplink.filled().filler, 0);
    assert_eq!(world.document().nodes.len(), 8);
}

#[test]
fn a_quiet_tunnel_stays_costs_little_and_ends_at_both_ends() {
    let mut world = world(6, Arc::new(NullCodec), User::DownloadsOnce(100_000), 30);
    assert_eq!(world.people[0].downloaded, 100_000);
    let before = world.exit.counts().sent;
    world.run(Time::from_secs(470));
    assert_eq!((world.people[0].ended, world.exit.sizes().0), (0, 1));
    // A sign of life every 20 s, and its acknowledgement.
    let sent = world.exit.counts().sent - before;
    assert!((15..70).contains(&sent), "{sent} packets in 440 s");
    // A pseudonym that takes no more streams, after eight to ten minutes, and has none is given up, and its service told.
    world.run(Time::from_secs(640));
    assert_eq!((world.people[0].ended, world.exit.sizes().0), (1, 0));
    assert_eq!(world.people[0].client.sizes().0, 0);
    // Neither the signs of life nor the end show on a link.
    let mut idle = World::new(6, Arc::new(NullCodec), &[User::Idle, User::Idle]);
    idle.run(Time::from_secs(640));
    assert!(world.people[0].trace == idle.people[0].trace);
    assert!(world.people[1].trace == idle.people[1].trace);
}
