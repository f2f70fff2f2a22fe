//! What no schedule hides: beginnings and ends that the adversary asks about, stalls of a link, and what it does itself.

use super::decision::{Decision, FALSE_ALARMS, decide};
use super::experiments::{Busy, Case, Ran, SECOND, SETTLED_S};
use super::likelihood::{Question, series};
use super::linear::Linear;
use crate::experiment::Estimate;
use crate::stats;
use crate::world::{Attack, Injected, Injection, Interruption};

/// Length of a trial, seconds.
pub const TRIAL_S: f64 = 60.0;
/// Bins before and behind an instant that is asked about.
const BINS: (u64, usize) = (10, 60);
/// The time behind it within which letters come that wait a time that is drawn, nanoseconds.
const LATEST: u64 = 16_000_000_000;
/// The ridge of the linear statistic.
const RIDGE: f64 = 0.2;

/// Which instants are asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instant {
    /// A call begins: at both parties.
    Begin,
    /// A call ends: at both parties.
    End,
    /// A burst of messages is written: at the writer.
    Written,
    /// At the reader, from the same instant on.
    Read,
}

impl Instant {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begin => "a call begins",
            Self::End => "a call ends",
            Self::Written => "a burst is written",
            Self::Read => "a burst is read",
        }
    }
}

/// How many instants were found.
#[derive(Clone, Copy, Debug)]
pub struct OnsetsFound {
    /// Of those that were asked about at busy people.
    pub share: Estimate,
    /// At idle people, that were not used to set the threshold.
    pub false_alarms: Estimate,
}

/// Learns the best linear statistic of the counts around the instants of one run, and asks about those of another.
pub fn onsets(train: (&Case, &Ran), test: (&Case, &Ran), instant: Instant) -> Option<OnsetsFound> {
    let rows = |(case, ran): (&Case, &Ran)| {
        let (busy, idle) = (asked(case, ran, instant), unasked(case, ran));
        let rows = |asked: &[(u32, u64)]| -> Vec<Vec<f64>> {
            asked.iter().filter_map(|(person, at)| window(ran, *person, *at, instant)).collect()
        };
        (rows(&busy), rows(&idle))
    };
    let (busy, idle) = rows(train);
    if busy.is_empty() || idle.is_empty() {
        return None;
    }
    let linear = Linear::train(&idle, &busy, RIDGE);
    let (busy, idle) = rows(test);
    let scores =
        |rows: &[Vec<f64>]| -> Vec<f64> { rows.iter().map(|row| linear.score(row)).collect() };
    let (busy, idle) = (scores(&busy), scores(&idle));
    // Thresholds from one half of the idle, false alarms from the other.
    let mut half: Vec<f64> = idle.iter().copied().step_by(2).collect();
    half.sort_by(f64::total_cmp);
    let least = stats::quantile(&half, 1.0 - FALSE_ALARMS);
    let above = |scores: &[f64]| scores.iter().filter(|score| **score > least).count() as u64;
    let other: Vec<f64> = idle.iter().copied().skip(1).step_by(2).collect();
    Some(OnsetsFound {
        share: stats::proportion(above(&busy), busy.len() as u64),
        false_alarms: stats::proportion(above(&other), other.len() as u64),
    })
}

/// The instants at busy people. Bursts of several messages count once.
fn asked(case: &Case, ran: &Ran, instant: Instant) -> Vec<(u32, u64)> {
    use crate::workload::Activity;
    let mut asked = Vec::new();
    for activity in &ran.workload.activities {
        match (*activity, instant) {
            (Activity::Call { from, to, at, .. }, Instant::Begin) => {
                asked.extend([(from, at.as_nanos()), (to, at.as_nanos())]);
            }
            (Activity::Call { from, to, at, seconds }, Instant::End) => {
                let end = at.as_nanos() + (seconds * SECOND) as u64;
                asked.extend([(from, end), (to, end)]);
            }
            (Activity::Message { from, at, .. }, Instant::Written) => {
                asked.push((from, at.as_nanos()));
            }
            (Activity::Message { to, at, .. }, Instant::Read) => asked.push((to, at.as_nanos())),
            _ => {}
        }
    }
    asked.dedup();
    let (busy, _) = case.people();
    asked.retain(|(person, _)| busy.contains(person));
    asked
}

/// The length of a bin, nanoseconds.
fn bin(ran: &Ran) -> u64 {
    ran.grids().payload.max(40_000_000)
}

/// Instants at idle people, that have nothing to do with anything.
fn unasked(case: &Case, ran: &Ran) -> Vec<(u32, u64)> {
    let (_, idle) = case.people();
    let step = LATEST / 4 + 17_000_000;
    let end = ran.workload.end.as_nanos();
    let first = (SETTLED_S * SECOND) as u64;
    let instants = move |person: u32| {
        let begin = first + u64::from(person) * 7_919_000 % step;
        (0..)
            .map(move |n| begin + n * step)
            .take_while(move |at| *at < end)
            .map(move |at| (person, at))
    };
    idle.into_iter().flat_map(instants).collect()
}

/// Counts of arrivals in bins around an instant, and their sums behind it. `None` too near to an end.
fn window(ran: &Ran, person: u32, at: u64, instant: Instant) -> Option<Vec<f64>> {
    let bin = bin(ran);
    let begin = at.checked_sub(BINS.0 * bin)?;
    if at + LATEST.max(BINS.1 as u64 * bin) > ran.workload.end.as_nanos() {
        return None;
    }
    let mut counts = ran.seen(person)?.counts(begin, bin, BINS.1);
    for width in [5, 10, 20, 50] {
        counts.push(counts.iter().skip(BINS.0 as usize).take(width).sum());
    }
    if matches!(instant, Instant::Written | Instant::Read) {
        let latest = (LATEST / bin) as usize;
        let behind = ran.seen(person)?.counts(at, bin, latest);
        for within in [latest / 8, latest / 4, latest / 2, latest] {
            counts.extend(crowding(behind.get(..within).unwrap_or(&behind)));
        }
    }
    Some(counts)
}

/// What shows of packets that come at unknown instants within a time: how many come in all, how much their number in a
/// moment varies, and how often it is large, for moments of several lengths.
fn crowding(counts: &[f64]) -> Vec<f64> {
    let mut all = vec![counts.iter().sum()];
    for width in [1, 2, 3, 5, 8, 16] {
        let sums: Vec<f64> = counts.windows(width).map(|some| some.iter().sum()).collect();
        let mean = sums.iter().sum::<f64>() / sums.len().max(1) as f64;
        all.push(sums.iter().map(|sum| (sum - mean).powi(2)).sum());
        let deviation = mean.sqrt().max(0.3);
        all.push(sums.iter().map(|sum| ((sum - mean) / deviation).exp()).sum());
    }
    all
}

/// What the adversary reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GatewayReading {
    /// Asks whether what comes for a person follows its own frames, or others'.
    InACall,
    /// Asks whether what comes for a person follows the frames of another.
    With,
    /// How much comes for a person.
    Rate,
    /// How many packets the service cannot read.
    Unreadable,
}

/// An adversary, what busy people do, and what it reads.
#[derive(Clone, Debug)]
pub struct ActiveAdversary {
    /// Its name in tables.
    pub name: String,
    /// What it reads.
    pub reading: GatewayReading,
    /// The world that it looks at.
    pub case: Case,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct ActiveOutcome {
    /// The name of the case in tables.
    pub name: String,
    /// What it read.
    pub reading: GatewayReading,
    /// When it decides.
    pub decision: Decision,
    /// Trials with busy people, and with idle ones.
    pub trials: (usize, usize),
    /// Median and 99 % quantile of the delay of voice, seconds; NaN without calls.
    pub voice_s: (f64, f64),
}

/// All adversaries, in a network of so many pairs, for so long, from a seed.
pub fn adversaries(size: (u32, f64, u64)) -> Vec<ActiveAdversary> {
    let mut all = Vec::new();
    let mut add = |name: &str, reading: GatewayReading, case: Case| {
        all.push(ActiveAdversary { name: name.into(), reading, case });
    };
    let call = || Case::new("call", Busy::Call, size);
    for loss in [0.0, 0.001, 0.003, 0.01] {
        let mut case = call();
        case.settings.people.access_loss = loss;
        case.settings.people.access_jitter_ms = if loss > 0.0 { 10.0 } else { 0.0 };
        let name = format!("access links lose {:.1} % and jitter by 10 ms", 100.0 * loss);
        let name = if loss > 0.0 { name } else { "access links without stalls".into() };
        add(&name, GatewayReading::InACall, case.clone());
        add(&name, GatewayReading::With, case);
    }
    for hold_ms in [200.0, 500.0, 1_000.0, 2_000.0] {
        let mut case = call();
        case.settings.attacks = holds(&case, hold_ms, "up");
        let name = format!("frames up are held for {} s every 10 s", hold_ms / 1e3);
        add(&name, GatewayReading::InACall, case.clone());
        add(&name, GatewayReading::With, case);
    }
    let mut case = call();
    case.settings.attacks = holds(&case, 1_000.0, "down");
    add("frames down are held for 1 s every 10 s", GatewayReading::InACall, case);
    let mut case = call();
    case.settings.attacks = holds(&case, 0.0, "up");
    case.settings.attacks.iter_mut().for_each(|attack| attack.drop_share = 0.1);
    add("a tenth of the frames up is dropped", GatewayReading::With, case);
    let mut case = call();
    let interrupt = |person: &u32| Interruption {
        people: vec![*person],
        begin_s: SETTLED_S + f64::from(person % 97) / 10.0,
        every_s: 10.0,
    };
    case.settings.interruptions = targets(&case).iter().map(interrupt).collect();
    add("the link is interrupted every 10 s", GatewayReading::With, case);
    for (what, name) in [
        (Injected::Garbage, "garbage in place of 30 % of the dummies"),
        (Injected::Sealed, "packets to the descriptor's key in place of 30 % of the dummies"),
        (Injected::Replayed, "replays in place of 30 % of the dummies"),
    ] {
        let mut case = Case::new("web", Busy::Messages(0.4), size);
        let people = targets(&case);
        case.settings.injections = vec![Injection { people, what, ..Injection::default() }];
        add(name, GatewayReading::Rate, case);
    }
    all
}

/// The people whom an adversary treats: the first of each pair.
fn targets(case: &Case) -> Vec<u32> {
    (0..4 * case.pairs).step_by(2).collect()
}

/// Holds of each target, each at instants of its own.
fn holds(case: &Case, hold_ms: f64, direction: &str) -> Vec<Attack> {
    let hold = |person: &u32| Attack {
        links: match direction {
            "up" => format!("person {person} > node *"),
            _ => format!("node * > person {person}"),
        },
        begin_s: SETTLED_S + f64::from(person * 13 % 97) / 10.0,
        hold_ms,
        every_s: 10.0,
        ..Attack::default()
    };
    targets(case).iter().map(hold).collect()
}

impl ActiveAdversary {
    /// Runs it.
    ///
    /// # Errors
    /// A setting that cannot be.
    pub fn run(&self) -> anyhow::Result<ActiveOutcome> {
        let ran = self.case.run()?;
        let (busy, idle) = self.case.people();
        let of = |people: &[u32]| -> Vec<Vec<f64>> {
            let targets = people.iter().filter(|person| *person % 2 == 0);
            targets.flat_map(|person| self.trials(&ran, *person)).collect()
        };
        let (busy, idle) = (of(&busy), of(&idle));
        let decision = decide(&busy, &idle, 1.0, &[10.0, 30.0, TRIAL_S]);
        let mut voice: Vec<f64> =
            ran.report.service.voice_delays_s.iter().map(|s| f64::from(*s)).collect();
        voice.sort_by(f64::total_cmp);
        Ok(ActiveOutcome {
            name: self.name.clone(),
            reading: self.reading,
            decision,
            trials: (busy.len(), idle.len()),
            voice_s: (stats::quantile(&voice, 0.5), stats::quantile(&voice, 0.99)),
        })
    }

    /// The scores of one target, a second each, cut into trials.
    fn trials(&self, ran: &Ran, person: u32) -> Vec<Vec<f64>> {
        let (Some(seen), Some(peer)) = (ran.seen(person), ran.seen(person ^ 1)) else {
            return Vec::new();
        };
        let begin = (SETTLED_S * SECOND) as u64;
        let count = (ran.workload.end.as_secs_f64() - SETTLED_S) as usize;
        let steps = (begin, SECOND as u64, count);
        let (way, shares) = (ran.way(), ran.shares());
        let scores = match self.reading {
            GatewayReading::InACall => series(seen, Question::InACall, (&way, shares), steps),
            GatewayReading::With => series(peer, Question::With(seen), (&way, shares), steps),
            GatewayReading::Rate => seen.counts(begin, steps.1, count),
            GatewayReading::Unreadable => {
                let mut counts = vec![0.0; count];
                for at in &ran.report.unreadable {
                    let second = (at.as_secs_f64() - SETTLED_S).floor();
                    if second >= 0.0
                        && let Some(count) = counts.get_mut(second as usize)
                    {
                        *count += 1.0;
                    }
                }
                counts
            }
        };
        scores.chunks_exact(TRIAL_S as usize).map(<[f64]>::to_vec).collect()
    }
}

/// Tags: frames of busy people, or of idle ones, are changed, and a colluding service counts what it cannot read.
///
/// # Errors
/// A setting that cannot be.
pub fn tags(size: (u32, f64, u64), tag_share: f64) -> anyhow::Result<ActiveOutcome> {
    let trials = |idle: u32| -> anyhow::Result<Vec<Vec<f64>>> {
        let mut case = Case::new("web", Busy::Downloads(200_000), size);
        let links = (0..case.pairs).map(|pair| format!("person {} > node *", 4 * pair + 2 * idle));
        let tag = |links| Attack { links, tag_share, begin_s: SETTLED_S, ..Attack::default() };
        case.settings.attacks = links.map(tag).collect();
        let active =
            ActiveAdversary { name: String::new(), reading: GatewayReading::Unreadable, case };
        let ran = active.case.run()?;
        Ok(active.trials(&ran, 0))
    };
    let (busy, idle) = (trials(0)?, trials(1)?);
    Ok(ActiveOutcome {
        name: format!("{:.0} % of the frames up are tagged, one pair at a time", 100.0 * tag_share),
        reading: GatewayReading::Unreadable,
        decision: decide(&busy, &idle, 1.0, &[10.0, 30.0, TRIAL_S]),
        trials: (busy.len(), idle.len()),
        voice_s: (f64::NAN, f64::NAN),
    })
}
