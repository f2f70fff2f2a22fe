//! Who may read a key file, and that it is whole.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use shoal_host::secret::{
    SecretError, create, erase, identity, is_private_directory, memory_backed, private_directory,
    read, read_or_create, read_private, replace, room, store, swap_on_plain_disk,
};

/// A directory as key files want it.
fn private() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    chmod(dir.path(), 0o700);
    dir
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_is_made_once_and_read_back() {
    let dir = private();
    let path = dir.path().join("keys/identity");
    let made = read_or_create(&path).unwrap();
    assert_eq!(read_or_create(&path).unwrap(), made);
    assert_ne!(*made, [0; 32]);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(fs::read(&path).unwrap().len(), 65);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn an_identity_is_read_and_never_made() {
    let dir = private();
    let path = dir.path().join("data/identity.key");
    for made in [false, true] {
        if made {
            private_directory(&dir.path().join("data")).unwrap();
        }
        assert_eq!(is_private_directory(&dir.path().join("data")).unwrap(), made);
        let error = identity(&path).unwrap_err();
        assert!(matches!(error, SecretError::NoIdentity(_)), "{error}");
        assert!(error.to_string().contains("`init` makes one"), "{error}");
        assert_eq!(path.parent().unwrap().exists(), made);
    }
    let made = create(&path).unwrap();
    assert_eq!(identity(&path).unwrap(), made);
    chmod(&dir.path().join("data"), 0o755);
    assert!(matches!(identity(&path), Err(SecretError::Exposed { .. })));
    assert!(is_private_directory(&dir.path().join("data")).is_err());
}

#[test]
fn a_key_is_never_replaced() {
    let dir = private();
    let path = dir.path().join("k");
    let first = create(&path).unwrap();
    assert!(matches!(create(&path), Err(SecretError::Exists(_))));
    assert!(matches!(store(&path, &[1; 32]), Err(SecretError::Exists(_))));
    assert_eq!(read(&path).unwrap(), first);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_others_can_read_is_refused_with_the_cure() {
    let dir = private();
    let path = dir.path().join("k");
    create(&path).unwrap();
    chmod(&path, 0o640);
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
}

#[test]
fn a_directory_that_others_can_read_is_refused_with_the_cure() {
    let dir = private();
    let path = dir.path().join("k");
    create(&path).unwrap();
    chmod(dir.path(), 0o755);
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains(&format!("chmod 700 {}", dir.path().display())), "{error}");
    assert!(private_directory(dir.path()).is_err());
}

#[test]
fn what_is_no_key_is_refused() {
    let dir = private();
    let path = dir.path().join("k");
    for text in
        ["", "abc\n", &"g".repeat(64), &"a".repeat(63), &"a".repeat(65), &"a".repeat(100_000)]
    {
        replace(&path, text.as_bytes()).unwrap();
        assert!(matches!(read(&path), Err(SecretError::Malformed(_))));
        assert!(matches!(read_or_create(&path), Err(SecretError::Malformed(_))));
    }
    replace(&path, "Aa".repeat(32).as_bytes()).unwrap();
    assert_eq!(*read(&path).unwrap(), [0xaa; 32]);
}

#[test]
fn a_key_that_is_not_there_is_absent() {
    let dir = private();
    assert!(read(&dir.path().join("k")).unwrap_err().is_absent());
}

#[cfg(target_os = "linux")]
#[test]
fn memory_is_told_from_disk() {
    if fs::read_to_string("/proc/mounts")
        .unwrap()
        .lines()
        .any(|line| line.starts_with("tmpfs /dev/shm"))
    {
        assert!(memory_backed(Path::new("/dev/shm")));
    }
    assert!(!memory_backed(Path::new("/proc")));
    assert!(!memory_backed(Path::new("/nowhere")));
    swap_on_plain_disk();
}

#[test]
fn an_erased_key_is_gone_even_for_whoever_has_the_file_open() {
    use std::os::unix::fs::FileExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys/1.key");
    store(&path, &[0xab; 32]).unwrap();
    let open = fs::File::open(&path).unwrap();
    erase(&path).unwrap();
    assert!(read(&path).unwrap_err().is_absent());
    let mut left = [1; 65];
    open.read_exact_at(&mut left, 0).unwrap();
    assert_eq!(left, [0; 65]);
    // A second time there is nothing to do.
    erase(&path).unwrap();
    // Longer files are wiped to their end.
    fs::write(&path, vec![0xab; 200_000]).unwrap();
    let open = fs::File::open(&path).unwrap();
    erase(&path).unwrap();
    let mut left = vec![1; 200_000];
    open.read_exact_at(&mut left, 0).unwrap();
    assert!(left.iter().all(|byte| *byte == 0));
    assert!(room(dir.path()).is_some_and(|bytes| bytes > 0));
}

#[test]
fn a_directory_on_the_way_that_others_can_write_to_is_refused_with_the_cure() {
    let dir = tempfile::tempdir().unwrap();
    let above = dir.path().join("above");
    let home = above.join("home");
    let mode = |mode| {
        fs::set_permissions(&above, Permissions::from_mode(mode)).unwrap();
    };
    private_directory(&home).unwrap();
    create(&home.join("a.key")).unwrap();
    let token = home.join("token");
    fs::write(&token, "token").unwrap();
    fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    // Others may look, or write where a sticky bit keeps what is ours.
    for fine in [0o700, 0o755, 0o1777] {
        mode(fine);
        read(&home.join("a.key")).unwrap();
        assert_eq!(*read_private(&token, 100).unwrap(), b"token");
    }
    mode(0o757);
    for refused in [
        read(&home.join("a.key")).map(drop),
        private_directory(&home),
        read_private(&token, 100).map(drop),
    ] {
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("above is open") && said.contains("chmod 755 "), "{said}");
    }
    // By a link, what counts is where it leads.
    mode(0o700);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&home, &link).unwrap();
    read(&link.join("a.key")).unwrap();
    mode(0o777);
    assert!(matches!(read(&link.join("a.key")), Err(SecretError::Exposed { .. })));
    mode(0o700);
}

#[test]
fn a_secret_of_another_form_that_others_can_read_is_refused_and_a_long_one_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, "token\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let said = read_private(&path, 100).unwrap_err().to_string();
    assert!(said.contains("chmod 600 "), "{said}");
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    assert_eq!(*read_private(&path, 5).unwrap(), b"token");
    assert!(read_private(&dir.path().join("none"), 5).unwrap_err().is_absent());
}
