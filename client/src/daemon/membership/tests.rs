use shoal_organisation::enrolment::{Invitation, Invited};
use shoal_organisation::{Admin, Device, Entry, Person, Policy, Role};
use shoal_people::RosterDevice;
use shoal_topology::Seed;
use shoal_topology::directory::address::ServiceAddress;

use tokio::sync::broadcast;

use super::*;
use crate::daemon::events::{self, Event};
use crate::world::Authority;

pub(in crate::daemon) fn secret(n: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[n; 32])
}

const ORGANISATION: u8 = 1;
const ADMIN: u8 = 2;

/// An organisation with one owner and Bob, who has a laptop.
pub(in crate::daemon) fn acme() -> Directory {
    let admin = Admin {
        number: 1,
        name: "Olga".into(),
        key: secret(ADMIN).identity(),
        role: Some(Role::Owner),
    };
    let entries = vec![
        Entry::Founded { name: "acme".into() },
        Entry::Admin(admin),
        person(0, "Bob Beispiel"),
        device(0, 0, 50),
    ];
    Directory::found(&secret(ORGANISATION), 100, entries).unwrap()
}

pub(in crate::daemon) fn person(id: u32, name: &str) -> Entry {
    let (name, unit, flags) = (name.into(), String::new(), PersonFlags::default());
    Entry::Person(Person { id, name, unit, flags })
}

pub(in crate::daemon) fn device(id: u32, person: u32, key: u8) -> Entry {
    let (key, gateways) = (secret(key).identity(), vec![secret(9).identity()]);
    Entry::Device(Device { id, person, name: format!("device {id}"), key, gateways, vouched: None })
}

pub(in crate::daemon) fn add(directory: &mut Directory, entries: Vec<Entry>) {
    let mut draft = directory.draft(200, entries).unwrap();
    draft.sign(1, &secret(ADMIN));
    directory.extend(vec![draft.signed().clone()]).unwrap();
}

/// A client that can be a member, with a document that has this head.
pub(in crate::daemon) struct Client {
    pub(in crate::daemon) membership: Membership,
    shared: Shared,
    told: broadcast::Receiver<Event>,
    pub(in crate::daemon) dir: tempfile::TempDir,
}

impl Client {
    fn new(head: &Directory) -> Self {
        Self::at(tempfile::tempdir().unwrap(), head, 50 + 1, events::events())
    }

    /// One with this key and data directory, that tells others what happens.
    pub(in crate::daemon) fn at(
        dir: tempfile::TempDir,
        head: &Directory,
        key: u8,
        events: Events,
    ) -> Self {
        let data_dir = dir.path().join("data");
        secret::private_directory(&data_dir).unwrap();
        let identity = data_dir.join("identity.key");
        if !identity.exists() {
            secret::store(&identity, &[key; 32]).unwrap();
        }
        let shared = crate::daemon::reports().0;
        let told = events.subscribe();
        let membership = Membership::open(&config(&dir), shared.clone(), events);
        let client = Self { membership, shared, told, dir };
        client.shows(head);
        client
    }

    /// Asks to be let in, unless it was before, and takes the directory, which has it already.
    pub(in crate::daemon) fn join(&self, directory: &Directory) {
        if self.membership.show(false).unwrap()["member"] == true {
            return self.membership.compare(&self.head());
        }
        let code = Code::draw(&mut Seed::from_u64(3).stream("code")).to_string();
        self.membership.join(&code, "acme", "desk").unwrap();
        self.take(directory, 0).unwrap();
        self.membership.compare(&self.head());
    }

    /// The document has the head of this directory now.
    pub(in crate::daemon) fn shows(&self, directory: &Directory) {
        let authority = Authority::new(20);
        let mut document = authority.document(1_000);
        document.heads = vec![directory.head(&secret(ORGANISATION), None, 300)];
        self.shared.lock().unwrap().document = Some(Arc::new(document));
    }

    fn head(&self) -> DirectoryHead {
        self.membership.document().unwrap().heads[0].body().clone()
    }

    fn take(&self, from: &Directory, since: u64) -> Result<bool, String> {
        let whole = since == 0;
        self.membership.take(from.since(since).unwrap().to_vec(), &self.head(), whole)
    }

    /// Events since the last time.
    fn events(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Ok(event) = self.told.try_recv() {
            events.push(event);
        }
        events
    }
}

fn config(dir: &tempfile::TempDir) -> Config {
    let gateway =
        crate::Gateway { identity: secret(9).identity(), address: "127.0.0.1:9".parse().unwrap() };
    Config {
        data_dir: dir.path().join("data"),
        reachable: true,
        gateways: vec![gateway],
        ..Config::default()
    }
}

/// Where somebody is written to at once, by name.
fn addresses(membership: &Membership, name: &str) -> Result<Vec<ServiceAddress>, String> {
    let (person, _) = membership.person(name)?;
    let (_, roster) = membership.roster(&mut RosterMark::default()).ok_or("no device")?;
    if !roster.is_current {
        return Err("nobody: the directory is not the present one".into());
    }
    let free = |device: &&RosterDevice| device.person == person && device.held_until == 0;
    let free: Vec<_> = roster.devices.values().filter(free).map(|device| device.address).collect();
    if free.is_empty() { Err("all devices are held back".into()) } else { Ok(free) }
}

/// A code, and what an admin enters for whoever asked with it.
fn invited(client: &Client, directory: &mut Directory) -> Value {
    let code = Code::draw(&mut Seed::from_u64(3).stream("code"));
    let told = client.membership.join(&code.to_string(), "acme", "desk").unwrap();
    let request = client.membership.state().as_ref().unwrap().request.clone();
    let (name, unit, flags) = ("Alice".to_owned(), String::new(), PersonFlags::default());
    let invited = Invited::Person { name, unit, flags };
    let invitation = Invitation { key: code.public(), invited, expires: 1_000 };
    add(directory, request.entries(directory, &invitation, 200).unwrap());
    told
}

#[test]
fn a_client_is_let_in_knows_the_people_and_starts_again_as_a_member() {
    let mut acme = acme();
    let mut client = Client::new(&acme);
    assert!(addresses(&client.membership, "bob").unwrap_err().contains("no organisation"));
    let told = invited(&client, &mut acme);
    assert_eq!(told["digits"].as_str().unwrap().len(), 6);
    assert_eq!(client.membership.show(false).unwrap()["member"], false);
    // The entries stand at the service, and no document covers them: nobody else sees them yet.
    assert_eq!(client.take(&acme, 0), Ok(true));
    assert_eq!(client.membership.show(false).unwrap()["member"], false);
    client.shows(&acme);
    assert_eq!(client.take(&acme, 0), Ok(true));
    assert_eq!(client.membership.show(false).unwrap()["member"], true);
    assert_eq!(client.events()[0]["event"], "enrolled");
    assert_eq!(addresses(&client.membership, "bob").unwrap()[0].identity, secret(50).identity().0);
    assert!(addresses(&client.membership, "carol").unwrap_err().contains("nobody"));
    let contacts = client.membership.contacts(None);
    assert_eq!((&contacts[0]["name"], &contacts[1]["own"]), (&json!("Bob Beispiel"), &json!(true)));
    let code = Code::draw(&mut Seed::from_u64(4).stream("code")).to_string();
    assert!(client.membership.join(&code, "", "desk").unwrap_err().contains("already"));
    let again = Membership::open(&config(&client.dir), client.shared.clone(), events::events());
    assert_eq!(again.show(false).unwrap(), client.membership.show(false).unwrap());
}

#[test]
fn what_is_new_is_held_back_and_what_concerns_the_owner_raises_an_alarm_that_stays() {
    let mut acme = acme();
    let mut client = Client::new(&acme);
    invited(&client, &mut acme);
    client.shows(&acme);
    client.take(&acme, 0).unwrap();
    client.events();
    let size = acme.size();
    add(
        &mut acme,
        vec![
            device(2, 0, 60),
            device(3, 1, 61),
            person(2, "Alice"),
            Entry::Announce { text: "Lunch".into() },
        ],
    );
    client.shows(&acme);
    assert!(
        addresses(&client.membership, "bob").unwrap_err().contains("not the present one"),
        "P7: not to who may be gone"
    );
    assert_eq!(client.take(&acme, size), Ok(true));
    let events = client.events();
    let alarms: Vec<&str> = events
        .iter()
        .filter(|e| e["event"] == "alarm")
        .map(|e| e["text"].as_str().unwrap())
        .collect();
    assert!(alarms[0].contains("\"device 3\" was added to you by Olga"), "{alarms:?}");
    assert!(alarms[1].contains("name looks like yours"), "{alarms:?}");
    assert_eq!(events.iter().find(|e| e["event"] == "announcement").unwrap()["text"], "Lunch");
    // Bob's laptop was there before; his new device waits.
    let to = addresses(&client.membership, "bob").unwrap();
    assert_eq!(to.iter().map(|to| to.identity).collect::<Vec<_>>(), [secret(50).identity().0]);
    assert!(
        client.membership.contacts(Some("bob"))[0]["devices"][1]["held_until"].as_u64().unwrap()
            > unix_s()
    );
    let again = Membership::open(&config(&client.dir), client.shared.clone(), events::events());
    assert_eq!(again.show(false).unwrap()["alarms"].as_array().unwrap().len(), 2);
    assert_eq!(again.show(true).unwrap()["alarms"].as_array().unwrap().len(), 2);
    assert_eq!(again.show(false).unwrap()["alarms"].as_array().unwrap().len(), 0);
    // A policy that holds nothing back comes too late for what is held back, and for what comes with it.
    let size = acme.size();
    let policy = |hold_s| Entry::Policy(Policy { hold_s, ..Policy::default() });
    add(&mut acme, vec![policy(0), device(4, 0, 62)]);
    client.shows(&acme);
    client.take(&acme, size).unwrap();
    assert_eq!(addresses(&client.membership, "bob").unwrap().len(), 1);
    // From then on it counts.
    let size = acme.size();
    add(&mut acme, vec![device(5, 0, 63)]);
    client.shows(&acme);
    client.take(&acme, size).unwrap();
    assert_eq!(addresses(&client.membership, "bob").unwrap().len(), 2);
}

/// Whom "bob" means to a client that knows him, when these entries have come; the devices are those of the keys.
fn reached(entries: impl FnOnce(&Directory) -> Vec<Entry>) -> Result<Vec<[u8; 32]>, String> {
    let mut acme = acme();
    let client = Client::new(&acme);
    add(&mut acme, vec![person(1, "Mallory"), device(1, 1, 70)]);
    let code = Code::draw(&mut Seed::from_u64(3).stream("code"));
    client.membership.join(&code.to_string(), "acme", "desk").unwrap();
    let new = [person(2, "Alice"), device(2, 2, 51)];
    add(&mut acme, new.to_vec());
    client.shows(&acme);
    client.take(&acme, 0).unwrap();
    let size = acme.size();
    let entries = entries(&acme);
    add(&mut acme, entries);
    client.shows(&acme);
    client.take(&acme, size).unwrap();
    let addresses = addresses(&client.membership, "bob")?;
    Ok(addresses.iter().map(|address| address.identity).collect())
}

#[test]
fn no_entry_of_a_rogue_admin_turns_letters_to_another_device_at_once() {
    let laptop = secret(50).identity().0;
    assert_eq!(reached(|_| vec![Entry::Announce { text: "x".into() }]), Ok(vec![laptop]));
    // Another person takes the name, or the shorter one.
    assert!(reached(|_| vec![person(1, "Bob")]).unwrap_err().contains("held back"));
    let taken = reached(|_| vec![person(0, "Robert"), person(1, "Bob Beispiel")]);
    assert!(taken.unwrap_err().contains("held back"));
    // A rogue device, and one that it vouches for.
    let vouched = reached(|acme| {
        let key = secret(61).identity();
        let vouch =
            shoal_organisation::Vouch::new((3, &secret(60)), &acme.organisation(), (0, &key));
        let Entry::Device(second) = device(4, 0, 61) else { unreachable!() };
        vec![device(3, 0, 60), Entry::Device(Device { vouched: Some(vouch), ..second })]
    });
    assert_eq!(vouched, Ok(vec![laptop]));
    // The word of a device that letters go to already counts.
    let vouched = reached(|acme| {
        let key = secret(61).identity();
        let vouch =
            shoal_organisation::Vouch::new((0, &secret(50)), &acme.organisation(), (0, &key));
        let Entry::Device(second) = device(3, 0, 61) else { unreachable!() };
        vec![Entry::Device(Device { vouched: Some(vouch), ..second })]
    });
    assert_eq!(vouched, Ok(vec![laptop, secret(61).identity().0]));
}

#[test]
fn what_was_entered_while_somebody_was_let_in_is_told_and_held_back() {
    let mut acme = acme();
    let client = Client::new(&acme);
    let code = Code::draw(&mut Seed::from_u64(3).stream("code"));
    client.membership.join(&code.to_string(), "acme", "desk").unwrap();
    let now = unix_s();
    let entries = vec![person(1, "Alice"), device(1, 1, 51), device(2, 1, 60), device(3, 0, 61)];
    let mut draft = acme.draft(now, entries).unwrap();
    draft.sign(1, &secret(ADMIN));
    acme.extend(vec![draft.signed().clone()]).unwrap();
    client.shows(&acme);
    client.take(&acme, 0).unwrap();
    let alarms = client.membership.show(false).unwrap()["alarms"].clone();
    assert!(alarms[0].as_str().unwrap().contains("\"device 2\" was added to you"), "{alarms}");
    let to = addresses(&client.membership, "bob").unwrap();
    assert_eq!(to.len(), 1, "the device of that very moment waits");
}

#[test]
fn without_a_head_that_fits_nobody_is_written_to_by_name() {
    let mut acme = acme();
    let client = Client::new(&acme);
    invited(&client, &mut acme);
    client.shows(&acme);
    client.take(&acme, 0).unwrap();
    assert!(addresses(&client.membership, "bob").is_ok());
    client.shared.lock().unwrap().document = None;
    assert!(addresses(&client.membership, "bob").unwrap_err().contains("not the present one"));
    // As many entries, and others: only what compares sees it.
    let mut other = super::tests::acme();
    add(&mut other, vec![person(1, "Eve"), device(1, 1, 71)]);
    client.shows(&other);
    client.membership.compare(&client.head());
    assert!(addresses(&client.membership, "bob").unwrap_err().contains("not the present one"));
    assert!(
        client.membership.show(false).unwrap()["alarms"][0]
            .as_str()
            .unwrap()
            .contains("somebody shows another one")
    );
    // A part of what the document has is no answer.
    let size = acme.size();
    add(&mut acme, vec![person(2, "Carol")]);
    let part = acme.clone();
    add(&mut acme, vec![person(3, "Dave")]);
    client.shows(&acme);
    assert_eq!(client.take(&part, size), Ok(false));
    assert_eq!(client.membership.show(false).unwrap()["entries"], size);
}

#[test]
fn another_directory_than_everybody_sees_is_kept_out() {
    let mut acme = acme();
    let client = Client::new(&acme);
    invited(&client, &mut acme);
    client.shows(&acme);
    client.take(&acme, 0).unwrap();
    let size = acme.size();
    let mut other = acme.clone();
    add(&mut acme, vec![person(2, "Carol")]);
    add(&mut other, vec![person(2, "Mallory")]);
    client.shows(&acme);
    let error = client.take(&other, size).unwrap_err();
    assert!(error.contains("somebody shows another one"), "{error}");
    assert!(client.take(&other, 0).unwrap_err().contains("somebody shows another one"));
    assert!(addresses(&client.membership, "mallory").is_err());
    assert_eq!(client.take(&acme, size), Ok(true));
    // A whole one that is not what is here already.
    let mut forged = super::tests::acme();
    add(&mut forged, vec![person(1, "Eve")]);
    assert!(client.take(&forged, 0).unwrap_err().contains("not the one that is here"));
}

#[test]
fn whoever_cannot_be_asked_or_written_to_is_told_what_to_do() {
    let acme = acme();
    let client = Client::new(&acme);
    let code = Code::draw(&mut Seed::from_u64(3).stream("code")).to_string();
    let join = |code: &str, organisation: &str| {
        client.membership.join(code, organisation, "desk").unwrap_err()
    };
    assert!(join("ABC", "acme").contains("20 letters"));
    assert!(join(&code, "other").contains("no organisation \"other\""));
    assert!(
        client.membership.join(&code, "acme", "a\nb").unwrap_err().contains("all of which show")
    );
    client.shared.lock().unwrap().document = None;
    assert!(join(&code, "acme").contains("no topology document"));
    let closed = Config { reachable: false, ..config(&client.dir) };
    let closed = Membership::open(&closed, client.shared.clone(), events::events());
    assert!(closed.join(&code, "acme", "desk").unwrap_err().contains("reachable = true"));
}

#[test]
fn after_a_crash_between_two_files_no_directory_is_taken_for_another_one() {
    let mut acme = acme();
    let client = Client::new(&acme);
    invited(&client, &mut acme);
    client.shows(&acme);
    client.take(&acme, 0).unwrap();
    // What is written first when another organisation is asked.
    let other = MembershipRecord::new(secret(77).identity(), "other".into());
    files::write_kept(&client.dir.path().join("data"), &other).unwrap();
    let again = Membership::open(&config(&client.dir), client.shared.clone(), events::events());
    let shown = again.show(false).unwrap();
    assert_eq!((&shown["organisation"], &shown["entries"]), (&json!("other"), &json!(0)));
    assert!(addresses(&again, "bob").is_err());
}

#[test]
fn whoever_signs_in_is_told_where_once_and_asks_so_after_a_start_too() {
    let acme = acme();
    let mut client = Client::new(&acme);
    client.membership.join("sign-in", "acme", "desk").unwrap();
    let first = client.membership.show(false).unwrap();
    assert_eq!((&first["member"], &first["sign_in"]), (&json!(false), &Value::Null));
    client.events();
    let page = |code: &str| SignIn {
        address: "https://login.example.org/device".into(),
        code: code.into(),
        expires_s: 600,
    };
    client.membership.refuse("busy".into(), false);
    client.membership.sign_in(page("BCDF-GHJK"));
    client.membership.sign_in(SignIn { expires_s: 580, ..page("BCDF-GHJK") });
    client.membership.sign_in(page("QRST-VWXZ"));
    let codes: Vec<Value> = client
        .events()
        .into_iter()
        .filter(|event| event["event"] == "sign-in")
        .map(|event| event["code"].clone())
        .collect();
    assert_eq!(codes, ["BCDF-GHJK", "QRST-VWXZ"]);
    let shown = client.membership.show(false).unwrap();
    assert_eq!((&shown["sign_in"]["code"], &shown["refused"]), (&json!("QRST-VWXZ"), &Value::Null));
    let again = Membership::open(&config(&client.dir), client.shared.clone(), events::events());
    let asks_so = again.state().as_ref().map(|state| state.kept.by_sign_in);
    assert_eq!(asks_so, Some(true));
    // Once somebody signed in there is nothing more to do there.
    client.membership.gave();
    assert_eq!(client.membership.show(false).unwrap()["sign_in"], Value::Null);
    // A code drawn for a sign-in is another one each time.
    let digits = client.membership.show(false).unwrap()["digits"].clone();
    client.membership.join("sign-in", "acme", "desk").unwrap();
    assert_ne!(client.membership.show(false).unwrap()["digits"], digits);
}
