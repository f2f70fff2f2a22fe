//! Asks the peer for a sign of life when acknowledgements stay away.
//!
//! QUIC's own probes double their distance without a useful limit: after an outage of 30 s a download resumed
//! 10 s late. The watchdog asks at a steady pace instead, so that it resumes within a second, and slows down
//! when the peer has been silent for long, since each question takes a slot or a SURB.
//!
//! Its measure is the shortest round trip seen, not the smoothed one: an acknowledgement that an outage held up
//! counts as a round trip as long as the outage, which also keeps quinn from giving up what was lost in it. And
//! a sender with a full window does not even acknowledge: so whoever hears from the peer again asks at once.

use std::time::Duration;

use shoal_topology::Time;

/// Silence after which the watchdog asks seldom.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it asks from then on.
const SELDOM: Duration = Duration::from_secs(5);

/// Periods are never longer than this, whatever round trip was measured.
const LONGEST: Duration = Duration::from_secs(10);

/// Runs while something is in flight.
#[derive(Debug)]
pub(super) struct Watchdog {
    period: Duration,
    /// When the peer was heard last, or the first datagram after a pause left.
    since: Time,
    /// When it asked last, if nothing was acknowledged since.
    asked: Option<Time>,
    due: Option<Time>,
}

impl Watchdog {
    pub(super) fn new(period: Duration) -> Self {
        Self { period, since: Time::ZERO, asked: None, due: None }
    }

    /// When [`Self::bark`] wants to be called.
    pub(super) fn due(&self) -> Option<Time> {
        self.due
    }

    /// Something left that the peer must acknowledge.
    pub(super) fn on_sent(&mut self, now: Time, rtt: Duration) {
        if self.due.is_none() {
            self.start(now, rtt);
        }
    }

    /// The peer acknowledged something, and more is in flight.
    pub(super) fn on_progress(&mut self, now: Time, rtt: Duration) {
        self.start(now, rtt);
    }

    /// Something came from the peer, whatever it was.
    pub(super) fn on_heard(&mut self, now: Time, rtt: Duration) {
        // Earlier, never later: a peer that sends data but acknowledges nothing must not put the question off for
        // ever.
        if let (Some(due), Some(asked)) = (self.due, self.asked) {
            self.since = now;
            self.due = Some(due.min(now.max(asked + self.pause(rtt))));
        }
    }

    /// Nothing is in flight any more, or the connection has ended.
    pub(super) fn stop(&mut self) {
        self.due = None;
        self.asked = None;
    }

    /// True if it is time to ask.
    pub(super) fn bark(&mut self, now: Time, rtt: Duration) -> bool {
        let Some(due) = self.due.filter(|due| *due <= now) else { return false };
        let patient = now.since(self.since) < PATIENCE;
        // Each question costs the peer a SURB or a slot, and a peer that is gone for long comes back no sooner for
        // being asked.
        let pause = if patient { self.pause(rtt) } else { SELDOM.max(self.pause(rtt)) };
        self.asked = Some(now);
        self.due = Some(now.max(due) + pause);
        true
    }

    fn start(&mut self, now: Time, rtt: Duration) {
        self.since = now;
        self.asked = None;
        self.due = Some(now + self.pause(rtt));
    }

    fn pause(&self, rtt: Duration) -> Duration {
        // Four of the shortest round trips: delays are drawn, so an acknowledgement may well take several of them.
        self.period.max(rtt.saturating_mul(4)).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    #[test]
    fn a_silent_peer_is_asked_twice_a_second_then_seldom() {
        let mut dog = Watchdog::new(Duration::from_millis(500));
        dog.on_sent(Time::ZERO, RTT);
        let mut barks = Vec::new();
        while let Some(due) = dog.due().filter(|due| *due < Time::from_secs(120)) {
            assert!(!dog.bark(due - Duration::from_nanos(1), RTT));
            assert!(dog.bark(due, RTT));
            barks.push(due);
        }
        assert_eq!(barks.iter().filter(|b| **b <= Time::from_secs(30)).count(), 60);
        assert_eq!(barks.iter().filter(|b| **b > Time::from_secs(30)).count(), 17);
    }

    #[test]
    fn a_long_round_trip_slows_it() {
        let mut dog = Watchdog::new(Duration::from_millis(500));
        dog.on_sent(Time::ZERO, Duration::from_secs(2));
        assert_eq!(dog.due(), Some(Time::from_secs(8)));
    }

    #[test]
    fn a_peer_that_speaks_again_is_asked_again() {
        let mut dog = Watchdog::new(Duration::from_millis(500));
        dog.on_sent(Time::ZERO, RTT);
        while let Some(due) = dog.due().filter(|due| *due <= Time::from_secs(36)) {
            dog.bark(due, RTT);
        }
        assert_eq!(dog.due(), Some(Time::from_secs(40)));
        dog.on_heard(Time::from_secs(37), RTT);
        assert_eq!(dog.due(), Some(Time::from_secs(37)));
        assert!(dog.bark(Time::from_secs(37), RTT));
        dog.on_heard(Time::from_secs(37), RTT);
        assert_eq!(dog.due(), Some(Time::from_millis(37_500)));
    }
}
