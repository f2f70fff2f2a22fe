//! Recorded calls and messages: a CSV of (time, from, to[, duration]).

use std::collections::BTreeMap;
use std::path::Path;

use shoal_topology::Time;

use super::csv::What;
use super::{Activity, Workload, csv};

/// Calls of the Copenhagen Networks Study, in the program itself so that it needs no file.
const CALLS: &str = include_str!("../../data/cns/calls.csv");
/// Its text messages.
const MESSAGES: &str = include_str!("../../data/cns/sms.csv");

/// A row of a recorded list.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Entry {
    /// When it happened, since the beginning of the list.
    pub at: Time,
    /// Who calls or writes.
    pub from: u32,
    /// Who is called or written to.
    pub to: u32,
    /// What the row records.
    pub what: What,
}

/// What becomes of missed calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// They are calls of 0 s: the ringing still sends packets.
    Keep,
    /// They are left out.
    Drop,
}

/// A file of records that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRecords {
    /// The file itself.
    #[error("{file}: {why}")]
    File {
        /// The file's path.
        file: String,
        /// What the system says.
        why: String,
    },
    /// A line of it.
    #[error("{file}, line {line}: {why}")]
    Line {
        /// The file's path.
        file: String,
        /// Which line, from one.
        line: usize,
        /// What is allowed.
        why: String,
    },
}

/// Records in order of time; users are numbered from zero in order of their ids in the file.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Recorded {
    /// The id of each user in the file.
    pub ids: Vec<String>,
    /// The rows, in order of time.
    pub entries: Vec<Entry>,
    /// When the records end; they begin at zero.
    pub end: Time,
    /// How a file was read, where that is not obvious: for people.
    pub notes: Vec<String>,
}

/// The ids of a file in their order: by number where all are whole numbers, else by their text.
///
/// # Errors
/// The first row where they are of two kinds, and what to do.
fn ids(table: &mut csv::Table) -> Result<Vec<String>, csv::Wrong> {
    let whole = |id: &str| {
        // Tables with a missing value somewhere write whole numbers with a point.
        let id = id.strip_suffix(".0").unwrap_or(id);
        id.parse::<u64>().ok()
    };
    let is_hex = |id: &str| {
        let digits = id.strip_prefix("0x").or(id.strip_prefix("0X")).unwrap_or(id);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let all = || {
        table.rows.iter().flat_map(|row| [(row.line, "from", &row.from), (row.line, "to", &row.to)])
    };
    let length = all().next().map_or(0, |(_, _, id)| id.len());
    let (numbers, hex) = (
        all().all(|(.., id)| whole(id).is_some()),
        all().all(|(.., id)| is_hex(id) && id.len() == length),
    );
    if !numbers && !hex {
        let number = |(_, _, id): &(usize, &str, &String)| whole(id).is_some();
        let named = |found: &(usize, &str, &String)| !number(found);
        if let (Some(number), Some((line, name, id))) = (all().find(number), all().find(named)) {
            let why = format!(
                "{name} must be a whole number, as in line {}, not {id:?}; ids are all whole numbers or all names, so put a \
                 letter before the numbers where both are meant",
                number.0
            );
            return Err(csv::Wrong::at(line, why));
        }
    }
    for row in &mut table.rows {
        for id in [&mut row.from, &mut row.to] {
            match whole(id) {
                Some(number) if numbers => *id = number.to_string(),
                _ if hex => id.make_ascii_lowercase(),
                _ => {}
            }
        }
    }
    if let Some(row) = table.rows.iter().find(|row| row.from == row.to) {
        return Err(csv::Wrong::at(
            row.line,
            format!("from and to must differ; both are {}", row.from),
        ));
    }
    let mut ids: Vec<String> =
        table.rows.iter().flat_map(|row| [row.from.clone(), row.to.clone()]).collect();
    if numbers {
        ids.sort_unstable_by_key(|id| whole(id));
    } else {
        ids.sort_unstable();
    }
    ids.dedup();
    Ok(ids)
}

impl Recorded {
    /// Reads the text of a CSV, whose columns stand in the order time, from, to, duration or are named in a first line;
    /// `file` is its name in errors. Rows need not be in order.
    ///
    /// # Errors
    /// The first line that is wrong, and what is allowed there.
    pub fn parse(text: &str, file: &str) -> Result<Self, BadRecords> {
        let wrong = |csv::Wrong { line, why }| match line {
            Some(line) => BadRecords::Line { file: file.into(), line, why },
            None => BadRecords::File { file: file.into(), why },
        };
        let mut table = csv::read(text).map_err(wrong)?;
        if table.rows.is_empty() {
            let why = "there must be at least one row of time,from,to[,duration]".into();
            return Err(BadRecords::File { file: file.into(), why });
        }
        let ids = ids(&mut table).map_err(wrong)?;
        table.rows.sort_by(|a, b| a.time_s.total_cmp(&b.time_s));
        let numbers: BTreeMap<&str, u32> = ids.iter().map(String::as_str).zip(0..).collect();
        let number = |id: &str| numbers.get(id).copied().unwrap_or_default();
        let entry = |row: &csv::Row| Entry {
            at: Time::from_nanos((row.time_s * 1e9).round() as u64),
            from: number(&row.from),
            to: number(&row.to),
            what: row.what,
        };
        let entries: Vec<Entry> = table.rows.iter().map(entry).collect();
        let last = entries.last().map_or(Time::ZERO, |entry| entry.at);
        let end = last + std::time::Duration::from_secs(1);
        Ok(Self { ids, entries, end, notes: table.notes })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or the first line that is wrong.
    pub fn read(path: &Path) -> Result<Self, BadRecords> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &file),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let why = "is no text in UTF-8: save it as CSV in UTF-8".into();
                Err(BadRecords::File { file, why })
            }
            Err(error) => Err(BadRecords::File { file, why: error.to_string() }),
        }
    }

    /// The calls of the Copenhagen Networks Study: 3,600 among 536 users in 28 days.
    ///
    /// # Errors
    /// None, unless the copy in the program was changed.
    pub fn copenhagen_calls() -> Result<Self, BadRecords> {
        Self::parse(CALLS, "data/cns/calls.csv")
    }

    /// Its text messages: 24,333 among 568 users.
    ///
    /// # Errors
    /// None, unless the copy in the program was changed.
    pub fn copenhagen_messages() -> Result<Self, BadRecords> {
        Self::parse(MESSAGES, "data/cns/sms.csv")
    }

    /// Number of users.
    pub fn people(&self) -> u32 {
        self.ids.len() as u32
    }

    /// The first of the windows of `length_s` seconds, beginning at multiples of `step_s`, that hold the most rows:
    /// its beginning, seconds.
    pub fn busiest(&self, length_s: u64, step_s: u64) -> u64 {
        let (length, step) = (length_s.max(1) as f64, step_s.max(1));
        let rows_before = |s: f64| self.entries.partition_point(|e| e.at.as_secs_f64() < s);
        let begins = (0..=self.end.as_secs_f64() as u64 / step).map(|index| index * step);
        let rows = |begin: u64| rows_before(begin as f64 + length) - rows_before(begin as f64);
        // Of equals `max_by_key` takes the last; in reverse order that is the first.
        begins.rev().max_by_key(|begin| rows(*begin)).unwrap_or(0)
    }

    /// The rows of a window, times counted from its beginning. All users stay, also those who do nothing in it.
    pub fn window(&self, begin_s: f64, length_s: f64) -> Self {
        let nanos = |s: f64| Time::from_nanos((s.max(0.0) * 1e9) as u64);
        let (begin, end) = (nanos(begin_s), nanos(begin_s + length_s));
        let inside = self.entries.iter().filter(|entry| entry.at >= begin && entry.at < end);
        let moved = |entry: &Entry| Entry { at: Time::ZERO + entry.at.since(begin), ..*entry };
        Self {
            ids: self.ids.clone(),
            entries: inside.map(moved).collect(),
            end: Time::ZERO + end.since(begin),
            notes: self.notes.clone(),
        }
    }

    /// Without the users who do nothing, the others numbered anew in the same order.
    pub fn active_only(&self) -> Self {
        let mut active: Vec<u32> = self.entries.iter().flat_map(|e| [e.from, e.to]).collect();
        active.sort_unstable();
        active.dedup();
        let number = |old: u32| active.partition_point(|other| *other < old) as u32;
        let renumbered = |e: &Entry| Entry { from: number(e.from), to: number(e.to), ..*e };
        Self {
            ids: active.iter().filter_map(|old| self.ids.get(*old as usize).cloned()).collect(),
            entries: self.entries.iter().map(renumbered).collect(),
            end: self.end,
            notes: self.notes.clone(),
        }
    }

    /// What people do by these records, all present throughout.
    pub fn workload(&self, missed: Missed) -> Workload {
        let activity = |entry: &Entry| {
            let Entry { at, from, to, what } = *entry;
            match (what, missed) {
                (What::Message, _) => Some(Activity::Message { from, to, at }),
                (What::Call(seconds), _) => Some(Activity::Call { from, to, at, seconds }),
                (What::Missed, Missed::Keep) => Some(Activity::Call { from, to, at, seconds: 0.0 }),
                (What::Missed, Missed::Drop) => None,
            }
        };
        Workload {
            people: self.people(),
            end: self.end,
            activities: self.entries.iter().filter_map(activity).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_copenhagen_files_have_their_published_size() {
        let calls = Recorded::copenhagen_calls().unwrap();
        assert_eq!((calls.entries.len(), calls.people()), (3_600, 536));
        let missed = calls.entries.iter().filter(|entry| entry.what == What::Missed).count();
        assert_eq!(missed, 366);
        let messages = Recorded::copenhagen_messages().unwrap();
        assert_eq!((messages.entries.len(), messages.people()), (24_333, 568));
        assert_eq!(calls.workload(Missed::Drop).activities.len(), 3_234);
    }

    #[test]
    fn users_are_numbered_in_order_of_their_ids_with_or_without_a_header() {
        let with = Recorded::parse("time,from,to\n5,70,3\n1.5,3,900\n", "x").unwrap();
        let without = Recorded::parse("5,70,3\r\n1.5, 3,900", "x").unwrap();
        assert_eq!(with, without);
        assert_eq!(with.ids, ["3", "70", "900"]);
        assert_eq!((with.entries[0].from, with.entries[0].to), (0, 2));
        assert_eq!(with.entries[0].at, Time::from_millis(1_500));
    }

    #[test]
    fn the_busiest_window_holds_the_most_rows_and_all_users() {
        let all = Recorded::parse("10,1,2\n3700,1,2\n3800,2,3\n7300,1,2\n9000,4,1", "x").unwrap();
        assert_eq!(all.busiest(3_600, 3_600), 3_600);
        let window = all.window(3_600.0, 3_600.0);
        assert_eq!((window.entries.len(), window.people()), (2, 4));
        assert_eq!(window.entries[0].at, Time::from_secs(100));
        assert_eq!(window.end, Time::from_secs(3_600));
        assert_eq!(window.active_only().ids, ["1", "2", "3"]);
    }
}
