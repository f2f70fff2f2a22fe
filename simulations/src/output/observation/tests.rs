#![allow(clippy::unwrap_used)]

use super::*;

fn view() -> View {
    let link = |from, to| Link { from, to };
    let (alice, gateway, service) = (Party::Person(0), Party::Node(7), Party::Service(2));
    let mut trace = Trace::default();
    let mut many = Flow::new(2048);
    (0..CHUNK as u64 + 10).for_each(|n| many.push(Time::from_nanos(3 * n), 2048));
    let mut mixed = Flow::new(1);
    (1..9).for_each(|n| mixed.push(Time::from_nanos(n), n as u32));
    trace.links.insert(link(alice, gateway), many);
    trace.links.insert(link(gateway, alice), Flow::new(2048));
    trace.links.insert(link(gateway, service), mixed);
    let counted = Flow::Counts { bin: 1_000, counts: vec![0, 3, 0, 65_535, 0] };
    trace.links.insert(link(service, gateway), counted);
    let pass = Pass {
        node: 7,
        arrived: Time::from_nanos(1),
        from: alice,
        left: Time::from_nanos(2),
        to: service,
        came: u64::MAX,
        went: 3,
        epoch: 200,
    };
    let public = Public {
        people: 1,
        begin: Time::from_nanos(1),
        end: Time::from_secs(9),
        hops: 3,
        hop_mean_s: 0.1,
        uniform_s: 0.4,
        latency_s: 0.04,
        resting_up_per_s: 1.5,
        resting_down_per_s: 2.5,
        call_per_s: 20.0,
    };
    View { public, trace, passes: vec![pass] }
}

#[test]
fn an_adversary_reads_from_files_what_was_observed() {
    let dir = tempfile::tempdir().unwrap();
    let view = view();
    write_view(dir.path(), &view).unwrap();
    let back = read_view(dir.path()).unwrap();
    assert_eq!(back.trace, view.trace);
    assert_eq!(back.passes, view.passes);
    assert_eq!(format!("{:?}", back.public), format!("{:?}", view.public));
}

#[test]
fn the_truth_is_in_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read_truth(dir.path()).unwrap(), None);
    let record = Record { caller: 3, callee: 4, start: Time::from_nanos(12), duration_s: 0.1 };
    let truth = Truth { records: vec![record, record] };
    write_truth(dir.path(), &truth).unwrap();
    assert_eq!(read_truth(dir.path()).unwrap(), Some(truth));
    assert!(read_view(dir.path()).is_err(), "the truth alone is no view");
}
