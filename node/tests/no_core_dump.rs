//! A crash leaves no core dump: the keys of a daemon stand in its memory.

#![allow(clippy::disallowed_methods)] // Real programs run on the real clock.
#![allow(clippy::unwrap_used)] // A test's own helpers may fail.

mod common;

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::*;

/// Starts a program with cores of any size allowed, in a directory of its own.
fn with_cores(program: &str, arguments: &[&str], directory: &Path) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited 2>/dev/null; exec \"$0\" \"$@\"", program]);
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Says whether the kernel wrote a core, and what lies in the directory then.
fn abort(mut child: Child, directory: &Path) -> (bool, Vec<String>) {
    Command::new("kill").args(["-ABRT", &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(6), "{status:?}");
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    (status.core_dumped(), names.filter(|name| name.contains("core")).collect())
}

#[test]
fn an_aborted_node_leaves_no_core_dump() {
    let net = Net::new(&[1]);
    let (control, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // What the system would do to a program that forbids nothing.
    let other = with_cores("sleep", &["60"], control.path());
    std::thread::sleep(Duration::from_millis(200));
    let (allowed, _) = abort(other, control.path());
    if !allowed {
        // Past the runner, which shows nothing of tests that pass; `.ci/run` repeats it at its end.
        let why = "this system writes no cores of any program; only the limit is looked at";
        let line = format!("\nSKIP  an_aborted_node_leaves_no_core_dump: {why}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }

    let node = &net.nodes[0];
    let arguments = ["run", "-c", node.path()];
    let child = with_cores(env!("CARGO_BIN_EXE_shoal-node"), &arguments, dir.path());
    let live = || get(node.admin(), "/livez").filter(|(status, _)| *status == 200);
    within(Duration::from_secs(30), "a live node", live);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let words: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(words.get(4..6), Some(&["0", "0"][..]), "{core}");
    assert_eq!(abort(child, dir.path()), (false, Vec::new()));
}
