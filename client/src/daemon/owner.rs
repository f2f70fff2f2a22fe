//! Whose a socket on this machine is, as far as the system says.

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;

/// Who asked for an association: his address, and his number on this machine.
pub(super) struct Owner {
    ip: IpAddr,
    /// The port that he announced (RFC 1928, section 6), if any.
    port: Option<u16>,
    /// None where the system does not say.
    uid: Option<u32>,
}

impl Owner {
    /// Of the connection on which the association was asked for.
    pub(super) fn of(tcp: &TcpStream, announced: u16) -> Option<Self> {
        let (far, near) = (tcp.peer_addr().ok()?, tcp.local_addr().ok()?);
        let port = (announced != 0).then_some(announced);
        let uid = tables("tcp").find_map(|table| {
            let mut sockets = sockets(&table).filter(|socket| socket.local.port() == far.port());
            sockets
                .find(|socket| same(socket.local, far) && same(socket.remote, near))
                .map(|s| s.uid)
        });
        Some(Self { ip: far.ip().to_canonical(), port, uid })
    }

    /// True if a datagram from this address may be his: it comes from his address, and, where the system says whose
    /// sockets are, from a socket of the same user; elsewhere from the port that he announced.
    pub(super) fn may_send_from(&self, from: SocketAddr) -> bool {
        if from.ip().to_canonical() != self.ip {
            return false;
        }
        match self.uid {
            Some(uid) => {
                let tables: Vec<String> = tables("udp").collect();
                sole_user(&tables, from) == Some(uid)
            }
            None => self.port.is_none_or(|port| port == from.port()),
        }
    }
}

/// The user to whom all sockets belong that may have sent from this address.
fn sole_user(tables: &[String], from: SocketAddr) -> Option<u32> {
    let mut users = tables.iter().flat_map(|table| sockets(table)).filter_map(|socket| {
        let bound = socket.local.port() == from.port()
            && (socket.local.ip().is_unspecified() || same(socket.local, from));
        bound.then_some(socket.uid)
    });
    let first = users.next()?;
    users.all(|user| user == first).then_some(first)
}

/// What the system says of the sockets of a protocol; nothing where it says nothing.
fn tables(protocol: &str) -> impl Iterator<Item = String> {
    let paths = [format!("/proc/net/{protocol}"), format!("/proc/net/{protocol}6")];
    paths.into_iter().filter_map(|path| std::fs::read_to_string(path).ok())
}

fn same(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
}

/// A line of such a table.
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    uid: u32,
}

fn sockets(table: &str) -> impl Iterator<Item = Socket> + '_ {
    table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
        // State, queues, timer, retransmissions, then the user.
        let uid = words.nth(4)?.parse().ok()?;
        Some(Socket { local, remote, uid })
    })
}

/// `0100007F:1F90`: words of 32 bits as this machine's integers, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |digits: &str| Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = match ip.len() {
        8 => word(ip)?.into(),
        32 => {
            let mut bytes = [0; 16];
            for (n, bytes) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *bytes = word(ip.get(8 * n..8 * n + 8)?)?;
            }
            bytes.into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, UdpSocket};

    use super::*;

    const HEAD: &str = "sl local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n";

    fn line(local: &str, uid: u32) -> String {
        format!(
            "1: {local} 00000000:0000 07 00000000:00000000 00:00000000 00000000 {uid} 0 12345 2\n"
        )
    }

    /// An IPv4 address as this machine's table has it.
    fn digits(ip: [u8; 4], port: u16) -> String {
        format!("{:08X}:{port:04X}", u32::from_ne_bytes(ip))
    }

    #[test]
    fn a_socket_of_another_user_or_of_two_is_nobodys() {
        let from = "127.0.0.1:5000".parse().unwrap();
        let own = line(&digits([127, 0, 0, 1], 5000), 1000);
        let any = line(&digits([0; 4], 5000), 1000);
        let other_port = line(&digits([127, 0, 0, 1], 5001), 7);
        let foreign = line(&digits([0; 4], 5000), 1001);
        let user = |lines: &[&String]| {
            let lines: String = lines.iter().map(|line| line.as_str()).collect();
            sole_user(&[format!("{HEAD}{lines}")], from)
        };
        assert_eq!(user(&[&other_port, &own]), Some(1000));
        assert_eq!(user(&[&any, &own]), Some(1000));
        assert_eq!(user(&[&foreign]), Some(1001));
        assert_eq!(user(&[&own, &foreign]), None);
        assert_eq!(user(&[&other_port]), None);
        let six = "00000000000000000000000000000000:1388";
        assert_eq!(user(&[&line(six, 1000)]), Some(1000), "both families");
        assert_eq!(user(&[&"rubbish\n".to_owned()]), None);
    }

    #[tokio::test]
    async fn only_who_asked_for_an_association_sends_into_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let asking = TcpStream::connect(listener.local_addr().unwrap());
        let (asking, accepted) = tokio::join!(asking, listener.accept());
        let (_asking, accepted) = (asking.unwrap(), accepted.unwrap().0);
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let from = socket.local_addr().unwrap();
        let owner = Owner::of(&accepted, 0).unwrap();
        assert!(owner.may_send_from(from));
        assert!(!owner.may_send_from(SocketAddr::new([127, 0, 0, 2].into(), from.port())));
        // Where the system says whose sockets are.
        if let Some(uid) = owner.uid {
            let other = Owner { uid: Some(uid.wrapping_add(1)), ..owner };
            assert!(!other.may_send_from(from));
            drop(socket);
            assert!(!Owner::of(&accepted, 0).unwrap().may_send_from(from), "nobody's");
        }
        let announced = Owner { ip: from.ip(), port: Some(from.port()), uid: None };
        assert!(announced.may_send_from(from));
        assert!(!announced.may_send_from(SocketAddr::new(from.ip(), from.port() ^ 1)));
    }
}
