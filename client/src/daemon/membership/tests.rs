use shoal_organisation::enrolment::{Invitation, Invited};
use shoal_organisation::{Admin, Device, Entry, Person, Policy, Role};
use shoal_topology::Seed;

use super::*;
use crate::world::Authority;

fn secret(n: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[n; 32])
}

const ORGANISATION: u8 = 1;
const ADMIN: u8 = 2;

/// An organisation with one owner and Bob, who has a laptop.
fn acme() -> Directory {
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

fn person(id: u32, name: &str) -> Entry {
    let (name, unit, flags) = (name.into(), String::new(), PersonFlags::default());
    Entry::Person(Person { id, name, unit, flags })
}

fn device(id: u32, person: u32, key: u8) -> Entry {
    let (key, gateways) = (secret(key).identity(), vec![secret(9).identity()]);
    Entry::Device(Device { id, person, name: format!("device {id}"), key, gateways, vouched: None })
}

fn add(directory: &mut Directory, entries: Vec<Entry>) {
    let mut draft = directory.draft(200, entries).unwrap();
    draft.sign(1, &secret(ADMIN));
    directory.extend(vec![draft.signed().clone()]).unwrap();
}

/// A client that can be a member, with a document that has this head.
struct Client {
    membership: Membership,
    shared: Shared,
    told: tokio::sync::mpsc::Receiver<Order>,
    dir: tempfile::TempDir,
}

impl Client {
    fn new(head: &Directory) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        secret::private_directory(&data_dir).unwrap();
        secret::store(&data_dir.join("identity.key"), &[50 + 1; 32]).unwrap();
        let shared = crate::daemon::reports().0;
        let (orders, told) = tokio::sync::mpsc::channel(100);
        let membership = Membership::open(&config(&dir), shared.clone(), orders).unwrap();
        let client = Self { membership, shared, told, dir };
        client.shows(head);
        client
    }

    /// The document has the head of this directory now.
    fn shows(&self, directory: &Directory) {
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
        while let Ok(Order::Tell(event)) = self.told.try_recv() {
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
    assert!(client.membership.addresses("bob").unwrap_err().contains("no organisation"));
    let told = invited(&client, &mut acme);
    assert_eq!(told["digits"].as_str().unwrap().len(), 6);
    assert_eq!(client.membership.show()["member"], false);
    // The entries stand at the service, and no document covers them: nobody else sees them yet.
    assert_eq!(client.take(&acme, 0), Ok(true));
    assert_eq!(client.membership.show()["member"], false);
    client.shows(&acme);
    assert_eq!(client.take(&acme, 0), Ok(true));
    assert_eq!(client.membership.show()["member"], true);
    assert_eq!(client.events()[0]["event"], "enrolled");
    assert_eq!(client.membership.addresses("bob").unwrap()[0].identity, secret(50).identity().0);
    assert!(client.membership.addresses("carol").unwrap_err().contains("nobody"));
    let contacts = client.membership.contacts(None);
    assert_eq!((&contacts[0]["name"], &contacts[1]["own"]), (&json!("Bob Beispiel"), &json!(true)));
    let code = Code::draw(&mut Seed::from_u64(4).stream("code")).to_string();
    assert!(client.membership.join(&code, "", "desk").unwrap_err().contains("already"));
    let (orders, _told) = tokio::sync::mpsc::channel(100);
    let again = Membership::open(&config(&client.dir), client.shared.clone(), orders).unwrap();
    assert_eq!(again.show(), client.membership.show());
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
        client.membership.addresses("bob").unwrap_err().contains("not here yet"),
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
    let to = client.membership.addresses("bob").unwrap();
    assert_eq!(to.iter().map(|to| to.identity).collect::<Vec<_>>(), [secret(50).identity().0]);
    assert!(
        client.membership.contacts(Some("bob"))[0]["devices"][1]["held_until"].as_u64().unwrap()
            > unix_s()
    );
    let (orders, _told) = tokio::sync::mpsc::channel(100);
    let again = Membership::open(&config(&client.dir), client.shared.clone(), orders).unwrap();
    assert_eq!(again.show()["alarms"].as_array().unwrap().len(), 2);
    again.calm().unwrap();
    assert_eq!(again.show()["alarms"].as_array().unwrap().len(), 0);
    // Where the policy holds nothing back, both get it.
    let size = acme.size();
    add(&mut acme, vec![Entry::Policy(Policy { hold_s: 0, ..Policy::default() })]);
    client.shows(&acme);
    client.take(&acme, size).unwrap();
    assert_eq!(client.membership.addresses("bob").unwrap().len(), 2);
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
    assert!(client.membership.addresses("mallory").is_err());
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
    let (orders, _told) = tokio::sync::mpsc::channel(1);
    let closed = Config { reachable: false, ..config(&client.dir) };
    let closed = Membership::open(&closed, client.shared.clone(), orders).unwrap();
    assert!(closed.join(&code, "acme", "desk").unwrap_err().contains("reachable = true"));
}
