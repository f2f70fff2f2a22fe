//! The topology file: read when it changes, verified, and the last good one kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_topology::{Document, Epoch, Identity, Network, SignedDocument};

/// What looking at the file brought.
pub(super) enum Look {
    /// Nothing new.
    Same,
    /// A document that may be used.
    New(Arc<Document>, Arc<[u8]>),
    /// The file changed, and cannot be used.
    Bad(String),
}

/// By which a changed file is known without reading it.
type Mark = (SystemTime, u64);

/// Looks at the file.
pub(super) struct File {
    path: PathBuf,
    network: Network,
    seen: Option<Result<Mark, String>>,
    used: Option<Arc<[u8]>>,
}

impl File {
    pub(super) fn new(path: PathBuf, network: Network) -> Self {
        Self { path, network, seen: None, used: None }
    }

    pub(super) fn look(&mut self, unix_s: u64) -> Look {
        let name = self.path.display();
        let mark = std::fs::metadata(&self.path)
            .and_then(|found| Ok((found.modified()?, found.len())))
            .map_err(|error| format!("cannot read the topology document {name}: {error}"));
        if self.seen.as_ref() == Some(&mark) {
            return Look::Same;
        }
        self.seen = Some(mark.clone());
        let bytes = mark.and_then(|_| {
            std::fs::read(&self.path)
                .map_err(|error| format!("cannot read the topology document {name}: {error}"))
        });
        let bytes: Arc<[u8]> = match bytes {
            Ok(bytes) => bytes.into(),
            Err(why) => return Look::Bad(why),
        };
        if self.used.as_ref() == Some(&bytes) {
            return Look::Same;
        }
        match SignedDocument::verify(&bytes, &self.network, unix_s) {
            Ok(document) => {
                self.used = Some(bytes.clone());
                Look::New(Arc::new(document), bytes)
            }
            Err(shoal_topology::Error::NotYetValid { seconds }) => {
                // Its time comes without another change of the file.
                self.seen = None;
                Look::Bad(format!("{name}: the topology document begins in {seconds} s"))
            }
            Err(error) => Look::Bad(format!("{name}: {error}")),
        }
    }
}

/// Why a node cannot do its work with a document, if so.
pub(super) fn objection(
    document: &Document,
    identity: &Identity,
    epoch: Epoch,
    own: &shoal_topology::NodeDescriptor,
) -> Option<String> {
    let Some(listed) = document.index_of(identity).and_then(|index| document.node(index)) else {
        return Some(
            "the topology document does not list this node: give its descriptor to the authorities"
                .into(),
        );
    };
    let listed = listed.descriptor.body();
    if listed.role != own.role {
        return Some("the topology document lists this node with another role".into());
    }
    if listed.key(epoch) != own.key(epoch) {
        return Some(
            "the topology document lists another key of this node: give its new descriptor to the \
             authorities"
                .into(),
        );
    }
    None
}

/// Seconds of Unix time.
pub(super) fn unix_s() -> u64 {
    unix_ms() / 1_000
}

/// Milliseconds of Unix time.
pub(super) fn unix_ms() -> u64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}
