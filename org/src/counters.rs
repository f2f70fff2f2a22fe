//! What the service did, as its admin may see it: totals without names, and what depends on people as of the last epoch, rounded,
//! with noise ([`Coarse`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use shoal_host::admin::{AdminServer, Readiness};
use shoal_host::coarse::{Coarse, Grain, Number};
use shoal_host::process::Process;
use shoal_host::secret;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::OrgError;
use crate::current::Current;
use crate::files::unix_s;

/// How often what is shown is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What became of questions and streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Served {
    /// Batches of the directory.
    Batches,
    /// The device is to wait for an admin.
    Waiting,
    /// Its owner is to sign in.
    SignIn,
    /// Nothing, and why.
    Refused,
    /// Too many questions were answered just then.
    Busy,
    /// Too many streams had said nothing just then.
    Silent,
    /// The stream ended before its answer did.
    Broken,
}

impl Served {
    /// By its number.
    const ALL: [(Self, &str); 7] = [
        (Self::Batches, "batches"),
        (Self::Waiting, "waiting"),
        (Self::SignIn, "sign_in"),
        (Self::Refused, "refused"),
        (Self::Busy, "busy"),
        (Self::Silent, "silent"),
        (Self::Broken, "broken"),
    ];
}

/// Totals since the start.
#[derive(Default)]
pub(crate) struct ServiceTotals([AtomicU64; 7]);

impl ServiceTotals {
    pub(crate) fn count(&self, served: Served) {
        if let Some(total) = self.0.get(served as usize) {
            total.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn total(&self, served: Served) -> u64 {
        self.0.get(served as usize).map_or(0, |total| total.load(Ordering::Relaxed))
    }
}

/// The page where an admin reads them, as long as it is kept.
pub(crate) struct CounterPage {
    admin: AdminServer,
    task: AbortHandle,
}

impl Drop for CounterPage {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CounterPage {
    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Serves them at an address of this machine alone. What depends on people moves at the ends of epochs of so many seconds.
    ///
    /// # Errors
    /// The address is not on loopback, or cannot be had.
    pub(crate) async fn start(
        address: SocketAddr,
        (counters, current): (Arc<ServiceTotals>, Arc<Current>),
        epoch_s: u64,
        ready: watch::Receiver<Readiness>,
    ) -> Result<Self, OrgError> {
        let registry = Registry::new();
        let process = Process::new("shoal-org", epoch_s, *secret::fresh()?);
        let about = "Entries of the directory, as of the beginning of the epoch.";
        let entries = IntGauge::new("shoal_org_directory_entries", about)?;
        let about = "Questions, by what became of them: batches of the directory; told to wait for an admin, or to sign in; refused; \
                     none answered since too many were (busy), or since the stream broke; and streams beyond those that may be silent. \
                     As of the last epoch, rounded up to eights, with noise of some 27.";
        let answers = IntCounterVec::new(Opts::new("shoal_org_answers_total", about), &["answer"])?;
        registry.register(Box::new(process.clone()))?;
        registry.register(Box::new(entries.clone()))?;
        registry.register(Box::new(answers.clone()))?;
        let admin = AdminServer::start(address, registry, ready).await?;
        let coarse = Coarse::new(epoch_s, *secret::fresh()?);
        let task = tokio::spawn(async move {
            let mut epoch = None;
            loop {
                // A count that moves at once would say when somebody joined, or asked.
                let now = unix_s() / epoch_s.max(1);
                if epoch.replace(now) != Some(now) {
                    let size = current.directory().size();
                    entries.set(i64::try_from(size).unwrap_or(i64::MAX));
                }
                let total =
                    |(served, name)| (name, Number::Total(counters.total(served)), Grain::Few);
                coarse.observe(unix_s(), Served::ALL.map(total));
                process.observe(unix_s());
                for (_, name) in Served::ALL {
                    let shown = answers.with_label_values(&[name]);
                    shown.inc_by(coarse.shown(name).saturating_sub(shown.get()));
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Ok(Self { admin, task: task.abort_handle() })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::Registry as Files;

    async fn page(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn an_admin_reads_totals_that_move_once_an_epoch_and_name_nobody() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("acme");
        let files = Files::init(&dir, "acme", "Olga Owner", None).unwrap();
        let organisation = files.directory().organisation();
        drop(files);
        let current = Arc::new(Current::open(&dir, organisation).unwrap());
        let counters = Arc::<ServiceTotals>::default();
        (0..3).for_each(|_| counters.count(Served::Busy));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (says, ready) = watch::channel(Readiness::NotReady("starting".into()));
        let of = || (counters.clone(), current.clone());
        let still = CounterPage::start(any, of(), 1 << 40, ready.clone()).await.unwrap();
        let quick = CounterPage::start(any, of(), 1, ready).await.unwrap();
        (0..100_000).for_each(|_| counters.count(Served::Batches));
        let (still, quick) = (still.address(), quick.address());
        assert!(page(quick, "/readyz").await.starts_with("HTTP/1.1 503"));
        says.send_replace(Readiness::Ready);
        assert!(page(quick, "/readyz").await.starts_with("HTTP/1.1 200"));
        let shown = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                let text = page(quick, "/metrics").await;
                let line = text.lines().find_map(|line| {
                    line.strip_prefix("shoal_org_answers_total{answer=\"batches\"} ")
                });
                match line.and_then(|shown| shown.parse::<u64>().ok()) {
                    Some(shown) if shown > 90_000 => return shown,
                    _ => tokio::time::sleep(LOOK / 4).await,
                }
            }
        });
        assert_eq!(shown.await.unwrap() % Grain::Few.step(), 0);
        let text = page(still, "/metrics").await;
        assert!(text.contains("shoal_org_directory_entries 2\n"), "{text}");
        assert!(text.contains("shoal_org_answers_total{answer=\"batches\"} 0\n"), "{text}");
        assert!(text.contains("shoal_org_answers_total{answer=\"busy\"} 0\n"), "{text}");
        assert!(!text.contains("acme") && !text.contains("Olga"), "{text}");
    }
}
