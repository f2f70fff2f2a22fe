//! Five nodes on loopback: links, loops, bad input, restarts, the end.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use common::*;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn loops_run_through_real_nodes_which_survive_bad_input_restarts_and_bad_documents() {
    let net = Net::new(&[1, 2, 3, 0, 0]);
    let mut running: Vec<Running> = net.nodes.iter().map(Node::start).collect();
    for node in &net.nodes {
        within(PATIENCE, "descriptor", || node.config.descriptor_file().exists().then_some(()));
        within(PATIENCE, "livez", || {
            get(node.admin(), "/livez").filter(|(status, _)| *status == 200)
        });
        let (status, why) = get(node.admin(), "/readyz").unwrap();
        assert_eq!(status, 503, "{why}");
    }
    net.sign(0);
    for node in &net.nodes {
        within(PATIENCE, "ready", || {
            get(node.admin(), "/readyz").filter(|(status, _)| *status == 200)
        });
    }
    for node in &net.nodes {
        within(PATIENCE, "loops", || {
            metric(node.admin(), "shoal_node_loops_returned_total").filter(|loops| *loops >= 20)
        });
        assert!(node.status().unwrap().contains("\"ready\":true"));
    }

    // Noise, half-open connections and HTTP to every listener.
    let mut idle = Vec::new();
    for (n, node) in net.nodes.iter().enumerate() {
        for noise in [
            vec![0; 4_096],
            (0..4_096u32).map(|i| ((i * i) >> 3) as u8).collect(),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        ] {
            let mut stream = TcpStream::connect(node.config.listen_address().unwrap()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let _ = stream.write_all(&noise);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        idle.push(TcpStream::connect(node.config.listen_address().unwrap()).unwrap());
        within(PATIENCE, "handshake failures", || {
            metric(node.admin(), "shoal_node_link_handshake_failures_total").filter(|n| *n >= 3)
        });
        assert_eq!(get(node.admin(), "/livez").unwrap().0, 200, "{n}");
    }

    // A document that nobody signed: the one before it stays.
    net.write(b"nonsense");
    within(PATIENCE, "a warning", || running[0].log().contains("malformed").then_some(()));
    assert_eq!(get(net.nodes[0].admin(), "/readyz").unwrap().0, 200);
    net.sign(1);

    // A mix that is killed comes back with its keys, and loops return to it.
    let keys = || {
        let keys = std::fs::read_dir(net.nodes[1].config.runtime_dir().join("keys")).unwrap();
        let mut keys: Vec<_> = keys.map(|key| key.unwrap().path()).collect();
        keys.retain(|path| path.extension().is_some_and(|kind| kind == "key"));
        keys.sort();
        keys.into_iter()
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect::<Vec<_>>()
    };
    let before = keys();
    assert_eq!(before.len(), 4);
    running[1].child.kill().unwrap();
    running[1].child.wait().unwrap();
    running[1] = net.nodes[1].start();
    within(PATIENCE, "loops after a restart", || {
        metric(net.nodes[1].admin(), "shoal_node_loops_returned_total").filter(|loops| *loops >= 20)
    });
    assert!(keys() == before);

    // Nothing that names anybody.
    let logs: String = running.iter().map(Running::log).collect();
    let pages: String = net
        .nodes
        .iter()
        .filter_map(|node| get(node.admin(), "/metrics"))
        .map(|page| page.1)
        .collect();
    for node in &net.nodes {
        let bytes = std::fs::read(node.config.descriptor_file()).unwrap();
        let descriptor =
            shoal_topology::Signed::<shoal_topology::NodeDescriptor>::decode(&bytes).unwrap();
        for name in [
            node.config.listen_address().unwrap().to_string(),
            descriptor.body().identity.to_string(),
        ] {
            assert!(!logs.contains(&name) && !pages.contains(&name), "{name}");
        }
    }

    for running in &mut running {
        let (code, time) = running.terminate();
        assert_eq!(code, Some(0), "{}", running.log());
        assert!(time < Duration::from_secs(2), "{time:?}");
    }
    for node in &net.nodes {
        assert!(!node.config.control_socket().exists());
    }
}

#[test]
fn a_stale_document_makes_a_node_not_ready() {
    let net = Net::with_epoch(&[1, 2, 3, 0, 0], 1);
    net.sign(0);
    let node = &net.nodes[0];
    let _running = node.start();
    within(PATIENCE, "stale", || {
        get(node.admin(), "/readyz").filter(|(status, why)| *status == 503 && why.contains("stale"))
    });
}
