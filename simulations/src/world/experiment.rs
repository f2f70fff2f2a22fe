//! A world as an experiment of a scenario file.

use super::{Settings, run};
use crate::experiment::{Context, Experiment, Outcome, Wrong};

impl Experiment for Settings {
    fn check(&self) -> Result<(), Wrong> {
        Settings::check(self)?;
        self.workload.check("workload")?;
        let (people, observed_s) = self.workload.size()?;
        self.check_run(people, observed_s)
    }

    fn notes(&self, seed: u64) -> anyhow::Result<Vec<String>> {
        self.workload.notes(seed)
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let workload = self.workload.workload(context.seed)?;
        let report = run(self, &workload, context.seed, context.progress)?;
        Ok(Outcome {
            measured: report.measured,
            trace_hash: Some(report.trace_hash),
            observed: Some((report.view, report.truth)),
            notes: self.notes(context.seed)?,
            ..Outcome::default()
        })
    }
}
