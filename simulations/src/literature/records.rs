//! Recorded calls and messages through a mixnet without cover: what mixing alone hides.
//!
//! Each row of the file is one packet over `hops` mixes. The observer sees (sender, time in) and (recipient, time
//! out), both without error, and knows the law f of the delay. The reading that is computed here:
//!
//! - Per message i the deliveries j have the posterior f(t_out,j − t_in,i)/Σ_j' f(t_out,j' − t_in,i): a flat prior
//!   over deliveries, each message by itself. What other messages explain is left out.
//! - top-1: the share of messages whose most probable delivery goes to their recipient, be it their own or
//!   another of the same recipient.
//!
//!   The definition leaves open what counts as right; this is the reading that gives the published .957 and .563.
//!   (To ask for the message's own delivery gives .948 and .472; the recipient with the largest summed posterior,
//!   .957 and .583.)
//! - Edges: each pair (sender, recipient) is ranked by the posterior summed over the sender's messages and that
//!   recipient's deliveries; of the ranking as many are taken as there are true edges, and the share of them that
//!   is true is printed (precision = recall there).

mod attack;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

use crate::experiment::{Context, Experiment, Measured, Outcome, Wrong};
use crate::literature::check::{Check, CheckJob, Effort};
use crate::stats;
use crate::workload::{Missed, Recorded, WorkloadKind, WorkloadSettings};
use attack::{Scores, scores};

/// Settings of experiment `records`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Records {
    /// "messages" or "calls" (Copenhagen Networks Study), or "csv".
    pub kind: WorkloadKind,
    /// With "csv": a file of time (seconds), from, to[, duration].
    pub file: Option<PathBuf>,
    /// Missed calls: "keep" or "drop".
    pub missed: Missed,
    /// Mixes on the way.
    pub hops: u32,
    /// Mean delay over all of them, seconds.
    pub delay_mean_s: f64,
    /// How often the delays are drawn; intervals are over these.
    pub draws: u32,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            kind: WorkloadKind::Messages,
            file: None,
            missed: Missed::Keep,
            hops: 3,
            delay_mean_s: 3.0,
            draws: 8,
        }
    }
}

impl Records {
    fn workload(&self) -> WorkloadSettings {
        WorkloadSettings {
            kind: self.kind,
            file: self.file.clone(),
            window_s: 0.0,
            missed: self.missed,
            ..WorkloadSettings::default()
        }
    }

    /// The scores of each draw.
    fn scores(&self, seed: u64, progress: &dyn Fn(f64)) -> anyhow::Result<Vec<Scores>> {
        let truth = self.workload().workload(seed)?.truth();
        let mut all = Vec::new();
        for draw in 0..self.draws {
            all.push(scores(&truth.records, self.hops, self.delay_mean_s, seed, draw));
            progress(f64::from(draw + 1) / f64::from(self.draws));
        }
        Ok(all)
    }
}

impl Experiment for Records {
    fn check(&self) -> Result<(), Wrong> {
        if !matches!(self.kind, WorkloadKind::Calls | WorkloadKind::Messages | WorkloadKind::Csv) {
            return Err(Wrong::new("kind", "must be \"calls\", \"messages\" or \"csv\""));
        }
        if (self.kind == WorkloadKind::Csv) != self.file.is_some() {
            return Err(Wrong::new("file", "must be given with kind = \"csv\", and only then"));
        }
        // Before anything runs: a bad line in it is a bad scenario.
        if let Some(file) = &self.file {
            Recorded::read(file).map_err(|why| Wrong::new("file", why.to_string()))?;
        }
        if !(1..=10).contains(&self.hops) {
            return Err(Wrong::new("hops", "must be 1 to 10"));
        }
        if !(1e-6..=1e5).contains(&self.delay_mean_s) {
            return Err(Wrong::new("delay_mean_s", "must be 1e-6 to 1e5"));
        }
        if !(1..=10_000).contains(&self.draws) {
            return Err(Wrong::new("draws", "must be 1 to 10000"));
        }
        Ok(())
    }

    fn notes(&self, seed: u64) -> anyhow::Result<Vec<String>> {
        self.workload().notes(seed)
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let scores = self.scores(context.seed, &|share| (context.progress)(share))?;
        let top: Vec<f64> = scores.iter().map(|score| score.top).collect();
        let edges: Vec<f64> = scores.iter().map(|score| score.edges).collect();
        let measured = vec![
            Measured::new("top_1", "1", stats::mean(&top)),
            Measured::new("edges", "1", stats::mean(&edges)),
        ];
        Ok(Outcome { measured, notes: self.notes(context.seed)?, ..Outcome::default() })
    }
}

/// Checks of `reproduce`, section 3, on the Copenhagen records.
pub fn jobs(effort: Effort) -> Vec<CheckJob> {
    let draws = effort.pick(16, 40);
    let job = move |name, kind, delay_mean_s, top: (f64, f64), edges: (f64, f64)| {
        CheckJob::new(name, move |seed| {
            let settings = Records { kind, delay_mean_s, draws, ..Records::default() };
            let scores = settings.scores(seed, &|_| ())?;
            let check = |what: &str, (expected, tolerance), of: fn(&Scores) -> f64| {
                let values: Vec<f64> = scores.iter().map(of).collect();
                let name = format!("Copenhagen {name}: {what}");
                Check::within("3", name, expected, tolerance, stats::mean(&values))
            };
            Ok(vec![check("top-1", top, |s| s.top), check("edges", edges, |s| s.edges)])
        })
    };
    use WorkloadKind::{Calls, Messages};
    vec![
        job("messages, 3 s", Messages, 3.0, (0.957, 0.001), (0.899, 0.004)),
        job("messages, 60 s", Messages, 60.0, (0.563, 0.004), (0.535, 0.006)),
        job("calls, 3 s", Calls, 3.0, (0.992, 0.002), (0.992, 0.004)),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn messages_are_found_as_published() {
        let settings = Records { draws: 2, ..Records::default() };
        let context = Context { seed: 1, progress: &|_| () };
        let measured = settings.run(&context).unwrap().measured;
        for (measured, expected) in measured.iter().zip([(0.957, 0.003), (0.899, 0.008)]) {
            assert!((measured.estimate.value - expected.0).abs() < expected.1, "{measured:?}");
        }
    }

    #[test]
    fn a_download_is_no_record() {
        let settings = Records { kind: WorkloadKind::Download, ..Records::default() };
        assert_eq!(settings.check().unwrap_err().key, "kind");
    }
}
