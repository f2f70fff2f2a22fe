"""kill -9 of every program of a network at once, at random instants while it is busy, again and again.

Each time everything must start again with the keys that it had, refuse none of its state, and work. Every page is asked for
under a number of its own, once: no service may see a number twice.
"""

import collections
import hashlib
import http.server
import random
import signal
import threading
import time

import socks
from report import must, wait_until

# Log lines of a start that would say that something was lost or not believed.
LOSSES = ("is replaced", "cannot be used", "is not used", "unsound", "proven to lie", "contradict", "two documents", "ERROR")
ASKERS = 4


class Numbers(http.server.ThreadingHTTPServer):
    """Counts how often it was asked for each path."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port):
        super().__init__(("127.0.0.1", port), Answer)
        self.seen, self.lock = collections.Counter(), threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """Whoever asked was killed before the answer."""


class Answer(http.server.BaseHTTPRequestHandler):
    timeout = 60

    def do_GET(self):
        with self.server.lock:
            self.server.seen[self.path] += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a page that only its reader asked for")

    def log_message(self, *_):
        pass


class Busy:
    """Programs that ask for pages all the time, of the exit and of the service, and take no harm from failures."""

    def __init__(self, net, server, names):
        self.net, self.server, self.names = net, server, names
        self.stopped, self.asked, self.answered = threading.Event(), 0, 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.ask, args=(client, n), daemon=True)
                        for client in net.of("run") for n in range(ASKERS)]
        for thread in self.threads:
            thread.start()

    def page(self, client, host, port, user, timeout=30):
        with self.lock:
            self.asked += 1
            number = self.asked
        answer = socks.get(client.socks, host, port, f"/{self.names}/{number}", user, timeout)
        if b"only its reader" not in answer:
            raise EOFError(f"got {answer[:40]!r}")
        with self.lock:
            self.answered += 1

    def ask(self, client, n):
        targets = [("127.0.0.1", self.server.server_port), (self.net.address, 80)]
        while not self.stopped.is_set():
            try:
                self.page(client, *targets[n % 2], f"user {n}")
            except (OSError, EOFError):
                self.stopped.wait(0.2)

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(60)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_over(path, epoch_s):
    """Whether a key may be erased: the file of a mix key has the name of its epoch."""
    return path.parent.name == "keys" and path.stem.isdigit() and int(path.stem) < time.time() // epoch_s


def keys(net):
    """Digests of the files of keys, by path."""
    return {path: digest(path) for program in net.programs.values() for path in program.dir.rglob("*.key")}


def everything_is_killed(net, epoch_s, times, seed=1):
    rng = random.Random(seed)
    server = net.numbers
    busy = Busy(net, server, f"kills-{seed}")
    slowest = 0.0
    try:
        for kill in range(times):
            # Some kills fall into a start.
            time.sleep(rng.choice((rng.uniform(0, 2), rng.uniform(2, 15))))
            running = list(net.programs.values())
            rng.shuffle(running)
            for program in running:
                program.process.send_signal(signal.SIGKILL)
            for program in running:
                program.process.wait(20)
            before = keys(net)
            logs = {program.name: (program.dir / "log").stat().st_size for program in running}
            identities = {program.name: program.identity for program in running}
            rng.shuffle(running)
            began = time.monotonic()
            for program in running:
                program.start()
            if rng.random() < 0.2:
                # The next kill finds the network as it starts.
                continue
            net.wait_ready()
            for client in net.of("run"):
                for host, port in (("127.0.0.1", server.server_port), (net.address, 80)):
                    wait_page(busy, client, host, port)
            slowest = max(slowest, time.monotonic() - began)
            for path, content in before.items():
                try:
                    must(digest(path) == content, f"kill {kill + 1}: {path} is another")
                except FileNotFoundError:
                    must(is_over(path, epoch_s), f"kill {kill + 1}: {path} is gone")
            for program in running:
                must(net.identity(program) == identities[program.name], f"kill {kill + 1}: {program.name} has another identity")
                said = (program.dir / "log").read_bytes()[logs[program.name]:].decode(errors="replace")
                lost = [line for line in said.splitlines() if any(word in line for word in LOSSES)]
                must(not lost, f"kill {kill + 1}: {program.name} says {lost[:2]}")
            liars = net.programs["authority-1"].status()["votes"]["liars"]
            must(not liars, f"kill {kill + 1}: {liars} pass for liars")
    finally:
        busy.stop()
    twice = [path for path, seen in server.seen.items() if seen > 1 and path.startswith(f"/{busy.names}/")]
    must(not twice, f"asked for once and seen more often: {twice[:5]}")
    return f"{times} kills of {len(net.programs)} programs, all at work again within {slowest:.1f} s; {busy.answered} of {busy.asked} pages"


def wait_page(busy, client, host, port):
    last = None

    def answers():
        nonlocal last
        try:
            busy.page(client, host, port, "check")
            return True
        except (OSError, EOFError) as error:
            last = error
            return False
    must(wait_until(answers, 60) is not None, f"{client.name} gets no page of {host}: {last}")
