//! What was recorded in an epoch stays closed once its key's time is over: the key is nowhere any more.

#![allow(clippy::disallowed_methods)] // Real programs run on the real clock.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr)] // A test's own helpers may fail.

mod common;

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::between::{Between, Bytes};
use common::*;
use shoal_sphinx::Frame;
use shoal_sphinx::backend::Backend;
use shoal_topology::Epoch;

const PATIENCE: Duration = Duration::from_secs(60);
const EPOCH_S: u64 = 4;

/// Eight bytes from the middle of a key, where clamping changes nothing, or of its hex digits.
#[derive(Default)]
struct Needles {
    words: std::collections::HashSet<u64>,
    /// Says whether there may be one with this low half, so that most of a memory is passed over quickly.
    halves: std::collections::HashSet<u16>,
}

impl Needles {
    fn add(&mut self, word: [u8; 8]) {
        let word = u64::from_le_bytes(word);
        self.words.insert(word);
        self.halves.insert(word as u16);
    }
}

/// What the ladder works on and brings out: the secrets that the node shares with the makers of these packets, in the words
/// that its lanes have, and across them.
fn residue(key_file: &Path, packets: &[Bytes]) -> Needles {
    let text = std::fs::read_to_string(key_file).unwrap();
    let byte = |n: usize| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap();
    let key: [u8; 32] = std::array::from_fn(byte);
    let points = packets.iter().map(|frame| {
        let packet = Frame::decode(frame).unwrap().packet;
        <[u8; 32]>::try_from(&packet.as_bytes()[..32]).unwrap()
    });
    let points: Vec<[u8; 32]> = points.collect();
    let secrets = Backend::Scalar.x25519(&vec![key; points.len()], &points).unwrap();
    let mut needles = Needles::default();
    for secret in secrets {
        for at in [0, 8, 12, 16, 24] {
            needles.add(secret[at..at + 8].try_into().unwrap());
        }
    }
    needles
}

fn needles(key_file: &Path) -> Needles {
    let text = std::fs::read(key_file).unwrap();
    let digits = |at: usize| text[at..at + 8].try_into().unwrap();
    let bytes = |at: usize| {
        let byte = |n: usize| {
            let digits = std::str::from_utf8(&text[2 * (at + n)..2 * (at + n) + 2]).unwrap();
            u8::from_str_radix(digits, 16).unwrap()
        };
        std::array::from_fn(byte)
    };
    let all: [[u8; 8]; 6] = [bytes(8), bytes(12), bytes(16), digits(16), digits(24), digits(40)];
    let mut needles = Needles::default();
    all.into_iter().for_each(|word| needles.add(word));
    needles
}

fn count(bytes: &[u8], needles: &Needles) -> usize {
    let mut likely = [false; 1 << 16];
    needles.halves.iter().for_each(|half| likely[usize::from(*half)] = true);
    let is_needle = |window: &&[u8]| {
        likely[usize::from(u16::from_le_bytes([window[0], window[1]]))]
            && needles.words.contains(&u64::from_le_bytes((*window).try_into().unwrap()))
    };
    bytes.windows(8).filter(is_needle).count()
}

/// How often any of the needles stands in the memory of a process.
fn in_memory(pid: u32, needles: &Needles) -> std::io::Result<usize> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    let mut found = 0;
    let mut read = 0;
    for line in maps.lines() {
        let mut words = line.split(' ');
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        // The program's own text and its libraries' hold no keys.
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let (mut at, end) = (address(from), address(to));
        let mut chunk = vec![0; 1 << 20];
        while at < end {
            let length = (end - at).min(chunk.len() as u64) as usize;
            // Some of what is mapped cannot be read.
            let Ok(got) = memory.read_at(&mut chunk[..length], at) else { break };
            if got < 8 {
                break;
            }
            read += got;
            let here = count(&chunk[..got], needles);
            if here > 0 {
                eprintln!("{here} in {line}");
            }
            found += here;
            // The next chunk begins with the end of this one, should a needle lie across.
            at += (got - 7) as u64;
        }
    }
    assert!(read > 1 << 20, "the memory was not read: {read} bytes");
    Ok(found)
}

/// True if this test may read the memory of a node, which forbids it to its own user. If not, that part of the test is
/// not made, and this says so past the runner, which shows nothing of tests that pass; `.ci/run` repeats it at its end.
fn may_see_memory(pid: u32) -> bool {
    let opened = std::fs::File::open(format!("/proc/{pid}/mem"));
    let denied = opened.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    if denied {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let why = "the memory of a node shows to CAP_SYS_PTRACE alone; run as root";
        let line = format!("\nSKIP  {test}, what it says of memory: {why}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    !denied
}

fn in_files(directory: &Path, needles: &Needles) -> usize {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let each = |path: std::path::PathBuf| match path.metadata() {
        Ok(found) if found.is_dir() => in_files(&path, needles),
        Ok(found) if found.is_file() => count(&std::fs::read(path).unwrap_or_default(), needles),
        _ => 0,
    };
    entries.map(each).sum()
}

fn epoch() -> Epoch {
    Epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / EPOCH_S)
}

#[test]
fn what_was_recorded_in_an_expired_epoch_cannot_be_opened_with_anything_that_the_node_has() {
    let between = Between::new(EPOCH_S as u32, 100_000, 1);
    let running = between.mix().start();
    let descriptor = between.mix().config.descriptor_file();
    within(PATIENCE, "a descriptor", || descriptor.exists().then_some(()));
    between.sign();
    between.linked();
    the_old_key_is_nowhere(between, running);
}

#[test]
fn nor_with_what_it_has_if_the_key_was_an_earlier_runs() {
    let between = Between::new(EPOCH_S as u32, 100_000, 1);
    between.sign();
    let running = between.start();
    the_old_key_is_nowhere(between, running);
}

/// Keys end 1.2 s after their epoch.
fn the_old_key_is_nowhere(mut between: Between, running: Running) {
    let pid = running.child.id();
    let mut link = between.dial();
    let mix = between.mix();
    let (data, keys) = (mix.config.data_dir.clone(), mix.config.runtime_dir().join("keys"));
    let file = |epoch: Epoch| keys.join(format!("{epoch}.key"));

    let old = epoch();
    let packets = between.packets(200, old, Duration::from_millis(5));
    let (sent, recorded) = packets.split_at(150);
    let key = needles(&file(old));
    let left = residue(&file(old), sent);
    for batch in sent.chunks(40) {
        between.runtime.block_on(link.sender.send_all(batch)).unwrap();
    }
    within(PATIENCE, "packets at the sink", || (between.seen().0 == sent.len()).then_some(()));
    let sees = may_see_memory(pid);
    let memory = |needles: &Needles| sees.then(|| in_memory(pid, needles).unwrap());
    let present = memory(&key);
    // While the key is in use: what opening 150 packets left is gone already, on every stack.
    assert!(
        memory(&left).is_none_or(|found| found == 0),
        "secrets shared with senders are in memory"
    );
    if file(old).exists() {
        assert!(present.is_none_or(|found| found > 0), "a key that is in use is found");
        assert!(in_files(&keys, &key) > 0);
    }

    within(PATIENCE, "the end of the key", || (!file(old).exists()).then_some(()));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(in_files(&data, &key) + in_files(&keys, &key), 0, "the key is in a file");
    assert!(memory(&key).is_none_or(|found| found == 0), "the key is in the memory of the node");
    assert!(
        memory(&left).is_none_or(|found| found == 0),
        "secrets shared with senders are in memory"
    );
    let now = needles(&file(Epoch(epoch().0 + 1)));
    assert!(memory(&now).is_none_or(|found| found > 0), "a key that is in use is found");

    let before = between.dropped("unknown_epoch");
    between.runtime.block_on(link.sender.send_all(recorded)).unwrap();
    let all = before + recorded.len() as u64;
    within(PATIENCE, "drops", || (between.dropped("unknown_epoch") == all).then_some(()));
    assert_eq!(between.seen(), (sent.len(), 1));
}
