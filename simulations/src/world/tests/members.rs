//! People as members of an organisation: the engine of messages, in the world.

use super::*;
use crate::workload::LetterSettings;

const A: u32 = 0;
const B: u32 = 1;
const C: u32 = 2;
/// Length of a period of keys, seconds.
const PERIOD_S: u32 = 1_800;

/// Three members in class text, at two gateways: A and C at the first, B at the second.
fn world() -> Settings {
    let mut settings = class("text");
    (settings.warm_up_s, settings.drain_s) = (15.0, 0.0);
    settings.codec = CodecChoice::Keyed;
    settings.network.mixes_per_layer = 1;
    settings.network.node_loops_per_s = 0.05;
    settings.network.epoch_s = 40_000;
    settings.network.inbox_expiry_s = 7 * PERIOD_S;
    settings.people.key_period_s = PERIOD_S;
    settings.people.members = true;
    settings.observer.links = Observed::None;
    settings
}

/// So many messages from one to another, from an instant on at a distance.
type Written = (u32, u32, f64, u32, f64);

fn written(all: &[Written], end_s: f64) -> Workload {
    let letter = |(from, to, at_s, count, every_s): &Written| LetterSettings {
        from: *from,
        to: *to,
        at_s: *at_s,
        count: *count,
        every_s: *every_s,
    };
    let all: Vec<LetterSettings> = all.iter().map(letter).collect();
    LetterSettings::workload(&all, 3, end_s)
}

/// A and B write to each other for a quarter of an hour, and C to A once.
const DIALOGUE: [Written; 3] =
    [(A, B, 30.0, 30, 30.0), (B, A, 45.0, 30, 30.0), (C, A, 400.0, 1, 0.0)];

#[test]
fn what_members_write_is_read_once_and_its_writer_knows() {
    let report = go(&world(), &written(&DIALOGUE, 30_000.0), 1);
    let service = &report.service;
    assert_eq!(service.message_delays_s.len(), 61, "{:?}", report.measured);
    assert_eq!((service.messages_again, service.messages_expired), (0, 0));
    assert_eq!((service.receipt_delays_s.len(), service.receipts_without_reading), (61, 0));
    // In a dialogue the receipt comes with the answer.
    let mut receipts = service.receipt_delays_s.clone();
    receipts.sort_by(f32::total_cmp);
    assert!(receipts[30] < 60.0, "{receipts:?}");
    assert_eq!(go(&world(), &written(&DIALOGUE, 2_000.0), 1).trace_hash, {
        go(&world(), &written(&DIALOGUE, 2_000.0), 1).trace_hash
    });
}

/// A frame up, as the gateway gets it: when it was sent, its first hop and its epoch.
type FrameUp = (u64, u16, u8);

/// What the links and the gateways of people show: both ways of each link to the bit, and each frame up.
fn shown(settings: &Settings, workload: &Workload) -> Vec<(Trace, Vec<FrameUp>)> {
    let mut settings = settings.clone();
    settings.observer.links = Observed::Clients;
    settings.observer.gateway_view = true;
    let report = go(&settings, workload, 3);
    let people = (0..3).map(|person| {
        let own = |link: &Link| [link.from, link.to].contains(&Party::Person(person));
        let links = report.view.trace.links.iter().filter(|(link, _)| own(link));
        let trace = Trace { links: links.map(|(link, flow)| (*link, flow.clone())).collect() };
        let up = report.at_gateway[person as usize].up.iter();
        (trace, up.map(|up| (up.sent, up.first_hop, up.epoch)).collect())
    });
    people.collect()
}

#[test]
fn the_links_and_the_frames_of_a_group_that_writes_are_those_of_idle_people_to_the_bit() {
    // One of them founds the group at his first link; all write to it, and it answers.
    let mut in_group = world();
    in_group.people.group_size = 3;
    let idle = shown(&world(), &nothing(3, 5_000));
    let busy = shown(&in_group, &written(&DIALOGUE, 5_000.0));
    for (person, (idle, busy)) in idle.iter().zip(&busy).enumerate() {
        assert!(idle.1.len() > 5_000, "{}", idle.1.len());
        assert!(idle.0 == busy.0, "the link of person {person}");
        assert!(idle.1 == busy.1, "the frames of person {person}");
    }
    // It was written to the group, and read.
    let report = go(&in_group, &written(&DIALOGUE, 5_000.0), 1);
    assert_eq!(report.service.message_delays_s.len(), 61, "{:?}", report.measured);
    assert_ne!(report.trace_hash, go(&world(), &written(&DIALOGUE, 5_000.0), 1).trace_hash);
}

#[test]
fn the_link_and_the_frames_of_a_member_who_writes_are_those_of_an_idle_one_to_the_bit() {
    // Across two periods of keys, with receipts that come with answers and others that come alone.
    let idle = shown(&world(), &nothing(3, 5_000));
    let busy = shown(&world(), &written(&DIALOGUE, 5_000.0));
    for (person, (idle, busy)) in idle.iter().zip(&busy).enumerate() {
        assert!(idle.1.len() > 5_000, "{}", idle.1.len());
        assert!(idle.0 == busy.0, "the link of person {person}");
        assert!(idle.1 == busy.1, "the frames of person {person}");
    }
    // What is compared shows what differs: another seed, another trace.
    let other = go(&world(), &nothing(3, 5_000), 4).trace_hash;
    assert_ne!(go(&world(), &nothing(3, 5_000), 3).trace_hash, other);
}

#[test]
fn the_fetch_of_a_directory_does_not_show_on_the_link_of_a_member() {
    let fetch = |person| Activity::Download { person, at: Time::from_secs(60), bytes: 130_000 };
    let mut workload = written(&DIALOGUE, 1_500.0);
    workload.activities.extend([A, B].map(fetch));
    workload.activities.sort_by_key(Activity::at);
    let settings = world();
    let report = go(&settings, &workload, 3);
    assert_eq!(report.service.download_times_s.len(), 2, "{:?}", report.measured);
    assert!(shown(&settings, &workload) == shown(&settings, &nothing(3, 1_500)));
}

#[test]
fn sessions_vouch_for_messages_which_take_the_place_of_loops_and_are_no_strangers() {
    // More than strangers may send before the user is told of it.
    let many = written(&[(A, B, 60.0, 120, 5.0), (C, B, 62.0, 120, 5.0)], 1_500.0);
    let loops = |credits: bool| {
        let mut settings = world();
        settings.trial.credits = credits;
        let mut world = World::new(&settings, &many, 1).unwrap();
        world.run_until(Time::from_secs(1_200), &|_| ());
        assert_eq!(world.service.message_delays_s.len(), 240);
        for person in &world.people {
            assert!(!person.client.is_pestered());
            assert_eq!(person.dissatisfied, 0);
        }
        world.people[B as usize].slots.filled().loops
    };
    let (with, without) = (loops(true), loops(false));
    println!("{with} loops, {without} without credits");
    assert!(with + 50 < without, "{with} loops, {without} without credits");
}

#[test]
fn who_was_away_gets_each_message_once_and_its_writer_is_told_afterwards() {
    let mut settings = world();
    let (leaves_s, returns_s) = (300.0, 6.5 * f64::from(PERIOD_S));
    settings.absences = vec![Absence { people: vec![B], begin_s: leaves_s, end_s: returns_s }];
    settings.network.epoch_s = 60_000;
    let all = [(A, B, 30.0, 2, 30.0), (A, B, 1_000.0, 20, 450.0), (C, B, 3_000.0, 1, 0.0)];
    let report = go(&settings, &written(&all, 50_000.0), 2);
    let service = &report.service;
    assert_eq!(service.message_delays_s.len(), 23, "{:?}", report.measured);
    assert_eq!((service.messages_again, service.messages_expired), (0, 0));
    assert_eq!((service.receipt_delays_s.len(), service.receipts_without_reading), (23, 0));
    assert_eq!(of(&report, "absence_1_letters_arrived"), 21.0);
}

#[test]
fn members_need_keys_of_periods() {
    let mut settings = world();
    settings.people.key_period_s = 0;
    let wrong = settings.check().unwrap_err();
    assert_eq!(wrong.key, "people.key_period_s", "{}", wrong.why);
}
