//! Epochs that follow each other: keys, indices and layers change, and nothing else does.

use super::*;
use crate::surbs::Of;
use crate::world::{Authority, GATEWAYS, MIXES, START, World, identity};

#[test]
fn a_download_runs_across_ten_rotations_without_a_stall() {
    let mut world = World::new(1, 20);
    world.download(1 << 20);
    world.run(Time::from_secs(10));
    let (before, turns) = (world.read, world.turns);
    assert!(before > 500_000, "{before}");
    let rates: Vec<u64> = (1..=10)
        .map(|n| {
            let from = world.read;
            world.run(Time::from_secs(10 + 20 * n));
            (world.read - from) / 20
        })
        .collect();
    assert_eq!(world.epoch(), START + 10);
    // Ten beginnings, and ten documents that came before them.
    assert_eq!(world.turns - turns, 20);
    assert!(world.stall < Duration::from_millis(1_500), "{:?}", world.stall);
    assert!(rates.iter().all(|rate| *rate > 100_000), "bytes/s in each epoch: {rates:?}");
    assert_eq!(world.lost, 0, "packets that no key opened, or that came to another layer");
    let counts = world.exit.counts();
    assert_eq!(counts.surbs_bad, 0);
    assert_eq!(world.client.counts().unknown, 0);
    assert!(world.client.outstanding.len() < 2_000, "{}", world.client.outstanding.len());
    assert_eq!(world.slots.filled().filler, 0);
}

#[test]
fn an_idle_tunnel_has_surbs_whatever_the_epoch() {
    let mut world = World::new(2, 20);
    world.download(1_000);
    world.run(Time::from_secs(3));
    assert!(world.read > 0);
    // The user is quiet; the service may speak at any time.
    world.download(0);
    for at in 4..120 {
        world.run(Time::from_secs(at));
        let (_, surbs) = world.exit.sizes();
        assert!(surbs >= 10, "{surbs} at {at} s");
    }
    assert_eq!(world.exit.counts().surbs_bad, 0);
    assert!(world.client.outstanding.len() < 200, "{}", world.client.outstanding.len());
}

#[test]
fn the_instants_on_the_link_are_the_same_whether_epochs_change_or_not() {
    let run = |epoch_s, bytes| {
        let mut world = World::new(3, epoch_s);
        world.download(bytes);
        world.run(Time::from_secs(65));
        // The first document begins an epoch at once; each that comes, and each beginning, is told.
        assert_eq!(world.turns, 2 + 2 * (65 / u64::from(epoch_s)) + u64::from(epoch_s == 10));
        world.trace
    };
    let still = run(1_000, 0);
    assert!(still.len() > 65 * 150);
    assert!(still == run(10, 0), "rotations show");
    assert!(still == run(10, 1 << 20), "a download across rotations shows");
}

#[test]
fn a_document_that_comes_early_waits_for_its_epoch() {
    let mut world = World::new(4, 20);
    world.run(Time::from_secs(12));
    assert_eq!(world.client.router.document(world.now).unwrap().epoch, Epoch(START));
    assert!(world.client.router.document_at(Epoch(START + 1)).unwrap().epoch == Epoch(START + 1));
    let begins = Time::from_secs(20);
    assert_eq!(world.client.router.next_epoch(world.now), begins);
    assert_eq!(world.client.epoch(Time::from_nanos(begins.as_nanos() - 1)), Some(START));
    assert_eq!(world.client.epoch(begins), Some(START + 1));
    assert_eq!(world.client.document(begins).unwrap().epoch, Epoch(START + 1));
}

#[test]
fn surbs_for_the_next_epoch_are_given_out_from_a_quarter_of_an_epoch_before_it() {
    let mut world = World::new(5, 20);
    world.run(Time::from_secs(9));
    let router = &world.client.router;
    for (ms, late, expected) in [
        (14_999, 0.0, false),
        (15_000, 0.0, true),
        (17_499, 1.0, false),
        (17_500, 1.0, true),
        (19_999, 1.0, true),
        // From the beginning on it is the present one, and nothing is known of the one after it.
        (20_000, 0.0, false),
    ] {
        let prepares = router.prepares_next(Time::from_millis(ms), late);
        assert_eq!(prepares, expected, "{ms} ms, {late}");
    }
}

#[test]
fn when_all_tunnels_lack_surbs_the_one_in_use_comes_first() {
    let (mut client, _) = linked();
    let ids: Vec<GroupId> = (0..50_u8).map(|n| super::group(&mut client, &[n])).collect();
    for id in &ids {
        let group = client.groups.get_mut(id).unwrap();
        group.location = Some(location(GATEWAYS[2]));
        group.connected = true;
    }
    let now = Time::from_secs(1);
    client.touch(now, ids[20]);
    let missing = |client: &Client, id| client.groups[id].stock.missing(now, Of::Present);
    let before = missing(&client, &ids[20]);
    let mut packets = 0;
    while missing(&client, &ids[20]) >= 5 {
        let wants = super::wants(&mut client, now, (0, 1, 0));
        assert_eq!(client.produce(now, wants).len(), 1);
        packets += 1;
    }
    assert!(before > 50 && packets <= before.div_ceil(5), "{packets} packets for {before}");
    let idle = ids.iter().filter(|id| **id != ids[20]);
    assert!(idle.clone().all(|id| missing(&client, id) == 16), "others were served before");
    // And none is left out.
    let wants = super::wants(&mut client, now, (0, 1, 0));
    while !client.produce(now, wants.clone()).is_empty() {}
    assert!(idle.clone().all(|id| missing(&client, id) < 5));
}

fn engine(settings: ClientSettings) -> (Client, Authority) {
    let class = Parameters::default().class("web").cloned().unwrap();
    let key = (SecretKey::from_bytes([1; 32]), Identity([2; 32]));
    let base = (crate::tunnel::pair::base(), Time::ZERO);
    let client = Client::new(Arc::new(NullCodec), base, &Seed::from_u64(1), class, key, settings);
    (client, Authority::new(20))
}

fn begins() -> u64 {
    20 * START
}

/// True if the client sends cover, and nothing else.
fn only_covers(client: &mut Client, now: Time) -> bool {
    let wants = super::wants(client, now, (2, 1, 1));
    let kinds: Vec<_> = client.produce(now, wants).into_iter().map(|(ready, ..)| ready).collect();
    use crate::uplink::Ready::{Drop, Loop};
    kinds.len() == 2 && kinds.iter().all(|ready| matches!(ready, Loop(_) | Drop))
}

fn letter(client: &mut Client, now: Time) -> Result<(), NotPosted> {
    let key = SecretKey::from_bytes([5; 32]).public();
    let contact = Contact { inbox: Identity([3; 32]), key, gateway: identity(GATEWAYS[1]) };
    client.post(now, &contact, b"hello").map(drop)
}

#[test]
fn two_documents_of_one_epoch_stop_the_user_for_good_and_cover_goes_on() {
    let (mut client, authority) = engine(ClientSettings::default());
    let document = authority.document(START);
    client.set_document(Time::ZERO, begins(), authority.sign(&document)).unwrap();
    client.set_link(Time::ZERO, Some(identity(GATEWAYS[0])));
    assert_eq!(client.protection(Time::ZERO), Ok(()));
    letter(&mut client, Time::ZERO).unwrap();

    let mut other = document.clone();
    other.parameters.warn_bits += 1.0;
    let (one, two) = (authority.sign(&document).signed, authority.sign(&other));
    let proof = client.set_document(Time::ZERO, begins(), two.clone()).unwrap_err();
    assert!(proof.first == one && proof.second == two.signed);
    assert!(matches!(client.protection(Time::ZERO), Err(Unprotected::Equivocation(_))));
    assert!(only_covers(&mut client, Time::ZERO));
    // Nor does the next epoch help.
    let next = authority.sign(&authority.document(START + 1));
    client.set_document(Time::ZERO, begins(), next).unwrap();
    let why = client.protection(Time::from_secs(21)).unwrap_err().to_string();
    assert!(why.contains("contradict"), "{why}");
    assert!(only_covers(&mut client, Time::from_secs(21)));
}

#[test]
fn a_stale_document_stops_the_user_and_cover_goes_on() {
    let (mut client, authority) = engine(ClientSettings::default());
    let held = authority.sign(&authority.document(START));
    client.set_document(Time::ZERO, begins(), held).unwrap();
    client.set_link(Time::ZERO, Some(identity(GATEWAYS[0])));
    letter(&mut client, Time::ZERO).unwrap();
    // Two further epochs.
    assert_eq!(client.protection(Time::from_secs(59)), Ok(()));
    let why = client.protection(Time::from_secs(60)).unwrap_err();
    assert!(matches!(why, Unprotected::Document(shoal_topology::Error::Stale { .. })));
    assert!(only_covers(&mut client, Time::from_secs(61)));
}

#[test]
fn a_document_that_is_refused_says_why_nothing_leaves_until_another_one_comes() {
    let (mut client, authority) = engine(ClientSettings::default());
    client.set_link(Time::ZERO, Some(identity(GATEWAYS[0])));
    assert_eq!(client.protection(Time::ZERO), Err(Unprotected::NoDocument));
    client.refuse_document("it is stale".into());
    assert_eq!(client.protection(Time::ZERO), Err(Unprotected::Refused("it is stale".into())));
    let held = authority.sign(&authority.document(START));
    client.set_document(Time::ZERO, begins(), held).unwrap();
    assert_eq!((client.protection(Time::ZERO), client.refused_document()), (Ok(()), None));
    // Beside one that holds it is a warning; when that has ended, it is the reason.
    client.refuse_document("it was changed".into());
    assert_eq!(client.protection(Time::ZERO), Ok(()));
    let why = client.protection(Time::from_secs(60)).unwrap_err();
    assert_eq!(why.to_string(), "it was changed");
}

#[test]
fn too_few_mixes_in_good_standing_stop_the_user_until_some_are_restored() {
    let (mut client, mut authority) =
        engine(ClientSettings { min_mixes_per_layer: 2, ..ClientSettings::default() });
    let document = authority.document(START);
    client.set_document(Time::ZERO, begins(), authority.sign(&document)).unwrap();
    client.set_link(Time::ZERO, Some(identity(GATEWAYS[0])));
    assert_eq!(client.protection(Time::ZERO), Ok(()));
    letter(&mut client, Time::ZERO).unwrap();
    authority.demoted.push(MIXES[0]);
    let amendment = Document { amendment: 1, ..authority.document(START) };
    assert!(client.set_document(Time::ZERO, begins(), authority.sign(&amendment)).unwrap());
    let why = client.protection(Time::ZERO).unwrap_err();
    assert!(matches!(why, Unprotected::TooFewMixes { found: 1, least: 2, .. }), "{why}");
    assert!(only_covers(&mut client, Time::ZERO));
    authority.demoted.clear();
    let next = authority.sign(&authority.document(START + 1));
    client.set_document(Time::ZERO, begins(), next).unwrap();
    assert_eq!(client.protection(Time::from_secs(20)), Ok(()));
}

#[test]
fn an_amendment_takes_a_mix_out_of_all_paths_at_once() {
    let (mut client, mut authority) = engine(ClientSettings::default());
    let document = authority.document(START);
    client.set_document(Time::ZERO, begins(), authority.sign(&document)).unwrap();
    let own = identity(GATEWAYS[0]);
    client.set_link(Time::ZERO, Some(own));
    let drawn = |client: &mut Client| {
        let end = client.end;
        (0..100).any(|_| {
            let route = client.router.draw_back(Epoch(START), &own, end).unwrap();
            route.mixes.contains(&identity(MIXES[0]))
        })
    };
    assert!(drawn(&mut client));
    client.surbs(Epoch(START), &own, 1);
    authority.demoted.push(MIXES[0]);
    let amendment = Document { amendment: 1, ..authority.document(START) };
    client.set_document(Time::ZERO, begins(), authority.sign(&amendment)).unwrap();
    assert!(!drawn(&mut client));
    assert!(client.ahead.of(own, Epoch(START)).is_empty(), "SURBs too");
}

#[test]
fn the_beginning_of_an_epoch_stays_where_it_is_when_documents_come_at_other_fractions_of_a_second()
{
    let (mut client, authority) = engine(ClientSettings::default());
    let held = |epoch| authority.sign(&authority.document(epoch));
    let tenth = |n: u64| Time::from_millis(100 * n);
    // Unix time is 150 ms ahead of what whole seconds of both would say, or 850 ms behind.
    client.set_document(tenth(109), begins() + 10, held(START)).unwrap();
    assert_eq!(client.router.next_epoch(tenth(110)), Time::from_secs(20));
    client.set_document(tenth(111), begins() + 10, held(START + 1)).unwrap();
    assert_eq!(client.router.next_epoch(tenth(112)), Time::from_secs(20));
    client.set_document(tenth(119), begins() + 12, held(START)).unwrap();
    assert_eq!(client.router.next_epoch(tenth(120)), Time::from_secs(20));
    // A clock that is set right is followed.
    client.set_document(tenth(120), begins() + 15, held(START)).unwrap();
    assert_eq!(client.router.next_epoch(tenth(121)), Time::from_secs(17));
}

#[test]
fn who_has_a_clock_as_slow_as_is_allowed_loses_nothing_when_an_epoch_ends() {
    for slow_s in [0, 15, 28] {
        let mut authority = Authority::new(400);
        authority.clock_error_s = 30;
        let mut world = World::of(authority, 6, ClientSettings::default(), slow_s);
        world.run(Time::from_secs(390));
        let (before, over) = (world.client.loops().lost, world.over);
        assert_eq!(over, 0);
        world.download(1_000);
        world.run(Time::from_secs(450));
        let loops = world.client.loops();
        assert_eq!((world.over, loops.lost - before), (0, 0), "{slow_s} s: {loops:?}");
        assert_eq!((world.lost, world.client.counts().unknown), (0, 0), "{slow_s} s");
    }
}

#[test]
fn nothing_is_sealed_for_slots_that_lead_where_another_document_says() {
    let (mut client, authority) = linked();
    client.settings.letters_at_once = true;
    let of_before = super::wants(&mut client, Time::ZERO, (2, 1, 2));
    letter(&mut client, Time::ZERO).unwrap();
    let amendment = Document { amendment: 1, ..authority.document(START) };
    client.set_document(Time::ZERO, begins(), authority.sign(&amendment)).unwrap();
    assert!(client.produce(Time::ZERO, of_before).is_empty());
    // What waits is not lost by that.
    let wants = super::wants(&mut client, Time::ZERO, (2, 1, 2));
    assert_eq!(client.produce(Time::ZERO, wants).len(), 1);
    assert_eq!(client.counts().no_path, 0);
}
