//! Packets between people's devices, and what descriptors carry for them.

use shoal_people::{
    Body, Frame, Input, Output, PacketNumber, People, PeriodKeys, Published, ReceivedMessage,
    Roster, RosterDevice, Settings,
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

/// Valid inputs of both targets, from which mutations start.
pub(crate) fn of(target: &str) -> Vec<Vec<u8>> {
    if target == "people_packets" {
        let with_length = |packet: Vec<u8>| {
            [&u16::try_from(packet.len()).unwrap_or_default().to_be_bytes()[..], &packet].concat()
        };
        return vec![written().into_iter().flat_map(with_length).collect()];
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
