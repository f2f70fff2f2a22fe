//! Messages of a member to the people of his organisation.
//!
//! A thread of its own drives the [engine](People) of messages and owns its files, so that no disk holds up the client's engine.
//! Programs ask it over a socket (docs/messages.md); the engine's thread takes from it what is to be posted or sought, and tells
//! it what came and what left.

pub mod ask;
mod buckets;
mod deliver;
mod groups;
mod history;
mod requests;
mod sealed;
pub(super) mod socket;
mod store;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use shoal_host::exit::chain;
use shoal_host::secret::SecretError;
use shoal_people::{
    Conversation, Input, LetterNumber, MessageName, Output, PacketNumber, People, PeriodKeys,
    Settings,
};
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::{ClientDescriptor, Engine as _, Identity, Seed};
use tokio::sync::mpsc;
use tracing::{error, warn};
use zeroize::Zeroizing;

use super::events::{Event, Events};
use super::mail::{Mail, Member, Order, Orders, ToEngine};
use super::membership::{Membership, PersonKeys, RosterMark};
use super::threads::thread;
use crate::engine::{Handle, LetterId};
use history::History;
pub use store::StoreError;

/// What waits for the engine's thread: more than the engine of messages has out at a time.
const POSTED: usize = 256;
/// How often it is looked whether something is due that nobody tells.
const LOOK: Duration = Duration::from_secs(1);
/// Letters that wait for keys or the directory of a member, at the start.
const EARLY: usize = 64;

/// What the thread needs of a client.
pub(super) struct Own<'a> {
    /// Its data directory.
    pub(super) data_dir: &'a Path,
    /// Where programs find it.
    pub(super) membership: Membership,
    /// What the engine of messages is given for the class of the client.
    pub(super) settings: Settings,
    /// Where what happens is told.
    pub(super) events: Events,
    /// Draws what this run draws.
    pub(super) seed: Seed,
}

/// Starts the thread. It ends with the last sender of orders. What it gives is for the engine.
///
/// # Errors
/// The messages that are there cannot be read.
pub(super) fn start(
    own: Own<'_>,
    (orders, received): (Orders, mpsc::Receiver<Order>),
) -> Result<Mail, StoreError> {
    let Own { data_dir, membership, settings, events, seed } = own;
    let dir = data_dir.join("people");
    let history = History::open(&dir)?;
    let (send, to_engine) = mpsc::channel(POSTED);
    let (lost, member) = (Arc::<AtomicU64>::default(), Arc::<Member>::default());
    // Before there is a link, whose first word has the descriptor.
    if let Some((device, roster)) = membership.roster(&mut RosterMark::default()) {
        member.set(device, roster.size);
    }
    let (counted, published) = (lost.clone(), member.clone());
    let started = thread("shoal-people", move |runtime| {
        let (engine, keys, names, sought, early, again, trouble) = Default::default();
        let messages = Messages {
            membership,
            history,
            settings,
            seed,
            engine,
            mark: RosterMark::default(),
            keys,
            is_linked: false,
            to_engine: send,
            again,
            names,
            sought,
            early,
            undone: VecDeque::new(),
            written: BTreeMap::new(),
            edits: BTreeMap::new(),
            taken_back: BTreeSet::new(),
            events,
            lost: counted,
            member: published,
            trouble,
        };
        runtime.block_on(messages.run(received));
    });
    started.map_err(|source| SecretError::Io { path: dir, source })?;
    Ok(Mail { orders, to_engine, lost, member })
}

/// Tells programs why there are no messages, as long as they ask.
pub(super) async fn refuse(mut received: mpsc::Receiver<Order>, events: Events) {
    const WHY: &str = "nobody can write to this client: set reachable = true in its configuration, start it anew, and join an organisation";
    while let Some(order) = received.recv().await {
        match order {
            Order::Ask(_, answer) => _ = answer.send(Err(WHY.into())),
            Order::Listen(answer) => _ = answer.send((Vec::new(), events.subscribe())),
            _ => {}
        }
    }
}

/// What the thread owns.
struct Messages {
    membership: Membership,
    history: History,
    settings: Settings,
    seed: Seed,
    /// There while this client is a member and has keys.
    engine: Option<People>,
    /// What the engine knows of the directory.
    mark: RosterMark,
    /// Keys that came before the engine was there.
    keys: Option<Vec<PeriodKeys>>,
    is_linked: bool,
    to_engine: mpsc::Sender<ToEngine>,
    /// What the client's engine had no room for.
    again: VecDeque<ToEngine>,
    /// The letters that it has, by its name for them.
    names: BTreeMap<LetterId, LetterNumber>,
    /// The devices whose descriptors are wanted.
    sought: BTreeMap<ServiceAddress, u32>,
    /// Letters that came before the engine was there.
    early: VecDeque<(Handle, Vec<u8>)>,
    /// What the engine wants done, while the disk takes nothing.
    undone: VecDeque<Output>,
    /// What was written here and is not on the disk yet.
    written: BTreeMap<MessageName, history::MessageRecord>,
    /// Other texts of messages that were written here, which are not on the disk yet.
    edits: BTreeMap<MessageName, (history::Edit, Zeroizing<String>)>,
    /// Messages that were written here and are taken back, which is not on the disk yet.
    taken_back: BTreeSet<u64>,
    events: Events,
    /// Counts letters that came and could not be kept.
    lost: Arc<AtomicU64>,
    member: Arc<Member>,
    /// Why the disk takes nothing, or why there is no engine.
    trouble: Option<String>,
}

impl Messages {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut looked = Instant::now();
        loop {
            let due = self.engine.as_mut().and_then(|engine| engine.next_wake());
            let wait = due.map_or(LOOK, |at| Duration::from_millis(at.saturating_sub(unix_ms())));
            match tokio::time::timeout(wait.min(LOOK), orders.recv()).await {
                Ok(Some(order)) => self.carry_out(order),
                Ok(None) => return,
                Err(_) => {}
            }
            // Whoever asks again and again keeps nothing from being looked at.
            if looked.elapsed() >= LOOK {
                self.look();
                looked = Instant::now();
            }
            self.work();
        }
    }

    /// Looks at what nobody tells: the directory, and what is to be erased.
    fn look(&mut self) {
        self.follow();
        let over = self.history.over(unix_ms() / 1_000);
        if !over.is_empty()
            && let Err(error) = self.erase(&over)
        {
            self.stuck(&error);
        }
        for wanted in std::mem::take(&mut self.again) {
            self.give(wanted);
        }
    }

    /// Messages go, and what the engine kept of those that have arrived.
    fn erase(&mut self, numbers: &[u64]) -> Result<(), StoreError> {
        let (mut gone, mut names) = (Vec::new(), Vec::new());
        for number in numbers {
            if let Some(record) = self.history.read(*number)? {
                gone.push((*number, record.conversation));
                names.push(record.name);
            }
        }
        self.history.erase(numbers)?;
        self.engine.iter_mut().for_each(|engine| engine.forget_texts(&names));
        gone.into_iter().for_each(|(number, of)| self.changed(number, of));
        Ok(())
    }

    /// Has the engine do what is due, and does what it wants done.
    fn work(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.wake(unix_ms());
        }
        self.deliver();
    }

    /// Begins with the engine as soon as this client is a member, and tells it of every change of the directory.
    fn follow(&mut self) {
        // Without keys the engine would take all sessions for over.
        if self.engine.is_none() && self.keys.is_none() {
            return;
        }
        let Some((device, roster)) = self.membership.roster(&mut self.mark) else { return };
        self.member.set(device, roster.size);
        if let Some(engine) = &mut self.engine {
            return engine.handle(unix_ms(), Input::Roster(roster));
        }
        if let Err(why) = self.begin(device, roster) {
            if self.trouble.as_ref() != Some(&why) {
                error!("messages cannot be sent or read: {why}");
            }
            self.trouble = Some(why);
            // It is tried again, as if nothing were known of the directory.
            self.mark = RosterMark::default();
        }
    }

    fn begin(&mut self, device: u32, roster: shoal_people::Roster) -> Result<(), String> {
        let organisation = roster.organisation;
        match self.history.organisation() {
            Some(before) if before != organisation => {
                return Err("the messages in the data directory are of another organisation's members: begin with a new client \
                            (shoal-client init)".into());
            }
            Some(_) => {}
            None => self.history.set_organisation(organisation).map_err(|error| chain(&error))?,
        }
        let own = self.membership.identity().map_err(|error| chain(&error))?;
        let saved = self.history.pieces().map_err(|error| chain(&error))?;
        let now = unix_ms();
        let seed = self.seed.part("messages");
        let engine = People::restore(now, (device, own), self.settings, roster, &seed, saved);
        let mut engine = engine.map_err(|error| chain(&error))?;
        engine.handle(now, Input::Keys(self.keys.take().unwrap_or_default()));
        if self.is_linked {
            engine.handle(now, Input::Connected);
        }
        for (Handle(number), packet) in self.early.drain(..) {
            engine.handle(now, Input::Packet(PacketNumber(number), packet));
        }
        self.engine = Some(engine);
        Ok(())
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Ask(request, answer) => _ = answer.send(self.answer(request)),
            Order::Listen(answer) => {
                // Nothing comes between the two, as this thread alone tells of messages.
                let waiting = self.untaken().unwrap_or_default();
                let _ = answer.send((waiting, self.events.subscribe()));
            }
            Order::Linked(is_linked) => {
                if self.is_linked != is_linked {
                    self.is_linked = is_linked;
                    self.tell(json!({ "event": "connected", "connected": is_linked }));
                    self.handle(if is_linked { Input::Connected } else { Input::Disconnected });
                }
            }
            Order::Keys(keys) => match &mut self.engine {
                Some(engine) => engine.handle(unix_ms(), Input::Keys(keys)),
                None => {
                    self.keys = Some(keys);
                    self.follow();
                }
            },
            Order::Received(letter, packet) => self.received(letter, packet),
            Order::Posted(letter, id) => _ = self.names.insert(id, letter),
            Order::NoRoom(wanted) => self.again.push_back(wanted),
            Order::Left(id) => {
                if let Some(letter) = self.names.remove(&id) {
                    self.handle(Input::Left(letter));
                }
            }
            Order::Returned(id) => {
                if let Some(letter) = self.names.remove(&id) {
                    self.handle(Input::Returned(letter));
                }
            }
            Order::Described(address, found) => self.described(address, found.ok()),
        }
    }

    fn handle(&mut self, input: Input) {
        if let Some(engine) = &mut self.engine {
            engine.handle(unix_ms(), input);
        }
    }

    fn received(&mut self, letter: Handle, packet: Vec<u8>) {
        match &mut self.engine {
            // What comes while the disk takes nothing would be acknowledged and never kept: its writer sends it again.
            Some(_) if !self.undone.is_empty() => self.lose("the disk takes nothing"),
            Some(engine) => {
                engine.handle(unix_ms(), Input::Packet(PacketNumber(letter.0), packet));
            }
            None if self.early.len() < EARLY => self.early.push_back((letter, packet)),
            None => self.lose("this client is no member of an organisation yet"),
        }
    }

    /// A letter is lost. The log has the first, status how many.
    fn lose(&self, why: &str) {
        if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            warn!("a letter that came is lost: {why}");
        }
    }

    /// What a descriptor carries for other members.
    fn described(&mut self, address: ServiceAddress, found: Option<Box<ClientDescriptor>>) {
        let Some(device) = self.sought.remove(&address) else { return };
        let found = found.and_then(|descriptor| {
            let published = shoal_people::Published::decode(&descriptor.attached).ok()?;
            Some((published, descriptor.not_before, descriptor.not_after))
        });
        self.handle(Input::Described { device, found });
    }

    /// Gives the client's engine something to do.
    fn give(&mut self, wanted: ToEngine) {
        if let Err(full) = self.to_engine.try_send(wanted) {
            self.again.push_back(full.into_inner());
        }
    }

    fn tell(&self, event: Event) {
        // Nobody listens, as a rule.
        let _ = self.events.send(event);
    }

    fn changed(&self, number: u64, of: Conversation) {
        let mut event = json!({ "event": "changed", "number": number });
        groups::put_conversation(&mut event, of);
        self.tell(event);
    }

    /// The disk takes nothing. The log has the first of the same.
    fn stuck(&mut self, error: &StoreError) {
        let why = chain(error);
        if self.trouble.as_ref() != Some(&why) {
            error!("messages cannot be kept, and so none are sent: {why}");
        }
        self.trouble = Some(why);
    }
}

/// Milliseconds of Unix time.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// How people tell an organisation's key and those of two of its people from others, 30 digits: the same at both ends, as long as
/// both see the same keys.
fn digits(organisation: &Identity, people: [PersonKeys; 2]) -> String {
    let mut people = people;
    people.sort_unstable();
    let mut hasher = blake3::Hasher::new_derive_key("shoal 2026 digits of two people");
    hasher.update(&organisation.0);
    for PersonKeys { person, mut keys } in people {
        keys.sort_unstable();
        hasher.update(&person.to_be_bytes()).update(&[keys.len() as u8]);
        keys.iter().for_each(|key| _ = hasher.update(&key.0));
    }
    let hash = hasher.finalize();
    let number = u128::from_be_bytes(hash.as_bytes().first_chunk().copied().unwrap_or_default());
    let digits = format!("{:030}", number % 10_u128.pow(30));
    let groups: Vec<&str> = (0..6).filter_map(|at| digits.get(5 * at..5 * at + 5)).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests;
