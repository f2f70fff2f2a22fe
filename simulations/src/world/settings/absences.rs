//! Who is not there for a time.

use serde::{Deserialize, Serialize};

use super::check::within;
use crate::experiment::Wrong;

/// People whose programs are off for a time. They come back with what their programs keep on disk: keys, what they opened
/// with them, and letters that have not left.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Absence {
    /// Whose, by number.
    pub people: Vec<u32>,
    /// From when on, seconds of the observation.
    #[serde(default)]
    pub begin_s: f64,
    /// Until when, seconds of the observation.
    pub end_s: f64,
}

impl Absence {
    /// Checks it; it is this one of its tables, from zero.
    pub(super) fn check(&self, number: usize) -> Result<(), Wrong> {
        let key = |name: &str| format!("absences.{}.{name}", number + 1);
        within(&key("begin_s"), self.begin_s, 0.0, 1e9)?;
        within(&key("end_s"), self.end_s, 0.0, 1e9)?;
        if self.end_s < self.begin_s {
            return Err(Wrong::new(&key("end_s"), "must not be before begin_s of its table"));
        }
        Ok(())
    }
}
