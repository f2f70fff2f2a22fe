//! The default localnet outlives the death of any one of its nodes.

// Tests fail by panicking, and measure real time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use shoal_localnet::launch::{Localnet, Options};
use shoal_localnet::socks_client;

const EPOCH: Duration = Duration::from_secs(6);
/// A document may be used in its own epoch and in two further ones: after so many epochs all is by newer ones.
const EPOCHS: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(120);

async fn status(net: &mut Localnet, name: &str) -> serde_json::Value {
    let control = named(net, name).control.clone();
    shoal_host::control::query(&control).await.unwrap_or_default()
}

/// Fetches a page through the exit and one of the internal service, until both have come.
async fn pages(net: &Localnet, when: &str) {
    let began = Instant::now();
    for page in [&net.target.to_string(), &net.service] {
        loop {
            match socks_client::get(net.socks[0], page, "/").await {
                Ok(page) if page.contains("Shoal") => break,
                answer => assert!(began.elapsed() < PATIENCE, "{when}: {page}: {answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_localnet_outlives_the_death_of_any_one_node() {
    let _alone = alone().await;
    let options = Options { epoch: EPOCH, processes: true, ..options() };
    let mut net = start(&options).await;
    // One of each kind: a mix, the gateway of people, that of services, an authority.
    for name in ["mix-2-1", "gateway-1", "gateway-4", "authority-2"] {
        named(&mut net, name).kill().await.unwrap();
        pages(&net, &format!("without {name}")).await;
        let began = Instant::now();
        let epoch = async |net: &mut Localnet| status(net, "client-1").await["epoch"].as_u64();
        let first = epoch(&mut net).await.unwrap_or_default();
        while epoch(&mut net).await.unwrap_or_default() < first + EPOCHS {
            let said = status(&mut net, "client-1").await;
            assert!(began.elapsed() < PATIENCE, "no document follows without {name}: {said}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        pages(&net, &format!("{EPOCHS} epochs without {name}")).await;
        named(&mut net, name).restart(&options).await.unwrap();
        while status(&mut net, name).await["ready"] != true {
            assert!(began.elapsed() < 2 * PATIENCE, "{name} does not come back");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    net.stop().await;
}
