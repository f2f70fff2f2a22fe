//! A baseline as an experiment: its trace, for attacks.

use serde::{Deserialize, Serialize};

use super::{System, SystemSettings, observe_with};
use crate::experiment::{Context, Estimate, Experiment, Measured, Outcome, Wrong};
use crate::workload::{WorkloadKind, WorkloadSettings};

/// A workload through a system that Shoal is put beside.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Baseline {
    /// "telecom", "vpn", "onion" or "nym".
    pub system: System,
    /// How the systems are built.
    pub systems: SystemSettings,
    /// What people do.
    pub workload: WorkloadSettings,
}

impl Default for Baseline {
    fn default() -> Self {
        Self {
            system: System::Onion,
            systems: SystemSettings::default(),
            workload: WorkloadSettings::default(),
        }
    }
}

impl Experiment for Baseline {
    fn check(&self) -> Result<(), Wrong> {
        self.systems.check().map_err(|wrong| wrong.within("systems"))?;
        self.workload.check("workload")?;
        let (workload, traffic) = (&self.workload, &self.systems.traffic);
        if workload.kind == WorkloadKind::Download {
            let downloads =
                f64::from(workload.people) * workload.window_s / workload.download.every_s;
            let packets = workload.download.bytes as f64 / f64::from(traffic.download_packet_bytes);
            if downloads * packets > 1e8 {
                let why = "must be fewer: all downloads together have 10^8 packets at most";
                return Err(Wrong::new("workload.download.bytes", why));
            }
        }
        Ok(())
    }

    fn notes(&self, seed: u64) -> anyhow::Result<Vec<String>> {
        self.workload.notes(seed)
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let workload = self.workload.workload(context.seed)?;
        let view = observe_with(&self.systems, self.system, &workload, context.seed);
        let truth = workload.truth();
        let packets: usize = view.trace.links.values().map(crate::trace::Flow::len).sum();
        let exact = |name, value: usize| Measured::new(name, "1", Estimate::exact(value as f64));
        let measured = vec![
            exact("people", workload.people as usize),
            exact("records", truth.records.len()),
            exact("links", view.trace.links.len()),
            exact("packets_seen", packets),
        ];
        let notes = self.notes(context.seed)?;
        Ok(Outcome { measured, observed: Some((view, truth)), notes, ..Outcome::default() })
    }
}
