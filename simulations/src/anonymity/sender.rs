//! Sender entropy, backward, of one mix.

/// Entropy of (p, 1 − p), bits.
pub fn binary_entropy_bits(p: f64) -> f64 {
    super::shannon_bits([p, 1.0 - p])
}

/// Entropy of "which arrival was this departure?" at one mix, O(1) for each departure (Loopix, USENIX Security
/// 2017, appendix A.1).
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct SenderEntropy {
    /// l: packets left after the previous departure.
    left: u64,
    /// k: arrivals since.
    arrivals: u64,
    /// H of the previous departure, bits.
    entropy: f64,
}

impl SenderEntropy {
    /// An empty mix.
    pub fn new() -> Self {
        Self::default()
    }

    /// A packet came.
    pub fn arrive(&mut self) {
        self.arrivals += 1;
    }

    /// Packets in the mix.
    pub fn packets(&self) -> u64 {
        self.left + self.arrivals
    }

    /// A packet left: its entropy in bits; none from an empty mix.
    pub fn depart(&mut self) -> Option<f64> {
        let (k, all) = (self.arrivals, self.packets());
        if all == 0 {
            return None;
        }
        if k > 0 {
            let share = k as f64 / all as f64;
            let old = (1.0 - share) * self.entropy;
            self.entropy = binary_entropy_bits(share) + share * (k as f64).log2() + old;
        }
        self.left = all - 1;
        self.arrivals = 0;
        Some(self.entropy)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_trace_has_its_sender_entropies() {
        let mut mix = SenderEntropy::new();
        let mut obtained = Vec::new();
        for step in "a b D c D d e D D f D D".split(' ') {
            if step == "D" { obtained.push(mix.depart().unwrap()) } else { mix.arrive() }
        }
        let expected = [1.0, 1.5, 2.0849625007, 2.0849625007, 2.0424812504, 2.0424812504];
        assert_eq!(obtained.len(), expected.len());
        for (a, b) in obtained.iter().zip(expected) {
            assert!((a - b).abs() < 1e-10, "{a} is not {b}");
        }
        assert_eq!(mix.depart(), None);
    }
}
