//! Curves with intervals, and distributions.

use std::ops::Range;

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::{Curve, Scale, colour};

type Chart<'a, DB, X> = ChartContext<'a, DB, Cartesian2d<X, RangedCoordf64>>;

/// The title of a figure above the rest of it.
pub(super) fn titled<DB>(
    root: &DrawingArea<DB, Shift>,
    title: &str,
) -> anyhow::Result<DrawingArea<DB, Shift>>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    // Long titles are made smaller rather than cut.
    let size = (1_500.0 / title.chars().count().max(1) as f64).clamp(11.0, 20.0);
    Ok(root.titled(title, ("sans-serif", size))?)
}

/// Curves over a parameter. `labels`: title, x, y.
pub(super) fn curves<DB>(
    root: &DrawingArea<DB, Shift>,
    labels: [&str; 3],
    scale: Scale,
    curves: &[Curve],
) -> anyhow::Result<()>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    let [title, x, y] = labels;
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let ends = points().flat_map(|(_, at)| [at.value, at.low, at.high]);
    let high = wide(ends, Some(0.0)).context("a figure of no finite value")?;
    let positive = points().map(|(at, _)| *at).filter(|at| scale == Scale::Linear || *at > 0.0);
    let across = wide(positive, None).context("a figure over no parameter")?;
    let root = titled(root, title)?;
    let mut builder = ChartBuilder::on(&root);
    builder.margin(14).x_label_area_size(44).y_label_area_size(66);
    match scale {
        Scale::Linear => {
            let mut chart = builder.build_cartesian_2d(across, high)?;
            mesh(&mut chart, x, y)?;
            draw_curves(&mut chart, curves)
        }
        Scale::Logarithmic => {
            let least =
                points().map(|(at, _)| *at).filter(|at| *at > 0.0).fold(f64::INFINITY, f64::min);
            let across = (least / 1.1..across.end * 1.05).log_scale();
            let mut chart = builder.build_cartesian_2d(across, high)?;
            mesh(&mut chart, x, y)?;
            draw_curves(&mut chart, curves)
        }
    }
}

fn mesh<'a, DB, X>(chart: &mut Chart<'a, DB, X>, x: &str, y: &str) -> anyhow::Result<()>
where
    DB: DrawingBackend + 'a,
    DB::ErrorType: 'static,
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_label_formatter(&|at| short(*at))
        .y_label_formatter(&|at| short(*at))
        .draw()?;
    Ok(())
}

fn draw_curves<'a, DB, X>(chart: &mut Chart<'a, DB, X>, curves: &[Curve]) -> anyhow::Result<()>
where
    DB: DrawingBackend + 'a,
    DB::ErrorType: 'static,
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    for (index, curve) in curves.iter().enumerate() {
        let colour = colour(index);
        let seen = curve.points.iter().filter(|(x, at)| x.is_finite() && at.value.is_finite());
        let line = seen.clone().map(|(x, at)| (*x, at.value));
        chart
            .draw_series(LineSeries::new(line.clone(), colour.stroke_width(2)))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(2)));
        chart.draw_series(line.map(|point| Circle::new(point, 4, colour.filled())))?;
        let bars =
            seen.filter(|(_, at)| at.low.is_finite() && at.high.is_finite() && at.low < at.high);
        chart.draw_series(bars.map(|(x, at)| {
            ErrorBar::new_vertical(*x, at.low, at.value, at.high, colour.stroke_width(1), 8)
        }))?;
    }
    if curves.len() > 1 || curves.iter().any(|curve| !curve.name.is_empty()) {
        legend(chart, SeriesLabelPosition::UpperLeft)?;
    }
    Ok(())
}

/// The share of `values` up to each of them. `labels`: title, x.
pub(super) fn distribution<DB>(
    root: &DrawingArea<DB, Shift>,
    labels: [&str; 2],
    values: &[f64],
    theory: Option<&(String, Vec<(f64, f64)>)>,
) -> anyhow::Result<()>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    /// More points than pixels say nothing.
    const POINTS: usize = 1_000;
    let [title, x] = labels;
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    let stride = n.div_ceil(POINTS).max(1);
    let kept = |index: &usize| index.is_multiple_of(stride) || *index + 1 == n;
    let share = |index: usize| (index + 1) as f64 / n as f64;
    let steps: Vec<(f64, f64)> = sorted
        .iter()
        .enumerate()
        .filter(|(index, _)| kept(index))
        .map(|(index, value)| (*value, share(index)))
        .collect();
    // The longest tail would leave the rest no room: the axis ends at the 99.9th percentile.
    let end = sorted.get((n * 999 / 1_000).min(n.saturating_sub(1))).copied();
    let ends = sorted.first().copied().into_iter().chain(end);
    let across = wide(ends, Some(0.0)).context("a figure of no finite value")?;
    let root = titled(root, title)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(66)
        .build_cartesian_2d(across.clone(), 0.0..1.02)?;
    mesh(&mut chart, x, "share up to there")?;
    let within = |point: &(f64, f64)| across.contains(&point.0);
    let measured = colour(0);
    chart
        .draw_series(LineSeries::new(steps.into_iter().filter(within), measured.stroke_width(3)))?
        .label(format!("measured, n = {n}"))
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], measured.stroke_width(3)));
    if let Some((name, points)) = theory {
        let style = BLACK.stroke_width(1);
        chart
            .draw_series(LineSeries::new(points.iter().copied().filter(within), style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
    }
    legend(&mut chart, SeriesLabelPosition::LowerRight)
}

/// The legend, over the figure.
pub(super) fn legend<'a, DB, X>(
    chart: &mut Chart<'a, DB, X>,
    position: SeriesLabelPosition,
) -> anyhow::Result<()>
where
    DB: DrawingBackend + 'a,
    DB::ErrorType: 'static,
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;
    Ok(())
}

/// From the least to the most of the finite values, with room around; with `base` in it where it is not far.
fn wide(values: impl Iterator<Item = f64>, base: Option<f64>) -> Option<Range<f64>> {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high {
        return None;
    }
    let (low, high) = match base {
        // An axis that begins near zero begins at zero.
        Some(base) if low >= base && low - base < high - low => (base, high),
        _ => (low, high),
    };
    let room = if high > low { (high - low) * 0.05 } else { high.abs().max(1.0) * 0.05 };
    let low = if base == Some(low) { low } else { low - room };
    Some(low..high + room)
}

/// A number on an axis, as short as it can be.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e5).contains(&size) {
        return format!("{value:.0e}");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
