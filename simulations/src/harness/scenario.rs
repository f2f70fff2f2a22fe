//! A scenario: a commented TOML file that says which experiment runs, with what seed and which settings.

mod explain;
mod kinds;
mod spans;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod toy;
mod wording;

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::experiment::{Experiment, Wrong};
pub use explain::{comments, explain};
pub use kinds::{Kind, experiments};
pub use spans::{KeySpan, KeySpans};

/// Keys of every scenario, whatever its experiment.
const COMMON: [&str; 4] = ["experiment", "seed", "runs", "title"];

/// Most runs of a scenario: what all of them found is kept until the last has ended.
const MOST_RUNS: u64 = 100_000;

/// A scenario that has been read and checked.
pub struct Scenario {
    /// One line for people; the experiment's description where the file gives none.
    pub title: String,
    /// The experiment that it asks for.
    pub kind: &'static Kind,
    /// Seed of the first run; the next ones have the numbers after it.
    pub seed: u64,
    /// How many runs, at least one.
    pub runs: u64,
    /// All settings of the experiment, defaults filled in.
    pub settings: Table,
    /// The experiment with its settings.
    pub experiment: Box<dyn Experiment>,
    /// The file as it was read.
    pub text: String,
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Scenario");
        debug.field("experiment", &self.kind.name).field("seed", &self.seed);
        debug.field("runs", &self.runs).field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A scenario that cannot be run: where it says something wrong, and what is allowed there. Exit code 78.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct BadScenario {
    /// The file that was read.
    pub file: PathBuf,
    /// Line and column, both from one, where a part of the file is to blame.
    pub position: Option<(usize, usize)>,
    /// The key, with its tables, where one is to blame.
    pub key: Option<String>,
    /// What is wrong, and what is allowed.
    pub what: String,
}

impl fmt::Display for BadScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.position {
            write!(f, ", line {line}, column {column}")?;
        }
        match &self.key {
            Some(key) => write!(f, ": {key}: {}", self.what),
            None => write!(f, ": {}", self.what),
        }
    }
}

/// The text of a scenario or grid.
///
/// # Errors
/// The file cannot be read: says which, and what to do.
pub fn read(file: &Path) -> Result<String, BadScenario> {
    std::fs::read_to_string(file).map_err(|error| BadScenario {
        file: file.into(),
        position: None,
        key: None,
        what: match error.kind() {
            std::io::ErrorKind::NotFound => "no such file; give the path of a scenario \
                 (simulations/scenarios/ has some), or write one from what \
                 `shoal-sim run --explain NAME` prints"
                .into(),
            std::io::ErrorKind::InvalidData => "not a text file in UTF-8".into(),
            _ => format!("cannot be read: {error}"),
        },
    })
}

/// Reads and checks a scenario of one of `kinds`.
///
/// # Errors
/// What is wrong with it, with line and column.
pub fn load(file: &Path, kinds: &'static [Kind]) -> Result<Scenario, BadScenario> {
    parse(file, read(file)?, kinds)
}

/// As [`load`], from text that was read from `file`.
///
/// # Errors
/// What is wrong with it, with line and column.
pub fn parse(file: &Path, text: String, kinds: &'static [Kind]) -> Result<Scenario, BadScenario> {
    let spans = spans(file, &text)?;
    let bad = |key: &str, what: String| BadScenario {
        file: file.into(),
        position: Some(spans.of_key(key).map_or((1, 1), |span| span.position(&text))),
        key: Some(key.into()),
        what,
    };
    let table = toml::from_str::<Table>(&text)
        .map_err(|error| syntax(file, &text, Some(&spans), &error))?;
    let names = || kinds.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
    let kind = match table.get("experiment") {
        Some(Value::String(name)) => {
            kinds.iter().find(|kind| kind.name == name).ok_or_else(|| {
                bad("experiment", format!("there is no {name:?}; one of: {}", names()))
            })?
        }
        Some(_) => return Err(bad("experiment", format!("must be a name: one of: {}", names()))),
        None => return Err(bad("experiment", format!("is missing; one of: {}", names()))),
    };
    let number = |key: &str, allowed: RangeInclusive<u64>| match table.get(key) {
        None => Ok(1),
        Some(Value::Integer(number)) if *number >= 0 && allowed.contains(&(*number as u64)) => {
            Ok(*number as u64)
        }
        Some(_) => {
            let (least, most) = (allowed.start(), allowed.end());
            Err(bad(key, format!("must be a whole number, {least} to {most}")))
        }
    };
    // The largest number that TOML has.
    let seed = number("seed", 0..=i64::MAX as u64)?;
    let runs = number("runs", 1..=MOST_RUNS)?;
    let title = match table.get("title") {
        None => kind.about.to_owned(),
        Some(Value::String(title)) => title.clone(),
        Some(_) => return Err(bad("title", "must be text".into())),
    };
    // The experiment's own settings: the same text with the common keys blanked, so that positions stay what they are.
    let own = spans.without(&text, &COMMON);
    let parsed = (kind.parse)(&own).map_err(|error| syntax(file, &text, Some(&spans), &error))?;
    parsed.experiment.check().map_err(|Wrong { key, other, why }| {
        // Of two keys that do not go together that which the file has: the other one is a default.
        let blamed = other.filter(|other| !spans.has(&key) && spans.has(other));
        bad(&blamed.unwrap_or(key), why)
    })?;
    Ok(Scenario {
        title,
        kind,
        seed,
        runs,
        settings: parsed.settings,
        experiment: parsed.experiment,
        text,
    })
}

/// The text of a TOML file as a table.
///
/// # Errors
/// It is not TOML.
pub fn table(file: &Path, text: &str) -> Result<Table, BadScenario> {
    toml::from_str(text).map_err(|error| syntax(file, text, None, &error))
}

/// Which parts of a TOML file its keys and values are.
///
/// # Errors
/// It is not TOML.
pub fn spans(file: &Path, text: &str) -> Result<KeySpans, BadScenario> {
    KeySpans::of(text).map_err(|error| syntax(file, text, None, &error))
}

/// Where a parser's error is, and what it says, on one line.
fn syntax(
    file: &Path,
    text: &str,
    spans: Option<&KeySpans>,
    error: &toml::de::Error,
) -> BadScenario {
    let at = error.span().map(|span| span.start);
    let key = at.zip(spans).and_then(|(at, spans)| spans.key_at(at));
    BadScenario {
        file: file.into(),
        position: at.map(|at| KeySpan::at(at).position(text)),
        key,
        what: wording::plain(error.message()),
    }
}

#[cfg(test)]
#[path = "scenario/tests.rs"]
mod tests;
