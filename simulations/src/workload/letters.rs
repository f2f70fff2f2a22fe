//! Letters that a scenario names one by one.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_topology::Time;

use super::{Activity, Workload};
use crate::experiment::Wrong;

/// Most letters of a scenario.
const MOST: u64 = 1_000_000;

/// Letters from one person to another, at even distances.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LetterSettings {
    /// Who writes, by number.
    pub from: u32,
    /// To whom, by number.
    pub to: u32,
    /// When the first is written, seconds of the observation.
    #[serde(default)]
    pub at_s: f64,
    /// How many are.
    #[serde(default = "one")]
    pub count: u32,
    /// The time between two, seconds.
    #[serde(default)]
    pub every_s: f64,
}

fn one() -> u32 {
    1
}

impl LetterSettings {
    /// Checks tables of these among so many people; `table` is where they stand in the scenario file.
    ///
    /// # Errors
    /// The first that cannot be.
    pub fn check(all: &[Self], table: &str, people: u32) -> Result<(), Wrong> {
        for (number, one) in all.iter().enumerate() {
            let wrong = |name: &str, why: String| {
                Err(Wrong::new(&format!("{table}.{}.{name}", number + 1), why))
            };
            for (name, person) in [("from", one.from), ("to", one.to)] {
                if person >= people {
                    return wrong(name, format!("must be less than workload.people, {people}"));
                }
            }
            if one.from == one.to {
                return wrong("to", "must be another one than from".into());
            }
            for (name, value) in [("at_s", one.at_s), ("every_s", one.every_s)] {
                if !(0.0..=1e9).contains(&value) {
                    return wrong(name, "must be 0 to 1e9".into());
                }
            }
            let sum: u64 = all.iter().take(number + 1).map(|one| u64::from(one.count)).sum();
            if sum > MOST {
                return wrong("count", format!("must be less: {MOST} letters at most in all"));
            }
        }
        Ok(())
    }

    /// What these people do in so many seconds; what would be later is left out.
    pub fn workload(all: &[Self], people: u32, window_s: f64) -> Workload {
        let end = seconds(window_s);
        let of = |one: &Self| {
            let (from, to) = (one.from, one.to);
            let at = |n: u32| seconds(one.at_s + f64::from(n) * one.every_s);
            let written = (0..one.count).map(at).take_while(|at| *at < end);
            written.map(|at| Activity::Message { from, to, at }).collect::<Vec<_>>()
        };
        let mut activities: Vec<Activity> = all.iter().flat_map(of).collect();
        activities.sort_by_key(Activity::at);
        Workload { people, end, activities }
    }
}

fn seconds(s: f64) -> Time {
    Time::ZERO + Duration::try_from_secs_f64(s.max(0.0)).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_written_in_order_of_time_and_none_behind_the_end() {
        let some = |from, at_s, count| LetterSettings { from, to: 2, at_s, count, every_s: 10.0 };
        let all = [some(0, 15.0, 2), some(1, 0.0, 9)];
        assert_eq!(LetterSettings::check(&all, "workload.letters", 3), Ok(()));
        let workload = LetterSettings::workload(&all, 3, 40.0);
        let written = workload.activities.iter().map(|activity| match activity {
            Activity::Message { from, to: 2, at } => (*from, at.as_secs_f64() as u32),
            _ => panic!("{activity:?}"),
        });
        let expected = [(1, 0), (1, 10), (0, 15), (1, 20), (0, 25), (1, 30)];
        assert_eq!(written.collect::<Vec<_>>(), expected);
        let key = |all: &[LetterSettings], people| {
            LetterSettings::check(all, "workload.letters", people).map_err(|wrong| wrong.key)
        };
        assert_eq!(key(&all, 2), Err("workload.letters.1.to".into()));
        assert_eq!(key(&[some(2, 0.0, 1)], 3), Err("workload.letters.1.to".into()));
        assert_eq!(key(&[some(1, -1.0, 1)], 3), Err("workload.letters.1.at_s".into()));
        assert_eq!(
            key(&[all[0].clone(), some(1, 0.0, u32::MAX)], 3),
            Err("workload.letters.2.count".into())
        );
    }
}
