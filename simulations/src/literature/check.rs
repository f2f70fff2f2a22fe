//! Checks of `shoal-sim reproduce`: an expected number beside the one obtained, and the jobs that compute them.

use serde::{Deserialize, Serialize};

use crate::experiment::Estimate;
use crate::stats;

/// What came out of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// The number agrees.
    Holds,
    /// It does not.
    Fails,
}

impl Agreement {
    /// [`Agreement::Holds`] where the condition is met.
    pub fn when(condition: impl Into<bool>) -> Self {
        if condition.into() { Self::Holds } else { Self::Fails }
    }
}

/// How an obtained number is compared with the expected one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judge {
    /// It may differ by the tolerance.
    Tolerance,
    /// A statistical test.
    Test,
    /// It must lie below.
    Bound,
}

/// One number: what is expected, what was obtained, and whether they agree.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Check {
    /// Where the expected number comes from, as README.md numbers it: "2", "3" or "4".
    pub section: String,
    /// What it is, with its parameters.
    pub name: String,
    /// What is expected.
    pub expected: f64,
    /// How it is compared.
    pub judged_by: Judge,
    /// Largest difference that is allowed, where that is how.
    pub tolerance: f64,
    /// What was obtained, with its 95 % interval.
    pub obtained: Estimate,
    /// Where a statistical test decides: the probability of a difference at least as large when the expected
    /// number is right. [`decide`] corrects it for the size of the family.
    pub p: Option<f64>,
    /// Says whether it agrees.
    pub holds: Agreement,
}

/// The rate at which a correct program may fail a whole family of statistical checks.
pub const ALPHA: f64 = 0.001;

impl Check {
    /// The obtained value must lie within a tolerance that the expected number states.
    pub fn within(
        section: &str,
        name: impl Into<String>,
        expected: f64,
        tolerance: f64,
        obtained: Estimate,
    ) -> Self {
        let holds = Agreement::when((obtained.value - expected).abs() <= tolerance);
        Self {
            section: section.into(),
            name: name.into(),
            expected,
            judged_by: Judge::Tolerance,
            tolerance,
            obtained,
            p: None,
            holds,
        }
    }

    /// A statistical test decides; `p` is that of "the expected number is right", before any correction.
    pub fn equal(
        section: &str,
        name: impl Into<String>,
        expected: f64,
        obtained: Estimate,
        p: f64,
    ) -> Self {
        let holds = Agreement::when(p >= ALPHA);
        Self {
            section: section.into(),
            name: name.into(),
            expected,
            judged_by: Judge::Test,
            tolerance: 0.0,
            obtained,
            p: Some(p),
            holds,
        }
    }

    /// A number that is computed and not estimated.
    pub fn exact(
        section: &str,
        name: impl Into<String>,
        expected: f64,
        obtained: f64,
        tolerance: f64,
    ) -> Self {
        Self::within(section, name, expected, tolerance, Estimate::exact(obtained))
    }

    /// A value that must lie below (a bound on an error, a distance).
    pub fn below(section: &str, name: impl Into<String>, bound: f64, obtained: Estimate) -> Self {
        let holds = Agreement::when(obtained.value < bound);
        Self {
            section: section.into(),
            name: name.into(),
            expected: bound,
            judged_by: Judge::Bound,
            tolerance: 0.0,
            obtained,
            p: None,
            holds,
        }
    }
}

/// Decides all checks with a p-value together (Holm), so that a correct program fails once in 1/[`ALPHA`] runs.
pub fn decide(checks: &mut [Check]) {
    let p: Vec<f64> = checks.iter().filter_map(|check| check.p).collect();
    let tested = checks.iter_mut().filter(|check| check.p.is_some());
    for (check, adjusted) in tested.zip(stats::holm(&p)) {
        check.holds = Agreement::when(adjusted >= ALPHA);
    }
}

/// How much is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// Fewer samples and wider intervals, for continuous integration.
    Quick,
    /// All samples, as release-check does.
    Full,
}

impl Effort {
    /// One number for each effort.
    pub fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// What a job computes, from a seed.
pub type Run = Box<dyn Fn(u64) -> anyhow::Result<Vec<Check>> + Send + Sync>;

/// Checks that are computed together, on one thread.
pub struct CheckJob {
    /// What it is.
    pub name: &'static str,
    /// Computes the checks, the same for the same seed.
    pub run: Run,
}

impl CheckJob {
    /// A job with this name.
    pub fn new(
        name: &'static str,
        run: impl Fn(u64) -> anyhow::Result<Vec<Check>> + Send + Sync + 'static,
    ) -> Self {
        Self { name, run: Box::new(run) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_p_values_are_decided_as_one_family() {
        let check = |p| Check::equal("2", "x", 1.0, Estimate::exact(1.0), p);
        let mut checks = vec![check(0.0008), check(0.5)];
        assert_eq!(checks.first().map(|check| check.holds), Some(Agreement::Fails));
        decide(&mut checks);
        assert_eq!(checks.first().map(|check| check.holds), Some(Agreement::Holds));
        let mut checks = vec![check(0.0004), check(0.5)];
        decide(&mut checks);
        assert_eq!(checks.first().map(|check| check.holds), Some(Agreement::Fails));
    }

    #[test]
    fn a_row_beyond_its_tolerance_fails() {
        let check = |value| Check::within("3", "x", 1.0, 0.1, Estimate::exact(value)).holds;
        assert_eq!((check(1.09), check(1.11)), (Agreement::Holds, Agreement::Fails));
    }
}
