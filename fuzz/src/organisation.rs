//! Directories of organisations: their entries are signed anew, so that changes get behind the signatures.

use shoal_organisation::enrolment::Request;
use shoal_organisation::wire::{Answer, Question, SignIn};
use shoal_organisation::{
    Admin, Code, Device, Directory, Entry, Person, PersonFlags, Policy, Removed, Role, SignedBatch,
};
use shoal_topology::{HeadUpdate, SecretIdentity, Seed};

/// Bytes of a directory that are looked at: decoding one verifies all of its signatures.
const LONGEST: usize = 4_096;

fn secret(n: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[n; 32])
}

fn admin(number: u16, role: Role) -> Entry {
    let n = u8::try_from(number).unwrap_or_default();
    let (name, key) = (format!("admin {number}"), secret(n).identity());
    Entry::Admin(Admin { number, name, key, role: Some(role) })
}

fn founded() -> Directory {
    let entries = vec![
        Entry::Founded { name: "acme".into() },
        admin(1, Role::Owner),
        admin(2, Role::Owner),
        admin(3, Role::Issuer),
    ];
    Directory::found(&secret(9), 100, entries).expect("it can be founded")
}

/// Batches of entries that one or two admins sign: what is refused changes nothing, what stands can be read again, and an
/// owner can always go on.
pub fn directory_entries(data: &[u8]) {
    let mut directory = founded();
    let batches: Vec<(bool, Vec<Entry>)> = match postcard::from_bytes(data) {
        Ok(batches) => batches,
        Err(_) => return,
    };
    for (both, entries) in batches.into_iter().take(8) {
        let (size, root) = (directory.size(), directory.root());
        let Ok(mut draft) = directory.draft(200, entries) else {
            assert!(
                (directory.size(), directory.root()) == (size, root),
                "a draft changes nothing"
            );
            continue;
        };
        draft.sign(1, &secret(1));
        if both {
            draft.sign(2, &secret(2));
        }
        match directory.extend(vec![draft.signed().clone()]) {
            Ok(new) => assert!(new.start == size && new.end == directory.size()),
            Err(_) => assert!((directory.size(), directory.root()) == (size, root)),
        }
    }
    let again = Directory::decode(&directory.encode()).expect("what stands can be read again");
    assert!(again.root() == directory.root() && again.encode() == directory.encode());
    let owners = directory.admins().filter(|admin| admin.role == Some(Role::Owner)).count();
    assert!(
        owners >= usize::from(directory.policy().approvals),
        "somebody can sign what comes next"
    );
}

/// What a member, an admin and an authority read of others: it has one form.
pub fn organisation_words(data: &[u8]) {
    let data = data.get(..LONGEST).unwrap_or(data);
    if let Ok(batch) = SignedBatch::decode(data) {
        assert!(batch.encode() == data);
        let mut directory = founded();
        let root = directory.root();
        if directory.extend(vec![batch]).is_err() {
            assert!(directory.root() == root, "what is refused changes nothing");
        }
    }
    if let Ok(directory) = Directory::decode(data) {
        assert!(directory.encode() == data);
    }
    if let Ok(request) = Request::decode(data) {
        assert!(request.encode() == data && request.digits().len() == 6);
    }
    if let Ok(update) = HeadUpdate::decode(data) {
        assert!(update.encode() == data);
        let _ = update.continues(Some(update.head.body()));
    }
    if let Ok(question) = Question::decode(data) {
        assert!(question.encode() == data);
    }
    if let Ok(answer) = Answer::decode(data) {
        assert!(answer.encode() == data);
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(code) = text.parse::<Code>() {
        assert!(code.to_string().parse::<Code>() == Ok(code), "a code reads back");
    }
}

/// Valid inputs of both targets, from which mutations start.
pub(crate) fn of(target: &str) -> Vec<Vec<u8>> {
    let person = |id: u32, name: &str| {
        let (name, unit, flags) = (name.to_owned(), "unit".to_owned(), PersonFlags::MARKED);
        Entry::Person(Person { id, name, unit, flags })
    };
    let device = |id: u32, person: u32| {
        let n = 100 + u8::try_from(id).unwrap_or_default();
        let (key, gateways) = (secret(n).identity(), vec![secret(99).identity()]);
        Entry::Device(Device { id, person, name: "laptop".into(), key, gateways, vouched: None })
    };
    let batches = vec![
        (false, vec![person(0, "Alice"), device(0, 0)]),
        (false, vec![Entry::Policy(Policy { approvals: 2, ..Policy::default() })]),
        (true, vec![person(1, "Bob"), device(1, 1), device(2, 0)]),
        (false, vec![Entry::Remove(Removed::Device(0)), Entry::Announce { text: "text".into() }]),
    ];
    if target == "directory_entries" {
        return postcard::to_stdvec(&batches).into_iter().collect();
    }
    let directory = founded();
    let head = directory.head(&secret(9), None, 300);
    let update = HeadUpdate { head, proof: vec![[1; 32]; 3] };
    let code = Code::draw(&mut Seed::from_u64(1).stream("code"));
    let gateways = vec![secret(99).identity()];
    let request =
        Request::new(&code, directory.organisation(), &secret(100), ("laptop".into(), gateways));
    let mut draft = directory.draft(200, vec![person(0, "Alice")]).expect("it can stand");
    draft.sign(1, &secret(1));
    vec![
        draft.signed().encode(),
        directory.encode(),
        update.encode(),
        Question::Enrol(request.encode()).encode(),
        Question::SignIn(request.encode()).encode(),
        Question::Since { size: 4, token: [7; 32] }.encode(),
        Answer::Batches(3).encode(),
        Answer::SignIn(SignIn {
            address: "https://a.example/device".into(),
            code: "AB-CD".into(),
            expires_s: 600,
        })
        .encode(),
        request.encode(),
        code.to_string().into_bytes(),
    ]
}
