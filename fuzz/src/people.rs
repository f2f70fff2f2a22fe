//! Packets between people's devices, and what descriptors carry for them.

use shoal_people::{
    Body, Frame, GroupAct, GroupEntry, GroupLog, GroupRole, Input, Output, PacketNumber, People,
    PeriodKeys, Published, ReceivedMessage, Roster, RosterDevice, Settings, SignedEntry,
};
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::{Engine, SecretIdentity, Seed};

const NOW: u64 = 1_800_000_000_000;

fn secret(n: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[n; 32])
}

/// The engine of device `n` of two, online.
fn device(n: u8) -> People {
    let listed = |n: u8| {
        let key = secret(n).identity();
        let address = ServiceAddress { identity: key.0, gateway: [9; 32] };
        (u32::from(n), RosterDevice { person: n.into(), key, address, held_until: 0 })
    };
    let devices = [1, 2].map(listed).into();
    let organisation = secret(200).identity();
    let (removed, people) = ([].into(), [1, 2].into());
    let roster =
        Roster { organisation, size: 3, head: 3, is_current: true, devices, removed, people };
    let me = (u32::from(n), secret(n));
    let settings = Settings { copies_per_s: 1.0, ..Settings::default() };
    let mut people = People::restore(NOW, me, settings, roster, &Seed::from_u64(n.into()), [])
        .expect("nothing was saved");
    people.handle(NOW, Input::Keys(vec![PeriodKeys::new(&[n; 32], 0)]));
    people.handle(NOW, Input::Connected);
    people
}

/// The packets by which the first device writes to the second one.
fn written() -> Vec<Vec<u8>> {
    let mut writer = device(1);
    let long = Body::Text("long ".repeat(1_000));
    for body in [Body::Text("hello".into()), long] {
        writer.send(NOW, 2, &body, 0).expect("it is taken");
    }
    let keys = PeriodKeys::new(&[2; 32], 0).public().clone();
    let published = Published { keys, device: 2, size: 3 };
    writer.handle(NOW, Input::Described { device: 2, found: Some((published, 0, u64::MAX)) });
    let mut packets = Vec::new();
    while let Some(output) = writer.poll_output() {
        if let Output::Post { message, .. } = output {
            packets.push(message);
        }
    }
    packets
}

/// Letters that came to a device, each after its length (two bytes): it says no message that was not written, and goes on.
pub fn people_packets(data: &[u8]) {
    let mut reader = device(2);
    let mut rest = data;
    while let Some(([high, low], behind)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (packet, after) = behind.split_at(len);
        reader.handle(NOW, Input::Packet(PacketNumber(0), packet.to_vec()));
        rest = after;
    }
    while let Some(output) = reader.poll_output() {
        if let Output::Received(ReceivedMessage { name, person, body, .. }) = output {
            assert!((name.device, person) == (1, 1), "nobody else has a key");
            let is_written = match body {
                Body::Text(text) => text == "hello" || text == "long ".repeat(1_000),
                _ => false,
            };
            assert!(is_written, "nothing else was written");
        }
    }
}

/// What stands inside packets and descriptors, each read as everything: what is accepted has one form.
pub fn people_words(data: &[u8]) {
    if let Ok(frame) = Frame::decode(data) {
        assert!(frame.encode() == data);
    }
    if let Ok(published) = Published::decode(data) {
        assert!(published.encode() == data);
    }
    if let Ok(message) = ReceivedMessage::decode(data) {
        assert!(ReceivedMessage::decode(&message.encode()) == Ok(message));
    }
    let body = Body::decode(data);
    assert!(Body::decode(&body.encode()) == body);
}

/// Acts on a group: a byte each for who does it, after which entry, what it is and on whom. All are signed, and most are not allowed. The
/// log takes them in their order, backwards, and two halves one after the other, and counts the same in the end; what it says of
/// itself can be read again.
pub fn people_groups(data: &[u8]) {
    const PEOPLE: u8 = 5;
    let listed = |n: u8| {
        let key = secret(n + 1).identity();
        let address = ServiceAddress { identity: key.0, gateway: [9; 32] };
        (u32::from(n), RosterDevice { person: n.into(), key, address, held_until: 0 })
    };
    let organisation = secret(200).identity();
    let roster = Roster {
        organisation,
        size: 3,
        head: 3,
        is_current: true,
        devices: (0..PEOPLE).map(listed).collect(),
        removed: [].into(),
        people: (0..u32::from(PEOPLE)).collect(),
    };
    let sign = |number, previous, by: u8, at: usize, act| {
        let author = u32::from(by % PEOPLE);
        let entry = GroupEntry { number, previous, at: at as u64, author, act };
        SignedEntry::new(&organisation, entry, &secret(by % PEOPLE + 1))
    };
    let create = GroupAct::Create { nonce: [7; 16], name: "group".into(), people: vec![1, 2, 3] };
    let first = sign(0, [0; 32], 0, 0, create);
    let mut all = vec![first.clone()];
    for (at, step) in data.chunks_exact(4).take(40).enumerate() {
        let &[by, after, what, on] = step else { break };
        let Some(before) = all.get(usize::from(after) % all.len()) else { break };
        let person = u32::from(on % PEOPLE);
        let act = match what % 8 {
            0 => GroupAct::Add(vec![person]),
            1 => GroupAct::Remove(vec![person]),
            2 => GroupAct::Appoint(person, GroupRole::Owner),
            3 => GroupAct::Appoint(person, GroupRole::Admin),
            4 => GroupAct::Appoint(person, GroupRole::Member),
            5 => GroupAct::Rename(format!("{on}")),
            6 => GroupAct::Expire(on.into()),
            _ => GroupAct::Affirm,
        };
        all.push(sign(before.entry.number + 1, before.hash(), by, at, act));
    }
    let log = |orders: &[Vec<SignedEntry>]| {
        let mut log = GroupLog::new(first.clone(), &roster).expect("it begins");
        for entries in orders {
            log.insert(entries.clone(), &roster);
        }
        log
    };
    let backwards: Vec<Vec<SignedEntry>> = all.iter().rev().map(|one| vec![one.clone()]).collect();
    let (a, b) = all.split_at(all.len() / 2);
    let whole = log(std::slice::from_ref(&all));
    for other in [log(&backwards), log(&[b.to_vec(), a.to_vec()])] {
        assert!(other.head() == whole.head(), "the order of arrival counts");
    }
    assert!(log(&[whole.all()]).head() == whole.head());
    let body = Body::Entries(all);
    assert!(Body::decode(&body.encode()) == body);
}

/// Valid inputs of these targets, from which mutations start.
pub(crate) fn of(target: &str) -> Vec<Vec<u8>> {
    if target == "people_packets" {
        let with_length = |packet: Vec<u8>| {
            [&u16::try_from(packet.len()).unwrap_or_default().to_be_bytes()[..], &packet].concat()
        };
        return vec![written().into_iter().flat_map(with_length).collect()];
    }
    if target == "people_groups" {
        // Two admins, who then act after the same entry, and an owner who settles it.
        let (owner, first, second) = (0, 1, 2);
        let steps = [
            [owner, 0, 3, 1],
            [owner, 1, 3, 2],
            [first, 2, 0, 4],
            [second, 2, 1, 3],
            [owner, 4, 5, 9],
        ];
        return vec![steps.concat(), Vec::new()];
    }
    let keys = PeriodKeys::new(&[2; 32], 0).public().clone();
    let name = shoal_people::MessageName { device: 1, stream: 7, sequence: 3 };
    let (sent_at, expires_s, body) = (100, 0, Body::Edit(name, "text".into()));
    let content = body.encode();
    let (group, before) = (None, vec![shoal_people::Before { stream: 6, begin: 2, oldest: 9 }]);
    let ack = Some(shoal_people::Ack { stream: 8, low: 4, ranges: vec![(6, 9)] });
    vec![
        Published { keys, device: 2, size: 3 }.encode(),
        content.clone(),
        Body::Want(7).encode(),
        Body::Reaction(name, Some("+".into())).encode(),
        ReceivedMessage { name, person: 1, sent_at, group: None, expires_s, body }
            .encode()
            .to_vec(),
        Frame {
            stream: 7,
            sequence: 3,
            begin: 1,
            oldest: 1,
            before,
            part: 1,
            parts: 2,
            sent_at,
            group,
            ack,
            expires_s,
            content,
        }
        .encode(),
    ]
}
