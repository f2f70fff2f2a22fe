//! Whatever the user does, and whatever is put into slots: instants, first hops and epochs of what leaves are those of an
//! uplink that nobody uses.

use std::collections::{HashMap, HashSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const CLASSES: [&str; 4] = ["text", "call", "web", "fast"];

/// What follows from documents, links and the machine, and so is the same for everyone.
#[derive(Clone, Debug)]
enum Given {
    Nothing,
    Follow(u16),
    FollowFrom(u64, u16),
    Clear(u16),
    Unlink,
    Class(usize),
    Restart,
    /// The machine is late by so many milliseconds.
    Late(u64),
}

/// What follows from use.
#[derive(Clone, Debug)]
enum Use {
    /// Asks for slots that come so many milliseconds later, or after that.
    Ask(u64),
    /// Fills a slot that was asked for, lately or long ago, the n-th of these.
    Put(u8, prop::sample::Index),
    /// Fills a slot of which the uplink never spoke.
    Invent(u8, u16),
    Credit,
    Call(u64),
    EndCall(u64),
    Collect,
}

fn given() -> impl Strategy<Value = Given> {
    prop_oneof![
        30 => Just(Given::Nothing),
        2 => (0..9_u16).prop_map(Given::Follow),
        2 => (0..2_000_u64, 0..9_u16).prop_map(|(ms, edition)| Given::FollowFrom(ms, edition)),
        1 => (0..9_u16).prop_map(Given::Clear),
        1 => Just(Given::Unlink),
        1 => (0..CLASSES.len()).prop_map(Given::Class),
        1 => Just(Given::Restart),
        2 => (1..2_500_u64).prop_map(Given::Late),
    ]
}

fn used() -> impl Strategy<Value = Use> {
    prop_oneof![
        4 => (0..400_u64).prop_map(Use::Ask),
        8 => (0..6_u8, any::<prop::sample::Index>()).prop_map(|(kind, n)| Use::Put(kind, n)),
        1 => (0..6_u8, 0..9_u16).prop_map(|(kind, edition)| Use::Invent(kind, edition)),
        2 => Just(Use::Credit),
        1 => (0..500_u64).prop_map(Use::Call),
        1 => (0..500_u64).prop_map(Use::EndCall),
        1 => Just(Use::Collect),
    ]
}

/// Two epochs, with other first hops in every edition.
fn some_turns(edition: u16) -> Vec<Turn> {
    let turn = |from, epoch: u16| Turn {
        from: Time::from_secs(from),
        epoch: Epoch(epoch.into()),
        edition: (Epoch(epoch.into()), edition),
        first_hops: (10 * edition..10 * edition + epoch + edition % 4).collect(),
    };
    vec![turn(0, 1), turn(2, 2)]
}

/// An uplink, what was sealed for its slots, and what left.
struct Driven {
    uplink: Uplink,
    /// Slots that were asked for.
    asked: Vec<Slot>,
    /// Frames that were put and have not left, by the number that is written in them.
    sealed: HashMap<u64, (Ready, Way)>,
    put: u64,
    user_frames: u64,
    loops: HashSet<PacketId>,
    left: Vec<(Time, u16, u8)>,
}

impl Driven {
    fn new(class_name: usize) -> Self {
        let mut uplink = Uplink::new(&Seed::from_u64(5), class(CLASSES[class_name]), Time::ZERO);
        uplink.clear(some_turns(0));
        let (asked, left) = Default::default();
        let (sealed, loops) = Default::default();
        Self { uplink, asked, sealed, put: 0, user_frames: 0, loops, left }
    }

    fn give(&mut self, now: Time, given: &Given) {
        match given {
            Given::Nothing | Given::Late(_) => {}
            Given::Follow(edition) => self.uplink.follow(some_turns(*edition)),
            Given::FollowFrom(ms, edition) => {
                let at = now + Duration::from_millis(*ms);
                self.uplink.follow_from(at, some_turns(*edition));
            }
            Given::Clear(edition) => self.uplink.clear(some_turns(*edition)),
            Given::Unlink => self.uplink.clear(Vec::new()),
            Given::Class(n) => self.uplink.set_class(class(CLASSES[*n])),
            Given::Restart => self.uplink.restart(now),
        }
    }

    fn put(&mut self, kind: u8, slot: Slot) {
        self.put += 1;
        let mut id = [1; 16];
        id[..8].copy_from_slice(&self.put.to_be_bytes());
        let ready = match kind {
            0 => Ready::Data,
            1 => Ready::Refill,
            2 => Ready::Letter(LetterId(3)),
            3 => Ready::Media,
            4 => Ready::Loop(id),
            _ => Ready::Drop,
        };
        let mut frame = frame(&slot);
        frame.packet.as_mut_bytes()[..16].copy_from_slice(&id);
        self.user_frames += u64::from(kind < 4);
        self.sealed.insert(self.put, (ready, slot.way));
        self.uplink.put(ready, slot, frame);
    }

    fn act(&mut self, now: Time, used: &Use) {
        let at = |ms: &u64| now + Duration::from_millis(*ms);
        match used {
            Use::Ask(ms) => {
                let wants = self.uplink.wants(at(ms));
                assert!(wants.data <= DATA && wants.refill <= REFILL);
                assert!(wants.user.len() <= wants.data + wants.refill);
                assert!(wants.media.len() <= MEDIA);
                let all = [wants.user, wants.media, wants.loops, wants.drops, wants.letters];
                for slots in &all {
                    assert!(slots.iter().all(|slot| slot.at >= at(ms)), "none that is too early");
                    assert!(slots.is_sorted_by(|a, b| a.number < b.number), "none twice");
                }
                self.asked.extend(all.concat());
            }
            Use::Put(kind, n) if !self.asked.is_empty() => self.put(*kind, *n.get(&self.asked)),
            Use::Put(..) => {}
            Use::Invent(kind, edition) => {
                let (epoch, first) = (Epoch(7), *edition);
                let way = Way { first, epoch, edition: (epoch, *edition) };
                self.put(*kind, Slot { number: 3, at: now, way });
            }
            Use::Credit => self.uplink.credit(),
            Use::Call(ms) => self.uplink.begin_call(at(ms)),
            Use::EndCall(ms) => self.uplink.end_call(at(ms)),
            Use::Collect => self.collect(),
        }
    }

    fn collect(&mut self) {
        for (id, _) in self.uplink.departed().loops {
            assert!(self.loops.insert(id), "a loop is reported once");
        }
    }

    /// One slot: exactly one frame.
    fn take(&mut self, given: &Given) {
        let at = self.uplink.next_slot();
        if at == Time::NEVER {
            return;
        }
        let late = if let Given::Late(ms) = given { *ms } else { 0 };
        let planned = self.uplink.plan[0].way;
        let frame = self.uplink.take(at + Duration::from_millis(late));
        self.left.push((at, frame.field, frame.epoch));
        let bytes = frame.packet.as_bytes();
        let number = u64::from_be_bytes(bytes[..8].try_into().unwrap());
        if bytes[8..16] == [1; 8] {
            let (_, way) = self.sealed.remove(&number).expect("a frame leaves once");
            assert_eq!(Some(way), planned, "in a slot that leads where it was sealed for");
        }
        assert!(self.uplink.next_slot() >= at);
    }

    fn check(&self) {
        let Uplink { plan, spare, filled, departed, .. } = &self.uplink;
        assert!(plan.len() <= 32 && spare.len() <= SPARE && departed.loops.len() <= 4_096);
        assert!(plan.iter().is_sorted_by(|a, b| a.number < b.number && a.at <= b.at));
        assert_eq!(filled.total(), self.left.len() as u64, "one frame in each slot");
        let user = filled.data + filled.refill + filled.letters + filled.media + filled.thrown;
        let ready = plan.iter().filter(|slot| slot.user.is_some()).count() as u64;
        assert_eq!(user + ready, self.user_frames, "what is thrown away is counted");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_leaves_is_one_frame_a_slot_and_where_it_leads_does_not_depend_on_use(
        class in 0..CLASSES.len(),
        steps in vec((given(), vec(used(), 0..8)), 1..160),
    ) {
        let (mut idle, mut busy) = (Driven::new(class), Driven::new(class));
        let mut now = Time::ZERO;
        for (given, used) in &steps {
            now = now.max(Some(idle.uplink.next_slot()).filter(|at| *at != Time::NEVER).unwrap_or(now));
            idle.give(now, given);
            busy.give(now, given);
            used.iter().for_each(|used| busy.act(now, used));
            idle.take(given);
            busy.take(given);
            busy.check();
            prop_assert_eq!(idle.left.last(), busy.left.last());
            prop_assert_eq!(idle.uplink.next_slot(), busy.uplink.next_slot());
        }
        busy.collect();
        prop_assert_eq!(busy.loops.len() as u64, busy.uplink.filled().loops);
    }
}
