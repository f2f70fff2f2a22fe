//! Sign-ins that devices asked for, until somebody signed in.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_host::exit::chain;
use shoal_organisation::enrolment::{Invited, VALID_S};
use shoal_organisation::wire::{Answer, Refusal, SignIn};
use shoal_organisation::{Directory, Invitation, PersonFlags, Request};
use shoal_topology::Identity;
use tokio::time::{Instant, sleep};

use crate::accounts::keep_sign_in;
use crate::current::Current;
use crate::files::unix_s;
use crate::oidc::{DeviceAuthorization, Polled, Provider, Who};
use crate::signed_in::{SignedIn, Subject};

/// Sign-ins that are open at a time; a device that comes later is told that the service is busy.
const OPEN: usize = 256;
/// The shortest time between two beginnings, so that nobody has this service flood the provider.
const BETWEEN: Duration = Duration::from_secs(1);
/// For how long a device can learn what became of its sign-in.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How much longer to wait when the provider says that it was asked too often (RFC 8628, section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// Failures in a row after which a sign-in is given up.
const FAILURES: usize = 5;

/// How far a sign-in is.
enum SignInStage {
    /// The provider is being asked.
    Beginning,
    /// Somebody has to sign in.
    Open(SignIn),
    /// It came to nothing.
    Refused(Refusal),
}

struct Flow {
    stage: SignInStage,
    until: Instant,
}

#[derive(Default)]
struct Flows {
    of: HashMap<Identity, Flow>,
    last: Option<Instant>,
}

/// The sign-ins of a service, by the keys of their requests.
pub(crate) struct SignIns {
    provider: Provider,
    dir: PathBuf,
    flows: Mutex<Flows>,
    /// What the log said last: it says each trouble once in a row.
    said: Mutex<String>,
}

impl SignIns {
    /// Without any sign-in yet; they are kept in the files of `dir`.
    pub(crate) fn new(provider: Provider, dir: PathBuf) -> Self {
        Self { provider, dir, flows: Mutex::default(), said: Mutex::default() }
    }

    /// Asks the provider for its addresses, so that what is wrong is in the log before anybody wants to sign in.
    pub(crate) async fn look(&self) {
        if let Err(error) = self.provider.discover().await {
            self.warn(chain(&error));
        }
    }

    fn flows(&self) -> MutexGuard<'_, Flows> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn warn(&self, why: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != why {
            tracing::warn!("a sign-in came to nothing: {why}");
            *said = why;
        }
    }

    /// What a device is told that asks with this request, for the first time or again.
    pub(crate) async fn ask(self: &Arc<Self>, current: &Arc<Current>, request: Request) -> Answer {
        let key = request.invitation();
        if let Some(answer) = self.known(&key) {
            return answer;
        }
        let nonce = request.nonce();
        match self.provider.begin(&nonce).await {
            Ok(authorization) => {
                let sign_in = authorization.sign_in.clone();
                let until = Instant::now() + Duration::from_secs(sign_in.expires_s.into());
                self.set(key, SignInStage::Open(sign_in.clone()), until);
                let (own, current) = (self.clone(), current.clone());
                tokio::spawn(
                    async move { own.wait(&current, request, authorization, until).await },
                );
                Answer::SignIn(sign_in)
            }
            Err(error) => {
                self.flows().of.remove(&key);
                self.warn(chain(&error));
                Answer::Refused(error.refusal())
            }
        }
    }

    /// The answer without asking the provider; nothing, and room is taken, if it has to be asked.
    fn known(&self, key: &Identity) -> Option<Answer> {
        let (mut flows, now) = (self.flows(), Instant::now());
        flows.of.retain(|_, flow| flow.until > now);
        match flows.of.get(key) {
            Some(Flow { stage: SignInStage::Beginning, .. }) => {
                return Some(Answer::Refused(Refusal::Busy));
            }
            Some(Flow { stage: SignInStage::Open(sign_in), until }) => {
                let left = until.saturating_duration_since(now).as_secs();
                let expires_s = u32::try_from(left).unwrap_or_default();
                return Some(Answer::SignIn(SignIn { expires_s, ..sign_in.clone() }));
            }
            Some(Flow { stage: SignInStage::Refused(why), .. }) => {
                return Some(Answer::Refused(*why));
            }
            None => {}
        }
        let too_soon = flows.last.is_some_and(|last| now.saturating_duration_since(last) < BETWEEN);
        if flows.of.len() >= OPEN || too_soon {
            return Some(Answer::Refused(Refusal::Busy));
        }
        flows.last = Some(now);
        let flow = Flow { stage: SignInStage::Beginning, until: now + REMEMBERED };
        flows.of.insert(*key, flow);
        None
    }

    fn set(&self, key: Identity, stage: SignInStage, until: Instant) {
        self.flows().of.insert(key, Flow { stage, until });
    }

    /// Asks until somebody signed in, and keeps the request then.
    async fn wait(
        &self,
        current: &Current,
        request: Request,
        authorization: DeviceAuthorization,
        until: Instant,
    ) {
        let (mut interval, mut failures) = (authorization.interval, 0);
        let nonce = request.nonce();
        let why = loop {
            sleep(interval).await;
            if Instant::now() >= until {
                break Refusal::NotSignedIn;
            }
            match self.provider.poll(&authorization.device_code, &nonce).await {
                Ok(Polled::Pending) => failures = 0,
                Ok(Polled::SlowDown) => interval += SLOWER,
                Ok(Polled::Done(who)) => match self.keep(&current.directory(), &request, who) {
                    Ok(()) => {
                        self.flows().of.remove(&request.invitation());
                        return;
                    }
                    Err((refusal, why)) => {
                        self.warn(why);
                        break refusal;
                    }
                },
                Err(error) => {
                    let refusal = error.refusal();
                    // A provider that was away for a moment has lost nothing.
                    failures += 1;
                    if refusal == Refusal::Busy && failures < FAILURES {
                        continue;
                    }
                    // Who changes his mind, or comes too late, is no trouble of the operator's.
                    if !error.is_usual() {
                        self.warn(chain(&error));
                    }
                    break if refusal == Refusal::Busy { Refusal::NotSignedIn } else { refusal };
                }
            }
        };
        self.set(request.invitation(), SignInStage::Refused(why), Instant::now() + REMEMBERED);
    }

    /// Keeps a request by whoever signed in, if his name can stand in the directory.
    fn keep(
        &self,
        directory: &Directory,
        request: &Request,
        who: Who,
    ) -> Result<(), (Refusal, String)> {
        let config = self.provider.config();
        let now = unix_s();
        let flags = PersonFlags::default();
        let invited = Invited::Person { name: who.name.clone(), unit: who.unit.clone(), flags };
        let invitation = Invitation { key: request.invitation(), invited, expires: now };
        let entries = request.entries(directory, &invitation, now);
        entries.and_then(|entries| directory.draft(now, entries)).map_err(|error| {
            (Refusal::NotAllowed, format!("what the provider says cannot stand: {error}"))
        })?;
        let Who { subject, account, name, unit } = who;
        let (by, auto) = (Subject { issuer: config.issuer.clone(), subject }, config.auto);
        let expires = now.saturating_add(VALID_S);
        let signed_in = SignedIn { by, account, name, unit, auto, expires };
        keep_sign_in(&self.dir, request, &signed_in).map_err(|error| (Refusal::Busy, chain(&error)))
    }
}
