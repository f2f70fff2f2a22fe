//! What the engine is told, and as of when.

use std::sync::atomic::{AtomicU64, Ordering};

use shoal_topology::consensus::SessionId;
use shoal_topology::{Epoch, Network, Parameters};

use super::*;

fn secret(n: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[n + 1; 32])
}

fn network() -> Network {
    let authorities = (0..4).map(|n| secret(n).identity()).collect();
    Network { name: "test".into(), authorities, epoch_s: 10, trial: false }
}

fn engine(n: u8) -> Authority {
    let settings = AuthoritySettings {
        network: network(),
        secret: secret(n),
        epoch_s: 10,
        parameters: vec![(Epoch(0), Parameters::default())],
        allowed: Vec::new(),
        allowed_exits: Vec::new(),
        allowed_organisations: Vec::new(),
        seed: Seed::from_u64(n.into()),
    };
    Authority::new(settings, Box::new(Reputation::new()), None)
}

/// The first authority, by a clock that stands.
fn chamber(dir: &Path, time: &Arc<AtomicU64>) -> (AuthorityDaemon, mpsc::Sender<Vec<u8>>) {
    let authorities: Vec<Identity> = (0..4).map(|n| secret(n).identity()).collect();
    let endpoint =
        Endpoint::new(&shoal_host::link::Identity::from_seed(&[9; 32]), LinkSettings::default());
    let (authority_links, _) =
        AuthorityLinks::start(&endpoint.unwrap().dialler(), [], &Shutdown::new());
    let (give, documents) = mpsc::channel(1);
    let time = time.clone();
    let chamber = AuthorityDaemon {
        gauges: Gauges::new().unwrap(),
        engine: engine(0),
        authority_links,
        waiting: Arc::new(Waiting::new(&authorities, [])),
        network: network(),
        of_network: Value::Null,
        asked: Asked::default(),
        authorities,
        reload: Reload::new(Config::default().resolved(dir), None, &Shutdown::new()),
        parameters: Vec::new(),
        allow: Allow::list_and_remember(HashSet::new()),
        clock: Arc::new(move || time.load(Ordering::Relaxed)),
        time: 0,
        publish: watch::channel(Vec::new()).0,
        authority_addresses: Vec::new(),
        listed: Listed::default(),
        status: Arc::default(),
        say: watch::channel(Readiness::Ready).0,
        documents,
        about: About::default(),
        process: Process::new("test", 10, [1; 32]),
        accept_errors: AcceptErrors::new(Arc::default()),
        unstored: None,
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
        other.handle(start - 1, AuthorityInput::Wake);
        other.handle(start, AuthorityInput::Wake);
        let (from, to_us) = (secret(n).identity(), secret(0).identity());
        while let Some(output) = other.poll_output() {
            if let AuthorityOutput::Send { to, bytes } = output
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
async fn a_state_that_cannot_be_stored_is_said_and_counted_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let time = Arc::new(AtomicU64::new(700_000_000));
    let (mut chamber, _give) = chamber(dir.path(), &time);
    let why = |chamber: &mut AuthorityDaemon| {
        chamber.report();
        chamber.status.lock().unwrap()["why_not_ready"].as_str().unwrap().to_owned()
    };
    chamber.stored(1, Some("no room".into()));
    assert!(why(&mut chamber).contains("no room"));
    assert_eq!(chamber.gauges.failures.get(), 1);
    chamber.stored(2, None);
    assert!(!why(&mut chamber).contains("no room"));
}

#[test]
fn evidence_that_cannot_be_read_ends_the_start_and_what_is_none_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("evidence");
    assert!(evidence(&path).is_ok());
    std::fs::write(&path, b"nonsense").unwrap();
    assert!(evidence(&path).is_ok());
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(evidence(&path), Err(SecretError::Io { .. })));
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
