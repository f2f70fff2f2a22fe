//! People who are away for six of the seven periods for which they can be written to. Periods last ten minutes here and
//! not a day, and packets wait for as many of them as in service.

use super::*;
use crate::workload::LetterSettings;

/// Length of a period of keys, seconds.
const PERIOD_S: u32 = 600;
/// The writer, the reader, and a second writer.
const A: u32 = 0;
const B: u32 = 1;
const C: u32 = 2;
/// B's program ends, and starts again six periods later.
const LEAVES_S: f64 = 200.0;
const RETURNS_S: f64 = LEAVES_S + 6.0 * PERIOD_S as f64;
/// How long the observation lasts.
const END_S: f64 = RETURNS_S + 700.0;

/// Three people in class text, at two gateways: A and C at the first, B at the second.
fn world() -> Settings {
    let mut settings = class("text");
    (settings.warm_up_s, settings.drain_s) = (15.0, 0.0);
    settings.codec = CodecChoice::Keyed;
    settings.network.mixes_per_layer = 1;
    settings.network.node_loops_per_s = 0.05;
    settings.network.epoch_s = 4_000;
    settings.network.inbox_expiry_s = 7 * PERIOD_S;
    settings.people.key_period_s = PERIOD_S;
    settings.observer.links = Observed::None;
    settings.absences = vec![Absence { people: vec![B], begin_s: LEAVES_S, end_s: RETURNS_S }];
    settings
}

fn gateway(kind: FaultKind, at_s: f64) -> Fault {
    Fault { node: Some("gateway-2".into()), at_s, down_s: Some(20.0), ..Fault::of(kind) }
}

/// Its program starts again while B is away, and then its machine.
fn twice() -> Vec<Fault> {
    vec![gateway(FaultKind::Restart, 1_000.0), gateway(FaultKind::Reboot, 2_200.0)]
}

/// So many letters to B from each of these, from an instant on at a distance.
fn letters(all: &[(u32, f64, u32, f64)], end_s: f64) -> Workload {
    let letter = |(from, at_s, count, every_s): &(u32, f64, u32, f64)| LetterSettings {
        from: *from,
        to: B,
        at_s: *at_s,
        count: *count,
        every_s: *every_s,
    };
    let all: Vec<LetterSettings> = all.iter().map(letter).collect();
    LetterSettings::workload(&all, 3, end_s)
}

/// One of A before the gateway starts again, and one behind it. C writes then too, who has never asked for the descriptor:
/// it can only come from the gateway's disk.
fn three() -> Workload {
    letters(&[(A, 500.0, 1, 0.0), (A, 3_000.0, 1, 0.0), (C, 3_100.0, 1, 0.0)], END_S)
}

/// What holds where all letters come.
fn check_all_came(report: &Report) {
    let all = &report.measured;
    for (name, letters) in [
        ("letters_written", 3.0),
        ("letters_left", 3.0),
        ("letters_arrived", 3.0),
        ("letters_arrived_twice", 0.0),
        ("absence_1_letters_written", 3.0),
        ("absence_1_letters_arrived", 3.0),
        ("restarts", 2.0),
    ] {
        assert_eq!(of(report, name), letters, "{name}: {all:?}");
    }
    assert!((0.0..60.0).contains(&of(report, "absence_1_last_letter_after")), "{all:?}");
}

#[test]
fn letters_to_who_is_away_for_six_periods_arrive_once_though_the_gateway_is_restarted_and_rebooted()
{
    let settings = Settings { faults: twice(), ..world() };
    let report = go(&settings, &three(), 1);
    check_all_came(&report);
    assert_eq!(of(&report, "letters_that_reached_nobody_at_first"), 0.0, "{:?}", report.measured);
    // The same seed, the same packets at the same instants.
    assert_eq!(go(&settings, &three(), 1).trace_hash, report.trace_hash);
    assert_ne!(go(&settings, &three(), 2).trace_hash, report.trace_hash);
}

#[test]
fn a_letter_that_waited_alone_when_the_gateway_started_again_is_not_forgotten() {
    // Nothing that comes later has the gateway look into the inbox.
    let alone = letters(&[(A, 500.0, 1, 0.0)], END_S);
    let report = go(&Settings { faults: twice(), ..world() }, &alone, 1);
    assert_eq!(of(&report, "letters_arrived"), 1.0, "{:?}", report.measured);
    assert_eq!(of(&report, "letters_arrived_twice"), 0.0, "{:?}", report.measured);
}

#[test]
fn they_do_so_too_where_documents_follow_each_other_and_the_rebooted_gateway_has_lost_its_mix_keys()
{
    let mut settings = Settings { faults: twice(), ..world() };
    (settings.network.authorities, settings.network.epoch_s) = (4, 100);
    (settings.network.mixes_per_layer, settings.warm_up_s) = (2, 120.0);
    let report = go(&settings, &three(), 3);
    check_all_came(&report);
    assert_eq!(of(&report, "documents_refused_by_clients"), 0.0, "{:?}", report.measured);
    // For a while nobody can seal to it: what was sealed to the keys before cannot be opened.
    assert!(of(&report, "dropped_mac") > 0.0, "{:?}", report.measured);
}

#[test]
fn a_gateway_whose_inbox_does_not_survive_a_reboot_knows_nobody_after_it() {
    let mut settings = Settings { faults: twice(), ..world() };
    settings.network.inbox_survives_reboot = false;
    let report = go(&settings, &three(), 1);
    // The first letter waited there and is lost, and so is A's second, who does not know. C reaches nobody, and still tries
    // at the end.
    for (name, letters) in
        [("letters_left", 2.0), ("letters_not_left", 1.0), ("letters_arrived", 0.0)]
    {
        assert_eq!(of(&report, name), letters, "{name}: {:?}", report.measured);
    }
    assert!(of(&report, "letters_that_reached_nobody_at_first") >= 2.0, "{:?}", report.measured);
}

#[test]
fn who_is_away_for_longer_than_a_descriptor_holds_gets_what_was_tried_again_behind_the_return() {
    let mut settings = world();
    let returns_s = 9.0 * f64::from(PERIOD_S);
    settings.absences = vec![Absence { people: vec![B], begin_s: 30.0, end_s: returns_s }];
    settings.network.epoch_s = 20_000;
    // The descriptor that B left behind holds for seven periods after its own.
    let workload = letters(&[(A, returns_s - 100.0, 1, 0.0)], 22_000.0);
    let report = go(&settings, &workload, 1);
    assert!(of(&report, "letters_that_reached_nobody_at_first") >= 1.0, "{:?}", report.measured);
    assert_eq!(of(&report, "letters_arrived"), 1.0, "{:?}", report.measured);
    assert_eq!(of(&report, "letters_arrived_twice"), 0.0, "{:?}", report.measured);
}

#[test]
fn three_hundred_letters_that_waited_are_there_within_five_minutes() {
    let many = letters(&[(A, 300.0, 150, 8.0), (C, 300.0, 150, 8.0)], END_S);
    let report = go(&world(), &many, 1);
    let all = &report.measured;
    assert_eq!(of(&report, "absence_1_letters_written"), 300.0, "{all:?}");
    assert_eq!(of(&report, "absence_1_letters_arrived"), 300.0, "{all:?}");
    assert_eq!(of(&report, "letters_arrived_twice"), 0.0, "{all:?}");
    // Two frames a second come down, and live packets go first.
    let last_s = of(&report, "absence_1_last_letter_after");
    println!("the last of 300 letters came {last_s:.0} s after the return");
    assert!((150.0..300.0).contains(&last_s), "{all:?}");
}

#[test]
fn absences_that_cannot_be_are_named() {
    let check = |settings: Settings, key: &str| {
        let wrong = settings.check().and_then(|()| settings.check_run(3, 100.0)).unwrap_err();
        assert_eq!(wrong.key, key, "{}", wrong.why);
    };
    let absent = |people, begin_s, end_s| {
        let absences = vec![Absence { people, begin_s, end_s }];
        Settings { absences, ..world() }
    };
    assert_eq!(absent(vec![2], 1.0, 2.0).check_run(3, 100.0), Ok(()));
    check(absent(vec![3], 1.0, 2.0), "absences.1.people");
    check(absent(vec![2], 2.0, 1.0), "absences.1.end_s");
    check(absent(vec![2], -1.0, 1.0), "absences.1.begin_s");
    let mut keyless = world();
    keyless.people.key_period_s = 0;
    check(keyless, "people.key_period_s");
    let mut short = world();
    short.people.key_period_s = 60;
    check(short, "people.key_period_s");
    let injections = vec![Injection { what: Injected::Sealed, ..Injection::default() }];
    check(Settings { injections, ..world() }, "injections.1.what");
    let reboot = Fault { node: None, authority: Some(1), ..gateway(FaultKind::Reboot, 1.0) };
    check(Settings { faults: vec![reboot], ..world() }, "faults.1.node");
}
