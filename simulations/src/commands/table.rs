//! Figures of several runs made one, and printed.

use std::io::{self, Write};

use crate::experiment::Measured;
use crate::stats;

/// One figure of each name: of several runs their mean, with the Student interval of the runs' values; of one run its own.
/// In the order of the first run that has it.
pub fn merge(runs: &[&[Measured]]) -> Vec<Measured> {
    if let [only] = runs {
        return only.to_vec();
    }
    let mut merged: Vec<Measured> = Vec::new();
    for measured in runs.iter().flat_map(|run| run.iter()) {
        if merged.iter().any(|done| done.name == measured.name) {
            continue;
        }
        let same =
            runs.iter().filter_map(|run| run.iter().find(|other| other.name == measured.name));
        let values: Vec<f64> = same.map(|other| other.estimate.value).collect();
        merged.push(Measured { estimate: stats::mean(&values), ..measured.clone() });
    }
    merged
}

/// A line for each figure: name, value, interval, unit, expected.
///
/// # Errors
/// Of the writer.
pub fn print_table(to: &mut dyn Write, measured: &[Measured]) -> io::Result<()> {
    let width = measured.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(4);
    writeln!(
        to,
        "{:width$}  {:>12}  {:27}  {:10}  expected",
        "name", "value", "95 % interval", "unit"
    )?;
    for row in measured {
        let interval = if row.estimate.low == row.estimate.high {
            "exact".into()
        } else {
            format!("{} to {}", number(row.estimate.low), number(row.estimate.high))
        };
        let expected = row.expected.map_or_else(String::new, number);
        let value = number(row.estimate.value);
        let line =
            format!("{:width$}  {value:>12}  {interval:27}  {:10}  {expected}", row.name, row.unit);
        writeln!(to, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Six figures that count.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if !size.is_finite() {
        return value.to_string();
    }
    if size != 0.0 && !(1e-4..1e9).contains(&size) {
        return format!("{value:.4e}");
    }
    let whole = if size < 1.0 { 0 } else { size.log10().floor() as usize + 1 };
    format!("{value:.*}", 6_usize.saturating_sub(whole))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::experiment::Estimate;

    fn measured(name: &str, value: f64) -> Measured {
        let estimate = Estimate { value, low: value - 9.0, high: value + 9.0 };
        Measured { name: name.into(), unit: "bits".into(), estimate, expected: Some(2.0) }
    }

    #[test]
    fn several_runs_give_their_mean_and_its_student_interval() {
        let runs = [1.0, 2.0, 3.0].map(|value| vec![measured("h", value)]);
        let merged = merge(&runs.each_ref().map(Vec::as_slice));
        let Estimate { value, low, high } = merged[0].estimate;
        // t with 2 degrees of freedom is 4.302653; the standard error is 1/√3.
        assert!((value - 2.0).abs() < 1e-12);
        assert!((high - low - 2.0 * 4.302_653 / 3f64.sqrt()).abs() < 1e-4, "{low} {high}");
    }

    #[test]
    fn numbers_have_six_figures_that_count() {
        let numbers = [0.0, 0.123_456_78, 12.345_678, 123_456.7, 1e-7, f64::INFINITY];
        let texts = numbers.map(number);
        assert_eq!(texts, ["0.000000", "0.123457", "12.3457", "123457", "1.0000e-7", "inf"]);
    }

    #[test]
    fn a_single_run_keeps_its_own_interval() {
        let run = [measured("h", 1.0), measured("g", 2.0)];
        assert_eq!(merge(&[&run]), run);
    }
}
