//! The program as admins use it, on files.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test's own helpers may fail.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use shoal_org::Registry;
use shoal_organisation::{Code, Directory, Entry, Request};
use shoal_topology::{Identity, SecretIdentity};

fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-org"));
    command.arg("--dir").arg(dir).args(arguments).output().unwrap()
}

/// Standard output of what succeeds.
fn done(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The line on standard error of what is refused, and the exit code.
fn refused(dir: &Path, arguments: &[&str]) -> (String, i32) {
    let output = run(dir, arguments);
    assert!(!output.status.success(), "{arguments:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    (error, output.status.code().unwrap())
}

/// An organisation with one owner, in a directory that goes with the first value.
fn founded() -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("acme");
    done(&dir, &["init", "--name", "acme", "--owner", "Olga Owner"]);
    (scratch, dir)
}

fn directory(dir: &Path) -> Directory {
    Directory::decode(&std::fs::read(dir.join("directory")).unwrap()).unwrap()
}

/// The code that `invite` prints first.
fn invite(dir: &Path, arguments: &[&str]) -> Code {
    let printed = done(dir, &[&["invite"], arguments].concat());
    printed.lines().next().unwrap().parse().unwrap()
}

/// What a new member sends: into a file, with its digits.
fn request(dir: &Path, code: &Code, seed: u8) -> (String, String) {
    let device = SecretIdentity::from_bytes(&[seed; 32]);
    let gateway = Identity([9; 32]);
    let organisation = directory(dir).organisation();
    let request = Request::new(code, organisation, &device, ("laptop".into(), vec![gateway]));
    let path = dir.join(format!("{seed}.request"));
    std::fs::write(&path, request.encode()).unwrap();
    (path.to_str().unwrap().into(), request.digits())
}

/// Another admin, on another machine: his files, with his key; `owner` lists him.
fn second_admin(dir: &Path, role: &str) -> PathBuf {
    let other = dir.with_file_name(format!("other-{role}"));
    let key = directory(dir).organisation().to_string();
    let file = dir.join("directory");
    done(&other, &["join", "--directory", file.to_str().unwrap(), "--key", &key]);
    let number = directory(dir).admins().count() + 1;
    let public = done(&other, &["admin-key", &number.to_string()]);
    done(dir, &["admin", "add", "Otto Other", "--role", role, "--key", public.trim()]);
    done(&other, &["take", file.to_str().unwrap()]);
    other
}

#[test]
fn whoever_was_invited_is_let_in_once_an_admin_heard_the_digits() {
    let (_scratch, dir) = founded();
    let code = invite(&dir, &["Alice Example", "--unit", "Finance", "--marked"]);
    let (file, digits) = request(&dir, &code, 1);
    assert!(done(&dir, &["requests"]).contains("Alice Example: no request yet"));
    assert!(done(&dir, &["receive", &file]).contains(&digits));
    assert!(done(&dir, &["receive", &file]).contains(&digits), "the same again is the same");
    let (thief, _) = request(&dir, &code, 2);
    assert!(refused(&dir, &["receive", &thief]).0.contains("another device asked first"));
    let wrong = if digits == "000000" { "000001" } else { "000000" };
    assert!(refused(&dir, &["approve", wrong]).0.contains("no request shows the digits"));
    assert!(done(&dir, &["approve", &digits]).contains("entries 2 to 3 stand"));
    assert!(refused(&dir, &["receive", &file]).0.contains("no open invitation"), "once");
    assert!(refused(&dir, &["receive", &thief]).0.contains("no open invitation"));
    let alice = directory(&dir);
    assert_eq!(alice.find("alice")[0].person.unit, "Finance");
    let shown: serde_json::Value = serde_json::from_str(&done(&dir, &["show", "--json"])).unwrap();
    assert_eq!(shown["people"][0]["marked"], true);
    assert_eq!(shown["people"][0]["devices"][0]["name"], "laptop");
    // A further device of hers, and then none of them.
    let code = invite(&dir, &["alice", "--device"]);
    let (file, digits) = request(&dir, &code, 3);
    done(&dir, &["receive", &file]);
    done(&dir, &["approve", &digits]);
    assert_eq!(directory(&dir).person(0).unwrap().devices, [0, 1]);
    done(&dir, &["remove", "--device", "1"]);
    done(&dir, &["remove", "Alice Example"]);
    assert!(refused(&dir, &["remove", "Alice Example"]).0.contains("nobody in the directory"));
    let log = done(&dir, &["log"]);
    assert!(
        log.contains("device 1, laptop, of Alice Example is removed; by Olga Owner (1)"),
        "{log}"
    );
    assert_eq!(done(&dir, &["log", "--json"]).lines().count(), 7);
}

#[test]
fn codes_and_keys_lie_in_no_file_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_scratch, dir) = founded();
    let out = dir.join("alice.toml");
    let code = invite(&dir, &["Alice Example", "--out", out.to_str().unwrap()]).to_string();
    assert!(std::fs::read_to_string(&out).unwrap().contains(&code));
    assert!(
        refused(&dir, &["invite", "Bob", "--out", out.to_str().unwrap()])
            .0
            .contains("is there already")
    );
    std::fs::remove_file(&out).unwrap();
    let mut files = vec![dir.clone()];
    let mut seen = 0;
    while let Some(path) = files.pop() {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert_eq!(mode, 0o600, "{}", path.display());
            let bytes = std::fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&bytes).replace('-', "");
            assert!(!text.contains(&code.replace('-', "")), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn what_needs_two_admins_waits_for_the_second() {
    let (_scratch, dir) = founded();
    let other = second_admin(&dir, "owner");
    done(&dir, &["policy", "--approvals", "2"]);
    let code = invite(&dir, &["Bob Beispiel"]);
    let (file, digits) = request(&dir, &code, 1);
    done(&dir, &["receive", &file]);
    let said = done(&dir, &["approve", &digits]);
    let draft = said.split_whitespace().find(|word| word.ends_with(".draft:")).unwrap();
    let draft = draft.trim_end_matches(':').to_owned();
    assert!(directory(&dir).find("bob").is_empty());
    assert!(
        done(&dir, &["sign", "--yes", &draft]).contains("another admin has to sign"),
        "himself again is one"
    );
    // The other one lacks the policy until he takes it.
    assert!(refused(&other, &["sign", "--yes", &draft]).0.contains("does not follow"));
    done(&other, &["take", dir.join("directory").to_str().unwrap()]);
    let output = run(&other, &["sign", &draft]);
    assert!(!output.status.success(), "without an answer nothing is signed");
    let said = done(&other, &["sign", "--yes", &draft]);
    assert!(
        said.contains("person 0, Bob Beispiel") && said.contains("signed by Olga Owner (1)"),
        "{said}"
    );
    // The second one sees whose key it is, and that the device is new.
    let key = SecretIdentity::from_bytes(&[1; 32]).identity().to_string();
    assert!(said.contains("NEW: device 0") && said.contains(&key), "{said}");
    assert_eq!(directory(&other).find("bob").len(), 1);
    done(&dir, &["take", other.join("directory").to_str().unwrap()]);
    assert_eq!(directory(&dir).find("bob").len(), 1);
    assert_eq!(done(&dir, &["requests"]).trim(), "no invitation is open");
    // Both go their own way: whoever is behind is told.
    done(&dir, &["announce", "one"]);
    done(&other, &["announce", "other"]);
    let (error, _) = refused(&dir, &["take", other.join("directory").to_str().unwrap()]);
    assert!(error.contains("they parted"), "{error}");
}

/// A batch that the first owner signed, with this date and these entries, in a file.
fn signed(dir: &Path, at: u64, entries: Vec<Entry>) -> String {
    let seed = shoal_host::secret::read(&dir.join("keys/admin-1.key")).unwrap();
    let mut draft = directory(dir).draft(at, entries).unwrap();
    draft.sign(1, &SecretIdentity::from_bytes(&seed));
    let path = dir.join(format!("{at}.draft"));
    std::fs::write(&path, draft.signed().encode()).unwrap();
    path.to_str().unwrap().into()
}

#[test]
fn a_batch_of_the_future_and_junk_for_a_request_stop_no_admin() {
    let (_scratch, dir) = founded();
    let announce = |text: &str| vec![Entry::Announce { text: text.into() }];
    let ahead = signed(&dir, 4_000_000_000, announce("from 2096"));
    for verb in [vec!["take", &ahead], vec!["sign", "--yes", &ahead]] {
        assert!(refused(&dir, &verb).0.contains("look at the clocks"), "{verb:?}");
    }
    let now = signed(&dir, 1_800_000, announce("from now"));
    done(&dir, &["take", &now]);
    // A service that was seized writes what it likes where requests lie.
    let code = invite(&dir, &["Alice"]);
    let requests = dir.join("requests");
    std::fs::create_dir(&requests).unwrap();
    std::fs::write(requests.join(format!("{}.request", code.public())), b"junk").unwrap();
    assert!(done(&dir, &["requests"]).contains("Alice: no request yet"));
    done(&dir, &["announce", "all is well"]);
}

#[test]
fn nobody_is_let_in_unseen_unless_the_invitation_says_so_and_an_issuer_signs() {
    let (_scratch, dir) = founded();
    // Of whoever may make admins, no key is taken by a service.
    for admin in [None, Some(1)] {
        let error = Registry::open(&dir).unwrap().issuer(admin).unwrap_err().to_string();
        assert!(error.contains("admin-key 2") && error.contains("--role issuer"), "{error}");
    }
    let error = refused(&dir, &["serve", "--auto"]).0;
    assert!(error.contains("--role issuer"), "{error}");
    let service = second_admin(&dir, "issuer");
    let [seen, unseen] = [vec!["Bob Beispiel"], vec!["Alice Example", "--auto"]]
        .map(|arguments| invite(&service, &arguments));
    let receive = |code, seed| {
        let (file, digits) = request(&service, code, seed);
        done(&service, &["receive", &file]);
        digits
    };
    let (_, alices) = (receive(&seen, 1), receive(&unseen, 2));
    let listed = done(&service, &["requests"]);
    let alice = format!("Alice Example: asks with the digits {alices}, let in unseen by `serve");
    assert!(listed.contains(&alice) && listed.matches("unseen").count() == 1, "{listed}");
    let mut registry = Registry::open(&service).unwrap();
    assert_eq!(registry.issuer(None).unwrap(), 2);
    let (new, why) = registry.approve_unseen(2).unwrap();
    assert!(new == 2 && why.is_none(), "{new} {why:?}");
    assert_eq!(registry.approve_unseen(2).unwrap().0, 0, "once");
    drop(registry);
    let directory = directory(&service);
    assert_eq!((directory.find("alice").len(), directory.find("bob").len()), (1, 0));
    assert!(done(&service, &["log"]).contains("person 0, Alice Example; by Otto Other (2)"));
    // The owner takes what the service entered, and can end it.
    let file = service.join("directory");
    done(&dir, &["take", file.to_str().unwrap()]);
    done(&dir, &["admin", "end", "2"]);
    done(&service, &["take", dir.join("directory").to_str().unwrap()]);
    assert!(Registry::open(&service).unwrap().approve_unseen(2).is_err());
}

#[test]
fn where_two_admins_approve_nobody_is_let_in_unseen() {
    let (_scratch, dir) = founded();
    let service = second_admin(&dir, "issuer");
    let code = invite(&service, &["Alice Example", "--auto"]);
    let (file, _) = request(&service, &code, 1);
    done(&service, &["receive", &file]);
    // The policy changes after the invitation.
    let other = dir.with_file_name("other-owner");
    done(
        &other,
        &[
            "join",
            "--directory",
            dir.join("directory").to_str().unwrap(),
            "--key",
            &directory(&dir).organisation().to_string(),
        ],
    );
    let public = done(&other, &["admin-key", "3"]);
    done(&dir, &["admin", "add", "Owen Owner", "--role", "owner", "--key", public.trim()]);
    done(&dir, &["policy", "--approvals", "2"]);
    done(&service, &["take", dir.join("directory").to_str().unwrap()]);
    let error = Registry::open(&service).unwrap().approve_unseen(2).unwrap_err().to_string();
    assert!(error.contains("the policy has two admins approve"), "{error}");
    for verb in [vec!["invite", "Bob", "--auto"], vec!["serve", "--auto"]] {
        let (error, code) = refused(&service, &verb);
        assert!(error.contains("the policy has two admins approve") && code == 1, "{error}");
    }
    assert!(directory(&service).find("alice").is_empty());
}

#[test]
fn an_admin_does_what_his_role_allows() {
    let (_scratch, dir) = founded();
    let other = second_admin(&dir, "announcer");
    done(&other, &["announce", "Lunch is ready"]);
    assert!(
        refused(&other, &["policy", "--approvals", "1"]).0.contains("needs the signatures of 1")
    );
    done(&dir, &["take", other.join("directory").to_str().unwrap()]);
    done(&dir, &["admin", "end", "2"]);
    done(&other, &["take", dir.join("directory").to_str().unwrap()]);
    assert!(refused(&other, &["announce", "more"]).0.contains("no admin's key is in"));
    assert!(refused(&dir, &["admin", "end", "1"]).0.contains("0 owners are left"));
    assert!(
        refused(&dir, &["admin", "role", "7", "--role", "owner"]).0.contains("there is no admin 7")
    );
}

#[test]
fn mistakes_are_named_and_change_nothing() {
    let (scratch, dir) = founded();
    let nowhere = scratch.path().join("nowhere");
    assert!(refused(&nowhere, &["show"]).0.contains("`shoal-org init` founds an organisation"));
    assert!(
        refused(&dir, &["init", "--name", "acme", "--owner", "x"]).0.contains("is there already")
    );
    let long = "x".repeat(33);
    assert!(
        refused(&nowhere, &["init", "--name", &long, "--owner", "x"]).0.contains("1 to 32 bytes")
    );
    assert!(!nowhere.exists(), "nothing is made of what cannot be used");
    assert!(refused(&dir, &["invite", "a\u{202e}b"]).0.contains("all of which show"));
    assert!(refused(&dir, &["invite", "nobody", "--device"]).0.contains("nobody in the directory"));
    assert!(refused(&dir, &["receive", "/dev/null"]).0.contains("malformed request"));
    assert!(refused(&dir, &["publish"]).0.contains("--network FILE"));
    // A damaged directory is not taken for another one.
    let path = dir.join("directory");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (error, code) = refused(&dir, &["show"]);
    assert!(error.contains(path.to_str().unwrap()) && code == 78, "{error} {code}");
}
