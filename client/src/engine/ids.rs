//! Identifiers of loops and SURBs, and which loops have been back.

use rand::Rng;
use shoal_sphinx::PacketId;
use shoal_topology::Stream;

use crate::keys::{IdPurpose, Keys};

/// Loops that are remembered as back, beside the latest: 36 minutes of class web. An older one that comes is one too many.
const WINDOW: u32 = 1 << 16;

/// Makes identifiers. Those of loops count up, so that one that comes twice is found by one bit each.
pub(super) struct Ids {
    rng: Stream,
    /// Names this run among others: what an inbox kept from an earlier one says nothing.
    run: [u8; 4],
    next: u32,
    back: Vec<u64>,
}

/// What a loop that nobody waits for is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    /// It was given up, or an earlier run sent it.
    Late,
    /// It has been back.
    Replayed,
}

impl Ids {
    pub(super) fn new(mut rng: Stream) -> Self {
        let mut run = [0; 4];
        rng.fill_bytes(&mut run);
        Self { rng, run, next: 0, back: vec![0; WINDOW as usize / 64] }
    }

    pub(super) fn new_loop(&mut self, keys: &Keys) -> Option<PacketId> {
        // A new run, rather than numbers that come again: an old loop must not pass for a new one.
        if self.next == u32::MAX {
            self.rng.fill_bytes(&mut self.run);
            self.next = 0;
            self.back.fill(0);
        }
        let n = self.next;
        self.next += 1;
        // The bit of the one that falls out of the window is free again.
        self.set(n, false);
        let [a, b, c, d] = self.run;
        let [e, f, g, h] = n.to_be_bytes();
        // The rest is a mark by the key at which the packet ends, so that a stranger's identifier is told from an own
        // one without a list.
        keys.identifier(IdPurpose::Loop, [a, b, c, d, e, f, g, h])
    }

    pub(super) fn new_surb(&mut self, keys: &Keys) -> Option<PacketId> {
        let mut free = [0; 8];
        self.rng.fill_bytes(&mut free);
        keys.identifier(IdPurpose::Surb, free)
    }

    /// A loop of ours came, whether it was waited for or not.
    pub(super) fn came(&mut self, id: &PacketId) -> Again {
        let [a, b, c, d, e, f, g, h, ..] = *id;
        let n = u32::from_be_bytes([e, f, g, h]);
        // Of an earlier run nothing is known, so nothing is said: it may have waited at the gateway.
        if [a, b, c, d] != self.run || n >= self.next {
            return Again::Late;
        }
        // So late that its bit is another's by now.
        if self.next - n > WINDOW || self.is_set(n) {
            return Again::Replayed;
        }
        self.set(n, true);
        Again::Late
    }

    fn is_set(&self, n: u32) -> bool {
        let word = self.back.get((n % WINDOW / 64) as usize).copied().unwrap_or(0);
        word >> (n % 64) & 1 == 1
    }

    fn set(&mut self, n: u32, to: bool) {
        if let Some(word) = self.back.get_mut((n % WINDOW / 64) as usize) {
            *word = *word & !(1 << (n % 64)) | (u64::from(to) << (n % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_sphinx::SecretKey;
    use shoal_topology::Seed;

    use super::*;

    #[test]
    fn a_loop_comes_once_whether_it_is_late_or_not() {
        let keys = Keys::one(SecretKey::from_bytes([1; 32]), 8);
        let mut ids = Ids::new(Seed::from_u64(1).stream("ids"));
        let made: Vec<_> = (0..70_000).map(|_| ids.new_loop(&keys).unwrap()).collect();
        // In any order, some of them long after the others.
        for (n, id) in made.iter().enumerate().rev().step_by(3) {
            let first = if n < 70_000 - 65_536 { Again::Replayed } else { Again::Late };
            assert_eq!(ids.came(id), first, "{n}");
            assert_eq!(ids.came(id), Again::Replayed, "{n}");
        }
        assert_eq!(ids.came(&made[69_998]), Again::Late, "not one of those");
        // A new loop does not take an old one's place in the list for itself.
        let new = ids.new_loop(&keys).unwrap();
        assert_eq!([ids.came(&new), ids.came(&new)], [Again::Late, Again::Replayed]);
    }

    #[test]
    fn loops_of_an_earlier_run_are_late_and_no_more() {
        let keys = Keys::one(SecretKey::from_bytes([1; 32]), 8);
        let mut before = Ids::new(Seed::from_u64(1).stream("ids"));
        let mut ids = Ids::new(Seed::from_u64(2).stream("ids"));
        let old = before.new_loop(&keys).unwrap();
        ids.new_loop(&keys);
        assert_eq!([ids.came(&old), ids.came(&old)], [Again::Late, Again::Late]);
    }
}
