//! Key files: 32 bytes as one line of hex, in a file of mode 0600 in a directory of mode 0700. They appear
//! whole or not at all, and one that others could read is refused, as is one on whose way another user could put something
//! else.

#![allow(clippy::disallowed_methods)] // The daemon's own edge of the world: files and fresh keys.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use rand::TryRng as _;
use zeroize::Zeroizing;

use crate::exit::Exit;

/// 32 secret bytes, wiped when they go.
pub type Secret = Zeroizing<[u8; 32]>;

/// Characters of a key file, with the end of the line.
const LINE: usize = 65;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Others may read or enter it, or, on the way to it, change what is there.
    #[error("{} is open to other users of this machine; run: chmod {mode:o} {}", .path.display(), .path.display())]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// The mode it should have.
        mode: u32,
    },
    /// A directory that is for all users of the machine, and must stay so.
    #[error("{} is for all users of this machine: name a directory of its own, such as {}", .0.display(), .0.join("shoal").display())]
    Shared(PathBuf),
    /// A file where a directory should be, or the other way round.
    #[error("{} is no {wanted}: move it away, or name another", .path.display())]
    Kind {
        /// The file or directory that is there.
        path: PathBuf,
        /// What it should be instead.
        wanted: &'static str,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to another user; run: chown {wanted} {}", .path.display(), .path.display())]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// The number of the user that it should belong to: the one that runs this program.
        wanted: u32,
    },
    /// It is no key file.
    #[error("{} is no key file: it wants one line of 64 hex digits", .0.display())]
    Malformed(PathBuf),
    /// There is no identity, and nothing but `init` makes one.
    #[error(
        "there is no identity {}: `init` makes one, once. If this program had one, its disk is not mounted, `data_dir` names \
         another directory, or the file has to come back from its backup: with another identity it is somebody else",
        .0.display()
    )]
    NoIdentity(PathBuf),
    /// It exists already.
    #[error("{} exists already and is not replaced", .0.display())]
    Exists(PathBuf),
    /// Reading or writing failed.
    #[error("cannot use {}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SecretError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { path: path.to_owned(), source }
    }

    /// How a program ends on it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Io { source, .. } => Exit::on_file(source),
            _ => Exit::Config,
        }
    }

    /// True if the file is there and was read, and is not what it should be: cut short, overwritten, or of another key.
    pub fn is_unsound(&self) -> bool {
        match self {
            Self::Malformed(_) => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::InvalidData,
            _ => false,
        }
    }

    /// True if the file is simply not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// 32 fresh bytes from the operating system.
///
/// # Errors
/// When it has none.
pub fn fresh() -> io::Result<Secret> {
    let mut secret = Secret::default();
    fill(&mut secret)?;
    Ok(secret)
}

/// As [`fresh`], into a place that does not move, so that no copy stays behind.
///
/// # Errors
/// When the system has none.
pub fn fill(secret: &mut [u8; 32]) -> io::Result<()> {
    rand::rngs::SysRng.try_fill_bytes(secret).map_err(io::Error::other)
}

/// Reads the key in `path`.
///
/// # Errors
/// When it is not there ([`SecretError::is_absent`]), is no key file, or is open to others.
pub fn read(path: &Path) -> Result<Secret, SecretError> {
    let mut secret = Secret::default();
    read_into(path, &mut secret)?;
    Ok(secret)
}

/// As [`read`], into a place that does not move, so that no copy stays behind.
///
/// # Errors
/// As for [`read`].
pub fn read_into(path: &Path, secret: &mut [u8; 32]) -> Result<(), SecretError> {
    let io = || SecretError::io(path);
    check_directory(parent(path))?;
    let file = File::open(path).map_err(io())?;
    // Of the open file, so that nobody swaps it in between.
    check(path, &file.metadata().map_err(io())?, 0o600)?;
    let mut text = Zeroizing::new(Vec::with_capacity(LINE + 1));
    // One byte more than a key file has, so that a longer file is found to be none and is not cut to size.
    file.take(LINE as u64 + 1).read_to_end(&mut text).map_err(io())?;
    // Editors and shells may leave the end of the line out, and no digit is lost with it.
    let line = text.strip_suffix(b"\n").unwrap_or(&text);
    let decoded = line.len() == 64 && HEXLOWER_PERMISSIVE.decode_mut(line, secret) == Ok(32);
    if decoded { Ok(()) } else { Err(SecretError::Malformed(path.to_owned())) }
}

/// Reads a secret of another form, such as a token, from a file that nobody else may read; at most `most` bytes.
///
/// # Errors
/// When it is not there ([`SecretError::is_absent`]), or is open to others.
pub fn read_private(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let io = || SecretError::io(path);
    check_above(path)?;
    let file = File::open(path).map_err(io())?;
    check(path, &file.metadata().map_err(io())?, 0o600)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(most).read_to_end(&mut bytes).map_err(io())?;
    Ok(bytes)
}

/// Writes a fresh key to `path`, which must not exist.
///
/// # Errors
/// When it exists or cannot be written.
pub fn create(path: &Path) -> Result<Secret, SecretError> {
    let secret = fresh().map_err(SecretError::io(path))?;
    store(path, &secret)?;
    Ok(secret)
}

/// Writes `secret` to `path`, which must not exist.
///
/// # Errors
/// When it exists or cannot be written.
pub fn store(path: &Path, secret: &[u8; 32]) -> Result<(), SecretError> {
    let mut text = Zeroizing::new([b'\n'; LINE]);
    // Written in place: a string that grows would leave copies of the key in memory that was given back.
    if let Some(digits) = text.first_chunk_mut::<64>() {
        HEXLOWER.encode_mut(secret, digits);
    }
    let (temporary, name) = write_beside(path, text.as_ref())?;
    // A link, unlike a rename, never replaces: of two programs that create the same key, one loses.
    let linked = fs::hard_link(&temporary, path);
    let removed = fs::remove_file(&temporary);
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(SecretError::Exists(name))
        }
        Err(error) => Err(SecretError::io(path)(error)),
        Ok(()) => removed.and_then(|()| sync(parent(path))).map_err(SecretError::io(path)),
    }
}

/// Holds a directory for one program, as long as this lives. The system lets go of it when the program ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// How long a program that was killed may take to go: what the next one waits for.
pub const GOING: Duration = Duration::from_secs(3);

/// Holds `directory`, which is there, by the file `lock` in it. `None` when another program does, and goes on doing so for
/// `patience`.
///
/// # Errors
/// When the file cannot be made or locked.
pub fn lock(directory: &Path, patience: Duration) -> Result<Option<Lock>, SecretError> {
    let path = directory.join("lock");
    // The file stays when the lock goes: removing it would let two programs hold two files of one name.
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(SecretError::io(&path))?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) if began.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(SecretError::io(&path)(error)),
        }
    }
}

/// Writes zeros over the file `path` and removes it. It need not be there.
///
/// In memory (tmpfs) what was written is gone then: pages that are only given back keep their bytes until somebody else
/// gets them. On a disk nothing like that can be promised, wherefore [`memory_backed`].
///
/// # Errors
/// When it cannot be removed.
pub fn erase(path: &Path) -> Result<(), SecretError> {
    // What could not be wiped is removed all the same, and said after that.
    let wiped = OpenOptions::new().write(true).open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        io::copy(&mut io::repeat(0).take(length), &mut file)?;
        // Else a disk might never be told of it, since the file goes at once.
        file.sync_all()
    });
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(SecretError::io(path)(error)),
        Ok(()) => wiped.map_err(SecretError::io(path)),
    }
}

/// Reads the identity in `path`. It is never made here: whoever starts with a fresh one is a stranger to everyone that
/// knows the old one.
///
/// # Errors
/// [`SecretError::NoIdentity`] when it is not there, else as for [`read`].
pub fn identity(path: &Path) -> Result<Secret, SecretError> {
    read(path).map_err(|error| {
        if error.is_absent() { SecretError::NoIdentity(path.to_owned()) } else { error }
    })
}

/// Reads the key in `path`, or writes a fresh one there.
///
/// # Errors
/// As for [`read`] and [`create`].
pub fn read_or_create(path: &Path) -> Result<Secret, SecretError> {
    match read(path) {
        Err(error) if error.is_absent() => match create(path) {
            // Somebody was faster.
            Err(SecretError::Exists(_)) => read(path),
            created => created,
        },
        found => found,
    }
}

/// Replaces the file `path` by `contents`, whole or not at all, with mode 0600: for state that is not a key.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, contents: &[u8]) -> Result<(), SecretError> {
    let (temporary, _) = write_beside(path, contents)?;
    // The directory too: until it is on the disk the name may lead to the old contents after a crash.
    fs::rename(&temporary, path).and_then(|()| sync(parent(path))).map_err(|error| {
        let _ = fs::remove_file(&temporary);
        SecretError::io(path)(error)
    })
}

/// Makes `path` and what is missing above it, with mode 0700; if it is there, checks that it is ours alone.
///
/// # Errors
/// When it cannot be made, or is open to others.
pub fn private_directory(path: &Path) -> Result<(), SecretError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(SecretError::io(path))?;
    check_directory(path)
}

/// Says whether `path` is a directory that is ours alone; a directory that is not there yet is none. Nothing is made.
///
/// # Errors
/// When it is open to others, belongs to somebody else, or cannot be written to.
pub fn is_private_directory(path: &Path) -> Result<bool, SecretError> {
    use rustix::fs::{Access, access};
    match check_directory(path) {
        Ok(()) => access(path, Access::WRITE_OK | Access::EXEC_OK)
            .map(|()| true)
            .map_err(|error| SecretError::io(path)(error.into())),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error),
    }
}

/// True if `path`, or the directory in which it would be made, lies in memory, so that what is written there ends with
/// the machine's next start.
pub fn memory_backed(path: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        const TMPFS: i128 = 0x0102_1994;
        const RAMFS: i128 = 0x8584_58f6;
        // What is not made yet will lie on the file system of the first directory above it that is there.
        let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
        rustix::fs::statfs(there).is_ok_and(|fs| {
            // The type's width and sign differ between machines.
            let kind = fs.f_type as i128 & 0xffff_ffff;
            kind == TMPFS || kind == RAMFS
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        false
    }
}

/// Bytes that the file system has where `path` lies, used or not; `None` if the system does not say.
pub fn size(path: &Path) -> Option<u64> {
    rustix::fs::statvfs(path).ok().map(|fs| fs.f_blocks.saturating_mul(fs.f_frsize))
}

/// Bytes that can still be written to where `path` lies; `None` if the system does not say.
pub fn room(path: &Path) -> Option<u64> {
    rustix::fs::statvfs(path).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// True if memory may be swapped out to a disk without encryption, as far as can be seen: swap on zram and on
/// dm-crypt does not count.
pub fn swap_on_plain_disk() -> bool {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).any(|device| {
        // Names such as /dev/mapper/swap are links; /sys knows the device itself.
        let device = fs::canonicalize(device).unwrap_or_else(|_| device.into());
        let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let uuid = fs::read_to_string(format!("/sys/block/{name}/dm/uuid")).unwrap_or_default();
        !name.starts_with("zram") && !uuid.starts_with("CRYPT-")
    })
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn check_directory(path: &Path) -> Result<(), SecretError> {
    check(path, &fs::metadata(path).map_err(SecretError::io(path))?, DIRECTORY)?;
    check_above(path)
}

/// Whether nobody but us and root can put another file or directory on the way to `path`.
///
/// Each directory above it belongs to us or to root, and nobody else may write to it, but where a sticky bit keeps what is
/// ours (/tmp), or where the group is the one that a user has alone, of the user's own number.
fn check_above(path: &Path) -> Result<(), SecretError> {
    let (wanted, group) =
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // With links resolved: whoever can change a directory that a link leads through can change where it ends.
    let real = fs::canonicalize(parent_or_self(path)).map_err(SecretError::io(path))?;
    for above in real.ancestors() {
        let found = fs::metadata(above).map_err(SecretError::io(above))?;
        let path = || above.to_owned();
        if found.uid() != wanted && found.uid() != 0 {
            return Err(SecretError::Foreign { path: path(), wanted });
        }
        let own_group = found.gid() == 0 || (found.gid() == group && group == wanted);
        let writers = if own_group { 0o002 } else { 0o022 };
        let is_sticky = found.mode() & 0o1000 != 0;
        if found.mode() & writers != 0 && !is_sticky {
            return Err(SecretError::Exposed { path: path(), mode: found.mode() & 0o755 });
        }
    }
    Ok(())
}

/// The directory to begin with: that of a file that need not be there.
fn parent_or_self(path: &Path) -> &Path {
    if path.is_dir() { path } else { parent(path) }
}

/// Modes of what is ours alone.
const DIRECTORY: u32 = 0o700;

pub(crate) fn check(path: &Path, found: &fs::Metadata, mode: u32) -> Result<(), SecretError> {
    let path = path.to_owned();
    let wanted = if mode == DIRECTORY { "directory" } else { "file" };
    if found.is_dir() != (mode == DIRECTORY) {
        return Err(SecretError::Kind { path, wanted });
    }
    // Of a system's own: /, /tmp, /var.
    let is_sticky = found.mode() & 0o1000 != 0;
    if found.is_dir() && (is_sticky || path.parent().is_none()) {
        return Err(SecretError::Shared(path));
    }
    let wanted = rustix::process::geteuid().as_raw();
    if found.uid() != wanted && found.uid() != 0 {
        return Err(SecretError::Foreign { path, wanted });
    }
    // Not even reading by the group: a key that somebody else has read once is nobody's own any more.
    if found.mode() & 0o077 != 0 {
        return Err(SecretError::Exposed { path, mode });
    }
    Ok(())
}

/// Writes a file beside `path` that nobody else can read, down to the disk. Its path, and `path` again.
fn write_beside(path: &Path, contents: &[u8]) -> Result<(PathBuf, PathBuf), SecretError> {
    let directory = parent(path);
    private_directory(directory)?;
    let random = fresh().map_err(SecretError::io(path))?;
    let suffix = HEXLOWER.encode(random.first_chunk::<8>().map_or(&[], |chunk| chunk.as_slice()));
    let temporary = directory.join(format!(".new-{suffix}"));
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(
            |mut file| {
                file.write_all(contents)?;
                file.sync_all()
            },
        );
    match written {
        Ok(()) => Ok((temporary, path.to_owned())),
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(SecretError::io(path)(error))
        }
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
