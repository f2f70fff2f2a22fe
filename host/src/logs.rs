//! Logs: stderr, UTC, to the second, our own crates only. Libraries write peers and addresses into theirs, so
//! they have no voice here at any level.

#![allow(clippy::disallowed_methods)] // The daemon's own edge of the world: the clock of log lines.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

/// The environment variable that goes before the configuration: `error`, `warn`, `info`, `debug`, `trace`, `off`.
pub const VARIABLE: &str = "SHOAL_LOG";

/// The name of a level that there is not.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no log level: wants off, error, warn, info, debug or trace")]
pub struct BadLevel(String);

/// The filter of the process, and whether the command line or the environment chose its level.
static FILTER: OnceLock<(reload::Handle<Targets, Registry>, bool)> = OnceLock::new();

/// What became of a level that a configuration asks for while the program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It is in effect.
    AtOnce,
    /// The command line or the environment goes before it.
    Overruled,
}

/// Starts logging: at `flag` if given, else as `SHOAL_LOG` says, else at `configured`. The first call in a
/// process counts; later ones (daemons that share a process) change nothing.
///
/// # Errors
/// When the level that applies has no meaning.
pub fn init(flag: Option<&str>, configured: &str) -> Result<(), BadLevel> {
    let variable = std::env::var(VARIABLE).ok().filter(|level| !level.is_empty());
    let chosen = flag.or(variable.as_deref());
    let level = level(chosen.unwrap_or(configured))?;
    let (filter, handle) = reload::Layer::new(ours(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_timer(Seconds)
        .with_filter(filter);
    // Not `init`, which would also let in the records of the crate `log`.
    let lines = tracing_subscriber::registry().with(lines);
    if tracing::subscriber::set_global_default(lines).is_ok() {
        let _ = FILTER.set((handle, chosen.is_some()));
    }
    Ok(())
}

/// Logs at `configured` from now on, unless [`init`] was told a level that goes before the configuration's.
///
/// # Errors
/// When the level has no meaning.
pub fn change(configured: &str) -> Result<Applied, BadLevel> {
    let level = level(configured)?;
    match FILTER.get() {
        Some((_, true)) => Ok(Applied::Overruled),
        Some((filter, false)) => {
            // It fails only where nothing logs any more.
            let _ = filter.reload(ours(level));
            Ok(Applied::AtOnce)
        }
        // Somebody else logs for this process, as in tests.
        None => Ok(Applied::AtOnce),
    }
}

/// The level of that name.
///
/// # Errors
/// When there is none.
pub fn level(name: &str) -> Result<LevelFilter, BadLevel> {
    match name.to_ascii_lowercase().as_str() {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(BadLevel(name.to_owned())),
    }
}

/// Our crates at `level`, all others not at all.
fn ours(level: LevelFilter) -> Targets {
    Targets::new().with_target("shoal_", level).with_default(LevelFilter::OFF)
}

/// `2026-01-31T23:59:59Z`: no fraction, which would tell packets apart.
struct Seconds;

impl FormatTime for Seconds {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        w.write_str(&now())
    }
}

/// This moment, for people.
pub fn now() -> String {
    utc(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// A moment for people, RFC 3339: `secs` seconds after 1970 (civil-from-days, H. Hinnant, "chrono-compatible date algorithms").
pub fn utc(secs: u64) -> String {
    let (days, second) = (secs / 86_400, secs % 86_400);
    // Years start in March, so that a leap day ends one; 719,468 days lie between 0000-03-01 and 1970.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(utc(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn only_our_crates_have_a_voice() {
        let filter = ours(LevelFilter::TRACE);
        assert!(filter.would_enable("shoal_node::daemon", &tracing::Level::TRACE));
        for other in [
            "libp2p_swarm",
            "libp2p_tcp",
            "yamux::connection",
            "rustls",
            "hyper",
            "hickory_proto",
            "shoal",
        ] {
            assert!(!filter.would_enable(other, &tracing::Level::ERROR), "{other}");
        }
        assert!(!ours(LevelFilter::INFO).would_enable("shoal_node", &tracing::Level::DEBUG));
    }

    #[test]
    fn a_level_that_is_none_is_refused() {
        assert_eq!(level("Debug").unwrap(), LevelFilter::DEBUG);
        assert!(level("loud").unwrap_err().to_string().contains("`loud`"));
    }
}
