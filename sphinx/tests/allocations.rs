//! Opening and peeling a batch allocates nothing, once there is room for the results.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{forged, net, ours, small_order};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use shoal_sphinx::*;

/// The system's allocator, which counts what each thread asks for.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Not at the end of a thread, when the counter is gone.
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
}

#[expect(unsafe_code, reason = "the trait of an allocator is unsafe")]
// SAFETY: all is left to the system's allocator; the counter has no destructor and does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the same promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `work` allocates.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ASKED.get();
    work();
    ASKED.get() - before
}

/// Packets for one hop: to pass on, that end here, for other keys, of small order, changed, and nonsense.
fn packets(rng: &mut ChaCha12Rng, net: &mut common::Net, count: usize) -> Vec<Packet> {
    let hop = net.secrets[0].clone();
    let points = small_order();
    (0..count)
        .map(|_| {
            let hops = rng.random_range(1..=3);
            let mut packet =
                Sphinx::SCALAR.seal(rng, &net.path[..hops], [1; 16], b"hello").unwrap();
            match rng.random_range(0..8) {
                0 => packet.as_mut_bytes()[rng.random_range(0..HEADER_LEN)] ^= 0x10,
                1 => packet.as_mut_bytes()[..32].copy_from_slice(&points[rng.random_range(0..14)]),
                2 => packet = forged(rng, &hop, [9; 300]),
                3 => {
                    let mut routing = [0; 300];
                    routing[..4].copy_from_slice(&[rng.random_range(0..4), 0, 1, 4]);
                    packet = forged(rng, &hop, routing);
                }
                _ => (),
            }
            packet
        })
        .collect()
}

#[test]
fn a_box_is_counted() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn opening_and_peeling_allocate_nothing() {
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let mut net = net(1, 3);
    for (backend, codec) in ours() {
        for size in [1, 8, 17, 64] {
            let (mut results, mut peeled) = (Vec::with_capacity(size), Vec::with_capacity(size));
            let mut opened = Vec::with_capacity(size);
            // The first time may look up what the CPU has.
            for round in 0..10 {
                let mut packets = packets(&mut rng, &mut net, size);
                let count = allocations(|| {
                    codec.open_batch(&net.secrets[0], &mut packets, &mut results);
                    opened.extend(results.drain(..).flatten());
                    codec.peel_batch(&mut opened, &mut peeled);
                    peeled.clear();
                });
                assert!(round == 0 || count == 0, "{backend:?}, {size}: {count} allocations");
            }
        }
    }
}
