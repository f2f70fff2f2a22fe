//! What is kept on disk, piece by piece.

use serde::{Deserialize, Serialize};
use shoal_topology::encoding::decode;

use super::incoming::Pieces;
use super::*;
use crate::Error;
use crate::session::Session;

/// Most bytes of a message that is kept: eight parts for each of some devices, encrypted twice.
const MAX_MESSAGE: usize = 1 << 20;

/// By which a piece is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Key {
    /// How many entries the longest directory had that was seen.
    Size,
    /// A device of somebody else.
    Peer(u32),
    /// A session with it.
    Session(u32, u32),
    /// A message that was written here.
    Outgoing(MessageName),
    /// Parts of a message that came, by the message's name.
    Pieces(MessageName),
    /// A group's log.
    Group(GroupId),
    /// A message to a group that came before what it names of the group's log.
    Early(MessageName),
    /// A message that came: a [`ReceivedMessage`]. The engine never asks for it again; the driver may keep it as it likes.
    Received(MessageName),
}

/// The bytes of a piece. They hold secrets, and are wiped.
#[derive(Clone, PartialEq)]
pub struct Change(pub Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl People {
    pub(super) fn forget(&mut self, key: Key) {
        self.changes.insert(key, None);
    }

    pub(super) fn keep(&mut self, key: Key, bytes: Zeroizing<Vec<u8>>) {
        self.changes.insert(key, Some(Change(bytes)));
    }

    pub(super) fn save_peer(&mut self, device: u32) {
        if let Some(peer) = self.peers.get(&device) {
            let bytes = Zeroizing::new(peer.save());
            self.keep(Key::Peer(device), bytes);
        }
    }

    pub(super) fn save_session(&mut self, device: u32, number: u32) {
        let session = self.peers.get(&device).and_then(|peer| peer.sessions.get(&number));
        if let Some(bytes) = session.map(Session::save) {
            self.keep(Key::Session(device, number), bytes);
        }
    }

    pub(super) fn save_message(&mut self, name: MessageName) {
        let message = self.waiting.get(&name).or_else(|| self.over.get(&name));
        let Some(message) = message else { return };
        let bytes = encode_secret(message);
        self.keep(Key::Outgoing(name), bytes);
    }

    pub(super) fn save_group(&mut self, group: GroupId) {
        if let Some(log) = self.groups.logs.get(&group) {
            self.keep(Key::Group(group), encode_secret(&log.all()));
        }
    }

    pub(super) fn save_pieces(&mut self, name: MessageName) {
        match self.pieces.get(&name).map(encode_secret) {
            Some(bytes) => self.keep(Key::Pieces(name), bytes),
            None => self.forget(Key::Pieces(name)),
        }
    }

    /// Takes what was saved.
    pub(super) fn load(
        &mut self,
        saved: impl IntoIterator<Item = (Key, Vec<u8>)>,
    ) -> Result<(), NotRestored> {
        let mut sessions = Vec::new();
        for (key, bytes) in saved {
            let bytes = Zeroizing::new(bytes);
            let result = match key {
                Key::Size => decode("size of a directory", &bytes, 10)
                    .map(|size| self.size = size)
                    .map_err(Error::from),
                Key::Peer(device) => {
                    Peer::restore(&bytes).map(|peer| _ = self.peers.insert(device, peer))
                }
                Key::Session(device, number) => {
                    Session::restore(&bytes).map(|session| sessions.push((device, number, session)))
                }
                Key::Outgoing(name) => self.load_message(name, &bytes),
                Key::Received(_) => Ok(()),
                Key::Group(group) => self.load_group(group, &bytes),
                Key::Early(name) => self.load_early(name, &bytes),
                Key::Pieces(name) => decode::<Pieces>("parts of a message", &bytes, MAX_MESSAGE)
                    .map(|pieces| _ = self.pieces.insert(name, pieces))
                    .map_err(Error::from),
            };
            result.map_err(|source| NotRestored { key, source })?;
        }
        for (device, number, session) in sessions {
            if let Some(peer) = self.peers.get_mut(&device) {
                peer.sessions.insert(number, session);
            }
        }
        Ok(())
    }

    fn load_message(&mut self, name: MessageName, bytes: &[u8]) -> Result<(), Error> {
        let message: Outgoing = decode("message that was written", bytes, MAX_MESSAGE)?;
        let is_over = message.is_done() || matches!(message.told, State::Expired(_));
        let all = if is_over { &mut self.over } else { &mut self.waiting };
        all.insert(name, message);
        Ok(())
    }
}
