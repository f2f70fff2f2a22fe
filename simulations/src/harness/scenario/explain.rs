//! What every key of an experiment means, and its default.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::{Table, Value};

use super::{COMMON, KeySpans, Kind};

/// A scenario of this experiment with all defaults, each key under the comment that explains it, in the order of the commented
/// scenario: what a comment says often continues the one before it. Keys that are not set unless given are commented out.
///
/// # Errors
/// The experiment's defaults or its commented scenario cannot be read: an error of ours.
pub fn explain(kind: &Kind) -> anyhow::Result<String> {
    let comments = comments(kind.explained)?;
    let spans = KeySpans::of(kind.explained)?;
    let defaults = (kind.defaults)()?;
    let optional = optional(kind.explained, &spans, &comments, &defaults);
    let row =
        |key: &str| spans.of_key(key).map_or(usize::MAX, |span| span.position(kind.explained).0);
    let mut text = String::new();
    writeln!(text, "# {}\n", kind.about)?;
    let mut key = |comment: &str, line: &str| -> std::fmt::Result {
        comment.lines().try_for_each(|line| writeln!(text, "# {line}"))?;
        writeln!(text, "{line}\n")
    };
    let comment = |name: &str| comments.get(name).map_or("", String::as_str);
    key(comment("experiment"), &format!("experiment = {:?}", kind.name))?;
    key(comment("seed"), "seed = 1")?;
    key(comment("runs"), "runs = 1")?;
    let mut tables = vec![(String::new(), &defaults)];
    while let Some((prefix, table)) = tables.pop() {
        if !prefix.is_empty() {
            key(comment(&prefix), &format!("[{prefix}]"))?;
        }
        let mut lines: Vec<(usize, &str, String)> = Vec::new();
        let mut inner: Vec<(String, &Table)> = Vec::new();
        for (name, value) in table {
            let whole = dotted(&prefix, name);
            match value {
                Value::Table(table) => inner.push((whole, table)),
                _ => lines.push((row(&whole), comment(&whole), format!("{name} = {value}"))),
            }
        }
        for one in optional.iter().filter(|one| one.table == prefix) {
            lines.push((one.row, &one.comment, format!("# {}", one.line)));
        }
        lines.sort();
        lines.iter().try_for_each(|(_, comment, line)| key(comment, line))?;
        // Last in, first out: the first table comes next.
        inner.sort_by_cached_key(|(name, _)| std::cmp::Reverse(row(name)));
        tables.extend(inner);
    }
    Ok(text)
}

/// A key that is not set unless given.
struct Optional {
    row: usize,
    table: String,
    comment: String,
    /// The key with an example of a value.
    line: String,
}

/// Those of a commented scenario: commented out there, or given beside the defaults.
fn optional(
    text: &str,
    spans: &KeySpans,
    comments: &BTreeMap<String, String>,
    defaults: &Table,
) -> Vec<Optional> {
    let lines: Vec<&str> = text.lines().collect();
    let mut all = Vec::new();
    let mut table = String::new();
    for (row, line) in lines.iter().enumerate() {
        if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            table = name.0.trim().to_owned();
        }
        if let Some(line) = commented_out(line) {
            let comment = above(&lines, row);
            all.push(Optional { row: row + 1, table: table.clone(), comment, line: line.into() });
        }
    }
    for (name, comment) in comments {
        if COMMON.contains(&name.as_str()) || find(defaults, name).is_some() {
            continue;
        }
        let row = spans.of_key(name).map_or(usize::MAX, |span| span.position(text).0);
        let table = name.rsplit_once('.').map_or("", |(table, _)| table).to_owned();
        // Of an array of tables the example is that it is there.
        let line = lines.get(row.saturating_sub(1)).copied().unwrap_or_default();
        let line = line.split(" #").next().unwrap_or(line).trim().to_owned();
        all.push(Optional { row, table, comment: comment.clone(), line });
    }
    all
}

/// The key and value of a line that is commented out.
fn commented_out(line: &str) -> Option<&str> {
    let line = line.trim().strip_prefix("# ")?;
    let (key, _) = line.split_once(" = ")?;
    let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (is_key && toml::from_str::<Table>(line).is_ok()).then_some(line)
}

/// The comment just above a line, from zero, up to one that is none or is a key that is commented out.
fn above(lines: &[&str], row: usize) -> String {
    let above = lines.iter().take(row).rev().take_while(|line| commented_out(line).is_none());
    let mut parts: Vec<&str> =
        above.map_while(|line| line.trim().strip_prefix('#')).map(str::trim).collect();
    parts.reverse();
    parts.join("\n")
}

/// The comment on each key of a TOML file, by dotted name: the lines just above it, and what stands behind it.
///
/// # Errors
/// The text is not TOML.
pub fn comments(text: &str) -> Result<BTreeMap<String, String>, toml::de::Error> {
    let spans = KeySpans::of(text)?;
    let lines: Vec<&str> = text.lines().collect();
    let mut comments = BTreeMap::new();
    for key in spans.in_order() {
        let Some(span) = spans.of_key(&key) else { continue };
        let mut comment = above(&lines, span.position(text).0 - 1);
        let last = span.last_row(text);
        // A '#' within a string is no comment; none of ours has one.
        let behind = lines.get(last).and_then(|line| line.split_once(" #"));
        if let Some((_, behind)) = behind {
            let between = if comment.is_empty() { "" } else { "\n" };
            comment = format!("{comment}{between}{}", behind.trim());
        }
        comments.insert(key, comment);
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
