//! Which bytes of a TOML file each key and its value are.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// The bytes of a key and of its value in a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeySpan {
    key: Range<usize>,
    value: Range<usize>,
}

impl KeySpan {
    /// Just this byte.
    pub fn at(byte: usize) -> Self {
        Self { key: byte..byte, value: byte..byte }
    }

    /// Where its key starts, in bytes.
    pub fn start(&self) -> usize {
        self.key.start
    }

    /// Line and column of its start, both from one; the column in characters.
    pub fn position(&self, text: &str) -> (usize, usize) {
        let before = text.get(..self.key.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let column = before.get(start..).map_or(0, |rest| rest.chars().count()) + 1;
        (line, column)
    }

    /// The line, from zero, where its value ends; of a table, the line of its key.
    pub fn last_row(&self, text: &str) -> usize {
        let end = self.value.end.max(self.key.end);
        text.get(..end).unwrap_or(text).matches('\n').count()
    }
}

/// The spans of all keys of a file, by dotted name.
pub struct KeySpans(BTreeMap<String, KeySpan>);

impl KeySpans {
    /// Reads where the keys are; syntax errors are found here.
    pub fn of(text: &str) -> Result<Self, toml::de::Error> {
        let mut spans = BTreeMap::new();
        collect(DeTable::parse(text)?.get_ref(), "", &mut spans);
        Ok(Self(spans))
    }

    /// The span of a key; of a key that the file does not have, that of the table where it would be.
    pub fn of_key(&self, key: &str) -> Option<&KeySpan> {
        let mut name = key;
        loop {
            if let Some(span) = self.0.get(name) {
                return Some(span);
            }
            name = name.rsplit_once('.')?.0;
        }
    }

    /// True if the file has this very key.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The innermost key whose name or value has this byte.
    pub fn key_at(&self, byte: usize) -> Option<String> {
        let within = |span: &KeySpan| span.key.contains(&byte) || span.value.contains(&byte);
        let all = self.0.iter().filter(|(_, span)| within(span));
        all.min_by_key(|(_, span)| span.value.len()).map(|(name, _)| name.clone())
    }

    /// All keys that are no tables, in the order of the file.
    pub fn in_order(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.0.iter().map(|(key, span)| (span.key.start, key)).collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key.clone()).collect()
    }

    /// The text with these top-level keys and their values replaced by spaces of the same length.
    pub fn without(&self, text: &str, keys: &[&str]) -> String {
        let mut bytes = text.as_bytes().to_vec();
        for span in keys.iter().filter_map(|key| self.0.get(*key)) {
            let gone = bytes.get_mut(span.key.start..span.value.end).unwrap_or_default();
            // A value over several lines keeps its line ends.
            gone.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        // Whole characters were replaced, so this loses nothing.
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn collect(table: &DeTable<'_>, prefix: &str, spans: &mut BTreeMap<String, KeySpan>) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => collect(inner, &format!("{name}."), spans),
            // Tables of one name are told apart by number, from one.
            DeValue::Array(items) => {
                for (number, item) in items.iter().enumerate() {
                    if let DeValue::Table(inner) = item.get_ref() {
                        let name = format!("{name}.{}", number + 1);
                        collect(inner, &format!("{name}."), spans);
                        spans.insert(name, KeySpan { key: item.span(), value: item.span() });
                    }
                }
            }
            _ => {}
        }
        spans.insert(name, KeySpan { key: key.span(), value: value.span() });
    }
}
