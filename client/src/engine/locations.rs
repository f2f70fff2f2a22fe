//! Where services are: each group finds a location that answers, and moves when it falls silent.

use rand::RngExt;
use rand::seq::SliceRandom;
use shoal_topology::{ClientDescriptor, Identity, Signed, Standing, Time, exponential};

use super::*;
use crate::message::ToService;
use crate::tunnel::Tunnel;

/// A service that leaves a question unanswered for so long is sent SURBs anew.
const UNANSWERED: Duration = Duration::from_millis(1_500);

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
        // A question that has no answer yet: the service can have lost what it would answer by, whatever it said before.
        if group.connected
            && group.silence(now) > UNANSWERED
            && let Some(group) = self.groups.get_mut(&id)
        {
            group.stock.in_use(now);
        }
        // Who only receives asks nothing while nothing comes, until the tunnel's next sign of life. That has to do where services
        // must not gather SURBs by which they could send more at once than arrives at rest.
        if self.replies(id) == Replies::Downlink
            && let Some(group) = self.groups.get_mut(&id)
            && group.may_stall(now)
        {
            group.stock.may_stall(now);
        }
        let Some(group) = self.groups.get(&id) else { return };
        let limit = if group.hopeless { CONNECT_LIMIT } else { LOOK_LIMIT };
        if !group.connected && now.since(group.born) > self.patience() * limit {
            return self.fail(now, id, Failure::NoAnswer);
        }
        match group.stage() {
            GroupStage::Looking => self.look(now, id),
            // A new tunnel and a new pseudonym: the service that did not answer may still do so, and must not meet a
            // second attempt under the same name.
            GroupStage::Connecting if now.since(group.since) > self.patience() * CONNECT_LIMIT => {
                self.avoid_location(now, id);
                self.part(now, id);
                self.look(now, id);
            }
            GroupStage::Connecting => {}
            GroupStage::Connected => self.move_if_silent(now, id),
        }
    }

    /// Finds a location for a group: a service's inbox at one of its gateways.
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
        let mut locations = self.locations(now, &target);
        if locations.is_empty() {
            return self.fail(now, id, Failure::NoPath);
        }
        // Where nobody answered lately comes last, the longest ago first, and before it other gateways of that service. It
        // is tried all the same: what kept the answer away may have been a mix.
        let avoided = |location: &ServiceLocation| self.avoid.get(location).copied();
        let service = |of: &ServiceLocation| {
            let same = |(location, until): (&ServiceLocation, &Time)| {
                (location.identity == of.identity).then_some(*until)
            };
            self.avoid.iter().filter_map(same).max()
        };
        locations.sort_by_key(|location| (avoided(location), service(location)));
        let Some(location) = locations.first().copied() else { return };
        let same =
            |group: &Group| group.location.is_some_and(|of| of.identity == location.identity);
        let is_alive =
            |group: &Group| group.connected && same(group) && group.stock.unheard(now) < AVOID;
        let hopeless = avoided(&location).is_some() && !self.groups.values().any(is_alive);
        let Some(group) = self.groups.get_mut(&id) else { return };
        // Where all have been silent lately, nobody waits for long again.
        group.hopeless |= hopeless && group.attempts == 0;
        let settings = &self.settings.tunnel;
        match Tunnel::connect(self.base, now, &group.next_seed(), location.identity, settings) {
            Ok(tunnel) => {
                group.connect(now, location, tunnel);
                self.shares.of(id).uses(now, id);
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
    pub(super) fn locations(&mut self, now: Time, target: &Target) -> Vec<ServiceLocation> {
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
        let mut locations = Vec::new();
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
                    let location = ServiceLocation { identity, inbox, key, gateway: *gateway };
                    locations.push(((shared, standing == Standing::Demoted), location));
                }
            }
        }
        // Then sorted by a stable sort: among locations that are equally good the random order stays.
        locations.shuffle(&mut self.choices_rng);
        let taken = |same: &dyn Fn(&ServiceLocation) -> bool| {
            self.groups.values().filter(|group| group.location.as_ref().is_some_and(same)).count()
        };
        locations.sort_by_cached_key(|(order, location)| {
            let service = taken(&|other| other.identity == location.identity);
            let both = |other: &ServiceLocation| {
                (other.identity, other.gateway) == (location.identity, location.gateway)
            };
            (*order, service, taken(&both))
        });
        locations.into_iter().map(|(_, location)| location).collect()
    }

    /// Groups that talk to a service use its key of another period from now on.
    pub(super) fn learn(&mut self, descriptor: &ClientDescriptor) {
        let Some(key) = descriptor.public_key() else { return };
        for location in self.groups.values_mut().filter_map(|group| group.location.as_mut()) {
            if location.identity == descriptor.identity.0
                && descriptor.gateways.contains(&location.gateway)
            {
                (location.key, location.inbox) = (key, descriptor.inbox.0);
            }
        }
    }

    /// When a descriptor is asked for anew: at an instant that is drawn, after the service has its next key and before
    /// the key of this period is gone. Whoever asked on use would announce a call. A person's holds for many periods, and is
    /// asked for once a day.
    pub(super) fn refresh_at(&mut self, now: Time, descriptor: &ClientDescriptor) -> Time {
        let length = descriptor.not_after.saturating_sub(descriptor.not_before);
        // The service keeps a key for a quarter of its period after that, an hour at most.
        let grace = (length / 5).min(3_600) as f64;
        let left = descriptor.not_after.saturating_sub(self.router.unix_s(now)) as f64;
        let before = grace * self.refresh_rng.random_range(0.25..0.75);
        let mut after = (left - before).max(1.0);
        if length as f64 > 2.0 * DAY_S {
            after = after.min(DAY_S * self.refresh_rng.random_range(0.5..1.0));
        }
        now + Duration::from_secs_f64(after)
    }

    /// Asks anew for the descriptors whose time has come; once in a quarter of the grace, until one answers.
    pub(super) fn refresh_descriptors(&mut self, now: Time) {
        let unix_s = self.router.unix_s(now);
        self.descriptors.retain(|_, cached| unix_s <= cached.descriptor.not_after);
        let given_up = |query: &Query| now.since(query.since) > QUERY_LIMIT;
        let descriptors = &self.descriptors;
        let (groups, recipients) = (&self.groups, self.outbox.addresses());
        let waits = |of: &ServiceAddress| {
            let waits =
                |group: &Group| group.target == Target::Service(*of) && group.tunnel.is_none();
            groups.values().any(waits) || recipients.contains(of)
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
        let (Some(location), target) = (group.location, group.target) else { return };
        let (silence, moved) = (group.silence(now), group.moved);
        let compatible = self.router.compatible(now, &own, &location.gateway);
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
            self.avoid_location(now, id);
        }
        let locations = self.locations(now, &target);
        let other = locations.into_iter().find(|other| {
            other.identity == location.identity
                && other.gateway != location.gateway
                && !self.avoid.contains_key(other)
        });
        if let Some(group) = self.groups.get_mut(&id) {
            group.moved = now;
            if let Some(other) = other {
                group.location = Some(other);
                group.stock.clear();
            } else if silent {
                // Nowhere else to go: the same location is as good as any.
                self.avoid.remove(&location);
            }
        }
    }

    pub(super) fn avoid_location(&mut self, now: Time, id: GroupId) {
        if let Some(location) = self.groups.get(&id).and_then(|group| group.location) {
            self.avoid_until(location, now + AVOID);
        }
    }

    /// Avoids a service at all of its gateways, since it is the service that failed and not the way to it.
    pub(super) fn avoid_service(
        &mut self,
        now: Time,
        target: &Target,
        identity: [u8; 32],
        until: Time,
    ) {
        for location in self.locations(now, target) {
            if location.identity == identity {
                self.avoid_until(location, until);
            }
        }
    }

    /// A shorter reason does not end a longer one.
    fn avoid_until(&mut self, location: ServiceLocation, until: Time) {
        let entry = self.avoid.entry(location).or_insert(until);
        *entry = (*entry).max(until);
    }

    /// Ends groups whose tunnel has closed.
    pub(super) fn end_closed(&mut self, now: Time) {
        let closed = |group: &Group| group.tunnel.as_ref().is_some_and(Tunnel::is_closed);
        let ids: Vec<_> =
            self.groups.iter().filter(|(_, g)| closed(g)).map(|(id, _)| *id).collect();
        for id in ids {
            self.avoid_location(now, id);
            self.fail(now, id, Failure::Closed);
        }
    }

    /// Gives up the tunnel of a group, and says so: its service would ask for a sign of life until it has no SURBs
    /// left.
    pub(super) fn part(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let (Some(mut tunnel), Some(location)) = (group.tunnel.take(), group.location.take())
        else {
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
            self.close_notices.push(CloseNotice { due, location, message });
        }
        // What comes by SURBs of this attempt says nothing of the next one's service.
        let others = |purpose: &Purpose| !matches!(purpose, Purpose::Tunnel(of) if *of == id);
        self.outstanding.retain(|purpose, _| others(purpose));
    }

    pub(super) fn fail(&mut self, now: Time, id: GroupId, why: Failure) {
        self.part(now, id);
        if self.groups.remove(&id).is_some() {
            self.shares.remove(id);
            self.outputs.push_back(ClientOutput::Failed(id, why));
        }
    }
}
