//! A localnet that cannot start says why, and ends in order.

// Tests fail by panicking, and wait for processes of their own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A directory for this user alone, as localnets want it.
fn private(dir: &Path) {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).unwrap();
}

/// What a localnet in this directory says when it fails.
fn fails(dir: &Path, more: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-localnet"));
    command.args(["localnet", "--socks", "127.0.0.1:0", "--for", "1", "--dir"]).arg(dir).args(more);
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(!stdout.contains("Ready") && !stderr.contains("panicked"), "{stdout} {stderr}");
    stderr
}

#[test]
fn a_directory_whose_sockets_have_too_long_names_is_refused_with_the_remedy() {
    let base = tempfile::tempdir().unwrap();
    let deep = base.path().join("results-of-an-experiment-with-a-long-name/".repeat(3));
    private(&deep);
    let said = fails(&deep, &[]);
    assert!(said.contains("the path of the socket ") && said.contains("it may have 107"), "{said}");
    assert!(said.contains("choose a shorter directory with --dir"), "{said}");
}

#[test]
fn what_a_daemon_fails_of_is_the_error_whether_it_is_a_thread_or_a_process() {
    for more in [&[][..], &["--processes"]] {
        let dir = tempfile::Builder::new().prefix("net").tempdir_in("/tmp").unwrap();
        let net = dir.path().join("net");
        private(&net.join("client-1"));
        // Where its control socket should be.
        fs::write(net.join("client-1/run"), "a file").unwrap();
        let said = fails(&net, more);
        assert!(said.contains("client-1 ended: ") && said.contains("client-1/run"), "{said}");
    }
}

#[test]
fn a_directory_of_another_program_is_left_as_it_is() {
    let dir = tempfile::Builder::new().prefix("net").tempdir_in("/tmp").unwrap();
    let own = dir.path().join("zoe");
    private(&own);
    fs::write(own.join("client.toml"), "").unwrap();
    let said = fails(&own, &[]);
    assert!(said.contains("client.toml is another program's"), "{said}");
    assert_eq!(fs::read_dir(&own).unwrap().count(), 1);
}

#[test]
fn two_localnets_do_not_share_a_directory() {
    let dir = tempfile::Builder::new().prefix("net").tempdir_in("/tmp").unwrap();
    let net = dir.path().join("net");
    private(&net);
    let mut first = Command::new(env!("CARGO_BIN_EXE_shoal-localnet"))
        .args(["localnet", "--json", "--for", "100", "--socks", "127.0.0.1:0", "--dir"])
        .arg(&net)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let file = || fs::read(net.join("network.toml")).unwrap();
    let before = file();
    let said = fails(&net, &[]);
    assert!(said.contains("a localnet runs in ") && file() == before, "{said}");
    Command::new("kill").args(["-TERM", &first.id().to_string()]).status().unwrap();
    assert!(first.wait().unwrap().success());
}

#[test]
fn a_daemon_that_ends_later_is_named_and_the_others_go_on() {
    let signal = |name: &str, pid: u64| {
        Command::new("kill").args([name, &pid.to_string()]).status().unwrap();
    };
    let mut localnet = Command::new(env!("CARGO_BIN_EXE_shoal-localnet"))
        .args(["localnet", "--processes", "--json", "--for", "100", "--socks", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(localnet.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let Ok(ready) = serde_json::from_str::<serde_json::Value>(&ready) else {
        let mut said = String::new();
        localnet.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        panic!("no localnet: {ready} {said}");
    };
    let mix = ready["nodes"].as_array().unwrap().iter().find(|node| node["name"] == "mix-1-1");
    signal("-KILL", mix.unwrap()["pid"].as_u64().unwrap());
    let mut said = BufReader::new(localnet.stderr.take().unwrap()).lines();
    let named = said.find(|line| line.as_ref().unwrap().contains("mix-1-1 has ended")).unwrap();
    assert!(named.unwrap().contains("SIGKILL"));
    assert!(localnet.try_wait().unwrap().is_none(), "the others go on");
    signal("-TERM", localnet.id().into());
    assert!(localnet.wait().unwrap().success());
}

#[test]
fn the_program_by_itself_runs_a_localnet_and_no_verb_beside_its_options() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-localnet"));
        command.args(args).stdin(Stdio::null()).output().unwrap()
    };
    let alone = run(&["--json", "--for", "1", "--socks", "127.0.0.1:0"]);
    assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stderr));
    assert!(String::from_utf8(alone.stdout).unwrap().starts_with('{'));
    // Whose option it would be nobody could tell.
    assert_eq!(run(&["--for", "1", "speed"]).status.code(), Some(2));
}
