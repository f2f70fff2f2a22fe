//! Call records as they were, above what an adversary made of what it saw.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::charts::{short, titled};
use super::colour;
use crate::trace::Record;

/// How far a reconstructed start may be off, seconds: as the scores have it.
const START_S: f64 = 10.0;

/// `axes`: number of people, and the observation in seconds.
pub(super) fn draw<DB>(
    root: &DrawingArea<DB, Shift>,
    title: &str,
    axes: (u32, Range<f64>),
    truth: &[Record],
    reconstructed: &[Record],
) -> anyhow::Result<()>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    let root = titled(root, title)?;
    let (above, below) = root.split_vertically(root.dim_in_pixel().1 as i32 / 2);
    let right = |row: &Record| matches(row, truth);
    let hits = reconstructed.iter().filter(|row| right(row)).count();
    let shown = |row: &&Record| axes.1.contains(&row.start.as_secs_f64());
    let rows = truth.iter().filter(shown).map(|row| (*row, colour(0)));
    panel(&above, &format!("as it was: {} records", truth.len()), &axes, rows)?;
    let caption = format!(
        "reconstructed: {} records, {hits} of them right (pair, and start within {START_S} s)",
        reconstructed.len()
    );
    let rows = reconstructed.iter().filter(shown);
    let rows = rows.map(|row| (*row, if right(row) { colour(2) } else { colour(1) }));
    panel(&below, &caption, &axes, rows)
}

/// True if there was such a record.
fn matches(row: &Record, truth: &[Record]) -> bool {
    truth.iter().any(|record| {
        let off = record.start.as_secs_f64() - row.start.as_secs_f64();
        (record.caller, record.callee) == (row.caller, row.callee) && off.abs() <= START_S
    })
}

fn panel<DB>(
    area: &DrawingArea<DB, Shift>,
    caption: &str,
    axes: &(u32, Range<f64>),
    rows: impl Iterator<Item = (Record, RGBColor)>,
) -> anyhow::Result<()>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    let (people, time) = axes;
    // Hours, or minutes where there are few.
    let (unit, name) =
        if time.end - time.start > 7_200.0 { (3_600.0, "hours") } else { (60.0, "minutes") };
    let across = time.start / unit..(time.end / unit).max(time.start / unit + 1e-9);
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .caption(caption, ("sans-serif", 15))
        .x_label_area_size(38)
        .y_label_area_size(60)
        .build_cartesian_2d(across, -0.5..f64::from(*people).max(1.0) - 0.5)?;
    chart
        .configure_mesh()
        .x_desc(format!("time, {name}"))
        .y_desc("person, by number")
        .axis_desc_style(("sans-serif", 14))
        .label_style(("sans-serif", 12))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .x_label_formatter(&|at| short(*at))
        .y_label_formatter(&|at| short(*at))
        .draw()?;
    for (row, colour) in rows {
        let (start, end) =
            (row.start.as_secs_f64() / unit, (row.start.as_secs_f64() + row.duration_s) / unit);
        let (caller, callee) = (f64::from(row.caller), f64::from(row.callee));
        let joined = PathElement::new([(start, caller), (start, callee)], colour.mix(0.35));
        chart.draw_series([joined])?;
        let calls = [caller, callee]
            .map(|who| PathElement::new([(start, who), (end, who)], colour.stroke_width(2)));
        chart.draw_series(calls)?;
        // The callee's end has a dot: the direction of the call.
        chart.draw_series([Circle::new((start, callee), 2, colour.filled())])?;
    }
    Ok(())
}
