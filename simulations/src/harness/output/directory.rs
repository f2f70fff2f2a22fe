//! A directory of results: of one job alone, each file whole or not there.

use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// A directory that has something else in it.
#[derive(Debug, thiserror::Error)]
#[error("{} {what}; give another directory with --out, or empty this one", dir.display())]
pub struct Foreign {
    dir: PathBuf,
    what: String,
}

/// A directory for the results of one job.
#[derive(Debug)]
pub struct OutputDirectory {
    path: PathBuf,
    identity: &'static str,
}

impl OutputDirectory {
    /// Opens or makes the directory `path` for the job `job`, which the file `identity` in it names.
    ///
    /// # Errors
    /// [`Foreign`]: it has results of another job, or files of someone else. Or it cannot be read or made.
    pub fn open(path: &Path, identity: &'static str, job: &Value) -> anyhow::Result<Self> {
        let foreign = |what: String| Foreign { dir: path.into(), what };
        fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        match fs::read_to_string(path.join(identity)) {
            Ok(text) => {
                let found: Value = serde_json::from_str(&text)
                    .map_err(|error| foreign(format!("has a damaged {identity} ({error})")))?;
                if let Some(what) = difference(found.get("job").unwrap_or(&Value::Null), job) {
                    Err(foreign(format!("has the results of another job: {what}")))?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let entries =
                    fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
                for entry in entries {
                    let name = entry?.file_name();
                    // Another process was faster: it has named the job meanwhile.
                    if name == identity {
                        return Self::open(path, identity, job);
                    }
                    // What an interrupted start left behind.
                    if !name.to_string_lossy().starts_with(PART) {
                        Err(foreign(format!("has {} in it and no {identity}", name.display())))?;
                    }
                }
            }
            Err(error) => {
                Err(error).with_context(|| format!("reading {identity} in {}", path.display()))?
            }
        }
        Ok(Self { path: path.into(), identity })
    }

    /// Removes the files that programs which were killed left half-written here and in the directories below. Those that
    /// another program is writing at this moment stay: it holds a lock on them.
    pub fn tidy(&self) {
        let below = |dir: &Path| {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let here = below(&self.path);
        let inner = here.iter().filter(|path| path.is_dir()).flat_map(|path| below(path));
        for path in here.iter().cloned().chain(inner) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(PART) && path.is_file() {
                // What cannot be removed does no harm.
                let _ = remove_abandoned(&path);
            }
        }
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file that names the job, with `more` beside the job.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn identify(&self, job: &Value, more: Value) -> anyhow::Result<()> {
        let mut text = json!({ "job": job });
        if let (Some(text), Value::Object(more)) = (text.as_object_mut(), more) {
            text.extend(more);
        }
        self.write(self.identity, |file| Ok(writeln!(file, "{text:#}")?))
    }

    /// Writes a file; it appears when it is whole.
    ///
    /// # Errors
    /// It cannot be written, or `write` gives an error.
    pub fn write(
        &self,
        name: &str,
        write: impl FnOnce(&mut BufWriter<&fs::File>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        write_atomic(&self.path.join(name), write)
    }
}

/// How names of files begin that are not whole yet.
const PART: &str = ".part-";

/// Writes a file beside its place and moves it there when it is whole: a reader, or a run after a crash, finds all of it or
/// nothing.
///
/// # Errors
/// It cannot be written, or `write` gives an error.
pub fn write_atomic(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&fs::File>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let inner = || -> anyhow::Result<()> {
        let dir = path.parent().context("no directory")?;
        fs::create_dir_all(dir)?;
        let part = part(dir, "")?;
        let mut file = BufWriter::new(part.as_file());
        write(&mut file)?;
        file.flush()?;
        drop(file);
        readable(&part)?;
        part.as_file().sync_all()?;
        part.persist(path)?;
        Ok(())
    };
    inner().with_context(|| format!("writing {}", path.display()))
}

/// A file that is not whole yet, locked as long as it is written so that [`OutputDirectory::tidy`] leaves it.
pub(crate) fn part(dir: &Path, suffix: &str) -> io::Result<NamedTempFile> {
    loop {
        let part = tempfile::Builder::new().prefix(PART).suffix(suffix).tempfile_in(dir)?;
        // Some file systems have no locks. Then nobody can hold one, and `tidy` removes nothing.
        let locked = part.as_file().lock().is_ok();
        // Between the two lines above another program may have taken it for one that was left behind.
        if !locked || part.path().exists() {
            return Ok(part);
        }
    }
}

/// Removes a file that nobody holds a lock on.
fn remove_abandoned(path: &Path) -> io::Result<()> {
    let file = fs::File::open(path)?;
    file.try_lock()?;
    fs::remove_file(path)
}

/// Results are for others to read; temporary files are not.
fn readable(part: &NamedTempFile) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    part.as_file().set_permissions(fs::Permissions::from_mode(0o644))
}

/// The first difference of two jobs, for people.
fn difference(found: &Value, wanted: &Value) -> Option<String> {
    if found == wanted {
        return None;
    }
    if let (Value::Object(found), Value::Object(wanted)) = (found, wanted) {
        for (key, wanted) in wanted {
            let Some(found) = found.get(key) else {
                return Some(format!("{key} is not given there and {} here", brief(wanted)));
            };
            if let Some(inner) = difference(found, wanted) {
                let nested = found.is_object() && wanted.is_object();
                return Some(format!("{key}{}{inner}", if nested { "." } else { " " }));
            }
        }
        if let Some((key, found)) = found.iter().find(|(key, _)| !wanted.contains_key(*key)) {
            return Some(format!("{key} is {} there and not given here", brief(found)));
        }
    }
    Some(format!("is {} there and {} here", brief(found), brief(wanted)))
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        text
    } else {
        text.chars().take(57).chain("...".chars()).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_another_job_is_refused_and_says_what_differs() {
        let dir = tempfile::tempdir().unwrap();
        let job = json!({ "experiment": "toy", "seed": 1, "settings": { "rate": 2 } });
        OutputDirectory::open(dir.path(), "manifest.json", &job)
            .unwrap()
            .identify(&job, json!({}))
            .unwrap();
        OutputDirectory::open(dir.path(), "manifest.json", &job).unwrap();
        let other = json!({ "experiment": "toy", "seed": 1, "settings": { "rate": 3 } });
        let error = OutputDirectory::open(dir.path(), "manifest.json", &other).unwrap_err();
        assert!(error.is::<Foreign>());
        assert!(error.to_string().contains("settings.rate is 2 there and 3 here"), "{error}");
    }

    #[test]
    fn half_written_files_are_removed_but_for_those_that_are_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let jobs = dir.path().join("jobs");
        fs::create_dir(&jobs).unwrap();
        for left in [dir.path().join(".part-a"), jobs.join(".part-b"), jobs.join("000001.json")] {
            fs::write(left, "half").unwrap();
        }
        let writing = part(&jobs, ".png").unwrap();
        let job = json!({ "experiment": "toy" });
        fs::write(dir.path().join("manifest.json"), json!({ "job": job }).to_string()).unwrap();
        OutputDirectory::open(dir.path(), "manifest.json", &job).unwrap().tidy();
        assert!(!dir.path().join(".part-a").exists() && !jobs.join(".part-b").exists());
        assert!(writing.path().exists() && jobs.join("000001.json").exists());
    }

    #[test]
    fn a_directory_of_someone_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let error = OutputDirectory::open(dir.path(), "manifest.json", &json!({})).unwrap_err();
        assert!(error.to_string().contains("thesis.tex"), "{error}");
    }

    #[test]
    fn a_file_that_could_not_be_finished_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        write_atomic(&path, |file| {
            write!(file, "half")?;
            anyhow::bail!("no room")
        })
        .unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        write_atomic(&path, |file| Ok(write!(file, "whole")?)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
    }
}
