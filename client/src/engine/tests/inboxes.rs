//! Another inbox with each link.

use super::*;
use crate::world::{GATEWAYS, World, inbox};

#[test]
fn replies_and_loops_go_on_when_the_next_link_has_another_inbox() {
    let mut world = World::new(21, 600);
    world.download(8 << 20);
    world.run(Time::from_secs(10));
    for (n, gateway) in [GATEWAYS[0], GATEWAYS[1], GATEWAYS[0]].into_iter().enumerate() {
        let (read, returned) = (world.read, world.client.loops().returned);
        assert!(read > 0);
        world.link_anew(inbox(&format!("person, link {n}")), gateway);
        world.run(Time::from_secs(20 + 10 * n as u64));
        assert!(world.read > read + 500_000, "link {n}: {}", world.read - read);
        assert!(world.client.loops().returned > returned + 40, "link {n}");
    }
}

#[test]
fn what_an_engine_is_not_told_of_it_does_not_get() {
    // The control: packets for another inbox than that of the link do not arrive.
    let mut world = World::new(22, 600);
    world.run(Time::from_secs(5));
    world.link_anew(inbox("another"), GATEWAYS[0]);
    world.client.set_inbox(inbox("person"));
    world.run(Time::from_secs(7));
    let returned = world.client.loops().returned;
    world.run(Time::from_secs(20));
    assert!(world.client.loops().returned <= returned + 1);
}
