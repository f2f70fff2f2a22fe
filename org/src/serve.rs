//! The service of an organisation inside the network: it takes requests, and gives members the directory.
//!
//! It reads the files of [`crate::Registry`] and writes requests alone: it needs no key but that of its own address, and
//! whoever seizes it can let nobody in.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use shoal_client::{Config, Incoming, Listener, ServiceConfig, Shoal, Stream};
use shoal_host::{messages, secret};
use shoal_organisation::wire::{Answer, MAX_MESSAGE, PORT, Question, Refusal, enrolled, since};
use shoal_organisation::{Directory, Request, SignedBatch};
use shoal_topology::Identity;
use shoal_topology::directory::address::ServiceAddress;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::OrgError;
use crate::files::{keep_request, kept_request, read_directory, read_invitations, unix_s};

/// Questions that are answered at a time.
const AT_ONCE: usize = 64;
/// Streams at a time on which no question has come yet.
const SILENT: usize = 512;
/// A question takes no longer, nor does a short answer.
const HEAR: Duration = Duration::from_secs(20);
/// A batch takes no longer to leave: the largest takes a quarter of an hour in class text.
const STALLED: Duration = Duration::from_secs(1_800);

/// The service, as it runs.
pub struct Service {
    listener: Listener,
    desk: Arc<Desk>,
    /// The client by which the service was started: it goes with it.
    _client: Shoal,
}

/// What questions are answered from.
struct Desk {
    dir: PathBuf,
    organisation: Identity,
    /// The directory, and when its file was last changed.
    held: Mutex<(Option<SystemTime>, Arc<Directory>)>,
    room: Semaphore,
    /// For streams on which no question has come yet.
    silent: Semaphore,
}

impl Service {
    /// Starts the service over the files of an organisation, by the gateways of a client's configuration. `token` is the file
    /// of the admission token that its gateways gave it.
    ///
    /// # Errors
    /// The files cannot be read, or the client not be started.
    pub async fn start(
        dir: &Path,
        organisation: Identity,
        config: Config,
        token: Option<&Path>,
    ) -> Result<Self, OrgError> {
        let keys = dir.join("service");
        secret::private_directory(&keys)?;
        let directory = read_directory(&dir.join("directory"), &organisation)?;
        let shoal = Shoal::start(Config { data_dir: keys.join("client"), ..config }).await?;
        let service = ServiceConfig::new(keys.join("keys"));
        let service = token.map_or(service.clone(), |token| service.token(token));
        let listener = shoal.listen(service).await?;
        let held = Mutex::new((None, Arc::new(directory)));
        let desk = Desk {
            dir: dir.into(),
            organisation,
            held,
            room: Semaphore::new(AT_ONCE),
            silent: Semaphore::new(SILENT),
        };
        Ok(Self { listener, desk: Arc::new(desk), _client: shoal })
    }

    /// Where members find it, the preferred one first.
    pub fn addresses(&self) -> Vec<ServiceAddress> {
        self.listener.addresses().to_vec()
    }

    /// Returns when it can be reached. False if the client has ended.
    pub async fn ready(&mut self) -> bool {
        self.listener.ready().await
    }

    /// Answers questions until the client ends.
    pub async fn run(mut self) {
        while let Some(Incoming { port, stream }) = self.listener.accept().await {
            if port != PORT {
                continue;
            }
            let desk = self.desk.clone();
            tokio::spawn(async move {
                // Who goes in the middle has what he wanted, or asks again.
                let _ = desk.attend(stream).await;
            });
        }
    }
}

impl Desk {
    async fn attend(&self, mut stream: Stream) -> std::io::Result<()> {
        // Who says nothing takes no room from who does.
        let Ok(silent) = self.silent.try_acquire() else { return Ok(()) };
        let question = timeout(HEAR, messages::receive(&mut stream, MAX_MESSAGE)).await??;
        drop(silent);
        let Ok(_room) = self.room.try_acquire() else {
            let busy = Answer::Refused(Refusal::Busy).encode();
            return timeout(HEAR, messages::send(&mut stream, &busy)).await?;
        };
        let directory = self.directory();
        let batches = match self.answer(&directory, &question) {
            Ok(batches) => batches,
            Err(answer) => {
                return timeout(HEAR, messages::send(&mut stream, &answer.encode())).await?;
            }
        };
        let count = u32::try_from(batches.len()).unwrap_or(u32::MAX);
        timeout(HEAR, messages::send(&mut stream, &Answer::Batches(count).encode())).await??;
        for batch in batches {
            timeout(STALLED, messages::send(&mut stream, &batch.encode())).await??;
        }
        timeout(STALLED, stream.shutdown()).await?
    }

    /// The directory, read again when its file has changed. One that cannot be read leaves the last.
    fn directory(&self) -> Arc<Directory> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.dir.join("directory");
        let changed = std::fs::metadata(&path).and_then(|data| data.modified()).ok();
        if changed.is_some() && changed != held.0 {
            // Also where it cannot be read: it is tried again when it has changed once more.
            held.0 = changed;
            if let Ok(directory) = read_directory(&path, &self.organisation) {
                held.1 = Arc::new(directory);
            }
        }
        held.1.clone()
    }

    fn answer<'a>(
        &self,
        directory: &'a Directory,
        question: &[u8],
    ) -> Result<&'a [SignedBatch], Answer> {
        match Question::decode(question) {
            Ok(Question::Since { size, token }) => {
                since(directory, (size, token), unix_s()).map_err(Answer::Refused)
            }
            Ok(Question::Enrol(request)) => match Request::decode(&request) {
                Ok(request) => self.enrol(directory, &request),
                Err(_) => Err(Answer::Refused(Refusal::Unreadable)),
            },
            Err(_) => Err(Answer::Refused(Refusal::Unreadable)),
        }
    }

    fn enrol<'a>(
        &self,
        directory: &'a Directory,
        request: &Request,
    ) -> Result<&'a [SignedBatch], Answer> {
        if let Some(batches) = enrolled(directory, request).map_err(Answer::Refused)? {
            return Ok(batches);
        }
        let refused = |why| Err(Answer::Refused(why));
        // A file that cannot be read now says nothing of the invitation: a device that is told that there is none gives up.
        let Ok(open) = read_invitations(&self.dir.join("invitations.json")) else {
            return refused(Refusal::Busy);
        };
        let key = request.invitation();
        let Some(open) = open.iter().find(|open| open.invitation.key == key) else {
            return refused(Refusal::NoInvitation);
        };
        if request.entries(directory, &open.invitation, unix_s()).is_err() {
            return refused(Refusal::NoInvitation);
        }
        match kept_request(&self.dir, &key) {
            Some(first) if first.device() != request.device() => return refused(Refusal::Used),
            Some(_) => {}
            None if keep_request(&self.dir, request).is_ok() => {}
            None => return refused(Refusal::Busy),
        }
        Err(Answer::Waiting)
    }
}
