//! The first connection that stands, to any of the addresses of a name (RFC 8305).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::super::connection::Connection;
use super::names::{Found, RESOLUTION_DELAY};
use super::{dial_code, rank};
use crate::socks::ReplyCode;

/// How many addresses of one name are dialled, the rest being ignored.
const DIALLED_ADDRESSES: usize = 8;
/// When one family has addresses, the answer for the other one is waited for no longer, should all of them fail.
const OTHER_FAMILY: Duration = Duration::from_secs(1);

/// What is known so far.
#[derive(Default)]
struct Targets {
    v6: VecDeque<SocketAddr>,
    v4: VecDeque<SocketAddr>,
    /// The family that was dialled last, so that they take turns.
    last_was_v6: bool,
    dialled: usize,
    /// An address was found that the policy refuses.
    refused: bool,
    /// Why a name has no addresses.
    lookup: Option<ReplyCode>,
    /// Why a connection does not stand.
    dial: Option<ReplyCode>,
}

impl Targets {
    fn take(&mut self, found: Found, allowed: &impl Fn(IpAddr) -> Option<SocketAddr>) {
        let addresses = match found {
            Ok((addresses, _)) => addresses,
            Err(code) => return note(&mut self.lookup, code),
        };
        for ip in addresses {
            match allowed(ip) {
                Some(target) if target.is_ipv6() => self.v6.push_back(target),
                Some(target) => self.v4.push_back(target),
                None => self.refused = true,
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.dialled >= DIALLED_ADDRESSES || (self.v6.is_empty() && self.v4.is_empty())
    }

    fn next(&mut self) -> Option<SocketAddr> {
        if self.is_empty() {
            return None;
        }
        self.last_was_v6 = !self.v6.is_empty() && (!self.last_was_v6 || self.v4.is_empty());
        self.dialled += 1;
        if self.last_was_v6 { self.v6.pop_front() } else { self.v4.pop_front() }
    }

    /// Of all that went wrong, what says most.
    fn outcome(&self) -> ReplyCode {
        let refused = self.refused.then_some(ReplyCode::NotAllowed);
        self.dial.or(refused).or(self.lookup).unwrap_or(ReplyCode::GeneralFailure)
    }
}

/// Of several failures the one that came farthest says most.
fn note(kept: &mut Option<ReplyCode>, code: ReplyCode) {
    if kept.is_none_or(|kept| rank(code) >= rank(kept)) {
        *kept = Some(code);
    }
}

/// Dials as soon as addresses are known, those of IPv6 first, the families taking turns. The next one is tried when one has
/// failed or `stagger` has passed. `allowed` says whether an address may be dialled, and as what.
pub(super) async fn race(
    (v4, v6): (impl Future<Output = Found>, impl Future<Output = Found>),
    allowed: impl Fn(IpAddr) -> Option<SocketAddr>,
    stagger: Duration,
) -> Result<Connection, ReplyCode> {
    let (mut v4, mut v6) = (std::pin::pin!(v4), std::pin::pin!(v6));
    let (mut v4_waits, mut v6_waits) = (true, true);
    let mut targets = Targets::default();
    let mut attempts = JoinSet::new();
    let mut next = Instant::now();
    let mut give_up: Option<Instant> = None;
    loop {
        if next <= Instant::now()
            && let Some(target) = targets.next()
        {
            attempts.spawn(Connection::to(target));
            next = Instant::now() + stagger;
        }
        if !v4_waits && !v6_waits && targets.is_empty() && attempts.is_empty() {
            return Err(targets.outcome());
        }
        let until = give_up.unwrap_or(next);
        tokio::select! {
            found = &mut v6, if v6_waits => {
                v6_waits = false;
                // Who has only waited for this waits no longer.
                next = if attempts.is_empty() { Instant::now() } else { next };
                targets.take(found, &allowed);
            }
            found = &mut v4, if v4_waits => {
                v4_waits = false;
                if v6_waits && found.is_ok() {
                    next = next.max(Instant::now() + RESOLUTION_DELAY);
                    give_up = Some(Instant::now() + OTHER_FAMILY);
                }
                targets.take(found, &allowed);
            }
            Some(end) = attempts.join_next(), if !attempts.is_empty() => match end {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => {
                    note(&mut targets.dial, dial_code(&error));
                    next = Instant::now();
                }
                Err(_) => next = Instant::now(),
            },
            () = sleep_until(next), if !targets.is_empty() => {}
            () = sleep_until(until), if v6_waits && give_up.is_some() => v6_waits = false,
        }
    }
}
