//! How long a packet takes from one end to the other, as everybody knows it.

use crate::trace::Public;

/// The law of the delay from what is seen at the sender to what is seen at the recipient: latency + Erlang(L, µ), or,
/// where one mix delays uniformly, latency + Erlang(L − 1, µ) + U(0, w).
#[derive(Clone, Copy, Debug)]
pub struct Delay {
    latency_s: f64,
    /// Hops that delay exponentially.
    hops: u32,
    hop_mean_s: f64,
    /// w; zero where no hop delays uniformly.
    uniform_s: f64,
    /// What latency is taken to vary by: a quarter, and no less than 5 ms.
    jitter_s: f64,
    /// ln Γ(L), which the density of the Erlang law needs for each value.
    ln_gamma: f64,
}

impl Delay {
    /// Of this network.
    pub fn new(public: &Public) -> Self {
        let exponential = public.hops.saturating_sub(u32::from(public.uniform_s > 0.0));
        let hops = if public.hop_mean_s > 0.0 { exponential } else { 0 };
        let ln_gamma = (1..hops).map(|k| f64::from(k).ln()).sum();
        let jitter_s = (public.latency_s / 4.0).max(0.005);
        Self {
            latency_s: public.latency_s,
            hops,
            hop_mean_s: public.hop_mean_s,
            uniform_s: public.uniform_s,
            jitter_s,
            ln_gamma,
        }
    }

    /// True if nodes delay on purpose.
    pub fn mixes(&self) -> bool {
        self.hops > 0 || self.uniform_s > 0.0
    }

    /// The mean delay from end to end, in seconds.
    pub fn mean_s(&self) -> f64 {
        self.latency_s + f64::from(self.hops) * self.hop_mean_s + self.uniform_s / 2.0
    }

    /// Standard deviation, seconds.
    pub fn sd_s(&self) -> f64 {
        let uniform = self.uniform_s.powi(2) / 12.0;
        (f64::from(self.hops) * self.hop_mean_s.powi(2) + uniform + self.jitter_s.powi(2)).sqrt()
    }

    /// Beyond which the density is nothing, seconds: the least delay and the greatest.
    pub fn support_s(&self) -> (f64, f64) {
        let hops = f64::from(self.hops);
        let tail = self.hop_mean_s * (hops + 8.0 * hops.sqrt() + 8.0 * f64::from(self.hops.min(1)));
        let most = self.latency_s + 5.0 * self.jitter_s + tail + self.uniform_s;
        (self.latency_s - 5.0 * self.jitter_s, most)
    }

    /// Density at this delay, 1/s.
    pub fn density(&self, delay_s: f64) -> f64 {
        let x = delay_s - self.latency_s;
        if self.uniform_s > 0.0 {
            // Jitter is small beside the uniform part: it only keeps early arrivals from being impossible.
            let x = if x > -self.jitter_s { x.max(1e-2 * self.uniform_s) } else { return 0.0 };
            return (self.share_within(x) - self.share_within(x - self.uniform_s)) / self.uniform_s;
        }
        if self.hops == 0 {
            let z = x / self.jitter_s;
            return (-0.5 * z * z).exp() / (self.jitter_s * (2.0 * std::f64::consts::PI).sqrt());
        }
        // Jitter is small beside mixing; it only keeps early arrivals from being impossible.
        let x = if x > 0.0 {
            x
        } else if x > -self.jitter_s {
            1e-3 * self.hop_mean_s
        } else {
            return 0.0;
        };
        let scaled = x / self.hop_mean_s;
        let stages = f64::from(self.hops);
        ((stages - 1.0) * scaled.ln() - scaled - self.ln_gamma).exp() / self.hop_mean_s
    }

    /// Share of the sums of the exponential delays up to `x` seconds: Erlang's distribution function.
    fn share_within(&self, x: f64) -> f64 {
        if x <= 0.0 {
            return 0.0;
        }
        if self.hops == 0 {
            return 1.0;
        }
        let scaled = x / self.hop_mean_s;
        let (mut term, mut sum) = (1.0, 1.0);
        for k in 1..self.hops {
            term *= scaled / f64::from(k);
            sum += term;
        }
        1.0 - (-scaled).exp() * sum
    }

    /// The shares of packets sent in one bin that come 0, 1, 2 ... bins later.
    pub fn kernel(&self, bin_s: f64) -> Vec<f32> {
        const DELAYS: u32 = 400;
        const OFFSETS: u32 = 16;
        let (low, high) = self.support_s();
        let mut shares = vec![0.0f64; (high / bin_s) as usize + 2];
        for step in 0..DELAYS {
            let delay = low + (high - low) * (f64::from(step) + 0.5) / f64::from(DELAYS);
            let density = self.density(delay);
            // A packet is sent anywhere within its bin, not at its begin.
            for offset in 0..OFFSETS {
                let at = (f64::from(offset) + 0.5) / f64::from(OFFSETS) + delay / bin_s;
                if let Some(share) = shares.get_mut(at.max(0.0) as usize) {
                    *share += density;
                }
            }
        }
        let sum: f64 = shares.iter().sum();
        // The far tail costs as much as the rest and moves nothing.
        while shares.len() > 1 && shares.last().is_some_and(|last| *last < 1e-4 * sum) {
            shares.pop();
        }
        let sum: f64 = shares.iter().sum();
        shares.iter().map(|share| if sum > 0.0 { (share / sum) as f32 } else { 0.0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use shoal_topology::{DelayLaw, Seed, Time};

    use super::*;

    #[test]
    fn the_density_is_that_of_the_delays_that_clients_draw() {
        let (law, latency_s) = (DelayLaw::INTERACTIVE, 0.1);
        let public = Public {
            people: 1,
            begin: Time::ZERO,
            end: Time::from_secs(1),
            hops: 3,
            hop_mean_s: law.exponential_us as f64 / 1e6,
            uniform_s: law.uniform_us as f64 / 1e6,
            latency_s,
            resting_up_per_s: 0.0,
            resting_down_per_s: 0.0,
            call_per_s: 25.0,
        };
        let delay = Delay::new(&public);
        let mut rng = Seed::from_u64(7).stream("delays");
        let mut counts = [0u32; 15];
        const DRAWS: u32 = 100_000;
        for _ in 0..DRAWS {
            let drawn: f64 = (1..=3).map(|l| law.draw(&mut rng, l, 3).as_secs_f64()).sum();
            if let Some(count) = counts.get_mut((drawn / 0.01) as usize) {
                *count += 1;
            }
        }
        for (bin, count) in counts.into_iter().enumerate().skip(1) {
            let at = |part: f64| latency_s + 0.01 * (bin as f64 + part);
            let density =
                (0..10).map(|i| delay.density(at((f64::from(i) + 0.5) / 10.0))).sum::<f64>();
            let expected = density * 0.001 * f64::from(DRAWS);
            // Five standard deviations.
            let off = (f64::from(count) - expected).abs();
            assert!(off < 5.0 * expected.sqrt() + 1.0, "bin {bin}: {count}, {expected} expected");
        }
        assert!((delay.mean_s() - 0.14).abs() < 1e-9);
    }
}
