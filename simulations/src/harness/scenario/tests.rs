#![allow(clippy::unwrap_used)]

use super::toy::KINDS;
use super::*;

fn bad(text: &str) -> BadScenario {
    parse(Path::new("x.toml"), text.into(), KINDS).unwrap_err()
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_what_is_allowed() {
    let error = bad("experiment = \"toy\"\n[network]\nlayers = 2\nwidth = 3\n");
    assert_eq!(error.position, Some((4, 1)));
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
    assert_eq!((error.position, error.key.as_deref()), (Some((4, 11)), Some("traffic.packets")));
}

#[test]
fn a_missing_or_unknown_experiment_says_which_there_are() {
    assert!(bad("seed = 1\n").to_string().contains("is missing; one of: toy"));
    let error = bad("seed = 1\nexperiment = \"tony\"\n");
    assert_eq!(
        error.to_string(),
        "x.toml, line 2, column 1: experiment: there is no \"tony\"; one of: toy"
    );
    assert_eq!(bad("experiment = \"toy\"\nruns = 0\n").position, Some((2, 1)));
}

#[test]
fn broken_toml_is_found_in_the_file() {
    assert_eq!(bad("experiment = \"toy\"\nseed = = 2\n").position.unwrap().0, 2);
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
fn keys_are_explained_in_the_order_of_the_source() {
    let order = |text: &str, keys: &[&str]| {
        let offsets: Vec<_> = keys.iter().map(|key| text.find(key).unwrap()).collect();
        assert!(offsets.is_sorted(), "{keys:?}: {text}");
    };
    let shoal = experiments().iter().find(|kind| kind.name == "shoal").unwrap();
    let text = explain(shoal).unwrap();
    order(&text, &["\nonline_mean_s", "\noffline_mean_s", "\naccess_loss"]);
    order(&text, &["\n[network]", "\nlayers", "\nmixes_per_layer", "\ngateways", "\n[class]"]);
    // Keys that are not set unless given stand in their place, too, each under its own comment.
    order(
        &text,
        &[
            "\n[class]",
            "\nname",
            "\n# Payload slots, 1/s.\n# payload_per_s = 1.0\n\n# Loop",
            "\n[people]",
        ],
    );
    order(
        &text,
        &["# Where the window begins", "\n# begin_s = 1.0\n\n# What becomes of missed", "\nmissed"],
    );
}

#[test]
fn a_value_is_refused_in_words_with_its_key() {
    let text = bad("experiment = \"toy\"\n[network]\nlayers = \"ten\"\n").to_string();
    assert!(
        text.starts_with("x.toml, line 3, column 10: network.layers: must be a whole number"),
        "{text}"
    );
    let text = bad("experiment = \"toy\"\n[traffic]\npackets = 99999999999999999999\n").to_string();
    assert!(text.contains("traffic.packets: ") && !text.contains("128"), "{text}");
    let text = bad("experiment = \"toy\"\nseed = 99999999999999999999\n").to_string();
    assert!(text.contains("seed: ") && !text.contains("128"), "{text}");
    let parsed = |text: &str| {
        parse(Path::new("x.toml"), text.into(), experiments()).unwrap_err().to_string()
    };
    let width = parsed("experiment = \"stratified\"\n[network]\nwidth = \"ten\"\n");
    assert!(
        width.contains(
            "line 3, column 9: network.width: must be a whole number from 1 on, or a list"
        ),
        "{width}"
    );
    let warm = parsed("experiment = \"shoal\"\nwarm_up_s = 1.0\n[people]\nstrict = true\n");
    assert!(warm.contains("line 2, column 1: warm_up_s: "), "{warm}");
    assert!(warm.contains("people.join_within_s, 5, must be 0 to warm_up_s, 1"), "{warm}");
    let joins = parsed("experiment = \"shoal\"\npeople.join_within_s = 60.0\nwarm_up_s = 15.0\n");
    assert!(joins.contains("line 2, column 8: people.join_within_s: "), "{joins}");
}

#[test]
fn a_comment_above_and_one_behind_are_both_found() {
    let comments = comments(KINDS[0].explained).unwrap();
    assert_eq!(comments["network.layers"], "Hops, 1 to 10.");
    assert_eq!(comments["network.hop_mean_s"], "Mean delay at a hop,\nseconds.");
    assert_eq!(comments["network"], "The mixes.");
}
