//! The handshake against bytes, against every split of them, and against the client of another
//! implementation.

use proptest::prelude::*;
use tor_socksproto::{
    Buffer, Handshake as _, NextStep, SocksAddr, SocksAuth, SocksClientHandshake, SocksCmd,
    SocksRequest as TorRequest, SocksStatus, SocksVersion,
};

use super::*;

/// What a whole conversation came to: everything sent, and how it ended.
#[derive(Debug, PartialEq)]
struct Outcome {
    sent: Vec<u8>,
    end: Step,
}

fn converse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut handshake = Handshake::new(Limits::default());
    let mut sent = Vec::new();
    let mut end = Step::NeedMore;
    for piece in pieces {
        match &mut end {
            // Once it is done, what still comes belongs to the stream.
            Step::Done { leftover, .. } => {
                leftover.extend_from_slice(piece);
                continue;
            }
            Step::Refuse { .. } => continue,
            _ => end = handshake.handle(piece),
        }
        while let Step::Send(bytes) = end {
            sent.extend(bytes);
            end = handshake.handle(&[]);
        }
    }
    Outcome { sent, end }
}

fn refused(bytes: &[u8]) -> (Vec<u8>, SocksRefusal) {
    match converse([bytes]).end {
        Step::Refuse { reply, reason } => (reply, reason),
        other => panic!("{other:?}"),
    }
}

const CONNECT: &[u8] = b"\x05\x01\x00\x05\x01\x00\x03\x0bExample.com\x01\xbb";

#[test]
fn connect_by_name_with_early_data() {
    let outcome = converse([CONNECT, b"hello"]);
    assert_eq!(outcome.sent, [5, 0]);
    let Step::Done { request, leftover } = outcome.end else { panic!() };
    assert_eq!(request.command, Command::Connect);
    assert!(request.host == Host::parse(b"example.com").unwrap());
    assert_eq!((request.port, leftover.as_slice()), (443, b"hello".as_slice()));
    assert!(request.isolation.is_none());
}

#[test]
fn a_user_name_is_preferred_and_kept_as_isolation() {
    let outcome =
        converse([b"\x05\x02\x00\x02\x01\x02me\x03pwd\x05\x03\x00\x01\0\0\0\0\0\0".as_slice()]);
    assert_eq!(outcome.sent, [5, 2, 1, 0]);
    let Step::Done { request, .. } = outcome.end else { panic!() };
    assert_eq!(request.command, Command::UdpAssociate);
    let isolation = request.isolation.unwrap();
    assert_eq!(
        (isolation.user.as_slice(), isolation.password.as_slice()),
        (&b"me"[..], &b"pwd"[..])
    );
}

#[test]
fn the_address_in_a_udp_associate_is_a_hint() {
    // PySocks names the host "0"; others an empty name, or none that could be one.
    for host in [&b"\x03\x010"[..], b"\x03\x00", b"\x03\x03a b", b"\x01\x00\x00\x00\x00"] {
        let request = [b"\x05\x01\x00\x05\x03\x00", host, b"\x00\x00"].concat();
        let Step::Done { request, .. } = converse([request.as_slice()]).end else {
            panic!("{host:?}")
        };
        assert_eq!((request.command, request.port), (Command::UdpAssociate, 0));
    }
    // Where it says whom to connect to, it must be right.
    let refused = converse([b"\x05\x01\x00\x05\x01\x00\x03\x010\x00\x50".as_slice()]).end;
    assert!(matches!(refused, Step::Refuse { reason: SocksRefusal::BadHost, .. }));
}

#[test]
fn an_empty_user_name_is_one_too() {
    let outcome =
        converse([b"\x05\x01\x02\x01\0\0\x05\x01\x00\x01\x01\x02\x03\x04\0\x50".as_slice()]);
    assert!(matches!(
        outcome.end,
        Step::Done { request: SocksRequest { isolation: Some(_), .. }, .. }
    ));
}

#[test]
fn an_address_written_as_a_name_is_an_address() {
    let Step::Done { request, .. } =
        converse([b"\x05\x01\0\x05\xf1\0\x03\x09127.0.0.1\0\0".as_slice()]).end
    else {
        panic!()
    };
    assert_eq!(request.command, Command::ResolvePtr);
    assert!(request.host == Host::from(std::net::Ipv4Addr::LOCALHOST));
}

#[test]
fn what_is_not_served_gets_the_right_code() {
    let code = |tail: &[u8]| {
        let (reply, reason) = refused(&[b"\x05\x01\x00", tail].concat());
        (reply[1], reason)
    };
    assert_eq!(code(b"\x05\x02\x00\x01\x7f\0\0\x01\0\x50"), (7, SocksRefusal::Command));
    assert_eq!(code(b"\x05\x09\x00"), (7, SocksRefusal::Command));
    assert_eq!(code(b"\x05\x01\x00\x02"), (8, SocksRefusal::AddressType));
    assert_eq!(code(b"\x05\xf1\x00\x03\x01a\0\0"), (8, SocksRefusal::AddressType));
    assert_eq!(code(b"\x05\x01\x00\x03\x00\0\x50"), (4, SocksRefusal::BadHost));
    assert_eq!(code(b"\x05\x01\x00\x03\x03a\0b\0\x50"), (4, SocksRefusal::BadHost));
    assert_eq!(code(b"\x05\x01\x00\x01\x7f\0\0\x01\0\0"), (1, SocksRefusal::PortZero));
    assert_eq!(code(b"\x05\x01\x01"), (1, SocksRefusal::BadRequest));
    assert_eq!(code(b"\x04"), (1, SocksRefusal::BadRequest));
    assert_eq!(refused(b"\x05\x01\x01"), (vec![5, 0xff], SocksRefusal::NoMethod));
    assert_eq!(refused(b"\x05\x00"), (vec![5, 0xff], SocksRefusal::NoMethod));
    assert_eq!(refused(b"\x05\x01\x02\x05"), (vec![1, 1], SocksRefusal::BadAuthentication));
}

#[test]
fn other_protocols_are_told_apart() {
    assert_eq!(
        refused(b"\x04\x01\0\x50\0\0\0\x01\0a\0"),
        (vec![0, 0x5b, 0, 0, 0, 0, 0, 0], SocksRefusal::Socks4)
    );
    assert_eq!(refused(b"\x16\x03\x01").1, SocksRefusal::Tls);
    assert_eq!(refused(b"SSH-2.0").1, SocksRefusal::NotSocks);
    assert_eq!(refused(b"\0").1, SocksRefusal::NotSocks);
    for method in ["GET / HTTP/1.1", "CONNECT a:443 HTTP/1.1", "POST ", "PRI * HTTP/2.0"] {
        let (page, reason) = refused(format!("{method}\r\n\r\n").as_bytes());
        assert_eq!(reason, SocksRefusal::Http);
        assert!(page.starts_with(b"HTTP/1.0 501 "));
    }
}

#[test]
fn a_page_learns_nothing_from_the_port_and_a_person_is_told() {
    let asked = |fields: &str| refused(format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n").as_bytes());
    for person in [
        "Host: 127.0.0.1:1080",
        "Host: localhost\r\nSec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document",
        "Host: a\r\nSec-Fetch-Site: cross-site\r\nsec-fetch-mode:navigate\r\nSec-Fetch-Dest: document",
    ] {
        assert!(asked(person).0.starts_with(b"HTTP/1.0 501 "), "{person}");
    }
    for page in [
        "Host: a\r\nOrigin: https://evil.example",
        "Host: a\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image",
        "Host: a\r\nSEC-FETCH-MODE: cors",
        "Host: a\r\nSec-Fetch-Mode: websocket\r\nOrigin: null",
        "Host: a\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe",
    ] {
        assert_eq!(asked(page), (Vec::new(), SocksRefusal::Http), "{page}");
    }
}

#[test]
fn early_data_has_a_bound_and_the_end_is_the_end() {
    let mut handshake = Handshake::new(Limits { early_bytes: 10 });
    assert_eq!(
        handshake.handle(&[5; 2000]),
        Step::Refuse { reply: vec![], reason: SocksRefusal::TooMuch }
    );
    assert_eq!(
        handshake.handle(CONNECT),
        Step::Refuse { reply: vec![], reason: SocksRefusal::Over }
    );
}

#[test]
fn debug_shows_neither_target_nor_user() {
    let outcome = converse([
        b"\x05\x01\x02\x01\x06secret\x06secret\x05\x01\0\x03\x06secret\0\x50secret".as_slice(),
    ]);
    assert!(matches!(outcome.end, Step::Done { .. }));
    assert!(!format!("{:?}", outcome.end).contains("secret"));
}

#[test]
fn the_client_of_tor_agrees() {
    let name = || SocksAddr::Hostname("www.example.com".to_owned().try_into().unwrap());
    let ip = |text: &str| SocksAddr::Ip(text.parse().unwrap());
    let user = || SocksAuth::Username(b"user".to_vec(), b"password".to_vec());
    for (command, tor_command, address, port, auth) in [
        (Command::Connect, SocksCmd::CONNECT, name(), 443, SocksAuth::NoAuth),
        (Command::Connect, SocksCmd::CONNECT, ip("2001:db8::1"), 80, user()),
        (Command::Resolve, SocksCmd::RESOLVE, name(), 0, user()),
        (Command::ResolvePtr, SocksCmd::RESOLVE_PTR, ip("192.0.2.1"), 0, SocksAuth::NoAuth),
    ] {
        let with_user = matches!(auth, SocksAuth::Username(..));
        let asked = TorRequest::new(SocksVersion::V5, tor_command, address, port, auth).unwrap();
        let (request, answer) = against_tor(asked.clone());
        assert_eq!((request.command, request.port), (command, port));
        assert!(request.host == Host::parse(asked.addr().to_string().as_bytes()).unwrap());
        assert_eq!(
            request.isolation.is_some_and(|i| i.user == b"user" && i.password == b"password"),
            with_user
        );
        assert_eq!(answer, (SocksStatus::SUCCEEDED, "192.0.2.7".to_owned()));
    }
}

/// Runs both machines against each other; the reply is always 192.0.2.7.
fn against_tor(asked: TorRequest) -> (SocksRequest, (SocksStatus, String)) {
    let mut tor = SocksClientHandshake::new(asked);
    let mut from_us: Buffer = Buffer::new();
    let mut ours = Handshake::new(Limits::default());
    let mut request = None;
    loop {
        let say;
        match tor.step(&mut from_us).unwrap() {
            NextStep::Send(bytes) => match ours.handle(&bytes) {
                Step::Send(bytes) => say = bytes,
                Step::Done { request: asked, leftover } => {
                    assert!(leftover.is_empty());
                    request = Some(asked);
                    say = reply_ip("192.0.2.7".parse().unwrap());
                }
                other => panic!("{other:?}"),
            },
            NextStep::Recv(_) => unreachable!("every message of ours was given to it whole"),
            NextStep::Finished(end) => {
                let got = end.into_output_forbid_pipelining().unwrap();
                return (request.unwrap(), (got.status(), got.addr().to_string()));
            }
        }
        from_us.unfilled_slice()[..say.len()].copy_from_slice(&say);
        from_us.note_received(say.len().try_into().unwrap());
    }
}

fn handshakes() -> impl Strategy<Value = Vec<u8>> {
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
    let greeting = prop_oneof![
        Just(b"\x05\x01\x00".to_vec()),
        (bytes(256), bytes(256)).prop_map(|(user, pass)| {
            [&[5, 2, 0, 2, 1, user.len() as u8], &user[..], &[pass.len() as u8], &pass[..]].concat()
        })
    ];
    let command = prop_oneof![Just(1u8), Just(3), Just(0xf0), Just(0xf1), any::<u8>()];
    let target = prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| [&[1][..], &ip].concat()),
        any::<[u8; 16]>().prop_map(|ip| [&[4][..], &ip].concat()),
        "[a-z0-9._-]{0,255}".prop_map(|name| [&[3, name.len() as u8], name.as_bytes()].concat()),
    ];
    (greeting, command, target, any::<[u8; 2]>(), bytes(40)).prop_map(
        |(greeting, command, target, port, early)| {
            [&greeting[..], &[5, command, 0], &target, &port, &early].concat()
        },
    )
}

proptest! {
    #[test]
    fn every_split_gives_the_same_result(bytes in handshakes(), size in 1usize..300) {
        let whole = converse([bytes.as_slice()]);
        prop_assert_eq!(&converse(bytes.chunks(1)), &whole);
        prop_assert_eq!(&converse(bytes.chunks(size)), &whole);
    }

    #[test]
    fn random_bytes_do_no_harm(bytes: Vec<u8>, mut valid in handshakes(), at: prop::sample::Index, new: u8) {
        fuzz_handshake(&bytes);
        let at = at.index(valid.len());
        valid[at] = new;
        fuzz_handshake(&valid);
        fuzz_handshake(&[&[7], valid.as_slice()].concat());
    }
}
