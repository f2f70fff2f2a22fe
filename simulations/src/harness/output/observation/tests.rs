#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

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
    assert_eq!(read_truth(dir.path(), 9).unwrap(), None);
    let record = Record { caller: 3, callee: 4, start: Time::from_nanos(12), duration_s: 0.1 };
    let truth = Truth { records: vec![record, record] };
    write_truth(dir.path(), &truth).unwrap();
    assert_eq!(read_truth(dir.path(), 9).unwrap(), Some(truth));
    assert!(read_view(dir.path()).is_err(), "the truth alone is no view");
}

#[test]
fn what_no_observation_can_be_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let error = |change: &dyn Fn(&mut View)| {
        let mut view = view();
        change(&mut view);
        write_view(dir.path(), &view).unwrap();
        format!("{:#}", read_view(dir.path()).unwrap_err())
    };
    type Change = fn(&mut Public);
    let public: [(&str, Change); 8] = [
        ("people must be 1 to", |p| p.people = 4_000_000_000),
        ("people must be 1 to", |p| p.people = 0),
        ("hops must be 0 to", |p| p.hops = 4_000_000_000),
        ("end_ns, 0, must come after begin_ns, 1", |p| p.end = Time::ZERO),
        ("hop_mean_s must be 0 to", |p| p.hop_mean_s = -1.0),
        ("hop_mean_s must be 0 to", |p| p.hop_mean_s = 1e300),
        ("call_per_s must be 0 to", |p| p.call_per_s = -0.5),
        ("from begin_ns to end_ns there must be at most", |p| {
            p.end = Time::from_secs(3_000_000_000)
        }),
    ];
    for (says, change) in public {
        let said = error(&|view| change(&mut view.public));
        assert!(said.contains("public.json: ") && said.contains(says), "{says}: {said}");
    }
    let link = |from, to| Link { from, to };
    let counts = |bin, bins| Flow::Counts { bin, counts: vec![1; bins] };
    let said = error(&|view| {
        view.trace.links.insert(link(Party::Person(5), Party::Node(0)), counts(1, 3));
    });
    assert!(
        said.contains("trace.parquet: row ") && said.contains("public.json has 1 people"),
        "{said}"
    );
    let said = error(&|view| {
        view.trace.links.insert(link(Party::Person(0), Party::Node(4_000_000_000)), counts(1, 3));
    });
    assert!(said.contains("numbers of nodes must be below"), "{said}");
    let said = error(&|view| {
        let times = vec![5, 3];
        let back = Flow::Packets { times, sizes: Sizes::Same(9) };
        view.trace.links.insert(link(Party::Person(0), Party::Node(0)), back);
    });
    assert!(said.contains("row 1: ") || said.contains("time_ns goes back"), "{said}");
    let said = error(&|view| view.passes[0].left = Time::from_nanos(LATEST));
    assert!(said.contains("passes.parquet: row 1: left_ns must be 0 to"), "{said}");
}

/// Beyond a year after the end.
const LATEST: u64 = 40_000_000_000_000_000;

#[test]
fn bins_that_would_fill_the_memory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_view(dir.path(), &view()).unwrap();
    write_atomic(&dir.path().join("trace.parquet"), |file| {
        let text = |name: &str| Values::Text(vec![name.into()]);
        let one = |value: i64| Values::Integer(vec![value]);
        let columns = vec![
            ("time_ns".to_owned(), one(20_000_000_000)),
            ("from".to_owned(), text("person-0")),
            ("to".to_owned(), text("node-0")),
            ("size".to_owned(), one(2_048)),
            ("packets".to_owned(), one(3)),
            ("bin_ns".to_owned(), one(1)),
        ];
        Writer::new(file, columns)?.finish()?;
        Ok(())
    })
    .unwrap();
    let said = format!("{:#}", read_view(dir.path()).unwrap_err());
    assert!(
        said.contains("row 1: bin_ns = 1 at time_ns = 20000000000 takes 20000000001 bins"),
        "{said}"
    );
}

#[test]
fn a_truth_of_other_people_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let record = Record { caller: 3, callee: 4, start: Time::from_nanos(12), duration_s: 0.1 };
    write_truth(dir.path(), &Truth { records: vec![record] }).unwrap();
    let said = format!("{:#}", read_truth(dir.path(), 4).unwrap_err());
    assert!(said.contains("truth.parquet: row 1: callee must be 0 to 3"), "{said}");
}
