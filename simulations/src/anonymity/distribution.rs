//! Figures of one distribution of probability mass over packets or people.

use std::collections::BTreeMap;

/// Shannon entropy −Σ p log2 p, bits. Masses that are zero add nothing.
pub fn shannon_bits(masses: impl IntoIterator<Item = f64>) -> f64 {
    let terms = masses.into_iter().filter(|p| *p > 0.0).map(|p| -p * p.log2());
    terms.sum::<f64>().max(0.0)
}

/// Effective size of the anonymity set, 2^H (Serjantov and Danezis, PET 2002).
pub fn effective_set(entropy_bits: f64) -> f64 {
    entropy_bits.exp2()
}

/// H / log2 N (Diaz et al., PET 2002); of one candidate, 0.
pub fn degree_of_anonymity(entropy_bits: f64, candidates: f64) -> f64 {
    if candidates > 1.0 { entropy_bits / candidates.log2() } else { 0.0 }
}

/// −log2 of the largest mass, bits: what one guess is worth.
pub fn min_entropy(masses: impl IntoIterator<Item = f64>) -> f64 {
    let largest = masses.into_iter().fold(0.0, f64::max);
    if largest > 0.0 { (-largest.log2()).max(0.0) } else { 0.0 }
}

/// Mean number of guesses when the most likely are tried first (Massey, ISIT 1994). Sorts the masses.
pub fn guessing_entropy(masses: &mut [f64]) -> f64 {
    masses.sort_unstable_by(|a, b| b.total_cmp(a));
    masses.iter().enumerate().map(|(index, p)| (index + 1) as f64 * p).sum()
}

/// Masses of people from the masses of their packets: a claim about people needs these, in order of the person.
pub fn sum_by_person(packets: impl IntoIterator<Item = (u32, f64)>) -> Vec<(u32, f64)> {
    let mut people = BTreeMap::new();
    for (person, mass) in packets {
        *people.entry(person).or_insert(0.0) += mass;
    }
    people.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_distribution_has_all_entropies_equal() {
        let mut masses = [0.125; 8];
        assert_eq!(shannon_bits(masses), 3.0);
        assert_eq!(min_entropy(masses), 3.0);
        assert_eq!(effective_set(3.0), 8.0);
        assert_eq!(degree_of_anonymity(3.0, 8.0), 1.0);
        assert_eq!(guessing_entropy(&mut masses), 4.5);
    }

    #[test]
    fn a_skewed_distribution_is_guessed_from_its_largest_mass_on() {
        let mut masses = [0.1, 0.6, 0.3];
        assert!((guessing_entropy(&mut masses) - 1.5).abs() < 1e-12);
        assert!((min_entropy(masses) - 0.736_965_594).abs() < 1e-9);
    }

    #[test]
    fn the_masses_of_a_persons_packets_are_summed() {
        let people = sum_by_person([(7, 0.25), (2, 0.5), (7, 0.25)]);
        assert_eq!(people, vec![(2, 0.5), (7, 0.5)]);
    }
}
