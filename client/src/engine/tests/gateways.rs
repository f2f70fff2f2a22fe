//! A gateway that takes its client's packets is left; nobody else's losses make a client move.

use super::*;
use crate::world::{MIXES, World};

/// Others know the client, so that a flood may be theirs.
fn reachable() -> ClientSettings {
    ClientSettings { reachable: true, ..ClientSettings::default() }
}

/// Seconds after the fault began at which the client wants to leave its gateway, if it does within 100 s.
fn left_after(seed: u64, fault: impl Fn(&mut World)) -> Option<u64> {
    let mut world = World::with(seed, 60, reachable());
    world.run(Time::from_secs(30));
    fault(&mut world);
    (1..=100).find(|at| {
        world.run(Time::from_secs(30 + at));
        world.outputs.drain(..).any(|output| matches!(output, ClientOutput::LeaveGateway))
    })
}

#[test]
fn a_gateway_that_takes_packets_is_left_within_half_a_minute() {
    // On the way up, on the way down, both.
    for (seed, shares) in
        [(1.0, 0.0), (0.0, 1.0), (0.3, 0.0), (0.0, 0.3), (0.2, 0.2)].into_iter().enumerate()
    {
        let after = left_after(seed as u64, |world| world.faults.gateway = shares);
        println!("{shares:?}: {after:?} s");
        assert!(after.is_some_and(|after| after <= 30), "{shares:?}: {after:?} s");
    }
}

#[test]
fn a_dead_or_lossy_mix_and_congestion_make_nobody_move() {
    let mix = |share| move |world: &mut World| world.faults.mix = Some((MIXES[2], share));
    assert_eq!(left_after(10, mix(1.0)), None, "dead");
    assert_eq!(left_after(11, mix(0.3)), None, "lossy");
    // More than goes down, so that the queue is full and loops are dropped.
    assert_eq!(left_after(12, |world| world.faults.flood = 150.0), None, "congestion");
}

#[test]
fn congestion_that_comes_and_goes_and_an_honest_download_make_nobody_move() {
    let mut world = World::with(20, 60, reachable());
    world.download(1 << 20);
    for n in 0..20 {
        world.faults.flood = if n % 2 == 0 { 0.0 } else { 400.0 };
        world.run(Time::from_secs(6 * (n + 1)));
    }
    assert!(world.client.loops().lost > 50, "{:?}", world.client.loops());
    assert!(world.client.evidence().is_none());
    assert!(!world.outputs.iter().any(|output| matches!(output, ClientOutput::LeaveGateway)));
}

#[test]
fn the_fault_of_one_gateway_is_not_held_against_the_next() {
    let mut world = World::new(30, 60);
    world.faults.gateway = (1.0, 0.0);
    world.run(Time::from_secs(30));
    assert!(world.client.evidence().is_some());
    world.faults.gateway = (0.0, 0.0);
    world.link(crate::world::GATEWAYS[1]);
    world.outputs.clear();
    world.run(Time::from_secs(70));
    assert!(world.client.evidence().is_none());
    assert!(!world.outputs.iter().any(|output| matches!(output, ClientOutput::LeaveGateway)));
}
