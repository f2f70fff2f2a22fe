//! Attacks succeed on the baselines and find nothing behind paced links.

use rand::RngExt;
use shoal_topology::Stream;

use super::*;
use crate::adversary::attacks::{Attack, FlowShape, FlowStarts, Matching, Records};
use crate::systems::{System, observe};
use crate::trace::{Flow, Link, Party, Public};
use crate::workload::{Activity, Workload};

const PEOPLE: u32 = 60;

/// Friends in pairs and threes, who write or call at random instants.
fn workload(kind: RecordKind, seed: u64) -> Workload {
    let mut stream = Seed::from_u64(seed).stream("workload");
    let hours = if kind == RecordKind::Calls { 1.0 } else { 4.0 };
    let mut activities = Vec::new();
    for _ in 0..if kind == RecordKind::Calls { 60 } else { 400 } {
        let from = stream.random_range(0..PEOPLE);
        // One of two friends, by arithmetic.
        let to = (from + if stream.random() { 17 } else { 23 }) % PEOPLE;
        let at = Time::from_nanos((stream.random::<f64>() * hours * 3500e9) as u64);
        activities.push(if kind == RecordKind::Calls {
            let seconds = (stream.random_range(2.0..5.5f64)).exp();
            Activity::Call { from, to, at, seconds }
        } else {
            Activity::Message { from, to, at }
        });
    }
    activities.sort_by_key(Activity::at);
    if kind == RecordKind::Calls {
        // A person is in one call at a time.
        let mut free = vec![Time::ZERO; PEOPLE as usize];
        activities.retain(|activity| {
            let Activity::Call { from, to, at, seconds } = *activity else { return false };
            let fits = [from, to].into_iter().all(|who| free[who as usize] < at);
            let end = Time::from_nanos(at.as_nanos() + ((seconds + 2.0) * 1e9) as u64);
            if fits {
                [from, to].into_iter().for_each(|who| free[who as usize] = end);
            }
            fits
        });
    }
    Workload { people: PEOPLE, end: Time::from_secs((hours * 3600.0) as u64), activities }
}

/// Links as Shoal's clients have them: fixed slots up, fixed instants down. Of no use at all.
fn paced(kind: RecordKind, workload: &Workload, seed: u64) -> View {
    let calls = kind == RecordKind::Calls;
    let (payload, loops, down, hop_mean_s, uniform_s) =
        if calls { (25.0, 2.0, 50.0, 0.01, 0.04) } else { (1.0, 0.2, 2.0, 0.2, 1.0) };
    let (mut trace, end) = (crate::trace::Trace::default(), workload.end.as_secs_f64());
    let seed = Seed::from_u64(seed).part("paced");
    let fixed = |rate: f64, stream: &mut Stream| {
        let phase: f64 = stream.random();
        let count = (end * rate - phase).floor() as u64;
        (0..=count).map(|k| ((k as f64 + phase) / rate * 1e9) as u64).collect::<Vec<u64>>()
    };
    for person in 0..workload.people {
        let mut stream = seed.stream(&format!("person {person}"));
        let mut up = fixed(loops, &mut stream);
        up.extend(fixed(payload, &mut stream));
        up.sort_unstable();
        let flow = |times| Flow::Packets { times, sizes: crate::trace::Sizes::Same(2413) };
        let (person, gateway) = (Party::Person(person), Party::Node(person % 2));
        trace.links.insert(Link { from: person, to: gateway }, flow(up));
        let down = fixed(down, &mut stream);
        trace.links.insert(Link { from: gateway, to: person }, flow(down));
    }
    let public = Public {
        people: workload.people,
        begin: Time::ZERO,
        end: workload.end,
        hops: 3,
        hop_mean_s,
        uniform_s,
        latency_s: 0.1,
        resting_up_per_s: payload + loops,
        resting_down_per_s: down,
        call_per_s: 25.0,
    };
    View { public, trace, passes: Vec::new() }
}

fn lines(system: &str, kind: RecordKind, view: &View, truth: &Truth, seed: u64) -> Vec<Line> {
    let name = if kind == RecordKind::Calls { "call" } else { "text" };
    score_view(system, name, view, truth, seed)
}

#[test]
fn no_attack_beats_the_prior_behind_paced_links() {
    for seed in 0..2 {
        let mut all = Vec::new();
        for kind in [RecordKind::Messages, RecordKind::Calls] {
            let work = workload(kind, seed);
            let view = paced(kind, &work, seed);
            all.extend(lines("shoal", kind, &view, &work.truth(), seed));
        }
        correct(&mut all);
        let checks = requirements(&all);
        assert!(checks.iter().all(|check| check.holds), "seed {seed}\n{}", table(&all, &checks));
        assert!(all.iter().all(|line| line.value.value.is_finite() && line.prior.is_finite()));
    }
}

#[test]
fn the_same_attacks_succeed_on_baselines() {
    let mut all = Vec::new();
    for kind in [RecordKind::Messages, RecordKind::Calls] {
        let work = workload(kind, 7);
        for system in System::ALL {
            let view = observe(system, &work, 7);
            all.extend(lines(system.name(), kind, &view, &work.truth(), 7));
        }
    }
    correct(&mut all);
    let checks = requirements(&all);
    assert_eq!(checks.len(), 7);
    let baselines = checks.iter();
    assert!(baselines.clone().all(|check| check.holds), "{}", table(&all, &checks));
    // Of telecom, records are complete in every respect.
    let telecom = all.iter().filter(|line| line.system == "telecom" && line.attack == "direct");
    let hidden = |line: &&Line| line.value.value < 0.999 && !line.score.starts_with("reid");
    assert_eq!(telecom.filter(hidden).count(), 0, "{}", table(&all, &checks));
}

#[test]
fn attacks_give_the_same_answer_twice() {
    let work = workload(RecordKind::Calls, 3);
    let view = observe(System::Nym, &work, 3);
    assert_eq!(view.trace, observe(System::Nym, &work, 3).trace);
    let attacks: [&dyn Attack; 4] = [&Matching::default(), &FlowStarts, &FlowShape, &Records];
    for attack in attacks {
        assert_eq!(attack.run(&view), attack.run(&view), "{}", attack.name());
    }
}
