"""Daemons that die in the middle of things: what the client says, and when it works again."""

import collections
import threading
import time

import servers
import socks
from report import Failed, must, wait_until

STATED = 30  # socks.request_timeout_s
GRACE = 3
SAID_WITHIN = 15
WORKS_WITHIN = 60
HANGS = 60  # seconds without a byte or an end
# Seconds that a download may take which goes on. The pages beside it, each by another name, can leave it a sixteenth of the link
# for three minutes (docs/promises.md has the shares).
LONGEST = 400


class Faults:
    def __init__(self, run):
        self.run, self.net, self.quick = run, run.net, run.quick
        self.proxy = run.net.socks[0]
        self.users, self.stages = 0, {}

    def all(self, check):
        session = Session(self.proxy, self.run.echo.port)
        check("4 a chatty session", session.chat, 5)
        if not self.quick:
            check("4 the session survives 10 minutes idle", session.idle, 600)
        check("4 the session survives kill -9 and restart of a mix", self.session_and_mix, session)
        session.close()
        check("8 kill -9 a mix during a download", self.fault, "mix-2-1", True)
        check("8 kill -9 the exit during a download", self.fault, "exit", True)
        if not self.quick:
            check("8 kill -9 the client's gateway during a download", self.fault, None, True)
        check("8 the first gateway does not come back", self.fault, None, False)
        check("8 everything is ready and live in the end", self.end)

    def gateway(self):
        return "gateway-2" if self.net.status("client-1").get("gateway") == "second" else "gateway-1"

    def fetch(self):
        """(seconds, what went wrong) of a page by a user name of its own, so through a fresh tunnel."""
        self.users += 1
        began = time.monotonic()
        try:
            socks.get(self.proxy, "127.0.0.1", self.run.web.port, user=f"fault {self.users}", timeout=STATED + 20)
            return time.monotonic() - began, None
        except (OSError, EOFError) as error:
            return time.monotonic() - began, str(error)

    def says(self):
        """What a person reads in `status` about trouble; counters aside."""
        status = self.net.status("client-1")
        tunnels = status["tunnels"]
        said = [why for why in [status.get("why_not")] if why]
        # What a localnet's clients are told: it is for trial, and from the epoch on in which nodes have reported, that it is small.
        usual = ("allow_shared_gateway", "for trial", "few others send now")
        said += [warning for warning in status["warnings"] if not any(word in warning for word in usual)]
        if status.get("gateway") == "second":
            said.append("at the second gateway")
        # A new tunnel passes through these stages; one that stays there for seconds waits for something.
        now, waits = time.monotonic(), [name for name, n in tunnels.items() if n and name != "connected"]
        self.stages = {name: self.stages.get(name, now) for name in waits}
        said += [f"{name}: {tunnels[name]}" for name, since in self.stages.items() if now - since > 2]
        return said

    def fault(self, victim, comes_back):
        net = self.net
        victim = victim or self.gateway()
        quiet = wait_until(lambda: not [said for said in self.says() if "second" not in said], 60)
        must(quiet is not None, f"before the fault, status complains: {self.says()}")
        took, wrong = self.fetch()
        must(wrong is None, f"before the fault, a fetch fails after {took:.0f} s: {wrong}")
        before = set(self.says())
        size = 1_500_000 if self.quick else 3_000_000
        download = Download(self.proxy, self.run.web.port, size, f"download {victim} {comes_back}")
        time.sleep(3)
        must(download.said is None, f"the download ended before the fault: {download.text()}")
        net.kill(victim)
        killed = time.monotonic()

        # Requests go on all the while, one after the other: each must end within its stated time.
        tries, stop = [], threading.Event()

        def keep_asking():
            while not stop.is_set():
                began = time.monotonic()
                tries.append((began, *self.fetch()))
                time.sleep(0.5)

        asking = threading.Thread(target=keep_asking, daemon=True)
        asking.start()
        said = []

        def new():
            said[:] = [text for text in self.says() if text not in before]
            return said

        after = wait_until(new, SAID_WITHIN)
        first_said = list(said)
        if comes_back:
            time.sleep(max(0, (5 if self.quick else 12) - (time.monotonic() - killed)))
            net.restart(victim)
            since = time.monotonic()
        else:
            since = killed
        # Begun after the restart, or, without one, after the gateway's death.
        worked = wait_until(lambda: any(at >= since and wrong is None for at, _, wrong in list(tries)), WORKS_WITHIN + 5)
        stop.set()
        asking.join(STATED + 25)
        download.wait(LONGEST)
        if not comes_back:
            net.restart(victim)
        net.settle(victim, within=30)

        slowest = max(took for _, took, _ in tries)
        failed = sum(wrong is not None for _, _, wrong in tries)
        reasons = dict(collections.Counter(f"{wrong}" for _, _, wrong in tries if wrong))
        text = (
            f"{victim}: status after {'nothing' if after is None else f'{after:.1f} s'} {first_said}; "
            f"a new fetch worked {'never' if worked is None else f'after {worked:.1f} s'} "
            f"({len(tries)} tried, {failed} failed: {reasons}, slowest {slowest:.1f} s); the download: {download.text()}"
        )
        problems = []
        if after is None:
            problems.append(f"status says nothing within {SAID_WITHIN} s")
        if worked is None or worked > WORKS_WITHIN:
            problems.append(f"no fetch works within {WORKS_WITHIN} s")
        if slowest > STATED + GRACE:
            problems.append(f"a request took more than {STATED} s")
        if download.said is None:
            problems.append("the download does not end")
        if download.hangs:
            problems.append("the download hangs")
        if problems:
            raise Failed("; ".join(problems) + " | " + text)
        return text

    def session_and_mix(self, session):
        session.chat(2)
        self.net.kill("mix-1-2")
        while_dead = session.chat(3)
        self.net.restart("mix-1-2")
        after = session.chat(15)
        return f"while it was dead: {while_dead}; after: {after}"

    def end(self):
        wait_until(lambda: all(self.net.ready(name) for name in self.net.daemons), 60)
        bad = [name for name in self.net.daemons if not (self.net.live(name) and self.net.ready(name))]
        must(not bad, f"not ready: {[(name, self.net.status(name).get('why_not')) for name in bad]}")
        return f"{len(self.net.daemons)} daemons"


class Download:
    """A download in a thread of its own. Slow is not hanging: a hang is so long without a byte and without an end."""

    def __init__(self, proxy, port, size, user):
        self.size, self.said, self.hangs, self.bytes = size, None, False, 0
        self.began = self.last = time.monotonic()
        self.took, self.pause = 0.0, 0.0
        self.thread = threading.Thread(target=self.get, args=(proxy, port, user), daemon=True)
        self.thread.start()

    def get(self, proxy, port, user):
        try:
            body = socks.get(proxy, "127.0.0.1", port, f"/bytes/{self.size}", user=user, timeout=HANGS, came=self.came)
            said = f"complete, {len(body)} bytes" if len(body) == self.size else f"cut after {len(body)} bytes"
        except TimeoutError:
            self.hangs = True
            said = f"no byte for {HANGS} s, and no end"
        except (OSError, EOFError) as error:
            said = f"{error or type(error).__name__}"
        self.came(self.bytes)
        self.took, self.said = time.monotonic() - self.began, said

    def came(self, total):
        now = time.monotonic()
        self.pause, self.last, self.bytes = max(self.pause, now - self.last), now, total

    def wait(self, seconds):
        self.thread.join(seconds)

    def text(self):
        said = self.said or f"not at its end {time.monotonic() - self.began:.0f} s after its start"
        took = f" {self.took:.0f} s after its start" if self.said else ""
        return f"{said}{took}, {self.bytes} bytes in all, at most {self.pause:.1f} s without one"


class Session:
    """A connection on which both ends talk all the time, and every byte is checked."""

    def __init__(self, proxy, port):
        self.s, self.why = None, None
        try:
            self.s = socks.connect(proxy, "127.0.0.1", port, user="session")
            self.s.settimeout(60)
        except (OSError, EOFError) as why:
            self.why = why
        self.n = 0

    def chat(self, seconds):
        must(self.s is not None, f"no session: {self.why}")
        times, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            self.n += 1
            message = servers.body(200, str(self.n).encode())
            began = time.monotonic()
            self.s.sendall(message)
            got = socks.exactly(self.s, len(message))
            must(got == message, f"message {self.n} came back changed")
            times.append(time.monotonic() - began)
            time.sleep(0.05)
        times.sort()
        return f"{len(times)} messages, median {times[len(times) // 2] * 1000:.0f} ms, slowest {times[-1]:.1f} s"

    def idle(self, seconds):
        time.sleep(seconds)
        return self.chat(5)

    def close(self):
        if self.s:
            self.s.close()
