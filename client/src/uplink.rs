//! When a client sends, and where to: slots that follow from its seed, its class and the documents alone.
//!
//! Nothing that the user does reaches the schedule. It has random streams of its own: the slots come at equal gaps, the
//! phase of their two grids is drawn, and each slot draws a number that selects its first hop among the first layer's mixes
//! of the document in use at its instant; its epoch is that of its instant. So what a gateway sees of each frame that
//! leaves (instant, first hop, epoch) is the same for every user, to the bit (property P2 of THREAT-MODEL.md).
//!
//! What fills a slot is sealed for it ahead, since sealing takes as long as a slot may last: slots are planned over a short
//! horizon, each with cover, and what the user has takes the earliest that it can still make. The cover that it displaces
//! goes to a later slot with the same first hop and epoch, or is thrown away. A slot for which nothing fits carries random
//! bytes. When another document takes the place of one that slots were planned by, they are resolved anew, by the same
//! numbers, and frames that fit no more are thrown away. Something of the user's is lost so only where a document comes for
//! an epoch that has begun or begins within the horizon, or amends one in use; or where the engine was late by more than it
//! told [`Uplink::wants`], and no slot of the horizon has the same first hop. Tunnels send it again.

mod cover;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use rand::Rng;
use shoal_sphinx::{CLIENT_CONTROL, Frame, Packet, PacketId};
use shoal_topology::{Class, Seed, Stream, Time};

use cover::Account;
use plan::{Cover, Fill, Grid, Planned, way};
pub use plan::{Slot, Turn, Way};

/// How far the schedule may lag before it starts anew: a machine that slept sends no burst.
const MAX_LAG: Duration = Duration::from_secs(2);

/// Data frames that stand ready; more would only age.
const DATA: usize = 2;
/// Frames of SURBs that stand ready.
const REFILL: usize = 1;
/// Letters that stand ready at a time.
const LETTERS: usize = 1;
/// Frames of media that stand ready.
const MEDIA: usize = 2;
/// Cover that lost its slot and waits for another one; beyond it the oldest is thrown away.
const SPARE: usize = 32;

/// The name of a letter to a person, among those of one client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LetterId(pub u64);

/// What became of frames since the last call of [`Uplink::departed`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Departed {
    /// Loops that left, and when.
    pub loops: Vec<(PacketId, Time)>,
    /// Letters that left.
    pub letters: Vec<LetterId>,
    /// Letters that were sealed for a slot and leave in none.
    pub thrown: Vec<LetterId>,
}

/// What a frame that stands ready is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ready {
    /// A part of a tunnel.
    Data,
    /// SURBs for a service that runs low.
    Refill,
    /// A message to a person, which never takes the place of a loop.
    Letter(LetterId),
    /// Media of a call, or the silence that stands for it.
    Media,
    /// A loop to oneself, by its identifier.
    Loop(PacketId),
    /// A packet that a random gateway drops.
    Drop,
}

/// The slots that lack something, the earliest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wants {
    /// Payload slots that are free for what the user has.
    pub user: Vec<Slot>,
    /// How many of these may take parts of tunnels.
    pub data: usize,
    /// How many may take SURBs, behind them.
    pub refill: usize,
    /// Payload slots that are free for letters: those that are kept for them, or of drop cover; the same as some of the user's. None
    /// while enough letters stand ready.
    pub letters: Vec<Slot>,
    /// Slots of a call that lack media.
    pub media: Vec<Slot>,
    /// Slots that lack a loop.
    pub loops: Vec<Slot>,
    /// Slots that lack drop cover.
    pub drops: Vec<Slot>,
}

/// How many slots each kind of frame filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Filled {
    /// Parts of tunnels, with or without SURBs beside them.
    pub data: u64,
    /// Messages with SURBs alone, for services that ran low.
    pub refill: u64,
    /// Messages to people.
    pub letters: u64,
    /// Media of calls.
    pub media: u64,
    /// Loops to the client itself.
    pub loops: u64,
    /// Packets that a random gateway drops.
    pub drops: u64,
    /// Control messages to the gateway.
    pub controls: u64,
    /// Random bytes, because nothing was ready in time: they die at the first mix.
    pub filler: u64,
    /// No slots: frames of the user's that were sealed for one and left in none.
    pub thrown: u64,
}

impl Filled {
    /// How many slots have passed.
    pub fn total(&self) -> u64 {
        let of_user = self.data + self.refill + self.letters + self.media;
        of_user + self.loops + self.drops + self.controls + self.filler
    }
}

/// The schedule of a client's link, and the frames that wait for their slots.
///
/// The thread that owns the link calls [`Uplink::take`] once at each [`Uplink::next_slot`]; whoever seals packets
/// asks [`Uplink::wants`] now and then, at least a few times within the 0.3 s that the horizon spans, and gives each
/// frame to [`Uplink::put`]. What [`Uplink::next_slot`] and [`Uplink::wants`] say goes stale with every call that
/// changes the schedule: [`Uplink::take`], [`Uplink::put`], [`Uplink::restart`], [`Uplink::clear`],
/// [`Uplink::follow`], [`Uplink::begin_call`] and [`Uplink::end_call`].
pub struct Uplink {
    /// The rates of the link.
    class: Class,
    /// The slots that carry what the user has, or cover.
    payload: Grid,
    /// The slots that carry a loop, always.
    loops: Grid,
    /// How many loops payload slots owe, or may leave out.
    account: Account,
    /// Random bytes for slots for which nothing is ready.
    filler: Stream,
    /// Where slots lead, by the documents in use; empty while nothing may be sent.
    turns: Vec<Turn>,
    /// The slots of the horizon, the earliest first.
    plan: VecDeque<Planned>,
    /// Cover that lost its slot and waits for another one, at most [`SPARE`].
    spare: VecDeque<Cover>,
    /// The payload slots that belong to a call: from, until.
    call: (Time, Time),
    /// A control message to the gateway, and from when on it may leave.
    control: Option<(Time, Packet)>,
    /// The number of the next slot that is planned.
    next_number: u64,
    /// What left and what was thrown away, which the engine has not been told of yet.
    departed: Departed,
    /// What filled the slots so far.
    filled: Filled,
}

impl Uplink {
    /// The schedule of a class, from `now` on.
    pub fn new(seed: &Seed, class: Class, now: Time) -> Self {
        let mut uplink = Self {
            class,
            payload: Grid::new(seed, "payload slots"),
            loops: Grid::new(seed, "loop slots"),
            account: Account::new(seed),
            filler: seed.stream("filler"),
            turns: Vec::new(),
            plan: VecDeque::new(),
            spare: VecDeque::new(),
            call: (Time::NEVER, Time::NEVER),
            control: None,
            next_number: 0,
            departed: Departed::default(),
            filled: Filled::default(),
        };
        uplink.restart(now);
        uplink
    }

    /// Starts the schedule anew, for a link that has just been made. What stands ready goes.
    pub fn restart(&mut self, now: Time) {
        self.throw_away();
        self.plan.clear();
        self.payload.restart(now, self.payload_gap());
        self.loops.restart(now, self.loop_gap());
        self.extend();
    }

    /// The class as the document in use defines it; it holds for slots that are not planned yet.
    pub fn set_class(&mut self, class: Class) {
        self.class = class;
    }

    /// Forgets what stands ready: another gateway, so other paths. `turns` say where slots lead, the earliest first; none
    /// while nothing may be sent.
    pub fn clear(&mut self, turns: Vec<Turn>) {
        self.throw_away();
        self.control = None;
        for slot in self.plan.iter_mut().filter(|slot| slot.fill == Fill::Control) {
            slot.fill = Fill::Drop;
        }
        self.turns = turns;
        self.plan.iter_mut().for_each(|slot| slot.way = way(&self.turns, slot.at, slot.draw));
    }

    /// Another epoch or document. What stands ready stays, if its slot leads where it did.
    pub fn follow(&mut self, turns: Vec<Turn>) {
        self.turns = turns;
        let mut thrown = Vec::new();
        for slot in &mut self.plan {
            let now = way(&self.turns, slot.at, slot.draw);
            if now != slot.way {
                slot.way = now;
                slot.cover = None;
                thrown.extend(slot.user.take());
            }
        }
        thrown.into_iter().for_each(|(ready, _)| self.thrown(ready));
        let turns = &self.turns;
        let stays = |cover: &Cover| {
            let fits =
                |turn: &Turn| (turn.epoch, turn.edition) == (cover.way.epoch, cover.way.edition);
            turns.iter().any(fits)
        };
        self.spare.retain(stays);
    }

    /// As [`Uplink::follow`], but slots before `at` lead where they did: so it does not show when the caller got to it.
    pub fn follow_from(&mut self, at: Time, turns: Vec<Turn>) {
        let next = self.next_slot();
        let over = self.turns.iter().rposition(|turn| turn.from <= next).unwrap_or(0);
        let mut all: Vec<Turn> = self.turns.split_off(over);
        all.retain(|turn| turn.from < at);
        all.extend(turns.into_iter().map(|turn| Turn { from: turn.from.max(at), ..turn }));
        self.follow(all);
    }

    /// From `at` on the payload slots that chance chose for loops carry media, until [`Uplink::end_call`]. Both parties
    /// begin and end at agreed instants, so that at either gateway media and loops neither overlap nor leave a gap.
    pub fn begin_call(&mut self, at: Time) {
        self.call = (at, Time::NEVER);
        self.decide_anew();
    }

    /// From `at` on they carry loops again.
    pub fn end_call(&mut self, at: Time) {
        self.call.1 = at;
        self.decide_anew();
    }

    /// The first payload slot from `at` on that is not planned yet carries this control message to the gateway, which so sees it
    /// come at the same instant whatever the user does, if `at` lies beyond the horizon. One that has not left yet gives way to
    /// it, and one for a gateway that is left goes with the link.
    pub fn send_control(&mut self, at: Time, message: Packet) {
        self.control = Some((at, message));
    }

    /// The instant of the next slot; never before there is a document ([`Uplink::clear`]).
    pub fn next_slot(&self) -> Time {
        if self.turns.is_empty() {
            return Time::NEVER;
        }
        self.plan.front().map_or(Time::NEVER, |slot| slot.at)
    }

    /// The frame of the slot that is due; call it once for each slot, at [`Uplink::next_slot`].
    pub fn take(&mut self, now: Time) -> Frame {
        // A machine that slept would otherwise send all slots that it missed in one burst, and a burst of a length
        // that follows from how long it slept.
        if now.since(self.next_slot()) > MAX_LAG {
            self.restart(now);
        }
        let slot = self.plan.pop_front();
        self.extend();
        let Some(mut slot) = slot else { return self.make_filler(None) };
        if slot.fill == Fill::Control
            && let Some((_, packet)) = self.control.take()
        {
            self.filled.controls += 1;
            return Frame { epoch: 0, field: CLIENT_CONTROL, packet };
        }
        if let Some((ready, frame)) = slot.user.take() {
            match ready {
                Ready::Refill => self.filled.refill += 1,
                Ready::Letter(id) => {
                    self.filled.letters += 1;
                    self.departed.letters.push(id);
                }
                Ready::Media => self.filled.media += 1,
                _ => self.filled.data += 1,
            }
            self.displaced(&slot);
            return frame;
        }
        let cover = slot.cover.take().or_else(|| {
            let way = slot.way?;
            // The way must be the slot's own, since the gateway sees first hop and epoch; what is inside it cannot
            // see. So cover of the other kind is better than filler, which the first mix would tell from packets.
            self.take_spare(way, Some(slot.fill)).or_else(|| self.take_spare(way, None))
        });
        match (slot.fill, cover.as_ref().map(Cover::fill)) {
            (Fill::Loop, Some(Fill::Loop)) => {}
            // A payload slot that was to carry a loop and had none: the loop is owed, so that as many arrive as at
            // rest.
            (Fill::Loop, _) => self.displaced(&slot),
            // Better a loop ahead of its time than filler.
            (_, Some(Fill::Loop)) => _ = self.account.book(&self.class, -1.0),
            _ => {}
        }
        let Some(Cover { id, frame, .. }) = cover else { return self.make_filler(slot.way) };
        match id {
            Some(id) => {
                self.filled.loops += 1;
                // The engine collects these every few slots; should it be stuck, some loops go uncounted.
                if self.departed.loops.len() < 4096 {
                    self.departed.loops.push((id, slot.at));
                }
            }
            None => self.filled.drops += 1,
        }
        frame
    }

    /// A packet that is no loop arrived: it takes the place of one, up to a bound.
    /// In a call it takes the place of none: there are no loops in payload slots, and none must be missing behind it.
    pub fn credit(&mut self) {
        let next = self.next_slot();
        // By the next slot and not by the present instant: a call begins and ends between slots, and the account is
        // of those that are still to come.
        if !(self.call.0 <= next && next < self.call.1) {
            self.account.book(&self.class, -1.0);
        }
    }

    /// The slots to seal for now, of those that come at `from` or later: what is sealed for an earlier one would be late.
    pub fn wants(&mut self, from: Time) -> Wants {
        self.place_spare();
        let mut wants = Wants::default();
        if self.turns.is_empty() {
            return wants;
        }
        // What already stands ready counts: else each look would ask for as much again, and frames would age in the
        // plan.
        let ready = |kind: fn(&Ready) -> bool| {
            let is = |slot: &&Planned| slot.user.as_ref().is_some_and(|(of, _)| kind(of));
            self.plan.iter().filter(is).count()
        };
        let media = MEDIA.saturating_sub(ready(|of| *of == Ready::Media));
        wants.data = DATA.saturating_sub(ready(|of| *of == Ready::Data));
        wants.refill = REFILL.saturating_sub(ready(|of| *of == Ready::Refill));
        let letters = ready(|of| matches!(of, Ready::Letter(_))) < LETTERS;
        let free =
            |slot: &Planned| slot.at >= from && slot.user.is_none() && slot.fill != Fill::Control;
        let mut soon = false;
        for (ahead, slot) in self.plan.iter().enumerate().filter(|(_, slot)| free(slot)) {
            let Some(usable) = slot.slot() else { continue };
            if slot.fill == Fill::Media {
                if wants.media.len() < media {
                    wants.media.push(usable);
                }
                continue;
            }
            // Loop slots (those without a chance) never carry what the user has: how many loops come back is what
            // shows that a gateway loses packets.
            if slot.chance.is_some() && wants.user.len() < wants.data + wants.refill {
                wants.user.push(usable);
            }
            if letters && takes_letters(&self.class, slot) {
                wants.letters.push(usable);
            }
            if slot.cover.is_none() {
                soon |= 2 * ahead < self.horizon();
                let of = if slot.fill == Fill::Loop { &mut wants.loops } else { &mut wants.drops };
                of.push(usable);
            }
        }
        // Cover is made in batches, which are faster, when a slot of the nearer half lacks it.
        if !soon {
            wants.loops.clear();
            wants.drops.clear();
        }
        wants
    }

    /// Puts a frame that was sealed for a slot where it will be found. If the slot has passed, or takes something else
    /// meanwhile, another one that leads the same way will do.
    pub fn put(&mut self, ready: Ready, slot: Slot, frame: Frame) {
        let id = match ready {
            Ready::Loop(id) => Some(id),
            Ready::Drop => None,
            Ready::Data | Ready::Refill | Ready::Letter(_) | Ready::Media => {
                return self.put_user(ready, slot, frame);
            }
        };
        let cover = Cover { way: slot.way, id, frame };
        let fits = |planned: &&mut Planned| {
            planned.number == slot.number
                && planned.way == Some(slot.way)
                && planned.fill == cover.fill()
                && planned.cover.is_none()
                && planned.user.is_none()
        };
        match self.plan.iter_mut().find(fits) {
            Some(planned) => planned.cover = Some(cover),
            None => self.keep_spare(cover),
        }
    }

    fn put_user(&mut self, ready: Ready, slot: Slot, frame: Frame) {
        let class = &self.class;
        let takes = |planned: &Planned| {
            planned.way == Some(slot.way)
                && planned.user.is_none()
                && planned.chance.is_some()
                && planned.fill != Fill::Control
                && (planned.fill == Fill::Media) == (ready == Ready::Media)
                && (!matches!(ready, Ready::Letter(_)) || takes_letters(class, planned))
        };
        let own = self.plan.iter().position(|p| p.number == slot.number && takes(p));
        let index = own.or_else(|| self.plan.iter().position(takes));
        match index.and_then(|index| self.plan.get_mut(index)) {
            Some(planned) => {
                planned.user = Some((ready, frame));
                if let Some(cover) = planned.cover.take() {
                    self.keep_spare(cover);
                }
            }
            None => self.thrown(ready),
        }
    }

    /// What left, and what will not, since the last call. The engine is to be told before it seals anew.
    pub fn departed(&mut self) -> Departed {
        std::mem::take(&mut self.departed)
    }

    /// What filled the slots so far.
    pub fn filled(&self) -> Filled {
        self.filled
    }

    /// Slots that are planned: as many as 0.3 s take, or a few.
    fn horizon(&self) -> usize {
        let per_s = self.class.payload_per_s + self.class.loops_per_s;
        (0.3 * per_s).ceil().clamp(4.0, 32.0) as usize
    }

    /// Plans as many slots as the horizon has.
    fn extend(&mut self) {
        while self.plan.len() < self.horizon() {
            let is_loop = self.loops.next() < self.payload.next();
            let (at, draw) = if is_loop {
                self.loops.advance(self.loop_gap())
            } else {
                self.payload.advance(self.payload_gap())
            };
            if at == Time::NEVER {
                return;
            }
            let chance = (!is_loop).then(|| self.account.chance(&self.class));
            let mut planned = Planned {
                number: self.next_number,
                at,
                draw,
                chance,
                way: way(&self.turns, at, draw),
                fill: Fill::Loop,
                booked: 0.0,
                cover: None,
                user: None,
            };
            self.next_number += 1;
            let is_due = self.control.as_ref().is_some_and(|(from, _)| *from <= at)
                && self.plan.iter().all(|slot| slot.fill != Fill::Control);
            if is_due && planned.chance.is_some() {
                planned.fill = Fill::Control;
            } else {
                decide(&mut self.account, &self.class, self.call, &mut planned);
            }
            self.plan.push_back(planned);
        }
    }

    /// A call begins or ends: what the planned slots carry is decided anew.
    fn decide_anew(&mut self) {
        let (mut lost, mut thrown) = (Vec::new(), Vec::new());
        for slot in self.plan.iter_mut().filter(|slot| slot.fill != Fill::Control) {
            let before = slot.fill;
            self.account.book(&self.class, -slot.booked);
            decide(&mut self.account, &self.class, self.call, slot);
            if (before == Fill::Media) != (slot.fill == Fill::Media) {
                thrown.extend(slot.user.take());
            }
            if before != slot.fill {
                lost.extend(slot.cover.take());
            }
        }
        thrown.into_iter().for_each(|(ready, _)| self.thrown(ready));
        lost.into_iter().for_each(|cover| self.keep_spare(cover));
    }

    /// A payload slot that was to carry a loop carried something else: the loop is owed.
    fn displaced(&mut self, slot: &Planned) {
        if slot.chance.is_some() && slot.fill == Fill::Loop {
            self.account.book(&self.class, 1.0);
        }
    }

    fn throw_away(&mut self) {
        let mut thrown = Vec::new();
        for slot in &mut self.plan {
            slot.cover = None;
            thrown.extend(slot.user.take());
        }
        thrown.into_iter().for_each(|(ready, _)| self.thrown(ready));
        self.spare.clear();
    }

    /// Something of the user's was sealed for a slot and leaves in none.
    fn thrown(&mut self, ready: Ready) {
        self.filled.thrown += 1;
        if let Ready::Letter(id) = ready {
            self.departed.thrown.push(id);
        }
    }

    fn keep_spare(&mut self, cover: Cover) {
        if self.spare.len() >= SPARE {
            self.spare.pop_front();
        }
        self.spare.push_back(cover);
    }

    fn take_spare(&mut self, way: Way, fill: Option<Fill>) -> Option<Cover> {
        let fits = |cover: &Cover| cover.way == way && fill.is_none_or(|fill| cover.fill() == fill);
        let at = self.spare.iter().position(fits)?;
        self.spare.remove(at)
    }

    /// Gives cover that lost its slot to the earliest one that it fits.
    fn place_spare(&mut self) {
        let mut left = VecDeque::new();
        for cover in std::mem::take(&mut self.spare) {
            let fits = |slot: &&mut Planned| {
                slot.way == Some(cover.way)
                    && slot.fill == cover.fill()
                    && slot.cover.is_none()
                    && slot.user.is_none()
            };
            match self.plan.iter_mut().find(fits) {
                Some(slot) => slot.cover = Some(cover),
                None => left.push_back(cover),
            }
        }
        self.spare = left;
    }

    fn make_filler(&mut self, way: Option<Way>) -> Frame {
        self.filled.filler += 1;
        let mut packet = Packet::default();
        self.filler.fill_bytes(packet.as_mut_bytes());
        let (epoch, field) = way.map_or((0, 0), |way| (way.epoch.low_byte(), way.first));
        Frame { epoch, field, packet }
    }

    fn payload_gap(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.class.payload_per_s)
    }

    fn loop_gap(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.class.loops_per_s)
    }
}

/// True if a slot is one that letters may take, so that the loops of whoever writes stay what they are.
/// A class all of whose slots carry loops has no others.
fn takes_letters(class: &Class, slot: &Planned) -> bool {
    let of_loops = class.loop_share >= 1.0 && slot.fill == Fill::Loop;
    let is_kept = |chance: plan::Chance| chance.is_for_letters || class.letter_share() == 0.0;
    slot.chance.is_some_and(is_kept) && (slot.fill == Fill::Drop || of_loops)
}

/// What a slot carries if nothing of the user's does.
fn decide(account: &mut Account, class: &Class, call: (Time, Time), slot: &mut Planned) {
    let in_call = call.0 <= slot.at && slot.at < call.1;
    (slot.fill, slot.booked) = match slot.chance {
        None => (Fill::Loop, 0.0),
        // What is owed either way waits until the call is over.
        Some(chance) if in_call && chance.chosen => (Fill::Media, 0.0),
        Some(_) if in_call => (Fill::Drop, 0.0),
        Some(chance) => account.fill(class, chance),
    };
}
