//! Bars of attacks, grouped by system, with what the prior alone gives.

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::charts::{legend, short, titled};
use super::{Bar, colour};

/// Share of a group's width that bars take.
const FILLED: f64 = 0.8;

// Long: one drawing from the back to the front, whose steps share the chart and its scales.
/// `labels`: title, y.
pub(super) fn draw<DB>(
    root: &DrawingArea<DB, Shift>,
    labels: [&str; 2],
    attacks: &[String],
    systems: &[(String, Vec<Option<Bar>>)],
) -> anyhow::Result<()>
where
    DB: DrawingBackend,
    DB::ErrorType: 'static,
{
    let [title, y] = labels;
    let bars = systems.iter().flat_map(|(_, bars)| bars.iter().flatten());
    let ends = bars.flat_map(|bar| [bar.score.value, bar.score.high, bar.prior]);
    let high = ends.filter(|end| end.is_finite()).fold(f64::NEG_INFINITY, f64::max);
    if !high.is_finite() {
        return Err(anyhow::anyhow!("a scoreboard of no finite value"));
    }
    let high = if high > 0.0 { high } else { 1.0 };
    let root = titled(root, title)?;
    let across = -0.5..systems.len() as f64 - 0.5;
    let mut chart = ChartBuilder::on(&root)
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(66)
        // Room for the legend above the bars.
        .build_cartesian_2d(across, 0.0..high * (1.1 + 0.05 * attacks.len() as f64))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_desc(y)
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .y_label_formatter(&|at| short(*at))
        .draw()?;
    let width = FILLED / attacks.len().max(1) as f64;
    for (index, attack) in attacks.iter().enumerate() {
        let colour = colour(index);
        let column = systems.iter().enumerate().filter_map(|(group, (_, bars))| {
            let left = group as f64 - FILLED / 2.0 + index as f64 * width;
            bars.get(index).copied().flatten().map(|bar| (left, bar))
        });
        let column: Vec<(f64, Bar)> = column.collect();
        chart
            .draw_series(column.iter().map(|(left, bar)| {
                let corners = [(*left, 0.0), (left + width * 0.92, bar.score.value)];
                Rectangle::new(corners, colour.mix(0.85).filled())
            }))?
            .label(attack)
            .legend(move |(x, y)| {
                Rectangle::new([(x, y - 5), (x + 16, y + 5)], colour.mix(0.85).filled())
            });
        let bounded = column
            .iter()
            .filter(|(_, bar)| bar.score.low.is_finite() && bar.score.high.is_finite());
        chart.draw_series(bounded.map(|(left, bar)| {
            let (low, high) = (bar.score.low.max(0.0), bar.score.high);
            ErrorBar::new_vertical(
                left + width * 0.46,
                low,
                bar.score.value,
                high,
                BLACK.stroke_width(1),
                6,
            )
        }))?;
        let prior = BLACK.stroke_width(3);
        let lines = chart.draw_series(column.iter().map(|(left, bar)| {
            PathElement::new([(*left, bar.prior), (left + width * 0.92, bar.prior)], prior)
        }))?;
        if index + 1 == attacks.len() {
            lines
                .label("guess by the prior alone")
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], prior));
        }
    }
    let centred = Pos::new(HPos::Center, VPos::Top);
    let style = TextStyle::from(("sans-serif", 15).into_font()).pos(centred);
    for (group, (name, _)) in systems.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(group as f64, 0.0));
        // Coordinates of the backend are those of the whole figure; the area's own begin at its corner.
        let (left, top) = root.get_base_pixel();
        root.draw(&Text::new(name.as_str(), (x - left, y - top + 8), style.clone()))
            .context("a name")?;
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}
