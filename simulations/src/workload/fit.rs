//! How a list of calls or messages looks in figures, so that a synthetic one can stand beside a recorded one.

use std::collections::BTreeMap;
use std::fmt;

use super::csv::What;
use super::recorded::Recorded;

/// Figures of a list.
#[derive(Clone, PartialEq, Debug)]
pub struct Fit {
    /// How many rows the list has.
    pub rows: usize,
    /// People who do something.
    pub people: usize,
    /// Pairs (from, to).
    pub edges: usize,
    /// Mean number of people to whom a person calls or writes, of those who do.
    pub mean_contacts: f64,
    /// The 99th percentile of that number.
    pub contacts_p99: f64,
    /// Mean rows of an edge.
    pub rows_per_edge: f64,
    /// The 99th percentile of that number.
    pub rows_per_edge_p99: f64,
    /// Share of edges that exist in both directions.
    pub mutual_share: f64,
    /// Share of calls that nobody took; zero without calls.
    pub missed_share: f64,
    /// Mean of the logarithm of the seconds of calls that were taken and lasted.
    pub duration_log_mean: f64,
    /// Its standard deviation.
    pub duration_log_sd: f64,
    /// (σ − m)/(σ + m) of the gaps between rows of one edge (Goh and Barabási, EPL 81, 2008): 0 for a Poisson process,
    /// towards 1 for bursts.
    pub burstiness: f64,
}

fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

fn p99(values: impl Iterator<Item = usize>) -> f64 {
    let mut sorted: Vec<usize> = values.collect();
    sorted.sort_unstable();
    let index = (sorted.len() as f64 * 0.99) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).map_or(0.0, |value| *value as f64)
}

/// The figures of this list.
pub fn fit(records: &Recorded) -> Fit {
    let mut edges: BTreeMap<(u32, u32), Vec<f64>> = BTreeMap::new();
    let (mut logs, mut calls, mut missed) = (Vec::new(), 0usize, 0usize);
    for entry in &records.entries {
        edges.entry((entry.from, entry.to)).or_default().push(entry.at.as_secs_f64());
        match entry.what {
            What::Message => {}
            What::Missed => missed += 1,
            What::Call(seconds) => {
                calls += 1;
                if seconds > 0.0 {
                    logs.push(seconds.ln());
                }
            }
        }
    }
    let mut contacts: BTreeMap<u32, usize> = BTreeMap::new();
    let mut people: Vec<u32> = Vec::new();
    for (from, to) in edges.keys() {
        *contacts.entry(*from).or_default() += 1;
        people.extend([*from, *to]);
    }
    people.sort_unstable();
    people.dedup();
    let gaps: Vec<f64> = edges
        .values()
        .flat_map(|times| times.iter().zip(times.iter().skip(1)).map(|(a, b)| b - a))
        .collect();
    let (gap, gap_sd) = moments(&gaps);
    let (duration_log_mean, duration_log_sd) = moments(&logs);
    let both = edges.keys().filter(|(from, to)| edges.contains_key(&(*to, *from))).count();
    let (of_edges, of_callers) = (edges.len().max(1) as f64, contacts.len().max(1) as f64);
    Fit {
        rows: records.entries.len(),
        people: people.len(),
        edges: edges.len(),
        mean_contacts: edges.len() as f64 / of_callers,
        contacts_p99: p99(contacts.values().copied()),
        rows_per_edge: records.entries.len() as f64 / of_edges,
        rows_per_edge_p99: p99(edges.values().map(Vec::len)),
        mutual_share: both as f64 / of_edges,
        missed_share: missed as f64 / (calls + missed).max(1) as f64,
        duration_log_mean,
        duration_log_sd,
        burstiness: if gap + gap_sd > 0.0 { (gap_sd - gap) / (gap_sd + gap) } else { 0.0 },
    }
}

impl Fit {
    /// Its figures by name.
    pub fn figures(&self) -> [(&'static str, f64); 12] {
        [
            ("rows", self.rows as f64),
            ("people", self.people as f64),
            ("edges", self.edges as f64),
            ("mean_contacts", self.mean_contacts),
            ("contacts_p99", self.contacts_p99),
            ("rows_per_edge", self.rows_per_edge),
            ("rows_per_edge_p99", self.rows_per_edge_p99),
            ("mutual_share", self.mutual_share),
            ("missed_share", self.missed_share),
            ("duration_log_mean", self.duration_log_mean),
            ("duration_log_sd", self.duration_log_sd),
            ("burstiness", self.burstiness),
        ]
    }

    /// This (a synthetic list) and a recorded one side by side, a line for each figure.
    pub fn beside(&self, recorded: &Self) -> String {
        let mut text = format!("{:18} {:>12} {:>12}\n", "fit", "synthetic", "recorded");
        for ((name, synthetic), (_, recorded)) in self.figures().iter().zip(recorded.figures()) {
            text.push_str(&format!("{name:18} {synthetic:>12.3} {recorded:>12.3}\n"));
        }
        text
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.figures().iter().try_for_each(|(name, value)| writeln!(f, "{name:18} {value:>12.3}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::SyntheticSettings;
    use super::*;

    #[test]
    fn the_copenhagen_calls_have_the_stated_durations() {
        // What `synthetic` takes by default: lognormal(3.07, 1.66), 10 % missed.
        let fit = fit(&Recorded::copenhagen_calls().unwrap());
        assert!((fit.missed_share - 0.1017).abs() < 1e-4, "{fit}");
        assert!((fit.duration_log_mean - 3.07).abs() < 0.02, "{fit}");
        assert!((fit.duration_log_sd - 1.66).abs() < 0.02, "{fit}");
    }

    #[test]
    fn the_default_synthetic_list_is_near_the_recorded_one() {
        let recorded = fit(&Recorded::copenhagen_calls().unwrap());
        let synthetic = fit(&SyntheticSettings::default().records(1));
        let table = synthetic.beside(&recorded);
        let ratio = |a: f64, b: f64| (0.5..2.0).contains(&(a / b));
        assert!(ratio(synthetic.rows as f64, recorded.rows as f64), "{table}");
        assert!(ratio(synthetic.rows_per_edge, recorded.rows_per_edge), "{table}");
        assert!(ratio(synthetic.mean_contacts, recorded.mean_contacts), "{table}");
        assert!((synthetic.burstiness - recorded.burstiness).abs() < 0.25, "{table}");
    }
}
