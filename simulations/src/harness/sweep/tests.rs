#![allow(clippy::unwrap_used)]

use super::*;
use crate::harness::output::Foreign;
use crate::harness::scenario::toy::KINDS;
use crate::harness::scenario::{BadScenario, spans};

const GRID: &str = r#"
title = "Toy"
[scenario]
experiment = "toy"
seed = 5
runs = 2
traffic.packets = 50
[sweep]
network.layers = [1, 2, 3]
network.hop_mean_s = [0.5, 1.0]
"#;

fn grid(dir: &Path, text: &str) -> PathBuf {
    let file = dir.join("grid.toml");
    fs::write(&file, text).unwrap();
    file
}

fn go(args: &SweepArgs) -> anyhow::Result<String> {
    let mut out = Vec::new();
    sweep(args, KINDS, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn merged(dir: &Path) -> [Vec<u8>; 3] {
    let files = ["results.json", "results.parquet", "figures/delay_s.svg"];
    files.map(|name| fs::read(dir.join(name)).unwrap())
}

#[test]
fn shards_and_single_jobs_and_an_interrupted_sweep_end_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let args = |out: &str| SweepArgs {
        grid: grid(dir.path(), GRID),
        out: Some(dir.path().join(out)),
        ..SweepArgs::default()
    };
    go(&SweepArgs { jobs: Some(2), ..args("whole") }).unwrap();
    let whole = merged(&dir.path().join("whole"));
    for index in [2, 3, 1] {
        go(&SweepArgs { shard: Some(Shard { index, of: 3 }), ..args("shards") }).unwrap();
    }
    assert_eq!(merged(&dir.path().join("shards")), whole);
    for job in (0..12).rev() {
        let said = go(&SweepArgs { job: Some(job), ..args("jobs") }).unwrap();
        assert!(said.contains("of 12 jobs done"), "{said}");
    }
    assert!(!dir.path().join("jobs/results.json").exists());
    go(&SweepArgs { merge: true, ..args("jobs") }).unwrap();
    assert_eq!(merged(&dir.path().join("jobs")), whole);
    // As after a crash: one result gone, one cut off.
    fs::remove_file(dir.path().join("whole/jobs/000003.json")).unwrap();
    fs::write(dir.path().join("whole/jobs/000007.json"), "{\"job\": 7, ").unwrap();
    fs::remove_file(dir.path().join("whole/results.json")).unwrap();
    let untouched = dir.path().join("whole/jobs/000001.json");
    let before = fs::metadata(&untouched).unwrap().modified().unwrap();
    assert!(go(&SweepArgs { merge: true, ..args("whole") }).is_err(), "two results are missing");
    go(&args("whole")).unwrap();
    assert_eq!(merged(&dir.path().join("whole")), whole);
    assert_eq!(fs::metadata(&untouched).unwrap().modified().unwrap(), before);
}

#[test]
fn results_of_another_grid_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let args = |text: &str| SweepArgs {
        grid: grid(dir.path(), text),
        out: Some(dir.path().join("out")),
        ..SweepArgs::default()
    };
    go(&args(GRID)).unwrap();
    let error = go(&args(&GRID.replace("[0.5, 1.0]", "[0.5, 2.0]"))).unwrap_err();
    assert!(error.is::<Foreign>(), "{error}");
}

#[test]
fn a_point_that_cannot_be_is_blamed_on_its_line_in_the_grid() {
    let dir = tempfile::tempdir().unwrap();
    let load = |text: &str| Grid::load(&grid(dir.path(), text), KINDS).err().unwrap();
    let error: BadScenario = load(&GRID.replace("[1, 2, 3]", "[1, 2, 30]"));
    assert_eq!(error.position.unwrap().0, 9);
    assert!(error.to_string().ends_with("sweep.network.layers: must be 1 to 10"), "{error}");
    let error = load(&GRID.replace("traffic.packets", "traffic.packages"));
    assert_eq!(error.position.unwrap().0, 7, "{error}");
    let error = load(&GRID.replace("title", "tittle"));
    assert!(error.to_string().contains("one of: title, base"), "{error}");
}

#[test]
fn jobs_are_in_the_order_of_the_file_and_the_last_key_varies_fastest() {
    let dir = tempfile::tempdir().unwrap();
    let grid = Grid::load(&grid(dir.path(), GRID), KINDS).unwrap();
    assert_eq!(grid.jobs.len(), 12);
    assert_eq!((grid.jobs[1].indices.as_slice(), grid.jobs[1].seed), (&[0, 0][..], 6));
    assert_eq!((grid.jobs[2].indices.as_slice(), grid.jobs[2].seed), (&[0, 1][..], 5));
    assert!(spans(Path::new("x"), GRID).unwrap().of_key("sweep.network.layers").is_some());
}

#[test]
fn a_shard_is_from_one_to_all() {
    assert_eq!("3/8".parse::<Shard>().unwrap(), Shard { index: 3, of: 8 });
    assert!(["0/8", "9/8", "3", "a/b"].iter().all(|text| text.parse::<Shard>().is_err()));
}
