//! What an observation can say. A directory of results may come from anywhere, and attacks take memory and time by what it
//! says: numbers that no network has are refused with their place.

use anyhow::{Context as _, bail, ensure};
use shoal_topology::Time;

use crate::adversary::attacks::MOST_PEOPLE_COMPARED;
use crate::trace::{Party, Public};

/// Most people of an observation.
const MOST_PEOPLE: u32 = 10_000_000;
/// Most nodes and services, too.
pub(super) const MOST_NODES: u32 = 100_000;
/// Most hops of a way.
const MOST_HOPS: u32 = 100;
/// Longest delay and time on the way, seconds.
const LONGEST_WAY_S: f64 = 1e4;
/// Highest rate of a person's link, packets/s.
const HIGHEST_PER_S: f64 = 1e7;
/// Longest observation: years.
const LONGEST_OBSERVATION_S: f64 = 1e8;
/// Most people times seconds, where attacks compare all people with each other: they count for each in spans of seconds.
const MOST_PERSON_SECONDS: f64 = 2e9;
/// Latest instant: a century.
pub(super) const LATEST_NS: u64 = 3_200_000_000_000_000_000;
/// Longest call, seconds: a year. So long after the end of an observation packets may still be seen.
pub(super) const LONGEST_S: f64 = 3.2e7;
/// Most bins of all links together, two bytes each.
pub(super) const MOST_BINS: u64 = 1_000_000_000;

/// What the rows of a trace may name.
pub(super) struct Limits {
    people: u32,
    last_ns: u64,
}

impl Limits {
    /// Checks what everybody knows.
    pub(super) fn of(public: &Public) -> anyhow::Result<Self> {
        ensure!(
            (1..=MOST_PEOPLE).contains(&public.people),
            "people must be 1 to {MOST_PEOPLE}, not {}",
            public.people
        );
        ensure!(public.hops <= MOST_HOPS, "hops must be 0 to {MOST_HOPS}, not {}", public.hops);
        let numbers = [
            ("hop_mean_s", public.hop_mean_s, LONGEST_WAY_S),
            ("uniform_s", public.uniform_s, LONGEST_WAY_S),
            ("latency_s", public.latency_s, LONGEST_WAY_S),
            ("resting_up_per_s", public.resting_up_per_s, HIGHEST_PER_S),
            ("resting_down_per_s", public.resting_down_per_s, HIGHEST_PER_S),
            ("call_per_s", public.call_per_s, HIGHEST_PER_S),
        ];
        for (name, value, most) in numbers {
            ensure!((0.0..=most).contains(&value), "{name} must be 0 to {most}, not {value}");
        }
        let (begin, end) = (public.begin.as_nanos(), public.end.as_nanos());
        ensure!(end <= LATEST_NS, "end_ns must be at most {LATEST_NS}, a century, not {end}");
        ensure!(begin < end, "end_ns, {end}, must come after begin_ns, {begin}");
        let seconds = (end - begin) as f64 / 1e9;
        let people = f64::from(public.people).min(MOST_PEOPLE_COMPARED as f64);
        ensure!(
            seconds <= LONGEST_OBSERVATION_S && seconds * people <= MOST_PERSON_SECONDS,
            "from begin_ns to end_ns there must be at most {LONGEST_OBSERVATION_S} s, and {MOST_PERSON_SECONDS:.0e} s times \
             people; there are {seconds} s, and {} people",
            public.people
        );
        let last_ns = end.saturating_add((LONGEST_S * 1e9) as u64).min(LATEST_NS);
        Ok(Self { people: public.people, last_ns })
    }

    /// An instant of a row.
    pub(super) fn time(&self, name: &str, value: i64) -> anyhow::Result<Time> {
        let at = u64::try_from(value).ok().filter(|at| *at <= self.last_ns);
        let at = at.with_context(|| {
            format!(
                "{name} must be 0 to {}, a year after end_ns of public.json, not {value}",
                self.last_ns
            )
        })?;
        Ok(Time::from_nanos(at))
    }

    /// Who stands at an end of a link.
    pub(super) fn party(&self, name: &str) -> anyhow::Result<Party> {
        let what = || format!("{name:?} is neither person-, service- nor node- and a number");
        let (kind, number) = name.split_once('-').with_context(what)?;
        let number: u32 = number.parse().ok().with_context(what)?;
        let below = |most: u32| {
            ensure!(number < most, "{name} is there, and numbers of {kind}s must be below {most}");
            Ok(number)
        };
        match kind {
            "person" => {
                let people = self.people;
                ensure!(
                    number < people,
                    "{name} is there, and public.json has {people} people, from person-0 on"
                );
                Ok(Party::Person(number))
            }
            "service" => Ok(Party::Service(below(MOST_NODES)?)),
            "node" => Ok(Party::Node(below(MOST_NODES)?)),
            _ => bail!(what()),
        }
    }
}

/// A whole number of a row, up to `most`.
pub(super) fn whole<T>(name: &str, value: i64, most: T) -> anyhow::Result<T>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    match T::try_from(value) {
        Ok(value) if value <= most => Ok(value),
        _ => bail!("{name} must be 0 to {most}, not {value}"),
    }
}

/// A person of a row.
pub(super) fn person(name: &str, value: i64, people: u32) -> anyhow::Result<u32> {
    ensure!(
        (0..i64::from(people)).contains(&value),
        "{name} must be 0 to {}, as public.json has {people} people, not {value}",
        people.saturating_sub(1)
    );
    Ok(u32::try_from(value)?)
}
