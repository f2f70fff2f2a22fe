//! What the command line asks a running client.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Why a client could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody answers at the socket.
    #[error("no client runs with the socket {}: start it, or name the right configuration", .0.display())]
    NotRunning(PathBuf),
    /// The client has gone, or what it says cannot be read.
    #[error("the client at {} ended in the middle of its answer", .0.display())]
    Broken(PathBuf, #[source] std::io::Error),
    /// The client says why not.
    #[error("{0}")]
    Refused(String),
}

/// A connection to a running client.
pub struct Asking {
    path: PathBuf,
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Asking {
    /// Connects to the client whose control socket this is.
    ///
    /// # Errors
    /// None runs there.
    pub fn connect(control: &Path) -> Result<Self, AskError> {
        let path = super::socket::path(control);
        let connected =
            UnixStream::connect(&path).and_then(|stream| Ok((stream.try_clone()?, stream)));
        let Ok((read, stream)) = connected else { return Err(AskError::NotRunning(path)) };
        let mut asking = Self { path, stream, lines: BufReader::new(read) };
        asking.line()?;
        Ok(asking)
    }

    /// The next line that the client says.
    ///
    /// # Errors
    /// It has gone, or says why it does not do what was asked.
    pub fn line(&mut self) -> Result<Value, AskError> {
        let broken = |path: &Path, error| AskError::Broken(path.to_owned(), error);
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => Err(broken(&self.path, std::io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {
                let said: Value = serde_json::from_str(&line)
                    .map_err(|error| broken(&self.path, error.into()))?;
                match said.get("error").and_then(Value::as_str) {
                    Some(why) => Err(AskError::Refused(why.to_owned())),
                    None => Ok(said),
                }
            }
            Err(error) => Err(broken(&self.path, error)),
        }
    }

    fn ask(&mut self, request: &Value) -> Result<(), AskError> {
        let sent = self.stream.write_all(format!("{request}\n").as_bytes());
        sent.map_err(|error| AskError::Broken(self.path.clone(), error))
    }

    /// Asks something that has one answer.
    ///
    /// # Errors
    /// The client says why not, or has gone.
    pub fn once(&mut self, word: &str, fields: &Value) -> Result<Value, AskError> {
        self.ask(&request(word, fields))?;
        loop {
            let said = self.line()?;
            if said.get("id").and_then(Value::as_str) == Some(word) {
                return Ok(said);
            }
        }
    }

    /// Asks for what waits and for all that happens, which [`Self::line`] then returns; if `once`, for what waits, and a line with
    /// an `end` behind it.
    ///
    /// # Errors
    /// The client has gone.
    pub fn listen(&mut self, once: bool) -> Result<(), AskError> {
        self.ask(&json!({ "id": "events", "word": "events", "once": once }))
    }

    /// Asks something whose answer is of no interest; it comes among the other lines.
    ///
    /// # Errors
    /// The client has gone.
    pub fn tell(&mut self, word: &str, fields: &Value) -> Result<(), AskError> {
        self.ask(&request(word, fields))
    }
}

/// A request with these fields, whose answer is known by its word.
fn request(word: &str, fields: &Value) -> Value {
    let mut request = json!({ "id": word, "word": word });
    if let (Some(request), Some(fields)) = (request.as_object_mut(), fields.as_object()) {
        request.extend(fields.clone());
    }
    request
}
