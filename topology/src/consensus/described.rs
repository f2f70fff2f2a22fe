//! What nodes and services say of themselves to an authority, and what nodes report.

use super::{Authority, MAX_PARTS};
use crate::reputation::report::SignedReport;
use crate::{ClientDescriptor, NodeDescriptor, Signed};

impl Authority {
    /// True if it is on the list. Of two descriptors of a node the later holds.
    pub(super) fn keep_node(&mut self, signed: Signed<NodeDescriptor>) -> bool {
        let body = signed.body();
        let listed = self.settings.allowed.contains(&body.identity);
        let known = self.nodes.get(&body.identity);
        // Of two of one second the first stays: a node cannot flip an authority between two of its own making.
        if listed && known.is_none_or(|known| known.body().signed_at < body.signed_at) {
            self.nodes.insert(body.identity, signed);
        }
        listed
    }

    pub(super) fn keep_exit(&mut self, signed: Signed<ClientDescriptor>) -> bool {
        let body = signed.body();
        let listed = self.settings.allowed_exits.contains(&body.identity);
        let known = self.exits.get(&body.identity);
        if listed && known.is_none_or(|known| known.body().not_before <= body.not_before) {
            self.exits.insert(body.identity, signed);
        }
        listed
    }

    /// Takes a descriptor, at a time unless it was kept.
    pub(super) fn describe(&mut self, now: Option<u64>, bytes: &[u8]) {
        let what = "a node's descriptor";
        let in_future = |now: u64, at: u64| at > now / 1_000 + self.clock_error_s(now);
        match Signed::<NodeDescriptor>::decode(bytes) {
            // It would hold for ever against all that the node says later.
            Ok(signed) if now.is_some_and(|now| in_future(now, signed.body().signed_at)) => {
                self.refuse(what, "it was signed in the future: look at the node's clock");
            }
            Ok(signed) => {
                if !self.keep_node(signed) {
                    self.refuse(what, "the node is not on the list");
                }
            }
            Err(error) => self.refuse(what, error),
        }
    }

    pub(super) fn describe_exit(&mut self, bytes: &[u8]) {
        match Signed::<ClientDescriptor>::decode(bytes) {
            Ok(signed) => {
                if !self.keep_exit(signed) {
                    self.refuse("an exit's descriptor", "the service is not on the list");
                }
            }
            Err(error) => self.refuse("an exit's descriptor", error),
        }
    }

    pub(super) fn report(&mut self, now: u64, bytes: &[u8]) {
        let report = match SignedReport::decode(bytes) {
            Ok(report) => report,
            Err(error) => return self.refuse("a report", error),
        };
        let report = report.body();
        let present = self.schedule.epoch(now).0;
        // The report of an epoch's last session may come when the next epoch has begun.
        let recent = present.saturating_sub(1)..=present;
        let Some(held) =
            self.documents.at(report.epoch).filter(|_| recent.contains(&report.epoch.0))
        else {
            return;
        };
        let new = self
            .reported
            .get(&report.node)
            .is_none_or(|last| *last < (report.epoch, report.part) && report.part < MAX_PARTS);
        if held.document.index_of(&report.node).is_none() || !new {
            return;
        }
        // After the checks, so that a report that cannot be used does not shut out one that can.
        self.reported.insert(report.node, (report.epoch, report.part));
        let document = held.document.clone();
        self.judge.report(&document, report);
    }
}
