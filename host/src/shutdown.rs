//! Signals, and the end of a run: one token that every task holds.
//!
//! SIGTERM and SIGINT end a run in order, SIGHUP asks for the configuration to be read again ([`crate::reload`]). SIGUSR1
//! and SIGUSR2 mean nothing here, and must not end a program as they do by default. SIGPIPE is ignored by Rust's own
//! start.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;

/// Says when to stop, and when to read the configuration again. Copies are one token.
#[derive(Clone)]
pub struct Shutdown(Arc<Token>);

struct Token {
    stop: CancellationToken,
    /// How often the configuration was to be read again.
    reload: watch::Sender<u64>,
}

/// Says each time that the configuration is to be read again.
pub struct Reloads {
    asked: watch::Receiver<u64>,
    /// Keeps the sending half alive.
    _token: Shutdown,
}

impl Reloads {
    /// Returns when the configuration is to be read again; once, however often that was asked for meanwhile. May be
    /// cancelled.
    pub async fn asked(&mut self) {
        // The sender lives in `self`, so this ends only when the value is there.
        let _ = self.asked.changed().await;
    }
}

/// Ends a run when it is dropped.
pub struct ShutdownOnDrop(pub Shutdown);

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        self.0.trigger();
    }
}

impl std::fmt::Debug for ShutdownOnDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShutdownOnDrop")
    }
}

impl Shutdown {
    /// A token that nobody has triggered.
    pub fn new() -> Self {
        Self(Arc::new(Token { stop: CancellationToken::new(), reload: watch::Sender::new(0) }))
    }

    /// Ends the run. Further calls do nothing.
    pub fn trigger(&self) {
        self.0.stop.cancel();
    }

    /// True if the run is to end.
    pub fn is_triggered(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Returns when the run is to end; at once if that was said before. May be cancelled.
    pub async fn wait(&self) {
        self.0.stop.cancelled().await;
    }

    /// Asks for the configuration to be read again.
    pub fn reload(&self) {
        self.0.reload.send_modify(|asked| *asked += 1);
    }

    /// Says from now on when the configuration is to be read again; at once if that was asked for before.
    pub fn reloads(&self) -> Reloads {
        let mut asked = self.0.reload.subscribe();
        // A signal that came while the program started must not be lost.
        if *asked.borrow() > 0 {
            asked.mark_changed();
        }
        Reloads { asked, _token: self.clone() }
    }

    /// Lets SIGTERM and SIGINT trigger this token; the second signal ends the process where it stands. SIGHUP asks for
    /// the configuration to be read again, and SIGUSR1 and SIGUSR2 do nothing. To be called within a tokio runtime that
    /// [`crate::start::runtime`] has made.
    ///
    /// # Errors
    /// When the signals cannot be caught.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hup = signal(SignalKind::hangup())?;
        // Once a signal is caught, it stays so until the process ends, whether anybody listens or not.
        drop((signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?));
        let token = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                    _ = hup.recv() => {
                        token.reload();
                        continue;
                    }
                }
                if token.is_triggered() {
                    // Who asks twice does not want to wait for links and files.
                    std::process::exit(Exit::Failed as i32);
                }
                token.trigger();
            }
        });
        Ok(())
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_copy_hears_it_before_and_after() {
        let token = Shutdown::new();
        let copy = token.clone();
        let waiting = tokio::spawn(async move { copy.wait().await });
        assert!(!token.is_triggered());
        token.trigger();
        waiting.await.unwrap();
        token.wait().await;
    }

    #[tokio::test]
    async fn whoever_asks_to_reload_is_heard_before_and_after() {
        let token = Shutdown::new();
        token.reload();
        token.reload();
        let mut reloads = token.reloads();
        reloads.asked().await;
        token.reload();
        reloads.asked().await;
        assert!(!token.is_triggered());
    }

    /// In one test, since signals reach all tests of the process.
    #[tokio::test]
    async fn hup_reloads_usr_does_nothing_and_term_ends() {
        use rustix::process::{Signal, getpid, kill_process};
        let token = Shutdown::new();
        let mut reloads = token.reloads();
        token.on_signals().unwrap();
        for signal in [Signal::USR1, Signal::USR2, Signal::PIPE, Signal::HUP] {
            kill_process(getpid(), signal).unwrap();
        }
        reloads.asked().await;
        assert!(!token.is_triggered());
        kill_process(getpid(), Signal::TERM).unwrap();
        token.wait().await;
    }
}
