//! SURBs: the ones a client waits for, and how many it believes a service still has.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use shoal_sphinx::{PacketId, Surb, SurbKeys};
use shoal_topology::{Epoch, Identity, Time};

/// SURBs that are remembered as used.
const TAKEN: usize = 1_024;

/// The SURBs that are out, and what each was made for. Bounded: beyond `max` the oldest is forgotten, and a reply
/// that still uses it is counted as unknown.
pub struct Outstanding<U> {
    max: usize,
    taken: VecDeque<PacketId>,
    by_id: HashMap<PacketId, (U, Epoch, SurbKeys)>,
    order: VecDeque<PacketId>,
}

impl<U> Outstanding<U> {
    /// Room for `max`.
    pub fn new(max: usize) -> Self {
        Self { max, taken: VecDeque::new(), by_id: HashMap::new(), order: VecDeque::new() }
    }

    /// Keeps the keys of a SURB of an epoch that goes out.
    pub fn put(&mut self, purpose: U, epoch: Epoch, keys: SurbKeys) {
        let id = keys.id();
        self.by_id.insert(id, (purpose, epoch, keys));
        self.order.push_back(id);
        while self.by_id.len() > self.max {
            let Some(oldest) = self.order.pop_front() else { break };
            self.by_id.remove(&oldest);
        }
        // Identifiers of SURBs that came back stay in the order until they are half of it.
        if self.order.len() > 2 * self.by_id.len() + 64 {
            self.order.retain(|id| self.by_id.contains_key(id));
        }
    }

    /// The SURB came back: it opens once.
    pub fn take(&mut self, id: &PacketId) -> Option<(U, SurbKeys)> {
        let taken = self.by_id.remove(id).map(|(purpose, _, keys)| (purpose, keys))?;
        self.taken.push_back(*id);
        if self.taken.len() > TAKEN {
            self.taken.pop_front();
        }
        Some(taken)
    }

    /// Whether it came back lately.
    pub fn was_taken(&self, id: &PacketId) -> bool {
        self.taken.contains(id)
    }

    /// Forgets those that this says.
    pub fn retain(&mut self, mut keep: impl FnMut(&U, Epoch) -> bool) {
        self.by_id.retain(|_, (purpose, epoch, _)| keep(purpose, *epoch));
    }

    /// How many are out.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }
}

/// SURBs that are made at once, ahead of their use: enough to fill the lanes of a codec.
pub const AHEAD: usize = 16;

/// SURBs made ahead, by the epoch in which they travel. All end at one gateway; where they begin does not matter, since
/// paths do not depend on it. Bounded by two epochs, and what is made at once.
#[derive(Default)]
pub struct Ahead {
    to: Option<Identity>,
    stocks: BTreeMap<Epoch, VecDeque<(Surb, SurbKeys)>>,
}

impl Ahead {
    /// Those that end at the gateway `own` and travel in `epoch`. What ends elsewhere is forgotten.
    pub fn of(&mut self, own: Identity, epoch: Epoch) -> &mut VecDeque<(Surb, SurbKeys)> {
        if self.to != Some(own) {
            self.to = Some(own);
            self.stocks.clear();
        }
        self.stocks.entry(epoch).or_default()
    }

    /// Forgets those of epochs before this one.
    pub fn forget_before(&mut self, epoch: Epoch) {
        self.stocks.retain(|of, _| *of >= epoch);
    }
}

/// Fewest SURBs that a service shall have at hand, idle and in use.
const IDLE: f64 = 16.0;
const IN_USE: f64 = 64.0;
/// Most, a bound on the memory of both ends.
pub const MAX_STOCK: usize = 480;
/// With no word from the service for so long, what it reported counts for nothing.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Which epoch a SURB is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Of {
    /// The one whose keys packets use.
    Present,
    /// The one after it: the service keeps them until it begins.
    Next,
}

/// A client's estimate of a service's stock. Each reply reports it; what was sent in the round trip before that
/// is not yet in the report. Packets get lost, so an estimate that only added and subtracted would drift.
pub struct Stock {
    /// SURBs of the present epoch, and of the next one.
    reported: [f64; 2],
    heard: Time,
    sent: VecDeque<(Time, Of, u8)>,
    /// Replies per second, a running mean over a second.
    demand: f64,
    in_use_until: Time,
    /// Most that the service shall have.
    most: f64,
}

impl Stock {
    /// Of a service that has none.
    pub fn new(now: Time) -> Self {
        Self {
            reported: [0.0; 2],
            heard: now,
            sent: VecDeque::new(),
            demand: 0.0,
            in_use_until: now,
            most: MAX_STOCK as f64 * 0.8,
        }
    }

    /// The user sends or receives: replies are wanted soon.
    pub fn in_use(&mut self, now: Time) {
        self.in_use_until = now + Duration::from_secs(3);
    }

    /// Whether the user did so lately.
    pub fn is_in_use(&self, now: Time) -> bool {
        self.in_use_until > now
    }

    /// Replies per second, of late.
    pub fn demand(&self, now: Time) -> f64 {
        self.demand * (1.0 - now.since(self.heard).as_secs_f64()).max(0.0)
    }

    /// The service shall have no more than so many.
    pub fn limit(&mut self, most: usize) {
        self.most = most.min(MAX_STOCK) as f64;
    }

    fn target(&self, now: Time) -> f64 {
        let target = if self.is_in_use(now) { IN_USE + 1.2 * self.demand(now) } else { IDLE };
        target.min(self.most)
    }

    /// `count` SURBs leave.
    pub fn sent(&mut self, now: Time, of: Of, count: usize) {
        if count == 0 {
            return;
        }
        self.sent.push_back((now, of, count as u8));
        while self.sent.front().is_some_and(|(at, ..)| now.since(*at) > PATIENCE)
            || self.sent.len() > 1024
        {
            self.sent.pop_front();
        }
    }

    /// A reply says how many are left, of the present epoch and of the next one.
    pub fn reported(&mut self, now: Time, stock: [u16; 2], round_trip: Duration) {
        let gap = now.since(self.heard).as_secs_f64().min(1.0);
        // Exponential smoothing over one second, a reply at a time.
        self.demand = self.demand * (1.0 - gap) + 1.0;
        self.demand = self.demand.min(2_000.0);
        self.reported = stock.map(f64::from);
        self.heard = now;
        while self.sent.front().is_some_and(|(at, ..)| now.since(*at) > round_trip) {
            self.sent.pop_front();
        }
    }

    /// How many the service lacks.
    pub fn missing(&self, now: Time, of: Of) -> usize {
        let silence = now.since(self.heard);
        let in_use = self.is_in_use(now);
        let [present, next] = self.reported;
        let known = if of == Of::Present { present } else { next };
        let base = if silence > PATIENCE && in_use { 0.0 } else { known };
        let under_way: f64 = self
            .sent
            .iter()
            // Who is idle gets no reply, and so no report, before the next keep-alive.
            .filter(|(at, which, _)| *which == of && (!in_use || now.since(*at) < PATIENCE))
            .map(|(.., count)| f64::from(*count))
            .sum();
        (self.target(now) - base - under_way).max(0.0) as usize
    }

    /// Whether so few are left that replies may soon stop: then slots carry SURBs before data.
    pub fn is_starving(&self, now: Time) -> bool {
        self.is_in_use(now) && self.missing(now, Of::Present) as f64 > 0.75 * self.target(now)
    }

    /// The next epoch begins: what was for it is for the present one now.
    pub fn turn(&mut self) {
        let [_, next] = self.reported;
        self.reported = [next, 0.0];
        self.sent.retain_mut(|(_, of, _)| std::mem::replace(of, Of::Present) == Of::Next);
    }

    /// The SURBs that are out lead nowhere any more: the client moved.
    pub fn clear(&mut self) {
        self.reported = [0.0; 2];
        self.sent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_the_oldest_surb_is_forgotten() {
        use shoal_sphinx::{Codec, Hop, SecretKey, StandIn};
        let mut rng = shoal_topology::Seed::from_u64(1).stream("surbs");
        let key = SecretKey::from_bytes([1; 32]).public();
        let hop = Hop { address: [1; 32], key, delay: Duration::ZERO };
        let id = |n: u32| (1 + u128::from(n)).to_be_bytes();
        let mut out = Outstanding::new(100);
        for n in 0..1_000 {
            out.put(n, Epoch(1), StandIn.surb(&mut rng, &[hop], id(n)).unwrap().1);
            // Every third comes back at once, so that the order has gaps.
            assert!(n % 3 != 0 || out.take(&id(n)).is_some());
            assert!(out.len() <= 100 && out.order.len() <= 2 * 100 + 64, "{n}");
        }
        assert!(out.take(&id(2)).is_none());
        assert!(out.take(&id(998)).is_some_and(|(purpose, _)| purpose == 998));
        assert!(out.take(&id(998)).is_none(), "a SURB comes back once");
    }

    #[test]
    fn surbs_made_ahead_end_where_the_client_is_and_travel_in_their_epoch() {
        use shoal_sphinx::{Codec, Hop, SecretKey, StandIn};
        let mut rng = shoal_topology::Seed::from_u64(1).stream("surbs");
        let key = SecretKey::from_bytes([1; 32]).public();
        let hop = Hop { address: [1; 32], key, delay: Duration::ZERO };
        let (own, other) = (Identity([7; 32]), Identity([8; 32]));
        let mut ahead = Ahead::default();
        for epoch in 1..=2 {
            let surb = StandIn.surb(&mut rng, &[hop], [epoch; 16]).unwrap();
            ahead.of(own, Epoch(epoch.into())).push_back(surb);
        }
        for epoch in 1..=2 {
            let stock = ahead.of(own, Epoch(epoch.into()));
            let ids: Vec<_> = stock.iter().map(|(_, keys)| keys.id()).collect();
            assert_eq!(ids, [[epoch; 16]]);
        }
        ahead.forget_before(Epoch(2));
        assert!(ahead.of(own, Epoch(1)).is_empty(), "an epoch that is over");
        assert_eq!(ahead.of(own, Epoch(2)).len(), 1);
        assert!(ahead.of(other, Epoch(2)).is_empty(), "another gateway");
        assert!(ahead.of(own, Epoch(2)).is_empty());
    }

    #[test]
    fn a_service_that_was_sent_enough_lacks_nothing() {
        let mut stock = Stock::new(Time::ZERO);
        assert_eq!(stock.missing(Time::ZERO, Of::Present), 16);
        stock.sent(Time::ZERO, Of::Present, 16);
        assert_eq!(stock.missing(Time::ZERO, Of::Present), 0);
    }

    #[test]
    fn silence_in_use_brings_the_stock_back_and_idle_silence_does_not() {
        let mut stock = Stock::new(Time::ZERO);
        stock.reported(Time::ZERO, [100, 0], Duration::from_millis(100));
        let later = Time::from_secs(4);
        assert_eq!(stock.missing(later, Of::Present), 0);
        stock.in_use(later);
        assert_eq!(stock.missing(later, Of::Present), 64);
        stock.sent(later, Of::Present, 64);
        assert_eq!(stock.missing(later, Of::Present), 0);
        stock.in_use(Time::from_secs(6));
        assert_eq!(stock.missing(Time::from_secs(6), Of::Present), 64);
    }

    #[test]
    fn an_idle_stock_is_filled_once() {
        let mut stock = Stock::new(Time::ZERO);
        stock.sent(Time::ZERO, Of::Present, 16);
        for at in 0..60 {
            assert_eq!(stock.missing(Time::from_secs(at), Of::Present), 0, "{at} s");
        }
        // The answer to a keep-alive says that half were lost.
        stock.reported(Time::from_secs(20), [8, 0], Duration::from_millis(300));
        assert_eq!(stock.missing(Time::from_secs(20), Of::Present), 8);
    }

    #[test]
    fn a_limited_stock_is_filled_to_its_limit_and_no_further() {
        let mut stock = Stock::new(Time::ZERO);
        stock.limit(20);
        assert_eq!(stock.missing(Time::ZERO, Of::Present), 16);
        stock.in_use(Time::ZERO);
        assert_eq!(stock.missing(Time::ZERO, Of::Present), 20);
        stock.sent(Time::ZERO, Of::Present, 16);
        assert_eq!(stock.missing(Time::ZERO, Of::Present), 4);
    }

    #[test]
    fn a_download_raises_the_stock() {
        let mut stock = Stock::new(Time::ZERO);
        for i in 0..600 {
            let now = Time::from_millis(i * 5);
            stock.in_use(now);
            stock.reported(now, [0, 0], Duration::from_millis(300));
        }
        let missing = stock.missing(Time::from_millis(3_000), Of::Present);
        assert!((250..=384).contains(&missing), "{missing}");
    }

    #[test]
    fn what_was_given_out_for_the_next_epoch_is_the_stock_when_it_begins() {
        let (mut stock, now) = (Stock::new(Time::ZERO), Time::from_secs(1));
        stock.reported(now, [16, 4], Duration::ZERO);
        assert_eq!((stock.missing(now, Of::Present), stock.missing(now, Of::Next)), (0, 12));
        stock.sent(now, Of::Next, 5);
        stock.sent(now, Of::Present, 3);
        assert_eq!(stock.missing(now, Of::Next), 7);
        stock.turn();
        assert_eq!((stock.missing(now, Of::Present), stock.missing(now, Of::Next)), (7, 16));
    }
}
