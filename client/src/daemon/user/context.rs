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
use crate::engine::{Failure, GroupId, GroupStage, Isolation, MAX_GROUPS, Target, Unprotected};
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

/// Why a request is not answered.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::daemon) enum Refused {
    /// Nothing of the user's may leave now.
    Unprotected(Unprotected),
    /// All places for isolation groups are in use.
    NoGroup,
    /// The far end said so, or did not answer.
    Code(ReplyCode),
}

impl Refused {
    /// What a SOCKS program is told.
    pub(in crate::daemon) fn code(&self) -> ReplyCode {
        match self {
            // What may come by itself is a network that is not reached yet; the rest is a rule.
            Self::Unprotected(Unprotected::NoGateway | Unprotected::NoDocument) => {
                ReplyCode::NetworkUnreachable
            }
            Self::Unprotected(_) => ReplyCode::NotAllowed,
            Self::NoGroup => ReplyCode::GeneralFailure,
            Self::Code(code) => *code,
        }
    }
}

impl From<ReplyCode> for Refused {
    fn from(code: ReplyCode) -> Self {
        Self::Code(code)
    }
}

/// Why there is no stream for a request.
enum NoStream {
    /// The tunnel ended for a reason that says nothing about the request: another one is worth an attempt.
    Again(ReplyCode),
    /// It will not go better at once.
    Final(Refused),
}

impl ProxyContext {
    /// Nothing has been asked for, and there is no link.
    pub(super) fn new(user: User) -> Rc<Self> {
        let unlinked_since = Cell::new(Some(user.clock.now()));
        Rc::new(Self {
            hub: StreamDriver::new(user),
            changed: Notify::new(),
            tally: RefCell::default(),
            refused_for: Cell::default(),
            accept_failed: Cell::default(),
            said_full: Cell::default(),
            unlinked_since,
            virtual_addresses: RefCell::default(),
        })
    }

    /// Opens a stream in the group of this isolation and target, and asks `request` on it.
    ///
    /// # Errors
    /// Why not.
    pub(in crate::daemon) async fn ask(
        &self,
        isolation: Isolation,
        target: Target,
        request: &Request,
    ) -> Result<Answered, Refused> {
        let mut failed = ReplyCode::GeneralFailure;
        // A tunnel that closes before the request is under way says nothing about the request.
        for _ in 0..3 {
            let (id, stream) = match self.stream(isolation, target).await {
                Ok(opened) => opened,
                Err(NoStream::Again(code)) => {
                    failed = code;
                    continue;
                }
                Err(NoStream::Final(why)) => return Err(why),
            };
            let stream = self.hub.stream((id, stream));
            let abandoned = AbandonedRequest { context: self, id, answered: false.into() };
            if stream.write(&request.encode()).await.is_err() {
                continue;
            }
            let mut rest = Vec::new();
            let response = tokio::select! {
                response = stream.message(&mut rest, Response::decode) => response,
                () = self.better_elsewhere(id) => continue,
            };
            abandoned.answered.set(true);
            return match response {
                Ok(Response::Failed(code)) => Err(code.into()),
                Ok(response) => Ok((stream, response, rest)),
                Err(_) if self.hub.engine.borrow().client.stage(id).is_none() => {
                    // The service has forgotten the tunnel, to make room for others, say.
                    failed = code_of(self.hub.engine.borrow().failure(id), target);
                    continue;
                }
                Err(_) => Err(ReplyCode::GeneralFailure.into()),
            };
        }
        Err(failed.into())
    }

    /// Returns when the service of this group has been silent for seconds and another could answer: it is avoided from
    /// then on.
    async fn better_elsewhere(&self, id: GroupId) {
        loop {
            tokio::time::sleep(ELSEWHERE).await;
            let mut user = self.hub.engine.borrow_mut();
            let now = user.clock.now();
            if user.client.may_go_elsewhere(now, id) {
                user.client.avoid(now, id);
                return;
            }
        }
    }

    /// A request is refused, since nothing may leave. A SOCKS reply has no room for the reason: the log has it, once.
    fn refuse(&self, why: Unprotected) -> NoStream {
        let kind = std::mem::discriminant(&why);
        if self.refused_for.replace(Some(kind)) != Some(kind) {
            warn!("requests are refused: {why}");
        }
        NoStream::Final(Refused::Unprotected(why))
    }

    /// A stream of a group that is connected.
    async fn stream(
        &self,
        isolation: Isolation,
        target: Target,
    ) -> Result<(GroupId, StreamId), NoStream> {
        let mut id = {
            let mut user = self.hub.engine.borrow_mut();
            let now = user.clock.now();
            match user.client.protection(now) {
                Ok(()) => self.refused_for.set(None),
                Err(why @ (Unprotected::NoGateway | Unprotected::NoDocument)) => {
                    // What may come by itself is waited for, until the request's own time is up.
                    let since = self.unlinked_since.get();
                    if since.is_some_and(|since| now.since(since) > LINK_WAIT) {
                        return Err(self.refuse(why));
                    }
                }
                Err(why) => return Err(self.refuse(why)),
            }
            let id = user.client.group(now, isolation, target);
            if id.is_none() && !self.said_full.replace(true) {
                warn!(
                    "a request is refused: all {MAX_GROUPS} places for user names and services that are kept apart are in use"
                );
            }
            id.ok_or(NoStream::Final(Refused::NoGroup))?
        };
        self.hub.wake_engine.notify_one();
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut user = self.hub.engine.borrow_mut();
                let now = user.clock.now();
                match user.client.stage(id) {
                    Some(GroupStage::Connected) => {
                        if let Some(stream) = user.client.open(now, id) {
                            return Ok((id, stream));
                        }
                        // Full, by those who waited with this one.
                        if let Some(other) = user.client.group(now, isolation, target)
                            && other != id
                        {
                            id = other;
                            self.hub.wake_engine.notify_one();
                            // It may be connected already, and nothing would say so again.
                            continue;
                        }
                    }
                    Some(_) => {}
                    None => return Err(no_stream(user.failure(id), target)),
                }
            }
            changed.await;
        }
    }
}

/// Tells the engine when a request is given up without an answer.
struct AbandonedRequest<'a> {
    context: &'a ProxyContext,
    id: GroupId,
    answered: std::cell::Cell<bool>,
}

impl Drop for AbandonedRequest<'_> {
    fn drop(&mut self) {
        if !self.answered.get() {
            let mut user = self.context.hub.engine.borrow_mut();
            let now = user.clock.now();
            user.client.complain(now, self.id);
            drop(user);
            self.context.hub.wake_engine.notify_one();
        }
    }
}

/// What a program is told of a group that ended.
fn code_of(why: Failure, target: Target) -> ReplyCode {
    match (why, target) {
        (Failure::UnknownGateway | Failure::UnknownService, _) => ReplyCode::ServiceNotFound,
        (Failure::NoAnswer, Target::Service(_)) => ReplyCode::ServiceTimedOut,
        (Failure::NoAnswer, Target::Exit) => ReplyCode::TtlExpired,
        (Failure::NoPath, _) => ReplyCode::NetworkUnreachable,
        (Failure::Silent | Failure::Closed | Failure::Idle | Failure::Garbage, _) => {
            ReplyCode::GeneralFailure
        }
    }
}

fn no_stream(why: Failure, target: Target) -> NoStream {
    match code_of(why, target) {
        code @ ReplyCode::GeneralFailure => NoStream::Again(code),
        code => NoStream::Final(code.into()),
    }
}
