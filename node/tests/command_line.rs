//! What a user types, and what the program answers.

mod common;

use std::os::unix::fs::PermissionsExt as _;

use common::*;

#[test]
fn what_init_writes_passes_check() {
    for role in ["mix", "gateway"] {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("node");
        let done = shoal_node(&["init", "--role", role, home.to_str().unwrap()]);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        let file = home.join("config.toml");
        assert!(std::fs::read_to_string(&file).unwrap().contains(&format!("role = \"{role}\"")));
        let check = ["check", "-c", file.to_str().unwrap(), "-o", "runtime_dir=run"];
        let done = shoal_node(&check);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        assert!(text(&done.stderr).contains("network file"), "{}", text(&done.stderr));
        for (path, mode) in [
            ("config.toml", 0o600),
            ("data", 0o700),
            ("data/identity.key", 0o600),
            ("run", 0o700),
            ("run/inbox.key", 0o600),
        ] {
            let found = std::fs::metadata(home.join(path)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{path}");
        }
        // A second time nothing is replaced.
        let done = shoal_node(&["init", "--role", role, home.to_str().unwrap()]);
        assert_eq!(done.status.code(), Some(1));
        assert!(text(&done.stderr).contains("exists already"));
    }
}

#[test]
fn a_bad_configuration_ends_with_78_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "runtime_dir = \"run\"\nnonsense = 1\n").unwrap();
    let done = shoal_node(&["check", "-c", path]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(text(&done.stderr).contains("config.toml:2:1: unknown key `nonsense`"));

    for (line, wanted) in [
        ("pool_packets = 0", "config.toml:2:"),
        ("role = \"router\"", "gateway"),
        ("advertise = [\"0.0.0.0:1\"]", "advertise"),
        ("listen = \"somewhere\"", "config.toml:2:"),
        ("admin = \"192.0.2.1:1\"", "127.0.0.1"),
        ("gateway.admission = \"tokens\"", "gateway.token"),
    ] {
        std::fs::write(&file, format!("runtime_dir = \"run\"\n{line}\n")).unwrap();
        for verb in ["check", "run"] {
            let done = shoal_node(&[verb, "-c", path]);
            assert_eq!(done.status.code(), Some(78), "{verb} {line}: {}", text(&done.stderr));
            assert!(text(&done.stderr).contains(wanted), "{line}: {}", text(&done.stderr));
        }
    }
    std::fs::write(&file, "runtime_dir = \"run\"\n").unwrap();
    let done = shoal_node(&["check", "-c", path, "-o", "workers=many"]);
    assert_eq!(done.status.code(), Some(78));
    let done = shoal_node(&["check", "-c", "/nowhere/config.toml"]);
    assert_eq!(done.status.code(), Some(78));
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in
        [&["fly"][..], &["init", "--role", "router", "/tmp/x"], &["run", "--fast"], &[]]
    {
        assert_eq!(shoal_node(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_port_in_use_ends_with_1_and_says_so() {
    let net = Net::new(&[1]);
    let node = &net.nodes[0];
    let taken = std::net::TcpListener::bind(node.config.listen).unwrap();
    let done = shoal_node(&["run", "-c", node.path()]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("in use"), "{}", text(&done.stderr));
    drop(taken);
    let _taken = std::net::TcpListener::bind(node.admin()).unwrap();
    let done = shoal_node(&["run", "-c", node.path()]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("in use"), "{}", text(&done.stderr));
}

#[test]
fn without_a_node_status_says_so() {
    let net = Net::new(&[1]);
    let done = shoal_node(&["status", "-c", net.nodes[0].path()]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("no daemon runs"), "{}", text(&done.stderr));
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let net = Net::new(&[1]);
    let node = &net.nodes[0];
    let key = node.config.data_dir.join("identity.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let done = shoal_node(&["run", "-c", node.path()]);
    assert_eq!(done.status.code(), Some(78));
    assert!(text(&done.stderr).contains("chmod 600"), "{}", text(&done.stderr));
}

#[test]
fn bench_prints_what_was_measured_for_each_backend() {
    for backend in ["reference", "scalar"] {
        let done = shoal_node(&["bench", "--json", "--backend", backend]);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        let figures: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(figures["backend"], backend);
        for name in ["peel_us", "seal5_us", "surb_us"] {
            let (ours, theirs) = (&figures[name], &figures["reference"][name]);
            let (ours, theirs) = (ours.as_f64().unwrap(), theirs.as_f64().unwrap());
            let ratio = figures[name.replace("_us", "_ratio")].as_f64().unwrap();
            assert!(ours > 0.0 && (ratio - theirs / ours).abs() < 1e-6 * ratio, "{figures}");
        }
        assert!(figures["peel_per_s_all_cores"].as_f64().unwrap() > 0.0);
    }
    let done = shoal_node(&["bench", "--backend", "abacus"]);
    assert_eq!(done.status.code(), Some(2));
    assert!(text(&done.stderr).contains("reference, scalar"), "{}", text(&done.stderr));
}

#[test]
fn a_topology_document_can_be_read_and_checked_by_people_and_programs() {
    let net = Net::new(&[1, 2, 3, 0, 0]);
    for node in &net.nodes {
        // Writes the descriptor.
        let done = shoal_node(&["check", "-c", node.path()]);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    }
    net.sign(0);
    let file = net.dir.path().join("topology");
    let (file, network) = (file.to_str().unwrap(), net.dir.path().join("network.toml"));
    let network = network.to_str().unwrap();

    let done = shoal_node(&["topology", "show", file]);
    let shown = text(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    for wanted in
        ["network \"test\"", "not verified", "layer 3", "gateway", "operator 4", "class web"]
    {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
    let done = shoal_node(&["topology", "show", file, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(json["nodes"].as_array().unwrap().len(), 5);
    assert_eq!(json["nodes"][0]["standing"], "good");

    let verify = ["topology", "verify", file, "--network", network];
    let done = shoal_node(&verify);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("sound"));

    // One flipped bit; one that is not there.
    let mut bytes = std::fs::read(file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    net.write(&bytes);
    let done = shoal_node(&verify);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("0 valid signatures"), "{}", text(&done.stderr));
    assert_eq!(shoal_node(&["topology", "show", file]).status.code(), Some(0));
    let done = shoal_node(&["topology", "show", "/nowhere/topology"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("/nowhere/topology"), "{}", text(&done.stderr));
}
