//! What theory says of mixes: exact where it can be (`reproduce`, section 2).

use crate::anonymity::binary_entropy_bits;
use crate::stats::law::poisson_pmf;

/// Above this mean number of packets the asymptote serves; the exact sum differs by less than 1e-8 there.
const LARGE_POOL: f64 = 1e6;

/// Mean sender entropy (bits) of the departures of an exponential mix that Poisson arrivals fill with `a` packets on
/// average.
///
/// With n packets whose common law over arrivals has entropy H, an arrival gives n + 1 and
/// H2(1/(n+1)) + n/(n+1)·H; a departure leaves H. For h_n = E[H; N = n] in the steady state of M/M/∞,
/// (a + n)·h_n = a·(π_{n−1}·H2(1/n) + (n−1)/n·h_{n−1}) + (n+1)·h_{n+1}, a tridiagonal system; departures come at
/// rate n, so the mean is Σ n·h_n / a.
pub fn pool_entropy_bits(a: f64) -> f64 {
    if a <= 0.0 {
        return 0.0;
    }
    if a > LARGE_POOL {
        return (std::f64::consts::E * a).log2();
    }
    let spread = 12.0 * a.sqrt() + 60.0;
    let first = (a - spread).max(1.0).floor();
    let rows = (a + spread - first) as usize;
    // Thomas's algorithm: h_n = gain_n·h_{n+1} + rest_n.
    let mut solved = Vec::with_capacity(rows);
    let (mut gain, mut rest) = (0.0, 0.0);
    for row in 0..rows {
        let n = first + row as f64;
        let below = a * (n - 1.0) / n;
        let source = a * poisson_pmf(n as u64 - 1, a) * binary_entropy_bits(1.0 / n);
        let pivot = a + n - below * gain;
        rest = (source + below * rest) / pivot;
        gain = (n + 1.0) / pivot;
        solved.push((n, gain, rest));
    }
    let (mut h, mut sum) = (0.0, 0.0);
    for (n, gain, rest) in solved.into_iter().rev() {
        h = gain * h + rest;
        sum += n * h;
    }
    sum / a
}

/// E[1/N] at a departure, the departing packet included: (1 − e^−a)/a.
pub fn inverse_pool(a: f64) -> f64 {
    if a <= 0.0 { 1.0 } else { -(-a).exp_m1() / a }
}

/// Probability that two packets sent `gap` mean hop delays apart leave `hops` exponential hops in order.
///
/// In the gap the first finishes j of its hops with Poisson probability; from then on each completion is the one's or
/// the other's with probability 1/2, and the order turns when the second finishes all its hops before the first its
/// last L − j: a negative binomial sum.
pub fn in_order(hops: u32, gap: f64) -> f64 {
    let second_first = |remaining: u32| {
        // Σ_{i < remaining} C(L−1+i, i) 2^−(L+i)
        let mut term = 0.5f64.powi(hops as i32);
        let mut sum = 0.0;
        for i in 0..remaining {
            sum += term;
            term *= 0.5 * f64::from(hops + i) / f64::from(i + 1);
        }
        sum
    };
    let turned = (0..hops).map(|j| poisson_pmf(u64::from(j), gap) * second_first(hops - j));
    1.0 - turned.sum::<f64>()
}

/// α = Π_{i<L} (B−i)/(N−i): probability that all `layers` mixes of a fresh route are corrupt, when `corrupt` of all
/// N = `mixes` mixes are, placed at random. A route has one mix of each layer, so how wide each is does not matter.
pub fn corrupt_route(corrupt: u32, layers: u32, mixes: u32) -> f64 {
    let all = f64::from(mixes);
    let share = |i: u32| (f64::from(corrupt) - f64::from(i)).max(0.0) / (all - f64::from(i));
    (0..layers).map(share).product()
}

/// Probability that one of `packets` fresh routes is corrupt, 1 − (1 − α)^M.
pub fn hit(alpha: f64, packets: f64) -> f64 {
    if alpha >= 1.0 {
        return if packets > 0.0 { 1.0 } else { 0.0 };
    }
    -(packets * (-alpha).ln_1p()).exp_m1()
}

/// Packets on fresh routes after which half of the users are hit; infinite without corrupt routes.
pub fn half_hit_packets(alpha: f64) -> f64 {
    if alpha >= 1.0 { 1.0 } else { 0.5f64.ln() / (-alpha).ln_1p() }
}

/// Mean time in a queue that Poisson slots drain and a Poisson stream fills: 1/(λ_P − r), seconds.
pub fn slot_delay_s(slots_per_s: f64, rate_per_s: f64) -> f64 {
    if rate_per_s < slots_per_s { 1.0 / (slots_per_s - rate_per_s) } else { f64::INFINITY }
}

/// Entropy (bits) of forward tracking through `hops` exponential hops when traffic is heavy: log2 Λ + h(Erlang).
pub fn heavy_traffic_bits(rate_per_s: f64, hops: u32, hop_mean_s: f64) -> f64 {
    rate_per_s.log2() + crate::stats::law::erlang_entropy_bits(hops, 1.0 / hop_mean_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance, "{a} is not {b}");
    }

    #[test]
    fn the_entropy_of_a_pool_has_its_exact_values() {
        let table = [
            (0.1, 0.193934, 0.951626),
            (1.0, 1.511227, 0.632121),
            (2.0, 2.408791, 0.432332),
            (5.0, 3.754853, 0.198652),
            (10.0, 4.763046, 0.0999955),
            (50.0, 7.086501, 0.02),
        ];
        for (a, entropy, inverse) in table {
            close(pool_entropy_bits(a), entropy, 1e-6);
            close(inverse_pool(a), inverse, 6e-7);
        }
    }

    #[test]
    fn the_entropy_of_a_large_pool_meets_its_asymptote() {
        for a in [1e4f64, 1e6] {
            close(pool_entropy_bits(a), (std::f64::consts::E * a).log2(), 1e-6);
        }
    }

    #[test]
    fn two_packets_leave_in_order_as_often_as_theory_says() {
        for (hops, gap, p) in
            [(1, 0.5, 0.69673), (1, 1.0, 0.81606), (3, 0.5, 0.59249), (3, 1.0, 0.67811)]
        {
            close(in_order(hops, gap), p, 6e-6);
        }
        close(in_order(4, 0.0), 0.5, 1e-12);
    }

    #[test]
    fn half_of_the_users_are_hit_after_693_packets() {
        assert_eq!(half_hit_packets(0.001).ceil(), 693.0);
        close(hit(0.001, 693.0), 0.5, 1e-3);
        close(corrupt_route(2, 2, 4), 2.0 / 4.0 / 3.0, 1e-12);
        assert_eq!(corrupt_route(2, 3, 30), 0.0);
    }
}
