//! SURBs: the ones a client waits for, and how many it believes a service still has.

#[cfg(test)]
mod properties;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use shoal_sphinx::{PacketId, Surb, SurbKeys};
use shoal_topology::{Epoch, Identity, Time};

/// SURBs that are remembered as used.
const TAKEN: usize = 1_024;

/// The SURBs that are out, and what each was made for. Bounded: beyond `max` the oldest is forgotten, and a reply
/// that still uses it is counted as unknown.
pub struct PendingReplies<U> {
    max: usize,
    taken: VecDeque<PacketId>,
    by_id: HashMap<PacketId, (U, Epoch, SurbKeys)>,
    order: VecDeque<PacketId>,
}

impl<U> PendingReplies<U> {
    /// A store with room for `max` of them.
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

    /// The SURB came back: it opens once. What it was for, its epoch, and its keys.
    pub fn take(&mut self, id: &PacketId) -> Option<(U, Epoch, SurbKeys)> {
        let taken = self.by_id.remove(id)?;
        // A reply that comes twice is told from one that nobody asked for: the first is a replay, and speaks against
        // whoever brought it; the second may be late.
        self.taken.push_back(*id);
        if self.taken.len() > TAKEN {
            self.taken.pop_front();
        }
        Some(taken)
    }

    /// True if it came back lately.
    pub fn was_taken(&self, id: &PacketId) -> bool {
        self.taken.contains(id)
    }

    /// Forgets those that this says.
    pub fn retain(&mut self, mut keep: impl FnMut(&U, Epoch) -> bool) {
        self.by_id.retain(|_, (purpose, epoch, _)| keep(purpose, *epoch));
    }

    /// How many SURBs are out.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }
}

/// SURBs that are made at once, ahead of their use: enough to fill the lanes of a codec.
pub const AHEAD: usize = 16;

/// SURBs made ahead, by the epoch in which they travel. All end at one gateway; where they begin does not matter, since
/// paths do not depend on it. Bounded by two epochs, and what is made at once.
#[derive(Default)]
pub struct SurbCache {
    to: Option<Identity>,
    stocks: BTreeMap<Epoch, VecDeque<(Surb, SurbKeys)>>,
}

impl SurbCache {
    /// Those that end at the gateway `own` and travel in `epoch`. What ends elsewhere is forgotten.
    pub fn of(&mut self, own: Identity, epoch: Epoch) -> &mut VecDeque<(Surb, SurbKeys)> {
        // A SURB leads to one inbox at one gateway. After a move those that were made ahead would bring replies to a
        // gateway to which the client is not linked any more.
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

/// With more replies a second than this the user receives something that goes on, which may stand still for so long.
const FLOW: f64 = 8.0;
const STALLS: Duration = Duration::from_secs(10);

/// What a service may have of SURBs that did not come back, beyond the stock that it shall have: what is under way, or was
/// lost of late, or is kept back by one that says that it has none.
const UNEXPLAINED: f64 = MAX_STOCK as f64;
/// Of the SURBs that are sent so many are written off as lost at once, where no loop is lost: more than an honest service
/// loses with 5 % of the packets lost each way.
const LOST: f64 = 0.125;
/// Where loops are lost, as large a share is lost each way, at most; but no more than this is written off.
const MOST_LOST: f64 = 0.5;
/// And so many SURBs/s, whatever is sent: after all were lost the stock comes back.
const WRITTEN_OFF_PER_S: f64 = 2.0;

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
///
/// A report can be a lie: one that says that there are none, in every reply, would bring SURBs without end. So what is out
/// is counted, too, and nothing is sent beyond the target and [`UNEXPLAINED`]. Lost SURBs never come back; so a share
/// of what is sent is written off at once, and a little with time. A liar gains that and no more: one SURB for each
/// 1/[`LOST`] − 1 that it sends back, and 1/(1 − [`LOST`]) times [`WRITTEN_OFF_PER_S`].
pub struct SurbBudget {
    /// SURBs of the present epoch, and of the next one.
    reported: [f64; 2],
    /// When the service last reported.
    heard: Time,
    /// What left lately and may not be in the report yet: when, for which epoch, how many.
    sent: VecDeque<(Time, Of, u8)>,
    /// Replies per second, a running mean over a second.
    demand: f64,
    /// Until when the user counts as sending or receiving.
    in_use_until: Time,
    /// Until when a stream may stand still for want of SURBs.
    stalls_until: Time,
    /// Most that the service shall have.
    most: f64,
    /// SURBs that are out, less what is written off: of the present epoch, and of the next one.
    out: [f64; 2],
    /// Until when the share that is lost with time was taken off `out`.
    written_off: Time,
    /// The share of those that are sent which is written off.
    lost: f64,
}

impl SurbBudget {
    /// Of a service that has none.
    pub fn new(now: Time) -> Self {
        Self {
            reported: [0.0; 2],
            heard: now,
            sent: VecDeque::new(),
            demand: 0.0,
            in_use_until: now,
            stalls_until: now,
            most: MAX_STOCK as f64 * 0.8,
            out: [0.0; 2],
            written_off: now,
            lost: LOST,
        }
    }

    /// The user sends or receives: replies are wanted soon. Where many came of late they are wanted for longer, as what was
    /// under way can have stopped because all of it was lost.
    pub fn in_use(&mut self, now: Time) {
        let lasts = if self.demand > FLOW { STALLS } else { Duration::from_secs(3) };
        self.in_use_until = self.in_use_until.max(now + lasts);
    }

    /// A stream is open that was used of late: the service may have more for it, and nothing to send it by. To be said
    /// several times a second, as long as it is so. This is not use: it brings what is written off with time and no more.
    pub fn may_stall(&mut self, now: Time) {
        self.stalls_until = now + PATIENCE;
    }

    /// How long ago the service last reported.
    pub fn unheard(&self, now: Time) -> Duration {
        now.since(self.heard)
    }

    /// True if the user did so lately.
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

    /// This share of the client's own loops is lost, on their way through the network.
    pub fn loops_lost(&mut self, share: f64) {
        self.lost = (LOST + 2.0 * share).min(MOST_LOST);
    }

    /// A SURB came back, whatever with.
    pub fn came_back(&mut self, of: Of) {
        let out = self.out_mut(of);
        *out = (*out - 1.0).max(0.0);
    }

    /// How many more may be out, as far as honest services have them. What is written off with time may be sent always:
    /// the target falls when a service is silent, and it may be silent as it has none.
    pub fn room(&self, now: Time, of: Of) -> usize {
        let aged = self.aged(now);
        let [present, next] = self.out;
        let out = if of == Of::Present { present } else { next };
        let out = (out - aged).max(0.0);
        (self.target(now) + UNEXPLAINED - out).max(aged.min(IDLE)) as usize
    }

    /// What was written off with time since the last SURBs left.
    fn aged(&self, now: Time) -> f64 {
        WRITTEN_OFF_PER_S * now.since(self.written_off).as_secs_f64()
    }

    fn out_mut(&mut self, of: Of) -> &mut f64 {
        let [present, next] = &mut self.out;
        if of == Of::Present { present } else { next }
    }

    fn target(&self, now: Time) -> f64 {
        let target = if self.is_in_use(now) { IN_USE + 1.2 * self.demand(now) } else { IDLE };
        target.min(self.most)
    }

    /// `count` SURBs leave with the next packet.
    pub fn sent(&mut self, now: Time, of: Of, count: usize) {
        if count == 0 {
            return;
        }
        let aged = self.aged(now);
        // What is written off with time comes off what was out in that time, before what leaves now is added to it.
        self.out = self.out.map(|out| (out - aged).max(0.0));
        self.written_off = now;
        *self.out_mut(of) += (1.0 - self.lost) * count as f64;
        self.sent.push_back((now, of, count as u8));
        // Who is idle knows of these alone what the service has, until it reports.
        let in_use = self.is_in_use(now);
        let is_over = |(at, ..): &(Time, Of, u8)| in_use && now.since(*at) > PATIENCE;
        while self.sent.front().is_some_and(is_over) || self.sent.len() > 1024 {
            self.sent.pop_front();
        }
    }

    /// A reply says how many are left, of the present epoch and of the next one.
    pub fn reported(&mut self, now: Time, stock: [u16; 2], round_trip: Duration) {
        let gap = now.since(self.heard).as_secs_f64().min(1.0);
        // Exponential smoothing over one second, a reply at a time.
        self.demand = self.demand * (1.0 - gap) + 1.0;
        // Replies that come together in one instant would add up without limit.
        self.demand = self.demand.min(2_000.0);
        self.reported = stock.map(f64::from);
        self.heard = now;
        while self.sent.front().is_some_and(|(at, ..)| now.since(*at) > round_trip) {
            self.sent.pop_front();
        }
    }

    /// How many the service lacks, of those for which there is [`SurbBudget::room`].
    pub fn missing(&self, now: Time, of: Of) -> usize {
        let silence = now.since(self.heard);
        let in_use = self.is_in_use(now);
        let [present, next] = self.reported;
        let known = if of == Of::Present { present } else { next };
        // In use a service answers within a round trip; one that does not has either nothing left or lost what it was
        // sent. Idle it has no reason to speak, and its last word holds.
        let base = if silence > PATIENCE && in_use { 0.0 } else { known };
        let under_way: f64 = self
            .sent
            .iter()
            // Who is idle gets no reply, and so no report, before the next keep-alive.
            .filter(|(at, which, _)| *which == of && (!in_use || now.since(*at) < PATIENCE))
            .map(|(.., count)| f64::from(*count))
            .sum();
        let mut lacks = (self.target(now) - base - under_way).max(0.0) as usize;
        // Not in use, and silent: a service that lost its SURBs says nothing of it, and its last word may be old.
        let stalls = !in_use && silence > PATIENCE && self.stalls_until > now;
        if stalls && of == Of::Present {
            lacks = lacks.max(self.aged(now).min(IDLE) as usize);
        }
        // The room bounds what a service that lies about its stock can bring a client to send.
        lacks.min(self.room(now, of))
    }

    /// True if so few are left that replies may soon stop: then slots carry SURBs before data.
    pub fn is_starving(&self, now: Time) -> bool {
        self.is_in_use(now) && self.missing(now, Of::Present) as f64 > 0.75 * self.target(now)
    }

    /// The next epoch begins: what was for it is for the present one now.
    pub fn turn(&mut self) {
        let [_, next] = self.reported;
        self.reported = [next, 0.0];
        let [_, next] = self.out;
        self.out = [next, 0.0];
        // What was sent for the epoch that is over is of no use to the service any more, so it must not count as on
        // its way.
        self.sent.retain_mut(|(_, of, _)| std::mem::replace(of, Of::Present) == Of::Next);
    }

    /// Nothing is known of what the service has: it is reached elsewhere. What is out still is.
    pub fn clear(&mut self) {
        self.reported = [0.0; 2];
        self.sent.clear();
    }

    /// The SURBs that are out lead nowhere any more: the client moved, or their epochs are over.
    pub fn forget(&mut self) {
        self.clear();
        self.out = [0.0; 2];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_the_oldest_surb_is_forgotten() {
        use shoal_sphinx::{Codec, Hop, NullCodec, SecretKey};
        let mut rng = shoal_topology::Seed::from_u64(1).stream("surbs");
        let key = SecretKey::from_bytes([1; 32]).public();
        let hop = Hop { address: [1; 32], key, delay: Duration::ZERO };
        let id = |n: u32| (1 + u128::from(n)).to_be_bytes();
        let mut out = PendingReplies::new(100);
        for n in 0..1_000 {
            out.put(n, Epoch(1), NullCodec.surb(&mut rng, &[hop], id(n)).unwrap().1);
            // Every third comes back at once, so that the order has gaps.
            assert!(n % 3 != 0 || out.take(&id(n)).is_some());
            assert!(out.len() <= 100 && out.order.len() <= 2 * 100 + 64, "{n}");
        }
        assert!(out.take(&id(2)).is_none());
        assert!(out.take(&id(998)).is_some_and(|(purpose, ..)| purpose == 998));
        assert!(out.take(&id(998)).is_none(), "a SURB comes back once");
    }

    #[test]
    fn surbs_made_ahead_end_where_the_client_is_and_travel_in_their_epoch() {
        use shoal_sphinx::{Codec, Hop, NullCodec, SecretKey};
        let mut rng = shoal_topology::Seed::from_u64(1).stream("surbs");
        let key = SecretKey::from_bytes([1; 32]).public();
        let hop = Hop { address: [1; 32], key, delay: Duration::ZERO };
        let (own, other) = (Identity([7; 32]), Identity([8; 32]));
        let mut ahead = SurbCache::default();
        for epoch in 1..=2 {
            let surb = NullCodec.surb(&mut rng, &[hop], [epoch; 16]).unwrap();
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
        let mut stock = SurbBudget::new(Time::ZERO);
        assert_eq!(stock.missing(Time::ZERO, Of::Present), 16);
        stock.sent(Time::ZERO, Of::Present, 16);
        assert_eq!(stock.missing(Time::ZERO, Of::Present), 0);
    }

    #[test]
    fn silence_in_use_brings_the_stock_back_and_idle_silence_does_not() {
        let mut stock = SurbBudget::new(Time::ZERO);
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
        let mut stock = SurbBudget::new(Time::ZERO);
        stock.sent(Time::ZERO, Of::Present, 16);
        for at in 0..60 {
            assert_eq!(stock.missing(Time::from_secs(at), Of::Present), 0, "{at} s");
        }
        // The answer to a keep-alive says that half were lost.
        stock.reported(Time::from_secs(20), [8, 0], Duration::from_millis(300));
        assert_eq!(stock.missing(Time::from_secs(20), Of::Present), 8);
    }

    /// A service in use that answers 80 times a second, and says that it has as many as this function of what it has.
    /// Of what is sent, and of what comes back, a share is lost. What it has at the end, and the least room there was.
    fn after(minutes: u64, loss: f64, says: impl Fn(usize) -> usize) -> (usize, usize) {
        use rand::RngExt;
        let mut rng = shoal_topology::Seed::from_u64(1).stream("losses");
        let (mut stock, mut has, mut least) = (SurbBudget::new(Time::ZERO), 0, usize::MAX);
        stock.loops_lost(2.0 * loss);
        for tick in 0..minutes * 60 * 80 {
            let now = Time::from_nanos(tick * 12_500_000);
            stock.in_use(now);
            // Five in a packet; a second packet every other time.
            for _ in 0..1 + tick % 2 {
                let count = stock.missing(now, Of::Present).min(5);
                stock.sent(now, Of::Present, count);
                has += if rng.random::<f64>() < loss { 0 } else { count };
            }
            if has > 0 {
                has -= 1;
                if rng.random::<f64>() >= loss {
                    stock.came_back(Of::Present);
                    let said = u16::try_from(says(has)).unwrap();
                    stock.reported(now, [said, 0], Duration::from_millis(150));
                }
            }
            least = least.min(stock.room(now, Of::Present));
        }
        (has, least)
    }

    #[test]
    fn an_honest_service_never_meets_the_bound_with_five_percent_lost_each_way() {
        for loss in [0.0, 0.01, 0.05, 0.2] {
            let (has, least) = after(20, loss, |has| has.min(MAX_STOCK));
            assert!(has < MAX_STOCK && least > MAX_STOCK / 2, "{loss}: {has}, {least}");
        }
    }

    #[test]
    fn a_liar_gains_one_surb_for_seven_replies_and_little_with_time() {
        let (minutes, replies) = (20, 20 * 60 * 80);
        let (has, least) = after(minutes, 0.0, |_| 0);
        let bound = 740 + replies / 7 + 60 * minutes as usize * 16 / 7;
        println!("{has} in {minutes} minutes, bound {bound}");
        assert!(has < bound && least <= 5, "{has}, {least}");
        // One that only takes.
        let mut stock = SurbBudget::new(Time::ZERO);
        for s in 0..600 {
            let now = Time::from_secs(s);
            stock.in_use(now);
            while let missing @ 1.. = stock.missing(now, Of::Present) {
                stock.sent(now, Of::Present, missing.min(5));
                has_taken(&mut stock);
            }
        }
        fn has_taken(stock: &mut SurbBudget) {
            // Nothing of it is ever reported.
            stock.sent.clear();
        }
        assert!(stock.room(Time::from_secs(599), Of::Present) <= 2);
    }

    #[test]
    fn a_silent_service_of_an_open_stream_is_sent_what_is_written_off_with_time_and_no_more() {
        for may_stall in [false, true] {
            let mut stock = SurbBudget::new(Time::ZERO);
            stock.reported(Time::ZERO, [100, 0], Duration::from_millis(100));
            let mut sent = 0;
            for tick in 0..4 * 60 {
                let now = Time::from_millis(250 * tick);
                if may_stall {
                    stock.may_stall(now);
                }
                let missing = stock.missing(now, Of::Present);
                assert_eq!(stock.missing(now, Of::Next), if tick == 0 { 16 } else { 0 });
                stock.sent(now, Of::Next, if tick == 0 { 16 } else { 0 });
                if missing >= 5 {
                    sent += missing;
                    stock.sent(now, Of::Present, missing);
                }
            }
            // Two a second of a minute, but for the first seconds.
            assert!(if may_stall { (105..=120).contains(&sent) } else { sent == 0 }, "{sent}");
            let later = Time::from_secs(100);
            assert_eq!(stock.missing(later, Of::Present), 0, "the stream has ended");
        }
    }

    #[test]
    fn what_is_out_is_counted_by_its_epoch() {
        let (mut stock, now) = (SurbBudget::new(Time::ZERO), Time::from_secs(1));
        let room = |stock: &SurbBudget| [Of::Present, Of::Next].map(|of| stock.room(now, of));
        stock.sent(now, Of::Next, 160);
        assert_eq!(room(&stock), [496, 356], "an eighth is written off");
        stock.turn();
        assert_eq!(room(&stock), [356, 496]);
        stock.came_back(Of::Present);
        stock.clear();
        assert_eq!(room(&stock), [357, 496], "elsewhere it is the same service");
        stock.forget();
        assert_eq!(room(&stock), [496, 496]);
    }

    #[test]
    fn a_limited_stock_is_filled_to_its_limit_and_no_further() {
        let mut stock = SurbBudget::new(Time::ZERO);
        stock.limit(20);
        assert_eq!(stock.missing(Time::ZERO, Of::Present), 16);
        stock.in_use(Time::ZERO);
        assert_eq!(stock.missing(Time::ZERO, Of::Present), 20);
        stock.sent(Time::ZERO, Of::Present, 16);
        assert_eq!(stock.missing(Time::ZERO, Of::Present), 4);
    }

    #[test]
    fn a_download_raises_the_stock() {
        let mut stock = SurbBudget::new(Time::ZERO);
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
        let (mut stock, now) = (SurbBudget::new(Time::ZERO), Time::from_secs(1));
        stock.reported(now, [16, 4], Duration::ZERO);
        assert_eq!((stock.missing(now, Of::Present), stock.missing(now, Of::Next)), (0, 12));
        stock.sent(now, Of::Next, 5);
        stock.sent(now, Of::Present, 3);
        assert_eq!(stock.missing(now, Of::Next), 7);
        stock.turn();
        assert_eq!((stock.missing(now, Of::Present), stock.missing(now, Of::Next)), (7, 16));
    }
}
