use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use shoal_organisation::Directory;
use shoal_people::Published;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::*;
use crate::daemon::membership::tests::{Client, acme, add, device, person, secret};

/// Seconds after which nothing that a test waits for comes any more.
const LIMIT: Duration = Duration::from_secs(60);
const ALICE: u8 = 51;
const BOB: u8 = 50;

/// A program at the socket.
struct Program(Lines<BufReader<OwnedReadHalf>>, OwnedWriteHalf);

impl Program {
    async fn connect(control: &Path) -> Self {
        let stream = UnixStream::connect(socket::path(control)).await.unwrap();
        let (reads, writes) = stream.into_split();
        let mut program = Self(BufReader::new(reads).lines(), writes);
        assert_eq!(program.line().await["protocol"], 3);
        program
    }

    async fn line(&mut self) -> Value {
        let line = tokio::time::timeout(LIMIT, self.0.next_line()).await.expect("no line in time");
        serde_json::from_str(&line.unwrap().expect("a line")).unwrap()
    }

    async fn say(&mut self, line: &str) {
        self.1.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// The answer to what can be done.
    async fn ask(&mut self, line: Value) -> Value {
        self.say(&line.to_string()).await;
        let answer = self.line().await;
        assert_eq!(answer["error"], Value::Null, "{line}");
        answer
    }

    /// Why something cannot be done.
    async fn refusal(&mut self, line: Value) -> String {
        self.say(&line.to_string()).await;
        self.line().await["error"].as_str().unwrap_or_default().to_owned()
    }

    /// Listens from now on to all that happens. What waited.
    async fn listen(&mut self) -> Vec<Value> {
        self.say(r#"{"id":7,"word":"events"}"#).await;
        let mut waited = Vec::new();
        loop {
            let line = self.line().await;
            if line["end"] == true {
                return waited;
            }
            waited.push(line);
        }
    }

    /// The next event of this kind.
    async fn event(&mut self, event: &str) -> Value {
        loop {
            let line = self.line().await;
            if line["event"] == event {
                return line;
            }
        }
    }

    /// Until a message is in this state.
    async fn state(&mut self, message: &Value, state: &str) {
        loop {
            let event = self.event("state").await;
            if event["message"] == *message && event["state"] == state {
                return;
            }
        }
    }
}

/// A member's messages, without the client below them.
struct End {
    orders: Orders,
    control: PathBuf,
    client: Client,
    _socket: shoal_host::control::Socket,
}

/// Both sides of the net below: where letters go in, and who has which address.
struct Net {
    ends: Vec<(u8, Orders)>,
    organisation: Directory,
    /// Whose sessions vouched for which letters, and whose device had made them.
    vouched: Vec<(u8, Handle, u32)>,
}

/// Bob and Alice.
fn organisation() -> Directory {
    let mut organisation = acme();
    add(&mut organisation, vec![person(1, "Alice"), device(1, 1, ALICE)]);
    organisation
}

impl End {
    async fn start(
        organisation: &Directory,
        key: u8,
        dir: tempfile::TempDir,
    ) -> (Self, mpsc::Receiver<ToEngine>) {
        let (orders, received) = crate::daemon::mail::orders();
        let events = crate::daemon::events::events();
        let client = Client::at(dir, organisation, key, events.clone());
        client.join(organisation);
        let data_dir = client.dir.path().join("data");
        let mail = loop {
            // As in each run of a program, another one.
            let (membership, seed) =
                (client.membership.clone(), Seed::new(*shoal_host::secret::fresh().unwrap()));
            let own = Own {
                data_dir: &data_dir,
                membership,
                settings: Settings::default(),
                events: events.clone(),
                seed,
            };
            // The thread of the program before may have the file for a moment yet.
            match History::open(&data_dir.join("people")) {
                Ok(history) => {
                    drop(history);
                    break start(own, (orders.clone(), received)).unwrap();
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let control = client.dir.path().join("run/control.sock");
        let words = socket::Words { orders: orders.clone(), membership: client.membership.clone() };
        let _socket = socket::serve(&control, words).await.unwrap();
        orders.send(Order::Keys(vec![keys(key)])).await.unwrap();
        orders.send(Order::Linked(true)).await.unwrap();
        (Self { orders, control, client, _socket }, mail.to_engine)
    }

    /// The program ends. Its directory stays.
    fn end(self) -> tempfile::TempDir {
        self.client.dir
    }
}

fn keys(of: u8) -> PeriodKeys {
    PeriodKeys::new(&[of; 32], 1_000)
}

impl Net {
    fn orders(&self, key: u8) -> Option<&Orders> {
        self.ends.iter().find(|(of, _)| *of == key).map(|(_, orders)| orders)
    }

    fn key_of(&self, address: &ServiceAddress) -> u8 {
        let is = |key: &u8| secret(*key).identity().0 == address.identity;
        [ALICE, BOB].into_iter().find(is).unwrap()
    }

    fn descriptor(&self, address: ServiceAddress) -> ClientDescriptor {
        let key = self.key_of(&address);
        let own = secret(key).identity();
        let device = self.organisation.device_of_key(&own).unwrap().device.id;
        let (keys, size) = (keys(key).public().clone(), self.organisation.size());
        let body =
            shoal_topology::testing::TestClient::new([key; 32], &[Identity(address.gateway)]);
        let attached = Published { keys, device, size }.encode();
        ClientDescriptor { not_before: 1_000, attached, ..body.body }
    }
}

/// Carries what an end has for its engine, as long as the end runs; letters to whoever is not there are lost.
fn carry(net: Arc<std::sync::Mutex<Net>>, from: u8, mut to_engine: mpsc::Receiver<ToEngine>) {
    tokio::spawn(async move {
        while let Some(wanted) = to_engine.recv().await {
            let (mut own, mut others) = (Vec::new(), Vec::new());
            match wanted {
                ToEngine::Vouch(letter, by) => {
                    net.lock().unwrap().vouched.push((from, letter, by));
                }
                ToEngine::Seek(address) => {
                    let found = net.lock().unwrap().descriptor(address);
                    own.push(Order::Described(address, Ok(Box::new(found))));
                }
                ToEngine::Post { letter, to, message } => {
                    own.extend([
                        Order::Posted(letter, LetterId(letter.0)),
                        Order::Left(LetterId(letter.0)),
                    ]);
                    let key = net.lock().unwrap().key_of(&to);
                    others.push((key, Order::Received(Handle(letter.0), message)));
                }
            }
            others.extend(own.into_iter().map(|order| (from, order)));
            for (key, order) in others {
                let orders = net.lock().unwrap().orders(key).cloned();
                if let Some(orders) = orders {
                    let _ = orders.send(order).await;
                }
            }
        }
    });
}

/// Alice and Bob, connected.
async fn both() -> (Arc<std::sync::Mutex<Net>>, End, End) {
    let organisation = organisation();
    let new = || tempfile::tempdir().unwrap();
    let (alice, of_alice) = End::start(&organisation, ALICE, new()).await;
    let (bob, of_bob) = End::start(&organisation, BOB, new()).await;
    let ends = vec![(ALICE, alice.orders.clone()), (BOB, bob.orders.clone())];
    let net = Arc::new(std::sync::Mutex::new(Net { ends, organisation, vouched: Vec::new() }));
    carry(net.clone(), ALICE, of_alice);
    carry(net.clone(), BOB, of_bob);
    (net, alice, bob)
}

#[tokio::test]
async fn a_group_is_founded_written_to_changed_and_left() {
    let (_net, alice, bob) = both().await;
    let mut asks = Program::connect(&alice.control).await;
    let mut of_alice = Program::connect(&alice.control).await;
    let mut asks_bob = Program::connect(&bob.control).await;
    let mut of_bob = Program::connect(&bob.control).await;
    of_alice.listen().await;
    of_bob.listen().await;
    let founded = json!({ "word": "found", "name": "Finance", "people": ["bob"] });
    let group = asks.ask(founded).await["group"].clone();
    assert_eq!(of_alice.event("group").await["group"], group);
    assert_eq!(of_bob.event("done").await["done"]["act"], "founded");
    let sent = json!({ "word": "send", "group": "Finance", "text": "To all" });
    let sent = asks.ask(sent).await;
    let came = of_bob.event("received").await;
    let expected = (&group, &json!("Finance"), &json!("Alice"), &json!("To all"));
    assert_eq!((&came["group"], &came["group_name"], &came["name"], &came["text"]), expected);
    asks_bob.ask(json!({ "word": "send", "group": group, "text": "I see" })).await;
    assert_eq!(of_alice.event("received").await["text"], "I see");
    let reached = of_alice.event("reached").await;
    assert_eq!((&reached["message"], &reached["reached"]), (&sent["message"], &json!(1)));
    // It stands in a conversation of its own.
    let all = asks_bob.ask(json!({ "word": "conversations" })).await;
    let conversation = &all["conversations"][0];
    assert_eq!((&conversation["group"], &conversation["unread"]), (&group, &json!(1)));
    let read = json!({ "word": "read", "group": group, "up_to": came["number"] });
    asks_bob.ask(read).await;
    let all = asks_bob.ask(json!({ "word": "messages", "group": "Finance" })).await;
    let messages = all["messages"].as_array().unwrap();
    let mut texts: Vec<&str> = messages.iter().filter_map(|m| m["text"].as_str()).collect();
    texts.sort_unstable();
    assert_eq!((messages.len(), texts), (3, vec!["I see", "To all"]));
    assert!(messages.iter().filter(|m| m["own"] == false).all(|m| m["read"] == true));
    // Who is no admin is told so; what was done cannot be taken back as a message is.
    let refused = json!({ "word": "group", "group": "Finance", "rename": "Books" });
    assert!(asks_bob.refusal(refused).await.contains("only an admin"));
    let notice = asks.ask(json!({ "word": "messages", "group": "Finance" })).await;
    let notice = &notice["messages"][0]["number"];
    let refused = json!({ "word": "delete", "number": notice, "for_all": true });
    assert!(asks.refusal(refused).await.contains("stays as it is"));
    for (request, why) in [
        (json!({ "word": "send", "group": "Sales", "text": "x" }), "no group"),
        (json!({ "word": "group", "group": "Finance", "add": "bob" }), "a list of names"),
        (json!({ "word": "group", "group": "Finance", "add": ["bob", "bob"] }), "named twice"),
        (json!({ "word": "found", "name": "a\u{7}", "people": [] }), "control characters"),
    ] {
        let said = asks.refusal(request).await;
        assert!(said.contains(why), "{said}");
    }
    asks.ask(json!({ "word": "group", "group": "Finance", "leave": true })).await;
    let done = loop {
        let done = of_bob.event("done").await["done"].clone();
        if done["act"] != "founded" {
            break done;
        }
    };
    assert_eq!(done, json!({ "act": "removed", "people": ["Alice"] }));
    let refused = json!({ "word": "send", "group": "Finance", "text": "x" });
    assert!(asks.refusal(refused).await.contains("do not belong"));
    let left = asks.ask(json!({ "word": "group", "group": "Finance" })).await;
    assert_eq!((&left["member"], &left["name"]), (&json!(false), &json!("Finance")));
}

#[tokio::test]
async fn two_members_write_read_find_verify_and_delete() {
    let (net, alice, bob) = both().await;
    let mut asks = Program::connect(&alice.control).await;
    let mut of_alice = Program::connect(&alice.control).await;
    let mut of_bob = Program::connect(&bob.control).await;
    of_alice.listen().await;
    of_bob.listen().await;
    let sent =
        asks.ask(json!({ "id": "a", "word": "send", "name": "bob", "text": "Hello Bob" })).await;
    assert_eq!(sent["id"], "a", "{sent}");
    let event = of_alice.event("sent").await;
    assert_eq!(
        (&event["id"], &event["message"], &event["own"]),
        (&json!(7), &sent["message"], &json!(true))
    );
    of_alice.state(&sent["message"], "left").await;
    let came = of_bob.event("received").await;
    assert_eq!(
        (&came["name"], &came["text"], &came["message"]),
        (&json!("Alice"), &json!("Hello Bob"), &sent["message"])
    );
    // The acknowledgement rides on the answer.
    let mut asks_bob = Program::connect(&bob.control).await;
    let answer = asks_bob
        .ask(json!({ "word": "send", "person": came["person"], "text": "Hello Alice" }))
        .await;
    let back = of_alice.event("received").await;
    of_alice.state(&sent["message"], "delivered").await;
    assert_eq!((&back["text"], &back["name"]), (&json!("Hello Alice"), &json!("Bob Beispiel")));

    let all = asks.ask(json!({ "word": "conversations" })).await;
    let conversation = &all["conversations"][0];
    assert_eq!(
        (&conversation["unread"], &conversation["last"]["text"]),
        (&json!(1), &json!("Hello Alice"))
    );
    assert_eq!(
        asks.ask(json!({ "word": "read", "name": "bob", "up_to": back["number"] })).await["error"],
        Value::Null
    );
    assert_eq!(of_alice.event("changed").await["number"], back["number"]);
    assert_eq!(asks.ask(json!({ "word": "conversations" })).await["conversations"][0]["unread"], 0);
    let messages = asks.ask(json!({ "word": "messages", "name": "bob" })).await;
    let texts: Vec<&str> = messages["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["Hello Bob", "Hello Alice"]);
    assert_eq!(messages["messages"][0]["state"], "delivered");
    let before = asks
        .ask(json!({ "word": "messages", "name": "bob", "before": back["number"], "last": 1 }))
        .await;
    assert_eq!(before["messages"][0]["text"], "Hello Bob");
    let one = asks.ask(json!({ "word": "messages", "number": back["number"] })).await;
    assert_eq!(one["messages"][0]["text"], "Hello Alice");
    assert_eq!(asks.ask(json!({ "word": "messages", "number": 999 })).await["messages"], json!([]));
    let found = asks.ask(json!({ "word": "search", "text": "hello a" })).await;
    assert_eq!(found["messages"][0]["message"], answer["message"]);

    let mine = asks.ask(json!({ "word": "verify", "name": "bob" })).await;
    let theirs = asks_bob.ask(json!({ "word": "verify", "name": "alice", "same": true })).await;
    assert_eq!(mine["digits"], theirs["digits"]);
    assert_eq!(mine["digits"].as_str().unwrap().len(), 35);
    assert_eq!((&mine["verified"], &theirs["verified"]), (&json!(false), &json!(true)));

    // A packet of nobody's.
    alice.orders.send(Order::Received(Handle(99), vec![7; 600])).await.unwrap();
    let status = asks.ask(json!({ "word": "status" })).await;
    assert_eq!(
        (&status["trouble"], &status["dropped"]["unreadable"]),
        (&Value::Null, &json!(1)),
        "{status}"
    );
    // Whoever hides arrivals knows whose the letters were, and that the last one is nobody's.
    let vouched = net.lock().unwrap().vouched.clone();
    // Alice is person 1, and Bob 0.
    for (reader, writer) in [(ALICE, 0), (BOB, 1)] {
        let of_reader: Vec<_> = vouched.iter().filter(|(of, ..)| *of == reader).collect();
        assert!(
            !of_reader.is_empty() && of_reader.iter().all(|(.., by)| *by == writer),
            "{vouched:?}"
        );
    }
    assert!(!vouched.iter().any(|(_, letter, _)| *letter == Handle(99)), "{vouched:?}");
    asks.ask(json!({ "word": "delete", "number": back["number"] })).await;
    assert_eq!(of_alice.event("changed").await["number"], back["number"]);
    let messages = asks.ask(json!({ "word": "messages", "name": "bob" })).await;
    assert_eq!(messages["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_written_is_edited_and_taken_back_at_both_ends_by_its_writer_alone() {
    let (_net, alice, bob) = both().await;
    let mut asks = Program::connect(&alice.control).await;
    let mut asks_bob = Program::connect(&bob.control).await;
    let mut of_bob = Program::connect(&bob.control).await;
    of_bob.listen().await;
    let sent = asks.ask(json!({ "word": "send", "name": "bob", "text": "First words" })).await;
    let came = of_bob.event("received").await;
    let edit = json!({ "word": "edit", "number": sent["number"], "text": "Hello" });
    asks.ask(edit.clone()).await;
    // At once at the writer's, and then at the reader's.
    let own = asks.ask(json!({ "word": "messages", "number": sent["number"] })).await;
    let own = &own["messages"][0];
    assert_eq!((&own["text"], &own["edited"]), (&json!("Hello"), &json!(true)));
    assert_eq!(of_bob.event("changed").await["number"], came["number"]);
    let theirs = json!({ "word": "messages", "number": came["number"] });
    let read = asks_bob.ask(theirs.clone()).await;
    let read = &read["messages"][0];
    assert_eq!((&read["text"], &read["edited"]), (&json!("Hello"), &json!(true)));
    assert_eq!(read["message"], sent["message"]);
    // Nobody else changes it.
    let other = json!({ "word": "edit", "number": came["number"], "text": "Goodbye" });
    assert!(asks_bob.refusal(other).await.contains("somebody else"));
    let all = json!({ "word": "delete", "number": came["number"], "for_all": true });
    assert!(asks_bob.refusal(all).await.contains("somebody else"));
    // A search finds what stands there now.
    let found = asks_bob.ask(json!({ "word": "search", "text": "first words" })).await;
    assert_eq!(found["messages"], json!([]));
    let all = json!({ "word": "delete", "number": sent["number"], "for_all": true });
    asks.ask(all.clone()).await;
    assert_eq!(of_bob.event("changed").await["number"], came["number"]);
    assert_eq!(asks_bob.ask(theirs).await["messages"], json!([]));
    assert!(asks.refusal(all).await.contains("no message"));
    assert!(asks.refusal(edit).await.contains("no message"));
}

#[tokio::test]
async fn what_was_written_and_what_came_outlive_the_program() {
    let (net, alice, bob) = both().await;
    let mut asks = Program::connect(&alice.control).await;
    let mut of_bob = Program::connect(&bob.control).await;
    of_bob.listen().await;
    asks.ask(json!({ "word": "send", "name": "bob", "text": "one" })).await;
    assert_eq!(of_bob.event("received").await["text"], "one");
    // Bob's program ends before anybody has taken it; what is written meanwhile is lost below.
    drop(of_bob);
    net.lock().unwrap().ends.retain(|(key, _)| *key != BOB);
    let dir = bob.end();
    asks.ask(json!({ "word": "send", "name": "bob", "text": "two" })).await;
    let organisation = organisation();
    let (bob, of_bob) = End::start(&organisation, BOB, dir).await;
    net.lock().unwrap().ends.push((BOB, bob.orders.clone()));
    carry(net.clone(), BOB, of_bob);
    let mut again = Program::connect(&bob.control).await;
    let waited = again.listen().await.remove(0);
    assert_eq!(waited["text"], "one");
    // Alice's program ends, too, with a message on the disk that nobody has acknowledged.
    drop(asks);
    net.lock().unwrap().ends.retain(|(key, _)| *key != ALICE);
    let (alice, of_alice) = End::start(&organisation, ALICE, alice.end()).await;
    net.lock().unwrap().ends.push((ALICE, alice.orders.clone()));
    carry(net.clone(), ALICE, of_alice);
    let mut asks = Program::connect(&alice.control).await;
    asks.ask(json!({ "word": "send", "name": "bob", "text": "three" })).await;
    assert_eq!(again.event("received").await["text"], "three");
    let shown = asks.ask(json!({ "word": "messages", "name": "bob" })).await;
    let states: Vec<_> = shown["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["text"].as_str().unwrap(), m["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states.iter().map(|(text, _)| *text).collect::<Vec<_>>(), ["one", "two", "three"]);
    assert_eq!(states[1].1, "left", "{states:?}");
    // What was taken is not told again.
    let taken = again.ask(json!({ "id": 1, "word": "taken", "up_to": waited["number"] })).await;
    assert_eq!(taken["id"], 1);
    let mut new = Program::connect(&bob.control).await;
    new.say(r#"{"word":"events","new":true}"#).await;
    assert_eq!(new.line().await["end"], true, "nothing of what waits");
    let mut last = Program::connect(&bob.control).await;
    last.say(r#"{"word":"events","once":true}"#).await;
    assert_eq!(last.event("received").await["text"], "three");
    assert_eq!(last.line().await["end"], true);
}

#[tokio::test]
async fn a_message_with_a_time_of_its_own_goes_though_a_program_asks_again_and_again() {
    let (_net, alice, bob) = both().await;
    let mut asks = Program::connect(&alice.control).await;
    let mut of_bob = Program::connect(&bob.control).await;
    of_bob.listen().await;
    asks.ask(json!({ "word": "send", "name": "bob", "text": "gone", "expires_s": 1 })).await;
    let came = of_bob.event("received").await;
    let mut reads = Program::connect(&bob.control).await;
    let all = json!({ "word": "messages", "name": "alice" });
    assert_eq!(reads.ask(all.clone()).await["messages"][0]["text"], "gone");
    reads.ask(json!({ "word": "read", "name": "alice", "up_to": came["number"] })).await;
    let ends = tokio::time::Instant::now() + LIMIT;
    for (program, all) in
        [(&mut reads, all), (&mut asks, json!({ "word": "messages", "name": "bob" }))]
    {
        while !program.ask(all.clone()).await["messages"].as_array().unwrap().is_empty() {
            assert!(tokio::time::Instant::now() < ends, "it stays");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn no_word_and_no_name_lies_on_the_disk_in_clear() {
    let (_net, alice, bob) = both().await;
    let mut asks = Program::connect(&alice.control).await;
    let mut of_bob = Program::connect(&bob.control).await;
    of_bob.listen().await;
    let word = "a-word-that-nobody-else-writes";
    asks.ask(json!({ "word": "send", "name": "bob", "text": word })).await;
    of_bob.event("received").await;
    for (end, other) in [(&alice, BOB), (&bob, ALICE)] {
        let mut files = 0;
        for entry in std::fs::read_dir(end.client.dir.path().join("data/people")).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let has = |wanted: &[u8]| bytes.windows(wanted.len()).any(|part| part == wanted);
            assert!(!has(word.as_bytes()) && !has(b"Alice") && !has(b"Bob"));
            assert!(!has(&secret(other).identity().0), "the key of the other one");
            files += 1;
        }
        assert_eq!(files, 3, "messages, their keys, and the key to both");
    }
}

#[tokio::test]
async fn what_a_program_says_wrong_is_answered_and_harms_nobody() {
    let (_net, alice, _bob) = both().await;
    let mut program = Program::connect(&alice.control).await;
    let long = "x".repeat(20_000);
    for (said, why) in [
        ("nonsense".to_owned(), "JSON"),
        ("[1]".to_owned(), "object"),
        ("{}".to_owned(), "no word"),
        (r#"{"word":"sing"}"#.to_owned(), "sing"),
        (r#"{"word":"send","text":"x"}"#.to_owned(), "\"name\""),
        (r#"{"word":"send","name":"bob"}"#.to_owned(), "\"text\""),
        (r#"{"word":"send","name":"carol","text":"x"}"#.to_owned(), "nobody"),
        (r#"{"word":"send","name":"alice","text":"x"}"#.to_owned(), "this is you"),
        (r#"{"word":"send","person":77,"text":"x"}"#.to_owned(), "no device"),
        (r#"{"word":"send","person":-1,"text":"x"}"#.to_owned(), "number"),
        (r#"{"word":"send","person":99999999999,"text":"x"}"#.to_owned(), "no person"),
        (
            r#"{"word":"send","name":"bob","text":"x","expires_s":99999999999}"#.to_owned(),
            "too long",
        ),
        (format!(r#"{{"word":"send","name":"bob","text":"{long}"}}"#), "at most"),
        (r#"{"word":"taken"}"#.to_owned(), "up_to"),
        (r#"{"word":"read","name":"bob"}"#.to_owned(), "up_to"),
        (r#"{"word":"delete","number":5}"#.to_owned(), "no message"),
        (r#"{"word":"edit","number":5}"#.to_owned(), "\"text\""),
        (r#"{"word":"edit","number":5,"text":"x"}"#.to_owned(), "no message"),
        (r#"{"word":"search","text":" "}"#.to_owned(), "1 to"),
        (r#"{"word":"verify","name":"alice"}"#.to_owned(), "this is you"),
    ] {
        program.say(&said).await;
        let answer = program.line().await;
        assert!(
            answer["error"].as_str().is_some_and(|error| error.contains(why)),
            "{said}: {answer}"
        );
    }
    program.say(&"y".repeat(100_000)).await;
    assert!(program.line().await["error"].as_str().unwrap().contains("bytes"));
    // Mode and place of the socket.
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(socket::path(&alice.control)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut other = Program::connect(&alice.control).await;
    assert!(
        other.ask(json!({ "word": "send", "name": "bob", "text": "x" })).await["number"].is_u64()
    );
}
