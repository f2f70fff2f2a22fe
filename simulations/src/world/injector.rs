//! A corrupt gateway that puts packets of its own in place of dummies.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, RngExt};
use shoal_client::engine::Contact;
use shoal_sphinx::{Codec, Downward, Frame, Hop, Packet};
use shoal_topology::wire::client_gateway::kind;
use shoal_topology::{Seed, Stream, Time};

use super::settings::{Injected, Settings};
use super::spans::{seconds, span};

/// Packets that it keeps of each person, to send them again.
const KEPT: usize = 256;

/// What is done to one person.
struct PersonInjection {
    what: Injected,
    share: f64,
    begin: Time,
    rng: Stream,
    kept: VecDeque<Packet>,
    contact: Contact,
}

/// What is done to all.
pub(super) struct Injector {
    plans: BTreeMap<u32, PersonInjection>,
    codec: Arc<dyn Codec>,
    injected: u64,
}

impl Injector {
    pub(super) fn new(
        settings: &Settings,
        contacts: &[Contact],
        codec: Arc<dyn Codec>,
        seed: &Seed,
    ) -> Self {
        let mut plans = BTreeMap::new();
        for injection in &settings.injections {
            for person in &injection.people {
                let Some(contact) = contacts.get(*person as usize) else { continue };
                let plan = PersonInjection {
                    what: injection.what,
                    share: injection.share,
                    begin: seconds(settings.warm_up_s) + span(injection.begin_s),
                    rng: seed.part(&format!("person {person}")).stream("injections"),
                    kept: VecDeque::new(),
                    contact: *contact,
                };
                plans.insert(*person, plan);
            }
        }
        Self { plans, codec, injected: 0 }
    }

    /// A packet goes down to a person.
    pub(super) fn passes(&mut self, person: u32, packet: &Packet) {
        let Some(plan) = self.plans.get_mut(&person) else { return };
        if plan.what == Injected::Replayed {
            if plan.kept.len() == KEPT {
                plan.kept.pop_front();
            }
            plan.kept.push_back(packet.clone());
        }
    }

    /// What goes down in place of a dummy, if anything does.
    pub(super) fn instead(&mut self, person: u32, now: Time, epoch: u8) -> Option<Frame> {
        let plan = self.plans.get_mut(&person)?;
        if now < plan.begin || plan.rng.random::<f64>() >= plan.share {
            return None;
        }
        let packet = match plan.what {
            Injected::Garbage => {
                let mut packet = Packet::default();
                plan.rng.fill_bytes(packet.as_mut_bytes());
                packet
            }
            Injected::Sealed => {
                let Contact { inbox, key, .. } = plan.contact;
                let path = [Hop { address: inbox.0, key, delay: Duration::ZERO }];
                let message = [&[kind::MESSAGE][..], &plan.rng.random::<[u8; 28]>()].concat();
                self.codec.seal(&mut plan.rng, &path, [0; 16], &message).ok()?
            }
            Injected::Replayed => {
                let index = plan.rng.random_range(0..plan.kept.len().max(1));
                plan.kept.get(index)?.clone()
            }
        };
        self.injected += 1;
        Some(Frame { epoch, field: Downward::Packet as u16, packet })
    }

    /// How many it made.
    pub(super) fn injected(&self) -> u64 {
        self.injected
    }
}
