//! A person's keys by period: `client/src/daemon/keyring.rs` has them on disk, with what they opened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use shoal_client::key_life::KeyLife;
use shoal_client::keys::{InMemory, ReplayCache};
use shoal_sphinx::{ReplayTag, SecretKey};
use shoal_topology::Seed;

/// Letters that are remembered for each key, as in the daemon.
const MESSAGES: usize = 1 << 20;

/// A key, and what it opened.
struct Key {
    secret: SecretKey,
    tags: Arc<Mutex<InMemory>>,
}

/// What remembers the packets that a key opened, for as long as there is the key: it outlives the engine.
struct Lasting(Arc<Mutex<InMemory>>);

impl ReplayCache for Lasting {
    fn insert(&mut self, tag: &ReplayTag) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(tag)
    }

    fn fullness(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fullness()
    }
}

/// The keys of a person, as they lie on its disk.
pub(super) struct PersonKeyring {
    life: KeyLife,
    seed: Seed,
    /// By the second at which the period begins.
    keys: BTreeMap<u64, Key>,
    /// When the gateway was told of them, by the beginning of the period.
    told: BTreeMap<u64, u64>,
    /// The beginnings of those that were given out last, in their order.
    given: Vec<u64>,
}

impl PersonKeyring {
    /// With the key of the present period.
    pub(super) fn new(life: KeyLife, seed: Seed, unix_s: u64) -> Self {
        let (keys, told, given) = Default::default();
        let mut keyring = Self { life, seed, keys, told, given };
        keyring.make(unix_s, unix_s);
        keyring
    }

    /// A program starts: the key of the present period is made if there is none, and all are given out anew.
    pub(super) fn open(&mut self, unix_s: u64) {
        self.make(unix_s, unix_s);
        self.given.clear();
    }

    /// Makes the key of the next period from the middle of one on, and erases those whose time is over. All keys, that of
    /// the present period first, if they are others than when this was last asked.
    pub(super) fn rotate(&mut self, unix_s: u64) -> Option<Vec<SecretKey>> {
        self.make(unix_s, unix_s);
        self.make(self.life.ahead(unix_s), unix_s);
        let made: Vec<u64> = self.keys.keys().copied().collect();
        for (own, next) in made.iter().zip(made.iter().skip(1)) {
            if self.life.over(*own, *next) <= unix_s {
                self.keys.remove(own);
            }
        }
        let present = self.present(unix_s).map(|(begins, ..)| begins);
        let mut order: Vec<u64> = self.keys.keys().rev().copied().collect();
        order.sort_by_key(|begins| Some(*begins) != present);
        if order == self.given {
            return None;
        }
        let all = order.iter().filter_map(|begins| self.keys.get(begins));
        let all = all.map(|key| key.secret.clone()).collect();
        self.given = order;
        Some(all)
    }

    /// The periods of the keys that were given out last, by the second at which each begins, in their order.
    pub(super) fn periods(&self) -> &[u64] {
        &self.given
    }

    /// The key of the present period, with its beginning and the second at which others use it no longer.
    pub(super) fn present(&self, unix_s: u64) -> Option<(u64, u64, &SecretKey)> {
        let (begins, key) = self.keys.range(..=unix_s).next_back()?;
        Some((*begins, self.life.used_until(*begins), &key.secret))
    }

    /// What remembers the packets that a key of these opens.
    pub(super) fn memory(&self, of: &SecretKey) -> Box<dyn ReplayCache> {
        let of = of.public();
        let key = self.keys.values().find(|key| key.secret.public() == of);
        // Nobody asks for one of another key.
        let new = || Arc::new(Mutex::new(InMemory::new(MESSAGES)));
        Box::new(Lasting(key.map_or_else(new, |key| key.tags.clone())))
    }

    /// The gateway has the descriptor of the present period.
    pub(super) fn told(&mut self, unix_s: u64) {
        if let Some((begins, ..)) = self.present(unix_s) {
            let at = self.life.told_at(unix_s);
            self.told.entry(begins).or_insert(at);
        }
    }

    /// Nothing waits at the gateway any more: keys are erased that nobody can use.
    pub(super) fn drained(&mut self, unix_s: u64) {
        if let Some(newest) = self.life.settled(&self.told, self.keys.keys(), unix_s) {
            self.told.retain(|begins, _| *begins >= newest);
            self.keys.retain(|begins, _| *begins >= newest);
        }
    }

    /// Makes the key for this second, if there is none for its period.
    fn make(&mut self, for_s: u64, unix_s: u64) {
        let begins = self.life.begins(for_s);
        if self.keys.range(begins..=for_s.max(unix_s)).next().is_none() {
            let secret = SecretKey::generate(&mut self.seed.stream(&format!("key {begins}")));
            let tags = Arc::new(Mutex::new(InMemory::new(MESSAGES)));
            self.keys.insert(begins, Key { secret, tags });
        }
    }
}
