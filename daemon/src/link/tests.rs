//! What a peer with weaker algorithms meets, on real sockets.

use std::sync::atomic::Ordering;

use rustls::crypto::aws_lc_rs::kx_group::X25519;

use super::*;

fn endpoint(seed: u8, provider: CryptoProvider) -> Endpoint {
    let settings = Settings {
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        allow: Allow::anyone(),
        handshake_timeout: Duration::from_secs(20),
        ..Settings::default()
    };
    Endpoint::with_provider(&Identity::from_seed(&[seed; 32]), settings, provider).unwrap()
}

#[tokio::test]
async fn a_peer_without_the_hybrid_group_is_refused_whoever_dials() {
    let public = |seed| Identity::from_seed(&[seed; 32]).public();
    let classical = CryptoProvider { kx_groups: vec![X25519], ..crate::tls::provider() };
    let (ours, theirs) = (endpoint(1, crate::tls::provider()), endpoint(2, classical));

    let inward = theirs.dial(public(1), ours.listen_addr().unwrap()).await.unwrap_err();
    assert!(matches!(inward, Error::Handshake(_)), "{inward:?}");
    let outward = ours.dial(public(2), theirs.listen_addr().unwrap()).await.unwrap_err();
    assert!(matches!(outward, Error::Handshake(_)), "{outward:?}");
    assert_eq!(ours.counters().handshake_failures.load(Ordering::Relaxed), 1);
}

#[test]
fn a_peers_name_and_its_key_are_one_thing() {
    let key = Identity::from_seed(&[5; 32]).public();
    assert_eq!(key_of(&peer_id(&key).unwrap()), Some(key));
    assert!(key_of(&PeerId::random()).is_none());
}
