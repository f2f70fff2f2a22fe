//! Metrics of the process that runs: which build it is, and what it takes of the machine.
//!
//! Time on the processor, memory and open files follow what people do, so they are shown as [`crate::coarse`] shows such
//! numbers: as of the last epoch, rounded, with noise. Until the first epoch has ended they are not there.

#![allow(clippy::disallowed_methods)] // The daemon's own edge of the world: the clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, IntGaugeVec, Opts};
use rustix::process::{Resource, getrlimit};

use crate::about;
use crate::coarse::{Coarse, Grain, Number};

/// Of the kernel's clock in which /proc counts time on the processor: 100 a second for all programs.
const MS_PER_TICK: u64 = 10;

const BUILD: &str = "shoal_build_info";
const BUILD_HELP: &str = "Which build runs; always 1.";
const CPU: &str = "cpu";
const MEMORY: &str = "memory";
const FILES: &str = "files";

/// The metrics of the process. Copies are one.
#[derive(Clone)]
pub struct Process {
    program: &'static str,
    coarse: Arc<Coarse>,
    started: f64,
    /// By which a registry tells this collector from others.
    desc: Vec<Desc>,
}

impl Process {
    /// Of a program that starts now, in a network whose epochs have so many seconds. The seed, of the system's randomness,
    /// gives the noise.
    pub fn new(program: &'static str, epoch_s: u64, seed: [u8; 32]) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = now.as_secs() as f64;
        let desc = Desc::new(BUILD.into(), BUILD_HELP.into(), Vec::new(), HashMap::new());
        let desc = desc.into_iter().collect();
        Self { program, coarse: Arc::new(Coarse::new(epoch_s, seed)), started, desc }
    }

    /// To be called often: when an epoch has ended, it looks at the process.
    pub fn observe(&self, unix_s: u64) {
        // Looked up only when an epoch has ended: `observe` is called far more often than it takes anything over.
        let cpu = std::iter::once_with(cpu_ms)
            .map(|ms| (CPU, Number::Total(ms.unwrap_or_default()), Grain::Packets));
        let memory = std::iter::once_with(memory_kib)
            .map(|kib| (MEMORY, Number::Level(kib.unwrap_or_default()), Grain::Packets));
        let files = std::iter::once_with(open_files)
            .map(|files| (FILES, Number::Level(files.unwrap_or_default()), Grain::Few));
        self.coarse.observe(unix_s, cpu.chain(memory).chain(files));
    }

    fn families(&self) -> prometheus::Result<Vec<MetricFamily>> {
        let about = Opts::new(BUILD, BUILD_HELP);
        let about = IntGaugeVec::new(about, &["program", "version", "commit", "target"])?;
        let commit = about::COMMIT.unwrap_or("unknown");
        let labels = [self.program, about::VERSION, commit, about::target()];
        about.with_label_values(&labels).set(1);
        let mut families = about.collect();
        let start = "When the process started, seconds of Unix time.";
        let start = Gauge::new("process_start_time_seconds", start)?;
        start.set(self.started);
        families.extend(start.collect());
        if let Some(most) = getrlimit(Resource::Nofile).current {
            let gauge = IntGauge::new("process_max_fds", "Files and connections open at most.")?;
            gauge.set(i64::try_from(most).unwrap_or(i64::MAX));
            families.extend(gauge.collect());
        }
        let coarse = |what: &str| format!("{what} As of the last epoch, rounded, with noise.");
        let (cpu, memory, files) =
            (self.coarse.shown(CPU), self.coarse.shown(MEMORY), self.coarse.shown(FILES));
        // A process has memory, so zero says that no epoch has ended yet; the others are not shown before either.
        if memory > 0 {
            let help = coarse("Time on the processor, in seconds.");
            let counter = Counter::new("process_cpu_seconds_total", help)?;
            counter.inc_by(cpu as f64 / 1e3);
            families.extend(counter.collect());
            let gauge =
                IntGauge::new("process_resident_memory_bytes", coarse("Memory in use, in bytes."))?;
            gauge.set(i64::try_from(memory.saturating_mul(1_024)).unwrap_or(i64::MAX));
            families.extend(gauge.collect());
            let gauge =
                IntGauge::new("process_open_fds", coarse("Files and connections that are open."))?;
            gauge.set(i64::try_from(files).unwrap_or(i64::MAX));
            families.extend(gauge.collect());
        }
        Ok(families)
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The names are constants, which a test collects: nothing here fails.
        self.families().unwrap_or_default()
    }
}

/// Milliseconds on the processor, of programs and of the kernel for them (proc(5), fields 14 and 15 of stat).
fn cpu_ms() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may have spaces.
    let (_, after) = stat.rsplit_once(')')?;
    let ticks = after.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.collect::<Result<Vec<_>, _>>().ok()?.iter().sum();
    Some(ticks * MS_PER_TICK)
}

fn memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_files() -> Option<u64> {
    u64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    fn page(process: &Process) -> String {
        TextEncoder::new().encode_to_string(&process.collect()).unwrap()
    }

    #[test]
    fn the_build_is_there_at_once_and_what_people_move_after_an_epoch() {
        let process = Process::new("shoal-test", 100, [1; 32]);
        process.observe(1_000);
        let first = page(&process);
        let build = format!("program=\"shoal-test\",target=\"{}\"", about::target());
        assert!(first.contains(&build), "{first}");
        assert!(first.contains("process_start_time_seconds") && !first.contains("cpu"), "{first}");
        process.observe(1_099);
        assert_eq!(page(&process), first);
        if cfg!(target_os = "linux") {
            process.observe(1_100);
            let second = page(&process);
            let moved = ["cpu_seconds_total", "resident_memory_bytes", "open_fds"];
            assert!(moved.iter().all(|name| second.contains(name)), "{second}");
        }
    }

    /// Without a description of its own it would be taken for any other collector that has none.
    #[test]
    fn a_registry_takes_it_beside_others() {
        struct Other;
        impl Collector for Other {
            fn desc(&self) -> Vec<&Desc> {
                Vec::new()
            }
            fn collect(&self) -> Vec<MetricFamily> {
                Vec::new()
            }
        }
        let registry = prometheus::Registry::new();
        registry.register(Box::new(Other)).unwrap();
        registry.register(Box::new(Process::new("shoal-test", 100, [1; 32]))).unwrap();
        assert!(registry.gather().iter().any(|family| family.name() == BUILD));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_is_understood() {
        assert!(memory_kib().unwrap() > 100);
        assert!(open_files().unwrap() >= 3);
        assert!(cpu_ms().is_some());
    }
}
