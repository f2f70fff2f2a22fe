//! What happens, as the user's programs are told it: an object of JSON each (docs/messages.md).

use serde_json::Value;
use tokio::sync::broadcast;

/// Events that a program may be behind.
const BEHIND: usize = 1_024;

/// Something that happened, with its kind as `event`.
pub(super) type Event = Value;

/// Whoever has this tells all programs that listen.
pub(super) type Events = broadcast::Sender<Event>;

/// Events that nobody listens to yet.
pub(super) fn events() -> Events {
    broadcast::channel(BEHIND).0
}
