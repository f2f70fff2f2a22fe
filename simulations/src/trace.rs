//! What an observer of links sees, and what corrupted nodes add to it: all that an adversary is given.
//!
//! An adversary gets a [`View`] and nothing else. What really happened is a [`Truth`], which only the scores read;
//! no function that takes a view takes a truth.

use std::collections::BTreeMap;

use shoal_topology::Time;

/// Whoever has an address that an observer can name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Party {
    /// A person's client, by number from zero.
    Person(u32),
    /// A service: a client that answers at once.
    Service(u32),
    /// A node, by its number in the list of the document; in systems beside Shoal a relay.
    Node(u32),
}

/// One direction between two parties.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Link {
    /// The party that sends.
    pub from: Party,
    /// The party that receives.
    pub to: Party,
}

/// What was seen on one link, in order of time.
#[derive(Clone, PartialEq, Debug)]
pub enum Flow {
    /// Each packet: when, in nanoseconds, and how long, in bytes.
    Packets {
        /// When each packet was seen, in nanoseconds.
        times: Vec<u64>,
        /// The length of each packet, in bytes.
        sizes: Sizes,
    },
    /// Packets in bins of equal length, for flows of 10^9 packets and more.
    Counts {
        /// Length of a bin, nanoseconds.
        bin: u64,
        /// Packets in each bin from time zero on.
        counts: Vec<u16>,
    },
}

/// Lengths of the packets of a link.
#[derive(Clone, PartialEq, Debug)]
pub enum Sizes {
    /// All the same.
    Same(u32),
    /// Each its own.
    Each(Vec<u32>),
}

impl Flow {
    /// Nothing seen yet.
    pub fn new(size: u32) -> Self {
        Self::Packets { times: Vec::new(), sizes: Sizes::Same(size) }
    }

    /// Adds a packet; time must not go back.
    pub fn push(&mut self, at: Time, size: u32) {
        match self {
            Self::Packets { times, sizes } => {
                match sizes {
                    Sizes::Same(same) if *same == size => {}
                    Sizes::Same(same) if times.is_empty() => *same = size,
                    Sizes::Same(same) => {
                        let mut each = vec![*same; times.len()];
                        each.push(size);
                        *sizes = Sizes::Each(each);
                    }
                    Sizes::Each(each) => each.push(size),
                }
                times.push(at.as_nanos());
            }
            Self::Counts { bin, counts } => {
                let index = (at.as_nanos() / *bin) as usize;
                if counts.len() <= index {
                    counts.resize(index + 1, 0);
                }
                if let Some(count) = counts.get_mut(index) {
                    *count = count.saturating_add(1);
                }
            }
        }
    }

    /// Packets in each of `bins` bins of this length (nanoseconds) from `begin` on. Of [`Flow::Counts`] the length
    /// must be a multiple of its own bin; a remainder is cut off.
    pub fn counts(&self, begin: u64, bin: u64, bins: usize) -> Vec<u32> {
        let mut all = vec![0; bins];
        let mut add = |at: u64, packets: u32| {
            if at >= begin
                && let Some(count) = all.get_mut(((at - begin) / bin) as usize)
            {
                *count += packets;
            }
        };
        match self {
            Self::Packets { times, .. } => times.iter().for_each(|at| add(*at, 1)),
            Self::Counts { bin, counts } => {
                let numbered = counts.iter().enumerate();
                numbered.for_each(|(index, count)| add(index as u64 * bin, u32::from(*count)));
            }
        }
        all
    }

    /// Number of packets.
    pub fn len(&self) -> usize {
        match self {
            Self::Packets { times, .. } => times.len(),
            Self::Counts { counts, .. } => counts.iter().map(|count| usize::from(*count)).sum(),
        }
    }

    /// True if nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What was seen on all observed links. A link that is not in it was not observed.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Trace {
    /// The flow of each observed link.
    pub links: BTreeMap<Link, Flow>,
}

/// What a corrupted node knows of a packet that it passed on: which arrival became which departure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pass {
    /// The node that tells.
    pub node: u32,
    /// When the packet came.
    pub arrived: Time,
    /// The party from which it came.
    pub from: Party,
    /// When it left.
    pub left: Time,
    /// The party to which it went.
    pub to: Party,
    /// A hash of it as it came: corrupted nodes at both ends of a link see the same bytes. Each mix changes them.
    pub came: u64,
    /// And as it left; 0 if it ended here.
    pub went: u64,
    /// The low byte of the epoch of its key, as its frame named it on the link to the node.
    pub epoch: u8,
}

/// What everybody knows.
#[derive(Clone, Debug)]
pub struct Public {
    /// Number of people.
    pub people: u32,
    /// The observation, nanoseconds.
    pub begin: Time,
    /// When the observation ends.
    pub end: Time,
    /// Hops that delay, L.
    pub hops: u32,
    /// 1/µ, mean delay at such a hop, seconds; zero where nothing is delayed on purpose.
    pub hop_mean_s: f64,
    /// Where it is above zero one of the hops delays by U(0, this) instead, seconds.
    pub uniform_s: f64,
    /// What every packet's way takes beside, seconds.
    pub latency_s: f64,
    /// Packets/s of a person's link that are there without any use, up and down. Zero where there is no cover.
    pub resting_up_per_s: f64,
    /// The same towards the person.
    pub resting_down_per_s: f64,
    /// Packets/s of a call in each direction.
    pub call_per_s: f64,
}

/// All that an adversary has.
#[derive(Clone, Debug)]
pub struct View {
    /// What everybody knows.
    pub public: Public,
    /// What is seen on links.
    pub trace: Trace,
    /// What corrupted nodes add, in order of `left`.
    pub passes: Vec<Pass>,
}

/// A row of a call record: what must not be found out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Record {
    /// Who called or wrote.
    pub caller: u32,
    /// Who was called or written to.
    pub callee: u32,
    /// When the call or message began.
    pub start: Time,
    /// Seconds; zero for a message.
    pub duration_s: f64,
}

/// What really happened, in order of `start`. Only scores read it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Truth {
    /// The rows of the call record.
    pub records: Vec<Record>,
}
