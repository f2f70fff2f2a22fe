//! What a peer with weaker algorithms meets, or one that asks for too much of Yamux.

use std::sync::atomic::Ordering;
use std::task::Waker;

use rustls::crypto::aws_lc_rs::kx_group::X25519;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use futures_rustls::TlsConnector;
use rustls::pki_types::ServerName;

use super::secure::multiplexing;
use super::*;
use crate::tls::tests::Pipe;

fn endpoint(seed: u8, provider: CryptoProvider) -> Endpoint {
    let settings = LinkSettings {
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        allow: Allow::anyone(),
        handshake_timeout: Duration::from_secs(20),
        tls_timeout: Duration::from_secs(20),
        ..LinkSettings::default()
    };
    Endpoint::with_provider(&Identity::from_seed(&[seed; 32]), settings, provider).unwrap()
}

#[tokio::test]
async fn a_peer_without_the_hybrid_group_is_refused_whoever_dials() {
    let public = |seed| Identity::from_seed(&[seed; 32]).public();
    let classical = CryptoProvider { kx_groups: vec![X25519], ..crate::tls::provider() };
    let (ours, theirs) = (endpoint(1, crate::tls::provider()), endpoint(2, classical));

    let inward = theirs.dial(public(1), ours.listen_addr().unwrap()).await.unwrap_err();
    assert!(matches!(inward, LinkError::Handshake(_)), "{inward:?}");
    let outward = ours.dial(public(2), theirs.listen_addr().unwrap()).await.unwrap_err();
    assert!(matches!(outward, LinkError::Handshake(_)), "{outward:?}");
    assert_eq!(ours.counters().handshake_failures.load(Ordering::Relaxed), 1);
}

#[test]
fn a_peers_name_and_its_key_are_one_thing() {
    let key = Identity::from_seed(&[5; 32]).public();
    assert_eq!(key_of(&peer_id(&key).unwrap()), Some(key));
    assert!(key_of(&PeerId::random()).is_none());
}

/// The header of Yamux: what kind of frame, its flags, its stream, and the length of what follows.
type Header = (u8, u16, u32, u32);

const DATA: u8 = 0;
const PING: u8 = 2;
const GO_AWAY: u8 = 3;
const SYN: u16 = 1;
const ACK: u16 = 2;
const RST: u16 = 8;

/// A peer that writes its Yamux by hand, and so may break the rules.
struct Rude<T>(T);

impl<T: AsyncRead + AsyncWrite + Unpin> Rude<T> {
    async fn send(&mut self, kind: u8, flags: u16, stream: u32, body: &[u8]) {
        let mut bytes = vec![0, kind];
        bytes.extend(flags.to_be_bytes());
        bytes.extend(stream.to_be_bytes());
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(body);
        self.0.write_all(&bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    async fn next(&mut self) -> Header {
        let mut header = [0; 12];
        self.0.read_exact(&mut header).await.unwrap();
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let [kind, flags, stream, length] =
            [&header[1..2], &header[2..4], &header[4..8], &header[8..]].map(number);
        if kind == u32::from(DATA) {
            self.0.read_exact(&mut vec![0; length as usize]).await.unwrap();
        }
        (kind as u8, flags as u16, stream, length)
    }

    /// The next frame that `wanted` is true of.
    async fn until(&mut self, wanted: impl Fn(&Header) -> bool) -> Header {
        let found = async {
            loop {
                let header = self.next().await;
                if wanted(&header) {
                    return header;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), found).await.unwrap()
    }
}

#[tokio::test]
async fn a_second_stream_is_refused_and_counted_and_at_a_third_the_peer_is_told_to_go_away() {
    let mut ours = endpoint(1, crate::tls::provider());
    let tcp = tokio::net::TcpStream::connect(ours.listen_addr().unwrap()).await.unwrap();
    let config = crate::tls::client(
        &Identity::from_seed(&[2; 32]),
        Identity::from_seed(&[1; 32]).public(),
        Arc::new(crate::tls::provider()),
    );
    let name = ServerName::from(std::net::Ipv4Addr::LOCALHOST);
    let connector = TlsConnector::from(config.unwrap());
    let mut peer = Rude(connector.connect(name, tcp::tokio::TcpStream(tcp)).await.unwrap());
    let counters = ours.counters();
    let refused = || counters.refused_streams.load(Ordering::Relaxed);

    // The one stream, in the words of multistream-select.
    let words = b"\x13/multistream/1.0.0\n\x10/shoal/frames/1\n";
    peer.send(DATA, SYN, 1, words).await;
    let mut link = ours.incoming.recv().await.unwrap();
    peer.send(DATA, SYN, 3, words).await;
    peer.until(|(_, flags, stream, _)| *stream == 3 && flags & RST != 0).await;
    assert_eq!(refused(), 1);

    // Streams that never finish their words: there is room for one beside the link.
    peer.send(DATA, SYN, 5, &words[..1]).await;
    peer.send(DATA, 0, 1, &[5; FRAME]).await;
    assert_eq!(link.receiver.next().await.unwrap(), Some(Box::new([5; FRAME])));
    peer.send(DATA, SYN, 7, &words[..1]).await;
    peer.send(PING, SYN, 0, &[]).await;
    let answer = |(kind, flags, ..): &Header| *kind == GO_AWAY || (*kind, *flags) == (PING, ACK);
    assert_eq!(peer.until(answer).await.0, GO_AWAY);
    drop(peer);
    assert!(!matches!(link.receiver.next().await, Ok(Some(_))));
}

#[test]
fn a_sender_waits_when_four_mebibytes_are_in_flight() {
    let (a, b) = tokio::io::duplex(64 * 1024);
    let mut cx = Context::from_waker(Waker::noop());
    let mut sending = yamux::Connection::new(Pipe(a), multiplexing(), yamux::Mode::Client);
    let mut receiving = yamux::Connection::new(Pipe(b), multiplexing(), yamux::Mode::Server);
    let Poll::Ready(Ok(mut writer)) = sending.poll_new_outbound(&mut cx) else { panic!() };
    let mut reader = None;

    // A long line: the receiver grants more while it takes less than two round trips to fill what it granted.
    assert!(receiving.poll_next_inbound(&mut cx).is_pending());
    std::thread::sleep(Duration::from_millis(500));

    let mut most = 0;
    for _ in 0..50 {
        // Until nothing moves any more, and then until nothing is left.
        let (mut sent, mut idle) = (0, 0);
        while idle < 10 {
            idle += 1;
            while let Poll::Ready(count) = Pin::new(&mut writer).poll_write(&mut cx, &[0; FRAME]) {
                sent += count.unwrap();
                idle = 0;
            }
            assert!(sending.poll_next_inbound(&mut cx).is_pending());
            if let Poll::Ready(stream) = receiving.poll_next_inbound(&mut cx) {
                reader = stream.map(Result::unwrap);
            }
        }
        assert!(sent <= 4 * 1024 * 1024, "{sent}");
        most = most.max(sent);
        let (reader, mut read) = (reader.as_mut().unwrap(), 0);
        while read < sent {
            match Pin::new(&mut *reader).poll_read(&mut cx, &mut [0; FRAME]) {
                Poll::Ready(count) => read += count.unwrap(),
                Poll::Pending => panic!("{read} of {sent}"),
            }
        }
    }
    // It did grow, so the limit is what kept it from growing on.
    assert!(most > 2 * 1024 * 1024, "{most}");
}
