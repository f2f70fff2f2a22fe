//! The end of a run: one token that every task holds.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Exit;

/// Says when to stop. Copies are one token.
#[derive(Clone)]
pub struct Shutdown(Arc<watch::Sender<bool>>);

impl Shutdown {
    /// A token that nobody has triggered.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Ends the run. Further calls do nothing.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    /// Whether the run is to end.
    pub fn is_triggered(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the run is to end; at once if that was said before. May be cancelled.
    pub async fn wait(&self) {
        let mut receiver = self.0.subscribe();
        // The sender lives in `self`, so this ends only when the value is there.
        let _ = receiver.wait_for(|triggered| *triggered).await;
    }

    /// Lets SIGTERM and SIGINT trigger this token; the second signal ends the process where it stands. To be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// When the signals cannot be caught.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let token = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                if token.is_triggered() {
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
    async fn a_signal_triggers_it() {
        let token = Shutdown::new();
        token.on_signals().unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
            .unwrap();
        token.wait().await;
    }
}
