//! A person as a member of an organisation: the engine of messages, with what lies on its disk.
//! `client/src/daemon/people.rs` drives it with files.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use shoal_client::engine::{Handle, LetterId, contact_of_person};
use shoal_client::sender::Sender;
use shoal_people::{
    Body, Conversation, Input, Key, LetterNumber, MessageName, NotRestored, Output, PacketNumber,
    People, PeriodKeys, Published, Roster, RosterDevice, Settings as MessageSettings, State,
};
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::{Class, ClientDescriptor, Engine as _, Identity, SecretIdentity, Seed, Time};

use super::network::bytes;
use super::settings::Settings;

/// What the engine of messages wants of the client's engine.
enum Wanted {
    Post { letter: LetterNumber, to: ServiceAddress, message: Vec<u8> },
    Seek { device: u32, address: ServiceAddress },
}

/// What has become of a message.
pub(super) enum Outcome {
    /// It has come, for the first time or again.
    Read(u32),
    /// Its writer knows that it has arrived.
    Delivered(u32),
    /// Its writer was told that it has not.
    Expired,
}

/// The members of the world's organisation: each person has one device, of the same number.
pub(super) fn roster(devices: impl Iterator<Item = ServiceAddress>, seed: &Seed) -> Roster {
    let device = |(person, address): (u32, ServiceAddress)| {
        let key = Identity(address.identity);
        (person, RosterDevice { person, key, address, held_until: 0 })
    };
    let devices: BTreeMap<_, _> = (0..).zip(devices).map(device).collect();
    let size = devices.len() as u64;
    let organisation = Identity(bytes(seed, "organisation"));
    let people = devices.keys().copied().collect();
    let removed = BTreeMap::new();
    Roster { organisation, size, head: size, is_current: true, devices, removed, people }
}

/// See the module.
pub(super) struct MemberDevice {
    /// The number of its device.
    number: u32,
    identity: SecretIdentity,
    settings: MessageSettings,
    /// Of so many people who follow each other are groups; 0 if there are none.
    group_size: u32,
    roster: Roster,
    seed: Seed,
    /// How often its program has started.
    starts: u32,
    engine: People,
    disk: BTreeMap<Key, Vec<u8>>,
    /// What was written, by the number of the activity, and where it stands.
    written: BTreeMap<MessageName, (u32, State)>,
    /// The letters that the client's engine has.
    posted: BTreeMap<LetterId, LetterNumber>,
    /// The devices whose descriptors are asked for.
    sought: BTreeMap<ServiceAddress, u32>,
    /// What the client's engine has no room for yet.
    wanted: VecDeque<Wanted>,
}

impl MemberDevice {
    /// The one with this number, whose program starts for the first time.
    ///
    /// # Errors
    /// None, as nothing was saved yet.
    pub(super) fn new(
        (number, identity): (u32, SecretIdentity),
        (settings, class): (&Settings, &Class),
        roster: Roster,
        seed: Seed,
        unix_ms: u64,
    ) -> Result<Self, NotRestored> {
        let of_class = MessageSettings::of(class);
        let group_size = settings.people.group_size;
        let receipts_ms = if settings.trial.receipts_wait { of_class.receipts_ms } else { 0 };
        let settings = MessageSettings { receipts_ms, ..of_class };
        let device = (number, identity.clone());
        let engine = People::restore(unix_ms, device, settings, roster.clone(), &seed, [])?;
        let (disk, written, posted, sought, wanted) = Default::default();
        Ok(Self {
            number,
            identity,
            settings,
            group_size,
            roster,
            seed,
            starts: 0,
            engine,
            disk,
            written,
            posted,
            sought,
            wanted,
        })
    }

    /// Its program starts, with what lies on the disk. False if that cannot be read.
    pub(super) fn start(&mut self, unix_ms: u64) -> bool {
        self.starts += 1;
        let seed = self.seed.part(&format!("start {}", self.starts));
        let device = (self.number, self.identity.clone());
        let (roster, disk) = (self.roster.clone(), self.disk.clone());
        let engine = People::restore(unix_ms, device, self.settings, roster, &seed, disk);
        let Ok(engine) = engine else { return false };
        self.engine = engine;
        self.posted.clear();
        self.sought.clear();
        self.wanted.clear();
        true
    }

    /// What the descriptor of the period that begins at this second says of it.
    pub(super) fn published(&self, begins: u64) -> Vec<u8> {
        let keys = self.keys(begins).public().clone();
        Published { keys, device: self.number, size: self.roster.size }.encode()
    }

    fn keys(&self, begins: u64) -> PeriodKeys {
        PeriodKeys::new(&bytes(&self.seed, &format!("sessions of {begins}")), begins)
    }

    /// The keys of the periods are these, by the second at which each begins, the present one first.
    pub(super) fn turn_keys(&mut self, periods: &[u64], unix_ms: u64) {
        let keys = periods.iter().map(|begins| self.keys(*begins)).collect();
        self.engine.handle(unix_ms, Input::Keys(keys));
    }

    /// There is a link, or none any more.
    pub(super) fn linked(&mut self, is_linked: bool, unix_ms: u64) {
        let input = if is_linked { Input::Connected } else { Input::Disconnected };
        self.engine.handle(unix_ms, input);
        if is_linked {
            self.found(unix_ms);
        }
    }

    /// True if another person belongs to the group of this one.
    fn shares_group(&self, other: u32) -> bool {
        self.group_size > 1 && self.number / self.group_size == other / self.group_size
    }

    /// Founds the group of those who follow this person, if that is for him to do and was not done.
    fn found(&mut self, unix_ms: u64) {
        let others = (self.number + 1..).take(self.group_size.saturating_sub(1) as usize);
        let others: Vec<u32> = others.filter(|other| self.roster.people.contains(other)).collect();
        let is_first = self.group_size > 1 && self.number.is_multiple_of(self.group_size);
        if is_first && !others.is_empty() && self.engine.groups().next().is_none() {
            // It has a name, and nobody here is in too many.
            let _ = self.engine.found_group(unix_ms, "group", &others);
        }
    }

    /// A letter came.
    pub(super) fn came(&mut self, letter: Handle, bytes: Vec<u8>, unix_ms: u64) {
        self.engine.handle(unix_ms, Input::Packet(PacketNumber(letter.0), bytes));
    }

    /// A letter has left, or reached nobody. False if it is none of these.
    pub(super) fn ended(&mut self, id: LetterId, has_left: bool, unix_ms: u64) -> bool {
        let Some(letter) = self.posted.remove(&id) else { return false };
        let input = if has_left { Input::Left(letter) } else { Input::Returned(letter) };
        self.engine.handle(unix_ms, input);
        true
    }

    /// Somebody's descriptor, or none, was found.
    pub(super) fn described(
        &mut self,
        of: &ServiceAddress,
        found: Option<&ClientDescriptor>,
        unix_ms: u64,
    ) {
        let Some(device) = self.sought.remove(of) else { return };
        let found = found.and_then(|found| {
            let published = Published::decode(&found.attached).ok()?;
            Some((published, found.not_before, found.not_after))
        });
        self.engine.handle(unix_ms, Input::Described { device, found });
    }

    /// Writes what an activity says to the person with this number, or to the group that both belong to: nobody has heard of that
    /// before its founder had a link. Its text is the number of the activity, and of that person.
    pub(super) fn write(&mut self, to: u32, activity: u32, unix_ms: u64) {
        let body = Body::Text(format!("{activity} {to}"));
        let conversation = match self.engine.groups().next() {
            Some((group, _)) if self.shares_group(to) => Conversation::Group(group),
            _ => Conversation::Person(to),
        };
        // Who is told at once that it cannot be sent was told, too.
        if let Ok(name) = self.engine.send(unix_ms, conversation, &body, 0) {
            self.written.insert(name, (activity, State::Queued(shoal_people::Waiting::Turn)));
        }
    }

    /// Does what is due, and what the engine wants done. What has become of messages.
    pub(super) fn work(
        &mut self,
        client: &mut Sender,
        (now, unix_ms): (Time, u64),
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        if self.engine.next_wake().is_some_and(|at| at <= unix_ms) {
            self.engine.wake(unix_ms);
        }
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Save(changes) => {
                    for (key, change) in changes {
                        match (key, change) {
                            // What was read is told below.
                            (Key::Received(_), _) => {}
                            (key, Some(bytes)) => _ = self.disk.insert(key, bytes.0.to_vec()),
                            (key, None) => _ = self.disk.remove(&key),
                        }
                    }
                }
                Output::Post { letter, to, message } => {
                    self.wanted.push_back(Wanted::Post { letter, to, message });
                }
                Output::Seek { device, address } => {
                    self.wanted.push_back(Wanted::Seek { device, address });
                }
                Output::Vouched(packet, person) => {
                    client.authenticated(now, contact_of_person(person), Handle(packet.0));
                }
                Output::State(name, state) => outcomes.extend(self.stands(&name, state)),
                Output::Received(message) => {
                    let text = match message.body {
                        Body::Text(text) => text,
                        _ => continue,
                    };
                    // Each message counts once, though a whole group reads it.
                    let read =
                        text.split_once(' ').filter(|(_, to)| *to == self.number.to_string());
                    outcomes.extend(read.and_then(|(of, _)| of.parse().ok()).map(Outcome::Read));
                }
                Output::Missed(..) | Output::Group(_) | Output::Reached(..) => {}
            }
        }
        self.hand_over(client, now);
        outcomes
    }

    /// Where a message stands is told once for each change.
    fn stands(&mut self, name: &MessageName, state: State) -> Option<Outcome> {
        let (activity, before) = self.written.get_mut(name)?;
        if *before == state {
            return None;
        }
        *before = state;
        match before {
            State::Delivered => Some(Outcome::Delivered(*activity)),
            State::Expired(_) => Some(Outcome::Expired),
            _ => None,
        }
    }

    fn hand_over(&mut self, client: &mut Sender, now: Time) {
        while let Some(wanted) = self.wanted.pop_front() {
            match wanted {
                Wanted::Seek { device, address } => {
                    self.sought.insert(address, device);
                    client.seek(now, address);
                }
                Wanted::Post { letter, to, message } => match client.write(now, to, &message) {
                    Ok(id) => _ = self.posted.insert(id, letter),
                    Err(_) => {
                        return self.wanted.push_front(Wanted::Post { letter, to, message });
                    }
                },
            }
        }
    }

    /// Messages of which nobody knows yet whether they arrive.
    pub(super) fn waiting(&self) -> usize {
        let is_over = |state: &State| matches!(state, State::Delivered | State::Expired(_));
        self.written.values().filter(|(_, state)| !is_over(state)).count()
    }

    /// When it wants to be called again.
    pub(super) fn next_wake(&mut self, now: Time, unix_ms: u64) -> Time {
        let at = self.engine.next_wake();
        at.map_or(Time::NEVER, |at| now + Duration::from_millis(at.saturating_sub(unix_ms)))
    }
}
