//! What providers send when they end somebody's account, to the real program.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)] // A test's own helpers may fail, and wait.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use shoal_org::{Approval, Registry};
use shoal_organisation::enrolment::Invited;
use shoal_organisation::{Admin, Entry, PersonFlags, Removed, Request, Role};
use shoal_topology::{Identity, SecretIdentity};

/// An organisation with an owner and an issuer, whose keys lie in one place, and the endpoint over it.
struct Acme {
    _scratch: tempfile::TempDir,
    dir: PathBuf,
    address: String,
    token: String,
    child: Child,
}

impl Drop for Acme {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn endpoint(dir: &Path, options: &[&str]) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_shoal-org"))
        .arg("--dir")
        .arg(dir)
        .args(["scim", "--listen", "127.0.0.1:0"])
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.strip_prefix("ready at http://").unwrap().split('/').next().unwrap();
    (child, address.to_owned())
}

impl Acme {
    fn new(options: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("acme");
        let mut registry = Registry::init(&dir, "acme", "Olga Owner", None).unwrap();
        let seed = shoal_host::secret::read_or_create(&registry.key_file(2)).unwrap();
        let key = SecretIdentity::from_bytes(&seed).identity();
        let admin = Admin { number: 2, name: "Service".into(), key, role: Some(Role::Issuer) };
        registry.enter(vec![Entry::Admin(admin)], Some(1)).unwrap();
        drop(registry);
        let (child, address) = endpoint(&dir, options);
        let token = std::fs::read_to_string(dir.join("keys/scim.token")).unwrap().trim().to_owned();
        Self { _scratch: scratch, dir, address, token, child }
    }

    fn registry(&self) -> Registry {
        Registry::open(&self.dir).unwrap()
    }

    /// Somebody who is invited for an account.
    fn invites(&self, name: &str, account: &str) -> shoal_organisation::Code {
        let (name, unit, flags) = (name.into(), String::new(), PersonFlags::default());
        let invited = Invited::Person { name, unit, flags };
        let terms = (Approval::Admin, Some(account.to_owned()));
        self.registry().invite(invited, None, terms).unwrap().code().unwrap()
    }

    /// Somebody who is let in with an account. His number.
    fn lists(&self, name: &str, account: &str) -> u32 {
        let code = self.invites(name, account);
        let mut registry = self.registry();
        let number = registry.directory().people().count();
        let device = SecretIdentity::from_bytes(&[u8::try_from(number).unwrap() + 1; 32]);
        let organisation = registry.directory().organisation();
        let named = ("laptop".into(), vec![Identity([9; 32])]);
        let request = Request::new(&code, organisation, &device, named);
        let digits = request.digits();
        registry.receive(request).unwrap();
        registry.approve(&digits, Some(2)).unwrap();
        u32::try_from(number).unwrap()
    }

    /// What is sent, byte by byte, and the status and body of the answer.
    fn sends(&self, bytes: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // Whoever is refused before he has sent all of it hears of it all the same.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap_or("0").parse().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        if status != 204 && status != 0 {
            assert!(head.to_lowercase().contains("content-type: application/scim+json"), "{head}");
        }
        (status, body.to_owned())
    }

    fn asks_as(&self, token: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        let head = format!(
            "{method} /scim/v2{path} HTTP/1.1\r\nHost: scim.example.org\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/scim+json; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let (status, body) = self.sends(head.as_bytes());
        let said = if body.is_empty() { Value::Null } else { serde_json::from_str(&body).unwrap() };
        if status >= 400 {
            assert_eq!(said["schemas"][0], "urn:ietf:params:scim:api:messages:2.0:Error");
            assert_eq!(said["status"], status.to_string());
            assert!(said["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{said}");
        }
        (status, said)
    }

    fn asks(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.asks_as(&self.token, method, path, body)
    }

    fn finds(&self, account: &str) -> Vec<Value> {
        let account = account.replace('@', "%40").replace('+', "%2B");
        let (status, list) =
            self.asks("GET", &format!("/Users?filter=userName+eq+%22{account}%22"), "");
        assert_eq!(
            (status, &list["totalResults"]),
            (200, &json!(list["Resources"].as_array().unwrap().len()))
        );
        list["Resources"].as_array().unwrap().clone()
    }

    fn is_present(&self, person: u32) -> bool {
        !self.registry().directory().person(person).unwrap().is_removed
    }
}

const PATCH: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

/// The bodies by which Entra (by default, and with its flag aadOptscim062020) and Okta end an account, with their methods.
fn forms(id: &str) -> Vec<(&'static str, String)> {
    let patch = |operation: Value| {
        ("PATCH", json!({ "schemas": [PATCH], "Operations": [operation] }).to_string())
    };
    let whole = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "id": id, "userName": "x@example.org",
        "name": { "givenName": "X", "familyName": "Y" }, "emails": [{ "primary": true, "value": "x@example.org", "type": "work" }],
        "active": false, "groups": [], "meta": { "resourceType": "User" },
    });
    vec![
        patch(json!({ "op": "Replace", "path": "active", "value": "False" })),
        patch(json!({ "op": "replace", "path": "active", "value": false })),
        patch(json!({ "op": "replace", "value": { "active": false } })),
        ("PUT", whole.to_string()),
        ("DELETE", String::new()),
    ]
}

#[test]
fn whose_account_a_provider_ends_is_removed_once_by_an_entry_of_the_issuer() {
    let acme = Acme::new(&[]);
    for number in 0..5 {
        let account = format!("Person{number}+x@example.org");
        let person = acme.lists(&format!("Person {number}"), &account);
        // As Entra looks for him, in any case of letters.
        let found = acme.finds(&account.to_uppercase());
        assert_eq!((&found[0]["active"], &found[0]["userName"]), (&json!(true), &json!(account)));
        let id = found[0]["id"].as_str().unwrap();
        let (method, body) = forms(id)[number].clone();
        let (status, said) = acme.asks(method, &format!("/Users/{id}"), &body);
        assert!(status == if method == "DELETE" { 204 } else { 200 }, "{status} {said}");
        assert!(method == "DELETE" || said["active"] == json!(false), "{said}");
        assert!(!acme.is_present(person), "{body}");
        // Again is no other entry, and he is seen as one who is not active.
        let before = acme.registry().directory().size();
        assert!(acme.asks(method, &format!("/Users/{id}"), &body).0 < 300);
        assert_eq!(acme.registry().directory().size(), before);
        assert_eq!(acme.finds(&account)[0]["active"], json!(false));
        assert_eq!(acme.asks("GET", &format!("/Users/{id}"), "").1["active"], json!(false));
    }
    let registry = acme.registry();
    let directory = registry.directory();
    let removed: Vec<Vec<u16>> = directory
        .entries(0..directory.size())
        .filter(|listed| matches!(listed.entry, Entry::Remove(Removed::Person(_))))
        .map(|listed| listed.batch.signatures.iter().map(|(admin, _)| *admin).collect())
        .collect();
    assert_eq!(removed, vec![vec![2]; 5]);
}

#[test]
fn what_providers_say_beside_it_changes_nothing() {
    let acme = Acme::new(&[]);
    let alice = acme.lists("Alice Example", "alice@example.org");
    let before = acme.registry().directory().size();
    let patch =
        |operation: Value| json!({ "schemas": [PATCH], "Operations": [operation] }).to_string();
    let renamed = patch(json!({ "op": "replace", "path": "displayName", "value": "Mallory" }));
    let (status, said) = acme.asks("PATCH", &format!("/Users/{alice}"), &renamed);
    assert_eq!((status, &said["displayName"]), (200, &json!("Alice Example")));
    let active = patch(json!({ "op": "Replace", "path": "active", "value": "True" }));
    assert_eq!(acme.asks("PATCH", &format!("/Users/{alice}"), &active).0, 200);
    assert_eq!(acme.asks("POST", "/Users", "{\"userName\":\"new@example.org\"}").0, 501);
    assert!(acme.finds("nobody@example.org").is_empty());
    let (_, list) = acme.asks("GET", "/Users?startIndex=1&count=1", "");
    assert_eq!((&list["itemsPerPage"], &list["Resources"][0]["id"]), (&json!(1), &json!("0")));
    assert_eq!(acme.asks("GET", "/Users?startIndex=-3&count=99999999999999999999", "").0, 200);
    let (_, config) = acme.asks("GET", "/ServiceProviderConfig", "");
    assert_eq!(
        (&config["patch"]["supported"], &config["bulk"]["supported"]),
        (&json!(true), &json!(false))
    );
    for (method, path, body, status) in [
        ("GET", "/Users?filter=userName+co+%22a%22", "", 400),
        ("GET", "/Users?filter=%ff", "", 400),
        ("GET", "/Users/7", "", 404),
        ("GET", "/Users/%2e%2e%2f", "", 404),
        ("PATCH", "/Users/7", &active, 404),
        ("PATCH", "/Users/0", "{", 400),
        (
            "PATCH",
            "/Users/0",
            "{\"Operations\":[{\"op\":\"replace\",\"path\":\"active\",\"value\":\"maybe\"}]}",
            400,
        ),
        ("PUT", "/Users/0", "[]", 400),
        ("GET", "/Groups", "", 404),
        ("PUT", "/Users", "{}", 405),
    ] {
        assert_eq!(acme.asks(method, path, body).0, status, "{method} {path}");
    }
    // More than is read.
    let much = format!("{{\"active\":false,\"x\":\"{}\"}}", "x".repeat(100_000));
    assert_eq!(acme.asks("PUT", "/Users/0", &much).0, 413);
    for junk in [&b"nonsense\r\n\r\n"[..], b"\0\xff\r\n\r\n", b""] {
        let mut stream = TcpStream::connect(&acme.address).unwrap();
        stream.write_all(junk).unwrap();
    }
    assert!(acme.is_present(alice));
    assert_eq!(acme.registry().directory().size(), before);
}

#[test]
fn without_the_token_nobody_is_answered() {
    use std::os::unix::fs::PermissionsExt as _;
    let acme = Acme::new(&[]);
    let alice = acme.lists("Alice Example", "alice@example.org");
    let mode = std::fs::metadata(acme.dir.join("keys/scim.token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let body = json!({ "active": false }).to_string();
    let (mut other, last) = (acme.token.clone(), acme.token.chars().last().unwrap());
    other.pop();
    let short = other.clone();
    other.push(if last == '0' { '1' } else { '0' });
    for token in ["", "x", &short, &other, &"f".repeat(64)] {
        let (status, said) = acme.asks_as(token, "PUT", &format!("/Users/{alice}"), &body);
        assert_eq!(status, 401, "{said}");
        assert_eq!(acme.asks_as(token, "GET", "/ServiceProviderConfig", "").0, 401);
    }
    let bare = "GET /scim/v2/Users HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(acme.sends(bare.as_bytes()).0, 401);
    assert!(acme.is_present(alice));
    // What can be reached from elsewhere is not served.
    let output = Command::new(env!("CARGO_BIN_EXE_shoal-org"))
        .arg("--dir")
        .arg(&acme.dir)
        .args(["scim", "--listen", "0.0.0.0:0"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("speaks without TLS"), "{said}");
}

#[test]
fn an_account_that_ends_before_its_owner_is_in_ends_his_invitation() {
    let acme = Acme::new(&[]);
    acme.invites("Alice Example", "alice@example.org");
    acme.invites("Bob Beispiel", "bob@example.org");
    let found = acme.finds("alice@example.org");
    let path = format!("/Users/{}", found[0]["id"].as_str().unwrap());
    let (status, said) = acme.asks("PUT", &path, "{\"active\":false}");
    assert_eq!((status, &said["active"]), (200, &json!(false)));
    let registry = acme.registry();
    assert_eq!(registry.invitations().len(), 1);
    assert_eq!(registry.name_of(&registry.invitations()[0].invitation), "Bob Beispiel");
    drop(registry);
    assert!(acme.finds("alice@example.org").is_empty());
    assert_eq!(acme.asks("PUT", &path, "{\"active\":false}").0, 404);
    // Whoever is in and was invited once more goes with all of it.
    let carol = acme.lists("Carol Example", "carol@example.org");
    acme.invites("Carol Again", "CAROL@example.org");
    assert_eq!(acme.asks("DELETE", &format!("/Users/{carol}"), "").0, 204);
    assert_eq!(acme.registry().invitations().len(), 1);
}

#[test]
fn a_provider_gone_mad_removes_no_more_than_so_many_a_day() {
    let acme = Acme::new(&["--most-a-day", "2"]);
    let people = [0, 1, 2].map(|n| acme.lists(&format!("Person {n}"), &format!("{n}@example.org")));
    let end = |person: u32| acme.asks("PUT", &format!("/Users/{person}"), "{\"active\":false}").0;
    assert_eq!(people.map(end), [200, 200, 429]);
    assert!(acme.is_present(people[2]));
    // What is done already is no further removal.
    assert_eq!(end(people[0]), 200);
}
