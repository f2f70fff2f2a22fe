//! A directory of people and devices, its heads, an enrolment.

use anyhow::Context as _;
use serde_json::{Value, json};
use shoal_organisation::enrolment::{Invited, VALID_S};
use shoal_organisation::wire::{Answer, Question, Refusal, SignIn};
use shoal_organisation::{
    Admin, Code, Device, Directory, Entry, Invitation, Person, PersonFlags, Policy, Removed,
    Request, Role, Vouch,
};
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::{DirectoryHead, HeadUpdate, Identity, Seed, Signed};

use super::{hex, said, secret};

/// When the example happens, Unix seconds.
const AT: u64 = 1_800_000_000;
/// The organisation's key; admins have the keys 161, 162, …, devices those from 170 on.
const ORGANISATION: u8 = 160;

fn key(n: u8) -> Identity {
    secret(n).identity()
}

fn admin(number: u16, name: &str, role: Option<Role>) -> Entry {
    let key = key(ORGANISATION + u8::try_from(number).unwrap_or_default());
    Entry::Admin(Admin { number, name: name.into(), key, role })
}

fn person(id: u32, name: &str, unit: &str, flags: PersonFlags) -> Entry {
    Entry::Person(Person { id, name: name.into(), unit: unit.into(), flags })
}

fn device(id: u8, person: u32, gateways: &[u8], vouched: Option<Vouch>) -> Entry {
    Entry::Device(Device {
        id: id.into(),
        person,
        name: format!("device {id}"),
        key: key(170 + id),
        gateways: gateways.iter().map(|n| key(*n)).collect(),
        vouched,
    })
}

/// The batches of the example, in order, and by which admins each is signed beyond the first.
fn batches(organisation: &Identity) -> Vec<(Vec<Entry>, &'static [u16])> {
    let none = PersonFlags::default();
    let vouch = Vouch::new((0, &secret(170)), organisation, (0, &key(172)));
    vec![
        (
            vec![
                Entry::Founded { name: "acme".into() },
                admin(1, "Olga Owner", Some(Role::Owner)),
                admin(2, "Otto Owner", Some(Role::Owner)),
                admin(3, "Ida Issuer", Some(Role::Issuer)),
                admin(4, "Anna Announcer", Some(Role::Announcer)),
            ],
            &[],
        ),
        (vec![person(0, "Alice Example", "Finance", none), device(0, 0, &[100], None)], &[3]),
        (vec![Entry::Policy(Policy { approvals: 2, ..Policy::default() })], &[1]),
        (
            vec![
                person(1, "Бob Beispiel", "", PersonFlags::MARKED.with(PersonFlags::EXTERNAL)),
                device(1, 1, &[100, 101], None),
                device(2, 0, &[101], Some(vouch)),
            ],
            &[1, 3],
        ),
        (vec![Entry::Announce { text: "Fire drill\nat noon".into() }], &[4]),
        (vec![Entry::Remove(Removed::Device(2)), Entry::Remove(Removed::Person(1))], &[3]),
        (vec![admin(3, "Ida Issuer", None)], &[1, 2]),
    ]
}

/// The directory of the example as it was with each batch.
fn directories() -> anyhow::Result<Vec<Directory>> {
    let organisation = secret(ORGANISATION);
    let mut all: Vec<Directory> = Vec::new();
    for (at, (entries, by)) in (AT..).zip(batches(&organisation.identity())) {
        let next = match all.last() {
            None => Directory::found(&organisation, at, entries)?,
            Some(last) => {
                let mut draft = last.draft(at, entries)?;
                for (admin, n) in
                    by.iter().filter_map(|admin| Some((admin, u8::try_from(*admin).ok()?)))
                {
                    draft.sign(*admin, &secret(ORGANISATION + n));
                }
                let mut next = last.clone();
                next.extend(vec![draft.signed().clone()])?;
                next
            }
        };
        all.push(next);
    }
    Ok(all)
}

fn head(directory: &Directory, at: u64) -> Signed<DirectoryHead> {
    let service = ServiceAddress { identity: key(150).0, gateway: key(100).0 };
    directory.head(&secret(ORGANISATION), Some(service), at)
}

/// The head of the founded organisation, as the first that a document has.
pub(super) fn head_update() -> anyhow::Result<HeadUpdate> {
    let directories = directories()?;
    let founded = directories.first().context("a founded organisation")?;
    Ok(founded.update(head(founded, AT - 3_000), None)?)
}

pub(super) fn organisation() -> anyhow::Result<Value> {
    let directories = directories()?;
    let last = directories.last().context("a directory")?;
    let mut batches = Vec::new();
    for signed in last.since(0).context("all batches")? {
        batches.push(json!({
            "value": said(signed)?, "bytes": hex(signed.encode()), "hash": hex(signed.batch.hash()),
        }));
    }
    let mut heads = Vec::new();
    let mut before: Option<Signed<DirectoryHead>> = None;
    for directory in &directories {
        let head = head(directory, AT);
        let before_body = before.as_ref().map(Signed::<DirectoryHead>::body);
        let update = directory.update(head.clone(), before_body)?;
        update.continues(before_body)?;
        let token = directory.reader_token(directory.size()).context("a batch that ends here")?;
        heads.push(json!({
            "value": said(&update)?, "bytes": hex(update.encode()), "reader_token": hex(token),
        }));
        before = Some(head);
    }
    let code = Code::draw(&mut Seed::from_u64(1).stream("code of the example"));
    let gateways = vec![key(101), key(100)];
    let asks = secret(173);
    let request = Request::new(&code, last.organisation(), &asks, ("phone".into(), gateways));
    let invited = Invited::Person {
        name: "Carol".into(),
        unit: String::new(),
        flags: PersonFlags::default(),
    };
    let invitation = Invitation { key: code.public(), invited, expires: AT + VALID_S };
    request.entries(last, &invitation, AT)?;
    let size = last.size();
    let token = last.reader_token(size).context("a batch that ends here")?;
    let questions = [
        Question::Enrol(request.encode()),
        Question::Since { size, token },
        Question::SignIn(request.encode()),
    ];
    let address = "https://login.example/device".into();
    let sign_in = SignIn { address, code: "WDJB-MJHT".into(), expires_s: 600 };
    let refusals = [
        Refusal::NoInvitation,
        Refusal::Used,
        Refusal::Removed,
        Refusal::NoReader,
        Refusal::Unreadable,
        Refusal::Busy,
        Refusal::NoSignIn,
        Refusal::NotSignedIn,
        Refusal::NotAllowed,
    ];
    let answers = [Answer::Waiting, Answer::Batches(300), Answer::SignIn(sign_in)].into_iter();
    let answers = answers.chain(refusals.map(Answer::Refused));
    let question = |question: &Question| {
        anyhow::Ok(json!({ "value": said(question)?, "bytes": hex(question.encode()) }))
    };
    let answer = |answer: Answer| {
        anyhow::Ok(json!({ "value": said(&answer)?, "bytes": hex(answer.encode()) }))
    };
    Ok(json!({
        "organisation": hex(last.organisation().0),
        "batches": batches,
        "heads": heads,
        "enrolment": {
            "code": code.to_string(), "invitation": hex(code.public().0), "digits": request.digits(),
            "value": said(&request)?, "bytes": hex(request.encode()),
        },
        "questions": questions.iter().map(question).collect::<Result<Vec<_>, _>>()?,
        "answers": answers.map(answer).collect::<Result<Vec<_>, _>>()?,
    }))
}
