//! What a scenario file says of a workload.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use shoal_topology::Time;

use super::fit::fit;
use super::letters::LetterSettings;
use super::recorded::{Entry, Missed, Recorded};
use super::session::{BrowseSettings, DownloadSettings};
use super::synthetic::{Rows, SyntheticSettings};
use super::{Activity, Workload};
use crate::experiment::Wrong;

/// Times from here on count from 1970 and not from the beginning of a study: 1973.
const SINCE_1970_S: f64 = 1e8;

/// Where a workload comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkloadKind {
    /// The calls of the Copenhagen Networks Study, which the program carries.
    Calls,
    /// Its text messages.
    Messages,
    /// A CSV file of one's own.
    Csv,
    /// A list made by the laws of recorded ones.
    Synthetic,
    /// Letters that the scenario names.
    Letters,
    /// Nobody does anything.
    None,
    /// Downloads of one size.
    Download,
    /// Sessions like those of a browser.
    Browse,
}

/// What people do, as a scenario says it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkloadSettings {
    /// "calls" or "messages" (of the Copenhagen Networks Study), "csv", "synthetic", "letters", "none", "download" or
    /// "browse".
    pub kind: WorkloadKind,
    /// With "csv": a file of time (seconds, or a date), from, to, and for calls the duration (seconds; -1 for a missed
    /// call), in this order or with these names in its first line.
    pub file: Option<PathBuf>,
    /// Length of the window, seconds; 0 for all of a list.
    pub window_s: f64,
    /// Where the window begins in the list, seconds; without it at the busiest: of the windows that begin at full
    /// hours, or at full days where they last a day or longer.
    pub begin_s: Option<f64>,
    /// What becomes of missed calls: "keep" them as calls of 0 s, or "drop" them.
    pub missed: Missed,
    /// Calls longer than this are cut, seconds; 0 for none.
    pub longest_call_s: f64,
    /// True if whoever is in a call takes and makes no other: such calls are left out.
    pub one_at_a_time: bool,
    /// With "letters", "download", "browse" and "none": number of people. With lists: 0 for all people of the list, all present
    /// throughout; else the first so many of those who do something in the window.
    pub people: u32,
    /// The laws of "synthetic".
    pub synthetic: SyntheticSettings,
    /// With "letters": which.
    pub letters: Vec<LetterSettings>,
    /// The settings of "download".
    pub download: DownloadSettings,
    /// The settings of "browse".
    pub browse: BrowseSettings,
}

impl Default for WorkloadSettings {
    fn default() -> Self {
        Self {
            kind: WorkloadKind::Calls,
            file: None,
            window_s: 7_200.0,
            begin_s: None,
            missed: Missed::Keep,
            longest_call_s: 0.0,
            one_at_a_time: false,
            people: 0,
            synthetic: SyntheticSettings::default(),
            letters: Vec::new(),
            download: DownloadSettings::default(),
            browse: BrowseSettings::default(),
        }
    }
}

impl WorkloadSettings {
    /// Checks them; `table` is where they stand in the scenario file ("workload").
    ///
    /// # Errors
    /// The first that cannot be.
    pub fn check(&self, table: &str) -> Result<(), Wrong> {
        let wrong = |name: &str, why: &str| Err(Wrong::new(&format!("{table}.{name}"), why));
        if !(0.0..=1e9).contains(&self.window_s) {
            return wrong("window_s", "must be 0 to 1e9");
        }
        if self.begin_s.is_some_and(|begin| !(0.0..=4e9).contains(&begin)) {
            return wrong("begin_s", "must be 0 to 4e9");
        }
        if !(0.0..=1e9).contains(&self.longest_call_s) {
            return wrong("longest_call_s", "must be 0 to 1e9");
        }
        match (self.kind, &self.file) {
            (WorkloadKind::Csv, None) => return wrong("file", "must be given with kind = \"csv\""),
            // Before anything runs: a bad line in it is a bad scenario.
            (WorkloadKind::Csv, Some(file)) => {
                if let Err(why) = Recorded::read(file) {
                    return wrong("file", &why.to_string());
                }
            }
            (_, None) => {}
            (_, Some(_)) => return wrong("file", "is allowed with kind = \"csv\" only"),
        }
        // Also the tables that this kind does not use: who wrote them meant them.
        self.synthetic.check(&format!("{table}.synthetic"))?;
        self.download.check(&format!("{table}.download"))?;
        self.browse.check(&format!("{table}.browse"))?;
        LetterSettings::check(&self.letters, &format!("{table}.letters"), self.people)?;
        let rate = match self.kind {
            WorkloadKind::Download => 1.0 / self.download.every_s,
            WorkloadKind::Browse => self.browse.objects / self.browse.think_s,
            WorkloadKind::None | WorkloadKind::Letters => 0.0,
            _ => return Ok(()),
        };
        if !(1..=1_000_000).contains(&self.people) {
            return wrong("people", "must be 1 to 1000000 without a list of people");
        }
        if self.window_s == 0.0 {
            return wrong("window_s", "must be more than 0 without a list of its own length");
        }
        if f64::from(self.people) * self.window_s * rate > 1e8 {
            return wrong("window_s", "must be shorter: 10^8 downloads at most");
        }
        Ok(())
    }

    /// The whole list of records, before any window; none for what has no list.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn records(&self, seed: u64) -> anyhow::Result<Option<Recorded>> {
        Ok(Some(match self.kind {
            WorkloadKind::Calls => Recorded::copenhagen_calls()?,
            WorkloadKind::Messages => Recorded::copenhagen_messages()?,
            WorkloadKind::Csv => {
                let file = self.file.as_ref().context("workload.file must be given")?;
                Recorded::read(file)?
            }
            WorkloadKind::Synthetic => self.synthetic.records(seed),
            WorkloadKind::Download
            | WorkloadKind::Browse
            | WorkloadKind::Letters
            | WorkloadKind::None => return Ok(None),
        }))
    }

    /// What to say of the workload: how a file was read; of a list that was made by laws, how it fits the recorded one; and
    /// what the window lacks.
    ///
    /// # Errors
    /// The recorded list cannot be read.
    pub fn notes(&self, seed: u64) -> anyhow::Result<Vec<String>> {
        let Some(records) = self.records(seed)? else { return Ok(Vec::new()) };
        let mut notes = records.notes.clone();
        if self.kind == WorkloadKind::Synthetic {
            let (recorded, name) = match self.synthetic.rows {
                Rows::Calls => (Recorded::copenhagen_calls()?, "calls"),
                Rows::Messages => (Recorded::copenhagen_messages()?, "messages"),
            };
            notes.push(format!(
                "These {name} are synthetic. Beside the recorded ones of Copenhagen:"
            ));
            notes.push(fit(&records).beside(&fit(&recorded)));
        }
        let at_s = |entry: Option<&Entry>| entry.map_or(0.0, |entry| entry.at.as_secs_f64());
        let (first_s, last_s) = (at_s(records.entries.first()), at_s(records.entries.last()));
        let begin_s = self.begin_s(&records);
        let window = self.windowed(records);
        if window.entries.is_empty() {
            notes.push(format!(
                "Nothing happens: the list has rows from {first_s} to {last_s} s, and none of them is taken into the \
                 window of {} s from {begin_s} s on (workload.begin_s, window_s, people).",
                self.window_s
            ));
        }
        let people = window.people();
        if people < self.people {
            notes.push(format!(
                "There are {people} people and not {} (workload.people): no more do something in the window.",
                self.people
            ));
        }
        Ok(notes)
    }

    /// How many people there are, and how long the observation is, seconds, without making a list by laws.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn size(&self) -> Result<(u32, f64), Wrong> {
        let of_list = |people: u32, all_s: f64| {
            let most = if self.people > 0 { self.people.min(people) } else { people };
            (most, if self.window_s > 0.0 { self.window_s } else { all_s })
        };
        match self.kind {
            WorkloadKind::Download
            | WorkloadKind::Browse
            | WorkloadKind::Letters
            | WorkloadKind::None => Ok((self.people, self.window_s)),
            WorkloadKind::Synthetic => {
                Ok(of_list(self.synthetic.people, self.synthetic.days * 86_400.0))
            }
            WorkloadKind::Calls | WorkloadKind::Messages | WorkloadKind::Csv => {
                let wrong = |why: anyhow::Error| Wrong::new("workload.file", format!("{why:#}"));
                let records = self.records(0).map_err(wrong)?;
                let records = records.ok_or_else(|| Wrong::new("workload.kind", "has no list"))?;
                let all_s = records.end.as_secs_f64() - self.begin_s(&records);
                Ok(of_list(records.people(), all_s))
            }
        }
    }

    /// Where the window begins in a list, seconds.
    fn begin_s(&self, records: &Recorded) -> f64 {
        if let Some(begin_s) = self.begin_s {
            return begin_s;
        }
        if self.window_s > 0.0 {
            let step = if self.window_s >= 86_400.0 { 86_400 } else { 3_600 };
            return records.busiest(self.window_s.ceil() as u64, step) as f64;
        }
        // All of a list. One that counts from 1970 begins at its first full hour, others at zero.
        let first_s = records.entries.first().map_or(0.0, |entry| entry.at.as_secs_f64());
        if first_s < SINCE_1970_S { 0.0 } else { (first_s / 3_600.0).floor() * 3_600.0 }
    }

    /// What everybody does, the same for the same seed.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn workload(&self, seed: u64) -> anyhow::Result<Workload> {
        let Some(records) = self.records(seed)? else {
            return Ok(match self.kind {
                WorkloadKind::Download => self.download.workload(self.people, self.window_s, seed),
                WorkloadKind::Browse => self.browse.workload(self.people, self.window_s, seed),
                WorkloadKind::Letters => {
                    LetterSettings::workload(&self.letters, self.people, self.window_s)
                }
                _ => Workload {
                    people: self.people,
                    end: Time::from_nanos((self.window_s * 1e9) as u64),
                    activities: Vec::new(),
                },
            });
        };
        let mut workload = self.windowed(records).workload(self.missed);
        if self.longest_call_s > 0.0 {
            for activity in &mut workload.activities {
                if let Activity::Call { seconds, .. } = activity {
                    *seconds = seconds.min(self.longest_call_s);
                }
            }
        }
        if self.one_at_a_time {
            one_at_a_time(&mut workload);
        }
        Ok(workload)
    }

    fn windowed(&self, records: Recorded) -> Recorded {
        let begin_s = self.begin_s(&records);
        let records = if self.window_s > 0.0 {
            records.window(begin_s, self.window_s)
        } else if self.begin_s.is_none() && begin_s > 0.0 {
            let all_s = records.end.as_secs_f64() - begin_s;
            records.window(begin_s, all_s)
        } else {
            records
        };
        if self.people == 0 {
            return records;
        }
        let mut some = records.active_only();
        some.entries.retain(|e| e.from < self.people && e.to < self.people);
        some.ids.truncate(self.people as usize);
        some
    }
}

/// Leaves out calls of those who are in another, or have hung up a second ago.
fn one_at_a_time(workload: &mut Workload) {
    let mut free = vec![Time::ZERO; workload.people as usize];
    workload.activities.retain(|activity| {
        let Activity::Call { from, to, at, seconds } = *activity else { return true };
        let ends = [from as usize, to as usize];
        let fits = ends.iter().all(|who| free.get(*who).is_some_and(|free| *free <= at));
        if fits {
            let end = Time::from_nanos(at.as_nanos() + ((seconds + 1.0) * 1e9) as u64);
            for who in ends {
                if let Some(free) = free.get_mut(who) {
                    *free = end;
                }
            }
        }
        fits
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn settings(kind: WorkloadKind, window_s: f64) -> WorkloadSettings {
        WorkloadSettings { kind, window_s, ..WorkloadSettings::default() }
    }

    #[test]
    fn the_busiest_windows_have_all_users() {
        let calls = settings(WorkloadKind::Calls, 7_200.0).workload(1).unwrap();
        assert_eq!((calls.people, calls.end), (536, Time::from_secs(7_200)));
        assert!(calls.activities.len() > 20, "{}", calls.activities.len());
        let messages = settings(WorkloadKind::Messages, 86_400.0).workload(1).unwrap();
        assert_eq!(messages.people, 568);
        assert!(messages.activities.len() > 24_333 / 28, "{}", messages.activities.len());
        assert!(messages.activities.iter().all(|a| a.at() < messages.end));
    }

    #[test]
    fn who_is_in_a_call_takes_no_other() {
        let mut some = settings(WorkloadKind::Synthetic, 600.0);
        some.synthetic.edge_per_day = 100.0;
        some.synthetic.days = 1.0;
        let overlaps = |settings: &WorkloadSettings| {
            let records = settings.workload(3).unwrap().truth().records;
            let meet = |a: &crate::trace::Record, b: &crate::trace::Record| {
                let shared = [b.caller, b.callee].contains(&a.caller)
                    || [b.caller, b.callee].contains(&a.callee);
                shared && b.start.as_secs_f64() < a.start.as_secs_f64() + a.duration_s
            };
            let later = |k: usize| records[k + 1..].iter();
            (0..records.len()).filter(|k| later(*k).any(|b| meet(&records[*k], b))).count()
        };
        assert!(overlaps(&some) > 0);
        some.one_at_a_time = true;
        assert_eq!(overlaps(&some), 0);
    }

    #[test]
    fn nothing_is_nothing_for_as_many_people() {
        let none = WorkloadSettings { people: 7, ..settings(WorkloadKind::None, 60.0) };
        let workload = none.workload(1).unwrap();
        assert_eq!((workload.people, workload.activities.len()), (7, 0));
    }

    #[test]
    fn a_setting_that_cannot_be_is_named() {
        let error = |s: &WorkloadSettings| s.check("workload").unwrap_err().to_string();
        let csv = settings(WorkloadKind::Csv, 0.0);
        assert_eq!(error(&csv), "workload.file: must be given with kind = \"csv\"");
        let none = settings(WorkloadKind::None, 60.0);
        assert!(error(&none).starts_with("workload.people"));
        let mut synthetic = settings(WorkloadKind::Synthetic, 0.0);
        synthetic.synthetic.day_profile.pop();
        assert!(error(&synthetic).starts_with("workload.synthetic.day_profile: must be 24"));
    }

    #[test]
    fn a_window_without_rows_or_with_fewer_people_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("list.csv");
        std::fs::write(&file, "time,from,to\n5,0,1\n6,2,3\n").unwrap();
        let some = WorkloadSettings { file: Some(file), ..settings(WorkloadKind::Csv, 60.0) };
        assert_eq!(some.notes(1).unwrap(), Vec::<String>::new());
        let more = WorkloadSettings { people: 24, ..some.clone() };
        assert!(more.notes(1).unwrap()[0].starts_with("There are 4 people and not 24"));
        assert_eq!((more.workload(1).unwrap().people, more.size().unwrap()), (4, (4, 60.0)));
        let late = WorkloadSettings { begin_s: Some(100.0), ..some };
        let said = late.notes(1).unwrap().remove(0);
        assert!(said.starts_with("Nothing happens: the list has rows from 5 to 6 s"), "{said}");
    }

    #[test]
    fn all_of_a_list_with_dates_begins_where_its_rows_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("list.csv");
        std::fs::write(&file, "2024-05-01T12:00:10Z,0,1\n2024-05-01T13:00:00Z,2,3\n").unwrap();
        let all = WorkloadSettings { file: Some(file), ..settings(WorkloadKind::Csv, 0.0) };
        let workload = all.workload(1).unwrap();
        assert_eq!(workload.activities[0].at(), Time::from_secs(10));
        assert_eq!(workload.end, Time::from_secs(3_601));
        assert_eq!(all.size().unwrap(), (4, 3_601.0));
    }

    #[test]
    fn the_first_people_keep_only_their_own_calls() {
        let few = WorkloadSettings { people: 10, ..settings(WorkloadKind::Calls, 0.0) };
        let workload = few.workload(1).unwrap();
        assert_eq!(workload.people, 10);
        let inside = |r: &crate::trace::Record| r.caller < 10 && r.callee < 10;
        assert!(workload.truth().records.iter().all(inside));
    }
}
