//! What the owner of a device has to be told about himself when the directory has grown.

use std::collections::BTreeSet;
use std::ops::Range;

use shoal_topology::Identity;
use unicode_security::confusable_detection::skeleton;

use crate::{Directory, Entry, Removed};

/// Something that should not have happened unless its owner knows of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Alarm {
    /// A device was added to the owner, and not on the word of the one that asks.
    Device {
        /// The entry that did it.
        number: u64,
        /// The number of the device.
        device: u32,
        /// The admins who signed.
        by: Vec<u16>,
    },
    /// One of the owner's devices is said to be reached at other gateways.
    Moved {
        /// The entry that did it.
        number: u64,
        /// The number of the device.
        device: u32,
        /// The admins who signed.
        by: Vec<u16>,
    },
    /// Another person has a name that looks like the owner's, or like one that he had.
    Twin {
        /// The entry that did it.
        number: u64,
        /// The other person.
        person: u32,
        /// The admins who signed.
        by: Vec<u16>,
    },
    /// The owner's name was changed.
    Renamed {
        /// The entry that did it.
        number: u64,
        /// The admins who signed.
        by: Vec<u16>,
    },
    /// The owner, or the device that asks, belongs to the organisation no more.
    Removed {
        /// The entry that did it.
        number: u64,
        /// The admins who signed.
        by: Vec<u16>,
    },
}

/// What looks alike has one skeleton: by UTS 39, section 4, in lower case and without regard to white space.
fn looks(name: &str) -> String {
    let plain: Vec<String> =
        skeleton(name).collect::<String>().split_whitespace().map(str::to_lowercase).collect();
    // Once more, since lower case makes other letters look alike.
    skeleton(&plain.join(" ")).collect()
}

/// What entries of these numbers mean to the person who owns the device of key `own`.
pub fn alarms(directory: &Directory, numbers: Range<u64>, own: &Identity) -> Vec<Alarm> {
    let Some(own) = directory.device_of_key(own) else { return Vec::new() };
    let Some(owner) = directory.person(own.device.person) else { return Vec::new() };
    // Also the names that he had: an admin may rename him first.
    let is_his =
        |entry: &&Entry| matches!(entry, Entry::Person(person) if person.id == owner.person.id);
    let names = directory.entries(0..directory.size()).map(|listed| listed.entry).filter(is_his);
    let names: BTreeSet<String> = names
        .filter_map(|entry| {
            if let Entry::Person(person) = entry { Some(looks(&person.name)) } else { None }
        })
        .collect();
    let mut alarms = Vec::new();
    for listed in directory.entries(numbers) {
        let number = listed.number;
        let by = || listed.batch.signatures.iter().map(|(admin, _)| *admin).collect();
        match listed.entry {
            Entry::Device(device) => {
                if device.person != owner.person.id {
                    continue;
                }
                let (id, by) = (device.id, by());
                let added = directory.device(id).is_some_and(|held| held.since == number);
                if !added {
                    alarms.push(Alarm::Moved { number, device: id, by });
                } else if id != own.device.id
                    && device.vouched.as_ref().is_none_or(|vouch| vouch.device != own.device.id)
                {
                    alarms.push(Alarm::Device { number, device: id, by });
                }
            }
            Entry::Person(person) if person.id == owner.person.id && number == owner.since => {}
            Entry::Person(person) if person.id == owner.person.id => {
                alarms.push(Alarm::Renamed { number, by: by() });
            }
            Entry::Person(person) if names.contains(&looks(&person.name)) => {
                alarms.push(Alarm::Twin { number, person: person.id, by: by() });
            }
            Entry::Remove(Removed::Person(id)) if *id == owner.person.id => {
                alarms.push(Alarm::Removed { number, by: by() });
            }
            Entry::Remove(Removed::Device(id)) if *id == own.device.id => {
                alarms.push(Alarm::Removed { number, by: by() });
            }
            _ => {}
        }
    }
    alarms
}
