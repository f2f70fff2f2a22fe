//! The contract of engines, as an authority keeps it.

use super::{Authority, Input, Output};
use crate::Engine;

impl Engine for Authority {
    /// Milliseconds of Unix time by this authority's clock.
    type Clock = u64;
    type Output = Output;

    fn wake(&mut self, now: u64) {
        self.handle(now, Input::Wake);
    }

    fn poll_output(&mut self) -> Option<Output> {
        Self::poll_output(self)
    }

    fn next_wake(&mut self) -> Option<u64> {
        Self::next_wake(self)
    }
}
