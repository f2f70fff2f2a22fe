//! How much loops say against a node, or for it, whatever a third of those who count them make up.
//!
//! A node v that loses each loop with probability p_v is held against the others of its layer, which lose p: it is bad if
//! p_v > p + [`TOLERANCE`], good if p_v ≤ p + [`TOLERANCE`]. Both sides are binomial, and p is not known. For an
//! alternative (v loses a, the others b) an operator's counts weigh
//!
//! s = l·ln(a/q) + (n − l)·ln((1−a)/(1−q)) + l'·ln(b/p) + (n'−l')·ln((1−b)/(1−p)), q = p + tolerance,
//!
//! n, l being its loops through v and those lost, n', l' those through the others: the logarithm of a likelihood ratio.
//! Its exponential has mean 1 at most if v is no worse than q, so that by Markov's inequality (this is Chernoff's bound
//! on the binomial tail) the operators' sum exceeds x with probability e^−x at most. The weight of evidence is the least
//! over all p of the greatest over the alternatives, each alternative paying −ln of its prior weight.
//!
//! **Liars who expel.** Of m operators the ⌊m/3⌋ with the greatest s are left out. If at most so many lie, then for
//! each p and each alternative what is left is at most the sum over honest ones: each liar who is left weighs no more
//! than an honest one who was left out. So nothing that a third can say makes a false alarm likelier than if they had said
//! nothing.
//!
//! **Liars who shield.** Each operator's s is cut off below at −c, c = 1 + ln m, which adds m·e^−c = 1/e to the bound of
//! the mean and no more. So a liar takes away c of the evidence, however many loops it claims; what honest operators count
//! grows without bound.
//!
//! Counts that are forgotten by and by stay within the bound: a loop of weight w ≤ 1 contributes a mean of
//! E[Y^w] ≤ E[Y]^w ≤ 1.

use serde::{Deserialize, Serialize};

/// By how much the loss through a node may exceed that through the others of its layer.
pub(super) const TOLERANCE: f64 = 0.05;
/// Added to the bound by cutting scores off from below.
const CUT_COST: f64 = 0.368;
/// 1 / this of the operators may say what they like.
const LIARS: usize = 3;
/// With fewer operators there is no majority of honest ones to ask.
pub(super) const LEAST_OPERATORS: usize = 3;

/// What the loops of one operator's nodes showed of a node, and of the others of its layer.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize, Deserialize)]
pub(super) struct Cell {
    pub(super) sent: f32,
    pub(super) lost: f32,
    pub(super) rest_sent: f32,
    pub(super) rest_lost: f32,
}

impl Cell {
    pub(super) fn add(&mut self, sent: f32, lost: f32, rest_sent: f32, rest_lost: f32) {
        self.sent += sent;
        self.lost += lost;
        self.rest_sent += rest_sent;
        self.rest_lost += rest_lost;
    }

    pub(super) fn scale(&mut self, by: f32) {
        *self = Self {
            sent: self.sent * by,
            lost: self.lost * by,
            rest_sent: self.rest_sent * by,
            rest_lost: self.rest_lost * by,
        };
    }

    /// True if it holds what counting can yield.
    pub(super) fn is_sound(&self) -> bool {
        let sound = |sent: f32, lost: f32| sent.is_finite() && 0.0 <= lost && lost <= sent;
        sound(self.sent, self.lost) && sound(self.rest_sent, self.rest_lost)
    }

    /// True if nothing is left worth keeping.
    pub(super) fn is_spent(&self) -> bool {
        self.sent + self.rest_sent < 0.01
    }
}

/// What is tested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hypothesis {
    /// It loses more than the others, beyond the tolerance.
    Worse,
    /// It does not.
    NoWorse,
}

/// How far alternatives are from the bound that is tested: v's as a share of the room above (below) q, the others' as a
/// share of p (of the room above p); and −ln of its prior weight.
struct Alternative {
    own: f64,
    rest: f64,
    cost: f64,
}

/// What is looked for has most of the weight, so that the fewest loops are enough: a dead node beside sound ones, and one
/// that loses a fifth.
fn alternatives(hypothesis: Hypothesis) -> Vec<Alternative> {
    type Lists<'a> = (&'a [(f64, f64, f64)], &'a [f64], &'a [f64]);
    let (first, own, rest): Lists<'_> = match hypothesis {
        Hypothesis::Worse => {
            (&[(0.97, 0.03, 0.4), (0.11, 0.2, 0.3)], &[0.06, 0.2, 0.5, 0.97], &[0.2, 0.6, 1.0])
        }
        Hypothesis::NoWorse => (&[], &[0.02, 0.2, 0.4, 0.7], &[0.0, 0.003, 0.01, 0.03, 0.1, 0.3]),
    };
    // The prior weights sum to one: trying many alternatives raises no more false alarms than trying one.
    let left = 1.0 - first.iter().map(|(_, _, weight)| weight).sum::<f64>();
    let each = left / (own.len() * rest.len()) as f64;
    let others = own.iter().flat_map(|own| rest.iter().map(move |rest| (*own, *rest, each)));
    let of = |(own, rest, weight): (f64, f64, f64)| Alternative { own, rest, cost: -weight.ln() };
    first.iter().copied().chain(others).map(of).collect()
}

/// What one loop weighs: lost or back, through the node or the others.
struct Weights {
    lost: f64,
    back: f64,
    rest_lost: f64,
    rest_back: f64,
    cost: f64,
}

impl Weights {
    fn of(hypothesis: Hypothesis, alternative: &Alternative, p: f64) -> Self {
        let bound = p + TOLERANCE;
        // Below one, or the logarithm of what comes back would be infinite.
        let q = bound.min(0.999);
        let Alternative { own, rest, cost } = *alternative;
        let (a, b) = match hypothesis {
            Hypothesis::Worse => (q + (1.0 - q) * own, p * rest),
            Hypothesis::NoWorse => (q * own, p + (1.0 - p) * rest),
        };
        let ratio = |to: f64, from: f64| (to / from).ln();
        // Nothing is worse than to lose all.
        let says = |ratio: f64| {
            if hypothesis == Hypothesis::Worse && bound >= 1.0 { 0.0 } else { ratio }
        };
        Self {
            lost: says(ratio(a, q)),
            back: says(ratio(1.0 - a, 1.0 - q)),
            rest_lost: ratio(b, p),
            rest_back: ratio(1.0 - b, 1.0 - p),
            cost,
        }
    }

    fn score(&self, cell: &Cell) -> f64 {
        let term = |sent: f32, lost: f32, of_lost: f64, of_back: f64| {
            f64::from(lost) * of_lost + f64::from(sent - lost) * of_back
        };
        term(cell.sent, cell.lost, self.lost, self.back)
            + term(cell.rest_sent, cell.rest_lost, self.rest_lost, self.rest_back)
    }
}

/// The weight of the evidence, nats: with at most ⌊m/3⌋ liars among m operators it exceeds x with probability e^−x at
/// most when the answer is no. Stops looking, and answers with less, as soon as it is below `enough`.
pub(super) fn weigh(hypothesis: Hypothesis, cells: &[Cell], enough: f64) -> f64 {
    // An operator whose loops could have crossed the node counts, whether they did or not: else m, and with it the number
    // of liars that are borne, would depend on what liars say.
    let hears = |cell: &&Cell| match hypothesis {
        Hypothesis::Worse => cell.rest_sent > 0.0,
        Hypothesis::NoWorse => cell.sent + cell.rest_sent > 0.0,
    };
    let heard: Vec<Cell> = cells.iter().filter(hears).copied().collect();
    if heard.len() < LEAST_OPERATORS {
        return 0.0;
    }
    least(hypothesis, &heard, heard.len() / LIARS, enough)
}

fn least(hypothesis: Hypothesis, heard: &[Cell], left_out: usize, enough: f64) -> f64 {
    let cut = -(1.0 + (heard.len() as f64).ln());
    let alternatives = alternatives(hypothesis);
    let mut scores = Vec::with_capacity(heard.len());
    let mut at = |p: f64| {
        let mut greatest = 0.0f64;
        for alternative in &alternatives {
            let weights = Weights::of(hypothesis, alternative, p);
            scores.clear();
            // Cut off below first and sorted after: the bound holds for the sum of scores that are cut.
            scores.extend(heard.iter().map(|cell| weights.score(cell).max(cut)));
            if let Some(last) = left_out.checked_sub(1) {
                // Those who speak loudest against it are left out, whoever they are: any of them may lie.
                scores.select_nth_unstable_by(last, |a, b| b.total_cmp(a));
            }
            let kept = scores.iter().skip(left_out).sum::<f64>();
            greatest = greatest.max(kept - weights.cost - CUT_COST);
        }
        greatest
    };
    // Most nodes are honest, and this p already shows it: the other hundred are then not looked at.
    let mut least = at(typical_loss(heard));
    for p in losses() {
        if least < enough {
            break;
        }
        least = least.min(at(p));
    }
    least
}

/// The p that is tried first: where an honest node is most likely cleared.
fn typical_loss(cells: &[Cell]) -> f64 {
    let (mut sent, mut lost) = (0.0, 0.0);
    for cell in cells {
        sent += f64::from(cell.rest_sent);
        lost += f64::from(cell.rest_lost);
    }
    (lost / sent.max(1.0)).clamp(0.001, 0.999)
}

/// Loss rates, evenly over their log odds: 0.0005 to 0.9995.
fn losses() -> impl Iterator<Item = f64> {
    (0..=101).map(|n| {
        // Evenly over log odds, as a step there changes all weights by about as much.
        let odds = (-7.6 + 0.15 * f64::from(n)).exp();
        odds / (1.0 + odds)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(operators: usize, cell: [f32; 4]) -> Vec<Cell> {
        let [sent, lost, rest_sent, rest_lost] = cell;
        vec![Cell { sent, lost, rest_sent, rest_lost }; operators]
    }

    /// ln C(n, k) + k ln p + (n − k) ln (1 − p), exact enough for n of some tens.
    fn ln_binomial(n: u32, k: u32, p: f64) -> f64 {
        let choose: f64 = (1..=k).map(|i| (f64::from(n - k + i) / f64::from(i)).ln()).sum();
        let power = |base: f64, by: u32| if by == 0 { 0.0 } else { f64::from(by) * base.ln() };
        choose + power(p, k) + power(1.0 - p, n - k)
    }

    #[test]
    fn evidence_of_x_nats_is_false_with_probability_e_to_the_minus_x_at_most() {
        let n = 40;
        for p in [0.001, 0.02, 0.1, 0.3, 0.6] {
            for hypothesis in [Hypothesis::Worse, Hypothesis::NoWorse] {
                // The worst case of either answer: exactly on the border.
                let q = p + TOLERANCE;
                let mut exceeded = [(1.0, 0.0), (3.0, 0.0), (8.0, 0.0), (15.0, 0.0), (20.0, 0.0)];
                for lost in 0..=n {
                    for rest in 0..=n {
                        let cell = cells(1, [n, lost, n, rest].map(|count| count as f32));
                        let weight = least(hypothesis, &cell, 0, 0.0);
                        let chance = (ln_binomial(n, lost, q) + ln_binomial(n, rest, p)).exp();
                        for (x, sum) in &mut exceeded {
                            *sum += if weight >= *x { chance } else { 0.0 };
                        }
                    }
                }
                for (x, sum) in exceeded {
                    assert!(sum <= f64::exp(-x), "{hypothesis:?} {p} {x} {sum}");
                }
            }
        }
    }

    #[test]
    fn the_binomial_of_the_tests_has_its_exact_values() {
        for (n, k, p, exact) in
            [(10, 3, 0.5, 0.1171875), (4, 0, 0.25, 0.31640625), (2, 2, 0.1, 0.01)]
        {
            assert!((ln_binomial(n, k, p) - f64::ln(exact)).abs() < 1e-12);
        }
        let sum: f64 = (0..=40).map(|k| ln_binomial(40, k, 0.07).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_couple_dozen_loops_all_lost_are_enough() {
        // 4 windows, 1e-9.
        let enough = 4e9f64.ln();
        let weigh = |cells: &[Cell]| weigh(Hypothesis::Worse, cells, enough);
        // Of ten in the layer, by ten operators: 20 lost, 180 back.
        assert!(weigh(&cells(10, [2.0, 2.0, 18.0, 0.0])) >= enough);
        // Of two in the layer, by six: 30 lost, 30 back.
        assert!(weigh(&cells(6, [5.0, 5.0, 5.0, 0.0])) >= enough);
        assert!(weigh(&cells(6, [3.0, 3.0, 3.0, 0.0])) < enough);
    }

    #[test]
    fn where_everybody_loses_as_much_nobody_is_worse() {
        for lost in [0.0, 10.0, 500.0, 900.0, 1_000.0] {
            let cells = cells(9, [1_000.0, lost, 1_000.0, lost]);
            assert_eq!(weigh(Hypothesis::Worse, &cells, 1.0), 0.0, "{lost}");
        }
    }

    #[test]
    fn a_third_of_the_operators_adds_nothing_and_takes_away_little() {
        let honest = cells(6, [50.0, 25.0, 50.0, 1.0]);
        let with = |liar: [f32; 4]| [honest.clone(), cells(3, liar)].concat();
        let ask = |cells: &[Cell]| weigh(Hypothesis::Worse, cells, 0.0);
        let alone = least(Hypothesis::Worse, &honest, 0, 0.0);
        assert!(alone > 50.0);
        for liar in [[1e6, 1e6, 1e6, 0.0], [1e3, 9e2, 1e3, 1e1], [50.0, 26.0, 50.0, 1.0]] {
            // The cut and its cost aside.
            assert!(ask(&with(liar)) <= alone + 0.01, "{liar:?}");
        }
        for liar in [[1e6, 0.0, 1e6, 1e6], [1e6, 0.0, 1e6, 0.0], [10.0, 0.0, 50.0, 50.0]] {
            // Three liars take 1 + ln 9 each, three honest operators are left out, and half as much pays for as many
            // alternatives.
            let least = alone / 2.0 - 3.0 * (1.0 + 9f64.ln()) - 3.0;
            assert!(ask(&with(liar)) >= least, "{liar:?} {} {least}", ask(&with(liar)));
        }
    }

    #[test]
    fn nothing_that_operators_can_claim_is_beyond_numbers() {
        let largest = u32::MAX as f32;
        for count in [
            [0.0; 4],
            [largest, largest, 0.0, 0.0],
            [largest, largest, largest, 0.0],
            [largest; 4],
            [1.0, 0.0, largest, largest],
        ] {
            for hypothesis in [Hypothesis::Worse, Hypothesis::NoWorse] {
                assert!(weigh(hypothesis, &cells(7, count), 0.0).is_finite());
            }
        }
        for few in 0..LEAST_OPERATORS {
            assert_eq!(weigh(Hypothesis::Worse, &cells(few, [1e3, 1e3, 1e3, 0.0]), 0.0), 0.0);
        }
    }
}
