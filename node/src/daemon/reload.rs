//! What of the configuration can change while a node or an authority runs.

use shoal_host::reload::{Changes, Source, say_broken};
use shoal_host::shutdown::{Reloads, Shutdown};

use super::{AuthorityConfig, Config, GatewayConfig, RoleName, check_values};

/// The configuration that runs, and where it is read again.
pub(super) struct Reload {
    source: Option<Source>,
    reloads: Reloads,
    /// What the program goes by.
    pub(super) config: Config,
    /// Places for clients that links were made for.
    most_clients: usize,
    /// The network file at the start.
    network: Option<Vec<u8>>,
}

impl Reload {
    /// Of a program that goes by `config`. Without a source nothing is read again.
    pub(super) fn new(config: Config, source: Option<Source>, shutdown: &Shutdown) -> Self {
        let most_clients = config.gateway.max_clients;
        let network = std::fs::read(&config.network).ok();
        Self { source, reloads: shutdown.reloads(), config, most_clients, network }
    }

    /// Returns when the configuration is to be read again. May be cancelled.
    pub(super) async fn asked(&mut self) {
        self.reloads.asked().await;
    }

    /// Reads the file again, and goes by what can change at once. What changed, for the caller to apply and to say;
    /// `None` if the file cannot be used, which the log has been told.
    pub(super) fn read(&mut self) -> Option<Changes> {
        let source = self.source.as_ref()?;
        let read = match Config::load(&source.path, &source.overrides) {
            Ok((read, warnings)) => {
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                read
            }
            Err(error) => {
                say_broken(&error);
                return None;
            }
        };
        let (next, mut changes) = merge(&self.config, read, self.most_clients);
        // Together with what stays: an address that `listen` gave goes on to be announced.
        if let Err(error) = check_values(&next) {
            say_broken(&error);
            return None;
        }
        let network = std::fs::read(&next.network).ok();
        changes.at_next_start("what the network file says", &self.network, &network);
        changes.log_level(&self.config.log, &next.log);
        self.config = next;
        Some(changes)
    }
}

/// What runs from now on, and what changed.
fn merge(before: &Config, read: Config, most_clients: usize) -> (Config, Changes) {
    let mut changes = Changes::new();
    // With every field by its name, so that a new one is not forgotten.
    let Config {
        role,
        listen,
        advertise,
        operator,
        jurisdiction,
        data_dir,
        runtime_dir,
        topology,
        network,
        admin,
        workers,
        max_packets_per_s,
        replay_mib,
        pool_packets,
        log,
        gateway,
        authority,
    } = read;
    changes.at_next_start("role", &before.role, &role);
    changes.at_next_start("listen", &before.listen, &listen);
    changes.at_next_start("data_dir", &before.data_dir, &data_dir);
    changes.at_next_start("runtime_dir", &before.runtime_dir, &runtime_dir);
    changes.at_next_start("topology", &before.topology, &topology);
    changes.at_next_start("network", &before.network, &network);
    changes.at_next_start("admin", &before.admin, &admin);
    changes.at_next_start("workers", &before.workers, &workers);
    changes.at_next_start("max_packets_per_s", &before.max_packets_per_s, &max_packets_per_s);
    changes.at_next_start("replay_mib", &before.replay_mib, &replay_mib);
    changes.at_next_start("pool_packets", &before.pool_packets, &pool_packets);
    let mut next = Config { log, ..before.clone() };
    if before.role != RoleName::Authority {
        changes.at_once("advertise", &before.advertise, &advertise);
        changes.at_once("operator", &before.operator, &operator);
        changes.at_once("jurisdiction", &before.jurisdiction, &jurisdiction);
        next = Config { advertise, operator, jurisdiction, ..next };
    }
    match before.role {
        RoleName::Gateway => {
            next.gateway = merge_gateway(&before.gateway, gateway, most_clients, &mut changes);
        }
        RoleName::Authority => {
            let AuthorityConfig {
                nodes,
                exits,
                organisation,
                parameters,
                next_parameters,
                next_from_epoch,
            } = &authority;
            let old = &before.authority;
            changes.at_once("authority.nodes", &old.nodes, nodes);
            changes.at_once("authority.exits", &old.exits, exits);
            changes.at_once("authority.organisation", &old.organisation, organisation);
            changes.at_once("authority.parameters", &old.parameters, parameters);
            changes.at_once("authority.next_parameters", &old.next_parameters, next_parameters);
            changes.at_once("authority.next_from_epoch", &old.next_from_epoch, next_from_epoch);
            next.authority = authority;
        }
        RoleName::Mix => {}
    }
    (next, changes)
}

fn merge_gateway(
    before: &GatewayConfig,
    read: GatewayConfig,
    most_clients: usize,
    changes: &mut Changes,
) -> GatewayConfig {
    let GatewayConfig {
        admission,
        max_clients,
        max_clients_of_one_network,
        token_share,
        service_per_s,
        queries_per_s,
        inbox,
        inbox_survives_reboot,
        max_inboxes,
        inbox_packets,
        token,
    } = &read;
    changes.at_once("gateway.admission", &before.admission, admission);
    changes.at_once(
        "gateway.max_clients_of_one_network",
        &before.max_clients_of_one_network,
        max_clients_of_one_network,
    );
    changes.at_once("gateway.token_share", &before.token_share, token_share);
    changes.at_once("gateway.service_per_s", &before.service_per_s, service_per_s);
    changes.at_once("gateway.queries_per_s", &before.queries_per_s, queries_per_s);
    changes.at_once("gateway.max_inboxes", &before.max_inboxes, max_inboxes);
    changes.at_once("gateway.inbox_packets", &before.inbox_packets, inbox_packets);
    changes.at_once("gateway.token", &before.token, token);
    changes.at_next_start("gateway.inbox", &before.inbox, inbox);
    changes.at_next_start(
        "gateway.inbox_survives_reboot",
        &before.inbox_survives_reboot,
        inbox_survives_reboot,
    );
    // Fewer at once; for more than there were at the start, links have no room.
    let clients = if *max_clients > most_clients {
        changes.at_next_start("gateway.max_clients", &before.max_clients, max_clients);
        before.max_clients
    } else {
        changes.at_once("gateway.max_clients", &before.max_clients, max_clients);
        *max_clients
    };
    GatewayConfig {
        max_clients: clients,
        inbox: before.inbox,
        inbox_survives_reboot: before.inbox_survives_reboot,
        ..read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::TokenConfig;

    fn reload(before: &Config, read: Config) -> (Config, String) {
        let (next, changes) = merge(before, read, before.gateway.max_clients);
        (next, changes.line())
    }

    #[test]
    fn what_links_and_files_were_made_for_waits_for_a_restart_and_the_rest_does_not() {
        let before = Config { role: RoleName::Gateway, ..Config::default() };
        let token = TokenConfig { secret: "a".into(), connections: 1, service: true };
        let read = Config {
            listen: "127.0.0.1:7".parse().unwrap(),
            workers: 3,
            operator: "another".into(),
            gateway: GatewayConfig {
                token: vec![token],
                inbox: false,
                max_clients: 2_000,
                ..GatewayConfig::default()
            },
            ..before.clone()
        };
        let (next, line) = reload(&before, read.clone());
        assert_eq!(
            line,
            "the configuration was read again: operator, gateway.token in effect now; listen, workers, gateway.inbox, \
             gateway.max_clients in effect after a restart"
        );
        assert_eq!((&next.listen, next.workers), (&before.listen, before.workers));
        assert_eq!((next.gateway.inbox, next.gateway.max_clients), (true, 1_000));
        assert_eq!((next.gateway.token, next.operator), (read.gateway.token, read.operator));
        assert!(reload(&before, before.clone()).1.ends_with("nothing is different"));
    }

    #[test]
    fn a_role_looks_at_its_own_table_alone() {
        let before = Config::default();
        let identity = shoal_topology::Identity([1; 32]);
        let authority = AuthorityConfig { nodes: vec![identity], ..AuthorityConfig::default() };
        let read = Config { authority, ..before.clone() };
        assert!(reload(&before, read.clone()).1.ends_with("nothing is different"));
        let before = Config { role: RoleName::Authority, ..before };
        let (next, line) = reload(&before, Config { role: RoleName::Authority, ..read });
        assert!(line.ends_with("authority.nodes in effect now"), "{line}");
        assert_eq!(next.authority.nodes, [identity]);
    }
}
