//! Words between a client and its gateway, and documents that travel in parts.

use proptest::prelude::*;
use rand::seq::SliceRandom;
use shoal_sphinx::{PACKET_LEN, Packet};
use shoal_topology::wire::client_gateway::*;
use shoal_topology::*;

use crate::world::*;

/// Bytes that no compression and no repetition makes equal.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rand::Rng::fill_bytes(&mut Seed::from_u64(seed).stream("bytes"), &mut bytes);
    bytes
}

fn hello(token: Vec<u8>, descriptor: Option<Vec<u8>>) -> Hello {
    let proof = Hello::prove(&secret(1), &secret(2).identity(), &secret(3).identity(), &[4; 32]);
    let (mode, documents) = (Mode::Class("web".into()), vec![[3; 8]; 4]);
    let away = Away::Drop;
    Hello { inbox: secret(1).identity(), proof, token, mode, descriptor, documents, away }
}

#[test]
fn words_come_back_as_they_went() {
    let hello = hello(vec![7; 40], Some(vec![9; MAX_DESCRIPTOR_LEN]));
    assert_eq!(Hello::unpack(&hello.pack().unwrap()), Ok(hello));
    let refusals = [
        Refusal::Proof,
        Refusal::Token,
        Refusal::Connections,
        Refusal::Class,
        Refusal::Descriptor,
        Refusal::NotReady,
        Refusal::Full,
        Refusal::TooOften,
        Refusal::NoService,
        Refusal::NoToken,
    ];
    let notices = [Notice::Challenge { nonce: [5; 32] }, Notice::Welcome];
    for notice in notices.into_iter().chain(refusals.map(Notice::Refused)) {
        assert_eq!(Notice::unpack(&notice.pack().unwrap()), Ok(notice));
    }
}

#[test]
fn a_word_that_is_too_long_is_not_packed() {
    let fits = |len| hello(vec![0; len], None).pack().is_ok();
    let longest = (0..PACKET_LEN).rev().find(|len| fits(*len)).unwrap();
    assert!(longest > 2_000 && !fits(longest + 1) && !fits(100_000));
}

#[test]
fn padding_that_is_not_zero_is_refused() {
    let mut packet = Notice::Welcome.pack().unwrap();
    packet.as_mut_bytes()[PACKET_LEN - 1] = 1;
    assert!(Notice::unpack(&packet).is_err());
    // A length beyond the packet, and one that cuts the word.
    for length in [0, PACKET_LEN as u16 - 1, u16::MAX] {
        let mut packet = Notice::Welcome.pack().unwrap();
        packet.as_mut_bytes()[..2].copy_from_slice(&length.to_be_bytes());
        assert!(Notice::unpack(&packet).is_err(), "{length}");
    }
}

#[test]
fn a_proof_is_worth_nothing_on_another_channel() {
    let (gateway, peer) = (secret(2).identity(), secret(3).identity());
    let hello = hello(vec![], None);
    assert!(hello.is_proven(&gateway, &peer, &[4; 32]));
    assert!(!hello.is_proven(&peer, &peer, &[4; 32]));
    assert!(!hello.is_proven(&gateway, &gateway, &[4; 32]));
    assert!(!hello.is_proven(&gateway, &peer, &[5; 32]));
    let other = Hello { inbox: secret(9).identity(), ..hello };
    assert!(!other.is_proven(&gateway, &peer, &[4; 32]));
}

#[test]
fn parts_of_two_documents_do_not_mix() {
    let (old, new) = (bytes(1, 9_000), bytes(2, 9_000));
    let (old_parts, new_parts) = (DocumentPart::cut(&old), DocumentPart::cut(&new));
    assert_eq!(old_parts.len(), 4);
    let mut assembly = Assembly::default();
    // Half of the old one, then the new one: the old one is forgotten.
    for part in &old_parts[..2] {
        assert!(assembly.add(part.clone()).is_none());
    }
    let whole: Vec<_> = new_parts.iter().filter_map(|part| assembly.add(part.clone())).collect();
    assert_eq!(whole, [new]);
    for part in &old_parts[2..] {
        assert!(assembly.add(part.clone()).is_none());
    }
}

#[test]
fn a_document_whose_hash_differs_is_not_given_out() {
    let mut parts = DocumentPart::cut(&bytes(1, 5_000));
    parts[1].bytes[0] ^= 1;
    let mut assembly = Assembly::default();
    assert!(parts.into_iter().all(|part| assembly.add(part).is_none()));
}

#[test]
fn the_largest_document_can_be_sent_and_a_larger_one_is_not_collected() {
    let largest = bytes(1, MAX_DOCUMENT_LEN);
    let mut assembly = Assembly::default();
    let whole =
        DocumentPart::cut(&largest).into_iter().filter_map(|part| assembly.add(part)).last();
    assert!(whole == Some(largest));

    let part = DocumentPart { tag: [1; 8], index: 0, parts: u16::MAX, bytes: vec![0; 10] };
    assert!(Assembly::default().add(part.clone()).is_none());
    let part = DocumentPart { parts: 0, ..part };
    assert!(Assembly::default().add(part.clone()).is_none());
    let part = DocumentPart { parts: 1, bytes: vec![0; PACKET_LEN], ..part };
    assert!(Assembly::default().add(part.clone()).is_none());
    let part = DocumentPart { index: 1, bytes: vec![0], ..part };
    assert!(Assembly::default().add(part).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parts_arrive_in_any_order_and_more_than_once(
        len in 1usize..30_000, seed: u64, twice: prop::sample::Index,
    ) {
        let document = bytes(seed, len);
        let mut parts: Vec<_> = DocumentPart::cut(&document)
            .into_iter()
            // As they travel.
            .map(|part| DocumentPart::unpack(&part.pack().unwrap()).unwrap())
            .collect();
        parts.push(twice.get(&parts).clone());
        parts.shuffle(&mut Seed::from_u64(seed).stream("order"));
        let mut assembly = Assembly::default();
        let whole: Vec<_> = parts.into_iter().filter_map(|part| assembly.add(part)).collect();
        prop_assert!(whole.first() == Some(&document));
    }

    #[test]
    fn no_bytes_make_unpacking_panic(
        len in 0u16..2_500, word in prop::collection::vec(any::<u8>(), 0..200), zeros: bool,
    ) {
        let mut packet = Packet::default();
        if !zeros {
            packet.as_mut_bytes().fill(0x7f);
        }
        packet.as_mut_bytes()[..2].copy_from_slice(&len.to_be_bytes());
        packet.as_mut_bytes()[2..2 + word.len()].copy_from_slice(&word);
        let _ = Hello::unpack(&packet);
        let _ = Notice::unpack(&packet);
        if let Ok(part) = DocumentPart::unpack(&packet) {
            let _ = Assembly::default().add(part);
        }
    }

    #[test]
    fn words_have_one_form(words in prop::collection::vec(0u8..4, 1..40)) {
        // Small numbers make valid words often; whatever is read packs to the same bytes.
        let mut packet = Packet::default();
        packet.as_mut_bytes()[..2].copy_from_slice(&(words.len() as u16).to_be_bytes());
        packet.as_mut_bytes()[2..2 + words.len()].copy_from_slice(&words);
        if let Ok(notice) = Notice::unpack(&packet) {
            prop_assert!(notice.pack().unwrap() == packet);
        }
        if let Ok(part) = DocumentPart::unpack(&packet) {
            prop_assert!(part.pack().unwrap() == packet);
        }
    }
}
