//! A person's access link: one TCP connection over a line that loses segments and jitters.
//!
//! A frame takes two segments. A lost one is sent again, and all frames behind it wait at the receiver (head of line),
//! to be read at once when it is there. When it is sent again follows what Linux does:
//!
//! - _Fast_ (RFC 5681, 3.2, in the form of RACK, RFC 8985, 6.2): a segment counts as lost once a later one is
//!   acknowledged and a quarter of the round trip has passed beyond its own. So it is sent again 1.25 round trips after it
//!   was first sent, or one round trip after the next segment was, whichever is later.
//! - _By the timer_ (RFC 6298, 2.3, with the floor of 200 ms under the variance that Linux has in place of 2.4's second):
//!   where nothing follows in time. It doubles with each expiry (5.5).
//!
//! The windows never close at the rates of a class, so nothing else waits. Jitter is uniform and keeps order, as a queue
//! does. What a retransmission does depends on the line alone, never on what frames carry.

use std::time::Duration;

use rand::RngExt;
use shoal_topology::{Stream, Time};

/// Segments of a frame: 2,400 bytes and a record's overhead, of at most 1,448 each.
const SEGMENTS: u32 = 2;
/// The floor under the variance in the retransmission timer.
const FLOOR: Duration = Duration::from_millis(200);
/// The longest that it is doubled to.
const LONGEST: Duration = Duration::from_secs(120);

/// One direction of an access link.
pub(super) struct Access {
    rng: Stream,
    loss: f64,
    jitter: Duration,
    latency: Duration,
    round_trip: Duration,
}

impl Access {
    /// `latency` is this direction's, `back` the other's; `loss` the chance that a segment is lost.
    pub(super) fn new(
        rng: Stream,
        loss: f64,
        jitter: Duration,
        (latency, back): (Duration, Duration),
    ) -> Self {
        // Half of the jitter each way on average.
        Self { rng, loss, jitter, latency, round_trip: latency + back + jitter }
    }

    /// When a frame that leaves now is complete at the other end, but for those before it. The next frame leaves at
    /// `next`.
    pub(super) fn arrives(&mut self, now: Time, next: Time) -> Time {
        let jitter = self.jitter.mul_f64(self.rng.random());
        let mut last = now;
        for segment in 1..=SEGMENTS {
            let mut sent = now;
            let mut timer = self.timer();
            // Behind the first segment of a frame comes its second.
            let mut later = if segment < SEGMENTS { now } else { next };
            while self.loss > 0.0 && self.rng.random::<f64>() < self.loss {
                let trip = self.round_trip;
                let fast = (sent + trip + trip / 4).max(later + trip);
                let expires = sent + timer;
                if expires <= fast {
                    timer = (2 * timer).min(LONGEST);
                }
                sent = fast.min(expires);
                later = following(now, next, sent);
            }
            last = last.max(sent);
        }
        last + self.latency + jitter
    }

    fn timer(&self) -> Duration {
        // Two uniform jitters differ from their mean by a third of one on average.
        self.round_trip + FLOOR.max(4 * self.jitter / 3)
    }
}

/// When the first frame behind `sent` leaves, if they go on as from `now` to `next`.
fn following(now: Time, next: Time, sent: Time) -> Time {
    if next == Time::NEVER || next <= now {
        return Time::NEVER;
    }
    let gap = next.since(now).as_nanos() as u64;
    let passed = sent.since(now).as_nanos() as u64;
    now + Duration::from_nanos((passed / gap + 1).saturating_mul(gap))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use shoal_topology::Seed;

    use super::*;

    const WAY: Duration = Duration::from_millis(20);
    const SLOT: Duration = Duration::from_millis(40);

    fn access(loss: f64, jitter_ms: u64) -> Access {
        let rng = Seed::from_u64(1).stream("access");
        Access::new(rng, loss, Duration::from_millis(jitter_ms), (WAY, WAY))
    }

    /// How much later than without losses each of so many frames arrives, a slot after the other.
    fn late(access: &mut Access, frames: u32) -> Vec<Duration> {
        let (mut late, mut last) = (Vec::new(), Time::ZERO);
        for n in 0..frames {
            let now = Time::ZERO + n * SLOT;
            last = last.max(access.arrives(now, now + SLOT));
            late.push(last.since(now + WAY));
        }
        late
    }

    #[test]
    fn a_sound_line_takes_its_latency_and_its_jitter() {
        assert!(late(&mut access(0.0, 0), 100).iter().all(|late| late.is_zero()));
        let jittered = late(&mut access(0.0, 10), 20_000);
        assert!(jittered.iter().all(|late| *late <= Duration::from_millis(10)));
        let mean = jittered.iter().sum::<Duration>().as_secs_f64() / 20_000.0;
        assert!((mean - 0.005).abs() < 1e-4, "{mean}");
    }

    #[test]
    fn a_lost_segment_is_sent_again_after_a_round_trip_and_what_follows_waits_for_it() {
        let late = late(&mut access(0.003, 0), 100_000);
        // A stall begins where one is late and the one before was not. The first segment of a frame is missed at once,
        // after 50 ms; the second a slot and a round trip later, after 80 ms.
        let stalls: Vec<(usize, Duration)> = (1..late.len())
            .filter(|n| late[n - 1].is_zero() && !late[*n].is_zero())
            .map(|n| (n, late[n]))
            .collect();
        let share = |ms: u64| {
            let of = stalls.iter().filter(|(_, late)| *late == Duration::from_millis(ms)).count();
            of as f64 / stalls.len() as f64
        };
        assert!((550..650).contains(&stalls.len()), "{}", stalls.len());
        assert!((share(50) - 0.5).abs() < 0.07 && (share(80) - 0.5).abs() < 0.07);
        // The next frame of a stall of 80 ms comes with it: head of line.
        for (n, _) in stalls.iter().filter(|(n, late)| late.as_millis() == 80 && n + 1 < 100_000) {
            assert!(late[n + 1] >= SLOT, "{n}");
        }
    }

    #[test]
    fn where_nothing_follows_the_timer_sends_again_and_doubles() {
        let mut access = access(0.2, 0);
        let arrivals: Vec<Duration> = (0..20_000)
            .map(|_| access.arrives(Time::ZERO, Time::NEVER).since(Time::ZERO + WAY))
            .collect();
        let count = |ms: u128| arrivals.iter().filter(|late| late.as_millis() == ms).count();
        // 240 ms, then 480 ms more.
        assert!(count(240) > 2_000, "{}", count(240));
        assert!((count(720) as f64 / count(240) as f64 - 0.2).abs() < 0.1, "{}", count(720));
        assert_eq!(count(480), 0);
    }

    #[test]
    fn twice_lost_is_stalled_twice() {
        let late = late(&mut access(0.1, 0), 20_000);
        let longest = late.iter().max().unwrap();
        assert!(*longest > Duration::from_millis(150), "{longest:?}");
    }
}
