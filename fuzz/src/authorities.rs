//! What others send to an authority: votes, reports, and everything else in any order.

use std::collections::{BTreeMap, VecDeque};

use shoal_topology::consensus::{Authority, AuthorityInput, AuthorityOutput, AuthoritySettings};
use shoal_topology::reputation::Reputation;
use shoal_topology::reputation::report::{LinkCount, Report, SignedReport};
use shoal_topology::{
    Context, Epoch, Identity, Network, Parameters, SecretIdentity, Seed, testing,
};

use crate::fixtures::{self, NETWORK};

pub(crate) const AUTHORITIES: u8 = 4;
pub(crate) const EPOCH_S: u32 = 10;
/// The beginning of an epoch, milliseconds of Unix time.
pub(crate) const BEGINS: u64 = 1_000 * fixtures::NOW;
/// Most bytes that an authority may keep on its disk here: what it is told is bounded, whatever it is.
const STATE: usize = 1 << 20;

pub(crate) fn secret(n: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[210 + n; 32])
}

pub(crate) fn network() -> Network {
    let authorities = (0..AUTHORITIES).map(|n| secret(n).identity()).collect();
    Network { name: "fuzz".into(), authorities, epoch_s: EPOCH_S, trial: false }
}

fn described() -> impl Iterator<Item = Vec<u8>> {
    NETWORK.nodes.iter().map(|node| node.sign().encode())
}

/// An authority that knows all nodes.
pub(crate) fn authority(n: u8, now: u64) -> Authority {
    let settings = AuthoritySettings {
        network: network(),
        secret: secret(n),
        epoch_s: EPOCH_S,
        parameters: vec![(
            Epoch(0),
            Parameters { min_mixes_per_layer: 1, ..Parameters::default() },
        )],
        allowed: NETWORK.nodes.iter().map(testing::TestNode::identity).collect(),
        allowed_exits: NETWORK.exits.iter().map(|exit| exit.body.identity).collect(),
        allowed_organisations: vec![(secret(0).identity(), "acme".into())],
        seed: Seed::from_u64(n.into()),
    };
    let mut authority = Authority::new(settings, Box::new(Reputation::new()), None);
    authority.handle(now, AuthorityInput::Wake);
    described()
        .for_each(|descriptor| authority.handle(now, AuthorityInput::Descriptor(descriptor)));
    authority
}

/// What an authority did, and that it kept its promises.
#[derive(Default)]
struct Watched {
    sent: Vec<(Identity, Vec<u8>)>,
    /// What it signed, by what the word says of it: epoch and amendment.
    signed: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A word between authorities starts with its kind, and a signature goes on with epoch, amendment and hash.
const RELAY: u8 = 0;
const SIGNATURE: u8 = 1;

impl Watched {
    fn watch(&mut self, authority: &mut Authority, now: u64) {
        let mut stored = VecDeque::new();
        loop {
            while let Some(output) = authority.poll_output() {
                match output {
                    AuthorityOutput::Send { to, bytes } => {
                        self.signature(&bytes);
                        self.sent.push((to, bytes));
                    }
                    AuthorityOutput::Store { ticket, state } => {
                        assert!(state.len() < STATE, "the state grows: {}", state.len());
                        stored.push_back(ticket);
                    }
                    AuthorityOutput::Evidence(_)
                    | AuthorityOutput::Document(_)
                    | AuthorityOutput::Liar { .. }
                    | AuthorityOutput::Event(_) => {}
                }
            }
            match stored.pop_front() {
                Some(ticket) => authority.handle(now, AuthorityInput::Stored(ticket)),
                None => break,
            }
        }
    }

    fn signature(&mut self, bytes: &[u8]) {
        let Some((&SIGNATURE, rest)) = bytes.split_first() else { return };
        let Ok((of, rest)) = postcard::take_from_bytes::<(Epoch, u16)>(rest) else { return };
        let key = postcard::to_stdvec(&of).unwrap_or_default();
        let hash = rest.iter().take(32).copied().collect::<Vec<u8>>();
        let before = self.signed.entry(key).or_insert_with(|| hash.clone());
        assert!(*before == hash, "two bodies of one epoch and amendment are signed");
    }
}

/// The votes of all authorities for the document of the next epoch, and when they are sent.
pub(crate) fn votes() -> (u64, Vec<Vec<u8>>) {
    let mut main = 0;
    let votes = (0..AUTHORITIES).map(|n| {
        let mut authority = authority(n, BEGINS);
        let schedule = *authority.schedule();
        main = BEGINS + u64::from(schedule.main()) * schedule.session_ms();
        let mut watched = Watched::default();
        watched.watch(&mut authority, BEGINS);
        watched.sent.clear();
        authority.handle(main, AuthorityInput::Wake);
        watched.watch(&mut authority, main);
        let relay = watched.sent.into_iter().find(|(_, bytes)| bytes.first() == Some(&RELAY));
        let (_, relay) = relay.expect("an authority votes when the session begins");
        let (_, vote, _) =
            postcard::from_bytes::<(u8, Vec<u8>, Vec<(Identity, shoal_topology::Signature)>)>(
                &relay,
            )
            .expect("a vote with its signature");
        vote
    });
    let votes = votes.collect();
    (main, votes)
}

/// A vote as its author sends it.
pub(crate) fn signed(n: u8, vote: &[u8]) -> Vec<u8> {
    let signature = secret(n).sign(Context::Vote, vote);
    postcard::to_stdvec(&(RELAY, vote, [(secret(n).identity(), signature)]))
        .expect("bytes and a signature have an encoding")
}

/// A vote of one authority, well signed, whatever it says: the honest others vote, and the session comes to its end.
pub fn vote(data: &[u8]) {
    let (main, honest) = votes();
    let (mut authority, mut watched) = (authority(0, BEGINS), Watched::default());
    watched.watch(&mut authority, BEGINS);
    authority.handle(main, AuthorityInput::Wake);
    watched.watch(&mut authority, main);
    let from = |n: u8| secret(n).identity();
    for (n, vote) in (1u8..).zip(honest.iter().skip(1)) {
        let bytes = if n == 1 { signed(1, data) } else { signed(n, vote) };
        authority.handle(main + 100, AuthorityInput::Message { from: from(n), bytes });
    }
    // The bytes themselves too, without a signature, and as what they might be besides.
    authority.handle(main + 100, AuthorityInput::Message { from: from(1), bytes: data.to_vec() });
    let schedule = *authority.schedule();
    let end = main + schedule.session_ms();
    for at in [main + 100, end - 1, end, end + schedule.session_ms()] {
        authority.handle(at, AuthorityInput::Wake);
        watched.watch(&mut authority, at);
    }
    assert!(watched.signed.len() <= 2, "a session makes a document, or none");
}

/// A report of a node, well signed, whatever it says: it is judged.
pub fn report(data: &[u8]) {
    if let Ok(report) = SignedReport::decode(data) {
        assert!(report.encode() == data, "a report has one form");
    }
    let document = NETWORK.document();
    let mut reputation = Reputation::new();
    // Each part is a report, of any node.
    let mut rest = data;
    for _ in 0..8 {
        let Ok((report, more)) = postcard::take_from_bytes::<Report>(rest) else { break };
        rest = more;
        let node = NETWORK.nodes.iter().find(|node| node.identity() == report.node);
        let Some(node) = node else { continue };
        let bytes = SignedReport::new(report, &node.secret_identity()).encode();
        if let Ok(report) = SignedReport::decode(&bytes) {
            reputation.report(&document, report.body());
            let judged = reputation.judge(&document);
            let listed = |who: &Identity| document.index_of(who).is_some();
            assert!(
                judged.demote.iter().all(listed) && judged.pools.iter().all(|(who, _)| listed(who))
            );
        }
    }
    let kept = reputation.encode();
    assert!(
        Reputation::decode(&kept).is_ok_and(|again| again.encode() == kept),
        "it outlives a restart"
    );
    if let Ok(reputation) = Reputation::decode(data) {
        assert!(reputation.encode() == data, "evidence has one form");
    }
}

/// Everything, in any order: kind 1, time 1 (fifths of a second), length 2, bytes; and again.
pub fn inputs(data: &[u8]) {
    let mut now = BEGINS;
    let (mut authority, mut watched) = (authority(0, now), Watched::default());
    let mut rest = data;
    while let [kind, later, a, b, more @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*a, *b])).min(more.len());
        let (bytes, after) = more.split_at(length);
        (rest, now) = (after, now + 200 * u64::from(*later));
        let from = secret(kind % AUTHORITIES).identity();
        let bytes = bytes.to_vec();
        let input = match kind / AUTHORITIES {
            0 => AuthorityInput::Message { from, bytes },
            1 => AuthorityInput::Message { from, bytes: signed(kind % AUTHORITIES, &bytes) },
            2 => AuthorityInput::Descriptor(bytes),
            3 => AuthorityInput::Exit(bytes),
            4 => AuthorityInput::Report(bytes),
            5 => AuthorityInput::Document(bytes),
            6 => AuthorityInput::Head(bytes),
            _ => AuthorityInput::Wake,
        };
        authority.handle(now, input);
        watched.watch(&mut authority, now);
    }
    let documents = authority.documents().iter().count();
    assert!(documents < 64, "documents are bounded: {documents}");
}

/// Inputs that a target of this module accepts: the seeds of its corpus.
pub(crate) fn of(target: &str) -> Vec<Vec<u8>> {
    let (main, votes) = votes();
    let reports = NETWORK.nodes.iter().zip(0..).map(|(node, lost)| {
        let links = (2..8).map(|to| LinkCount { from: 0, to, sent: 40, lost });
        let links = links.collect();
        (node, Report { node: node.identity(), epoch: NETWORK.epoch, part: 0, links, pool: 9 })
    });
    match target {
        "votes" => votes,
        "reports" => {
            let bodies = reports.clone().filter_map(|(_, body)| postcard::to_stdvec(&body).ok());
            let bodies: Vec<Vec<u8>> = bodies.collect();
            let sign = |(node, report): (&testing::TestNode, Report)| {
                SignedReport::new(report, &node.secret_identity()).encode()
            };
            let signed = reports.map(sign);
            bodies.concat().chunks(4_096).map(<[u8]>::to_vec).chain(signed).collect()
        }
        _ => {
            let part = |kind: u8, later: u8, bytes: &[u8]| {
                let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
                [&[kind, later], length.to_le_bytes().as_slice(), bytes].concat()
            };
            let to_main = u8::try_from((main - BEGINS) / 200).unwrap_or(u8::MAX);
            let votes =
                (1u8..).zip(votes.iter().skip(1)).map(|(n, vote)| part(AUTHORITIES + n, 0, vote));
            let session = [
                part(6 * AUTHORITIES, to_main, &[]),
                votes.collect::<Vec<_>>().concat(),
                part(255, 20, &[]),
            ]
            .concat();
            let nodes = described().take(3).map(|node| part(2 * AUTHORITIES, 1, &node));
            vec![session, nodes.collect::<Vec<_>>().concat(), part(255, 50, &[]).repeat(4)]
        }
    }
}
