//! One of four authorities says what the input says, whenever it says: the three others make the next document all the same.

use std::collections::BTreeMap;

use shoal_topology::consensus::{Authority, AuthorityInput, AuthorityOutput};
use shoal_topology::{Context, Epoch, Identity, SignedDocument};

use crate::authorities::{AUTHORITIES, BEGINS, EPOCH_S, authority, network, secret, signed};

/// The honest ones; the liar comes after them.
const HONEST: u8 = AUTHORITIES - 1;
/// Milliseconds that a message takes.
const LINK: u64 = 20;
/// Most words of an input, and milliseconds in which they are said.
const MOST_WORDS: u32 = 3_000;
const MOST_MS: u64 = 35_000;

/// The honest authorities, and what is under way.
struct World {
    now: u64,
    authorities: Vec<Authority>,
    under_way: BTreeMap<(u64, u64), (usize, Identity, Vec<u8>)>,
    sent: u64,
    /// Documents that each published.
    documents: Vec<BTreeMap<Epoch, Vec<u8>>>,
}

impl World {
    fn new() -> Self {
        let authorities = (0..HONEST).map(|n| authority(n, BEGINS)).collect();
        let documents = vec![BTreeMap::new(); usize::from(HONEST)];
        let mut world =
            Self { now: BEGINS, authorities, under_way: BTreeMap::new(), sent: 0, documents };
        (0..usize::from(HONEST)).for_each(|n| world.handle(n, AuthorityInput::Wake));
        world
    }

    fn handle(&mut self, n: usize, input: AuthorityInput) {
        let Some(authority) = self.authorities.get_mut(n) else { return };
        authority.handle(self.now, input);
        let mut liars = 0;
        while let Some(output) = authority.poll_output() {
            match output {
                AuthorityOutput::Send { to, bytes } => {
                    let to = (0..HONEST).position(|n| secret(n).identity() == to);
                    let from = u8::try_from(n).map(|n| secret(n).identity());
                    if let (Some(to), Ok(from)) = (to, from) {
                        self.sent += 1;
                        self.under_way.insert((self.now + LINK, self.sent), (to, from, bytes));
                    }
                }
                AuthorityOutput::Store { ticket, .. } => {
                    authority.handle(self.now, AuthorityInput::Stored(ticket))
                }
                AuthorityOutput::Document(held) => {
                    let body = SignedDocument::peek(&held.signed).expect("it was verified").0;
                    let body = postcard::to_stdvec(&body).expect("documents have an encoding");
                    if let Some(documents) = self.documents.get_mut(n) {
                        documents.insert(held.document.epoch, body);
                    }
                }
                AuthorityOutput::Liar { authority, proof } => {
                    liars += 1;
                    let proven = proof.verify(&network());
                    assert!(proven == Ok(authority), "a proof proves what it says");
                    assert!(authority == secret(HONEST).identity(), "an honest one is accused");
                }
                AuthorityOutput::Evidence(_) | AuthorityOutput::Event(_) => {}
            }
        }
        assert!(liars < 4, "each kind of lie is shown once");
        let status = authority.status();
        let liar = secret(HONEST).identity().to_string();
        assert!(status.faults.keys().all(|name| *name == liar), "an honest one is named");
    }

    fn run(&mut self, until: u64) {
        loop {
            let wakes = self.authorities.iter().enumerate();
            let wake = wakes.filter_map(|(n, one)| Some((one.next_wake()?.max(self.now), n))).min();
            let message = self.under_way.first_key_value().map(|((at, _), _)| *at);
            let next = wake.map(|(at, _)| at).into_iter().chain(message).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            if message.is_some_and(|at| at <= next) {
                if let Some((_, (to, from, bytes))) = self.under_way.pop_first() {
                    self.handle(to, AuthorityInput::Message { from, bytes });
                }
            } else if let Some((_, n)) = wake {
                self.handle(n, AuthorityInput::Wake);
            }
        }
        self.now = until;
    }
}

/// What a part of the input makes the liar say.
fn word(kind: u8, now: u64, bytes: &[u8]) -> AuthorityInput {
    let liar = secret(HONEST);
    let from = liar.identity();
    let message = |bytes| AuthorityInput::Message { from, bytes };
    match kind % 9 {
        0 => message(bytes.to_vec()),
        1 => message(signed(HONEST, bytes)),
        2 => {
            // A signature that holds, near the present.
            let of = |at: usize| bytes.get(at).copied().unwrap_or_default();
            let present = now / 1_000 / u64::from(EPOCH_S);
            let epoch = Epoch((present + u64::from(of(0) % 4)).saturating_sub(1));
            let (amendment, hash) = (u16::from(of(1) % 4), [of(2); 32]);
            let body = postcard::to_stdvec(&(epoch, amendment, &hash));
            let signature = liar.sign(Context::Document, &body.unwrap_or_default());
            let word = (1_u8, epoch, amendment, hash, signature);
            message(postcard::to_stdvec(&word).unwrap_or_default())
        }
        3 => {
            let document = SignedDocument::of_body(bytes.to_vec(), [&liar]).encode();
            message(postcard::to_stdvec(&(2_u8, document)).unwrap_or_default())
        }
        4 => AuthorityInput::Descriptor(bytes.to_vec()),
        5 => AuthorityInput::Exit(bytes.to_vec()),
        6 => AuthorityInput::Report(bytes.to_vec()),
        7 => AuthorityInput::Head(bytes.to_vec()),
        _ => AuthorityInput::Document(bytes.to_vec()),
    }
}

/// Words of the liar: kind 1, time 1 (fortieths of a second), who hears it 1, how often 1, length 2, bytes; and again. Then two
/// epochs pass.
pub fn liveness(data: &[u8]) {
    let mut world = World::new();
    let (mut rest, mut words) = (data, 0);
    while let [kind, later, ears, times, a, b, more @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*a, *b])).min(more.len());
        let (bytes, after) = more.split_at(length);
        rest = after;
        words += u32::from(*times) + 1;
        if words > MOST_WORDS || world.now > BEGINS + MOST_MS {
            break;
        }
        world.run(world.now + 25 * u64::from(*later));
        for n in (0..usize::from(HONEST)).filter(|n| ears & (1 << n) == 0) {
            for _ in 0..=*times {
                world.handle(n, word(*kind, world.now, bytes));
            }
        }
    }
    let epoch_ms = 1_000 * u64::from(EPOCH_S);
    let end = (world.now / epoch_ms + 2) * epoch_ms;
    world.run(end);
    let last = end / epoch_ms;
    // The first is made in the first epoch.
    for epoch in (BEGINS / epoch_ms + 1..=last).map(Epoch) {
        let made: Vec<Option<&Vec<u8>>> =
            world.documents.iter().map(|documents| documents.get(&epoch)).collect();
        assert!(made.iter().all(Option::is_some), "no document of epoch {epoch:?}");
        let same = made.iter().all(|one| Some(one) == made.first());
        assert!(same, "two documents of {epoch:?}");
    }
}

/// Votes, signatures, documents, floods.
pub(crate) fn seeds(votes: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let part = |kind: u8, later: u8, ears: u8, times: u8, bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes();
        [&[kind, later, ears, times], length.as_slice(), bytes].concat()
    };
    let own = votes.last().cloned().unwrap_or_default();
    let others = votes.first().cloned().unwrap_or_default();
    vec![
        // Its vote in the middle of the epoch, and another one to one alone.
        [part(1, 202, 0, 0, &own), part(1, 0, 6, 0, own.get(..own.len() / 2).unwrap_or_default())]
            .concat(),
        [part(1, 202, 3, 0, &own), part(1, 10, 0, 3, &others)].concat(),
        // Signatures of what nobody made, before others sign and after.
        (0..20).flat_map(|n| part(2, 12, 0, 20, &[n % 4, n % 3, n])).collect(),
        (0..6)
            .flat_map(|n| part(3, 40, n, 9, own.get(usize::from(n)..).unwrap_or_default()))
            .collect(),
        (0..8)
            .flat_map(|n| part(n, 60, 0, 40, own.get(..usize::from(n)).unwrap_or_default()))
            .collect(),
    ]
}
