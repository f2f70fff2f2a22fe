//! What a node reports of its own loops, signed: what each link lost, without times and without clients.

use serde::{Deserialize, Serialize};

use crate::base::encoding::{decode, encode};
use crate::{Context, Epoch, Error, Identity, SecretIdentity, Signature};

/// Most bytes of one report.
pub const MAX_REPORT_LEN: usize = 256 << 10;

/// How the loops fared that went over a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LinkCount {
    /// Index, in the list of the epoch's document, of the node at its beginning.
    pub from: u16,
    /// Index of the node at its end.
    pub to: u16,
    /// Loops over it whose fate is known.
    pub sent: u32,
    /// Of these, how many did not come back in time.
    pub lost: u32,
}

/// A node's report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The node whose loops they are.
    pub node: Identity,
    /// The epoch in whose document the indices are.
    pub epoch: Epoch,
    /// Which report of this epoch, from 0.
    pub part: u16,
    /// Links, ordered by their two ends.
    pub links: Vec<LinkCount>,
    /// Mean size of its delay pool, as [`coarse_pool`] writes it.
    pub pool: u8,
}

/// A report with the signature of the node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignedReport {
    body: Report,
    signature: Signature,
}

impl SignedReport {
    /// Signs a report; `secret` must be the key of the node that it names.
    pub fn new(body: Report, secret: &SecretIdentity) -> Self {
        let signature = secret.sign(Context::Report, &encode(&body));
        Self { body, signature }
    }

    /// The canonical bytes, as they go to authorities.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads canonical bytes, and checks form and signature. Whether the indices are those of a document is for those
    /// who have it.
    ///
    /// # Errors
    /// Bytes of another form, values that break a rule, a signature by somebody else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let signed: Self = decode("report", bytes, MAX_REPORT_LEN)?;
        let wrong = |why: &str| Err(Error::Invalid { what: "report", why: why.into() });
        let body = &signed.body;
        // One order, so that a link cannot be counted twice.
        if !body.links.is_sorted_by(|a, b| (a.from, a.to) < (b.from, b.to)) {
            return wrong("its links are not ordered, or one is listed twice");
        }
        if body.links.iter().any(|link| link.lost > link.sent || link.sent == 0) {
            return wrong("a link lost more loops than it was sent");
        }
        if body.node.verify(Context::Report, &encode(body), &signed.signature) {
            Ok(signed)
        } else {
            Err(Error::Signature { what: "report" })
        }
    }

    /// The report that was signed.
    pub fn body(&self) -> &Report {
        &self.body
    }
}

/// A mean pool size, coarse: 1 + the number of half octaves above one packet, rounded; zero stands for unknown, as no mean
/// does.
pub fn coarse_pool(mean: f64) -> u8 {
    if mean.is_finite() { (1.0 + (2.0 * mean.max(1.0).log2()).round()).min(127.0) as u8 } else { 0 }
}

/// What [`coarse_pool`] stands for, packets.
pub fn pool_of(coarse: u8) -> f64 {
    if coarse == 0 { 0.0 } else { 2f64.powf((f64::from(coarse) - 1.0) / 2.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coarse_pool_is_within_a_fifth() {
        for mean in [1.0, 1.3, 7.0, 1_000.0, 99_999.0] {
            let back = pool_of(coarse_pool(mean));
            assert!((0.83..=1.2).contains(&(back / mean)), "{mean}: {back}");
        }
        assert_eq!([f64::NAN, f64::INFINITY].map(coarse_pool), [0; 2], "not known");
        assert_eq!([0.0, -1.0, 0.4].map(coarse_pool), [1; 3], "known to be small");
        assert_eq!(coarse_pool(f64::MAX), 127);
    }

    #[test]
    fn a_report_is_read_as_written_and_no_other_way() {
        let secret = SecretIdentity::from_bytes(&[1; 32]);
        let link = |from, to, sent, lost| LinkCount { from, to, sent, lost };
        let report =
            |links| Report { node: secret.identity(), epoch: Epoch(7), part: 2, links, pool: 9 };
        let sound = SignedReport::new(report(vec![link(0, 1, 5, 2), link(0, 2, 1, 0)]), &secret);
        assert_eq!(SignedReport::decode(&sound.encode()).unwrap(), sound);
        for links in [
            vec![link(0, 2, 1, 0), link(0, 1, 5, 2)],
            vec![link(0, 1, 5, 2), link(0, 1, 5, 2)],
            vec![link(0, 1, 1, 2)],
            vec![link(0, 1, 0, 0)],
        ] {
            let signed = SignedReport::new(report(links), &secret);
            assert!(matches!(SignedReport::decode(&signed.encode()), Err(Error::Invalid { .. })));
        }
        let foreign = SignedReport::new(report(vec![]), &SecretIdentity::from_bytes(&[2; 32]));
        assert!(matches!(SignedReport::decode(&foreign.encode()), Err(Error::Signature { .. })));
        let bytes = sound.encode();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(SignedReport::decode(&bytes).is_err(), "{at}");
        }
    }
}
