//! Figures of the network's structure beside the attacks: how soon a path is wholly corrupt, and what a packet hides behind.

use std::fmt::Write as _;

use crate::experiment::{Context, Experiment, Measured};
use crate::literature::corrupt_operators::CorruptOperators;
use crate::literature::delay_law::DelayLaw;

/// The time to the first path of corrupt operators alone, of a client and of a call, and the entropy of a packet. The same as
/// the experiments `corrupt_operators` and `delay_law`; `quick` follows fewer clients and packets.
///
/// # Errors
/// Of the experiments.
pub fn figures(quick: bool, seed: u64) -> anyhow::Result<Vec<Measured>> {
    let mut operators = CorruptOperators::default();
    let mut law = DelayLaw::default();
    if quick {
        (operators.clients, operators.most_packets) = (400, 20_000);
        law.targets = 60;
    }
    let context = Context { seed, progress: &|_| () };
    let mut all = operators.run(&context)?.measured;
    all.extend(law.run(&context)?.measured);
    Ok(all)
}

/// A line for each.
pub fn table(figures: &[Measured]) -> String {
    let mut text = String::from(
        "\nfirst path of corrupt operators alone (given that the gateway, or both, are corrupt), and entropy of a packet\n",
    );
    for Measured { name, unit, estimate, expected } in figures {
        let interval = format!("{:.3} to {:.3}", estimate.low, estimate.high);
        let expected = expected.map_or_else(String::new, |value| format!("  theory: {value:.3}"));
        let _ = writeln!(text, "{:10.3}  {interval:22}  {unit:5} {name}{expected}", estimate.value);
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_scoreboard_says_when_a_path_is_corrupt_and_what_a_packet_hides_behind() {
        let figures = figures(true, 1).unwrap();
        let of = |name: &str| figures.iter().find(|figure| figure.name == name).unwrap().estimate;
        let mut last = f64::INFINITY;
        for percent in [5, 10, 20] {
            for gateways in ["one_gateway", "both_gateways"] {
                for whose in ["client", "call"] {
                    let name = |q: &str| format!("f_{percent}_pct_{gateways}_{whose}_{q}_s");
                    assert!(of(&name("5_pct")).value <= of(&name("median")).value);
                }
            }
            // The more are corrupt, the sooner.
            let call = of(&format!("f_{percent}_pct_one_gateway_call_5_pct_s")).value;
            assert!(call < last, "{percent}: {call}");
            last = call;
        }
        assert!((5.0..10.0).contains(&of("entropy_bits").value));
        assert!(table(&figures).lines().count() > figures.len());
    }
}
