use proptest::prelude::*;

use super::*;

fn names() -> impl Strategy<Value = HostName> {
    "[a-z0-9_-]{0,62}[a-z](\\.[a-z]{1,63}){0,2}".prop_map(|n| HostName::parse(&n).unwrap())
}

fn ips() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|n| IpAddr::from(Ipv4Addr::from(n))),
        any::<u128>().prop_map(|n| IpAddr::from(Ipv6Addr::from(n))),
    ]
}

fn hosts() -> impl Strategy<Value = Host> {
    prop_oneof![names().prop_map(Host::Name), ips().prop_map(Host::Ip)]
}

fn requests() -> impl Strategy<Value = Request> {
    prop_oneof![
        (hosts(), 1u16..).prop_map(|(host, port)| Request::Connect { host, port }),
        Just(Request::Udp),
        names().prop_map(|name| Request::Resolve { name }),
        ips().prop_map(|ip| Request::ResolvePtr { ip }),
        (1u16..).prop_map(|port| Request::Target { port }),
    ]
}

fn responses() -> impl Strategy<Value = Response> {
    prop_oneof![
        Just(Response::Connected),
        (prop::collection::vec(ips(), 1..=MAX_ADDRESSES), any::<u32>())
            .prop_map(|(addresses, ttl)| Response::Resolved { addresses, ttl }),
        (names(), any::<u32>()).prop_map(|(name, ttl)| Response::ResolvedPtr { name, ttl }),
        Just(Response::UdpReady),
        (1u8..=8).prop_map(|code| Response::Failed(ReplyCode::from_byte(code).unwrap())),
    ]
}

#[test]
fn the_longest_messages_are_as_long_as_stated() {
    let name = HostName::parse(&("a.".repeat(126) + "a")).unwrap();
    let host = Host::Name(name);
    assert_eq!(Request::Connect { host: host.clone(), port: 1 }.encode().len(), MAX_REQUEST);
    let addresses = vec![Ipv6Addr::LOCALHOST.into(); MAX_ADDRESSES + 1];
    assert_eq!(Response::Resolved { addresses, ttl: 1 }.encode().len(), MAX_RESPONSE);
    let packet = UdpPacket { association: 1, host, port: 1, data: vec![] };
    assert_eq!(packet.encode_datagram().len(), MAX_PACKET_HEADER);
}

#[test]
fn errors_say_what_is_wrong() {
    let error = |bytes: &[u8]| Request::decode(bytes).unwrap_err();
    assert_eq!(error(&[2]), DecodeError::Version(2));
    assert_eq!(error(&[1, 9]), DecodeError::Kind(9));
    assert_eq!(error(&[1, 1, 7]), DecodeError::AddressKind(7));
    assert_eq!(error(&[1, 1, 0, 127, 0, 0, 1, 0, 0]), DecodeError::Port);
    assert_eq!(error(&[1, 3, 1, b' ']), DecodeError::Name);
    assert_eq!(error(&[1, 4, 2, 1, b'a']), DecodeError::NotAnAddress);
    assert_eq!(Response::decode(&[1, 5, 0]), Err(DecodeError::Code(0)));
    assert_eq!(Response::decode(&[1, 2, 0, 0, 0, 0, 17]), Err(DecodeError::Count(17)));
    assert_eq!(UdpPacket::decode_datagram(&[0; 12]), Err(DecodeError::Short));
}

#[test]
fn debug_shows_no_target() {
    let name = HostName::parse("secret.test").unwrap();
    let shown = format!(
        "{:?} {:?}",
        Request::Connect { host: Host::Name(name.clone()), port: 4321 },
        Response::ResolvedPtr { name, ttl: 1 }
    );
    assert!(!shown.contains("secret") && !shown.contains("4321"), "{shown}");
}

proptest! {
    #[test]
    fn messages_survive_the_wire_in_any_pieces(request in requests(), response in responses(), rest: Vec<u8>) {
        let bytes = request.encode();
        for end in 0..bytes.len() {
            prop_assert_eq!(Request::decode(&bytes[..end]), Ok(None));
        }
        prop_assert_eq!(Request::decode(&[&bytes, &rest[..]].concat()), Ok(Some((request, bytes.len()))));
        let bytes = response.encode();
        for end in 0..bytes.len() {
            prop_assert_eq!(Response::decode(&bytes[..end]), Ok(None));
        }
        prop_assert_eq!(Response::decode(&[&bytes, &rest[..]].concat()), Ok(Some((response, bytes.len()))));
    }

    #[test]
    fn datagrams_survive_both_ways(
        association: u64, host in hosts(), port in 1u16.., data: Vec<u8>, rest: Vec<u8>,
    ) {
        let packet = UdpPacket { association, host, port, data };
        prop_assert_eq!(UdpPacket::decode_datagram(&packet.encode_datagram()), Ok(packet.clone()));
        let bytes = packet.encode_on_stream();
        for end in 0..bytes.len() {
            prop_assert_eq!(UdpPacket::decode_on_stream(association, &bytes[..end]), Ok(None));
        }
        let read = UdpPacket::decode_on_stream(association, &[&bytes, &rest[..]].concat());
        prop_assert_eq!(read, Ok(Some((packet, bytes.len()))));
    }

    #[test]
    fn random_bytes_do_no_harm(bytes: Vec<u8>, kind in 0u8..7) {
        fuzz_decode(&bytes);
        fuzz_decode(&[&[1, kind], bytes.as_slice()].concat());
    }
}
