//! Columns of a CSV file by their names.

use std::borrow::Cow;

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    Time,
    From,
    To,
    Duration,
}

const FIELDS: [(Field, &str, &[&str]); 4] = [
    (
        Field::Time,
        "time",
        &[
            "time",
            "timestamp",
            "t",
            "ts",
            "at",
            "when",
            "date",
            "datetime",
            "date_time",
            "start",
            "start_time",
            "begin",
            "call_time",
            "event_time",
            "unix_time",
            "unixtime",
            "unix_timestamp",
            "epoch",
            "time_stamp",
        ],
    ),
    (
        Field::From,
        "from",
        &[
            "from",
            "caller",
            "sender",
            "source",
            "src",
            "a",
            "user_a",
            "usera",
            "person_a",
            "party_a",
            "number_a",
            "from_id",
            "caller_id",
            "sender_id",
            "source_id",
            "from_user",
            "user_from",
            "initiator",
            "origin",
            "user1",
            "user_1",
            "i",
            "u",
            "calling",
            "calling_number",
        ],
    ),
    (
        Field::To,
        "to",
        &[
            "to",
            "callee",
            "recipient",
            "receiver",
            "target",
            "dst",
            "dest",
            "destination",
            "b",
            "user_b",
            "userb",
            "person_b",
            "party_b",
            "number_b",
            "to_id",
            "callee_id",
            "recipient_id",
            "receiver_id",
            "target_id",
            "to_user",
            "user_to",
            "user2",
            "user_2",
            "j",
            "v",
            "called",
            "called_number",
        ],
    ),
    (
        Field::Duration,
        "duration",
        &["duration", "dur", "call_duration", "duration_of_call", "length", "call_length"],
    ),
];

/// Ends of names that say a unit, and its length in seconds.
const UNITS: [(&str, f64); 12] = [
    ("_seconds", 1.0),
    ("_second", 1.0),
    ("_secs", 1.0),
    ("_sec", 1.0),
    ("_s", 1.0),
    ("_milliseconds", 1e-3),
    ("_millis", 1e-3),
    ("_msec", 1e-3),
    ("_ms", 1e-3),
    ("_us", 1e-6),
    ("_ns", 1e-9),
    ("_minutes", 60.0),
];

const ALLOWED: &str =
    "allowed are time, from, to and, for calls, duration, in any order (or time_ms, duration_ms)";

/// Where the columns stand.
#[derive(Debug)]
pub(super) struct Columns {
    indices: [Option<usize>; 4],
    units_s: [Option<f64>; 4],
    /// How many a row has.
    pub(super) width: usize,
    /// What of the file is not used.
    pub(super) note: Option<String>,
}

impl Columns {
    /// Those of a file without a header: time, from, to, duration.
    pub(super) fn in_order() -> Self {
        Self {
            indices: [Some(0), Some(1), Some(2), Some(3)],
            units_s: [None; 4],
            width: 0,
            note: None,
        }
    }

    /// Which column holds this.
    pub(super) fn index(&self, field: Field) -> Option<usize> {
        self.indices.get(field as usize).copied().flatten()
    }

    fn unit_s(&self, field: Field) -> Option<f64> {
        self.units_s.get(field as usize).copied().flatten()
    }

    /// The unit of times in seconds, where the header says it.
    pub(super) fn time_s(&self) -> Option<f64> {
        self.unit_s(Field::Time)
    }

    /// The unit of durations in seconds.
    pub(super) fn duration_s(&self) -> f64 {
        self.unit_s(Field::Duration).unwrap_or(1.0)
    }

    /// True if the header says it.
    pub(super) fn says_unit_of_duration(&self) -> bool {
        self.unit_s(Field::Duration).is_some()
    }
}

/// The columns that a first line names; none if it is no header, but a row.
///
/// # Errors
/// It is a header, and has not the columns that are needed, or others: says which are allowed.
pub(super) fn header(
    names: &[Cow<'_, str>],
    looks_like_data: impl Fn(&str) -> bool,
) -> Result<Option<Columns>, String> {
    let known: Vec<_> = names.iter().map(|name| field(name)).collect();
    if known.iter().all(Option::is_none) || names.iter().any(|name| looks_like_data(name)) {
        return Ok(None);
    }
    let found = || names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let mut columns =
        Columns { indices: [None; 4], units_s: [None; 4], width: names.len(), note: None };
    let mut unused = Vec::new();
    for (at, (name, known)) in names.iter().zip(&known).enumerate() {
        let Some((field, unit_s)) = *known else {
            // A column of row numbers, as tables are written by pandas.
            if !name.is_empty() && !name.starts_with("Unnamed:") {
                unused.push(name.as_ref());
            }
            continue;
        };
        let index = columns.indices.get_mut(field as usize);
        if let Some(first) = index.as_ref().and_then(|index| **index) {
            let first = names.get(first).map_or("", |name| name.as_ref());
            return Err(format!(
                "the columns {first:?} and {name:?} both give the {}: keep one",
                said(field)
            ));
        }
        if let (Some(index), Some(unit)) = (index, columns.units_s.get_mut(field as usize)) {
            *index = Some(at);
            *unit = unit_s;
        }
    }
    for (field, name, _) in FIELDS {
        if field != Field::Duration && columns.index(field).is_none() {
            return Err(format!("the header has no column {name}, it has {}; {ALLOWED}", found()));
        }
    }
    match (unused.first(), columns.index(Field::Duration)) {
        (Some(unknown), None) => Err(format!(
            "the column {unknown:?} is not known; {ALLOWED}. Call it duration if it is that, or leave it out"
        )),
        (Some(_), Some(_)) => {
            columns.note = Some(format!("not used of the file: {}", unused.join(", ")));
            Ok(Some(columns))
        }
        (None, _) => Ok(Some(columns)),
    }
}

fn said(field: Field) -> &'static str {
    FIELDS.iter().find(|(other, ..)| *other == field).map_or("", |(_, name, _)| name)
}

/// What a column of this name holds, and the unit that the name says, in seconds.
fn field(name: &str) -> Option<(Field, Option<f64>)> {
    let words = name.to_lowercase();
    let words: Vec<&str> =
        words.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let name = words.join("_");
    let is = |name: &str| {
        FIELDS.iter().find(|(_, _, names)| names.contains(&name)).map(|(field, ..)| *field)
    };
    if let Some(field) = is(&name) {
        return Some((field, None));
    }
    let (base, unit_s) =
        UNITS.iter().find_map(|(end, unit_s)| Some((name.strip_suffix(end)?, *unit_s)))?;
    let field = is(base)?;
    matches!(field, Field::Time | Field::Duration).then_some((field, Some(unit_s)))
}
