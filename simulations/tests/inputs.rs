//! Inputs that nobody here wrote: lists of calls, scenarios and observations as strangers have them. Each is read as it is
//! meant, or refused with what is wrong, where, and what to do.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use shoal_sim::harness::output::read_truth;

/// Exit code, standard output and standard error.
fn sim(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-sim"));
    let Output { status, stdout, stderr } =
        command.args(args).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let file = dir.join(name);
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().into()
}

/// A scenario of a small network whose people write what this list says.
fn scenario(dir: &Path, list: &str, more: &str) -> String {
    let list = write(dir, "list.csv", list);
    let text = format!(
        "experiment = \"shoal\"\nwarm_up_s = 3.0\ndrain_s = 3.0\nnetwork.mixes_per_layer = 1\n\
         people.join_within_s = 1.0\nclass.name = \"text\"\n\
         [workload]\nkind = \"csv\"\nfile = {list:?}\nwindow_s = 20.0\nbegin_s = 0.0\n{more}"
    );
    write(dir, "scenario.toml", &text)
}

#[test]
fn no_row_of_a_list_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    for (number, list) in [
        "\u{feff}0,5,6\n1.5,6,7\n2,7,5\n",
        ",time,from,to\n0,0,5,6\n1,1.5,6,7\n2,2,7,5\n",
        "from;to;time\r\n5;6;0\r\n6;7;1.5\r\n7;5;2\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let file = scenario(dir.path(), list, "");
        let out = dir.path().join(format!("out{number}"));
        let (code, _, stderr) = sim(&["run", &file, "--out", out.to_str().unwrap()]);
        assert_eq!(code, 0, "{stderr}");
        let truth = read_truth(&out, 3).unwrap().unwrap().records;
        let rows: Vec<_> = truth.iter().map(|row| (row.caller, row.callee)).collect();
        assert_eq!(rows, [(0, 1), (1, 2), (2, 0)], "{list:?}");
    }
    let file = scenario(dir.path(), "NA,5,6\n1,6,7\n", "");
    let (code, _, stderr) = sim(&["run", &file]);
    assert_eq!(code, 78);
    assert!(stderr.contains("list.csv, line 1: the time must be"), "{stderr}");
}

#[test]
fn check_and_run_judge_alike_and_say_what_a_window_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let list = "5,0,1\n6,2,3\n";
    let whole = fs::read_to_string(scenario(dir.path(), list, "")).unwrap();
    let churn = "people.online_mean_s = 1e-6\npeople.offline_mean_s = 1e-6\nclass.name";
    for (text, key) in [
        (whole.replace("window_s = 20.0", "window_s = 1e9"), "workload.window_s"),
        (whole.replace("class.name", churn), "people.online_mean_s"),
    ] {
        let file = write(dir.path(), "endless.toml", &text);
        let judged = [sim(&["run", "--check", &file]), sim(&["run", &file])];
        for (code, _, stderr) in &judged {
            assert_eq!(*code, 78, "{stderr}");
            assert!(
                stderr.contains(", line ") && stderr.contains(key) && stderr.contains("must "),
                "{stderr}"
            );
        }
        assert_eq!(judged[0].2, judged[1].2);
    }
    let bad = write(dir.path(), "bad.csv", "time,from,to\n1,2,3\n1,2,2\n");
    let text = format!("experiment = \"records\"\nkind = \"csv\"\nfile = {bad:?}\n");
    let file = write(dir.path(), "records.toml", &text);
    for args in [&["run", "--check", &file][..], &["run", &file]] {
        let (code, _, stderr) = sim(args);
        assert_eq!(code, 78, "{stderr}");
        assert!(
            stderr.contains("line 3, column 1: file: ") && stderr.contains("bad.csv, line 3: "),
            "{stderr}"
        );
    }
    let file = scenario(dir.path(), list, "people = 24\n");
    let said = "There are 4 people and not 24 (workload.people)";
    for args in [&["run", "--check", &file][..], &["run", &file]] {
        let (code, stdout, stderr) = sim(args);
        assert!(code == 0 && stdout.contains(said), "{stdout} {stderr}");
    }
    let (_, stdout, _) = sim(&["run", &file, "--json"]);
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    assert!(summary["notes"][0].as_str().unwrap().starts_with(said), "{summary}");
    let text = fs::read_to_string(&file).unwrap().replace("begin_s = 0.0", "begin_s = 500.0");
    let file = write(dir.path(), "late.toml", &text.replace("people = 24\n", ""));
    let (code, stdout, stderr) = sim(&["run", &file]);
    assert!(
        code == 0 && stdout.contains("Nothing happens: the list has rows from 5 to 6 s"),
        "{stdout} {stderr}"
    );
}

#[test]
fn an_attack_on_nothing_or_on_what_cannot_be_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = scenario(dir.path(), "5,0,1\n6,2,3\n", "");
    let out = dir.path().join("out");
    let name = out.to_str().unwrap();
    assert_eq!(sim(&["run", &file, "--out", name]).0, 0);
    let public = out.join("public.json");
    let whole = fs::read_to_string(&public).unwrap();
    let known: Value = serde_json::from_str(&whole).unwrap();
    for (key, value) in [
        ("people", Value::from(4_000_000_000_u64)),
        ("hops", 4_000_000_000_u64.into()),
        ("end_ns", 0.into()),
        ("hop_mean_s", (-1.0).into()),
        ("hop_mean_s", 1e300.into()),
    ] {
        let mut changed = known.clone();
        changed[key] = value;
        fs::write(&public, changed.to_string()).unwrap();
        let (code, _, stderr) = sim(&["attack", name]);
        assert_eq!(code, 1, "{key}");
        assert!(stderr.contains("public.json: ") && stderr.contains(key), "{stderr}");
    }
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("class.name", "observer.links = \"none\"\nclass.name");
    let file = write(dir.path(), "blind.toml", &text);
    let blind = dir.path().join("blind");
    let name = blind.to_str().unwrap();
    assert_eq!(sim(&["run", &file, "--out", name]).0, 0);
    for args in [&["attack", name][..], &["attack", name, "--json"]] {
        let (code, stdout, stderr) = sim(args);
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains("nothing was observed"), "{stderr}");
    }
}
