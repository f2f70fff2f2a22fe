//! Results and packets as tables.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Values, Writer, write_atomic};
use crate::experiment::{Estimate, Measured, PacketRow};

/// One figure of one run, with what tells the run from others.
#[derive(Clone, PartialEq, Debug)]
pub struct ResultRow {
    /// Columns that tell runs apart, such as the keys of a sweep. The same in all rows.
    pub labels: Vec<(String, Value)>,
    /// Seed of the run.
    pub seed: u64,
    /// The figure that was measured.
    pub measured: Measured,
}

/// Writes rows: the labels, then seed, name, unit, value, low, high and expected (NaN where theory says nothing).
///
/// # Errors
/// The file cannot be written.
pub fn write_rows(path: &Path, rows: &[ResultRow]) -> anyhow::Result<()> {
    let mut columns: Vec<(String, Values)> = Vec::new();
    for (index, (name, _)) in rows.first().map_or(&[][..], |row| &row.labels).iter().enumerate() {
        let values =
            rows.iter().map(|row| row.labels.get(index).map_or(&Value::Null, |(_, value)| value));
        columns.push((name.clone(), label_column(values)));
    }
    let float = |value: fn(&Measured) -> f64| {
        Values::Float(rows.iter().map(|row| value(&row.measured)).collect())
    };
    let text = |value: fn(&Measured) -> &str| {
        Values::Text(rows.iter().map(|row| value(&row.measured).into()).collect())
    };
    let seeds = rows.iter().map(|row| row.seed as i64).collect();
    columns.push(("seed".into(), Values::Integer(seeds)));
    columns.push(("name".into(), text(|measured| &measured.name)));
    columns.push(("unit".into(), text(|measured| &measured.unit)));
    columns.push(("value".into(), float(|measured| measured.estimate.value)));
    columns.push(("low".into(), float(|measured| measured.estimate.low)));
    columns.push(("high".into(), float(|measured| measured.estimate.high)));
    columns.push(("expected".into(), float(|measured| measured.expected.unwrap_or(f64::NAN))));
    write_atomic(path, |file| {
        Writer::new(file, columns)?.finish()?;
        Ok(())
    })
}

/// Labels are whole numbers, numbers or text: the first of these that all of them are.
fn label_column<'a>(values: impl Iterator<Item = &'a Value> + Clone) -> Values {
    if let Some(whole) = values.clone().map(Value::as_i64).collect() {
        return Values::Integer(whole);
    }
    if let Some(numbers) = values.clone().map(Value::as_f64).collect() {
        return Values::Float(numbers);
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut seen: BTreeMap<String, Arc<str>> = BTreeMap::new();
    let one = |value| {
        let text: String = text(value);
        seen.entry(text.clone()).or_insert_with(|| text.into()).clone()
    };
    Values::Text(values.map(one).collect())
}

/// Writes the packets that runs followed: seed, sent_ns, delivered_ns, entropy_bits, corrupt_mixes.
///
/// # Errors
/// The file cannot be written.
pub fn write_packets<'a>(
    path: &Path,
    runs: impl Iterator<Item = (u64, &'a [PacketRow])>,
) -> anyhow::Result<()> {
    write_atomic(path, |file| {
        let columns = vec![
            ("seed".into(), Values::Integer(Vec::new())),
            ("sent_ns".into(), Values::Integer(Vec::new())),
            ("delivered_ns".into(), Values::Integer(Vec::new())),
            ("entropy_bits".into(), Values::Float(Vec::new())),
            ("corrupt_mixes".into(), Values::Integer(Vec::new())),
        ];
        let mut writer = Writer::new(file, columns)?;
        for (seed, packets) in runs {
            writer.push(vec![
                Values::Integer(vec![seed as i64; packets.len()]),
                Values::Integer(packets.iter().map(|packet| packet.sent as i64).collect()),
                Values::Integer(packets.iter().map(|packet| packet.delivered as i64).collect()),
                Values::Float(packets.iter().map(|packet| packet.entropy_bits).collect()),
                Values::Integer(packets.iter().map(|packet| packet.corrupt_mixes.into()).collect()),
            ])?;
        }
        writer.finish()?;
        Ok(())
    })
}

/// A figure as JSON. JSON has no infinities: they are written as text, what is no number as null.
pub fn measured_to_json(measured: &Measured) -> Value {
    let Estimate { value, low, high } = measured.estimate;
    let mut object = json!({
        "name": measured.name,
        "value": number(value),
        "low": number(low),
        "high": number(high),
        "unit": measured.unit,
    });
    if let (Some(expected), Some(object)) = (measured.expected, object.as_object_mut()) {
        object.insert("expected".into(), number(expected));
    }
    object
}

/// The figure that [`measured_to_json`] wrote.
///
/// # Errors
/// It is not such a figure.
pub fn measured_from_json(value: &Value) -> anyhow::Result<Measured> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let float = |key: &str| match value.get(key)? {
        Value::Null => Some(f64::NAN),
        Value::String(text) => text.parse().ok(),
        number => number.as_f64(),
    };
    let read = || {
        let estimate =
            Estimate { value: float("value")?, low: float("low")?, high: float("high")? };
        let (name, unit) = (text("name")?, text("unit")?);
        Some(Measured { name, unit, estimate, expected: float("expected") })
    };
    read().context("not a measured figure")
}

fn number(value: f64) -> Value {
    if value.is_infinite() { json!(value.to_string()) } else { json!(value) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_survives_json_whatever_its_value() {
        for value in [0.1, -1e-300, f64::INFINITY, f64::NEG_INFINITY, 1.0 / 3.0] {
            let estimate = Estimate { value, low: value, high: f64::INFINITY };
            let measured =
                Measured { name: "x".into(), unit: "bits".into(), estimate, expected: Some(value) };
            let text = measured_to_json(&measured).to_string();
            assert_eq!(
                measured_from_json(&serde_json::from_str(&text).unwrap()).unwrap(),
                measured
            );
        }
    }
}
