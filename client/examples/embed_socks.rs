//! A program with a SOCKS5 port of its own: what its other parts, or a browser that it starts, go through.
//!
//! ```text
//! cargo run --release -p shoal-client --example embed_socks -- CLIENT_TOML KEYS
//! ```
//!
//! It prints where the port is, then what the client says of itself each time that this changes, until it is ended.

use std::path::Path;
use std::time::Duration;

use shoal_client::{Config, Shoal};
use tokio::io::AsyncWriteExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, keys] = arguments.as_slice() else {
        anyhow::bail!("usage: embed_socks CLIENT_TOML KEYS");
    };
    let (config, _) = Config::read(Path::new(config))?;
    let shoal = Shoal::start(Config { data_dir: keys.into(), ..config }).await?;
    let port = shoal.socks(([127, 0, 0, 1], 0).into()).await?;
    say(&format!("socks5h://{port}\n")).await?;

    let mut said = String::new();
    loop {
        let summary = shoal.status().summary;
        if summary != said {
            say(&format!("{summary}\n")).await?;
            said = summary;
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
    shoal.shutdown().await;
    Ok(())
}

async fn say(text: &str) -> std::io::Result<()> {
    let mut out = tokio::io::stdout();
    out.write_all(text.as_bytes()).await?;
    out.flush().await
}
