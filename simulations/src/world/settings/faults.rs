//! What goes wrong in a run: nodes and authorities that are away, lose packets, have a wrong clock, or lie.

use serde::{Deserialize, Serialize};

use super::Settings;
use super::check::within;
use crate::experiment::Wrong;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// A node or an authority ends and starts again.
    Restart,
    /// The machine of a node does: what lay in the node's runtime directory is gone.
    Reboot,
    /// A node takes a share of the packets that come to it from other nodes.
    Lossy,
    /// The clock of an authority is wrong.
    Clock,
    /// An authority lies.
    Liar,
}

/// How an authority lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lie {
    /// It sends another vote to every second of the others.
    TwoVotes,
    /// It signs a second document, which nobody made, beside each.
    TwoSignatures,
    /// It votes for what a node never said of itself.
    MadeUp,
    /// It sends random bytes.
    Garbage,
    /// It sends documents that nobody else signed.
    FalseDocuments,
    /// It asks without end.
    Flood,
    /// It does not vote.
    Silent,
}

/// Something that goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What: "restart", "reboot", "lossy", "clock" or "liar".
    pub kind: FaultKind,
    /// Which node: "mix-2-1" or "gateway-1".
    pub node: Option<String>,
    /// Which authority, from 1.
    pub authority: Option<u16>,
    /// From when on, seconds of the observation.
    #[serde(default)]
    pub at_s: f64,
    /// With "lossy" and "clock": until when; to the end without it.
    pub until_s: Option<f64>,
    /// With "restart" and "reboot": how long it is away, seconds.
    pub down_s: Option<f64>,
    /// With "lossy": the share of the packets that it takes.
    pub share: Option<f64>,
    /// With "clock": by how much the clock is ahead, seconds; behind, if that is negative.
    pub ahead_s: Option<f64>,
    /// With "liar": "two-votes", "two-signatures", "made-up", "garbage", "false-documents", "flood" or "silent".
    pub lie: Option<Lie>,
}

/// Who does it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::world) enum Culprit {
    /// A node, by its number.
    Node(usize),
    /// An authority, from zero.
    Authority(usize),
}

impl FaultKind {
    fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Reboot => "reboot",
            Self::Lossy => "lossy",
            Self::Clock => "clock",
            Self::Liar => "liar",
        }
    }
}

impl Fault {
    /// Of this kind, from the beginning of the observation on; what else the kind needs is to be given.
    pub fn of(kind: FaultKind) -> Self {
        let (node, authority, until_s, down_s) = Default::default();
        let (share, ahead_s, lie) = Default::default();
        Self { kind, node, authority, at_s: 0.0, until_s, down_s, share, ahead_s, lie }
    }

    /// Whom it names.
    pub(in crate::world) fn culprit(&self, settings: &Settings) -> Option<Culprit> {
        match (&self.node, self.authority) {
            (Some(name), None) => {
                let mut names =
                    (0..settings.network.nodes()).map(|n| settings.network.node_name(n));
                names.position(|node| node == *name).map(Culprit::Node)
            }
            (None, Some(number)) => {
                let number = usize::from(number).checked_sub(1)?;
                let there = number < usize::from(settings.network.authorities);
                there.then_some(Culprit::Authority(number))
            }
            _ => None,
        }
    }

    /// Checks it; it is this one of its tables, from zero.
    pub(super) fn check(&self, number: usize, settings: &Settings) -> Result<(), Wrong> {
        let key = |name: &str| format!("faults.{}.{name}", number + 1);
        self.check_culprit(&key, settings)?;
        within(&key("at_s"), self.at_s, 0.0, 1e9)?;
        let restarts = [FaultKind::Restart, FaultKind::Reboot];
        let lossy = FaultKind::Lossy;
        let (clock, liar) = (FaultKind::Clock, FaultKind::Liar);
        self.belongs(&key("until_s"), self.until_s.is_some(), &[lossy, clock], Needed::No)?;
        self.belongs(&key("down_s"), self.down_s.is_some(), &restarts, Needed::Yes)?;
        self.belongs(&key("share"), self.share.is_some(), &[lossy], Needed::Yes)?;
        self.belongs(&key("ahead_s"), self.ahead_s.is_some(), &[clock], Needed::Yes)?;
        self.belongs(&key("lie"), self.lie.is_some(), &[liar], Needed::Yes)?;
        if self.until_s.is_some_and(|until| until.is_nan() || until < self.at_s) {
            return Err(Wrong::new(&key("until_s"), "must not be before at_s of its table"));
        }
        within(&key("down_s"), self.down_s.unwrap_or(1.0), 0.1, 1e9)?;
        within(&key("share"), self.share.unwrap_or_default(), 0.0, 1.0)?;
        within(&key("ahead_s"), self.ahead_s.unwrap_or_default(), -86_400.0, 86_400.0)
    }

    /// A key that some kinds have and others have not.
    fn belongs(
        &self,
        key: &str,
        given: bool,
        to: &[FaultKind],
        needed: Needed,
    ) -> Result<(), Wrong> {
        let own = to.contains(&self.kind);
        if given && !own {
            let kinds: Vec<String> = to.iter().map(|kind| format!("\"{}\"", kind.name())).collect();
            let why = format!("is for kind = {} only: leave it out", kinds.join(" and "));
            return Err(Wrong::new(key, why));
        }
        if own && !given && needed == Needed::Yes {
            let why = format!("must be given with kind = \"{}\"", self.kind.name());
            return Err(Wrong::new(key, why));
        }
        Ok(())
    }

    fn check_culprit(
        &self,
        key: &impl Fn(&str) -> String,
        settings: &Settings,
    ) -> Result<(), Wrong> {
        let kind = self.kind.name();
        let wrong = |name: &str, why: String| Err(Wrong::new(&key(name), why));
        match (self.kind, &self.node, self.authority) {
            (FaultKind::Restart, Some(_), Some(_)) => {
                return wrong("authority", "give node or authority, not both".into());
            }
            (FaultKind::Restart, None, None) => {
                return wrong("node", "give node or authority with kind = \"restart\"".into());
            }
            (FaultKind::Lossy | FaultKind::Reboot, None, _) => {
                return wrong("node", format!("must be given with kind = \"{kind}\""));
            }
            (FaultKind::Lossy | FaultKind::Reboot, _, Some(_)) => {
                return wrong("authority", format!("kind = \"{kind}\" is of a node: leave it out"));
            }
            (FaultKind::Clock | FaultKind::Liar, _, None) => {
                return wrong("authority", format!("must be given with kind = \"{kind}\""));
            }
            (FaultKind::Clock | FaultKind::Liar, Some(_), _) => {
                return wrong(
                    "node",
                    format!("kind = \"{kind}\" is of an authority: leave it out"),
                );
            }
            _ => {}
        }
        if self.culprit(settings).is_some() {
            return Ok(());
        }
        let network = &settings.network;
        if self.authority.is_some() {
            return match network.authorities {
                0 => wrong(
                    "authority",
                    "there are no authorities: set network.authorities, or leave this table out"
                        .into(),
                ),
                all => wrong("authority", format!("must be 1 to {all} (network.authorities)")),
            };
        }
        let mixes = usize::from(network.layers) * usize::from(network.mixes_per_layer);
        let names =
            [0, mixes - 1, mixes, network.nodes() - 1].map(|n| settings.network.node_name(n));
        let [first, last, gateway, last_gateway] = names;
        wrong("node", format!("must be one of {first} to {last}, {gateway} to {last_gateway}"))
    }
}

/// Whether a kind must have a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    Yes,
    No,
}
