//! Messages between people: keys of a period, a session with all that its packets consist of, frames, bodies.

use blake3::derive_key;
use serde_json::{Value, json};
use shoal_people::vectors::{End, Ends, Form, SentPacket, Shown, converse};
use shoal_people::{
    Ack, Before, Body, Frame, GroupId, GroupMark, MessageName, PeriodKeys, Published,
};
use shoal_topology::{Seed, encoding::encode};
use x25519_dalek::{PublicKey, StaticSecret};

use super::{hex, said, secret};

/// When the example happens, Unix seconds.
const AT: u64 = 1_800_000_000;
/// The beginning of the period of the keys, Unix seconds.
const BEGINS: u64 = AT - 300;
const SEED: u64 = 14;
/// The organisation's key, and those of its two devices.
const ORGANISATION: u8 = 160;
const OPENER: u8 = 170;
const READER: u8 = 171;
/// The number of the device that opens the session.
const OPENER_NUMBER: u32 = 1;
/// Up to here the examples say of each sequence whether an acknowledgement has it (+), lacks it (-), or says nothing of it (?).
const SEQUENCES: u32 = 40;

/// A frame of a message that has one part and follows nothing.
fn frame(stream: u64, sequence: u32, body: &Body) -> Frame {
    Frame {
        stream,
        sequence,
        begin: 1,
        oldest: 1,
        before: Vec::new(),
        part: 0,
        parts: 1,
        sent_at: AT,
        group: None,
        ack: None,
        expires_s: 0,
        content: body.encode(),
    }
}

fn ack(stream: u64, low: u32, ranges: &[(u32, u32)]) -> Ack {
    Ack { stream, low, ranges: ranges.to_vec() }
}

fn published(random: [u8; 32], device: u32, size: u64) -> Value {
    let keys = PeriodKeys::new(&random, BEGINS).public().clone();
    let name = derive_key(
        "shoal 2026 name of the keys of a period",
        &[keys.kem.as_slice(), &keys.prekey].concat(),
    );
    let (kem, prekey) = (hex(keys.kem.as_slice()), hex(keys.prekey));
    json!({
        "random": hex(random),
        "decapsulation_key": hex(derive_key("shoal 2026 encapsulation key of a period", &random)),
        "prekey_secret": hex(derive_key("shoal 2026 prekey of a period", &random)),
        "name": name.first_chunk::<4>(),
        "value": { "version": 1, "kem": kem, "prekey": prekey, "device": device, "size": size },
        "bytes": hex(Published { keys, device, size }.encode()),
    })
}

/// What is written in the session behind its first packet.
fn conversation() -> Vec<(End, Form, Vec<u8>)> {
    let (own, theirs) = (0x0123_4567_89ab_cdef, 77);
    let text = |text: &str| Body::Text(text.into());
    let read = Body::Read(MessageName { device: 2, stream: theirs, sequence: 1 });
    let long = "The board meets on Thursday. ".repeat(30);
    let answers = |stream, sequence, body: &Body, ack| Frame {
        ack: Some(ack),
        ..frame(stream, sequence, body)
    };
    [
        (End::Opener, Form::Opening, frame(own, 2, &text("Are you there?"))),
        (End::Opener, Form::Further, frame(own, 3, &text(&long))),
        (End::Reader, Form::Further, answers(theirs, 1, &text("Yes"), ack(own, 3, &[]))),
        (End::Reader, Form::Further, answers(theirs, 2, &text("✓"), ack(own, 3, &[]))),
        (End::Opener, Form::Further, answers(own, 0, &Body::Empty, ack(theirs, 2, &[]))),
        (End::Reader, Form::Further, answers(theirs, 3, &read, ack(own, 3, &[]))),
    ]
    .map(|(by, form, frame)| (by, form, frame.encode()))
    .to_vec()
}

fn packet(sent: &SentPacket, frame: &[u8]) -> Value {
    let SentPacket { by, chain, message, packet } = sent;
    let kind = packet.first().copied().unwrap_or_default();
    // The nonce stands behind the ciphertext in a packet that opens a session, and first in another.
    let nonce = packet.get(if kind == 1 { 1_125..1_137 } else { 1..13 }).unwrap_or_default();
    json!({
        "by": if *by == End::Opener { "opener" } else { "reader" },
        "kind": kind,
        "ratchet_secret": hex(chain.own),
        "ratchet_key": hex(PublicKey::from(&StaticSecret::from(chain.own)).as_bytes()),
        "root": hex(chain.root),
        "chain": hex(chain.key),
        "index": chain.index,
        "frame": hex(frame),
        "message": hex(message),
        "nonce": hex(nonce),
        "packet": hex(packet),
    })
}

fn session() -> anyhow::Result<Value> {
    let (organisation, reader) = (secret(ORGANISATION).identity(), secret(READER).identity());
    let random = [5; 32];
    let keys = PeriodKeys::new(&random, BEGINS);
    let ends = Ends {
        organisation: &organisation,
        opener: (OPENER_NUMBER, &secret(OPENER)),
        reader: &reader,
        keys: &keys,
        size: 12,
        opened: AT * 1_000 + 123,
    };
    let first = frame(0x0123_4567_89ab_cdef, 1, &Body::Text("Hello".into())).encode();
    let others = conversation();
    let (shown, sent) = converse(&ends, &first, &others, &Seed::from_u64(SEED))?;
    let frames = [&first].into_iter().chain(others.iter().map(|(_, _, frame)| frame));
    let packets: Vec<Value> =
        sent.iter().zip(frames).map(|(sent, frame)| packet(sent, frame)).collect();
    let Shown { randomness, ciphertext, secret: shared, transcript, bound, .. } = &shown;
    Ok(json!({
        "organisation": hex(organisation.0),
        "opener": {
            "device": OPENER_NUMBER, "seed": hex([OPENER; 32]), "key": hex(secret(OPENER).identity().0),
            "size": ends.size, "opened": ends.opened,
        },
        "reader": { "key": hex(reader.0), "random": hex(random), "begins": BEGINS },
        "randomness": hex(randomness),
        "ciphertext": hex(ciphertext),
        "secret": hex(shared),
        "t0": hex(transcript),
        "t1": hex(bound),
        "seal": hex(shown.seal),
        "signature": hex(&shown.signature),
        "root": hex(shown.root),
        "hide": hex(shown.hide),
        "packets": packets,
    }))
}

/// A frame in which every field says something.
fn full() -> Frame {
    Frame {
        begin: 3,
        oldest: 290,
        before: vec![
            Before { stream: 6, begin: 2, oldest: 9 },
            Before { stream: u64::MAX, begin: 1, oldest: 1 },
        ],
        part: 2,
        parts: 4,
        group: Some(GroupMark { group: GroupId([9; 16]), number: 700, hash: [8; 8] }),
        ack: Some(ack(8, 4, &[(6, 9), (20, 20)])),
        expires_s: 86_400,
        ..frame(0x1122_3344_5566, 300, &Body::Text("third of four".into()))
    }
}

fn example(frame: &Frame) -> anyhow::Result<Value> {
    let bytes = frame.encode();
    anyhow::ensure!(Frame::decode(&bytes).as_ref() == Ok(frame), "a frame is not read");
    Ok(json!({ "value": said(frame)?, "bytes": hex(bytes) }))
}

fn frames() -> anyhow::Result<Vec<Value>> {
    let frames = [
        frame(7, 1, &Body::Text("Привет".into())),
        full(),
        // What is no message: its numbers below the sequence are not looked at.
        Frame { begin: 9, oldest: 0, ack: Some(ack(8, 0, &[])), ..frame(7, 0, &Body::Empty) },
        Frame {
            sequence: u32::MAX,
            begin: u32::MAX,
            oldest: u32::MAX,
            part: 7,
            parts: 8,
            before: vec![Before { stream: 1, begin: u32::MAX, oldest: u32::MAX }; 3],
            ack: Some(ack(u64::MAX, u32::MAX, &[(u32::MAX, u32::MAX); 6])),
            ..frame(u64::MAX, 1, &Body::Want(u64::MAX))
        },
    ];
    frames.iter().map(example).collect()
}

/// Frames that must be refused, by the rule that they break.
fn refused() -> anyhow::Result<Vec<Value>> {
    let before = Before { stream: 6, begin: 2, oldest: 9 };
    let with_ack = |ranges: &[(u32, u32)]| Frame { ack: Some(ack(8, 4, ranges)), ..full() };
    let frames = [
        ("parts", Frame { parts: 3, ..full() }),
        ("parts", Frame { part: 4, ..full() }),
        ("before", Frame { before: vec![before; 4], ..full() }),
        ("order", Frame { before: vec![Before { begin: 10, ..before }], ..full() }),
        ("order", Frame { before: vec![Before { begin: 0, ..before }], ..full() }),
        ("order", Frame { sequence: 2, begin: 1, oldest: 1, ..full() }),
        ("order", Frame { oldest: 301, ..full() }),
        ("order", Frame { begin: 291, ..full() }),
        ("order", Frame { begin: 0, ..full() }),
        ("ranges", with_ack(&[(6, 6); 7])),
        ("ranges", with_ack(&[(9, 6)])),
    ];
    frames
        .iter()
        .map(|(rule, frame)| {
            let bytes = frame.encode();
            anyhow::ensure!(Frame::decode(&bytes).is_err(), "a frame against {rule} is read");
            Ok(json!({ "rule": rule, "value": said(frame)?, "bytes": hex(bytes) }))
        })
        .collect()
}

fn acknowledgements() -> anyhow::Result<Vec<Value>> {
    let full: Vec<(u32, u32)> = (0..6).map(|n| (12 + 3 * n, 12 + 3 * n)).collect();
    let examples = [ack(8, 10, &[(13, 13), (20, 22)]), ack(8, 10, &full), ack(1 << 40, 0, &[])];
    examples
        .iter()
        .map(|ack| {
            let says = |n| match (ack.has(n), ack.lacks(n)) {
                (true, _) => '+',
                (_, true) => '-',
                _ => '?',
            };
            let says: String = (0..=SEQUENCES).map(says).collect();
            Ok(json!({ "value": said(ack)?, "bytes": hex(encode(ack)), "says": says }))
        })
        .collect()
}

fn body_said(body: &Body) -> anyhow::Result<Value> {
    Ok(match body {
        Body::Text(text) => json!({ "Text": text }),
        Body::Edit(name, text) => json!({ "Edit": [said(name)?, text] }),
        Body::Delete(name) => json!({ "Delete": said(name)? }),
        Body::Reaction(name, sign) => json!({ "Reaction": [said(name)?, sign] }),
        Body::Want(stream) => json!({ "Want": stream }),
        Body::Read(name) => json!({ "Read": said(name)? }),
        Body::Entries(entries) => json!({ "Entries": said(entries)? }),
        Body::WantEntries(mark) => json!({ "WantEntries": said(mark)? }),
        Body::Empty => json!("Empty"),
        Body::Other(kind, rest) => json!({ "Other": [kind, said(rest)?] }),
    })
}

fn bodies() -> anyhow::Result<Vec<Value>> {
    let name = MessageName { device: 300, stream: 1 << 50, sequence: 70_000 };
    let bodies = [
        Body::Text("Grüße, 你好\n".into()),
        Body::Text(String::new()),
        Body::Edit(name, "rather this".into()),
        Body::Delete(name),
        Body::Reaction(name, Some("👍".into())),
        Body::Reaction(name, None),
        Body::Want(0),
        Body::Want(u64::MAX),
        Body::Read(name),
        Body::Empty,
        Body::WantEntries(None),
        Body::WantEntries(Some(GroupMark { group: GroupId([9; 16]), number: 700, hash: [8; 8] })),
        Body::Other(200, b"of a later version".to_vec()),
        // A text that is not UTF-8, a name with bytes behind it, and nothing with something.
        Body::Other(1, vec![0xff]),
        Body::Other(3, [encode(&name), vec![0]].concat()),
        Body::Other(11, vec![1]),
    ];
    bodies
        .iter()
        .map(|body| {
            let bytes = body.encode();
            anyhow::ensure!(Body::decode(&bytes) == *body, "a body is read as another");
            Ok(json!({ "value": body_said(body)?, "bytes": hex(bytes) }))
        })
        .collect()
}

/// A message in four parts, the last one of which has nothing to carry.
fn in_parts() -> anyhow::Result<Value> {
    let body = Body::Edit(MessageName { device: 4, stream: 5, sequence: 6 }, "in parts".into());
    let content = body.encode();
    let mut parts: Vec<&[u8]> = content.chunks(5).collect();
    parts.resize(4, &[]);
    let frames = (0..).zip(&parts).map(|(part, content)| Frame {
        sequence: 300 + u32::from(part),
        part,
        parts: 4,
        content: content.to_vec(),
        ..full()
    });
    let frames: anyhow::Result<Vec<Value>> = frames.map(|frame| example(&frame)).collect();
    let name = MessageName { device: OPENER_NUMBER, stream: full().stream, sequence: 300 };
    Ok(
        json!({ "device": OPENER_NUMBER, "frames": frames?, "name": said(&name)?, "body": body_said(&body)? }),
    )
}

pub(super) fn people() -> anyhow::Result<Value> {
    Ok(json!({
        "keys": [published([5; 32], 2, 12), published([6; 32], 70_000, 1 << 40)],
        "sessions": [session()?],
        "frames": frames()?,
        "refused": refused()?,
        "acknowledgements": acknowledgements()?,
        "bodies": bodies()?,
        "messages": [in_parts()?],
    }))
}
