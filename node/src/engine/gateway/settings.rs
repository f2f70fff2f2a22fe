//! What a gateway is told when it starts: whom it lets in, and how much of everything it has.

use shoal_topology::Identity;

/// By which an inbox is known outside of the engine: a keyed hash of its address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(test, derive(Debug))]
pub struct InboxId(pub [u8; 16]);

impl InboxId {
    /// That of this inbox, under this key.
    pub fn new(inbox_key: &[u8; 32], inbox: &Identity) -> Self {
        let hash = blake3::keyed_hash(inbox_key, &inbox.0);
        Self(hash.as_bytes().first_chunk().copied().unwrap_or_default())
    }
}

/// Whom a gateway lets in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Everyone as a person, and as a service whoever shows one of these.
    Open(Vec<Token>),
    /// Those who show one of these.
    Tokens(Vec<Token>),
}

/// An admission token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What the client shows.
    pub secret: Vec<u8>,
    /// Connections at a time.
    pub connections: usize,
    /// Says whether its bearer may be a service.
    pub service: ServiceAccess,
}

impl Token {
    /// True if anybody may come in with it.
    pub(super) fn is_valid(&self) -> bool {
        self.connections > 0
    }
}

/// Without content: a token is as good as its bearer.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Says whether the bearer of a token may answer at once, without slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServiceAccess {
    /// The bearer may.
    Allowed,
    /// The bearer must be a person, with slots.
    Refused,
}

/// What a gateway is told when it starts.
#[derive(Clone)]
pub struct GatewaySettings {
    /// Whom it lets in.
    pub admission: Admission,
    /// Clients at a time, in all.
    pub max_clients: usize,
    /// Clients at a time from one network, beside those with a token: where many share an address, so many get in.
    pub max_clients_of_one: usize,
    /// Of `max_clients`, those that only bearers of tokens can be: no more than these have connections.
    pub token_clients: usize,
    /// Packets a second, in each direction, of a service.
    pub service_per_s: f64,
    /// Descriptor queries that are answered a second, in all.
    pub queries_per_s: f64,
    /// Says whether it keeps packets for clients that are away.
    pub inbox: Keeping,
    /// Inboxes that it knows at most; one more takes the place of one whose client is away, of whoever has most.
    pub max_inboxes: usize,
    /// Packets in all inboxes together; one more takes the place of one of whoever has most.
    pub max_inbox_packets: usize,
    /// The key of the hashes by which inboxes are known outside of the engine; see [`InboxId`].
    pub inbox_key: [u8; 32],
}

/// Says whether packets for absent clients are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeping {
    /// Packets wait until their client is back, or their time is over.
    On,
    /// Packets for clients that are away are dropped.
    Off,
}

impl Admission {
    /// Everyone, as a person or a service: for networks without strangers.
    pub fn anyone() -> Self {
        let connections = usize::MAX;
        Self::Open(vec![Token { secret: Vec::new(), connections, service: ServiceAccess::Allowed }])
    }

    pub(super) fn tokens(&self) -> &[Token] {
        match self {
            Self::Open(tokens) | Self::Tokens(tokens) => tokens,
        }
    }
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            admission: Admission::Open(Vec::new()),
            max_clients: 1_000,
            max_clients_of_one: 250,
            token_clients: 100,
            service_per_s: 2_000.0,
            queries_per_s: 1_000.0,
            inbox: Keeping::On,
            max_inboxes: 100_000,
            max_inbox_packets: 100_000,
            inbox_key: [0; 32],
        }
    }
}
