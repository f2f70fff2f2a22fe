//! What nodes and services say of themselves to an authority, and what nodes report.

use super::{Authority, MAX_PARTS, for_network};
use crate::reputation::report::SignedReport;
use crate::{
    ClientDescriptor, DirectoryHead, Document, Epoch, HeadUpdate, Identity, NodeDescriptor,
    Parameters, Signed,
};

impl Authority {
    /// Goes by these lists and votes for these parameters from now on: what an operator changes while it runs. Nodes,
    /// services and organisations that are not on the lists any more are forgotten.
    pub fn configure(
        &mut self,
        allowed: Vec<Identity>,
        allowed_exits: Vec<Identity>,
        allowed_organisations: Vec<(Identity, String)>,
        parameters: Vec<(Epoch, Parameters)>,
    ) {
        // Else a node that was taken off the list would be voted for until its keys are over.
        self.nodes.retain(|node, _| allowed.contains(node));
        self.exits.retain(|exit, _| allowed_exits.contains(exit));
        (self.settings.allowed, self.settings.allowed_exits) = (allowed, allowed_exits);
        self.settings.allowed_organisations = allowed_organisations;
        let listed = &self.settings.allowed_organisations;
        self.heads.retain(|key, update| listed.contains(&(*key, update.head.body().name.clone())));
        self.settings.parameters = for_network(&self.settings.network, parameters);
    }

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
        let what = "an exit's descriptor";
        match Signed::<ClientDescriptor>::decode(bytes) {
            // No document with it would be taken by anybody.
            Ok(signed) if !signed.body().attached.is_empty() => {
                self.refuse(what, "it carries bytes that are for nobody");
            }
            Ok(signed) => {
                if !self.keep_exit(signed) {
                    self.refuse(what, "the service is not on the list");
                }
            }
            Err(error) => self.refuse(what, error),
        }
    }

    /// True if the organisation is on the list, by this name. Of two heads the later holds.
    pub(super) fn keep_head(&mut self, update: HeadUpdate) -> bool {
        let head = update.head.body();
        let of = (head.identity, head.name.clone());
        let listed = self.settings.allowed_organisations.contains(&of);
        let age = |head: &DirectoryHead| (head.size, head.signed_at);
        let known = self.heads.get(&head.identity).map(|known| age(known.head.body()));
        // The same one again, with a proof from a later document, holds.
        if listed && known.is_none_or(|known| known <= age(head)) {
            self.heads.insert(head.identity, update);
        }
        listed
    }

    /// Takes a head that continues the one in the latest document, if that has one: nothing else can be voted for.
    pub(super) fn describe_organisation(&mut self, now: u64, bytes: &[u8]) {
        let what = "an organisation's head";
        let update = match HeadUpdate::decode(bytes) {
            Ok(update) => update,
            Err(error) => return self.refuse(what, error),
        };
        let head = update.head.body();
        if head.signed_at > now / 1_000 + self.clock_error_s(now) {
            return self
                .refuse(what, "it was signed in the future: look at the organisation's clock");
        }
        let key = head.identity;
        let document = self.documents.newest().map(|held| held.document.clone());
        let before = document.as_ref().and_then(|document| document.head(&key));
        if let Err(error) = update.continues(before) {
            return self.refuse(what, error);
        }
        // What cannot be voted for any more must not stand in the way of what can.
        if self.heads.get(&key).is_some_and(|known| known.continues(before).is_err()) {
            self.heads.remove(&key);
        }
        if !self.keep_head(update) {
            self.refuse(what, "the organisation is not on the list, or goes by another name there");
        }
    }

    /// The heads to vote for: what continues the document in use, else what that has.
    pub(super) fn heads(&self, in_use: Option<&Document>) -> Vec<HeadUpdate> {
        let best = |update: &HeadUpdate| {
            let key = update.head.body().identity;
            let before = in_use.and_then(|document| document.signed_head(&key));
            match before {
                Some(before) if update.continues(Some(before.body())).is_err() => {
                    HeadUpdate { head: before.clone(), proof: Vec::new() }
                }
                _ => update.clone(),
            }
        };
        self.heads.values().map(best).collect()
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
