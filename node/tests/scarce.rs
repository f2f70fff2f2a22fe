//! What the system does not give: descriptors, a second run, a short path, a reader of stdout, room on a disk.

#![allow(clippy::disallowed_methods)] // Real programs run on the real clock.
#![allow(clippy::unwrap_used)] // A test's own helpers may fail.

mod common;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::*;

const PATIENCE: Duration = Duration::from_secs(60);
const NODE: &str = env!("CARGO_BIN_EXE_shoal-node");

fn keys(node: &Node) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = std::fs::read_dir(node.config.runtime_dir().join("keys")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let keys = paths.filter(|path| path.extension().is_some_and(|kind| kind == "key"));
    keys.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn without_descriptors_a_start_fails_and_says_why_and_no_key_is_lost() {
    let net = Net::new(&[1]);
    let node = &net.nodes[0];
    shoal_node::daemon::descriptor(&node.config).unwrap();
    let before = keys(node);
    assert_eq!(before.len(), 4);
    let log = node.file.with_extension("log");
    for descriptors in (5..=26).chain([32, 48]) {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n $0; exec \"$@\"", &descriptors.to_string(), NODE]);
        command.args(["run", "-c", node.path()]).env_remove("SHOAL_LOG");
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        let mut running = Running { child: command.spawn().unwrap(), log: log.clone() };
        // It ends, or it stands; with so few it may stand and answer nobody.
        let began = Instant::now();
        let ended = loop {
            if let Some(ended) = running.child.try_wait().unwrap() {
                break Some(ended);
            }
            let said = running.log();
            if said.contains("the node runs") || began.elapsed() > PATIENCE {
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let said = running.log();
        match ended {
            Some(ended) => {
                assert_eq!(ended.code(), Some(1), "{descriptors}: {said}");
                assert!(said.contains("error: "), "{descriptors}: {said}");
            }
            // What it lacks may show after it has said that it runs, and end it then, with the reason.
            None => match running.terminate().0 {
                Some(0) => {}
                code => {
                    let said = running.log();
                    assert!(code == Some(1) && said.contains("error: "), "{descriptors}: {said}");
                }
            },
        }
        let said = running.log();
        assert!(!said.contains("panicked"), "{descriptors}: {said}");
        let after = keys(node);
        let lost = before.iter().find(|(path, key)| after.get(*path) != Some(key));
        assert_eq!(lost.map(|(path, _)| path), None, "{descriptors}: {said}");
    }
}

#[test]
fn two_programs_with_one_data_directory_are_one_too_many() {
    let net = Net::new(&[1]);
    let node = &net.nodes[0];
    let _running = node.start();
    within(PATIENCE, "a live node", || {
        get(node.admin(), "/livez").filter(|(status, _)| *status == 200)
    });
    let listen = format!("listen={}", free_address());
    let elsewhere = ["-o", "runtime_dir=run2", "-o", "admin=", "-o", &listen];
    let done = command(&["run", "-c", node.path()]).args(elsewhere).output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", text(&done.stderr));
    assert!(text(&done.stderr).contains("another shoal-node runs with"), "{}", text(&done.stderr));
    // To look at the configuration of a node that runs harms nobody.
    let done = shoal_node(&["check", "-c", node.path()]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
}

#[test]
fn a_socket_whose_path_is_too_long_is_refused_by_all_verbs() {
    let net = Net::new(&[1]);
    let long = format!("runtime_dir={}/{}", net.dir.path().display(), "long-name-".repeat(10));
    for verb in ["check", "run"] {
        let done = shoal_node(&[verb, "-c", net.nodes[0].path(), "-o", &long]);
        assert_eq!(done.status.code(), Some(78), "{verb}: {}", text(&done.stderr));
        for wanted in ["bytes, and it may have 107", "shorter `runtime_dir`"] {
            assert!(text(&done.stderr).contains(wanted), "{verb}: {}", text(&done.stderr));
        }
    }
    let done = shoal_node(&["status", "--socket", &"x".repeat(108)]);
    assert_eq!(done.status.code(), Some(78), "{}", text(&done.stderr));
}

#[test]
fn no_verb_panics_when_nobody_reads_it_and_none_says_that_it_is_done_on_a_full_disk() {
    let net = Net::new(&[1, 2, 3, 0, 0]);
    net.sign(0);
    let file = net.dir.path().join("topology");
    let file = file.to_str().unwrap();
    let network = net.dir.path().join("network.toml");
    let verbs: [&[&str]; 5] = [
        &["check", "-c", net.nodes[0].path()],
        &["topology", "show", file],
        &["topology", "show", file, "--json"],
        &["topology", "verify", file, "--network", network.to_str().unwrap()],
        &["bench", "--backend", "scalar", "--json"],
    ];
    for verb in verbs {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = command(verb).stdout(writer).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{verb:?}: {}", text(&done.stderr));
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let done = command(verb).stdout(full).output().unwrap();
        assert_eq!(done.status.code(), Some(1), "{verb:?}: {}", text(&done.stderr));
        assert!(text(&done.stderr).contains("cannot write to standard output"), "{verb:?}");
    }
}

/// True if this process may mount something for a program alone.
fn may_mount() -> bool {
    let mount = "mount -t tmpfs none /mnt";
    let tried = Command::new("unshare").args(["-m", "sh", "-c", mount]).output();
    tried.is_ok_and(|tried| tried.status.success())
}

#[test]
fn a_mix_whose_runtime_directory_is_full_says_so_and_works_again_when_there_is_room() {
    if !may_mount() {
        let line = "\nSKIP  a_mix_whose_runtime_directory_is_full: nothing may be mounted here\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let net = Net::new(&[1, 2, 3, 0, 0]);
    // The keys of this mix are made in a file system of its own.
    let small = &net.nodes[0];
    let directory = small.config.runtime_dir();
    std::fs::create_dir(&directory).unwrap();
    let log = small.file.with_extension("log");
    let mut command = Command::new("unshare");
    let mount = "mount -t tmpfs -o size=400k,mode=700 none \"$0\" && exec \"$@\"";
    command.args(["-m", "sh", "-c", mount]).arg(&directory).arg(NODE);
    command.args(["run", "-c", small.path()]).env_remove("SHOAL_LOG");
    command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
    let running = Running { child: command.spawn().unwrap(), log };
    let inside = |name: &str| {
        let root = PathBuf::from(format!("/proc/{}/root", running.child.id()));
        root.join(directory.strip_prefix("/").unwrap_or(Path::new("."))).join(name)
    };
    let ready = |node: &Node| get(node.admin(), "/readyz").filter(|(status, _)| *status == 200);
    within(PATIENCE, "a live mix", || get(small.admin(), "/livez"));
    let _others: Vec<Running> = net.nodes[1..].iter().map(Node::start).collect();
    for node in &net.nodes {
        within(PATIENCE, "descriptor", || node.config.descriptor_file().exists().then_some(()));
    }
    let listed = net.nodes.iter().zip([1, 2, 3, 0, 0]).map(|(node, layer)| {
        let descriptor = shoal_topology::Signed::<shoal_topology::NodeDescriptor>::decode(
            &std::fs::read(node.config.descriptor_file()).unwrap(),
        );
        shoal_topology::ListedNode::new(descriptor.unwrap(), layer)
    });
    let listed: Vec<_> = listed.collect();
    let epoch = listed.iter().map(|node| node.descriptor.body().keys[0].first).max().unwrap();
    net.sign_listed(listed, epoch, 0);
    within(PATIENCE, "ready", || ready(small));

    let mut fill = std::fs::File::create(inside("fill")).unwrap();
    while fill.write_all(&[0; 4_096]).is_ok() {}
    let why = within(PATIENCE, "a reason", || {
        get(small.admin(), "/readyz").filter(|(status, _)| *status == 503)
    });
    assert!(why.1.contains("cannot be written down"), "{}", why.1);
    let socket = inside("control.sock");
    // Drops are told a little later than their reason.
    within(PATIENCE, "a status that says all of it", || {
        let status = text(&shoal_node(&["status", "--socket", socket.to_str().unwrap()]).stdout);
        let wanted = ["does not do its work", "\n  packets are refused", "replay log unwritable: "];
        wanted.iter().all(|wanted| status.contains(wanted)).then_some(())
    });
    within(PATIENCE, "a counter", || {
        metric(small.admin(), "shoal_node_failures_total").filter(|failures| *failures >= 1)
    });
    drop(fill);
    std::fs::remove_file(inside("fill")).unwrap();
    within(PATIENCE, "ready again", || ready(small));
    let errors = running.log().matches("ERROR").count();
    assert!(errors <= 8, "{errors}: {}", running.log());
}
