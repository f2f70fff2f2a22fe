//! What client and gateway say to each other, and what travels in a tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;
use serde_json::{Value, json};
use shoal_client::message::{FromService, ToService};
use shoal_client::request::{Request, Response, UdpPacket};
use shoal_client::socks::{Host, HostName, ReplyCode};
use shoal_sphinx::{SURB_LEN, Surb};
use shoal_topology::wire::client_gateway::{
    Away, ControlMessage, DocumentPart, Hello, Mode, Notice, Refusal, Renew, kind,
};

use super::directory::client_descriptor;
use super::{hex, said, secret};

pub(super) fn control() -> anyhow::Result<Value> {
    let (gateway, link) = (secret(100).identity(), secret(3).identity());
    // The inbox and the first gateway that the descriptor names.
    let inbox = secret(152);
    let nonce = [0x9a; 32];
    let person = Hello {
        inbox: inbox.identity(),
        proof: Hello::prove(&inbox, &gateway, &link, &nonce),
        token: Vec::new(),
        mode: Mode::Class("web".into()),
        descriptor: None,
        documents: vec![[1; 8], [2; 8]],
        away: Away::Drop,
    };
    let service = Hello {
        token: b"a token".to_vec(),
        mode: Mode::Service,
        descriptor: Some(client_descriptor().encode()),
        documents: Vec::new(),
        away: Away::Keep,
        ..person.clone()
    };
    let refusals = [
        Refusal::Proof,
        Refusal::Token,
        Refusal::Connections,
        Refusal::Class,
        Refusal::Descriptor,
        Refusal::NotReady,
        Refusal::Full,
        Refusal::TooOften,
        Refusal::NoService,
        Refusal::NoToken,
    ];
    let mut messages = vec![
        packed("Notice", &Notice::Challenge { nonce })?,
        packed("Notice", &Notice::Welcome)?,
        packed("Hello", &person)?,
        packed("Hello", &service)?,
        packed("Renew", &Renew { descriptor: client_descriptor().encode() })?,
    ];
    for refusal in refusals {
        messages.push(packed("Notice", &Notice::Refused(refusal))?);
    }
    // A message of three parts.
    let document: Vec<u8> = (0..5_000_usize).map(|n| (n % 253) as u8).collect();
    for part in DocumentPart::cut(&document) {
        messages.push(packed("DocumentPart", &part)?);
    }
    Ok(json!({
        "proof": {
            "gateway": hex(gateway.0), "link_key": hex(link.0), "nonce": hex(nonce), "inbox_seed": hex([152; 32]),
            "inbox": hex(inbox.identity().0), "signature": said(&person.proof)?,
        },
        "cut": hex(document),
        "messages": messages,
    }))
}

/// A control message, and the 2,396 bytes that carry it.
fn packed<T: ControlMessage + Serialize>(name: &str, message: &T) -> anyhow::Result<Value> {
    let packet = message.pack()?;
    Ok(json!({ "type": name, "value": said(message)?, "packet": hex(packet.as_bytes()) }))
}

pub(super) fn tunnel() -> anyhow::Result<Value> {
    let surb = |n: u8| Surb::from_slice(&[n; SURB_LEN]);
    let to_service = ToService {
        pseudonym: [0x11; 16],
        budget: 0x1234,
        epoch: 0xa7,
        surbs: vec![surb(1)?, surb(2)?],
        datagram: b"a QUIC datagram of the client".to_vec(),
    };
    let from_service = FromService {
        epoch: 0xa8,
        stock: 0x0102,
        next: 0x0304,
        datagram: b"a QUIC datagram of the service".to_vec(),
    };
    let name = HostName::parse("host_1.example")?;
    let v4 = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
    let v6 = IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    let by_name = Host::Name(name.clone());
    let requests = [
        ("connect 192.0.2.1 port 80", Request::Connect { host: v4.into(), port: 80 }),
        ("connect 2001:db8::1 port 443", Request::Connect { host: v6.into(), port: 443 }),
        ("connect host_1.example port 8080", Request::Connect { host: by_name, port: 8_080 }),
        ("udp", Request::Udp),
        ("resolve host_1.example", Request::Resolve { name: name.clone() }),
        ("reverse 192.0.2.1", Request::ResolvePtr { ip: v4 }),
        ("target port 80", Request::Target { port: 80 }),
    ];
    let responses = [
        ("connected", Response::Connected),
        (
            "resolved, ttl 300: 192.0.2.1, 2001:db8::1",
            Response::Resolved { addresses: vec![v4, v6], ttl: 300 },
        ),
        ("reverse, ttl 60: host_1.example", Response::ResolvedPtr { name, ttl: 60 }),
        ("ready", Response::UdpReady),
        ("failed, code 5", Response::Failed(ReplyCode::ConnectionRefused)),
    ];
    let datagram =
        UdpPacket { association: 4, host: v4.into(), port: 53, data: b"a question".to_vec() };
    let asked = requests.map(|(what, of)| json!({ "what": what, "bytes": hex(of.encode()) }));
    let answered = responses.map(|(what, of)| json!({ "what": what, "bytes": hex(of.encode()) }));
    Ok(json!({
        "kinds": {
            "loop": kind::LOOP, "tunnel": kind::TUNNEL, "query": kind::QUERY, "answer": kind::ANSWER,
            "drop": kind::DROP, "letter": kind::MESSAGE, "media": kind::MEDIA,
        },
        "to_service": {
            "pseudonym": hex(to_service.pseudonym), "budget": to_service.budget, "epoch": to_service.epoch,
            "surbs": to_service.surbs.iter().map(|surb| hex(surb.as_bytes())).collect::<Vec<_>>(),
            "datagram": hex(&to_service.datagram), "bytes": hex(to_service.encode()),
        },
        "from_service": {
            "epoch": from_service.epoch, "stock": from_service.stock, "next": from_service.next,
            "datagram": hex(&from_service.datagram), "bytes": hex(from_service.encode()),
        },
        "requests": asked,
        "responses": answered,
        "datagram": {
            "stream": datagram.association, "host": "192.0.2.1", "port": datagram.port, "data": hex(&datagram.data),
            "as_datagram": hex(datagram.encode_datagram()), "on_stream": hex(datagram.encode_on_stream()),
        },
    }))
}
