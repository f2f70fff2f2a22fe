"""A network of separate programs, founded as docs/operators.md says, and run through what happens to networks.

Four authorities, nine mixes, three gateways, an exit, a service, two clients. All the time both clients ask for pages, from the
exit and from the service: none may be lost.
"""

import json
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import kills
import socks
from localnet import query, scratch
from report import must, wait_until

EPOCH_S = 10
# Short epochs leave little time for packets under way and for clocks.
PARAMETERS = "max_delay_us = 2000000\nclock_error_s = 2\ndraw_every = 6\n"


def ports(count):
    """Free ports below those of localnets and of outgoing connections, either of which could take the port of a program that
    starts later, or again."""
    held, tried = [], random.sample(range(2_000, 10_000), 4 * count)
    for port in tried:
        s = socket.socket()
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
        held.append(s)
        if len(held) == count:
            break
    found = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return found


class Program:
    """A directory made by `init`, and what runs with it."""

    def __init__(self, net, name, kind, init):
        self.net, self.name, self.kind = net, name, kind
        self.dir = net.dir / name
        self.is_node = kind not in ("run", "serve")
        self.config = self.dir / ("config.toml" if self.is_node else "client.toml")
        self.process = None
        net.call(*init, self.dir)

    def change(self, **lines):
        """Sets keys that stand in the file at the beginning of a line, the first of each name."""
        text = self.config.read_text()
        for key, value in lines.items():
            text, found = re.subn(rf"(?m)^{key} = (\[[^\]]*\]|.*)$", lambda _: f"{key} = {value}", text, count=1)
            must(found, f"{self.config} has no {key}")
        self.config.write_text(text)

    def start(self):
        program = self.net.node if self.is_node else self.net.client
        verb = "run" if self.is_node else self.kind
        log = open(self.dir / "log", "ab")
        self.process = subprocess.Popen([program, verb, "-c", self.config], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()

    def end(self, with_signal=signal.SIGTERM):
        self.process.send_signal(with_signal)
        code = self.process.wait(20)
        must(with_signal == signal.SIGKILL or code == 0, f"{self.name} ended with {code}")

    def said(self):
        """The last line of its log."""
        return ((self.dir / "log").read_text().splitlines() or ["nothing"])[-1]

    def status(self):
        return query(self.dir / "run/control.sock")

    def ready(self):
        try:
            return self.status().get("ready") is True
        except (OSError, ValueError):
            return False


class Network:
    def __init__(self, binaries, directory):
        self.node, self.client, self.dir = binaries.node, binaries.client, directory
        self.programs, self.ports = {}, ports(60)
        self.found()

    def call(self, *command):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        must(done.returncode == 0, f"{' '.join(map(str, command[:3]))}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def identity(self, program):
        return self.call(self.node if program.is_node else self.client, "identity", "-c", program.config).strip()

    def of(self, kind):
        return [program for program in self.programs.values() if program.kind == kind]

    def add_node(self, role, name, operator):
        node = Program(self, name, role, (self.node, "init", "--role", role))
        listen, admin = self.ports.pop(), self.ports.pop()
        node.listen = f"127.0.0.1:{listen}"
        node.change(listen=f'"{node.listen}"', admin=f'"127.0.0.1:{admin}"', runtime_dir='"run"',
                    operator=f'"{operator}"', jurisdiction=f'"land of {operator}"', network='"../network.toml"')
        node.identity = self.identity(node)
        self.programs[name] = node
        return node

    def add_client(self, kind, name, gateways, more=()):
        client = Program(self, name, kind, (self.client, "init"))
        client.socks = ("127.0.0.1", self.ports.pop())
        client.change(network='"../network.toml"', listen=f'"127.0.0.1:{client.socks[1]}"')
        client.change(**dict(more))
        tables = "".join(f'[[gateways]]\nidentity = "{g.identity}"\naddress = "{g.listen}"\n' for g in gateways)
        text = client.config.read_text()
        client.config.write_text(text.replace("[socks]", tables + "\n[socks]", 1))
        client.identity = self.identity(client)
        self.programs[name] = client
        return client

    def lists(self):
        """Every authority has the identities of all nodes and exits in its configuration."""
        nodes = [p.identity for p in self.programs.values() if p.kind in ("mix", "gateway")]
        exits = [self.programs["exit"].identity]
        for authority in self.of("authority"):
            authority.change(nodes=json.dumps(nodes), exits=json.dumps(exits))

    def found(self):
        # 1. Each operator of an authority makes it.
        authorities = [self.add_node("authority", f"authority-{n}", f"authority {n}") for n in range(1, 5)]
        # 2. The founder writes the network file.
        named = [word for a in authorities for word in ("--authority", f"{a.identity}={a.listen}")]
        file = self.dir / "network.toml"
        said = self.call(self.node, "network", "new", "founded", *named, "--epoch", f"{EPOCH_S}s", "--trial", "--out", file)
        # 3. Everybody compares the fingerprint.
        shown = json.loads(self.call(self.node, "network", "show", file, "--json"))
        must(shown["fingerprint"] in said and shown["trial"], f"{said} {shown}")
        (self.dir / "parameters.toml").write_text(PARAMETERS)
        self.call(self.node, "parameters", self.dir / "parameters.toml")
        for authority in authorities:
            authority.change(parameters='"../parameters.toml"')
        # 4. Each operator of a node makes it.
        for n in range(1, 10):
            self.add_node("mix", f"mix-{n}", f"mixes {n}")
        gateways = [self.add_node("gateway", f"gateway-{n}", f"gateways {n}") for n in range(1, 4)]
        for gateway in gateways:
            with gateway.config.open("a") as f:
                f.write('\n[[gateway.token]]\nsecret = "for the services"\nconnections = 10\nservice = true\n')
        # Exit and service are at two gateways, and the clients begin at the third.
        local = {"policy": '["allow 127.0.0.0/8:*", "deny *:*"]'}
        target = {"kind": '"target"', "target": f'"127.0.0.1:{self.ports[-1]}"'}
        self.target = self.ports.pop()
        for name, more in (("exit", local), ("wiki", target)):
            service = self.add_client("serve", name, gateways[:2], more)
            token = service.dir / "token"
            token.write_text("for the services\n")
            token.chmod(0o600)
            text = service.config.read_text()
            service.config.write_text(text.replace('# token = "token"', 'token = "token"', 1))
        self.address = self.call(self.client, "address", "-c", self.programs["wiki"].config).split()[0]
        for n, order in ((1, (2, 0)), (2, (2, 1))):
            self.add_client("run", f"client-{n}", [gateways[at] for at in order])
        # 5. The authorities list them.
        self.lists()
        # 6. Everybody checks and runs.
        for program in self.programs.values():
            self.call(self.node if program.is_node else self.client, "check", "-c", program.config)

    def start(self):
        for program in self.programs.values():
            program.start()

    def pending(self):
        return json.loads(self.call(self.node, "authority", "pending", "--json", "-c", self.programs["authority-1"].config))["not_on_a_list"]

    def wait_ready(self, seconds=6 * EPOCH_S):
        def all_are():
            return all(p.ready() for p in self.programs.values() if p.process.poll() is None)
        if wait_until(all_are, seconds) is None:
            late = {n: p.status().get("why_not_ready") for n, p in self.programs.items()
                    if p.process.poll() is None and not p.ready()}
            must(False, f"not ready within {seconds} s: {late}")

    def document(self):
        """The document that most authorities hold in their files: (epoch, the whole)."""
        newest = max(self.of("authority"), key=lambda a: (a.dir / "topology").stat().st_mtime)
        shown = json.loads(self.call(self.node, "topology", "show", newest.dir / "topology", "--json"))
        return shown["epoch"], shown

    def wait_document(self, holds, what, epochs=6):
        def now():
            try:
                return holds(self.document()[1])
            except (OSError, ValueError):
                return False
        took = wait_until(now, epochs * EPOCH_S, 1)
        must(took is not None, f"no document within {epochs} epochs {what}")
        # It is in use in the epoch after the one in which it was made.
        time.sleep(EPOCH_S)
        return f"{took:.0f} s"

    def stop(self):
        running = [p for p in self.programs.values() if p.process and p.process.poll() is None]
        for program in running:
            program.process.terminate()
        for program in running:
            try:
                program.process.wait(20)
            except subprocess.TimeoutExpired:
                program.process.kill()
                program.process.wait()


class Asking:
    """Pages for both clients, from the exit and from the service in turn, one after the other."""

    def __init__(self, net, port):
        self.asked, self.lost, self.slowest, self.stopped = 0, [], (0.0, ""), threading.Event()
        self.threads, self.began = [], time.monotonic()
        for client in net.of("run"):
            thread = threading.Thread(target=self._ask, args=(client, net, port), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _ask(self, client, net, port):
        turn = 0
        while not self.stopped.is_set():
            host, at = (("127.0.0.1", port), (net.address, 80))[turn % 2]
            turn += 1
            began = time.monotonic()
            try:
                page = socks.get(client.socks, host, at, "/", timeout=60)
                if b"a page that only" not in page:
                    self.lose(client, began, f"got {page[:40]!r}")
            except (OSError, EOFError) as error:
                self.lose(client, began, f"{error or type(error).__name__} after {time.monotonic() - began:.0f} s")
            self.asked += 1
            took = time.monotonic() - began
            self.slowest = max(self.slowest, (took, f"of {client.name} to {host[-12:]}, {began - self.began:.0f} s after the first"))
            self.stopped.wait(0.5)

    def lose(self, client, began, why):
        if not self.stopped.is_set():
            self.lost.append(f"{client.name} at {began - self.began:.0f} s: {why}")

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(70)


def founding(run, check):
    directory = scratch()
    net, asking = None, None
    try:
        def found():
            nonlocal net
            net = Network(run.binaries, directory)
            return f"{len(net.programs)} programs, {len(list(directory.iterdir()))} directories and files"
        check("14 a network is founded as the document for operators says", found)
        if net is None or len(net.programs) < 20:
            return
        net.numbers = kills.Numbers(net.target)
        check("14 it is ready", begin, net)
        asking = Asking(net, run.web.port)
        for name, body in (("a mix joins", joins), ("a mix leaves", leaves), ("a mix is killed", killed),
                           ("a gateway is killed and comes back", gateway), ("an authority comes back from its backup", backup),
                           ("parameters change in the epoch that was named", parameters), ("HUP to all", hup)):
            check(f"14 {name}", body, net)
        check("14 no request was lost", lost, asking)
        times = 3 if run.quick else 50
        check(f"14 all programs are killed at once, {times} times", kills.everything_is_killed, net, EPOCH_S, times)
    finally:
        if asking:
            asking.stopped.set()
        if net:
            net.stop()
        shutil.rmtree(directory, ignore_errors=True)


def begin(net):
    net.start()
    net.wait_ready()
    return net.wait_document(lambda document: document["exits"], "lists the exit")


def lists(document, node):
    return any(listed["identity"] == node.identity for listed in document["nodes"])


def read_again(net):
    """Every authority reads its configuration again, and says so."""
    for authority in net.of("authority"):
        log = authority.dir / "log"
        before = log.read_text().count("was read again")
        authority.process.send_signal(signal.SIGHUP)
        said = lambda: log.read_text().count("was read again") > before
        must(wait_until(said, 30) is not None, f"{authority.name} does not say that it read its configuration again")


def joins(net):
    mix = net.add_node("mix", "mix-10", "mixes 10")
    mix.start()
    asks = lambda: mix.identity in net.pending()
    must(wait_until(asks, 30) is not None, f"the authority does not say who asks; who asks said: {mix.said()}")
    net.lists()
    read_again(net)
    return net.wait_document(lambda document: lists(document, mix), "lists the mix")


def leaves(net):
    mix = net.programs["mix-1"]
    mix.end()
    return net.wait_document(lambda document: not lists(document, mix), "misses the mix that left")


def killed(net):
    mix = net.programs["mix-2"]
    mix.end(signal.SIGKILL)
    took = net.wait_document(lambda document: not lists(document, mix), "misses the mix that was killed")
    mix.start()
    net.wait_document(lambda document: lists(document, mix), "lists it again")
    return took


def gateway(net):
    gateway = net.programs["gateway-3"]
    gateway.end(signal.SIGKILL)
    critical = lambda: {"gateways 1", "gateways 2"} <= set(net.programs["authority-1"].status()["votes"]["critical"])
    must(wait_until(critical, 6 * EPOCH_S) is not None, "no authority says that no gateway is left to spare")
    gateway.start()
    return net.wait_document(lambda document: lists(document, gateway), "lists the gateway again")


def backup(net):
    authority = net.programs["authority-4"]
    files = ["data/identity.key", "data/authority.state", "config.toml"]
    kept = {name: (authority.dir / name).read_bytes() for name in files}
    authority.end(signal.SIGKILL)
    shutil.rmtree(authority.dir)
    # What it has signed since it was copied lies two epochs back.
    time.sleep(3 * EPOCH_S)
    for name, content in kept.items():
        path = authority.dir / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o600)
    authority.dir.chmod(0o700)
    authority.start()
    must(wait_until(authority.ready, 3 * EPOCH_S) is not None, "it is not ready again")
    counted = lambda: not net.programs["authority-1"].status()["votes"]["uncounted"]
    must(wait_until(counted, 4 * EPOCH_S) is not None, "its votes do not count")
    votes = net.programs["authority-1"].status()["votes"]
    must(not votes["liars"], f"it passes for a liar: {votes}")


def parameters(net):
    (net.dir / "next.toml").write_text(PARAMETERS + "warn_bits = 5.5\n")
    epoch = net.programs["authority-1"].status()["epoch"] + 6
    for authority in net.of("authority"):
        authority.change(next_parameters='"../next.toml"', next_from_epoch=epoch)
    read_again(net)
    before = net.document()[1]
    must("5.5 bits" not in bits(net) or before["epoch"] >= epoch, "they changed early")
    return net.wait_document(lambda document: document["epoch"] >= epoch and "5.5" in bits(net), "has the new parameters", epochs=14)


def bits(net):
    newest = max(net.of("authority"), key=lambda a: (a.dir / "topology").stat().st_mtime)
    return net.call(net.node, "topology", "show", newest.dir / "topology")


def hup(net):
    running = [p for p in net.programs.values() if p.process.poll() is None]
    for program in running:
        program.process.send_signal(signal.SIGHUP)
    time.sleep(EPOCH_S)
    ended = [p.name for p in running if p.process.poll() is not None]
    must(not ended, f"ended by HUP: {ended}")
    net.wait_ready()


def lost(asking):
    asking.stop()
    must(asking.asked > 20, f"{asking.asked} requests alone")
    must(not asking.lost, f"{len(asking.lost)} of {asking.asked}: {asking.lost[:5]}")
    took, which = asking.slowest
    return f"{asking.asked} requests, the slowest {took:.1f} s ({which})"
