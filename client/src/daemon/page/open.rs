//! How a user's browser gets to the page: the command line asks the running client over `page.sock` beside its control socket, and
//! the client writes a file, for its user alone, that takes the browser there with a code. No secret stands in an argument, which
//! other users can see.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::daemon::Config;

/// How long the client may take for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the client of this control socket gives codes.
pub(in crate::daemon) fn path(control: &Path) -> PathBuf {
    control.with_file_name("page.sock")
}

/// The file: the code is in the fragment, which a browser sends to nobody.
pub(super) fn file(origin: &str, code: &str) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta http-equiv=\"refresh\" content=\"0; url={origin}/#{code}\">\n<title>Shoal</title>\n\
         <p><a href=\"{origin}/#{code}\" rel=\"noreferrer\">Open Shoal</a></p>\n</html>\n"
    ))
}

/// Why the page cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It is not wanted.
    #[error(
        "the client has no page: set page.listen in the configuration, \"127.0.0.1:7460\" as a rule, and start it anew"
    )]
    Off,
    /// There are no messages without it.
    #[error(
        "the client has no page, since others cannot write to it: set reachable = true in the configuration, and start it anew"
    )]
    Unreachable,
    /// Nobody answers at the socket.
    #[error("no client runs with the socket {}: start it, or name the right configuration", .0.display())]
    NotRunning(PathBuf),
    /// It is no answer.
    #[error("the client at {} gives no answer that can be read", .0.display())]
    Broken(PathBuf),
    /// The client says why not.
    #[error("{0}")]
    Refused(String),
    /// There is no browser, or it cannot be started.
    #[error(
        "no browser could be started by xdg-open ({0}): open the file that `shoal-client open --print` prints, within a minute"
    )]
    Browser(String),
}

/// A way to the page, for a minute and one browser.
pub struct PageAddress {
    /// The file to open.
    pub file: PathBuf,
    /// Where the page is, without the code.
    pub address: String,
    /// What can be typed there instead.
    pub code: Zeroizing<String>,
}

/// Asks the running client of this configuration.
///
/// # Errors
/// It has no page, or does not run.
pub fn ask(config: &Config) -> Result<PageAddress, OpenError> {
    if config.page.address().is_none() {
        return Err(OpenError::Off);
    }
    if !config.reachable {
        return Err(OpenError::Unreachable);
    }
    let path = path(&crate::daemon::socket(config));
    let Ok(stream) = UnixStream::connect(&path) else { return Err(OpenError::NotRunning(path)) };
    let mut line = Zeroizing::new(String::new());
    let read = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| BufReader::new(std::io::Read::take(stream, 4_096)).read_line(&mut line));
    let said: Option<Value> = read.ok().and_then(|_| serde_json::from_str(&line).ok());
    let Some(mut said) = said else { return Err(OpenError::Broken(path)) };
    let mut text = |key: &str| match said.get_mut(key).map(Value::take) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    if let Some(why) = text("error") {
        return Err(OpenError::Refused(why));
    }
    match (text("file"), text("address"), text("code")) {
        (Some(file), Some(address), Some(code)) => {
            Ok(PageAddress { file: file.into(), address, code: code.into() })
        }
        _ => Err(OpenError::Broken(path)),
    }
}

/// Has the user's browser open the file.
///
/// # Errors
/// There is none.
pub fn browse(file: &Path) -> Result<(), OpenError> {
    use std::process::{Command, Stdio};
    let status = Command::new("xdg-open")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| OpenError::Browser(error.to_string()))?;
    if status.success() { Ok(()) } else { Err(OpenError::Browser(status.to_string())) }
}
