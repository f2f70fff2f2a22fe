//! `shoal-sim reproduce`: every published or exact number that the simulator must agree with, obtained beside
//! expected.

use std::io::{self, Write};

use anyhow::Context as _;
use rayon::prelude::*;
use serde::Serialize;

use super::check::{self, Agreement, Check, CheckJob, Effort, Judge};

/// All checks, in the order of their jobs.
#[derive(Debug, Serialize)]
pub struct Reproduced {
    /// What everything was drawn from.
    pub seed: u64,
    /// The checks, by their sections.
    #[serde(rename = "rows")]
    pub checks: Vec<Check>,
    /// How many of them hold.
    pub hold: usize,
}

impl Reproduced {
    /// True if every check holds.
    pub fn all_hold(&self) -> bool {
        self.hold == self.checks.len()
    }

    /// A line for each check, and one for all.
    ///
    /// # Errors
    /// Of the writer.
    pub fn print(&self, to: &mut impl Write) -> io::Result<()> {
        let name_len =
            self.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
        writeln!(
            to,
            "{:7}  {:name_len$}  {:>12}  {:>12}  {:25}  judged by",
            "section", "what", "expected", "obtained", "95 % interval",
        )?;
        for check in &self.checks {
            let judge = match check.judged_by {
                Judge::Test => format!("p = {:.3}", check.p.unwrap_or(f64::NAN)),
                Judge::Bound => "must lie below".into(),
                Judge::Tolerance => format!("± {}", number(check.tolerance)),
            };
            let interval =
                format!("{} to {}", number(check.obtained.low), number(check.obtained.high));
            let agreement = if check.holds == Agreement::Holds { "" } else { "  DOES NOT HOLD" };
            writeln!(
                to,
                "{:7}  {:name_len$}  {:>12}  {:>12}  {interval:25}  {judge}{agreement}",
                check.section,
                check.name,
                number(check.expected),
                number(check.obtained.value),
            )?;
        }
        writeln!(to, "{} of {} rows hold", self.hold, self.checks.len())
    }
}

/// Six digits that say something.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        1e-4..1e6 => {
            let digits = (5 - value.abs().log10().floor() as i32).clamp(0, 8) as usize;
            format!("{value:.digits$}")
        }
        _ => format!("{value:.3e}"),
    }
}

/// Runs jobs on all cores of the present pool of threads. The same seed gives the same checks, whatever their number.
///
/// # Errors
/// A job that did not end.
pub fn run(
    jobs: &[CheckJob],
    seed: u64,
    done: &(dyn Fn(f64) + Sync),
) -> anyhow::Result<Reproduced> {
    let ended = std::sync::atomic::AtomicUsize::new(0);
    let checks = jobs.par_iter().map(|job| {
        let checks = (job.run)(seed).with_context(|| format!("computing {}", job.name));
        let ended = 1 + ended.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        done(ended as f64 / jobs.len() as f64);
        checks
    });
    let checks: Vec<Vec<Check>> = checks.collect::<anyhow::Result<_>>()?;
    let mut checks: Vec<Check> = checks.into_iter().flatten().collect();
    check::decide(&mut checks);
    checks.sort_by(|a, b| a.section.cmp(&b.section));
    let hold = checks.iter().filter(|check| check.holds == Agreement::Holds).count();
    Ok(Reproduced { seed, checks, hold })
}

/// The jobs of all sections.
pub fn jobs(effort: Effort) -> Vec<CheckJob> {
    let mut jobs = crate::literature::poisson::reproduce::jobs(effort);
    jobs.extend(crate::literature::disclosure::jobs(effort));
    jobs.extend(crate::literature::n_minus_one::jobs(effort));
    jobs.extend(crate::literature::flow_matching::jobs(effort));
    jobs.extend(crate::literature::records::jobs(effort));
    jobs.extend(crate::world::reproduce::jobs(effort));
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Estimate;

    #[test]
    fn a_row_that_fails_is_counted_and_named() {
        let jobs = [CheckJob::new("two", |seed| {
            let obtained = Estimate::exact(seed as f64);
            let check = |name| Check::within("2", name, 7.0, 0.5, obtained);
            Ok(vec![
                check("one"),
                Check { expected: 9.0, holds: Agreement::Fails, ..check("other") },
            ])
        })];
        let reproduced = run(&jobs, 7, &|_| ()).unwrap();
        assert!(!reproduced.all_hold());
        let mut text = Vec::new();
        reproduced.print(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.ends_with("1 of 2 rows hold\n"), "{text}");
        assert!(text.contains("DOES NOT HOLD"), "{text}");
    }
}
