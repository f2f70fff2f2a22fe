mod properties;

use std::sync::Arc;

use shoal_topology::{Epoch, Parameters};

use super::*;

fn class(name: &str) -> Class {
    Parameters::default().class(name).cloned().unwrap()
}

/// Two epochs of 10 s, with 5 mixes in the first layer and then 7.
fn turns(edition: u16) -> Vec<Turn> {
    let turn = |from, epoch, count: u16| Turn {
        from: Time::from_secs(from),
        epoch: Epoch(epoch),
        edition: (Epoch(epoch), edition),
        first_hops: (epoch as u16..epoch as u16 + count).collect(),
    };
    vec![turn(0, 1, 5), turn(10, 2, 7)]
}

fn uplink_of(name: &str) -> Uplink {
    let mut uplink = Uplink::new(&Seed::from_u64(1), class(name), Time::ZERO);
    uplink.clear(turns(0));
    uplink
}

fn uplink() -> Uplink {
    uplink_of("web")
}

fn frame(slot: &Slot) -> Frame {
    let (epoch, field) = (slot.way.epoch.low_byte(), slot.way.first);
    Frame { epoch, field, packet: Packet::default() }
}

/// Fills all that wants cover.
fn cover(uplink: &mut Uplink, now: Time) -> (usize, usize) {
    let wants = uplink.wants(now);
    wants.loops.iter().for_each(|slot| uplink.put(Ready::Loop([1; 16]), *slot, frame(slot)));
    wants.drops.iter().for_each(|slot| uplink.put(Ready::Drop, *slot, frame(slot)));
    (wants.loops.len(), wants.drops.len())
}

/// What leaves until `end`: instant, first hop, epoch byte. `act` is called before each slot.
fn leaves(
    uplink: &mut Uplink,
    end: Time,
    mut act: impl FnMut(&mut Uplink, Time, u64),
) -> Vec<(Time, u16, u8)> {
    let mut seen = Vec::new();
    while uplink.next_slot() < end {
        let at = uplink.next_slot();
        act(uplink, at, seen.len() as u64);
        assert_eq!(uplink.next_slot(), at);
        let frame = uplink.take(at);
        seen.push((at, frame.field, frame.epoch));
    }
    seen
}

#[test]
fn instants_first_hops_and_epochs_do_not_depend_on_what_fills_the_slots() {
    for name in ["text", "call", "web", "fast"] {
        let end = Time::from_secs(20);
        let idle = leaves(&mut uplink_of(name), end, |_, _, _| {});
        let mut busy = uplink_of(name);
        let seen = leaves(&mut busy, end, |uplink, now, n| {
            // Another document for the epoch to come, at an instant that has nothing to do with use.
            if n % 3 > 0 {
                let Wants { user, media, data, .. } = uplink.wants(now);
                user.iter()
                    .zip(0..data)
                    .for_each(|(slot, _)| uplink.put(Ready::Data, *slot, frame(slot)));
                media.iter().for_each(|slot| uplink.put(Ready::Media, *slot, frame(slot)));
                cover(uplink, now);
            }
            if n % 5 == 0 {
                uplink.credit();
            }
            match n {
                40 => uplink.begin_call(now + Duration::from_millis(100)),
                200 => uplink.end_call(now),
                _ => {}
            }
        });
        assert!(idle == seen, "{name}");
        let filled = busy.filled();
        assert!(filled.data > 0 && filled.total() == idle.len() as u64, "{name}: {filled:?}");
        let epochs = |byte| seen.iter().filter(|(.., epoch)| *epoch == byte).count();
        assert!(epochs(1) > 0 && epochs(2) > 0 && epochs(1) + epochs(2) == seen.len());
    }
}

#[test]
fn the_epoch_and_the_layer_of_a_slot_are_those_of_its_instant() {
    let seen = leaves(&mut uplink(), Time::from_secs(20), |_, _, _| {});
    for (at, first, epoch) in &seen {
        let (expected, hops) = if *at < Time::from_secs(10) { (1, 1..6) } else { (2, 2..9) };
        assert!(*epoch == expected && hops.contains(first), "{at:?}: {first}, {epoch}");
    }
    let gaps: std::collections::BTreeSet<_> =
        seen.windows(2).map(|w| w[1].0.since(w[0].0)).collect();
    assert!(gaps.len() < 60, "two grids, whose gaps come again and again: {}", gaps.len());
}

#[test]
fn another_document_keeps_the_slots_and_throws_away_what_no_longer_fits() {
    let (mut still, mut turning) = (uplink(), uplink());
    let mut thrown = 0;
    for i in 0..900_u32 {
        let now = still.next_slot();
        assert_eq!(now, turning.next_slot(), "slot {i}");
        if i % 100 == 50 {
            let mut other = turns((i / 100) as u16 + 1);
            other.iter_mut().for_each(|turn| turn.first_hops = Arc::from([90, 91]));
            turning.follow(other);
        }
        if i % 100 == 52 {
            turning.follow(turns(0));
        }
        for uplink in [&mut still, &mut turning] {
            cover(uplink, now);
            let Wants { user, data, .. } = uplink.wants(now);
            if i % 7 == 0 && data > 0 {
                uplink.put(Ready::Data, user[0], frame(&user[0]));
            }
        }
        still.take(now);
        let frame = turning.take(now);
        let other = (50..52).contains(&(i % 100));
        assert_eq!(frame.field >= 90, other, "slot {i}: {}", frame.field);
        thrown = turning.filled().thrown;
    }
    assert_eq!(still.filled().total(), turning.filled().total());
    assert_eq!((still.filled().filler, turning.filled().filler), (0, 0));
    // Of 129 frames of data, at eighteen changes.
    assert!(thrown <= 18, "{thrown}");
}

#[test]
fn data_takes_the_earliest_slot_that_it_can_still_make() {
    let mut uplink = uplink();
    let now = uplink.next_slot();
    let early = uplink.wants(now);
    let later = uplink.wants(now + Duration::from_millis(15));
    assert!(early.user[0].at < now + Duration::from_millis(21));
    assert!(later.user.iter().all(|slot| slot.at >= now + Duration::from_millis(15)));
    assert!(early.user.len() == 3 && early.data == 2 && early.refill == 1);
    assert!(early.user.windows(2).all(|w| w[1].at.since(w[0].at) == Duration::from_millis(20)));
    // One that comes when its slot has passed goes to another with the same first hop.
    let slot = early.user[0];
    while uplink.next_slot() <= slot.at {
        let at = uplink.next_slot();
        uplink.take(at);
    }
    uplink.put(Ready::Data, slot, frame(&slot));
    leaves(&mut uplink, now + Duration::from_secs(1), |_, _, _| {});
    assert_eq!((uplink.filled().data, uplink.filled().thrown), (1, 0));
}

#[test]
fn cover_is_wanted_in_batches_never_runs_out_and_is_used_again() {
    let mut uplink = uplink();
    let (mut batches, mut sealed) = (Vec::new(), 0);
    leaves(&mut uplink, Time::from_secs(20), |uplink, now, n| {
        let (loops, drops) = cover(uplink, now);
        sealed += loops + drops;
        if loops + drops > 0 && n > 0 {
            batches.push(loops + drops);
        }
        assert_eq!(cover(uplink, now), (0, 0));
    });
    assert_eq!(uplink.filled().filler, 0);
    let ahead = sealed as u64 - uplink.filled().total();
    assert!(ahead <= 17, "{ahead}");
    assert!(batches.iter().all(|count| (8..=17).contains(count)), "{batches:?}");

    // An upload in every payload slot: most of what it displaces serves again.
    let mut busy = self::uplink();
    let mut sealed = 0;
    leaves(&mut busy, Time::from_secs(10), |uplink, now, _| {
        let (loops, drops) = cover(uplink, now);
        sealed += loops + drops;
        let Wants { user, data, .. } = uplink.wants(now);
        user.iter().zip(0..data).for_each(|(slot, _)| uplink.put(Ready::Data, *slot, frame(slot)));
    });
    let filled = busy.filled();
    assert!(filled.data > 490 && filled.thrown == 0, "{filled:?}");
    assert!(sealed < 300, "{sealed} for {filled:?}");
}

#[test]
fn arrivals_take_the_place_of_loops() {
    for (arrivals_per_slot, expected) in [(0.0, 0.5), (0.25, 0.25), (0.5, 0.0)] {
        let mut uplink = uplink();
        let mut credit = 0.0;
        leaves(&mut uplink, Time::from_secs(400), |uplink, now, _| {
            cover(uplink, now);
            credit += arrivals_per_slot * 50.0 / 55.0;
            if credit >= 1.0 {
                credit -= 1.0;
                uplink.credit();
            }
        });
        let share = (uplink.filled().loops as f64 - 2_000.0) / 20_000.0;
        assert!((share - expected).abs() < 0.015, "{arrivals_per_slot}: {share}");
    }
}

#[test]
fn loops_that_data_displaces_come_later() {
    let loops = |data_every: u64| {
        let mut uplink = uplink();
        leaves(&mut uplink, Time::from_secs(200), |uplink, now, n| {
            let Wants { user, .. } = uplink.wants(now);
            if n % data_every == 0 {
                uplink.put(Ready::Data, user[0], frame(&user[0]));
            }
            cover(uplink, now);
        });
        uplink.filled().loops as f64
    };
    let (rest, busy) = (loops(1_000_000), loops(5));
    assert!((rest - busy).abs() < 0.01 * rest, "{rest} at rest, {busy}");
}

#[test]
fn in_a_call_media_fill_the_slots_that_chance_chose_for_loops_and_nothing_else() {
    let (mut rest, mut call) = (uplink_of("call"), uplink_of("call"));
    let (from, until) = (Time::from_secs(3), Time::from_secs(12));
    let mut kinds = [Vec::new(), Vec::new()];
    for (n, uplink) in [&mut rest, &mut call].into_iter().enumerate() {
        leaves(uplink, Time::from_secs(20), |uplink, now, i| {
            if n == 1 && i == 10 {
                uplink.begin_call(from);
            }
            if n == 1 && i == 200 {
                uplink.end_call(until);
            }
            let media = uplink.wants(now).media;
            media.iter().for_each(|slot| uplink.put(Ready::Media, *slot, frame(slot)));
            cover(uplink, now);
            let filled = uplink.filled();
            kinds[n].push((now, filled.loops + filled.media, filled.media, filled.drops));
        });
    }
    // Loops and media together, and drop cover, are where loops and drop cover are at rest.
    let [rest_kinds, call_kinds] = kinds;
    assert!(rest_kinds.iter().zip(&call_kinds).all(|(a, b)| (a.0, a.1, a.3) == (b.0, b.1, b.3)));
    // What had left before the first slot at an instant or later.
    let media = |at: Time| call_kinds.iter().find(|(t, ..)| *t >= at).unwrap().2;
    assert_eq!((media(from), call.filled().media - media(until)), (0, 0));
    let rate = call.filled().media as f64 / 9.0;
    assert!((rate - 22.5).abs() < 1.5, "{rate} media/s");
    assert_eq!(call.filled().filler, 0);
}

#[test]
fn it_does_not_show_when_the_engine_got_to_a_document_that_came_late() {
    let from = Time::from_secs(4);
    // The 50th slot to the 200th are before that.
    let seen = |engine_is_there_at: usize, waits: bool| {
        let (mut uplink, mut seen) = (uplink(), Vec::new());
        let mut other = turns(1);
        other[0].first_hops = (30..36).collect();
        leaves(&mut uplink, Time::from_secs(12), |uplink, now, n| {
            if n == engine_is_there_at as u64 && waits {
                uplink.follow_from(from, other.clone());
            } else if n == engine_is_there_at as u64 {
                uplink.follow(other.clone());
            }
            let slots = uplink.plan.iter().take(1);
            seen.extend(slots.map(|slot| (now, slot.way)));
        });
        seen
    };
    let (early, late) = (seen(50, true), seen(200, true));
    assert!(early == late);
    let first_hop = |at: Time| {
        let way = early.iter().find(|(now, _)| *now >= at).unwrap().1.unwrap();
        (way.epoch.0, way.first >= 30)
    };
    assert_eq!(first_hop(Time::from_secs(3)), (1, false));
    assert_eq!(first_hop(from + Duration::from_millis(100)), (1, true));
    assert_eq!(first_hop(Time::from_secs(11)), (2, false));
    assert!(seen(50, false) != seen(200, false), "the control");
}

#[test]
fn slots_follow_the_last_of_documents_that_come_soon_after_each_other() {
    let mut uplink = uplink();
    for n in 1..20_u64 {
        uplink.follow_from(Time::from_millis(100 * n), turns(n as u16));
        assert!(uplink.turns.len() <= 22, "{:?}", uplink.turns);
    }
    leaves(&mut uplink, Time::from_secs(12), |uplink, now, _| {
        let edition = uplink.plan[0].way.unwrap().edition.1;
        let expected = (uplink.plan[0].at.as_nanos() / 100_000_000).min(19);
        assert_eq!(u64::from(edition), expected, "{now:?}");
    });
    uplink.follow_from(Time::from_secs(12), turns(20));
    assert!(uplink.turns.len() <= 3, "what is over is forgotten");
}

#[test]
fn a_machine_that_slept_sends_no_burst() {
    let mut uplink = uplink();
    let woken = Time::from_secs(100);
    uplink.take(woken);
    assert!(uplink.next_slot() > woken);
}

#[test]
fn a_control_message_takes_the_same_slot_whatever_else_there_is() {
    let said = |busy: bool, call: bool| {
        let mut uplink = uplink();
        let message = Packet::default();
        let mut said = 0;
        let seen = leaves(&mut uplink, Time::from_secs(4), |uplink, now, n| {
            if n == 10 {
                uplink.send_control(Time::from_secs(2), message.clone());
            }
            if call && n == 60 {
                uplink.begin_call(Time::from_millis(1_900));
            }
            cover(uplink, now);
            let wants = uplink.wants(now);
            if busy {
                wants
                    .letters
                    .iter()
                    .take(1)
                    .for_each(|s| uplink.put(Ready::Letter(LetterId(1)), *s, frame(s)));
                wants.user.iter().for_each(|slot| uplink.put(Ready::Data, *slot, frame(slot)));
                wants.media.iter().for_each(|slot| uplink.put(Ready::Media, *slot, frame(slot)));
            }
            said = uplink.filled().controls;
        });
        let filled = uplink.filled();
        assert_eq!((said, filled.controls), (1, 1));
        assert_eq!(filled.total(), seen.len() as u64);
        assert!(!busy || filled.data + filled.letters > 50, "{filled:?}");
        seen
    };
    let at_rest = said(false, false);
    let (at, ..) = *at_rest.iter().find(|(_, field, _)| *field == CLIENT_CONTROL).unwrap();
    assert!(at >= Time::from_secs(2) && at < Time::from_millis(2_021), "{at:?}");
    assert_eq!(said(true, false), at_rest);
    assert_eq!(said(true, true), at_rest);
}

#[test]
fn a_control_message_goes_with_the_link_and_a_later_one_takes_its_place() {
    let mut uplink = uplink();
    let message = |byte| {
        let mut packet = Packet::default();
        packet.as_mut_bytes()[0] = byte;
        packet
    };
    uplink.send_control(Time::ZERO, message(1));
    leaves(&mut uplink, Time::from_millis(50), |_, _, _| {});
    uplink.clear(turns(0));
    leaves(&mut uplink, Time::from_secs(1), |_, _, _| {});
    assert_eq!(uplink.filled().controls, 0);
    uplink.send_control(Time::ZERO, message(2));
    uplink.send_control(Time::ZERO, message(3));
    let mut said = Vec::new();
    while uplink.next_slot() < Time::from_secs(2) {
        let frame = uplink.take(uplink.next_slot());
        if frame.field == CLIENT_CONTROL {
            said.push(frame.packet.as_bytes()[0]);
        }
    }
    assert_eq!(said, [3]);
}

/// Slots before and behind one with a letter at which loops are counted.
const AROUND: usize = 24;

/// Loops in each slot around those in which letters left, less those around any slot that a letter may take, each in standard
/// deviations. Letters are written at random instants, and take the first slot that they may.
fn around_letters(name: &str, letters: u64) -> Vec<f64> {
    let class = class(name);
    let mut uplink = uplink_of(name);
    let rng = &mut Seed::from_u64(2).stream("instants of letters");
    let mean = Duration::from_secs_f64(40.0 / class.payload_per_s);
    let mut due = Time::ZERO + shoal_topology::exponential(rng, mean);
    // Of each slot: whether a loop left in it, whether a letter did, and whether one could have.
    let mut slots: Vec<(bool, bool, bool)> = Vec::new();
    while uplink.filled().letters < letters {
        let at = uplink.next_slot();
        cover(&mut uplink, at);
        let wants = uplink.wants(at);
        let may = wants.letters.first().filter(|slot| slot.at == at);
        if let Some(slot) = may
            && due <= at
        {
            uplink.put(Ready::Letter(LetterId(1)), *slot, frame(slot));
            due = at + shoal_topology::exponential(rng, mean);
        }
        let before = uplink.filled();
        uplink.take(at);
        let after = uplink.filled();
        let is_letter = after.letters > before.letters;
        slots.push((after.loops > before.loops, is_letter, may.is_some()));
    }
    let loops = |of: fn(&(bool, bool, bool)) -> bool| {
        let mut sums = vec![0.0; 2 * AROUND + 1];
        let inner = slots.len().saturating_sub(2 * AROUND);
        let middles = slots.iter().enumerate().skip(AROUND).take(inner).filter(|(_, s)| of(s));
        let mut count = 0.0;
        for (middle, _) in middles {
            count += 1.0;
            for (sum, slot) in sums.iter_mut().zip(&slots[middle - AROUND..]) {
                *sum += f64::from(u8::from(slot.0));
            }
        }
        sums.iter_mut().for_each(|sum| *sum /= count);
        (sums, count)
    };
    let ((with, count), (any, of_any)) = (loops(|slot| slot.1), loops(|slot| slot.2));
    let z = |(with, any): (&f64, &f64)| {
        let deviation = (any * (1.0 - any)).max(1e-4).sqrt();
        (with - any) / (deviation * (1.0 / count + 1.0 / of_any).sqrt())
    };
    with.iter().zip(&any).map(z).collect()
}

#[test]
fn when_a_letter_leaves_says_nothing_of_the_loops_around_it() {
    let z = around_letters("text", 4_000);
    // Of 49: beyond 4 by chance in one run of three hundred.
    assert!(z.iter().all(|z| z.abs() < 4.0), "{z:.1?}");
}

#[test]
fn letters_have_the_share_of_slots_that_the_class_has_for_them() {
    for name in ["text", "call", "web", "fast"] {
        let class = class(name);
        let mut uplink = uplink_of(name);
        let (mut kept, mut all, mut loops) = (0.0, 0.0, 0.0);
        for _ in 0..40_000 {
            let at = uplink.next_slot();
            cover(&mut uplink, at);
            let wants = uplink.wants(at);
            let is =
                |slots: &[Slot]| f64::from(u8::from(slots.first().is_some_and(|s| s.at == at)));
            kept += is(&wants.letters);
            let before = uplink.filled();
            uplink.take(at);
            all += 1.0;
            loops += (uplink.filled().loops - before.loops) as f64;
        }
        let payload = all * class.payload_per_s / (class.payload_per_s + class.loops_per_s);
        let share = kept / payload;
        let free = if name == "text" { class.letter_share() } else { 1.0 - class.loop_share };
        assert!((share - free).abs() < 0.01, "{name}: {share}");
        let share = (loops - (all - payload)) / payload;
        assert!((share - class.loop_share).abs() < 0.01, "{name}: {share} of loops");
    }
}
