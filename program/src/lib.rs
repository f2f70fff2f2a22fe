//! How every program of Shoal speaks and ends: standard output whose failures are errors, one line on stderr, exit codes.
//! It knows no runtime and no socket, so that the simulator can do without those.

#![forbid(unsafe_code)]

pub mod exit;
pub mod stdout;
