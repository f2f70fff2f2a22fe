mod away;
mod day;
mod epochs;
mod members;
mod non_interference;

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_topology::Time;

use super::*;
use crate::trace::{Flow, Link, Party, Trace};
use crate::workload::{Activity, Workload};

/// Twenty minutes of the Copenhagen call records (Sapiezynski et al., Scientific Data 6, 2019) around their busiest
/// ten: second, caller, callee, seconds. The rows are `simulations/data/cns/calls.csv` from 1,011,600 on; missed
/// calls are left out.
const COPENHAGEN: [(u64, u32, u32, u64); 22] = [
    (128, 166, 272, 5),
    (133, 263, 217, 62),
    (190, 405, 682, 220),
    (191, 221, 348, 65),
    (225, 272, 166, 18),
    (281, 263, 173, 6),
    (313, 221, 672, 53),
    (326, 263, 173, 85),
    (498, 324, 589, 49),
    (552, 263, 308, 3),
    (571, 263, 308, 83),
    (728, 221, 300, 50),
    (734, 52, 259, 30),
    (878, 52, 418, 38),
    (879, 36, 524, 76),
    (928, 221, 344, 3),
    (971, 52, 692, 39),
    (1_059, 465, 569, 3),
    (1_087, 52, 692, 40),
    (1_092, 569, 465, 91),
    (1_112, 263, 457, 72),
    (1_142, 221, 344, 70),
];

/// These calls, twenty times as fast.
fn copenhagen() -> Workload {
    let names: BTreeSet<u32> = COPENHAGEN.iter().flat_map(|row| [row.1, row.2]).collect();
    let number = |name| names.iter().position(|n| *n == name).unwrap() as u32;
    let call = |(at, from, to, seconds): &(u64, u32, u32, u64)| Activity::Call {
        from: number(*from),
        to: number(*to),
        at: Time::from_millis(at * 50),
        seconds: *seconds as f64 / 20.0,
    };
    let activities = COPENHAGEN.iter().map(call).collect();
    Workload { people: 40, end: Time::from_secs(60), activities }
}

fn nothing(people: u32, seconds: u64) -> Workload {
    Workload { people, end: Time::from_secs(seconds), activities: Vec::new() }
}

/// A message from each person to the next, spread over the time.
fn messages(people: u32, seconds: u64) -> Workload {
    let message = |from: u32| Activity::Message {
        from,
        to: (from + 1) % people,
        at: Time::from_millis(seconds * 1_000 * u64::from(from) / u64::from(people)),
    };
    let activities = (0..people).map(message).collect();
    Workload { activities, ..nothing(people, seconds) }
}

fn class(name: &str) -> Settings {
    let class = ClassSettings { name: name.into(), ..ClassSettings::default() };
    let people = PeopleSettings { join_within_s: 1.0, ..PeopleSettings::default() };
    Settings { class, people, warm_up_s: 3.0, drain_s: 5.0, ..Settings::default() }
}

fn go(settings: &Settings, workload: &Workload, seed: u64) -> Report {
    run(settings, workload, seed, &|_| ()).unwrap()
}

fn is_client(link: &Link) -> bool {
    matches!(link.from, Party::Person(_)) || matches!(link.to, Party::Person(_))
}

fn clients(trace: &Trace) -> Trace {
    let links = trace.links.iter().filter(|(link, _)| is_client(link));
    Trace { links: links.map(|(link, flow)| (*link, flow.clone())).collect() }
}

fn times(trace: &Trace, from: Party, to: Party) -> &[u64] {
    match &trace.links[&Link { from, to }] {
        Flow::Packets { times, .. } => times,
        Flow::Counts { .. } => panic!("instants were asked for"),
    }
}

fn of(report: &Report, name: &str) -> f64 {
    report.measured.iter().find(|m| m.name == name).unwrap().estimate.value
}

#[test]
fn calls_do_not_show_on_any_clients_link_to_the_bit() {
    let settings = class("call");
    let calls = go(&settings, &copenhagen(), 1);
    let idle = go(&settings, &nothing(40, 60), 1);
    assert!(of(&calls, "voice_delivered") > 0.9, "{:?}", calls.measured);
    assert_eq!(calls.service.calls_heard, 22);
    let (calls, idle) = (clients(&calls.view.trace), clients(&idle.view.trace));
    assert_eq!(calls.links.len(), 80);
    assert!(calls == idle);
    // 27 packets/s up, 50 down.
    for (link, flow) in &calls.links {
        let up = matches!(link.from, Party::Person(_));
        let (low, high) = if up { (1_550, 1_700) } else { (2_999, 3_001) };
        assert!((low..=high).contains(&flow.len()), "{link:?}: {}", flow.len());
    }
    // Another seed, another trace.
    assert!(calls != clients(&go(&settings, &nothing(40, 60), 2).view.trace));
}

#[test]
fn messages_arrive_and_do_not_show_even_where_links_are_bad() {
    let mut settings = class("text");
    settings.drain_s = 60.0;
    for bad in [false, true] {
        if bad {
            let LinkSettings { jitter_ms, loss, .. } = &mut settings.links;
            (*jitter_ms, *loss) = (30.0, 0.02);
            settings.network.clock_offset_ms = 500.0;
        }
        let report = go(&settings, &messages(30, 60), 3);
        let idle = go(&settings, &nothing(30, 60), 3);
        assert_eq!(of(&report, "messages_delivered"), 1.0, "{:?}", report.measured);
        // A letter waits 7 s (the median of an exponential law of mean 10), then for a slot of drop cover (2 s and more); three
        // hops of 1 s in all, an instant below (0.25 s), six links.
        let median = of(&report, "message_delay_p50");
        assert!((6.0..16.0).contains(&median), "{median}");
        assert!(clients(&report.view.trace) == clients(&idle.view.trace));
        assert_eq!(of(&report, "clients_refused"), 0.0);
    }
}

#[test]
fn a_download_arrives_and_does_not_show() {
    let settings = class("web");
    let download =
        |person, at| Activity::Download { person, at: Time::from_millis(at), bytes: 200_000 };
    let activities = vec![download(0, 500), download(1, 700), download(0, 1_000)];
    let busy = Workload { activities, ..nothing(3, 12) };
    let report = go(&settings, &busy, 4);
    assert_eq!(of(&report, "downloads_done"), 1.0, "{:?}", report.measured);
    assert_eq!(report.service.download_bytes, 600_000);
    let idle = go(&settings, &nothing(3, 12), 4);
    assert!(clients(&report.view.trace) == clients(&idle.view.trace));
}

#[test]
fn both_codecs_give_one_hash() {
    let mut settings = class("web");
    (settings.warm_up_s, settings.drain_s) = (1.5, 0.5);
    let call = Activity::Call { from: 0, to: 1, at: Time::from_millis(10), seconds: 1.0 };
    let workload = Workload { activities: vec![call], ..nothing(3, 1) };
    let stand_in = go(&settings, &workload, 5);
    settings.codec = CodecChoice::Sphinx;
    let real = go(&settings, &workload, 5);
    assert_eq!(stand_in.trace_hash, real.trace_hash);
    assert!(stand_in.view.trace == real.view.trace);
    assert!(of(&real, "voice_delivered") > 0.5, "{:?}", real.measured);
}

#[test]
fn whoever_observes_and_whatever_runs_beside_it_the_hash_is_the_same() {
    let settings = class("call");
    let workload = copenhagen();
    let hash = |settings: &Settings| go(settings, &workload, 6).trace_hash;
    let mut observed = settings.clone();
    observed.observer.links = Observed::None;
    observed.observer.corrupt_nodes = vec![0, 4, 8, 9, 10];
    let mut binned = settings.clone();
    binned.observer.links = Observed::Listed;
    binned.observer.list = vec!["person 1 > node *".into()];
    binned.observer.bin_ms = 500.0;
    let hashes: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = [&settings, &observed, &binned]
            .map(|settings| scope.spawn(move || hash(settings)))
            .into_iter()
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(hashes.iter().all(|other| *other == hashes[0]), "{hashes:?}");
    assert_ne!(hashes[0], go(&settings, &workload, 7).trace_hash);
}

/// Scenarios with one document, and the hashes of their traces: they move when the law by which clients fill their slots does, and
/// with nothing else that is done to the world.
const RECORDED: [(&str, u64, &str); 3] = [
    (
        r#"
        class.name = "call"
        workload = { kind = "calls", window_s = 30.0, people = 10 }
        "#,
        1,
        "be9c7b621b3020681672068988b0bd32",
    ),
    (
        r#"
        class.name = "web"
        people = { online_mean_s = 8.0, offline_mean_s = 2.0 }
        network = { clock_offset_ms = 500.0, epoch_s = 60 }
        links = { jitter_ms = 30.0, loss = 0.02 }
        workload = { kind = "browse", people = 5, window_s = 30.0 }
        "#,
        1,
        "69ed44bdb1d82aaa66fdf0fca5e0255b",
    ),
    (
        r#"
        class.name = "text"
        network.epoch_s = 100
        workload = { kind = "messages", people = 20, window_s = 120.0 }
        attacks = [{ links = "node * > node *", copy_share = 0.1, hold_ms = 100.0 }]
        injections = [{ people = [1], what = "replayed" }]
        interruptions = [{ people = [2], every_s = 9.0 }]
        "#,
        7,
        "2583205a6e31b7758fc6d76da8840c72",
    ),
];

#[test]
fn worlds_with_one_document_have_the_traces_that_they_had() {
    let hash = |(text, seed, _): (&str, u64, &str)| {
        let settings: Settings = toml::from_str(text).unwrap();
        let workload = settings.workload.workload(seed).unwrap();
        go(&settings, &workload, seed).trace_hash
    };
    assert_eq!(RECORDED.map(hash), RECORDED.map(|(.., hash)| hash));
}

#[test]
fn the_observer_sees_what_was_asked_for() {
    let mut settings = class("call");
    let whole = go(&settings, &nothing(2, 5), 8).view;
    // 9 mixes, 2 gateways: 2 * 3 + 9 + 9 + 3 * 2 between nodes; 4 of people, 4 of the service.
    assert_eq!(whole.trace.links.len(), 30 + 4 + 4);
    settings.observer.links = Observed::Clients;
    let part = go(&settings, &nothing(2, 5), 8).view;
    assert!(part.trace == clients(&whole.trace));
    settings.observer.links = Observed::Listed;
    settings.observer.list = vec!["person * > node *".into()];
    settings.observer.bin_ms = 1_000.0;
    let binned = go(&settings, &nothing(2, 5), 8).view.trace;
    assert_eq!(binned.links.len(), 2);
    for (link, flow) in &binned.links {
        assert_eq!(
            flow.counts(0, 1_000_000_000, 5),
            whole.trace.links[link].counts(0, 1_000_000_000, 5)
        );
    }
    let public = whole.public;
    assert_eq!((public.resting_up_per_s, public.resting_down_per_s), (27.0, 50.0));
    assert!((public.latency_s - 0.12).abs() < 1e-9 && public.hop_mean_s == 0.01);
}

#[test]
fn a_corrupt_node_tells_what_the_links_show() {
    let mut settings = class("call");
    // A mix of the second layer, and a gateway.
    settings.observer.corrupt_nodes = vec![4, 9];
    let report = go(&settings, &nothing(4, 5), 9);
    let view = &report.view;
    assert!(view.passes.is_sorted_by_key(|pass| pass.left));
    let latency = Duration::from_millis(20);
    let mut through = 0;
    for pass in &view.passes {
        let own = Party::Node(pass.node);
        if pass.from != own && pass.arrived > Time::ZERO + latency {
            let sent = (pass.arrived - latency).as_nanos();
            assert!(times(&view.trace, pass.from, own).binary_search(&sent).is_ok(), "{pass:?}");
        }
        if pass.to != own {
            let left = pass.left.as_nanos();
            assert!(times(&view.trace, own, pass.to).binary_search(&left).is_ok(), "{pass:?}");
        }
        through += usize::from(pass.from != own && pass.to != own);
    }
    assert!(through > 300, "{through}");
    // All that leaves the mix is told.
    let mix = Party::Node(4);
    let left = view.passes.iter().filter(|pass| pass.node == 4 && pass.to != mix).count();
    let seen = view.trace.links.iter().filter(|(link, _)| link.from == mix);
    assert_eq!(left, seen.map(|(_, flow)| flow.len()).sum::<usize>());
}

#[test]
fn an_adversary_on_links_drops_delays_and_copies() {
    let attack = |links: &str| Attack { links: links.into(), ..Attack::default() };
    let mut settings = class("call");
    let call = Activity::Call { from: 0, to: 1, at: Time::from_secs(1), seconds: 5.0 };
    let workload = Workload { activities: vec![call], ..nothing(2, 10) };
    let honest = go(&settings, &workload, 10);

    settings.attacks = vec![Attack { drop_share: 1.0, ..attack("person 0 > node *") }];
    let dropped = go(&settings, &workload, 10);
    // One direction of two is left.
    assert!((0.4..0.55).contains(&of(&dropped, "voice_delivered")), "{:?}", dropped.measured);
    assert!(of(&dropped, "packets_dropped_by_the_adversary") > 200.0);

    settings.attacks = vec![Attack { delay_ms: 300.0, ..attack("node * > person *") }];
    let late = go(&settings, &workload, 10);
    let longer = of(&late, "voice_delay_p50") - of(&honest, "voice_delay_p50");
    assert!((longer - 0.3).abs() < 1e-3, "{longer}");

    settings.attacks = vec![Attack { copy_share: 0.5, ..attack("node * > node *") }];
    let copied = go(&settings, &workload, 10);
    let (copies, refused) =
        (of(&copied, "packets_copied_by_the_adversary"), of(&copied, "packets_dropped_by_nodes"));
    // Each copy is a replay; a few are still under way.
    assert!(copies > 1_000.0 && refused <= copies && refused > copies - 50.0, "{copies} {refused}");
    assert_eq!(copied.service.voice_delays_s.len(), honest.service.voice_delays_s.len());
}

/// Gaps between the frames of a person, as they come to its gateway, seconds.
fn gaps(report: &Report, person: usize) -> Vec<f64> {
    let up = &report.at_gateway[person].up;
    up.iter().zip(up.iter().skip(1)).map(|(a, b)| (b.at - a.at) as f64 / 1e9).collect()
}

#[test]
fn access_links_that_lose_stall_frames_of_people_and_still_show_no_call() {
    let mut settings = class("call");
    (settings.people.access_loss, settings.people.access_jitter_ms) = (0.01, 10.0);
    settings.observer.gateway_view = true;
    let report = go(&settings, &copenhagen(), 15);
    assert!(of(&report, "voice_delivered") > 0.9, "{:?}", report.measured);
    let idle = go(&settings, &nothing(40, 60), 15);
    assert!(clients(&report.view.trace) == clients(&idle.view.trace));
    // 40 people, 60 s, 54 segments/s: 1,296 are lost, and each makes a gap of 60 ms or more.
    let stalls: usize =
        (0..40).map(|n| gaps(&report, n).iter().filter(|gap| **gap > 0.06).count()).sum();
    assert!((900..1_500).contains(&stalls), "{stalls}");
}

#[test]
fn whoever_holds_frames_lets_them_go_at_once() {
    let mut settings = class("call");
    settings.observer.gateway_view = true;
    let links = "person 0 > node *".to_owned();
    settings.attacks =
        vec![Attack { links, hold_ms: 500.0, every_s: 5.0, begin_s: 2.0, ..Attack::default() }];
    let report = go(&settings, &nothing(2, 20), 16);
    // At 2, 7, 12 and 17 s: half a second without a frame, then some 13 at one instant.
    let held = |person: usize| gaps(&report, person).iter().filter(|gap| **gap > 0.4).count();
    assert_eq!((held(0), held(1)), (4, 0));
    let together = gaps(&report, 0).iter().filter(|gap| **gap == 0.0).count();
    assert!((40..60).contains(&together), "{together}");
}

#[test]
fn a_gateway_injects_in_place_of_dummies_and_no_link_shows_it() {
    let mut settings = class("call");
    let honest = go(&settings, &nothing(2, 10), 17);
    for what in [Injected::Garbage, Injected::Sealed, Injected::Replayed] {
        settings.injections = vec![Injection { people: vec![0], what, share: 0.3, begin_s: 0.0 }];
        let report = go(&settings, &nothing(2, 10), 17);
        // Of 25 dummies/s, for 15 s.
        let injected = of(&report, "packets_injected");
        assert!((80.0..180.0).contains(&injected), "{what:?}: {injected}");
        assert!(clients(&report.view.trace) == clients(&honest.view.trace));
    }
}

#[test]
fn a_service_counts_what_was_tagged() {
    let mut settings = class("web");
    let download = Activity::Download { person: 0, at: Time::from_millis(10), bytes: 300_000 };
    let workload = Workload { activities: vec![download], ..nothing(2, 10) };
    assert!(go(&settings, &workload, 18).unreadable.is_empty());
    let links = "person 0 > node *".to_owned();
    settings.attacks = vec![Attack { links, tag_share: 0.2, ..Attack::default() }];
    let tagged = go(&settings, &workload, 18);
    assert!(!tagged.unreadable.is_empty());
    // Nobody else's tags come there.
    settings.attacks[0].links = "person 1 > node *".into();
    assert!(go(&settings, &workload, 18).unreadable.is_empty());
}

#[test]
fn people_whose_connection_is_interrupted_come_back() {
    let mut settings = class("call");
    settings.observer.gateway_view = true;
    settings.interruptions = vec![Interruption { people: vec![0], begin_s: 2.0, every_s: 5.0 }];
    let report = go(&settings, &nothing(2, 20), 19);
    let away = |person: usize| gaps(&report, person).iter().filter(|gap| **gap > 0.9).count();
    assert_eq!((away(0), away(1)), (4, 0));
}

#[test]
fn a_packet_leaves_its_first_mix_after_its_slot_and_not_after_its_arrival() {
    let mut settings = class("call");
    let call = Activity::Call { from: 0, to: 1, at: Time::from_secs(1), seconds: 10.0 };
    let workload = Workload { activities: vec![call], ..nothing(2, 12) };
    let median = |settings: &Settings| of(&go(settings, &workload, 20), "voice_delay_p50");
    let usual = median(&settings);
    settings.trial.release_ms = 200.0;
    // 40 ms of links and a mean of 10 ms are in the usual one already.
    let longer = median(&settings) - usual;
    assert!((longer - 0.16).abs() < 0.02, "{longer}");
}

#[test]
fn people_come_and_go_and_what_waits_for_them_arrives() {
    let mut settings = class("web");
    (settings.people.online_mean_s, settings.people.offline_mean_s) = (8.0, 2.0);
    settings.drain_s = 30.0;
    let report = go(&settings, &messages(20, 40), 11);
    assert_eq!(of(&report, "clients_refused"), 0.0);
    let delivered = of(&report, "messages_delivered");
    assert!(delivered > 0.9, "{delivered}");
    let present: usize = (0..20)
        .map(|n| times(&report.view.trace, Party::Person(n), Party::Node(9 + n % 2)).len())
        .sum();
    // Present four fifths of the time, at 50 packets/s.
    let share = present as f64 / (20.0 * 40.0 * 50.0);
    assert!((0.65..0.93).contains(&share), "{share}");
    let idle = go(&settings, &nothing(20, 40), 11);
    assert!(clients(&report.view.trace) == clients(&idle.view.trace));
}

#[test]
fn a_matrix_says_how_far_parties_are_apart() {
    let path = std::env::temp_dir().join(format!("shoal-matrix-{}.csv", std::process::id()));
    std::fs::write(&path, ",here,person-1\nhere,1,50\nperson-1,70,0\n").unwrap();
    let mut settings = class("call");
    settings.links.latency_ms = 0.0;
    settings.links.matrix = Some(path.clone());
    settings.observer.corrupt_nodes = vec![9];
    let report = go(&settings, &nothing(2, 5), 12);
    std::fs::remove_file(&path).unwrap();
    let sent = times(&report.view.trace, Party::Person(0), Party::Node(9));
    let late = |at| at > Time::from_millis(100);
    let mut passes = report.view.passes.iter();
    let came = passes.find(|p| p.from == Party::Person(0) && late(p.arrived)).unwrap().arrived;
    assert!(sent.contains(&(came - Duration::from_millis(70)).as_nanos()));
    let error = run(&settings, &nothing(2, 5), 12, &|_| ()).unwrap_err().to_string();
    assert!(error.contains("shoal-matrix"), "{error}");
}

#[test]
fn settings_that_cannot_be_are_named() {
    let wrong = |change: fn(&mut Settings)| {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.check().unwrap_err().key
    };
    assert_eq!(Settings::default().check(), Ok(()));
    assert_eq!(wrong(|s| s.network.layers = 4), "network.layers");
    assert_eq!(wrong(|s| s.network.gateways = 1), "network.gateways");
    assert_eq!(wrong(|s| s.class.name = "fax".into()), "class.name");
    assert_eq!(wrong(|s| s.class.loop_share = Some(2.0)), "class.loop_share");
    assert_eq!(wrong(|s| s.links.loss = 1.0), "links.loss");
    assert_eq!(wrong(|s| s.people.online_mean_s = 5.0), "people.offline_mean_s");
    assert_eq!(wrong(|s| s.observer.corrupt_nodes = vec![11]), "observer.corrupt_nodes");
    assert_eq!(wrong(|s| s.observer.list = vec!["x".into()]), "observer.list");
    assert_eq!(wrong(|s| s.attacks = vec![Attack::default()]), "attacks.1.links");
    assert_eq!(wrong(|s| s.people.access_loss = 0.6), "people.access_loss");
    assert_eq!(wrong(|s| s.people.access_jitter_ms = -1.0), "people.access_jitter_ms");
    let share = |s: &mut Settings| {
        s.injections = vec![Injection { share: 1.5, ..Injection::default() }];
    };
    assert_eq!(wrong(share), "injections.1.share");
    let every = |s: &mut Settings| {
        s.interruptions = vec![Interruption { every_s: 0.0, ..Interruption::default() }];
    };
    assert_eq!(wrong(every), "interruptions.1.every_s");
    assert_eq!(wrong(|s| s.trial.release_ms = -1.0), "trial.release_ms");
    let nobody = Injection { people: vec![3], ..Injection::default() };
    let settings = Settings { injections: vec![nobody], ..Settings::default() };
    assert_eq!(settings.check_run(4, 60.0), Ok(()));
    assert_eq!(settings.check_run(3, 60.0).unwrap_err().key, "injections.1.people");
    let long = run(&Settings::default(), &nothing(1, 200_000), 1, &|_| ()).unwrap_err();
    assert!(long.to_string().starts_with("network.epoch_s"), "{long}");
}

#[test]
fn a_stratified_network_keeps_its_pool_and_counts_three_events_a_packet() {
    let what = EventRate { pool: 3_000, mixes_per_layer: 2, packets: 4_000, seed: 1 };
    let rate = event_rate(&what).unwrap();
    assert!((11_000..13_000).contains(&rate.events), "{rate:?}");
    // Poisson of mean 3,000, but for hops cut at 5 s, which take 1 in 150 off the mean.
    assert!((2_700..3_250).contains(&rate.pooled), "{rate:?}");
}
