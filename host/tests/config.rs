//! What a configuration may say, and what is said back.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use serde::Deserialize;
use shoal_host::config::{ConfigError, load, parse, resolve};

#[derive(Debug, Deserialize, PartialEq)]
#[serde(default)]
struct Config {
    name: String,
    rate: Rate,
    links: Links,
    nodes: Vec<Node>,
    maybe: Option<Node>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "x".into(),
            rate: Rate(1.0),
            links: Links { port: 1 },
            nodes: Vec::new(),
            maybe: None,
        }
    }
}

#[derive(Debug, Deserialize, PartialEq)]
struct Links {
    port: u16,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Node {
    id: u8,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(try_from = "f64")]
struct Rate(f64);

impl TryFrom<f64> for Rate {
    type Error = String;
    fn try_from(value: f64) -> Result<Self, String> {
        if value > 0.0 {
            Ok(Self(value))
        } else {
            Err(format!("{value} is no rate: wants more than 0 per second"))
        }
    }
}

fn read(text: &str, overrides: &[&str]) -> Result<(Config, Vec<String>), ConfigError> {
    let overrides: Vec<_> = overrides.iter().map(ToString::to_string).collect();
    parse(text, "a.toml", &overrides)
}

fn refused(text: &str, overrides: &[&str]) -> String {
    read(text, overrides).unwrap_err().to_string()
}

#[test]
fn an_empty_file_is_all_defaults() {
    assert_eq!(read("", &[]).unwrap(), (Config::default(), Vec::new()));
}

#[test]
fn unknown_keys_are_warnings_that_say_where() {
    let text =
        "nmae = 1\n[links]\nport = 5\nprot = 6\n[[nodes]]\nid = 1\nname = 2\n[maybe]\nid=1\nx=1\n";
    let (config, warnings) = read(text, &[]).unwrap();
    assert_eq!(config.links.port, 5);
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    for expected in [
        "a.toml:1:1: unknown key `nmae` is ignored",
        "a.toml:4:1: unknown key `links.prot` is ignored",
        "a.toml:7:1: unknown key `nodes.0.name` is ignored",
        "a.toml:10:1: unknown key `maybe.x` is ignored",
    ] {
        assert!(warnings.iter().any(|warning| warning == expected), "{warnings:?}");
    }
}

#[test]
fn a_wrong_type_says_line_column_and_key() {
    let error = refused("name = \"a\"\n\n[links]\nport = \"no\"\n", &[]);
    assert!(error.starts_with("a.toml:4:8: `links.port`: "), "{error}");
    assert!(error.ends_with("expected a whole number up to 65,535"), "{error}");
}

#[test]
fn a_wrong_value_says_what_is_allowed() {
    let error = refused("rate = -2.0\n", &[]);
    assert_eq!(error, "a.toml:1:8: `rate`: -2 is no rate: wants more than 0 per second");
}

#[test]
fn a_wrong_value_in_a_list_says_which_one() {
    let error = refused("[[nodes]]\nid = 1\n[[nodes]]\nid = 999\n", &[]);
    assert!(error.starts_with("a.toml:4:6: `nodes[1].id`: "), "{error}");
}

#[test]
fn a_missing_field_names_its_table() {
    let error = refused("[links]\n", &[]);
    assert!(error.starts_with("a.toml:1:1: `links`: missing field `port`"), "{error}");
}

#[test]
fn broken_toml_says_where() {
    let error = refused("name = \"a\"\nrate = = 3\n", &[]);
    assert!(error.starts_with("a.toml:2:8: "), "{error}");
}

#[test]
fn overrides_go_on_top_and_may_be_bare_strings() {
    let text = "name = \"a\"\n[links]\nport = 1\n";
    let (config, warnings) =
        read(text, &["links.port = 7", "name=b c", "rate=2.5", "nodes=[{id=3}]"]).unwrap();
    assert_eq!(config.links.port, 7);
    assert_eq!(config.name, "b c");
    assert_eq!(config.rate, Rate(2.5));
    assert_eq!(config.nodes, [Node { id: 3 }]);
    assert!(warnings.is_empty());
    let (_, warnings) = read(text, &["lniks.port=7"]).unwrap();
    assert_eq!(warnings, ["-o lniks.port=7: unknown key `lniks` is ignored"]);
}

#[test]
fn a_wrong_override_is_named() {
    let error = refused("[links]\nport = 1\n", &["name=q", "links.port=99999", "rate=3.0"]);
    assert!(error.starts_with("-o links.port=99999: `links.port`: "), "{error}");
    assert!(refused("", &["port"]).starts_with("-o port: "));
    assert!(refused("", &["a b=1"]).starts_with("-o a b=1: "));
}

#[test]
fn an_override_cannot_smuggle_in_a_second_key() {
    let (config, _) = read("", &["name=1\nrate = 5"]).unwrap();
    assert_eq!(config.name, "1\nrate = 5");
    assert_eq!(config.rate, Rate(1.0));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load::<Config>(Path::new("/nowhere/a.toml"), &[]).unwrap_err();
    assert!(error.to_string().contains("/nowhere/a.toml"));
}

#[test]
fn paths_are_relative_to_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.toml");
    std::fs::write(&file, "name = 'z'").unwrap();
    let loaded = load::<Config>(&file, &[]).unwrap();
    assert_eq!(resolve(&loaded.base, Path::new("keys/id")), dir.path().join("keys/id"));
    assert_eq!(resolve(&loaded.base, Path::new("/etc/id")), Path::new("/etc/id"));
}
