//! Experiment `made_up`: calls over traffic that is made up, each protection on or off.
//!
//! `shoal-sim attack` on what it leaves shows that attacks work: each finds what a protection that is off no longer hides.

use crate::adversary::attacks::generated::{Calls, GATEWAYS, view};
use crate::experiment::{Context, Estimate, Experiment, Measured, Outcome, Wrong};

impl Experiment for Calls {
    fn check(&self) -> Result<(), Wrong> {
        let within = |key, value: u32, low, high| {
            let why = format!("must be {low} to {high}");
            if (low..=high).contains(&value) { Ok(()) } else { Err(Wrong::new(key, why)) }
        };
        within("people", self.people, 2, 400)?;
        if !self.people.is_multiple_of(2) {
            return Err(Wrong::new("people", "must be even: they call each other in pairs"));
        }
        within("seconds", self.seconds, 60, 3_600)?;
        // By the rule of operators, two mixes at the most are barred.
        within("mixes", self.mixes, GATEWAYS, 100)
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let (view, truth) = view(&Self { seed: context.seed, ..self.clone() });
        let packets: usize = view.trace.links.values().map(crate::trace::Flow::len).sum();
        let exact = |name, value: usize| Measured::new(name, "1", Estimate::exact(value as f64));
        let measured = vec![
            exact("people", self.people as usize),
            exact("records", truth.records.len()),
            exact("packets_seen", packets),
        ];
        let note =
            "Traffic that is made up: it says what attacks find, and nothing of the engines.";
        let notes = vec![note.into()];
        Ok(Outcome { measured, observed: Some((view, truth)), notes, ..Outcome::default() })
    }
}
