//! The epoch document: who the nodes are in an epoch, signed by k of n pinned authorities.

pub(crate) mod rules;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::base::encoding::{decode, encode};
use crate::directory::descriptor::verify_all;
use crate::directory::heads;
use crate::{
    ClientDescriptor, Context, DirectoryHead, Epoch, Error, Identity, NodeDescriptor, Parameters,
    Role, SecretIdentity, Signature, Signed,
};

/// What errors call it.
const WHAT: &str = "topology document";
/// Most bytes of a document.
pub const MAX_DOCUMENT_LEN: usize = 4 << 20;
/// Further epochs in which a document may be used: it has their keys.
pub const FURTHER_EPOCHS: u64 = 2;

/// What a user gets with the software: the name of a network and the keys of its authorities.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// Its name; documents of other names are foreign.
    pub name: String,
    /// Keys of the authorities that may sign.
    pub authorities: Vec<Identity>,
    /// Length of an epoch, seconds: epochs are counted from the beginning of Unix time.
    pub epoch_s: u32,
    /// True if it was founded for trial: its clients serve people who are too few to hide each other, and say so. Its
    /// documents say the same, or are refused.
    pub trial: bool,
}

impl Network {
    /// Length of an epoch where nothing else is said: 20 minutes.
    pub const EPOCH_S: u32 = 1_200;

    /// The epoch at this second (Unix time).
    pub fn epoch_at(&self, unix_s: u64) -> Epoch {
        Epoch(unix_s / u64::from(self.epoch_s.max(1)))
    }

    /// When the epoch after the one at this second begins: the soonest for a document that is not there yet. Both in
    /// seconds of Unix time.
    pub fn next_epoch_begins(&self, unix_s: u64) -> u64 {
        self.epoch_at(unix_s).0.saturating_add(1).saturating_mul(u64::from(self.epoch_s.max(1)))
    }

    /// ⌊(n + f) / 2⌋ + 1 signatures make a document, f being ⌊(n − 1) / 3⌋: two documents of one epoch would
    /// need more than f authorities that sign both.
    pub fn threshold(&self) -> usize {
        (self.authorities.len() + self.liars()) / 2 + 1
    }

    /// A short hash of all that everyone must know alike: name, keys of the authorities in any order, length of an epoch,
    /// whether it is for trial. Two people who read it to each other, five groups of four characters (100 bits), have the
    /// same network. Where the authorities listen is no part of it: links prove who answers.
    pub fn fingerprint(&self) -> String {
        let mut authorities = self.authorities.clone();
        authorities.sort_unstable();
        let all = encode(&(&self.name, authorities, self.epoch_s, self.trial));
        let hash = blake3::derive_key("shoal 2026 fingerprint of a network", &all);
        let text = data_encoding::BASE32_NOPAD_NOCASE.encode(&hash).to_ascii_lowercase();
        let groups: Vec<String> =
            text.as_bytes().chunks(4).take(5).map(|g| String::from_utf8_lossy(g).into()).collect();
        groups.join("-")
    }

    /// f = ⌊(n − 1) / 3⌋: so many authorities may lie, and there is one document every epoch. With fewer than four
    /// authorities that is none.
    pub fn liars(&self) -> usize {
        self.authorities.len().saturating_sub(1) / 3
    }
}

/// Says whether clients may draw a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Standing {
    /// Clients draw it.
    #[default]
    Good,
    /// It lost or delayed loops beyond chance, or does not answer: only nodes' loops go through it, which show when it
    /// behaves again.
    Demoted,
}

/// A node as the authorities list it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListedNode {
    /// What it says of itself.
    pub descriptor: Signed<NodeDescriptor>,
    /// Its layer in the document's epoch and in each of the further ones, 1 to L; zero for a gateway.
    pub layers: [u8; 1 + FURTHER_EPOCHS as usize],
    /// Says whether clients may draw it.
    pub standing: Standing,
    /// Mean size of its delay pool, as [`crate::reputation::report::coarse_pool`] writes it; zero if it is not known.
    pub pool: u8,
}

impl ListedNode {
    /// A node in good standing that stays in one layer.
    pub fn new(descriptor: Signed<NodeDescriptor>, layer: u8) -> Self {
        let layers = [layer; 1 + FURTHER_EPOCHS as usize];
        Self { descriptor, layers, standing: Standing::Good, pool: 0 }
    }

    /// Who it is.
    pub fn identity(&self) -> Identity {
        self.descriptor.body().identity
    }
}

/// How the layers were drawn, and what they will be drawn from next.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Draw {
    /// The value that the layers were drawn from.
    pub value: [u8; 32],
    /// Hashes of what the authorities will reveal for the next draw, ordered by authority.
    pub commitments: Vec<(Identity, [u8; 32])>,
}

/// What the authorities agreed on for one epoch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Document {
    /// Name of the network.
    pub network: String,
    /// The epoch that it is for.
    pub epoch: Epoch,
    /// Seconds (Unix time) at which the epoch begins.
    pub begins: u64,
    /// Length of an epoch, seconds.
    pub epoch_s: u32,
    /// Number of the amendment, 0 for the document as agreed on.
    pub amendment: u16,
    /// Rates, delays, limits, classes.
    pub parameters: Parameters,
    /// Nodes, ordered by identity: frames name them by their index here. Amendments change standings alone, so that
    /// indices stay.
    pub nodes: Vec<ListedNode>,
    /// Where the layers come from.
    pub draw: Draw,
    /// Services that everyone may use as exits.
    pub exits: Vec<Signed<ClientDescriptor>>,
    /// Heads of the directories of organisations, ordered by their keys.
    pub heads: Vec<Signed<DirectoryHead>>,
}

impl Document {
    /// Checks everything but signatures of authorities and the clock.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |why: String| Err(Error::Invalid { what: "topology document", why });
        self.parameters.check()?;
        if self.epoch_s == 0 {
            return wrong("an epoch has no length".into());
        }
        if self.nodes.len() >= usize::from(shoal_sphinx::CLIENT_CONTROL) {
            return wrong("it lists more nodes than a frame can name".into());
        }
        if !self.nodes.is_sorted_by(|a, b| a.identity() < b.identity()) {
            return wrong("its nodes are not ordered by identity, or one is listed twice".into());
        }
        verify_all(self.nodes.iter().map(|node| &node.descriptor))?;
        for node in &self.nodes {
            let sound = |layer: &u8| match node.descriptor.body().role {
                Role::Mix => (1..=self.parameters.layers).contains(layer),
                Role::Gateway => *layer == 0,
            };
            let sound = node.layers.iter().all(sound);
            if !sound {
                return wrong("a mix is in no layer, or a gateway in one".into());
            }
            if !self.epochs().all(|epoch| node.descriptor.body().has_key(epoch)) {
                return wrong("a node lacks keys for the epochs of the document".into());
            }
        }
        let mut identities = HashSet::new();
        for exit in &self.exits {
            exit.verify()?;
            if !exit.body().attached.is_empty() {
                return wrong("an exit carries bytes that are for nobody".into());
            }
            if !identities.insert(exit.body().identity) {
                return wrong("an exit is listed twice".into());
            }
        }
        heads::check(&self.heads)?;
        let authorities = self.draw.commitments.iter().map(|(authority, _)| authority);
        if !authorities.is_sorted_by(|a, b| a < b) {
            return wrong("its commitments are not ordered by authority".into());
        }
        self.check_layering()
    }

    /// True if the network was founded for trial.
    pub fn is_trial(&self) -> bool {
        self.parameters.trial
    }

    /// The epochs in which it may be used, its own first.
    pub fn epochs(&self) -> impl Iterator<Item = Epoch> + use<> {
        let own = self.epoch.0;
        (0..=FURTHER_EPOCHS).map(move |n| Epoch(own.saturating_add(n)))
    }

    /// Says whether it may be used at this second (Unix time).
    ///
    /// # Errors
    /// [`Error::Stale`] or [`Error::NotYetValid`].
    pub fn check_time(&self, unix_s: u64) -> Result<(), Error> {
        let error = u64::from(self.parameters.clock_error_s);
        // Early by the error that clocks may have is not early.
        if unix_s.saturating_add(error) < self.begins {
            return Err(Error::NotYetValid { seconds: self.begins - unix_s });
        }
        self.check_stale(unix_s)
    }

    /// A document is made in the epoch before its own; one that comes earlier is none of ours.
    fn check_early(&self, unix_s: u64) -> Result<(), Error> {
        let error = u64::from(self.parameters.clock_error_s) + u64::from(self.epoch_s);
        if unix_s.saturating_add(error) < self.begins {
            return Err(Error::NotYetValid { seconds: self.begins - unix_s });
        }
        Ok(())
    }

    fn check_stale(&self, unix_s: u64) -> Result<(), Error> {
        let length = u64::from(self.epoch_s).saturating_mul(1 + FURTHER_EPOCHS);
        let ends = self.begins.saturating_add(length);
        if unix_s >= ends { Err(Error::Stale { seconds: unix_s - ends }) } else { Ok(()) }
    }

    /// The epoch at this second (Unix time), not earlier than the document's own.
    pub fn epoch_at(&self, unix_s: u64) -> Epoch {
        let passed = unix_s.saturating_sub(self.begins) / u64::from(self.epoch_s.max(1));
        Epoch(self.epoch.0.saturating_add(passed))
    }

    /// The node at an index of the list.
    pub fn node(&self, index: usize) -> Option<&ListedNode> {
        self.nodes.get(index)
    }

    /// The index of a node in the list.
    pub fn index_of(&self, identity: &Identity) -> Option<usize> {
        // `check` has seen that the list is in order.
        self.nodes.binary_search_by(|node| node.identity().cmp(identity)).ok()
    }

    /// The head of an organisation's directory.
    pub fn head(&self, organisation: &Identity) -> Option<&DirectoryHead> {
        self.signed_head(organisation).map(Signed::<DirectoryHead>::body)
    }

    /// The same, with the organisation's signature.
    pub(crate) fn signed_head(&self, organisation: &Identity) -> Option<&Signed<DirectoryHead>> {
        let at = self.heads.binary_search_by(|head| head.body().identity.cmp(organisation)).ok()?;
        self.heads.get(at)
    }

    /// Indices of the gateways in good standing.
    pub fn gateways(&self) -> impl Iterator<Item = usize> + '_ {
        self.in_layer(0)
    }

    /// Indices of the mixes of a layer, 1 to L, in good standing, in the document's own epoch.
    pub fn in_layer(&self, layer: u8) -> impl Iterator<Item = usize> + '_ {
        self.in_layer_at(self.epoch, layer)
    }

    /// Indices of the mixes of a layer, 1 to L, in good standing, in an epoch.
    pub fn in_layer_at(&self, epoch: Epoch, layer: u8) -> impl Iterator<Item = usize> + '_ {
        self.all_in_layer_at(epoch, layer)
            .filter(|index| self.node(*index).is_some_and(|node| node.standing == Standing::Good))
    }

    /// Indices of all mixes of a layer in an epoch, whatever their standing.
    pub fn all_in_layer_at(&self, epoch: Epoch, layer: u8) -> impl Iterator<Item = usize> + '_ {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(move |(_, node)| self.layer_at(node, epoch) == layer).map(|(index, _)| index)
    }

    /// The layer of a node of the list in an epoch: of the nearest that the document has.
    pub fn layer_at(&self, node: &ListedNode, epoch: Epoch) -> u8 {
        // An epoch before the document's own counts as its own: loops and frames of it are still under way.
        let further = epoch.0.saturating_sub(self.epoch.0).min(FURTHER_EPOCHS);
        node.layers.iter().copied().nth(further as usize).unwrap_or_default()
    }

    /// How long after the end of an epoch its keys open packets: as long as one may be under way, and clocks apart.
    pub fn key_grace(&self) -> std::time::Duration {
        self.parameters.key_grace()
    }

    /// How long before the beginning of an epoch SURBs for it are given out: 60 s, or a quarter of an epoch if that is less.
    pub fn surb_lead(&self) -> std::time::Duration {
        let epoch = std::time::Duration::from_secs(self.epoch_s.into());
        (epoch / 4).min(std::time::Duration::from_secs(60))
    }

    /// How long after the beginning of an epoch gateways still give clients what travels in the one before: 10 s and how far
    /// clocks may be apart, or an eighth of an epoch if that is less. What a client sent before the beginning is there by
    /// then, also if its clock is slow.
    pub fn turn_grace(&self) -> std::time::Duration {
        let epoch = std::time::Duration::from_secs(self.epoch_s.into());
        let error = std::time::Duration::from_secs(self.parameters.clock_error_s.into());
        (epoch / 8).min(std::time::Duration::from_secs(10) + error)
    }
}

/// A document with signatures of authorities.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SignedDocument {
    body: Vec<u8>,
    signatures: Vec<(Identity, Signature)>,
}

impl SignedDocument {
    /// Signs a document that was checked.
    pub fn new<'a>(
        document: &Document,
        authorities: impl IntoIterator<Item = &'a SecretIdentity>,
    ) -> Self {
        Self::of_body(encode(document), authorities)
    }

    /// Signs bytes that may be a document or not: for tests of whoever reads.
    pub fn of_body<'a>(
        body: Vec<u8>,
        authorities: impl IntoIterator<Item = &'a SecretIdentity>,
    ) -> Self {
        let (epoch, amendment) = head(&body).unwrap_or((Epoch(0), 0));
        let hash = *blake3::hash(&body).as_bytes();
        let sign = |secret: &SecretIdentity| Self::sign(secret, (epoch, amendment, &hash));
        let signatures = authorities.into_iter().map(|secret| (secret.identity(), sign(secret)));
        Self { signatures: signatures.collect(), body }
    }

    /// What an authority signs is epoch, amendment and hash of a body, and not the body: so a signature can be checked
    /// before the body is known, and two of one epoch and amendment prove a lie by themselves.
    pub(crate) fn sign(secret: &SecretIdentity, of: (Epoch, u16, &[u8; 32])) -> Signature {
        secret.sign(Context::Document, &encode(&of))
    }

    /// Says whether an authority signed a body of this epoch, amendment and hash.
    pub(crate) fn holds(
        authority: &Identity,
        of: (Epoch, u16, &[u8; 32]),
        signature: &Signature,
    ) -> bool {
        authority.verify(Context::Document, &encode(&of), signature)
    }

    /// Epoch and amendment that signed bytes claim, and the hash of their body; nothing is checked.
    pub(crate) fn claim(bytes: &[u8]) -> Option<(Epoch, u16, [u8; 32])> {
        let signed: Self = decode(WHAT, bytes, MAX_DOCUMENT_LEN).ok()?;
        let (epoch, amendment) = head(&signed.body)?;
        Some((epoch, amendment, *blake3::hash(&signed.body).as_bytes()))
    }

    /// A signed document of these bytes and signatures, which are not checked.
    pub(crate) fn from_parts(body: Vec<u8>, signatures: Vec<(Identity, Signature)>) -> Self {
        Self { body, signatures }
    }

    /// The canonical bytes: what is sent, and what hashes are taken of.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what somebody signed, without checking who: for whoever wants to look at it.
    ///
    /// # Errors
    /// Bytes of another form.
    pub fn peek(bytes: &[u8]) -> Result<(Document, Vec<Identity>), Error> {
        let signed: Self = decode(WHAT, bytes, MAX_DOCUMENT_LEN)?;
        let document = decode(WHAT, &signed.body, MAX_DOCUMENT_LEN)?;
        Ok((document, signed.signatures.into_iter().map(|(authority, _)| authority).collect()))
    }

    /// Reads a document, and checks all of it: form, signatures of at least k different pinned authorities, the
    /// descriptors inside, the rules, the clock.
    ///
    /// # Errors
    /// The first thing that is wrong, in words for the user.
    pub fn verify(bytes: &[u8], network: &Network, unix_s: u64) -> Result<Document, Error> {
        let document = Self::verify_signatures(bytes, network)?;
        document.check_early(unix_s)?;
        document.check_stale(unix_s)?;
        document.check()?;
        Ok(document)
    }

    /// Reads a document of a network that enough authorities signed, whatever it says.
    pub(crate) fn verify_signatures(bytes: &[u8], network: &Network) -> Result<Document, Error> {
        let signed: Self = decode(WHAT, bytes, MAX_DOCUMENT_LEN)?;
        // The head alone, for that is what was signed beside the hash. The rest is read only when enough authorities
        // answer for it.
        let (epoch, amendment) = head(&signed.body).ok_or(Error::Malformed { what: WHAT })?;
        let hash = *blake3::hash(&signed.body).as_bytes();
        let mut answered: HashMap<Identity, bool> = HashMap::new();
        // Bounded, since whoever sends a document can add signatures to it without end, and each costs a
        // verification.
        for (authority, signature) in signed.signatures.iter().take(4 * network.authorities.len()) {
            if network.authorities.contains(authority) {
                let valid = Self::holds(authority, (epoch, amendment, &hash), signature);
                // A wrong signature beside a right one takes nothing from it: else anybody could spoil a document by
                // adding one.
                *answered.entry(*authority).or_default() |= valid;
            }
        }
        let valid = answered.values().filter(|valid| **valid).count();
        if valid < network.threshold() {
            return Err(Error::TooFewSignatures {
                valid,
                needed: network.threshold(),
                of: network.authorities.len(),
            });
        }
        let document: Document = decode(WHAT, &signed.body, MAX_DOCUMENT_LEN)?;
        if document.network != network.name {
            return Err(Error::ForeignNetwork {
                expected: network.name.clone(),
                found: document.network,
            });
        }
        // Last, when it is known to be the network's: the sentence tells the user which of both to doubt.
        if document.is_trial() != network.trial {
            return Err(Error::OtherPurpose { document: document.is_trial() });
        }
        Ok(document)
    }
}

/// Epoch and amendment of the bytes of a document.
fn head(body: &[u8]) -> Option<(Epoch, u16)> {
    let head = postcard::take_from_bytes::<(&str, Epoch, u64, u32, u16)>(body);
    head.ok().map(|((_, epoch, _, _, amendment), _)| (epoch, amendment))
}
