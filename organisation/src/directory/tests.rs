use proptest::prelude::*;
use shoal_topology::{Identity, SecretIdentity};

use super::*;
use crate::{Alarm, PersonFlags, Removed, Vouch, alarms};

fn secret(n: u16) -> SecretIdentity {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&n.to_le_bytes());
    SecretIdentity::from_bytes(&seed)
}

fn key(n: u16) -> Identity {
    secret(n).identity()
}

/// The key of the organisation; admins have the keys 1, 2, …, devices those from 1,000 on.
const ORGANISATION: u16 = 0;

fn admin(number: u16, role: Option<Role>) -> Entry {
    Entry::Admin(Admin { number, name: format!("admin {number}"), key: key(number), role })
}

fn person(id: u32, name: &str) -> Entry {
    let (name, unit, flags) = (name.into(), "unit".into(), PersonFlags::default());
    Entry::Person(Person { id, name, unit, flags })
}

fn device_of(id: u32, person: u32, key: Identity) -> Entry {
    let gateways = vec![super::tests::key(900)];
    Entry::Device(Device { id, person, name: "laptop".into(), key, gateways, vouched: None })
}

fn device(id: u32, person: u32) -> Entry {
    device_of(id, person, key(1_000 + id as u16))
}

fn approvals(approvals: u8) -> Entry {
    Entry::Policy(Policy { approvals, ..Policy::default() })
}

/// An organisation with two owners, an issuer (3) and an announcer (4), and one person with one device.
fn founded() -> Directory {
    let entries = vec![
        Entry::Founded { name: "acme".into() },
        admin(1, Some(Role::Owner)),
        admin(2, Some(Role::Owner)),
        admin(3, Some(Role::Issuer)),
        admin(4, Some(Role::Announcer)),
        person(0, "Alice Example"),
        device(0, 0),
    ];
    Directory::found(&secret(ORGANISATION), 100, entries).unwrap()
}

/// Adds entries that these admins sign.
fn add(directory: &mut Directory, entries: Vec<Entry>, by: &[u16]) -> Result<Range<u64>, Error> {
    let size = directory.size();
    let batch = Batch { number: size, before: directory.last, at: 100 + size, entries };
    let mut draft = Draft::new(directory.organisation, batch);
    by.iter().for_each(|admin| draft.sign(*admin, &secret(*admin)));
    directory.extend(vec![draft.signed().clone()])
}

fn refused(directory: &Directory, entries: Vec<Entry>, by: &[u16]) -> String {
    let mut after = directory.clone();
    let error = add(&mut after, entries, by).unwrap_err().to_string();
    assert_eq!(after.encode(), directory.encode(), "nothing changes");
    assert_eq!(after.root(), directory.root());
    error
}

#[test]
fn people_and_devices_come_move_and_go() {
    let mut acme = founded();
    assert_eq!((acme.name(), acme.size()), ("acme", 7));
    assert_eq!(add(&mut acme, vec![person(1, "Bob Beispiel"), device(1, 1)], &[3]), Ok(7..9));
    assert_eq!(acme.find("bob")[0].person.id, 1);
    assert_eq!(acme.find("BEISP").len(), 1);
    assert_eq!(acme.find("alice example")[0].devices, [0]);
    let moved = Entry::Device(Device {
        gateways: vec![key(901)],
        ..acme.device(1).unwrap().device.clone()
    });
    add(&mut acme, vec![moved, person(1, "Bob Neumann")], &[1]).unwrap();
    assert_eq!(acme.device(1).unwrap().address().unwrap().gateway, key(901).0);
    assert_eq!(acme.device(1).unwrap().since, 8);
    assert!(acme.find("beispiel").is_empty());
    add(&mut acme, vec![Entry::Remove(Removed::Person(1))], &[3]).unwrap();
    assert!(acme.find("bob").is_empty());
    assert!(acme.person(1).unwrap().is_removed && acme.device(1).unwrap().is_removed);
    assert!(acme.device_of_key(&key(1_001)).unwrap().is_removed);
    assert_eq!(acme.entries(7..9).map(|listed| listed.number).collect::<Vec<_>>(), [7, 8]);
    let again = Directory::decode(&acme.encode()).unwrap();
    assert_eq!((again.root(), again.encode()), (acme.root(), acme.encode()));
}

#[test]
fn whoever_may_not_sign_is_refused() {
    let acme = founded();
    let new = || vec![person(1, "Bob")];
    assert!(refused(&acme, new(), &[]).contains("needs the signatures of 1 admins"));
    assert!(refused(&acme, new(), &[4]).contains("has 0"), "an announcer lists nobody");
    assert!(refused(&acme, new(), &[5]).contains("admin 5 is wrong"), "there is none");
    assert!(
        refused(&acme, new(), &[FOUNDER]).contains("admin 0 is wrong"),
        "it founds and no more"
    );
    assert!(refused(&acme, vec![approvals(2)], &[3]).contains("has 0"), "an issuer sets no policy");
    assert!(refused(&acme, vec![admin(5, Some(Role::Owner))], &[3]).contains("has 0"));
    // Signed with another key.
    let batch = Batch { number: 7, before: acme.last, at: 200, entries: new() };
    let mut draft = Draft::new(acme.organisation, batch);
    draft.sign(3, &secret(4));
    let mut after = acme.clone();
    let error = after.extend(vec![draft.signed().clone()]).unwrap_err();
    assert_eq!(error, Error::Signature { number: 7, admin: 3 });
    assert_eq!(after.size(), 7);
    // For another organisation.
    let mut foreign = Draft::new(key(55), draft.signed().batch.clone());
    foreign.sign(3, &secret(3));
    assert!(after.extend(vec![foreign.signed().clone()]).is_err());
    // Who lost his role.
    let mut after = acme.clone();
    add(&mut after, vec![admin(3, None)], &[1]).unwrap();
    assert!(refused(&after, new(), &[3]).contains("admin 3 is wrong"));
}

#[test]
fn two_admins_approve_where_the_policy_says_so() {
    let mut acme = founded();
    add(&mut acme, vec![approvals(2)], &[1]).unwrap();
    assert!(refused(&acme, vec![device(1, 0)], &[3]).contains("needs the signatures of 2"));
    assert!(refused(&acme, vec![device(1, 0)], &[3, 4]).contains("has 1"));
    assert!(refused(&acme, vec![approvals(1), device(1, 0)], &[1]).contains("of 2"));
    assert!(refused(&acme, vec![admin(1, None)], &[1, 2]).contains("1 owners are left"));
    add(&mut acme, vec![Entry::Remove(Removed::Device(0))], &[3]).unwrap();
    add(&mut acme, vec![Entry::Announce { text: "Lunch\nis ready".into() }], &[4]).unwrap();
    add(&mut acme, vec![device(1, 0)], &[1, 3]).unwrap();
    add(&mut acme, vec![approvals(1)], &[1, 2]).unwrap();
    // By the policy before it, not by the one in it.
    assert!(
        refused(&founded(), vec![approvals(2), admin(1, None)], &[2]).contains("owners are left")
    );
}

#[test]
fn entries_that_contradict_those_before_them_are_refused() {
    let mut acme = founded();
    add(&mut acme, vec![person(1, "Bob"), device(1, 1)], &[3]).unwrap();
    let with = |change: fn(&mut Device)| {
        let mut device = acme.device(1).unwrap().device.clone();
        change(&mut device);
        vec![Entry::Device(device)]
    };
    for (entries, why) in [
        (vec![Entry::Founded { name: "acme".into() }], "founded once"),
        (vec![person(3, "Carol")], "next number"),
        (vec![device(3, 0)], "next number"),
        (vec![device(2, 7)], "nobody has this number"),
        (vec![device_of(2, 0, key(1_001))], "that of another one"),
        (with(|device| device.key = key(77)), "keeps its key"),
        (with(|device| device.person = 0), "keeps its key and its owner"),
        (with(|device| device.gateways.clear()), "one or two gateways"),
        (vec![admin(9, None)], "next number"),
        (
            vec![Entry::Admin(Admin { number: 5, name: "x".into(), key: key(3), role: None })],
            "one key",
        ),
        (
            vec![Entry::Admin(Admin { number: 5, name: "x".into(), key: key(0), role: None })],
            "no admin's",
        ),
        (
            vec![Entry::Admin(Admin { number: 3, name: "x".into(), key: key(9), role: None })],
            "keeps his key",
        ),
        (vec![Entry::Remove(Removed::Person(9))], "nobody"),
        (vec![Entry::Remove(Removed::Device(9))], "no device"),
        (vec![person(2, "a\u{202e}b")], "all of which show"),
        (vec![person(2, " a")], "all of which show"),
        (vec![Entry::Announce { text: "a\u{1b}[2J".into() }], "all of which shows"),
        (vec![approvals(3)], "one or two"),
        (vec![admin(1, None), admin(2, None)], "0 owners are left"),
        (vec![], "1 to 1,024"),
        ((2..8).flat_map(|id| [device(id, 0)]).collect(), "at most 5"),
    ] {
        let error = refused(&acme, entries.clone(), &[1, 2]);
        assert!(error.contains(why), "{entries:?}: {error}");
    }
    add(&mut acme, vec![Entry::Remove(Removed::Person(1))], &[3]).unwrap();
    for (entries, why) in [
        (vec![person(1, "Bob")], "was removed"),
        (vec![device(2, 1)], "nobody has this number"),
        (vec![device_of(2, 0, key(1_001))], "or of one that was removed"),
        (vec![Entry::Remove(Removed::Person(1))], "nobody"),
    ] {
        let error = refused(&acme, entries.clone(), &[1, 2]);
        assert!(error.contains(why), "{entries:?}: {error}");
    }
}

#[test]
fn batches_that_do_not_follow_are_refused() {
    let acme = founded();
    let next = |number, before, at| {
        let mut draft = Draft::new(
            acme.organisation,
            Batch { number, before, at, entries: vec![person(1, "Bob")] },
        );
        draft.sign(1, &secret(1));
        acme.clone().extend(vec![draft.signed().clone()]).unwrap_err().to_string()
    };
    assert!(next(6, acme.last, 100).contains("entry 7 is the next"));
    assert!(next(7, [1; 32], 100).contains("other entries"));
    assert!(next(7, acme.last, 99).contains("by its date"));
    let mut draft = acme.draft(50, vec![person(1, "Bob")]).unwrap();
    draft.sign(2, &secret(2));
    draft.sign(1, &secret(1));
    let mut signed = draft.signed().clone();
    acme.clone().extend(vec![signed.clone()]).unwrap();
    signed.signatures.reverse();
    assert!(
        acme.clone().extend(vec![signed.clone()]).unwrap_err().to_string().contains("not in order")
    );
    signed.signatures = vec![signed.signatures[0]; 2];
    assert!(acme.clone().extend(vec![signed]).is_err(), "one admin twice is one");
    let none = Directory::new(key(ORGANISATION));
    assert!(
        none.draft(1, vec![admin(1, Some(Role::Owner))])
            .unwrap_err()
            .to_string()
            .contains("begins with")
    );
    assert!(
        none.draft(1, vec![Entry::Founded { name: "acme".into() }])
            .unwrap_err()
            .to_string()
            .contains("0 owners")
    );
}

#[test]
fn a_directory_agrees_with_its_heads_and_no_other() {
    let mut acme = founded();
    let head = |directory: &Directory| directory.head(&secret(ORGANISATION), None, 500);
    let (old, before) = (head(&acme), acme.clone());
    add(&mut acme, vec![person(1, "Bob")], &[1]).unwrap();
    let new = head(&acme);
    assert_eq!(acme.agrees(new.body()), Ok(true));
    assert_eq!(acme.agrees(old.body()), Ok(true));
    assert_eq!(before.agrees(new.body()), Ok(false), "the rest is to be fetched");
    let mut other = before.clone();
    add(&mut other, vec![person(1, "Mallory")], &[1]).unwrap();
    assert_eq!(other.agrees(new.body()), Err(Error::OtherHead { size: 8 }));
    let update = acme.update(new.clone(), Some(old.body())).unwrap();
    assert_eq!(update.continues(Some(old.body())), Ok(()));
    assert!(update.continues(Some(head(&other).body())).is_err());
    assert!(other.update(head(&other), Some(new.body())).is_err());
    assert_eq!(acme.since(7).unwrap().len(), 1);
    assert_eq!(acme.since(8).unwrap().len(), 0);
    assert!(acme.since(3).is_none() && acme.since(9).is_none());
    assert!(acme.reader_token(7).is_some() && acme.reader_token(7) == before.reader_token(7));
    assert!(acme.reader_token(8) != acme.reader_token(7));
    assert!([0, 3, 9].iter().all(|size| acme.reader_token(*size).is_none()));
}

#[test]
fn an_owner_is_alarmed_by_a_device_or_a_twin_that_he_does_not_know() {
    let mut acme = founded();
    let own = key(1_000);
    let mut told = |entries| {
        let new = add(&mut acme, entries, &[1, 2]).unwrap();
        alarms(&acme, new, &own)
    };
    let by = || vec![1, 2];
    assert_eq!(told(vec![device(1, 0)]), [Alarm::Device { number: 7, device: 1, by: by() }]);
    let Entry::Device(second) = device(2, 0) else { unreachable!() };
    let vouch = Vouch::new((0, &secret(1_000)), &key(ORGANISATION), (0, &key(1_002)));
    let vouched = Entry::Device(Device { vouched: Some(vouch), ..second });
    assert_eq!(told(vec![vouched]), [], "he has added it himself by this device");
    assert_eq!(told(vec![person(1, "Bob"), device(3, 1)]), []);
    assert_eq!(told(vec![device(1, 0)]), [Alarm::Moved { number: 11, device: 1, by: by() }]);
    // Cyrillic letters, other spaces, other case, a digit.
    for (id, twin) in
        (2..).zip(["Аlice Example", "alice  example", "Alice Examp1e", "Alice\u{a0}Example"])
    {
        let number = 10 + u64::from(id);
        assert_eq!(
            told(vec![person(id, twin)]),
            [Alarm::Twin { number, person: id, by: by() }],
            "{twin}"
        );
    }
    assert_eq!(told(vec![person(6, "Alice Beispiel")]), []);
    assert_eq!(told(vec![person(0, "Alice Neu")]), [Alarm::Renamed { number: 17, by: by() }]);
    assert_eq!(told(vec![Entry::Remove(Removed::Device(1))]), []);
    assert_eq!(
        told(vec![Entry::Remove(Removed::Person(0))]),
        [Alarm::Removed { number: 19, by: by() }]
    );
}

#[test]
fn an_older_device_vouches_for_a_new_one_of_the_same_person() {
    let mut acme = founded();
    add(&mut acme, vec![person(1, "Bob"), device(1, 1)], &[3]).unwrap();
    let organisation = acme.organisation();
    let vouched = |by: u32, of: (u32, Identity), id: u32| {
        let vouch = Vouch::new((by, &secret(1_000 + by as u16)), &organisation, (of.0, &of.1));
        let Entry::Device(device) = device(id, 0) else { unreachable!() };
        vec![Entry::Device(Device { vouched: Some(vouch), ..device })]
    };
    let new = key(1_002);
    for wrong in [vouched(1, (0, new), 2), vouched(0, (1, new), 2), vouched(0, (0, key(5)), 2)] {
        assert!(refused(&acme, wrong, &[3]).contains("does not hold"));
    }
    add(&mut acme, vouched(0, (0, new), 2), &[3]).unwrap();
}

#[test]
fn whoever_has_the_code_is_enrolled_once_and_nobody_else() {
    use crate::enrolment::{Invitation, Invited, Request, VALID_S};
    let acme = founded();
    let code = crate::Code::draw(&mut shoal_topology::Seed::from_u64(1).stream("code"));
    let other = crate::Code::draw(&mut shoal_topology::Seed::from_u64(2).stream("code"));
    let (name, unit, flags) = ("Bob".to_owned(), String::new(), PersonFlags::default());
    let invited = Invited::Person { name, unit, flags };
    let invitation = Invitation { key: code.public(), invited, expires: 1_000 + VALID_S };
    let ask = |code, organisation| {
        Request::new(code, organisation, &secret(1_001), ("phone".into(), vec![key(900)]))
    };
    let good = ask(&code, acme.organisation());
    let read = Request::decode(&good.encode()).unwrap();
    assert_eq!((read.digits(), read.digits().len()), (good.digits(), 6));
    let entries = read.entries(&acme, &invitation, 1_000).unwrap();
    let mut after = acme.clone();
    add(&mut after, entries.clone(), &[3]).unwrap();
    assert_eq!(after.device_of_key(&key(1_001)).unwrap().device.person, 1);
    assert!(
        refused(&after, read.entries(&after, &invitation, 1_000).unwrap(), &[3])
            .contains("that of another one")
    );
    assert!(read.entries(&acme, &invitation, 1_001 + VALID_S).is_err(), "too late");
    assert!(ask(&other, acme.organisation()).entries(&acme, &invitation, 1_000).is_err());
    assert!(ask(&code, key(5)).entries(&acme, &invitation, 1_000).is_err());
    let bytes = good.encode();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(Request::decode(&changed).is_err(), "byte {at}");
    }
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        (0u32..4, "[a-z]{1,4}").prop_map(|(id, name)| person(id, &name)),
        (0u32..6, 0u32..4, 0u32..6).prop_map(|(id, of, k)| device_of(
            id,
            of,
            key(1_000 + k as u16)
        )),
        (0u32..4).prop_map(|id| Entry::Remove(Removed::Person(id))),
        (0u32..6).prop_map(|id| Entry::Remove(Removed::Device(id))),
        (1u16..7, 0u8..4).prop_map(|(n, role)| {
            let roles = [None, Some(Role::Owner), Some(Role::Issuer), Some(Role::Announcer)];
            admin(n, roles[usize::from(role)])
        }),
        (1u8..3).prop_map(approvals),
        Just(Entry::Announce { text: "text".into() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever admins try: what is taken can be read again, what is refused changes nothing, and some owner can always
    /// go on.
    #[test]
    fn any_entries_leave_a_directory_that_can_be_read_and_continued(
        batches in proptest::collection::vec((proptest::collection::vec(entry(), 1..4), proptest::collection::btree_set(1u16..6, 0..4)), 0..20)
    ) {
        let mut acme = founded();
        for (entries, by) in batches {
            let by: Vec<u16> = by.into_iter().collect();
            let before = acme.encode();
            let size = acme.size();
            match add(&mut acme, entries.clone(), &by) {
                Ok(new) => prop_assert_eq!(new, size..size + entries.len() as u64),
                Err(_) => prop_assert_eq!(acme.encode(), before),
            }
        }
        let again = Directory::decode(&acme.encode()).unwrap();
        prop_assert_eq!(again.root(), acme.root());
        let mut keys: Vec<Identity> = acme.devices().map(|device| device.device.key).collect();
        keys.sort_unstable();
        prop_assert!(keys.windows(2).all(|two| two[0] != two[1]));
        for member in acme.people() {
            prop_assert!(member.devices.len() <= crate::MAX_DEVICES);
            prop_assert!(!member.is_removed || member.devices.is_empty());
            for id in &member.devices {
                let device = acme.device(*id).unwrap();
                prop_assert!(!device.is_removed && device.device.person == member.person.id);
            }
        }
        let owners: Vec<u16> =
            acme.admins().filter(|admin| admin.role == Some(Role::Owner)).map(|admin| admin.number).collect();
        prop_assert!(owners.len() >= usize::from(acme.policy().approvals));
        add(&mut acme, vec![approvals(1)], &owners[..owners.len().min(4)]).unwrap();
    }

    /// Bytes of anybody: no panic, and what is read says the same when it is written again.
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..2_000, bit in 0u8..8) {
        let _ = SignedBatch::decode(&bytes);
        let _ = Directory::decode(&bytes);
        let _ = crate::Request::decode(&bytes);
        let mut changed = founded().encode();
        let at = at % changed.len();
        changed[at] ^= 1 << bit;
        prop_assert!(Directory::decode(&changed).is_err(), "byte {}", at);
    }
}
