//! What the authorities of a localnet agree on before anything runs.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use shoal_client::daemon as client;
use shoal_host::secret;
use shoal_node::daemon as node;
use shoal_topology::{
    Document, Epoch, ListedNode, Network, Parameters, Role, SecretIdentity, SignedDocument,
};

use super::people::Organisation;
use super::{Daemon, Options};

/// The authorities, before anything runs.
pub(super) struct Founders {
    /// Their configurations, and the files these are in.
    pub(super) configs: Vec<(PathBuf, node::Config)>,
    pub(super) secrets: Vec<SecretIdentity>,
    pub(super) network: Network,
}

impl Founders {
    /// What everyone agrees on before the first vote: who may be listed, and a first document, which a network that
    /// nobody waits for makes by voting.
    pub(super) fn found(
        &self,
        options: &Options,
        dir: &Path,
        (nodes, exits): (&[Daemon], &[PathBuf]),
        organisation: Option<&Organisation>,
    ) -> anyhow::Result<()> {
        let parameters = parameters(options);
        secret::replace(
            &dir.join("parameters.toml"),
            toml::to_string(&parameters).context("writing the parameters")?.as_bytes(),
        )?;
        let (mut listed, mut files) = (Vec::new(), Vec::new());
        for daemon in nodes {
            let (config, _) = node::Config::load(&daemon.config, &[])?;
            let descriptor = node::descriptor(&config)?;
            // A mix's name says its first layer: mix-LAYER-NUMBER.
            let layer = match descriptor.body().role {
                Role::Mix => {
                    daemon.name.split('-').nth(1).and_then(|l| l.parse().ok()).unwrap_or(1)
                }
                Role::Gateway => 0,
            };
            listed.push(ListedNode::new(descriptor, layer));
            files.push(config.topology);
        }
        listed.sort_by_key(ListedNode::identity);
        let services = exits.iter().map(|config| {
            let (config, _) = client::config::read(config, &[])?;
            Ok(client::descriptor(&config)?)
        });
        let services = services.collect::<anyhow::Result<Vec<_>>>()?;
        for (path, config) in &self.configs {
            let mut config = config.clone();
            config.authority = node::AuthorityConfig {
                nodes: listed.iter().map(ListedNode::identity).collect(),
                exits: services.iter().map(|exit| exit.body().identity).collect(),
                parameters: "../parameters.toml".into(),
                ..node::AuthorityConfig::default()
            };
            if let Some(organisation) = organisation {
                organisation.list(&mut config.authority);
            }
            secret::replace(path, config.to_toml().as_bytes())?;
            files.push(path.with_file_name("topology"));
        }
        let length = options.epoch.as_secs();
        let epoch = unix_s() / length;
        let document = Document {
            network: self.network.name.clone(),
            epoch: Epoch(epoch),
            begins: epoch * length,
            epoch_s: u32::try_from(length)?,
            amendment: 0,
            parameters,
            nodes: listed,
            draw: Default::default(),
            exits: services,
            heads: organisation.map(Organisation::head).into_iter().collect(),
        };
        document.check()?;
        // As many as a document needs: no more must be necessary.
        let signed =
            SignedDocument::new(&document, self.secrets.iter().take(self.network.threshold()));
        let bytes = signed.encode();
        files.iter().try_for_each(|file| secret::replace(file, &bytes))?;
        Ok(())
    }
}

/// What the network fixes for everyone. Short epochs leave less time for packets under way and for clocks; and one mix of each
/// layer is to spare, so that the authorities go on without any one that ends.
fn parameters(options: &Options) -> Parameters {
    let mut parameters = options.parameters.clone();
    let spared = u16::try_from(options.mixes_per_layer.saturating_sub(1)).unwrap_or(u16::MAX);
    parameters.min_mixes_per_layer = parameters.min_mixes_per_layer.min(spared.max(1));
    let tenth = u64::try_from(options.epoch.as_micros()).unwrap_or(u64::MAX) / 10;
    let longest = parameters
        .classes
        .iter()
        .map(|class| class.delay.exponential_us.max(class.delay.uniform_us));
    let longest = longest.max().unwrap_or_default();
    parameters.max_delay_us = parameters.max_delay_us.min(tenth).max(longest);
    parameters.clock_error_s =
        parameters.clock_error_s.min(u32::try_from(tenth / 1_000_000).unwrap_or(u32::MAX)).max(1);
    parameters.draw_every = parameters.draw_every.min(6);
    parameters.trial = options.trial;
    parameters
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
