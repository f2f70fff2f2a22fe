//! P2 at the gateway: what a client's own gateway sees of it. Up, frame by frame, the same to the bit whatever the user
//! does; down, one law in rest, with messages and in calls; of beginnings and ends, little.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use shoal_sim::adversary::at_gateway::attacks::{
    ActiveAdversary, GatewayReading, Instant, OnsetsFound, adversaries, onsets,
};
use shoal_sim::adversary::at_gateway::experiments::{Busy, Case, Ran, steady};
use shoal_sim::adversary::at_gateway::steady::PermutationTest;

/// A case of four people, the first two busy; epochs change at 30 and at 90 s: in the observation, which begins at 8 s, twice.
fn four(class: &str, busy: Busy) -> Case {
    let mut case = Case::new(class, busy, (1, 100.0, 7));
    case.settings.network.epoch_s = 60;
    case
}

/// (when, first hop, epoch) of each frame up of each person.
fn up(ran: &Ran) -> Vec<Vec<(u64, u16, u8)>> {
    let up =
        |person: u32| ran.seen(person).unwrap().up.iter().map(|up| (up.at, up.first_hop, up.epoch));
    (0..4).map(|person| up(person).collect()).collect()
}

/// What busy people did arrived, or nothing is shown by frames that are equal.
fn something_was_done(busy: Busy, ran: &Ran) {
    let did = &ran.report.service;
    let read = did.message_delays_s.len() as u64;
    let (heard, voice) = (did.calls_heard, did.voice_delays_s.len());
    match busy {
        Busy::Nothing => assert_eq!(did.messages + did.calls + did.downloads, 0),
        Busy::Messages(_) | Busy::Bursts(..) => {
            assert!(did.messages >= 10 && 2 * read > did.messages, "{read} of {}", did.messages);
        }
        Busy::Call | Busy::Calls(_) => {
            assert!(heard > 0 && heard == did.calls, "{heard} of {} calls heard", did.calls);
            assert!(voice > 500, "{voice} datagrams heard");
        }
        Busy::Downloads(bytes) => {
            assert!(did.download_bytes >= 2 * bytes, "{} bytes loaded", did.download_bytes);
        }
    }
}

/// Of four people of a class, these activities of two against nothing. All settings are changed alike.
fn the_same_up(class: &str, change: fn(&mut Case), activities: &[Busy]) {
    let run = |busy: Busy| {
        let mut case = four(class, busy);
        change(&mut case);
        let ran = case.run().unwrap();
        something_was_done(busy, &ran);
        up(&ran)
    };
    let idle = run(Busy::Nothing);
    let epochs: std::collections::BTreeSet<u8> = idle[0].iter().map(|(.., epoch)| *epoch).collect();
    assert_eq!(epochs.len(), 3, "{class}: {epochs:?}");
    assert!(idle.iter().all(|frames| frames.len() > 90), "{class}");
    for busy in activities {
        let frames = run(*busy);
        for person in 0..4 {
            let (a, b) = (&idle[person], &frames[person]);
            let differing = a.iter().zip(b).filter(|(a, b)| a != b).count();
            let all = differing + a.len().abs_diff(b.len());
            assert_eq!(all, 0, "{class}, {busy:?}, person {person}: frames differ");
        }
    }
}

fn as_it_is(_: &mut Case) {}

fn strict(case: &mut Case) {
    case.settings.people.strict = true;
}

#[test]
fn what_goes_up_in_class_text_is_the_same_to_the_bit_over_two_epochs() {
    the_same_up("text", as_it_is, &[Busy::Messages(5.0), Busy::Bursts(4, 20.0)]);
}

#[test]
fn what_goes_up_in_class_call_is_the_same_to_the_bit_over_two_epochs() {
    the_same_up("call", as_it_is, &[Busy::Call, Busy::Calls(8.0), Busy::Messages(0.4)]);
}

#[test]
fn what_goes_up_in_class_web_is_the_same_to_the_bit_over_two_epochs() {
    the_same_up("web", as_it_is, &[Busy::Downloads(200_000), Busy::Messages(0.4)]);
}

#[test]
fn what_goes_up_in_class_fast_is_the_same_to_the_bit_over_two_epochs() {
    the_same_up("fast", as_it_is, &[Busy::Downloads(1_000_000)]);
}

#[test]
fn what_goes_up_with_strict_is_the_same_to_the_bit_over_two_epochs() {
    the_same_up("text", strict, &[Busy::Messages(5.0)]);
    the_same_up("call", strict, &[Busy::Call]);
    the_same_up("web", strict, &[Busy::Downloads(200_000)]);
}

/// What comes for the one who loads, in packets, against the same person at rest.
fn arrivals_of_a_download(change: fn(&mut Case)) -> (usize, usize) {
    let count = |busy| {
        let mut case = four("web", busy);
        change(&mut case);
        let ran = case.run().unwrap();
        something_was_done(busy, &ran);
        ran.seen(0).unwrap().came.len()
    };
    (count(Busy::Nothing), count(Busy::Downloads(200_000)))
}

#[test]
fn strict_is_on_where_the_test_of_it_says_so() {
    let (rest, loading) = arrivals_of_a_download(as_it_is);
    assert!(loading > 2 * rest, "{loading} arrivals where {rest} come at rest");
    let (rest, loading) = arrivals_of_a_download(strict);
    assert!(20 * loading < 21 * rest, "{loading} arrivals where {rest} come at rest");
}

/// Eight people for 570 s, idle for one half: 10^5 arrivals and more in classes call and web.
fn arrivals(class: &str, busy: Busy, credits: bool, seed: u64) -> (PermutationTest, usize) {
    let mut case = Case::new(class, busy, (4, 570.0, seed));
    case.settings.trial.credits = credits;
    steady(&case, 10_000).unwrap()
}

fn told(tested: &PermutationTest) -> String {
    format!("p = {}, {:?}", tested.p, &tested.differences[..4])
}

/// One thousandth for all of these together.
fn not_told_from_rest(class: &str, activities: &[Busy]) {
    for (seed, busy) in (1..).zip(activities) {
        let (tested, count) = arrivals(class, *busy, true, seed);
        assert!(count >= 100_000, "{count}");
        let level = 0.001 / activities.len() as f64;
        assert!(tested.p > level, "seed {seed}, {busy:?}: {}", told(&tested));
    }
}

#[test]
fn calls_and_a_message_now_and_then_are_not_told_from_rest_by_what_arrives() {
    not_told_from_rest("call", &[Busy::Call, Busy::Messages(10.0)]);
}

#[test]
fn many_messages_are_not_told_from_rest_by_what_arrives_in_class_web() {
    not_told_from_rest("web", &[Busy::Messages(1.0), Busy::Messages(0.4), Busy::Call]);
}

/// In class call they are: what arrives is too even to hide one packet more.
#[test]
fn many_messages_are_told_from_rest_by_what_arrives_in_class_call() {
    let (tested, _) = arrivals("call", Busy::Messages(1.0), true, 1);
    assert!(tested.p < 0.001, "{}", told(&tested));
}

#[test]
fn what_arrives_tells_messages_from_rest_where_no_arrival_takes_a_loops_place() {
    let (tested, _) = arrivals("call", Busy::Messages(1.0), false, 1);
    assert!(tested.p < 0.001, "{}", told(&tested));
}

/// The share that is found of these instants by who learnt on one seed and asks on another.
fn found(
    class: &str,
    busy: Busy,
    size: (u32, f64, u64),
    letters_wait: bool,
    instant: Instant,
) -> OnsetsFound {
    let [train, test] = [1_000, 0].map(|more| {
        let mut case = Case::new(class, busy, (size.0, size.1, size.2 + more));
        case.settings.trial.letters_wait = letters_wait;
        case
    });
    let (learned, ran) = (train.run().unwrap(), test.run().unwrap());
    onsets((&train, &learned), (&test, &ran), instant).unwrap()
}

#[test]
fn a_burst_shows_at_its_reader_if_it_is_sent_at_once_and_hardly_if_letters_wait() {
    let size = (6, 400.0, 1);
    let read = |wait| found("web", Busy::Bursts(16, 25.0), size, wait, Instant::Read).share;
    let (at_once, waiting) = (read(false), read(true));
    assert!(at_once.low > 0.5, "{at_once:?}");
    assert!(waiting.high < 0.5, "{waiting:?}");
    // What the writer's gateway sees is the same in any case.
    let written = found("web", Busy::Bursts(16, 25.0), size, true, Instant::Written).share;
    assert!(written.low < 0.02, "{written:?}");
}

#[test]
#[ignore = "takes some minutes"]
fn beginnings_and_ends_of_calls_are_hardly_found_by_who_asks_about_the_instant() {
    for instant in [Instant::Begin, Instant::End] {
        let found = found("call", Busy::Calls(8.0), (8, 1_800.0, 1), true, instant);
        assert!(found.share.high <= 0.02, "{instant:?}: {found:?}");
    }
}

#[test]
fn whoever_holds_a_clients_frames_tells_a_call_from_rest_and_an_even_link_does_not_tell() {
    let all = adversaries((3, 185.0, 1));
    let p = |name: &str, reading: GatewayReading| {
        let fits =
            |active: &&ActiveAdversary| active.name.contains(name) && active.reading == reading;
        all.iter().find(fits).unwrap().run().unwrap().decision.p
    };
    for reading in [GatewayReading::InACall, GatewayReading::With] {
        let (even, held) = (p("without stalls", reading), p("up are held for 1 s", reading));
        assert!(even > 0.001, "{reading:?} of an even link: p = {even}");
        assert!(held < 0.001, "{reading:?} of a held one: p = {held}");
    }
}
