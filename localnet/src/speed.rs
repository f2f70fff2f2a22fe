//! How fast a localnet is: what docs/measurements.md, section 1, promises, measured through the SOCKS port like an application.

// It measures real time.
#![allow(clippy::disallowed_methods)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::launch::{Localnet, Options};
use crate::{servers, socks_client};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Echoes of 64 bytes.
    pub echoes: usize,
    /// Fresh isolation groups, each with a first answer.
    pub first_answers: usize,
    /// Bytes of each download.
    pub download: usize,
    /// How long the idle localnet is watched.
    pub idle: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self { echoes: 300, first_answers: 50, download: 4_000_000, idle: Duration::from_secs(20) }
    }
}

/// Measures with two localnets, one of class web, one of class fast.
///
/// # Errors
/// When a localnet does not start, or a request fails.
pub async fn measure(plan: &Plan) -> anyhow::Result<Value> {
    let (echo_at, echo) = servers::echo().await?;
    let (source_at, source) = servers::source(plan.download).await?;

    let net = Localnet::start(options("web")).await?;
    let proxy = *net.socks.first().context("no client")?;
    let ready = net.took;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = cpu();
    tokio::time::sleep(plan.idle).await;
    let idle = (cpu() - before).as_secs_f64() / plan.idle.as_secs_f64();
    let mut echoes = echoes(proxy, echo_at, plan.echoes).await?;
    let mut firsts = firsts(proxy, echo_at, plan.first_answers).await?;
    let web = download(proxy, source_at, plan.download).await?;
    net.stop().await;

    let net = Localnet::start(options("fast")).await?;
    let proxy = *net.socks.first().context("no client")?;
    let fast = download(proxy, source_at, plan.download).await?;
    net.stop().await;
    echo.abort();
    source.abort();

    echoes.sort_unstable();
    firsts.sort_unstable();
    let ms = |sorted: &[Duration], q: f64| {
        let last = sorted.len().saturating_sub(1);
        let at = sorted.get((last as f64 * q).round() as usize).copied().unwrap_or_default();
        (at.as_secs_f64() * 10_000.0).round() / 10.0
    };
    Ok(json!({
        "ready_s": ready.as_secs_f64(),
        "echo_web_p50_ms": ms(&echoes, 0.5),
        "echo_web_p99_ms": ms(&echoes, 0.99),
        "first_answer_p50_ms": ms(&firsts, 0.5),
        "first_answer_max_ms": ms(&firsts, 1.0),
        "first_answers_under_2_s": firsts.iter().filter(|took| **took < Duration::from_secs(2)).count(),
        "first_answers": firsts.len(),
        "download_web_kb_per_s": (web / 100.0).round() / 10.0,
        "download_fast_kb_per_s": (fast / 100.0).round() / 10.0,
        "idle_share_of_a_core": (idle * 1000.0).round() / 1000.0,
    }))
}

fn options(class: &str) -> Options {
    let socks = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    Options { class: class.into(), socks, ..Options::default() }
}

/// Time that this process has had on all cores.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

async fn echoes(proxy: SocketAddr, to: SocketAddr, count: usize) -> anyhow::Result<Vec<Duration>> {
    let mut tcp = socks_client::connect(proxy, &to.to_string(), None).await?;
    let mut took = Vec::with_capacity(count);
    for i in 0..count {
        let began = Instant::now();
        tcp.write_all(&[i as u8; 64]).await?;
        tcp.read_exact(&mut [0; 64]).await?;
        took.push(began.elapsed());
    }
    Ok(took)
}

/// A user name that was never used: a new tunnel, so the whole of a client's first answer.
async fn firsts(proxy: SocketAddr, to: SocketAddr, count: usize) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(count);
    for i in 0..count {
        let began = Instant::now();
        let user = format!("first {i}");
        let mut tcp = socks_client::connect(proxy, &to.to_string(), Some((&user, "x"))).await?;
        tcp.write_all(&[1; 64]).await?;
        tcp.read_exact(&mut [0; 64]).await?;
        took.push(began.elapsed());
    }
    Ok(took)
}

/// Bytes per second, from the first byte to the last.
async fn download(proxy: SocketAddr, from: SocketAddr, bytes: usize) -> anyhow::Result<f64> {
    let mut tcp = socks_client::connect(proxy, &from.to_string(), None).await?;
    let mut buf = vec![0; 64 << 10];
    let mut left = bytes - tcp.read(&mut buf).await?;
    let (began, all) = (Instant::now(), left);
    while left > 0 {
        let n = tcp.read(&mut buf).await?;
        anyhow::ensure!(n > 0, "the download ended {left} bytes short");
        left -= n;
    }
    Ok(all as f64 / began.elapsed().as_secs_f64())
}
