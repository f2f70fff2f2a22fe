//! What the SOCKS port answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::HostName;

/// The outcome of a request, with the codes of RFC 1928, section 6, which the tunnel speaks, too; and what can be said
/// of services of the network beyond that, with the codes that Tor has for onion services (its proposal 304). No tunnel
/// speaks those, and programs are told them if they are known to expect it: see [`ReplyCode::plain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReplyCode {
    /// The connection stands, or the answer is here.
    Succeeded = 0,
    /// Something else went wrong, on this side or the far one.
    GeneralFailure = 1,
    /// The exit's policy refuses the target.
    NotAllowed = 2,
    /// No route to the network.
    NetworkUnreachable = 3,
    /// No route to the host, or its name does not exist.
    HostUnreachable = 4,
    /// The host refused the connection.
    ConnectionRefused = 5,
    /// The stated time ran out.
    TtlExpired = 6,
    /// A command that is not served here.
    CommandNotSupported = 7,
    /// A kind of address that is not served here.
    AddressTypeNotSupported = 8,
    /// The gateway that an address names is not of this network, or knows no such service.
    ServiceNotFound = 0xf0,
    /// An address of a service that is mistyped.
    BadServiceAddress = 0xf6,
    /// The service does not answer.
    ServiceTimedOut = 0xf7,
}

impl ReplyCode {
    /// The code of RFC 1928 that comes nearest.
    #[must_use]
    pub fn plain(self) -> Self {
        match self {
            Self::ServiceNotFound | Self::BadServiceAddress => Self::HostUnreachable,
            Self::ServiceTimedOut => Self::TtlExpired,
            code => code,
        }
    }

    /// What it says, in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Succeeded => "it succeeded",
            Self::GeneralFailure => "it failed, on this side or the far one",
            Self::NotAllowed => "the exit's policy refuses the target",
            Self::NetworkUnreachable => "the network cannot be reached",
            Self::HostUnreachable => "the host cannot be reached, or its name does not exist",
            Self::ConnectionRefused => "the connection was refused",
            Self::TtlExpired => "no answer came in time",
            Self::CommandNotSupported => "the far end does not serve this kind of request",
            Self::AddressTypeNotSupported => "the far end does not serve this kind of address",
            Self::ServiceNotFound => {
                "the network has no such gateway, or the gateway no such service"
            }
            Self::BadServiceAddress => "the service's address is mistyped",
            Self::ServiceTimedOut => "the service does not answer",
        }
    }

    /// The code of RFC 1928 with this number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Succeeded,
            1 => Self::GeneralFailure,
            2 => Self::NotAllowed,
            3 => Self::NetworkUnreachable,
            4 => Self::HostUnreachable,
            5 => Self::ConnectionRefused,
            6 => Self::TtlExpired,
            7 => Self::CommandNotSupported,
            8 => Self::AddressTypeNotSupported,
            _ => return None,
        })
    }

    /// Its number on the wire.
    pub fn to_byte(self) -> u8 {
        self as u8
    }
}

/// The last message of the handshake. For CONNECT leave out `bound`: the exit keeps its address to itself,
/// and 0.0.0.0:0 is sent. For UDP ASSOCIATE it is where this machine waits for datagrams.
pub fn reply(code: ReplyCode, bound: Option<SocketAddr>) -> Vec<u8> {
    let bound = bound.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into());
    let mut bytes = vec![5, code.to_byte(), 0];
    super::datagram::push_ip(&mut bytes, bound.ip());
    bytes.extend_from_slice(&bound.port().to_be_bytes());
    bytes
}

/// The answer to RESOLVE: the address stands in the place of the bound one (torspec, socks-extensions).
pub fn reply_ip(ip: IpAddr) -> Vec<u8> {
    reply(ReplyCode::Succeeded, Some(SocketAddr::new(ip, 0)))
}

/// The answer to RESOLVE_PTR: the name stands in the place of the bound address (torspec, socks-extensions).
pub fn reply_name(name: &HostName) -> Vec<u8> {
    let mut bytes = vec![5, ReplyCode::Succeeded.to_byte(), 0];
    super::datagram::push_name(&mut bytes, name);
    bytes.extend_from_slice(&[0, 0]);
    bytes
}

/// SOCKS4's "rejected or failed".
pub(super) const SOCKS4_REJECTED: [u8; 8] = [0, 0x5b, 0, 0, 0, 0, 0, 0];

/// True if the head of a request may come from somebody who opens this address or uses it as a proxy, and not from a
/// page that wants to find out whether Shoal runs here. Browsers say where a request comes from (Fetch Metadata, and
/// Origin), and no page can change it; programs that are no browsers say nothing.
pub(super) fn a_person_asks(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    fields.all(|(name, value)| match (name.trim(), value.trim()) {
        // Pages that send a form or fetch something have one; who types an address has none.
        ("origin", _) => false,
        ("sec-fetch-mode", mode) => mode == "navigate",
        ("sec-fetch-dest", whither) => whither == "document",
        _ => true,
    })
}

/// What a browser gets that takes the port for an HTTP proxy. An answer to HEAD has no body.
pub(super) fn http_page(method: &[u8]) -> Vec<u8> {
    let body = if method == b"HEAD " { "" } else { PAGE };
    format!(
        "HTTP/1.0 501 This is a SOCKS5 port\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        PAGE.len()
    )
    .into_bytes()
}

const PAGE: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>This is a SOCKS5 port</title></head><body>
<h1>This is Shoal's SOCKS5 port, not a web page and not an HTTP proxy</h1>
<p>It works; the program that asked has to speak SOCKS5 to it. PORT is the port that you just used, 1080 unless
you changed it.</p>
<ul>
<li>curl: <code>curl -x socks5h://127.0.0.1:PORT https://example.com/</code>
(<code>socks5h</code>, with the <code>h</code>: names are then resolved at the exit, not by you)</li>
<li>Firefox: Settings, Network Settings, Manual proxy configuration: leave the HTTP proxy empty, SOCKS Host
127.0.0.1, Port PORT, SOCKS v5, and tick "Proxy DNS when using SOCKS v5".</li>
<li>Chromium: <code>chromium --proxy-server=socks5://127.0.0.1:PORT</code></li>
<li>Others: look for "SOCKS5" in the proxy settings; leave user name and password empty, or give one per
identity: two user names never share a connection.</li>
</ul>
</body></html>
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_wire() {
        for byte in 0..=255 {
            assert!(ReplyCode::from_byte(byte).is_none_or(|code| code.to_byte() == byte));
        }
        assert_eq!(ReplyCode::from_byte(9), None);
    }

    #[test]
    fn what_is_said_of_services_has_codes_of_its_own_for_who_knows_them_alone() {
        for (code, byte, plain) in [
            (ReplyCode::ServiceNotFound, 0xf0, ReplyCode::HostUnreachable),
            (ReplyCode::BadServiceAddress, 0xf6, ReplyCode::HostUnreachable),
            (ReplyCode::ServiceTimedOut, 0xf7, ReplyCode::TtlExpired),
        ] {
            assert_eq!((code.to_byte(), code.plain()), (byte, plain));
            assert_eq!(ReplyCode::from_byte(byte), None, "no exit says that");
        }
        for code in (0..=8).filter_map(ReplyCode::from_byte) {
            assert_eq!(code.plain(), code);
        }
    }

    #[test]
    fn replies_have_the_form_of_rfc_1928() {
        assert_eq!(reply(ReplyCode::ConnectionRefused, None), [5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
        let bound = Some("127.0.0.1:258".parse().unwrap());
        assert_eq!(reply(ReplyCode::Succeeded, bound), [5, 0, 0, 1, 127, 0, 0, 1, 1, 2]);
        assert_eq!(reply_ip("::1".parse().unwrap())[..4], [5, 0, 0, 4]);
        assert_eq!(reply_name(&HostName::parse("ab").unwrap()), [5, 0, 0, 3, 2, b'a', b'b', 0, 0]);
    }

    #[test]
    fn the_page_is_as_long_as_it_says() {
        let page = String::from_utf8(http_page(b"GET ")).unwrap();
        let (head, body) = page.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())) && head.contains("close")
        );
        assert!(body.contains("curl -x socks5h://"));
        assert!(http_page(b"HEAD ").ends_with(b"\r\n\r\n"));
    }
}
