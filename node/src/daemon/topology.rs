//! The topology file: the last document, kept for the next start, or given by hand; read when it changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_host::secret::{self, SecretError};
use shoal_topology::{Document, Epoch, Identity, Network, SignedDocument, VerifiedDocument};

/// By which a changed file is known without reading it.
type Mark = (SystemTime, u64);

/// Looks at the file.
pub(super) struct File {
    path: PathBuf,
    seen: Option<Mark>,
}

impl File {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    /// The document in the file, if it is there and has changed.
    ///
    /// # Errors
    /// It cannot be read, or must not be used; said once for each change.
    pub(super) fn read(
        &mut self,
        network: &Network,
        unix_s: u64,
    ) -> Result<Option<VerifiedDocument>, String> {
        let name = self.path.display();
        let unreadable = |error| format!("cannot read the topology document {name}: {error}");
        let mark = match std::fs::metadata(&self.path) {
            Ok(found) => (found.modified().map_err(unreadable)?, found.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        if self.seen == Some(mark) {
            return Ok(None);
        }
        self.seen = Some(mark);
        let signed: Arc<[u8]> = std::fs::read(&self.path).map_err(unreadable)?.into();
        match SignedDocument::verify(&signed, network, unix_s) {
            Ok(document) => Ok(Some(VerifiedDocument { document: Arc::new(document), signed })),
            Err(error) => {
                if let shoal_topology::Error::NotYetValid { .. } = error {
                    // Its time comes without another change of the file.
                    self.seen = None;
                }
                Err(format!("{name}: {error}"))
            }
        }
    }

    /// Keeps a document for the next start.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn keep(&self, signed: &[u8]) -> Result<(), SecretError> {
        secret::replace(&self.path, signed)
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
        return Some(match document.why_not_listed(own) {
            Some(why) => format!("the authorities cannot list this node: {why}"),
            None => {
                "the topology document does not list this node: its identity, which `shoal-node identity` prints, has to stand \
                 in `nodes` of most authorities, and the next document lists it"
                    .into()
            }
        });
    };
    let listed = listed.descriptor.body();
    if listed.role != own.role {
        return Some("the topology document lists this node with another role".into());
    }
    if listed.key(epoch) != own.key(epoch) {
        return Some(
            "the topology document lists another key of this node: its newest descriptor, which goes to the authorities over \
             its links to them, did not reach most of them in time; the next document has it"
                .into(),
        );
    }
    None
}

/// The present second of Unix time.
pub(super) fn unix_s() -> u64 {
    unix_ms() / 1_000
}

/// The present millisecond of Unix time.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
