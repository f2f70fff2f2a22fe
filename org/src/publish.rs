//! Hands the head of a directory to the authorities of a network, and waits until it stands in their document.

use std::path::Path;
use std::time::{Duration, SystemTime};

use shoal_host::authorities::AuthorityLinks;
use shoal_host::exit::chain;
use shoal_host::link::{Endpoint, Identity as LinkKey, LinkSettings};
use shoal_host::network;
use shoal_host::shutdown::{Shutdown, ShutdownOnDrop};
use shoal_topology::wire::authorities::ToAuthority;
use shoal_topology::{Document, SignedDocument};
use tokio::time::{Instant, timeout_at};

use crate::files::unix_s;
use crate::{OrgError, Registry};

/// Longest time until the first document comes.
const FIRST: Duration = Duration::from_secs(15);

/// How often it is looked whether there is something new to publish.
const LOOK: Duration = Duration::from_secs(2);
/// How long nothing is tried after a failure.
const AGAIN: Duration = Duration::from_secs(30);

/// Where a head stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublishedHead {
    /// The epoch of the first document that has it.
    pub epoch: u64,
    /// Entries of the directory.
    pub size: u64,
}

/// Gives the authorities the head of the directory, with the proof that it continues the one in their document, and waits
/// for at most three epochs until a document has it.
///
/// # Errors
/// No authority answers, the document has another directory, or none has this one in time.
pub async fn publish(registry: &Registry, network_file: &Path) -> Result<PublishedHead, OrgError> {
    let known = network::load(network_file)?;
    let addresses = network::authority_addresses(network_file)?;
    let (head, secret) = registry.head()?;
    let organisation = secret.identity();
    let settings = LinkSettings { listen: None, ..LinkSettings::default() };
    let endpoint = Endpoint::new(&LinkKey::from_seed(&*registry.organisation_seed()?), settings)?;
    // Its links go with it, also where it is given up in the middle.
    let shutdown = ShutdownOnDrop(Shutdown::new());
    let of = addresses.len();
    let (links, mut documents) = AuthorityLinks::start(&endpoint.dialler(), addresses, &shutdown.0);
    let mut last = Instant::now() + FIRST;
    let mut newest: Option<Document> = None;
    let refused = |why: String| Err(OrgError::Refused(why));
    loop {
        let Ok(Some(bytes)) = timeout_at(last, documents.recv()).await else {
            return match newest {
                Some(_) => refused(format!(
                    "the authorities have not put this head into a document: ask whether {of} of them have \
                     [[authority.organisation]] with name {:?} and key {organisation}, and what their logs say",
                    head.body().name
                )),
                None => refused(format!(
                    "no authority of {} gave a document: they let in whom their lists name, so ask their operators to add \
                     [[authority.organisation]] with name {:?} and key {organisation}",
                    network_file.display(),
                    head.body().name
                )),
            };
        };
        // What cannot be used is none; another authority may give a better one.
        let Ok(document) = SignedDocument::verify(&bytes, &known, unix_s()) else { continue };
        let later =
            |held: &Document| (document.epoch, document.amendment) > (held.epoch, held.amendment);
        if newest.as_ref().is_some_and(|held| !later(held)) {
            continue;
        }
        if newest.is_none() {
            last = Instant::now() + 3 * Duration::from_secs(document.epoch_s.into());
        }
        let before = document.head(&organisation);
        let (size, service) = (head.body().size, head.body().service);
        let is_there = |before: &shoal_topology::DirectoryHead| {
            (before.size, before.service) == (size, service)
                && registry.directory().agrees(before) == Ok(true)
        };
        if before.is_some_and(is_there) {
            return Ok(PublishedHead { epoch: document.epoch.0, size });
        }
        let update = registry.directory().update(head.clone(), before)?;
        links.announce(&ToAuthority::Head(update.encode()));
        newest = Some(document);
    }
}

/// Publishes the head each time that the files have another one, until it is dropped. What comes while a head is on its way goes at
/// once, and does not wait for the document that has the one before.
///
/// It needs the organisation's key, which gives nobody power.
pub async fn keep_published(dir: &Path, network_file: &Path) {
    let (mut done, mut said) = (None, String::new());
    loop {
        let found = changed(dir);
        if done == Some(found) {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        let again = async {
            while changed(dir) == found {
                tokio::time::sleep(LOOK).await;
            }
        };
        let published = tokio::select! {
            published = once(dir, network_file) => published,
            () = again => continue,
        };
        let why = match published {
            Ok(published) => {
                tracing::info!(
                    "the document of epoch {} has the head of the directory, of {} entries",
                    published.epoch,
                    published.size
                );
                done = Some(found);
                String::new()
            }
            Err(error) => chain(&error),
        };
        if why.is_empty() {
            said = why;
            continue;
        }
        if why != said {
            tracing::warn!("the directory's head is not published: {why}");
        }
        said = why;
        tokio::time::sleep(AGAIN).await;
    }
}

/// When the files of which a head is made were last changed.
fn changed(dir: &Path) -> [Option<SystemTime>; 2] {
    ["directory", "organisation.toml"]
        .map(|name| std::fs::metadata(dir.join(name)).and_then(|data| data.modified()).ok())
}

async fn once(dir: &Path, network_file: &Path) -> Result<PublishedHead, OrgError> {
    let dir = dir.to_owned();
    let open = move || {
        let mut registry = Registry::open(&dir)?;
        // It waits for documents, and a removal must not wait for it.
        registry.unlock();
        Ok(registry)
    };
    let ended = |_| OrgError::Refused("the files could not be read to their end".into());
    let registry: Result<Registry, OrgError> =
        tokio::task::spawn_blocking(open).await.map_err(ended)?;
    publish(&registry?, network_file).await
}
