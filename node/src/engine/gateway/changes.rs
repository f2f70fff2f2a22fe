//! What an operator changes while the gateway runs: tokens, places, rates.

use super::super::Core;
use super::{Admission, Gateway, GatewaySettings, ServiceAccess, SessionId, SessionStage, Token};
use crate::limit::Limit;

impl Gateway {
    /// Goes by these settings from now on; the key of the inboxes stays. Whom a token let in that is not on the list any
    /// more, or may be no service any more, is sent away. Others stay, where there are fewer places than clients too.
    pub(super) fn configure(&mut self, core: &mut Core, settings: GatewaySettings) {
        let inbox_key = self.settings.inbox_key;
        let tokens = merge(self.settings.admission.tokens(), settings.admission.tokens());
        let admission = match settings.admission {
            Admission::Open(_) => Admission::Open(tokens),
            Admission::Tokens(_) => Admission::Tokens(tokens),
        };
        self.connections.resize(admission.tokens().len(), 0);
        self.inboxes.bound(settings.max_inboxes, settings.max_inbox_packets);
        if settings.queries_per_s != self.settings.queries_per_s {
            self.queries = Limit::new(settings.queries_per_s, settings.queries_per_s);
        }
        self.settings = GatewaySettings { admission, inbox_key, ..settings };
        let gone: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| match &session.stage {
                SessionStage::Active(active) => !self.may_stay(active.token, active.is_service()),
                SessionStage::Challenged(_) => false,
            })
            .map(|(session, _)| *session)
            .collect();
        gone.into_iter().for_each(|session| self.close(core, session));
    }

    fn may_stay(&self, token: Option<usize>, is_service: bool) -> bool {
        let Some(token) = token else { return true };
        let token = self.settings.admission.tokens().get(token);
        token.is_some_and(|token| {
            token.is_valid() && (!is_service || token.service == ServiceAccess::Allowed)
        })
    }
}

/// The tokens that were read, where clients and inboxes that are here know them by their indices: those that stay keep
/// theirs, and those that went leave theirs empty.
fn merge(before: &[Token], read: &[Token]) -> Vec<Token> {
    let none = Token { secret: Vec::new(), connections: 0, service: ServiceAccess::Refused };
    let found = |token: &Token| read.iter().find(|other| other.secret == token.secret).cloned();
    let kept = before.iter().map(|token| found(token).unwrap_or_else(|| none.clone()));
    let new = read.iter().filter(|token| before.iter().all(|old| old.secret != token.secret));
    kept.chain(new.cloned()).collect()
}
