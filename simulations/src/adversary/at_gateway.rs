//! What a person's own gateway sees of it, and how well that tells what the person does.
//!
//! Property P2 at the gateway: what goes up is the same to the bit whatever the person does, and what comes for the
//! person follows one law in rest, with messages and in calls. Here are the statistics that test it ([`steady`]), and the
//! attacks that read what no schedule hides: instants at which something begins or ends, stalls, holds, injections
//! ([`attacks`]). All of them read [`Seen`] and nothing else.

pub mod attacks;
pub mod decision;
pub mod experiments;
pub mod likelihood;
pub mod linear;
pub mod receipts;
pub mod steady;

/// A frame up, as it came to the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Up {
    /// When it came, in nanoseconds.
    pub at: u64,
    /// When it was sent, nanoseconds: whoever watches the link knows that, too.
    pub sent: u64,
    /// The frame's first hop, by its number in the document.
    pub first_hop: u16,
    /// The low byte of the epoch whose keys open it.
    pub epoch: u8,
}

/// A packet that came from the mixes for a person.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PersonArrival {
    /// When it came, in nanoseconds.
    pub at: u64,
    /// From which node.
    pub from: u32,
    /// The low byte of the epoch whose key opened it.
    pub epoch: u8,
}

/// What a gateway sees of one person, in order of time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// The frames that the person sent.
    pub up: Vec<Up>,
    /// Packets for the person. All have one size.
    pub came: Vec<PersonArrival>,
    /// When packets (not dummies) went down to it, nanoseconds.
    pub down: Vec<u64>,
}

impl Seen {
    /// Packets that came in each of so many bins of equal length, nanoseconds, from `begin` on.
    pub fn counts(&self, begin: u64, bin: u64, bins: usize) -> Vec<f64> {
        let mut counts = vec![0.0; bins];
        let first = self.came.partition_point(|came| came.at < begin);
        for came in self.came.iter().skip(first) {
            match counts.get_mut(((came.at - begin) / bin) as usize) {
                Some(count) => *count += 1.0,
                None => break,
            }
        }
        counts
    }
}
