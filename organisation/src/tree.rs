//! The root of the Merkle tree of RFC 6962, section 2.1, over leaves that come one after the other.

use sha2::{Digest as _, Sha256};

/// Full subtrees of the leaves so far, the largest first: each with how many leaves it has. So a leaf costs two hashes,
/// where a tree that is kept whole computes a path for each.
#[derive(Clone, Default)]
pub(crate) struct Frontier(Vec<(u64, [u8; 32])>);

fn hash(prefix: u8, parts: [&[u8]; 2]) -> [u8; 32] {
    let mut hasher = Sha256::new_with_prefix([prefix]);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

impl Frontier {
    /// How many leaves came.
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|(leaves, _)| leaves).sum()
    }

    /// Adds a leaf.
    pub(crate) fn push(&mut self, leaf: &[u8]) {
        let mut new = (1, hash(0, [leaf, &[]]));
        while let Some((leaves, left)) = self.0.pop_if(|(leaves, _)| *leaves == new.0) {
            new = (2 * leaves, hash(1, [&left, &new.1]));
        }
        self.0.push(new);
    }

    /// The root; of no leaves the hash of nothing.
    pub(crate) fn root(&self) -> [u8; 32] {
        let mut subtrees = self.0.iter().rev().map(|(_, hash)| *hash);
        let Some(right) = subtrees.next() else { return Sha256::digest([]).into() };
        subtrees.fold(right, |right, left| hash(1, [&left, &right]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ct_merkle::mem_backed_tree::MemoryBackedTree;

    #[test]
    fn the_root_is_that_of_a_tree_that_is_kept_whole() {
        let (mut frontier, mut tree) =
            (Frontier::default(), MemoryBackedTree::<Sha256, Vec<u8>>::new());
        for n in 0..300_u64 {
            assert_eq!((frontier.len(), frontier.root()), (n, (*tree.root().as_bytes()).into()));
            let leaf = vec![n as u8; (n % 7) as usize];
            frontier.push(&leaf);
            tree.push(leaf);
        }
    }
}
