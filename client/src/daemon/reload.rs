//! What of the configuration can change while a client runs.

use std::sync::{Mutex, PoisonError};

use shoal_host::reload::{Changes, say_broken};
use shoal_host::shutdown::{Reloads, Shutdown};

use super::config::{Config, Protect, Serve, Socks, read};
use super::{ClientError, files};

/// The configuration that runs, and where it is read again.
pub(super) struct Reload {
    reloads: Reloads,
    /// What the program goes by.
    pub(super) config: Config,
}

impl Reload {
    pub(super) fn new(config: Config, shutdown: &Shutdown) -> Self {
        Self { reloads: shutdown.reloads(), config }
    }

    /// Returns when the configuration is to be read again. May be cancelled.
    pub(super) async fn asked(&mut self) {
        self.reloads.asked().await;
    }

    /// Reads the file again, for the caller to apply and then to [`Self::adopt`]. `None` if it cannot be used, which the log has
    /// been told, or there is none.
    pub(super) fn read(&self) -> Option<Next> {
        let source = self.config.source.as_ref()?;
        let read = read(&source.path, &source.overrides).map_err(ClientError::from);
        let with_token = read.and_then(|(read, warnings)| {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            let token = files::token(&read)?;
            Ok((read, token))
        });
        match with_token {
            Ok((read, token)) => {
                let (config, changes) = merge(&self.config, read);
                Some(Next { config, changes, token })
            }
            Err(error) => {
                say_broken(&error);
                None
            }
        }
    }

    /// The program goes by this from now on, and says so. `token` is what links show to gateways.
    pub(super) fn adopt(&mut self, next: Next, token: &Mutex<Vec<u8>>) {
        let Next { config, mut changes, token: read } = next;
        {
            let mut token = token.lock().unwrap_or_else(PoisonError::into_inner);
            changes.at_once("token", &*token, &read);
            *token = read;
        }
        changes.log_level(&self.config.log, &config.log);
        changes.say();
        self.config = config;
    }
}

/// A configuration that was read again.
pub(super) struct Next {
    /// What the program will go by: what cannot change while it runs is as it was.
    pub(super) config: Config,
    changes: Changes,
    token: Vec<u8>,
}

/// What runs from now on, and what changed.
fn merge(before: &Config, read: Config) -> (Config, Changes) {
    let mut changes = Changes::new();
    // With every field by its name, so that a new one is not forgotten.
    let Config {
        network,
        gateways,
        class,
        data_dir,
        runtime_dir,
        key_period_s,
        reachable,
        token,
        log,
        socks,
        protect,
        admin,
        page,
        serve,
        source: _,
    } = read;
    changes.at_next_start("network", &before.network, &network);
    changes.at_next_start("gateways", &before.gateways, &gateways);
    changes.at_next_start("class", &before.class, &class);
    changes.at_next_start("data_dir", &before.data_dir, &data_dir);
    changes.at_next_start("runtime_dir", &before.runtime_dir, &runtime_dir);
    changes.at_next_start("key_period_s", &before.key_period_s, &key_period_s);
    changes.at_next_start("reachable", &before.reachable, &reachable);
    changes.at_next_start("admin", &before.admin, &admin);
    changes.at_next_start("page", &before.page, &page);
    let Socks { listen, max_connections, request_timeout_s, extended_errors } = socks;
    changes.at_next_start("socks.listen", &before.socks.listen, &listen);
    changes.at_next_start("socks.max_connections", &before.socks.max_connections, &max_connections);
    let timeout = &before.socks.request_timeout_s;
    changes.at_next_start("socks.request_timeout_s", timeout, &request_timeout_s);
    let extended = &before.socks.extended_errors;
    changes.at_next_start("socks.extended_errors", extended, &extended_errors);
    let Protect { allow_shared_gateway, min_mixes_per_layer, min_bits, allow_small_crowd, strict } =
        protect;
    let was = &before.protect;
    changes.at_once(
        "protect.allow_shared_gateway",
        &was.allow_shared_gateway,
        &allow_shared_gateway,
    );
    changes.at_once("protect.min_mixes_per_layer", &was.min_mixes_per_layer, &min_mixes_per_layer);
    changes.at_once("protect.min_bits", &was.min_bits, &min_bits);
    changes.at_once("protect.allow_small_crowd", &was.allow_small_crowd, &allow_small_crowd);
    changes.at_next_start("protect.strict", &was.strict, &strict);
    let protect = Protect {
        allow_shared_gateway,
        min_mixes_per_layer,
        min_bits,
        allow_small_crowd,
        strict: was.strict,
    };
    let Serve { kind, target, policy, resolver, hosts, max_tunnels } = serve;
    let was = &before.serve;
    changes.at_next_start("serve.kind", &was.kind, &kind);
    changes.at_next_start("serve.max_tunnels", &was.max_tunnels, &max_tunnels);
    changes.at_once("serve.target", &was.target, &target);
    changes.at_once("serve.policy", &was.policy, &policy);
    changes.at_once("serve.resolver", &was.resolver, &resolver);
    changes.at_once("serve.hosts", &was.hosts, &hosts);
    let serve =
        Serve { kind: was.kind, target, policy, resolver, hosts, max_tunnels: was.max_tunnels };
    (Config { log, token, protect, serve, ..before.clone() }, changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_change_at_once_does_and_the_rest_waits() {
        let before = Config::default();
        let mut read = before.clone();
        read.class = "fast".into();
        read.protect.strict = true;
        read.protect.allow_small_crowd = true;
        read.serve.policy = vec!["allow *:443".into()];
        let (next, changes) = merge(&before, read);
        assert_eq!((next.class.as_str(), next.protect.strict), ("web", false));
        assert!(next.protect.allow_small_crowd && next.serve.policy == ["allow *:443"]);
        assert_eq!(
            changes.line(),
            "the configuration was read again: protect.allow_small_crowd, serve.policy in effect now; class, \
             protect.strict in effect after a restart"
        );
    }
}
