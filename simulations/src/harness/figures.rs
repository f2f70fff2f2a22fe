//! Figures as SVG and PNG, from plain numbers.
//!
//! The font is built in (DejaVu Sans), so that a figure looks the same on a machine without any; an SVG names
//! "sans-serif" and takes the reader's.

mod charts;
mod scoreboard;
mod timeline;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Once;

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::harness::output::write_atomic;
use crate::stats::Estimate;
use crate::trace::{Record, Truth};

/// Size of a figure, pixels.
const SIZE: (u32, u32) = (960, 600);

/// Colours that people with any kind of colour vision tell apart (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// How an axis runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// Equal steps are equally long.
    Linear,
    /// Equal factors; all values are above zero.
    Logarithmic,
}

/// Points with intervals over a parameter, joined by a line: entropy over cost, for one.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// The parameter and the estimate there; an estimate with no finite interval has no bar.
    pub points: Vec<(f64, Estimate)>,
}

/// What a figure shows. Labels carry their units.
#[derive(Clone, Debug)]
pub enum Figure {
    /// Curves over a parameter.
    Curves {
        /// Above the figure.
        title: String,
        /// The parameter, with its unit.
        x: String,
        /// How the parameter's axis runs.
        scale: Scale,
        /// What is estimated, with its unit.
        y: String,
        /// The curves, one for each value of the other parameters.
        curves: Vec<Curve>,
    },
    /// The share of values up to each value, beside what theory says: latency beside Erlang, for one.
    Distribution {
        /// Above the figure.
        title: String,
        /// What the values are, with their unit.
        x: String,
        /// Values, in any order.
        values: Vec<f64>,
        /// Name and points (value, share up to it) of the theory's curve.
        theory: Option<(String, Vec<(f64, f64)>)>,
    },
    /// Systems beside each other: what each attack reaches, and what the prior alone gives.
    Scoreboard {
        /// Above the figure.
        title: String,
        /// What is scored, with its unit.
        y: String,
        /// The attacks, in the order of each system's bars.
        attacks: Vec<String>,
        /// Name and bars of each system; an attack that does not apply has none.
        systems: Vec<(String, Vec<Option<Bar>>)>,
    },
    /// Call records as they were, above what an adversary reconstructed.
    Timeline {
        /// Above the figure.
        title: String,
        /// Number of people.
        people: u32,
        /// The observation, seconds.
        begin_s: f64,
        /// Its end, seconds.
        end_s: f64,
        /// What really happened.
        truth: Truth,
        /// What was reconstructed.
        reconstructed: Vec<Record>,
    },
}

/// What an attack reaches on a system.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bar {
    /// The score of the attack.
    pub score: Estimate,
    /// The score of a guess by the prior alone.
    pub prior: f64,
}

impl Figure {
    /// Draws it to `NAME.svg` and `NAME.png` in a directory; gives the names of the files.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, dir: &Path, name: &str) -> anyhow::Result<[String; 2]> {
        let files = [format!("{name}.svg"), format!("{name}.png")];
        let [svg, png] = &files;
        let text = self.svg()?;
        write_atomic(&dir.join(svg), |file| Ok(file.write_all(text.as_bytes())?))?;
        // The encoder knows the format by the name of the file, and writes to a path alone.
        let part = crate::harness::output::part(dir, ".png")?;
        self.draw(&BitMapBackend::new(part.path(), SIZE).into_drawing_area())?;
        let mut whole = File::open(part.path())?;
        write_atomic(&dir.join(png), |file| {
            std::io::copy(&mut whole, file)?;
            Ok(())
        })?;
        Ok(files)
    }

    /// Draws it as SVG.
    ///
    /// # Errors
    /// There is nothing that could be drawn: no finite value.
    pub fn svg(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        self.draw(&SVGBackend::with_string(&mut text, SIZE).into_drawing_area())?;
        Ok(text)
    }

    fn draw<DB>(&self, root: &DrawingArea<DB, Shift>) -> anyhow::Result<()>
    where
        DB: DrawingBackend,
        DB::ErrorType: 'static,
    {
        font();
        root.fill(&WHITE)?;
        let root = &root.margin(8, 0, 0, 10);
        match self {
            Self::Curves { title, x, scale, y, curves } => {
                charts::curves(root, [title, x, y], *scale, curves)?;
            }
            Self::Distribution { title, x, values, theory } => {
                charts::distribution(root, [title, x], values, theory.as_ref())?;
            }
            Self::Scoreboard { title, y, attacks, systems } => {
                scoreboard::draw(root, [title, y], attacks, systems)?;
            }
            Self::Timeline { title, people, begin_s, end_s, truth, reconstructed } => {
                let axes = (*people, *begin_s..*end_s);
                timeline::draw(root, title, axes, &truth.records, reconstructed)?;
            }
        }
        root.present().context("drawing")
    }
}

/// Gives the drawing library its font, once.
fn font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It fails on a font that is none; without a font a figure has no text, and nothing else is lost.
        let _ = plotters::style::register_font(
            "sans-serif",
            FontStyle::Normal,
            dejavu::sans::regular(),
        );
    });
}

fn colour(index: usize) -> RGBColor {
    COLOURS.iter().copied().cycle().nth(index).unwrap_or(BLACK)
}

#[cfg(test)]
#[path = "figures/tests.rs"]
mod tests;
