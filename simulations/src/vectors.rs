//! Examples of every format on the wire, for whoever implements SPECIFICATION.md: `docs/vectors/` has them. All follow from
//! fixed seeds and keys, so that they stand still as long as the formats do.

mod authorities;
mod directory;
mod groups;
mod messages;
mod organisation;
mod packets;
mod people;

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value};
use shoal_topology::SecretIdentity;

/// Shorter lists of small numbers stay numbers.
const LEAST_BYTES: usize = 8;

/// The files: their names and what stands in them.
///
/// # Errors
/// An example cannot be made.
pub fn all() -> anyhow::Result<Vec<(&'static str, String)>> {
    let files = [
        ("packet.json", packets::packets()?),
        ("surb.json", packets::surbs()?),
        ("frame.json", packets::frames()?),
        ("control.json", messages::control()?),
        ("tunnel.json", messages::tunnel()?),
        ("document.json", directory::documents()?),
        ("addresses.json", directory::addresses()?),
        ("reports.json", directory::reports()?),
        ("votes.json", authorities::votes()?),
        ("proofs.json", authorities::proofs()?),
        ("organisation.json", organisation::organisation()?),
        ("messages.json", people::people()?),
        ("groups.json", groups::groups()?),
    ];
    let text = |value: &Value| serde_json::to_string_pretty(value).map(|text| text + "\n");
    files.iter().map(|(name, value)| Ok((*name, text(value)?))).collect()
}

/// The secret key of somebody in the examples: a seed of equal bytes.
fn secret(n: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[n; 32])
}

fn hex(bytes: impl AsRef<[u8]>) -> Value {
    let mut text = String::new();
    for byte in bytes.as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

/// What a value of a format says, with its bytes as hexadecimal digits.
fn said(value: &impl Serialize) -> anyhow::Result<Value> {
    Ok(with_hex(serde_json::to_value(value)?))
}

fn with_hex(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let byte = |item: &Value| item.as_u64().and_then(|n| u8::try_from(n).ok());
            let bytes: Option<Vec<u8>> = items.iter().map(byte).collect();
            match bytes {
                Some(bytes) if bytes.len() >= LEAST_BYTES => hex(bytes),
                _ => items.into_iter().map(with_hex).collect(),
            }
        }
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, with_hex(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        other => other,
    }
}
