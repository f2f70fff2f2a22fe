//! What a hop, and whoever sees both sides of it, can join: nothing by content.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::HashSet;

use common::{Net, net};
use shoal_sphinx::*;

const MESSAGE: &[u8] = b"a message of known words, which nobody on the way shall read";

/// A packet as it comes to each hop of its path.
fn as_it_comes(codec: &dyn Codec, net: &mut Net) -> Vec<Vec<u8>> {
    let mut packet = codec.seal(&mut net.rng, &net.path, [3; 16], MESSAGE).unwrap();
    let mut all = vec![packet.as_bytes().to_vec()];
    for secret in &net.secrets {
        let opened = codec.open(secret, packet).unwrap();
        let Peeled::Forward { packet: peeled, .. } = codec.peel(opened).unwrap() else { break };
        all.push(peeled.as_bytes().to_vec());
        packet = peeled;
    }
    all
}

/// Parts of eight bytes that two texts both have.
fn parts_in_common(one: &[u8], other: &[u8]) -> usize {
    let parts: HashSet<&[u8]> = one.windows(8).collect();
    other.windows(8).filter(|part| parts.contains(part)).count()
}

/// Of packets on paths of this length: parts in common of what comes to different hops, of it and the path or the message,
/// and the most bytes that are alike in place.
fn in_common(codec: &dyn Codec, hops: usize) -> (usize, usize, usize) {
    let (mut between, mut plain, mut alike) = (0, 0, 0);
    for seed in 0..20 {
        let mut net = net(seed, hops);
        let all = as_it_comes(codec, &mut net);
        assert_eq!(all.len(), hops);
        for (n, one) in all.iter().enumerate() {
            plain += parts_in_common(one, MESSAGE);
            plain += net.path.iter().map(|hop| parts_in_common(one, &hop.address)).sum::<usize>();
            for other in &all[n + 1..] {
                between += parts_in_common(one, other);
                alike = alike.max(one.iter().zip(other).filter(|(a, b)| a == b).count());
            }
        }
    }
    (between, plain, alike)
}

#[test]
fn what_enters_and_what_leaves_a_hop_have_nothing_in_common() {
    for hops in 2..=MAX_HOPS {
        let (between, plain, alike) = in_common(&Sphinx::SCALAR, hops);
        assert_eq!((between, plain), (0, 0), "{hops} hops");
        // Of 2,396 bytes 9.4 are alike by chance, with a standard deviation of 3.1.
        assert!(alike < 30, "{hops} hops: {alike} bytes alike");
    }
    // The stand-in hides nothing, and this sees it.
    let (between, plain, alike) = in_common(&NullCodec, MAX_HOPS);
    assert!(between > 1_000 && plain > 0 && alike > 1_000, "{between} {plain} {alike}");
}

#[test]
fn a_hop_sees_neither_how_long_the_path_is_nor_where_it_stands_in_it() {
    const PACKETS: u64 = 200;
    for hops in 1..=MAX_HOPS {
        let all: Vec<_> =
            (0..PACKETS).map(|seed| as_it_comes(&Sphinx::SCALAR, &mut net(seed, hops))).collect();
        for hop in 0..hops {
            for index in 0..all[0][hop].len() {
                // Of 256 values 200 packets have 139 by chance; the last byte of a point has half of them.
                let values: HashSet<u8> = all.iter().map(|packet| packet[hop][index]).collect();
                assert!(values.len() > 70, "hop {hop} of {hops}, byte {index}: {}", values.len());
            }
        }
    }
}
