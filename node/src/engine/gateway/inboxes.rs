//! Which inboxes there are, what waits in them, and who gives way when there is no more room.
//!
//! Room is shared between those who brought the inboxes: the bearers of a token, or on an open gateway the networks that
//! clients come from. Whoever holds most gives way first, so nobody can fill it for the others. Everything is found by
//! an index: this runs in the engine's thread.

use std::collections::{BTreeSet, HashMap};

use shoal_topology::Time;

use super::super::Origin;
use super::InboxId;
use crate::limit::Limit;

/// Documents that one inbox is given on connecting: so many at once, and then one in so many seconds.
const DOCUMENTS: (f64, f64) = (4.0, 20.0);
/// Connections of one inbox: so many at once, and then one in so many seconds. A client that finds no rest tries every 3 s.
const HELLOS: (f64, f64) = (8.0, 2.0);

/// Who answers for an inbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Holder {
    /// It was there when the node started.
    Before,
    /// Whoever has this token, by its index in the list.
    Token(usize),
    /// Whoever connects from this network.
    Network(Origin),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Here,
    Away,
}

/// An inbox in the books.
struct InboxRecord {
    /// Packets in it, on the disk or on the way there.
    waiting: u32,
    /// Who answers for it.
    holder: Holder,
    /// Says whether its client is connected.
    client: Client,
    /// How often its client is given a document on connecting.
    documents: Limit,
    /// How often its client may connect.
    hellos: Limit,
}

/// The books of one holder.
#[derive(Default)]
struct Share {
    /// All inboxes, by the packets in them.
    all: BTreeSet<(u32, InboxId)>,
    /// Those whose client is away.
    away: BTreeSet<(u32, InboxId)>,
    packets: u64,
}

/// What becomes of a packet.
pub(super) enum Stored {
    /// Nobody ever asked for this inbox here.
    Unknown,
    /// The inbox is full, or its holder has more than anybody else of what is.
    Full,
    /// It has room; where an older packet makes it.
    Kept(Option<InboxId>),
}

/// The inboxes of a gateway.
pub(super) struct Inboxes {
    most: usize,
    most_packets: u64,
    packets: u64,
    known: HashMap<InboxId, InboxRecord>,
    shares: HashMap<Holder, Share>,
    by_away: BTreeSet<(usize, Holder)>,
    by_packets: BTreeSet<(u64, Holder)>,
}

impl Inboxes {
    /// Room for so many inboxes, and so many packets in all of them together.
    pub(super) fn new(most: usize, most_packets: usize) -> Self {
        let (known, shares, by_away, by_packets) = Default::default();
        let most_packets = u64::try_from(most_packets).unwrap_or(u64::MAX);
        Self { most, most_packets, packets: 0, known, shares, by_away, by_packets }
    }

    /// From now on so much room. What is beyond it goes as others come.
    pub(super) fn bound(&mut self, most: usize, most_packets: usize) {
        self.most = most;
        self.most_packets = u64::try_from(most_packets).unwrap_or(u64::MAX);
    }

    pub(super) fn contains(&self, inbox: &InboxId) -> bool {
        self.known.contains_key(inbox)
    }

    pub(super) fn waiting(&self, inbox: &InboxId) -> u32 {
        self.known.get(inbox).map_or(0, |kept| kept.waiting)
    }

    /// What was there before the node started: beside what came since, if the file could not be opened at once.
    pub(super) fn found(&mut self, inbox: InboxId, waiting: u32) {
        if let Some(kept) = self.take(&inbox) {
            let waiting = kept.waiting.saturating_add(waiting);
            self.put(inbox, InboxRecord { waiting, ..kept });
        } else if self.known.len() < self.most {
            self.put(inbox, InboxRecord { waiting, ..empty(Holder::Before, Client::Away) });
        }
    }

    /// A client is here. Which inbox goes for its own, with all that is in it.
    ///
    /// # Errors
    /// All inboxes are those of clients that are here.
    pub(super) fn open(&mut self, inbox: InboxId, holder: Holder) -> Result<Option<InboxId>, ()> {
        if let Some(kept) = self.take(&inbox) {
            self.put(inbox, InboxRecord { holder, client: Client::Here, ..kept });
            return Ok(None);
        }
        let mut goes = None;
        // Only inboxes of absent clients give way, and those of whoever has most of them: so whoever asks for many
        // loses his own first.
        if self.known.len() >= self.most {
            let (_, most) = *self.by_away.last().ok_or(())?;
            // The one with the fewest packets; the least of them, so that the choice can be repeated.
            let share = self.shares.get(&most).ok_or(())?;
            goes = share.away.first().map(|(_, inbox)| *inbox);
            self.take(&goes.ok_or(())?);
        }
        self.put(inbox, empty(holder, Client::Here));
        Ok(goes)
    }

    /// Its client is gone.
    pub(super) fn leave(&mut self, inbox: &InboxId) {
        if let Some(kept) = self.take(inbox) {
            self.put(*inbox, InboxRecord { client: Client::Away, ..kept });
        }
    }

    /// Its client is gone and will not ask for it again. What waited in it.
    pub(super) fn forget(&mut self, inbox: &InboxId) -> u32 {
        self.take(inbox).map_or(0, |kept| kept.waiting)
    }

    /// True if a client of this inbox may be given another document on connecting.
    pub(super) fn may_have_document(&mut self, inbox: &InboxId, now: Time) -> bool {
        self.known.get_mut(inbox).is_none_or(|kept| kept.documents.pass(now))
    }

    /// True if a client of this inbox may connect anew.
    pub(super) fn may_connect(&mut self, inbox: &InboxId, now: Time) -> bool {
        self.known.get_mut(inbox).is_none_or(|kept| kept.hellos.pass(now))
    }

    /// A packet for an inbox that holds `quota` at most.
    pub(super) fn store(&mut self, inbox: InboxId, quota: u32) -> Stored {
        let Some(kept) = self.known.get(&inbox) else { return Stored::Unknown };
        if kept.waiting >= quota {
            return Stored::Full;
        }
        let mut loses = None;
        if self.packets >= self.most_packets {
            let own = self.shares.get(&kept.holder).map_or(0, |share| share.packets);
            let Some((most, holder)) = self.by_packets.last().copied() else { return Stored::Full };
            // Who has most cannot push out anybody: he is full. The one more keeps two that have about as much from
            // taking from each other in turns.
            if own + 1 >= most {
                return Stored::Full;
            }
            loses = self.shares.get(&holder).and_then(|share| share.all.last()).map(|(_, id)| *id);
            let Some(loses) = &loses else { return Stored::Full };
            self.taken(loses, 1);
        }
        if let Some(kept) = self.take(&inbox) {
            let waiting = kept.waiting + 1;
            self.put(inbox, InboxRecord { waiting, ..kept });
        }
        Stored::Kept(loses)
    }

    /// So many packets are no longer in an inbox.
    pub(super) fn taken(&mut self, inbox: &InboxId, packets: u32) {
        if let Some(kept) = self.take(inbox) {
            let waiting = kept.waiting.saturating_sub(packets);
            self.put(*inbox, InboxRecord { waiting, ..kept });
        }
    }

    /// Takes an inbox out of the books.
    fn take(&mut self, inbox: &InboxId) -> Option<InboxRecord> {
        let kept = self.known.remove(inbox)?;
        self.packets -= u64::from(kept.waiting);
        self.share(kept.holder, |share| {
            share.all.remove(&(kept.waiting, *inbox));
            share.away.remove(&(kept.waiting, *inbox));
            share.packets -= u64::from(kept.waiting);
        });
        Some(kept)
    }

    fn put(&mut self, inbox: InboxId, kept: InboxRecord) {
        self.packets += u64::from(kept.waiting);
        self.share(kept.holder, |share| {
            share.all.insert((kept.waiting, inbox));
            // Beside `all`, for only these may give way to a new inbox.
            if kept.client == Client::Away {
                share.away.insert((kept.waiting, inbox));
            }
            share.packets += u64::from(kept.waiting);
        });
        self.known.insert(inbox, kept);
    }

    /// Changes what a holder has, and where it stands among the others.
    fn share(&mut self, holder: Holder, change: impl FnOnce(&mut Share)) {
        let share = self.shares.entry(holder).or_default();
        // Out before the change and in after it: the keys are the counts, so an entry that was left would never be
        // found again.
        self.by_away.remove(&(share.away.len(), holder));
        self.by_packets.remove(&(share.packets, holder));
        change(share);
        if share.all.is_empty() {
            self.shares.remove(&holder);
            return;
        }
        if !share.away.is_empty() {
            self.by_away.insert((share.away.len(), holder));
        }
        if share.packets > 0 {
            self.by_packets.insert((share.packets, holder));
        }
    }
}

fn empty(holder: Holder, client: Client) -> InboxRecord {
    let documents = Limit::new(1.0 / DOCUMENTS.1, DOCUMENTS.0 - 1.0);
    let hellos = Limit::new(1.0 / HELLOS.1, HELLOS.0 - 1.0);
    InboxRecord { waiting: 0, holder, client, documents, hellos }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> InboxId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        InboxId(bytes)
    }

    const OURS: Holder = Holder::Network(Origin(1));
    const THEIRS: Holder = Holder::Network(Origin(2));

    fn away(inboxes: &mut Inboxes, n: u32, holder: Holder) -> Option<InboxId> {
        let goes = inboxes.open(id(n), holder).unwrap();
        inboxes.leave(&id(n));
        goes
    }

    #[test]
    fn a_hundred_thousand_inboxes_of_one_network_make_room_for_those_of_others() {
        let mut inboxes = Inboxes::new(100_000, 1_000_000);
        for n in 0..100_000 {
            assert_eq!(away(&mut inboxes, n, THEIRS).map(|id| id.0), None);
            assert!(matches!(inboxes.store(id(n), 1_000), Stored::Kept(None)));
        }
        for n in 0..1_000 {
            assert!(away(&mut inboxes, 200_000 + n, OURS) == Some(id(n)));
        }
        // Its own later ones take the place of its earlier ones, and of nobody else's.
        for n in 0..1_000 {
            assert!(away(&mut inboxes, 300_000 + n, THEIRS).is_some_and(|id| id.0[..4] != [0; 4]));
        }
        assert!((0..1_000).all(|n| inboxes.contains(&id(200_000 + n))));
        assert_eq!(inboxes.packets, 98_999);
    }

    #[test]
    fn whoever_holds_most_packets_loses_one_when_another_stores() {
        let mut inboxes = Inboxes::new(1_000, 100);
        for n in 0..10 {
            away(&mut inboxes, n, THEIRS);
            (0..10).for_each(|_| _ = inboxes.store(id(n), 1_000));
        }
        assert!(matches!(inboxes.store(id(3), 1_000), Stored::Full));
        away(&mut inboxes, 50, OURS);
        for n in 0..50 {
            let Stored::Kept(Some(loses)) = inboxes.store(id(50), 1_000) else { panic!("{n}") };
            assert!(loses < id(50));
            assert_eq!(inboxes.packets, 100);
        }
        // Halves: nobody has more to give.
        assert!(matches!(inboxes.store(id(50), 1_000), Stored::Full));
        assert_eq!(inboxes.waiting(&id(50)), 50);
        assert!(matches!(inboxes.store(id(51), 1_000), Stored::Unknown));
    }

    #[test]
    fn inboxes_of_clients_that_are_here_do_not_go() {
        let mut inboxes = Inboxes::new(2, 10);
        inboxes.found(id(1), 5);
        assert_eq!(inboxes.open(id(1), OURS), Ok(None));
        assert_eq!(inboxes.waiting(&id(1)), 5);
        assert_eq!(inboxes.open(id(2), THEIRS), Ok(None));
        assert_eq!(inboxes.open(id(3), OURS), Err(()));
        inboxes.leave(&id(2));
        assert_eq!(inboxes.open(id(3), OURS), Ok(Some(id(2))));
    }
}
