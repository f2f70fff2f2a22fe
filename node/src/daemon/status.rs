//! What `status` says: a sentence for people, what a node says of itself (`summary`), times as clocks show them, and
//! the numbers.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};
use shoal_host::admin::Readiness;
use shoal_host::logs::utc;

use super::RoleName;
use super::metrics::{Shared, Snapshot};
use super::topology::unix_s;
use crate::counters::DropReason;
use crate::opener::Opener;

/// The status of a mix or a gateway.
pub(super) fn of_node(shared: &Shared, ready: &Readiness, opener: &Opener) -> Value {
    let Snapshot { counters, pooled, clients } = shared.snapshot();
    let about = shared.about();
    let now = unix_s();
    let why = match ready {
        Readiness::Ready => None,
        Readiness::NotReady(why) => Some(why),
    };
    let dropped: Map<String, Value> = DropReason::ALL
        .iter()
        .filter(|reason| counters.dropped(**reason) > 0)
        .map(|reason| (reason.label().to_owned(), counters.dropped(*reason).into()))
        .collect();
    let layer = Some(shared.layer.load(Ordering::Relaxed)).filter(|layer| *layer > 0);
    let load = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
    let (up, expected) = (load(&shared.links_up), load(&shared.links_expected));
    let (replay_used, replay_room) = opener.replay_fill();
    let troubles = shared.troubles();

    let role = about.role.name();
    let of_layer = layer.map(|layer| format!(" of layer {layer}")).unwrap_or_default();
    let mut summary = match why {
        None => format!("This {role}{of_layer} does its work: {up} of {expected} links stand"),
        Some(why) => format!("This {role} does not do its work: {why}"),
    };
    // Writing to a string cannot fail.
    if why.is_none() && about.role == RoleName::Gateway {
        let _ = write!(summary, ", {clients} clients are connected");
    }
    if !troubles.is_empty() {
        let _ = write!(summary, "; see the warnings");
    }
    summary.push('.');

    let mut status = about.fields(now);
    let mut say = |name: &str, value: Value| _ = status.insert(name.to_owned(), value);
    say("summary", summary.into());
    say("ready", why.is_none().into());
    say("why_not_ready", json!(why));
    say("warnings", troubles.into());
    say("layer", json!(layer));
    let keys = shared.keys_until.load(Ordering::Relaxed);
    say("keys_until", if keys > 0 { utc(keys).into() } else { Value::Null });
    match shared.in_use() {
        Some(in_use) => in_use.fields().into_iter().for_each(|(name, value)| say(name, value)),
        None => say("epoch", Value::Null),
    }
    say("links", json!({ "up": up, "expected": expected }));
    say("clients", clients.into());
    say(
        "packets",
        json!({
            "received": counters.received,
            "forwarded": counters.forwarded,
            "from_clients": counters.from_clients,
            "for_clients": counters.for_clients,
            "cover": counters.cover,
            "waiting": pooled,
        }),
    );
    say("dropped", dropped.into());
    say(
        "loops",
        json!({
            "sent": counters.loops_sent,
            "returned": counters.loops_returned,
            "lost": counters.loops_lost,
            "without_path": counters.loops_without_path,
        }),
    );
    say("replay_table", json!({ "used": replay_used, "room": replay_room }));
    status.into()
}

/// A status for a terminal: the sentence, then one line a value, tables indented.
pub fn text(status: &Value) -> String {
    let mut text = String::new();
    if let Some(summary) = status.get("summary").and_then(Value::as_str) {
        let _ = writeln!(text, "{summary}\n");
    }
    lines(status, 0, &mut text);
    text
}

fn lines(value: &Value, depth: usize, text: &mut String) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let indent = "  ".repeat(depth);
        let said = match value {
            Value::Null => continue,
            Value::String(_) if depth == 0 && name == "summary" => continue,
            Value::Array(items) if items.is_empty() => continue,
            Value::Object(table) if table.is_empty() => "none".into(),
            Value::Object(_) | Value::Array(_) => String::new(),
            Value::String(said) => said.clone(),
            Value::Bool(true) => "yes".into(),
            Value::Bool(false) => "no".into(),
            other => other.to_string(),
        };
        let name = name.replace('_', " ");
        let _ = writeln!(text, "{}", format!("{indent}{name}: {said}").trim_end());
        match value {
            Value::Object(_) => lines(value, depth + 1, text),
            Value::Array(items) => {
                for item in items {
                    let said = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                    let _ = writeln!(text, "{indent}  {said}");
                }
            }
            _ => {}
        }
    }
}

/// True if a status says that the program does its work.
pub fn is_ready(status: &Value) -> bool {
    status.get("ready").and_then(Value::as_bool).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::summary::{About, InUse};
    use super::*;

    #[test]
    fn a_status_begins_with_a_sentence_and_has_no_bare_numbers_for_times() {
        let shared = Shared::default();
        let config = Config { operator: "me".into(), ..Config::default() };
        shared.describe(About::new(&config, "abc".into(), 0));
        shared.links_expected.store(3, Ordering::Relaxed);
        let in_use =
            InUse { epoch: 7, amendment: 0, begins: 700, until: 1_000, present: 8, epoch_s: 100 };
        shared.use_document(Some(in_use));
        let opener = Opener::new(shoal_sphinx::backend::Backend::best_codec());
        let status = of_node(&shared, &Readiness::Ready, &opener);
        let said = text(&status);
        assert!(said.starts_with("This mix does its work: 0 of 3 links stand.\n\n"), "{said}");
        for line in [
            "identity: abc",
            "operator: me",
            "addresses:\n  127.0.0.1:9001",
            "started: 1970-01-01T00:00:00Z",
            "epoch ends: 1970-01-01T00:15:00Z",
            "  usable until: 1970-01-01T00:16:40Z",
        ] {
            assert!(said.contains(&format!("\n{line}")), "{line}: {said}");
        }
        assert!(is_ready(&status) && !said.contains("summary"));

        let why = Readiness::NotReady("there is no topology document yet".into());
        let status = of_node(&shared, &why, &opener);
        assert!(!is_ready(&status));
        assert!(text(&status).starts_with("This mix does not do its work: there is no"));
    }
}
