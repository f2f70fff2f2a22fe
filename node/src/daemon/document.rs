//! Topology documents for people: `shoal-node topology`.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use shoal_host::network;
use shoal_topology::reputation::report::pool_of;
use shoal_topology::{
    DirectoryHead, Document, Identity, ListedNode, Role, SignedDocument, Standing,
};

use super::NodeError;
use super::topology::unix_s;

/// A document as its file has it, not verified.
pub struct ShownDocument {
    document: Document,
    signers: Vec<Identity>,
    bytes: usize,
}

/// Reads a document, whoever signed it.
///
/// # Errors
/// It cannot be read, or is none.
pub fn show(file: &Path) -> Result<ShownDocument, NodeError> {
    let bytes = read(file)?;
    let (document, signers) =
        SignedDocument::peek(&bytes).map_err(|error| refused(file, &error))?;
    Ok(ShownDocument { document, signers, bytes: bytes.len() })
}

/// Checks all of a document, as nodes and clients do; what to say when it holds.
///
/// # Errors
/// What is wrong with it, or with the network file.
pub fn verify(file: &Path, network: &Path) -> Result<String, NodeError> {
    let bytes = read(file)?;
    let known = network::load(network)?;
    let document =
        SignedDocument::verify(&bytes, &known, unix_s()).map_err(|error| refused(file, &error))?;
    Ok(format!(
        "{}: sound; network {:?}, epoch {}, amendment {}, {} nodes, {} exits; {} of {} authorities must sign and did",
        file.display(),
        document.network,
        document.epoch,
        document.amendment,
        document.nodes.len(),
        document.exits.len(),
        known.threshold(),
        known.authorities.len(),
    ))
}

fn read(file: &Path) -> Result<Vec<u8>, NodeError> {
    std::fs::read(file)
        .map_err(|error| NodeError::Document(format!("cannot read {}: {error}", file.display())))
}

fn refused(file: &Path, error: &shoal_topology::Error) -> NodeError {
    NodeError::Document(format!("{}: {error}", file.display()))
}

impl ShownDocument {
    /// Lines for a terminal.
    pub fn text(&self) -> String {
        let document = &self.document;
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "network {:?}{}, epoch {}, amendment {}, {} bytes, not verified\n\
             begins {} (Unix time), an epoch lasts {} s, keys open packets {:.0} s longer\n\
             layers are drawn every {} epochs; a hop delays {} ms at most; floors of anonymity {} and {} bits",
            document.network,
            if document.is_trial() { " (for trial)" } else { "" },
            document.epoch,
            document.amendment,
            self.bytes,
            document.begins,
            document.epoch_s,
            document.key_grace().as_secs_f64(),
            document.parameters.draw_every,
            document.parameters.max_delay_us / 1_000,
            document.parameters.warn_bits,
            document.parameters.refuse_bits,
        );
        for signer in &self.signers {
            let _ = writeln!(text, "signed by {signer}");
        }
        for class in &document.parameters.classes {
            let _ = writeln!(
                text,
                "class {}: {} payload slots/s, {} loops/s, {} down/s, {} ms in the mixes",
                class.name,
                class.payload_per_s,
                class.loops_per_s,
                class.down_per_s,
                class.delay.total_mean(document.parameters.layers).as_millis(),
            );
        }
        for (index, node) in document.nodes.iter().enumerate() {
            let body = node.descriptor.body();
            let _ = writeln!(
                text,
                "{index:4} {:<12} {} {}{} ({}) keys {} to {} at {}",
                position(node),
                node.identity(),
                match node.standing {
                    Standing::Good => "",
                    Standing::Demoted => "DEMOTED ",
                },
                body.operator,
                body.jurisdiction,
                body.keys.iter().map(|key| key.first.0).min().unwrap_or_default(),
                body.keys.iter().map(|key| key.last.0).max().unwrap_or_default(),
                body.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            );
        }
        for exit in &document.exits {
            let body = exit.body();
            let _ = writeln!(
                text,
                "exit {} at {} gateways, until {} (Unix time)",
                body.identity,
                body.gateways.len(),
                body.not_after
            );
        }
        for head in &document.heads {
            let head = head.body();
            let _ = writeln!(
                text,
                "organisation {} ({}), directory of {} entries, signed at {} (Unix time)",
                head.name, head.identity, head.size, head.signed_at
            );
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let document = &self.document;
        let nodes: Vec<Value> = document.nodes.iter().map(node).collect();
        let exit = |exit: &shoal_topology::Signed<shoal_topology::ClientDescriptor>| {
            let body = exit.body();
            json!({
                "identity": body.identity.to_string(),
                "gateways": body.gateways.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "not_before": body.not_before,
                "not_after": body.not_after,
            })
        };
        json!({
            "verified": false,
            "network": document.network,
            "trial": document.is_trial(),
            "epoch": document.epoch.0,
            "amendment": document.amendment,
            "begins": document.begins,
            "epoch_s": document.epoch_s,
            "bytes": self.bytes,
            "signed_by": self.signers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "parameters": document.parameters,
            "nodes": nodes,
            "exits": document.exits.iter().map(exit).collect::<Vec<_>>(),
            "organisations": document.heads.iter().map(|head| organisation(head.body())).collect::<Vec<_>>(),
        })
    }
}

fn organisation(head: &DirectoryHead) -> Value {
    json!({
        "name": head.name,
        "identity": head.identity.to_string(),
        "size": head.size,
        "root": data_encoding::HEXLOWER.encode(&head.root),
        "service": head.service().map(|service| service.to_string()),
        "signed_at": head.signed_at,
    })
}

fn position(node: &ListedNode) -> String {
    match node.descriptor.body().role {
        Role::Gateway => "gateway".into(),
        Role::Mix => {
            let [now, ..] = node.layers;
            match node.layers.iter().find(|layer| **layer != now) {
                None => format!("layer {now}"),
                Some(later) => format!("layer {now}, {later}"),
            }
        }
    }
}

fn node(node: &ListedNode) -> Value {
    let body = node.descriptor.body();
    json!({
        "identity": node.identity().to_string(),
        "role": match body.role { Role::Mix => "mix", Role::Gateway => "gateway" },
        "layers": node.layers,
        "standing": match node.standing { Standing::Good => "good", Standing::Demoted => "demoted" },
        "mean_pool": (pool_of(node.pool) * 10.0).round() / 10.0,
        "operator": body.operator,
        "jurisdiction": body.jurisdiction,
        "addresses": body.addresses,
        "keys": body.keys.iter().map(|key| json!([key.first.0, key.last.0])).collect::<Vec<_>>(),
    })
}
