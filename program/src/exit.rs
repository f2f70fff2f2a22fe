//! How a program ends.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

/// The exit codes of every program here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// 0: it did what was asked.
    Done = 0,
    /// 1: failed while running.
    Failed = 1,
    /// 2: wrong usage.
    Usage = 2,
    /// 78: bad configuration (EX_CONFIG of sysexits.h).
    Config = 78,
}

impl Exit {
    /// How a program ends on a file or directory that it cannot use: as on a bad configuration where another path, owner or
    /// mode helps, and as a failure where the system lacks something, such as room or descriptors, or is broken.
    pub fn on_file(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::NotFound
            | Kind::PermissionDenied
            | Kind::ReadOnlyFilesystem
            | Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::AlreadyExists
            | Kind::InvalidInput
            | Kind::InvalidData
            | Kind::InvalidFilename => Self::Config,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// `error` and its causes on one line, each cause once.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some errors repeat their cause in their own text.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line.replace('\n', "; ")
}

/// Says on stderr, in one line, why the program ends.
pub fn report(error: &(dyn Error + 'static)) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(std::io::stderr(), "error: {}", chain(error));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the key file")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn what_the_system_lacks_is_no_fault_of_the_configuration() {
        use rustix::io::Errno;
        let exit = |errno: Errno| Exit::on_file(&errno.into());
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::ROFS, Errno::NOTDIR, Errno::NAMETOOLONG] {
            assert_eq!(exit(errno), Exit::Config, "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::IO, Errno::NOSPC, Errno::DQUOT] {
            assert_eq!(exit(errno), Exit::Failed, "{errno}");
        }
    }

    #[test]
    fn a_chain_is_one_line() {
        let error = Outer(std::io::Error::other("no\nroom"));
        assert_eq!(chain(&error), "the key file: no; room");
    }
}
