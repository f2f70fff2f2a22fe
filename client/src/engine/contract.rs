//! The contract of engines, as a client keeps it.

use shoal_topology::{Engine, Time};

use super::{Client, ClientOutput};

impl Engine for Client {
    type Clock = Time;
    type Output = ClientOutput;

    fn wake(&mut self, now: Time) {
        self.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<ClientOutput> {
        Self::poll_output(self)
    }

    fn next_wake(&mut self) -> Option<Time> {
        self.next_timeout().if_ever()
    }
}
