//! The program has the verbs about real daemons, and a localnet minds its standard output.

// Tests fail by panicking; one waits for a process of its own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::fs::OpenOptions;
use std::io::Read as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn sim(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-sim"));
    command.args(args).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

#[test]
fn the_verbs_about_real_daemons_are_there_by_default() {
    for verb in ["localnet", "speed", "load", "daemon"] {
        let Output { status, stdout, stderr } =
            sim(&[verb, "--help"]).stdout(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&stdout);
        let usage = format!("Usage: shoal-sim {verb} ");
        assert!(status.success() && stderr.is_empty() && said.contains(&usage), "{verb}: {said}");
    }
}

#[test]
fn a_localnet_that_cannot_say_where_it_is_fails() {
    let args = ["localnet", "--socks", "127.0.0.1:0", "--json"];
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let Output { status, stderr, .. } = sim(&args).stdout(full).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: cannot write to standard output: "), "{stderr}");
}

#[test]
fn a_localnet_outlives_who_reads_its_first_line() {
    let mut child =
        sim(&["localnet", "--socks", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 8];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"Starting");
    // The pipe is closed now. Its other lines have no reader, and it goes on until it is asked to end.
    let pid = rustix::process::Pid::from_child(&child);
    let status = format!("/proc/{}/task", child.id());
    let began = Instant::now();
    // It has many threads once it runs its daemons.
    while std::fs::read_dir(&status).map_or(0, Iterator::count) < 10 {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        assert!(began.elapsed() < Duration::from_secs(60), "its daemons do not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
}
