//! `protect.strict`: replies stay within the rate at which loops arrive at rest.

use super::shares::User;
use super::*;
use crate::tunnel::SERVICE_MTU;
use crate::world::World;

/// What reached the gateway of a client that downloads all the time or rests, for each of so many seconds, and the bytes/s that
/// it read.
fn arrivals(seed: u64, replies: Replies, downloads: bool, seconds: usize) -> (Vec<f64>, f64) {
    arrivals_of(seed, (replies, Isolation::of("alice")), downloads, seconds)
}

/// The same, of a group whose replies may keep to less than those of others.
fn arrivals_of(
    seed: u64,
    (replies, isolation): (Replies, Isolation),
    downloads: bool,
    seconds: usize,
) -> (Vec<f64>, f64) {
    let mut world =
        World::with(seed, 10_000, ClientSettings { replies, ..ClientSettings::default() });
    let mut user = User::of(&mut world, isolation);
    world.run(Time::from_secs(3));
    let begin = Time::from_secs(10);
    let mut read = 0;
    while world.now < begin + Duration::from_secs(seconds as u64) {
        world.run(world.now + Duration::from_millis(20));
        if downloads {
            user.downloads(&mut world);
        }
        if world.now <= begin {
            read = user.read;
        }
    }
    let mut counts = vec![0.0; seconds];
    for at in &world.arrivals {
        let second = at.since(begin).as_secs() as usize;
        if *at >= begin && second < seconds {
            counts[second] += 1.0;
        }
    }
    (counts, (user.read - read) as f64 / seconds as f64)
}

/// Mean, and its standard error from blocks of 10 s.
fn mean(counts: &[f64]) -> (f64, f64) {
    let blocks: Vec<f64> =
        counts.chunks_exact(10).map(|block| block.iter().sum::<f64>() / 10.0).collect();
    let n = blocks.len() as f64;
    let mean = blocks.iter().sum::<f64>() / n;
    let variance = blocks.iter().map(|b| (b - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

#[test]
fn a_strict_download_does_not_raise_what_arrives_at_the_gateway() {
    let (idle, _) = arrivals(1, Replies::Resting, false, 300);
    let (strict, speed) = arrivals(2, Replies::Resting, true, 300);
    let (open, _) = arrivals(3, Replies::Downlink, true, 60);
    let [(rest, e0), (kept, e1), (shown, e2)] = [&idle, &strict, &open].map(|counts| mean(counts));
    println!(
        "arrivals/s: {rest:.2} ± {e0:.2} at rest, {kept:.2} ± {e1:.2} in a strict download of {speed:.0} B/s, {shown:.2} without"
    );
    assert!((kept - rest).abs() < 3.5 * e0.hypot(e1), "{kept} ± {e1} against {rest} ± {e0}");
    assert!(shown - rest > 20.0 * e0.hypot(e2), "without it shows: {shown} against {rest}");
    // Nor do single seconds stand out.
    assert!(high(&strict) <= high(&idle) + 3.0, "{} against {}", high(&strict), high(&idle));
}

/// The 98th percentile.
fn high(counts: &[f64]) -> f64 {
    let mut counts = counts.to_vec();
    counts.sort_by(f64::total_cmp);
    counts[counts.len() * 98 / 100]
}

#[test]
fn a_resting_group_of_a_client_that_is_not_strict_does_not_raise_what_arrives_at_the_gateway() {
    let group = (Replies::Downlink, Isolation::of("alice").resting());
    let (idle, _) = arrivals_of(1, group, false, 300);
    let (kept, speed) = arrivals_of(2, group, true, 300);
    let [(rest, e0), (mean_kept, e1)] = [&idle, &kept].map(|counts| mean(counts));
    println!("arrivals/s: {rest:.2} ± {e0:.2} at rest, {mean_kept:.2} ± {e1:.2} at {speed:.0} B/s");
    assert!(
        (mean_kept - rest).abs() < 3.5 * e0.hypot(e1),
        "{mean_kept} ± {e1} against {rest} ± {e0}"
    );
    assert!(high(&kept) <= high(&idle) + 3.0, "{} against {}", high(&kept), high(&idle));
    let class = Parameters::default().class("web").cloned().unwrap();
    let said = download_bytes_per_s(&class, Replies::Resting);
    assert!((speed / said - 1.0).abs() < 0.04, "{speed} of {said}");
}

/// What reached the gateway each second of a download that takes all that it gets, for so many seconds, beside a fetch at the resting rate or
/// none; bytes/s of both, and the fetch's in the minute after the download.
fn beside(seed: u64, fetches: bool, seconds: usize) -> (Vec<f64>, [f64; 3]) {
    let mut world = World::with(seed, 10_000, ClientSettings::default());
    let mut open = User::of(&mut world, Isolation::of("alice"));
    world.run(Time::from_secs(3));
    let begin = Time::from_secs(20);
    let mut fetch = None;
    let (mut read, mut after) = ((0, 0), 0);
    let end = begin + Duration::from_secs(seconds as u64);
    while world.now < end + Duration::from_secs(60) {
        world.run(world.now + Duration::from_millis(20));
        if world.now < end {
            open.downloads(&mut world);
        } else if after == 0 {
            after = fetch.as_ref().map_or(1, |user: &User| user.read.max(1));
            world.client.fail(world.now, open.group, Failure::Closed);
        }
        if world.now <= begin {
            read.0 = open.read;
        } else if fetches && fetch.is_none() {
            fetch = Some(User::of(&mut world, Isolation::of("alice").resting()));
        }
        if let Some(fetch) = &mut fetch {
            fetch.downloads(&mut world);
        }
        if world.now <= begin + Duration::from_secs(10) {
            read.1 = fetch.as_ref().map_or(0, |user| user.read);
        }
    }
    let mut counts = vec![0.0; seconds];
    for at in world.arrivals.iter().filter(|at| **at >= begin) {
        if let Some(count) = counts.get_mut(at.since(begin).as_secs() as usize) {
            *count += 1.0;
        }
    }
    let of_fetch = fetch.map_or(0, |user| user.read);
    let per_s = |bytes: u64, s: usize| bytes as f64 / s as f64;
    let speeds = [
        per_s(open.read - read.0, seconds),
        per_s(after.saturating_sub(read.1), seconds - 10),
        per_s(of_fetch.saturating_sub(after), 60),
    ];
    (counts, speeds)
}

#[test]
fn a_fetch_at_the_resting_rate_shows_neither_beside_a_download_nor_in_its_speed() {
    let (without, [alone, ..]) = beside(6, false, 200);
    let (with, [open, slow, later]) = beside(6, true, 200);
    let [(n0, e0), (n1, e1)] = [&without, &with].map(|counts| mean(counts));
    println!(
        "arrivals/s of a download: {n0:.2} ± {e0:.2} alone, {n1:.2} ± {e1:.2} beside a fetch; {alone:.0} and {open:.0} B/s, \
         the fetch {slow:.0} B/s, and {later:.0} B/s afterwards"
    );
    assert!((open / alone - 1.0).abs() < 0.01, "{open} of {alone}");
    assert!((n1 - n0).abs() < 0.02 * n0, "{n1} ± {e1} against {n0} ± {e0}");
    let class = Parameters::default().class("web").cloned().unwrap();
    let said = download_bytes_per_s(&class, Replies::Resting);
    assert!(slow < 0.1 * said && later > 0.7 * said, "{slow}, {later} of {said}");
}

#[test]
fn a_download_reaches_the_speed_that_check_prints() {
    let class = Parameters::default().class("web").cloned().unwrap();
    for replies in [Replies::Downlink, Replies::Resting] {
        let (_, speed) = arrivals(4, replies, true, 60);
        let said = download_bytes_per_s(&class, replies);
        println!("{replies:?}: {speed:.0} B/s, {said:.0} said");
        assert!((speed / said - 1.0).abs() < 0.04, "{replies:?}: {speed} of {said}");
    }
}

#[test]
fn strict_replies_stay_below_the_loops_whose_place_they_take_in_every_class() {
    for class in Parameters::default().classes {
        let loops = class.loop_share * class.payload_per_s;
        let whole = whole_per_s(&class, Replies::Resting);
        assert!(whole < loops && whole < whole_per_s(&class, Replies::Downlink), "{}", class.name);
        assert!(download_bytes_per_s(&class, Replies::Resting) < loops * f64::from(SERVICE_MTU));
    }
}

/// How long the own gateway watches for one answer.
const WINDOW: Duration = Duration::from_secs(3);

/// Of a window that begins then: the most arrivals within 0.2, 0.5 and 1 s, and all.
fn burst(arrivals: &[Time], begin: Time) -> [usize; 4] {
    let of = &arrivals[arrivals.partition_point(|at| *at < begin)..];
    let of = &of[..of.partition_point(|at| *at < begin + WINDOW)];
    [200, 500, 1_000, 3_000].map(|ms| {
        let within = |n: usize| of[n..].partition_point(|at| at.since(of[n]).as_millis() < ms);
        (0..of.len()).map(within).max().unwrap_or(0)
    })
}

/// The windows of a client that asks for so many bytes at the beginning of each, 10 s apart; for none with zero.
fn windows(seed: u64, replies: Replies, bytes: u32, count: usize) -> Vec<[usize; 4]> {
    let mut world =
        World::with(seed, 10_000, ClientSettings { replies, ..ClientSettings::default() });
    let mut user = User::new(&mut world, b"alice");
    let mut begins = Vec::new();
    world.run(Time::from_secs(5));
    for _ in 0..count {
        begins.push(world.now);
        if bytes > 0 {
            user.asks(&mut world, bytes);
        }
        let end = world.now + Duration::from_secs(10);
        while world.now < end {
            world.run(world.now + Duration::from_millis(20));
            user.reads(&mut world);
        }
    }
    assert!(bytes == 0 || user.read > 0);
    begins.into_iter().map(|begin| burst(&world.arrivals, begin)).collect()
}

/// The largest that rest shows in 300 windows: an alarm of any of the four measures is false in about 1 % of windows.
#[test]
fn small_answers_do_not_show_at_the_own_gateway_larger_ones_do_and_strict_ones_seldom() {
    let rest: Vec<[usize; 4]> =
        (0..5).flat_map(|n| windows(10 + n, Replies::Downlink, 0, 60)).collect();
    let limits: [usize; 4] = std::array::from_fn(|i| rest.iter().map(|of| of[i]).max().unwrap());
    let found = |seed: u64, replies: Replies, bytes: u32| {
        let windows = windows(seed, replies, bytes, 40);
        windows.iter().filter(|of| of.iter().zip(limits).any(|(n, limit)| *n > limit)).count()
    };
    let at_rest = found(20, Replies::Downlink, 0);
    let sizes = [4_000, 8_000, 20_000, 40_000, 100_000];
    let open = sizes.map(|bytes| found(21, Replies::Downlink, bytes));
    let strict = sizes.map(|bytes| found(22, Replies::Resting, bytes));
    println!(
        "of 40 windows of 3 s found at 1 % false alarms, for {sizes:?} bytes: {open:?}; strict {strict:?}; at rest {at_rest}"
    );
    assert!(at_rest <= 2 && open[0] <= 4 && open[4] >= 36, "{open:?}");
    assert!(strict.iter().all(|found| *found <= 6), "{strict:?}");
}
