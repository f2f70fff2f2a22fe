//! What is told between devices beside messages: what came, and what is missed.

use super::*;
use crate::frame::{Ack, Frame};
use crate::session::Session;

impl People {
    /// What a device is told of what came from it: of the stream that it waits for, or of that which came last.
    pub(super) fn ack(&mut self, now: u64, device: u32) -> Option<Ack> {
        let peer = self.peers.get_mut(&device)?;
        let streams = &mut peer.kept.streams;
        let of = streams.iter_mut().max_by_key(|received| (received.is_owed, received.last))?;
        of.is_owed = false;
        let ack = of.ack();
        let still = streams.iter().any(|received| received.is_owed);
        let mean_ms = self.settings.receipts_ms;
        peer.kept.owed_at = still.then(|| later(&mut self.draws, now, mean_ms));
        self.save_peer(device);
        Some(ack)
    }

    /// Acknowledges, or asks, where nothing else was sent to a device.
    pub(super) fn send_note(&mut self, now: u64, device: u32) {
        let Some(listed) = self.roster.devices.get(&device).copied() else { return };
        let Some(peer) = self.peers.get_mut(&device) else { return };
        let is_due = |at: Option<u64>| at.is_some_and(|at| at <= now);
        let kept = &mut peer.kept;
        let (owes, wants) = (is_due(kept.owed_at), is_due(kept.want_at));
        let is_broken = is_due(kept.broken_at);
        if !(is_broken || owes || wants) {
            return;
        }
        if listed.held_until.saturating_mul(1_000) > now {
            return self.put_off(now, device);
        }
        if is_broken {
            peer.sessions.values_mut().for_each(Session::retire);
            let all: Vec<u32> = peer.sessions.keys().copied().collect();
            all.into_iter().for_each(|number| self.save_session(device, number));
        }
        let number = match self.session_for(now, device) {
            Ok(number) => number,
            Err(Waiting::Keys) => return,
            Err(_) => return self.put_off(now, device),
        };
        let Some(body) = self.note(now, device, (is_broken, wants)) else {
            return self.save_peer(device);
        };
        let ack = match (&body, self.peers.get_mut(&device)) {
            (Body::Want(stream @ 1..), Some(peer)) => Some(peer.stream(*stream).ack()),
            _ => self.ack(now, device),
        };
        let frame = Frame { content: body.encode(), ..nothing(ack) };
        self.save_peer(device);
        for packet in self.seal(device, number, &frame) {
            self.post(Posted::Note, listed.address, packet);
        }
    }

    /// What a device is told that is owed something; none if nothing is, after all.
    fn note(&mut self, now: u64, device: u32, (is_broken, wants): (bool, bool)) -> Option<Body> {
        let kept = &mut self.peers.get_mut(&device)?.kept;
        if is_broken {
            kept.broken_at = None;
            return Some(Body::Want(0));
        }
        if !wants {
            return Some(Body::Empty);
        }
        let streams = &mut kept.streams;
        let mut open: Vec<_> =
            streams.iter_mut().filter(|received| received.is_asked_for()).collect();
        open.sort_by_key(|received| received.asked);
        kept.want_at = None;
        let first = open.first_mut()?;
        let given_up = first.ask();
        let stream = first.stream;
        // Those that were asked for least come first.
        let next = open.iter().filter(|received| received.is_asked_for());
        let next = next.map(|received| received.asked).min();
        let mean = next.map(|asked| match asked {
            0..3 => ACK_MS,
            3..6 => 6 * HOUR_MS,
            _ => DAY_MS,
        });
        kept.want_at = mean.map(|mean| later(&mut self.draws, now, mean));
        if given_up > 0 {
            self.effects.push_back(Output::Missed(device, given_up));
        }
        Some(Body::Want(stream))
    }

    /// What a device is told that has no keys waits.
    fn put_off(&mut self, now: u64, device: u32) {
        let Some(peer) = self.peers.get_mut(&device) else { return };
        let kept = &mut peer.kept;
        for at in [&mut kept.owed_at, &mut kept.want_at, &mut kept.broken_at] {
            if at.is_some_and(|at| at <= now) {
                *at = Some(later(&mut self.draws, now + SOUGHT_MS, ACK_MS));
            }
        }
        self.save_peer(device);
    }
}

/// A frame that is no part of a message.
pub(super) fn nothing(ack: Option<Ack>) -> Frame {
    let (stream, sequence, begin, oldest, sent_at, expires_s) = Default::default();
    let (content, before) = Default::default();
    Frame {
        stream,
        sequence,
        begin,
        oldest,
        before,
        part: 0,
        parts: 1,
        sent_at,
        group: None,
        ack,
        expires_s,
        content,
    }
}
