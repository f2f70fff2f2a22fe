//! Failing closed (P7): a running client refuses what it cannot protect, at once, says why, and sends cover alone.

// Tests fail by panicking, and measure real time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::*;
use serde_json::Value;
use shoal_host::secret;
use shoal_localnet::launch::{Daemon, Localnet, Options};
use shoal_localnet::socks_client;
use shoal_topology::{Parameters, SecretIdentity, SignedDocument};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// SOCKS reply "connection not allowed by ruleset" (RFC 1928, section 6).
const NOT_ALLOWED: u8 = 2;
/// SOCKS reply "network unreachable".
const UNREACHABLE: u8 = 3;

fn processes() -> Options {
    Options { processes: true, log: "info".into(), ..options() }
}

fn client(net: &Localnet) -> &Daemon {
    net.daemons.iter().find(|daemon| daemon.name == "client-1").unwrap()
}

async fn kill(net: &mut Localnet, names: &[&str]) {
    for name in names {
        named(net, name).kill().await.unwrap();
    }
}

async fn restart(net: &mut Localnet, options: &Options, names: &[&str]) {
    for name in names {
        named(net, name).restart(options).await.unwrap();
    }
}

/// Kills the client and starts it again with one line of its configuration changed.
async fn reconfigure(net: &mut Localnet, options: &Options, from: &str, to: &str) {
    kill(net, &["client-1"]).await;
    let path = client(net).config.clone();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} is not in the configuration");
    std::fs::write(&path, text.replace(from, to)).unwrap();
    restart(net, options, &["client-1"]).await;
}

async fn page_within(net: &Localnet, limit: Duration) {
    let began = Instant::now();
    while let Err(error) = socks_client::get(net.socks[0], &net.service, "/").await {
        assert!(began.elapsed() < limit, "no page after {limit:?}: {error:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until the client says that it is not ready, for this reason.
async fn says(net: &Localnet, why: &str, limit: Duration) {
    let began = Instant::now();
    loop {
        let status = shoal_host::control::query(&client(net).control).await;
        let said = status.as_ref().ok().and_then(|status| status["why_not"].as_str());
        if said.is_some_and(|said| said.contains(why)) {
            return;
        }
        assert!(began.elapsed() < limit, "the client does not say {why:?}: {status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A target on this machine that counts what reaches it, and echoes it.
struct Target {
    address: std::net::SocketAddr,
    connections: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Target {
    async fn start() -> Self {
        let (connections, bytes) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let counters = (connections.clone(), bytes.clone());
        let address = server(move |mut tcp| {
            let (connections, bytes) = counters.clone();
            async move {
                connections.fetch_add(1, Ordering::Relaxed);
                let mut buf = [0; 1024];
                while let Ok(n @ 1..) = tcp.read(&mut buf).await {
                    bytes.fetch_add(n as u64, Ordering::Relaxed);
                    let _ = tcp.write_all(&buf[..n]).await;
                }
            }
        })
        .await;
        Self { address, connections, bytes }
    }

    fn reached(&self) -> (u64, u64) {
        (self.connections.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

async fn status(net: &Localnet) -> Value {
    shoal_host::control::query(&client(net).control).await.unwrap()
}

/// The client refuses, for this reason and as often as it is asked; only cover leaves.
async fn refuses(net: &Localnet, target: &Target, why: &str) {
    says(net, why, Duration::from_secs(10)).await;
    // What stood ready for a slot before may still leave.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, reached) = (status(net).await, target.reached());
    for _ in 0..3 {
        let began = Instant::now();
        let answer = ask(net.socks[0], 1, "127.0.0.1", target.address.port()).await;
        assert_eq!(answer.code, NOT_ALLOWED, "to a target");
        assert!(began.elapsed() < Duration::from_secs(3), "after {:?}", began.elapsed());
    }
    for (command, host) in [(1, "127.0.0.1"), (3, "0.0.0.0"), (0xf0, "a.name.example")] {
        let answer = ask(net.socks[0], command, host, 1).await;
        assert_eq!(answer.code, NOT_ALLOWED, "command {command}");
    }
    let refused = socks_client::get(net.socks[0], &net.service, "/").await.unwrap_err().to_string();
    assert!(refused.contains("code 2"), "{refused}");
    tokio::time::sleep(Duration::from_millis(1_500)).await;

    let after = status(net).await;
    assert_eq!(after["ready"], false, "{after}");
    assert!(after["why_not"].as_str().unwrap().contains(why), "{after}");
    let count = |of: &Value, group: &str, name: &str| of[group][name].as_u64().unwrap();
    let grown = |group, name| count(&after, group, name) - count(&before, group, name);
    assert_eq!((grown("requests", "refused"), grown("requests", "answered")), (7, 0), "{after}");
    assert_eq!((grown("slots", "data"), grown("slots", "surbs")), (0, 0), "{before} {after}");
    assert_eq!(target.reached(), reached, "something reached the target");
    // An observer sees no change.
    assert!(grown("slots", "cover") + grown("slots", "loops") > 20, "no cover: {after}");

    // The log says it once, for many requests.
    let log = std::fs::read_to_string(client(net).config.with_extension("log")).unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("requests are refused")).collect();
    assert!(lines.len() == 1 && lines[0].contains(why), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_few_mixes_a_running_client_refuses_and_says_so() {
    let _alone = alone().await;
    let (options, target) = (processes(), Target::start().await);
    let mut net = start(&options).await;
    let (enough, more) = ("min_mixes_per_layer = 1", "min_mixes_per_layer = 3");
    reconfigure(&mut net, &options, enough, more).await;
    let why = "layer 1 has 2 mixes in good standing, fewer than protect.min_mixes_per_layer = 3";
    refuses(&net, &target, why).await;
    reconfigure(&mut net, &options, more, enough).await;
    page_within(&net, Duration::from_secs(30)).await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_floor_of_anonymity_a_running_client_refuses_and_says_so() {
    let _alone = alone().await;
    // More than any crowd on one machine can give.
    let parameters = Parameters { warn_bits: 50.0, refuse_bits: 40.0, ..Parameters::default() };
    let options =
        Options { parameters, epoch: Duration::from_secs(10), trial: false, ..processes() };
    let (mut net, target) = (start(&options).await, Target::start().await);
    let (alone, crowd) = ("allow_small_crowd = true", "allow_small_crowd = false");
    reconfigure(&mut net, &options, alone, crowd).await;
    // The first document was made by hand: it does not say how full the nodes are.
    let why = "below the floor of 40: too few others send now";
    says(&net, why, Duration::from_secs(30)).await;
    refuses(&net, &target, why).await;
    let bits = status(&net).await["anonymity_bits"].as_f64().unwrap();
    assert!((0.0..40.0).contains(&bits), "{bits} bits");
    reconfigure(&mut net, &options, crowd, alone).await;
    page_within(&net, Duration::from_secs(30)).await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_stale_document_a_running_client_refuses_until_the_authorities_are_back() {
    let _alone = alone().await;
    let options = Options { epoch: Duration::from_secs(6), ..processes() };
    let (mut net, target) = (start(&options).await, Target::start().await);
    let mut open =
        socks_client::connect(net.socks[0], &target.address.to_string(), None).await.unwrap();
    open.write_all(b"hello").await.unwrap();
    open.read_exact(&mut [0; 5]).await.unwrap();

    // Two of four cannot sign.
    kill(&mut net, &["authority-1", "authority-2"]).await;
    let why = "the topology document is stale: its last epoch ended";
    says(&net, why, Duration::from_secs(30)).await;
    // Nor does anything leave by a connection that stood before.
    let reached = target.reached();
    open.write_all(b"is there somebody?").await.unwrap();
    refuses(&net, &target, why).await;
    assert_eq!(target.reached(), reached, "through the open connection");
    // A client that starts now is let in nowhere, and says so; after a while requests do not wait.
    kill(&mut net, &["client-1"]).await;
    restart(&mut net, &options, &["client-1"]).await;
    let restarted = Instant::now();
    let why = "the gateway refuses this client: the gateway has no valid topology document";
    says(&net, why, Duration::from_secs(30)).await;
    tokio::time::sleep(Duration::from_secs(22).saturating_sub(restarted.elapsed())).await;
    let began = Instant::now();
    let answer = ask(net.socks[0], 1, "127.0.0.1", target.address.port()).await;
    assert_eq!(answer.code, UNREACHABLE, "after a start");
    assert!(began.elapsed() < Duration::from_secs(3), "after {:?}", began.elapsed());
    assert_eq!(target.reached(), reached, "after a start");

    restart(&mut net, &options, &["authority-1", "authority-2"]).await;
    page_within(&net, Duration::from_secs(40)).await;
    assert_eq!(status(&net).await["why_not"], Value::Null);
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn socks_connections_beyond_the_limit_are_closed_at_once_and_counted() {
    let _alone = alone().await;
    let options = processes();
    let mut net = start(&options).await;
    reconfigure(&mut net, &options, "[socks]\n", "[socks]\nmax_connections = 16\n").await;
    page_within(&net, Duration::from_secs(30)).await;
    let mut open = Vec::new();
    for _ in 0..16 {
        let mut tcp = TcpStream::connect(net.socks[0]).await.unwrap();
        tcp.write_all(&[5, 1, 0]).await.unwrap();
        let mut chosen = [0; 2];
        tcp.read_exact(&mut chosen).await.unwrap();
        open.push(tcp);
    }
    let mut one_more = TcpStream::connect(net.socks[0]).await.unwrap();
    let closed = timeout(Duration::from_secs(5), one_more.read(&mut [0; 2])).await.unwrap();
    assert!(!matches!(closed, Ok(1..)), "one more was taken");
    let counted = async {
        while status(&net).await["requests"]["turned_away"] != 1 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(10), counted).await.expect("it is counted");
    // Room again.
    drop(open);
    page_within(&net, Duration::from_secs(5)).await;
    net.stop().await;
}

/// The document that a gateway keeps for its next start, and another of the same epoch which as many authorities signed
/// as a document needs.
fn contradiction(net: &Localnet) -> (PathBuf, Vec<u8>, Vec<u8>) {
    let file = net.dir().join("gateway-1/topology");
    let first = std::fs::read(&file).unwrap();
    let (mut document, signers) = SignedDocument::peek(&first).unwrap();
    document.parameters.warn_bits += 1.0;
    let secrets: Vec<_> = (1..=signers.len())
        .map(|n| secret::read(&net.dir().join(format!("authority-{n}/data/identity.key"))).unwrap())
        .map(|seed| SecretIdentity::from_bytes(&seed))
        .collect();
    let second = SignedDocument::new(&document, &secrets).encode();
    (file, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_documents_stop_a_running_client_and_the_next_start_until_the_proof_is_removed() {
    let _alone = alone().await;
    // No vote takes place meanwhile.
    let options = Options { epoch: Duration::from_secs(10 * 86_400), ..processes() };
    let (mut net, target) = (start(&options).await, Target::start().await);
    let (file, first, second) = contradiction(&net);
    // A gateway that others do not tell better, and services that would stop as well if they saw this.
    kill(&mut net, &["authority-1", "authority-2", "authority-3", "authority-4"]).await;
    kill(&mut net, &["service", "exit", "gateway-1", "gateway-2"]).await;
    secret::replace(&file, &second).unwrap();
    restart(&mut net, &options, &["gateway-1"]).await;
    says(&net, "contradict each other", Duration::from_secs(30)).await;
    refuses(&net, &target, "contradict each other").await;

    // Both are kept, and are what was sent.
    let data = client(&net).config.with_file_name("data");
    let proofs = || -> Vec<PathBuf> {
        let files = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
        let is_proof = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "document");
        let mut proofs: Vec<_> = files.filter(is_proof).collect();
        proofs.sort();
        proofs
    };
    let kept: Vec<_> = proofs().iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(kept == [first.clone(), second], "{:?}", proofs());

    // A start with a single document, the good one, does not forget.
    kill(&mut net, &["client-1", "gateway-1"]).await;
    secret::replace(&file, &first).unwrap();
    restart(&mut net, &options, &["gateway-1", "gateway-2", "client-1"]).await;
    restart(&mut net, &options, &["service", "exit"]).await;
    refuses(&net, &target, "contradicted each other, and").await;

    kill(&mut net, &["client-1"]).await;
    proofs().iter().for_each(|proof| std::fs::remove_file(proof).unwrap());
    restart(&mut net, &options, &["client-1"]).await;
    page_within(&net, Duration::from_secs(40)).await;
    net.stop().await;
}
