//! What a program needs of the system before it can begin: file descriptors, and a runtime.

use std::io;
use std::os::unix::net::UnixStream;
use std::pin::Pin;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};

/// Pairs of descriptors that a runtime finds free, with a few to spare.
const PAIRS: usize = 6;

/// A future in a box.
///
/// The code of an `async fn` is generated in each program that awaits it, with all that it awaits in turn: for a whole
/// daemon that is minutes of compiling, once for each program. In a box it is generated once, in the crate that makes
/// the box. So whatever runs a daemon returns this.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes a runtime with everything on.
///
/// # Errors
/// When the system gives no threads or no file descriptors. Without a look at these first, tokio would panic.
pub fn runtime(builder: &mut Builder) -> io::Result<Runtime> {
    let free: io::Result<Vec<_>> = (0..PAIRS).map(|_| UnixStream::pair()).collect();
    drop(free.map_err(|error| {
        let remedy = "raise the limit on open files (ulimit -n, or LimitNOFILE of systemd)";
        io::Error::new(error.kind(), format!("{error}; {remedy}"))
    })?);
    builder.enable_all().build()
}

/// Raises the limit on file descriptors of this process to `wanted`, as far as its hard limit lets it. What to say in
/// the log when fewer can be had.
pub fn raise_descriptors(wanted: u64) -> Option<String> {
    let limit = getrlimit(Resource::Nofile);
    let has = |limit: Option<u64>| limit.is_none_or(|most| most >= wanted);
    if has(limit.current) {
        return None;
    }
    let most = limit.maximum.map_or(wanted, |most| most.min(wanted));
    let raised = Rlimit { current: Some(most), maximum: limit.maximum };
    let granted = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => most,
        Err(_) => limit.current.unwrap_or(most),
    };
    (granted < wanted).then(|| {
        format!(
            "only {granted} files and connections can be open at a time, and the configuration asks for {wanted}: what is \
             beyond is refused; raise the limit (ulimit -n, or LimitNOFILE of systemd), or lower the number of connections"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_suffices_is_left_alone() {
        let before = getrlimit(Resource::Nofile);
        assert_eq!(raise_descriptors(3), None);
        assert_eq!(getrlimit(Resource::Nofile).current, before.current);
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        let most = getrlimit(Resource::Nofile).maximum;
        if let Some(most) = most {
            let said = raise_descriptors(most + 1).unwrap();
            assert!(said.contains(&format!("only {most} files")), "{said}");
        }
    }
}
