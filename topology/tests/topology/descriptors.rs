//! Descriptors: one form, and the signature of whom they name.

use proptest::prelude::*;
use shoal_topology::*;

use crate::world::{self, *};

fn client(gateways: usize) -> ClientDescriptor {
    let gateways: Vec<Identity> = (10..).take(gateways).map(|n| secret(n).identity()).collect();
    let body = testing::TestClient::new(bytes(1), &gateways).body;
    ClientDescriptor { not_before: BEGINS, not_after: BEGINS + 86_400, ..body }
}

fn node() -> NodeDescriptor {
    world::node(1, 1, (1, 1)).body
}

#[test]
fn descriptors_read_back_as_they_were() {
    let signed = Signed::<ClientDescriptor>::new(client(2), &secret(1));
    let read = Signed::<ClientDescriptor>::decode(&signed.encode()).unwrap();
    assert!(read == signed && *read.body() == client(2));
    let signed = Signed::<NodeDescriptor>::new(node(), &secret(1));
    let read = Signed::<NodeDescriptor>::decode(&signed.encode()).unwrap();
    assert!(read == signed && *read.body() == node());
}

#[test]
fn a_descriptor_signed_by_another_is_refused() {
    let signed = Signed::<ClientDescriptor>::new(client(1), &secret(2)).encode();
    assert_eq!(
        Signed::<ClientDescriptor>::decode(&signed).err(),
        Some(Error::Signature { what: "client descriptor" })
    );
    let signed = Signed::<NodeDescriptor>::new(node(), &secret(2)).encode();
    assert_eq!(
        Signed::<NodeDescriptor>::decode(&signed).err(),
        Some(Error::Signature { what: "node descriptor" })
    );
}

#[test]
fn any_flipped_bit_of_a_descriptor_is_refused() {
    let good = Signed::<ClientDescriptor>::new(client(2), &secret(1)).encode();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut wrong = good.clone();
            wrong[at] ^= 1 << bit;
            assert!(Signed::<ClientDescriptor>::decode(&wrong).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn client_descriptors_with_values_out_of_bounds_are_refused() {
    let refused = |change: fn(&mut ClientDescriptor)| {
        let mut body = client(1);
        change(&mut body);
        let signed = Signed::<ClientDescriptor>::new(body, &secret(1)).encode();
        Signed::<ClientDescriptor>::decode(&signed).err().unwrap().to_string()
    };
    assert!(refused(|c| c.gateways.clear()).contains("one or two gateways"));
    assert!(refused(|c| c.gateways = vec![c.identity; 3]).contains("one or two gateways"));
    assert!(refused(|c| c.key = [0; 32]).contains("small order"));
    assert!(refused(|c| c.not_after = c.not_before - 1).contains("ends before"));
    assert!(refused(|c| c.attached = vec![0; MAX_ATTACHED_LEN + 1]).contains("1,300"));
}

#[test]
fn a_weak_identity_signs_nothing() {
    // The neutral point verifies R = s·B for every message: s = 0, R = the neutral point.
    let mut point = [0; 32];
    point[0] = 1;
    let signature: Signature = postcard::from_bytes(&[point, [0; 32]].concat()).unwrap();
    assert!(!Identity(point).verify(Context::Client, b"anything", &signature));
}

#[test]
fn an_identity_prints_as_text_that_reads_back_and_never_through_debug() {
    let identity = secret(3).identity();
    let text = identity.to_string();
    assert_eq!(text.parse(), Ok(identity));
    assert_eq!(text.to_uppercase().parse(), Ok(identity));
    assert!(text[1..].parse::<Identity>().is_err());
    assert_eq!(format!("{identity:?}"), "Identity(..)");
}

#[test]
fn a_node_has_the_key_of_the_epoch() {
    let keys = [(Epoch(4), Epoch(4)), (Epoch(5), Epoch(6))];
    let node = world::node(1, 1, (1, 1)).with_keys(keys).body;
    let [one, other] = [0, 1].map(|n| Some(node.keys[n].key));
    let found = |epoch| node.key(Epoch(epoch)).map(|key| *key.as_bytes());
    assert_eq!([3, 4, 5, 6, 7].map(found), [None, one, other, other, None]);
    assert_ne!(one, other);
}

#[test]
fn the_longest_client_descriptor_fits_an_answer_by_surb() {
    let longest = ClientDescriptor { attached: vec![1; MAX_ATTACHED_LEN], ..client(2) };
    let len = Signed::<ClientDescriptor>::new(longest, &secret(1)).encode().len();
    assert!(len <= MAX_DESCRIPTOR_LEN && 2 + MAX_DESCRIPTOR_LEN <= shoal_sphinx::MESSAGE_LEN);
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_100)) {
        prop_assert!(Signed::<ClientDescriptor>::decode(&bytes).is_err());
        prop_assert!(Signed::<NodeDescriptor>::decode(&bytes).is_err());
    }
}
