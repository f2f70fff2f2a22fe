//! What a caller does with isolation groups: finds or makes one, opens streams in it, and leaves a service that is
//! silent.

use super::*;

impl Client {
    /// The group of an isolation and a target that takes new streams: made when there is none, when the first stream of
    /// the last one is ten minutes ago, or when the service of the last one has fallen silent and there is another. At the
    /// bound the one that has been idle longest makes room; none if all are in use. [`ClientOutput::Connected`] or
    /// [`ClientOutput::Failed`] follows, unless it is connected already.
    pub fn group(&mut self, now: Time, isolation: Isolation, target: Target) -> Option<GroupId> {
        let same = |(id, group): &(&GroupId, &Group)| {
            (group.isolation, group.target) == (isolation, target)
                && !group.is_retired(now)
                && !group.is_full()
                && !self.may_go_elsewhere(now, **id)
        };
        // The oldest that suits: its successor is there for when it retires, and must stay unused until then.
        if let Some((id, _)) = self.groups.iter().find(same) {
            return Some(*id);
        }
        if self.groups.len() >= MAX_GROUPS {
            // Only idle ones give way: a request must not end what another one is using.
            let idle = self.groups.iter().filter(|(_, group)| group.is_idle(now));
            let longest = idle.min_by_key(|(_, group)| (!group.is_retired(now), group.last_used));
            let Some((id, _)) = longest else {
                self.counts.no_group += 1;
                return None;
            };
            self.fail(now, *id, Failure::Idle);
        }
        Some(self.begin(now, isolation, target))
    }

    pub(super) fn begin(&mut self, now: Time, isolation: Isolation, target: Target) -> GroupId {
        self.next_group += 1;
        let id = GroupId(self.next_group);
        // A seed by the number: what one group draws moves no other.
        let name = self.next_group.to_string();
        if isolation.replies(self.settings.replies) != self.settings.replies {
            self.shares.rests(id);
        }
        self.groups.insert(id, Group::new(now, &self.seed.part(&name), isolation, target));
        self.next_tick = now;
        id
    }

    /// Where a group stands; `None` if it ended.
    pub fn stage(&self, id: GroupId) -> Option<GroupStage> {
        self.groups.get(&id).map(Group::stage)
    }

    /// The pseudonym of a group, for tests that two groups never share one.
    pub fn pseudonym(&self, id: GroupId) -> Option<tunnel::Pseudonym> {
        self.groups.get(&id).map(|group| group.pseudonym)
    }

    /// Opens a stream. `None` if the tunnel does not stand or has as many as it may.
    pub fn open(&mut self, now: Time, id: GroupId) -> Option<StreamId> {
        // Looked for before the stream counts: afterwards the group is no longer new.
        let old = self.groups.get(&id).and_then(|group| self.predecessor(now, group));
        let group = self.groups.get_mut(&id)?;
        let stream = group.tunnel.as_mut()?.open(now)?;
        group.streams += 1;
        group.opened.get_or_insert(now);
        group.last_opened = now;
        group.stock.in_use(now);
        if let Some(old) = old {
            self.shares.of(id).succeed(now, old, id);
        }
        self.shares.of(id).uses(now, id);
        Some(stream)
    }

    /// Whose part a group takes over that gets its first stream.
    fn predecessor(&self, now: Time, group: &Group) -> Option<GroupId> {
        let replaced = |old: &Group| {
            (old.isolation, old.target) == (group.isolation, group.target)
                && old.is_retired(now)
                && old.streams == 0
        };
        let old = self.groups.iter().find(|(_, old)| replaced(old))?;
        group.opened.is_none().then_some(*old.0)
    }

    /// The caller is done with a stream that it opened.
    pub fn closed(&mut self, now: Time, id: GroupId) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.streams = group.streams.saturating_sub(1);
            group.last_used = now;
        }
    }

    /// The tunnel of a group, to write and read streams.
    pub fn tunnel(&mut self, id: GroupId) -> Option<&mut Tunnel> {
        self.groups.get_mut(&id)?.tunnel.as_mut()
    }

    /// The user gave something to a stream, or takes something from it.
    pub fn touch(&mut self, now: Time, id: GroupId) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.stock.in_use(now);
            group.last_used = now;
            self.shares.of(id).uses(now, id);
        }
    }

    /// True if the service of a group has left a question unanswered for some seconds, and another service could answer
    /// in its place: a request that has no answer yet is better asked anew, in [`Self::group`].
    pub fn may_go_elsewhere(&self, now: Time, id: GroupId) -> bool {
        let Some(group) = self.groups.get(&id) else { return false };
        let Some((document, location)) = self.router.document(now).zip(group.location) else {
            return false;
        };
        let others = document.exits.iter().any(|exit| exit.body().identity.0 != location.identity);
        // Only exits stand for each other; an address has one service.
        group.target == Target::Exit && others && group.silence(now) > self.patience() * SILENCE
    }

    /// The service of a group is avoided for a while, at whichever gateway.
    pub fn avoid(&mut self, now: Time, id: GroupId) {
        let group = self.groups.get(&id);
        let Some((target, location)) =
            group.and_then(|group| Some((group.target, group.location?)))
        else {
            return;
        };
        self.avoid_service(now, &target, location.identity, now + AVOID);
    }

    /// A request in this group got no answer: if the service has been silent, the next one goes elsewhere.
    pub fn complain(&mut self, now: Time, id: GroupId) {
        if self.groups.get(&id).is_some_and(|group| group.silence(now) > 2 * SILENCE) {
            self.fail(now, id, Failure::Silent);
        }
    }
}
