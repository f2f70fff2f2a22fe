//! Which document is in use, and two of one epoch.

use std::sync::Arc;

use shoal_topology::{Document, DocumentStore, Epoch, Standing, VerifiedDocument};

use crate::world::sound;

fn held(document: Document) -> VerifiedDocument {
    let signed: Arc<[u8]> = vec![document.epoch.0 as u8, document.amendment as u8].into();
    VerifiedDocument { document: Arc::new(document), signed }
}

fn of(epoch: u64, amendment: u16, demoted: &[usize]) -> Document {
    let mut document = sound();
    (document.epoch, document.amendment) = (Epoch(epoch), amendment);
    for index in demoted {
        document.nodes[*index].standing = Standing::Demoted;
    }
    document
}

#[test]
fn the_latest_that_does_not_begin_later_is_in_use_as_long_as_it_has_keys() {
    let mut documents = DocumentStore::default();
    for epoch in [5, 7] {
        assert!(documents.insert(held(of(epoch, 0, &[]))).unwrap());
    }
    let used = |epoch| documents.at(Epoch(epoch)).map(|held| held.document.epoch.0);
    assert_eq!(
        [4, 5, 6, 7, 8, 9, 10].map(used),
        [None, Some(5), Some(5), Some(7), Some(7), Some(7), None]
    );
}

#[test]
fn amendments_take_the_place_of_what_they_amend_and_may_only_take_away_standing() {
    let mut documents = DocumentStore::default();
    assert!(documents.insert(held(of(5, 0, &[]))).unwrap());
    assert!(!documents.insert(held(of(5, 0, &[]))).unwrap(), "the same again is no news");
    assert!(documents.insert(held(of(5, 2, &[1, 3]))).unwrap());
    // One that was skipped may come later, and changes nothing.
    assert!(!documents.insert(held(of(5, 1, &[1]))).unwrap());
    assert!(!documents.insert(held(of(5, 0, &[]))).unwrap());
    assert_eq!(documents.at(Epoch(5)).unwrap().document.amendment, 2);
    // An amendment that gives standing back, or is not what its number says.
    let mut later = of(5, 3, &[1, 3]);
    later.begins += 1;
    for lie in [of(5, 3, &[1]), of(5, 2, &[1]), of(5, 2, &[]), later, of(5, 0, &[2])] {
        let proof = documents.insert(held(lie.clone())).unwrap_err();
        assert_eq!(proof.epoch, Epoch(5));
        assert_eq!(
            (&proof.first[..], &proof.second[..]),
            (&[5, 2][..], &[5, lie.amendment as u8][..])
        );
        assert_eq!(documents.at(Epoch(5)).unwrap().document.amendment, 2);
    }
}

#[test]
fn documents_that_nobody_can_use_any_more_go() {
    let mut documents = DocumentStore::default();
    for epoch in 1..100 {
        documents.insert(held(of(epoch, 0, &[]))).unwrap();
        assert!(documents.iter().count() <= 4);
    }
}
