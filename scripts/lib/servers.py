"""What stands behind the exit in these checks: a web server with a WebSocket, an echo, a DNS server."""

import base64
import hashlib
import http.server
import socket
import socketserver
import struct
import threading
import time

MARK = "a page that only its reader should see"
ASSETS = 40
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def body(size, salt=b"shoal"):
    """`size` bytes that do not repeat, the same every time."""
    return hashlib.shake_128(salt).digest(size)


PAGE = f"""<!doctype html><title>assets</title><body><script>
let left = {ASSETS}, sizes = 0, echoed = "";
async function main() {{
  const one = n => new Promise((done, fail) => {{
    const image = new Image();
    image.onload = () => {{ sizes += image.naturalWidth; done(); }};
    image.onerror = fail;
    image.src = "/asset/" + n + ".svg";
    document.body.append(image);
  }});
  await Promise.all([...Array({ASSETS}).keys()].map(one));
  await new Promise((done, fail) => {{
    const ws = new WebSocket("ws://" + location.host + "/ws");
    ws.onopen = () => ws.send("through the mixnet");
    ws.onmessage = e => {{ echoed = e.data; ws.close(); done(); }};
    ws.onerror = () => fail("websocket");
  }});
  await fetch("/report", {{method: "POST", body: "loaded " + sizes + " " + echoed}});
}}
main().catch(e => fetch("/report", {{method: "POST", body: "failed " + e}}));
</script>"""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A browser keeps spare connections: their threads must not wait for ever. Longer than a slow download takes, which would
    # be cut off.
    timeout = 600

    def log_message(self, *_):
        pass

    def answer(self, data, kind="text/html; charset=utf-8", code=200):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        web = self.server.web
        web.hits += 1
        web.hosts.add(self.headers.get("Host", ""))
        if self.path == "/assets":
            self.answer(PAGE.encode())
        elif self.path.startswith("/asset/"):
            web.assets += 1
            n = 10 + int(self.path[7:].split(".")[0])
            svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{n}" height="{n}"><!--{"x" * 1500}--></svg>'
            self.answer(svg.encode(), "image/svg+xml")
        elif self.path.startswith("/bytes/"):
            self.answer(body(int(self.path[7:])), "application/octet-stream")
        elif self.path == "/ws" and "Sec-WebSocket-Key" in self.headers:
            self.websocket()
        else:
            self.answer(f"<!doctype html><title>{MARK}</title>{MARK}\n".encode())

    def do_POST(self):
        left, digest, kept = int(self.headers.get("Content-Length", 0)), hashlib.sha256(), b""
        while left:
            data = self.rfile.read(min(left, 1 << 16))
            if not data:
                return
            left -= len(data)
            digest.update(data)
            kept = (kept + data)[:4096]
        if self.path == "/report":
            self.server.web.reports.append(kept.decode(errors="replace"))
        self.answer(digest.hexdigest().encode(), "text/plain")

    def websocket(self):
        key = self.headers["Sec-WebSocket-Key"] + GUID
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.close_connection = True
        while True:
            head = self.rfile.read(2)
            if len(head) < 2:
                return
            kind, n = head[0] & 15, head[1] & 127
            if n == 126:
                (n,) = struct.unpack(">H", self.rfile.read(2))
            elif n == 127:
                (n,) = struct.unpack(">Q", self.rfile.read(8))
            mask = self.rfile.read(4)
            data = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(n)))
            if kind == 8:
                self.wfile.write(bytes([0x88, len(data)]) + data)
                return
            if kind in (1, 2) and len(data) < 126:
                self.server.web.websockets += 1
                self.wfile.write(bytes([0x80 | kind, len(data)]) + data)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        pass


class Web:
    def __init__(self):
        self.hits = self.assets = self.websockets = 0
        self.hosts, self.reports = set(), []
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.web = self
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Echo:
    def __init__(self):
        class Peer(socketserver.BaseRequestHandler):
            def handle(self):
                while True:
                    try:
                        data = self.request.recv(1 << 16)
                        if not data:
                            return
                        self.request.sendall(data)
                    except OSError:
                        return

        class Tcp(socketserver.ThreadingTCPServer):
            daemon_threads, request_queue_size = True, 256

        self.server = Tcp(("127.0.0.1", 0), Peer)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Dns:
    """Answers A and PTR for the names it is given. Every query is kept with its source."""

    def __init__(self, names, pointers):
        self.names, self.pointers = names, pointers
        self.queries = []  # (name, type, source port, owner)
        self.owner = lambda port: None
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                query, source = self.socket.recvfrom(4096)
                reply = self.answer(query, source)
            except OSError:
                time.sleep(0.01)
                continue
            except (IndexError, struct.error):
                continue
            if reply:
                self.socket.sendto(reply, source)

    def answer(self, query, source):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode(errors="replace").lower())
            at += 1 + query[at]
        question = query[12 : at + 5]
        (kind,) = struct.unpack(">H", query[at + 1 : at + 3])
        name = ".".join(labels)
        # Before the answer, so that the socket that asks is still there.
        self.queries.append((name, kind, source[1], self.owner(source[1])))
        if name.startswith("silent."):
            return None
        code, records = 0, b""
        if kind == 1 and name in self.names:
            ip = socket.inet_aton(self.names[name])
            records = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + ip
        elif kind == 12 and name in self.pointers:
            data = encode(self.pointers[name])
            records = b"\xc0\x0c" + struct.pack(">HHIH", 12, 1, 60, len(data)) + data
        elif name not in self.names and name not in self.pointers:
            code = 3
        head = query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, 1 if records else 0, 0, 0)
        return head + question + records


def encode(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def question(name, kind=1, number=0x5157):
    return struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + encode(name) + struct.pack(">HH", kind, 1)
