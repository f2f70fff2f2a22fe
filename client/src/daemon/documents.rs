//! Topology documents as they come from a gateway, and the proof when two of them contradict each other.

use std::path::{Path, PathBuf};

use shoal_host::secret::{self, SecretError};
use shoal_topology::{EquivocationProof, Error, Network, SignedDocument, VerifiedDocument};

/// Checks a document. One of the next epoch is taken before that begins: it comes ahead, and is not used earlier.
///
/// # Errors
/// The first thing that is wrong with it.
pub(super) fn verify(
    bytes: Vec<u8>,
    network: &Network,
    unix_s: u64,
) -> Result<VerifiedDocument, Error> {
    let document = match SignedDocument::verify(&bytes, network, unix_s) {
        Err(Error::NotYetValid { seconds }) => {
            let begins = unix_s.saturating_add(seconds);
            let document = SignedDocument::verify(&bytes, network, begins)?;
            if seconds > u64::from(document.epoch_s) {
                return Err(Error::NotYetValid { seconds });
            }
            document
        }
        other => other?,
    };
    Ok(VerifiedDocument { document: document.into(), signed: bytes.into() })
}

/// Writes two documents that contradict each other where [`found_proof`] finds them.
///
/// # Errors
/// What cannot be written.
pub(super) fn keep_proof(data_dir: &Path, two: &EquivocationProof) -> Result<(), SecretError> {
    for (which, bytes) in [(1, &two.first), (2, &two.second)] {
        secret::replace(&data_dir.join(format!("proof-{}-{which}.document", two.epoch)), bytes)?;
    }
    Ok(())
}

/// Why nothing may leave after a start: an earlier run kept a proof.
pub(super) fn found_proof(data_dir: &Path) -> Option<String> {
    let files = std::fs::read_dir(data_dir).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_proof = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("proof-") && name.ends_with(".document")
    };
    let first = files.filter(is_proof).min()?;
    Some(format!(
        "two topology documents of one epoch contradicted each other, and {} is half of the proof: the authorities cannot \
         be trusted; ask those who run the network, and remove the proof to go on",
        first.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Authority;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("shoal-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        secret::private_directory(&path).unwrap();
        path
    }

    #[test]
    fn a_proof_is_kept_for_its_owner_alone_and_found_until_it_is_removed() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = directory("proof");
        assert_eq!(found_proof(&dir), None);
        let (first, second) = (Vec::from(b"one").into(), Vec::from(b"two").into());
        let two = EquivocationProof { epoch: shoal_topology::Epoch(7), first, second };
        keep_proof(&dir, &two).unwrap();
        for (which, bytes) in [(1, b"one"), (2, b"two")] {
            let path = dir.join(format!("proof-7-{which}.document"));
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        }
        assert!(found_proof(&dir).unwrap().contains("proof-7-1.document"));
        std::fs::remove_file(dir.join("proof-7-1.document")).unwrap();
        assert!(found_proof(&dir).unwrap().contains("proof-7-2.document"));
        std::fs::remove_file(dir.join("proof-7-2.document")).unwrap();
        assert_eq!(found_proof(&dir), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_document_is_taken_an_epoch_ahead_and_no_earlier_and_refused_when_it_is_stale() {
        let authority = Authority::new(20);
        let document = authority.document(1_000);
        let bytes = authority.sign(&document).signed.to_vec();
        let at = |unix_s| verify(bytes.clone(), &authority.network(), unix_s);
        let begins = document.begins;
        assert!(at(begins).is_ok() && at(begins - 20).is_ok() && at(begins + 59).is_ok());
        assert!(matches!(at(begins - 60), Err(Error::NotYetValid { seconds: 60 })));
        assert!(matches!(at(begins + 60), Err(Error::Stale { .. })));
        let mut forged = bytes.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(verify(forged, &authority.network(), begins - 20).is_err());
    }
}
