//! All results of a sweep in one file of each kind, and figures.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::{Grid, SweepArgs, result};
use crate::commands::{by_name, merge as merge_runs, print_table};
use crate::experiment::Measured;
use crate::harness::figures::{Curve, Figure, Scale};
use crate::harness::output::{OutputDirectory, ResultRow, measured_from_json, write_rows};

/// The results of all seeds at a point.
pub(super) struct Point {
    values: Map<String, Value>,
    merged: Vec<Measured>,
}

/// Merges; the same results give the same bytes.
pub(super) fn merge(dir: &OutputDirectory, grid: &Grid) -> anyhow::Result<Vec<Point>> {
    let mut rows = Vec::new();
    let mut points: BTreeMap<usize, Vec<Vec<Measured>>> = BTreeMap::new();
    let mut hashes: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for job in &grid.jobs {
        let value =
            result(dir.path(), job).with_context(|| format!("job {} has no result", job.number))?;
        let measured = value.get("measured").and_then(Value::as_array).context("no figures")?;
        let measured: Vec<Measured> =
            measured.iter().map(measured_from_json).collect::<Result<_, _>>()?;
        let labels: Vec<(String, Value)> = std::iter::once(("point".to_owned(), json!(job.point)))
            .chain(job.values(grid))
            .collect();
        rows.extend(measured.iter().map(|measured| ResultRow {
            labels: labels.clone(),
            seed: job.seed,
            measured: measured.clone(),
        }));
        points.entry(job.point).or_default().push(measured);
        hashes.entry(job.point).or_default().extend(value.get("trace_hash").cloned());
    }
    let mut merged = Vec::new();
    let mut values = Vec::new();
    for (number, runs) in &points {
        let runs: Vec<&[Measured]> = runs.iter().map(Vec::as_slice).collect();
        let job = grid.jobs.iter().find(|job| job.point == *number).context("a point of no job")?;
        let point = Point { values: job.values(grid), merged: merge_runs(&runs) };
        values.push(json!({
            "point": point.values,
            "runs": runs.len(),
            "trace_hashes": hashes.get(number),
            "measured": by_name(&point.merged),
        }));
        merged.push(point);
    }
    write_rows(&dir.path().join("results.parquet"), &rows)?;
    let all = json!({ "title": grid.title, "grid": grid.identity, "points": values });
    dir.write("results.json", |file| Ok(writeln!(file, "{all:#}")?))?;
    draw(dir, grid, &merged)?;
    Ok(merged)
}

/// Prints the figures of all points.
pub(super) fn print(to: &mut dyn Write, points: &[Point], args: &SweepArgs) -> anyhow::Result<()> {
    for point in points {
        if args.json {
            let line = json!({ "point": point.values, "measured": by_name(&point.merged) });
            writeln!(to, "{line}")?;
            continue;
        }
        let values: Vec<_> =
            point.values.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        writeln!(to, "{}", values.join(", "))?;
        print_table(to, &point.merged)?;
        writeln!(to)?;
    }
    Ok(())
}

/// Curves of every figure over the first key that has numbers, one for each combination of the others.
fn draw(dir: &OutputDirectory, grid: &Grid, points: &[Point]) -> anyhow::Result<()> {
    /// More curves than colours cannot be told apart.
    const CURVES: usize = 7;
    let number =
        |value: &toml::Value| value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
    let numeric = grid.axes.iter().find_map(|(key, values)| {
        let values: Vec<f64> = values.iter().map(number).collect::<Option<_>>()?;
        (values.len() > 1).then_some((key, values))
    });
    let Some((key, values)) = numeric else { return Ok(()) };
    let (low, high) = values
        .iter()
        .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(*value), high.max(*value)));
    let scale = if low > 0.0 && high / low > 20.0 { Scale::Logarithmic } else { Scale::Linear };
    let mut figures: BTreeMap<&str, (&str, BTreeMap<String, Curve>)> = BTreeMap::new();
    for point in points {
        let Some(x) = point.values.get(key).and_then(Value::as_f64) else { continue };
        let others: Vec<_> = point.values.iter().filter(|(other, _)| *other != key).collect();
        let name = others
            .iter()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect::<Vec<_>>()
            .join(", ");
        for measured in &point.merged {
            let (_, curves) =
                figures.entry(&measured.name).or_insert((&measured.unit, BTreeMap::new()));
            let curve = curves
                .entry(name.clone())
                .or_insert_with(|| Curve { name: name.clone(), points: Vec::new() });
            curve.points.push((x, measured.estimate));
        }
    }
    for (name, (unit, curves)) in figures {
        let curves: Vec<Curve> = curves.into_values().take(CURVES).collect();
        // What is never a finite number cannot be drawn.
        if !curves.iter().flat_map(|curve| &curve.points).any(|(_, at)| at.value.is_finite()) {
            continue;
        }
        let file: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let figure = Figure::Curves {
            title: format!("{}: {}", grid.title, name.replace('_', " ")),
            x: key.clone(),
            scale,
            y: format!("{}, {unit}", name.replace('_', " ")),
            curves,
        };
        std::fs::create_dir_all(dir.path().join("figures"))?;
        figure.save(&dir.path().join("figures"), &file)?;
    }
    Ok(())
}
