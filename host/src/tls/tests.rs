//! Both ends of a handshake, in one process over a pipe.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_rustls::{TlsAcceptor, TlsConnector};
use rustls::crypto::aws_lc_rs::kx_group::X25519;
use tokio::io::{DuplexStream, duplex};

use super::*;

/// tokio's pipe, as futures wants it.
pub(crate) struct Pipe(pub(crate) DuplexStream);

impl futures::AsyncRead for Pipe {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut [u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let mut buf = tokio::io::ReadBuf::new(buf);
        std::task::ready!(tokio::io::AsyncRead::poll_read(
            std::pin::Pin::new(&mut self.0),
            cx,
            &mut buf
        ))?;
        std::task::Poll::Ready(Ok(buf.filled().len()))
    }
}

impl futures::AsyncWrite for Pipe {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        tokio::io::AsyncWrite::poll_write(std::pin::Pin::new(&mut self.0), cx, buf)
    }
    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        tokio::io::AsyncWrite::poll_flush(std::pin::Pin::new(&mut self.0), cx)
    }
    fn poll_close(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        tokio::io::AsyncWrite::poll_shutdown(std::pin::Pin::new(&mut self.0), cx)
    }
}

type Outcome = (Result<CommonSummary, String>, Result<CommonSummary, String>);

#[derive(Debug, PartialEq)]
struct CommonSummary {
    group: NamedGroup,
    suite: rustls::CipherSuite,
    peer: [u8; 32],
}

fn summary(tls: &CommonState) -> Result<CommonSummary, String> {
    Ok(CommonSummary {
        group: tls.negotiated_key_exchange_group().unwrap().name(),
        suite: tls.negotiated_cipher_suite().unwrap().suite(),
        peer: finished(tls).map_err(|error| error.to_string())?,
    })
}

/// What the client and the server make of each other.
async fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Outcome {
    use futures::AsyncReadExt as _;
    let (a, b) = duplex(64 * 1024);
    let name = ServerName::from(std::net::Ipv4Addr::LOCALHOST);
    let dialler = async move {
        let mut tls =
            TlsConnector::from(client).connect(name, Pipe(a)).await.map_err(|e| e.to_string())?;
        // The server's verdict on our key comes with the first read.
        let mut byte = [0];
        tls.read_exact(&mut byte).await.map_err(|e| e.to_string())?;
        summary(tls.get_ref().1)
    };
    let listener = async move {
        use futures::AsyncWriteExt as _;
        let mut tls = TlsAcceptor::from(server).accept(Pipe(b)).await.map_err(|e| e.to_string())?;
        tls.write_all(&[1]).await.map_err(|e| e.to_string())?;
        tls.flush().await.map_err(|e| e.to_string())?;
        summary(tls.get_ref().1)
    };
    futures::join!(dialler, listener)
}

struct World {
    client: Identity,
    server: Identity,
    counters: Arc<Counters>,
}

fn world() -> World {
    World {
        client: Identity::from_seed(&[1; 32]),
        server: Identity::from_seed(&[2; 32]),
        counters: Arc::new(Counters::default()),
    }
}

impl World {
    fn server(&self, provider: CryptoProvider) -> Arc<ServerConfig> {
        let allow = Allow::list([self.client.public()].into());
        server(&self.server, allow, self.counters.clone(), Arc::new(provider)).unwrap()
    }
    fn client(&self, provider: CryptoProvider) -> Arc<ClientConfig> {
        client(&self.client, self.server.public(), Arc::new(provider)).unwrap()
    }
}

fn classical() -> CryptoProvider {
    CryptoProvider { kx_groups: vec![X25519], ..provider() }
}

#[tokio::test]
async fn both_ends_report_the_hybrid_group_and_each_others_key() {
    let world = world();
    let (client, server) = handshake(world.client(provider()), world.server(provider())).await;
    let (client, server) = (client.unwrap(), server.unwrap());
    for end in [&client, &server] {
        assert_eq!(end.group, NamedGroup::X25519MLKEM768);
        assert_eq!(end.suite, rustls::CipherSuite::TLS13_AES_256_GCM_SHA384);
    }
    assert_eq!(client.peer, world.server.public());
    assert_eq!(server.peer, world.client.public());
}

#[tokio::test]
async fn a_client_without_the_hybrid_group_is_refused() {
    let world = world();
    let (client, server) = handshake(world.client(classical()), world.server(provider())).await;
    assert!(client.is_err() && server.is_err());
}

#[tokio::test]
async fn a_server_without_the_hybrid_group_is_refused() {
    let world = world();
    let (client, server) = handshake(world.client(provider()), world.server(classical())).await;
    assert!(client.is_err() && server.is_err());
}

#[tokio::test]
async fn a_client_without_a_key_is_refused() {
    let world = world();
    let mut keyless = Arc::unwrap_or_clone(world.client(provider()));
    keyless.client_auth_cert_resolver = Arc::new(NoKey);
    let (client, server) = handshake(Arc::new(keyless), world.server(provider())).await;
    assert!(client.is_err() && server.is_err());
}

#[tokio::test]
async fn a_client_that_does_not_hold_the_key_it_shows_is_refused() {
    let world = world();
    let thief = CertifiedKey::new(
        vec![CertificateDer::from(spki(&world.client.public()).to_vec())],
        Arc::new(TlsSigningKey(Identity::from_seed(&[3; 32]))),
    );
    let mut config = Arc::unwrap_or_clone(world.client(provider()));
    config.client_auth_cert_resolver =
        Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(thief)));
    let (client, server) = handshake(Arc::new(config), world.server(provider())).await;
    assert!(client.is_err() && server.is_err());
}

#[tokio::test]
async fn a_client_off_the_list_is_refused_and_counted() {
    let world = world();
    let stranger = Identity::from_seed(&[9; 32]);
    let config = client(&stranger, world.server.public(), Arc::new(provider())).unwrap();
    let (client, server) = handshake(config, world.server(provider())).await;
    assert!(client.is_err() && server.is_err());
    assert_eq!(world.counters.refused_peers.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn whom_a_list_refused_last_is_remembered_until_it_is_let_in() {
    let world = world();
    let stranger = |n| Identity::from_seed(&[n; 32]);
    let allow = Allow::list_and_remember([world.client.public()].into());
    let ask = async |n| {
        let config = client(&stranger(n), world.server.public(), Arc::new(provider())).unwrap();
        let counters = world.counters.clone();
        let server = server(&world.server, allow.clone(), counters, Arc::new(provider())).unwrap();
        handshake(config, server).await.1.is_ok()
    };
    for n in [9, 10, 9] {
        assert!(!ask(n).await);
    }
    let keys = |ns: &[u8]| ns.iter().map(|n| stranger(*n).public()).collect::<Vec<_>>();
    assert_eq!(allow.refused(), keys(&[9, 10]));
    allow.replace(keys(&[9]).into_iter().collect());
    assert_eq!(allow.refused(), keys(&[10]));
    assert!(ask(9).await);
    (20..60).for_each(|n| allow.remember([n; 32]));
    assert_eq!(allow.refused().len(), REMEMBERED);
    assert_eq!(allow.refused().last(), Some(&[59; 32]));
    assert!(Allow::list([].into()).refused().is_empty());
}

#[tokio::test]
async fn a_server_with_another_key_is_refused() {
    let world = world();
    let config = client(&world.client, [7; 32], Arc::new(provider())).unwrap();
    let (client, server) = handshake(config, world.server(provider())).await;
    assert!(client.is_err() && server.is_err());
}

#[tokio::test]
async fn a_peer_that_does_not_name_the_protocol_is_refused() {
    let world = world();
    let mut silent = Arc::unwrap_or_clone(world.client(provider()));
    silent.alpn_protocols.clear();
    let (_, server) = handshake(Arc::new(silent), world.server(provider())).await;
    assert!(server.is_err());
}

#[derive(Debug)]
struct NoKey;

impl rustls::client::ResolvesClientCert for NoKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }
    fn only_raw_public_keys(&self) -> bool {
        true
    }
    fn has_certs(&self) -> bool {
        true
    }
}
