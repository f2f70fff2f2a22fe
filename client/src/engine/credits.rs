//! What gives credit against the loops that the uplink owes, and what does not.
//!
//! A credit takes a loop's place, so whoever can make credits can take the loops away that hide everybody else's packets
//! from the gateway. The gateway can make arrivals: it knows the inbox, and the key of a client that publishes a
//! descriptor. So only what somebody else has authenticated counts, and one contact's credits are bounded: whoever is
//! authentic may still be the gateway's friend.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use shoal_topology::{Class, Time};

/// Letters that wait for their session's word; beyond it the oldest is taken for a stranger's.
const MAX_WAITING: usize = 256;
/// How long a letter waits for it.
const LETTER_LIMIT: Duration = Duration::from_secs(10);
/// Contacts whose credits are counted; those who have been quiet long enough are forgotten, and while all are busy a
/// new one gets none.
const MAX_CONTACTS: usize = 1_024;
/// Services whose credits are counted; as with contacts.
const MAX_SERVICES: usize = 256;
/// Calls that may last at one time.
const MAX_CALLS: usize = 64;
/// What one contact's credits replace of the loops in payload slots.
const SHARE: f64 = 0.25;
/// Credits that one contact may use at once: what it saved in so many seconds, and a few messages.
const SAVED_S: f64 = 4.0;
const SAVED_LEAST: f64 = 4.0;

/// A contact, or a device of one, as the caller tells them apart: say, a hash of its key.
pub type ContactId = [u8; 32];

/// The contact that a person is, by the number in the one organisation of a client.
pub fn contact_of_person(person: u32) -> ContactId {
    let mut contact = [0; 32];
    contact.iter_mut().zip(person.to_be_bytes()).for_each(|(to, byte)| *to = byte);
    contact
}

/// A letter that was given out ([`ClientOutput::Message`](super::ClientOutput::Message)): its session may answer for it
/// once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Handle(pub u64);

/// The credits that one source has left.
#[derive(Clone, Copy)]
struct Quota {
    tokens: f64,
    counted: Time,
}

impl Quota {
    fn full(now: Time, class: &Class) -> Self {
        Self { tokens: Self::most(class), counted: now }
    }

    /// A quota with nothing saved.
    fn none(now: Time) -> Self {
        Self { tokens: 0.0, counted: now }
    }

    /// Credits per second.
    fn rate(class: &Class) -> f64 {
        SHARE * class.loop_share * class.payload_per_s
    }

    fn most(class: &Class) -> f64 {
        (SAVED_S * Self::rate(class)).max(SAVED_LEAST)
    }

    fn gather(&mut self, now: Time, class: &Class) {
        let gathered = Self::rate(class) * now.since(self.counted).as_secs_f64();
        (self.tokens, self.counted) = ((self.tokens + gathered).min(Self::most(class)), now);
    }

    /// Takes a credit, if there is one.
    fn take(&mut self, now: Time, class: &Class) -> bool {
        self.gather(now, class);
        // Eighths of a token do not add up to one exactly.
        let has = self.tokens >= 1.0 - 1e-6;
        self.tokens -= f64::from(u8::from(has));
        has
    }

    fn is_full(&mut self, now: Time, class: &Class) -> bool {
        self.gather(now, class);
        self.tokens >= Self::most(class)
    }
}

/// The letters that wait for their sessions, and the credits of contacts.
#[derive(Default)]
pub(super) struct Credits {
    next: u64,
    waiting: VecDeque<(Handle, Time)>,
    contacts: BTreeMap<ContactId, Quota>,
    /// By the identities of services, whatever tunnels lead to them.
    services: BTreeMap<[u8; 32], Quota>,
    calls: Vec<ContactId>,
}

impl Credits {
    /// A letter is given out.
    pub(super) fn letter(&mut self, now: Time) -> Handle {
        self.next += 1;
        let handle = Handle(self.next);
        self.waiting.push_back((handle, now));
        if self.waiting.len() > MAX_WAITING {
            self.waiting.pop_front();
        }
        handle
    }

    /// Forgets letters that have waited long: how many.
    pub(super) fn expire(&mut self, now: Time) -> u64 {
        let before = self.waiting.len();
        self.waiting.retain(|(_, since)| now.since(*since) < LETTER_LIMIT);
        (before - self.waiting.len()) as u64
    }

    /// An authentic reply of a service that nobody uses: whether it gives credit. All tunnels to it have one quota, with nothing
    /// saved at first: who asks for nothing gets a reply seldom.
    pub(super) fn of_unused_service(
        &mut self,
        now: Time,
        identity: [u8; 32],
        class: &Class,
    ) -> bool {
        if self.services.len() >= MAX_SERVICES && !self.services.contains_key(&identity) {
            self.services.retain(|_, quota| !quota.is_full(now, class));
            if self.services.len() >= MAX_SERVICES {
                return false;
            }
        }
        self.services.entry(identity).or_insert_with(|| Quota::none(now)).take(now, class)
    }

    /// A session answers for a letter: whether it waited, and whether it gives credit.
    pub(super) fn authenticated(
        &mut self,
        now: Time,
        (contact, handle): (ContactId, Handle),
        class: &Class,
    ) -> (bool, bool) {
        let Some(at) = self.waiting.iter().position(|(waits, _)| *waits == handle) else {
            return (false, false);
        };
        // Once: whoever answers twice for one letter gets nothing the second time.
        self.waiting.remove(at);
        // The user has accepted what this contact sends, for as long as the call lasts.
        if self.calls.contains(&contact) {
            return (true, true);
        }
        if self.contacts.len() >= MAX_CONTACTS && !self.contacts.contains_key(&contact) {
            // A full quota is what a new one gets, so nothing is lost with it.
            self.contacts.retain(|_, quota| !quota.is_full(now, class));
            if self.contacts.len() >= MAX_CONTACTS {
                return (true, false);
            }
        }
        let quota = self.contacts.entry(contact).or_insert_with(|| Quota::full(now, class));
        (true, quota.take(now, class))
    }

    /// A call with this contact begins: all that it sends gives credit. True if there was room.
    pub(super) fn call_accepted(&mut self, contact: ContactId) -> bool {
        let room = self.calls.len() < MAX_CALLS;
        let known = self.calls.contains(&contact);
        if room && !known {
            self.calls.push(contact);
        }
        room || known
    }

    /// The call is over.
    pub(super) fn call_ended(&mut self, contact: &ContactId) {
        self.calls.retain(|of| of != contact);
    }
}

#[cfg(test)]
mod tests {
    use shoal_topology::Parameters;

    use super::*;

    fn class(name: &str) -> Class {
        Parameters::default().class(name).unwrap().clone()
    }

    /// Credits that so many contacts get, each of whom sends `every` ms, in `seconds`.
    fn credits(credits: &mut Credits, contacts: u8, every: u64, seconds: u64) -> usize {
        let web = class("web");
        let mut given = 0;
        for at in (0..1_000 * seconds).step_by(every as usize) {
            for n in 0..contacts {
                let now = Time::from_millis(at);
                let handle = credits.letter(now);
                let (waited, credit) = credits.authenticated(now, ([n; 32], handle), &web);
                assert!(waited);
                given += usize::from(credit);
            }
        }
        given
    }

    #[test]
    fn one_contact_takes_the_place_of_a_quarter_of_the_loops_and_four_of_all() {
        let web = class("web");
        let loops = web.loop_share * web.payload_per_s;
        for contacts in [1, 2, 4] {
            let given = credits(&mut Credits::default(), contacts, 20, 100) as f64;
            let share = f64::from(contacts) / 4.0;
            // What was saved in four seconds, and a hundred more.
            assert!((given - 104.0 * share * loops).abs() < 5.0, "{contacts}: {given}");
        }
    }

    #[test]
    fn a_few_messages_of_a_contact_all_give_credit_in_every_class() {
        for name in ["text", "call", "web", "fast"] {
            let (class, mut credits) = (class(name), Credits::default());
            for _ in 0..4 {
                let handle = credits.letter(Time::ZERO);
                let given = credits.authenticated(Time::ZERO, ([1; 32], handle), &class);
                assert_eq!(given, (true, true), "{name}");
            }
        }
    }

    #[test]
    fn an_accepted_call_has_no_bound_until_it_ends() {
        let mut credits_of = Credits::default();
        assert!(credits_of.call_accepted([0; 32]));
        assert_eq!(credits(&mut credits_of, 1, 20, 20), 1_000);
        credits_of.call_ended(&[0; 32]);
        assert!(credits(&mut credits_of, 1, 20, 20) < 200);
    }

    #[test]
    fn a_letter_gives_credit_once_and_not_when_its_session_was_slow() {
        let (web, mut credits) = (class("web"), Credits::default());
        let handle = credits.letter(Time::ZERO);
        assert_eq!(credits.authenticated(Time::ZERO, ([1; 32], handle), &web), (true, true));
        assert_eq!(credits.authenticated(Time::ZERO, ([1; 32], handle), &web), (false, false));
        let handle = credits.letter(Time::ZERO);
        assert_eq!(credits.expire(Time::from_secs(9)), 0);
        assert_eq!(credits.expire(Time::from_secs(10)), 1);
        let late = credits.authenticated(Time::from_secs(10), ([1; 32], handle), &web);
        assert_eq!(late, (false, false));
    }

    #[test]
    fn letters_contacts_and_calls_are_bounded() {
        let (web, mut credits) = (class("web"), Credits::default());
        (0..1_000).for_each(|_| _ = credits.letter(Time::ZERO));
        assert_eq!(credits.waiting.len(), 256);
        let contact = |n: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            id
        };
        let credit = |credits: &mut Credits, now, n| {
            let handle = credits.letter(now);
            credits.authenticated(now, (contact(n), handle), &web)
        };
        for n in 0..2_000 {
            let given = credit(&mut credits, Time::ZERO, n);
            assert_eq!(given, (true, n < 1_024), "{n}");
        }
        assert_eq!(credits.contacts.len(), 1_024);
        // All have been quiet: there is room again.
        assert_eq!(credit(&mut credits, Time::from_secs(10), 5_000), (true, true));
        let calls = (0..100).filter(|n| credits.call_accepted(contact(*n))).count();
        assert_eq!((calls, credits.calls.len()), (64, 64));
    }

    #[test]
    fn services_that_nobody_uses_have_a_quota_each_and_are_bounded() {
        let (web, mut credits) = (class("web"), Credits::default());
        let mut of = |s, n: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            credits.of_unused_service(Time::from_secs(s), id, &web)
        };
        assert!(!of(0, 0), "nothing is saved yet");
        let given = (1..=100).map(|s| (0..100).filter(|_| of(s, 0)).count()).sum::<usize>();
        assert!((600..=625).contains(&given), "6.25 a second: {given}");
        (1..1_000).for_each(|n| assert!(!of(100, n)));
        assert!(!of(101, 999) && of(101, 255), "255 beside the first have a place");
        // Those who are quiet make room.
        assert!(!of(200, 999));
        assert!(of(201, 999));
    }
}
