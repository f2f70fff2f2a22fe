#!/usr/bin/env python3
"""P2 on the real daemons: does the link of a client show whether its user is busy?

Client X reaches its gateway through a relay that writes down when each frame passes. In turns, X downloads, and
another client of the same gateway downloads the same, so that the machine has equal work. The gaps between the
frames of X and their autocorrelation must not be told apart at alpha = .001, in either direction: the distance of
Kolmogorov and Smirnov, and the largest difference of autocorrelations, both by exchanging blocks between the two
conditions (gaps are not independent, so the textbook laws of either do not hold). In classes web and call.

    scripts/lib/noninterference.py [--frames 10000] [--class web] [--profile release]
"""

import argparse
import bisect
import itertools
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import servers
import socks
from localnet import Binaries, Localnet, address, query, scratch
from report import Report, must, wait_until

ALPHA = 0.001
FRAME = 2400
BLOCK_S = 20
SETTLE_S = 3
LAGS = 10
PERMUTATIONS = 4000
LEAST_BLOCKS = 8


class Relay:
    """Forwards TCP and keeps the instant of each frame's end, by direction."""

    def __init__(self, to):
        self.to = to
        self.frames = {"up": [], "down": []}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection(self.to)
            threading.Thread(target=self.forward, args=(near, far), daemon=True).start()

    def forward(self, near, far):
        for s in (near, far):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ways = {near: (far, Records(self.frames["up"])), far: (near, Records(self.frames["down"]))}
        while True:
            for s in select.select([near, far], [], [])[0]:
                try:
                    data = s.recv(1 << 16)
                    now = time.monotonic_ns()
                    if not data:
                        raise OSError
                    other, records = ways[s]
                    other.sendall(data)
                except OSError:
                    near.close()
                    far.close()
                    return
                records.feed(now, data)


class Records:
    """Finds the ends of TLS records that hold a frame."""

    def __init__(self, instants):
        self.instants, self.rest, self.tls = instants, b"", False

    def feed(self, now, data):
        data = self.rest + data
        if not self.tls:
            at = data.find(b"\x16\x03")
            if at < 0:
                self.rest = data
                return
            data, self.tls = data[at:], True
        while len(data) >= 5:
            n = 5 + struct.unpack(">H", data[3:5])[0]
            if len(data) < n:
                break
            if data[0] == 23:
                # Several frames of one record pass at one instant.
                self.instants.extend([now] * (n // FRAME))
            data = data[n:]
        self.rest = data


CELLS = 200


def histogram(block, edges):
    """How many gaps of a block lie between each two edges."""
    counts = [0] * (len(edges) + 1)
    for gap in block:
        counts[bisect.bisect_left(edges, gap)] += 1
    return counts


def kolmogorov_smirnov(a, b, dice):
    """(largest distance, p) of the laws of two samples of blocks, by exchanging blocks between the conditions.

    Gaps of one block are not independent: on a loaded machine all of a block are, so the asymptotic law of the distance,
    which takes them as if they were, finds differences between blocks of one condition. The distance is taken at the
    quantiles of all gaps together."""
    pooled = sorted(gap for block in a + b for gap in block)
    edges = sorted({pooled[i * (len(pooled) - 1) // CELLS] for i in range(CELLS + 1)})
    all_ = [histogram(block, edges) for block in a + b]

    def distance(blocks):
        laws = []
        for side in (blocks[: len(a)], blocks[len(a) :]):
            counts = [sum(column) for column in zip(*side)]
            laws.append([running / sum(counts) for running in itertools.accumulate(counts)])
        return max(abs(x - y) for x, y in zip(*laws))

    found, beyond = distance(all_), 1
    for _ in range(PERMUTATIONS):
        dice.shuffle(all_)
        beyond += distance(all_) >= found - 1e-12
    return found, beyond / (PERMUTATIONS + 1)


def moments(gaps):
    """What the autocorrelation of a block adds to a sum: count, sum, and products at each lag, about a fixed centre."""
    products = [sum(x * y for x, y in zip(gaps, gaps[lag:])) for lag in range(LAGS + 1)]
    return [len(gaps), sum(gaps), *products]


def autocorrelation(blocks):
    total = [sum(column) for column in zip(*blocks)]
    count, mean = total[0], total[1] / total[0]
    variance = total[2] / count - mean**2
    # Blocks are short of `lag` products each; the mean of each product is taken over those that there are.
    return [
        (total[2 + lag] / (count - lag * len(blocks)) - mean**2) / variance for lag in range(1, LAGS + 1)
    ]


def permuted(a, b, dice):
    """(largest difference of autocorrelation, p) by exchanging blocks between the two conditions."""
    # About the common median, so that products do not lose their digits.
    centre = sorted(gap for block in a + b for gap in block)[sum(map(len, a + b)) // 2]
    all_ = [moments([gap - centre for gap in block]) for block in a + b]

    def difference(blocks):
        left, right = autocorrelation(blocks[: len(a)]), autocorrelation(blocks[len(a) :])
        return max(abs(x - y) for x, y in zip(left, right))

    found, beyond = difference(all_), 1
    for _ in range(PERMUTATIONS):
        dice.shuffle(all_)
        beyond += difference(all_) >= found
    return found, beyond / (PERMUTATIONS + 1)


def compare(a, b):
    """a, b: lists of blocks of gaps. Text and whether they are not told apart."""
    flat = [[gap for run in side for gap in run] for side in (a, b)]
    # Recorded blocks are exchanged whole. Made-up gaps that come as one run, without a load that changes, are cut.
    if min(len(a), len(b)) < LEAST_BLOCKS:
        a, b = ([run[i : i + 250] for run in side for i in range(0, len(run) - 249, 250)] for side in (a, b))
    d, p = kolmogorov_smirnov(a, b, random.Random(2))
    r, q = permuted(a, b, random.Random(1))
    mean = [sum(side) / len(side) for side in flat]
    text = (
        f"{len(flat[0])} and {len(flat[1])} gaps, means {mean[0]:.3f} and {mean[1]:.3f} ms; KS D = {d:.4f}, p = {p:.3g}; "
        f"autocorrelation differs by {r:.3f}, p = {q:.3g}"
    )
    return text, p >= ALPHA and q >= ALPHA


def control():
    """The comparison sees what it should, and only that, on gaps that are made up."""
    dice = random.Random(3)

    def poisson(mean):
        return [[dice.expovariate(1 / mean) for _ in range(10_000)]]

    def grid(delay):
        """Fixed instants with jitter; every tenth frame comes `delay` ms late."""
        at = [9.09 * n + dice.gauss(0, 0.2) + (delay if n % 10 == 0 else 0) for n in range(10_001)]
        return [[after - before for before, after in zip(at, at[1:])]]

    alike = [compare(poisson(20), poisson(20)), compare(grid(0), grid(0))]
    must(all(same for _, same in alike), f"one law is told apart: {alike}")
    apart = [compare(poisson(20), poisson(18)), compare(grid(0), grid(0.5))]
    must(not any(same for _, same in apart), f"two laws are not told apart: {apart}")
    def drifting():
        """Blocks of a machine whose load changes: within each all gaps are longer or shorter, by the same law for both."""
        blocks = []
        for _ in range(12):
            lag = dice.expovariate(3)
            blocks.append([9.09 + lag * dice.random() for _ in range(2_000)])
        return blocks

    alike = [compare(drifting(), drifting()) for _ in range(3)]
    must(all(same for _, same in alike), f"changing load is taken for a difference: {alike}")
    # The same gaps in another order: only their autocorrelation tells.
    gaps = grid(0)[0]
    mixed = dice.sample(gaps, len(gaps))
    must(not compare([gaps], [mixed])[1], "order is not seen")
    return "one law, and changing load, are not told apart; 10 % of rate, 0.5 ms in every tenth frame, and order are"


def load(proxy, port, stop):
    """Downloads until told to stop."""
    while not stop.is_set():
        try:
            with socks.connect(proxy, "127.0.0.1", port, user="load") as s:
                s.sendall(b"GET /bytes/50000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                s.settimeout(5)
                while not stop.is_set() and s.recv(1 << 16):
                    pass
        except (OSError, EOFError):
            time.sleep(0.2)


def measure(binaries, frames, class_):
    web = servers.Web()
    servers.body(50_000_000)
    directory = scratch()
    net = Localnet(binaries, "--clients", 1, "--class", class_, directory=directory)
    x = None
    try:
        gateway = net.daemons["gateway-1"]
        relay = Relay(address(gateway["listen"]))
        config = Path(net.daemons["client-1"]["config"])
        ports = []
        for _ in range(2):
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                ports.append(s.getsockname()[1])
        text = config.read_text()
        text = text.replace(gateway["listen"], f"127.0.0.1:{relay.port}")
        text = text.replace("%s:%d" % net.socks[0], f"127.0.0.1:{ports[0]}")
        text = text.replace(net.daemons["client-1"]["admin"], f"127.0.0.1:{ports[1]}")
        home = directory / "client-x"
        subprocess.run([binaries.client, "init", str(home)], stdout=subprocess.DEVNULL, check=True)
        (home / "client.toml").write_text(text)
        x = subprocess.Popen([binaries.client, "run", "-c", str(home / "client.toml")], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        control_socket = wait_until(lambda: list(home.rglob("control.sock")), 10) is not None and next(home.rglob("control.sock"))
        must(control_socket, "X made no control socket")
        must(wait_until(lambda: query(control_socket).get("ready") is True, 20) is not None, f"X is not ready: {query(control_socket)}")
        busy = ("127.0.0.1", ports[0])
        gaps = {(way, who): [] for way in ("up", "down") for who in ("X", "other")}
        order, n = ["X", "other", "other", "X"], 0
        while min(sum(map(len, gaps["up", who])) for who in ("X", "other")) < frames or n % 4:
            who, n = order[n % 4], n + 1
            stop = threading.Event()
            thread = threading.Thread(target=load, args=(busy if who == "X" else net.socks[0], web.port, stop))
            thread.start()
            time.sleep(SETTLE_S)
            starts = {way: len(instants) for way, instants in relay.frames.items()}
            time.sleep(BLOCK_S)
            for way, instants in relay.frames.items():
                part = instants[starts[way] :]
                gaps[way, who].append([(after - before) / 1e6 for before, after in zip(part, part[1:])])
            stop.set()
            thread.join()
            time.sleep(1)
            must(sum(map(len, gaps["up", who])) > 100, "no frames pass")
        moved = query(control_socket)["slots"]["data"]
        must(moved > 100, "X did not download anything")
        return gaps
    finally:
        if x:
            x.terminate()
            x.wait(10)
        net.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000, help="gaps of each condition, in the slower direction")
    parser.add_argument("--class", action="append", dest="classes", help="only this class; may be repeated")
    parser.add_argument("--profile", default="release")
    args = parser.parse_args()
    report, gaps = Report(), {}
    report.check("P2 the comparison itself", control)

    def run(class_):
        gaps[class_] = found = measure(Binaries(args.profile), args.frames, class_)
        return f"{len(found['up', 'X'])} blocks of {BLOCK_S} s for each condition"

    def told_apart(class_, way):
        text, alike = compare(gaps[class_][way, "X"], gaps[class_][way, "other"])
        must(alike, text)
        return text

    for class_ in args.classes or ["web", "call"]:
        report.check(f"P2 recorded, class {class_}", run, class_)
        for way in ("up", "down"):
            if class_ in gaps:
                report.check(f"P2 frames {way}, class {class_}: busy and idle are not told apart", told_apart, class_, way)
    sys.stdout.flush()
    os._exit(report.end())


if __name__ == "__main__":
    main()
