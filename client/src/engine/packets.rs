//! What fills the slots: packets of tunnels and to people, SURBs, loops and drop cover, sealed in batches.

use shoal_sphinx::{Frame, Hop, PacketId, Seal, Surb, SurbKeys};
use shoal_topology::address::ServiceAddress;
use shoal_topology::control::kind;
use shoal_topology::{Epoch, Identity, Time};

use super::shares::strict_stock;
use super::{
    Client, Farewell, GroupId, Place, Purpose, QUERY_AGAIN, Query, Replies, take_events,
    whole_per_s,
};
use crate::engine::group::Group;
use crate::message::ToService;
use crate::route::{End, Route};
use crate::surbs::AHEAD;
use crate::tunnel::Tunnel;
use crate::uplink::{Ready, Wants};

/// A packet that is to be sealed.
struct Draft {
    ready: Ready,
    route: Route,
    id: PacketId,
    message: Vec<u8>,
}

impl Client {
    /// Frames of those that the uplink wants, as many as there is something for. Cover waits for the next call while
    /// there is anything else: that must not wait until cover is sealed.
    pub fn produce(&mut self, now: Time, mut wants: Wants) -> Vec<(Ready, Frame)> {
        self.judge_pause(now);
        if self.protection(now).is_err() {
            (wants.data, wants.refill) = (0, 0);
        } else if self.is_paused() {
            (wants.data, wants.refill) = (wants.data.min(self.media.len()), 0);
        }
        let mut drafts = Vec::new();
        drafts.extend((0..wants.data).map_while(|_| self.make_data(now)));
        drafts.extend((0..wants.refill).map_while(|_| self.make_refill(now)));
        if drafts.is_empty() {
            drafts.extend((0..wants.loops).map_while(|_| self.make_loop(now)));
            drafts.extend((0..wants.drops).map_while(|_| self.make_drop(now)));
        }
        if drafts.is_empty() {
            return Vec::new();
        }
        let seals: Vec<Seal<'_>> = drafts
            .iter()
            .map(|Draft { route, id, message, .. }| Seal { path: &route.hops, id: *id, message })
            .collect();
        let packets = self.codec.seal_batch(&mut self.packets_rng, &seals);
        let sealed = drafts.iter().zip(packets);
        let frame = |(Draft { ready, route, .. }, packet): (&Draft, Result<_, _>)| {
            Some((*ready, Frame { epoch: route.epoch, field: route.first, packet: packet.ok()? }))
        };
        sealed.filter_map(frame).collect()
    }

    /// Media of a call, a question that waits, or a datagram of the group whose turn it is.
    fn make_data(&mut self, now: Time) -> Option<Draft> {
        if let Some((contact, message)) = self.media.pop_front() {
            let end = End { address: contact.inbox.0, key: contact.key };
            return self.send_to_end(now, contact.gateway, end, message);
        }
        let due = |query: &Query| query.asked.is_none_or(|at| now.since(at) > QUERY_AGAIN);
        if let Some(address) = self.queries.iter().find(|(_, q)| due(q)).map(|(a, _)| *a) {
            return self.make_query(now, address);
        }
        let after = |last: GroupId| (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
        let turns: Vec<GroupId> = (self.groups.range(after(self.last_turn)))
            .chain(self.groups.range(..=self.last_turn))
            .map(|(id, _)| *id)
            .collect();
        for id in turns {
            if !self.shares.may_send(now, id, self.class.payload_per_s) {
                continue;
            }
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let starving = group.connected && group.stock.is_starving(now);
            let Some(tunnel) = &mut group.tunnel else { continue };
            // A long upload must not keep the replies from having SURBs: every other packet brings only them.
            if starving && !group.refilled {
                group.refilled = true;
                if let Some(draft) = self.send(now, id, Vec::new()) {
                    self.shares.sent(now, id, self.whole_per_s());
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
                self.shares.sent(now, id, self.whole_per_s());
                self.last_turn = id;
                return self.send(now, id, datagram);
            }
        }
        if let Some(due) = self.farewells.iter().position(|farewell| farewell.due <= now) {
            let Farewell { place, message, .. } = self.farewells.swap_remove(due);
            return self.send_to(now, &place, message.encode());
        }
        let (contact, message) = self.letters.pop_front()?;
        let end = End { address: contact.inbox.0, key: contact.key };
        self.send_to_end(now, contact.gateway, end, message)
    }

    fn make_refill(&mut self, now: Time) -> Option<Draft> {
        // Whoever is in use comes first: when an epoch begins, all lack some.
        let short = |(id, group): (&GroupId, &Group)| {
            let missing = if group.connected { group.stock.missing(now) } else { 0 };
            (missing >= 5).then_some((group.stock.is_in_use(now), missing, *id))
        };
        let (.., id) = self.groups.iter().filter_map(short).max()?;
        Some(Draft { ready: Ready::Refill, ..self.send(now, id, Vec::new())? })
    }

    fn make_loop(&mut self, now: Time) -> Option<Draft> {
        let own = self.own_gateway(now)?;
        let id = self.ids.new_loop(&self.keys)?;
        let at = (now, self.router.epoch(now)?);
        let route = self.router.draw(at, &own, &own, Some(self.end))?;
        let delay = route.hops.iter().map(|hop| hop.delay).sum();
        self.loops.made(id, route.mixes.clone(), delay);
        Some(Draft { ready: Ready::Loop(id), route, id, message: vec![kind::LOOP] })
    }

    fn make_drop(&mut self, now: Time) -> Option<Draft> {
        let own = self.own_gateway(now)?;
        let at = (now, self.router.epoch(now)?);
        let gateway = self.router.any_gateway(now)?;
        let route = self.router.draw(at, &own, &gateway, None)?;
        Some(Draft { ready: Ready::Drop, route, id: [0; 16], message: vec![kind::DROP] })
    }

    fn make_query(&mut self, now: Time, address: ServiceAddress) -> Option<Draft> {
        let own = self.own_gateway(now)?;
        let epoch = self.router.epoch(now)?;
        let gateway = Identity(address.gateway);
        // Both ends may be one gateway here: it learns that somebody asks, which it sees anyway.
        let route = self.router.draw((now, epoch), &own, &gateway, None)?;
        // The gateway answers in the epoch of the question.
        let (surb, keys) = self.new_surbs((now, epoch), &gateway, &own, 1).pop()?;
        let mut message = vec![kind::QUERY];
        message.extend(address.identity);
        message.extend_from_slice(surb.as_bytes());
        self.outstanding.put(Purpose::Query(address), epoch, keys);
        if let Some(query) = self.queries.get_mut(&address) {
            query.asked = Some(now);
        }
        Some(Draft { ready: Ready::Data, route, id: [0; 16], message })
    }

    /// SURBs of an epoch from the gateway `entry` to here: of those made ahead, and of a new batch if they are too few.
    pub(super) fn surbs(
        &mut self,
        at: (Time, Epoch),
        entry: &Identity,
        own: &Identity,
        count: usize,
    ) -> Vec<(Surb, SurbKeys)> {
        let ready = self.ahead.from(*entry, *own, at.1).len();
        let made = if ready < count {
            self.new_surbs(at, entry, own, count.max(AHEAD) - ready)
        } else {
            Vec::new()
        };
        let stock = self.ahead.from(*entry, *own, at.1);
        stock.extend(made);
        let count = count.min(stock.len());
        stock.drain(..count).collect()
    }

    fn new_surbs(
        &mut self,
        at: (Time, Epoch),
        entry: &Identity,
        own: &Identity,
        count: usize,
    ) -> Vec<(Surb, SurbKeys)> {
        let backs: Vec<(Route, PacketId)> = (0..count)
            .map_while(|_| self.router.draw(at, entry, own, Some(self.end)))
            .map_while(|route| Some((route, self.ids.new_surb(&self.keys)?)))
            .collect();
        let jobs: Vec<(&[Hop], PacketId)> =
            backs.iter().map(|(route, id)| (route.hops.as_slice(), *id)).collect();
        let made = self.codec.surb_batch(&mut self.packets_rng, &jobs);
        made.into_iter().filter_map(Result::ok).collect()
    }

    /// A packet of a group: a datagram, or none, and as many SURBs as fit and are missing.
    fn send(&mut self, now: Time, id: GroupId, datagram: Vec<u8>) -> Option<Draft> {
        let own = self.own_gateway(now)?;
        let budget = self.budget(id);
        self.choose_surb_epoch(now, id);
        let group = self.groups.get_mut(&id)?;
        let (place, epoch) = (group.place?, group.surbs_for?);
        if group.tunnel.as_ref().is_some_and(Tunnel::waits) {
            group.asked.get_or_insert(now);
        }
        let room = ToService::room(datagram.len());
        // Before the tunnel stands the stock is unknown: fill the room.
        let missing = if group.connected { group.stock.missing(now) } else { room };
        let pseudonym = group.pseudonym;
        let missing = self.may_give_out(now, room.min(missing));
        let mut surbs = Vec::new();
        for (surb, keys) in self.surbs((now, epoch), &place.gateway, &own, missing) {
            self.outstanding.put(Purpose::Tunnel(id), epoch, keys);
            surbs.push(surb);
        }
        self.counts.surbs += surbs.len() as u64;
        self.groups.get_mut(&id)?.stock.sent(now, surbs.len());
        let epoch = epoch.low_byte();
        self.send_to(now, &place, ToService { pseudonym, budget, epoch, surbs, datagram }.encode())
    }

    /// A packet to where a service is.
    fn send_to(&mut self, now: Time, place: &Place, message: Vec<u8>) -> Option<Draft> {
        let end = End { address: place.inbox, key: place.key };
        self.send_to_end(now, place.gateway, end, message)
    }

    /// A packet to whoever has an inbox at a gateway.
    fn send_to_end(
        &mut self,
        now: Time,
        gateway: Identity,
        end: End,
        message: Vec<u8>,
    ) -> Option<Draft> {
        let own = self.own_gateway(now)?;
        let at = (now, self.router.epoch(now)?);
        let Some(route) = self.router.draw(at, &own, &gateway, Some(end)) else {
            self.counts.no_path += 1;
            return None;
        };
        Some(Draft { ready: Ready::Data, route, id: [0; 16], message })
    }

    /// What the service of a group may send, as it is told.
    pub(super) fn budget(&self, id: GroupId) -> u16 {
        self.shares.told(id, self.whole_per_s())
    }

    /// Packets/s that all services may send together.
    pub(super) fn whole_per_s(&self) -> f64 {
        whole_per_s(&self.class, self.settings.replies)
    }

    /// Of so many SURBs, those that may go out now.
    fn may_give_out(&mut self, now: Time, count: usize) -> usize {
        match self.settings.replies {
            Replies::Downlink => count,
            Replies::Resting => self.ration.take(now, &self.class, count),
        }
    }

    /// Strict: services have no more SURBs than their share takes in a second.
    pub(super) fn limit_stocks(&mut self) {
        if self.settings.replies == Replies::Resting {
            let whole = self.whole_per_s();
            for (id, group) in &mut self.groups {
                group.stock.limit(strict_stock(self.shares.share(*id) * whole));
            }
        }
    }
}
