//! Real nodes on loopback, each in a directory of its own.

#![allow(dead_code, unreachable_pub)] // Each test takes what it needs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // A test's own helpers may fail.
#![allow(clippy::disallowed_methods)] // Real programs run on the real clock.

pub mod between;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use shoal_node::daemon::{Config, RoleName};
use shoal_topology::{Document, Epoch, ListedNode, Parameters, testing};

pub fn shoal_node(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-node"));
    command.args(arguments).env_remove("SHOAL_LOG").env_remove("RUNTIME_DIRECTORY");
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A program that is killed when the test ends.
pub struct Running {
    pub child: Child,
    pub log: PathBuf,
}

impl Running {
    pub fn start(arguments: &[&str], log: &Path) -> Self {
        let file = std::fs::File::create(log).unwrap();
        let child = command(arguments).stderr(file).stdout(Stdio::null()).spawn().unwrap();
        Self { child, log: log.to_owned() }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The exit code, and how long it took to get it.
    pub fn terminate(&mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        (self.child.wait().unwrap().code(), start.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn within<T>(time: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < time, "not within {time:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The body of a page, and its status.
pub fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// The value of a metric.
pub fn metric(address: SocketAddr, name: &str) -> Option<u64> {
    let (_, page) = get(address, "/metrics")?;
    let line = page.lines().find(|line| line.split(' ').next() == Some(name))?;
    line.rsplit(' ').next()?.parse::<f64>().ok().map(|value| value as u64)
}

pub struct Node {
    pub config: Config,
    pub file: PathBuf,
}

impl Node {
    pub fn path(&self) -> &str {
        self.file.to_str().unwrap()
    }

    pub fn admin(&self) -> SocketAddr {
        self.config.admin.unwrap()
    }

    pub fn start(&self) -> Running {
        Running::start(
            &["run", "-c", self.path(), "-o", "log=debug"],
            &self.file.with_extension("log"),
        )
    }

    /// A number of its status, by the names of the tables around it. Metrics of what depends on people stand still within an
    /// epoch.
    pub fn number(&self, path: &str) -> Option<u64> {
        let status: serde_json::Value = serde_json::from_str(&self.status()?).ok()?;
        status.pointer(path)?.as_u64()
    }

    pub fn status(&self) -> Option<String> {
        let output = shoal_node(&["status", "--json", "-c", self.path()]);
        // A node that is not ready says so by its exit code, and answers all the same.
        Some(text(&output.stdout)).filter(|status| !status.is_empty())
    }
}

/// A network of which nothing runs yet: `layers` says the layer of each node, 0 being a gateway.
pub struct Net {
    pub dir: tempfile::TempDir,
    pub nodes: Vec<Node>,
    /// Its authority and parameters, without nodes.
    pub network: testing::TestNetwork,
    layers: Vec<u8>,
}

impl Net {
    /// With epochs so long that keys stay for the test.
    pub fn new(layers: &[u8]) -> Self {
        Self::with_epoch(layers, 86_400)
    }

    pub fn with_epoch(layers: &[u8], epoch_s: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let parameters = Parameters { node_loops_per_s: 20.0, ..Parameters::default() };
        let network = testing::TestNetwork::builder().mixes(0).gateways(0).parameters(parameters);
        let network = network.epoch_s(epoch_s).build();
        let known = shoal_host::network::to_toml(&network.known, &[]);
        std::fs::write(dir.path().join("network.toml"), known).unwrap();
        let node = |(n, layer): (usize, &u8)| {
            let config = Config {
                role: if *layer == 0 { RoleName::Gateway } else { RoleName::Mix },
                listen: free_address().into(),
                admin: Some(free_address()),
                operator: format!("operator {n}"),
                runtime_dir: "run".into(),
                network: "../network.toml".into(),
                topology: "../topology".into(),
                workers: 1,
                ..Config::default()
            };
            let home = dir.path().join(n.to_string());
            let file = shoal_node::daemon::init(&home, &config).unwrap();
            Node { config: config.resolved(&home), file }
        };
        let nodes = layers.iter().enumerate().map(node).collect();
        Self { dir, nodes, network, layers: layers.to_vec() }
    }

    /// Signs a document of all nodes, for the epoch in which their keys begin.
    pub fn sign(&self, amendment: u16) {
        let listed = |(node, layer): (&Node, &u8)| {
            ListedNode::new(shoal_node::daemon::descriptor(&node.config).unwrap(), *layer)
        };
        let nodes: Vec<ListedNode> = self.nodes.iter().zip(&self.layers).map(listed).collect();
        let first = |node: &ListedNode| node.descriptor.body().keys[0].first;
        let epoch = nodes.iter().map(first).max().unwrap();
        self.sign_listed(nodes, epoch, amendment);
    }

    /// Signs a document of these nodes.
    pub fn sign_listed(&self, mut nodes: Vec<ListedNode>, epoch: Epoch, amendment: u16) {
        nodes.sort_by_key(ListedNode::identity);
        let document = Document { amendment, nodes, ..self.network.document_at(epoch) };
        document.check().unwrap();
        self.write(&self.network.sign(&document).signed);
    }

    pub fn write(&self, bytes: &[u8]) {
        let path = self.dir.path().join("topology");
        std::fs::write(path.with_extension("new"), bytes).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }
}
