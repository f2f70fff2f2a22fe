//! P4: a packet is accepted at most once in the life of its key, also across `kill -9`.

#![allow(clippy::disallowed_methods)] // Real programs run on the real clock.

mod common;

use std::time::Duration;

use common::between::{Between, Bytes};
use common::*;

const PATIENCE: Duration = Duration::from_secs(60);
/// How often the mix is killed. 50: `SHOAL_KILLS=50 cargo test -p shoal-node --test replays`.
const KILLS: usize = 5;
/// New packets between two kills, about.
const LOAD: usize = 240;

#[test]
fn a_mix_killed_under_load_accepts_no_packet_twice_and_keeps_its_keys() {
    let kills = std::env::var("SHOAL_KILLS").map_or(KILLS, |n| n.parse().unwrap());
    let mut between = Between::new(86_400, 1_000_000, 30);
    between.sign();
    let descriptor = |between: &Between| {
        shoal_node::daemon::descriptor(&between.mix().config).unwrap().body().clone()
    };
    let before = descriptor(&between);
    let epoch = before.keys[0].first;
    let keys = between.mix().config.runtime_dir().join("keys");
    let key = std::fs::read(keys.join(format!("{epoch}.key"))).unwrap();

    let mut running = between.start();
    let mut seen: Vec<Bytes> = Vec::new();
    for kill in 0..kills {
        // Everything that it has seen comes again before anything new does, and among the new.
        let new = between.packets(LOAD, epoch, Duration::from_millis(20));
        let mut load = seen.clone();
        for (n, packet) in new.iter().enumerate() {
            load.push(packet.clone());
            load.extend(seen.get(n * 7 % seen.len().max(1)).cloned());
            load.push(new[n / 2].clone());
        }
        let mut link = between.dial();
        let arrived = between.seen().0;
        let sending = between.runtime.spawn(async move {
            for batch in load.chunks(16) {
                if link.sender.send_all(batch).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        // In the middle of the load, each time somewhere else.
        within(PATIENCE, "packets at the sink", || {
            (between.seen().0 > arrived + 20 * (kill % 8)).then_some(())
        });
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        between.runtime.block_on(sending).unwrap();
        seen.extend(new);

        running = between.start();
        let after = descriptor(&between);
        assert_eq!(after.identity, before.identity);
        for old in &before.keys {
            let new = after.keys.iter().find(|new| new.first == old.first);
            assert!(old.first < after.keys[0].first || new == Some(old), "{kill}");
        }
        assert!(std::fs::read(keys.join(format!("{epoch}.key"))).unwrap() == key);
    }

    // What it never saw, since it was dead, it accepts now; then nothing any more, however often it comes.
    let mut link = between.dial();
    let received = || between.mix().number("/packets/received").unwrap_or(0);
    for pass in 1..=3 {
        let before = (pass - 1) * seen.len();
        for (n, some) in seen.chunks(1_000).enumerate() {
            // No faster than it opens them: what it drops for overload it has not judged.
            between.runtime.block_on(link.sender.send_all(some)).unwrap();
            let all = (before + 1_000 * n + some.len()) as u64;
            within(PATIENCE, "everything opened", || (received() == all).then_some(()));
        }
        let all = (pass * seen.len()) as u64;
        assert!(between.dropped("replay") >= all - seen.len() as u64);
    }
    std::thread::sleep(Duration::from_millis(300));
    let (distinct, most) = between.seen();
    assert_eq!(most, 1, "a packet was accepted twice");
    // And the packets were ones that it accepts: a few were in its pool when it was killed.
    assert!(distinct > seen.len() / 2 && distinct <= seen.len(), "{distinct} of {}", seen.len());
}
