//! What the engine is told, and as of when.

use std::sync::atomic::{AtomicU64, Ordering};

use shoal_topology::authority::SessionId;
use shoal_topology::{Epoch, Network, Parameters};

use super::*;

fn secret(n: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[n + 1; 32])
}

fn engine(n: u8) -> Authority {
    let authorities = (0..4).map(|n| secret(n).identity()).collect();
    let settings = Settings {
        network: Network { name: "test".into(), authorities, epoch_s: 10, trial: false },
        secret: secret(n),
        epoch_s: 10,
        parameters: vec![(Epoch(0), Parameters::default())],
        allowed: Vec::new(),
        allowed_exits: Vec::new(),
        seed: Seed::from_u64(n.into()),
    };
    Authority::new(settings, Box::new(Verdicts::new()), None)
}

/// The first authority, by a clock that stands.
fn chamber(dir: &Path, time: &Arc<AtomicU64>) -> (Chamber, mpsc::Sender<Vec<u8>>) {
    let authorities: Vec<Identity> = (0..4).map(|n| secret(n).identity()).collect();
    let endpoint =
        Endpoint::new(&shoal_daemon::link::Identity::from_seed(&[9; 32]), LinkSettings::default());
    let (council, _) = Council::start(&endpoint.unwrap().dialler(), [], &Shutdown::new());
    let (give, documents) = mpsc::channel(1);
    let time = time.clone();
    let chamber = Chamber {
        gauges: Gauges::new().unwrap(),
        engine: engine(0),
        council,
        waiting: Arc::new(Waiting::new(&authorities, [])),
        own: secret(0).identity(),
        about: Value::Null,
        allow: Allow::list_and_remember(Default::default()),
        asked: Asked::default(),
        authorities,
        config: Config::default().resolved(dir),
        clock: Arc::new(move || time.load(Ordering::Relaxed)),
        time: 0,
        publish: watch::channel(Vec::new()).0,
        seats: Vec::new(),
        listed: Listed::default(),
        status: Arc::default(),
        say: watch::channel(Readiness::Ready).0,
        documents,
    };
    (chamber, give)
}

#[test]
fn who_asks_and_is_on_no_list_is_said_once_and_not_at_everyones_will() {
    let names = |ns: &[u8]| ns.iter().map(u8::to_string).collect::<Vec<_>>();
    let mut asked = Asked::default();
    assert_eq!(asked.news(&[]), None);
    let said = asked.news(&names(&[1, 2])).unwrap();
    assert!(said.starts_with("2 asked") && said.contains("authority pending"), "{said}");
    assert_eq!(asked.news(&names(&[1, 2])), None);
    assert_eq!(asked.news(&names(&[1, 2, 3])), None, "it was said just now");
    asked.said = asked.said.and_then(|said| said.checked_sub(SAID));
    assert!(asked.news(&names(&[2, 3])).unwrap().starts_with("1 asked"));
}

#[tokio::test]
async fn a_vote_that_came_in_time_counts_however_busy_the_engine_was() {
    let dir = tempfile::tempdir().unwrap();
    let time = Arc::new(AtomicU64::new(0));
    let (mut chamber, _give) = chamber(dir.path(), &time);
    let schedule = *chamber.engine.schedule();
    let session = SessionId { epoch: Epoch(60_000), index: schedule.main() };
    let (start, decides) = (schedule.start(session), schedule.decides(session));
    for at in [start - 1, start] {
        time.store(at, Ordering::Relaxed);
        chamber.wake().await;
    }
    for n in 1..4 {
        let mut other = engine(n);
        other.handle(start - 1, Input::Wake);
        other.handle(start, Input::Wake);
        let (from, to_us) = (secret(n).identity(), secret(0).identity());
        while let Some(output) = other.poll_output() {
            if let Output::Send { to, bytes } = output
                && to == to_us
            {
                let message = ToAuthority::Peer(bytes);
                assert!(chamber.waiting.put(start + 100, from, 1_000, message).await);
            }
        }
    }
    // Only now does the engine have time for them.
    time.store(decides + 1_000, Ordering::Relaxed);
    chamber.wake().await;
    let status = chamber.engine.status();
    assert!(status.uncounted.is_empty(), "{:?}", status.uncounted);
    assert!(status.faults.is_empty(), "{:?}", status.faults);
}

#[tokio::test]
async fn a_message_that_had_to_wait_for_room_moves_no_time_back() {
    let dir = tempfile::tempdir().unwrap();
    let time = Arc::new(AtomicU64::new(700_000_000));
    let (mut chamber, _give) = chamber(dir.path(), &time);
    chamber.wake().await;
    let message = ToAuthority::Peer(vec![1]);
    assert!(chamber.waiting.put(600_000_000, secret(1).identity(), 1, message).await);
    assert!(chamber.turn().await);
    assert_eq!(chamber.time, 700_000_000);
    assert!(!chamber.turn().await);
}
