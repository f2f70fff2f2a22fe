//! Statistical disclosure in batches (Danezis, SEC 2003) and by least squares (Pérez-González and Troncoso, PETS 2012).

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Stream};

use super::within;
use crate::experiment::{Context, Estimate, Experiment, Measured, Outcome, Wrong};
use crate::literature::check::{Check, CheckJob, Effort};
use crate::stats;

/// Settings of experiment `disclosure`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disclosure {
    /// N, the number of users.
    pub users: u32,
    /// Friends of each: m.
    pub friends: u32,
    /// Messages in a batch, Alice's included: b.
    pub batch: u32,
    /// Batches; 0 for as many as the formula gives at `confidence`.
    pub rounds: u32,
    /// Confidence l of that formula, in standard deviations.
    pub confidence: f64,
    /// How often all is drawn.
    pub draws: u32,
    /// Users, friends, batch and rounds of the comparison of both attacks where everybody has friends and the senders
    /// of a batch are seen. 0 rounds: no comparison.
    pub profiles: Profiles,
}

/// A population in which everybody has friends of their own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profiles {
    /// The number of users.
    pub users: u32,
    /// Friends of each.
    pub friends: u32,
    /// Senders in a batch, drawn anew each time, all different.
    pub batch: u32,
    /// Users are there in so many groups, in turn: the senders of a batch are of one group. Whom a person is there with
    /// then misleads the mean, not least squares. With 1 group least squares gain little at these sizes: they remove the
    /// noise of who sends, but not that of whom each writes to.
    pub groups: u32,
    /// Batches; more than users, or least squares has no solution.
    pub rounds: u32,
}

impl Default for Profiles {
    fn default() -> Self {
        Self { users: 100, friends: 3, batch: 20, groups: 2, rounds: 400 }
    }
}

impl Default for Disclosure {
    fn default() -> Self {
        Self {
            users: 1_000,
            friends: 20,
            batch: 50,
            rounds: 0,
            confidence: 2.0,
            draws: 200,
            profiles: Profiles::default(),
        }
    }
}

/// Rounds for confidence l: more than [m·l·(√V + √(V + (m−1)/m²))]², V = (N−1)(b−1)/N².
pub fn rounds_needed(users: u32, friends: u32, batch: u32, confidence: f64) -> f64 {
    let (n, m, b) = (f64::from(users), f64::from(friends), f64::from(batch));
    let v = (n - 1.0) * (b - 1.0) / (n * n);
    (m * confidence * (v.sqrt() + (v + (m - 1.0) / (m * m)).sqrt())).powi(2)
}

/// `count` different numbers below `below`, in any order.
fn distinct(rng: &mut impl Rng, count: u32, below: u32) -> Vec<u32> {
    rand::seq::index::sample(rng, below as usize, count as usize)
        .into_iter()
        .map(|index| index as u32)
        .collect()
}

fn one_of(rng: &mut impl Rng, list: &[u32]) -> u32 {
    list.get(rng.random_range(0..list.len())).copied().unwrap_or(0)
}

fn add(to: &mut [f64], index: u32, what: f64) {
    if let Some(value) = to.get_mut(index as usize) {
        *value += what;
    }
}

/// Share of `friends` among as many of the highest scores.
fn share_found(scores: &[f64], friends: &[u32]) -> f64 {
    let mut order: Vec<(usize, f64)> = scores.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let top = order.iter().take(friends.len());
    let hits = top.filter(|(user, _)| friends.contains(&(*user as u32))).count();
    hits as f64 / friends.len().max(1) as f64
}

impl Disclosure {
    fn rounds(&self) -> u32 {
        match self.rounds {
            0 => rounds_needed(self.users, self.friends, self.batch, self.confidence).ceil() as u32,
            rounds => rounds,
        }
    }

    /// One draw: Alice sends one message a round to a friend, the other b − 1 go to anybody. The score of a recipient
    /// is the number of messages to them, less the constant that others send to everybody.
    fn draw(&self, rng: &mut Stream) -> f64 {
        let friends = distinct(rng, self.friends, self.users);
        let mut scores = vec![0.0; self.users as usize];
        for _ in 0..self.rounds() {
            let to = one_of(rng, &friends);
            add(&mut scores, to, 1.0);
            for _ in 1..self.batch {
                add(&mut scores, rng.random_range(0..self.users), 1.0);
            }
        }
        share_found(&scores, &friends)
    }

    fn draws(&self, seed: &Seed) -> Vec<f64> {
        (0..self.draws).map(|draw| self.draw(&mut seed.stream(&format!("draw {draw}")))).collect()
    }
}

/// Rounds as they are seen: senders and recipients of each.
struct Rounds {
    senders: Vec<Vec<u32>>,
    recipients: Vec<Vec<u32>>,
    friends: Vec<u32>,
    users: usize,
}

impl Profiles {
    fn observe(&self, rng: &mut Stream) -> Rounds {
        let everybody: Vec<Vec<u32>> =
            (0..self.users).map(|_| distinct(rng, self.friends, self.users)).collect();
        let (mut senders, mut recipients) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            let group = round % self.groups;
            let drawn = distinct(rng, self.batch, self.users / self.groups);
            let from: Vec<u32> = drawn.iter().map(|user| user * self.groups + group).collect();
            let mut to = Vec::new();
            for sender in &from {
                let friends = everybody.get(*sender as usize).map_or(&[][..], Vec::as_slice);
                to.push(one_of(rng, friends));
            }
            senders.push(from);
            recipients.push(to);
        }
        let friends = everybody.into_iter().next().unwrap_or_default();
        Rounds { senders, recipients, friends, users: self.users as usize }
    }

    /// (statistical disclosure, least squares), each of a draw of its own.
    fn compare(&self, seed: &Seed, draws: u32) -> (Vec<f64>, Vec<f64>) {
        let one = |draw: u32| {
            let rounds = self.observe(&mut seed.stream(&format!("profiles {draw}")));
            let mean = share_found(&rounds.disclosure(), &rounds.friends);
            (mean, share_found(&rounds.least_squares(), &rounds.friends))
        };
        (0..draws).map(one).unzip()
    }
}

impl Rounds {
    /// Recipients weighted by round.
    fn weighted(&self, weights: &[f64]) -> Vec<f64> {
        let mut scores = vec![0.0; self.users];
        for (recipients, weight) in self.recipients.iter().zip(weights) {
            recipients.iter().for_each(|to| add(&mut scores, *to, *weight));
        }
        scores
    }

    /// Mean of the rounds with Alice (user 0) less mean of those without.
    fn disclosure(&self) -> Vec<f64> {
        let with = self.senders.iter().filter(|senders| senders.contains(&0)).count();
        let without = self.senders.len() - with;
        let weight = |senders: &Vec<u32>| match senders.contains(&0) {
            true => 1.0 / with.max(1) as f64,
            false => -1.0 / without.max(1) as f64,
        };
        self.weighted(&self.senders.iter().map(weight).collect::<Vec<_>>())
    }

    /// U x, where U has a row for each round and a column for each user.
    fn times(&self, x: &[f64]) -> Vec<f64> {
        let of = |user: &u32| x.get(*user as usize).copied().unwrap_or(0.0);
        self.senders.iter().map(|senders| senders.iter().map(of).sum()).collect()
    }

    /// Uᵀ y, see [`Self::times`].
    fn transposed_times(&self, y: &[f64]) -> Vec<f64> {
        let mut x = vec![0.0; self.users];
        for (senders, value) in self.senders.iter().zip(y) {
            senders.iter().for_each(|user| add(&mut x, *user, *value));
        }
        x
    }

    /// Alice's row of P̂ = (UᵀU)⁻¹UᵀY: UᵀU x = e_Alice by conjugate gradients, then Yᵀ(U x).
    fn least_squares(&self) -> Vec<f64> {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut x = vec![0.0; self.users];
        let mut residual = vec![0.0; self.users];
        add(&mut residual, 0, 1.0);
        let mut direction = residual.clone();
        let mut square = 1.0;
        for _ in 0..4 * self.users {
            if square < 1e-20 {
                break;
            }
            let image = self.transposed_times(&self.times(&direction));
            let step = square / dot(&direction, &image);
            x.iter_mut().zip(&direction).for_each(|(x, d)| *x += step * d);
            residual.iter_mut().zip(&image).for_each(|(r, i)| *r -= step * i);
            let next = dot(&residual, &residual);
            let turned = direction.iter().zip(&residual).map(|(d, r)| r + next / square * d);
            direction = turned.collect();
            square = next;
        }
        self.weighted(&self.times(&x))
    }
}

impl Experiment for Disclosure {
    fn check(&self) -> Result<(), Wrong> {
        let users = f64::from(self.users);
        within("users", users, 2.0, 1e6)?;
        within("friends", f64::from(self.friends), 1.0, users)?;
        within("batch", f64::from(self.batch), 1.0, 1e6)?;
        within("rounds", f64::from(self.rounds), 0.0, 1e8)?;
        within("confidence", self.confidence, 0.0, 100.0)?;
        within("draws", f64::from(self.draws), 1.0, 1e6)?;
        let profiles = &self.profiles;
        let users = f64::from(profiles.users);
        // Least squares has a matrix of users times users.
        within("profiles.users", users, 2.0, 5e3)?;
        within("profiles.friends", f64::from(profiles.friends), 1.0, users)?;
        within("profiles.groups", f64::from(profiles.groups), 1.0, (users / 2.0).floor())?;
        let present = profiles.users / profiles.groups;
        within("profiles.batch", f64::from(profiles.batch), 1.0, f64::from(present - 1))?;
        if profiles.rounds > 0 && profiles.rounds <= profiles.users {
            return Err(Wrong::new("profiles.rounds", "must be 0 or more than profiles.users"));
        }
        let messages = f64::from(profiles.rounds) * f64::from(profiles.batch);
        if messages > 1e8 || messages * f64::from(self.draws) > 1e11 {
            let why = "must be fewer: 10^8 messages a draw and 10^11 in all at most";
            return Err(Wrong::new("profiles.rounds", why));
        }
        let messages = f64::from(self.rounds()) * f64::from(self.batch);
        if messages * f64::from(self.draws) > 1e12 {
            let why = "must be fewer (0 is as many as `confidence` needs): 10^12 messages at most";
            return Err(Wrong::new("rounds", why));
        }
        Ok(())
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let seed = Seed::from_u64(context.seed).part("disclosure");
        let needed = rounds_needed(self.users, self.friends, self.batch, self.confidence);
        let mut measured = vec![
            Measured::new("rounds_needed", "1", Estimate::exact(needed)),
            Measured::new("rounds", "1", Estimate::exact(f64::from(self.rounds()))),
            Measured::new("friends_found", "1", stats::mean(&self.draws(&seed))),
        ];
        (context.progress)(0.5);
        if self.profiles.rounds > 0 {
            let (mean, squares) = self.profiles.compare(&seed, self.draws);
            let mut push = |name: &str, found: &[f64]| {
                measured.push(Measured::new(name, "1", stats::mean(found)));
            };
            push("profiles_statistical", &mean);
            push("profiles_least_squares", &squares);
            let gain: Vec<f64> = squares.iter().zip(&mean).map(|(a, b)| a - b).collect();
            push("profiles_gain", &gain);
        }
        Ok(Outcome { measured, ..Outcome::default() })
    }
}

pub(super) fn jobs(effort: Effort) -> Vec<CheckJob> {
    vec![
        CheckJob::new("statistical disclosure", move |seed| {
            let settings = Disclosure { draws: effort.pick(60, 600), ..Disclosure::default() };
            let needed = f64::from(settings.rounds());
            let found = stats::mean(&settings.draws(&Seed::from_u64(seed).part("disclosure")));
            let name = "statistical disclosure (1000, 20, 50): rounds at l = 2";
            let share = "statistical disclosure (1000, 20, 50): friends in the top 20, 453 rounds";
            Ok(vec![
                Check::exact("2", name, 453.0, needed, 0.5),
                Check::within("2", share, 0.891, effort.pick(0.03, 0.01), found),
            ])
        }),
        CheckJob::new("least squares", move |seed| {
            let seed = Seed::from_u64(seed).part("least squares");
            let (mean, squares) = Profiles::default().compare(&seed, effort.pick(40, 300));
            let loss: Vec<f64> = mean.iter().zip(&squares).map(|(a, b)| a - b).collect();
            let name = "least squares against statistical disclosure: friends lost (below 0)";
            Ok(vec![Check::below("2", name, 0.0, stats::mean(&loss))])
        }),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_stated_case_needs_453_rounds() {
        assert_eq!(Disclosure::default().rounds(), 453);
    }

    #[test]
    fn most_friends_are_found_after_as_many_rounds() {
        let settings = Disclosure { draws: 60, ..Disclosure::default() };
        let found = stats::mean(&settings.draws(&Seed::from_u64(1)));
        assert!((found.value - 0.891).abs() < 0.03, "{found:?}");
    }

    #[test]
    fn least_squares_solve_the_normal_equations() {
        let rounds = Profiles::default().observe(&mut Seed::from_u64(2).stream("x"));
        let profile = rounds.least_squares();
        // Every message has one recipient, so an exact solution sums to one.
        assert!((profile.iter().sum::<f64>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn least_squares_find_more_than_means() {
        let (mean, squares) = Profiles::default().compare(&Seed::from_u64(3), 100);
        let gain: Vec<f64> = squares.iter().zip(&mean).map(|(a, b)| a - b).collect();
        assert!(
            stats::mean(&gain).low > 0.0,
            "{:?} {:?}",
            stats::mean(&mean),
            stats::mean(&squares)
        );
    }
}
