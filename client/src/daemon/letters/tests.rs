use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::*;

/// A program at the socket.
struct Program(Lines<BufReader<OwnedReadHalf>>, OwnedWriteHalf);

impl Program {
    async fn connect(control: &Path) -> Self {
        let stream = UnixStream::connect(socket::path(control)).await.unwrap();
        let (reads, writes) = stream.into_split();
        let mut program = Self(BufReader::new(reads).lines(), writes);
        assert_eq!(program.line().await["protocol"], 1);
        program
    }

    async fn line(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(20), self.0.next_line()).await;
        serde_json::from_str(&line.unwrap().unwrap().expect("a line")).unwrap()
    }

    async fn say(&mut self, line: &str) {
        self.1.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn ask(&mut self, line: &str) -> Value {
        self.say(line).await;
        self.line().await
    }
}

fn data(dir: &tempfile::TempDir) -> std::path::PathBuf {
    let data = dir.path().join("data");
    shoal_host::secret::private_directory(&data).unwrap();
    data
}

/// What programs ask of a client that belongs to no organisation.
fn words(dir: &tempfile::TempDir, orders: &Orders) -> socket::Words {
    let config = crate::daemon::Config { data_dir: data(dir), ..Default::default() };
    let shared = crate::daemon::reports().0;
    let membership = crate::daemon::membership::Membership::open(&config, shared, orders.clone());
    socket::Words { orders: orders.clone(), membership }
}

fn address() -> ServiceAddress {
    let point = |n| shoal_topology::SecretIdentity::from_bytes(&[n; 32]).identity().0;
    ServiceAddress { identity: point(1), gateway: point(2) }
}

#[tokio::test]
async fn programs_send_and_take_letters_and_are_told_what_became_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("run/control.sock");
    let Mail { orders, mut posts, .. } = start(&data(&dir), &Seed::from_u64(1)).unwrap();
    let _socket = socket::serve(&control, words(&dir, &orders)).await.unwrap();
    let (mut writer, mut listener) =
        (Program::connect(&control).await, Program::connect(&control).await);
    orders.send(Order::Received(b"waited".to_vec())).await.unwrap();
    listener.say(r#"{"id":7,"word":"events"}"#).await;
    let waited = listener.line().await;
    assert_eq!(
        (&waited["id"], &waited["event"], &waited["text"]),
        (&json!(7), &json!("received"), &json!("waited"))
    );

    let request =
        json!({ "id": "a", "word": "send", "to": address().to_string(), "text": "hello" });
    let answer = writer.ask(&request.to_string()).await;
    assert_eq!(answer["id"], "a");
    let number = answer["number"].as_u64().unwrap();
    let post = posts.recv().await.unwrap();
    assert!(post.number == number && post.to == address() && post.message == b"hello");
    // Nobody is reached, and then it leaves.
    orders.send(Order::Posted(number, LetterId(1))).await.unwrap();
    orders.send(Order::Returned(LetterId(1), NotReached::Unknown)).await.unwrap();
    let event = listener.line().await;
    assert_eq!((&event["event"], event["number"].as_u64()), (&json!("waits"), Some(number)));
    assert!(event["why"].as_str().unwrap().contains("week"), "{event}");
    orders.send(Order::Posted(number, LetterId(2))).await.unwrap();
    orders.send(Order::Left(LetterId(2))).await.unwrap();
    assert_eq!(listener.line().await["event"], "left");
    // Bytes that are no text, and what was taken is not told again.
    orders.send(Order::Received(vec![0xff, 0])).await.unwrap();
    let event = listener.line().await;
    assert_eq!(event["hex"], "ff00");
    let last = event["number"].as_u64().unwrap();
    assert_eq!(writer.ask(&format!(r#"{{"id":2,"word":"taken","up_to":{last}}}"#)).await["id"], 2);
    let end = writer.ask(r#"{"id":3,"word":"events","once":true}"#).await;
    assert_eq!(end["end"], true, "{end}");
}

#[tokio::test]
async fn what_a_program_says_wrong_is_answered_and_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("run/control.sock");
    let Mail { orders, posts: _posts, .. } = start(&data(&dir), &Seed::from_u64(1)).unwrap();
    let _socket = socket::serve(&control, words(&dir, &orders)).await.unwrap();
    let mut program = Program::connect(&control).await;
    let long = "x".repeat(LONGEST + 1);
    let to = address();
    for (said, why) in [
        ("nonsense".to_owned(), "JSON"),
        ("[1]".to_owned(), "object"),
        ("{}".to_owned(), "no word"),
        (r#"{"word":"sing"}"#.to_owned(), "sing"),
        (r#"{"word":"send","text":"x"}"#.to_owned(), "\"to\""),
        (r#"{"word":"send","to":"a.b","text":"x"}"#.to_owned(), "no address"),
        (format!(r#"{{"word":"send","to":"{to}","text":"{long}"}}"#), "at most"),
        (r#"{"word":"taken"}"#.to_owned(), "up_to"),
    ] {
        let answer = program.ask(&said).await;
        assert!(answer["error"].as_str().unwrap().contains(why), "{said}: {answer}");
    }
    program.say(&"y".repeat(100_000)).await;
    assert!(program.line().await["error"].as_str().unwrap().contains("bytes"));
    // Mode and place of the socket.
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(socket::path(&control)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut other = Program::connect(&control).await;
    let request = json!({ "word": "send", "to": to.to_string(), "text": "x".repeat(LONGEST) });
    assert!(other.ask(&request.to_string()).await["number"].is_u64());
}
