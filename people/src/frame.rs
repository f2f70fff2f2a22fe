//! What stands inside a packet between two devices, under the encryption of their session.

use serde::{Deserialize, Serialize};
use shoal_topology::encoding::{decode, encode};

use crate::Error;
use crate::group::{GroupMark, SignedEntry};

/// Most parts of one message; it has 1, 2, 4 or 8, so that their number says little of its length.
pub const MAX_PARTS: u8 = 8;
/// Most bytes of a frame.
const MAX_FRAME: usize = 2_048;
/// Bytes of a frame beside its content, at most.
pub(crate) const FRAME_HEAD: usize = 208;
/// Most streams before the present one that a frame names.
pub(crate) const MAX_BEFORE: usize = 3;
/// Most ranges of an acknowledgement.
pub(crate) const MAX_RANGES: usize = 6;

/// By which all know a message: the device that wrote it, and where it stands in one of that device's streams.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MessageName {
    /// The number of the device that wrote it.
    pub device: u32,
    /// The stream: drawn anew for each conversation whenever the writing program begins, so that a state restored from a backup
    /// names nothing twice.
    pub stream: u64,
    /// The sequence of its first part within the stream, counted from 1.
    pub sequence: u32,
}

/// A frame: one part of a message, or a message that is none and only acknowledges.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Frame {
    /// The stream of the sending device.
    pub stream: u64,
    /// The place of this part in the stream; 0 if it is nothing that can be missed.
    pub sequence: u32,
    /// The lowest sequence of the stream that the sender has, or had, for this device: what is lower was for others, or is lost.
    pub begin: u32,
    /// The lowest sequence of the stream that the sender still tries to deliver to this device: what is lower has arrived or will
    /// not.
    pub oldest: u32,
    /// The streams that this one follows, the last one first and at most three, so that a device whose state was set back finds
    /// what it misses of them.
    pub before: Vec<Before>,
    /// Which part of its message this is, counted from 0.
    pub part: u8,
    /// How many parts the message has.
    pub parts: u8,
    /// Unix time at which it was written, seconds.
    pub sent_at: u64,
    /// The group that the message belongs to; none between two people. Of zeros but for the group where it carries entries of the
    /// group's log, or asks for them.
    pub group: Option<GroupMark>,
    /// What the sending device has received of the other one.
    pub ack: Option<Ack>,
    /// Seconds for which the message is kept after it is read; 0 for ever.
    pub expires_s: u32,
    /// This part of the encoded [`Body`].
    pub content: Vec<u8>,
}

/// A stream of a conversation before the present one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Before {
    /// The stream that it is about.
    pub stream: u64,
    /// As [`Frame::begin`], of that stream.
    pub begin: u32,
    /// As [`Frame::oldest`], of that stream.
    pub oldest: u32,
}

/// What a device has received of a stream of another one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ack {
    /// The stream that it is about.
    pub stream: u64,
    /// All sequences up to this one have come, or are not waited for.
    pub low: u32,
    /// What has come beyond it: at most six ranges (first, last), the lowest.
    pub ranges: Vec<(u32, u32)>,
}

impl Ack {
    /// True if it says that this sequence has come.
    pub fn has(&self, sequence: u32) -> bool {
        sequence <= self.low
            || self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&sequence))
    }

    /// True if it says that this sequence has not come: beyond as many ranges as fit it says nothing.
    pub fn lacks(&self, sequence: u32) -> bool {
        let is_known = match self.ranges.last() {
            Some((_, last)) if self.ranges.len() >= MAX_RANGES => sequence <= *last,
            _ => true,
        };
        is_known && !self.has(sequence)
    }
}

/// What a message says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// A text for people.
    Text(String),
    /// Another text in place of that of a message.
    Edit(MessageName, String),
    /// A message shall be shown no more.
    Delete(MessageName),
    /// A sign of what the reader thinks of a message; none takes it back.
    Reaction(MessageName, Option<String>),
    /// What the acknowledgement in the same frame lacks of this stream of the reader is wanted. Stream 0: what was sent of late
    /// could not be opened.
    Want(u64),
    /// All up to this message was read.
    Read(MessageName),
    /// Entries of the log of the group that the frame names, each after the one before it.
    Entries(Vec<SignedEntry>),
    /// The entries are wanted that this device lacks of that log; it has those up to this one, or none.
    WantEntries(Option<GroupMark>),
    /// Nothing: it acknowledges.
    Empty,
    /// What a later version knows, by its kind.
    Other(u8, Vec<u8>),
}

/// Kinds of bodies as they stand on the wire. Those between are reserved: 5 files, 9 calls, 10 own devices.
mod kind {
    pub(super) const TEXT: u8 = 1;
    pub(super) const EDIT: u8 = 2;
    pub(super) const DELETE: u8 = 3;
    pub(super) const REACTION: u8 = 4;
    pub(super) const ENTRIES: u8 = 6;
    pub(super) const WANT: u8 = 7;
    pub(super) const READ: u8 = 8;
    pub(super) const EMPTY: u8 = 11;
    pub(super) const WANT_ENTRIES: u8 = 12;
}

impl Frame {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// Bytes of another form, parts that no message has.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let frame: Self = decode("frame of a message", bytes, MAX_FRAME)?;
        if !matches!(frame.parts, 1 | 2 | 4 | MAX_PARTS) || frame.part >= frame.parts {
            return Err(Error::Malformed("a message has 1, 2, 4 or 8 parts"));
        }
        if frame.before.len() > MAX_BEFORE {
            return Err(Error::Malformed("a frame names at most three streams before its own"));
        }
        let in_order = |begin: u32, oldest: u32| (1..=oldest).contains(&begin);
        let before = frame.before.iter().all(|before| in_order(before.begin, before.oldest));
        let is_part = frame.sequence > u32::from(frame.part)
            && frame.oldest <= frame.sequence
            && in_order(frame.begin, frame.oldest);
        if !before || (frame.sequence > 0 && !is_part) {
            return Err(Error::Malformed("sequences count from 1, and what is older is lower"));
        }
        let ranges = frame.ack.iter().flat_map(|ack| &ack.ranges);
        if ranges.clone().count() > MAX_RANGES || ranges.into_iter().any(|(a, b)| a > b) {
            return Err(Error::Malformed("an acknowledgement has at most six ranges"));
        }
        Ok(frame)
    }

    /// The sequence of the first part of its message.
    pub(crate) fn first(&self) -> u32 {
        self.sequence.saturating_sub(u32::from(self.part))
    }
}

impl Body {
    /// The message that a message with this body changes, if it does.
    pub fn changes(&self) -> Option<MessageName> {
        match self {
            Self::Edit(of, _) | Self::Delete(of) => Some(*of),
            _ => None,
        }
    }

    /// True if a body that begins with this byte changes a message.
    pub(crate) fn is_change(kind: u8) -> bool {
        matches!(kind, kind::EDIT | kind::DELETE)
    }

    /// True if a body that begins with this byte is about a group's log.
    pub(crate) fn is_of_log(kind: u8) -> bool {
        matches!(kind, kind::ENTRIES | kind::WANT_ENTRIES)
    }

    /// The bytes that the parts of a message carry.
    pub fn encode(&self) -> Vec<u8> {
        let with = |kind: u8, rest: &[u8]| [&[kind], rest].concat();
        match self {
            Self::Text(text) => with(kind::TEXT, text.as_bytes()),
            Self::Edit(name, text) => with(kind::EDIT, &encode(&(name, text))),
            Self::Delete(name) => with(kind::DELETE, &encode(name)),
            Self::Reaction(name, sign) => with(kind::REACTION, &encode(&(name, sign))),
            Self::Want(stream) => with(kind::WANT, &encode(stream)),
            Self::Read(name) => with(kind::READ, &encode(name)),
            Self::Entries(entries) => with(kind::ENTRIES, &encode(entries)),
            Self::WantEntries(mark) => with(kind::WANT_ENTRIES, &encode(mark)),
            Self::Empty => vec![kind::EMPTY],
            Self::Other(kind, rest) => with(*kind, rest),
        }
    }

    /// Reads them. What cannot be read is [`Body::Other`], as what a later version writes.
    pub fn decode(bytes: &[u8]) -> Self {
        let Some((&kind, rest)) = bytes.split_first() else { return Self::Empty };
        let other = || Self::Other(kind, rest.to_vec());
        fn read<T: Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
            decode("body of a message", bytes, usize::from(MAX_PARTS) * MAX_FRAME).ok()
        }
        let body = match kind {
            kind::TEXT => String::from_utf8(rest.to_vec()).ok().map(Self::Text),
            kind::EDIT => read(rest).map(|(name, text)| Self::Edit(name, text)),
            kind::DELETE => read(rest).map(Self::Delete),
            kind::REACTION => read(rest).map(|(name, sign)| Self::Reaction(name, sign)),
            kind::WANT => read(rest).map(Self::Want),
            kind::READ => read(rest).map(Self::Read),
            kind::ENTRIES => read(rest).map(Self::Entries),
            kind::WANT_ENTRIES => read(rest).map(Self::WantEntries),
            kind::EMPTY if rest.is_empty() => Some(Self::Empty),
            _ => None,
        };
        body.unwrap_or_else(other)
    }
}

/// Cuts content into 1, 2, 4 or 8 parts of at most `room` bytes; none if it is longer.
pub(crate) fn cut(content: &[u8], room: usize) -> Option<Vec<Vec<u8>>> {
    let needed = content.len().div_ceil(room).max(1);
    let parts = [1, 2, 4, usize::from(MAX_PARTS)].into_iter().find(|parts| needed <= *parts)?;
    let mut cut: Vec<Vec<u8>> = content.chunks(room).map(<[u8]>::to_vec).collect();
    cut.resize(parts, Vec::new());
    Some(cut)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(content: Vec<u8>) -> Frame {
        Frame {
            stream: u64::MAX,
            sequence: u32::MAX,
            oldest: u32::MAX,
            begin: u32::MAX,
            before: vec![
                Before { stream: u64::MAX, begin: u32::MAX, oldest: u32::MAX };
                MAX_BEFORE
            ],
            part: 7,
            parts: 8,
            sent_at: 1 << 40,
            group: Some(GroupMark {
                group: crate::GroupId([255; 16]),
                number: u32::MAX,
                hash: [255; 8],
            }),
            ack: Some(Ack {
                stream: u64::MAX,
                low: u32::MAX,
                ranges: vec![(u32::MAX, u32::MAX); MAX_RANGES],
            }),
            expires_s: u32::MAX,
            content,
        }
    }

    #[test]
    fn the_longest_head_is_as_long_as_is_said() {
        let head = frame(vec![0; 1_900]).encode().len() - 1_900;
        assert!(head <= FRAME_HEAD, "{head}");
    }

    #[test]
    fn acknowledgements_say_what_has_come() {
        let ack = Ack { stream: 1, low: 10, ranges: vec![(13, 13), (20, 22)] };
        let has: Vec<u32> = (0..80).filter(|sequence| ack.has(*sequence)).collect();
        assert_eq!(has, (0..=10).chain([13]).chain(20..=22).collect::<Vec<_>>());
        assert!(ack.lacks(11) && ack.lacks(70) && !ack.lacks(21));
        let full = Ack { stream: 1, low: 1, ranges: vec![(7, 7); MAX_RANGES] };
        assert!(full.lacks(6) && !full.lacks(8), "beyond its ranges it says nothing");
    }

    #[test]
    fn a_message_has_one_two_four_or_eight_parts() {
        let parts = |len| cut(&vec![7; len], 10).map(|parts| parts.len());
        assert_eq!(
            [0, 10, 11, 21, 41, 80, 81].map(parts),
            [Some(1), Some(1), Some(2), Some(4), Some(8), Some(8), None]
        );
        assert_eq!(cut(&[7; 35], 10).unwrap().concat(), [7; 35]);
    }

    proptest! {
        #[test]
        fn bodies_come_back_as_they_went(text: String, a: u32, b: u64) {
            let name = MessageName { device: a, stream: b, sequence: 7 };
            for body in [
                Body::Text(text.clone()),
                Body::Edit(name, text.clone()),
                Body::Delete(name),
                Body::Reaction(name, Some(text.clone())),
                Body::Reaction(name, None),
                Body::Want(b),
                Body::Read(name),
                Body::Empty,
                Body::Other(200, text.clone().into_bytes()),
            ] {
                prop_assert_eq!(Body::decode(&body.encode()), body);
            }
        }

        #[test]
        fn no_bytes_make_them_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2100)) {
            let _ = Body::decode(&bytes);
            if let Ok(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(frame.encode(), bytes);
            }
        }
    }
}
