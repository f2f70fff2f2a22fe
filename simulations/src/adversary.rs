//! Adversaries: what is tried on views of links, at gateways, and by operators who work together.

pub mod at_gateway;
pub mod attacks;
pub mod coalition;
pub mod holds;
pub mod made_up;
