//! What a person's program does around the engine so that others can write to it by its address, and it to them: keys by
//! period, the descriptor for the gateway, and letters that are tried until somebody was reached.
//! `client/src/daemon/{user/keys,letters}.rs` do it with files.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use shoal_client::engine::LetterId;
use shoal_client::key_life::{DRAINED, KeyLife, RENEWED_AFTER, Reached};
use shoal_client::sender::Sender;
use shoal_sphinx::SecretKey;
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::wire::client_gateway::{ControlMessage as _, Renew};
use shoal_topology::{ClientDescriptor, Identity, SecretIdentity, Seed, Signed, Stream, Time};

use super::keyring::PersonKeyring;
use super::letter::{Letter, Recipients};
use super::member::{MemberDevice, Outcome};
use super::network::identity;
use super::spans::span;

/// How often keys are looked at.
pub(super) const KEYS_LOOK: Duration = Duration::from_secs(10);
/// Letters that the engine has at a time, as in the daemon.
const POSTED: usize = 32;
/// Seconds before each next attempt to reach somebody, the last for all that follow, each times a number of its own from
/// [`SPREAD`]: as in the daemon.
const RETRIES_S: [f64; 7] = [60.0, 600.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0, 86_400.0];
const SPREAD: std::ops::Range<f64> = 0.7..1.3;
/// After so long a letter is given up, as in the daemon.
const LIVES: Duration = Duration::from_secs(14 * 86_400);

/// A letter that has not left.
struct Outgoing {
    letter: Letter,
    /// When it is tried.
    due: Time,
    /// When it is given up.
    until: Time,
    /// How often nobody was reached.
    tries: usize,
}

/// What lies on the disk of somebody to whom others write by an address.
pub(super) struct Reachable {
    /// By which others know it, and with which it signs descriptors.
    identity: SecretIdentity,
    /// The address of its inbox, and the gateway that has it.
    inbox: Identity,
    gateway: Identity,
    keys: PersonKeyring,
    /// Its messages, if it is a member of the organisation.
    pub(super) member: Option<MemberDevice>,
    /// What has become of them since somebody asked.
    pub(super) outcomes: Vec<Outcome>,
    /// Of the key that the gateway was told of last, when its period begins.
    told: Option<u64>,
    /// When the link came up, or a letter last came over it.
    quiet_since: Time,
    /// Letters that have not left, in the order in which they were written.
    outgoing: BTreeMap<u64, Outgoing>,
    /// Of these, those that the engine has.
    posted: BTreeMap<LetterId, u64>,
    next: u64,
    draws: Stream,
}

impl Reachable {
    /// With periods of this length, for an inbox at a gateway.
    pub(super) fn new(
        period_s: u32,
        (inbox, gateway): (Identity, Identity),
        seed: &Seed,
        unix_s: u64,
    ) -> Self {
        let life = KeyLife::new(u64::from(period_s), Reached::WhileAway);
        let (told, outgoing, posted) = Default::default();
        Self {
            identity: identity(seed, "identity"),
            inbox,
            gateway,
            keys: PersonKeyring::new(life, seed.part("keys of periods"), unix_s),
            member: None,
            outcomes: Vec::new(),
            told,
            quiet_since: Time::ZERO,
            outgoing,
            posted,
            next: 0,
            draws: seed.stream("retries of letters"),
        }
    }

    /// By which it signs.
    pub(super) fn identity(&self) -> SecretIdentity {
        self.identity.clone()
    }

    /// It is a member from now on.
    pub(super) fn enrol(&mut self, mut member: MemberDevice, unix_ms: u64) {
        member.turn_keys(self.keys.periods(), unix_ms);
        self.member = Some(member);
    }

    /// What others need to know to write to it.
    pub(super) fn address(&self) -> ServiceAddress {
        ServiceAddress { identity: self.identity.identity().0, gateway: self.gateway.0 }
    }

    /// The key of the present period.
    pub(super) fn key(&self, unix_s: u64) -> Option<SecretKey> {
        self.keys.present(unix_s).map(|(.., key)| key.clone())
    }

    /// The descriptor of the present period, encoded.
    pub(super) fn descriptor(&self, unix_s: u64) -> Option<Vec<u8>> {
        let (begins, until, key) = self.keys.present(unix_s)?;
        let body = ClientDescriptor {
            identity: self.identity.identity(),
            key: *key.public().as_bytes(),
            inbox: self.inbox,
            gateways: vec![self.gateway],
            not_before: begins,
            not_after: until,
            attached: self.member.as_ref().map(|of| of.published(begins)).unwrap_or_default(),
        };
        Some(Signed::<ClientDescriptor>::new(body, &self.identity).encode())
    }

    /// A program starts: it has the key of the present period.
    pub(super) fn open(&mut self, unix_s: u64) {
        self.keys.open(unix_s);
    }

    /// Its engine begins: it gets all keys with what they remember, and letters that an earlier one had are for it. False if what
    /// lies on the disk cannot be read.
    pub(super) fn begin(&mut self, client: &mut Sender, (unix_s, unix_ms): (u64, u64)) -> bool {
        self.posted.clear();
        self.told = None;
        if let Some(all) = self.keys.rotate(unix_s) {
            client.begin_keys(all, |key| self.keys.memory(key));
        }
        let Some(member) = &mut self.member else { return true };
        let has_started = member.start(unix_ms);
        member.turn_keys(self.keys.periods(), unix_ms);
        has_started
    }

    /// The gateway let it in, and has its descriptor: that came with the first word.
    pub(super) fn up(&mut self, now: Time, (unix_s, unix_ms): (u64, u64)) {
        self.keys.told(unix_s);
        self.told = self.keys.present(unix_s).map(|(begins, ..)| begins);
        self.quiet_since = now;
        self.member.iter_mut().for_each(|member| member.linked(true, unix_ms));
    }

    /// There is no link any more.
    pub(super) fn down(&mut self, unix_ms: u64) {
        self.member.iter_mut().for_each(|member| member.linked(false, unix_ms));
    }

    /// A letter came.
    pub(super) fn came(&mut self, now: Time) {
        self.quiet_since = now;
    }

    /// There is a link: keys are erased that nobody can use, if nothing waits at the gateway any more.
    pub(super) fn drain(&mut self, now: Time, unix_s: u64) {
        if now.since(self.quiet_since) > DRAINED {
            self.keys.drained(unix_s);
        }
    }

    /// Turns keys whose time has come.
    pub(super) fn turn_keys(&mut self, client: &mut Sender, (unix_s, unix_ms): (u64, u64)) {
        if let Some(all) = self.keys.rotate(unix_s) {
            client.set_keys(all, |key| self.keys.memory(key));
            if let Some(member) = &mut self.member {
                member.turn_keys(self.keys.periods(), unix_ms);
            }
        }
    }

    /// There is a link: the gateway is told of the present period's key, if it does not know it yet.
    pub(super) fn renew(&mut self, client: &mut Sender, now: Time, unix_s: u64) {
        let begins = self.keys.present(unix_s).map(|(begins, ..)| begins);
        if let Some(begins) = begins
            && self.told != Some(begins)
            && let Some(descriptor) = self.descriptor(unix_s)
            && let Ok(message) = (Renew { descriptor }).pack()
        {
            let passed = Duration::from_secs(unix_s.saturating_sub(begins));
            let wait = RENEWED_AFTER.checked_sub(passed).unwrap_or(RENEWED_AFTER);
            client.send_control(now + wait, message);
            self.told = Some(begins);
            self.keys.told(unix_s);
        }
    }

    /// Writes a letter.
    pub(super) fn write(&mut self, letter: Letter, (now, unix_ms): (Time, u64)) {
        if let Some(member) = &mut self.member {
            return member.write(letter.to, letter.activity, unix_ms);
        }
        let outgoing = Outgoing { letter, due: now, until: now + LIVES, tries: 0 };
        self.outgoing.insert(self.next, outgoing);
        self.next += 1;
    }

    /// Gives the engine what is due.
    pub(super) fn post(
        &mut self,
        client: &mut Sender,
        (now, unix_ms): (Time, u64),
        to: &Recipients,
    ) {
        if let Some(member) = &mut self.member {
            return self.outcomes.extend(member.work(client, (now, unix_ms)));
        }
        if self.outgoing.len() == self.posted.len() {
            return;
        }
        let has: Vec<u64> = self.posted.values().copied().collect();
        let due =
            self.outgoing.iter().filter(|(number, of)| of.due <= now && !has.contains(number));
        for (number, outgoing) in due.take(POSTED.saturating_sub(has.len())) {
            let Some(address) = to.addresses.get(outgoing.letter.to as usize) else { continue };
            let bytes = outgoing.letter.bytes(&to.pairs);
            let Ok(id) = client.write(now, *address, &bytes) else { return };
            self.posted.insert(id, *number);
        }
    }

    /// A letter has left. False if it is none of these.
    pub(super) fn left(&mut self, id: LetterId, unix_ms: u64) -> bool {
        if let Some(member) = &mut self.member {
            return member.ended(id, true, unix_ms);
        }
        let number = self.posted.remove(&id);
        number.is_some_and(|number| self.outgoing.remove(&number).is_some())
    }

    /// A letter reached nobody: it is tried again later, or given up.
    pub(super) fn returned(&mut self, id: LetterId, (now, unix_ms): (Time, u64)) {
        if let Some(member) = &mut self.member {
            member.ended(id, false, unix_ms);
            return;
        }
        let Some(number) = self.posted.remove(&id) else { return };
        let Some(outgoing) = self.outgoing.get_mut(&number) else { return };
        let after = RETRIES_S.get(outgoing.tries).or(RETRIES_S.last()).copied();
        let after = after.unwrap_or_default() * self.draws.random_range(SPREAD);
        outgoing.tries += 1;
        outgoing.due = now + span(after);
        if outgoing.due > outgoing.until {
            self.outgoing.remove(&number);
        }
    }

    /// Letters that have not left; of a member, messages of which it is not known whether they arrive.
    pub(super) fn waiting(&self) -> usize {
        self.member.as_ref().map_or(self.outgoing.len(), MemberDevice::waiting)
    }

    /// When a letter is due that is to be tried again.
    pub(super) fn next_try(&mut self, now: Time, unix_ms: u64) -> Time {
        if let Some(member) = &mut self.member {
            return member.next_wake(now, unix_ms);
        }
        let later = self.outgoing.values().map(|outgoing| outgoing.due).filter(|due| *due > now);
        later.min().unwrap_or(Time::NEVER)
    }
}
