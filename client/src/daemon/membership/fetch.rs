//! One question to the organisation's service, and its answer.

use std::time::Duration;

use rand::RngExt as _;
use shoal_host::{messages, secret};
use shoal_organisation::SignedBatch;
use shoal_organisation::wire::{Answer, MAX_MESSAGE, PORT, Question, Refusal, SignIn};
use shoal_topology::{DirectoryHead, Seed};
use tokio::time::timeout;

use super::Membership;
use crate::daemon::Shoal;
use crate::daemon::clock::unix_s;
use crate::daemon::stream::Stream;
use crate::engine::Isolation;

/// Longest wait for one message of the service: a batch of the largest size takes 23 minutes in class text.
const STALLED: Duration = Duration::from_secs(2 * 3_600);
/// Longest wait for a whole answer.
const LONGEST: Duration = Duration::from_secs(12 * 3_600);
/// Most bytes of a batch.
const MAX_BATCH: usize = 1 << 20;
/// Most bytes of an answer: those of the largest directory.
const MAX_BYTES: usize = 64 << 20;

/// What the service said in place of batches.
enum Said {
    /// Nothing, until an admin approves.
    Waiting,
    /// Nothing, and why.
    Refused(Refusal),
    /// Nothing, until the owner has signed in.
    SignIn(SignIn),
}

/// Where drawn instants come from: of no use to whoever knows them later.
pub(super) fn stream() -> shoal_topology::Stream {
    let seed = secret::fresh().map(|seed| *seed).unwrap_or_default();
    Seed::new(seed).stream("instants of a member")
}

/// A time below `longest`, uniform.
pub(super) fn uniform(longest: Duration) -> Duration {
    longest.mul_f64(stream().random::<f64>())
}

/// Asks for what is missing, and takes what comes.
pub(super) async fn once(membership: &Membership, shoal: &Shoal, head: &DirectoryHead) {
    let Some(service) = head.service() else {
        return membership.refuse("the organisation has no service that gives its directory: its admins run `shoal-org serve`".into(), false);
    };
    let question = {
        let state = membership.state();
        let Some(state) = state.as_ref() else { return };
        let size = state.directory.size();
        let since = state.directory.reader_token(size).map(|token| Question::Since { size, token });
        // To enrol names this device, so it is asked only where a member has been away for too long to be given what is new: never
        // because the service refuses that, which could have everybody name himself.
        let oldest = 2 * u64::from(state.directory.policy().max_age_s);
        let is_late = state.kept.agreed_at.saturating_add(oldest) < unix_s();
        let request = state.request.encode();
        let named = match state.kept.by_sign_in && state.device().is_none() {
            true => Question::SignIn(request),
            false => Question::Enrol(request),
        };
        since.filter(|_| !is_late).unwrap_or(named)
    };
    // A tunnel of its own for each question: the service must not know that whoever asks for what is new now is the device
    // that was enrolled, or asked the last time. Who waits to be let in says who he is, and asks in the same one.
    let name = match &question {
        Question::Since { .. } => format!("\0organisation {:032x}", stream().random::<u128>()),
        Question::Enrol(request) | Question::SignIn(request) => {
            format!("\0organisation {}", blake3::hash(request).to_hex())
        }
    };
    // And at the pace of cover, so that the own gateway does not see who fetches a directory.
    let isolation = Isolation::of(&name).resting();
    let target = format!("{service}:{PORT}");
    let asked = async {
        let mut stream =
            shoal.connect(&target, isolation).await.map_err(|error| error.to_string())?;
        ask(&mut stream, (&question, head.size)).await.map_err(|error| error.to_string())
    };
    let Ok(said) = timeout(LONGEST, asked).await else { return };
    let batches = match said {
        Ok(Ok(batches)) => batches,
        Ok(Err(Said::Waiting)) => return membership.gave(),
        Ok(Err(Said::SignIn(sign_in))) => return membership.sign_in(sign_in),
        Ok(Err(Said::Refused(why))) => {
            match why {
                Refusal::NoInvitation
                | Refusal::Used
                | Refusal::Removed
                | Refusal::NoSignIn
                | Refusal::NotSignedIn
                | Refusal::NotAllowed => membership.end(),
                Refusal::NoReader | Refusal::Unreadable | Refusal::Busy => {}
            }
            return membership.refuse(why.to_string(), false);
        }
        Err(why) => {
            return membership
                .refuse(format!("the organisation's service was not reached: {why}"), false);
        }
    };
    let whole = matches!(question, Question::Enrol(_) | Question::SignIn(_));
    match membership.take(batches, head, whole) {
        Ok(true) => membership.gave(),
        Ok(false) => membership.refuse(
            "the organisation's service does not have all yet that the document has".into(),
            false,
        ),
        Err(why) => membership
            .refuse(format!("the organisation's service gave what cannot be: {why}"), true),
    }
}

async fn ask(
    stream: &mut Stream,
    (question, most): (&Question, u64),
) -> std::io::Result<Result<Vec<SignedBatch>, Said>> {
    messages::send(stream, &question.encode()).await?;
    let wrong = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let count = match Answer::decode(&hear(stream, MAX_MESSAGE).await?).map_err(|_| wrong())? {
        // No more than there are entries: each batch has one at least.
        Answer::Batches(count) if u64::from(count) <= most => count,
        Answer::Batches(_) => return Err(wrong()),
        Answer::Waiting => return Ok(Err(Said::Waiting)),
        Answer::Refused(why) => return Ok(Err(Said::Refused(why))),
        Answer::SignIn(sign_in) => return Ok(Err(Said::SignIn(sign_in))),
    };
    let (mut batches, mut bytes) = (Vec::new(), 0);
    for _ in 0..count {
        let message = hear(stream, MAX_BATCH).await?;
        bytes += message.len();
        if bytes > MAX_BYTES {
            return Err(wrong());
        }
        batches.push(SignedBatch::decode(&message).map_err(|_| wrong())?);
    }
    Ok(Ok(batches))
}

async fn hear(stream: &mut Stream, most: usize) -> std::io::Result<Vec<u8>> {
    timeout(STALLED, messages::receive(stream, most)).await?
}
