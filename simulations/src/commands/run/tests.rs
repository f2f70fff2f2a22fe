#![allow(clippy::unwrap_used)]

use super::*;
use crate::harness::output::{Foreign, read_columns};
use crate::harness::scenario::toy::KINDS;

fn scenario(dir: &Path) -> PathBuf {
    let file = dir.join("toy.toml");
    fs::write(&file, "experiment = \"toy\"\nseed = 3\nruns = 4\n").unwrap();
    file
}

fn output(args: &RunArgs) -> anyhow::Result<String> {
    let mut out = Vec::new();
    run(args, KINDS, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let args = RunArgs { scenario: Some(scenario(dir.path())), json: true, ..RunArgs::default() };
    let one = output(&RunArgs { threads: Some(1), ..args.clone() }).unwrap();
    let three = output(&RunArgs { threads: Some(3), ..args.clone() }).unwrap();
    assert_eq!(one, three);
    let other = output(&RunArgs { seed: Some(99), ..args }).unwrap();
    assert_ne!(one, other);
    let json: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(json["trace_hashes"].as_array().unwrap().len(), 4);
    let delay = &json["measured"]["delay_s"];
    assert!(
        delay["low"].as_f64().unwrap() < 1.5 && 1.5 < delay["high"].as_f64().unwrap(),
        "{delay}"
    );
    assert_eq!(json["measured"]["bound"]["value"], "inf");
}

#[test]
fn a_directory_has_all_files_and_is_for_one_job() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let args = RunArgs {
        scenario: Some(scenario(dir.path())),
        out: Some(out.clone()),
        ..RunArgs::default()
    };
    let table = output(&args).unwrap();
    assert!(table.contains("delay_s") && table.contains("1.50000"), "{table}");
    let manifest: Value =
        serde_json::from_str(&fs::read_to_string(out.join("manifest.json")).unwrap()).unwrap();
    let files = manifest["files"].as_array().unwrap();
    for name in
        ["results.parquet", "packets.parquet", "trace.parquet", "latency.svg", "entropy.png"]
    {
        let file = files.iter().find(|file| file["name"] == name).unwrap();
        assert_eq!(file["bytes"], fs::metadata(out.join(name)).unwrap().len(), "{name}");
    }
    let mut rows = 0;
    read_columns(&out.join("packets.parquet"), |columns, _| {
        rows += columns["sent_ns"].len();
        Ok(())
    })
    .unwrap();
    assert_eq!(rows, 4 * 200);
    let before = fs::read(out.join("results.parquet")).unwrap();
    output(&args).unwrap();
    assert_eq!(before, fs::read(out.join("results.parquet")).unwrap());
    let error = output(&RunArgs { seed: Some(5), ..args }).unwrap_err();
    assert!(error.is::<Foreign>() && error.to_string().contains("seed"), "{error}");
}

#[test]
fn a_trace_that_a_run_left_can_be_attacked() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let args = RunArgs {
        scenario: Some(scenario(dir.path())),
        out: Some(out.clone()),
        ..RunArgs::default()
    };
    output(&args).unwrap();
    let attack = crate::commands::AttackArgs { dir: out, each_gateway: false, seed: 1, json: true };
    let mut json = Vec::new();
    crate::commands::attack(&attack, &mut json).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert!(!json["attacks"].as_array().unwrap().is_empty());
}
