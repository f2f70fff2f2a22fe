//! Recorded calls and messages: a CSV of (time, from, to[, duration]).

use std::path::Path;

use shoal_topology::Time;

use super::{Activity, Workload};

/// Calls of the Copenhagen Networks Study, in the program itself so that it needs no file.
const CALLS: &str = include_str!("../../data/cns/calls.csv");
/// Its text messages.
const MESSAGES: &str = include_str!("../../data/cns/sms.csv");

/// Latest time in a file, seconds: a century.
const LATEST_S: f64 = 3.2e9;
/// Longest call in a file, seconds: a year.
const LONGEST_S: f64 = 3.2e7;

/// What a row records.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum What {
    /// A message.
    Message,
    /// A call of so many seconds.
    Call(f64),
    /// A call that nobody took.
    Missed,
}

/// A row.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Entry {
    /// When.
    pub at: Time,
    /// Who calls or writes.
    pub from: u32,
    /// Whom.
    pub to: u32,
    /// What.
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
        /// Which.
        file: String,
        /// What the system says.
        why: String,
    },
    /// A line of it.
    #[error("{file}, line {line}: {why}")]
    Line {
        /// Which file.
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
    pub ids: Vec<u64>,
    /// The rows, in order of time.
    pub entries: Vec<Entry>,
    /// When the records end; they begin at zero.
    pub end: Time,
}

/// A row with the ids of the file.
struct Raw {
    time_s: f64,
    from: u64,
    to: u64,
    what: What,
}

fn raw(line: &str) -> Result<Raw, String> {
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    let (time, from, to, duration) = match cells.as_slice() {
        [time, from, to] => (time, from, to, None),
        [time, from, to, duration] => (time, from, to, Some(duration)),
        _ => return Err(format!("must be time,from,to[,duration]; there are {}", cells.len())),
    };
    let time_s: f64 = time.parse().unwrap_or(f64::NAN);
    if !(0.0..=LATEST_S).contains(&time_s) {
        return Err(format!("the time must be 0 to {LATEST_S} seconds, not \"{time}\""));
    }
    let id = |name: &str, text: &str| {
        let why = format!("{name} must be a whole number from 0 on, not \"{text}\"");
        text.parse::<u64>().map_err(|_| why)
    };
    let (from, to) = (id("from", from)?, id("to", to)?);
    if from == to {
        return Err(format!("from and to must differ; both are {from}"));
    }
    let what = match duration.map(|text| (text, text.parse::<f64>().unwrap_or(f64::NAN))) {
        None => What::Message,
        Some((_, -1.0)) => What::Missed,
        Some((_, seconds)) if (0.0..=LONGEST_S).contains(&seconds) => What::Call(seconds),
        Some((text, _)) => {
            let range = format!("0 to {LONGEST_S} seconds, or -1 for a missed call");
            return Err(format!("the duration must be {range}, not \"{text}\""));
        }
    };
    Ok(Raw { time_s, from, to, what })
}

/// A header is a first line whose first cell is no number.
fn is_header(line: &str) -> bool {
    line.split(',').next().is_some_and(|cell| cell.trim().parse::<f64>().is_err())
}

impl Recorded {
    /// Reads the text of a CSV with or without a header; `file` is its name in errors. Rows need not be in order.
    ///
    /// # Errors
    /// The first line that is wrong, and what is allowed there.
    pub fn parse(text: &str, file: &str) -> Result<Self, BadRecords> {
        let mut rows = Vec::new();
        for (place, line) in text.lines().enumerate() {
            if line.trim().is_empty() || (place == 0 && is_header(line)) {
                continue;
            }
            let wrong = |why| BadRecords::Line { file: file.into(), line: place + 1, why };
            rows.push(raw(line).map_err(wrong)?);
        }
        if rows.is_empty() {
            let why = "there must be at least one row of time,from,to[,duration]".into();
            return Err(BadRecords::File { file: file.into(), why });
        }
        rows.sort_by(|a, b| a.time_s.total_cmp(&b.time_s));
        let mut ids: Vec<u64> = rows.iter().flat_map(|row| [row.from, row.to]).collect();
        ids.sort_unstable();
        ids.dedup();
        let number = |id: u64| ids.partition_point(|other| *other < id) as u32;
        let entry = |row: &Raw| Entry {
            at: Time::from_nanos((row.time_s * 1e9).round() as u64),
            from: number(row.from),
            to: number(row.to),
            what: row.what,
        };
        let entries: Vec<Entry> = rows.iter().map(entry).collect();
        let last = entries.last().map_or(Time::ZERO, |entry| entry.at);
        Ok(Self { ids, entries, end: last + std::time::Duration::from_secs(1) })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or the first line that is wrong.
    pub fn read(path: &Path) -> Result<Self, BadRecords> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &file),
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
        let begins = (0..=self.end.as_secs_f64() as u64 / step).map(|place| place * step);
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
            ids: active.iter().filter_map(|old| self.ids.get(*old as usize).copied()).collect(),
            entries: self.entries.iter().map(renumbered).collect(),
            end: self.end,
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
        assert_eq!(with.ids, [3, 70, 900]);
        assert_eq!((with.entries[0].from, with.entries[0].to), (0, 2));
        assert_eq!(with.entries[0].at, Time::from_millis(1_500));
    }

    #[test]
    fn a_wrong_line_is_named_with_what_is_allowed() {
        let error = |text| Recorded::parse(text, "a.csv").unwrap_err().to_string();
        assert!(error("t,a,b\n1,2,3\n1,x,3").starts_with("a.csv, line 3: from must be a whole"));
        assert!(error("1,2,3,-2").contains("or -1 for a missed call, not \"-2\""));
        assert!(error("-1,2,3").contains("line 1: the time must be 0 to"));
        assert!(error("1,2").contains("time,from,to[,duration]; there are 2"));
        assert!(error("1,2,2").contains("must differ"));
        assert!(error("time,from,to\n").contains("at least one row"));
        let missing = Recorded::read(Path::new("/no/such.csv")).unwrap_err().to_string();
        assert!(missing.starts_with("/no/such.csv: "), "{missing}");
    }

    #[test]
    fn the_busiest_window_holds_the_most_rows_and_all_users() {
        let all = Recorded::parse("10,1,2\n3700,1,2\n3800,2,3\n7300,1,2\n9000,4,1", "x").unwrap();
        assert_eq!(all.busiest(3_600, 3_600), 3_600);
        let window = all.window(3_600.0, 3_600.0);
        assert_eq!((window.entries.len(), window.people()), (2, 4));
        assert_eq!(window.entries[0].at, Time::from_secs(100));
        assert_eq!(window.end, Time::from_secs(3_600));
        assert_eq!(window.active_only().ids, [1, 2, 3]);
    }
}
