//! What becomes of a program whose standard output cannot be written: no panic, and no success that nobody heard of.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::OpenOptions;
use std::process::{Command, Output, Stdio};

const SHORT: &[&[&str]] = &[
    &["--help"],
    &["--version"],
    &["run", "--list"],
    &["run", "--explain", "shoal"],
    &["events", "--pool", "1000", "--packets", "1000"],
    &["events", "--pool", "1000", "--packets", "1000", "--json"],
];

fn sim(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-sim"));
    command.args(args).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn a_full_disk_is_an_error_and_not_a_success() {
    for args in SHORT {
        let Output { status, stderr, .. } = sim(args).stdout(full()).output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{args:?}: {stderr}");
        assert!(
            stderr.starts_with("error: cannot write to standard output: "),
            "{args:?}: {stderr}"
        );
    }
}

#[test]
fn a_reader_that_is_gone_ends_a_program_quietly() {
    for args in SHORT {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let Output { status, stderr, .. } = sim(args).stdout(writer).output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(status.success() && stderr.is_empty(), "{args:?}: {status}: {stderr}");
    }
}
