//! Packets at each hop of their way, SURBs, frames.

use std::time::Duration;

use rand::Rng as _;
use serde_json::{Value, json};
use shoal_sphinx::{
    CLIENT_CONTROL, Codec as _, Downward, Frame, Hop, MAX_HOPS, Packet, Payload, Peeled, SecretKey,
    Sphinx, SurbKeys,
};
use shoal_topology::Seed;
use shoal_topology::wire::client_gateway::{ControlMessage as _, DocumentPart, Notice, Renew};

use super::directory::client_descriptor;
use super::hex;

const CODEC: Sphinx = Sphinx::SCALAR;
const SEED: u64 = 260;

/// A path of so many hops, and their secrets.
fn path(hops: usize) -> (Vec<Hop>, Vec<SecretKey>) {
    let secrets: Vec<SecretKey> =
        (0..hops).map(|n| SecretKey::from_bytes([0x40 + n as u8; 32])).collect();
    let hop = |(n, secret): (usize, &SecretKey)| Hop {
        address: [0x80 + n as u8; 32],
        key: secret.public(),
        delay: Duration::from_nanos(1_000_000 * n as u64 + 17),
    };
    (secrets.iter().enumerate().map(hop).collect(), secrets)
}

fn described(path: &[Hop], secrets: &[SecretKey]) -> Vec<Value> {
    let hop = |(hop, secret): (&Hop, &SecretKey)| {
        json!({
            "secret": hex(secret.as_bytes()),
            "public": hex(hop.key.as_bytes()),
            "address": hex(hop.address),
            "delay_ns": hop.delay.as_nanos() as u64,
        })
    };
    path.iter().zip(secrets).map(hop).collect()
}

/// What a sender draws for a path of so many hops: the secret, and the padding behind the last hop's part.
fn drawn(hops: usize) -> (Value, Value) {
    let mut rng = Seed::from_u64(SEED).stream("vectors");
    let (mut secret, mut padding) = ([0; 32], vec![0; 60 * (MAX_HOPS + 1 - hops) - 52]);
    rng.fill_bytes(&mut secret);
    rng.fill_bytes(&mut padding);
    (hex(secret), hex(padding))
}

/// The packet as each hop gets it, with its tag, and what the last one finds.
fn travel(
    packet: Packet,
    path: &[Hop],
    secrets: &[SecretKey],
) -> anyhow::Result<(Vec<Value>, Payload)> {
    let (mut at, mut packet) = (Vec::new(), packet);
    for (hop, secret) in path.iter().zip(secrets) {
        let bytes = hex(packet.as_bytes());
        let opened = CODEC.open(secret, packet)?;
        let tag = hex(opened.tag().as_bytes());
        match CODEC.peel(opened)? {
            Peeled::Forward { next, delay, packet: after } => {
                at.push(json!({
                    "packet": bytes, "tag": tag, "next": hex(next), "delay_ns": delay.as_nanos() as u64,
                }));
                packet = after;
            }
            Peeled::Final { destination, id, payload } => {
                anyhow::ensure!(destination == hop.address, "a packet ends at its last hop");
                at.push(json!({
                    "packet": bytes, "tag": tag, "identifier": hex(id), "payload": hex(payload.as_bytes()),
                }));
                return Ok((at, payload));
            }
        }
    }
    anyhow::bail!("a packet does not end")
}

pub(super) fn packets() -> anyhow::Result<Value> {
    let mut packets = Vec::new();
    for hops in 1..=MAX_HOPS {
        let (path, secrets) = path(hops);
        let (id, message) = ([hops as u8; 16], format!("a message over {hops} hops"));
        let mut rng = Seed::from_u64(SEED).stream("vectors");
        let packet = CODEC.seal(&mut rng, &path, id, message.as_bytes())?;
        let (at, _) = travel(packet, &path, &secrets)?;
        let (secret, padding) = drawn(hops);
        packets.push(json!({
            "path": described(&path, &secrets), "identifier": hex(id), "message": hex(message),
            "secret": secret, "padding": padding, "at": at,
        }));
    }
    Ok(json!({ "packets": packets }))
}

pub(super) fn surbs() -> anyhow::Result<Value> {
    let mut surbs = Vec::new();
    for hops in [1, 3, MAX_HOPS] {
        let (path, secrets) = path(hops);
        let id = [0x20 + hops as u8; 16];
        let mut rng = Seed::from_u64(SEED).stream("vectors");
        let (surb, keys): (_, SurbKeys) = CODEC.surb(&mut rng, &path, id)?;
        let bytes = hex(surb.as_bytes());
        let message = format!("a reply over {hops} hops");
        let (packet, first) = CODEC.reply(surb, message.as_bytes())?;
        let reply = hex(packet.as_bytes());
        let (at, payload) = travel(packet, &path, &secrets)?;
        anyhow::ensure!(CODEC.unseal(&keys, payload)? == message.as_bytes(), "its maker opens it");
        let (secret, padding) = drawn(hops);
        surbs.push(json!({
            "path": described(&path, &secrets), "identifier": hex(id), "secret": secret, "padding": padding,
            "surb": bytes, "message": hex(message), "reply": reply, "first": hex(first), "at": at,
        }));
    }
    Ok(json!({ "surbs": surbs }))
}

pub(super) fn frames() -> anyhow::Result<Value> {
    let (path, _) = path(3);
    let mut rng = Seed::from_u64(SEED).stream("frames");
    let packet = CODEC.seal(&mut rng, &path, [0; 16], b"in a frame")?;
    let part = DocumentPart { tag: [5; 8], index: 0, parts: 2, bytes: vec![7; 2_300] };
    let renew = Renew { descriptor: client_descriptor().encode() };
    let epoch = 0xa7;
    let frames = [
        ("client to gateway", "to the mix of number 513", epoch, 513, packet.clone()),
        ("client to gateway", "control message", 0, CLIENT_CONTROL, renew.pack()?),
        ("gateway to client", "packet", epoch, Downward::Packet as u16, packet.clone()),
        ("gateway to client", "dummy", 0, Downward::Dummy as u16, Packet::default()),
        ("gateway to client", "part of a document", 0, Downward::Document as u16, part.pack()?),
        ("gateway to client", "notice", 0, Downward::Notice as u16, Notice::Welcome.pack()?),
        ("node to node", "packet", epoch, 0, packet),
    ];
    let frame = |(direction, what, epoch, field, packet): (&str, &str, u8, u16, Packet)| {
        let bytes = hex(packet.as_bytes());
        let frame = Frame { epoch, field, packet };
        json!({
            "direction": direction, "what": what, "version": 1, "epoch": epoch, "field": field,
            "packet": bytes, "bytes": hex(&frame.encode()[..]),
        })
    };
    Ok(json!({ "frames": frames.map(frame) }))
}
