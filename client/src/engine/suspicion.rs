//! Packets that nobody asked for: whether they speak against the gateway.
//!
//! An honest network makes next to none. But what anybody else can make a client see must not move it to another
//! gateway: the move shows on the client's link, and whoever sends to a pseudonym, or to a name, and sees a client
//! move, has found it. So it depends on who else could have sent it:
//!
//! - A packet that has come before: nobody but the gateway, which checks replays, could bring it twice.
//! - One that does not open, that has an identifier which this client never made, or a letter that no session
//!   authenticates: who knows the inbox, or the key. That is the gateway alone, unless the client has published a
//!   descriptor; then it is anybody, and the client says so to its user and stays.
//! - A reply that no tunnel authenticates: who has the SURB. That service is left, and the gateway is not.
//! - A reply or a loop that comes late, because its tunnel is gone or another run made it: everybody, and nobody.

use std::time::Duration;

use shoal_topology::{Class, Time};

use super::gateways::{Blame, Evidence};

/// So many are too many.
const LIMIT: f64 = 32.0;
/// This share of what goes down is forgiven.
const FORGIVEN: f64 = 0.02;
/// What waited in the inbox may be of an earlier run, or for a key that is gone.
const GRACE: Duration = Duration::from_secs(30);

/// Why nobody asked for a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unasked {
    /// The very packet has come before.
    Again,
    /// It does not open, bears an identifier that this client never made, or is a letter that no session authenticates.
    Strange,
}

/// A number that falls by itself.
#[derive(Clone, Copy, Default)]
struct Level {
    of: f64,
    at: Time,
}

impl Level {
    fn add(&mut self, now: Time, class: &Class) {
        let forgiven = FORGIVEN * class.down_per_s * now.since(self.at).as_secs_f64();
        // Forgiven first, then counted: what came long ago weighs nothing when the next one comes.
        *self = Self { of: (self.of - forgiven).max(0.0) + 1.0, at: now };
    }
}

/// What came over one link that nobody asked for.
#[derive(Default)]
pub(super) struct Suspicion {
    /// When the link began.
    since: Time,
    /// True if others can send to this client: it has published its descriptor.
    reachable: bool,
    gateway: Level,
    strangers: Level,
    seen: u64,
}

impl Suspicion {
    pub(super) fn new(reachable: bool) -> Self {
        Self { reachable, ..Self::default() }
    }

    /// Another link begins: what came over the last one counts no more.
    pub(super) fn link(&mut self, now: Time) {
        // What one gateway did says nothing of the next.
        *self = Self { since: now, ..Self::new(self.reachable) };
    }

    pub(super) fn add(&mut self, now: Time, class: &Class, what: Unasked) {
        if now.since(self.since) < GRACE {
            return;
        }
        // Anybody may have sent it, so it must not be able to move the client.
        if what == Unasked::Strange && self.reachable {
            self.strangers.add(now, class);
        } else {
            self.gateway.add(now, class);
            self.seen += 1;
        }
    }

    /// A session authenticates a letter after all.
    pub(super) fn take_back(&mut self) {
        let level = if self.reachable { &mut self.strangers } else { &mut self.gateway };
        level.of = (level.of - 1.0).max(0.0);
        self.seen = self.seen.saturating_sub(u64::from(!self.reachable));
    }

    /// Says whether the gateway makes packets up.
    pub(super) fn evidence(&self) -> Option<Evidence> {
        let (bad, of) = (self.seen, self.seen);
        (self.gateway.of > LIMIT).then_some(Evidence { blame: Blame::Garbage, bad, of })
    }

    /// True if so many come that the user should know, from whomever.
    pub(super) fn is_pestered(&self) -> bool {
        self.strangers.of > LIMIT
    }
}

#[cfg(test)]
mod tests {
    use shoal_topology::Parameters;

    use super::*;

    fn suspicion(reachable: bool, what: Unasked, every_ms: u64, from_ms: u64) -> Suspicion {
        let web = Parameters::default().class("web").unwrap().clone();
        let mut suspicion = Suspicion::new(reachable);
        suspicion.link(Time::ZERO);
        for at in (from_ms..from_ms + 60_000).step_by(every_ms as usize) {
            suspicion.add(Time::from_millis(at), &web, what);
        }
        suspicion
    }

    #[test]
    fn strangers_move_nobody_who_can_be_reached_and_the_user_is_told() {
        let by_strangers = suspicion(true, Unasked::Strange, 20, 30_000);
        assert_eq!((by_strangers.evidence(), by_strangers.is_pestered()), (None, true));
        assert!(suspicion(true, Unasked::Again, 20, 30_000).evidence().is_some());
        assert!(suspicion(false, Unasked::Strange, 20, 30_000).evidence().is_some());
    }

    #[test]
    fn two_a_second_are_forgiven_and_so_is_what_waited_in_the_inbox() {
        assert_eq!(suspicion(false, Unasked::Strange, 500, 30_000).evidence(), None);
        let mut waited = suspicion(false, Unasked::Strange, 20, 0);
        assert!(waited.evidence().is_some(), "a minute of it is too much");
        waited.link(Time::from_secs(60));
        assert_eq!(waited.evidence(), None, "another link");
        let web = Parameters::default().class("web").unwrap().clone();
        (0..1_000).for_each(|_| waited.add(Time::from_secs(89), &web, Unasked::Strange));
        assert_eq!(waited.evidence(), None);
    }
}
