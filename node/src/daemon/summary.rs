//! What a program says of itself, and of the document in use.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};
use shoal_host::about;
use shoal_host::logs::utc;

use super::{Config, RoleName};

/// What a program says of itself.
#[derive(Clone, Default)]
pub(super) struct About {
    pub(super) role: RoleName,
    pub(super) identity: String,
    operator: String,
    jurisdiction: String,
    addresses: Vec<SocketAddr>,
    /// When it was started, in seconds of Unix time.
    started: u64,
}

impl About {
    pub(super) fn new(config: &Config, identity: String, started: u64) -> Self {
        Self {
            role: config.role,
            identity,
            operator: config.operator.clone(),
            jurisdiction: config.jurisdiction.clone(),
            addresses: config.advertised().unwrap_or_default(),
            started,
        }
    }

    /// With what can change while the program runs.
    pub(super) fn update(&mut self, config: &Config) {
        *self = Self::new(config, std::mem::take(&mut self.identity), self.started);
    }

    /// What both nodes and authorities say first.
    pub(super) fn fields(&self, now: u64) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut say = |name: &str, value: Value| _ = fields.insert(name.to_owned(), value);
        say("program", "shoal-node".into());
        say("version", about::VERSION.into());
        say("build", about::version().into());
        say("role", self.role.name().into());
        say("identity", self.identity.clone().into());
        say("addresses", self.addresses.iter().map(ToString::to_string).collect());
        say("started", utc(self.started).into());
        say("uptime_s", now.saturating_sub(self.started).into());
        if self.role != RoleName::Authority {
            say("operator", self.operator.clone().into());
            say("jurisdiction", self.jurisdiction.clone().into());
        }
        fields
    }
}

/// Which document is in use, and until when there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct InUse {
    pub(super) epoch: u64,
    pub(super) amendment: u16,
    /// When its epoch begins, in seconds of Unix time.
    pub(super) begins: u64,
    /// Until when this or a later one that is held can be used.
    pub(super) until: u64,
    /// The present epoch, and how long one is.
    pub(super) present: u64,
    pub(super) epoch_s: u64,
}

impl InUse {
    /// The epoch and the document, as clocks show them.
    pub(super) fn fields(&self) -> [(&'static str, Value); 4] {
        let begins = self.present.saturating_mul(self.epoch_s);
        [
            ("epoch", self.present.into()),
            ("epoch_begins", utc(begins).into()),
            ("epoch_ends", utc(begins.saturating_add(self.epoch_s)).into()),
            (
                "document",
                json!({
                    "epoch": self.epoch, "amendment": self.amendment,
                    "begins": utc(self.begins), "usable_until": utc(self.until),
                }),
            ),
        ]
    }
}
