use std::fs::OpenOptions;
use std::time::Instant;

use rand::SeedableRng as _;
use shoal_sphinx::backend::Backend;
use shoal_sphinx::{
    Address, Codec, Error as SphinxError, Frame, Hop, Opened, Packet, PacketId, Payload, Peeled,
    PublicKey, Surb, SurbKeys,
};
use shoal_topology::{Document, Stream, Time, testing};
use tempfile::TempDir;

use super::*;
use crate::counters::DropReason;
use crate::opener::{Came, Room};

/// Seconds of an epoch, and for how long its key opens packets after it.
const EPOCH_S: u64 = 10;
const GRACE_MS: u64 = 3_000;
/// When the tests begin: the first millisecond of an epoch.
const START: u64 = 1_800_000_000_000;

fn parameters() -> Parameters {
    Parameters { max_delay_us: 1_000_000, clock_error_s: 0, layers: 3, ..Parameters::default() }
}

struct Home {
    dir: TempDir,
    config: Config,
    rng: Stream,
}

struct Run {
    keys: Keyring,
    opener: Arc<Opener>,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: "data".into(),
            runtime_dir: "run".into(),
            max_packets_per_s: 100,
            ..Config::default()
        };
        let config = config.resolved(dir.path());
        secret::read_or_create(&config.identity_file()).unwrap();
        Self { dir, config, rng: Stream::from_seed([4; 32]) }
    }

    fn try_start(&self, unix_ms: u64) -> Result<Run, NodeError> {
        let opener = Arc::new(Opener::new(Backend::best_codec()));
        let prepared = prepare(&self.config)?;
        let shared = Some(opener.clone());
        let mut keys = Keyring::open(&self.config, &prepared, EPOCH_S as u32, shared, unix_ms)?;
        keys.follow(&parameters());
        opener.update(&document(), keys.epoch_at(unix_ms));
        Ok(Run { keys, opener })
    }

    fn start(&self, unix_ms: u64) -> Run {
        self.try_start(unix_ms).unwrap()
    }

    fn directory(&self) -> PathBuf {
        self.dir.path().join("run/keys")
    }

    fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.directory()).unwrap();
        let mut names: Vec<String> =
            names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "lock");
        names.sort();
        names
    }

    /// A packet that ends at the node, for its key of an epoch.
    fn packet(&mut self, run: &Run, epoch: Epoch) -> Frame {
        let body = run.keys.descriptor().body();
        let key: PublicKey = body.key(epoch).unwrap();
        let hop = Hop { address: body.identity.0, key, delay: Duration::ZERO };
        let sealed = Backend::best_codec().seal(&mut self.rng, &[hop], [0; 16], b"x");
        Frame { epoch: epoch.low_byte(), field: 0, packet: sealed.unwrap() }
    }
}

impl Run {
    fn open(&self, frame: &Frame) -> Result<(), DropReason> {
        self.open_at(Time::ZERO, frame)
    }

    fn open_at(&self, at: Time, frame: &Frame) -> Result<(), DropReason> {
        let arrived = self.opener.open_frame(at, frame.clone())?;
        assert!(matches!(arrived.peeled, Peeled::Final { .. }));
        Ok(())
    }

    fn epochs(&self) -> Vec<u64> {
        self.keys.descriptor().body().keys.iter().map(|key| key.first.0).collect()
    }

    fn signed_at(&self) -> u64 {
        self.keys.descriptor().body().signed_at
    }
}

fn document() -> Document {
    let network = testing::TestNetwork::builder().mixes(0).gateways(0).parameters(parameters());
    network.epoch(Epoch(0)).epoch_s(EPOCH_S as u32).build().document()
}

#[test]
fn twenty_epochs_leave_as_many_keys_files_and_tables_as_one() {
    let mut home = Home::new();
    let mut run = home.start(START);
    let mut signed_at = run.signed_at();
    let mut published = BTreeMap::new();
    let mut room = BTreeSet::new();
    for step in 0..20 * 2 * EPOCH_S {
        let now = START + 500 * step;
        let epoch = run.keys.epoch_at(now);
        let begins = step % (2 * EPOCH_S) == 0;
        let changed = run.keys.advance(now);
        assert_eq!(changed, begins && step > 0, "{step}");
        assert_eq!(run.epochs(), (epoch.0..=epoch.0 + AHEAD).collect::<Vec<_>>());
        if changed {
            assert!(run.signed_at() > signed_at);
            signed_at = run.signed_at();
            run.keys.descriptor().verify().unwrap();
            let file = std::fs::read(home.config.descriptor_file()).unwrap();
            assert_eq!(file, run.keys.descriptor().encode());
        }
        for key in &run.keys.descriptor().body().keys {
            assert_eq!(*published.entry(key.first).or_insert(key.key), key.key);
        }
        let in_grace = step >= 2 * EPOCH_S && now % (1_000 * EPOCH_S) < GRACE_MS;
        assert_eq!(home.files().len(), 2 * (4 + usize::from(in_grace)), "{step}");
        if step % 7 == 0 {
            for epoch in [epoch, Epoch(epoch.0 + 1)] {
                let packet = home.packet(&run, epoch);
                run.open(&packet).unwrap();
                assert_eq!(run.open(&packet), Err(DropReason::Replay));
            }
        }
        if !in_grace {
            room.insert(run.opener.replay_fill().1);
        }
        assert!(run.opener.replay_fill().0 < 40);
    }
    // The keys of the start were made with the usual grace, the others with the document's.
    assert!(room.iter().all(|room| *room <= 4 * 100 * 62), "{room:?}");
    assert_eq!(published.len(), 23);
}

#[test]
fn a_key_opens_packets_until_its_grace_is_over_and_is_gone_then() {
    let mut home = Home::new();
    let mut run = home.start(START);
    let epoch = run.keys.present;
    let old = [home.packet(&run, epoch), home.packet(&run, epoch)];
    let key = std::fs::read(run.keys.key(epoch)).unwrap();
    let over = START + 1_000 * EPOCH_S + GRACE_MS;
    run.keys.advance(over - 1);
    run.open(&old[0]).unwrap();
    run.keys.advance(over);
    assert_eq!(run.open(&old[1]), Err(DropReason::UnknownEpoch));
    for name in home.files() {
        assert_ne!(std::fs::read(home.directory().join(&name)).unwrap(), key, "{name}");
        assert!(!name.starts_with(&epoch.to_string()));
    }
    // Nor does a restart with the clock set back bring it back.
    drop(run);
    let run = home.start(START);
    assert!(matches!(run.open(&old[1]), Err(DropReason::Mac)));
}

#[test]
fn after_a_restart_keys_are_the_same_and_every_tag_is_known() {
    let mut home = Home::new();
    let run = home.start(START);
    let epoch = run.keys.present;
    let seen: Vec<Frame> = (0..100).map(|n| home.packet(&run, Epoch(epoch.0 + n % 4))).collect();
    assert!(seen.iter().all(|packet| run.open(packet).is_ok()));
    let fresh = home.packet(&run, epoch);
    let descriptor = run.keys.descriptor().clone();
    drop(run);
    for pass in 0..3 {
        let run = home.start(START + 2_000 + pass);
        assert_eq!(*run.keys.descriptor(), descriptor);
        assert!(seen.iter().all(|packet| run.open(packet) == Err(DropReason::Replay)));
        assert_eq!(run.open(&fresh).is_ok(), pass == 0);
        assert_eq!(run.opener.replay_fill().0, 101);
    }
}

#[test]
fn a_wiped_runtime_directory_means_new_keys_of_the_same_node() {
    let mut home = Home::new();
    let run = home.start(START);
    let (epoch, before) = (run.keys.present, run.keys.descriptor().body().clone());
    let (seen, unseen) = (home.packet(&run, epoch), home.packet(&run, epoch));
    run.open(&seen).unwrap();
    drop(run);
    std::fs::remove_dir_all(home.dir.path().join("run")).unwrap();
    // Even if the clock was set back.
    let run = home.start(START - 1_000 * EPOCH_S);
    let after = run.keys.descriptor().body().clone();
    assert_eq!(after.identity, before.identity);
    assert!(after.signed_at > before.signed_at);
    assert!(after.keys.iter().all(|key| before.keys.iter().all(|old| old.key != key.key)));
    for packet in [seen, unseen] {
        assert_eq!(run.open(&packet), Err(DropReason::Mac));
    }
}

#[test]
fn a_torn_log_loses_nothing_but_the_torn_tag() {
    let mut home = Home::new();
    let run = home.start(START);
    let epoch = run.keys.present;
    let seen: Vec<Frame> = (0..10).map(|_| home.packet(&run, epoch)).collect();
    assert!(seen.iter().all(|packet| run.open(packet).is_ok()));
    let (path, descriptor) = (run.keys.tags(epoch), run.keys.descriptor().clone());
    drop(run);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(length(&path) - 3).unwrap();
    let run = home.start(START);
    assert_eq!(*run.keys.descriptor(), descriptor);
    assert!(seen[..9].iter().all(|packet| run.open(packet) == Err(DropReason::Replay)));
    // It never went on: a write that is torn is one that the program did not live to see done.
    assert!(run.open(&seen[9]).is_ok());
    drop(run);
    let run = home.start(START);
    assert!(seen.iter().all(|packet| run.open(packet) == Err(DropReason::Replay)));
}

#[test]
fn a_key_whose_log_is_missing_short_or_of_another_is_never_used_again() {
    for damage in ["missing", "short", "another's", "open to others"] {
        let mut home = Home::new();
        let run = home.start(START);
        let (epoch, next) = (run.keys.present, Epoch(run.keys.present.0 + 1));
        let packet = home.packet(&run, epoch);
        run.open(&packet).unwrap();
        let (tags, other) = (run.keys.tags(epoch), run.keys.tags(next));
        let before = run.keys.descriptor().body().clone();
        drop(run);
        match damage {
            "missing" => std::fs::remove_file(&tags).unwrap(),
            "short" => std::fs::write(&tags, b"shoaltg1").unwrap(),
            "another's" => _ = std::fs::copy(&other, &tags).unwrap(),
            _ => {
                use std::os::unix::fs::PermissionsExt as _;
                std::fs::set_permissions(&tags, std::fs::Permissions::from_mode(0o644)).unwrap();
                // That is for the operator to look at.
                assert!(matches!(home.try_start(START), Err(NodeError::Secret(_))));
                continue;
            }
        }
        let run = home.start(START);
        assert_eq!(run.open(&packet), Err(DropReason::Mac), "{damage}");
        let after = run.keys.descriptor().body();
        assert!(after.signed_at > before.signed_at);
        assert_ne!(after.keys[0], before.keys[0], "{damage}");
        assert_eq!(after.keys[1..], before.keys[1..], "{damage}");
        let fresh = home.packet(&run, epoch);
        run.open(&fresh).unwrap();
    }
}

#[test]
fn a_key_or_log_that_cannot_be_read_ends_the_start_and_no_key_goes() {
    for suffix in ["tags", "key"] {
        let home = Home::new();
        let descriptor = home.start(START).keys.descriptor().clone();
        let (files, epoch) = (home.files(), START / 1_000 / EPOCH_S);
        let (path, away) =
            (home.directory().join(format!("{epoch}.{suffix}")), home.dir.path().join("away"));
        // Reading fails, as it does when no descriptors are left or a disk is broken.
        std::fs::rename(&path, &away).unwrap();
        secret::private_directory(&path).unwrap();
        let why = home.try_start(START).err().unwrap();
        let said = match &why {
            NodeError::Secret(SecretError::Io { path, .. } | SecretError::Kind { path, .. }) => {
                path
            }
            _ => panic!("{why}"),
        };
        assert_eq!(*said, path);
        assert_eq!(home.files(), files, "{suffix}");
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(&away, &path).unwrap();
        assert_eq!(*home.start(START).keys.descriptor(), descriptor, "{suffix}");
    }
}

#[test]
fn a_descriptor_that_cannot_be_read_ends_the_start() {
    let home = Home::new();
    drop(home.start(START));
    std::fs::remove_file(home.config.descriptor_file()).unwrap();
    std::fs::create_dir(home.config.descriptor_file()).unwrap();
    assert!(matches!(home.try_start(START), Err(NodeError::Secret(SecretError::Io { .. }))));
}

#[test]
fn a_log_that_cannot_be_written_is_said_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = TagLog::create(&dir.path().join("7.tags"), &[7; 32]).unwrap();
    log.fail();
    let unwritten: Arc<Mutex<Option<String>>> = Arc::default();
    let logged = |log| {
        let unwritten = unwritten.clone();
        Logged { log, failing: AtomicBool::new(false), unwritten }
    };
    assert!(logged(log).append(&[1]).is_err());
    assert!(unwritten.lock().unwrap().as_ref().unwrap().contains("space"));
    let log = TagLog::open(&dir.path().join("7.tags"), &[7; 32]).unwrap();
    let again = Logged { failing: AtomicBool::new(true), ..logged(log) };
    assert!(again.append(&[1]).is_ok());
    assert_eq!(*unwritten.lock().unwrap(), None);
}

#[test]
fn what_a_kill_left_half_made_goes() {
    let home = Home::new();
    drop(home.start(START));
    let keys = home.files();
    // A log whose key was not written yet, and a key that was not named yet.
    let epoch = START / 1_000 / EPOCH_S;
    std::fs::remove_file(home.directory().join(format!("{}.key", epoch + 2))).unwrap();
    std::fs::write(home.directory().join(".new-0011"), "secret").unwrap();
    std::fs::write(home.directory().join("99.tags"), "rest").unwrap();
    let log = std::fs::read(home.directory().join(format!("{}.tags", epoch + 2))).unwrap();
    let run = home.start(START);
    assert_eq!(home.files(), keys);
    assert_ne!(std::fs::read(run.keys.tags(Epoch(epoch + 2))).unwrap(), log);
}

#[test]
fn one_program_at_a_time_has_the_keys() {
    let home = Home::new();
    let run = home.start(START);
    assert!(matches!(home.try_start(START), Err(NodeError::InUse(_))));
    drop(run);
    home.start(START);
}

#[test]
fn a_clock_that_jumps_leaves_no_keys_that_one_byte_cannot_tell_apart() {
    let home = Home::new();
    let mut run = home.start(START);
    let (epoch, ms) = (START / 1_000 / EPOCH_S, 1_000 * EPOCH_S);
    // A little back: keys that are out stay out.
    let signed_at = run.signed_at();
    let ahead = run.keys.descriptor().body().keys[3];
    run.keys.advance(START - 1);
    assert_eq!(run.epochs(), (epoch - 1..=epoch + 3).collect::<Vec<_>>());
    assert_eq!(run.keys.descriptor().body().keys[4], ahead);
    assert!(run.signed_at() > signed_at);
    for jump in [1_000_000_i64, -1_000_000, 100, -300, 5, -8] {
        let now = (START as i64 + jump * ms as i64) as u64;
        run.keys.advance(now);
        let now = run.keys.epoch_at(now).0;
        assert!(run.keys.keys.keys().all(|key| now - 100 <= key.0 && key.0 <= now + 7));
        run.keys.descriptor().verify().unwrap();
        assert_eq!(run.epochs()[0], now);
    }
}

#[test]
fn packets_whose_tags_cannot_be_written_are_refused_for_good() {
    struct Full(AtomicBool);
    impl Log for Arc<Full> {
        fn append(&self, _: &[u64]) -> Result<(), NotWritten> {
            if self.0.load(Ordering::Relaxed) { Err(NotWritten) } else { Ok(()) }
        }
    }
    let mut home = Home::new();
    let mut run = home.start(START);
    let epoch = run.keys.present;
    let packets: Vec<Frame> = (0..2).map(|_| home.packet(&run, epoch)).collect();
    let mut secret = Secret::default();
    secret::read_into(&run.keys.key(epoch), &mut secret).unwrap();
    let full = Arc::new(Full(AtomicBool::new(true)));
    run.opener = Arc::new(Opener::new(Backend::best_codec()));
    let replay = Replay::new([1; 32], 100);
    let known = (replay, Budget::new(100.0, 100.0, 0));
    run.opener.add_logged_key(epoch, SecretKey::copied(&secret), known, Box::new(full.clone()));
    run.opener.update(&document(), epoch);
    assert_eq!(run.open(&packets[0]), Err(DropReason::ReplayLog));
    full.0.store(false, Ordering::Relaxed);
    assert_eq!(run.open(&packets[0]), Err(DropReason::Replay));
    run.open(&packets[1]).unwrap();
}

#[test]
fn packets_of_an_epoch_to_come_leave_all_of_its_room_to_the_epoch() {
    let mut home = Home::new();
    home.config.max_packets_per_s = 20;
    let run = home.start(START);
    let (own, next) = (run.keys.present, Epoch(run.keys.present.0 + 1));
    let at = |ms| Time::ZERO + Duration::from_millis(ms);
    let tell = |ms: u64| {
        run.keys.keep_time(&run.opener, at(ms), START + ms, Duration::from_millis(500));
    };
    tell(0);
    // Whoever wants to fill it: three times as many as the declared rate gives in an epoch.
    let mut early = 0;
    for n in 0..600 {
        let packet = home.packet(&run, next);
        match run.open_at(at(15 * n), &packet) {
            Ok(()) => early += 1,
            Err(why) => assert_eq!(why, DropReason::ReplayTableFull),
        }
    }
    // A sixteenth of what comes in the life of a key (an epoch, and the grace that it was made with).
    assert!((20..80).contains(&early), "{early}");
    assert!(run.open_at(at(9_000), &home.packet(&run, own)).is_ok());
    // From half a second before the epoch on, all that comes at the declared rate is opened, to its end.
    for ms in (9_500..20_000 + GRACE_MS).step_by(50) {
        tell(ms);
        let packet = home.packet(&run, next);
        assert_eq!(run.open_at(at(ms), &packet), Ok(()), "{ms}");
    }
}

#[test]
fn beyond_the_declared_rate_and_a_burst_packets_are_refused_and_later_ones_are_not() {
    let mut home = Home::new();
    home.config.max_packets_per_s = 20;
    let run = home.start(START);
    let own = run.keys.present;
    run.keys.keep_time(&run.opener, Time::ZERO, START, Duration::ZERO);
    let at = |ms| Time::ZERO + Duration::from_millis(ms);
    let mut open = |ms, count| {
        (0..count).filter(|_| run.open_at(at(ms), &home.packet(&run, own)).is_ok()).count()
    };
    let burst = open(0, 300);
    assert!((20..80).contains(&burst), "{burst}");
    assert!((19..=21).contains(&open(1_000, 100)));
    assert!((38..=41).contains(&open(3_000, 100)));
}

/// Does something in the middle of opening a batch, as other workers do.
struct Meanwhile {
    codec: Arc<dyn Codec>,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Codec for Meanwhile {
    fn seal(
        &self,
        rng: &mut dyn rand::CryptoRng,
        path: &[Hop],
        id: PacketId,
        message: &[u8],
    ) -> Result<Packet, SphinxError> {
        self.codec.seal(rng, path, id, message)
    }
    fn surb(
        &self,
        rng: &mut dyn rand::CryptoRng,
        path: &[Hop],
        id: PacketId,
    ) -> Result<(Surb, SurbKeys), SphinxError> {
        self.codec.surb(rng, path, id)
    }
    fn reply(&self, surb: Surb, message: &[u8]) -> Result<(Packet, Address), SphinxError> {
        self.codec.reply(surb, message)
    }
    fn open(&self, secret: &SecretKey, packet: Packet) -> Result<Opened, SphinxError> {
        let then = self.then.lock().unwrap().take();
        if let Some(then) = then {
            then();
        }
        self.codec.open(secret, packet)
    }
    fn peel(&self, opened: Opened) -> Result<Peeled, SphinxError> {
        self.codec.peel(opened)
    }
    fn unseal(&self, keys: &SurbKeys, payload: Payload) -> Result<Vec<u8>, SphinxError> {
        self.codec.unseal(keys, payload)
    }
}

struct Quiet;

impl Log for Quiet {
    fn append(&self, _: &[u64]) -> Result<(), NotWritten> {
        Ok(())
    }
}

#[test]
fn packets_with_a_wrong_mac_use_up_nothing_of_what_a_key_may_come_to_know() {
    let mut home = Home::new();
    let run = home.start(START);
    let epoch = run.keys.present;
    let mut secret = Secret::default();
    secret::read_into(&run.keys.key(epoch), &mut secret).unwrap();
    let codec = Arc::new(Meanwhile { codec: Backend::best_codec(), then: Mutex::default() });
    let opener = Arc::new(Opener::new(codec.clone()));
    let known = (Replay::new([7; 32], 1_000), Budget::new(0.001, 10.0, 0));
    opener.add_logged_key(epoch, SecretKey::copied(&secret), known, Box::new(Quiet));
    opener.update(&document(), epoch);
    let mut batch = Vec::new();
    for _ in 0..50 {
        let mut wrong = home.packet(&run, epoch);
        wrong.packet.as_mut_bytes()[100] ^= 1;
        batch.push((Time::ZERO, wrong));
    }
    // While one worker opens these, another has honest ones: as many as the key may come to know.
    let honest: Vec<Frame> = (0..10).map(|_| home.packet(&run, epoch)).collect();
    let opened = Arc::new(Mutex::new(Vec::new()));
    *codec.then.lock().unwrap() = Some(Box::new({
        let (opener, opened) = (opener.clone(), opened.clone());
        move || {
            let results = honest.into_iter().map(|frame| opener.open_frame(Time::ZERO, frame));
            opened.lock().unwrap().extend(results.map(|result| result.err()));
        }
    }));
    let mut results = Vec::new();
    opener.open_batch(&mut batch, &mut Room::default(), &mut results);
    assert!(results.iter().all(|result| result.as_ref().err() == Some(&DropReason::Mac)));
    assert_eq!(*opened.lock().unwrap(), [None; 10]);
    let late = opener.open_frame(Time::ZERO, home.packet(&run, epoch));
    assert_eq!(late.err(), Some(DropReason::ReplayTableFull));
}

#[test]
fn a_neighbour_that_floods_leaves_the_others_their_part_of_the_rate() {
    let mut home = Home::new();
    home.config.max_packets_per_s = 40;
    let run = home.start(START);
    let own = run.keys.present;
    run.keys.keep_time(&run.opener, Time::ZERO, START, Duration::ZERO);
    run.opener.share_among(4);
    let mut open = |ms, neighbour, count: usize| {
        let came =
            Came { at: Time::ZERO + Duration::from_millis(ms), from: Identity([neighbour; 32]) };
        let mut packets = (0..count).map(|_| home.packet(&run, own));
        packets
            .by_ref()
            .filter(|packet| run.opener.open_frame(came, packet.clone()).is_ok())
            .count()
    };
    // One brings more than there is, before the others, from the first instant on. These bring eight a second each, of the
    // ten that are their part.
    assert!(open(0, 1, 100) < 100);
    for ms in (0..10_000).step_by(250) {
        open(ms, 1, 12);
        for neighbour in 2..5 {
            assert_eq!(open(ms, neighbour, 2), 2, "{neighbour} at {ms}");
        }
    }
}

#[test]
fn a_node_whose_tables_are_too_small_for_its_rate_is_told() {
    let mut home = Home::new();
    assert_eq!(home.start(START).keys.warnings(), [""; 0]);
    home.config.replay_mib = 1;
    home.config.max_packets_per_s = 2_000;
    let warnings = home.start(START).keys.warnings();
    assert!(warnings[0].contains("raise replay_mib to "), "{warnings:?}");
    home.config.replay_mib = 1_000_000_000;
    home.config.max_packets_per_s = 1_000_000_000;
    // Eight TiB of tags.
    let warnings = home.start(START).keys.warnings();
    assert!(warnings.iter().any(|why| why.contains("room for")), "{warnings:?}");
}

/// What the log costs of opening a packet: `cargo test -p shoal-node --lib -- --ignored --nocapture the_log_costs`.
#[test]
#[ignore = "a measurement"]
fn the_log_costs_little_of_opening() {
    let mut home = Home::new();
    home.config.runtime_dir = PathBuf::from("/dev/shm/shoal-log-cost");
    home.config.max_packets_per_s = 1_000_000;
    let run = home.start(START);
    let epoch = run.keys.present;
    let mut secret = Secret::default();
    secret::read_into(&run.keys.key(epoch), &mut secret).unwrap();
    let bare = Opener::new(Backend::best_codec());
    bare.add_key(epoch, epoch, SecretKey::copied(&secret), Replay::new([1; 32], 1_000_000));
    bare.update(&document(), epoch);
    let frames: Vec<Frame> = (0..4_096).map(|_| home.packet(&run, epoch)).collect();
    for (name, opener) in [("without", &bare), ("with", &*run.opener)] {
        let (mut room, mut results) = Default::default();
        let start = Instant::now();
        for batch in frames.chunks(32) {
            let mut batch = batch.iter().map(|frame| (Time::ZERO, frame.clone())).collect();
            opener.open_batch(&mut batch, &mut room, &mut results);
        }
        let ns = start.elapsed().as_nanos() / frames.len() as u128;
        assert!(results.iter().all(Result::is_ok));
        println!("{name} the log: {ns} ns a packet");
    }
    std::fs::remove_dir_all("/dev/shm/shoal-log-cost").unwrap();
}
