//! Standard output: what a person or another program asked for. `println!` panics when it cannot write; here an error
//! comes back, so that no program says that it is done when nobody got its answer.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};

/// Standard output could not be written: a full disk, or a reader that is gone.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
struct Unwritten(io::Error);

/// Standard output. Its errors say that it is what could not be written; [`is_unread`] knows them. Whoever writes to it
/// flushes it at the end, since what is still in its buffer then would be lost without a word.
#[derive(Debug, Default)]
pub struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush().map_err(named)
    }
}

/// The error of the system with the place where it happened, of the same kind.
fn named(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Unwritten(error))
}

/// Prints a line, and sees to it that it has left.
///
/// # Errors
/// It could not be written.
pub fn line(text: impl fmt::Display) -> io::Result<()> {
    let mut out = Stdout;
    writeln!(out, "{text}")?;
    out.flush()
}

/// True if a program fails with `error` only because nobody reads its standard output any longer, as in
/// `shoal-sim run --explain shoal | head -3`. There is nobody to tell, and nothing is wrong: the program ends quietly,
/// with exit code 0. A broken pipe of any other file or link is none of this.
pub fn is_unread(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        let ours =
            io.and_then(io::Error::get_ref).is_some_and(<dyn Error + Send + Sync>::is::<Unwritten>);
        if ours {
            return io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe);
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("a list")]
    struct List(#[source] io::Error);

    #[test]
    fn a_reader_that_is_gone_is_told_from_a_full_disk_and_from_other_pipes() {
        let error = |kind| List(named(io::Error::from(kind)));
        assert!(is_unread(&error(io::ErrorKind::BrokenPipe)));
        assert!(!is_unread(&error(io::ErrorKind::StorageFull)));
        assert!(!is_unread(&List(io::ErrorKind::BrokenPipe.into())));
    }

    #[test]
    fn what_could_not_be_written_is_named() {
        let error = named(io::ErrorKind::StorageFull.into());
        let said = error.to_string();
        assert!(said.starts_with("cannot write to standard output: "), "{said}");
    }
}
