//! Everything a client or node believes about the network, against documents that are wrong in one way each.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod descriptors;
mod documents;
mod held;
mod large;
mod paths;
mod refusals;
mod words;
mod world;
