//! The directory as its file says it now.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use shoal_host::exit::chain;
use shoal_organisation::Directory;
use shoal_topology::Identity;

use crate::OrgError;
use crate::files::read_directory;

/// The directory of an organisation, read again when its file has changed, without a lock: files are replaced whole.
pub(crate) struct Current {
    path: PathBuf,
    organisation: Identity,
    /// When the file was last changed, and what was in it.
    last: Mutex<(Option<SystemTime>, Arc<Directory>)>,
}

impl Current {
    /// Reads the file `directory` in `dir`.
    ///
    /// # Errors
    /// It cannot be read, or is of another organisation.
    pub(crate) fn open(dir: &Path, organisation: Identity) -> Result<Self, OrgError> {
        let path = dir.join("directory");
        let directory = read_directory(&path, &organisation)?;
        Ok(Self { path, organisation, last: Mutex::new((None, Arc::new(directory))) })
    }

    /// As it is now. A file that cannot be read leaves the last.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = std::fs::metadata(&self.path).and_then(|data| data.modified()).ok();
        if changed.is_some() && changed != last.0 {
            // Also where it cannot be read: it is tried again when it has changed once more.
            last.0 = changed;
            match read_directory(&self.path, &self.organisation) {
                Ok(directory) => last.1 = Arc::new(directory),
                Err(error) => {
                    tracing::warn!("members are given the directory as it was: {}", chain(&error));
                }
            }
        }
        last.1.clone()
    }
}
