//! The control socket.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::json;
use shoal_host::control::{Control, ControlError, query};

fn socket_path() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/control");
    (dir, path)
}

#[tokio::test]
async fn every_question_has_its_answer() {
    let (_dir, path) = socket_path();
    let _control = Control::start(&path, async || json!({"ready": true})).await.unwrap();
    for _ in 0..20 {
        assert_eq!(query(&path).await.unwrap(), json!({"ready": true}));
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_daemon_that_does_not_run_is_said_so() {
    let (_dir, path) = socket_path();
    let error = query(&path).await.unwrap_err();
    assert!(matches!(error, ControlError::NotRunning(_)), "{error:?}");
}

#[tokio::test]
async fn a_path_that_the_system_cannot_name_is_said_so_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let parent = dir.path().join("x".repeat(100));
    let path = parent.join("control.sock");
    let Err(error) = Control::start(&path, async || json!({})).await else { panic!() };
    let wanted = format!("has {} bytes, and it may have 107", path.as_os_str().len());
    assert!(error.to_string().contains(&wanted), "{error}");
    assert!(!parent.exists());
    assert!(matches!(query(&path).await, Err(ControlError::TooLong(_))));
}

#[tokio::test]
async fn the_socket_of_a_killed_daemon_is_replaced() {
    let (_dir, path) = socket_path();
    shoal_host::secret::private_directory(path.parent().unwrap()).unwrap();
    // The file stays when a listener of std goes, as it does after a kill.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(matches!(query(&path).await, Err(ControlError::NotRunning(_))));
    let control = Control::start(&path, async || json!(1)).await.unwrap();
    assert_eq!(query(&path).await.unwrap(), json!(1));
    drop(control);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_second_daemon_is_told_of_the_first() {
    let (_dir, path) = socket_path();
    let _first = Control::start(&path, async || json!(1)).await.unwrap();
    let second = Control::start(&path, async || json!(2)).await;
    assert!(matches!(second, Err(ControlError::Running(_))));
    assert_eq!(query(&path).await.unwrap(), json!(1));
}

#[tokio::test]
async fn a_file_in_the_way_is_left_alone() {
    let (_dir, path) = socket_path();
    shoal_host::secret::replace(&path, b"dear").unwrap();
    assert!(matches!(
        Control::start(&path, async || json!(1)).await,
        Err(ControlError::InTheWay(_))
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"dear");
}

#[tokio::test]
async fn a_daemon_that_hangs_is_not_waited_for() {
    let (_dir, path) = socket_path();
    let _control = Control::start(&path, std::future::pending).await.unwrap();
    assert!(matches!(query(&path).await, Err(ControlError::Silent(_))));
}
