//! What a run leaves behind: a directory with a manifest, Parquet files and figures.

mod columns;
mod directory;
mod observation;
mod scoreboard;
mod tables;

pub use columns::{Column, Values, Writer, read_columns};
pub(crate) use directory::part;
pub use directory::{Foreign, OutputDirectory, write_atomic};
pub use observation::{read_truth, read_view, write_truth, write_view};
pub use scoreboard::{scoreboard_figure, write_scoreboard};
pub use tables::{ResultRow, measured_from_json, measured_to_json, write_packets, write_rows};
