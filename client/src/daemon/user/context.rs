//! What the tasks of the proxy share: requests become streams of tunnels here.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use shoal_topology::Time;
use tokio::sync::Notify;
use tracing::warn;

use super::{LINK_WAIT, User};
use crate::daemon::hub::{Stream, StreamDriver};
use crate::daemon::virtual_addresses::VirtualAddresses;
use crate::engine::{Failure, GroupId, Isolation, MAX_GROUPS, Stage, Target, Unprotected};
use crate::request::{Request, Response};
use crate::socks::ReplyCode;
use crate::tunnel::StreamId;

/// How often a request that waits looks whether it is better asked of another service.
const ELSEWHERE: Duration = Duration::from_millis(250);

/// What the proxy's tasks hold.
pub(in crate::daemon) struct ProxyContext {
    pub(in crate::daemon) hub: Rc<StreamDriver<User>>,
    /// A group connected, failed, or has room for a stream.
    pub(in crate::daemon) changed: Notify,
    /// Requests by how they ended.
    pub(in crate::daemon) tally: RefCell<Tally>,
    /// Why requests were refused last, to say it once.
    pub(super) refused_for: Cell<Option<std::mem::Discriminant<Unprotected>>>,
    /// Connections of programs that the system could not give us.
    pub(in crate::daemon) accept_failed: Cell<u64>,
    /// The log has it that there are no more places for isolation groups.
    pub(super) said_full: Cell<bool>,
    /// Since when no gateway has let us in.
    pub(super) unlinked_since: Cell<Option<Time>>,
    /// Addresses that stand for services.
    pub(in crate::daemon) virtual_addresses: RefCell<VirtualAddresses>,
}

/// How requests ended. No targets, no times.
#[derive(Clone, Copy, Default)]
pub(in crate::daemon) struct Tally {
    pub(in crate::daemon) open: u64,
    pub(in crate::daemon) answered: u64,
    pub(in crate::daemon) refused: u64,
    pub(in crate::daemon) malformed: u64,
    pub(in crate::daemon) turned_away: u64,
}

/// A stream on which a request was answered, and what came after the answer.
pub(in crate::daemon) type Answered = (Stream<User>, Response, Vec<u8>);

impl ProxyContext {
    /// Opens a stream in the group of this isolation and target, and asks `request` on it.
    ///
    /// # Errors
    /// The reply for the user's program.
    pub(in crate::daemon) async fn ask(
        &self,
        isolation: Isolation,
        target: Target,
        request: &Request,
    ) -> Result<Answered, ReplyCode> {
        let mut failed = ReplyCode::GeneralFailure;
        // A tunnel that closes before the request is under way says nothing about the request.
        for _ in 0..3 {
            let (id, stream) = match self.stream(isolation, target).await {
                Ok(opened) => opened,
                Err((code, again)) if again => {
                    failed = code;
                    continue;
                }
                Err((code, _)) => return Err(code),
            };
            let stream = self.hub.stream((id, stream));
            let complaint = Complaint { context: self, id, answered: false.into() };
            if stream.write(&request.encode()).await.is_err() {
                continue;
            }
            let mut rest = Vec::new();
            let response = tokio::select! {
                response = stream.message(&mut rest, Response::decode) => response,
                () = self.better_elsewhere(id) => continue,
            };
            complaint.answered.set(true);
            return match response {
                Ok(Response::Failed(code)) => Err(code),
                Ok(response) => Ok((stream, response, rest)),
                Err(_) if self.hub.engine.borrow().client.stage(id).is_none() => {
                    // The service has forgotten the tunnel, to make room for others, say.
                    (failed, _) = reply(self.hub.engine.borrow().failure(id), target);
                    continue;
                }
                Err(_) => Err(ReplyCode::GeneralFailure),
            };
        }
        Err(failed)
    }

    /// Returns when the service of this group has been silent for seconds and another could answer: it is avoided from
    /// then on.
    async fn better_elsewhere(&self, id: GroupId) {
        loop {
            tokio::time::sleep(ELSEWHERE).await;
            let mut person = self.hub.engine.borrow_mut();
            let now = person.clock.now();
            if person.client.may_go_elsewhere(now, id) {
                person.client.avoid(now, id);
                return;
            }
        }
    }

    /// A request is refused, since nothing may leave. The reply has no room for the reason: the log has it, once.
    fn refuse(&self, why: &Unprotected) {
        let kind = std::mem::discriminant(why);
        if self.refused_for.replace(Some(kind)) != Some(kind) {
            warn!("requests are refused: {why}");
        }
    }

    /// A stream of a group that stands; the boolean of an error says whether to try again.
    async fn stream(
        &self,
        isolation: Isolation,
        target: Target,
    ) -> Result<(GroupId, StreamId), (ReplyCode, bool)> {
        let mut id = {
            let mut person = self.hub.engine.borrow_mut();
            let now = person.clock.now();
            match person.client.protection(now) {
                Ok(()) => self.refused_for.set(None),
                Err(why @ (Unprotected::NoGateway | Unprotected::NoDocument)) => {
                    // What may come by itself is waited for, until the request's own time is up.
                    let since = self.unlinked_since.get();
                    if since.is_some_and(|since| now.since(since) > LINK_WAIT) {
                        self.refuse(&why);
                        return Err((ReplyCode::NetworkUnreachable, false));
                    }
                }
                Err(why) => {
                    self.refuse(&why);
                    return Err((ReplyCode::NotAllowed, false));
                }
            }
            let id = person.client.group(now, isolation, target);
            if id.is_none() && !self.said_full.replace(true) {
                warn!(
                    "a request is refused: all {MAX_GROUPS} places for user names and services that are kept apart are in use"
                );
            }
            id.ok_or((ReplyCode::GeneralFailure, false))?
        };
        self.hub.wake_engine.notify_one();
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut person = self.hub.engine.borrow_mut();
                let now = person.clock.now();
                match person.client.stage(id) {
                    Some(Stage::Connected) => {
                        if let Some(stream) = person.client.open(now, id) {
                            return Ok((id, stream));
                        }
                        // Full, by those who waited with this one.
                        if let Some(other) = person.client.group(now, isolation, target)
                            && other != id
                        {
                            id = other;
                            self.hub.wake_engine.notify_one();
                            // It may be connected already, and nothing would say so again.
                            continue;
                        }
                    }
                    Some(_) => {}
                    None => return Err(reply(person.failure(id), target)),
                }
            }
            changed.await;
        }
    }
}

/// Tells the engine when a request is given up without an answer.
struct Complaint<'a> {
    context: &'a ProxyContext,
    id: GroupId,
    answered: std::cell::Cell<bool>,
}

impl Drop for Complaint<'_> {
    fn drop(&mut self) {
        if !self.answered.get() {
            let mut person = self.context.hub.engine.borrow_mut();
            let now = person.clock.now();
            person.client.complain(now, self.id);
            drop(person);
            self.context.hub.wake_engine.notify_one();
        }
    }
}

fn reply(why: Failure, target: Target) -> (ReplyCode, bool) {
    match (why, target) {
        (Failure::UnknownGateway | Failure::UnknownService, _) => {
            (ReplyCode::ServiceNotFound, false)
        }
        (Failure::NoAnswer, Target::Service(_)) => (ReplyCode::ServiceTimedOut, false),
        (Failure::NoAnswer, Target::Exit) => (ReplyCode::TtlExpired, false),
        (Failure::NoPath, _) => (ReplyCode::NetworkUnreachable, false),
        (Failure::Silent | Failure::Closed | Failure::Idle | Failure::Garbage, _) => {
            (ReplyCode::GeneralFailure, true)
        }
    }
}
