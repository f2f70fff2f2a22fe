//! A service that nobody can find out the place of, and that does not learn who asks.
//!
//! ```text
//! cargo run --release -p shoal-client --example hidden_service -- CLIENT_TOML KEYS [TOKEN]
//! ```
//!
//! `KEYS` is a directory for the service's keys, which are its address; `TOKEN` is the file with the token that its
//! gateways gave it, if they want one. It prints its address, and answers each request with a page.

use std::path::Path;

use shoal_client::{Config, Incoming, ServiceConfig, Shoal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (config, keys, token) = match arguments.as_slice() {
        [config, keys] => (config, keys, None),
        [config, keys, token] => (config, keys, Some(token)),
        _ => anyhow::bail!("usage: hidden_service CLIENT_TOML KEYS [TOKEN]"),
    };
    let keys = Path::new(keys);
    let (config, _) = Config::read(Path::new(config))?;
    let shoal = Shoal::start(Config { data_dir: keys.join("client"), ..config }).await?;

    let service = ServiceConfig::new(keys.join("service"));
    let service = token.map_or(service.clone(), |token| service.token(token));
    let mut listener = shoal.listen(service).await?;
    for address in listener.addresses() {
        say(&format!("{address}:80\n")).await?;
    }
    listener.ready().await;
    say("ready\n").await?;

    while let Some(Incoming { port, mut stream }) = listener.accept().await {
        tokio::spawn(async move {
            // One read holds the request of any usual client.
            let _ = stream.read(&mut [0; 4096]).await?;
            let page = format!("You asked port {port} of a service in the mixnet.\n");
            let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n";
            let length = page.len();
            let answer = format!("{head}Content-Length: {length}\r\n\r\n{page}");
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await
        });
    }
    Ok(())
}

async fn say(text: &str) -> std::io::Result<()> {
    let mut out = tokio::io::stdout();
    out.write_all(text.as_bytes()).await?;
    out.flush().await
}
