//! What programs say to each other beside packets, cut to fit frames.

pub mod authorities;
pub mod client_gateway;
