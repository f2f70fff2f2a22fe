//! What a person types, and what the program answers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test's own helpers may fail.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn shoal_client(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-client"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A directory that `init` has made, and the configuration in it, with a gateway.
fn made(dir: &Path) -> String {
    let home = dir.join("client");
    let done = shoal_client(&["init", home.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let config = home.join("client.toml");
    let identity = text(&done.stdout);
    let identity = identity.split_whitespace().find(|word| word.len() == 52).unwrap();
    let gateway =
        format!("gateways = [{{ identity = \"{identity}\", address = \"127.0.0.1:9\" }}]");
    let written = std::fs::read_to_string(&config).unwrap();
    let lines: Vec<&str> = written.lines().filter(|line| !line.starts_with("gateways")).collect();
    std::fs::write(&config, format!("{gateway}\n{}\n", lines.join("\n"))).unwrap();
    config.to_str().unwrap().into()
}

#[test]
fn init_makes_private_files_once_and_prints_the_identity() {
    let dir = tempfile::tempdir().unwrap();
    let config = made(dir.path());
    let home = Path::new(&config).parent().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(Path::new(&config)), 0o600);
    assert_eq!(mode(&home.join("data")), 0o700);
    let identity = text(&shoal_client(&["identity", "-c", &config]).stdout);
    assert_eq!(identity.trim().len(), 52, "{identity}");
    let again = shoal_client(&["init", home.to_str().unwrap()]);
    assert_ne!(again.status.code(), Some(0));
    assert_eq!(
        text(&shoal_client(&["identity", "-c", &config]).stdout),
        identity,
        "nothing is replaced"
    );
}

#[test]
fn a_mistake_is_one_line_with_its_place_and_a_code_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let config = made(dir.path());
    for (arguments, code, says) in [
        (vec!["check", "-c", "/nowhere/client.toml"], 78, "/nowhere/client.toml"),
        (vec!["check", "-c", &config, "-o", "colour=web"], 78, "colour"),
        (vec!["status", "-c", &config], 1, "control.sock"),
        (vec!["events", "-c", &config, "--once"], 1, "no client runs"),
        (vec!["send", "-c", &config, "nobody.shoal"], 1, "no client runs"),
        (vec!["open", "-c", &config], 1, "reachable = true"),
        (vec!["open", "-c", &config, "-o", "reachable=true"], 1, "no client runs"),
        (vec!["open", "-c", &config, "-o", "page.listen="], 1, "page.listen"),
        (vec!["check", "-c", &config, "-o", "page.listen=0.0.0.0:7460"], 78, "loopback"),
    ] {
        let done = shoal_client(&arguments);
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    assert_eq!(shoal_client(&["dance"]).status.code(), Some(2));
}
