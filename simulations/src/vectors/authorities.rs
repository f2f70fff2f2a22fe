//! A session of four authorities, as they say it to each other, and proofs that one lied.

use std::collections::VecDeque;

use anyhow::Context as _;
use serde_json::{Value, json};
use shoal_topology::consensus::{
    Authority, AuthorityInput, AuthorityOutput, AuthoritySettings, Basis, PeerMessage, Proof,
    Proposal, SessionId, SignedVote, Vote,
};
use shoal_topology::reputation::Reputation;
use shoal_topology::reputation::report::{LinkCount, Report, SignedReport};
use shoal_topology::wire::authorities::{FromAuthority, ToAuthority};
use shoal_topology::{Context, Epoch, Identity, Seed, Signature, VerifiedDocument};

use super::directory::{
    EPOCH, EPOCH_S, NODES, client_descriptor, network, network_value, node_descriptor, parameters,
};
use super::organisation::head_update;
use super::{hex, said, secret};

const AUTHORITIES: u8 = 4;

fn authority(n: u8) -> Authority {
    let settings = AuthoritySettings {
        network: network(),
        secret: secret(200 + n),
        epoch_s: EPOCH_S,
        parameters: vec![(Epoch(0), parameters())],
        allowed: (0..NODES).map(|n| secret(100 + n).identity()).collect(),
        allowed_exits: vec![secret(150).identity()],
        allowed_organisations: vec![(secret(160).identity(), "acme".into())],
        seed: Seed::from_u64(n.into()),
    };
    Authority::new(settings, Box::new(Reputation::new()), None)
}

/// What one authority said to another.
struct SentMessage {
    at: u64,
    from: Identity,
    to: Identity,
    bytes: Vec<u8>,
}

/// A session that makes the document of [`EPOCH`]: all that was said, in order, and the document. Messages take 20 ms.
fn session() -> anyhow::Result<(Vec<SentMessage>, VerifiedDocument)> {
    let mut authorities: Vec<Authority> = (0..AUTHORITIES).map(authority).collect();
    let identities: Vec<Identity> = network().authorities;
    let schedule = *authorities.first().context("an authority")?.schedule();
    let mut now = schedule.begins(Epoch(EPOCH.0 - 1));
    let end = schedule.begins(EPOCH);
    let mut said: Vec<SentMessage> = Vec::new();
    let (mut way, mut made) = (VecDeque::<SentMessage>::new(), None);
    let head = head_update()?;
    for authority in &mut authorities {
        authority.handle(now, AuthorityInput::Wake);
        (0..NODES).for_each(|n| {
            authority.handle(now, AuthorityInput::Descriptor(node_descriptor(n).encode()));
        });
        authority.handle(now, AuthorityInput::Exit(client_descriptor().encode()));
        authority.handle(now, AuthorityInput::Head(head.encode()));
    }
    while now < end && made.is_none() {
        for (authority, from) in authorities.iter_mut().zip(&identities) {
            while let Some(output) = authority.poll_output() {
                match output {
                    AuthorityOutput::Send { to, bytes } => {
                        way.push_back(SentMessage { at: now, from: *from, to, bytes });
                    }
                    AuthorityOutput::Store { ticket, .. } => {
                        authority.handle(now, AuthorityInput::Stored(ticket))
                    }
                    AuthorityOutput::Document(held) => made = Some(held),
                    AuthorityOutput::Evidence(_)
                    | AuthorityOutput::Liar { .. }
                    | AuthorityOutput::Event(_) => {}
                }
            }
        }
        let wakes = authorities.iter().filter_map(Authority::next_wake);
        let arrives = way.front().map(|sent| sent.at + 20);
        now = wakes.chain(arrives).min().unwrap_or(end).max(now);
        while way.front().is_some_and(|sent| sent.at + 20 <= now) {
            let Some(sent) = way.pop_front() else { break };
            let to = identities.iter().position(|identity| *identity == sent.to);
            if let Some(authority) = to.and_then(|to| authorities.get_mut(to)) {
                let input = AuthorityInput::Message { from: sent.from, bytes: sent.bytes.clone() };
                authority.handle(now, input);
            }
            said.push(sent);
        }
        authorities.iter_mut().for_each(|authority| authority.handle(now, AuthorityInput::Wake));
    }
    Ok((said, made.context("the session makes no document")?))
}

/// The votes of the session, each by its author alone.
fn own_votes(said: &[SentMessage]) -> Vec<SignedVote> {
    let mut votes: Vec<SignedVote> = Vec::new();
    for sent in said {
        if let Ok(PeerMessage::Vote(vote)) = PeerMessage::decode(&sent.bytes)
            && vote.signatures.len() == 1
            && !votes.contains(&vote)
        {
            votes.push(vote);
        }
    }
    votes
}

pub(super) fn votes() -> anyhow::Result<Value> {
    let (sent, held) = session()?;
    let mut votes = Vec::new();
    for vote in own_votes(&sent) {
        let of = vote.verify(&network().authorities)?;
        votes.push(json!({ "value": said(&of)?, "bytes": hex(&vote.vote) }));
    }
    // One message of each kind to each number of signatures.
    let mut messages: Vec<Value> = Vec::new();
    let mut seen: Vec<(u8, usize)> = Vec::new();
    for SentMessage { bytes, .. } in &sent {
        let word = PeerMessage::decode(bytes)?;
        let (kind, name, signatures) = match &word {
            PeerMessage::Vote(vote) => (0, "Vote", vote.signatures.len()),
            PeerMessage::Signature { .. } => (1, "Signature", 1),
            PeerMessage::Certified(_) => (2, "Certified", 0),
            PeerMessage::Ask => (3, "Ask", 0),
        };
        if !seen.contains(&(kind, signatures)) {
            seen.push((kind, signatures));
            messages.push(json!({ "type": name, "signatures": signatures, "bytes": hex(bytes) }));
        }
    }
    let report = {
        let links = vec![LinkCount { from: 0, to: 2, sent: 5, lost: 1 }];
        let node = secret(102);
        SignedReport::new(
            Report { node: node.identity(), epoch: EPOCH, part: 0, links, pool: 9 },
            &node,
        )
    };
    let to = [
        ("Descriptor", ToAuthority::Descriptor(node_descriptor(2).encode())),
        ("Exit", ToAuthority::Exit(client_descriptor().encode())),
        ("Head", ToAuthority::Head(head_update()?.encode())),
        ("Report", ToAuthority::Report(report.encode())),
        ("Peer", ToAuthority::Peer(PeerMessage::Ask.encode())),
    ];
    let to = to.map(|(name, message)| json!({ "type": name, "bytes": hex(message.encode()) }));
    Ok(json!({
        "session": { "epoch": EPOCH.0 - 1, "liars": network().liars() },
        "network": network_value(&network()),
        "votes": votes,
        "between_authorities": messages,
        "to_authority": to,
        "from_authority": [{
            "type": "Document", "bytes": hex(FromAuthority::Document(held.signed.to_vec()).encode()),
        }],
        "document": { "value": said(&*held.document)?, "signed": hex(&held.signed) },
    }))
}

/// A vote as its author signs it.
fn signed(vote: &Vote) -> SignedVote {
    SignedVote::of(vote, &secret(200))
}

/// The hash of the body that the authorities of a session signed.
fn hash_of_body(sent: &[SentMessage]) -> Option<[u8; 32]> {
    sent.iter().find_map(|sent| match PeerMessage::decode(&sent.bytes) {
        Ok(PeerMessage::Signature { hash, .. }) => Some(hash),
        _ => None,
    })
}

pub(super) fn proofs() -> anyhow::Result<Value> {
    let (sent, held) = session()?;
    let liar = secret(200).identity();
    let votes = own_votes(&sent);
    let verified = votes.iter().map(|vote| vote.verify(&network().authorities));
    let votes = verified.collect::<Result<Vec<Vote>, _>>()?;
    let vote = votes.into_iter().find(|vote| vote.author == liar).context("a vote")?;
    let proposal = vote.proposal.clone().context("a proposal")?;
    let with = |proposal: Proposal| Vote { proposal: Some(proposal), ..vote.clone() };

    let changed = Vote { demote: vec![secret(103).identity()], ..vote.clone() };
    let nodes = proposal.nodes.iter().rev().cloned().collect();
    let out_of_order = with(Proposal { nodes, ..proposal.clone() });
    let hash = hash_of_body(&sent).context("a signature")?;
    let basis = Some(Basis { epoch: EPOCH, amendment: 0, hash });
    let reveal = Some([0x77; 32]);
    // In the next session that makes a document, which this one is the basis of.
    let session = SessionId { epoch: EPOCH, ..vote.session };
    let broken_promise = Vote { basis, session, ..with(Proposal { reveal, ..proposal }) };
    let sign = |hash: [u8; 32]| -> anyhow::Result<([u8; 32], Signature)> {
        let message = postcard::to_stdvec(&(EPOCH, 0_u16, hash))?;
        Ok((hash, secret(200).sign(Context::Document, &message)))
    };
    let proofs = [
        Proof::Votes(signed(&vote), signed(&changed)),
        Proof::Signatures {
            authority: liar,
            epoch: EPOCH,
            amendment: 0,
            signed: [sign([1; 32])?, sign([2; 32])?],
        },
        Proof::MadeUp(signed(&out_of_order)),
        Proof::Reveal(signed(&broken_promise), held.signed.to_vec()),
    ];
    let mut values = Vec::new();
    for proof in proofs {
        let (who, bytes) = (proof.verify(&network())?, proof.encode());
        values.push(json!({ "kind": proof.kind(), "liar": hex(who.0), "bytes": hex(bytes) }));
    }
    Ok(json!({ "network": network_value(&network()), "proofs": values }))
}
