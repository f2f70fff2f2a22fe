//! Descriptors of others are asked for anew at instants that use does not move.

use super::*;
use crate::world::{Authority, GATEWAYS, START, identity};

const PERIOD: u64 = 600;

fn address(n: u8) -> ServiceAddress {
    ServiceAddress { identity: [n; 32], gateway: identity(GATEWAYS[2]).0 }
}

fn descriptor(n: u8, begins: u64) -> ClientDescriptor {
    ClientDescriptor {
        identity: Identity([n; 32]),
        key: *SecretKey::from_bytes([n; 32]).public().as_bytes(),
        inbox: Identity([n; 32]),
        gateways: vec![identity(GATEWAYS[2])],
        not_before: begins,
        not_after: begins + PERIOD + PERIOD / 4,
        attached: Vec::new(),
    }
}

/// The instants, in seconds, at which a client asks for each of five descriptors anew, if `uses` says who is used when.
fn asked(seed: u64, uses: impl Fn(u64, u8) -> bool) -> Vec<Vec<u64>> {
    let class = Parameters::default().class("web").cloned().unwrap();
    let key = (SecretKey::from_bytes([1; 32]), Identity([2; 32]));
    let base = (crate::tunnel::pair::base(), Time::ZERO);
    let seed = Seed::from_u64(seed);
    let mut client =
        Client::new(Arc::new(NullCodec), base, &seed, class, key, ClientSettings::default());
    let authority = Authority::new(100_000);
    let begins = 100_000 * START;
    let held = authority.sign(&authority.document(START));
    client.set_document(Time::ZERO, begins, held).unwrap();
    client.set_link(Time::ZERO, Some(identity(GATEWAYS[0])));
    let know = |client: &mut Client, now, n, begins| {
        let descriptor = descriptor(n, begins);
        let refresh = client.refresh_at(now, &descriptor);
        client.descriptors.insert(address(n), Cached { descriptor, refresh });
    };
    (0..5).for_each(|n| know(&mut client, Time::ZERO, n, begins));
    let mut asked = vec![Vec::new(); 5];
    for at in 0..4 * PERIOD {
        let now = Time::from_secs(at);
        for n in 0..5 {
            if uses(at, n) {
                let isolation = Isolation::new(Some((&at.to_be_bytes(), b"")));
                client.group(now, isolation, Target::Service(address(n)));
            }
        }
        client.handle_timeout(now);
        for n in 0..5 {
            if client.queries.remove(&address(n)).is_some() {
                asked[usize::from(n)].push(at);
                know(&mut client, now, n, begins + at / PERIOD * PERIOD);
            }
        }
    }
    asked
}

#[test]
fn a_known_descriptor_is_asked_for_once_a_period_at_a_random_instant_and_never_on_use() {
    let idle = asked(1, |_, _| false);
    for times in &idle {
        let periods: Vec<u64> = times.iter().map(|at| at / PERIOD).collect();
        assert_eq!(periods, [1, 2, 3], "{idle:?}");
        // After the next key is there and before the old one is gone.
        assert!(times.iter().all(|at| (37..=113).contains(&(at % PERIOD))), "{idle:?}");
    }
    let instants: std::collections::HashSet<u64> = idle.iter().flatten().copied().collect();
    assert!(instants.len() > 12, "{idle:?}");
    assert_eq!(asked(1, |at, n| n == 3 && at % 50 == 7), idle, "use moves nothing");
    assert!(asked(2, |_, _| false) != idle);
}
