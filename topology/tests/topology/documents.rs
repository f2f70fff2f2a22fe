//! What a good document is: one form, enough signatures, its time.

use std::time::Duration;

use proptest::prelude::*;
use rand::RngExt;
use shoal_topology::*;

use crate::world::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_document_reads_back_as_it_was_and_has_one_encoding(document in any_document(), amendment: u16) {
        let document = Document { amendment, ..document };
        let four = authorities(4);
        let bytes = four.sign(&document);
        match SignedDocument::verify(&bytes, &four.network, BEGINS) {
            Ok(read) => {
                prop_assert!(read == document);
                prop_assert!(four.sign(&read) == bytes);
            }
            // Signed and canonical, so that only the rules are left to object.
            Err(error) => prop_assert_eq!(Err(error), document.check()),
        }
    }

    #[test]
    fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let four = authorities(4);
        prop_assert!(SignedDocument::verify(&bytes, &four.network, BEGINS).is_err());
        prop_assert!(SignedDocument::verify(&four.sign_raw(&bytes), &four.network, BEGINS).is_err());
    }
}

#[test]
fn other_bytes_with_the_same_meaning_are_refused() {
    let four = authorities(4);
    let malformed = Err(Error::Malformed { what: "topology document" });
    let good = four.sign(&sound());
    assert!(SignedDocument::verify(&good, &four.network, BEGINS).is_ok());

    let longer = [good.as_slice(), &[0]].concat();
    assert_eq!(SignedDocument::verify(&longer, &four.network, BEGINS), malformed);

    // The first length as a varint of three bytes where two do.
    assert!(good[0] & 0x80 != 0 && good[1] & 0x80 == 0);
    let padded = [&[good[0], good[1] | 0x80, 0], &good[2..]].concat();
    assert_eq!(SignedDocument::verify(&padded, &four.network, BEGINS), malformed);

    // The same inside what the authorities signed: "test" is the first string.
    let body = postcard::to_stdvec(&sound()).unwrap();
    assert!(SignedDocument::verify(&four.sign_raw(&body), &four.network, BEGINS).is_ok());
    assert_eq!(body[0], 4);
    let padded = [&[0x84, 0], &body[1..]].concat();
    assert_eq!(SignedDocument::verify(&four.sign_raw(&padded), &four.network, BEGINS), malformed);
    let longer = [body.as_slice(), &[0]].concat();
    assert_eq!(SignedDocument::verify(&four.sign_raw(&longer), &four.network, BEGINS), malformed);
}

#[test]
fn any_flipped_bit_is_refused() {
    let four = authorities(4);
    let good = four.sign(&sound());
    let mut rng = Seed::from_u64(1).stream("bits");
    // Every bit of the signatures and of the head; one bit of each byte between them.
    let ends = 100;
    for at in 0..good.len() {
        let at_an_end = at < ends || at + ends > good.len();
        let bits = if at_an_end {
            0..8
        } else {
            let bit = rng.random_range(0..8);
            bit..bit + 1
        };
        for bit in bits {
            let mut wrong = good.clone();
            wrong[at] ^= 1 << bit;
            let read = SignedDocument::verify(&wrong, &four.network, BEGINS);
            assert!(read.is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn the_threshold_leaves_no_room_for_two_documents() {
    let table = [(1, 1), (2, 2), (3, 2), (4, 3), (5, 4), (6, 4), (7, 5), (8, 6), (9, 6), (10, 7)];
    for (n, k) in table {
        let threshold = authorities(n).network.threshold();
        let f = (n - 1) / 3;
        assert_eq!(threshold, k, "{n} authorities");
        assert_eq!(threshold, (n + f) / 2 + 1, "{n} authorities");
        // Two sets of k share more than f, and the honest alone reach k.
        assert!(2 * threshold > n + f, "{n} authorities");
        assert!(threshold <= n - f, "{n} authorities");
    }
}

#[test]
fn as_many_signatures_as_needed_are_enough_and_one_fewer_is_not() {
    for n in 1..=7 {
        let some = authorities(n);
        let needed = some.network.threshold();
        for signers in 0..=some.secrets.len() {
            let bytes = SignedDocument::new(&sound(), &some.secrets[..signers]).encode();
            let read = SignedDocument::verify(&bytes, &some.network, BEGINS);
            if signers >= needed {
                assert!(read.is_ok(), "{signers} of {n}");
            } else {
                let why = Error::TooFewSignatures { valid: signers, needed, of: n };
                assert_eq!(read, Err(why));
            }
        }
    }
}

#[test]
fn an_authority_that_signs_thrice_counts_once() {
    let four = authorities(4);
    let thrice = [&four.secrets[0], &four.secrets[0], &four.secrets[0], &four.secrets[1]];
    let bytes = SignedDocument::new(&sound(), thrice).encode();
    assert_eq!(
        SignedDocument::verify(&bytes, &four.network, BEGINS),
        Err(Error::TooFewSignatures { valid: 2, needed: 3, of: 4 })
    );
}

#[test]
fn an_authority_that_is_not_pinned_does_not_count() {
    let four = authorities(4);
    let stranger = secret(2_000);
    let signers = [&four.secrets[0], &four.secrets[1], &stranger];
    let bytes = SignedDocument::new(&sound(), signers).encode();
    assert_eq!(
        SignedDocument::verify(&bytes, &four.network, BEGINS),
        Err(Error::TooFewSignatures { valid: 2, needed: 3, of: 4 })
    );
}

#[test]
fn a_signature_for_another_purpose_does_not_count() {
    let four = authorities(4);
    let body = postcard::to_stdvec(&sound()).unwrap();
    for context in [Context::Node, Context::Client, Context::Inbox] {
        let sign = |secret: &SecretIdentity| (secret.identity(), secret.sign(context, &body));
        let signatures: Vec<_> = four.secrets.iter().map(sign).collect();
        let bytes = postcard::to_stdvec(&(&body, signatures)).unwrap();
        assert_eq!(
            SignedDocument::verify(&bytes, &four.network, BEGINS),
            Err(Error::TooFewSignatures { valid: 0, needed: 3, of: 4 })
        );
    }
}

#[test]
fn a_network_without_authorities_believes_nobody() {
    let none = authorities(0);
    let bytes = SignedDocument::new(&sound(), &authorities(4).secrets).encode();
    assert_eq!(
        SignedDocument::verify(&bytes, &none.network, BEGINS),
        Err(Error::TooFewSignatures { valid: 0, needed: 1, of: 0 })
    );
}

#[test]
fn a_document_lives_for_three_epochs_and_the_error_of_clocks() {
    let four = authorities(4);
    let document = sound();
    let bytes = four.sign(&document);
    let at = |unix_s| SignedDocument::verify(&bytes, &four.network, unix_s).map(|_| ());
    let error = u64::from(document.parameters.clock_error_s);
    let ends = BEGINS + 3 * u64::from(EPOCH_S);
    // It is made in the epoch before its own, and no earlier; used within the error of clocks.
    let early = error + u64::from(EPOCH_S);
    assert_eq!(at(BEGINS - early - 1), Err(Error::NotYetValid { seconds: early + 1 }));
    assert_eq!(at(BEGINS - early), Ok(()));
    let not_yet = Err(Error::NotYetValid { seconds: error + 1 });
    assert_eq!(document.check_time(BEGINS - error - 1), not_yet);
    assert_eq!(document.check_time(BEGINS - error), Ok(()));
    assert_eq!(document.check_time(ends), Err(Error::Stale { seconds: 0 }));
    assert_eq!(at(ends - 1), Ok(()));
    assert_eq!(at(ends), Err(Error::Stale { seconds: 0 }));
    assert_eq!(at(ends + 60), Err(Error::Stale { seconds: 60 }));
    assert_eq!(at(0), Err(Error::NotYetValid { seconds: BEGINS }));
    assert_eq!(at(u64::MAX), Err(Error::Stale { seconds: u64::MAX - ends }));
}

#[test]
fn gateways_wait_for_what_a_client_with_a_slow_clock_sends_in_an_epoch_that_is_over() {
    let mut document = sound();
    document.parameters.clock_error_s = 30;
    document.epoch_s = 1_200;
    assert_eq!(document.turn_grace(), Duration::from_secs(40));
    // Short epochs are for clocks that are alike.
    document.epoch_s = 60;
    assert_eq!(document.turn_grace(), Duration::from_millis(7_500));
}

#[test]
fn epochs_are_counted_from_the_document() {
    let document = sound();
    let length = u64::from(EPOCH_S);
    assert_eq!(document.epoch_at(BEGINS - 20), Epoch(5));
    assert_eq!(document.epoch_at(BEGINS + length - 1), Epoch(5));
    assert_eq!(document.epoch_at(BEGINS + length), Epoch(6));
    assert_eq!(document.epoch_at(BEGINS + 2 * length), Epoch(7));
}

#[test]
fn a_node_is_found_at_its_index() {
    let document = sound();
    for (index, node) in document.nodes.iter().enumerate() {
        assert_eq!(document.index_of(&node.identity()), Some(index));
        assert_eq!(document.node(index).map(ListedNode::identity), Some(node.identity()));
    }
    assert_eq!(document.index_of(&secret(99).identity()), None);
    assert_eq!(document.gateways().count(), 2);
    assert!((1..=3).all(|layer| document.in_layer(layer).count() == 2));
}

#[test]
fn a_networks_fingerprint_is_of_all_that_everyone_must_know_alike() {
    let network = authorities(4).network;
    let own = network.fingerprint();
    assert_eq!(own.len(), 24);
    let groups = |text: &str| text.split('-').all(|group| group.len() == 4);
    assert!(groups(&own), "{own}");
    let mut turned = network.clone();
    turned.authorities.reverse();
    assert_eq!(turned.fingerprint(), own, "an order says nothing");
    let changes: [&dyn Fn(&mut Network); 4] = [
        &|network| network.name.push('x'),
        &|network| network.epoch_s += 1,
        &|network| network.trial = true,
        &|network| _ = network.authorities.pop(),
    ];
    for change in changes {
        let mut other = network.clone();
        change(&mut other);
        assert_ne!(other.fingerprint(), own);
    }
}
