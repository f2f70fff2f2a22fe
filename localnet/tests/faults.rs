//! Daemons die without warning, in processes of their own.

// Tests fail by panicking, and measure real time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::*;
use shoal_localnet::launch::{Localnet, Options};
use shoal_localnet::socks_client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn processes() -> Options {
    Options { processes: true, log: "debug".into(), ..options() }
}

async fn fetch_within(net: &Localnet, limit: Duration) {
    let began = Instant::now();
    loop {
        match socks_client::get(net.socks[0], &net.service, "/").await {
            Ok(page) => {
                assert!(page.contains("Shoal"));
                return;
            }
            Err(error) => assert!(began.elapsed() < limit, "no page after {limit:?}: {error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_the_kill_and_restart_of_a_mix() {
    let _alone = alone().await;
    let options = processes();
    let mut net = start(&options).await;
    let echo = echo().await.to_string();
    let mut tcp = socks_client::connect(net.socks[0], &echo, None).await.unwrap();
    named(&mut net, "mix-2-1").kill().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    named(&mut net, "mix-2-1").restart(&options).await.unwrap();
    let mut buf = [0; 5];
    for _ in 0..5 {
        tcp.write_all(b"chat!").await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(40), tcp.read_exact(&mut buf)).await;
        read.expect("the session goes on").unwrap();
    }
    fetch_within(&net, Duration::from_secs(60)).await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_gateway_dies_the_client_says_so_and_moves_to_the_second() {
    let _alone = alone().await;
    let mut net = start(&processes()).await;
    named(&mut net, "gateway-1").kill().await.unwrap();
    fetch_within(&net, Duration::from_secs(90)).await;
    let control = named(&mut net, "client-1").control.clone();
    let status = shoal_host::control::query(&control).await.unwrap();
    assert_eq!(status["gateway"], "second", "{status}");
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_exit_dies_requests_end_in_time_and_work_again_when_it_is_back() {
    let _alone = alone().await;
    let options = processes();
    let mut net = start(&options).await;
    let target = echo().await;
    let (proxy, echo) = (net.socks[0], target.to_string());
    let _session = socks_client::connect(proxy, &echo, None).await.unwrap();
    named(&mut net, "exit").kill().await.unwrap();
    let began = Instant::now();
    let answer = ask(proxy, 1, "127.0.0.1", target.port()).await;
    assert_ne!(answer.code, 0);
    assert!(began.elapsed() < Duration::from_secs(35));
    named(&mut net, "exit").restart(&options).await.unwrap();
    let began = Instant::now();
    while let Err(error) = socks_client::connect(proxy, &echo, None).await {
        assert!(began.elapsed() < Duration::from_secs(90), "{error:#}");
    }
    net.stop().await;
}

/// Everything that daemons leave: logs at debug level and files, but for keys, configurations and the network's own
/// documents.
fn written(dir: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let public = ["topology", "network.toml", "descriptor"].contains(&name.as_str());
        let own = name.ends_with(".key") || name.ends_with(".toml");
        if path.is_dir() {
            written(&path, into);
        } else if path.is_file() && !public && !own {
            into.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_daemon_keeps_a_record_of_who_talked_to_whom() {
    let _alone = alone().await;
    let net = start(&processes()).await;
    let echo = echo().await;
    let mut tcp = socks_client::connect(net.socks[0], &echo.to_string(), Some(("some-user", "pw")))
        .await
        .unwrap();
    tcp.write_all(b"hello").await.unwrap();
    tcp.read_exact(&mut [0; 5]).await.unwrap();
    let _ = socks_client::connect(net.socks[0], "forbidden.example:25", None).await;
    socks_client::get(net.socks[0], &net.service, "/").await.unwrap();

    let mut texts = Vec::new();
    written(net.dir(), &mut texts);
    assert!(texts.iter().any(|(name, _)| name.ends_with(".log")), "no log was written");
    for daemon in &net.daemons {
        let page = metrics(daemon.admin).await;
        assert!(page.contains("shoal_"), "{daemon:?} has no metrics");
        texts.push((format!("metrics of {daemon:?}"), page.into_bytes()));
        let mut status = shoal_host::control::query(&daemon.control).await.unwrap();
        // Who a program is and where it is reached is no record: everybody is told.
        for own in ["identity", "addresses"] {
            status.as_object_mut().unwrap().remove(own);
        }
        texts.push((format!("status of {daemon:?}"), status.to_string().into_bytes()));
    }
    let (identity, rest) = net.service.split_once('.').unwrap();
    let gateway = rest.split('.').next().unwrap();
    let port = format!(":{}", echo.port());
    let secrets =
        ["127.0.0.1", &port, "forbidden.example", "some-user", identity, gateway, "Identity("];
    for (name, text) in &texts {
        for secret in secrets {
            let found = text.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{name} contains {secret:?}");
        }
    }
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_localnet_leaves_nothing_behind() {
    let _alone = alone().await;
    let net = start(&processes()).await;
    let (dir, pids): (_, Vec<_>) =
        (net.dir().to_owned(), net.daemons.iter().filter_map(|d| d.pid).collect());
    assert_eq!(pids.len(), net.daemons.len());
    net.stop().await;
    assert!(!dir.exists());
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    }
}
