//! Forward tracking: where a target packet may be, after every mix that it may have passed.

/// Mass of many targets in many mixes, a column for each target.
///
/// At an honest mix all packets of the pool are alike to an observer (exponential delays have no memory), so a
/// departing packet takes an equal share of the mass. At a corrupt mix a packet keeps its own mass; it does not
/// come here.
#[derive(Clone, Debug)]
pub struct Pools {
    columns: usize,
    /// n of each mix.
    packets: Vec<u64>,
    /// P of each mix and column, mix by mix.
    masses: Vec<f64>,
}

impl Pools {
    /// Mixes without packets.
    pub fn new(mixes: usize, columns: usize) -> Self {
        Self { columns, packets: vec![0; mixes], masses: vec![0.0; mixes * columns] }
    }

    /// Packets in a mix.
    pub fn packets(&self, mix: usize) -> u64 {
        self.packets.get(mix).copied().unwrap_or(0)
    }

    /// Mass in a mix, by column.
    pub fn masses(&self, mix: usize) -> &[f64] {
        self.masses.get(mix * self.columns..(mix + 1) * self.columns).unwrap_or(&[])
    }

    /// A packet with these masses came: n += 1, P += q.
    pub fn arrive(&mut self, mix: usize, masses: &[f64]) {
        let Some(packets) = self.packets.get_mut(mix) else { return };
        *packets += 1;
        let range = mix * self.columns..(mix + 1) * self.columns;
        let Some(pool) = self.masses.get_mut(range) else { return };
        for (pool, mass) in pool.iter_mut().zip(masses) {
            *pool += mass;
        }
    }

    /// A packet left, with the masses that are written here: q = P/n, P −= q, n −= 1.
    pub fn depart(&mut self, mix: usize, masses: &mut [f64]) {
        let Some(packets) = self.packets.get_mut(mix) else { return };
        let range = mix * self.columns..(mix + 1) * self.columns;
        let Some(pool) = self.masses.get_mut(range) else { return };
        if *packets <= 1 {
            // The last one takes all: no remainder of rounding stays behind.
            *packets = 0;
            for (pool, mass) in pool.iter_mut().zip(masses) {
                *mass = std::mem::take(pool);
            }
            return;
        }
        let share = 1.0 / *packets as f64;
        *packets -= 1;
        for (pool, mass) in pool.iter_mut().zip(masses) {
            *mass = *pool * share;
            *pool -= *mass;
        }
    }

    /// Forgets a target, so that its column can serve another.
    pub fn clear(&mut self, column: usize) {
        self.masses.iter_mut().skip(column).step_by(self.columns.max(1)).for_each(|p| *p = 0.0);
    }
}

/// Mass was lost or made: a bug of the simulator.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[error("the masses of a target sum to {sum}, not to 1, after draining")]
pub struct Leak {
    /// What they sum to.
    pub sum: f64,
}

/// Masses of one target on the packets that left the last layer.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Following {
    masses: Vec<f64>,
    people: Vec<f64>,
    sum: f64,
}

impl Following {
    /// Nothing left yet; the masses of `people` people are summed, none for zero.
    pub fn new(people: u32) -> Self {
        Self { people: vec![0.0; people as usize], ..Self::default() }
    }

    /// A packet left the last layer for this person.
    pub fn push(&mut self, mass: f64, person: u32) {
        if mass <= 0.0 {
            return;
        }
        self.sum += mass;
        self.masses.push(mass);
        if let Some(sum) = self.people.get_mut(person as usize) {
            *sum += mass;
        }
    }

    /// What has left.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// After draining: the masses of packets (those that are not zero), and of people.
    ///
    /// # Errors
    /// [`Leak`] when they do not sum to 1 within 1e-9.
    pub fn finish(self) -> Result<(Vec<f64>, Vec<f64>), Leak> {
        if (self.sum - 1.0).abs() <= 1e-9 {
            Ok((self.masses, self.people))
        } else {
            Err(Leak { sum: self.sum })
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_trace_has_the_masses_of_b() {
        let mut pools = Pools::new(1, 2);
        let mut obtained = Vec::new();
        let mut followed = Following::new(0);
        for step in "a b D c D d e D D f D D".split(' ') {
            if step == "D" {
                let mut masses = [0.0; 2];
                pools.depart(0, &mut masses);
                obtained.push(masses[1]);
                followed.push(masses[1], 0);
            } else {
                let mass = if step == "b" { 1.0 } else { 0.0 };
                pools.arrive(0, &[0.0, mass]);
            }
        }
        let expected = [2.0, 4.0, 12.0, 12.0, 24.0, 24.0].map(|n: f64| 1.0 / n);
        for (a, b) in obtained.iter().zip(expected) {
            assert!((a - b).abs() < 1e-15, "{a} is not {b}");
        }
        followed.finish().unwrap();
    }

    #[test]
    fn a_target_that_has_not_drained_is_a_leak() {
        let mut followed = Following::new(0);
        followed.push(0.5, 0);
        assert_eq!(followed.finish(), Err(Leak { sum: 0.5 }));
    }

    #[test]
    fn a_cleared_column_leaves_the_others() {
        let mut pools = Pools::new(2, 2);
        pools.arrive(0, &[0.5, 0.25]);
        pools.arrive(1, &[0.5, 0.75]);
        pools.clear(0);
        assert_eq!((pools.masses(0), pools.masses(1)), (&[0.0, 0.25][..], &[0.0, 0.75][..]));
    }
}
