//! The keys of a user: those of each period, and when the gateway is told of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shoal_host::exit::chain;
use shoal_topology::Time;
use shoal_topology::wire::client_gateway::{ControlMessage as _, Renew};
use tracing::warn;

use super::{Driver, MESSAGES};
use crate::daemon::clock::unix_s;
use crate::daemon::mail::Order;
use crate::key_life::{DRAINED, RENEWED_AFTER};

/// When a gateway is told of the key of a period: soon after it began, at an instant that does not depend on when the engine
/// looks at its keys.
fn renewed_at(now: Time, begins: u64) -> Time {
    let at = UNIX_EPOCH + Duration::from_secs(begins) + RENEWED_AFTER;
    now + at.duration_since(SystemTime::now()).unwrap_or(RENEWED_AFTER)
}

impl Driver {
    /// Another period: another key opens what comes.
    pub(super) fn turn_keys(&mut self) {
        let user = &mut *self.context.hub.engine.borrow_mut();
        let (client, now, unix_s) = (&mut user.client, user.clock.now(), unix_s());
        let early = client.memory_fullness() > 0.75;
        let Ok(mut keys) = self.keys.lock() else { return };
        let periods = &mut keys.periods;
        let is_drained = self.linked.is_some() && now.since(self.quiet_since) > DRAINED;
        if self.descriptor.is_some()
            && is_drained
            && let Err(error) = periods.drained(unix_s)
        {
            warn!("old keys cannot be erased: {}", chain(&error));
        }
        if let Some(all) = periods.rotate_now(unix_s, early, |_| false) {
            client.set_keys(all, |key| periods.memory(key, MESSAGES));
            self.tell(Order::Keys(periods.sessions(unix_s)));
        }
        let begins = periods.present(unix_s).map(|(begins, ..)| begins);
        drop(keys);
        let is_member = self.member.is_one();
        if let (Some(begins), Some(descriptor), true) =
            (begins, &self.descriptor, self.linked.is_some())
            && self.told != Some((begins, is_member))
            && let Ok(message) = (Renew { descriptor: descriptor() }).pack()
        {
            // Who was let in just now is to be found at once.
            let is_period = self.told.is_none_or(|(told, _)| told != begins);
            let at = if is_period { renewed_at(now, begins) } else { now };
            self.told = Some((begins, is_member));
            client.send_control(at, message);
            if let Ok(mut keys) = self.keys.lock() {
                keys.periods.told(unix_s);
            }
        }
    }
}
