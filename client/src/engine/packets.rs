//! What fills the slots: packets of tunnels and to people, SURBs, loops and drop cover, sealed in batches.

use shoal_sphinx::{Frame, Hop, PacketId, Seal, Surb, SurbKeys};
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::wire::client_gateway::kind;
use shoal_topology::{Epoch, Identity, Time};

use super::shares::strict_stock;
use super::{
    Client, CloseNotice, Contact, GroupId, Purpose, QUERY_AGAIN, Query, Replies, ServiceLocation,
    take_events, whole_per_s,
};
use crate::engine::group::Group;
use crate::message::ToService;
use crate::route::{Recipient, Route};
use crate::surbs::{AHEAD, Of};
use crate::tunnel::Tunnel;
use crate::uplink::{Ready, Slot, Wants};

/// A packet that is to be sealed, and the slot that it is for.
pub(super) struct PacketDraft {
    ready: Ready,
    slot: Slot,
    route: Route,
    id: PacketId,
    message: Vec<u8>,
}

impl PacketDraft {
    /// The same, for what it is for.
    pub(super) fn ready(self, ready: Ready) -> Self {
        Self { ready, ..self }
    }
}

impl Client {
    /// Frames for those of the wanted slots for which there is something. Cover waits for the next call while there is
    /// anything else: that must not wait until cover is sealed. For media there is always something.
    pub fn produce(&mut self, now: Time, mut wants: Wants) -> Vec<(Ready, Slot, Frame)> {
        // Here too, and not at ticks alone: slots come faster than ticks, and each frame that leaves behind a stall
        // carries its mark.
        self.judge_pause(now);
        let Wants { user, letters, media, loops, drops, .. } = &mut wants;
        for slots in [user, letters, media, loops, drops] {
            // A path can only be drawn by the document that its slot follows; other slots wait for the next call.
            slots.retain(|slot| self.router.leads(slot));
        }
        // An idle client's every slot comes by here: what costs is asked last.
        if !self.has_of_user() || self.is_paused() || self.protection(now).is_err() {
            (wants.data, wants.refill) = (0, 0);
            wants.letters.clear();
        }
        let mut drafts: Vec<PacketDraft> =
            wants.media.iter().filter_map(|slot| self.make_media(now, *slot)).collect();
        let mut user = wants.user.into_iter().peekable();
        for _ in 0..wants.data {
            let draft = user.peek().and_then(|slot| self.make_data(now, *slot));
            // The slot stays for SURBs.
            let Some(draft) = draft else { break };
            drafts.push(draft);
            user.next();
        }
        let refills = user.take(wants.refill);
        drafts.extend(refills.map_while(|slot| self.make_refill(now, slot)));
        let taken: Vec<u64> = drafts.iter().map(|draft| draft.slot.number).collect();
        let mut free = wants.letters.into_iter().filter(|slot| !taken.contains(&slot.number));
        drafts.extend(free.find_map(|slot| self.make_letter(now, slot)));
        // Cover alone is sealed in batches; beside a packet of the user's it would delay that one by as long as the
        // batch takes.
        if drafts.is_empty() {
            drafts.extend(wants.loops.into_iter().map_while(|slot| self.make_loop(now, slot)));
            drafts.extend(wants.drops.into_iter().map_while(|slot| self.make_drop(now, slot)));
        }
        if drafts.is_empty() {
            return Vec::new();
        }
        let seals: Vec<Seal<'_>> = drafts
            .iter()
            .map(|PacketDraft { route, id, message, .. }| Seal {
                path: &route.hops,
                id: *id,
                message,
            })
            .collect();
        let packets = self.codec.seal_batch(&mut self.packets_rng, &seals);
        let mut frames = Vec::with_capacity(drafts.len());
        for (PacketDraft { ready, slot, .. }, packet) in drafts.iter().zip(packets) {
            let (epoch, field) = (slot.way.epoch.low_byte(), slot.way.first);
            match (packet, ready) {
                (Ok(packet), _) => frames.push((*ready, *slot, Frame { epoch, field, packet })),
                (Err(_), Ready::Letter(id)) => self.outbox.thrown(*id),
                (Err(_), _) => {}
            }
        }
        frames
    }

    /// True if there may be something of the user's to send.
    fn has_of_user(&self) -> bool {
        let idle = self.groups.is_empty() && self.queries.is_empty() && self.outbox.len() == 0;
        !idle || !self.close_notices.is_empty()
    }

    /// A question that waits, or a datagram of the group whose turn it is.
    fn make_data(&mut self, now: Time, slot: Slot) -> Option<PacketDraft> {
        let due = |query: &Query| query.asked.is_none_or(|at| now.since(at) > QUERY_AGAIN);
        let asked: Vec<ServiceAddress> =
            self.queries.iter().filter(|(_, query)| due(query)).map(|(of, _)| *of).collect();
        // One whose gateway is listed no more holds up nobody else.
        if let Some(draft) = asked.into_iter().find_map(|of| self.make_query(now, slot, of)) {
            return Some(draft);
        }
        let after = |last: GroupId| (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
        let in_turn = (self.groups.range(after(self.last_turn)))
            .chain(self.groups.range(..=self.last_turn))
            .map(|(id, group)| (!group.stock.is_in_use(now), *id));
        let mut turns: Vec<(bool, GroupId)> = in_turn.collect();
        // Who is in use comes before those that only say that they are there, of which there may be hundreds.
        turns.sort_by_key(|(rests, _)| *rests);
        for (_, id) in turns {
            if !self.shares.of(id).may_send(now, id, self.class.payload_per_s) {
                continue;
            }
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let starving = group.connected && group.stock.is_starving(now);
            let Some(tunnel) = &mut group.tunnel else { continue };
            // A long upload must not keep the replies from having SURBs: every other packet brings only them.
            if starving && !group.refilled {
                group.refilled = true;
                if let Some(draft) = self.send(now, slot, id, Vec::new()) {
                    let whole = self.whole_per_s(id);
                    self.shares.of(id).sent(now, id, whole);
                    self.last_turn = id;
                    return Some(draft);
                }
                continue;
            }
            let mut datagram = Vec::new();
            let sends = tunnel.poll_transmit(now, &mut datagram);
            take_events(id, tunnel, &mut self.outputs);
            if sends {
                group.refilled = false;
                let whole = self.whole_per_s(id);
                self.shares.of(id).sent(now, id, whole);
                self.last_turn = id;
                // From here on QUIC counts it as sent: if no path is found now, it is lost like any other.
                return self.send(now, slot, id, datagram);
            }
        }
        if let Some(due) = self.close_notices.iter().position(|notice| notice.due <= now) {
            let CloseNotice { location, message, .. } = self.close_notices.swap_remove(due);
            return self.send_to(slot, &location, message.encode());
        }
        None
    }

    fn make_refill(&mut self, now: Time, slot: Slot) -> Option<PacketDraft> {
        // Whoever is in use comes first: when an epoch begins, all lack some.
        let short = |(id, group): (&GroupId, &Group)| {
            let (_, missing) = self.surbs_due(now, &slot, group);
            // Before the tunnel stands its packets bring SURBs beside the handshake.
            let missing = if group.connected { missing } else { 0 };
            (missing >= 5).then_some((group.stock.is_in_use(now), missing, *id))
        };
        let mut lacking: Vec<_> = self.groups.iter().filter_map(short).collect();
        lacking.sort_unstable();
        // Within its share of the slots: a service that always says it lacks some must not take those of others.
        let slots_per_s = self.class.payload_per_s;
        let may_send =
            |(.., id): &(_, _, GroupId)| self.shares.of(*id).may_send(now, *id, slots_per_s);
        let (.., id) = lacking.into_iter().rev().find(may_send)?;
        let draft = self.send(now, slot, id, Vec::new())?;
        self.shares.of(id).refilled(now, id);
        Some(PacketDraft { ready: Ready::Refill, ..draft })
    }

    /// For which epoch a packet in this slot brings a group's service SURBs, and how many are missing.
    fn surbs_due(&self, now: Time, slot: &Slot, group: &Group) -> (Of, usize) {
        let (present, next) =
            (group.stock.missing(now, Of::Present), group.stock.missing(now, Of::Next));
        // A slot of the next epoch brings nothing of this one.
        if group.epoch.is_some_and(|epoch| slot.way.epoch > epoch) {
            return (Of::Next, next);
        }
        let first = if group.connected {
            next > present && !group.stock.is_starving(now)
        } else {
            // How many there are is unknown before the tunnel stands.
            slot.number.is_multiple_of(2)
        };
        if first && self.router.prepares_next(slot.at, group.late) {
            return (Of::Next, next);
        }
        (Of::Present, present)
    }

    fn make_loop(&mut self, now: Time, slot: Slot) -> Option<PacketDraft> {
        let own = self.own_gateway(now)?;
        // A number for each that is made, also for those that no slot takes: only this client ever sees them.
        let id = self.ids.new_loop(&self.keys)?;
        let route = self.router.draw_up(&slot, &own, Some(self.end))?;
        let delay = route.hops.iter().map(|hop| hop.delay).sum();
        self.loops.made(id, route.mixes.clone(), delay);
        Some(PacketDraft { ready: Ready::Loop(id), slot, route, id, message: vec![kind::LOOP] })
    }

    fn make_drop(&mut self, now: Time, slot: Slot) -> Option<PacketDraft> {
        self.own_gateway(now)?;
        let gateway = self.router.any_gateway(slot.way.epoch)?;
        let route = self.router.draw_up(&slot, &gateway, None)?;
        Some(PacketDraft {
            ready: Ready::Drop,
            slot,
            route,
            id: [0; 16],
            message: vec![kind::DROP],
        })
    }

    /// What waits to be said in the call, or silence. Where nothing of the user's may leave, drop cover.
    fn make_media(&mut self, now: Time, slot: Slot) -> Option<PacketDraft> {
        let protected = self.protection(now).is_ok();
        let call = self.call.as_mut().filter(|call| protected && call.lasts(slot.at));
        let Some(call) = call else {
            return Some(PacketDraft { ready: Ready::Media, ..self.make_drop(now, slot)? });
        };
        let Contact { inbox, key, gateway } = call.contact;
        let mut message = vec![kind::MEDIA];
        message.extend(call.waiting.pop_front().unwrap_or_default());
        let draft = self.send_to_end(slot, gateway, Recipient { address: inbox.0, key }, message);
        // Where the contact's gateway is listed no more, what would be random bytes is a drop.
        let draft = draft.or_else(|| self.make_drop(now, slot))?;
        Some(PacketDraft { ready: Ready::Media, ..draft })
    }

    fn make_query(
        &mut self,
        now: Time,
        slot: Slot,
        address: ServiceAddress,
    ) -> Option<PacketDraft> {
        let own = self.own_gateway(now)?;
        // The gateway answers in the epoch of the question. Both ends may be one gateway here: it learns that somebody
        // asks, which it sees anyway.
        let epoch = slot.way.epoch;
        let gateway = Identity(address.gateway);
        let route = self.router.draw_up(&slot, &gateway, None)?;
        let (surb, keys) = self.new_surbs(epoch, &own, 1).pop()?;
        let mut message = vec![kind::QUERY];
        message.extend(address.identity);
        message.extend_from_slice(surb.as_bytes());
        // Before it leaves: an answer must never find that nobody asked.
        self.outstanding.put(Purpose::Query(address), epoch, keys);
        if let Some(query) = self.queries.get_mut(&address) {
            query.asked = Some(now);
        }
        Some(PacketDraft { ready: Ready::Data, slot, route, id: [0; 16], message })
    }

    /// SURBs of an epoch: of those made ahead, and of a new batch if they are too few.
    pub(super) fn surbs(
        &mut self,
        epoch: Epoch,
        own: &Identity,
        count: usize,
    ) -> Vec<(Surb, SurbKeys)> {
        let ready = self.ahead.of(*own, epoch).len();
        let made = if ready < count {
            self.new_surbs(epoch, own, count.max(AHEAD) - ready)
        } else {
            Vec::new()
        };
        // Made for more than are wanted: lanes that stay empty cost as much as full ones.
        let stock = self.ahead.of(*own, epoch);
        stock.extend(made);
        let count = count.min(stock.len());
        stock.drain(..count).collect()
    }

    fn new_surbs(&mut self, epoch: Epoch, own: &Identity, count: usize) -> Vec<(Surb, SurbKeys)> {
        let backs: Vec<(Route, PacketId)> = (0..count)
            .map_while(|_| self.router.draw_back(epoch, own, self.end))
            .map_while(|route| Some((route, self.ids.new_surb(&self.keys)?)))
            .collect();
        let jobs: Vec<(&[Hop], PacketId)> =
            backs.iter().map(|(route, id)| (route.hops.as_slice(), *id)).collect();
        let made = self.codec.surb_batch(&mut self.packets_rng, &jobs);
        made.into_iter().filter_map(Result::ok).collect()
    }

    /// A packet of a group: a datagram, or none, and as many SURBs as fit and are missing.
    fn send(
        &mut self,
        now: Time,
        slot: Slot,
        id: GroupId,
        datagram: Vec<u8>,
    ) -> Option<PacketDraft> {
        let own = self.own_gateway(now)?;
        let budget = self.budget(id);
        let present = self.router.epoch(now)?;
        let group = self.groups.get_mut(&id)?;
        group.turn(Some(present));
        if group.tunnel.as_ref().is_some_and(Tunnel::waits) {
            group.asked.get_or_insert(now);
        }
        let room = ToService::room(datagram.len());
        let (location, pseudonym) = (group.location?, group.pseudonym);
        let (of, missing) = self.surbs_due(now, &slot, self.groups.get(&id)?);
        let epoch = if of == Of::Next { Epoch(present.0.saturating_add(1)) } else { present };
        let connected = self.groups.get(&id)?.connected;
        // Before the tunnel stands the stock is unknown: fill the room.
        let unknown = self.groups.get(&id)?.stock.room(now, of);
        let missing = if connected { missing } else { unknown };
        let missing = self.may_give_out(now, id, room.min(missing));
        let mut surbs = Vec::new();
        for (surb, keys) in self.surbs(epoch, &own, missing) {
            self.outstanding.put(Purpose::Tunnel(id), epoch, keys);
            surbs.push(surb);
        }
        self.counts.surbs += surbs.len() as u64;
        self.groups.get_mut(&id)?.stock.sent(now, of, surbs.len());
        let epoch = epoch.low_byte();
        let message = ToService { pseudonym, budget, epoch, surbs, datagram };
        self.send_to(slot, &location, message.encode())
    }

    /// A packet to where a service is.
    fn send_to(
        &mut self,
        slot: Slot,
        location: &ServiceLocation,
        message: Vec<u8>,
    ) -> Option<PacketDraft> {
        let end = Recipient { address: location.inbox, key: location.key };
        self.send_to_end(slot, location.gateway, end, message)
    }

    /// A packet to whoever has an inbox at a gateway.
    pub(super) fn send_to_end(
        &mut self,
        slot: Slot,
        gateway: Identity,
        end: Recipient,
        message: Vec<u8>,
    ) -> Option<PacketDraft> {
        let Some(route) = self.router.draw_up(&slot, &gateway, Some(end)) else {
            self.counts.no_path += 1;
            return None;
        };
        Some(PacketDraft { ready: Ready::Data, slot, route, id: [0; 16], message })
    }

    /// What the service of a group may send, as it is told.
    pub(super) fn budget(&self, id: GroupId) -> u16 {
        self.shares.told(id, self.whole_per_s(id))
    }

    /// What replies to a group may take of the link.
    pub(super) fn replies(&self, id: GroupId) -> Replies {
        let others = self.settings.replies;
        self.groups.get(&id).map_or(others, |group| group.isolation.replies(others))
    }

    /// Packets/s that all services may send together, if all keep to what replies to this group may take.
    pub(super) fn whole_per_s(&self, id: GroupId) -> f64 {
        whole_per_s(&self.class, self.replies(id))
    }

    /// Of so many SURBs, those that may go out to the service of a group now.
    fn may_give_out(&mut self, now: Time, id: GroupId, count: usize) -> usize {
        match self.replies(id) {
            Replies::Downlink => count,
            Replies::Resting => self.shares.ration.take(now, &self.class, count),
        }
    }

    /// Services whose replies stay within the resting rate have no more SURBs than their share takes in a second.
    pub(super) fn limit_stocks(&mut self) {
        let whole = whole_per_s(&self.class, Replies::Resting);
        for (id, group) in &mut self.groups {
            if group.isolation.replies(self.settings.replies) == Replies::Resting {
                group.stock.limit(strict_stock(self.shares.share(*id) * whole));
            }
        }
    }
}
