//! The contract of engines, as an authority keeps it.

use super::{Authority, AuthorityInput, AuthorityOutput};
use crate::Engine;

impl Engine for Authority {
    /// Milliseconds of Unix time by this authority's clock.
    type Clock = u64;
    type Output = AuthorityOutput;

    fn wake(&mut self, now: u64) {
        self.handle(now, AuthorityInput::Wake);
    }

    fn poll_output(&mut self) -> Option<AuthorityOutput> {
        Self::poll_output(self)
    }

    fn next_wake(&mut self) -> Option<u64> {
        Self::next_wake(self)
    }
}
