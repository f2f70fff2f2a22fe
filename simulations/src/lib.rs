//! The deployed engines in virtual time, observers of their links, adversaries that read nothing else, and what they
//! find out. No runtime and no socket: the daemons on loopback are in `shoal-localnet`.

pub mod at_gateway;
pub mod attacks;
pub mod bare;
pub mod baselines;
pub mod blending;
pub mod coalition;
pub mod commands;
mod delimited;
pub mod disclosure;
pub mod experiment;
pub mod figures;
pub mod flows;
pub mod holds;
pub mod made_up;
pub mod metrics;
pub mod output;
pub mod records;
pub mod reproduce;
pub mod row;
pub mod scenario;
pub mod scoreboard;
pub mod scores;
pub mod stats;
pub mod sweep;
pub mod trace;
pub mod vectors;
pub mod workload;
pub mod world;
