//! What a download does when a mix is dead for a while and comes back.

use super::*;
use crate::world::World;

#[test]
fn a_download_goes_on_soon_after_a_mix_was_dead_for_twelve_seconds() {
    for (mix, seeds) in [("mix a", [2, 4, 11]), ("mix c", [1, 7, 17])] {
        for seed in seeds {
            let mut world = World::new(seed, 1_200);
            world.run(Time::from_secs(8));
            world.download(3_000_000);
            world.run(Time::from_secs(20));
            let before = world.read;
            assert!(before > 1_000_000, "{before}");
            world.stall = Duration::ZERO;
            world.faults.mix = Some((mix, 1.0));
            world.run(Time::from_secs(32));
            let back = world.read;
            world.faults.mix = None;
            world.run(Time::from_secs(45));
            let read = world.read - back;
            println!("{mix}, {seed}: {} bytes while it was dead, then {read}", back - before);
            assert!(read > 100_000 && world.stall < Duration::from_secs(15), "{:?}", world.stall);
            let failed = |output: &&ClientOutput| matches!(output, ClientOutput::Failed(..));
            assert_eq!(world.outputs.iter().filter(failed).count(), 0);
        }
    }
}

#[test]
fn a_download_goes_on_within_seconds_after_its_service_had_lost_all_its_surbs() {
    for (up, down) in [(0.7, 0.9), (0.9, 0.7)] {
        for seed in 1..=6 {
            let mut world = World::new(seed, 1_200);
            world.run(Time::from_secs(8));
            world.download(8_000_000);
            world.run(Time::from_secs(25));
            // So much that the service spends what it has, and so long that the download counts as in use no more.
            world.faults.exit = (up, down);
            world.run(Time::from_secs(50));
            world.faults.exit = (0.0, 0.0);
            let (back, before) = (world.now, world.read);
            while world.read == before && world.now < back + Duration::from_secs(60) {
                world.run(world.now + Duration::from_millis(100));
            }
            let after = world.now.since(back);
            println!("{up} of the packets up lost, {down} down, {seed}: a byte after {after:?}");
            assert!(after < Duration::from_secs(6), "{after:?}");
            let failed = |output: &&ClientOutput| matches!(output, ClientOutput::Failed(..));
            assert_eq!(world.outputs.iter().filter(failed).count(), 0);
        }
    }
}
