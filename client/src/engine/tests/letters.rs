//! Letters: to whom, and what becomes of them.

use shoal_topology::wire::client_gateway::kind;
use shoal_topology::{SecretIdentity, Signed};

use super::*;
use crate::uplink::{Ready, Slot};

const PERSON: [u8; 32] = [6; 32];

fn address(gateway: &str) -> ServiceAddress {
    let identity = SecretIdentity::from_bytes(&PERSON).identity();
    ServiceAddress { identity: identity.0, gateway: self::identity(gateway).0 }
}

/// What a gateway answers that has a descriptor of the person.
fn answer(gateway: &str) -> Vec<u8> {
    answer_with(gateway, &[])
}

/// The same, of a person whose descriptor carries something.
fn answer_with(gateway: &str, attached: &[u8]) -> Vec<u8> {
    let secret = SecretIdentity::from_bytes(&PERSON);
    let body = ClientDescriptor {
        identity: secret.identity(),
        key: *SecretKey::from_bytes([5; 32]).public().as_bytes(),
        inbox: Identity([7; 32]),
        gateways: vec![identity(gateway)],
        not_before: 0,
        not_after: u64::MAX,
        attached: attached.to_vec(),
    };
    let signed = Signed::<ClientDescriptor>::new(body, &secret);
    [&[kind::ANSWER, 1][..], &signed.encode()].concat()
}

fn outputs(client: &mut Client) -> Vec<ClientOutput> {
    std::iter::from_fn(|| client.poll_output()).collect()
}

/// Letters that a client seals for slots at this instant.
fn letters(client: &mut Client, at: Time) -> Vec<(LetterId, Slot)> {
    let wants = wants(client, at, (0, 0, 0));
    let sealed = client.produce(at, wants).into_iter();
    let letter = |(ready, slot, _)| match ready {
        Ready::Letter(id) => Some((id, slot)),
        _ => None,
    };
    sealed.filter_map(letter).collect()
}

#[test]
fn a_letter_to_an_address_leaves_when_its_gateway_has_said_who_that_is() {
    let (mut client, _) = linked();
    let to = address(GATEWAYS[1]);
    let id = client.write(Time::ZERO, to, b"hello").unwrap();
    client.handle_timeout(Time::from_secs(1));
    assert!(client.queries.contains_key(&to));
    let at = Time::from_secs(50);
    assert_eq!(letters(&mut client, at), [], "nobody knows the key");
    client.handle_answer(at, to, Some(&answer(GATEWAYS[1])));
    let sealed = letters(&mut client, at);
    assert_eq!(sealed.len(), 1);
    assert!(sealed[0].0 == id && letters(&mut client, at).is_empty());
    // It has not left before its slot has passed.
    outputs(&mut client);
    client.departed(Departed { letters: vec![id], ..Departed::default() });
    assert!(matches!(outputs(&mut client)[..], [ClientOutput::Left(left)] if left == id));
    client.departed(Departed { letters: vec![id], ..Departed::default() });
    assert!(outputs(&mut client).is_empty(), "said once");
    assert_eq!(client.outbox.len(), 0);
}

#[test]
fn a_letter_whose_frame_was_thrown_away_is_sealed_anew() {
    let (mut client, _) = linked();
    client.settings.letters_at_once = true;
    let key = SecretKey::from_bytes([5; 32]).public();
    let contact = Contact { inbox: Identity([3; 32]), key, gateway: identity(GATEWAYS[1]) };
    let ids: Vec<_> =
        (0..3).map(|_| client.post(Time::ZERO, &contact, b"hello").unwrap()).collect();
    let mut uplink = Uplink::new(&Seed::from_u64(5), client.class().clone(), Time::ZERO);
    let turns = vec![client.turns(Time::ZERO)[0].clone()];
    uplink.clear(turns.clone());
    fill(&mut client, Time::ZERO, &mut uplink);
    // The link dies with one of them in it.
    uplink.clear(turns);
    let mut left = Vec::new();
    while uplink.next_slot() < Time::from_secs(2) {
        let at = uplink.next_slot();
        fill(&mut client, at, &mut uplink);
        client.loops = Loops::default();
        uplink.take(at);
        client.departed(uplink.departed());
        left.extend(outputs(&mut client).into_iter().filter_map(|output| match output {
            ClientOutput::Left(id) => Some(id),
            _ => None,
        }));
    }
    assert_eq!(left, ids, "each once, in order");
    assert_eq!(uplink.filled().letters, 3);
    assert!(uplink.filled().thrown >= 1);
}

#[test]
fn letters_that_reach_nobody_come_back_with_the_reason() {
    let returned = |client: &mut Client| {
        let of = |output| match output {
            ClientOutput::Returned(id, why) => Some((id, why)),
            _ => None,
        };
        outputs(client).into_iter().filter_map(of).collect::<Vec<_>>()
    };
    let (mut client, _) = linked();
    let nowhere = ServiceAddress { identity: [6; 32], gateway: [9; 32] };
    let id = client.write(Time::ZERO, nowhere, b"hello").unwrap();
    client.handle_timeout(Time::from_secs(1));
    assert_eq!(returned(&mut client), [(id, NotReached::UnknownGateway)]);

    let to = address(GATEWAYS[1]);
    let both = [0, 1].map(|_| client.write(Time::from_secs(1), to, b"hello").unwrap());
    client.handle_timeout(Time::from_secs(2));
    client.handle_answer(Time::from_secs(3), to, Some(&[kind::ANSWER, 0]));
    assert_eq!(returned(&mut client), both.map(|id| (id, NotReached::Unknown)));

    // No answer: as long as the question could not leave, nobody is blamed.
    let id = client.write(Time::from_secs(4), to, b"hello").unwrap();
    for second in 4..30 {
        client.handle_timeout(Time::from_secs(second));
    }
    assert_eq!(returned(&mut client), []);
    client.queries.get_mut(&to).unwrap().asked = Some(Time::from_secs(29));
    for second in 30..60 {
        client.handle_timeout(Time::from_secs(second));
    }
    assert_eq!(returned(&mut client), [(id, NotReached::NoAnswer)]);
    assert!(client.queries.is_empty() && client.outbox.len() == 0);
}

#[test]
fn a_descriptor_that_is_wanted_comes_once_or_with_the_reason_why_not() {
    let described = |client: &mut Client| {
        let of = |output| match output {
            ClientOutput::Described(of, found) => Some((of, found.map(|found| found.inbox))),
            _ => None,
        };
        outputs(client).into_iter().filter_map(of).collect::<Vec<_>>()
    };
    let (mut client, _) = linked();
    let to = address(GATEWAYS[1]);
    client.seek(Time::ZERO, to);
    client.seek(Time::ZERO, to);
    client.handle_timeout(Time::from_secs(1));
    assert!(client.queries.contains_key(&to) && described(&mut client).is_empty());
    client.handle_answer(Time::from_secs(2), to, Some(&answer(GATEWAYS[1])));
    client.handle_timeout(Time::from_secs(2));
    assert_eq!(described(&mut client), [(to, Ok(Identity([7; 32])))]);
    // What carries nothing is asked for once more; what carries something is known, and nobody is asked.
    client.seek(Time::from_secs(2), to);
    client.handle_timeout(Time::from_secs(2));
    assert!(client.queries.contains_key(&to) && described(&mut client).is_empty());
    let keys = answer_with(GATEWAYS[1], b"keys");
    client.handle_answer(Time::from_secs(2), to, Some(&keys));
    client.handle_timeout(Time::from_secs(2));
    assert_eq!(described(&mut client), [(to, Ok(Identity([7; 32])))]);
    client.seek(Time::from_secs(3), to);
    client.handle_timeout(Time::from_secs(3));
    assert_eq!(described(&mut client), [(to, Ok(Identity([7; 32])))]);
    assert!(client.queries.is_empty());
    let other = ServiceAddress { identity: [6; 32], ..to };
    client.seek(Time::from_secs(4), other);
    client.handle_timeout(Time::from_secs(4));
    client.handle_answer(Time::from_secs(5), other, Some(&[kind::ANSWER, 0]));
    client.handle_timeout(Time::from_secs(5));
    assert_eq!(described(&mut client), [(other, Err(NotReached::Unknown))]);
    let nowhere = ServiceAddress { gateway: [9; 32], ..to };
    client.seek(Time::from_secs(6), nowhere);
    client.handle_timeout(Time::from_secs(6));
    assert_eq!(described(&mut client), [(nowhere, Err(NotReached::UnknownGateway))]);
}

#[test]
fn a_descriptor_that_holds_for_a_week_is_asked_for_once_a_day() {
    let (mut client, _) = linked();
    let to = address(GATEWAYS[1]);
    let mut descriptor =
        Signed::<ClientDescriptor>::decode(&answer(GATEWAYS[1])[2..]).unwrap().body().clone();
    let now_s = client.router.unix_s(Time::ZERO);
    (descriptor.not_before, descriptor.not_after) = (now_s, now_s + 8 * 86_400);
    let mut waits = Vec::new();
    for _ in 0..200 {
        waits.push(client.refresh_at(Time::ZERO, &descriptor).as_secs_f64());
    }
    assert!(waits.iter().all(|s| (43_200.0..86_400.0).contains(s)));
    client.handle_answer(Time::ZERO, to, Some(&answer(GATEWAYS[1])));
    client.handle_timeout(Time::from_secs(86_400));
    assert!(client.queries.contains_key(&to), "whether somebody is written to or not");
}
