//! Hands the head of a directory to the authorities of a network, and waits until it stands in their document.

use std::path::Path;
use std::time::Duration;

use shoal_host::authorities::AuthorityLinks;
use shoal_host::link::{Endpoint, Identity as LinkKey, LinkSettings};
use shoal_host::network;
use shoal_host::shutdown::Shutdown;
use shoal_topology::wire::authorities::ToAuthority;
use shoal_topology::{Document, SignedDocument};
use tokio::time::{Instant, timeout_at};

use crate::files::unix_s;
use crate::{OrgError, Registry};

/// Longest time until the first document comes.
const FIRST: Duration = Duration::from_secs(15);

/// Where a head stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Published {
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
pub async fn publish(registry: &Registry, network_file: &Path) -> Result<Published, OrgError> {
    let known = network::load(network_file)?;
    let addresses = network::authority_addresses(network_file)?;
    let (head, secret) = registry.head()?;
    let organisation = secret.identity();
    let settings = LinkSettings { listen: None, ..LinkSettings::default() };
    let endpoint = Endpoint::new(&LinkKey::from_seed(&*registry.organisation_seed()?), settings)?;
    let shutdown = Shutdown::new();
    let of = addresses.len();
    let (links, mut documents) = AuthorityLinks::start(&endpoint.dialler(), addresses, &shutdown);
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
            shutdown.trigger();
            return Ok(Published { epoch: document.epoch.0, size });
        }
        let update = registry.directory().update(head.clone(), before)?;
        links.announce(&ToAuthority::Head(update.encode()));
        newest = Some(document);
    }
}
