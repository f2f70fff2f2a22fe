//! Heads of organisations' directories in documents, and what makes the next one.
//!
//! An organisation's directory only grows, and each member holds all of it. Its head is the root of the Merkle tree over
//! its entries (RFC 6962, section 2.1, with SHA-256). Because documents carry it, nobody can be shown another directory
//! than everybody else; because authorities ask for a proof that a new head continues the one before, no entry is ever
//! taken back unseen. Neither authorities nor documents know an entry.

use ct_merkle::{ConsistencyProof, RootHash};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::descriptor::Signed;
use super::head::DirectoryHead;
use crate::{Error, Identity};

/// Most organisations in a document.
pub const MAX_HEADS: usize = 1_024;
/// Most hashes of a proof of consistency between directories of that length: one more than it has levels.
const MAX_PROOF: usize = 25;
/// What errors call it.
const WHAT: &str = "directory head";

/// A head for the next document, with the proof that it continues the one in the last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeadUpdate {
    /// The new head.
    pub head: Signed<DirectoryHead>,
    /// Hashes of a proof of consistency (RFC 6962, section 2.1.2) with the head of the document that it is voted upon;
    /// none for an organisation that no document has yet, and for a head of the same size.
    pub proof: Vec<[u8; 32]>,
}

impl HeadUpdate {
    /// Reads canonical bytes, and checks values and signature: not the proof.
    ///
    /// # Errors
    /// Bytes of another form, a value that breaks a rule, a signature by somebody else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let max = super::MAX_DESCRIPTOR_LEN + 32 * MAX_PROOF;
        let update: Self = crate::base::encoding::decode(WHAT, bytes, max)?;
        update.head.verify()?;
        Ok(update)
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        crate::base::encoding::encode(self)
    }

    /// Says whether the new head continues the one in a document, if that has one.
    ///
    /// # Errors
    /// It is older, of the same size with another root, or its proof does not hold.
    pub fn continues(&self, before: Option<&DirectoryHead>) -> Result<(), Error> {
        let wrong = |why: String| Err(Error::Invalid { what: WHAT, why });
        let (new, Some(before)) = (self.head.body(), before) else { return Ok(()) };
        if new.name != before.name {
            return wrong("it goes by another name than the one in the document".into());
        }
        if (new.size, new.signed_at) < (before.size, before.signed_at) {
            return wrong("it is older than the one in the document".into());
        }
        if new.size == before.size {
            return match new.root == before.root && self.proof.is_empty() {
                true => Ok(()),
                false => {
                    wrong("it is as long as the one in the document and says something else".into())
                }
            };
        }
        let proof = ConsistencyProof::<Sha256>::try_from_bytes(self.proof.concat());
        let holds = proof.and_then(|proof| tree(new).verify_consistency(&tree(before), &proof));
        holds.or_else(|error| {
            wrong(format!(
                "it does not continue the one in the document, of {} entries: {error}",
                before.size
            ))
        })
    }
}

fn tree(head: &DirectoryHead) -> RootHash<Sha256> {
    RootHash::new(head.root.into(), head.size)
}

/// Checks the heads of a document: each by itself, their order, and that no two have one name.
///
/// # Errors
/// The first rule that is broken.
pub(crate) fn check(heads: &[Signed<DirectoryHead>]) -> Result<(), Error> {
    let wrong = |why: &str| Err(Error::Invalid { what: "topology document", why: why.into() });
    if heads.len() > MAX_HEADS {
        return wrong("it has more heads of directories than 1,024");
    }
    heads.iter().try_for_each(Signed::<DirectoryHead>::verify)?;
    if !heads.is_sorted_by(|a, b| a.body().identity < b.body().identity) {
        return wrong("its heads of directories are not ordered by key, or one is there twice");
    }
    let mut names = std::collections::BTreeSet::new();
    if !heads.iter().all(|head| names.insert(&head.body().name)) {
        return wrong("two organisations have one name");
    }
    Ok(())
}

/// The heads of the next document: for each organisation that a majority of the proposals lists, the latest that continues
/// the one in the document before. `proposals` has what each authority brings, each with its own author. Two heads of one
/// organisation that contradict each other (one size, two roots) leave what was there.
pub(crate) fn next(
    proposals: &[&[HeadUpdate]],
    (majority, liars): (usize, usize),
    before: &[Signed<DirectoryHead>],
) -> Vec<Signed<DirectoryHead>> {
    let mut found: std::collections::BTreeMap<Identity, Vec<&HeadUpdate>> = Default::default();
    for proposal in proposals {
        let mut seen = std::collections::BTreeSet::new();
        // One for each author, and nothing that the organisation did not sign.
        for update in proposal.iter().filter(|update| update.head.verify().is_ok()) {
            if seen.insert(update.head.body().identity) {
                found.entry(update.head.body().identity).or_default().push(update);
            }
        }
    }
    // Who is there goes when a majority lists it no more: one that lies, or is behind, takes nobody's head out.
    let omitted = |held: &Signed<DirectoryHead>| {
        let by = found.get(&held.body().identity).map_or(0, Vec::len);
        proposals.len().saturating_sub(by) >= majority
    };
    let stays = |held: &&Signed<DirectoryHead>| {
        !omitted(held) && found.get(&held.body().identity).is_none_or(|by| by.len() < majority)
    };
    let mut heads: Vec<Signed<DirectoryHead>> = before.iter().filter(stays).cloned().collect();
    for (identity, mut updates) in found.into_iter().filter(|(_, by)| by.len() >= majority) {
        let held = before.iter().find(|held| held.body().identity == identity);
        let contradicts = |one: &DirectoryHead, other: &DirectoryHead| {
            one.size == other.size && one.root != other.root
        };
        let forked = updates.iter().enumerate().any(|(at, one)| {
            updates.iter().take(at).any(|other| contradicts(one.head.body(), other.head.body()))
        });
        updates.retain(|update| update.continues(held.map(Signed::<DirectoryHead>::body)).is_ok());
        // The same order at every authority, whoever brought what: the latest first.
        updates.sort_by_cached_key(|update| {
            let head = update.head.body();
            std::cmp::Reverse((head.size, head.signed_at, update.head.encode()))
        });
        let new = updates.into_iter().nth(liars).filter(|_| !forked).map(|update| &update.head);
        heads.extend(new.or(held).cloned());
    }
    // One for each name: of an organisation that was there before one that was not.
    let is_new = |head: &Signed<DirectoryHead>| {
        !before.iter().any(|held| held.body().identity == head.body().identity)
    };
    // Stable, so that within both the order of identities stays.
    heads.sort_by_key(is_new);
    let mut names = std::collections::BTreeSet::new();
    heads.retain(|head| names.insert(head.body().name.clone()));
    heads.truncate(MAX_HEADS);
    heads.sort_by_key(|head| head.body().identity);
    heads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecretIdentity;
    use ct_merkle::mem_backed_tree::MemoryBackedTree;

    type Tree = MemoryBackedTree<Sha256, Vec<u8>>;

    fn secret(n: u8) -> SecretIdentity {
        SecretIdentity::from_bytes(&[n; 32])
    }

    /// A directory of `size` entries that parts from others of its kind after `common`.
    fn tree(size: u64, common: u64, fork: u8) -> Tree {
        let mut tree = Tree::new();
        (0..size).for_each(|n| tree.push(vec![if n < common { 0 } else { fork }, n as u8]));
        tree
    }

    fn signed(tree: &Tree, at: u64) -> Signed<DirectoryHead> {
        signed_by(1, "acme", tree, at)
    }

    fn signed_by(by: u8, name: &str, tree: &Tree, at: u64) -> Signed<DirectoryHead> {
        let head = DirectoryHead {
            name: name.into(),
            identity: secret(by).identity(),
            size: tree.len(),
            root: (*tree.root().as_bytes()).into(),
            service: None,
            signed_at: at,
        };
        Signed::<DirectoryHead>::new(head, &secret(by))
    }

    fn update(tree: &Tree, from: u64, at: u64) -> HeadUpdate {
        let hashes = if from == 0 || from == tree.len() {
            Vec::new()
        } else {
            let proof = tree.prove_consistency((tree.len() - from) as usize);
            proof.as_bytes().chunks(32).map(|hash| hash.try_into().unwrap()).collect()
        };
        HeadUpdate { head: signed(tree, at), proof: hashes }
    }

    #[test]
    fn a_longer_directory_continues_a_shorter_one_and_no_other() {
        for old in 1..40 {
            for new in old..40 {
                let before = signed(&tree(old, 40, 0), 10);
                let good = update(&tree(new, 40, 0), old, 10);
                assert_eq!(good.continues(Some(before.body())), Ok(()), "{old} {new}");
                let forked = update(&tree(new, old - 1, 1), old, 10);
                assert!(forked.continues(Some(before.body())).is_err(), "{old} {new}");
                if new > old {
                    let back = update(&tree(old, 40, 0), 0, 10);
                    assert!(back.continues(Some(good.head.body())).is_err(), "{old} {new}");
                }
            }
        }
    }

    #[test]
    fn a_changed_proof_or_signature_is_refused() {
        let before = signed(&tree(5, 40, 0), 10);
        let good = update(&tree(13, 40, 0), 5, 10);
        for at in 0..good.proof.len() {
            let mut bad = good.clone();
            bad.proof[at][7] ^= 1;
            assert!(bad.continues(Some(before.body())).is_err(), "{at}");
            bad.proof.remove(at);
            assert!(bad.continues(Some(before.body())).is_err(), "{at}");
        }
        let bytes = good.encode();
        assert_eq!(HeadUpdate::decode(&bytes), Ok(good));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            // What is read all the same differs in its proof alone.
            if let Ok(read) = HeadUpdate::decode(&bad) {
                assert!(read.continues(Some(before.body())).is_err(), "{at}");
            }
        }
    }

    #[test]
    fn what_a_minority_brings_is_not_listed_and_the_latest_of_few_does_not_count() {
        let before = [signed(&tree(5, 40, 0), 10)];
        let new = [update(&tree(8, 40, 0), 5, 20)];
        let newer = [update(&tree(9, 40, 0), 5, 30)];
        let none: [HeadUpdate; 0] = [];
        let sizes = |proposals: &[&[HeadUpdate]]| -> Vec<u64> {
            next(proposals, (3, 1), &before).iter().map(|head| head.body().size).collect()
        };
        assert_eq!(sizes(&[&new, &new, &new, &new]), [8]);
        assert_eq!(sizes(&[&new, &new, &new, &newer]), [8], "one alone does not move it");
        assert_eq!(sizes(&[&new, &newer, &newer, &none]), [9]);
        assert_eq!(sizes(&[&new, &new, &none, &none]), [5], "two of four are no majority");
    }

    #[test]
    fn a_forked_directory_leaves_what_was_there() {
        let before = [signed(&tree(5, 40, 0), 10)];
        let one = [update(&tree(8, 5, 1), 5, 20)];
        let other = [update(&tree(8, 5, 2), 5, 20)];
        let back = [update(&tree(9, 4, 1), 5, 20)];
        assert_eq!(next(&[&one, &one, &one], (2, 0), &before)[0].body().size, 8);
        let held = |proposals: &[&[HeadUpdate]]| next(proposals, (2, 0), &before) == before;
        assert!(held(&[&one, &one, &other]), "one size, two roots");
        assert!(held(&[&back, &back, &back]), "an entry was taken back");
    }

    #[test]
    fn a_head_goes_when_most_authorities_list_its_organisation_no_more_and_not_before() {
        let before = [signed(&tree(5, 40, 0), 10)];
        let new = [update(&tree(8, 40, 0), 5, 20)];
        let none: [HeadUpdate; 0] = [];
        assert_eq!(
            next(&[&new, &new, &none, &none], (3, 1), &before),
            before,
            "two of four are no majority"
        );
        assert!(next(&[&new, &none, &none, &none], (3, 1), &before).is_empty());
        assert!(next(&[&new, &new, &none, &none], (3, 1), &[]).is_empty(), "nor enough to come in");
    }

    #[test]
    fn a_name_belongs_to_the_organisation_that_had_it_first() {
        let tree = tree(3, 9, 0);
        let update = |by| HeadUpdate { head: signed_by(by, "acme", &tree, 10), proof: Vec::new() };
        for (first, second) in [(1, 2), (2, 1)] {
            let before = [signed_by(first, "acme", &tree, 5)];
            let both = [update(first), update(second)];
            let next = next(&[&both, &both], (2, 0), &before);
            assert_eq!(next, [signed_by(first, "acme", &tree, 10)]);
            check(&next).unwrap();
        }
        let renamed = HeadUpdate { head: signed_by(1, "acme 2", &tree, 10), proof: Vec::new() };
        assert!(renamed.continues(Some(signed_by(1, "acme", &tree, 5).body())).is_err());
    }
}
