//! What a person's client says and keeps of its gateways: in totals, in whole hours, and never per peer.

use std::path::Path;

use shoal_host::secret;
use tracing::warn;

use crate::engine::{Blame, Client, GatewayMemory};

/// Name of the file in the data directory.
const FILE: &str = "gateways.json";

/// What an earlier run kept. A file that cannot be read is as good as none: nothing worse follows than another move.
pub(super) fn remembered(data_dir: &Path) -> GatewayMemory {
    let path = data_dir.join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            warn!("{} is not used: {error}", path.display());
            GatewayMemory::default()
        }),
        Err(_) => GatewayMemory::default(),
    }
}

/// Keeps it, if it is new.
pub(super) fn keep(data_dir: &Path, kept: &mut GatewayMemory, now: GatewayMemory) {
    if *kept == now {
        return;
    }
    let written =
        serde_json::to_vec_pretty(&now).map_err(|error| error.to_string()).and_then(|of| {
            secret::replace(&data_dir.join(FILE), &of).map_err(|error| error.to_string())
        });
    if let Err(error) = written {
        warn!("what is known of the gateways is not kept: {error}");
    }
    *kept = now;
}

/// Whose mix it is: that is whom to tell.
fn by(client: &Client, layer: u8, position: usize) -> String {
    client.operator(layer, position).map(|name| format!(" (of {name:?})")).unwrap_or_default()
}

/// What `status` warns of: the gateways, mixes that lose, services that lie, packets that nobody asked for.
pub(super) fn warnings(client: &Client, now: shoal_topology::Time, gateways: usize) -> Vec<String> {
    let mut warnings: Vec<String> = client
        .silent_mixes()
        .into_iter()
        .map(|(layer, position)| {
            format!(
                "mix {position} of layer {layer}{} returns none of our loops",
                by(client, layer, position)
            )
        })
        .collect();
    for (layer, position, back) in client.lossy_mixes() {
        let share = 100.0 * back;
        warnings.push(format!(
            "mix {position} of layer {layer}{} returns {share:.0} % of our loops, fewer than the others",
            by(client, layer, position)
        ));
    }
    if let Some(evidence) = client.evidence() {
        let what = match evidence.blame {
            Blame::Lost => "loses our packets",
            Blame::Late => "holds our packets up",
            Blame::Garbage => "sends packets that it made up",
        };
        let advice = match (gateways, evidence.blame) {
            (0 | 1, _) => "name a second one in the configuration",
            (_, Blame::Late) if client.other_gateway_is_late(now) => {
                "the other one did, too: look at your line, or ask its provider"
            }
            (_, Blame::Late) => "a client moves for this once a day",
            _ => "the other one did lately, too",
        };
        warnings.push(format!("the gateway {what} ({evidence}): {advice}"));
    }
    if client.is_pestered() {
        warnings.push(
            "packets come that nobody asked for, from strangers or from the gateway: they get no answer, and hide nothing \
             of yours"
                .into(),
        );
    }
    if client.is_paused() {
        warnings.push("the link stands still, or did just now: requests wait for a moment".into());
    }
    match client.lying_services() {
        0 => {}
        1 => warnings.push("a service or exit sent replies that its tunnel does not authenticate: it is avoided, longer each time".into()),
        n => warnings.push(format!("{n} services or exits sent replies that their tunnels do not authenticate: they are avoided, longer each time")),
    }
    warnings
}
