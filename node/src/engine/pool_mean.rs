//! The mean size of the delay pool, for the gauge of clients: over time, with noise, coarse.
//!
//! The noise is Laplace's with a scale of one packet. A packet that waits for d seconds of the T between two reports moves
//! the mean by d/T, and so each possible answer's probability by a factor of e^(d/T) at most: 15 ms in five minutes do not
//! show, nor does all that one client of the class `web` has in a mix at a time (less than one packet). What a client sends
//! for days adds up over reports; but that it is there, and of which class, its link shows anyway.

use rand::RngExt;
use shoal_topology::reputation::report::coarse_pool;
use shoal_topology::{Seed, Stream, Time};

/// Scale of the noise, packets.
const NOISE: f64 = 1.0;

/// Packets in the pool, summed over time.
pub(super) struct PoolMean {
    noise: Stream,
    since: Option<Time>,
    last: Time,
    /// Packets times seconds.
    sum: f64,
}

impl PoolMean {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { noise: seed.stream("pool noise"), since: None, last: Time::ZERO, sum: 0.0 }
    }

    /// Until `now` the pool held so many packets.
    pub(super) fn pass(&mut self, now: Time, pooled: usize) {
        if self.since.is_none() {
            self.since = Some(now);
            self.last = now;
        }
        self.sum += now.since(self.last).as_secs_f64() * pooled as f64;
        self.last = self.last.max(now);
    }

    /// The mean since this was last asked, as reports write it.
    pub(super) fn take(&mut self) -> u8 {
        let seconds = self.last.since(self.since.unwrap_or(self.last)).as_secs_f64();
        let mean = if seconds > 0.0 { self.sum / seconds } else { 0.0 };
        (self.since, self.sum) = (Some(self.last), 0.0);
        // 1 - u lies in (0, 1], so the logarithm is finite.
        // An exponential size and a random sign make Laplace's law.
        let size = -NOISE * (1.0 - self.noise.random::<f64>()).ln();
        coarse_pool(if self.noise.random::<bool>() { mean + size } else { mean - size })
    }
}

#[cfg(test)]
mod tests {
    use shoal_topology::reputation::report::pool_of;

    use super::*;

    #[test]
    fn the_mean_is_over_time_and_begins_anew_with_each_report() {
        let mut pool = PoolMean::new(&Seed::from_u64(1));
        let pass = |pool: &mut PoolMean, s, pooled| pool.pass(Time::from_secs(s), pooled);
        pass(&mut pool, 100, 7);
        pass(&mut pool, 110, 4_000);
        pass(&mut pool, 120, 0);
        let mean = pool_of(pool.take());
        assert!((1_600.0..2_500.0).contains(&mean), "{mean}");
        pass(&mut pool, 130, 300);
        let mean = pool_of(pool.take());
        assert!((240.0..370.0).contains(&mean), "{mean}");
    }

    #[test]
    fn one_packet_does_not_show() {
        // How often each answer comes with 5 packets in the pool, and with 6.
        let answers = |pooled| {
            let mut pool = PoolMean::new(&Seed::from_u64(2));
            let mut answers = [0.0; 12];
            for n in 0..100_000 {
                pool.pass(Time::from_secs(n), pooled);
                if let Some(count) = answers.get_mut(usize::from(pool.take())) {
                    *count += 1.0;
                }
            }
            answers
        };
        for (one, other) in answers(5).into_iter().zip(answers(6)) {
            let ratio: f64 = (one + 30.0) / (other + 30.0);
            // e, and chance.
            assert!((0.33..3.0).contains(&ratio), "{one} {other}");
        }
    }
}
