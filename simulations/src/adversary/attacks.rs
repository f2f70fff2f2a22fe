//! Attacks that try to rebuild call records from what an observer sees.
//!
//! An attack is given a [`View`] and nothing else: no function here takes a [`crate::trace::Truth`]. What it
//! finds is an [`Answer`], which [`crate::score::scores`] compares with what really happened.

mod bursts;
mod calls;
mod corrupt_nodes;
mod delay;
mod dense;
mod disclosure;
mod far_end;
mod first_mixes;
mod follow;
mod gateway;
pub mod generated;
mod intersection;
mod marks;
mod matching;
mod missing_mixes;
mod records;
mod view_by_user;

pub use calls::{FlowShape, FlowStarts};
pub use corrupt_nodes::{CorruptNodes, arrival_excess};
pub use dense::MOST_PEOPLE as MOST_PEOPLE_COMPARED;
pub use disclosure::{Disclosure, LeastSquares};
pub use first_mixes::FirstMixes;
pub use follow::Follow;
pub use gateway::{ArrivalCounts, EpochBytes, FirstHops, LastMixes};
pub use intersection::Intersection;
pub use matching::{Matching, Senders};
pub use missing_mixes::MissingMixes;
pub use records::{Direct, Records, combine};

use crate::trace::View;

/// A pair and how much speaks for it; scores compare within one answer only.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scored {
    /// Who called or wrote.
    pub caller: u32,
    /// Who was called or written to.
    pub callee: u32,
    /// The more, the surer; finite.
    pub score: f64,
}

/// A call record as an attack rebuilds it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RebuiltRecord {
    /// Who called or wrote.
    pub caller: u32,
    /// Who was called or written to.
    pub callee: u32,
    /// When, seconds since time zero.
    pub start_s: f64,
    /// How long, seconds; zero for a message.
    pub duration_s: f64,
    /// The more, the surer; finite.
    pub score: f64,
}

/// How much speaks for it that somebody is not at rest at some time; scores compare within one answer only.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sign {
    /// The person who is not at rest.
    pub person: u32,
    /// From when on, seconds since time zero.
    pub begin_s: f64,
    /// For how long, seconds.
    pub length_s: f64,
    /// The more, the surer; finite.
    pub score: f64,
}

/// What an attack found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Answer {
    /// Pairs, each at most once, in any order. A pair that is missing ranks below all of these.
    pub pairs: Vec<Scored>,
    /// Rebuilt rows, in any order; empty where the attack makes none.
    pub rows: Vec<RebuiltRecord>,
    /// Who does something when, in any order; empty where the attack makes none.
    pub signs: Vec<Sign>,
}

impl Answer {
    /// True if the attack found nothing to go by.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.rows.is_empty() && self.signs.is_empty()
    }
}

/// An attack: it reads a view and answers who was in touch with whom.
pub trait Attack {
    /// Its name in tables and in JSON.
    fn name(&self) -> &'static str;

    /// What it finds in this view; the same for the same view.
    fn run(&self, view: &View) -> Answer;
}

/// All attacks, with their default settings.
pub fn all() -> Vec<Box<dyn Attack>> {
    let mut all = single();
    all.push(Box::new(Records));
    all
}

/// All but [`Records`], which puts these together.
pub fn single() -> Vec<Box<dyn Attack>> {
    vec![
        Box::new(Direct),
        Box::new(Matching::default()),
        Box::new(Disclosure),
        Box::new(LeastSquares::default()),
        Box::new(FlowStarts),
        Box::new(FlowShape),
        Box::new(Intersection::default()),
        Box::new(CorruptNodes),
        Box::new(FirstMixes),
        Box::new(FirstHops),
        Box::new(MissingMixes),
        Box::new(LastMixes),
        Box::new(EpochBytes),
        Box::new(ArrivalCounts),
        Box::new(Follow),
    ]
}
