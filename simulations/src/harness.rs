//! What surrounds an experiment: scenario files before it, tables and figures after it, sweeps over many of them.

pub mod figures;
pub mod output;
pub mod scenario;
pub mod sweep;
