//! How long a member takes to read a directory of 10,000 entries and to verify all of it, by how many entries were signed
//! together.
//!
//! ```text
//! cargo run --release -p shoal-organisation --example verify
//! ```

use std::io::Write as _;
use std::time::Instant;

use shoal_organisation::{Admin, Device, Directory, Entry, Error, Person, PersonFlags, Role};
use shoal_topology::{Context, Identity, SecretIdentity};

/// Entries: half of them people, half their devices.
const ENTRIES: u32 = 10_000;

fn secret(n: u32) -> SecretIdentity {
    let mut seed = [7; 32];
    let bytes = n.to_le_bytes();
    seed.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    SecretIdentity::from_bytes(&seed)
}

fn person_and_device(n: u32, key: Identity, gateway: Identity) -> [Entry; 2] {
    let (name, unit) = (format!("Person Number {n}"), "Department of Examples".to_owned());
    let person = Person { id: n, name, unit, flags: PersonFlags::default() };
    let (name, gateways) = ("laptop".to_owned(), vec![gateway]);
    let device = Device { id: n, person: n, name, key, gateways, vouched: None };
    [Entry::Person(person), Entry::Device(device)]
}

/// The bytes of a directory whose entries were signed so many at a time.
fn directory(keys: &[Identity], together: usize) -> Result<Vec<u8>, Error> {
    let (organisation, admin) = (secret(1_000_000), secret(1_000_001));
    let role = Some(Role::Owner);
    let owner = Admin { number: 1, name: "Olga Owner".into(), key: admin.identity(), role };
    let founded = vec![Entry::Founded { name: "acme".into() }, Entry::Admin(owner)];
    let mut directory = Directory::found(&organisation, 1, founded)?;
    let gateway = secret(1_000_002).identity();
    let entries: Vec<Entry> =
        (0..).zip(keys).flat_map(|(n, key)| person_and_device(n, *key, gateway)).collect();
    for some in entries.chunks(together) {
        let mut draft = directory.draft(1, some.to_vec())?;
        draft.sign(1, &admin);
        directory.extend(vec![draft.signed().clone()])?;
    }
    Ok(directory.encode())
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keys: Vec<Identity> = (0..ENTRIES / 2).map(|n| secret(n).identity()).collect();
    let mut out = std::io::stdout();
    let admin = secret(1_000_001);
    let signature = admin.sign(Context::Directory, b"one");
    let begun = Instant::now();
    for _ in 0..1_000 {
        admin.identity().verify(Context::Directory, b"one", &signature);
    }
    writeln!(out, "one signature alone: {:.1} us", begun.elapsed().as_secs_f64() * 1e3)?;
    // A draft looks at a copy of all people, so that single entries take long to enter; reading does not.
    for together in [1_000, 100, 10] {
        let bytes = directory(&keys, together)?;
        let mut times: Vec<f64> = Vec::new();
        for _ in 0..5 {
            let begun = Instant::now();
            Directory::decode(&bytes)?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        let median = times.get(2).copied().unwrap_or_default();
        writeln!(
            out,
            "{ENTRIES} entries, {together} signed together: {median:.0} ms, {} kB",
            bytes.len() / 1_000
        )?;
    }
    Ok(())
}
