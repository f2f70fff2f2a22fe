//! Whatever a service says, does and loses, and in whatever order SURBs come back.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;
use shoal_sphinx::{Codec, Hop, NullCodec, SecretKey};
use shoal_topology::Seed;

use super::*;

/// What happens to a stock. Of two epochs, the next one if so.
#[derive(Clone, Debug)]
enum Happens {
    /// As many as are missing leave; as many as there is room for where what the service has is unknown.
    Send {
        next: bool,
        unknown: bool,
    },
    Back(bool, u8),
    Report([u16; 2]),
    Use,
    Turn,
    Clear,
    Forget,
    Limit(usize),
    Lost(f64),
    Pass(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    let stocks = prop_oneof![Just([0, 0]), any::<[u16; 2]>(), [0..500_u16, 0..500]];
    prop_oneof![
        12 => any::<(bool, bool)>().prop_map(|(next, unknown)| Happens::Send { next, unknown }),
        2 => (any::<bool>(), 1..9_u8).prop_map(|(next, count)| Happens::Back(next, count)),
        4 => stocks.prop_map(Happens::Report),
        3 => Just(Happens::Use),
        1 => Just(Happens::Turn),
        1 => Just(Happens::Clear),
        1 => Just(Happens::Forget),
        1 => (0..2_000_usize).prop_map(Happens::Limit),
        1 => (0.0..1.0_f64).prop_map(Happens::Lost),
        8 => (0..3_000_u64).prop_map(Happens::Pass),
    ]
}

/// What is out of an epoch, less what is written off, by the promise: a share of what is sent, and 2/s.
#[derive(Clone, Copy)]
struct Out {
    sent: f64,
    since: Time,
}

impl Out {
    fn left(&self, now: Time) -> f64 {
        self.sent - WRITTEN_OFF_PER_S * now.since(self.since).as_secs_f64()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_service_whatever_it_says_is_sent_no_more_surbs_than_the_bound(
        steps in vec(happens(), 1..300),
    ) {
        let mut now = Time::ZERO;
        let mut stock = SurbBudget::new(now);
        let mut out = [Out { sent: 0.0, since: now }; 2];
        let mut most = 0.8 * MAX_STOCK as f64;
        let mut lost = LOST;
        for step in steps {
            let of = |next: bool| if next { Of::Next } else { Of::Present };
            match step {
                Happens::Send { next, unknown } => {
                    let missing = stock.missing(now, of(next));
                    let count = if unknown { stock.room(now, of(next)) } else { missing }.min(200);
                    stock.sent(now, of(next), count);
                    out[usize::from(next)].sent += (1.0 - lost) * count as f64;
                }
                Happens::Back(next, count) => {
                    for _ in 0..count {
                        stock.came_back(of(next));
                        out[usize::from(next)].sent -= 1.0;
                    }
                }
                Happens::Report(says) => stock.reported(now, says, Duration::from_millis(200)),
                Happens::Use => stock.in_use(now),
                Happens::Turn => {
                    stock.turn();
                    out = [out[1], Out { sent: 0.0, since: now }];
                }
                Happens::Clear => stock.clear(),
                Happens::Forget => {
                    stock.forget();
                    out = [Out { sent: 0.0, since: now }; 2];
                }
                Happens::Limit(to) => {
                    stock.limit(to);
                    most = most.max(to.min(MAX_STOCK) as f64);
                }
                Happens::Lost(share) => {
                    stock.loops_lost(share);
                    lost = (LOST + 2.0 * share).min(MOST_LOST);
                }
                Happens::Pass(ms) => now += Duration::from_millis(ms),
            }
            for (next, out) in [false, true].into_iter().zip(out) {
                let (missing, room) = (stock.missing(now, of(next)), stock.room(now, of(next)));
                prop_assert!(missing <= room && missing <= MAX_STOCK, "{missing} of {room}");
                // A count that is cut to a whole number costs one at most.
                prop_assert!(out.left(now) <= most + UNEXPLAINED + 1.0, "{} out", out.left(now));
            }
            prop_assert!(stock.is_in_use(now) || !stock.is_starving(now));
            prop_assert!((0.0..=2_000.0).contains(&stock.demand(now)));
            prop_assert!(stock.sent.len() <= 1_024);
        }
    }

    #[test]
    fn a_surb_comes_back_at_most_once_and_the_oldest_are_forgotten(
        max in 1..40_usize,
        steps in vec((0..8_u8, any::<prop::sample::Index>(), 0..4_u64), 1..300),
    ) {
        let mut rng = Seed::from_u64(1).stream("surbs");
        let key = SecretKey::from_bytes([1; 32]).public();
        let hop = Hop { address: [1; 32], key, delay: Duration::ZERO };
        let mut out = PendingReplies::new(max);
        // All that were ever put, and those that are out, the oldest first.
        let (mut all, mut live) = (Vec::new(), VecDeque::new());
        for (kind, which, epoch) in steps {
            match kind {
                0..=3 => {
                    let id = (1 + all.len() as u128).to_be_bytes();
                    let (_, keys) = NullCodec.surb(&mut rng, &[hop], id).unwrap();
                    out.put(all.len(), Epoch(epoch), keys);
                    all.push((id, epoch));
                    live.push_back(id);
                    if live.len() > max {
                        live.pop_front();
                    }
                }
                4..=6 if !all.is_empty() => {
                    let n = which.index(all.len());
                    let (id, epoch) = all[n];
                    let found = out.take(&id).map(|(purpose, of, keys)| (purpose, of, keys.id()));
                    let is_out = live.contains(&id);
                    prop_assert_eq!(found, is_out.then_some((n, Epoch(epoch), id)));
                    live.retain(|other| *other != id);
                    prop_assert!(!is_out || out.was_taken(&id));
                }
                _ => {
                    out.retain(|_, of| of.0 != epoch);
                    live.retain(|id| all[u128::from_be_bytes(*id) as usize - 1].1 != epoch);
                }
            }
            prop_assert_eq!(out.len(), live.len());
            prop_assert!(out.len() <= max && out.order.len() <= 2 * max + 65);
        }
    }
}
