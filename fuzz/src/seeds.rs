//! Valid inputs, from which mutations start.

use shoal_client::message::{FromService, ToService};
use shoal_client::request::Request;
use shoal_client::socks::Host;
use shoal_sphinx::{Codec, Frame, NullCodec, Sphinx};
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::wire::client_gateway::{
    Away, ControlMessage, DocumentPart, Hello, Mode, Notice, Refusal,
};
use shoal_topology::{SecretIdentity, Seed};

use crate::fixtures::{ID, NETWORK, path, signed};

/// Valid inputs of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let mut rng = Seed::from_u64(1).stream("seeds");
    match target {
        "sphinx_frame" => {
            let codecs: [&dyn Codec; 2] = [&Sphinx::SCALAR, &NullCodec];
            let sealed =
                codecs.into_iter().filter_map(|c| c.seal(&mut rng, &path(), ID, b"hi").ok());
            let frame = |packet| Frame { epoch: 1, field: 0, packet }.encode().to_vec();
            sealed.map(frame).collect()
        }
        "surb_reply" => {
            let codecs: [&dyn Codec; 2] = [&Sphinx::SCALAR, &NullCodec];
            let surbs = codecs.into_iter().filter_map(|c| c.surb(&mut rng, &path(), ID).ok());
            surbs.map(|(surb, _)| [surb.as_bytes().as_slice(), b"a reply"].concat()).collect()
        }
        "backends" => vec![
            // One of each.
            (0..=10).collect(),
            // Many, changed in the point, the MAC, the routing block and the payload.
            [
                &[39],
                [0x18, 0, 31, 128, 0x19, 0, 40, 1, 0x18, 0, 50, 1, 0x19, 2, 0, 1]
                    .repeat(5)
                    .as_slice(),
            ]
            .concat(),
            // Flag, version and delay changed under a right MAC; a point that is no longer its own.
            [7, 0x98, 0, 48, 3, 0x98, 0, 48, 2, 0x99, 0, 50, 1, 0x98, 0, 84, 255, 0x98, 0, 0, 1]
                .to_vec(),
            // A header alone, of the smallest point.
            vec![0, 15],
        ],
        "topology_document" => vec![signed()],
        "topology_body" => postcard::to_stdvec(&NETWORK.document()).into_iter().collect(),
        "descriptors" => {
            let nodes = NETWORK.nodes.iter().take(2).map(|node| node.sign().encode());
            nodes.chain(NETWORK.exits.iter().map(|exit| exit.sign().encode())).collect()
        }
        "votes" | "reports" | "authority_inputs" => crate::authorities::of(target),
        "authority_liveness" => crate::liveness::seeds(&crate::authorities::votes().1),
        "directory_entries" | "organisation_words" => crate::organisation::of(target),
        "people_groups" | "people_packets" | "people_words" => crate::people::of(target),
        "control_words" => words(),
        "addresses" => {
            let address = ServiceAddress { identity: [7; 32], gateway: [8; 32] };
            let identity = SecretIdentity::from_bytes(&[200; 32]).identity().to_string();
            vec![address.to_string().into_bytes(), identity.into_bytes(), b"a.shoal".to_vec()]
        }
        // The first byte is the size of the pieces.
        "socks_handshake" => [
            b"\x05\x05\x01\x00\x05\x01\x00\x03\x0bexample.com\x01\xbb".as_slice(),
            b"\xff\x05\x02\x00\x02\x01\x04user\x04pass\x05\x03\x00\x01\x7f\x00\x00\x01\x00\x35",
            b"\x40\x05\x01\x00\x05\xf0\x00\x03\x04name\x00\x00",
            b"\x40\x05\x01\x00\x05\xf1\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x00",
            b"\x40\x00\x00\x00\x01\x7f\x00\x00\x01\x00\x35data",
            b"\x40GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x40\x04\x01\x00\x50\x7f\x00\x00\x01user\x00",
        ]
        .map(<[u8]>::to_vec)
        .into(),
        "requests" => requests(),
        "tunnel_messages" => {
            let surbs = Sphinx::SCALAR.surb(&mut rng, &path(), ID).map(|(surb, _)| vec![surb; 2]);
            let to = ToService {
                epoch: 7,
                pseudonym: [1; 16],
                budget: 100,
                surbs: surbs.unwrap_or_default(),
                datagram: vec![5; 300],
            };
            let from = FromService { epoch: 7, stock: 200, next: 9, datagram: vec![6; 400] };
            vec![to.encode(), from.encode()]
        }
        _ => vec![],
    }
}

fn words() -> Vec<Vec<u8>> {
    let inbox = SecretIdentity::from_bytes(&[160; 32]);
    let peer = SecretIdentity::from_bytes(&[200; 32]).identity();
    let hello = Hello {
        inbox: inbox.identity(),
        proof: Hello::prove(&inbox, &peer, &peer, &[1; 32]),
        token: vec![1, 2, 3],
        mode: Mode::Class("web".into()),
        descriptor: NETWORK.exits.first().map(|exit| exit.sign().encode()),
        documents: vec![[7; 8]],
        away: Away::Keep,
    };
    let service =
        Hello { mode: Mode::Service, descriptor: None, away: Away::Drop, ..hello.clone() };
    let notices =
        [Notice::Challenge { nonce: [9; 32] }, Notice::Welcome, Notice::Refused(Refusal::Full)];
    let mut packets = vec![hello.pack(), service.pack()];
    packets.extend(notices.iter().map(ControlMessage::pack));
    packets.extend(DocumentPart::cut(&signed()).iter().map(ControlMessage::pack));
    packets.into_iter().flatten().map(|packet| packet.as_bytes().to_vec()).collect()
}

fn requests() -> Vec<Vec<u8>> {
    let hosts = ["example.com", "127.0.0.1", "2001:db8::1"];
    let hosts = hosts.into_iter().filter_map(|host| Host::parse(host.as_bytes()).ok());
    let mut requests = vec![Request::Udp, Request::Target { port: 80 }];
    for host in hosts {
        match &host {
            Host::Name(name) => requests.push(Request::Resolve { name: name.clone() }),
            Host::Ip(ip) => requests.push(Request::ResolvePtr { ip: *ip }),
        }
        requests.push(Request::Connect { host, port: 443 });
    }
    let mut seeds: Vec<_> = requests.iter().map(Request::encode).collect();
    // Responses and a datagram.
    seeds.push(vec![1, 1]);
    seeds.push(vec![1, 2, 0, 0, 0, 60, 1, 0, 10, 0, 0, 1]);
    seeds.push([[0; 8].as_slice(), &[0, 127, 0, 0, 1, 0, 53], b"data"].concat());
    seeds
}
