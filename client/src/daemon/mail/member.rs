//! What the client's descriptor says of it as a member of an organisation.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Written by the thread of messages, read by whoever makes descriptors.
#[derive(Default)]
pub(in crate::daemon) struct Member(Mutex<MemberState>);

#[derive(Default)]
struct MemberState {
    /// The number of the device, and how many entries of the directory it holds.
    now: Option<(u32, u64)>,
    /// Whether the descriptor that was made last says so.
    was_told: bool,
}

impl Member {
    fn state(&self) -> MutexGuard<'_, MemberState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is a member, with this device and this size of the directory.
    pub(in crate::daemon) fn set(&self, device: u32, size: u64) {
        self.state().now = Some((device, size));
    }

    /// True if it is a member.
    pub(in crate::daemon) fn is_one(&self) -> bool {
        self.state().now.is_some()
    }

    /// What a descriptor that is being made says: the number of the device, and how many entries of the directory it holds.
    pub(in crate::daemon) fn describe(&self) -> Option<(u32, u64)> {
        let mut state = self.state();
        state.was_told = state.now.is_some();
        state.now
    }

    /// True if the descriptor that was made last says that it is a member.
    pub(in crate::daemon) fn was_told(&self) -> bool {
        self.state().was_told
    }
}
