"""Authorities that die, are cut off, lie or have wrong clocks; nodes and gateways that drop and delay: real processes,
each authority in a network namespace of its own, epochs of ten seconds."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import servers
import socks
from basics import install
from localnet import Localnet, query, scratch
from procs import rss_mb
from report import Failed, Skip, must, wait_until

EPOCH = 10
# Loops of nodes at the usual two a second find what drops a fifth after hours of real epochs: here many are sent.
# Epochs within which it must be found all the same, and within which it is trusted again.
WITHIN, RESTORED = 24, 60
PARAMETERS = "node_loops_per_s = 40.0\n"


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, check=False)
    if done.returncode:
        raise Skip(f"ip {' '.join(words)}: {done.stderr.decode().strip()}")


class Namespaces:
    """Hosts of our own on a bridge of our own."""

    def __init__(self):
        if os.geteuid() or not install("ip", "iproute2"):
            raise Skip("network namespaces need root and iproute2")
        tag = os.getpid() % 60_000
        self.bridge, self.hosts = f"shoal{tag}", {}
        self.net = f"10.{200 + tag // 250 % 50}.{tag % 250}"
        self.address = f"{self.net}.1"
        ip("link", "add", self.bridge, "type", "bridge")
        ip("addr", "add", f"{self.address}/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")

    def host(self, name):
        """A new host, which is linked to all others."""
        number = 10 + len(self.hosts)
        space, link = f"{self.bridge}-{number}", f"{self.bridge}v{number}"
        self.hosts[name] = (space, link, f"{self.net}.{number}")
        ip("netns", "add", space)
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", link, "master", self.bridge, "up")
        ip("-n", space, "addr", "add", f"{self.net}.{number}/24", "dev", "eth0")
        ip("-n", space, "link", "set", "eth0", "up")
        ip("-n", space, "link", "set", "lo", "up")

    def inside(self, name):
        return ["ip", "netns", "exec", self.hosts[name][0]]

    def link(self, name, state):
        """`up` or `down`."""
        ip("link", "set", self.hosts[name][1], state)

    def remove(self):
        for space, *_ in self.hosts.values():
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)


class Asking:
    """Requests one after the other, by eight user names in turn, and how each ended. Every idle tunnel costs packets in
    every epoch: names without end would fill a link whose epochs last ten seconds."""

    def __init__(self, proxy, port):
        self.proxy, self.port, self.ended, self.stopped = proxy, port, [], threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        n = 0
        while not self.stopped.is_set():
            n, began, wrong = n + 1, time.monotonic(), None
            try:
                socks.get(self.proxy, "127.0.0.1", self.port, f"/bytes/{20_000}", user=f"asking {n % 8}", timeout=50)
            except (OSError, EOFError) as error:
                wrong = str(error) or type(error).__name__
            self.ended.append((began, time.monotonic() - began, wrong))
            self.stopped.wait(0.3)

    def since(self, began):
        """(how many, slowest, what went wrong) of those that began since then."""
        ended = [request for request in self.ended if request[0] >= began]
        return len(ended), max((took for _, took, _ in ended), default=0.0), [wrong for *_, wrong in ended if wrong]

    def stop(self):
        self.stopped.set()
        self.thread.join(60)


class Authorities:
    """One localnet through all of it."""

    def __init__(self, run, spaces):
        self.run, self.spaces = run, spaces
        self.names = list(spaces.hosts)
        self.dir = scratch()
        parameters = self.dir / "given.toml"
        parameters.write_text(PARAMETERS)
        try:
            self.net = Localnet(
                run.binaries, "--epoch", EPOCH, "--mixes-per-layer", 3, "--clients", 1, "--log", "info",
                "--parameters", parameters, directory=self.dir / "net",
            )
        except BaseException:
            shutil.rmtree(self.dir, ignore_errors=True)
            raise
        self.asking = None

    def all(self, check):
        try:
            check("12 everything is killed at once and starts again elsewhere", self.move)
            self.asking = Asking(self.net.socks[0], self.run.web.port)
            check("12 every epoch has one document, of four votes", self.documents)
            check("12 an authority is killed -9 and restarted", self.killed)
            check("12 an authority is cut off", self.cut_off)
            check("12 two are cut off from two for an epoch", self.halves)
            check("12 an authority's clock is three minutes wrong", self.clock)
            check("12 an authority votes differently to different peers", self.lying)
            check("12 a mix that drops a fifth is demoted; restored when it behaves", self.found, "mix-1-2", "--drop-share", 0.2)
            check("12 a mix that is 500 ms late is demoted; restored when it behaves", self.found, "mix-2-1", "--late-ms", 500)
            check("12 a client leaves the gateway that drops its packets", self.gateway)
        finally:
            if self.asking:
                self.asking.stop()
            code, stray = self.net.stop(keep=True)
            keep = os.environ.get("SHOAL_KEEP")
            if keep:
                shutil.copytree(self.dir, keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock", "control*"))
            shutil.rmtree(self.dir, ignore_errors=True)
        must(not stray, f"exit {code}, had to kill {stray}")

    # What daemons say.

    def votes(self, name):
        try:
            return query(self.net.daemons[name]["control"])["votes"]
        except (OSError, ValueError, KeyError):
            return {}

    def epoch(self, name):
        return self.votes(name).get("latest", [0])[0]

    def identity(self, name):
        """Of an authority: in the order of the network file."""
        found = re.findall(r'^    "([a-z2-7]{52})",$', (self.net.dir / "network.toml").read_text(), re.MULTILINE)
        return found[self.names.index(name)]

    def shown(self, name):
        """The latest document of a node, without what differs between copies: who of them signed."""
        command = [self.run.binaries.node, "topology", "show", "--json", str(self.net.dir / name / "topology")]
        document = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        del document["signed_by"], document["bytes"]
        return document

    def demoted(self):
        """Names of the nodes that the latest document demotes."""
        nodes = self.shown("authority-1")["nodes"]
        return {node["operator"].removeprefix("operator of ") for node in nodes if node["standing"] == "demoted"}

    def carried_on(self, began, epochs, *others):
        """That since then no request failed, and these authorities hold documents as new as they should be, the same."""
        asked, slowest, wrong = self.asking.since(began)
        must(not wrong, f"{len(wrong)} of {asked} requests failed: {wrong[:3]}")
        must(asked > 0, "no request ended")
        shown = wait_until(lambda: self.agree(others), 2 * EPOCH)
        must(shown is not None, f"the authorities {others} hold different documents: {[(it := self.shown(name))['epoch'] * 1000 + it['amendment'] for name in others]}")
        passed = (time.monotonic() - began) / EPOCH
        must(epochs >= int(passed) - 1, f"{epochs} documents in {passed:.1f} epochs")
        return f"{epochs} documents in {passed:.1f} epochs, {asked} requests, none failed, slowest {slowest:.1f} s"

    def agree(self, names):
        first, *others = [self.shown(name) for name in names]
        return all(other == first for other in others)

    # What is done to them.

    def start(self, name, *options, inside=None):
        node = self.net.daemons[name]
        command = [self.run.binaries.sim, "daemon", node["kind"], node["config"], *map(str, options)]
        prefix = self.spaces.inside(inside or name) if (inside or name) in self.spaces.hosts else []
        self.net.spawn(name, [*prefix, *command])

    def move(self):
        """Authorities go to hosts of their own. A power cut: everybody loses what is in memory."""
        addresses = {}
        for name, node in self.net.daemons.items():
            self.net.kill(name)
            if node["kind"] == "node":
                host = self.spaces.hosts[name][2] if name in self.names else self.spaces.address
                addresses[node["listen"]] = f"{host}:{node['listen'].rsplit(':', 1)[1]}"
        files = [Path(node["config"]) for node in self.net.daemons.values()]
        for path in [self.net.dir / "network.toml", *files]:
            text = path.read_text()
            for old, new in addresses.items():
                text = text.replace(f'"{old}"', f'"{new}"')
            path.write_text(text)
        for runtime in self.net.dir.glob("*/run"):
            shutil.rmtree(runtime)
        began = time.monotonic()
        for name in self.net.daemons:
            self.start(name)
        took = wait_until(lambda: all(self.net.ready(name) for name in self.net.daemons), 60)
        not_ready = [name for name in self.net.daemons if not self.net.ready(name)]
        must(took is not None, f"not ready after 60 s: {[(name, self.why(name)) for name in not_ready]}")
        socks.get(self.net.socks[0], "127.0.0.1", self.run.web.port, timeout=50)
        return f"all {len(self.net.daemons)} daemons ready after {took:.1f} s, a page after {time.monotonic() - began:.1f} s"

    def why(self, name):
        try:
            status = self.net.status(name)
            return status.get("why_not_ready") or status.get("why_not")
        except (OSError, ValueError) as error:
            return str(error)

    def documents(self):
        began, first = time.monotonic(), self.epoch("authority-1")
        counted = wait_until(lambda: all(self.votes(name).get("uncounted") == [] for name in self.names), 4 * EPOCH)
        must(counted is not None, f"{[self.votes(name) for name in self.names]}")
        time.sleep(max(0, 3 * EPOCH - counted))
        return self.carried_on(began, self.epoch("authority-1") - first, *self.names)

    def fault(self, victim, begin, end, epochs=3):
        """The others miss a vote while it lasts, carry on, and count it again afterwards; what they and it said."""
        others = [name for name in self.names if name != victim]
        lost, began, first = self.identity(victim), time.monotonic(), self.epoch(others[0])
        begin()
        said = wait_until(lambda: all(self.votes(name).get("uncounted") == [lost] for name in others), 3 * EPOCH)
        must(said is not None, f"the others do not say that {lost} is missing: {[self.votes(name) for name in others]}")
        time.sleep(max(0, epochs * EPOCH - said))
        text = self.carried_on(began, self.epoch(others[0]) - first, *others)
        its_own = self.why(victim) if self.net.daemons[victim]["pid"] else None
        end()
        again = wait_until(lambda: all(self.votes(name).get("uncounted") == [] for name in self.names), 5 * EPOCH)
        must(again is not None, f"it is not counted again: {[self.votes(name) for name in self.names]}")
        text += "; " + self.carried_on(began, self.epoch(others[0]) - first, *self.names)
        return f"the others said so after {said:.0f} s, {text}; counted again after {again:.0f} s", its_own

    def killed(self):
        return self.fault("authority-1", lambda: self.net.kill("authority-1"), lambda: self.start("authority-1"))[0]

    def cut_off(self):
        name = "authority-2"
        text, own = self.fault(name, lambda: self.spaces.link(name, "down"), lambda: self.spaces.link(name, "up"))
        must(own, "the one that is cut off says nothing of it")
        return f"{text}; it said: {own}"

    def halves(self):
        """No document can be made; what there is lasts for two further epochs."""
        began, first = time.monotonic(), self.epoch("authority-1")
        for name in self.names[:2]:
            self.spaces.link(name, "down")
        time.sleep(1.2 * EPOCH)
        none = [self.why(name) for name in self.names]
        for name in self.names[:2]:
            self.spaces.link(name, "up")
        again = wait_until(lambda: all(self.votes(name).get("uncounted") == [] for name in self.names), 6 * EPOCH)
        must(again is not None, f"they do not find together: {[self.votes(name) for name in self.names]}")
        must(all(none), f"not all say that there is no document: {none}")
        asked, slowest, wrong = self.asking.since(began)
        must(not wrong and asked, f"{len(wrong)} of {asked} requests failed: {wrong[:3]}")
        must(wait_until(lambda: self.agree(self.names), EPOCH) is not None, "they hold different documents")
        now = self.epoch("authority-1")
        return f"{asked} requests, none failed; {now - first} documents; together again after {again:.0f} s"

    def clock(self):
        name = "authority-3"

        def again(ms):
            if self.net.daemons[name]["pid"]:
                self.net.kill(name)
            self.start(name, "--clock-offset-ms", ms)

        text, own = self.fault(name, lambda: again(180_000), lambda: again(0))
        log = Path(self.net.daemons[name]["config"]).with_suffix(".again.log").read_text()
        must("look at this machine's clock" in log, "the one whose clock is wrong does not say so")
        return f"{text}; it said: {own}"

    def lying(self):
        """Two programs with the keys of one authority, of which the second tells only one peer another list of nodes."""
        name, other = "authority-4", "authority-3"
        twin = self.net.dir / "twin"
        shutil.copytree(
            self.net.dir / name, twin, ignore=shutil.ignore_patterns("run", "*.log", "topology", "authority.state")
        )
        config = (twin / "config.toml").read_text()
        port = re.search(r'^admin = "127.0.0.1:(\d+)"', config, re.MULTILINE)[1]
        config = config.replace(f"127.0.0.1:{port}", "127.0.0.1:9")
        config = re.sub(r'^admin = .*$', 'admin = ""', config, flags=re.MULTILINE)
        nodes = re.search(r"^nodes = \[(.*?)\]", config, re.MULTILINE | re.DOTALL)
        kept = re.findall(r'"[a-z2-7]{52}"', nodes[1])[1:]
        config = config.replace(nodes[0], f"nodes = [{', '.join(kept)}]").replace("../network.toml", "network.toml")
        listen = re.search(r'^listen = "(.*):\d+"', config, re.MULTILINE)
        config = config.replace(listen[0], f'listen = "{listen[1]}:7"')
        (twin / "config.toml").write_text(config)
        lines = (self.net.dir / "network.toml").read_text().splitlines()
        only = [line for line in lines if " = \"10." not in line or line.startswith(self.identity(other))]
        (twin / "network.toml").write_text("\n".join(only) + "\n")
        control = self.net.daemons[name]["control"].replace(f"/{name}/", "/twin/")
        self.net.daemons["twin"] = {"kind": "node", "config": str(twin / "config.toml"), "pid": None, "control": control}
        others, began, first = self.names[:3], time.monotonic(), self.epoch("authority-1")
        try:
            self.start("twin", inside=name)
            proven = wait_until(lambda: all(self.votes(peer).get("liars") == [self.identity(name)] for peer in others), 4 * EPOCH)
            must(proven is not None, f"nobody proves it: {[self.votes(peer) for peer in others]}")
            time.sleep(max(0, 3 * EPOCH - proven))
            text = self.carried_on(began, self.epoch("authority-1") - first, *others)
            proofs = [len(list((self.net.dir / peer / "data").glob("liar-*-votes.proof"))) for peer in others]
            must(proofs == [1, 1, 1], f"proofs on disk: {proofs}")
        finally:
            self.net.kill("twin")
            del self.net.daemons["twin"]
        again = wait_until(lambda: all(self.votes(peer).get("uncounted") == [] for peer in self.names), 5 * EPOCH)
        must(again is not None, f"afterwards: {[self.votes(peer) for peer in self.names]}")
        return f"proven by all after {proven:.0f} s; {text}"

    def found(self, node, *faults):
        """Demoted while it misbehaves, and requests go on; restored when it behaves."""
        began = time.monotonic()
        self.net.kill(node)
        self.start(node, *faults)
        took = wait_until(lambda: node in self.demoted(), WITHIN * EPOCH)
        must(took is not None, f"{node} is not demoted within {WITHIN} epochs")
        time.sleep(EPOCH)
        known = time.monotonic()
        time.sleep(EPOCH)
        # On a machine with more to do than it can, an honest node may be late too.
        others = self.demoted() - {node}
        must(len(others) <= 1, f"others are demoted: {others}")
        self.net.kill(node)
        self.start(node)
        asked, slowest, wrong = self.asking.since(began)
        after, _, failed = self.asking.since(known)
        must(not failed and after, f"{len(failed)} of {after} requests failed after clients knew: {failed[:3]}")
        text = (
            f"demoted after {took / EPOCH:.1f} epochs; {asked} requests, slowest {slowest:.1f} s, {len(wrong)} failed while nobody "
            f"knew; others demoted: {sorted(others) or 'none'}"
        )
        if self.run.quick:
            return text
        restored = wait_until(lambda: node not in self.demoted(), RESTORED * EPOCH)
        must(restored is not None, f"it behaves, and is not restored within {RESTORED} epochs; {text}")
        return f"{text}; restored {restored / EPOCH:.1f} epochs after it behaved"

    def gateway(self):
        """What clients send, and not what services do."""
        client = (self.net.dir / "client-1/client.toml").read_text()
        gateways = re.findall(r'^identity = "([a-z2-7]{52})"', client, re.MULTILINE)
        nodes = {node["identity"]: node["operator"] for node in self.shown("authority-1")["nodes"]}
        corrupt, other = (nodes[gateway].removeprefix("operator of ") for gateway in gateways)
        # With the other one gone it has no choice; and it does not remember which it left before, when all mixes were new.
        for name in (corrupt, other, "client-1"):
            self.net.kill(name)
        self.start(corrupt, "--drop-share", 1, "--drop-clients")
        self.start("client-1")
        must(wait_until(lambda: self.at() == "first", 60) is not None, f"it does not come: {self.why('client-1')}")
        began = time.monotonic()
        self.start(other)
        left = wait_until(lambda: self.at() == "second", 120)
        must(left is not None, f"it stays: {self.net.status('client-1')}")
        works = wait_until(lambda: any(wrong is None for at, _, wrong in list(self.asking.ended) if at >= began + left), 60)
        must(works is not None, "nothing works at the second gateway")
        return f"left after {left:.0f} s, a request worked after {left + works:.0f} s"

    def at(self):
        try:
            return self.net.status("client-1").get("gateway")
        except (OSError, ValueError):
            return None


def rotations(run, check):
    """A localnet with four authorities and epochs of ten seconds, used all the time: ten minutes, or two."""
    check("12 epochs of ten seconds: no request fails, memory and disk are flat", soak, run)


def soak(run):
    seconds = 120 if run.quick else 600
    directory = scratch()
    net = Localnet(run.binaries, "--epoch", EPOCH, "--clients", 2, "--log", "info", directory=directory / "net")
    asking = None
    try:
        asking, began = Asking(net.socks[0], run.web.port), time.monotonic()
        asking_long = Downloads(net.socks[1 % len(net.socks)], run.web.port)
        third = []
        for part in (1, 2, 3):
            end = began + part * seconds / 3
            peaks = {}
            while time.monotonic() < end:
                for name, pid in net.pids().items():
                    peaks[name] = max(peaks.get(name, 0), rss_mb(pid))
                peaks["disk"] = max(peaks.get("disk", 0), disk_mb(net.dir))
                time.sleep(1)
            third.append(peaks)
        asking.stop()
        asking_long.stop()
        status = query(net.daemons["authority-1"]["control"])
        asked, slowest, wrong = asking.since(began)
        files, cut = asking_long.ended
    finally:
        if asking:
            asking.stopped.set()
        net.stop(keep=True)
        shutil.rmtree(directory, ignore_errors=True)
    must(not wrong, f"{len(wrong)} of {asked} requests failed: {wrong[:3]}")
    must(not cut and files, f"{len(cut)} of {files} downloads did not end: {cut[:3]}")
    must(status["votes"]["liars"] == [] and status["votes"]["trouble"] is None, f"{status}")
    grown = {name: third[2][name] - third[1][name] for name in third[2]}
    worst = max(grown, key=grown.get)
    text = (
        f"{seconds} s, {asked} requests, slowest {slowest:.1f} s, {files} downloads of 2 MB, none failed; the largest growth "
        f"from the second third to the last: {worst} {grown[worst]:.1f} MB of {third[2][worst]:.1f}"
    )
    # Tag logs and replay tables of the epochs that live are as large as their traffic.
    loose = [name for name, mb in grown.items() if mb > max(4, 0.1 * third[1][name])]
    if loose:
        raise Failed(f"not flat: {[(name, third[1][name], third[2][name]) for name in loose]}; {text}")
    return text


class Downloads:
    """Files of 2 MB one after the other: each takes longer than an epoch."""

    def __init__(self, proxy, port):
        self.proxy, self.port, self.ended, self.stopped = proxy, port, [0, []], threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopped.is_set():
            self.ended[0] += 1
            try:
                body = socks.get(self.proxy, "127.0.0.1", self.port, "/bytes/2000000", user="long", timeout=50)
                if body != servers.body(2_000_000):
                    self.ended[1].append(f"{len(body)} bytes, or others")
            except (OSError, EOFError) as error:
                self.ended[1].append(str(error) or type(error).__name__)

    def stop(self):
        self.stopped.set()
        self.thread.join(120)


def disk_mb(directory):
    total = 0
    for path in Path(directory).rglob("*"):
        try:
            if path.is_file() and not path.name.endswith(".log"):
                total += path.stat().st_size
        except OSError:
            continue
    return total / 1e6


def authorities(run, check):
    spaces = None
    try:
        spaces = Namespaces()
        for n in (1, 2, 3, 4):
            spaces.host(f"authority-{n}")
    except Skip as why:
        if spaces:
            spaces.remove()
        reason = why
        check("12 authorities in network namespaces", lambda: (_ for _ in ()).throw(reason))
        return
    try:
        Authorities(run, spaces).all(check)
    finally:
        spaces.remove()
