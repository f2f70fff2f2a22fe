//! What people do: messages, calls, downloads. A workload is a list of it, made before the run.

mod calendar;
mod columns;
mod csv;
mod fit;
mod recorded;
mod session;
mod settings;
mod synthetic;

pub use fit::{Fit, fit};
pub use recorded::{BadRecords, Entry, Missed, Recorded, What};
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
        /// Who writes.
        from: u32,
        /// To whom.
        to: u32,
        /// When.
        at: Time,
    },
    /// A call: packets at a constant rate in both directions.
    Call {
        /// Who calls.
        from: u32,
        /// Whom.
        to: u32,
        /// When.
        at: Time,
        /// How long.
        seconds: f64,
    },
    /// A download from a service.
    Download {
        /// Who.
        person: u32,
        /// When.
        at: Time,
        /// How much.
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
