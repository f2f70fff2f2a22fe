//! What people do: messages, calls, downloads. A workload is a list of it, made before the run.

mod calendar;
mod columns;
mod csv;
mod fit;
mod letters;
mod recorded;
mod session;
mod settings;
mod synthetic;

pub use csv::What;
pub use fit::{Fit, fit};
pub use letters::LetterSettings;
pub use recorded::{BadRecords, Entry, Missed, Recorded};
pub use session::{BrowseSettings, DownloadSettings};
pub use settings::{WorkloadKind, WorkloadSettings};
pub use synthetic::{Rows, SyntheticSettings};

use shoal_topology::Time;

use crate::trace::{Record, Truth};

/// Something that a person does.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Activity {
    /// A text message, of one packet.
    Message {
        /// The person who writes.
        from: u32,
        /// The person who is written to.
        to: u32,
        /// When it is written.
        at: Time,
    },
    /// A call: packets at a constant rate in both directions.
    Call {
        /// The person who calls.
        from: u32,
        /// The person who is called.
        to: u32,
        /// When the call begins.
        at: Time,
        /// How long it lasts, in seconds.
        seconds: f64,
    },
    /// A download from a service.
    Download {
        /// The person who downloads.
        person: u32,
        /// When the request is made.
        at: Time,
        /// How many bytes the service answers with.
        bytes: u64,
    },
}

impl Activity {
    /// When it begins.
    pub fn at(&self) -> Time {
        match self {
            Self::Message { at, .. } | Self::Call { at, .. } | Self::Download { at, .. } => *at,
        }
    }
}

/// What everybody does, in order of time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Workload {
    /// Number of people; they are numbered from zero.
    pub people: u32,
    /// When the observation ends; it begins at zero.
    pub end: Time,
    /// In order of [`Activity::at`].
    pub activities: Vec<Activity>,
}

impl Workload {
    /// The rows of the call records that this leaves: messages and calls.
    pub fn truth(&self) -> Truth {
        let row = |activity: &Activity| match *activity {
            Activity::Message { from, to, at } => {
                Some(Record { caller: from, callee: to, start: at, duration_s: 0.0 })
            }
            Activity::Call { from, to, at, seconds } => {
                Some(Record { caller: from, callee: to, start: at, duration_s: seconds })
            }
            Activity::Download { .. } => None,
        };
        Truth { records: self.activities.iter().filter_map(row).collect() }
    }
}
