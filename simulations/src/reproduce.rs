//! `shoal-sim reproduce`: every published or exact number that the simulator must agree with, obtained beside
//! expected.

use std::io::{self, Write};

use anyhow::Context as _;
use rayon::prelude::*;
use serde::Serialize;

use crate::row::{self, Effort, Job, Judge, Row, Verdict};

/// All rows, in the order of their jobs.
#[derive(Debug, Serialize)]
pub struct Reproduced {
    /// What everything was drawn from.
    pub seed: u64,
    /// The rows, by their sections.
    pub rows: Vec<Row>,
    /// How many of them hold.
    pub hold: usize,
}

impl Reproduced {
    /// True if every row holds.
    pub fn all_hold(&self) -> bool {
        self.hold == self.rows.len()
    }

    /// A line for each row, and one for all.
    ///
    /// # Errors
    /// Of the writer.
    pub fn print(&self, to: &mut impl Write) -> io::Result<()> {
        let name_len = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        writeln!(
            to,
            "{:7}  {:name_len$}  {:>12}  {:>12}  {:25}  judged by",
            "section", "what", "expected", "obtained", "95 % interval",
        )?;
        for row in &self.rows {
            let judge = match row.judged_by {
                Judge::Test => format!("p = {:.3}", row.p.unwrap_or(f64::NAN)),
                Judge::Bound => "must lie below".into(),
                Judge::Tolerance => format!("± {}", number(row.tolerance)),
            };
            let interval = format!("{} to {}", number(row.obtained.low), number(row.obtained.high));
            let verdict = if row.holds == Verdict::Holds { "" } else { "  DOES NOT HOLD" };
            writeln!(
                to,
                "{:7}  {:name_len$}  {:>12}  {:>12}  {interval:25}  {judge}{verdict}",
                row.section,
                row.name,
                number(row.expected),
                number(row.obtained.value),
            )?;
        }
        writeln!(to, "{} of {} rows hold", self.hold, self.rows.len())
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

/// Runs jobs on all cores of the present pool of threads. The same seed gives the same rows, whatever their number.
///
/// # Errors
/// A job that did not end.
pub fn run(jobs: &[Job], seed: u64, done: &(dyn Fn(f64) + Sync)) -> anyhow::Result<Reproduced> {
    let ended = std::sync::atomic::AtomicUsize::new(0);
    let rows = jobs.par_iter().map(|job| {
        let rows = (job.run)(seed).with_context(|| format!("computing {}", job.name));
        let ended = 1 + ended.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        done(ended as f64 / jobs.len() as f64);
        rows
    });
    let rows: Vec<Vec<Row>> = rows.collect::<anyhow::Result<_>>()?;
    let mut rows: Vec<Row> = rows.into_iter().flatten().collect();
    row::decide(&mut rows);
    rows.sort_by(|a, b| a.section.cmp(&b.section));
    let hold = rows.iter().filter(|row| row.holds == Verdict::Holds).count();
    Ok(Reproduced { seed, rows, hold })
}

/// The jobs of all sections.
pub fn jobs(effort: Effort) -> Vec<Job> {
    let mut jobs = crate::bare::reproduce::jobs(effort);
    jobs.extend(crate::disclosure::jobs(effort));
    jobs.extend(crate::blending::jobs(effort));
    jobs.extend(crate::flows::jobs(effort));
    jobs.extend(crate::records::jobs(effort));
    jobs.extend(crate::world::reproduce::jobs(effort));
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Estimate;

    #[test]
    fn a_row_that_fails_is_counted_and_named() {
        let jobs = [Job::new("two", |seed| {
            let obtained = Estimate::exact(seed as f64);
            let row = |name| Row::within("2", name, 7.0, 0.5, obtained);
            Ok(vec![row("one"), Row { expected: 9.0, holds: Verdict::Fails, ..row("other") }])
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
