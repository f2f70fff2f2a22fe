//! Who is let in: what is asked of a client, in which order, and what it then takes of the gateway's places.

use std::sync::Arc;

use shoal_sphinx::Frame;
use shoal_topology::wire::client_gateway::{Hello, Mode, Notice, Refusal};
use shoal_topology::{Epoch, Identity, Time};

use super::super::{Core, Origin, Output, SessionId};
use super::descriptors::check_descriptor;
use super::inboxes::Holder;
use super::session::{self, Active};
use super::{Admission, Gateway, InboxId, ServiceAccess, Session, SessionStage, Token, notice};
use crate::limit::Limit;

/// Newcomers from one network that are given documents in a second; at once as many as may be here.
const GIVEN_PER_S: f64 = 4.0;
/// Networks of which it is remembered; when there are more, those that asked long ago are forgotten.
const MAX_NETWORKS: usize = 4_096;

impl Gateway {
    /// Lets a client in that has answered its challenge, or says why not. No session changes before all is checked.
    pub(super) fn admit(
        &mut self,
        core: &mut Core,
        now: Time,
        session: SessionId,
        (peer, origin): (Identity, Origin),
        nonce: &[u8; 32],
        hello: Hello,
    ) -> Result<(), Refusal> {
        // The proof first: without it anybody could use up the limits of somebody else's inbox.
        if !hello.is_proven(&core.identity, &peer, nonce) {
            return Err(Refusal::Proof);
        }
        let inbox = self.inbox_id(&hello.inbox);
        if !self.inboxes.may_connect(&inbox, now) {
            return Err(Refusal::TooOften);
        }
        let topology = core.usable().ok_or(Refusal::NotReady)?;
        let older = self.by_inbox.get(&hello.inbox).copied();
        let token = self.token(&hello, older)?;
        let class = match &hello.mode {
            Mode::Service => None,
            Mode::Class(name) => {
                Some(topology.document.parameters.class(name).ok_or(Refusal::Class)?)
            }
        };
        // A client without a document cannot build a packet, and the gateway could not read what its frames name.
        if self.announced.is_empty() {
            return Err(Refusal::NotReady);
        }
        let pace = session::Pace::new(now, class, self.settings.service_per_s);
        let up = session::up_limit(class, self.settings.service_per_s);
        let descriptor = hello
            .descriptor
            .as_deref()
            .map(|bytes| check_descriptor(bytes, &hello.inbox, &core.identity))
            .transpose()?;
        let holder = token.map_or(Holder::Network(origin), Holder::Token);
        if self.is_full(holder, older) {
            return Err(Refusal::Full);
        }
        let lacks = self.lacking(topology.epoch, &hello.documents);
        if !lacks.is_empty() && !self.may_have_document(inbox, holder, now) {
            return Err(Refusal::Full);
        }
        self.remember(core, inbox, holder)?;

        // Nothing can fail any more. What waits on an older connection of the same client moves to this one.
        let mut active = Active::new(hello.inbox, inbox, (token, hello.away), up, pace);
        if let Some(older) = older {
            if let Some(old) = self.active(older) {
                active.inherit(core, old);
            }
            self.close(core, older);
        }
        // Who is replaced has left the books with its inbox.
        let _ = self.inboxes.open(inbox, holder);
        match token {
            Some(token) => _ = self.connections.get_mut(token).map(|used| *used += 1),
            None => *self.networks.entry(origin).or_default() += 1,
        }
        if let Some(descriptor) = descriptor {
            self.keep_descriptor(core, inbox, descriptor);
        }
        self.by_inbox.insert(hello.inbox, session);
        core.counters.clients_admitted += 1;
        notice(core, session, &Notice::Welcome);
        core.outputs.push_back(Output::LetIn(session));
        for frame in lacks.iter().flat_map(|parts| parts.iter()) {
            core.outputs.push_back(Output::ToClient { session, frame: frame.clone() });
        }
        active.begin(core, session, now);
        if let Some(state) = self.sessions.get_mut(&session) {
            state.stage = SessionStage::Active(Box::new(active));
        }
        self.fetch_more(core, session);
        Ok(())
    }

    /// True if there is no place for one more client of this holder; `older` is the connection that it would replace.
    fn is_full(&self, holder: Holder, older: Option<SessionId>) -> bool {
        let Holder::Network(origin) = holder else {
            return older.is_none() && self.by_inbox.len() >= self.settings.max_clients;
        };
        let from_there = self.networks.get(&origin).copied().unwrap_or_default();
        // Who comes back over the same network takes his own place, also where the network is full.
        let replaces = older.and_then(|older| self.sessions.get(&older)).and_then(Session::holder);
        older.is_none() && self.by_inbox.len() + self.kept_free() >= self.settings.max_clients
            || replaces != Some(holder) && from_there >= self.settings.max_clients_of_one
    }

    /// Connections that only bearers of tokens may have.
    fn kept_free(&self) -> usize {
        let connections = self.settings.admission.tokens().iter().map(|token| token.connections);
        let wanted = connections.fold(0, usize::saturating_add).min(self.settings.token_clients);
        wanted.saturating_sub(self.connections.iter().sum())
    }

    /// True if a client that lacks a document may be given it: a small word asks for a large answer.
    fn may_have_document(&mut self, inbox: InboxId, holder: Holder, now: Time) -> bool {
        // A token has a limit of its own.
        let Holder::Network(origin) = holder else {
            return self.inboxes.may_have_document(&inbox, now);
        };
        // Only those whose limit is untouched again are forgotten: to be forgotten must not give a network more.
        if self.given.len() > MAX_NETWORKS {
            self.given.retain(|_, limit| !limit.is_idle(now));
        }
        let fresh = || Limit::new(GIVEN_PER_S, self.settings.max_clients_of_one as f64);
        self.given.entry(origin).or_insert_with(fresh).pass(now)
            && self.inboxes.may_have_document(&inbox, now)
    }

    /// Of what others have got, what a client lacks: the document in use, and the next one if its time has come.
    fn lacking(&self, epoch: Epoch, has: &[[u8; 8]]) -> Vec<Arc<[Frame]>> {
        let in_use = self.announced.iter().rposition(|sent| sent.document.epoch <= epoch);
        let given = self.announced.iter().skip(in_use.unwrap_or_default());
        given.filter(|sent| !has.contains(&sent.tag)).map(|sent| sent.parts.clone()).collect()
    }

    /// Which listed token lets this client in; none is needed by people on an open gateway. A connection that will be
    /// closed for it does not count.
    fn token(&self, hello: &Hello, older: Option<SessionId>) -> Result<Option<usize>, Refusal> {
        let tokens = self.settings.admission.tokens();
        // In a time that does not depend on where they differ.
        let shown = blake3::hash(&hello.token);
        let fits = |token: &Token| blake3::hash(&token.secret) == shown && token.is_valid();
        let Some(index) = tokens.iter().position(fits) else {
            let open = matches!(self.settings.admission, Admission::Open(_));
            let person = hello.mode != Mode::Service;
            return match hello.token.is_empty() {
                _ if open && person => Ok(None),
                true => Err(Refusal::NoToken),
                false => Err(Refusal::Token),
            };
        };
        let token = tokens.get(index).ok_or(Refusal::Token)?;
        if hello.mode == Mode::Service && token.service == ServiceAccess::Refused {
            return Err(Refusal::NoService);
        }
        let replaces = older.is_some_and(|older| match self.sessions.get(&older) {
            Some(Session { stage: SessionStage::Active(old), .. }) => old.token == Some(index),
            _ => false,
        });
        let used = self.connections.get(index).copied().unwrap_or_default();
        if used >= token.connections.saturating_add(usize::from(replaces)) {
            return Err(Refusal::Connections);
        }
        Ok(Some(index))
    }

    /// Makes room for an inbox that was not known.
    fn remember(&mut self, core: &mut Core, inbox: InboxId, holder: Holder) -> Result<(), Refusal> {
        let Some(gone) = self.inboxes.open(inbox, holder).map_err(|()| Refusal::Full)? else {
            return Ok(());
        };
        self.forget_descriptor(&gone);
        core.outputs.push_back(Output::Forget(gone));
        Ok(())
    }
}
