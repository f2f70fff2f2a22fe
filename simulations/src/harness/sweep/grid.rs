//! A grid: a scenario, keys with lists of values, and seeds.

use std::path::{Path, PathBuf};

use serde_json::{Map, json};
use toml::{Table, Value};

use crate::commands::VERSION;
use crate::harness::scenario::{self, BadScenario, Kind, Scenario};

/// Most jobs of a grid: each process that works on it checks all points first.
const MOST_JOBS: usize = 100_000;

/// Keys of a scenario that a grid has in another way.
const NOT_SWEPT: [&str; 3] = ["seed", "runs", "title"];

/// A grid that has been read, all its points checked.
pub struct Grid {
    /// One line for people.
    pub title: String,
    /// The swept keys and their values, in the order of the file; the last varies fastest.
    pub axes: Vec<(String, Vec<Value>)>,
    /// All jobs, numbered from zero: points in order, for each all seeds.
    pub jobs: Vec<Job>,
    /// What makes it this grid and no other.
    pub identity: serde_json::Value,
    file: PathBuf,
    base: Table,
    kinds: &'static [Kind],
}

/// A point of a grid and a seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// The number of the job, from 0.
    pub number: usize,
    /// Number of its point.
    pub point: usize,
    /// Which value of each axis.
    pub indices: Vec<usize>,
    /// The seed of its run.
    pub seed: u64,
}

impl Job {
    /// The swept keys and their values here.
    pub fn values(&self, grid: &Grid) -> Map<String, serde_json::Value> {
        let pairs = grid.axes.iter().zip(&self.indices);
        pairs
            .filter_map(|((key, values), index)| Some((key.clone(), json!(values.get(*index)?))))
            .collect()
    }
}

impl Grid {
    // Long: the keys of the file are checked one after the other, and each check needs what the ones before it read.
    /// Reads a grid and checks each of its points.
    ///
    /// # Errors
    /// What is wrong with the grid, its scenario or one of its points, with file, line and column.
    pub fn load(file: &Path, kinds: &'static [Kind]) -> Result<Self, BadScenario> {
        let text = scenario::read(file)?;
        let table: Table = scenario::table(file, &text)?;
        let spans = scenario::spans(file, &text)?;
        let bad = |key: &str, what: String| BadScenario {
            file: file.into(),
            position: Some(spans.of_key(key).map_or((1, 1), |span| span.position(&text))),
            key: Some(key.into()),
            what,
        };
        const KEYS: [&str; 5] = ["title", "base", "scenario", "sweep", "seeds"];
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(bad(key, format!("unknown key; one of: {}", KEYS.join(", "))));
        }
        let base = match (table.get("base"), table.get("scenario")) {
            (Some(Value::String(base)), None) => {
                let base = file.parent().unwrap_or(Path::new("")).join(base);
                let text = scenario::load(&base, kinds)?.text;
                scenario::table(&base, &text)?
            }
            (None, Some(Value::Table(inline))) => inline.clone(),
            (Some(_), None) => return Err(bad("base", "must be the path of a scenario".into())),
            (None, Some(_)) => return Err(bad("scenario", "must be a table: a scenario".into())),
            _ => {
                let what = "either this or a table [scenario] is needed: what is swept";
                return Err(bad("base", what.into()));
            }
        };
        let mut axes = Vec::new();
        match table.get("sweep") {
            Some(Value::Table(sweep)) => flatten(sweep, "", &mut axes).map_err(|key| {
                bad(&format!("sweep.{key}"), "must be a list of values, not empty".into())
            })?,
            Some(_) => {
                return Err(bad("sweep", "must be a table of keys with lists of values".into()));
            }
            None => {}
        }
        if let Some((key, _)) = axes.iter().find(|(key, _)| NOT_SWEPT.contains(&key.as_str())) {
            let what = "cannot be swept; the grid's own `seeds` and `title` take its place".into();
            return Err(bad(&format!("sweep.{key}"), what));
        }
        // The order of the file, which the table has lost.
        axes.sort_by_key(|(key, _)| spans.of_key(&format!("sweep.{key}")).map(|span| span.start()));
        let mut grid = Self {
            title: String::new(),
            axes,
            jobs: Vec::new(),
            identity: serde_json::Value::Null,
            file: file.into(),
            base,
            kinds,
        };
        let blame = |error: BadScenario| {
            let key = error.key.clone().unwrap_or_default();
            let swept = grid
                .axes
                .iter()
                .any(|(axis, _)| *axis == key || key.starts_with(&format!("{axis}.")));
            let prefix = if swept { "sweep" } else { "scenario" };
            bad(&format!("{prefix}.{key}"), error.what)
        };
        let all = |more: usize| {
            let axes = grid.axes.iter().map(|(_, values)| values.len());
            axes.chain([more]).try_fold(1usize, usize::checked_mul).filter(|all| *all <= MOST_JOBS)
        };
        let too_many = |key: &str| {
            bad(key, format!("more than {MOST_JOBS} jobs, points times seeds: make several grids"))
        };
        if all(1).is_none() {
            return Err(too_many("sweep"));
        }
        let points = points(&grid.axes);
        let mut first = None;
        for point in &points {
            let scenario = grid.at(point).map_err(blame)?;
            first.get_or_insert(scenario);
        }
        let Some(first) = first else { return Err(bad("sweep", "has no points".into())) };
        let seeds = match table.get("seeds") {
            None => (0..first.runs).map(|run| first.seed.wrapping_add(run)).collect(),
            Some(Value::Array(seeds)) if !seeds.is_empty() => seeds
                .iter()
                .map(|seed| seed.as_integer().and_then(|seed| u64::try_from(seed).ok()))
                .collect::<Option<Vec<u64>>>()
                .ok_or_else(|| bad("seeds", "must be whole numbers from 0 on".into()))?,
            Some(_) => {
                return Err(bad("seeds", "must be a list of whole numbers, not empty".into()));
            }
        };
        if all(seeds.len()).is_none() {
            return Err(too_many("seeds"));
        }
        grid.title = match table.get("title") {
            None => first.title.clone(),
            Some(Value::String(title)) => title.clone(),
            Some(_) => return Err(bad("title", "must be text".into())),
        };
        grid.identity = json!({
            "experiment": first.kind.name,
            "first_point": first.settings,
            "sweep": grid.axes,
            "seeds": seeds,
            "version": VERSION,
        });
        for (point, indices) in points.into_iter().enumerate() {
            for seed in &seeds {
                let number = grid.jobs.len();
                grid.jobs.push(Job { number, point, indices: indices.clone(), seed: *seed });
            }
        }
        Ok(grid)
    }

    /// The scenario of a job.
    ///
    /// # Errors
    /// It cannot be: never for a job of this grid.
    pub fn scenario(&self, job: &Job) -> Result<Scenario, BadScenario> {
        self.at(&job.indices)
    }

    fn at(&self, indices: &[usize]) -> Result<Scenario, BadScenario> {
        let mut table = self.base.clone();
        for ((key, values), index) in self.axes.iter().zip(indices) {
            if let Some(value) = values.get(*index) {
                set(&mut table, key, value.clone());
            }
        }
        scenario::parse(&self.file, table.to_string(), self.kinds)
    }
}

/// Lists by dotted key; an error is the key whose value is none.
fn flatten(
    table: &Table,
    prefix: &str,
    axes: &mut Vec<(String, Vec<Value>)>,
) -> Result<(), String> {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => flatten(inner, &format!("{key}."), axes)?,
            Value::Array(values) if !values.is_empty() => axes.push((key, values.clone())),
            _ => return Err(key),
        }
    }
    Ok(())
}

/// Sets a dotted key, making tables on the way.
fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.into(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Table::new().into());
            // A value where a table should be: the scenario's check will say so of this key.
            if !inner.is_table() {
                *inner = Table::new().into();
            }
            if let Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

/// All combinations of values of the axes; the last varies fastest.
fn points(axes: &[(String, Vec<Value>)]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for (_, values) in axes {
        let longer = |point: &Vec<usize>| {
            let point = point.clone();
            (0..values.len()).map(move |index| point.iter().copied().chain([index]).collect())
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}
