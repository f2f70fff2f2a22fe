//! When a client sends: slots that follow from its seed and its class alone.
//!
//! Nothing that the user does reaches [`Uplink::next_slot`]: the schedule has random streams of its own, and a slot
//! that comes is filled with whatever stands ready, at the last with filler. So the instants and sizes on the
//! link are the same for every user (DESIGN, P2). What fills a slot is prepared ahead, since sealing takes as
//! long as a slot may last.

use std::collections::VecDeque;
use std::time::Duration;

use rand::{Rng, RngExt};
use shoal_sphinx::{Frame, Packet, PacketId};
use shoal_topology::{Class, Law, Seed, Stream, Time, exponential};

/// How far the schedule may lag before it starts anew: a machine that slept sends no burst.
const MAX_LAG: Duration = Duration::from_secs(2);

/// Data frames that stand ready: they cover two slots that fall close together; more would only age.
const DATA: usize = 2;
/// Frames of SURBs that stand ready.
const REFILL: usize = 1;

/// What a frame that stands ready is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ready {
    /// A part of a tunnel.
    Data,
    /// SURBs for a service that runs low.
    Refill,
    /// A loop to oneself, by its identifier.
    Loop(PacketId),
    /// A packet that a random gateway drops.
    Drop,
}

/// How many frames of each kind are missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wants {
    /// Parts of tunnels.
    pub data: usize,
    /// SURBs.
    pub refill: usize,
    /// Loops.
    pub loops: usize,
    /// Drop cover.
    pub drops: usize,
}

/// What filled the slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Filled {
    /// Parts of tunnels.
    pub data: u64,
    /// SURBs.
    pub refill: u64,
    /// Loops.
    pub loops: u64,
    /// Drop cover.
    pub drops: u64,
    /// Random bytes, because nothing was ready in time: they die at the first mix.
    pub filler: u64,
}

impl Filled {
    /// Slots that passed.
    pub fn total(&self) -> u64 {
        self.data + self.refill + self.loops + self.drops + self.filler
    }
}

/// The schedule of a client's link, and the frames that wait for it. Every queue is as long as [`Uplink::wants`]
/// asks for; what is put in beyond that is dropped, the caller's mistake.
pub struct Uplink {
    class: Class,
    payload_gaps: Stream,
    loop_gaps: Stream,
    filler: Stream,
    next_payload: Time,
    next_loop: Time,
    data: VecDeque<Frame>,
    refill: VecDeque<Frame>,
    loops: VecDeque<(PacketId, Frame)>,
    drops: VecDeque<Frame>,
    /// How many of these, in front, are of an epoch that is over.
    old_loops: usize,
    old_drops: usize,
    first_hops: Vec<u16>,
    epoch: u8,
    /// Loops that empty slots owe. Arrivals from others are a credit.
    owed: f64,
    sent_loops: Vec<(PacketId, Time)>,
    filled: Filled,
}

impl Uplink {
    /// The schedule of a class, from `now` on.
    pub fn new(seed: &Seed, class: Class, now: Time) -> Self {
        let mut uplink = Self {
            class,
            payload_gaps: seed.stream("payload slots"),
            loop_gaps: seed.stream("loop slots"),
            filler: seed.stream("filler"),
            next_payload: now,
            next_loop: now,
            data: VecDeque::new(),
            refill: VecDeque::new(),
            loops: VecDeque::new(),
            drops: VecDeque::new(),
            old_loops: 0,
            old_drops: 0,
            first_hops: Vec::new(),
            epoch: 0,
            owed: 0.0,
            sent_loops: Vec::new(),
            filled: Filled::default(),
        };
        uplink.restart(now);
        uplink
    }

    /// Starts the schedule anew, for a link that has just been made.
    pub fn restart(&mut self, now: Time) {
        self.next_payload = now + self.payload_gap();
        self.next_loop = now + self.loop_gap();
    }

    /// The class as the document in use defines it; it holds from the next slot on.
    pub fn set_class(&mut self, class: Class) {
        self.class = class;
    }

    /// Forgets what stands ready: another document or gateway, so other paths and places in the list.
    /// `first_hops` are the places of the first layer's mixes.
    pub fn clear(&mut self, first_hops: Vec<u16>, epoch: u8) {
        self.data.clear();
        self.refill.clear();
        self.loops.clear();
        self.drops.clear();
        (self.old_loops, self.old_drops) = (0, 0);
        self.first_hops = first_hops;
        self.epoch = epoch;
    }

    /// Another epoch: filler goes to its first layer from now on. What stands ready stays, since a frame names its epoch;
    /// but cover may stand for long, so new cover takes its place one by one.
    pub fn follow(&mut self, first_hops: Vec<u16>, epoch: u8) {
        (self.first_hops, self.epoch) = (first_hops, epoch);
        (self.old_loops, self.old_drops) = (self.loops.len(), self.drops.len());
    }

    /// The instant of the next slot; never before there is a document ([`Uplink::clear`]).
    pub fn next_slot(&self) -> Time {
        if self.first_hops.is_empty() {
            return Time::NEVER;
        }
        self.next_payload.min(self.next_loop)
    }

    /// The frame of the slot that is due; call it once for each slot, at [`Uplink::next_slot`].
    pub fn take(&mut self, now: Time) -> Frame {
        if now.since(self.next_slot()) > MAX_LAG {
            self.restart(now);
        }
        if self.next_loop < self.next_payload {
            let at = self.next_loop;
            self.next_loop = at + self.loop_gap();
            return self.take_loop(at).unwrap_or_else(|| self.make_filler());
        }
        let at = self.next_payload;
        self.next_payload = at + self.payload_gap();
        let second = self.class.payload_per_s.max(1.0);
        self.owed = (self.owed + self.class.loop_share).min(second);
        if let Some(frame) = self.data.pop_front() {
            self.filled.data += 1;
            return frame;
        }
        if let Some(frame) = self.refill.pop_front() {
            self.filled.refill += 1;
            return frame;
        }
        if self.owed >= 1.0
            && let Some(frame) = self.take_loop(at)
        {
            self.owed -= 1.0;
            return frame;
        }
        if let Some(frame) = self.drops.pop_front() {
            self.old_drops = self.old_drops.saturating_sub(1);
            self.filled.drops += 1;
            return frame;
        }
        self.take_loop(at).unwrap_or_else(|| self.make_filler())
    }

    /// A packet that is no loop arrived: it takes the place of one. Bounded to a second of slots.
    pub fn credit(&mut self) {
        self.owed = (self.owed - 1.0).max(-self.class.payload_per_s.max(1.0));
    }

    /// How many frames of each kind to prepare now.
    pub fn wants(&self) -> Wants {
        // Cover does not age: it is made in batches, which are faster, when half of it is gone.
        let spare = self.spare();
        let batch = |ready: usize| if 2 * ready > spare { 0 } else { spare - ready };
        Wants {
            data: DATA.saturating_sub(self.data.len()),
            refill: REFILL.saturating_sub(self.refill.len()),
            loops: batch(self.loops.len() - self.old_loops),
            drops: batch(self.drops.len() - self.old_drops),
        }
    }

    /// Loops, and drop cover, that may stand ready: as many as a fifth of a second takes.
    fn spare(&self) -> usize {
        (self.class.payload_per_s / 5.0).ceil().clamp(2.0, 16.0) as usize
    }

    /// Puts a frame where its slot will find it.
    pub fn put(&mut self, ready: Ready, frame: Frame) {
        let spare = self.spare();
        match ready {
            Ready::Loop(_) if self.old_loops > 0 => {
                self.loops.pop_front();
                self.old_loops -= 1;
            }
            Ready::Drop if self.old_drops > 0 => {
                self.drops.pop_front();
                self.old_drops -= 1;
            }
            _ => {}
        }
        match ready {
            Ready::Data if self.data.len() < DATA => self.data.push_back(frame),
            Ready::Refill if self.refill.len() < REFILL => self.refill.push_back(frame),
            Ready::Loop(id) if self.loops.len() < spare => self.loops.push_back((id, frame)),
            Ready::Drop if self.drops.len() < spare => self.drops.push_back(frame),
            _ => {}
        }
    }

    /// Loops that were sent since the last call, and when.
    pub fn sent_loops(&mut self) -> Vec<(PacketId, Time)> {
        std::mem::take(&mut self.sent_loops)
    }

    /// What filled the slots so far.
    pub fn filled(&self) -> Filled {
        self.filled
    }

    fn take_loop(&mut self, at: Time) -> Option<Frame> {
        let (id, frame) = self.loops.pop_front()?;
        self.old_loops = self.old_loops.saturating_sub(1);
        self.filled.loops += 1;
        // The engine collects these every few slots; should it be stuck, some loops go uncounted.
        if self.sent_loops.len() < 4096 {
            self.sent_loops.push((id, at));
        }
        Some(frame)
    }

    fn make_filler(&mut self) -> Frame {
        self.filled.filler += 1;
        let mut packet = Packet::default();
        self.filler.fill_bytes(packet.as_mut_bytes());
        let pick = self.filler.random_range(0..self.first_hops.len().max(1));
        Frame { epoch: self.epoch, field: self.first_hops.get(pick).copied().unwrap_or(0), packet }
    }

    fn payload_gap(&mut self) -> Duration {
        let mean = Duration::from_secs_f64(1.0 / self.class.payload_per_s);
        match self.class.law {
            Law::Poisson => exponential(&mut self.payload_gaps, mean),
            Law::Fixed => mean,
        }
    }

    fn loop_gap(&mut self) -> Duration {
        exponential(&mut self.loop_gaps, Duration::from_secs_f64(1.0 / self.class.loops_per_s))
    }
}

#[cfg(test)]
mod tests {
    use shoal_topology::Parameters;

    use super::*;

    fn uplink() -> Uplink {
        let class = Parameters::default().class("web").cloned().unwrap();
        let mut uplink = Uplink::new(&Seed::from_u64(1), class, Time::ZERO);
        uplink.clear(vec![0], 0);
        uplink
    }

    #[test]
    fn another_epoch_moves_no_slot_and_new_cover_takes_the_place_of_old() {
        let (mut still, mut turning) = (uplink(), uplink());
        for i in 0..10_000_u32 {
            let epoch = (i / 100) as u8;
            if i % 100 == 50 {
                turning.follow((0..=u16::from(epoch % 7)).collect(), epoch);
                assert_eq!((turning.wants().loops, turning.wants().drops), (9, 9));
            }
            for uplink in [&mut still, &mut turning] {
                let Wants { loops, drops, .. } = uplink.wants();
                let new = || Frame { epoch: uplink_epoch(i), ..frame() };
                (0..loops).for_each(|_| uplink.put(Ready::Loop([1; 16]), new()));
                (0..drops).for_each(|_| uplink.put(Ready::Drop, new()));
                assert_eq!((uplink.wants().loops, uplink.wants().drops), (0, 0));
            }
            assert_eq!(still.next_slot(), turning.next_slot(), "slot {i}");
            let at = still.next_slot();
            still.take(at);
            let frame = turning.take(at);
            assert_eq!(frame.epoch, uplink_epoch(i), "slot {i}");
        }
        assert_eq!(still.filled().total(), turning.filled().total());
        assert_eq!(turning.filled().filler, 0);
    }

    /// The epoch after slot `i`.
    fn uplink_epoch(i: u32) -> u8 {
        if i < 50 { 0 } else { ((i - 50) / 100) as u8 }
    }

    fn frame() -> Frame {
        Frame { epoch: 0, field: 0, packet: Packet::default() }
    }

    #[test]
    fn the_instants_do_not_depend_on_what_fills_them() {
        let (mut idle, mut busy) = (uplink(), uplink());
        for i in 0..10_000 {
            if i % 3 > 0 {
                busy.put(Ready::Data, frame());
                busy.put(Ready::Refill, frame());
                busy.put(Ready::Loop([i as u8; 16]), frame());
            }
            if i % 5 == 0 {
                busy.credit();
            }
            assert_eq!(idle.next_slot(), busy.next_slot(), "slot {i}");
            let at = idle.next_slot();
            idle.take(at);
            busy.take(at);
        }
        assert!(busy.filled().data > 6_000);
    }

    #[test]
    fn cover_is_wanted_in_batches_and_never_runs_out() {
        let mut uplink = uplink();
        let mut batches = Vec::new();
        for _ in 0..10_000 {
            let Wants { drops, loops, .. } = uplink.wants();
            batches.extend([drops, loops].into_iter().filter(|wanted| *wanted > 0));
            (0..drops).for_each(|_| uplink.put(Ready::Drop, frame()));
            (0..loops).for_each(|_| uplink.put(Ready::Loop([1; 16]), frame()));
            assert_eq!((uplink.wants().drops, uplink.wants().loops), (0, 0));
            let at = uplink.next_slot();
            uplink.take(at);
        }
        assert_eq!(uplink.filled().filler, 0);
        // Of 10 that may stand ready.
        assert!(batches.iter().all(|count| (5..=10).contains(count)), "{batches:?}");
    }

    #[test]
    fn the_slots_come_at_the_rate_of_the_class() {
        let mut uplink = uplink();
        while uplink.next_slot() < Time::from_secs(1_000) {
            let at = uplink.next_slot();
            uplink.take(at);
        }
        // 50,000 expected, standard deviation 224.
        let slots = uplink.filled().filler as f64;
        assert!((slots - 50_000.0).abs() < 5.0 * 224.0, "{slots}");
    }

    #[test]
    fn arrivals_take_the_place_of_loops() {
        for (arrivals_per_slot, expected) in [(0.0, 0.5), (0.25, 0.25), (0.5, 0.0)] {
            let mut uplink = uplink();
            let mut credit = 0.0;
            for _ in 0..20_000 {
                uplink.put(Ready::Loop([1; 16]), frame());
                uplink.put(Ready::Drop, frame());
                credit += arrivals_per_slot;
                if credit >= 1.0 {
                    credit -= 1.0;
                    uplink.credit();
                }
                uplink.next_loop = Time::NEVER;
                let at = uplink.next_slot();
                uplink.take(at);
            }
            let share = uplink.filled().loops as f64 / 20_000.0;
            assert!((share - expected).abs() < 0.01, "{arrivals_per_slot}: {share}");
        }
    }

    #[test]
    fn a_machine_that_slept_sends_no_burst() {
        let mut uplink = uplink();
        let woken = Time::from_secs(100);
        uplink.take(woken);
        assert!(uplink.next_slot() > woken);
    }
}
