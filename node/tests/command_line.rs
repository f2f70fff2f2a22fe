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
        for (path, mode) in [("config.toml", 0o600), ("data", 0o700), ("data/identity.key", 0o600)]
        {
            let found = std::fs::metadata(home.join(path)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{path}");
        }
        assert!(!home.join("run").exists(), "a check makes nothing");
        assert_eq!(std::fs::read_dir(home.join("data")).unwrap().count(), 1);
        // The same identity everywhere.
        let identity = shoal_node(&["identity", "-c", file.to_str().unwrap()]);
        let identity = text(&identity.stdout);
        assert_eq!(identity.trim().len(), 52, "{identity}");
        assert!(text(&done.stdout).contains(identity.trim()), "{}", text(&done.stdout));
        // A second time nothing is replaced.
        let done = shoal_node(&["init", "--role", role, home.to_str().unwrap()]);
        assert_eq!(done.status.code(), Some(1));
        assert!(text(&done.stderr).contains("exists already"));
    }
}

#[test]
fn what_init_says_to_type_next_can_be_typed() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("my node's ünï ☂");
    let done = shoal_node(&["init", "--role", "mix", home.to_str().unwrap()]);
    let said = text(&done.stdout);
    let check = said
        .lines()
        .find_map(|line| line.trim().split(" && ").next()?.strip_prefix("shoal-node "))
        .unwrap();
    let program = env!("CARGO_BIN_EXE_shoal-node");
    let typed =
        std::process::Command::new("sh").args(["-c", &format!("{program} {check}")]).output();
    let typed = typed.unwrap();
    assert_eq!(typed.status.code(), Some(0), "{check}: {}", text(&typed.stderr));
}

#[test]
fn a_bad_configuration_ends_with_78_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let path = file.to_str().unwrap();
    for (line, wanted) in [
        ("pool_packets = 0", "config.toml:2:"),
        ("role = \"router\"", "gateway"),
        ("advertise = [\"0.0.0.0:1\"]", "advertise"),
        ("advertise = [\"224.0.0.1:9001\"]", "nobody listens at 224.0.0.1:9001"),
        ("listen = \"somewhere\"", "config.toml:2:"),
        ("admin = \"192.0.2.1:1\"", "127.0.0.1"),
        ("gateway.admission = \"tokens\"", "gateway.token"),
        ("nonsense = 1", "config.toml:2:1: `nonsense`: unknown key"),
        ("worker = 1", "did you mean `workers`?"),
        ("listen = \"nowhere.invalid:9001\"", "`listen`: nowhere.invalid:9001 cannot be looked up"),
        ("advertise = [\"nowhere.invalid:9001\"]", "`advertise`: nowhere.invalid:9001 cannot"),
        ("listen = \"0.0.0.0:9101\"\nadvertise = [\"192.0.2.1:9101\"]", "`admin`"),
        ("workers = 9999999", "1024"),
        ("[[gateway.token]]\nsecret = \"x\"\nconnections = 0", "from 1"),
        ("[[gateway.token]]\nsecret = \"x\"\n[[gateway.token]]\nsecret = \"x\"", "the same secret"),
    ] {
        std::fs::write(&file, format!("runtime_dir = \"run\"\n{line}\n")).unwrap();
        for verb in ["check", "run"] {
            let done = shoal_node(&[verb, "-c", path]);
            assert_eq!(done.status.code(), Some(78), "{verb} {line}: {}", text(&done.stderr));
            assert!(text(&done.stderr).contains(wanted), "{line}: {}", text(&done.stderr));
        }
    }
    // Without an identity nothing runs, and none is made.
    std::fs::write(&file, "runtime_dir = \"run\"\n").unwrap();
    for role in ["mix", "gateway", "authority"] {
        for verb in ["check", "run", "identity"] {
            std::fs::write(dir.path().join("network.toml"), NETWORK).unwrap();
            let done = shoal_node(&[verb, "-c", path, "-o", &format!("role={role}")]);
            assert_eq!(done.status.code(), Some(78), "{role} {verb}: {}", text(&done.stderr));
            assert!(text(&done.stderr).contains("`init` makes one"), "{}", text(&done.stderr));
            assert!(!dir.path().join("data").exists(), "{role} {verb}");
        }
    }
    let done = shoal_node(&["check", "-c", path, "-o", "workers=many"]);
    assert_eq!(done.status.code(), Some(78));
    let done = shoal_node(&["check", "-c", "/nowhere/config.toml"]);
    assert_eq!(done.status.code(), Some(78));
}

/// A network file with one authority: the key of the base point of Ed25519.
const NETWORK: &str =
    "name = \"x\"\nauthorities = [\"lbtgmztgmztgmztgmztgmztgmztgmztgmztgmztgmztgmztgmzta\"]\n";

#[test]
fn what_is_wrong_with_the_files_of_an_authority_is_said_with_place_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("authority");
    shoal_node(&["init", "--role", "authority", home.to_str().unwrap()]);
    let file = home.join("config.toml");
    let path = file.to_str().unwrap();
    let check = |options: &[&str]| {
        let done = shoal_node(&[&["check", "-c", path], options].concat());
        (done.status.code(), text(&done.stderr))
    };
    let (code, said) = check(&[]);
    assert!(code == Some(0) && said.contains("shoal-node network new"), "{said}");
    let network = home.join("network.toml");
    let parameters = home.join("parameters.toml");
    let with = ["-o", "authority.parameters=parameters.toml"];
    for (network_file, parameters_file, code, words) in [
        ("name = ", "", 78, "network.toml:1:"),
        ("name = \"x\"\nauthoritys = []", "", 78, "did you mean `authorities`?"),
        (NETWORK, "", 0, "does not list this authority"),
        (NETWORK, "", 0, "`authority.nodes` is empty"),
        (
            NETWORK,
            "layrs = 3",
            78,
            "parameters.toml:1:1: `layrs`: unknown key; did you mean `layers`?",
        ),
        (NETWORK, "draw_every = 0", 78, "parameters.toml: the table of parameters is invalid"),
        (NETWORK, "trial = true", 78, "`trial` stands in the network file alone"),
        (&format!("epoch_s = 1\n{NETWORK}"), "", 0, "epochs of 1 s are shorter"),
    ] {
        std::fs::write(&network, network_file).unwrap();
        std::fs::write(&parameters, parameters_file).unwrap();
        let (found, said) = check(&with);
        assert_eq!(found, Some(code), "{said}");
        assert!(said.contains(words), "{said:?} does not say {words:?}");
    }
    let node = text(&shoal_node(&["identity", "-c", path]).stdout);
    let nodes = format!("authority.nodes=[\"{}\"]", node.trim());
    std::fs::write(&parameters, "min_mixes_per_layer = 50").unwrap();
    let (code, said) = check(&[with[0], with[1], "-o", &nodes]);
    assert_eq!(code, Some(0));
    assert!(said.contains("3 layers of 50 mixes") && said.contains("list 151 more"), "{said}");
    let (code, said) = check(&["-o", "authority.next_parameters=parameters.toml"]);
    assert!(code == Some(78) && said.contains("next_from_epoch"), "{said}");
}

#[test]
fn a_network_is_founded_and_shown_and_its_parameters_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("network.toml");
    let out = out.to_str().unwrap();
    let authority = "lbtgmztgmztgmztgmztgmztgmztgmztgmztgmztgmztgmztgmzta=127.0.0.1:9001";
    let new = ["network", "new", "ours", "--authority", authority, "--out", out];
    let done = shoal_node(&[&new[..], &["--epoch", "10s"]].concat());
    assert_eq!(done.status.code(), Some(78));
    assert!(text(&done.stderr).contains("--trial"), "{}", text(&done.stderr));
    let done = shoal_node(&[&new[..], &["--epoch", "10s", "--trial"]].concat());
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(text(&done.stderr).contains("of 1 authorities none may lie"), "{}", text(&done.stderr));
    let founded = text(&done.stdout);
    let home = dir.path().join("mix");
    shoal_node(&["init", "--role", "mix", home.to_str().unwrap()]);
    let config = home.join("config.toml");
    let network = format!("network={out}");
    let checked = shoal_node(&["check", "-c", config.to_str().unwrap(), "-o", &network]);
    let checked = text(&checked.stdout);
    let shown = shoal_node(&["network", "show", out, "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    for said in [&founded, &checked] {
        assert!(said.contains(shown["fingerprint"].as_str().unwrap()), "{said}");
    }
    assert_eq!((&shown["trial"], &shown["epoch_s"]), (&true.into(), &10.into()));
    for wrong in ["x", "lbtg=127.0.0.1:1", &authority.replace("127.0.0.1", "authority.example")] {
        let done = shoal_node(&["network", "new", "ours", "--authority", wrong, "--out", out]);
        assert_eq!(done.status.code(), Some(2), "{wrong}: {}", text(&done.stderr));
    }
    let printed = text(&shoal_node(&["parameters"]).stdout);
    assert!(printed.contains("min_mixes_per_layer = 2"), "{printed}");
    let file = dir.path().join("parameters.toml");
    std::fs::write(&file, printed.replace("warn_bits = 6.0", "warn_bits = 7.0")).unwrap();
    let again = shoal_node(&["parameters", file.to_str().unwrap()]);
    assert!(text(&again.stdout).contains("warn_bits = 7.0"), "{}", text(&again.stderr));
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
    let taken = std::net::TcpListener::bind(node.config.listen_address().unwrap()).unwrap();
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
fn the_version_names_the_target() {
    let done = shoal_node(&["--version"]);
    let said = text(&done.stdout);
    assert!(said.starts_with("shoal-node ") && said.contains(std::env::consts::ARCH), "{said}");
}

#[test]
fn the_exit_code_of_status_says_whether_a_node_is_ready() {
    let net = Net::new(&[1, 2, 3, 0, 0]);
    let _running: Vec<Running> = net.nodes.iter().map(Node::start).collect();
    let node = &net.nodes[0];
    let patience = std::time::Duration::from_secs(30);
    for node in &net.nodes {
        within(patience, "livez", || {
            get(node.admin(), "/livez").filter(|(status, _)| *status == 200)
        });
    }
    let done = shoal_node(&["status", "-c", node.path()]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stdout).starts_with("This mix does not do its work: "));
    assert_eq!(text(&done.stderr), "");
    net.sign(0);
    let done = within(patience, "ready", || {
        let done = shoal_node(&["status", "-c", node.path()]);
        (done.status.code() == Some(0)).then_some(done)
    });
    let said = text(&done.stdout);
    let identity = shoal_node::daemon::identity(&node.config).unwrap();
    for wanted in [
        "This mix of layer 1 does its work: ",
        &format!("identity: {identity}"),
        &format!("  {}", node.config.listen_address().unwrap()),
        "operator: operator 0",
        "usable until: 20",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
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
