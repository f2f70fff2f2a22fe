//! Which build a program is.

use std::env::consts::{ARCH, OS};
use std::sync::LazyLock;

/// The version of all crates here.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, where whoever built the program has put it into the environment variable `SHOAL_COMMIT`.
pub const COMMIT: Option<&str> = option_env!("SHOAL_COMMIT");

/// What the program was built for: processor, system, and C library where there are several.
pub fn target() -> &'static str {
    static TARGET: LazyLock<String> = LazyLock::new(|| {
        let library = match () {
            () if cfg!(target_env = "gnu") => "-gnu",
            () if cfg!(target_env = "musl") => "-musl",
            () => "",
        };
        format!("{ARCH}-{OS}{library}")
    });
    &TARGET
}

/// What `--version` says after the name: version, commit if it is known, target.
pub fn version() -> &'static str {
    static LINE: LazyLock<String> = LazyLock::new(|| match COMMIT {
        Some(commit) => format!("{VERSION} (commit {commit}, {})", target()),
        None => format!("{VERSION} ({})", target()),
    });
    &LINE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_begins_with_its_number_and_names_the_target() {
        assert!(version().starts_with(VERSION) && version().contains(ARCH), "{}", version());
    }
}
