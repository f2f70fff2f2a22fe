//! The rules of the page, over real connections on loopback.

use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::{TcpStream, UnixListener};
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// A page, and a program's end of a client behind it.
struct World {
    dir: tempfile::TempDir,
    page: Page,
    /// Connections that the client has had.
    asked: Arc<AtomicUsize>,
}

/// What the client does with a line.
#[derive(Clone, Copy)]
enum Client {
    /// Says it again.
    Echoes,
    /// Says more than anybody reads.
    Floods,
}

impl World {
    async fn new(client: Client) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let listener = UnixListener::bind(dir.path().join("programs.sock")).unwrap();
        let asked = Arc::<AtomicUsize>::default();
        let counted = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(speak(stream, client));
            }
        });
        let page = Self::serve(&dir).await;
        Self { dir, page, asked }
    }

    async fn serve(dir: &tempfile::TempDir) -> Page {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Page::start(address, &dir.path().join("control.sock")).await.unwrap()
    }

    fn host(&self) -> String {
        self.page.address().to_string()
    }

    /// Status, head and body of the answer to a request with these headers.
    async fn http(&self, request: &str, headers: &[&str]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.page.address()).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\n{}\r\n\r\n", headers.join("\r\n"));
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            head.to_ascii_lowercase(),
            body.to_owned(),
        )
    }

    async fn status(&self, request: &str, headers: &[&str]) -> u16 {
        let host = format!("Host: {}", self.host());
        self.http(request, &[&[host.as_str()], headers].concat()).await.0
    }

    /// What `shoal-client open` is told.
    async fn asks(&self) -> Value {
        ask(self.dir.path()).await
    }

    /// A page that is open, by a code.
    async fn opens(&self) -> (Ws, String) {
        let code = self.asks().await["code"].as_str().unwrap().to_owned();
        let mut ws = Ws::connect(self).await;
        ws.says(&json!({ "code": code }).to_string()).await;
        let said = ws.hears_text().await;
        assert_eq!(said["open"], true);
        (ws, said["token"].as_str().unwrap().to_owned())
    }
}

async fn ask(dir: &Path) -> Value {
    let stream = tokio::net::UnixStream::connect(dir.join("page.sock")).await.unwrap();
    let mut line = String::new();
    timeout(SOON, BufReader::new(stream).read_line(&mut line)).await.unwrap().unwrap();
    serde_json::from_str(&line).unwrap()
}

async fn speak(stream: tokio::net::UnixStream, client: Client) {
    let (reads, mut writes) = stream.into_split();
    let mut lines = BufReader::new(reads).lines();
    let _ = writes.write_all(b"{\"protocol\":2}\n").await;
    while let Ok(Some(line)) = lines.next_line().await {
        let said = format!("{line}\n");
        let _ = writes.write_all(said.as_bytes()).await;
        while matches!(client, Client::Floods) && line.contains("flood") {
            if writes.write_all(&[b'x'; 4_096]).await.is_err() {
                return;
            }
        }
    }
}

/// The browser's end of a WebSocket.
struct Ws(BufReader<TcpStream>);

impl Ws {
    async fn connect(world: &World) -> Self {
        let mut stream = TcpStream::connect(world.page.address()).await.unwrap();
        let head = format!(
            "GET /words HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            world.host()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut reads = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(
                timeout(SOON, reads.read_line(&mut head)).await.unwrap().unwrap(),
                0,
                "{head}"
            );
        }
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Self(reads)
    }

    async fn says(&mut self, text: &str) {
        let mut frame = vec![0x81];
        match text.len() {
            length @ ..126 => frame.push(0x80 | length as u8),
            length @ ..0x1_0000 => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        // It may have been closed: what is heard says so.
        let _ = self.0.write_all(&frame).await;
    }

    /// Kind and bytes of the next message. None if the connection has ended.
    async fn hears(&mut self) -> Option<(u8, Vec<u8>)> {
        timeout(SOON, async {
            let kind = self.0.read_u8().await.ok()? & 15;
            let length = match self.0.read_u8().await.ok()? {
                126 => self.0.read_u16().await.ok()?.into(),
                127 => self.0.read_u64().await.ok()? as usize,
                short => usize::from(short),
            };
            let mut bytes = vec![0; length];
            self.0.read_exact(&mut bytes).await.ok()?;
            Some((kind, bytes))
        })
        .await
        .expect("the page answers in time")
    }

    async fn hears_text(&mut self) -> Value {
        let (kind, bytes) = self.hears().await.unwrap();
        assert_eq!(kind, 1, "{bytes:?}");
        serde_json::from_slice(&bytes).unwrap()
    }

    /// What the client says, up to a line's end.
    async fn hears_line(&mut self) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let (kind, bytes) = self.hears().await.unwrap();
            assert_eq!(kind, 2, "{bytes:?}");
            line.extend(bytes);
        }
        String::from_utf8(line).unwrap()
    }

    /// The code with which the connection is closed; none if it just ends.
    async fn is_closed(&mut self) -> Option<u16> {
        while let Some((kind, bytes)) = self.hears().await {
            if kind == 8 {
                return Some(u16::from_be_bytes([bytes[0], bytes[1]]));
            }
        }
        None
    }
}

#[tokio::test]
async fn a_page_answers_to_its_own_name_alone() {
    let world = World::new(Client::Echoes).await;
    let (own, port) = (world.host(), world.page.address().port());
    assert_eq!(world.http("GET /", &[&format!("Host: {own}")]).await.0, 200);
    for foreign in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        format!("127.0.0.1:{}", port ^ 1),
        "127.0.0.1".into(),
        format!("127.1:{port}"),
        String::new(),
    ] {
        for path in ["/", "/app.js", "/words"] {
            let (status, ..) =
                world.http(&format!("GET {path}"), &[&format!("Host: {foreign}")]).await;
            assert_eq!(status, 421, "{foreign:?} {path}");
        }
    }
    let own = format!("Host: {own}");
    assert_eq!(world.http("GET /", &[&own, "Host: evil.example"]).await.0, 421);
    assert_eq!(world.http("GET http://evil.example/", &[&own]).await.0, 421);
}

#[tokio::test]
async fn another_origin_is_refused() {
    let world = World::new(Client::Echoes).await;
    let own = format!("Origin: http://{}", world.host());
    assert_eq!(world.status("GET /app.js", &[]).await, 200);
    assert_eq!(world.status("GET /app.js", &[&own]).await, 200);
    let upgrade = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ];
    for foreign in ["http://127.0.0.1:1", "https://evil.example", "null", "file://"] {
        let origin = format!("Origin: {foreign}");
        assert_eq!(world.status("GET /app.js", &[&origin]).await, 403, "{foreign}");
        assert_eq!(
            world.status("GET /words", &[&upgrade[..], &[&origin]].concat()).await,
            403,
            "{foreign}"
        );
        assert_eq!(
            world.status("GET /app.js", &[&own, &origin]).await,
            403,
            "{foreign} beside ours"
        );
    }
}

#[tokio::test]
async fn another_site_and_another_port_are_refused_but_for_a_tab_that_goes_to_the_beginning() {
    let world = World::new(Client::Echoes).await;
    for site in ["same-origin", "none"] {
        assert_eq!(
            world.status("GET /app.js", &[&format!("Sec-Fetch-Site: {site}")]).await,
            200,
            "{site}"
        );
    }
    for site in ["same-site", "cross-site"] {
        let site = format!("Sec-Fetch-Site: {site}");
        let asks = async |path: &str, mode: &str, dest: &str| {
            let (mode, dest) =
                (format!("Sec-Fetch-Mode: {mode}"), format!("Sec-Fetch-Dest: {dest}"));
            world.status(path, &[&site, &mode, &dest]).await
        };
        assert_eq!(asks("GET /", "navigate", "document").await, 200, "{site}");
        assert_eq!(asks("GET /app.js", "navigate", "document").await, 403, "{site}");
        assert_eq!(asks("POST /", "navigate", "document").await, 403, "{site}");
        for dest in ["iframe", "object", "embed", "script", "empty"] {
            assert_eq!(asks("GET /", "navigate", dest).await, 403, "{site} {dest}");
            assert_eq!(asks("GET /", "no-cors", dest).await, 403, "{site} {dest}");
        }
        assert_eq!(world.status("GET /", &[&site]).await, 403, "{site}");
    }
}

#[tokio::test]
async fn every_answer_has_the_headers_and_none_has_a_cookie() {
    let world = World::new(Client::Echoes).await;
    let host = format!("Host: {}", world.host());
    for (request, headers, expected) in [
        ("GET /", vec![host.as_str()], 200),
        ("HEAD /app.js", vec![&host], 200),
        ("GET /nothing", vec![&host], 404),
        ("GET /../Cargo.toml", vec![&host], 404),
        ("POST /", vec![&host, "Content-Length: 0"], 405),
        ("GET /words", vec![&host], 400),
        ("GET /", vec!["Host: evil.example"], 421),
        ("GET /", vec![&host, "Sec-Fetch-Site: cross-site"], 403),
    ] {
        let (status, head, _) = world.http(request, &headers).await;
        assert_eq!(status, expected, "{request} {headers:?}");
        for wanted in [
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'\r\n",
            "cache-control: no-store",
            "cross-origin-opener-policy: same-origin",
            "cross-origin-resource-policy: same-origin",
            "referrer-policy: no-referrer",
            "permissions-policy: camera=(self)",
            "x-content-type-options: nosniff",
            "connection: close",
        ] {
            assert!(format!("{head}\r\n").contains(wanted), "{request} has no {wanted}: {head}");
        }
        assert!(!head.contains("set-cookie") && !head.contains("access-control"), "{head}");
    }
}

#[tokio::test]
async fn a_code_opens_one_page_and_its_token_opens_it_again() {
    let world = World::new(Client::Echoes).await;
    let said = world.asks().await;
    let code = said["code"].as_str().unwrap();
    let (mut first, token) = world.opens().await;
    assert_eq!(first.hears_line().await, "{\"protocol\":2}\n");
    for (refused, why) in [
        (json!({ "code": code }), "a code that a newer one replaced"),
        (json!({ "token": code }), "a code is no token"),
        (json!({ "code": token }), "a token is no code"),
        (json!({ "token": "" }), "nothing"),
        (json!({ "word": "events" }), "a request"),
    ] {
        let mut ws = Ws::connect(&world).await;
        ws.says(&refused.to_string()).await;
        assert_eq!(ws.is_closed().await, Some(4401), "{why}");
    }
    assert_eq!(world.asked.load(Ordering::SeqCst), 1, "nobody else reached the client");
    let mut again = Ws::connect(&world).await;
    again.says(&json!({ "token": token }).to_string()).await;
    assert_eq!(again.hears_text().await, json!({ "open": true }));
    assert_eq!(again.hears_line().await, "{\"protocol\":2}\n");
}

#[tokio::test]
async fn a_code_that_was_used_is_worth_nothing_to_whoever_saw_it() {
    let world = World::new(Client::Echoes).await;
    let code = world.asks().await["code"].as_str().unwrap().to_owned();
    let mut closes = Vec::new();
    for _ in 0..2 {
        let mut ws = Ws::connect(&world).await;
        ws.says(&json!({ "code": code }).to_string()).await;
        closes.push(match ws.hears().await {
            Some((8, _)) => "closed",
            Some((1, _)) => "open",
            _ => "else",
        });
    }
    assert_eq!(closes, ["open", "closed"]);
}

#[tokio::test]
async fn the_file_with_the_code_is_for_its_user_alone_and_goes_when_it_was_used() {
    let world = World::new(Client::Echoes).await;
    let said = world.asks().await;
    let (file, code) =
        (PathBuf::from(said["file"].as_str().unwrap()), said["code"].as_str().unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&world.dir.path().join("page.sock")), 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(&format!("url=http://{}/#{code}\"", world.host())), "{text}");
    let _open = world.opens().await;
    assert!(!file.exists(), "it is there though the code was used");
    world.asks().await;
    drop(world.page);
    assert!(!file.exists(), "it is there though the page is not");
}

#[tokio::test]
async fn tokens_end_with_the_daemon_and_connections_too() {
    let mut world = World::new(Client::Echoes).await;
    let (mut open, token) = world.opens().await;
    let before = world.page.address();
    drop(world.page);
    assert_eq!(open.is_closed().await, Some(4503));
    assert!(TcpStream::connect(before).await.is_err(), "it still listens");
    world.page = World::serve(&world.dir).await;
    let mut ws = Ws::connect(&world).await;
    ws.says(&json!({ "token": token }).to_string()).await;
    assert_eq!(ws.is_closed().await, Some(4401));
}

#[tokio::test]
async fn lines_go_both_ways_and_what_is_no_line_ends_the_connection() {
    let world = World::new(Client::Echoes).await;
    let (mut ws, _) = world.opens().await;
    ws.hears_line().await;
    let longest = format!("{{\"word\":\"{}\"}}", "ü".repeat((relay::LINE - 12) / 2));
    assert!(longest.len() < relay::LINE && longest.len() > relay::LINE - 4);
    for line in ["{}", "{\"text\":\"a\\nb\"}", &longest] {
        ws.says(line).await;
        assert_eq!(ws.hears_line().await, format!("{line}\n"));
    }
    ws.says("{}\n{}").await;
    assert_eq!(ws.is_closed().await, Some(1007));
    let (mut ws, _) = world.opens().await;
    ws.says(&"x".repeat(relay::LINE + 1)).await;
    assert!(matches!(ws.is_closed().await, Some(1007) | None));
    // Without the client there is no page, but a reason.
    let (mut ws, token) = world.opens().await;
    std::fs::remove_file(world.dir.path().join("programs.sock")).unwrap();
    ws.says("{}").await;
    let mut late = Ws::connect(&world).await;
    late.says(&json!({ "token": token }).to_string()).await;
    late.hears_text().await;
    assert_eq!(late.is_closed().await, Some(4503));
}

#[tokio::test]
async fn a_browser_that_does_not_read_loses_its_connection_and_nobody_elses() {
    let world = World::new(Client::Floods).await;
    let ((mut slow, _), (mut other, _)) = (world.opens().await, world.opens().await);
    other.hears_line().await;
    let began = Instant::now();
    slow.says("{\"word\":\"flood\"}").await;
    // It reads nothing, and the other one goes on.
    while began.elapsed() < Duration::from_secs(8) {
        other.says("{}").await;
        assert_eq!(other.hears_line().await, "{}\n");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // What was under way is still there; then it ends.
    let closed = timeout(SOON, slow.is_closed()).await.expect("it goes on, though it did not read");
    assert!(matches!(closed, Some(4408) | None));
    other.says("{}").await;
    assert_eq!(other.hears_line().await, "{}\n");
}

#[tokio::test]
async fn no_more_pages_are_open_than_there_is_room_for() {
    let world = World::new(Client::Echoes).await;
    let mut open = Vec::new();
    let (first, token) = world.opens().await;
    open.push(first);
    let by_token = async || {
        let mut ws = Ws::connect(&world).await;
        ws.says(&json!({ "token": token }).to_string()).await;
        ws
    };
    for _ in 1..PAGES {
        let mut ws = by_token().await;
        ws.hears_text().await;
        open.push(ws);
    }
    assert_eq!(by_token().await.is_closed().await, Some(4429));
    open.pop();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(by_token().await.hears_text().await, json!({ "open": true }));
}

#[tokio::test]
async fn whoever_shows_no_token_ends_soon_and_holds_up_no_page_that_is_open() {
    let world = World::new(Client::Echoes).await;
    let (mut page, _) = world.opens().await;
    page.hears_line().await;
    let began = Instant::now();
    let mut silent = Ws::connect(&world).await;
    let mut idle = Vec::new();
    for _ in 1..64 {
        idle.push(TcpStream::connect(world.page.address()).await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let host = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", world.host());
    let mut late = TcpStream::connect(world.page.address()).await.unwrap();
    late.write_all(host.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let early = timeout(Duration::from_secs(2), late.read_exact(&mut answer)).await;
    assert!(early.is_err(), "more connections than there should be");
    page.says("{}").await;
    assert_eq!(page.hears_line().await, "{}\n");
    assert_eq!(silent.is_closed().await, None);
    timeout(SOON, late.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let took = began.elapsed();
    assert!(
        took > shoal_host::limited::LIFETIME - Duration::from_secs(1) && took < SOON,
        "{took:?}"
    );
    // The page's own connection is older than they were.
    page.says("{}").await;
    assert_eq!(page.hears_line().await, "{}\n");
}

#[tokio::test]
async fn a_port_that_is_taken_leaves_a_client_without_a_page_and_open_says_why() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = crate::daemon::Config {
        runtime_dir: dir.path().into(),
        reachable: true,
        ..Default::default()
    };
    config.page.listen = taken.local_addr().unwrap().to_string();
    let served = of(&config).await.unwrap();
    assert!(matches!(served, Some(Served::Reason { .. })));
    let asked = config.clone();
    let refused = tokio::task::spawn_blocking(move || open::ask(&asked).err().unwrap().to_string());
    let refused = refused.await.unwrap();
    assert!(
        refused.contains("page.listen") && refused.contains("another program uses it"),
        "{refused}"
    );
    drop((served, taken));
    let served = of(&config).await.unwrap();
    assert!(matches!(served, Some(Served::Page { .. })));
    let asked = config.clone();
    let way = tokio::task::spawn_blocking(move || open::ask(&asked).ok().unwrap()).await.unwrap();
    assert_eq!((way.address, way.code.len()), (format!("http://{}/", config.page.listen), 43));
    assert!(way.file.exists());
    drop(served);
    assert!(matches!(open::ask(&config), Err(open::OpenError::NotRunning(_))));
    config.reachable = false;
    assert!(of(&config).await.unwrap().is_none());
    assert!(matches!(open::ask(&config), Err(open::OpenError::Unreachable)));
    config.page.listen.clear();
    assert!(matches!(open::ask(&config), Err(open::OpenError::Off)));
}
