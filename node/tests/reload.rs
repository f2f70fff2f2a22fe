//! SIGHUP: the configuration is read again. No signal but SIGTERM and SIGINT ends a program.

#![allow(clippy::disallowed_methods)] // Real programs run on the real clock.
#![allow(clippy::unwrap_used)] // A test's own helpers may fail.

mod common;

use std::process::Command;
use std::time::Duration;

use common::*;
use shoal_host::authorities::AuthorityAddress;
use shoal_node::daemon::{Config, RoleName};
use shoal_topology::{Network, NodeDescriptor, Signed};

const PATIENCE: Duration = Duration::from_secs(30);

fn signal(running: &Running, name: &str) {
    let pid = running.child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

fn replace(node: &Node, from: &str, to: &str) {
    let text = std::fs::read_to_string(&node.file).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(&node.file, text.replace(from, to)).unwrap();
}

fn start(node: &Node) -> Running {
    let running = Running::start(&["run", "-c", node.path()], &node.file.with_extension("log"));
    within(PATIENCE, "a live node", || {
        get(node.admin(), "/livez").filter(|(status, _)| *status == 200)
    });
    running
}

/// Waits until the log has `what` so many times.
fn logged(running: &Running, what: &str, times: usize) {
    within(PATIENCE, what, || (running.log().matches(what).count() >= times).then_some(()));
}

#[test]
fn hup_reads_the_configuration_again_and_no_signal_but_term_ends_a_node() {
    let net = Net::new(&[1]);
    let node = &net.nodes[0];
    let mut running = start(node);
    for name in ["USR1", "USR2", "PIPE", "HUP"] {
        signal(&running, name);
    }
    logged(&running, "read again: nothing is different", 1);

    replace(node, "operator = \"operator 0\"", "operator = \"another\"");
    replace(node, "workers = 1", "workers = 2");
    replace(node, "log = \"info\"", "log = \"debug\"");
    signal(&running, "HUP");
    logged(
        &running,
        "read again: operator, log in effect now; workers in effect after a restart",
        1,
    );
    // The node says it to the authorities.
    within(PATIENCE, "a new descriptor", || {
        let bytes = std::fs::read(node.config.descriptor_file()).unwrap();
        let descriptor = Signed::<NodeDescriptor>::decode(&bytes).unwrap();
        (descriptor.body().operator == "another").then_some(())
    });

    // A broken file changes nothing, and says why.
    replace(node, "workers = 2", "workers = \"many\"");
    signal(&running, "HUP");
    logged(&running, "the configuration cannot be read again: ", 1);
    logged(&running, "what ran goes on", 1);
    std::fs::remove_file(&node.file).unwrap();
    signal(&running, "HUP");
    logged(&running, "the configuration cannot be read again: ", 2);
    assert_eq!(get(node.admin(), "/livez").unwrap().0, 200);
    assert_eq!(running.terminate().0, Some(0), "{}", running.log());
}

#[test]
fn an_authority_takes_up_a_node_that_hup_puts_on_its_list() {
    let dir = tempfile::tempdir().unwrap();
    let node = |role: RoleName| {
        let home = dir.path().join(role.name());
        let config = Config {
            role,
            listen: free_address().into(),
            admin: Some(free_address()),
            runtime_dir: "run".into(),
            network: "../network.toml".into(),
            ..Config::default()
        };
        let file = shoal_node::daemon::init(&home, &config).unwrap();
        Node { config: config.resolved(&home), file }
    };
    let (authority, mix) = (node(RoleName::Authority), node(RoleName::Mix));
    let identity = |node: &Node| shoal_node::daemon::identity(&node.config).unwrap();
    let network = Network {
        name: "test".into(),
        authorities: vec![identity(&authority)],
        epoch_s: 86_400,
        trial: false,
    };
    let authority_address = AuthorityAddress {
        identity: identity(&authority),
        address: authority.config.listen_address().unwrap(),
    };
    let network = shoal_host::network::to_toml(&network, &[authority_address]);
    std::fs::write(dir.path().join("network.toml"), network).unwrap();

    let mut running = start(&authority);
    let _mix = start(&mix);
    let refused = || metric(authority.admin(), "shoal_authority_nodes").filter(|n| *n == 0);
    within(PATIENCE, "no node", refused);
    let list = format!("nodes = [\"{}\"]", identity(&mix));
    replace(&authority, "nodes = []", &list);
    signal(&running, "HUP");
    logged(&running, "read again: authority.nodes in effect now", 1);
    let described = || metric(authority.admin(), "shoal_authority_nodes").filter(|n| *n == 1);
    within(PATIENCE, "the node's descriptor", described);

    // Off the list it is not counted any more.
    replace(&authority, &list, "nodes = []");
    signal(&running, "HUP");
    within(PATIENCE, "no node again", refused);
    // Parameters that make no sense are not voted for.
    std::fs::write(authority.file.with_file_name("p.toml"), "layers = 99\n").unwrap();
    replace(&authority, "parameters = \"\"", "parameters = \"p.toml\"");
    signal(&running, "HUP");
    logged(&running, "authority.parameters stays as it was: ", 1);
    assert_eq!(running.terminate().0, Some(0), "{}", running.log());
}
