//! A node joins a network that runs.

#![allow(clippy::disallowed_methods)] // Real programs run on the real clock.
#![allow(clippy::unwrap_used)] // A test's own helpers may fail.

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::*;
use shoal_topology::{Epoch, ListedNode};

const PATIENCE: Duration = Duration::from_secs(60);
const EPOCH_S: u32 = 20;

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn a_node_that_is_listed_from_the_next_epoch_on_has_its_links_when_it_begins() {
    let layers = [1, 2, 3, 0, 0, 1];
    let net = Net::with_epoch(&layers, EPOCH_S);
    let listed = |nodes: usize| -> Vec<ListedNode> {
        let nodes = net.nodes.iter().zip(layers).take(nodes);
        let list = |(node, layer): (&Node, u8)| {
            ListedNode::new(shoal_node::daemon::descriptor(&node.config).unwrap(), layer)
        };
        nodes.map(list).collect()
    };
    let _running: Vec<Running> = net.nodes.iter().map(Node::start).collect();
    for node in &net.nodes {
        within(PATIENCE, "descriptor", || node.config.descriptor_file().exists().then_some(()));
    }
    // With most of an epoch left.
    within(PATIENCE, "an epoch", || (unix_s() % u64::from(EPOCH_S) < 2).then_some(()));
    let epoch = Epoch(unix_s() / u64::from(EPOCH_S));
    net.sign_listed(listed(5), epoch, 0);
    for node in &net.nodes[..5] {
        within(PATIENCE, "ready", || {
            get(node.admin(), "/readyz").filter(|(status, _)| *status == 200)
        });
    }

    let new = &net.nodes[5];
    net.sign_listed(listed(6), Epoch(epoch.0 + 1), 0);
    let up = || new.number("/links/up").filter(|up| *up > 0);
    within(PATIENCE, "a link of the new mix", up);
    assert_eq!(up(), new.number("/links/expected"));
    let (_, why) = get(new.admin(), "/readyz").unwrap();
    // On a machine that stood still until then, the epoch has begun.
    let begins = (epoch.0 + 1) * u64::from(EPOCH_S);
    assert!(why.contains("its work begins in") || unix_s() >= begins, "{why}");

    within(PATIENCE, "loops of the new mix", || {
        new.number("/loops/returned").filter(|loops| *loops >= 20)
    });
    for reason in ["link_lost", "no_route", "unknown_epoch"] {
        assert_eq!(new.number(&format!("/dropped/{reason}")), None, "{reason}");
    }
}
