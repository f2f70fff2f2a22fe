//! Reading the configuration again while a program runs, which SIGHUP asks for.
//!
//! A daemon takes [`Shutdown::reloads`](crate::shutdown::Shutdown::reloads), and each time that it is asked it reads its
//! [`Source`] again, compares what it finds with what runs by [`Changes`], applies what can be applied, and has one line
//! say what that came to. A file that cannot be used changes nothing: what ran goes on.

use std::error::Error;
use std::path::PathBuf;

use crate::exit::chain;
use crate::logs::{self, Applied};

/// Where a configuration came from: what to read when it is read again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// The configuration file.
    pub path: PathBuf,
    /// The `-o key=value` of the command line, which go before the file again.
    pub overrides: Vec<String>,
}

/// What is different in a configuration that was read again, by the names of its keys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    now: Vec<String>,
    later: Vec<String>,
    refused: Vec<String>,
}

impl Changes {
    /// Nothing is different so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a value that takes effect at once. True if it is different; the caller applies it then.
    pub fn at_once<T: PartialEq + ?Sized>(&mut self, key: &str, before: &T, read: &T) -> bool {
        let changed = before != read;
        if changed {
            self.now.push(key.to_owned());
        }
        changed
    }

    /// Notes a value that takes effect when the program starts again. True if it is different.
    pub fn at_next_start<T: PartialEq + ?Sized>(
        &mut self,
        key: &str,
        before: &T,
        read: &T,
    ) -> bool {
        let changed = before != read;
        if changed {
            self.later.push(key.to_owned());
        }
        changed
    }

    /// Notes a value that cannot be used, in place of which the one before stays.
    pub fn refuse(&mut self, key: &str, why: impl std::fmt::Display) {
        self.now.retain(|known| known != key);
        self.refused.push(format!("{key} stays as it was: {why}"));
    }

    /// Compares the levels of the log, and applies the one that was read unless the command line or the environment
    /// has said another.
    pub fn log_level(&mut self, before: &str, read: &str) {
        if !self.at_once("log", before, read) {
            return;
        }
        match logs::change(read) {
            Ok(Applied::AtOnce) => {}
            Ok(Applied::Overruled) => self.refuse(
                "log",
                format_args!("the command line or {} goes before it", logs::VARIABLE),
            ),
            Err(error) => self.refuse("log", error),
        }
    }

    /// One line for the log.
    pub fn line(&self) -> String {
        let mut parts = Vec::new();
        if !self.now.is_empty() {
            parts.push(format!("{} in effect now", self.now.join(", ")));
        }
        if !self.later.is_empty() {
            parts.push(format!("{} in effect after a restart", self.later.join(", ")));
        }
        parts.extend(self.refused.iter().cloned());
        if parts.is_empty() {
            parts.push("nothing is different".into());
        }
        format!("the configuration was read again: {}", parts.join("; "))
    }

    /// Writes the line into the log: as a warning when something could not be used, or waits for a restart.
    pub fn say(&self) {
        if self.refused.is_empty() && self.later.is_empty() {
            tracing::info!("{}", self.line());
        } else {
            tracing::warn!("{}", self.line());
        }
    }
}

/// Says in the log that a configuration cannot be used, and that what ran goes on.
pub fn say_broken(error: &(dyn Error + 'static)) {
    tracing::error!("the configuration cannot be read again: {}; what ran goes on", chain(error));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_what_changed_what_waits_and_what_was_refused() {
        let mut changes = Changes::new();
        assert!(!changes.at_once("a", &1, &1));
        assert_eq!(changes.line(), "the configuration was read again: nothing is different");
        assert!(changes.at_once("a", &1, &2));
        assert!(changes.at_once("table.b", "x", "y"));
        assert!(changes.at_next_start("listen", &1, &2));
        assert!(!changes.at_next_start("admin", &1, &1));
        assert!(changes.at_once("c", &1, &2));
        changes.refuse("c", "it is broken");
        assert_eq!(
            changes.line(),
            "the configuration was read again: a, table.b in effect now; listen in effect after a restart; c stays as it \
             was: it is broken"
        );
    }
}
