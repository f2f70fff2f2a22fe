//! Fetches a page through the mixnet.
//!
//! ```text
//! cargo run --release -p shoal-client --example fetch -- CLIENT_TOML KEYS http://example.org/
//! ```
//!
//! `CLIENT_TOML` is a client's configuration; `KEYS` is a directory of this program's own, which is made if it does not
//! exist. TLS is left out: wrap the stream in `tokio-rustls`, say, as you would a TCP stream.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use shoal_client::{Config, Isolation, Shoal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, keys, url] = arguments.as_slice() else {
        anyhow::bail!("usage: fetch CLIENT_TOML KEYS http://HOST[:PORT]/PATH");
    };
    let rest = url.strip_prefix("http://").context("only http:// is fetched here")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let target =
        if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };

    let (config, _) = Config::read(Path::new(config))?;
    let shoal = Shoal::start(Config { data_dir: keys.into(), ..config }).await?;
    if timeout(Duration::from_secs(60), shoal.ready()).await.is_err() {
        anyhow::bail!("{}", shoal.status().summary);
    }

    // What has the same isolation may share a tunnel: here, all that this program fetches.
    let mut stream = shoal.connect(&target, Isolation::of("fetch")).await?;
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await?;
    tokio::io::stdout().write_all(&response).await?;

    shoal.shutdown().await;
    Ok(())
}
