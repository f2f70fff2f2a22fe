//! P2 at the gateway: what a client's own gateway sees of it. Up, frame by frame, the same to the bit whatever the user
//! does; down, one law in rest, with messages and in calls; of beginnings and ends, little.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use shoal_sim::at_gateway::attacks::{Active, Instant, Reading, adversaries, onsets};
use shoal_sim::at_gateway::experiments::{Busy, Case, steady};
use shoal_sim::at_gateway::steady::Verdict;

/// (when, first hop, epoch) of each frame up of each person.
fn up(class: &str, busy: Busy) -> Vec<Vec<(u64, u16, u8)>> {
    let mut case = Case::new(class, busy, (1, 100.0, 7));
    // Epochs change at 30 and at 90 s: in the observation, which begins at 8 s, twice.
    case.settings.network.epoch_s = 60;
    let ran = case.run().unwrap();
    let up =
        |person: u32| ran.seen(person).unwrap().up.iter().map(|up| (up.at, up.first_hop, up.epoch));
    (0..4).map(|person| up(person).collect()).collect()
}

/// Of a class, these activities against nothing.
fn the_same_up(class: &str, activities: &[Busy]) {
    let idle = up(class, Busy::Nothing);
    let epochs: std::collections::BTreeSet<u8> = idle[0].iter().map(|(.., epoch)| *epoch).collect();
    assert_eq!(epochs.len(), 3, "{class}: {epochs:?}");
    assert!(idle.iter().all(|frames| frames.len() > 90), "{class}");
    for busy in activities {
        let differing = |person: usize| {
            let busy = up(class, *busy);
            let pairs = idle[person].iter().zip(&busy[person]);
            pairs.filter(|(a, b)| a != b).count() + idle[person].len().abs_diff(busy[person].len())
        };
        for person in 0..4 {
            assert_eq!(differing(person), 0, "{class}, {busy:?}, person {person}: frames differ");
        }
    }
}

#[test]
fn what_goes_up_in_class_text_is_the_same_to_the_bit_over_two_epochs() {
    the_same_up("text", &[Busy::Messages(5.0), Busy::Bursts(4, 20.0)]);
}

#[test]
fn what_goes_up_in_class_call_is_the_same_to_the_bit_over_two_epochs() {
    the_same_up("call", &[Busy::Call, Busy::Calls(8.0), Busy::Messages(0.4)]);
}

#[test]
fn what_goes_up_in_class_web_is_the_same_to_the_bit_over_two_epochs() {
    the_same_up("web", &[Busy::Downloads(200_000), Busy::Messages(0.4)]);
}

/// Eight people of class call for 570 s, idle for one half: 10^5 arrivals.
fn arrivals(class: &str, busy: Busy, credits: bool, seed: u64) -> (Verdict, usize) {
    let mut case = Case::new(class, busy, (4, 570.0, seed));
    case.settings.trial.credits = credits;
    steady(&case, 10_000).unwrap()
}

fn told(verdict: &Verdict) -> String {
    format!("p = {}, {:?}", verdict.p, &verdict.differences[..4])
}

/// One thousandth for all of these together.
fn not_told_from_rest(activities: &[Busy]) {
    for (seed, busy) in (1..).zip(activities) {
        let (verdict, count) = arrivals("call", *busy, true, seed);
        assert!(count >= 100_000, "{count}");
        let level = 0.001 / activities.len() as f64;
        assert!(verdict.p > level, "seed {seed}, {busy:?}: {}", told(&verdict));
    }
}

#[test]
fn calls_and_a_message_now_and_then_are_not_told_from_rest_by_what_arrives() {
    not_told_from_rest(&[Busy::Call, Busy::Messages(10.0)]);
}

#[test]
#[ignore = "does not hold yet: a letter takes a loop's slot at its writer while it is one more at its reader"]
fn many_messages_are_not_told_from_rest_by_what_arrives() {
    not_told_from_rest(&[Busy::Messages(1.0), Busy::Messages(0.4)]);
}

#[test]
fn what_arrives_tells_messages_from_rest_where_no_arrival_takes_a_loops_place() {
    let (verdict, _) = arrivals("call", Busy::Messages(1.0), false, 1);
    assert!(verdict.p < 0.001, "{}", told(&verdict));
}

/// Learns on one seed, asks on another: at most one in fifty is found, with 95 % confidence.
fn hardly_found(busy: Busy, instants: &[Instant], seed: u64) {
    let [train, test] = [1_000, 0].map(|more| Case::new("call", busy, (8, 900.0, seed + more)));
    let (learned, ran) = (train.run().unwrap(), test.run().unwrap());
    for instant in instants {
        let found = onsets((&train, &learned), (&test, &ran), *instant).unwrap();
        assert!(found.share.high <= 0.02, "{busy:?}, {instant:?}: {found:?}");
    }
}

#[test]
#[ignore = "not shown yet: of beginnings 1.8 % are found, 2.5 % at most with 95 % confidence"]
fn beginnings_and_ends_of_calls_are_hardly_found_by_who_asks_about_the_instant() {
    hardly_found(Busy::Calls(8.0), &[Instant::Begin, Instant::End], 1);
}

#[test]
#[ignore = "does not hold yet: in class call most bursts are found at the reader"]
fn bursts_of_up_to_four_messages_are_hardly_found_by_who_asks_about_the_instant() {
    for count in 1..=4 {
        hardly_found(
            Busy::Bursts(count, 4.0),
            &[Instant::Written, Instant::Read],
            u64::from(count),
        );
    }
}

#[test]
fn whoever_holds_a_clients_frames_tells_a_call_from_rest_and_an_even_link_does_not_tell() {
    let all = adversaries((3, 185.0, 1));
    let p = |name: &str, reading: Reading| {
        let fits = |active: &&Active| active.name.contains(name) && active.reading == reading;
        all.iter().find(fits).unwrap().run().unwrap().decision.p
    };
    for reading in [Reading::InACall, Reading::With] {
        let (even, held) = (p("without stalls", reading), p("up are held for 1 s", reading));
        assert!(even > 0.001, "{reading:?} of an even link: p = {even}");
        assert!(held < 0.001, "{reading:?} of a held one: p = {held}");
    }
}
