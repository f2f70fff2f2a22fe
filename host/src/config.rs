//! Configuration: TOML with `-o key=value` on top. A key that nobody knows is an error that names the nearest known one if
//! the type denies unknown fields, as those of our files do, and else a warning. A value that is wrong is an error that says where it stands, which key it belongs to and what is allowed (what serde, or the
//! type's own `Deserialize`, says). Programs end with [`Exit::Config`](crate::exit::Exit::Config) on it.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A configuration, and what is odd about it.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The values of the file.
    pub config: T,
    /// One readable line for each unknown key.
    pub warnings: Vec<String>,
    /// The directory of the file; relative paths in it start there, see [`resolve`].
    pub base: PathBuf,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", .path.display())]
    Read {
        /// The file that was asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{location}: {}{message}", .key.as_ref().map(|key| format!("`{key}`: ")).unwrap_or_default())]
    Invalid {
        /// `file:line:column`, or the `-o` that it came from.
        location: String,
        /// The key with its tables, dotted, where there is one.
        key: Option<String>,
        /// What is wrong and what is allowed, on one line.
        message: String,
    },
    /// A `-o` that is not `key=value`.
    #[error("-o {text}: {message}")]
    Override {
        /// The value that was given.
        text: String,
        /// What is wrong with it.
        message: String,
    },
}

/// Reads `path` and puts `overrides`, each `dotted.key=value`, on top. A value that is not TOML is a string.
///
/// # Errors
/// When the file or an override cannot be read, or does not say what `T` wants.
pub fn load<T: DeserializeOwned>(
    path: &Path,
    overrides: &[String],
) -> Result<Loaded<T>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let (config, warnings) = parse(&text, &path.display().to_string(), overrides)?;
    let base = path.parent().unwrap_or(Path::new("")).to_owned();
    Ok(Loaded { config, warnings, base })
}

/// A `path` from a configuration that lies in the directory `base`.
pub fn resolve(base: &Path, path: &Path) -> PathBuf {
    base.join(path)
}

/// An IP address with a port.
///
/// # Errors
/// What is wanted; of a name, that names are not looked up.
pub fn parse_address(text: &str) -> Result<SocketAddr, &'static str> {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    let is_name = host.chars().any(|c| c.is_ascii_alphabetic()) && !host.contains(':');
    text.parse().map_err(|_| {
        if is_name {
            "wants an IP address with a port (192.0.2.1:9001, [2001:db8::1]:9001): names are not looked up here"
        } else {
            "wants an IP address with a port: 192.0.2.1:9001 or [2001:db8::1]:9001"
        }
    })
}

/// As [`load`], of a `text` that is called `name`.
///
/// # Errors
/// As for [`load`], except for reading.
pub fn parse<T: DeserializeOwned>(
    text: &str,
    name: &str,
    overrides: &[String],
) -> Result<(T, Vec<String>), ConfigError> {
    let source = Source { text, name, overrides: padded(text, overrides)? };
    let parse = |text| DeTable::parse(text).map_err(|error| source.explain(&error, None));
    let mut root = parse(text)?;
    for (_, text) in &source.overrides {
        merge(root.get_mut(), parse(text)?.into_inner());
    }

    let mut unknown = Vec::new();
    let table = root.clone();
    let config = serde_ignored::deserialize(toml::Deserializer::from(root), |key| {
        unknown.push(dotted(&key))
    })
    .map_err(|error| source.explain(&error, Some(table.get_ref())))?;
    let warning = |key: String| match find(table.get_ref(), &key) {
        Some(at) => format!("{}: unknown key `{key}` is ignored", source.location(at.start)),
        None => format!("{name}: unknown key `{key}` is ignored"),
    };
    Ok((config, unknown.into_iter().map(warning).collect()))
}

/// What serde says, for people who do not write Rust.
fn in_plain_words(message: &str) -> String {
    let mut message = message.trim().replace('\n', "; ");
    if let Some((key, known)) = unknown_field(&message) {
        return unknown_key(key, &known);
    }
    for (kind, allowed) in [
        ("usize", "a whole number"),
        ("u64", "a whole number"),
        ("u32", "a whole number up to 4,294,967,295"),
        ("u16", "a whole number up to 65,535"),
        ("u8", "a whole number up to 255"),
    ] {
        message = message.replace(&format!("expected {kind}"), &format!("expected {allowed}"));
    }
    message
}

/// A field that serde does not know, and those that it does.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field `")?.split('`').step_by(2);
    let key = quoted.next()?;
    // Between the quotes stand "expected one of" and commas.
    let known = message.split_once("expected").map_or("", |(_, known)| known);
    Some((key, known.split('`').skip(1).step_by(2).collect()))
}

/// What to say of a key that nobody knows.
fn unknown_key(key: &str, known: &[&str]) -> String {
    // One that is the beginning of the other is near.
    let begins = |name: &str| key.len() > 2 && (name.starts_with(key) || key.starts_with(name));
    let far = |name: &str| if begins(name) { 1 } else { strsim::levenshtein(key, name) };
    let near = known.iter().map(|name| (far(name), name)).min();
    match near {
        Some((changes, name)) if changes <= (key.len() / 3).clamp(1, 3) => {
            format!("unknown key; did you mean `{name}`?")
        }
        _ if known.is_empty() => "unknown key".into(),
        _ => format!("unknown key; known here are {}", known.join(", ")),
    }
}

struct Source<'a> {
    text: &'a str,
    name: &'a str,
    /// What was given after `-o`, and the TOML of it.
    overrides: Vec<(&'a str, String)>,
}

impl Source<'_> {
    /// Where the byte `at` stands, for a person.
    fn location(&self, at: usize) -> String {
        if let Some(before) = self.text.get(..at) {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            return format!("{}:{line}:{column}", self.name);
        }
        let from = self.overrides.iter().rev().find(|(_, toml)| leading_spaces(toml) <= at);
        from.map_or_else(|| self.name.to_owned(), |(given, _)| format!("-o {given}"))
    }

    fn explain(&self, error: &toml::de::Error, root: Option<&DeTable<'_>>) -> ConfigError {
        let span = error.span();
        ConfigError::Invalid {
            location: span
                .as_ref()
                .map_or_else(|| self.name.to_owned(), |span| self.location(span.start)),
            key: root.zip(span).and_then(|(root, span)| key_at(root, &span)),
            message: in_plain_words(error.message()),
        }
    }
}

/// Each override as a TOML document that starts where the one before it ends, so that one number tells where a
/// value came from.
fn padded<'a>(text: &str, overrides: &'a [String]) -> Result<Vec<(&'a str, String)>, ConfigError> {
    let mut at = text.len() + 1;
    let mut out = Vec::with_capacity(overrides.len());
    for given in overrides {
        let wrong = |message: &str| ConfigError::Override {
            text: given.clone(),
            message: message.to_owned(),
        };
        let (key, value) = given.split_once('=').ok_or_else(|| wrong("wants key=value"))?;
        let (key, value) = (key.trim(), value.trim());
        let is_bare = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        };
        if !key.split('.').all(is_bare) {
            return Err(wrong(
                "the key wants letters, digits, `-` and `_`, with dots between tables",
            ));
        }
        let is_toml = !value.contains('\n') && DeValue::parse(value).is_ok();
        let value = if is_toml {
            value.to_owned()
        } else {
            toml::Value::String(value.to_owned()).to_string()
        };
        let toml = format!("{:at$}{key} = {value}", "");
        at = toml.len() + 1;
        out.push((given.as_str(), toml));
    }
    Ok(out)
}

fn leading_spaces(toml: &str) -> usize {
    toml.len() - toml.trim_start_matches(' ').len()
}

fn merge<'a>(base: &mut DeTable<'a>, over: DeTable<'a>) {
    for (key, value) in over {
        match (base.get_mut(key.get_ref().as_ref()).map(Spanned::get_mut), value) {
            (Some(DeValue::Table(base)), value) if value.get_ref().is_table() => {
                if let DeValue::Table(over) = value.into_inner() {
                    merge(base, over);
                }
            }
            (_, value) => {
                base.remove(key.get_ref().as_ref());
                base.insert(key, value);
            }
        }
    }
}

/// The dotted key of the innermost value that holds `span`, or whose key it is.
fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let holds = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, value) in table.iter() {
        // A table's own span is its header: look inside first.
        let inner = value_at(value.get_ref(), span);
        if inner.is_some() || holds(value.span()) || holds(key.span()) {
            return Some(format!("{}{}", key.get_ref(), inner.unwrap_or_default()));
        }
    }
    None
}

fn value_at(value: &DeValue<'_>, span: &Range<usize>) -> Option<String> {
    match value {
        DeValue::Table(table) => key_at(table, span).map(|key| format!(".{key}")),
        DeValue::Array(items) => items.iter().enumerate().find_map(|(n, item)| {
            let outer = item.span();
            match value_at(item.get_ref(), span) {
                Some(inner) => Some(format!("[{n}]{inner}")),
                None => {
                    (outer.start <= span.start && span.end <= outer.end).then(|| format!("[{n}]"))
                }
            }
        }),
        _ => None,
    }
}

/// The name of a key, without the `?` that serde_ignored writes for an `Option` on the way.
fn dotted(key: &serde_ignored::Path<'_>) -> String {
    key.to_string().replace(".?", "")
}

/// Where the dotted `key`, as serde_ignored spells it, stands.
fn find(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let (first, rest) =
        key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let (name, value) = table.iter().find(|(name, _)| name.get_ref() == first)?;
    let Some(mut rest) = rest else {
        return Some(name.span());
    };
    let mut value = value.get_ref();
    loop {
        match value {
            DeValue::Table(table) => return find(table, rest),
            DeValue::Array(items) => {
                let (index, after) = rest.split_once('.')?;
                value = items.get(index.parse::<usize>().ok()?)?.get_ref();
                rest = after;
            }
            _ => return None,
        }
    }
}
