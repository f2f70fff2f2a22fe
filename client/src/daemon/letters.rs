//! Letters of a user's programs: kept on disk until they have left, or until a program has taken them.
//!
//! A thread of its own owns the files, so that no disk holds up the engine. Programs ask it over a socket (docs/letters.md); the
//! engine's thread takes from it what is to be posted, and tells it what came and what left.

pub mod ask;
pub(super) mod socket;
mod spool;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use shoal_host::exit::chain;
use shoal_host::secret::SecretError;
use shoal_sphinx::MESSAGE_LEN;
use shoal_topology::Seed;
use shoal_topology::directory::address::ServiceAddress;
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::error;

use super::clock::unix_s;
use super::threads::thread;
use crate::engine::{LetterId, NotReached};
use spool::{Next, Spool};

/// Orders that wait for the thread.
const ORDERS: usize = 4_096;
/// Letters that the engine has at a time; it takes a few more of others.
const POSTED: usize = 32;
/// Events that a program may be behind.
const EVENTS: usize = 1_024;
/// How often it is looked whether a letter is due.
const LOOK: Duration = Duration::from_secs(1);
/// The longest letter, bytes: what a packet carries beside its first byte.
pub(super) const LONGEST: usize = MESSAGE_LEN - 1;

/// What happened to a letter, as programs are told.
pub(super) type Event = Value;

/// What the thread is asked to do.
pub(super) enum Order {
    /// Send this. Its number, or why not.
    Send(ServiceAddress, Vec<u8>, oneshot::Sender<Result<u64, String>>),
    /// What waits to be taken, and all that happens from now on.
    Listen(oneshot::Sender<(Vec<Event>, broadcast::Receiver<Event>)>),
    /// What came up to this number was taken.
    Taken(u64, oneshot::Sender<()>),
    /// A letter came.
    Received(Vec<u8>),
    /// The engine has taken a letter, under this name.
    Posted(u64, LetterId),
    /// The engine has no room for it now.
    NoRoom(u64),
    /// A letter has left.
    Left(LetterId),
    /// Nobody was reached.
    Returned(LetterId, NotReached),
    /// Something that programs are told and that is no letter.
    Tell(Event),
}

/// A letter for the engine.
pub(super) struct Post {
    pub(super) number: u64,
    pub(super) to: ServiceAddress,
    pub(super) message: Vec<u8>,
}

/// The way to the thread.
pub(super) type Orders = mpsc::Sender<Order>;

/// Both ways between the thread and the engine's.
pub(super) struct Mail {
    pub(super) orders: Orders,
    pub(super) posts: mpsc::Receiver<Post>,
    /// Counts letters that came and could not be kept.
    pub(super) lost: Arc<AtomicU64>,
}

/// Starts the thread over the letters in this data directory. It ends with the last sender of orders. What it gives is for the
/// engine.
///
/// # Errors
/// The letters that are there cannot be read.
pub(super) fn start(data_dir: &Path, seed: &Seed) -> Result<Mail, SecretError> {
    let spool = Spool::open(data_dir, seed.stream("retries of letters"))?;
    let (orders, received) = mpsc::channel(ORDERS);
    let (to_engine, posts) = mpsc::channel(POSTED);
    let lost = Arc::<AtomicU64>::default();
    let (path, counted) = (data_dir.to_owned(), lost.clone());
    let started = thread("shoal-letters", move |runtime| {
        let (events, _) = broadcast::channel(EVENTS);
        let (posted, names) = Default::default();
        let letters = Letters { spool, to_engine, events, posted, names, lost: counted };
        runtime.block_on(letters.run(received));
    });
    started.map_err(|source| SecretError::Io { path, source })?;
    Ok(Mail { orders, posts, lost })
}

struct Letters {
    spool: Spool,
    to_engine: mpsc::Sender<Post>,
    events: broadcast::Sender<Event>,
    /// The numbers of letters that the engine has, or is about to take.
    posted: BTreeSet<u64>,
    /// The numbers of those that it has, by its name for them.
    names: BTreeMap<LetterId, u64>,
    /// Counts letters that came and could not be kept.
    lost: Arc<AtomicU64>,
}

impl Letters {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            match tokio::time::timeout(LOOK, orders.recv()).await {
                Ok(Some(order)) => self.carry_out(order),
                Ok(None) => return,
                Err(_) => {}
            }
            self.post();
        }
    }

    /// Gives the engine what is due.
    fn post(&mut self) {
        let now_s = unix_s();
        for (number, letter) in &self.spool.outgoing {
            if self.posted.len() >= POSTED {
                return;
            }
            if letter.due_s > now_s || self.posted.contains(number) {
                continue;
            }
            let post = Post { number: *number, to: letter.to, message: letter.message.clone() };
            if self.to_engine.try_send(post).is_err() {
                return;
            }
            self.posted.insert(*number);
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Send(to, message, answer) => {
                let added = match self.spool.add(to, message, unix_s()) {
                    Ok(Some(number)) => Ok(number),
                    Ok(None) => Err("too many letters wait: let some leave first".to_owned()),
                    Err(error) => Err(format!("the letter cannot be kept: {}", chain(&error))),
                };
                let _ = answer.send(added);
            }
            Order::Listen(answer) => {
                // Nothing happens between the two, as this thread alone makes events.
                let waiting = self.spool.incoming.iter();
                let waiting = waiting.map(|(number, message)| received(*number, message)).collect();
                let _ = answer.send((waiting, self.events.subscribe()));
            }
            Order::Taken(up_to, answer) => {
                self.spool.taken(up_to);
                let _ = answer.send(());
            }
            Order::Received(message) => match self.spool.received(message.clone()) {
                Ok(Some(number)) => self.tell(received(number, &message)),
                Ok(None) => self.lose("too many wait for a program to take them"),
                Err(error) => self.lose(&chain(&error)),
            },
            Order::Posted(number, id) => _ = self.names.insert(id, number),
            Order::Tell(event) => self.tell(event),
            Order::NoRoom(number) => {
                self.posted.remove(&number);
                // Not at once: the engine's room is taken by what waits for slots.
                if let Some(letter) = self.spool.outgoing.get_mut(&number) {
                    letter.due_s = unix_s() + 1;
                }
            }
            Order::Left(id) => {
                if let Some(number) = self.done(id) {
                    self.spool.left(number);
                    self.tell(json!({ "event": "left", "number": number }));
                }
            }
            Order::Returned(id, why) => {
                if let Some(number) = self.done(id) {
                    self.returned(number, why);
                }
            }
        }
    }

    /// A letter is lost. The log has the first, status how many.
    fn lose(&self, why: &str) {
        if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            error!("a letter that came is lost: {why}");
        }
    }

    fn returned(&mut self, number: u64, why: NotReached) {
        let why = why.to_string();
        match self.spool.returned(number, unix_s()) {
            Ok(Next::Again(at)) => self.tell(json!({
                "event": "waits", "number": number, "why": why, "next_try": at,
            })),
            Ok(Next::Expired) => {
                self.tell(json!({ "event": "expired", "number": number, "why": why }));
            }
            Err(error) => error!("a letter's state cannot be kept: {}", chain(&error)),
        }
    }

    /// The engine has a letter no longer.
    fn done(&mut self, id: LetterId) -> Option<u64> {
        let number = self.names.remove(&id)?;
        self.posted.remove(&number);
        Some(number)
    }

    fn tell(&self, event: Event) {
        // Nobody listens, as a rule.
        let _ = self.events.send(event);
    }
}

/// What programs are told of a letter that came: its text, or its bytes in hexadecimal where they are none.
fn received(number: u64, message: &[u8]) -> Event {
    match std::str::from_utf8(message) {
        Ok(text) => json!({ "event": "received", "number": number, "text": text }),
        Err(_) => {
            let hex = data_encoding::HEXLOWER.encode(message);
            json!({ "event": "received", "number": number, "hex": hex })
        }
    }
}

#[cfg(test)]
mod tests;
