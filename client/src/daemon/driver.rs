//! The loop that drives an engine: frames that came, timers that are due, what streams want, and what `status` says.
//!
//! A user's client and a service are driven alike. Each turn handles at most [`Drive::TURN`] frames, then does what is
//! due, then lets the streams' tasks run; when there is nothing to do it sleeps until the first of a frame, a slot that
//! has passed, a stream that wants something, a timer, a new configuration, or the end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use shoal_host::admin::Readiness;
use shoal_host::shutdown::Shutdown;
use shoal_topology::{Document, Time};
use tokio::sync::mpsc;

use super::clock::Clock;
use super::hub::{StreamDriver, TunnelIo};
use super::link::{LinkEvent, Slots};
use super::reload::Reload;
use super::{Ready, Shared};

/// How often the report is made anew.
const REPORT: Duration = Duration::from_millis(500);

/// An engine with its links, as the loop drives it.
pub(super) trait Drive {
    /// What streams read from and write to.
    type Engine: TunnelIo;
    /// Frames that are handled before streams get their turn.
    const TURN: usize;

    /// The engine, and the tasks that wait for it.
    fn hub(&self) -> &Rc<StreamDriver<Self::Engine>>;

    /// The slots of a link, whose passing makes room for frames. A service has none: its frames leave at once.
    fn slots(&self) -> Option<Arc<Slots>>;

    /// The configuration by which it goes.
    fn reload(&mut self) -> &mut Reload;

    /// Takes what a link says.
    fn handle(&mut self, event: LinkEvent);

    /// Does what is due, and passes on what the engine wants. True if there may be more to do at once.
    fn work(&mut self, now: Time) -> bool;

    /// When [`Self::work`] is due next, if nothing happens before. Stale as soon as anything was handled.
    fn next_wake(&mut self) -> Time;

    /// Whether something changed that `status` must say at once. False from then on, until it does again.
    fn take_news(&mut self) -> bool;

    /// Turns keys whose time has come, keeps what must outlive the program, and makes the report anew.
    fn report(&mut self);

    /// Goes by the configuration as the file has it now.
    fn read_again(&mut self);
}

/// Drives until `shutdown`, or until no link is left.
pub(super) async fn drive<D: Drive>(
    mut driven: D,
    clock: Clock,
    mut events: mpsc::Receiver<LinkEvent>,
    shutdown: &Shutdown,
) {
    let (hub, slots) = (driven.hub().clone(), driven.slots());
    let mut next_report = clock.now();
    loop {
        for _ in 0..D::TURN {
            match events.try_recv() {
                Ok(event) => driven.handle(event),
                Err(_) => break,
            }
        }
        let now = clock.now();
        let has_more = driven.work(now);
        if driven.take_news() || now >= next_report {
            next_report = now + REPORT;
            driven.report();
        }
        if has_more || !events.is_empty() {
            // The streams' tasks run in between.
            tokio::task::yield_now().await;
            if shutdown.is_triggered() {
                return;
            }
            continue;
        }
        let next = driven.next_wake().min(next_report);
        let slot_passed = async {
            match &slots {
                Some(slots) => slots.taken.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => driven.handle(event),
                None => return,
            },
            () = slot_passed => {}
            () = hub.wake_engine.notified() => {}
            () = clock.sleep_until(next) => {}
            () = driven.reload().asked() => driven.read_again(),
            () = shutdown.wait() => return,
        }
    }
}

/// Where reports go: the control socket and the metrics read `shared`, the admin page `ready`.
pub(super) struct Publisher {
    /// The last report.
    pub(super) shared: Shared,
    /// Whether it does its work.
    pub(super) ready: Ready,
}

impl Publisher {
    /// Publishes a report; `not_ready` says why it does not do its work, if it does not.
    pub(super) fn publish(
        &self,
        status: Value,
        series: Vec<(&'static str, &'static str, f64)>,
        not_ready: Option<String>,
    ) {
        let readiness = not_ready.map_or(Readiness::Ready, Readiness::NotReady);
        if let Ok(mut report) = self.shared.lock() {
            (report.status, report.series) = (status, series);
        }
        let _ = self.ready.send(readiness);
    }

    /// Shows the document in use to the other threads.
    pub(super) fn show_document(&self, document: Option<&Arc<Document>>) {
        if let Ok(mut report) = self.shared.lock() {
            report.document = document.cloned();
        }
    }
}
