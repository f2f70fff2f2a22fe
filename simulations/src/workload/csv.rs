//! The rows of a CSV file as people have them: columns by their names or in the usual order, three separators, quoted
//! cells, calendar times. What can be read in one way only is read; anything else is refused with what to change.

use std::borrow::Cow;

use super::columns::{Columns, Field, header};
use crate::delimited::{self, SEPARATORS, cells};

/// What a row records.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum What {
    /// A text message.
    Message,
    /// A call of so many seconds.
    Call(f64),
    /// A call that nobody took.
    Missed,
}

/// Latest time in a file, seconds: a century.
const LATEST_S: f64 = 3.2e9;
/// Longest call in a file, seconds: a year.
const LONGEST_S: f64 = 3.2e7;
/// Numbers that would be a century and more as seconds are time since 1970 in one of these units: the earliest (1973), the
/// latest, and how long the unit is.
const SINCE_1970: [(f64, f64, f64, &str); 3] = [
    (1e11, 3.2e12, 1e-3, "milliseconds"),
    (1e14, 3.2e15, 1e-6, "microseconds"),
    (1e17, 3.2e18, 1e-9, "nanoseconds"),
];
/// What tables write where a value is missing.
const MISSING: [&str; 7] = ["na", "n/a", "nan", "null", "none", "nil", "-"];

/// What a file says, before people are numbered.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    /// How it was read, where that is not obvious.
    pub(super) notes: Vec<String>,
}

/// A row with the ids of the file.
#[derive(Debug)]
pub(super) struct Row {
    /// Its line, from one.
    pub(super) line: usize,
    pub(super) time_s: f64,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) what: What,
}

/// What is wrong, and in which line, where it is one.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) line: Option<usize>,
    pub(super) why: String,
}

impl Wrong {
    pub(super) fn at(line: usize, why: impl Into<String>) -> Self {
        Self { line: Some(line), why: why.into() }
    }
}

/// A time as it stands in a cell.
#[derive(Clone, Copy, PartialEq, Debug)]
enum WrittenTime {
    /// A number of some unit.
    Number(f64),
    /// Seconds since 1970 by a date without a time zone, which is taken for UTC.
    Local(f64),
    /// The same with a zone.
    Zoned(f64),
}

/// Reads the text of a file.
pub(super) fn read(text: &str) -> Result<Table, Wrong> {
    let text = delimited::without_mark(text);
    if let Some(line) = delimited::lone_return(text) {
        let why = "lines end in a carriage return alone: save the file with the line ends of Unix or Windows";
        return Err(Wrong::at(line, why));
    }
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line)).peekable();
    let mut separator = None;
    // Excel's own first line.
    if let Some((_, first)) = lines.peek()
        && let Some(rest) = first.strip_prefix("sep=")
        && let Some(named) = rest.chars().next().filter(|c| SEPARATORS.contains(c))
    {
        separator = Some(named);
        lines.next();
    }
    let mut lines = lines.filter(|(_, line)| !line.trim().is_empty()).peekable();
    // Comments at the head.
    while lines.next_if(|(_, line)| line.trim_start().starts_with('#')).is_some() {}
    let Some((line, first)) = lines.peek().copied() else { return Ok(Table::default()) };
    let separator = match separator {
        Some(separator) => separator,
        None => find_separator(first).map_err(|why| Wrong::at(line, why))?,
    };
    let names = cells(first, separator).map_err(|why| Wrong::at(line, why))?;
    let columns = header(&names, looks_like_data).map_err(|why| Wrong::at(line, why))?;
    if columns.is_some() {
        lines.next();
    }
    let mut times = Vec::new();
    let mut table = Table::default();
    let in_order = Columns::in_order();
    for (line, text) in lines {
        let row = cells(text, separator)
            .and_then(|cells| row(line, &cells, columns.as_ref(), &in_order))
            .map_err(|why| {
                // The first line may be meant for a header.
                let first = columns.is_none() && times.is_empty();
                let or = "; or, if this line is a header, it must name the columns time, from, to and, for calls, duration";
                Wrong::at(line, if first { format!("{why}{or}") } else { why })
            })?;
        let (at, row) = row;
        times.push(at);
        table.rows.push(row);
    }
    let columns = columns.as_ref().unwrap_or(&in_order);
    table.notes.extend(columns.note.clone());
    in_seconds(&mut table, &times, columns)?;
    let calls = table.rows.iter().filter(|row| row.what != What::Message).count();
    let messages = table.rows.len() - calls;
    if calls > 0 && messages > 0 {
        table
            .notes
            .push(format!("{messages} rows without a duration are messages, {calls} are calls"));
    }
    Ok(table)
}

/// The separator that divides the first line into the cells of a row.
fn find_separator(line: &str) -> Result<char, String> {
    let fits = delimited::separators(line, 3);
    match fits.as_slice() {
        [one] => Ok(*one),
        [] => {
            // A quote that does not end hides the cells behind it.
            SEPARATORS.into_iter().try_for_each(|c| cells(line, c).map(|_| ()))?;
            let count = |separator| cells(line, separator).map_or(0, |cells| cells.len());
            let found = SEPARATORS.into_iter().map(count).max().unwrap_or(0);
            Err(format!(
                "must be time,from,to[,duration]; there are {found} cells, with commas, semicolons or tabs between them"
            ))
        }
        _ => Err("several characters may separate the cells here: use commas alone between cells, and a point \
                  in decimals (1.5, not 1,5)"
            .into()),
    }
}

/// True if a cell can be no name of a column.
fn looks_like_data(cell: &str) -> bool {
    clock(cell).is_some()
}

fn row(
    line: usize,
    cells: &[Cow<'_, str>],
    named: Option<&Columns>,
    in_order: &Columns,
) -> Result<(WrittenTime, Row), String> {
    match named {
        Some(columns) if cells.len() != columns.width => {
            return Err(format!(
                "there are {} cells, and {} columns in the header",
                cells.len(),
                columns.width
            ));
        }
        None if cells.len() > 4 => {
            return Err(format!(
                "must be time,from,to[,duration]; there are {} cells. Where a file has more, its first line must name the \
                 columns: time, from, to, duration and others, which are not used",
                cells.len()
            ));
        }
        None if cells.len() < 3 => {
            return Err(format!(
                "must be time,from,to[,duration]; there are {} cells",
                cells.len()
            ));
        }
        _ => {}
    }
    let columns = named.unwrap_or(in_order);
    let cell = |field: Field| columns.index(field).and_then(|at| cells.get(at)).map(Cow::as_ref);
    let text = cell(Field::Time).unwrap_or_default();
    let at = clock(text).ok_or_else(|| not_a_time(text))?;
    let (from, to) = (id(cell(Field::From), "from")?, id(cell(Field::To), "to")?);
    let what = what(cell(Field::Duration).unwrap_or_default(), columns.duration_s())?;
    Ok((at, Row { line, time_s: 0.0, from, to, what }))
}

fn not_a_time(text: &str) -> String {
    format!(
        "the time must be 0 to {LATEST_S} seconds, with a point in decimals, or a date and time as \
         2024-05-01T12:00:00Z, not {text:?}"
    )
}

fn id(cell: Option<&str>, name: &str) -> Result<String, String> {
    let text = cell.unwrap_or_default();
    if text.is_empty() || MISSING.contains(&text.to_lowercase().as_str()) {
        return Err(format!(
            "{name} is missing ({text:?}): give a number or a name, or leave the row out"
        ));
    }
    Ok(text.into())
}

/// What a duration makes of a row; without one it is a message.
fn what(text: &str, unit_s: f64) -> Result<What, String> {
    if text.is_empty() {
        return Ok(What::Message);
    }
    let seconds = match text.parse::<f64>() {
        Ok(-1.0) => return Ok(What::Missed),
        Ok(number) => number * unit_s,
        Err(_) => of_clock(text).unwrap_or(f64::NAN),
    };
    if (0.0..=LONGEST_S).contains(&seconds) {
        return Ok(What::Call(seconds));
    }
    Err(format!(
        "the duration must be 0 to {LONGEST_S} seconds, or h:mm:ss, or -1 for a missed call, or empty for a message, not \
         {text:?}"
    ))
}

/// A duration as h:mm:ss, in seconds.
fn of_clock(text: &str) -> Option<f64> {
    let mut parts = text.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = |text: &str| text.parse::<u32>().ok().map(f64::from);
    let (hours, minutes) = (whole(hours)?, whole(minutes).filter(|minutes| *minutes < 60.0)?);
    let seconds = seconds.parse::<f64>().ok().filter(|seconds| (0.0..60.0).contains(seconds))?;
    parts.next().is_none().then_some(hours * 3_600.0 + minutes * 60.0 + seconds)
}

/// A time in one of its forms.
fn clock(text: &str) -> Option<WrittenTime> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Some(WrittenTime::Number(number)),
        Ok(_) => None,
        Err(_) => super::calendar::seconds_since_1970(text).map(|(seconds, zoned)| {
            if zoned { WrittenTime::Zoned(seconds) } else { WrittenTime::Local(seconds) }
        }),
    }
}

/// Gives all rows their times, which must be of one form.
fn in_seconds(table: &mut Table, times: &[WrittenTime], columns: &Columns) -> Result<(), Wrong> {
    let Some(first) = times.first() else { return Ok(()) };
    let line = |index: usize| table.rows.get(index).map_or(0, |row| row.line);
    let form = std::mem::discriminant(first);
    if let Some(other) = times.iter().position(|at| std::mem::discriminant(at) != form) {
        let why = format!(
            "the time has another form than in line {}: all must be numbers, or all dates, with a time zone in all or none",
            line(0)
        );
        return Err(Wrong::at(line(other), why));
    }
    let number = |at: &WrittenTime| match *at {
        WrittenTime::Number(value) | WrittenTime::Local(value) | WrittenTime::Zoned(value) => value,
    };
    let most = times.iter().map(number).fold(0.0, f64::max);
    let mut unit_s = columns.time_s();
    if matches!(first, WrittenTime::Number(_)) && unit_s.is_none() && most > LATEST_S {
        let fits =
            |(earliest, latest, ..): &&(f64, f64, f64, &str)| (*earliest..=*latest).contains(&most);
        if let Some((earliest, _, length_s, name)) = SINCE_1970.iter().find(fits) {
            if let Some(other) = times.iter().position(|at| number(at) < *earliest) {
                let why = format!(
                    "the time here and the latest one, {most}, cannot have one unit: seconds are 0 to {LATEST_S}; \
                     a header may name another unit, as in time_ms,from,to"
                );
                return Err(Wrong::at(line(other), why));
            }
            let calls = table.rows.iter().any(|row| matches!(row.what, What::Call(_)));
            if calls && !columns.says_unit_of_duration() {
                let why = format!(
                    "times are {name} since 1970, and the unit of durations is not said: name the columns in a first \
                     line, as time_ms,from,to,duration_s"
                );
                return Err(Wrong { line: None, why });
            }
            table.notes.push(format!("times are read as {name} since 1970"));
            unit_s = Some(*length_s);
        }
    }
    if matches!(first, WrittenTime::Local(_)) {
        table.notes.push("dates without a time zone are read as UTC".into());
    }
    let unit_s = if matches!(first, WrittenTime::Number(_)) { unit_s.unwrap_or(1.0) } else { 1.0 };
    for (index, at) in times.iter().enumerate() {
        let seconds = number(at) * unit_s;
        let range = (0.0..=LATEST_S).contains(&seconds);
        let Some(row) = table.rows.get_mut(index) else { continue };
        if !range {
            let said = number(at);
            let why = format!("the time must be 0 to {LATEST_S} seconds, not {said}");
            return Err(Wrong::at(row.line, why));
        }
        row.time_s = seconds;
    }
    Ok(())
}

#[cfg(test)]
#[path = "csv/tests.rs"]
mod tests;
