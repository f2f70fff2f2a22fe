//! The handshake of a tunnel: TLS 1.3 inside QUIC, one hybrid group, the service known by its raw Ed25519 key.
//!
//! The client shows no certificate: a service knows pseudonyms and no more. There are no tickets, so neither
//! resumption nor 0-RTT: a ticket would link the tunnels of one user to each other at the service, and early
//! data can be replayed to it. A handshake costs one round trip more than that, once for each group and service.
//! Key logging (`SSLKEYLOGFILE`) is never switched on: rustls does it only when asked.

use std::sync::Arc;

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme, quic, version};

/// The protocol spoken inside.
const ALPN: &[u8] = b"shoal/1";

/// What the client calls every service: the name is sent, so it must not say which one is meant.
pub(super) const SERVER_NAME: &str = "shoal";

/// `SubjectPublicKeyInfo` of an Ed25519 key, up to the key (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// `PrivateKeyInfo` of an Ed25519 key, up to the key (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// TLS for a client that wants the service of this Ed25519 key and no other.
pub(super) fn client(service: &[u8; 32]) -> Result<QuicClientConfig, Error> {
    let provider = Arc::new(provider());
    let verifier =
        PinnedKey { spki: spki(service), algorithms: provider.signature_verification_algorithms };
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A session that is resumed would show the service that two pseudonyms are of one client.
    config.resumption = Resumption::disabled();
    QuicClientConfig::with_initial(Arc::new(config), initial_suite()?).map_err(no_suite)
}

/// TLS for the service with this Ed25519 seed.
pub(super) fn server(identity_secret: &[u8; 32]) -> Result<QuicServerConfig, Error> {
    let mut pkcs8 = [0; PKCS8_PREFIX.len() + 32];
    let (prefix, rest) = pkcs8.split_at_mut(PKCS8_PREFIX.len());
    prefix.copy_from_slice(&PKCS8_PREFIX);
    rest.copy_from_slice(identity_secret);
    let key = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()));
    // No copy of the secret stays behind.
    std::hint::black_box(&mut pkcs8).fill(0);
    let key = key?;
    let public =
        key.public_key().ok_or(Error::General("an Ed25519 key has a public half".into()))?;
    let certified = CertifiedKey::new(vec![CertificateDer::from(public.to_vec())], key);

    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // The same from the other side: a client of another make must not be given a ticket either.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.max_early_data_size = 0;
    QuicServerConfig::with_initial(Arc::new(config), initial_suite()?).map_err(no_suite)
}

/// The hybrid group alone: with another beside it, whoever sits between could talk the ends down to it. The
/// suites in order of preference.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    }
}

/// QUIC's first packets are sealed with this under a key that everyone knows (RFC 9001, section 5.2).
fn initial_suite() -> Result<quic::Suite, Error> {
    cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .and_then(|suite| suite.quic_suite())
        .ok_or(Error::General("aws-lc-rs does QUIC".into()))
}

fn no_suite(_: quinn_proto::crypto::rustls::NoInitialCipherSuite) -> Error {
    Error::General("the initial suite of QUIC is AES-128-GCM".into())
}

fn spki(key: &[u8; 32]) -> [u8; 44] {
    let mut spki = [0; 44];
    let (prefix, rest) = spki.split_at_mut(SPKI_PREFIX.len());
    prefix.copy_from_slice(&SPKI_PREFIX);
    rest.copy_from_slice(key);
    spki
}

/// Accepts one raw public key, and a signature by it over the handshake.
struct PinnedKey {
    spki: [u8; 44],
    algorithms: WebPkiSupportedAlgorithms,
}

// By hand: rustls wants `Debug`, and the key says who is talked to.
impl std::fmt::Debug for PinnedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PinnedKey")
    }
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Not in constant time: the key is public.
        if end_entity.as_ref() == self.spki && intermediates.is_empty() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(cert.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
