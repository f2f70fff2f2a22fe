//! What adversaries found against what really happened, for one attack and for all of them beside each other.

pub mod scoreboard;
pub mod scores;
