//! A client inside another program: connections through the mixnet as streams that any tokio program reads and writes.
//!
//! [`Shoal::start`] runs the client on two threads of its own, one for the engine and one for its link, so that nothing
//! that the program does moves a slot. A [`Shoal`] is a handle: clones are handles of one client, and the client ends
//! when the last one is dropped, or with [`Shoal::shutdown`]. The SOCKS5 proxy of `shoal-client run` is its first user.

mod commands;
mod listener;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use shoal_host::admin::Readiness;
use shoal_host::shutdown::Shutdown;
use tokio::sync::{mpsc, oneshot, watch};

use commands::obey;
pub use listener::{Listener, ServiceConfig};

pub use super::stream::{Incoming, Stream};

use super::config::Socks;
use super::mail::Mail;
use super::user::Refused;
use super::{ClientError, Config, EngineReport, Ready, Shared, files, user};
use crate::engine::Isolation;
use crate::socks::{self, Host, ReplyCode, SocksRequest};

/// Requests that wait for the engine's thread.
const COMMANDS: usize = 256;

/// What a handle asks of the engine's thread.
enum Command {
    /// Asks an exit or a service, as a SOCKS program would.
    Ask {
        /// What is asked for, and of whom.
        request: SocksRequest,
        /// What it may share a tunnel with.
        isolation: Isolation,
        /// For the answer; nobody waits for it any more once this is closed.
        answer: oneshot::Sender<Result<CommandReply, ConnectError>>,
    },
    /// Serves SOCKS5 on this listener.
    Socks(std::net::TcpListener, Socks),
}

/// What comes of a request.
enum CommandReply {
    /// A connection to the target.
    Connected(Stream),
    /// The addresses of the name.
    Resolved(Vec<IpAddr>),
}

/// Why a connection, or an answer, does not come. No text names the target, so that it can be logged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The target cannot be read.
    #[error(
        "the target is no host with a port: write example.org:443, 192.0.2.1:80, [2001:db8::1]:80 or an address of a service"
    )]
    BadTarget,
    /// Nothing of the user's may leave now: there is no link or no document, or too few others send.
    #[error("nothing may leave now: {0}")]
    Unprotected(String),
    /// All tunnels that are kept apart from each other are in use.
    #[error("too many requests that are kept apart: let some share an isolation")]
    TooManyIsolations,
    /// The exit or the service says so, or does not answer.
    #[error("{}", .0.text())]
    Far(ReplyCode),
    /// The client has ended.
    #[error("the client has ended")]
    Ended,
}

impl From<Refused> for ConnectError {
    fn from(why: Refused) -> Self {
        match why {
            Refused::Unprotected(why) => Self::Unprotected(why.to_string()),
            Refused::NoGroup => Self::TooManyIsolations,
            Refused::Code(code) => Self::Far(code),
        }
    }
}

/// How a client is.
#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    /// Whether the user's traffic may leave.
    pub ready: bool,
    /// One sentence for the user: connected or not, how well protected, and why not.
    pub summary: String,
    /// What the user should know, a sentence each.
    pub warnings: Vec<String>,
    /// Bits of anonymity that the next packet can expect; none while nobody knows.
    pub anonymity_bits: Option<f64>,
    /// All that `shoal-client status --json` prints.
    pub json: Value,
}

/// A client that runs. See the [module](self) for its threads.
///
/// ```no_run
/// use shoal_client::{Config, Isolation, Shoal};
/// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let (config, warnings) = Config::read("client.toml".as_ref())?;
/// warnings.iter().for_each(|warning| eprintln!("{warning}"));
/// let shoal = Shoal::start(config).await?;
/// shoal.ready().await?;
/// let mut stream = shoal.connect("example.org:80", Isolation::of("news")).await?;
/// stream.write_all(b"GET / HTTP/1.0\r\nHost: example.org\r\n\r\n").await?;
/// let mut page = Vec::new();
/// stream.read_to_end(&mut page).await?;
/// shoal.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// A configuration that cannot be is refused at once, with what to do:
///
/// ```
/// use shoal_client::{Config, Shoal};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let refused = Shoal::start(Config::default()).await.err().map(|error| error.to_string());
/// assert!(refused.is_some_and(|why| why.contains("name one or two gateways")));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Shoal(Arc<Inner>);

struct Inner {
    commands: mpsc::Sender<Command>,
    shared: Shared,
    readiness: watch::Receiver<Readiness>,
    shutdown: Shutdown,
    /// The engine's thread, until somebody waits for its end.
    thread: Mutex<Option<JoinHandle<()>>>,
    config: Config,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

impl std::fmt::Debug for Shoal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shoal").field("ready", &self.status().ready).finish_non_exhaustive()
    }
}

impl Shoal {
    /// Starts a client and returns at once: [`Self::ready`] waits until it is connected. A data directory that does not
    /// exist is made, with keys in it; one directory serves one client at a time.
    ///
    /// Of the configuration `socks`, `admin`, `runtime_dir` and `log` are for the program `shoal-client` alone. Logs go to
    /// the program's `tracing` subscriber, if it has one, and name no target.
    ///
    /// # Errors
    /// The configuration, or a file that it names, is wrong; the system refuses a thread.
    pub async fn start(config: Config) -> Result<Self, ClientError> {
        config.check(Path::new("the configuration"))?;
        if !config.data_dir.exists() {
            files::make(&config)?;
        }
        let shared = Arc::new(Mutex::new(EngineReport::starting()));
        let (ready, _) = watch::channel(Readiness::NotReady("starting".into()));
        Self::begin(config, Shutdown::new(), (shared, ready), None)
    }

    /// The same where the program has a shutdown and a report of its own.
    pub(super) fn begin(
        config: Config,
        shutdown: Shutdown,
        (shared, ready): (Shared, Ready),
        mail: Option<Mail>,
    ) -> Result<Self, ClientError> {
        let (commands, received) = mpsc::channel(COMMANDS);
        let readiness = ready.subscribe();
        let (request_timeout, until) =
            (Duration::from_secs(config.socks.request_timeout_s), shutdown.clone());
        let attend = move |context| obey(context, received, request_timeout, until);
        let reports = (shared.clone(), ready);
        let thread = user::start(config.clone(), shutdown.clone(), reports, mail, attend)?;
        let thread = Mutex::new(Some(thread));
        Ok(Self(Arc::new(Inner { commands, shared, readiness, shutdown, thread, config })))
    }

    /// Returns when the user's traffic may leave. It may wait for long: [`Self::status`] says meanwhile for what, and
    /// `tokio::time::timeout` bounds it.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn ready(&self) -> Result<(), ConnectError> {
        let mut readiness = self.0.readiness.clone();
        let is_ready = |readiness: &Readiness| matches!(readiness, Readiness::Ready);
        readiness.wait_for(is_ready).await.map(drop).map_err(|_| ConnectError::Ended)
    }

    /// Connects to `host:port` through an exit, or to a service of the network (`….shoal:port`). Names are resolved at
    /// the exit. What has different isolations never shares a tunnel, a pseudonym or, where there are several, an exit.
    ///
    /// # Errors
    /// Why it does not come about, within `socks.request_timeout_s` of the configuration. May be cancelled.
    pub async fn connect(
        &self,
        target: impl AsRef<str>,
        isolation: Isolation,
    ) -> Result<Stream, ConnectError> {
        let (host, port) = target.as_ref().rsplit_once(':').ok_or(ConnectError::BadTarget)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(ConnectError::BadTarget)?;
        match self.ask(socks::Command::Connect, (host, port), isolation).await? {
            CommandReply::Connected(stream) => Ok(stream),
            CommandReply::Resolved(_) => Err(ConnectError::Far(ReplyCode::GeneralFailure)),
        }
    }

    /// Asks an exit for the addresses of a name. An address of a service gets one of this machine's own, which
    /// [`Self::connect`] and the SOCKS port take in its place as long as the client runs.
    ///
    /// # Errors
    /// As for [`Self::connect`].
    pub async fn resolve(
        &self,
        name: impl AsRef<str>,
        isolation: Isolation,
    ) -> Result<Vec<IpAddr>, ConnectError> {
        match self.ask(socks::Command::Resolve, (name.as_ref(), 0), isolation).await? {
            CommandReply::Resolved(addresses) => Ok(addresses),
            CommandReply::Connected(_) => Err(ConnectError::Far(ReplyCode::GeneralFailure)),
        }
    }

    async fn ask(
        &self,
        command: socks::Command,
        (host, port): (&str, u16),
        isolation: Isolation,
    ) -> Result<CommandReply, ConnectError> {
        let host = Host::parse(host.as_bytes()).map_err(|_| ConnectError::BadTarget)?;
        let request = SocksRequest { command, host, port, isolation: None };
        let (answer, answered) = oneshot::channel();
        let ask = Command::Ask { request, isolation, answer };
        self.0.commands.send(ask).await.map_err(|_| ConnectError::Ended)?;
        answered.await.unwrap_or(Err(ConnectError::Ended))
    }

    /// Serves SOCKS5 at a loopback address, for programs that know no API; port 0 takes a free one. Returns where.
    ///
    /// # Errors
    /// The address is taken, or no loopback address: whoever reaches the port uses this client.
    pub async fn socks(&self, listen: SocketAddr) -> Result<SocketAddr, ClientError> {
        if !listen.ip().is_loopback() {
            let why = "must be a loopback address: whoever reaches this port uses your identity";
            return Err(ClientError::Value { key: "socks.listen", why: why.into() });
        }
        let failed = |error| ClientError::Listen(listen, error);
        let listener = std::net::TcpListener::bind(listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        // A client that has ended serves nobody: the listener is closed with the command.
        let _ = self.0.commands.send(Command::Socks(listener, self.0.config.socks.clone())).await;
        Ok(bound)
    }

    /// Offers a service inside the network, with keys, links and a thread of its own, by the gateways of this client
    /// unless `service` names others. It ends when the [`Listener`] is dropped.
    ///
    /// # Errors
    /// The keys, or a file that the configuration names, are wrong; the system refuses a thread.
    pub async fn listen(&self, service: ServiceConfig) -> Result<Listener, ClientError> {
        Listener::start(&self.0.config, service)
    }

    /// How it is now; made anew twice a second.
    pub fn status(&self) -> Status {
        let json = self.0.shared.lock().map(|report| report.status.clone()).unwrap_or_default();
        let text = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or_default();
        let warnings = json.get("warnings").and_then(Value::as_array);
        let warnings = warnings.into_iter().flatten().filter_map(Value::as_str);
        Status {
            ready: json.get("ready").and_then(Value::as_bool).unwrap_or_default(),
            summary: text("summary").to_owned(),
            warnings: warnings.map(str::to_owned).collect(),
            anonymity_bits: json.get("anonymity_bits").and_then(Value::as_f64),
            json,
        }
    }

    /// Ends the client, and returns when its threads have ended. Streams are broken off.
    pub async fn shutdown(&self) {
        self.0.shutdown.trigger();
        self.ended().await;
    }

    /// Returns when the client has been told to end and its threads have ended.
    pub(super) async fn ended(&self) {
        self.0.shutdown.wait().await;
        let thread = self.0.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(|| thread.join()).await;
        }
    }
}
