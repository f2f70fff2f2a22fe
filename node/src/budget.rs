//! How many new packets a key may come to know, and when: a token bucket at the declared rate, and a small share of the
//! table before the key's epoch begins.
//!
//! A table has room for what comes at the declared rate in the life of its key. Were all of that to be had at once, or
//! before the epoch, whoever fills it first would leave a mix that refuses everybody for the rest of the epoch.
//!
//! The neighbours that packets come from share it: each has a part of the rate to itself, and what one does not use is for
//! all. So a neighbour that sends without end uses up its own part and what nobody else wants
//! (`a_neighbour_that_floods_leaves_the_others_their_part_of_the_rate`).

use std::collections::BTreeMap;

use shoal_topology::{Identity, Time};

/// New packets that one key may come to know.
#[derive(Clone, Debug)]
pub struct Budget {
    per_s: f64,
    early: Pots,
    open: Pots,
    counted: Option<Time>,
}

/// Tokens: half of the most there may be for whoever comes first, the other half in equal parts.
#[derive(Clone, Debug)]
struct Pots {
    common: f64,
    /// What each neighbour that brought something has left of its own.
    own: BTreeMap<Identity, f64>,
    most: f64,
}

impl Pots {
    fn full(most: f64) -> Self {
        Self { common: most / 2.0, own: BTreeMap::new(), most }
    }

    /// What one of so many neighbours has to itself at most.
    fn part(&self, neighbours: usize) -> f64 {
        self.most / 2.0 / neighbours.max(self.own.len()).max(1) as f64
    }

    /// So many tokens more, for all neighbours together. What one of them has no room for is common.
    fn gain(&mut self, gained: f64, neighbours: usize) {
        let (part, all) = (self.part(neighbours), neighbours.max(self.own.len()).max(1) as f64);
        let each = gained / all;
        let mut over = each * (all - self.own.len() as f64);
        for own in self.own.values_mut() {
            let filled = (*own + each).min(part);
            over += *own + each - filled;
            *own = filled;
        }
        self.common = (self.common + over).min(self.most / 2.0);
    }

    /// Takes a token for a neighbour: its own, or a common one.
    fn take(&mut self, from: &Identity, neighbours: usize) -> Option<TokenSource> {
        let known = self.own.len();
        if known < neighbours.max(1) && !self.own.contains_key(from) {
            let part = self.part(neighbours);
            self.own.insert(*from, part);
        }
        if let Some(own) = self.own.get_mut(from).filter(|own| **own >= 1.0) {
            *own -= 1.0;
            return Some(TokenSource::Own);
        }
        if self.common < 1.0 {
            return None;
        }
        self.common -= 1.0;
        Some(TokenSource::Common)
    }

    fn put_back(&mut self, from: &Identity, token: TokenSource) {
        match token {
            TokenSource::Common => self.common += 1.0,
            TokenSource::Own => _ = self.own.get_mut(from).map(|own| *own += 1.0),
        }
    }
}

/// Where a token came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TokenSource {
    Own,
    Common,
}

impl Budget {
    /// `per_s` a second and `burst` at once; `early` in all before the epoch begins.
    pub fn new(per_s: f64, burst: f64, early: usize) -> Self {
        let (early, open) = (Pots::full(early as f64), Pots::full(burst.max(2.0)));
        Self { per_s, early, open, counted: None }
    }

    /// Adds what has come together by `now`, with so many neighbours.
    pub(crate) fn advance(&mut self, now: Time, life: Life, neighbours: usize) {
        let Life::Open(opened) = life else { return };
        let counted = self.counted.unwrap_or(opened.min(now));
        self.open.gain(now.since(counted).as_secs_f64() * self.per_s, neighbours);
        // Workers are not in step: time never goes back.
        self.counted = Some(counted.max(now));
    }

    /// Takes a token for a packet that a neighbour brought, if there is one.
    pub(crate) fn take(
        &mut self,
        life: Life,
        from: &Identity,
        neighbours: usize,
    ) -> Option<TokenSource> {
        self.pots(life).take(from, neighbours)
    }

    /// Takes a token back whose packet brought nothing new.
    pub(crate) fn put_back(&mut self, life: Life, from: &Identity, token: TokenSource) {
        self.pots(life).put_back(from, token);
    }

    fn pots(&mut self, life: Life) -> &mut Pots {
        match life {
            Life::Early => &mut self.early,
            Life::Open(_) => &mut self.open,
        }
    }
}

/// Says whether a key's epoch has begun, with the error that clocks may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// The epoch has not begun by any clock that is within the error.
    Early,
    /// The epoch has begun at this instant.
    Open(Time),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const A: Identity = Identity([1; 32]);

    fn take(budget: &mut Budget, now: Time, life: Life, (from, of): (&Identity, usize)) -> usize {
        budget.advance(now, life, of);
        (0..100).take_while(|_| budget.take(life, from, of).is_some()).count()
    }

    #[test]
    fn before_its_epoch_a_key_gives_its_share_and_in_it_the_rate() {
        let mut budget = Budget::new(10.0, 20.0, 8);
        let at = |ms| Time::ZERO + Duration::from_millis(ms);
        for _ in 0..5 {
            assert!(budget.take(Life::Early, &A, 1).is_some());
        }
        budget.put_back(Life::Early, &A, TokenSource::Common);
        assert_eq!(take(&mut budget, at(10), Life::Early, (&A, 1)), 4);
        assert_eq!(take(&mut budget, at(500), Life::Early, (&A, 1)), 0);
        // Whatever came early, all of the burst is there, and then the rate.
        let open = Life::Open(at(1_000));
        assert_eq!(take(&mut budget, at(1_000), open, (&A, 1)), 20);
        assert_eq!(take(&mut budget, at(1_500), open, (&A, 1)), 5);
        assert_eq!(take(&mut budget, at(1_400), open, (&A, 1)), 0, "time does not go back");
        assert_eq!(take(&mut budget, at(60_000), open, (&A, 1)), 20, "what is not used is lost");
    }

    #[test]
    fn each_neighbour_has_its_part_and_what_it_does_not_use_is_for_all() {
        let b = Identity([2; 32]);
        let at = |ms| Time::ZERO + Duration::from_millis(ms);
        let open = Life::Open(at(0));
        let mut budget = Budget::new(40.0, 80.0, 8);
        // Of four: a part of 10 each, and 40 for whoever comes first.
        assert_eq!(take(&mut budget, at(0), open, (&A, 4)), 50);
        assert_eq!(take(&mut budget, at(0), open, (&b, 4)), 10);
        // The parts of the two that bring nothing are full: theirs is common. Two in a tenth of a second.
        assert_eq!(take(&mut budget, at(100), open, (&A, 4)), 3);
        assert_eq!(take(&mut budget, at(100), open, (&b, 4)), 1);
        // More than all there is by any number of neighbours is never given.
        let mut given = 0;
        for n in 0..100 {
            given += take(&mut budget, at(100), open, (&Identity([n; 32]), 4));
        }
        assert!(given <= 20, "{given}");
    }
}
