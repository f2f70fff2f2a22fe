#![allow(clippy::unwrap_used)]

use super::toy::KINDS;
use super::*;

fn bad(text: &str) -> BadScenario {
    parse(Path::new("x.toml"), text.into(), KINDS).unwrap_err()
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_what_is_allowed() {
    let error = bad("experiment = \"toy\"\n[network]\nlayers = 2\nwidth = 3\n");
    assert_eq!(error.place, Some((4, 1)));
    let text = error.to_string();
    assert!(text.starts_with("x.toml, line 4, column 1: network.width: "), "{text}");
    assert!(text.contains("`layers`") && text.contains("`hop_mean_s`"), "{text}");
}

#[test]
fn an_impossible_value_is_found_in_the_file() {
    let error = bad("experiment = \"toy\"\nnetwork.hop_mean_s = 1.0\nnetwork.layers = 11\n");
    assert_eq!(error.to_string(), "x.toml, line 3, column 9: network.layers: must be 1 to 10");
}

#[test]
fn a_value_of_the_wrong_type_is_found_in_the_file() {
    let error = bad("experiment = \"toy\"\n\n[traffic]\npackets = \"many\"\n");
    assert_eq!((error.place, error.key.as_deref()), (Some((4, 11)), Some("traffic.packets")));
}

#[test]
fn a_missing_or_unknown_experiment_says_which_there_are() {
    assert!(bad("seed = 1\n").to_string().contains("is missing; one of: toy"));
    let error = bad("seed = 1\nexperiment = \"tony\"\n");
    assert_eq!(
        error.to_string(),
        "x.toml, line 2, column 1: experiment: there is no \"tony\"; one of: toy"
    );
    assert_eq!(bad("experiment = \"toy\"\nruns = 0\n").place, Some((2, 1)));
}

#[test]
fn broken_toml_is_found_in_the_file() {
    assert_eq!(bad("experiment = \"toy\"\nseed = = 2\n").place.unwrap().0, 2);
}

#[test]
fn a_missing_file_says_what_to_do() {
    let error = load(Path::new("/no/such.toml"), KINDS).unwrap_err().to_string();
    assert!(
        error.starts_with("/no/such.toml: no such file; ") && error.contains("--explain"),
        "{error}"
    );
}

#[test]
fn defaults_are_filled_in() {
    let scenario = parse(Path::new("x"), "experiment = \"toy\"\n".into(), KINDS).unwrap();
    assert_eq!((scenario.seed, scenario.runs), (1, 1));
    assert_eq!(scenario.settings["network"]["layers"].as_integer(), Some(3));
}

/// Every key of the experiment has a comment in its scenario, and the scenario is one.
fn check(kind: &Kind, kinds: &'static [Kind]) {
    let file = Path::new(kind.name);
    let scenario = parse(file, kind.explained.into(), kinds).unwrap();
    assert_eq!(scenario.kind.name, kind.name);
    let comments = comments(kind.explained).unwrap();
    for key in explain::keys(&(kind.defaults)().unwrap(), "") {
        let comment = comments.get(&key);
        assert!(comment.is_some_and(|c| !c.is_empty()), "{}: {key} has no comment", kind.name);
    }
    let explained = explain(kind).unwrap();
    let read = parse(file, explained.clone(), kinds).unwrap();
    assert_eq!(read.settings, (kind.defaults)().unwrap(), "{explained}");
}

#[test]
fn every_key_of_every_experiment_is_explained() {
    check(&KINDS[0], KINDS);
    experiments().iter().for_each(|kind| check(kind, experiments()));
}

#[test]
fn a_comment_above_and_one_behind_are_both_found() {
    let comments = comments(KINDS[0].explained).unwrap();
    assert_eq!(comments["network.layers"], "Hops, 1 to 10.");
    assert_eq!(comments["network.hop_mean_s"], "Mean delay at a hop,\nseconds.");
    assert_eq!(comments["network"], "The mixes.");
}
