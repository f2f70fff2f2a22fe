//! Permits that users share: dials, look-ups and associations of an exit, each for its tunnel.
//!
//! A newcomer finds room as long as somebody has more than he would have: the oldest permit of whoever has most is his.
//! So a tunnel that waits for hosts which do not answer yields to others, and who asks for little gets it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::dial::DialLimits;
use crate::tunnel::Pseudonym;

/// What a tunnel waits for longer than this yields to another tunnel, when all permits are taken.
const PATIENT: Duration = Duration::from_secs(2);

struct Held<U> {
    user: U,
    since: Instant,
    lost: Rc<Notify>,
}

struct PermitTable<U> {
    next: u64,
    held: BTreeMap<u64, Held<U>>,
    by_user: HashMap<U, BTreeSet<u64>>,
}

/// Permits for many users.
pub(super) struct Permits<U> {
    most: usize,
    /// What has lasted longer yields to a user who has as much as its own.
    patience: Duration,
    inner: RefCell<PermitTable<U>>,
    refused: Cell<u64>,
}

/// A permit, until it is dropped.
pub(super) struct Permit<U: Copy + Eq + Hash> {
    permits: Rc<Permits<U>>,
    number: u64,
    lost: Rc<Notify>,
}

impl<U: Copy + Eq + Hash> Permits<U> {
    pub(super) fn new(most: usize, patience: Duration) -> Rc<Self> {
        let (held, by_user) = Default::default();
        let inner = RefCell::new(PermitTable { next: 0, held, by_user });
        Rc::new(Self { most, patience, inner, refused: Cell::new(0) })
    }

    /// A permit for this user, who has the fewer the better; none, and counted, when others have no more than it would.
    pub(super) fn take(self: &Rc<Self>, user: U) -> Option<Permit<U>> {
        self.take_at(user, Instant::now())
    }

    fn take_at(self: &Rc<Self>, user: U, now: Instant) -> Option<Permit<U>> {
        let mut inner = self.inner.borrow_mut();
        if inner.held.len() >= self.most {
            let yields = inner.yields(user, now, self.patience);
            self.refused.set(self.refused.get() + 1);
            let held = inner.remove(yields?)?;
            held.lost.notify_one();
        }
        inner.next += 1;
        let (number, lost) = (inner.next, Rc::new(Notify::new()));
        inner.held.insert(number, Held { user, since: now, lost: lost.clone() });
        inner.by_user.entry(user).or_default().insert(number);
        Some(Permit { permits: self.clone(), number, lost })
    }

    /// How many are taken, of how many.
    pub(super) fn load(&self) -> (usize, usize) {
        (self.inner.borrow().held.len(), self.most)
    }

    /// Users who were refused a permit, or lost one to another.
    pub(super) fn refused(&self) -> u64 {
        self.refused.get()
    }
}

impl<U: Copy + Eq + Hash> PermitTable<U> {
    /// Whose permit goes to a newcomer.
    fn yields(&self, newcomer: U, now: Instant, patience: Duration) -> Option<u64> {
        let own = self.by_user.get(&newcomer).map_or(0, BTreeSet::len);
        let weight =
            |numbers: &&BTreeSet<u64>| (numbers.len(), std::cmp::Reverse(numbers.first().copied()));
        let most = self.by_user.values().max_by_key(weight)?;
        let oldest = *most.first()?;
        let waits = now.saturating_duration_since(self.held.get(&oldest)?.since) > patience;
        (own + 1 < most.len() || own < most.len() && waits).then_some(oldest)
    }

    fn remove(&mut self, number: u64) -> Option<Held<U>> {
        let held = self.held.remove(&number)?;
        if let Some(numbers) = self.by_user.get_mut(&held.user) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_user.remove(&held.user);
            }
        }
        Some(held)
    }
}

impl<U: Copy + Eq + Hash> Permit<U> {
    /// What `work` comes to, unless the permit is lost to another before.
    pub(super) async fn hold<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.lost.notified() => None,
        }
    }
}

impl<U: Copy + Eq + Hash> Drop for Permit<U> {
    fn drop(&mut self) {
        self.permits.inner.borrow_mut().remove(self.number);
    }
}

/// What clients share at an exit, each as the tunnel it comes by: the exit knows no more of it.
pub(super) struct Quotas {
    /// Connections being made, names being resolved.
    pub(super) dials: Rc<Permits<Pseudonym>>,
    /// Names that datagrams wait for.
    lookups: Rc<Permits<Pseudonym>>,
    pub(super) associations: Rc<Permits<Pseudonym>>,
}

/// What the associations of all tunnels share.
pub(super) struct UdpQuotas {
    /// Names that datagrams wait for.
    pub(super) lookups: Rc<Permits<Pseudonym>>,
    pub(super) associations: Rc<Permits<Pseudonym>>,
}

impl Quotas {
    pub(super) fn new(limits: DialLimits) -> Self {
        let permits = |most| Permits::new(most, PATIENT);
        let (dials, lookups) = (permits(limits.dials), permits(limits.dials));
        Self { dials, lookups, associations: permits(limits.associations) }
    }

    /// For the datagrams of an association.
    pub(super) fn of_udp(&self) -> UdpQuotas {
        UdpQuotas { lookups: self.lookups.clone(), associations: self.associations.clone() }
    }

    pub(super) fn refused(&self) -> u64 {
        [&self.dials, &self.lookups, &self.associations]
            .map(|permits| permits.refused())
            .iter()
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    #[tokio::test]
    async fn one_user_who_waits_for_silence_leaves_room_for_another() {
        let permits = Permits::new(256, PATIENCE);
        let mut held: Vec<_> = (0..1_000).map(|n| permits.take(n % 3)).collect();
        assert_eq!(held.iter().flatten().count(), 256);
        assert_eq!(permits.load(), (256, 256));
        // Twenty at a time, though the others take every permit that is to be had.
        for _ in 0..20 {
            held.push(Some(permits.take(7).unwrap()));
            held.extend((0..10).map(|n| permits.take(n % 3)));
        }
        let lost = held.iter().flatten().filter(|permit| {
            let inner = permits.inner.borrow();
            !inner.held.contains_key(&permit.number)
        });
        assert_eq!(lost.count(), 20);
        assert!(permits.refused() > 700);
    }

    #[tokio::test]
    async fn who_lost_its_permit_stops_and_gives_nothing_back_twice() {
        let permits = Permits::new(2, PATIENCE);
        let first = permits.take(1).unwrap();
        let second = permits.take(1).unwrap();
        let other = permits.take(2).unwrap();
        assert_eq!(first.hold(std::future::pending::<()>()).await, None);
        drop(first);
        assert_eq!(permits.load().0, 2);
        assert_eq!(second.hold(async { 5 }).await, Some(5));
        drop((second, other));
        assert_eq!(permits.load().0, 0);
        assert!(permits.inner.borrow().by_user.is_empty());
    }

    #[tokio::test]
    async fn among_as_many_users_as_permits_who_has_waited_long_yields() {
        let permits = Permits::new(64, PATIENCE);
        let held: Vec<_> = (0..64).map(|n| permits.take(n).unwrap()).collect();
        assert!(permits.take(100).is_none());
        let later = Instant::now() + PATIENCE * 2;
        let new = permits.take_at(100, later).unwrap();
        assert_eq!(held[0].hold(std::future::pending::<()>()).await, None);
        assert!(permits.take_at(100, later).is_none(), "who has one already waits");
        drop((held, new));
    }
}
