//! What the client concludes of its link and its gateways: whom it leaves, when it comes back, when its user's traffic
//! pauses.

use rand::RngExt;

use super::gateways::{Evidence, GatewayMemory};
use super::*;

/// A gateway that is found at fault is judged anew so much later, and named again.
const BLAME_AGAIN: Duration = Duration::from_secs(60);
/// How long after the loops run again the user's traffic resumes, in seconds.
const RESUMES_S: std::ops::Range<f64> = 1.0..4.0;

/// Says whether the user's traffic leaves. While the link stands still, or the gateway holds everything, what leaves
/// comes out behind it at the instant that the holder chose; so it waits, and goes on at another instant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    No,
    /// The loops stand still.
    Still,
    /// They run again; the traffic resumes then.
    Until(Time),
}

impl Client {
    /// The gateways that the user named, the first one first, and what [`Client::gateway_memory`] said of them in an earlier
    /// run. Without them a client knows of no second gateway and of none to come back to; whoever calls knows.
    pub fn set_gateways(&mut self, gateways: &[Identity], memory: &GatewayMemory) {
        self.gateways.set(gateways, memory);
    }

    /// What must outlive a restart. It changes when a gateway is left or linked to, and when it is found late.
    pub fn gateway_memory(&self) -> GatewayMemory {
        self.gateways.memory()
    }

    /// What is found against the gateway, if anything is.
    pub fn evidence(&self) -> Option<Evidence> {
        self.blamed.map(|(_, evidence)| evidence)
    }

    /// True if loops by the other gateway came late, too, when it was used last: then it is the line, or its provider.
    pub fn other_gateway_is_late(&self, now: Time) -> bool {
        let unix_s = self.router.unix_s(now);
        self.link.is_some_and(|own| self.gateways.other_is_late(unix_s, &own))
    }

    /// True if packets come in numbers that nobody asked for and that anybody may have sent: the client can be reached.
    pub fn is_pestered(&self) -> bool {
        self.suspicion.is_pestered()
    }

    /// True if the user's traffic waits, since loops stand still or have just begun to run again.
    pub fn is_paused(&self) -> bool {
        self.pause != Pause::No
    }

    /// How often it has waited.
    pub fn pauses(&self) -> u64 {
        self.pauses
    }

    /// Mixes that return fewer loops than others do, beyond chance: layer, position in it from 1, and the share that
    /// comes back, 0 to 1.
    pub fn lossy_mixes(&self) -> Vec<(u8, usize, f64)> {
        let lossy = self.loops.lossy().into_iter();
        let named = lossy.filter_map(|(mix, back)| Some((self.name_of(&mix)?, back)));
        named.map(|((layer, position), back)| (layer, position, back)).collect()
    }

    /// Judges the link and the gateway.
    pub(super) fn judge(&mut self, now: Time) {
        self.credits.expire(now);
        self.forgive_liars(now);
        self.judge_pause(now);
        let (Some(own), true) = (self.link, self.follows.is_some()) else {
            self.blamed = None;
            return;
        };
        let unix_s = self.router.unix_s(now);
        // Before `linked`, which draws the next instant once this one is over.
        if self.gateways.comes_back(unix_s, &own) {
            self.outputs.push_back(ClientOutput::ComeBack);
        }
        self.gateways.linked(unix_s, &own, self.settings.reachable);
        // What was made up is certain and lost loops are a matter of chance, so the former comes first.
        let evidence = self.suspicion.evidence().or_else(|| self.loops.blame_gateway(now));
        if let Some(late) = self.loops.are_late(now) {
            self.gateways.measured(unix_s, &own, late);
        }
        let lately = self.blamed.filter(|(at, _)| now.since(*at) < BLAME_AGAIN);
        // Said once a minute for one reason; another reason is said at once.
        if lately.is_some_and(|(_, of)| evidence.is_none_or(|found| found.blame == of.blame)) {
            return;
        }
        self.blamed = evidence.map(|evidence| (now, evidence));
        if let Some(evidence) = evidence
            && self.gateways.leave(unix_s, &own, evidence.blame)
        {
            self.outputs.push_back(ClientOutput::LeaveGateway);
        }
    }

    /// A link begins or has ended. Whoever cut the one before must not choose the instant at which traffic resumes.
    pub(super) fn pause_for_link(&mut self, now: Time, is_up: bool) {
        self.pause = match is_up && self.had_link {
            // At an instant that is drawn: whoever cut the link would otherwise see traffic begin at the instant that
            // he chose.
            true => Pause::Until(now + self.resumes_after()),
            false => Pause::No,
        };
        self.had_link |= is_up;
    }

    fn resumes_after(&mut self) -> Duration {
        Duration::from_secs_f64(self.pause_rng.random_range(RESUMES_S))
    }

    pub(super) fn judge_pause(&mut self, now: Time) {
        let still = self.link.is_some() && self.loops.stand_still(now);
        // The state before, to see whether it changed: what follows is done once for each change.
        let before = self.pause;
        self.pause = match before {
            _ if still => Pause::Still,
            Pause::Still => Pause::Until(now + self.resumes_after()),
            Pause::Until(at) if now >= at => Pause::No,
            other => other,
        };
        if before != self.pause {
            self.pauses += u64::from(before == Pause::No);
            // What could not leave cannot have been answered.
            self.groups.values_mut().for_each(|group| group.asked = None);
        }
    }
}
