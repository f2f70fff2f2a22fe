//! What every key of an experiment means, and its default.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::{Table, Value};

use super::{COMMON, Kind, Places};

/// A scenario of this experiment with all defaults, each key under the comment that explains it.
///
/// # Errors
/// The experiment's defaults or its commented scenario cannot be read: an error of ours.
pub fn explain(kind: &Kind) -> anyhow::Result<String> {
    let comments = comments(kind.explained)?;
    let defaults = (kind.defaults)()?;
    let mut text = String::new();
    writeln!(text, "# {}\n", kind.about)?;
    let mut key = |name: &str, value: &str| -> std::fmt::Result {
        for line in comments.get(name).map_or("", String::as_str).lines() {
            writeln!(text, "# {line}")?;
        }
        writeln!(text, "{}{value}\n", if value.starts_with('[') { "" } else { short(name) })
    };
    key("experiment", &format!(" = {:?}", kind.name))?;
    key("seed", " = 1")?;
    key("runs", " = 1")?;
    let mut tables = vec![(String::new(), &defaults)];
    while let Some((prefix, table)) = tables.pop() {
        if !prefix.is_empty() {
            key(&prefix, &format!("[{prefix}]"))?;
        }
        for (name, value) in table.iter().filter(|(_, value)| !value.is_table()) {
            key(&dotted(&prefix, name), &format!(" = {value}"))?;
        }
        // Last in, first out: the first table comes next.
        for (name, value) in table.iter().rev() {
            if let Value::Table(inner) = value {
                tables.push((dotted(&prefix, name), inner));
            }
        }
    }
    for (name, comment) in comments {
        if !COMMON.contains(&name.as_str()) && find(&defaults, &name).is_none() {
            writeln!(text, "# {name} (not set unless given): {}", comment.replace('\n', " "))?;
        }
    }
    Ok(text)
}

/// The comment on each key of a TOML file, by dotted name: the lines just above it, and what stands behind it.
///
/// # Errors
/// The text is not TOML.
pub fn comments(text: &str) -> Result<BTreeMap<String, String>, toml::de::Error> {
    let places = Places::of(text)?;
    let lines: Vec<&str> = text.lines().collect();
    let mut comments = BTreeMap::new();
    for key in places.in_order() {
        let Some(place) = places.of_key(&key) else { continue };
        let row = place.position(text).0 - 1;
        let above = lines.iter().take(row).rev().map_while(|line| line.trim().strip_prefix('#'));
        let mut parts: Vec<&str> = above.map(str::trim).collect();
        parts.reverse();
        let last = place.last_row(text);
        // A '#' within a string is no comment; none of ours has one.
        let behind = lines.get(last).and_then(|line| line.split_once(" #"));
        parts.extend(behind.map(|(_, comment)| comment.trim()));
        comments.insert(key, parts.join("\n"));
    }
    Ok(comments)
}

/// The value of a dotted key.
pub(super) fn find<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((first, rest)) => find(table.get(first)?.as_table()?, rest),
    }
}

/// All dotted keys of a table, inner tables too.
#[cfg(test)]
pub(super) fn keys(table: &Table, prefix: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (name, value) in table {
        let name = dotted(prefix, name);
        if let Value::Table(inner) = value {
            all.extend(keys(inner, &name));
        }
        all.push(name);
    }
    all
}

fn dotted(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.into() } else { format!("{prefix}.{name}") }
}

fn short(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}
