//! What QUIC is told about a network that delays, reorders and loses at random, and drains at fixed instants.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn_proto::congestion::ControllerFactory;
use quinn_proto::crypto::{AeadKey, CryptoError, HandshakeTokenKey, HmacKey};
use quinn_proto::{
    AckFrequencyConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout,
    ServerConfig, TransportConfig, ValidationTokenConfig, VarInt,
};
use rand::Rng;
use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::crypto::tls13::OkmBlock;
use shoal_topology::{Seed, Stream, Time};

use super::{TunnelError, TunnelSettings, Windows};

/// Streams that a client may have open at one time.
pub(crate) const MAX_STREAMS: u32 = 256;

/// Bytes of QUIC datagrams that wait to be sent, and to be taken; when either is full the oldest go.
const DATAGRAM_BUFFER: usize = 64 << 10;

/// Bytes of a handshake out of order.
const CRYPTO_BUFFER: usize = 16 << 10;

/// Longest datagram that either end takes.
const MAX_DATAGRAM: u16 = 2000;

/// Bytes of a connection's name at a service.
const ID_LEN: usize = 8;

/// Later than every instant that is reached: `Instant` cannot be carried as far as [`Time`].
const HORIZON: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Between our `Time` and the `Instant`s of quinn.
#[derive(Clone, Copy)]
pub(super) struct QuicClock(pub(super) Instant);

impl QuicClock {
    pub(super) fn instant(self, time: Time) -> Instant {
        let since = time.since(Time::ZERO).min(HORIZON);
        self.0.checked_add(since).unwrap_or(self.0)
    }

    pub(super) fn time(self, instant: Instant) -> Time {
        Time::ZERO + instant.saturating_duration_since(self.0)
    }
}

/// Refuses settings that quinn would panic at or that would stall.
pub(super) fn check(settings: &TunnelSettings) -> Result<(), TunnelError> {
    let hour = Duration::from_secs(3600);
    let ranges = [
        ("initial_rtt", settings.initial_rtt, Duration::from_millis(1), Duration::from_secs(60)),
        ("idle_timeout", settings.idle_timeout, Duration::from_secs(1), hour),
        ("keep_alive", settings.keep_alive, Duration::from_secs(1), hour),
        ("watchdog", settings.watchdog, Duration::from_millis(10), hour),
    ];
    for (name, value, least, most) in ranges {
        if value < least || value > most {
            return Err(TunnelError::Setting(name));
        }
    }
    for (name, windows) in [("client", settings.client), ("service", settings.service)] {
        let Windows { stream, connection, send } = windows;
        if stream < 16 << 10 || stream >= connection || send < 16 << 10 || connection > 1 << 30 {
            return Err(TunnelError::Setting(name));
        }
    }
    if settings.max_connections == 0 {
        return Err(TunnelError::Setting("max_connections"));
    }
    Ok(())
}

/// Which end is being set up.
pub(super) enum TunnelRole {
    Client,
    Service,
}

/// True if a datagram is worth quinn's time. There is one version, so what bears another is garbage: nobody
/// negotiates.
pub(super) fn plausible(datagram: &[u8], longest: u16) -> bool {
    // A long header has its version in bytes 1 to 4 (RFC 8999, section 5.1).
    let long = datagram.first().is_some_and(|first| first & 0x80 != 0);
    datagram.len() <= usize::from(longest) && (!long || datagram.get(1..5) == Some(&[0, 0, 0, 1]))
}

/// How a connection behaves. The numbers are those of a trial; each line says what it prevents.
pub(super) fn transport(
    settings: &TunnelSettings,
    role: TunnelRole,
    mtu: u16,
    congestion: Arc<dyn ControllerFactory + Send + Sync>,
) -> Arc<TransportConfig> {
    let (windows, streams_of_peer) = match role {
        // A service never opens streams, so a client that allows it none cannot be made to hold any.
        TunnelRole::Client => (settings.client, 0),
        TunnelRole::Service => (settings.service, MAX_STREAMS),
    };
    let mut acks = AckFrequencyConfig::default();
    // An upload would otherwise cost 190 SURBs/s for acknowledgements; with these, 35. Reordering is no news.
    acks.ack_eliciting_threshold(VarInt::from_u32(8))
        .max_ack_delay(Some(Duration::from_millis(25)))
        .reordering_threshold(VarInt::from_u32(0));

    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(streams_of_peer))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(windows.stream))
        .receive_window(VarInt::from_u32(windows.connection))
        .send_window(u64::from(windows.send))
        // Late is not lost: three hops of exponential delay reorder hundreds of packets.
        .packet_threshold(1000)
        .time_threshold(3.0)
        .persistent_congestion_threshold(1000)
        .initial_rtt(settings.initial_rtt)
        // A packet of the mixnet has one size: there is nothing to discover.
        .initial_mtu(mtu)
        .min_mtu(mtu)
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false)
        .allow_spin(false)
        .max_idle_timeout(IdleTimeout::try_from(settings.idle_timeout).ok())
        .keep_alive_interval(Some(settings.keep_alive))
        .ack_frequency_config(Some(acks))
        .crypto_buffer_size(CRYPTO_BUFFER)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .congestion_controller_factory(congestion);
    Arc::new(config)
}

/// What all connections of one end share. `reset_secret` is what a peer recognises this end's resets by: a
/// service that was started anew must have the same.
pub(super) fn endpoint(
    seed: &Seed,
    role: TunnelRole,
    reset_secret: &[u8; 32],
) -> Arc<EndpointConfig> {
    let mut rng_seed = [0; 32];
    seed.stream("quic").fill_bytes(&mut rng_seed);
    let ids = seed.part("connection ids");
    let len = match role {
        // One connection to an endpoint needs no name: eight bytes more for data in each datagram.
        TunnelRole::Client => 0,
        TunnelRole::Service => ID_LEN,
    };
    let mut config = EndpointConfig::new(Arc::new(ResetKey(*reset_secret)));
    config
        .supported_versions(vec![1])
        .grease_quic_bit(false)
        .rng_seed(Some(rng_seed))
        .cid_generator(move || Box::new(SeededIds { stream: ids.stream("local"), len }));
    // The default of 1472 would cap the datagrams of the peer. A constant in range cannot be refused.
    let _ = config.max_udp_payload_size(MAX_DATAGRAM);
    Arc::new(config)
}

/// The part of a server's configuration that QUIC, not TLS, looks at.
pub(super) fn server(crypto: Arc<dyn quinn_proto::crypto::ServerConfig>) -> ServerConfig {
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    let mut config = ServerConfig::new(crypto, Arc::new(NoTokens));
    // The address stands for a pseudonym, and a pseudonym does not move.
    config.migration(false).validation_token_config(tokens);
    config
}

/// The destination of a client's first datagram, as quinn wants it: made by a function that may be called
/// again, from the seed.
pub(super) fn first_ids(seed: &Seed) -> Arc<dyn Fn() -> ConnectionId + Send + Sync> {
    let ids = Mutex::new(seed.stream("first connection id"));
    Arc::new(move || {
        let mut bytes = [0; 20];
        ids.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        ConnectionId::new(&bytes)
    })
}

/// So many bytes, at most [`ID_LEN`], from a stream of the seed.
struct SeededIds {
    stream: Stream,
    len: usize,
}

impl ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; ID_LEN];
        self.stream.fill_bytes(&mut bytes);
        ConnectionId::new(bytes.get(..self.len).unwrap_or_default())
    }

    fn cid_len(&self) -> usize {
        self.len
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// HMAC-SHA256 of `data` under `key`, by the TLS library.
pub(super) fn derive(key: &[u8; 32], data: &[u8]) -> [u8; 32] {
    let mut tag = [0; 32];
    if let Some(suite) = cipher_suite::TLS13_CHACHA20_POLY1305_SHA256.tls13() {
        // rustls shows HMAC only as a part of HKDF. One library for both is one less to trust with keys.
        let made = suite.hkdf_provider.hmac_sign(&OkmBlock::new(key), data);
        for (to, from) in tag.iter_mut().zip(made.as_ref()) {
            *to = *from;
        }
    }
    tag
}

/// Makes the tokens of stateless resets.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        for (to, from) in signature_out.iter_mut().zip(derive(&self.0, data)) {
            *to = from;
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // quinn never verifies with it; constant time costs nothing.
        let wrong =
            derive(&self.0, data).iter().zip(signature).fold(0, |wrong, (a, b)| wrong | (a ^ b));
        if wrong == 0 && signature.len() == 32 { Ok(()) } else { Err(CryptoError) }
    }
}

/// Address validation tokens prove nothing where the address is a pseudonym: none is made, none opens.
struct NoTokens;

impl HandshakeTokenKey for NoTokens {
    fn aead_from_hkdf(&self, _random: &[u8]) -> Box<dyn AeadKey> {
        Box::new(Self)
    }
}

impl AeadKey for NoTokens {
    fn seal(&self, _data: &mut Vec<u8>, _aad: &[u8]) -> Result<(), CryptoError> {
        Err(CryptoError)
    }

    fn open<'a>(&self, _data: &'a mut [u8], _aad: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        Err(CryptoError)
    }
}
