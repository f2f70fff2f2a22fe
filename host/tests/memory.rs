//! What keeps keys from the disk: in a process of its own, since it concerns all of it.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used)]

use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};
use shoal_host::memory;

/// A field of /proc/self/status, in kB.
fn status_kb(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_process_forbids_its_dumps_and_locks_what_it_uses_or_says_why_not() {
    assert_eq!(memory::forbid_dumps(), Vec::<String>::new());
    let core = getrlimit(Resource::Core);
    assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);

    let warnings = memory::lock();
    if warnings.is_empty() {
        // Whatever comes is locked when it is used, and takes no room before.
        let before = status_kb("VmLck");
        assert!(before > 0, "nothing is locked");
        let used = std::hint::black_box(vec![1_u8; 8 << 20]);
        assert!(status_kb("VmLck") >= before + (8 << 10) && used.len() == 8 << 20);
        let resident = status_kb("VmRSS");
        let reserved = std::hint::black_box(Vec::<u8>::with_capacity(256 << 20));
        assert!(status_kb("VmRSS") < resident + (64 << 10) && reserved.is_empty());
    } else {
        assert!(warnings.concat().contains("LimitMEMLOCK"), "{warnings:?}");
        assert_eq!(status_kb("VmLck"), 0, "half of it is locked");
    }
}
