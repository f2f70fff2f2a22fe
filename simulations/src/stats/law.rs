//! Laws: normal, Student, gamma, Poisson, Erlang, beta. To about 1e-12 where they are smooth.

const TINY: f64 = 1e-300;
const PRECISION: f64 = 1e-15;

/// Logarithm of the gamma function for x > 0 (Lanczos, g = 7, 9 terms; relative error below 1e-14).
pub fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        let pi = std::f64::consts::PI;
        return (pi / (pi * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let base = x + 7.5;
    let series = TERMS.iter().enumerate().map(|(i, term)| term / (x + i as f64 + 1.0));
    let sum = 0.999_999_999_999_809_9 + series.sum::<f64>();
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * base.ln() - base + sum.ln()
}

/// Regularised lower incomplete gamma P(a, x) for a > 0: the share of the gamma law below x.
pub fn gamma_cdf(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        0.0
    // The series converges fast below this, the continued fraction above it.
    } else if x < a + 1.0 {
        gamma_series(a, x)
    } else {
        1.0 - gamma_tail(a, x)
    }
}

/// 1 − P(a, x), without loss where it is small.
pub fn gamma_sf(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        1.0
    } else if x < a + 1.0 {
        1.0 - gamma_series(a, x)
    } else {
        gamma_tail(a, x)
    }
}

fn gamma_series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
    while term > sum * PRECISION {
        n += 1.0;
        term *= x / n;
        sum += term;
    }
    sum * (a * x.ln() - x - ln_gamma(a)).exp()
}

/// Continued fraction (Lentz) of Q(a, x).
fn gamma_tail(a: f64, x: f64) -> f64 {
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / b;
    let mut h = d;
    for i in 1..100_000 {
        let i = f64::from(i);
        let an = -i * (i - a);
        b += 2.0;
        d = 1.0 / away_from_zero(an * d + b);
        c = away_from_zero(b + an / c);
        h *= d * c;
        if (d * c - 1.0).abs() < PRECISION {
            break;
        }
    }
    h * (a * x.ln() - x - ln_gamma(a)).exp()
}

fn away_from_zero(x: f64) -> f64 {
    if x.abs() < TINY { TINY } else { x }
}

/// Regularised incomplete beta I_x(a, b), a, b > 0.
pub fn beta_cdf(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front = a * x.ln() + b * (-x).ln_1p() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b);
    // The fraction converges fast on this side; on the other the law is mirrored.
    if x < (a + 1.0) / (a + b + 2.0) {
        front.exp() * beta_fraction(x, a, b) / a
    } else {
        1.0 - front.exp() * beta_fraction(1.0 - x, b, a) / b
    }
}

fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut h = d;
    for m in 1..100_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for step in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + step * d);
            c = away_from_zero(1.0 + step / c);
            change = d * c;
            h *= change;
        }
        if (change - 1.0).abs() < PRECISION {
            break;
        }
    }
    h
}

/// Standard normal distribution function.
pub fn normal_cdf(x: f64) -> f64 {
    let tail = 0.5 * gamma_sf(0.5, x * x / 2.0);
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// Quantile of the standard normal law.
pub fn normal_quantile(p: f64) -> f64 {
    if p > 0.5 {
        -invert(normal_cdf, 1.0 - p, -40.0, 0.0)
    } else {
        invert(normal_cdf, p, -40.0, 0.0)
    }
}

/// Student's distribution function with `degrees` of freedom.
pub fn student_cdf(t: f64, degrees: f64) -> f64 {
    let tail = 0.5 * beta_cdf(degrees / (degrees + t * t), degrees / 2.0, 0.5);
    if t < 0.0 { tail } else { 1.0 - tail }
}

/// Quantile of Student's law with `degrees` of freedom.
pub fn student_quantile(p: f64, degrees: f64) -> f64 {
    let below = |p: f64| {
        let mut low = -1.0;
        while student_cdf(low, degrees) > p && low > -1e300 {
            low *= 2.0;
        }
        invert(|t| student_cdf(t, degrees), p, low, 0.0)
    };
    if p > 0.5 { -below(1.0 - p) } else { below(p) }
}

/// P(X <= k) for X Poisson with this mean.
pub fn poisson_cdf(k: u64, mean: f64) -> f64 {
    gamma_sf(k as f64 + 1.0, mean)
}

/// P(X = k) for X Poisson with this mean.
pub fn poisson_pmf(k: u64, mean: f64) -> f64 {
    if mean == 0.0 {
        return if k == 0 { 1.0 } else { 0.0 };
    }
    (k as f64 * mean.ln() - mean - ln_gamma(k as f64 + 1.0)).exp()
}

/// Density of the Erlang law: the sum of `stages` exponential delays of rate `rate`.
pub fn erlang_pdf(t: f64, stages: u32, rate: f64) -> f64 {
    if t < 0.0 {
        return 0.0;
    }
    rate * poisson_pmf(u64::from(stages).saturating_sub(1), rate * t)
}

/// Distribution function of the Erlang law.
pub fn erlang_cdf(t: f64, stages: u32, rate: f64) -> f64 {
    gamma_cdf(f64::from(stages), rate * t)
}

/// Quantile of the Erlang law.
pub fn erlang_quantile(p: f64, stages: u32, rate: f64) -> f64 {
    // By the tail, so that p close to 1 keeps its digits.
    let tail = |x: f64| -gamma_sf(f64::from(stages), x);
    let mut high = f64::from(stages);
    while -tail(high) > 1.0 - p && high < 1e6 {
        high *= 2.0;
    }
    invert(tail, p - 1.0, 0.0, high) / rate
}

/// Differential entropy of the Erlang law in bits: L + ln Γ(L) + (1 − L)·ψ(L) nats at rate 1.
pub fn erlang_entropy_bits(stages: u32, rate: f64) -> f64 {
    const EULER: f64 = 0.577_215_664_901_532_9;
    let l = f64::from(stages);
    let digamma = (1..stages).map(|i| 1.0 / f64::from(i)).sum::<f64>() - EULER;
    (l + ln_gamma(l) + (1.0 - l) * digamma - rate.ln()) / std::f64::consts::LN_2
}

/// Where a growing function takes the value `y` between `low` and `high`, by bisection.
fn invert(f: impl Fn(f64) -> f64, y: f64, mut low: f64, mut high: f64) -> f64 {
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        // Two numbers beside each other: there is none in between any more.
        if middle <= low || middle >= high {
            break;
        }
        if f(middle) < y { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance, "{a} is not {b}");
    }

    #[test]
    fn ln_gamma_is_that_of_factorials() {
        close(ln_gamma(1.0), 0.0, 1e-13);
        close(ln_gamma(0.5), std::f64::consts::PI.sqrt().ln(), 1e-13);
        close(ln_gamma(11.0), 3_628_800.0f64.ln(), 1e-12);
    }

    #[test]
    fn the_normal_law_has_its_quantiles() {
        close(normal_quantile(0.975), 1.959_963_984_540_054, 1e-10);
        close(normal_quantile(0.001), -3.090_232_306_167_813, 1e-10);
        close(normal_cdf(1.0), 0.841_344_746_068_542_9, 1e-12);
    }

    #[test]
    fn the_student_law_has_its_quantiles() {
        close(student_quantile(0.975, 1.0), 12.706_204_736, 1e-6);
        close(student_quantile(0.975, 9.0), 2.262_157_163, 1e-7);
        close(student_quantile(0.975, 1e6), 1.959_966, 1e-5);
    }

    #[test]
    fn the_poisson_law_has_its_tails() {
        close(poisson_cdf(2, 20.0), 4.555_150e-7, 1e-12);
        close(poisson_cdf(2, 2.0), 0.676_676_416, 1e-9);
        close(poisson_pmf(3, 2.0), 0.180_447_044, 1e-9);
    }

    #[test]
    fn the_erlang_law_has_its_quantiles() {
        for (p, x) in [(0.5, 2.6741), (0.9, 5.3223), (0.99, 8.4059), (0.999, 11.2289)] {
            close(erlang_quantile(p, 3, 1.0), x, 5.1e-5);
            close(erlang_quantile(p, 3, 20.0), x / 20.0, 5e-6);
            close(erlang_cdf(erlang_quantile(p, 3, 20.0), 3, 20.0), p, 1e-12);
        }
        close(erlang_pdf(2.0, 3, 1.0), 2.0 * (-2.0f64).exp(), 1e-13);
    }

    #[test]
    fn the_erlang_law_has_its_entropy() {
        let expected = [std::f64::consts::LOG2_E, 2.275441, 2.665492, 2.919158, 3.106964];
        for (stages, bits) in (1..).zip(expected) {
            close(erlang_entropy_bits(stages, 1.0), bits, 6e-7);
        }
        close(erlang_entropy_bits(2, 4.0), 2.275441 - 2.0, 6e-7);
    }
}
