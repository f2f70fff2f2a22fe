//! The real node and client engines in virtual time, joined by links: no clock, no socket, one timing wheel.
//!
//! [`run`] gives what an observer sees ([`crate::trace::View`]), what really happened, and how well the network
//! served its users. The same settings, workload and seed give the same [`Report::trace_hash`], whatever observes.
//!
//! Virtual time begins with a warm-up, in which everybody joins; the observation begins behind it, at the zero of the
//! workload, and the hash is over all of it. A sender's end of a link is where it is observed: an instant is that of
//! sending.

mod access;
mod authorities;
mod directory;
mod ends;
mod exit;
mod experiment;
mod faults;
mod history;
mod injector;
mod keyed;
mod keyring;
mod letter;
mod liar;
mod links;
mod matrix;
mod measure;
mod member;
mod network;
mod observer;
mod person;
mod rate;
mod reachable;
mod release;
pub mod reproduce;
mod run;
mod settings;
mod spans;
#[cfg(test)]
mod tests;
mod watched;
mod watcher;

pub use measure::Service;
pub use rate::{EventRate, Rate, event_rate};
pub use run::{Report, World, run};
pub use settings::{
    Absence, Attack, ClassSettings, CodecChoice, Fault, FaultKind, Injected, Injection,
    Interruption, Lie, LinkSettings, NetworkSettings, Observed, ObserverSettings, PeopleSettings,
    Settings, SharedGateway, Trial,
};
