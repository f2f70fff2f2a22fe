"""What the daemons leave behind (P6), and what an observer of the wire sees."""

import collections
import re
import shutil
import threading
import time
from pathlib import Path

import procs
import servers
import socks
from capture import Capture, records
from localnet import Localnet, address, scratch
from report import Skip, must

# Long-lived secrets, and what an operator or an authority wrote: not records of a run.
NOT_RECORDS = {"client.toml", "config.toml", "network.toml", "topology"}
FRAME, TLS, YAMUX = 2400, 22, 12
FRAMES_AT_ONCE = 6
# Records of a stream in which the ends prove who they are and agree on protocols.
SETTING_UP = 16


class Watch:
    """Collects, while a run goes on, the addresses that nobody may write down."""

    def __init__(self, net):
        self.net, self.addresses, self.running, self.blind = net, set(), True, None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while self.running:
            nodes = self.net.daemons
            ports = {address(node["listen"])[1] for node in nodes.values() if node["listen"]}
            for name, pid in self.net.pids().items():
                if nodes[name]["kind"] == "node":
                    continue
                try:
                    procs.must_see(pid)
                except Skip as why:
                    self.blind = why
                for local, remote in procs.tcp_sources(pid):
                    # Its link's end, and the ends of those who use its SOCKS port.
                    self.addresses.update(end for end in (local, remote) if end[1] not in ports)
            time.sleep(0.3)

    def stop(self):
        self.running = False
        self.thread.join()


class Records:
    def __init__(self, run, watch):
        self.run, self.net, self.watch = run, run.net, watch

    def all(self, check):
        check("9 P6: logs, metrics, files and status name nobody", self.scan)
        check("9 P6: no metric has a label that could name someone", self.labels)

    def forbidden(self):
        ports = {port for _, port in self.watch.addresses}
        ports |= {self.run.web.port, self.run.echo.port}
        ports -= {address(node["admin"])[1] for node in self.net.daemons.values()}
        identity, gateway = self.net.service[0].split(".")[:2]
        words = ["exit-only", "93.184.216.34", "10.0.0.1", ".shoal", identity, gateway, "isolated one", "fault 1", servers.MARK]
        # Gateways and the service's own configuration name the service; logs need not.
        words += sorted({host for host, _ in self.watch.addresses} - {"127.0.0.1", "::1"})
        return words, ports

    def scan(self):
        words, ports = self.forbidden()
        pattern = re.compile(b"|".join(re.escape(word.encode()) for word in words), re.IGNORECASE)
        # Four digits at least: all of these were given out by the system, and in random bytes two are found by chance.
        port = re.compile(rb"[:.\]](\d{4,5})(?!\d)")
        pages = {}
        for path in sorted(self.net.dir.rglob("*")):
            if path.is_file() and path.name not in NOT_RECORDS and path.suffix != ".key":
                pages[str(path.relative_to(self.net.dir))] = path.read_bytes()
        logs = sum(len(text) for name, text in pages.items() if name.endswith(".log"))
        for name in self.net.daemons:
            pages[f"metrics of {name}"] = self.net.metrics(name).encode()
            status = self.net.status(name)
            # Whoever runs a service must be able to say where it is.
            status.pop("addresses", None)
            pages[f"status of {name}"] = repr(status).encode()
        self.net.errors.seek(0)
        pages["stderr of the launcher"] = self.net.errors.read()
        found = []
        for name, text in pages.items():
            matches = list(pattern.finditer(text))
            matches += [match for match in port.finditer(text) if int(match[1]) in ports]
            for match in matches:
                around = text[max(0, match.start() - 40) : match.end() + 20]
                found.append(f"{name}: ...{around!r}")
        must(not found, f"{len(found)} found, e.g. {found[:4]}")
        must(logs > 0, "the daemons logged nothing at debug level")
        if self.watch.blind:
            raise Skip(f"none of {len(words)} words; which addresses and ports to look for is not known: {self.watch.blind}")
        must(self.watch.addresses, "no address of a client was seen in the whole run")
        size = sum(map(len, pages.values()))
        return f"{len(pages)} pages, {size} bytes, {logs} of them logs: none of {len(words)} words and {len(ports)} ports"

    def labels(self):
        names = set()
        for name in self.net.daemons:
            for line in self.net.metrics(name).splitlines():
                if not line.startswith("#"):
                    names.update(re.findall(r'[{,]([a-z_]+)="', line))
        # Why something was dropped; buckets; and which build of which program it is.
        must(names <= {"reason", "le", "program", "version", "commit", "target"}, f"labels {sorted(names)}")
        return f"labels: {sorted(names)}"


def wire(run, check):
    """Captures a short run from its first byte."""
    state = {}

    def capture():
        try:
            state["capture"] = Capture()
        except PermissionError:
            raise Skip("may not open a packet socket; run as root") from None
        names = scratch()
        try:
            net = Localnet(run.binaries, "--resolver", f"127.0.0.1:{run.dns.port}", directory=names)
        except RuntimeError:
            state["capture"].stop()
            shutil.rmtree(names, ignore_errors=True)
            raise
        try:
            proxy = net.socks[0]
            for n in range(3):
                body = socks.get(proxy, f"page{n}.exit-only.example", run.web.port)
                must(servers.MARK.encode() in body, "not the page")
                socks.get(proxy, *net.service)
            time.sleep(3)
            dropped = state["capture"].stop()
            state["links"] = {name: address(node["listen"])[1] for name, node in net.daemons.items() if node["kind"] == "node"}
            state["service"] = net.service[0]
            links = set(state["links"].values())
            state["streams"] = state["capture"].streams(links)
            state["others"] = state["capture"].streams({proxy[1], run.web.port})
        finally:
            net.stop()
        size = sum(map(len, state["streams"].values()))
        must(dropped == 0, f"the capture lost {dropped} packets")
        must(len(state["streams"]) >= 20 and size > 1_000_000, f"{len(state['streams'])} streams, {size} bytes")
        return f"{len(state['streams'])} directions of links, {size / 1e6:.1f} MB, nothing lost"

    def plain():
        if "streams" not in state:
            raise Skip("no capture")
        identity, gateway = state["service"].split(".")[:2]
        words = [servers.MARK, "exit-only", "exit_only", ".shoal", identity, gateway, "internal service", "HTTP/1", "GET /"]
        # The control: the same words are seen where they should be, before and behind the mixnet.
        seen = b"".join(state["others"].values())
        control = [word for word in words if word.encode() in seen]
        must({servers.MARK, "exit-only", ".shoal", "HTTP/1"} <= set(control), f"the control saw only {control}")
        bad = {word for stream in state["streams"].values() for word in words if word.lower().encode() in stream.lower()}
        must(not bad, f"on links in the clear: {bad}")
        _, rest = zip(*map(records, state["streams"].values()))
        strange = [words for words in rest if len(words) > 200]
        must(not strange, f"not TLS: {strange[0][:80] if strange else ''}")
        clear = sorted({word for words in rest for word in re.findall(rb"/[a-z0-9/.-]+", words)})
        return f"none of {len(words)} words on links, {len(control)} of them outside; in the clear there: {b' '.join(clear).decode()}"

    def lengths():
        if "streams" not in state:
            raise Skip("no capture")
        # The header of Yamux goes before its frames, in their record or in one of its own.
        usual = {TLS + YAMUX + FRAME * n for n in range(FRAMES_AT_ONCE + 1)}
        usual |= {TLS + FRAME * n for n in range(1, FRAMES_AT_ONCE + 1)}
        setting_up, then = collections.Counter(), collections.Counter()
        for stream in state["streams"].values():
            data = [length for kind, length in records(stream)[0] if kind == 23]
            setting_up.update(length for length in data[:SETTING_UP] if length not in usual)
            then.update(data[:SETTING_UP] and [length for length in data[:SETTING_UP] if length in usual])
            then.update(data[SETTING_UP:])
        text = ", ".join(f"{length}: {count}" for length, count in sorted(then.items()))
        first = ", ".join(f"{length}: {count}" for length, count in sorted(setting_up.items()))
        strange = {length: count for length, count in then.items() if length not in usual}
        must(not strange, f"lengths that nothing explains: {strange}; all: {text}; setting up: {first}")
        must(len(setting_up) <= 24, f"{len(setting_up)} lengths while setting up: {first}")
        frames = sum(count * (length // FRAME) for length, count in then.items())
        return f"{frames} frames; length on the wire: count {{{text}}}; while setting up {{{first}}}"

    check("9 capture of a run on loopback", capture)
    check("9 the capture shows no name, address or content", plain)
    check("9 records on links have the lengths of frames", lengths)
