//! The security of links: TLS 1.3 between raw Ed25519 keys (RFC 7250), key exchange X25519MLKEM768 and nothing
//! else. What is recorded today stays closed to a quantum computer; there is no weaker group, older version,
//! ticket or resumption to fall back to. Nothing here knows libp2p.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ed25519_dalek::Signer as _;
use rand::TryRng as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName,
    NamedGroup, PeerIncompatible, PeerMisbehaved, ServerConfig, SignatureAlgorithm,
    SignatureScheme,
};
use zeroize::Zeroizing;

use crate::link::Counters;

/// The name of the protocol inside TLS. There is one, under a name of its own: nothing to negotiate down.
pub(crate) const PROTOCOL: &[u8] = b"/shoal/tls-pq/1";

/// What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Who this end of a link is: an Ed25519 key pair. Its secret half is wiped when the last copy goes, and it has
/// no `Debug`.
#[derive(Clone)]
pub struct Identity(Arc<ed25519_dalek::SigningKey>);

impl Identity {
    /// The identity of a 32-byte Ed25519 seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Arc::new(ed25519_dalek::SigningKey::from_bytes(seed)))
    }

    /// A fresh identity for one connection, so that two connections of a client cannot be linked by it.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn throwaway() -> std::io::Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        rand::rngs::SysRng.try_fill_bytes(seed.as_mut()).map_err(std::io::Error::other)?;
        Ok(Self::from_seed(&seed))
    }

    /// The public key: 32 bytes, on a link the name of this end.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        let spki = CertificateDer::from(spki(&self.public()).to_vec());
        Arc::new(CertifiedKey::new(vec![spki], Arc::new(TlsSigningKey(self.clone()))))
    }
}

/// Who may connect. Copies share one list, so that a new topology takes effect on a running endpoint; links
/// that stand already are the caller's to close.
#[derive(Clone)]
pub struct Allow {
    keys: Arc<RwLock<Option<HashSet<[u8; 32]>>>>,
    /// Who was refused last, where that is remembered.
    refused: Option<Arc<Mutex<VecDeque<[u8; 32]>>>>,
}

/// Peers that an [`Allow`] remembers to have refused. The one that asked first is forgotten when there are more.
const REMEMBERED: usize = 32;

impl Allow {
    /// Everyone: gateways, whose clients come with throwaway identities and prove themselves later.
    pub fn anyone() -> Self {
        Self { keys: Arc::new(RwLock::new(None)), refused: None }
    }

    /// Those with one of these public keys.
    pub fn list(keys: HashSet<[u8; 32]>) -> Self {
        Self { keys: Arc::new(RwLock::new(Some(keys))), refused: None }
    }

    /// As [`Self::list`]; and it remembers whom it refused last, for [`Self::refused`].
    pub fn list_and_remember(keys: HashSet<[u8; 32]>) -> Self {
        Self { refused: Some(Arc::default()), ..Self::list(keys) }
    }

    /// The keys that were refused last and would be still, at most 32, the latest at the end. Whoever asked has said that the
    /// key is its own, and was not let in to prove it.
    pub fn refused(&self) -> Vec<[u8; 32]> {
        let Some(refused) = &self.refused else { return Vec::new() };
        let refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.iter().filter(|key| !self.permits(key)).copied().collect()
    }

    fn remember(&self, key: [u8; 32]) {
        let Some(refused) = &self.refused else { return };
        let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
        // Each once: a peer that tries again and again must not push out the others.
        if !refused.contains(&key) {
            if refused.len() >= REMEMBERED {
                refused.pop_front();
            }
            refused.push_back(key);
        }
    }

    /// From now on those with one of these public keys.
    pub fn replace(&self, keys: HashSet<[u8; 32]>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys);
    }

    /// True if the owner of `key` may connect.
    pub fn permits(&self, key: &[u8; 32]) -> bool {
        let list = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        // No list lets everyone in; an empty one lets in nobody.
        list.as_ref().is_none_or(|keys| keys.contains(key))
    }
}

/// The algorithms of a link.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        // The hybrid group alone: with another beside it, whoever sits between could talk the ends down to it.
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    }
}

/// The settings of the end that dials and wants `peer` to answer, and nobody else.
pub(crate) fn client(
    identity: &Identity,
    peer: [u8; 32],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    // Dangerous by its name alone: no authority vouches for keys here, and the one that is wanted is known before.
    let verifier = ThisPeer { peer, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
            identity.certified(),
        )));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A ticket would join two connections of one client at whoever sees both.
    config.resumption = Resumption::disabled();
    // A name would tell whoever watches the link; keys say who is meant.
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The settings of the end that listens.
pub(crate) fn server(
    identity: &Identity,
    allow: Allow,
    counters: Arc<Counters>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let verifier = ListedPeers { allow, counters, provider: provider.clone() };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity.certified())));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // The same from the listener's side.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Whom a finished handshake is with. Checks once more what the configuration asked for: the group, and the
/// protocol, which rustls lets the other end leave out.
pub(crate) fn finished(tls: &CommonState) -> Result<[u8; 32], rustls::Error> {
    // The configuration offers nothing else. This is a second look at what matters most, and costs nothing.
    if tls.negotiated_key_exchange_group().map(|group| group.name())
        != Some(NamedGroup::X25519MLKEM768)
    {
        return Err(PeerIncompatible::NoKxGroupsInCommon.into());
    }
    // A peer that leaves ALPN out is let through by rustls, and might speak something else.
    if tls.alpn_protocol() != Some(PROTOCOL) {
        return Err(rustls::Error::NoApplicationProtocol);
    }
    let key = tls.peer_certificates().and_then(|keys| keys.first()).and_then(|key| public_key(key));
    key.ok_or(rustls::Error::NoCertificatesPresented)
}

fn spki(key: &[u8; 32]) -> [u8; 44] {
    let mut out = [0; 44];
    let (prefix, rest) = out.split_at_mut(SPKI_PREFIX.len());
    prefix.copy_from_slice(&SPKI_PREFIX);
    rest.copy_from_slice(key);
    out
}

fn public_key(spki: &[u8]) -> Option<[u8; 32]> {
    spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

fn verify(
    message: &[u8],
    key: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    provider: &CryptoProvider,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
    verify_tls13_signature_with_raw_key(
        message,
        &spki,
        signature,
        &provider.signature_verification_algorithms,
    )
}

/// Our key, as rustls wants it. Its `Debug` shows nothing.
struct TlsSigningKey(Identity);

impl fmt::Debug for TlsSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSigningKey")
    }
}

impl SigningKey for TlsSigningKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        // The key has one scheme. A peer that does not offer it cannot be answered.
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(Self(self.0.clone())) as _)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(spki(&self.0.public()).to_vec()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for TlsSigningKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0.0.sign(message).to_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// The dialler's check: the one peer that was dialled.
struct ThisPeer {
    peer: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for ThisPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThisPeer")
    }
}

impl ServerCertVerifier for ThisPeer {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match public_key(key) {
            // The name in the handshake is not looked at: the key that was dialled is the name.
            Some(key) if key == self.peer => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify(message, key, signature, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The listener's check: the allow-list.
struct ListedPeers {
    allow: Allow,
    counters: Arc<Counters>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for ListedPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListedPeers")
    }
}

impl ClientCertVerifier for ListedPeers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match public_key(key) {
            Some(key) if self.allow.permits(&key) => Ok(ClientCertVerified::assertion()),
            key => {
                // For the operator, who may have forgotten a node on the list. It proves nothing: anybody can show a
                // key.
                key.into_iter().for_each(|key| self.allow.remember(key));
                Counters::add(&self.counters.refused_peers);
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify(message, key, signature, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
pub(crate) mod tests;
