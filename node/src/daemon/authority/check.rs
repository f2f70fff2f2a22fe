//! What `check` says of an authority: its files, and whether its lists and parameters go together.

use std::path::Path;

use shoal_host::config::ConfigError;
use shoal_host::{network, secret};
use shoal_topology::{Epoch, Network, Parameters};

use super::{read_state, state_file};
use crate::daemon::{self, AuthorityConfig, Config, NodeError};

/// What an operator should know although the authority would run.
///
/// # Errors
/// What keeps it from running.
pub(in crate::daemon) fn check(config: &Config) -> Result<Vec<String>, NodeError> {
    let own = daemon::identity(config)?;
    secret::is_private_directory(&config.data_dir)?;
    secret::is_private_directory(&config.runtime_dir())?;
    read_state(&state_file(config))?;
    let known = match network::load(&config.network) {
        Ok(known) => known,
        Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(vec![format!(
                "there is no network file {} yet: whoever founds the network makes it by `shoal-node network new`, with this \
                 authority's identity, {own}",
                config.network.display()
            )]);
        }
        Err(error) => return Err(error.into()),
    };
    let mut notes: Vec<String> = bears_no_liar(&known).into_iter().collect();
    if !known.authorities.contains(&own) {
        notes.push(format!("the network file does not list this authority, {own}"));
    }
    let missing = known.authorities.len() - network::authority_addresses(&config.network)?.len();
    if missing > 0 {
        notes.push(format!("the network file has no address of {missing} authorities"));
    }
    let parameters = parameters(config, &known)?;
    for (_, parameters) in &parameters {
        notes.extend(too_few_for(config, parameters));
        notes.extend(too_short_for(&known, parameters));
    }
    Ok(notes)
}

/// What to say of a list with fewer nodes than the parameters ask for.
fn too_few_for(config: &Config, parameters: &Parameters) -> Option<String> {
    let listed = config.authority.nodes.len();
    if listed == 0 {
        return Some("`authority.nodes` is empty: no node can be listed".into());
    }
    let mixes = usize::from(parameters.layers) * usize::from(parameters.min_mixes_per_layer.max(1));
    (listed < mixes + 2).then(|| {
        format!(
            "`authority.nodes` has {listed} nodes, and a document needs {} layers of {} mixes (`min_mixes_per_layer`) and 2 \
             gateways: list {} more, and spare ones",
            parameters.layers,
            parameters.min_mixes_per_layer.max(1),
            mixes + 2 - listed
        )
    })
}

/// What to say of epochs in which nothing is left of the time after which packets and clocks have to be right.
fn too_short_for(network: &Network, parameters: &Parameters) -> Option<String> {
    let grace = parameters.key_grace().as_secs();
    (u64::from(network.epoch_s) < grace).then(|| {
        format!(
            "epochs of {} s are shorter than the {grace} s for which packets may be under way and clocks apart \
             (`max_delay_us`, `clock_error_s`): nodes keep the keys of many epochs; make epochs longer, or these shorter",
            network.epoch_s
        )
    })
}

/// What to say of a network that is too small to bear a liar.
pub(in crate::daemon) fn bears_no_liar(network: &Network) -> Option<String> {
    let n = network.authorities.len();
    (network.liars() == 0).then(|| {
        format!(
            "of {n} authorities none may lie: one that does can stop the network, or show different people different \
             documents; four bear one, seven bear two"
        )
    })
}

/// The parameters that this authority votes for, each from an epoch on.
pub(super) fn parameters(
    config: &Config,
    network: &Network,
) -> Result<Vec<(Epoch, Parameters)>, NodeError> {
    let AuthorityConfig { parameters, next_parameters, next_from_epoch, .. } = &config.authority;
    let mut all = vec![(Epoch(0), read_parameters(parameters, network)?)];
    match (next_parameters.as_os_str().is_empty(), *next_from_epoch) {
        (true, 0) => {}
        (true, _) => {
            return Err(NodeError::Config(
                "`authority.next_from_epoch` names an epoch, and `authority.next_parameters` no file".into(),
            ));
        }
        (false, 0) => {
            return Err(NodeError::Config(
                "`authority.next_parameters` names a file, and `authority.next_from_epoch` no epoch: the same at all \
                 authorities, and one that is to come"
                    .into(),
            ));
        }
        (false, from) => all.push((Epoch(from), read_parameters(next_parameters, network)?)),
    }
    Ok(all)
}

/// The parameters in a file, or the defaults.
fn read_parameters(path: &Path, network: &Network) -> Result<Parameters, NodeError> {
    let mut parameters = if path.as_os_str().is_empty() {
        Parameters::default()
    } else {
        let parameters: Parameters = shoal_host::config::load(path, &[])?.config;
        let wrong = |why: String| NodeError::Config(format!("{}: {why}", path.display()));
        parameters.check().map_err(|error| wrong(error.to_string()))?;
        if parameters.trial && !network.trial {
            return Err(wrong(
                "`trial` stands in the network file alone, and this network was not founded for trial".into(),
            ));
        }
        parameters
    };
    parameters.trial = network.trial;
    Ok(parameters)
}
