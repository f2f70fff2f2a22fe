use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use shoal_sphinx::{Codec as _, Hop};

use super::*;
use crate::key_life::GRACE_S;
use crate::world::Keyed;

const DAY: u64 = 86_400;
const HERE: (u64, Reached) = (DAY, Reached::WhileHere);
const NOW: u64 = 20_000 * DAY + 1_000;

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn directory(name: &str) -> Dir {
    let path = std::env::temp_dir().join(format!("shoal-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    secret::private_directory(&path).unwrap();
    Dir(path)
}

fn public(periods: &ClientKeyring, unix_s: u64) -> PublicKey {
    periods.present(unix_s).unwrap().2.public()
}

#[test]
fn each_period_has_a_key_of_its_own_that_survives_a_restart_and_is_erased() {
    let dir = directory("periods");
    let mut periods = ClientKeyring::open(&dir.0, HERE, NOW).unwrap();
    let first = public(&periods, NOW);
    assert!(!periods.rotate(NOW, |_| false).unwrap());
    let path = dir.0.join(format!("keys/{}", 20_000 * DAY));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(path.join(KEY)).unwrap().mode() & 0o777, 0o600);
    assert!(public(&ClientKeyring::open(&dir.0, HERE, NOW).unwrap(), NOW) == first);

    // Made ahead, used from its beginning on.
    assert!(periods.rotate(NOW + DAY / 2, |_| false).unwrap());
    assert_eq!(periods.all(NOW + DAY / 2).len(), 2);
    assert!(public(&periods, NOW + DAY / 2) == first);
    let next = NOW + DAY;
    assert!(public(&periods, next) != first);
    assert!(!periods.rotate(next, |_| false).unwrap(), "the old one still opens packets");
    assert!(periods.all(next)[0].1.public() == public(&periods, next));
    assert!(!periods.rotate(next + GRACE_S, |key| *key == first).unwrap(), "it is listed");
    assert!(path.exists());
    assert!(periods.rotate(next + GRACE_S, |_| false).unwrap());
    assert!(!path.exists());
    assert_eq!(ClientKeyring::open(&dir.0, HERE, next).unwrap().all(next).len(), 1);
}

#[test]
fn the_keys_of_who_is_written_to_while_away_open_what_waited_a_week_and_are_erased_after_two() {
    let dir = directory("away");
    let open = |now| ClientKeyring::open(&dir.0, (DAY, Reached::WhileAway), now).unwrap();
    let mut periods = open(NOW);
    let (begins, until, key) = periods.present(NOW).unwrap();
    let first = key.public();
    assert_eq!((begins, until), (20_000 * DAY, 20_008 * DAY), "what others are told of");
    let has = |periods: &ClientKeyring, now| {
        periods.all(now).iter().any(|(_, key)| key.public() == first)
    };
    // Away from then on, and back.
    for days in [6, 13] {
        periods = open(NOW + days * DAY);
        periods.rotate(NOW + days * DAY, |_| false).unwrap();
        assert!(has(&periods, NOW + days * DAY), "{days}");
        assert!(public(&periods, NOW + days * DAY) != first);
    }
    let late = 20_015 * DAY;
    assert!(!periods.rotate(late - 1, |_| false).unwrap() || has(&periods, late));
    periods.rotate(late, |_| false).unwrap();
    assert!(!has(&periods, late));
    assert!(!dir.0.join(format!("keys/{}", 20_000 * DAY)).exists());
}

#[test]
fn a_machine_that_went_down_costs_no_key_of_who_is_written_to_while_away() {
    for (reached, replaced) in [(Reached::WhileHere, 1), (Reached::WhileAway, 0)] {
        let dir = directory("crash");
        let mut periods = ClientKeyring::open(&dir.0, (DAY, reached), NOW).unwrap();
        assert_eq!(periods.begin(NOW).unwrap(), 0);
        let key = periods.present(NOW).unwrap().2.clone();
        let memory = periods.memory(&key, 8);
        // As another run of the machine left it, which did not end in order.
        std::mem::forget(memory);
        let boot = dir.0.join(format!("keys/{}", 20_000 * DAY)).join(BOOT);
        fs::write(&boot, b"another run").unwrap();
        drop(periods);
        let mut periods = ClientKeyring::open(&dir.0, (DAY, reached), NOW).unwrap();
        assert_eq!(periods.begin(NOW).unwrap(), replaced);
        assert_eq!(public(&periods, NOW) == key.public(), replaced == 0);
    }
}

#[test]
fn whoever_is_here_every_day_has_a_key_for_two_days_and_no_longer() {
    let dir = directory("daily");
    let mut periods = ClientKeyring::open(&dir.0, (DAY, Reached::WhileAway), NOW).unwrap();
    for hour in 0..24 * 9 {
        let now = NOW + hour * 3_600;
        periods.rotate(now, |_| false).unwrap();
        periods.told(now);
        periods.drained(now).unwrap();
        // That of the day, of the day before, of which the gateway was told less than a day ago, and of the day to come.
        assert!(periods.all(now).len() <= 3, "hour {hour}: {}", periods.all(now).len());
    }
    assert!(!dir.0.join(format!("keys/{}", 20_006 * DAY)).exists());
    // What was told is known after a restart, too.
    let now = NOW + 11 * DAY;
    let mut periods = ClientKeyring::open(&dir.0, (DAY, Reached::WhileAway), now).unwrap();
    assert!(periods.all(now).len() > 1);
    assert!(periods.drained(now).unwrap());
}

#[test]
fn a_key_that_remembers_too_much_is_replaced_at_once_until_its_period_ends() {
    let dir = directory("early");
    let mut periods = ClientKeyring::open(&dir.0, (600, Reached::WhileHere), NOW).unwrap();
    let first = public(&periods, NOW);
    let early = NOW + 1;
    periods.make_early(early).unwrap();
    let second = public(&periods, early);
    assert!(second != first);
    // A quarter of a period later the first is gone.
    periods.rotate(early + 150, |_| false).unwrap();
    assert!(periods.all(early + 150).iter().all(|(_, key)| key.public() != first));
    let (_, until, key) = periods.present(early + 150).unwrap();
    assert!(key.public() == second);
    assert_eq!(until, NOW / 600 * 600 + 600 + 150);
    periods.rotate(NOW + 600, |_| false).unwrap();
    assert!(public(&periods, NOW + 600) != second);
}

/// The memory of the only key, as a program that starts finds it.
fn start(dir: &Dir) -> (ClientKeyring, Box<dyn ReplayCache>) {
    let mut periods = ClientKeyring::open(&dir.0, HERE, NOW).unwrap();
    periods.begin(NOW).unwrap();
    let (_, _, key) = periods.present(NOW).unwrap();
    let memory = periods.memory(key, 100);
    (periods, memory)
}

fn tag(n: u8) -> ReplayTag {
    let mut rng = shoal_topology::Seed::from_u64(n.into()).stream("tags");
    let key = SecretKey::from_bytes([1; 32]);
    let hop = Hop { address: [9; 32], key: key.public(), delay: Duration::ZERO };
    let codec = Keyed::default();
    let packet = codec.seal(&mut rng, &[hop], [0; 16], b"hello").unwrap();
    *codec.open(&key, packet).unwrap().tag()
}

#[test]
fn what_came_before_a_kill_is_refused_after_it() {
    let dir = directory("killed");
    let (before, mut memory) = start(&dir);
    assert!(memory.insert(&tag(1)) && !memory.insert(&tag(1)) && memory.insert(&tag(2)));
    // A killed process ends nothing in order.
    std::mem::forget(memory);
    let first = public(&before, NOW);
    let mut beside = ClientKeyring::open(&dir.0, HERE, NOW).unwrap();
    let in_use = std::error::Error::source(&beside.begin(NOW).unwrap_err()).unwrap().to_string();
    assert!(in_use.contains("another program uses the keys"), "{in_use}");
    drop(before);
    let (after, mut memory) = start(&dir);
    assert!(public(&after, NOW) == first);
    assert!(!memory.insert(&tag(1)) && !memory.insert(&tag(2)) && memory.insert(&tag(3)));
    assert!((memory.fullness() - 0.03).abs() < 1e-9);
    let path = dir.0.join(format!("keys/{}/{TAGS}", 20_000 * DAY));
    assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_key_whose_tags_may_be_lost_is_replaced_and_one_that_ended_in_order_stays() {
    let dir = directory("lost");
    let at = dir.0.join(format!("keys/{}", 20_000 * DAY));
    let (periods, mut memory) = start(&dir);
    let first = public(&periods, NOW);
    assert!(memory.insert(&tag(1)));
    drop((memory, periods));
    // Another run of the machine, after an orderly end.
    assert_eq!(fs::read(at.join(BOOT)).unwrap(), WHOLE);
    let (periods, mut memory) = start(&dir);
    assert!(public(&periods, NOW) == first && !memory.insert(&tag(1)));
    std::mem::forget(memory);
    // The machine went down, or the log is gone, or it is another's.
    drop(periods);
    let damage: [&dyn Fn(); 4] = [
        &|| fs::write(at.join(BOOT), "another run of the machine").unwrap(),
        &|| fs::remove_file(at.join(TAGS)).unwrap(),
        // Of a program that kept none.
        &|| {
            fs::remove_file(at.join(TAGS)).unwrap();
            fs::remove_file(at.join(BOOT)).unwrap();
        },
        &|| fs::write(at.join(TAGS), [7; 100]).unwrap(),
    ];
    let mut last = first;
    for damage in damage {
        damage();
        let (periods, mut memory) = start(&dir);
        let key = public(&periods, NOW);
        assert!(key != last && memory.insert(&tag(1)));
        std::mem::forget(memory);
        last = key;
    }
    // Who looks only, while the program runs, replaces nothing.
    assert!(public(&ClientKeyring::open(&dir.0, HERE, NOW).unwrap(), NOW) == last);
}

#[test]
fn what_the_system_lacks_for_a_moment_costs_no_key() {
    let dir = directory("lacks");
    let (periods, memory) = start(&dir);
    let first = public(&periods, NOW);
    let at = dir.0.join("keys").join(periods.all(NOW)[0].0.to_string());
    std::mem::forget(memory);
    drop(periods);
    // What cannot be read is not what is wrong: a directory stands where a file should, as good as a disk that fails.
    for name in [BOOT, TAGS] {
        let (path, aside) = (at.join(name), at.join("aside"));
        fs::rename(&path, &aside).unwrap();
        fs::create_dir(&path).unwrap();
        let mut periods = ClientKeyring::open(&dir.0, HERE, NOW).unwrap();
        assert!(periods.begin(NOW).is_err(), "{name}");
        assert!(at.join(KEY).exists(), "{name}");
        fs::remove_dir(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
    let (periods, _memory) = start(&dir);
    assert!(public(&periods, NOW) == first);
}

#[test]
fn an_erased_key_leaves_nothing_whatever_still_holds_its_memory() {
    let dir = directory("erased");
    let (mut periods, mut memory) = start(&dir);
    assert!(memory.insert(&tag(1)));
    let later = NOW + 2 * DAY;
    periods.rotate(later, |_| false).unwrap();
    periods.rotate(later + GRACE_S, |_| false).unwrap();
    assert!(memory.insert(&tag(2)));
    drop(memory);
    let left = fs::read_dir(dir.0.join("keys")).unwrap().count();
    assert_eq!(left, periods.keys.len() + 1, "and the lock");
    assert!(!dir.0.join(format!("keys/{}", 20_000 * DAY)).exists());
}

#[test]
fn a_packet_whose_tag_cannot_be_written_is_not_taken_and_it_is_said() {
    let dir = directory("unwritten");
    let (periods, _) = start(&dir);
    let (.., key) = periods.present(NOW).unwrap();
    let at = dir.0.join(format!("keys/{}", 20_000 * DAY));
    let open = || Durable::open(at.clone(), &key.public(), 2, periods.unwritten.clone()).unwrap();
    let mut memory = open();
    memory.log.fail();
    assert!(!memory.insert(&tag(1)) && periods.why_stuck(0).is_some_and(|why| why == STUCK));
    let mut memory = open();
    assert!(memory.insert(&tag(1)) && periods.why_stuck(NOW).is_none(), "it was never taken");
    // A table has its room; beyond it nothing is taken.
    let taken = (2..250).filter(|n| memory.insert(&tag(*n))).count();
    assert!(taken == 1 && memory.fullness() >= 1.0, "{taken}");
}
#[test]
fn when_the_last_key_is_over_nothing_is_taken_and_it_is_said() {
    let dir = directory("over");
    let (periods, _) = start(&dir);
    let (_, until, _) = periods.present(NOW).unwrap();
    assert_eq!(periods.why_stuck(until - 1), None);
    assert_eq!(periods.why_stuck(until).as_deref(), Some(OVER));
}

#[test]
fn the_keys_of_sessions_come_and_go_with_those_of_packets_and_do_not_follow_from_them() {
    const AWAY: (u64, Reached) = (DAY, Reached::WhileAway);
    let dir = directory("sessions");
    let periods = ClientKeyring::open(&dir.0, AWAY, NOW).unwrap();
    let first = periods.sessions(NOW).remove(0);
    assert_eq!(first.begins(), 20_000 * DAY);
    let path = dir.0.join(format!("keys/{}", first.begins()));
    assert_eq!(fs::metadata(path.join(SESSIONS)).unwrap().mode() & 0o777, 0o600);
    let of_packets = secret::read(&path.join(KEY)).unwrap();
    assert!(PeriodKeys::new(&of_packets, 0).public() != first.public());
    // The same after a start; and with the next period's the present one's come first.
    let mut periods = ClientKeyring::open(&dir.0, AWAY, NOW).unwrap();
    assert!(periods.sessions(NOW)[0].public() == first.public());
    let next = NOW + DAY;
    periods.rotate(next, |_| false).unwrap();
    let begins: Vec<u64> = periods.sessions(next).iter().map(PeriodKeys::begins).collect();
    assert_eq!(begins, [20_001 * DAY, 20_000 * DAY]);
    periods.told(next);
    assert!(periods.drained(next + 2 * DAY).unwrap());
    assert!(!path.exists());
    assert!(periods.sessions(next).iter().all(|keys| keys.public() != first.public()));
    // Who is not written to while away has none.
    let dir = directory("no-sessions");
    assert!(ClientKeyring::open(&dir.0, HERE, NOW).unwrap().sessions(NOW).is_empty());
}
