//! The contract that every engine keeps with whoever drives it.

/// A machine without IO: a client, a service, a node, an authority.
///
/// An engine has no clock, no socket and no randomness but what it was given, so that the same inputs at the same instants
/// give the same outputs, in service and in the simulator. Its driver
///
/// 1. hands in what happened, by the engine's own methods, with the present instant, which never goes back;
/// 2. takes outputs until there are none, and does what they say at once: they belong to this instant;
/// 3. asks for the next wake-up, and calls [`Engine::wake`] when that instant has come, or hands in something before.
///
/// What [`Engine::next_wake`] says is stale as soon as anything was handed in or an output was taken. After a wake-up it may
/// say the same instant again, a few times at most, and then none or one that lies ahead. A wake-up that comes early, or twice, does nothing, and
/// one that comes late does what was due. An output that was not taken is kept, and no other is put in its place.
pub trait Engine {
    /// How it counts time: [`Time`](crate::Time) since some instant, or milliseconds of Unix time where all who take part
    /// must mean the same instant.
    type Clock: Copy + Ord;
    /// What it wants done, or tells.
    type Output;

    /// Does what is due at `now`.
    fn wake(&mut self, now: Self::Clock);

    /// The next thing that it wants done.
    fn poll_output(&mut self) -> Option<Self::Output>;

    /// When it wants to be woken if nothing happens before; none for never.
    fn next_wake(&mut self) -> Option<Self::Clock>;
}
