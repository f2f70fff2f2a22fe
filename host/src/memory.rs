//! What keeps the memory of a daemon, in which keys are, from the disk: no core dumps, no look by other processes of the
//! user, no swapping. A program calls it before it reads a key; libraries do not, since it concerns the whole process.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};

/// From now on this process and what it starts leave no core dumps, and other processes of the user cannot read its
/// memory. The strings are warnings for the log.
pub fn forbid_dumps() -> Vec<String> {
    let mut warnings = Vec::new();
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        warnings.push(format!(
            "core dumps cannot be limited ({error}): a crash may write keys to a disk"
        ));
    }
    // The limit does not hold for dumps that the kernel pipes to a program; this does.
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warnings.push(format!(
            "core dumps cannot be forbidden ({error}): a crash may write keys to a disk"
        ));
    }
    warnings
}

/// From now on what this process has in memory is not swapped to a disk, as far as it is used: pages that are only reserved
/// take no room. The strings are warnings for the log.
///
/// With a limit on locked memory nothing is locked, for an allocation beyond the limit would fail, much later.
pub fn lock() -> Vec<String> {
    let limit = getrlimit(Resource::Memlock);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let unlimited = limit.maximum.is_none() && setrlimit(Resource::Memlock, raised).is_ok();
    if !unlimited && !may_lock_beyond_limits() {
        return vec![
            "memory is not locked, since its limit is too low: keys may be swapped to a disk; allow it (LimitMEMLOCK=infinity, \
             or ulimit -l unlimited), or switch swap off"
                .into(),
        ];
    }
    lock_all()
}

#[cfg(target_os = "linux")]
fn lock_all() -> Vec<String> {
    use rustix::mm::{MlockAllFlags, mlockall};
    match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
        Ok(()) => Vec::new(),
        Err(error) => {
            vec![format!(
                "memory cannot be locked ({error}): keys may be swapped to a disk; switch swap off"
            )]
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn lock_all() -> Vec<String> {
    vec![
        "memory cannot be locked on this system: keys may be swapped to a disk; switch swap off"
            .into(),
    ]
}

/// True if this process has CAP_IPC_LOCK: then the limit does not hold for it.
fn may_lock_beyond_limits() -> bool {
    const IPC_LOCK: u64 = 1 << 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .is_some_and(|capabilities| capabilities & IPC_LOCK != 0)
}
