//! Models of the literature, on which published and exact numbers are computed anew.

pub mod check;
pub mod corrupt_operators;
pub mod corrupt_paths;
pub mod delay_law;
pub mod disclosure;
pub mod flow_matching;
pub mod n_minus_one;
pub mod poisson;
pub mod records;
pub mod reproduce;
