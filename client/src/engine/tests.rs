mod ages;
mod epochs;
mod gateways;
mod inboxes;
mod letters;
mod outages;
mod properties;
mod refreshing;
mod shares;
mod strict;
mod trust;

use shoal_sphinx::NullCodec;
use shoal_topology::Parameters;

use super::*;
use crate::gauge::Reading;
use crate::tunnel::{Tunnel, TunnelSettings};
use crate::uplink::{Departed, Uplink, Wants};
use crate::world::{Authority, GATEWAYS, START, identity};

/// With a document, and linked to the first gateway.
fn linked() -> (Client, Authority) {
    let (mut client, authority) = (client(), Authority::new(20));
    let held = authority.sign(&authority.document(START));
    client.set_document(Time::ZERO, 20 * START, held).unwrap();
    client.set_link(Time::ZERO, Some(identity(GATEWAYS[0])));
    (client, authority)
}

/// A service at a gateway.
fn location(gateway: &str) -> ServiceLocation {
    let key = SecretKey::from_bytes([5; 32]).public();
    ServiceLocation { identity: [6; 32], inbox: [7; 32], key, gateway: identity(gateway) }
}

fn client() -> Client {
    let class = Parameters::default().class("web").cloned().unwrap();
    let settings = ClientSettings::default();
    let key = (SecretKey::from_bytes([1; 32]), Identity([2; 32]));
    let base = (crate::tunnel::pair::base(), Time::ZERO);
    Client::new(Arc::new(NullCodec), base, &Seed::from_u64(1), class, key, settings)
}

fn group(client: &mut Client, user: &[u8]) -> GroupId {
    client.group(Time::ZERO, Isolation::new(Some((user, b""))), Target::Exit).unwrap()
}

#[test]
fn a_thin_crowd_warns_and_a_thinner_one_stops_the_user_unless_he_allows_it() {
    let with_floors = |floors: Option<(f64, f64)>| {
        let (mut client, authority) = (client(), Authority::new(20));
        let mut document = authority.document(START);
        for node in &mut document.nodes {
            node.pool = shoal_topology::reputation::report::coarse_pool(20.0);
        }
        if let Some((warn, refuse)) = floors {
            (document.parameters.warn_bits, document.parameters.refuse_bits) = (warn, refuse);
        }
        client.set_document(Time::ZERO, 20 * START, authority.sign(&document)).unwrap();
        client.set_link(Time::ZERO, Some(identity(GATEWAYS[0])));
        client
    };
    let bits = with_floors(None).anonymity_bits().unwrap();
    let read = |allow_small_crowd, floors: &dyn Fn(f64) -> (f64, f64)| {
        let mut client = with_floors(Some(floors(bits)));
        client.settings.allow_small_crowd = allow_small_crowd;
        let (same, reading) = client.crowd().unwrap();
        assert_eq!(same, bits);
        (reading, client.protection(Time::ZERO).is_ok())
    };
    assert_eq!(read(false, &|bits| (bits - 0.1, bits - 0.2)), (Reading::Fine, true));
    assert_eq!(read(false, &|bits| (bits + 0.1, bits - 0.1)), (Reading::Warn, true));
    assert_eq!(read(false, &|bits| (bits + 0.2, bits + 0.1)), (Reading::Refuse, false));
    assert_eq!(read(true, &|bits| (bits + 0.2, bits + 0.1)), (Reading::Refuse, true));
}

#[test]
fn a_crowd_of_which_nobody_knows_is_no_protection_except_where_people_know_that() {
    let read = |trial, set: &dyn Fn(&mut ClientSettings)| {
        let (mut client, authority) = (client(), Authority::new(20));
        let mut document = authority.document(START);
        document.parameters.trial = trial;
        document.nodes.iter_mut().for_each(|node| node.pool = 0);
        set(&mut client.settings);
        client.set_document(Time::ZERO, 20 * START, authority.sign(&document)).unwrap();
        client.set_link(Time::ZERO, Some(identity(GATEWAYS[0])));
        client.protection(Time::ZERO)
    };
    assert_eq!(read(false, &|_| {}), Err(Unprotected::UnknownCrowd));
    assert_eq!(read(true, &|_| {}), Ok(()));
    assert_eq!(read(false, &|settings| settings.allow_small_crowd = true), Ok(()));
    assert_eq!(read(false, &|settings| settings.min_bits = Some(0.0)), Ok(()));
    // What is below a floor is not shown as the floor.
    let said = Unprotected::SmallCrowd { bits: 2.9999, floor: 3.0 }.to_string();
    assert!(said.contains("2.99 bits, below the floor of 3:"), "{said}");
}

#[test]
fn isolation_groups_are_bounded_and_the_one_that_is_idle_longest_makes_room() {
    let mut client = client();
    let ids: Vec<GroupId> = (0..MAX_GROUPS).map(|i| group(&mut client, &i.to_be_bytes())).collect();
    let at = |s| Time::ZERO + Duration::from_secs(s);
    let one_more = |client: &mut Client, s, name: &[u8]| {
        client.group(at(s), Isolation::new(Some((name, b""))), Target::Exit)
    };
    // All wait for their tunnels.
    assert!(one_more(&mut client, 1, b"one more").is_none());
    assert_eq!(client.counts().no_group, 1);
    assert_eq!(one_more(&mut client, 1, &0_usize.to_be_bytes()), Some(ids[0]));
    // They stand; two have streams, the others have been idle since different times.
    for (n, id) in ids.iter().enumerate() {
        let group = client.groups.get_mut(id).unwrap();
        group.connected = true;
        group.last_used = at(2 + n as u64);
        group.streams = usize::from(n < 2);
    }
    assert!(one_more(&mut client, 3, b"one more").is_none(), "none has been idle for long enough");
    let new = one_more(&mut client, 6, b"one more").unwrap();
    assert!(!ids.contains(&new) && client.stage(ids[2]).is_none());
    assert!(client.stage(ids[0]).is_some() && client.stage(ids[3]).is_some());
}

#[test]
fn idle_groups_go_sooner_in_two_steps_where_most_places_are_taken() {
    let mut client = client();
    let id = group(&mut client, b"one");
    let group = client.groups.get_mut(&id).unwrap();
    group.connected = true;
    let over = |group: &Group, groups| {
        (0..700).find(|s| group.is_over(Time::ZERO + Duration::from_secs(*s), groups)).unwrap()
    };
    let limits = [1, 127, 128, 191, 192, MAX_GROUPS].map(|groups| over(group, groups));
    assert_eq!(limits, [601, 601, 151, 151, 38, 38]);
    group.streams = 1;
    assert!(!group.is_over(Time::ZERO + Duration::from_secs(700), MAX_GROUPS));
}

/// Seals until no slot wants anything that there is.
fn fill(client: &mut Client, now: Time, uplink: &mut Uplink) {
    client.departed(uplink.departed());
    loop {
        let frames = client.produce(now, uplink.wants(now));
        if frames.is_empty() {
            return;
        }
        frames.into_iter().for_each(|(ready, slot, frame)| uplink.put(ready, slot, frame));
    }
}

/// Slots of an uplink of class web that want so many parts of tunnels, refills, and loops and drop cover each.
fn wants(client: &mut Client, now: Time, (data, refill, cover): (usize, usize, usize)) -> Wants {
    let class = client.class().clone();
    let mut uplink = Uplink::new(&Seed::from_u64(1), class, now);
    uplink.clear(client.turns(now));
    let mut wants = uplink.wants(now);
    (wants.data, wants.refill) = (data, refill);
    wants.loops.truncate(cover);
    wants.drops.truncate(cover);
    wants
}

#[test]
fn a_message_that_cannot_leave_is_refused_with_the_reason() {
    let mut client = client();
    let key = SecretKey::from_bytes([5; 32]).public();
    let contact = Contact { inbox: Identity([3; 32]), key, gateway: Identity([4; 32]) };
    assert_eq!(
        client.post(Time::ZERO, &contact, &[0; shoal_sphinx::MESSAGE_LEN]),
        Err(NotPosted::TooLong)
    );
    assert_eq!(
        client.post(Time::ZERO, &contact, b"hello"),
        Err(NotPosted::NoPath),
        "no link, no document"
    );
}

#[test]
fn a_message_to_someone_at_the_own_gateway_leaves() {
    let (mut client, _) = linked();
    let key = SecretKey::from_bytes([5; 32]).public();
    let own = client.own_gateway(Time::ZERO).unwrap();
    let contact = Contact { inbox: Identity([3; 32]), key, gateway: own };
    assert!(!client.settings.allow_shared_gateway, "a rule for tunnels");
    assert!(client.post(Time::ZERO, &contact, b"hello").is_ok());
    let at = Time::from_secs(50);
    let wants = wants(&mut client, at, (0, 0, 0));
    assert_eq!(client.produce(at, wants).len(), 1);
    assert_eq!(client.counts().no_path, 0);
}

/// True if counts that should be alike are, at α = .001: χ² of so many cells, less one, by Wilson and Hilferty.
fn are_uniform(counts: &HashMap<u16, u64>, cells: usize) -> bool {
    let all: u64 = counts.values().sum();
    let expected = all as f64 / cells as f64;
    let found = counts.values().map(|n| (*n as f64 - expected).powi(2) / expected).sum::<f64>();
    let degrees = cells as f64 - 1.0;
    let part = 2.0 / (9.0 * degrees);
    let limit = degrees * (1.0 - part + 3.09 * part.sqrt()).powi(3);
    counts.len() == cells && found < limit
}

/// 100,000 of each; `SHOAL_FIRST_HOPS` says another number.
#[test]
fn the_first_hop_is_uniform_whatever_the_gateways() {
    let number = std::env::var("SHOAL_FIRST_HOPS").ok().and_then(|n| n.parse().ok());
    let number: usize = number.unwrap_or(100_000);
    for own in GATEWAYS {
        let (mut client, _) = linked();
        let own = identity(own);
        client.set_link(Time::ZERO, Some(own));
        client.pause = super::trust::Pause::No;
        let mixes = client.turns(Time::ZERO)[0].first_hops.clone();
        assert!(mixes.len() > 1);
        // SURBs, which say nothing of the gateway they lead to.
        let mut counts = HashMap::new();
        for _ in 0..number {
            let route = client.router.draw_back(Epoch(START), &own, client.end).unwrap();
            let first = client.document(Time::ZERO).unwrap().index_of(&route.mixes[0]).unwrap();
            *counts.entry(first as u16).or_default() += 1;
        }
        assert!(are_uniform(&counts, mixes.len()), "SURBs: {counts:?}");
        // Frames up, by what fills them: cover of all kinds, and letters to somebody at each gateway.
        let mut all = HashMap::<&str, HashMap<u16, u64>>::new();
        let mut uplink = Uplink::new(&Seed::from_u64(3), client.class().clone(), Time::ZERO);
        uplink.clear(vec![client.turns(Time::ZERO)[0].clone()]);
        let key = SecretKey::from_bytes([5; 32]).public();
        let mut name = "";
        for n in 0..number {
            let now = uplink.next_slot();
            if client.outbox.len() == 0 {
                name = GATEWAYS[n % GATEWAYS.len()];
                let contact = Contact { inbox: Identity([3; 32]), key, gateway: identity(name) };
                client.post(Time::ZERO, &contact, b"hello").unwrap();
            }
            let wants = Wants { letters: uplink.wants(now).letters, ..Wants::default() };
            for (ready, slot, frame) in client.produce(Time::ZERO, wants) {
                *all.entry(name).or_default().entry(frame.field).or_default() += 1;
                uplink.put(ready, slot, frame);
            }
            fill(&mut client, Time::ZERO, &mut uplink);
            // No loop comes back here: none is waited for.
            client.loops = Loops::default();
            let before = uplink.filled();
            let frame = uplink.take(now);
            let after = uplink.filled();
            let kind = match () {
                () if after.loops > before.loops => "loops",
                () if after.drops > before.drops => "drops",
                () => continue,
            };
            *all.entry(kind).or_default().entry(frame.field).or_default() += 1;
        }
        assert_eq!((all.len(), uplink.filled().filler), (5, 0));
        for (kind, counts) in all {
            assert!(are_uniform(&counts, mixes.len()), "{kind}: {counts:?}");
        }
    }
}

#[test]
fn beyond_the_bound_a_message_is_refused_until_others_have_left() {
    let (mut client, _) = linked();
    let key = SecretKey::from_bytes([5; 32]).public();
    let contact = Contact { inbox: Identity([3; 32]), key, gateway: identity(GATEWAYS[1]) };
    let post = |client: &mut Client| client.post(Time::ZERO, &contact, b"hello").map(drop);
    for n in 0..64 {
        assert_eq!(post(&mut client), Ok(()), "{n}");
    }
    assert_eq!(post(&mut client), Err(NotPosted::Full));
    let at = Time::from_secs(50);
    let wants = wants(&mut client, at, (0, 0, 0));
    assert_eq!(client.produce(at, wants).len(), 1);
    // It may still be thrown away.
    assert_eq!(post(&mut client), Err(NotPosted::Full));
    client.departed(Departed { letters: vec![LetterId(0)], ..Departed::default() });
    assert_eq!(post(&mut client), Ok(()));
    assert_eq!(post(&mut client), Err(NotPosted::Full));
}

/// The slots of a minute in which loops left, letters, and when the last letter did, of a client that posts so many at
/// once.
fn posted(class: &str, letters: usize) -> (Vec<Time>, u64, Vec<Time>) {
    let (mut client, _) = linked();
    client.class = Parameters::default().class(class).unwrap().clone();
    let mut uplink = Uplink::new(&Seed::from_u64(5), client.class().clone(), Time::ZERO);
    uplink.clear(vec![client.turns(Time::ZERO)[0].clone()]);
    let key = SecretKey::from_bytes([5; 32]).public();
    let contact = Contact { inbox: Identity([3; 32]), key, gateway: identity(GATEWAYS[1]) };
    let (mut loops, mut left) = (Vec::new(), Vec::new());
    for n in 0.. {
        let at = uplink.next_slot();
        if at > Time::from_secs(60) {
            break;
        }
        if n == 4 {
            (0..letters).for_each(|_| _ = client.post(at, &contact, b"hello").unwrap());
        }
        // A caller that takes a while to seal: only what still can be made.
        fill(&mut client, at, &mut uplink);
        client.loops = Loops::default();
        let before = uplink.filled();
        uplink.take(at);
        if uplink.filled().loops > before.loops {
            loops.push(at);
        }
        if uplink.filled().letters > before.letters {
            left.push(at);
        }
    }
    (loops, uplink.filled().letters, left)
}

#[test]
fn letters_leave_the_loops_of_their_writer_where_they_are() {
    for class in ["text", "call", "web", "fast"] {
        let (idle, ..) = posted(class, 0);
        let (loops, letters, _) = posted(class, 16);
        assert!(loops == idle, "{class}: {} and {} loops", loops.len(), idle.len());
        assert!(letters >= 10, "{class}: {letters}");
    }
}

#[test]
fn letters_that_are_written_at_once_leave_seconds_apart() {
    let (.., left) = posted("web", 16);
    let gaps: Vec<f64> = left.windows(2).map(|two| two[1].since(two[0]).as_secs_f64()).collect();
    let taken = left[left.len() - 1].since(left[0]).as_secs_f64();
    assert!(taken > 4.0 && gaps.iter().any(|gap| *gap > 1.0), "{gaps:?}");
}

#[test]
fn last_words_to_services_are_bounded() {
    let (mut client, _) = linked();
    let settings = TunnelSettings::default();
    for n in 0..100_u8 {
        let id = group(&mut client, &[n]);
        let seed = Seed::from_u64(n.into());
        let tunnel = Tunnel::connect(client.base, Time::ZERO, &seed, [6; 32], &settings).unwrap();
        client.groups.get_mut(&id).unwrap().connect(Time::ZERO, location(GATEWAYS[1]), tunnel);
        client.fail(Time::ZERO, id, Failure::Idle);
        assert_eq!(client.close_notices.len(), usize::from(n + 1).min(64));
    }
    // Each is said, when its time has come.
    let at = Time::from_secs(50);
    let wants = wants(&mut client, at, (2, 0, 0));
    let mut said = 0;
    while let n @ 1.. = client.produce(at, wants.clone()).len() {
        said += n;
    }
    assert_eq!((said, client.close_notices.len()), (64, 0));
}

/// A service at these gateways, whose descriptor the client has.
fn service(client: &mut Client, gateways: &[&str]) -> Target {
    let gateways = gateways.iter().map(|name| identity(name)).collect::<Vec<_>>();
    let target = ServiceAddress { identity: [6; 32], gateway: gateways[0].0 };
    let descriptor = ClientDescriptor {
        identity: Identity([6; 32]),
        key: *location(GATEWAYS[1]).key.as_bytes(),
        inbox: Identity([7; 32]),
        gateways,
        not_before: 0,
        not_after: u64::MAX,
        attached: Vec::new(),
    };
    client.descriptors.insert(target, Cached { descriptor, refresh: Time::NEVER });
    Target::Service(target)
}

#[test]
fn who_has_all_streams_of_a_tunnel_gets_another_one() {
    let (mut client, _) = linked();
    let id = group(&mut client, b"a");
    client.groups.get_mut(&id).unwrap().streams = tunnel::MAX_STREAMS as usize - 1;
    assert_eq!(group(&mut client, b"a"), id);
    client.groups.get_mut(&id).unwrap().streams += 1;
    let other = group(&mut client, b"a");
    assert!(other != id && group(&mut client, b"a") == other);
    client.groups.get_mut(&id).unwrap().streams -= 1;
    assert_eq!(group(&mut client, b"a"), id);
}

#[test]
fn who_was_silent_lately_is_not_waited_for_as_long_again_unless_others_hear_of_it() {
    // Seconds until a new group of a service is given up.
    let waits = |was_silent: bool, another_hears: bool| {
        let (mut client, _) = linked();
        let target = service(&mut client, &[GATEWAYS[1]]);
        let of = |user: &[u8]| Isolation::new(Some((user, b"")));
        let first = client.group(Time::ZERO, of(b"a"), target).unwrap();
        client.tick(Time::ZERO, first);
        if was_silent {
            client.avoid_location(Time::ZERO, first);
        }
        client.groups.get_mut(&first).unwrap().connected = another_hears;
        let second = client.group(Time::ZERO, of(b"b"), target).unwrap();
        let given_up = (0..60).find(|second_s| {
            client.tick(Time::from_secs(*second_s), second);
            !client.groups.contains_key(&second)
        });
        given_up.unwrap()
    };
    let (connect, look) = (CONNECT_LIMIT.as_secs(), LOOK_LIMIT.as_secs());
    assert_eq!(waits(false, false), look + 1);
    assert_eq!(waits(true, false), connect + 1);
    assert_eq!(waits(true, true), look + 1);
}

#[test]
fn a_service_in_use_that_falls_silent_is_tried_at_its_other_gateway() {
    let (mut client, _) = linked();
    let target = service(&mut client, &[GATEWAYS[1], GATEWAYS[2]]);
    let id = client.group(Time::ZERO, Isolation::new(None), target).unwrap();
    let mut silence = |at: Time| {
        let (seed, settings) = (Seed::from_u64(1), TunnelSettings::default());
        let tunnel = Tunnel::connect(client.base, at, &seed, [6; 32], &settings).unwrap();
        let group = client.groups.get_mut(&id).unwrap();
        group.connect(at, location(GATEWAYS[1]), tunnel);
        group.connected = true;
        // Asked at once; nothing comes.
        group.asked = Some(at);
        let mut moved = Vec::new();
        for ms in (0..10_000).step_by(250) {
            client.tick(at + Duration::from_millis(ms), id);
            let gateway = client.groups[&id].location.unwrap().gateway;
            if moved.last().is_none_or(|(_, last)| *last != gateway) {
                moved.push((ms, gateway));
            }
        }
        moved
    };
    let moved = silence(Time::ZERO);
    // The first is avoided for a while: nobody goes to and fro.
    assert_eq!(moved.len(), 2, "{moved:?}");
    assert_eq!(moved[0], (0, identity(GATEWAYS[1])));
    assert_eq!(moved[1].1, identity(GATEWAYS[2]));
    assert!((4_000..4_600).contains(&moved[1].0), "{moved:?}");
}
