//! Verbs that run until they are ended, or wait for the network.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use shoal_client::Config;
use shoal_host::config::parse_address;
use shoal_host::shutdown::Shutdown;
use shoal_host::{logs, stdout};
use shoal_org::{
    DirectoryService, Duties, OidcConfig, OrgError, Registry, Scim, ScimConfig, keep_published,
    publish, token_file,
};

/// Options of `serve`.
#[derive(Args)]
pub(crate) struct ServeOptions {
    /// The configuration of a client, of which it takes network, gateways and admission
    #[arg(short, long, value_name = "FILE", default_value = "client.toml")]
    config: PathBuf,
    /// The file of the token by which its gateways let a service in
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Let in, unseen, whoever asks with the code of `invite --auto`; takes the key of an issuer in DIR/keys, and a policy of
    /// one approval
    #[arg(long)]
    auto: bool,
    /// Let people ask by a sign-in at the organisation's own provider, which this file names
    #[arg(long, value_name = "FILE")]
    oidc: Option<PathBuf>,
    /// Publish what is new at once; takes the organisation's key in DIR/keys
    #[arg(long)]
    publish: bool,
    /// Show on this machine alone how much was answered, for Prometheus: /metrics, and whether it can be reached: /readyz
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    metrics: Option<SocketAddr>,
}

/// Options of `scim`.
#[derive(Args)]
pub(crate) struct ScimOptions {
    /// Where it listens: on this machine alone, for a proxy with TLS before it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9416", value_parser = parse_address)]
    listen: SocketAddr,
    /// Most people whom it removes in a day
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    most_a_day: usize,
    /// Publish what is new at once; takes the organisation's key in DIR/keys
    #[arg(long)]
    publish: bool,
    /// The network file for --publish, if not that of `init`
    #[arg(long, value_name = "FILE", requires = "publish")]
    network: Option<PathBuf>,
}

/// The network file that is named, or that of `init`.
fn network_file(registry: &Registry, named: Option<&Path>) -> Result<PathBuf, OrgError> {
    let file = named.or(registry.network()).map(Path::to_owned);
    file.ok_or_else(|| {
        OrgError::Refused("--network FILE says of which network: `init` was given none".into())
    })
}

/// Hands the head to the authorities, once.
pub(crate) fn publish_head(registry: &Registry, network: Option<&Path>) -> Result<(), OrgError> {
    let network = network_file(registry, network)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let published = runtime.block_on(publish(registry, &network))?;
    Ok(stdout::line(format!(
        "the document of epoch {} has the head of the directory, of {} entries",
        published.epoch, published.size
    ))?)
}

/// Publishes what is new from now on, if that is wanted; else it waits for ever.
async fn published(dir: &Path, network: Option<&Path>) {
    match network {
        Some(network) => keep_published(dir, network).await,
        None => std::future::pending().await,
    }
}

/// Runs the service. Its address goes into the files, so that the next `publish` says it to members.
pub(crate) fn serve(
    dir: &Path,
    admin: Option<u16>,
    options: &ServeOptions,
) -> Result<(), OrgError> {
    let registry = Registry::open(dir)?;
    let organisation = registry.directory().organisation();
    let mut duties = Duties { metrics: options.metrics, ..Duties::default() };
    if options.auto {
        registry.allows_unseen()?;
        duties.auto = Some(registry.issuer(admin)?);
    }
    duties.oidc = options.oidc.as_deref().map(OidcConfig::read).transpose()?;
    if duties.oidc.as_ref().is_some_and(|oidc| oidc.auto) && duties.auto.is_none() {
        return Err(OrgError::Refused(
            "`auto` of the provider's configuration lets people in unseen: `serve --auto` says that this service may".into(),
        ));
    }
    let (config, warnings) = Config::read(&options.config)?;
    let network = match options.publish {
        // The key is looked for now, and not when somebody was removed.
        true => registry.head().map(|_| Some(config.network.clone()))?,
        false => None,
    };
    drop(registry);
    let level = |error: logs::BadLevel| OrgError::Refused(error.to_string());
    logs::init(None, &config.log).map_err(level)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        let token = options.token.as_deref();
        let mut service = DirectoryService::start(dir, organisation, config, token, duties).await?;
        let address = service.addresses().first().copied();
        let mut registry = Registry::open(dir)?;
        if registry.service() != address {
            registry.set_service(address)?;
            if network.is_none() {
                stdout::line("its address is new: `shoal-org publish` tells the members")?;
            }
        }
        drop(registry);
        let run = async {
            if service.ready().await {
                stdout::line(format!(
                    "ready at {}",
                    address.map(|address| address.to_string()).unwrap_or_default()
                ))?;
                service.run().await;
            }
            Ok::<(), std::io::Error>(())
        };
        tokio::select! {
            ended = run => ended?,
            () = published(dir, network.as_deref()) => {}
            () = shutdown.wait() => {}
        }
        Ok(())
    })
}

/// Runs the endpoint of SCIM.
pub(crate) fn scim(dir: &Path, admin: Option<u16>, options: &ScimOptions) -> Result<(), OrgError> {
    let registry = Registry::open(dir)?;
    let issuer = registry.issuer(admin)?;
    let network = match options.publish {
        // The key is looked for now, and not when somebody was removed.
        true => registry
            .head()
            .and_then(|_| network_file(&registry, options.network.as_deref()))
            .map(Some)?,
        false => None,
    };
    drop(registry);
    let level = |error: logs::BadLevel| OrgError::Refused(error.to_string());
    logs::init(None, "info").map_err(level)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        let (listen, most_a_day) = (options.listen, options.most_a_day);
        let scim = Scim::start(dir, ScimConfig { listen, issuer, most_a_day }).await?;
        stdout::line(format!(
            "ready at http://{}/scim/v2, for whoever has the token in {}",
            scim.address()?,
            token_file(dir).display()
        ))?;
        tokio::select! {
            () = scim.run() => {}
            () = published(dir, network.as_deref()) => {}
            () = shutdown.wait() => {}
        }
        Ok(())
    })
}
