//! Where services are: each group finds a place that answers, and moves when it falls silent.

use rand::RngExt;
use rand::seq::SliceRandom;
use shoal_topology::{ClientDescriptor, Identity, Signed, Standing, Time, exponential};

use super::*;
use crate::message::ToService;
use crate::tunnel::Tunnel;

impl Client {
    /// Looks what a group lacks, and does the next thing for it.
    pub(super) fn tick(&mut self, now: Time, id: GroupId) {
        let present = self.router.epoch(now);
        if let Some(group) = self.groups.get_mut(&id) {
            group.turn(present);
        }
        let Some(group) = self.groups.get(&id) else { return };
        // Before anything else, so that a group that nobody uses makes no new tunnel.
        if group.is_over(now, self.groups.len()) {
            return self.fail(now, id, Failure::Idle);
        }
        if group.wants_successor(now) {
            let (isolation, target) = (group.isolation, group.target);
            self.succeed(now, id, isolation, target);
        }
        let Some(group) = self.groups.get(&id) else { return };
        // While nothing may leave nothing can be answered: time that passes now speaks against nobody.
        if self.own_gateway(now).is_none() || self.protection(now).is_err() {
            return;
        }
        let limit = if group.hopeless { CONNECT_LIMIT } else { LOOK_LIMIT };
        if !group.connected && now.since(group.born) > self.patience() * limit {
            return self.fail(now, id, Failure::NoAnswer);
        }
        match group.stage() {
            Stage::Looking => self.look(now, id),
            // A new tunnel and a new pseudonym: the service that did not answer may still do so, and must not meet a
            // second attempt under the same name.
            Stage::Connecting if now.since(group.since) > self.patience() * CONNECT_LIMIT => {
                self.avoid_place(now, id);
                self.part(now, id);
                self.look(now, id);
            }
            Stage::Connecting => {}
            Stage::Connected => self.move_if_silent(now, id),
        }
    }

    /// Finds a place for a group: a service's inbox at one of its gateways.
    fn look(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let target = group.target;
        let unix_s = self.router.unix_s(now);
        self.descriptors.retain(|_, cached| unix_s <= cached.descriptor.not_after);
        if let Target::Service(address) = target
            && !self.descriptors.contains_key(&address)
        {
            let fresh = Query { since: now, asked: None };
            let since = self.queries.entry(address).or_insert(fresh).since;
            let known = self.router.gateway(now, &Identity(address.gateway));
            // The address names its gateway, so where that is not listed no answer can come.
            if known.is_none() {
                self.queries.remove(&address);
                self.fail(now, id, Failure::UnknownGateway);
            } else if now.since(since) > QUERY_LIMIT {
                self.queries.remove(&address);
                self.fail(now, id, Failure::NoAnswer);
            }
            return;
        }
        let mut places = self.places(now, &target);
        if places.is_empty() {
            return self.fail(now, id, Failure::NoPath);
        }
        // Where nobody answered lately comes last, the longest ago first, and before it other gateways of that service. It
        // is tried all the same: what kept the answer away may have been a mix.
        let avoided = |place: &Place| self.avoid.get(place).copied();
        let service = |of: &Place| {
            let same =
                |(place, until): (&Place, &Time)| (place.identity == of.identity).then_some(*until);
            self.avoid.iter().filter_map(same).max()
        };
        places.sort_by_key(|place| (avoided(place), service(place)));
        let Some(place) = places.first().copied() else { return };
        let same = |group: &Group| group.place.is_some_and(|of| of.identity == place.identity);
        let is_alive =
            |group: &Group| group.connected && same(group) && group.stock.unheard(now) < AVOID;
        let hopeless = avoided(&place).is_some() && !self.groups.values().any(is_alive);
        let Some(group) = self.groups.get_mut(&id) else { return };
        // Where all have been silent lately, nobody waits for long again.
        group.hopeless |= hopeless && group.attempts == 0;
        let settings = &self.settings.tunnel;
        match Tunnel::connect(self.base, now, &group.next_seed(), place.identity, settings) {
            Ok(tunnel) => {
                group.connect(now, place, tunnel);
                self.shares.uses(now, id);
            }
            Err(_) => self.fail(now, id, Failure::NoPath),
        }
    }

    /// A group that will soon take no more streams has another one beside it, at another exit where there are several.
    fn succeed(&mut self, now: Time, id: GroupId, isolation: Isolation, target: Target) {
        let same = |group: &Group| group.isolation == isolation && group.target == target;
        let mut later = self.groups.range(id..).skip(1);
        // Not at the bound: what the user asks for comes first.
        if 2 * self.groups.len() < MAX_GROUPS && !later.any(|(_, group)| same(group)) {
            self.begin(now, isolation, target);
        }
    }

    /// Where a target can be reached, the best first: paths whose gateways differ, then the service that the fewest groups
    /// talk to, then the gateway; in random order beyond that. So groups spread over exits: one exit that had two of them
    /// could compare.
    pub(super) fn places(&mut self, now: Time, target: &Target) -> Vec<Place> {
        let (Some(own), Some(document)) =
            (self.own_gateway(now), self.router.document(now).cloned())
        else {
            return Vec::new();
        };
        let exits = document.exits.iter().map(Signed::<ClientDescriptor>::body);
        let descriptors: Vec<&ClientDescriptor> = match target {
            Target::Exit => exits.collect(),
            Target::Service(address) => {
                self.descriptors.get(address).map(|cached| &cached.descriptor).into_iter().collect()
            }
        };
        let mut places = Vec::new();
        let unix_s = self.router.unix_s(now);
        let valid = |d: &&ClientDescriptor| (d.not_before..=d.not_after).contains(&unix_s);
        for descriptor in descriptors.into_iter().filter(valid) {
            for gateway in &descriptor.gateways {
                let (Some(standing), Some(key)) =
                    (self.router.gateway(now, gateway), descriptor.public_key())
                else {
                    continue;
                };
                let shared = !self.router.compatible(now, &own, gateway);
                if !shared || self.settings.allow_shared_gateway {
                    let (inbox, identity) = (descriptor.inbox.0, descriptor.identity.0);
                    let place = Place { identity, inbox, key, gateway: *gateway };
                    places.push(((shared, standing == Standing::Demoted), place));
                }
            }
        }
        // Then sorted by a stable sort: among places that are equally good the random order stays.
        places.shuffle(&mut self.choices_rng);
        let taken = |same: &dyn Fn(&Place) -> bool| {
            self.groups.values().filter(|group| group.place.as_ref().is_some_and(same)).count()
        };
        places.sort_by_cached_key(|(order, place)| {
            let service = taken(&|other| other.identity == place.identity);
            let both =
                |other: &Place| (other.identity, other.gateway) == (place.identity, place.gateway);
            (*order, service, taken(&both))
        });
        places.into_iter().map(|(_, place)| place).collect()
    }

    /// Groups that talk to a service use its key of another period from now on.
    pub(super) fn learn(&mut self, descriptor: &ClientDescriptor) {
        let Some(key) = descriptor.public_key() else { return };
        for place in self.groups.values_mut().filter_map(|group| group.place.as_mut()) {
            if place.identity == descriptor.identity.0
                && descriptor.gateways.contains(&place.gateway)
            {
                (place.key, place.inbox) = (key, descriptor.inbox.0);
            }
        }
    }

    /// When a descriptor is asked for anew: at an instant that is drawn, after the service has its next key and before
    /// the key of this period is gone. Whoever asked on use would announce a call.
    pub(super) fn refresh_at(&mut self, now: Time, descriptor: &ClientDescriptor) -> Time {
        let length = descriptor.not_after.saturating_sub(descriptor.not_before);
        // The service keeps a key for a quarter of its period after that, an hour at most.
        let grace = (length / 5).min(3_600) as f64;
        let left = descriptor.not_after.saturating_sub(self.router.unix_s(now)) as f64;
        let before = grace * self.refresh_rng.random_range(0.25..0.75);
        now + Duration::from_secs_f64((left - before).max(1.0))
    }

    /// Asks anew for the descriptors whose time has come; once in a quarter of the grace, until one answers.
    pub(super) fn refresh_descriptors(&mut self, now: Time) {
        let unix_s = self.router.unix_s(now);
        self.descriptors.retain(|_, cached| unix_s <= cached.descriptor.not_after);
        let given_up = |query: &Query| now.since(query.since) > QUERY_LIMIT;
        let descriptors = &self.descriptors;
        let groups = &self.groups;
        let waits = |of: &ServiceAddress| {
            let waits =
                |group: &Group| group.target == Target::Service(*of) && group.tunnel.is_none();
            groups.values().any(waits)
        };
        let holds = |of: &ServiceAddress| descriptors.contains_key(of) || !waits(of);
        self.queries.retain(|of, query| !(given_up(query) && holds(of)));
        let due = self.descriptors.iter_mut().filter(|(_, cached)| cached.refresh <= now);
        for (address, cached) in due {
            self.queries.entry(*address).or_insert(Query { since: now, asked: None });
            let left = Duration::from_secs(cached.descriptor.not_after.saturating_sub(unix_s));
            cached.refresh = now + (left / 4).max(QUERY_LIMIT);
        }
    }

    /// A service in use that has been silent, or a gateway that has become our own: the same tunnel goes on
    /// through another gateway of the service.
    fn move_if_silent(&mut self, now: Time, id: GroupId) {
        let Some(own) = self.own_gateway(now) else { return };
        let Some(group) = self.groups.get(&id) else { return };
        let (Some(place), target) = (group.place, group.target) else { return };
        let (silence, moved) = (group.silence(now), group.moved);
        let compatible = self.router.compatible(now, &own, &place.gateway);
        // Moving has not helped either: the user's programs are told, rather than kept waiting.
        if silence > self.patience() * GIVE_UP {
            return self.fail(now, id, Failure::Silent);
        }
        let limit = self.patience() * SILENCE;
        let silent = silence > limit && now.since(moved) > limit;
        // After a change of link one gateway would see both ends: that is worth a move although the service answers.
        let stranded = !compatible && now.since(moved) > SILENCE;
        if !silent && !stranded {
            return;
        }
        if silent {
            self.avoid_place(now, id);
        }
        let places = self.places(now, &target);
        let other = places.into_iter().find(|other| {
            other.identity == place.identity
                && other.gateway != place.gateway
                && !self.avoid.contains_key(other)
        });
        if let Some(group) = self.groups.get_mut(&id) {
            group.moved = now;
            if let Some(other) = other {
                group.place = Some(other);
                group.stock.clear();
            } else if silent {
                // Nowhere else to go: the same place is as good as any.
                self.avoid.remove(&place);
            }
        }
    }

    pub(super) fn avoid_place(&mut self, now: Time, id: GroupId) {
        if let Some(place) = self.groups.get(&id).and_then(|group| group.place) {
            let until = self.avoid.entry(place).or_insert(now + AVOID);
            *until = (*until).max(now + AVOID);
        }
    }

    /// Ends groups whose tunnel has closed.
    pub(super) fn end_closed(&mut self, now: Time) {
        let closed = |group: &Group| group.tunnel.as_ref().is_some_and(Tunnel::is_closed);
        let ids: Vec<_> =
            self.groups.iter().filter(|(_, g)| closed(g)).map(|(id, _)| *id).collect();
        for id in ids {
            self.avoid_place(now, id);
            self.fail(now, id, Failure::Closed);
        }
    }

    /// Gives up the tunnel of a group, and says so: its service would ask for a sign of life until it has no SURBs
    /// left.
    pub(super) fn part(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let (Some(mut tunnel), Some(place)) = (group.tunnel.take(), group.place.take()) else {
            return;
        };
        // Closed first, so that what it then gives out is the last datagram, which says so.
        tunnel.close(now, 0);
        let mut datagram = Vec::new();
        if self.close_notices.len() < MAX_CLOSE_NOTICES && tunnel.poll_transmit(now, &mut datagram)
        {
            let due = now + exponential(&mut self.choices_rng, CLOSE_DELAY);
            let pseudonym = group.pseudonym;
            let surbs = Vec::new();
            let message = ToService { pseudonym, budget: 1, epoch: 0, surbs, datagram };
            self.close_notices.push(CloseNotice { due, place, message });
        }
        // What comes by SURBs of this attempt says nothing of the next one's service.
        let others = |purpose: &Purpose| !matches!(purpose, Purpose::Tunnel(of) if *of == id);
        self.outstanding.retain(|purpose, _| others(purpose));
    }

    pub(super) fn fail(&mut self, now: Time, id: GroupId, why: Failure) {
        self.part(now, id);
        if self.groups.remove(&id).is_some() {
            self.shares.remove(id);
            self.outputs.push_back(Output::Failed(id, why));
        }
    }
}
