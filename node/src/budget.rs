//! How many new packets a key may come to know, and when: a token bucket at the declared rate, and a small share of the
//! table before the key's epoch begins.
//!
//! A table has room for what comes at the declared rate in the life of its key. Were all of that to be had at once, or
//! before the epoch, whoever fills it first would leave a mix that refuses everybody for the rest of the epoch.

use shoal_topology::Time;

/// New packets that one key may come to know.
#[derive(Clone, Debug)]
pub struct Budget {
    per_s: f64,
    burst: f64,
    /// What is left for packets that come before the epoch.
    early: usize,
    tokens: f64,
    counted: Option<Time>,
}

impl Budget {
    /// `per_s` a second and `burst` at once; `early` in all before the epoch begins.
    pub fn new(per_s: f64, burst: f64, early: usize) -> Self {
        Self { per_s, burst: burst.max(1.0), early, tokens: 0.0, counted: None }
    }

    /// Takes up to `wanted` for packets that came at `now`. How many it gives.
    pub(crate) fn take(&mut self, now: Time, life: Life, wanted: usize) -> usize {
        let opened = match life {
            Life::Early => {
                let given = wanted.min(self.early);
                self.early -= given;
                return given;
            }
            Life::Open(opened) => opened,
        };
        let counted = match self.counted {
            Some(counted) => counted,
            None => {
                self.tokens = self.burst;
                opened.min(now)
            }
        };
        let gained = now.since(counted).as_secs_f64() * self.per_s;
        self.tokens = (self.tokens + gained).min(self.burst);
        // Workers are not in step: time never goes back.
        self.counted = Some(counted.max(now));
        let given = wanted.min(self.tokens as usize);
        self.tokens -= given as f64;
        given
    }

    /// Takes back what was not used of [`Self::take`].
    pub(crate) fn put_back(&mut self, life: Life, unused: usize) {
        match life {
            Life::Early => self.early += unused,
            Life::Open(_) => self.tokens = (self.tokens + unused as f64).min(self.burst),
        }
    }
}

/// Whether a key's epoch has begun, with the error that clocks may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// Not yet.
    Early,
    /// Since then.
    Open(Time),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn before_its_epoch_a_key_gives_its_share_and_in_it_the_rate() {
        let mut budget = Budget::new(10.0, 20.0, 7);
        let at = |ms| Time::ZERO + Duration::from_millis(ms);
        assert_eq!(budget.take(at(0), Life::Early, 5), 5);
        budget.put_back(Life::Early, 1);
        assert_eq!(budget.take(at(10), Life::Early, 5), 3);
        assert_eq!(budget.take(at(500), Life::Early, 5), 0);
        // Whatever came early, all of the burst is there, and then the rate.
        let open = Life::Open(at(1_000));
        assert_eq!(budget.take(at(1_000), open, 100), 20);
        assert_eq!(budget.take(at(1_500), open, 100), 5);
        budget.put_back(open, 2);
        assert_eq!(budget.take(at(1_500), open, 100), 2);
        assert_eq!(budget.take(at(1_400), open, 100), 0, "time does not go back");
        assert_eq!(budget.take(at(60_000), open, 100), 20, "what is not used does not gather");
    }
}
