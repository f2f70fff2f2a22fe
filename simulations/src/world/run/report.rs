//! What a run gives.

use std::collections::BTreeMap;

use shoal_node::{Counters, DropReason};
use shoal_topology::{Epoch, Time};

use super::{Report, World};
use crate::experiment::{Estimate, Measured};
use crate::trace::{Link, Party, Public, View};
use crate::workload::Activity;
use crate::world::authorities::first_epoch;
use crate::world::directory::Directory;
use crate::world::history::AuthorityRecord;
use crate::world::person::Person;
use crate::world::spans::seconds;

/// Figures that are counted and not estimated.
struct Counted<'a>(&'a mut Vec<Measured>);

impl Counted<'_> {
    fn add(&mut self, name: impl Into<String>, unit: &str, value: f64) {
        self.0.push(Measured::new(name, unit, Estimate::exact(value)));
    }

    /// Only what happened.
    fn add_some(&mut self, name: impl Into<String>, unit: &str, count: u64) {
        if count > 0 {
            self.add(name, unit, count as f64);
        }
    }
}

impl World {
    /// What the run gives.
    pub fn report(mut self) -> Report {
        let late: u64 = self.people.iter().map(Person::media_late).sum();
        self.service.voice_unsent += late;
        let mut measured = self.service.measured();
        let mut counted = Counted(&mut measured);
        if self.settings.people.key_period_s > 0 {
            self.count_letters(&mut counted);
        }
        self.count_packets(&mut counted);
        if let Some(directory) = &self.directory {
            self.count_epochs(directory, &mut counted);
            self.count_liars(directory, &mut counted);
            self.count_demotions(directory, &mut counted);
        }
        if self.directory.is_some() || !self.settings.faults.is_empty() {
            self.count_losses(&mut counted);
        }
        let public = self.public();
        Report {
            at_gateway: self.watched.into_seen(),
            unreadable: self.unreadable,
            truth: self.workload.truth(),
            measured,
            trace_hash: self.links.hash(),
            hops: self.hops,
            packets: self.links.packets(),
            service: self.service,
            view: View {
                public,
                trace: self.links.observer.into_trace(),
                passes: self.corrupt.into_passes(),
            },
        }
    }

    /// What everyone knows of the network.
    fn public(&self) -> Public {
        let class = &self.network.class;
        let layers = u32::from(self.network.parameters.layers);
        let client = |link: &Link| {
            matches!(link.from, Party::Person(_)) || matches!(link.to, Party::Person(_))
        };
        let node = |link: &Link| matches!((link.from, link.to), (Party::Node(_), Party::Node(_)));
        let latency_s = 2.0 * self.links.mean_latency_s(client)
            + f64::from(layers + 1) * self.links.mean_latency_s(node);
        Public {
            people: self.workload.people,
            begin: Time::ZERO,
            end: self.workload.end,
            hops: layers,
            hop_mean_s: class.delay.exponential_us as f64 / 1e6,
            uniform_s: class.delay.uniform_us as f64 / 1e6,
            latency_s,
            resting_up_per_s: class.payload_per_s + class.loops_per_s,
            resting_down_per_s: class.down_per_s,
            call_per_s: class.loop_share * class.payload_per_s,
        }
    }

    /// Something that nodes count, of all nodes and all their runs.
    fn count(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        let runs = |node: &crate::world::network::Node| {
            of(node.engine.counters()) + node.before.iter().map(&of).sum::<u64>()
        };
        self.nodes.iter().map(runs).sum()
    }

    fn count_packets(&self, counted: &mut Counted<'_>) {
        let mut exact = |name: &str, unit: &str, value: f64| counted.add(name, unit, value);
        let dropped = self.count(Counters::dropped_in_all);
        exact("packets_on_links", "packets", self.links.packets() as f64);
        exact("packets_dropped_by_nodes", "packets", dropped as f64);
        exact("node_loops_lost", "packets", self.count(|c| c.loops_lost) as f64);
        exact("clients_refused", "1", self.refused as f64);
        let filled = self.people.iter().map(Person::filled);
        let (total, filler) =
            filled.fold((0, 0), |(all, filler), (own, of_it)| (all + own, filler + of_it));
        exact("slots", "packets", total as f64);
        exact("slots_with_filler", "packets", filler as f64);
        let (dropped, copied) = self.links.tampered();
        if !self.settings.attacks.is_empty() {
            exact("packets_dropped_by_the_adversary", "packets", dropped as f64);
            exact("packets_copied_by_the_adversary", "packets", copied as f64);
        }
        if let Some(share) = self.release.late_share() {
            exact("packets_too_late_for_their_release", "1", share);
        }
        if !self.settings.injections.is_empty() {
            exact("packets_injected", "packets", self.injector.injected() as f64);
        }
    }

    /// What became of letters, and of those to people who were away.
    fn count_letters(&self, counted: &mut Counted<'_>) {
        let service = &self.service;
        let reachable = self.people.iter().filter_map(|person| person.reachable.as_ref());
        let waiting: usize = reachable.map(|of| of.waiting()).sum();
        let arrived = service.message_delays_s.len() as u64;
        for (name, letters) in [
            ("letters_written", service.messages),
            ("letters_left", service.letters_left),
            ("letters_not_left", waiting as u64),
            ("letters_that_reached_nobody_at_first", service.letters_returned),
            ("letters_arrived", arrived),
            ("letters_arrived_twice", service.messages_again),
        ] {
            counted.add(name, "1", letters as f64);
        }
        for (number, absence) in self.settings.absences.iter().enumerate() {
            let mut add = |name: &str, unit: &str, value: f64| {
                counted.add(format!("absence_{}_{name}", number + 1), unit, value);
            };
            let (begin, end) = (seconds(absence.begin_s), seconds(absence.end_s));
            let meanwhile = |activity: &Activity| {
                matches!(activity, Activity::Message { to, at, .. }
                    if absence.people.contains(to) && (begin..end).contains(at))
            };
            let written = self.workload.activities.iter().enumerate();
            let written = written.filter(|(_, activity)| meanwhile(activity));
            let numbers: Vec<usize> = written.map(|(number, _)| number).collect();
            let read = numbers.iter().filter_map(|number| service.read_at.get(number));
            // Also those that were written in its last moments come behind it.
            let after: Vec<f64> =
                read.map(|at| at.since(end + self.warm_up).as_secs_f64()).collect();
            add("letters_written", "1", numbers.len() as f64);
            add("letters_arrived", "1", after.len() as f64);
            if let (Some(first), Some(last)) = (
                after.iter().copied().min_by(f64::total_cmp),
                after.iter().copied().max_by(f64::total_cmp),
            ) {
                add("first_letter_after", "s", first);
                add("last_letter_after", "s", last);
            }
        }
    }

    /// What was lost, and where.
    fn count_losses(&self, counted: &mut Counted<'_>) {
        let service = &self.service;
        let read = service.message_delays_s.len() as u64;
        counted.add("messages_written", "1", service.messages as f64);
        counted.add("messages_lost", "1", (service.messages - read) as f64);
        for reason in DropReason::ALL {
            let packets = self.count(|counters| counters.dropped(*reason));
            counted.add_some(format!("dropped_{}", reason.label()), "packets", packets);
        }
        counted.add("restarts", "1", self.faults.restarts as f64);
        counted.add("frames_to_nodes_that_were_away", "packets", self.faults.missed as f64);
        counted.add("packets_taken_by_lossy_nodes", "packets", self.faults.taken as f64);
        if service.downloads > 0 {
            let all = || self.people.iter().filter_map(|person| person.downloads.as_ref());
            let again: u64 = all().map(|downloads| downloads.failed).sum();
            let broken: u64 = all().map(|downloads| downloads.broken).sum();
            counted.add("downloads_begun_again", "1", again as f64);
            counted.add("tunnels_broken", "1", broken as f64);
        }
        let dissatisfied: u64 = self.people.iter().map(|person| person.dissatisfied).sum();
        counted.add("wishes_for_another_gateway", "1", dissatisfied as f64);
    }

    /// Epochs that begin once people may join, the last one that begins before the end among them.
    fn epochs(&self) -> impl Iterator<Item = Epoch> + use<> {
        let first = first_epoch(&self.settings);
        let length_s = u64::from(self.settings.network.epoch_s);
        let passed = self.now.as_nanos().saturating_sub(1) / (1_000_000_000 * length_s);
        (first + 1..=first + passed).map(Epoch)
    }

    /// The epoch of an instant, counted from the first.
    fn epochs_since(&self, from: Time, to: Time) -> f64 {
        (to.since(from).as_secs_f64() / f64::from(self.settings.network.epoch_s)).ceil()
    }

    fn count_epochs(&self, directory: &Directory, counted: &mut Counted<'_>) {
        let history = &directory.authorities.history;
        let bodies = history.bodies();
        let without = self.epochs().filter(|epoch| history.document(*epoch).is_none()).count();
        let amendments = bodies.keys().filter(|(_, amendment)| *amendment > 0).count();
        let twofold = bodies.values().filter(|bodies| **bodies > 1).count();
        counted.add("epochs", "1", self.epochs().count() as f64);
        counted.add("documents_certified", "1", (bodies.len() - amendments) as f64);
        counted.add("epochs_without_a_document", "1", without as f64);
        counted.add("amendments", "1", amendments as f64);
        counted.add("documents_that_differ_between_authorities", "1", twofold as f64);
        let parts: Vec<usize> = self
            .epochs()
            .filter_map(|epoch| history.document(epoch).map(|document| document.parts))
            .collect();
        let mean = parts.iter().sum::<usize>() as f64 / parts.len().max(1) as f64;
        counted.add("parts_of_a_document", "frames", mean);
        let refused = (directory.refused_by_clients, directory.refused_by_nodes);
        counted.add("documents_refused_by_clients", "1", refused.0 as f64);
        counted.add("documents_refused_by_nodes", "1", refused.1 as f64);
        counted.add("contradictions_seen", "1", directory.contradictions as f64);
        counted.add("frames_where_no_link_is", "packets", directory.unlinked as f64);
    }

    /// Which liars were found, by how many of the others, and after how many epochs by the last of these.
    fn count_liars(&self, directory: &Directory, counted: &mut Counted<'_>) {
        let records = &directory.authorities.history.records;
        let honest = |n: &usize| records.get(*n).is_some_and(|r| r.lies_since.is_none());
        for (number, record) in records.iter().enumerate() {
            let by = |found: &BTreeMap<usize, Time>| -> Vec<Time> {
                found.iter().filter(|(n, _)| honest(n)).map(|(_, at)| *at).collect()
            };
            let found = [("named", by(&record.named)), ("proven", by(&record.proven))];
            for (what, times) in found {
                let name = format!("authority_{}_{what}", number + 1);
                // Of those who do not lie only what is said against them.
                if record.lies_since.is_none() && times.is_empty() {
                    continue;
                }
                counted.add(format!("{name}_by"), "1", times.len() as f64);
                let since = record.lies_since.unwrap_or(Time::ZERO);
                if let (Some(last), Some(_)) = (times.iter().max(), record.lies_since) {
                    counted.add(format!("{name}_after"), "epochs", self.epochs_since(since, *last));
                }
            }
        }
        let honest = |record: &&AuthorityRecord| record.lies_since.is_none();
        let wrongly = records.iter().filter(honest).filter(|r| !r.proven.is_empty()).count();
        counted.add("honest_authorities_proven_to_lie", "1", wrongly as f64);
    }

    /// Epochs in which nodes were demoted or not listed, and whether something of theirs had gone wrong.
    fn count_demotions(&self, directory: &Directory, counted: &mut Counted<'_>) {
        let history = &directory.authorities.history;
        let (mut right, mut wrong) = (0, 0);
        let mut told = Vec::new();
        for node in 0..self.nodes.len() {
            let Some(identity) = self.network.identity(node as u32) else { continue };
            let (mut demoted, mut unlisted) = (0, 0);
            for epoch in self.epochs() {
                let Some(document) = history.document(epoch) else { continue };
                unlisted += u64::from(!document.listed.contains(&identity));
                if document.demoted.contains(&identity) {
                    demoted += 1;
                    let begins = epoch.0 - first_epoch(&self.settings);
                    let length_s = u64::from(self.settings.network.epoch_s);
                    // An amendment may come until the end of the epoch.
                    let by = Time::from_secs((begins + 1) * length_s);
                    let is_right = self.faults.had_begun(node, by);
                    right += u64::from(is_right);
                    wrong += u64::from(!is_right);
                }
            }
            let name = self.network.name(node).replace('-', "_");
            told.push((format!("{name}_demoted"), demoted));
            told.push((format!("{name}_not_listed"), unlisted));
        }
        counted.add("demotions_with_a_fault", "epochs", right as f64);
        counted.add("demotions_without_a_fault", "epochs", wrong as f64);
        told.into_iter().for_each(|(name, epochs)| counted.add_some(name, "epochs", epochs));
    }
}
