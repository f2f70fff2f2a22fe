//! Groups: a directory, entries of logs, and what follows from sets of them.

use serde_json::{Value, json};
use shoal_people::{
    GroupAct, GroupEntry, GroupLog, GroupRole, GroupState, Roster, RosterDevice, SignedEntry,
};
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::encoding::encode;

use super::{hex, said, secret};

const ORGANISATION: u8 = 160;
/// When the group was founded, Unix seconds.
const AT: u64 = 1_800_000_000;
/// People with the numbers from 0 on, each with a device of his number.
const PEOPLE: u32 = 6;

/// A directory of which these people have left.
fn roster(left: &[u32]) -> Roster {
    let key = |n: u32| secret(170 + n as u8).identity();
    let listed = |n: u32| {
        let address = ServiceAddress { identity: key(n).0, gateway: [9; 32] };
        (n, RosterDevice { person: n, key: key(n), address, held_until: 0 })
    };
    let is_there = |n: &u32| !left.contains(n);
    Roster {
        organisation: secret(ORGANISATION).identity(),
        size: 12,
        head: 12,
        is_current: true,
        devices: (0..PEOPLE).filter(is_there).map(listed).collect(),
        removed: left.iter().map(|n| (*n, (*n, key(*n)))).collect(),
        people: (0..PEOPLE).filter(is_there).collect(),
    }
}

/// Entries, as they are written one after the other.
struct Written {
    all: Vec<SignedEntry>,
}

impl Written {
    /// One more, after another one: its place.
    fn after(&mut self, before: usize, author: u32, act: GroupAct) -> usize {
        let (number, previous) = match self.all.get(before) {
            Some(signed) => (signed.entry.number + 1, signed.hash()),
            None => (0, [0; 32]),
        };
        let at = AT + self.all.len() as u64;
        let entry = GroupEntry { number, previous, at, author, act };
        let by = secret(170 + author as u8);
        self.all.push(SignedEntry::new(&secret(ORGANISATION).identity(), entry, &by));
        self.all.len() - 1
    }
}

fn state(state: &GroupState) -> anyhow::Result<Value> {
    let people = state.people.iter().map(|one| Ok(json!([one.person, said(&one.role)?])));
    Ok(json!({
        "mark": said(&state.mark)?,
        "name": state.name,
        "expires_s": state.expires_s,
        "people": people.collect::<anyhow::Result<Vec<_>>>()?,
        "removed": state.removed.iter().map(|(person, at)| json!([person, at])).collect::<Vec<_>>(),
    }))
}

/// The device of each person.
fn device(person: u32) -> Value {
    let seed = 170 + person as u8;
    json!({ "person": person, "seed": hex([seed; 32]), "key": hex(secret(seed).identity().0) })
}

pub(super) fn groups() -> anyhow::Result<Value> {
    use GroupAct::{Add, Affirm, Appoint, Create, Expire, Remove, Rename};
    let left: [&[u32]; 3] = [&[], &[0], &[0, 1]];
    let mut written = Written { all: Vec::new() };
    let w = &mut written;
    let create = Create { nonce: [7; 16], name: "Financë".into(), people: vec![1, 2, 3] };
    let root = w.after(usize::MAX, 0, create);
    let first = w.after(root, 0, Appoint(1, GroupRole::Admin));
    let second = w.after(first, 0, Appoint(2, GroupRole::Admin));
    // Two admins at once, and what each does next.
    let renamed = w.after(second, 1, Rename("Books".into()));
    let both = w.after(renamed, 1, Add(vec![4, 5]));
    let expires = w.after(second, 2, Expire(86_400));
    let added = w.after(expires, 2, Add(vec![4]));
    // The owner settles it, in the line of the later one.
    let settled = w.after(added, 0, Remove(vec![1]));
    // Things that nobody may do, or that do nothing.
    let refused = [
        w.after(second, 3, Add(vec![4])),
        w.after(second, 2, Remove(vec![1])),
        w.after(second, 1, Appoint(3, GroupRole::Owner)),
        w.after(second, 4, Remove(vec![4])),
        w.after(second, 0, Rename("a\u{202e}b".into())),
        w.after(second, 0, Add(vec![5, 5])),
        w.after(second, 1, Expire(0)),
    ];
    let leaves = w.after(second, 3, Remove(vec![3]));
    let lower = w.after(leaves, 1, Appoint(1, GroupRole::Member));
    // Where the owner has left, and where his admin has, too.
    let affirmed = w.after(second, 3, Affirm);
    let late = w.after(second, 0, Add(vec![5]));
    let follows = w.after(late, 3, Affirm);
    let heir = w.after(root, 2, Remove(vec![1]));
    let logs: [(usize, Vec<usize>); 12] = [
        (0, vec![root]),
        (0, vec![root, first, second]),
        (0, vec![root, first, second, renamed, both]),
        (0, vec![root, first, second, renamed, both, expires, added]),
        (0, vec![root, first, second, renamed, both, expires, added, settled]),
        (0, [&[root, first, second][..], &refused].concat()),
        (0, vec![root, first, second, leaves, lower]),
        (1, vec![root, first, second, renamed, affirmed]),
        (1, vec![root, first, second, affirmed, late]),
        (1, vec![root, first, second, late, follows]),
        (2, vec![root, heir]),
        (1, vec![root, heir]),
    ];
    let all = written.all;
    let logs = logs.into_iter().map(|(at, entries)| {
        let left = left.get(at).copied().unwrap_or_default();
        let roster = &roster(left);
        let some = entries.iter().filter_map(|at| all.get(*at)).cloned();
        let mut some = some.collect::<Vec<_>>().into_iter();
        let begun = some.next().and_then(|first| GroupLog::new(first, roster));
        let mut log = begun.ok_or_else(|| anyhow::anyhow!("the group does not begin"))?;
        log.insert(some.collect(), roster);
        // Of what it is made, so that no other set passes for it.
        let of = entries.iter().filter_map(|at| all.get(*at)).flat_map(SignedEntry::hash);
        let of: Vec<u8> = of.chain(left.iter().map(|person| *person as u8)).collect();
        let of = hex(blake3::hash(&of).as_bytes());
        Ok(json!({ "left": left, "entries": entries, "of": of, "head": state(log.head())? }))
    });
    let logs = logs.collect::<anyhow::Result<Vec<_>>>()?;
    let entries = all.iter().map(|signed| {
        Ok(json!({ "value": said(signed)?, "bytes": hex(encode(signed)), "hash": hex(signed.hash()) }))
    });
    Ok(json!({
        "organisation": hex(secret(ORGANISATION).identity().0),
        "devices": (0..PEOPLE).map(device).collect::<Vec<_>>(),
        "entries": entries.collect::<anyhow::Result<Vec<_>>>()?,
        "logs": logs,
    }))
}
