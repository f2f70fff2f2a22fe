//! The service of an organisation inside the network: it takes requests, and gives members the directory.
//!
//! It reads the files of [`Registry`] and writes requests alone: it needs no key but that of its own address, and whoever
//! seizes it can let nobody in. With [`Duties::auto`] it has an issuer's key, and whoever seizes it can do what an issuer can.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shoal_client::{Config, Incoming, Listener, ServiceConfig, Shoal, Stream};
use shoal_host::exit::chain;
use shoal_host::{messages, network, secret};
use shoal_organisation::wire::{Answer, MAX_MESSAGE, PORT, Question, Refusal, enrolled, since};
use shoal_organisation::{Directory, Request, SignedBatch};
use shoal_topology::Identity;
use shoal_topology::directory::address::ServiceAddress;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use crate::accounts::kept_sign_in;
use crate::counters::{CounterPage, Served, ServiceTotals};
use crate::current::Current;
use crate::files::{keep_request, kept_request, read_invitations, unix_s};
use crate::oidc::{OidcConfig, Provider};
use crate::sign_ins::SignIns;
use crate::{Approval, Open, OrgError, Registry};

/// Questions that are answered at a time.
const AT_ONCE: usize = 64;
/// Streams at a time on which no question has come yet.
const SILENT: usize = 512;
/// A question takes no longer, nor does a short answer.
const HEAR: Duration = Duration::from_secs(20);
/// A batch takes no longer to leave: the largest takes 23 minutes in class text, at the pace of cover.
const STALLED: Duration = Duration::from_secs(2 * 3_600);

/// What the service does beside giving the directory and keeping requests.
#[derive(Clone, Default)]
pub struct Duties {
    /// Lets in whoever asks with an invitation that says so, as the issuer of this number ([`Registry::issuer`]).
    pub auto: Option<u16>,
    /// Lets people ask by a sign-in at this provider.
    pub oidc: Option<OidcConfig>,
    /// Shows at this address, which is on loopback, how much it answered.
    pub metrics: Option<SocketAddr>,
}

/// The service, as it runs.
pub struct DirectoryService {
    listener: Listener,
    handler: Arc<RequestHandler>,
    /// As whom requests are approved.
    issuer: Option<u16>,
    _page: Option<CounterPage>,
    /// The client by which the service was started: it goes with it.
    _client: Shoal,
}

/// Answers what devices ask.
struct RequestHandler {
    dir: PathBuf,
    current: Arc<Current>,
    counters: Arc<ServiceTotals>,
    /// Where people sign in; nowhere: they need invitations.
    sign_ins: Option<Arc<SignIns>>,
    /// A request is here that no admin has to look at.
    unseen: Notify,
    room: Semaphore,
    /// For streams on which no question has come yet.
    silent: Semaphore,
}

impl DirectoryService {
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
        duties: Duties,
    ) -> Result<Self, OrgError> {
        let keys = dir.join("service");
        secret::private_directory(&keys)?;
        let current = Arc::new(Current::open(dir, organisation)?);
        let provider = duties.oidc.map(Provider::new).transpose()?;
        let sign_ins = provider.map(|provider| Arc::new(SignIns::new(provider, dir.into())));
        let counters = Arc::<ServiceTotals>::default();
        let epoch_s = network::load(&config.network)?.epoch_s.into();
        let shoal = Shoal::start(Config { data_dir: keys.join("client"), ..config }).await?;
        let service = ServiceConfig::new(keys.join("keys"));
        let service = token.map_or(service.clone(), |token| service.token(token));
        let listener = shoal.listen(service).await?;
        let page = match duties.metrics {
            Some(address) => {
                let shown = (counters.clone(), current.clone());
                let page =
                    CounterPage::start(address, shown, epoch_s, listener.readiness()).await?;
                tracing::info!("totals: http://{}/metrics", page.address());
                Some(page)
            }
            None => None,
        };
        let handler = RequestHandler {
            dir: dir.into(),
            current,
            counters,
            sign_ins,
            unseen: Notify::new(),
            room: Semaphore::new(AT_ONCE),
            silent: Semaphore::new(SILENT),
        };
        let (handler, issuer) = (Arc::new(handler), duties.auto);
        Ok(Self { listener, handler, issuer, _page: page, _client: shoal })
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
        if let Some(sign_ins) = self.handler.sign_ins.clone() {
            tokio::spawn(async move { sign_ins.look().await });
        }
        let approves = self.issuer.map(|issuer| {
            let handler = self.handler.clone();
            tokio::spawn(async move { handler.approve(issuer).await })
        });
        while let Some(Incoming { port, stream }) = self.listener.accept().await {
            if port != PORT {
                continue;
            }
            let handler = self.handler.clone();
            tokio::spawn(async move {
                // Who goes in the middle has what he wanted, or asks again.
                if handler.attend(stream).await.is_err() {
                    handler.counters.count(Served::Broken);
                }
            });
        }
        if let Some(task) = approves {
            task.abort();
        }
    }
}

impl RequestHandler {
    async fn attend(&self, mut stream: Stream) -> std::io::Result<()> {
        // Who says nothing takes no room from who does.
        let Ok(silent) = self.silent.try_acquire() else {
            self.counters.count(Served::Silent);
            return Ok(());
        };
        let question = timeout(HEAR, messages::receive(&mut stream, MAX_MESSAGE)).await??;
        drop(silent);
        let Ok(_room) = self.room.try_acquire() else {
            self.counters.count(Served::Busy);
            let busy = Answer::Refused(Refusal::Busy).encode();
            return timeout(HEAR, messages::send(&mut stream, &busy)).await?;
        };
        let directory = self.current.directory();
        let batches = match self.answer(&directory, &question).await {
            Ok(batches) => batches,
            Err(answer) => {
                self.counters.count(match answer {
                    Answer::Waiting => Served::Waiting,
                    Answer::SignIn(_) => Served::SignIn,
                    Answer::Batches(_) | Answer::Refused(_) => Served::Refused,
                });
                return timeout(HEAR, messages::send(&mut stream, &answer.encode())).await?;
            }
        };
        let count = u32::try_from(batches.len()).unwrap_or(u32::MAX);
        timeout(HEAR, messages::send(&mut stream, &Answer::Batches(count).encode())).await??;
        for batch in batches {
            timeout(STALLED, messages::send(&mut stream, &batch.encode())).await??;
        }
        timeout(STALLED, stream.shutdown()).await??;
        self.counters.count(Served::Batches);
        Ok(())
    }

    /// Lets in whoever waits and needs no admin, each time that somebody says so. What fails is tried again when its device asks
    /// again.
    async fn approve(&self, issuer: u16) {
        let mut said = String::new();
        loop {
            self.unseen.notified().await;
            let dir = self.dir.clone();
            let work = move || Registry::open(&dir)?.approve_unseen(issuer);
            let why = match tokio::task::spawn_blocking(work).await {
                Ok(Ok((_, None))) => String::new(),
                Ok(Ok((_, Some(why))) | Err(why)) => chain(&why),
                Err(_) => "it ended in the middle".into(),
            };
            // A device asks three times a minute, and a log says it once.
            if !why.is_empty() && why != said {
                tracing::warn!("a request that needs no admin waits all the same: {why}");
            }
            said = why;
        }
    }

    async fn answer<'a>(
        &self,
        directory: &'a Directory,
        question: &[u8],
    ) -> Result<&'a [SignedBatch], Answer> {
        let unreadable = Answer::Refused(Refusal::Unreadable);
        let request = |bytes: &[u8]| Request::decode(bytes).map_err(|_| unreadable.clone());
        match Question::decode(question) {
            Ok(Question::Since { size, token }) => {
                since(directory, (size, token), unix_s()).map_err(Answer::Refused)
            }
            Ok(Question::Enrol(bytes)) => self.enrol(directory, &request(&bytes)?),
            Ok(Question::SignIn(bytes)) => self.sign_in(directory, request(&bytes)?).await,
            Err(_) => Err(unreadable),
        }
    }

    /// What a device gets that has no invitation: where to sign in, until somebody did.
    async fn sign_in<'a>(
        &self,
        directory: &'a Directory,
        request: Request,
    ) -> Result<&'a [SignedBatch], Answer> {
        let key = request.invitation();
        let known = kept_sign_in(&self.dir, &key).is_some();
        // Nobody puts another request in the place of one that an invitation has.
        let invited = kept_request(&self.dir, &key).is_some() || self.is_invited(&key);
        if known || invited || enrolled(directory, &request).map_err(Answer::Refused)?.is_some() {
            return self.enrol(directory, &request);
        }
        let Some(sign_ins) = &self.sign_ins else {
            return Err(Answer::Refused(Refusal::NoSignIn));
        };
        if request.organisation() != directory.organisation() {
            return Err(Answer::Refused(Refusal::Unreadable));
        }
        Err(sign_ins.ask(&self.current, request).await)
    }

    /// True if an open invitation has this key; also where that cannot be seen.
    fn is_invited(&self, key: &Identity) -> bool {
        let path = self.dir.join("invitations.json");
        let has = |open: Vec<Open>| open.iter().any(|open| open.invitation.key == *key);
        path.exists() && read_invitations(&path).map_or(true, has)
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
        let key = request.invitation();
        if let Some(signed_in) = kept_sign_in(&self.dir, &key) {
            let first = kept_request(&self.dir, &key);
            if first.is_none_or(|first| first.device() != request.device()) {
                return refused(Refusal::Used);
            }
            if signed_in.auto {
                self.unseen.notify_one();
            }
            return Err(Answer::Waiting);
        }
        // A file that cannot be read now says nothing of the invitation: a device that is told that there is none gives up.
        let Ok(open) = read_invitations(&self.dir.join("invitations.json")) else {
            return refused(Refusal::Busy);
        };
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
        if open.approval == Approval::Service {
            self.unseen.notify_one();
        }
        Err(Answer::Waiting)
    }
}

#[cfg(test)]
mod tests {
    use shoal_organisation::enrolment::Invited;
    use shoal_organisation::{Code, PersonFlags};
    use shoal_topology::{SecretIdentity, Seed};

    use super::*;
    use crate::accounts::keep_sign_in;
    use crate::{SignedIn, Subject};

    fn request(directory: &Directory, code: &Code, device: u8) -> Request {
        let device = SecretIdentity::from_bytes(&[device; 32]);
        let named = ("laptop".into(), vec![Identity([9; 32])]);
        Request::new(code, directory.organisation(), &device, named)
    }

    #[tokio::test]
    async fn a_sign_in_takes_the_place_of_no_invitation_and_of_no_other_device() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("acme");
        let mut registry = Registry::init(&dir, "acme", "Olga Owner", None).unwrap();
        let flags = PersonFlags::default();
        let invited = Invited::Person { name: "Alice".into(), unit: String::new(), flags };
        let slip = registry.invite(invited, None, (Approval::Admin, None)).unwrap();
        let directory = registry.directory().clone();
        drop(registry);
        let current = Arc::new(Current::open(&dir, directory.organisation()).unwrap());
        let (room, silent, unseen) = (Semaphore::new(1), Semaphore::new(1), Notify::new());
        let (counters, sign_ins) = (Arc::default(), None);
        let dir = dir.clone();
        let handler =
            RequestHandler { dir: dir.clone(), current, counters, sign_ins, unseen, room, silent };
        let said = async |question: Question| handler.answer(&directory, &question.encode()).await;
        let invited = slip.code().unwrap();
        let sign_in =
            |code: &Code, device| Question::SignIn(request(&directory, code, device).encode());
        // Whoever has a code of the organisation asks with that, whatever he calls it, and once.
        assert_eq!(said(sign_in(&invited, 1)).await, Err(Answer::Waiting));
        assert_eq!(said(sign_in(&invited, 2)).await, Err(Answer::Refused(Refusal::Used)));
        let kept = kept_request(&dir, &invited.public()).unwrap();
        assert_eq!(kept, request(&directory, &invited, 1));
        // Without a provider there is nowhere to sign in.
        let own = Code::draw(&mut Seed::from_u64(3).stream("code"));
        assert_eq!(said(sign_in(&own, 3)).await, Err(Answer::Refused(Refusal::NoSignIn)));
        // Once somebody has signed in, his device waits, and no other one of the same key.
        let by = Subject { issuer: "https://login.example".into(), subject: "1".into() };
        let (account, name, unit) = ("bob@example.org".into(), "Bob".into(), String::new());
        let expires = unix_s() + 60;
        let signed_in = SignedIn { by, account, name, unit, auto: false, expires };
        keep_sign_in(&dir, &request(&directory, &own, 3), &signed_in).unwrap();
        assert_eq!(said(sign_in(&own, 3)).await, Err(Answer::Waiting));
        let enrol = Question::Enrol(request(&directory, &own, 3).encode());
        assert_eq!(said(enrol).await, Err(Answer::Waiting));
        assert_eq!(said(sign_in(&own, 4)).await, Err(Answer::Refused(Refusal::Used)));
        assert_eq!(
            said(Question::SignIn(vec![1, 2, 3])).await,
            Err(Answer::Refused(Refusal::Unreadable))
        );
    }
}
