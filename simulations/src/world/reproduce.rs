//! Checks of `reproduce`, section 4: nothing that people do shows on their links, and nothing that looks on changes
//! what happens.

use shoal_topology::Time;

use super::settings::{CodecChoice, Observed, Settings};
use super::{Report, run};
use crate::experiment::Estimate;
use crate::literature::check::{Check, CheckJob, Effort};
use crate::trace::{Link, Party, Trace};
use crate::workload::{Workload, WorkloadKind, WorkloadSettings};

/// The jobs that compute the world's figures anew.
pub fn jobs(effort: Effort) -> Vec<CheckJob> {
    let people = effort.pick(20, 60);
    let seconds = effort.pick(90.0, 600.0);
    vec![
        CheckJob::new("non-interference, calls", move |seed| {
            interference(seed, "call", WorkloadKind::Calls, people, seconds)
        }),
        CheckJob::new("non-interference, messages", move |seed| {
            interference(seed, "text", WorkloadKind::Messages, people, 4.0 * seconds)
        }),
        CheckJob::new("hashes", move |seed| hashes(seed, effort)),
    ]
}

fn settings(class: &str) -> Settings {
    let mut settings = Settings::default();
    settings.class.name = class.into();
    settings
}

fn recorded(kind: WorkloadKind, people: u32, window_s: f64) -> anyhow::Result<Workload> {
    WorkloadSettings { kind, people, window_s, ..WorkloadSettings::default() }.workload(0)
}

fn idle(like: &Workload) -> Workload {
    Workload { activities: Vec::new(), ..like.clone() }
}

/// Links of people that do not show the same in both traces.
fn different(a: &Trace, b: &Trace) -> usize {
    let is_client =
        |link: &&Link| matches!(link.from, Party::Person(_)) || matches!(link.to, Party::Person(_));
    let links = a.links.keys().chain(b.links.keys().filter(|link| !a.links.contains_key(link)));
    links.filter(is_client).filter(|link| a.links.get(link) != b.links.get(link)).count()
}

/// The same people with what was recorded, and with nothing to do.
fn interference(
    seed: u64,
    class: &str,
    kind: WorkloadKind,
    people: u32,
    seconds: f64,
) -> anyhow::Result<Vec<Check>> {
    let workload = recorded(kind, people, seconds)?;
    let mut settings = settings(class);
    settings.observer.links = Observed::Clients;
    let busy = run(&settings, &workload, seed, &|_| ())?;
    let quiet = run(&settings, &idle(&workload), seed, &|_| ())?;
    let rows = workload.activities.len();
    let differ = different(&busy.view.trace, &quiet.view.trace) as f64;
    let what =
        format!("{rows} Copenhagen rows in class {class} or none: links of people that differ");
    // A world in which nothing arrives would pass, too.
    let name = if kind == WorkloadKind::Calls { "voice_delivered" } else { "messages_delivered" };
    let arrived = busy.measured.iter().find(|measured| measured.name == name);
    let arrived = arrived.map_or(Estimate::exact(0.0), |measured| measured.estimate);
    Ok(vec![
        Check::exact("4", what, 0.0, differ, 0.0),
        Check::within("4", format!("share that arrived in class {class}"), 1.0, 0.1, arrived),
    ])
}

/// One hash, whatever codec, observer and number of threads.
fn hashes(seed: u64, effort: Effort) -> anyhow::Result<Vec<Check>> {
    let (people, seconds) = (effort.pick(10, 20), effort.pick(10, 60));
    let mut workload = recorded(WorkloadKind::Messages, people, 600.0)?;
    workload.end = Time::from_secs(seconds);
    // In so short a time nobody would write: all do, and at once.
    workload.activities.truncate(people as usize);
    for activity in &mut workload.activities {
        if let crate::workload::Activity::Message { at, .. } = activity {
            *at = Time::from_secs(1);
        }
    }
    let plain = settings("text");
    let mut sphinx = plain.clone();
    sphinx.codec = CodecChoice::Sphinx;
    let mut blind = plain.clone();
    blind.observer.links = Observed::None;
    let mut inside = plain.clone();
    inside.observer.corrupt_nodes = vec![0, 3, 6, 9];
    let go =
        |settings: &Settings| -> anyhow::Result<Report> { run(settings, &workload, seed, &|_| ()) };
    let hash = go(&plain)?.trace_hash;
    let others = |reports: [anyhow::Result<Report>; 2]| -> anyhow::Result<f64> {
        let mut differ = 0.0;
        for report in reports {
            differ += f64::from(u8::from(report?.trace_hash != hash));
        }
        Ok(differ)
    };
    let (first, second) = rayon::join(|| go(&plain), || go(&plain));
    let check = |what: &str, differ| Check::exact("4", what, 0.0, differ, 0.0);
    Ok(vec![
        check("both codecs: hashes that differ", others([go(&sphinx), go(&plain)])?),
        check("observers, corrupt nodes: hashes that differ", others([go(&blind), go(&inside)])?),
        check("two threads at once: hashes that differ", others([first, second])?),
    ])
}
