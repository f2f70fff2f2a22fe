//! The simulator from the command line: what it refuses, what it leaves behind, and that neither threads, interruptions nor
//! the order of parts change a result.

// Tests fail by panicking; one waits for a process of its own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-sim"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Exit code, standard output and standard error.
fn sim(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Standard output of a call that must succeed.
fn good(args: &[&str]) -> String {
    let (code, stdout, stderr) = sim(args);
    assert_eq!(code, 0, "{args:?}: {stderr}");
    stdout
}

/// Standard error of a call that must fail like this.
fn bad(args: &[&str], exit: i32) -> String {
    let (code, _, stderr) = sim(args);
    assert_eq!(code, exit, "{args:?}: {stderr}");
    stderr
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let file = dir.join(name);
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().into()
}

/// A path in a directory, for the command line.
fn within(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().unwrap().into()
}

/// All files below a directory, by their names there; those that are not whole left out.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if !path.file_name().unwrap().to_str().unwrap().starts_with(".part-") {
                all.insert(path.strip_prefix(dir).unwrap().into(), fs::read(path).unwrap());
            }
        }
    }
    all
}

/// A small network whose packets are followed.
const STRATIFIED: &str = "experiment = \"stratified\"\nruns = 3\ntargets = 40\ndelay_samples = 2000\n\
    [network]\nlayers = 2\nwidth = [2, 3]\nhop_mean_s = 0.1\n[traffic]\nusers = 20\nper_user_per_s = 5.0\n";

/// Eight people, four pairs, ten calls in 110 s.
const CALLS: &str = "time,from,to,duration\n5,0,1,20\n12,2,3,25\n20,4,5,15\n30,6,7,20\n45,0,1,15\n\
    55,2,3,20\n62,4,5,30\n70,6,7,10\n85,0,1,10\n90,2,3,15\n";

/// Those calls as the workload of an experiment.
fn calls(dir: &Path, name: &str, experiment: &str) -> String {
    let list = write(dir, "calls.csv", CALLS);
    let workload =
        format!("[workload]\nkind = \"csv\"\nfile = {list:?}\nbegin_s = 0.0\nwindow_s = 110.0\n");
    write(dir, name, &format!("{experiment}\n{workload}"))
}

/// The call class over three mixes in each layer: with one, first mixes could tell nobody anything.
const SHOAL: &str = "experiment = \"shoal\"\nwarm_up_s = 5.0\ndrain_s = 5.0\n\
    network.mixes_per_layer = 3\nclass.name = \"call\"\npeople.join_within_s = 2.0";

#[test]
fn a_scenario_that_cannot_be_exits_78_with_line_and_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("", "line 1, column 1: experiment: is missing; one of: shoal, "),
        ("experiment = \"pol\"", "line 1, column 1: experiment: there is no \"pol\"; one of: "),
        (
            "experiment = \"pool\"\nrate = 1.0",
            "line 2, column 1: rate: unknown field `rate`, expected one of `rate_per_s`",
        ),
        (
            "experiment = \"pool\"\nrate_per_s = nan",
            "line 2, column 1: rate_per_s: must be 0.000001 to ",
        ),
        (
            "experiment = \"pool\"\nrate_per_s = -1.0",
            "line 2, column 1: rate_per_s: must be 0.000001 to ",
        ),
        (
            "experiment = \"pool\"\nrate_per_s = \"x\"",
            "line 2, column 14: rate_per_s: must be a number, not string",
        ),
        (
            "experiment = \"pool\"\n\nruns = 0",
            "line 3, column 1: runs: must be a whole number, 1 to ",
        ),
        ("experiment = \"pool\"\nruns = 9223372036854775807", "line 2, column 1: runs: must be "),
        (
            "experiment = \"pool\"\nseed = -1",
            "line 2, column 1: seed: must be a whole number, 0 to ",
        ),
        ("experiment = \"pool\"\nseed == 1", "line 2, column 7: "),
        (
            "experiment = \"stratified\"\n[network.corrupt]\nin_all = 3",
            "line 3, column 1: network.corrupt.in_all: unknown field",
        ),
        (
            "experiment = \"stratified\"\n[network]\nwidth = [3]",
            "line 3, column 1: network.width: width must be one number, or one for each of the 3 layers",
        ),
        (
            "experiment = \"stratified\"\ntraffic.rate_per_s = inf",
            "line 2, column 9: traffic.rate_per_s: must give ",
        ),
        (
            "experiment = \"shoal\"\n[observer]\ncorrupt_nodes = [99]",
            "line 3, column 1: observer.corrupt_nodes: there are nodes 0 to ",
        ),
        (
            "experiment = \"shoal\"\n[[attacks]]\nlinks = \"node * > node *\"\n[[attacks]]\nlinks = \"node * > node *\"\ndrop_share = 2.0",
            "line 6, column 1: attacks.2.drop_share: must be 0 to 1",
        ),
    ];
    for (number, (text, says)) in cases.into_iter().enumerate() {
        let file = write(dir.path(), &format!("{number}.toml"), text);
        for arguments in [vec!["run", &file], vec!["run", "--check", &file]] {
            let stderr = bad(&arguments, 78);
            assert!(stderr.contains(&format!("{file}, {says}")), "{text:?} gives {stderr}");
            assert_eq!(stderr.trim().lines().count(), 1, "{stderr}");
        }
    }
    // Files that a scenario names, before anything runs.
    let records = write(dir.path(), "records.csv", "t,a,b\n1,2,3\n1,x,3\n");
    let matrix = write(dir.path(), "matrix.csv", ",a,b\na,1,2\n");
    for (text, says) in [
        (
            format!("experiment = \"baseline\"\n[workload]\nkind = \"csv\"\nfile = \"{records}\""),
            format!("line 4, column 1: workload.file: {records}, line 3: from must be"),
        ),
        (
            format!("experiment = \"shoal\"\n[links]\nmatrix = \"{matrix}\""),
            format!("line 3, column 1: links.matrix: {matrix}: 1 rows where 2 are expected"),
        ),
    ] {
        let file = write(dir.path(), "names.toml", &text);
        for arguments in [vec!["run", &file], vec!["run", "--check", &file]] {
            let stderr = bad(&arguments, 78);
            assert!(stderr.contains(&format!("{file}, {says}")), "{text:?} gives {stderr}");
        }
    }
    fs::write(dir.path().join("binary.toml"), [0xff, 0, 0xfe]).unwrap();
    assert!(bad(&["run", &within(dir.path(), "binary.toml")], 78).contains("UTF-8"));
    assert!(bad(&["run", &within(dir.path(), "none.toml")], 78).contains("no such file"));
    assert!(bad(&["run", dir.path().to_str().unwrap()], 78).contains("cannot be read"));
}

#[test]
fn work_without_end_or_more_than_memory_is_refused_before_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        "experiment = \"stratified\"\nnetwork.hop_mean_s = 1e6\ntraffic.rate_per_s = 1e8",
        "experiment = \"stratified\"\ndelay_samples = 4000000000",
        "experiment = \"stratified\"\nevery = 9223372036854775807",
        "experiment = \"slots\"\nrate_per_s = 1e-300",
        "experiment = \"pool\"\nrate_per_s = 1e-6",
        "experiment = \"loopix\"\nusers = 1000000\nhop_mean_s = 1e5",
        "experiment = \"blending\"\nothers_per_s = 1e6\nhop_mean_s = 1e4",
        "experiment = \"flow_matching\"\nobservations = 1000000\nflows = 10000",
        "experiment = \"intersection\"\nobservations = 100000\ndraws = 1000000",
        "experiment = \"disclosure\"\nprofiles.users = 100000",
        "experiment = \"disclosure\"\nusers = 1000000\nfriends = 1000000",
        "experiment = \"disclosure_continuous\"\nbackground_per_s = 1e6\nalice_per_s = 1e-6",
        "experiment = \"shoal\"\n[workload]\nkind = \"none\"\npeople = 4000000000",
        "experiment = \"baseline\"\n[workload]\nkind = \"synthetic\"\nsynthetic.people = 10000000\nsynthetic.edge_per_day = 1e6",
        "experiment = \"baseline\"\nsystems.nym.hop_mean_ms = 1e300",
        "experiment = \"baseline\"\nsystems.traffic.call_per_s = 1e300",
        "experiment = \"baseline\"\n[workload]\nkind = \"download\"\npeople = 10\ndownload.bytes = 1000000000000",
        "experiment = \"baseline\"\n[workload]\nkind = \"download\"\npeople = 1000\nwindow_s = 1e9\ndownload.every_s = 0.001",
    ];
    for (number, text) in cases.into_iter().enumerate() {
        let file = write(dir.path(), &format!("{number}.toml"), text);
        let stderr = bad(&["run", "--check", &file], 78);
        assert!(stderr.contains(", line ") && stderr.contains("must "), "{text:?} gives {stderr}");
    }
}

#[test]
fn every_scenario_of_the_project_is_accepted() {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut all = 0;
    for entry in fs::read_dir(scenarios).unwrap() {
        let file = entry.unwrap().path();
        let file = file.to_str().unwrap();
        if fs::read_to_string(file).unwrap().lines().any(|line| line == "[sweep]") {
            assert!(good(&["sweep", file, "--list"]).lines().count() > 1, "{file}");
        } else {
            assert!(good(&["run", "--check", file]).contains("good, experiment "), "{file}");
        }
        all += 1;
    }
    assert!(all > 10);
}

#[test]
fn every_experiment_accepts_the_scenario_that_explains_it() {
    let dir = tempfile::tempdir().unwrap();
    for line in good(&["run", "--list"]).lines() {
        let name = line.split_whitespace().next().unwrap();
        let file = write(dir.path(), name, &good(&["run", "--explain", name]));
        assert!(good(&["run", "--check", &file]).contains(name), "{name}");
    }
    assert!(bad(&["run", "--explain", "nothing"], 2).contains("one of: shoal, "));
}

#[test]
fn a_run_leaves_the_files_that_its_manifest_names() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "network.toml", STRATIFIED);
    let out = within(dir.path(), "out");
    good(&["run", &file, "--out", &out]);
    let mut left = files(Path::new(&out));
    let manifest: Value =
        serde_json::from_slice(&left.remove(Path::new("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["scenario_text"], STRATIFIED);
    assert_eq!(manifest["job"]["settings"]["network"]["layers"], 2);
    for named in manifest["files"].as_array().unwrap() {
        let name = named["name"].as_str().unwrap();
        let bytes = left.remove(Path::new(name)).unwrap_or_else(|| panic!("{name} is not there"));
        assert_eq!(named["bytes"], bytes.len(), "{name}");
        let (_, kind) = name.rsplit_once('.').unwrap();
        let is_one = match kind {
            "parquet" => bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"),
            "png" => bytes.starts_with(b"\x89PNG\r\n"),
            "svg" => bytes.starts_with(b"<svg") && bytes.trim_ascii().ends_with(b"</svg>"),
            _ => false,
        };
        assert!(is_one, "{name}");
    }
    assert!(left.is_empty(), "not in the manifest: {:?}", left.keys());
    let names = manifest["files"].to_string();
    for name in ["results.parquet", "packets.parquet", "latency.svg", "entropy.png"] {
        assert!(names.contains(name), "{name} is missing in {names}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_one_thread_and_on_two() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "network.toml", STRATIFIED);
    let run = |threads: &str, seed: &str| {
        let out = within(dir.path(), &format!("{threads}-{seed}"));
        let more = ["--threads", threads, "--seed", seed, "--out", &out, "--json"];
        let line = good(&[&["run", &file], more.as_slice()].concat());
        serde_json::from_str::<Value>(&line).unwrap();
        (line, files(Path::new(&out)))
    };
    let one = run("1", "18446744073709551615");
    assert!(one == run("2", "18446744073709551615"));
    assert_ne!(one.0, run("2", "5").0);
}

#[test]
fn a_directory_is_for_one_job() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "network.toml", STRATIFIED);
    let out = within(dir.path(), "out");
    good(&["run", &file, "--out", &out]);
    let before = files(Path::new(&out));
    good(&["run", &file, "--out", &out]);
    assert!(bad(&["run", &file, "--seed", "9", "--out", &out], 2).contains("seed is 1 there"));
    assert!(bad(&["run", &file, "--out", &within(dir.path(), "")], 2).contains("in it and no"));
    assert!(before == files(Path::new(&out)));
    assert!(bad(&["run", &file, "--out", &file], 1).contains("making "));
}

/// A grid of four points and three seeds.
fn grid(dir: &Path, departures: u32) -> String {
    let text = format!(
        "seeds = [1, 2, 3]\n[scenario]\nexperiment = \"pool\"\ndepartures = {departures}\n\
         [sweep]\nrate_per_s = [1.0, 3.0]\nhop_mean_s = [0.5, 1.0]\n"
    );
    write(dir, "grid.toml", &text)
}

#[test]
fn a_sweep_that_is_killed_and_resumed_equals_one_that_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let grid = grid(dir.path(), 200_000);
    let out = within(dir.path(), "killed");
    let sweep = ["sweep", &grid, "--jobs", "1", "--out", &out];
    let mut child = command(&sweep).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    let done = || files(Path::new(&out)).len();
    while !Path::new(&out).join("jobs/000001.json").exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "no job has ended");
        std::thread::sleep(Duration::from_millis(2));
    }
    // SIGKILL: nothing can be tidied up.
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(done() < 12, "the sweep ended before it was killed");
    let first = fs::metadata(Path::new(&out).join("jobs/000000.json")).unwrap().modified().unwrap();
    let half = Path::new(&out).join("jobs/.part-x");
    fs::write(&half, "half of a result").unwrap();
    good(&sweep);
    assert!(!half.exists(), "what was left half-written is still there");
    let after = fs::metadata(Path::new(&out).join("jobs/000000.json")).unwrap().modified().unwrap();
    assert_eq!(first, after, "a result that was there has been computed again");
    let whole = within(dir.path(), "whole");
    good(&["sweep", &grid, "--out", &whole]);
    assert!(files(Path::new(&out)) == files(Path::new(&whole)));
}

#[test]
fn shards_and_single_jobs_in_any_order_equal_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let grid = grid(dir.path(), 2_000);
    let (whole, parts) = (within(dir.path(), "whole"), within(dir.path(), "parts"));
    good(&["sweep", &grid, "--out", &whole]);
    assert!(bad(&["sweep", &grid, "--merge", "--out", &parts], 1).contains("12 of 12 jobs"));
    good(&["sweep", &grid, "--shard", "3/3", "--out", &parts]);
    for job in ["7", "0", "3"] {
        good(&["sweep", &grid, "--job", job, "--out", &parts]);
    }
    assert!(bad(&["sweep", &grid, "--merge", "--out", &parts], 1).contains("5 of 12 jobs"));
    good(&["sweep", &grid, "--shard", "1/3", "--out", &parts]);
    good(&["sweep", &grid, "--shard", "2/3", "--out", &parts]);
    good(&["sweep", &grid, "--merge", "--out", &parts]);
    assert!(files(Path::new(&whole)) == files(Path::new(&parts)));
    assert!(bad(&["sweep", &grid, "--job", "12", "--out", &parts], 2).contains("jobs are 0 to 11"));
    assert!(bad(&["sweep", &grid, "--shard", "4/3", "--out", &parts], 2).contains("no shard"));
}

#[test]
fn a_grid_that_cannot_be_exits_78_with_line_and_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let many: Vec<String> = (1..=1_000).map(|n| format!("{n}.0")).collect();
    let many = many.join(", ");
    let cases = [
        ("[sweep]\nrate = [1.0]", "line 4, column 1: sweep.rate: unknown field"),
        ("[sweep]\nrate_per_s = [1.0, -1.0]", "line 4, column 1: sweep.rate_per_s: must be "),
        ("[sweep]\nrate_per_s = []", "line 4, column 1: sweep.rate_per_s: must be a list"),
        ("[sweep]\nseed = [1, 2]", "line 4, column 1: sweep.seed: cannot be swept"),
        ("[other]\nx = 1", "line 3, column 2: other: unknown key; one of: title, "),
        (
            &format!("[sweep]\nrate_per_s = [{many}]\nhop_mean_s = [{many}]"),
            "line 3, column 2: sweep: more than 100000 jobs",
        ),
    ];
    for (text, says) in cases {
        let scenario = "[scenario]\nexperiment = \"pool\"\n";
        let grid = write(dir.path(), "grid.toml", &format!("{scenario}{text}\n"));
        let stderr = bad(&["sweep", &grid], 78);
        assert!(stderr.contains(&format!("{grid}, {says}")), "{text:.60} gives {stderr}");
    }
}

/// Runs a scenario, attacks what it leaves, and gives the attacks.
fn attacked(dir: &Path, name: &str, scenario: &str, more: &[&str]) -> Vec<Value> {
    let out = within(dir, name);
    good(&["run", scenario, "--out", &out]);
    let args = [&["attack", &out, "--json"], more].concat();
    let found: Value = serde_json::from_str(&good(&args)).unwrap();
    if more.is_empty() {
        for file in ["attack.json", "timeline.svg", "timeline.png"] {
            assert!(Path::new(&out).join(file).exists(), "{name}: {file}");
        }
        return found["attacks"].as_array().unwrap().clone();
    }
    let gateways = found["gateways"].as_array().unwrap();
    gateways.iter().flat_map(|gateway| gateway["attacks"].as_array().unwrap().clone()).collect()
}

/// The scores of these attacks.
fn scores(attacks: &[Value]) -> Vec<Value> {
    attacks.iter().flat_map(|attack| attack["scores"].as_array().unwrap().clone()).collect()
}

fn number(score: &Value, key: &str) -> f64 {
    score[key].as_f64().unwrap()
}

#[test]
fn attacks_find_who_calls_whom_beside_shoal_and_not_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let attack = |name: &str, experiment: &str| {
        let file = calls(dir.path(), &format!("{name}.toml"), experiment);
        scores(&attacked(dir.path(), name, &file, &[]))
    };
    for system in ["telecom", "vpn", "onion", "nym"] {
        let experiment = format!("experiment = \"baseline\"\nsystem = {system:?}");
        let scores = attack(system, &experiment);
        let all = |score: &&Value| {
            score["score"] == "average_precision" && number(score, "value") > 0.999
        };
        assert!(scores.iter().filter(all).count() >= 2, "{system}: {scores:?}");
    }
    let scores = attack("shoal", SHOAL);
    assert!(scores.len() > 10, "{scores:?}");
    for score in scores {
        assert!(number(&score, "p") > 0.01 && number(&score, "value") < 0.9, "{score}");
    }
}

#[test]
fn attacks_past_the_first_link_find_calls_where_paths_are_kept_and_not_where_they_are_fresh() {
    let dir = tempfile::tempdir().unwrap();
    let run = |kept: bool, more: &[&str]| {
        let text = format!(
            "experiment = \"made_up\"\npeople = 20\nseconds = 90\nmixes = 10\nkept = {kept}\n"
        );
        let name = format!("kept-{kept}-{}", more.len());
        let file = write(dir.path(), &format!("{name}.toml"), &text);
        attacked(dir.path(), &name, &file, more)
    };
    let of = |attacks: &[Value], name: &str| -> Vec<Value> {
        attacks.iter().filter(|attack| attack["attack"] == name).cloned().collect()
    };
    let kept = run(true, &[]);
    for name in ["first_mixes", "first_hops", "last_mixes"] {
        let found = of(&kept, name);
        let rebuilt = found[0]["claims"]["rebuilt"].as_u64().unwrap_or(0);
        assert!(rebuilt >= 4, "{name}: {found:?}");
    }
    // One gateway alone sees a call of two of its own people, and one side of all others.
    let alone = run(true, &["--each-gateway"]);
    let rebuilt = |attack: &Value| attack["claims"]["rebuilt"].as_u64().unwrap_or(0);
    assert!(of(&alone, "first_hops").len() == 3, "{alone:?}");
    let told = |score: &Value| score["score"] == "told_from_rest" && number(score, "p") < 1e-3;
    assert!(scores(&of(&alone, "first_hops")).iter().any(told), "{alone:?}");
    for fresh in [run(false, &[]), run(false, &["--each-gateway"])] {
        let found: u64 = fresh.iter().map(rebuilt).sum();
        assert_eq!(found, 0, "{fresh:?}");
        let least = scores(&fresh).iter().map(|score| number(score, "p")).fold(1.0, f64::min);
        assert!(least > 1e-3, "{least}");
    }
}

#[test]
fn an_attack_on_anything_else_says_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let none = bad(&["attack", dir.path().to_str().unwrap()], 1);
    assert!(none.contains("shoal-sim run --out"), "{none}");
    let file = calls(dir.path(), "a.toml", "experiment = \"baseline\"\nsystem = \"vpn\"");
    let out = within(dir.path(), "out");
    good(&["run", &file, "--out", &out]);
    for name in ["trace.parquet", "truth.parquet", "passes.parquet", "public.json"] {
        let path = Path::new(&out).join(name);
        let whole = fs::read(&path).unwrap();
        let foreign = fs::read(Path::new(&out).join("results.parquet")).unwrap();
        for bytes in [whole[..whole.len() / 2].to_vec(), foreign, Vec::new()] {
            fs::write(&path, bytes).unwrap();
            assert!(bad(&["attack", &out], 1).contains(name), "{name}");
        }
        fs::write(&path, whole).unwrap();
    }
    good(&["attack", &out]);
}

#[test]
fn a_bad_line_of_a_workload_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = calls(dir.path(), "a.toml", "experiment = \"baseline\"");
    for (line, says) in [
        ("5,0", "there are 2 cells, and 3 columns in the header"),
        ("5,0,1,7", "there are 4 cells, and 3 columns in the header"),
        ("5,x,1", "from must be a whole number"),
        ("-5,0,1", "the time must be "),
        ("5,1,1", "from and to must differ"),
    ] {
        let list = write(dir.path(), "calls.csv", &format!("time,from,to\n1,0,1\n{line}\n"));
        let stderr = bad(&["run", &file], 78);
        assert!(stderr.contains(&format!("{list}, line 3: {says}")), "{line} gives {stderr}");
    }
}

#[test]
fn real_packets_and_their_stand_ins_give_one_trace_and_so_does_a_blind_observer() {
    let dir = tempfile::tempdir().unwrap();
    let hash = |name: &str, more: &str| {
        let text = format!(
            "experiment = \"shoal\"\nwarm_up_s = 2.0\ndrain_s = 1.0\n{more}\n\
             class.name = \"text\"\nnetwork.mixes_per_layer = 1\nnetwork.layers = 2\n\
             people.join_within_s = 1.0\nworkload = {{ kind = \"none\", people = 3, window_s = 4.0 }}\n"
        );
        let file = write(dir.path(), name, &text);
        let run: Value = serde_json::from_str(&good(&["run", &file, "--json"])).unwrap();
        run["trace_hashes"].clone()
    };
    let stand_in = hash("null.toml", "codec = \"null\"");
    assert_eq!(stand_in, hash("stand-in.toml", "codec = \"stand-in\""), "as older scenarios say");
    assert_eq!(stand_in, hash("sphinx.toml", "codec = \"sphinx\""));
    assert_eq!(stand_in, hash("blind.toml", "observer.links = \"none\""));
    assert_ne!(stand_in, hash("seed.toml", "seed = 2"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = command(&["run", "--explain", "shoal"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert!(status.success() && stderr.is_empty(), "{status}: {stderr:?}");
}

#[test]
fn a_number_of_threads_that_no_machine_has_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "network.toml", STRATIFIED);
    for threads in ["0", "100000"] {
        let stderr = bad(&["run", &file, "--threads", threads], 2);
        assert!(stderr.contains("1 to 1024"), "{stderr}");
    }
}
