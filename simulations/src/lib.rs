//! The deployed engines in virtual time, observers of their links, adversaries that read nothing else, and what they
//! find out. No runtime and no socket: the daemons on loopback are in `shoal-localnet`.

pub mod adversary;
pub mod anonymity;
pub mod commands;
mod delimited;
pub mod experiment;
pub mod harness;
pub mod literature;
pub mod score;
pub mod stats;
pub mod systems;
pub mod trace;
pub mod vectors;
pub mod workload;
pub mod world;
