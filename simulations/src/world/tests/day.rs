//! A short day: six epochs of a minute, ten people who write, a mix that starts again and an authority that lies.

use super::*;

fn day() -> Settings {
    let mut settings = class("text");
    (settings.warm_up_s, settings.drain_s) = (70.0, 60.0);
    settings.network.authorities = 4;
    settings.network.epoch_s = 60;
    settings.network.draw_every = 3;
    settings.observer.links = Observed::None;
    settings
}

fn restart() -> Fault {
    let node = Some("mix-2-1".into());
    Fault { node, at_s: 100.0, down_s: Some(60.0), ..Fault::of(FaultKind::Restart) }
}

fn liar(lie: Lie) -> Fault {
    Fault { authority: Some(3), at_s: 150.0, lie: Some(lie), ..Fault::of(FaultKind::Liar) }
}

fn figure(report: &Report, name: &str) -> Option<f64> {
    report.measured.iter().find(|m| m.name == name).map(|m| m.estimate.value)
}

/// What holds with a fault and without.
fn check_service(report: &Report) {
    assert!(of(report, "epochs") >= 6.0, "{:?}", report.measured);
    for none in [
        "epochs_without_a_document",
        "documents_that_differ_between_authorities",
        "documents_refused_by_clients",
        "documents_refused_by_nodes",
        "contradictions_seen",
        "frames_where_no_link_is",
        "honest_authorities_proven_to_lie",
        "clients_refused",
        "demotions_without_a_fault",
    ] {
        assert_eq!(of(report, none), 0.0, "{none}: {:?}", report.measured);
    }
    assert_eq!(of(report, "messages_written"), 10.0);
}

#[test]
fn a_day_tells_of_a_restart_and_a_liar_and_messages_arrive() {
    let settings = Settings { faults: vec![restart(), liar(Lie::TwoVotes)], ..day() };
    let workload = messages(10, 360);
    let report = go(&settings, &workload, 1);
    check_service(&report);
    // A letter that crosses the mix while it is away is lost.
    assert!(of(&report, "messages_delivered") >= 0.7, "{:?}", report.measured);
    assert_eq!(of(&report, "restarts"), 1.0);
    assert!(of(&report, "frames_to_nodes_that_were_away") > 50.0, "{:?}", report.measured);
    assert_eq!(of(&report, "authority_3_proven_by"), 3.0, "{:?}", report.measured);
    assert!(of(&report, "authority_3_proven_after") <= 2.0, "{:?}", report.measured);
    // The same seed, the same packets at the same instants.
    assert_eq!(go(&settings, &workload, 1).trace_hash, report.trace_hash);
    assert_ne!(go(&settings, &workload, 2).trace_hash, report.trace_hash);
}

#[test]
fn a_day_without_faults_loses_nothing_and_names_nobody() {
    let report = go(&day(), &messages(10, 360), 1);
    check_service(&report);
    assert_eq!(of(&report, "messages_delivered"), 1.0, "{:?}", report.measured);
    for none in ["restarts", "frames_to_nodes_that_were_away", "messages_lost"] {
        assert_eq!(of(&report, none), 0.0, "{none}: {:?}", report.measured);
    }
    let named = |m: &&crate::experiment::Measured| m.name.starts_with("authority_");
    assert_eq!(report.measured.iter().filter(named).count(), 0, "{:?}", report.measured);
}

#[test]
fn every_kind_of_lie_is_named_by_all_others_and_stops_nothing() {
    // A lie, and whether others can prove it.
    let lies = [
        (Lie::TwoVotes, true),
        (Lie::TwoSignatures, true),
        (Lie::MadeUp, true),
        (Lie::Garbage, false),
        (Lie::FalseDocuments, false),
        (Lie::Flood, false),
        (Lie::Silent, false),
    ];
    for (lie, is_proven) in lies {
        let settings = Settings { faults: vec![liar(lie)], ..day() };
        let report = go(&settings, &messages(4, 300), 3);
        let told =
            (figure(&report, "authority_3_named_by"), figure(&report, "authority_3_proven_by"));
        let proven = Some(if is_proven { 3.0 } else { 0.0 });
        assert_eq!(told, (Some(3.0), proven), "{lie:?}: {:?}", report.measured);
        assert_eq!(of(&report, "epochs_without_a_document"), 0.0, "{lie:?}");
        assert_eq!(of(&report, "messages_delivered"), 1.0, "{lie:?}: {:?}", report.measured);
    }
}

#[test]
fn a_gateway_that_starts_again_has_its_people_back_and_keeps_what_waits_for_them() {
    let gateway = Fault { node: Some("gateway-1".into()), ..restart() };
    for authorities in [4, 0] {
        let mut settings = Settings { faults: vec![gateway.clone()], ..day() };
        (settings.network.authorities, settings.network.epoch_s) = (authorities, 60);
        if authorities == 0 {
            settings.network.epoch_s = 600;
        }
        let report = go(&settings, &messages(10, 360), 4);
        assert_eq!(of(&report, "restarts"), 1.0);
        let delivered = of(&report, "messages_delivered");
        assert!(delivered >= 0.7, "{authorities}: {:?}", report.measured);
        // Who was written to in the last minutes was there again.
        let slots = of(&report, "slots");
        // Ten people, 1.2 slots a second, of whom half are away for a minute.
        let all = 10.0 * 1.2 * (70.0 + 360.0 + 60.0 - settings.network.opens_s());
        assert!((all - 800.0..all - 250.0).contains(&slots), "{slots} of {all}");
    }
}

#[test]
fn faults_that_cannot_be_are_named() {
    let wrong = |fault: Fault| {
        let settings = Settings { faults: vec![Fault::clone(&fault)], ..day() };
        let wrong = settings.check().unwrap_err();
        (wrong.key, wrong.why)
    };
    let check = |fault: Fault, key: &str, says: &str| {
        let (of, why) = wrong(fault);
        assert!(of == key && why.contains(says), "{of}: {why}");
    };
    assert_eq!(Settings { faults: vec![restart(), liar(Lie::Flood)], ..day() }.check(), Ok(()));
    let nowhere = Fault { node: Some("mix-4-1".into()), ..restart() };
    check(nowhere, "faults.1.node", "mix-1-1 to mix-3-3, gateway-1 to gateway-2");
    check(Fault { authority: Some(5), ..liar(Lie::Flood) }, "faults.1.authority", "1 to 4");
    check(Fault { authority: Some(0), ..liar(Lie::Flood) }, "faults.1.authority", "1 to 4");
    check(Fault { authority: Some(1), ..restart() }, "faults.1.authority", "not both");
    check(Fault { node: None, ..restart() }, "faults.1.node", "node or authority");
    check(Fault { down_s: None, ..restart() }, "faults.1.down_s", "must be given");
    check(Fault { down_s: Some(0.0), ..restart() }, "faults.1.down_s", "must be 0.1 to");
    check(Fault { share: Some(0.2), ..restart() }, "faults.1.share", "\"lossy\" only");
    check(Fault { lie: None, ..liar(Lie::Flood) }, "faults.1.lie", "must be given");
    let lossy = Fault { node: Some("mix-1-1".into()), ..Fault::of(FaultKind::Lossy) };
    check(Fault { share: Some(1.5), ..lossy.clone() }, "faults.1.share", "0 to 1");
    let early = Fault { share: Some(0.5), at_s: 9.0, until_s: Some(3.0), ..lossy };
    check(early, "faults.1.until_s", "at_s");
    let clock = Fault { authority: Some(1), ..Fault::of(FaultKind::Clock) };
    check(clock.clone(), "faults.1.ahead_s", "must be given");
    let settings =
        Settings { faults: vec![Fault { ahead_s: Some(1.0), ..clock }], ..Settings::default() };
    assert!(settings.check().unwrap_err().why.contains("network.authorities"));
    let mut early = day();
    early.warm_up_s = 50.0;
    assert_eq!(early.check().unwrap_err().key, "warm_up_s");
    let mut slow = day();
    slow.links.latency_ms = 5_000.0;
    assert_eq!(slow.check().unwrap_err().key, "links.latency_ms");
}
