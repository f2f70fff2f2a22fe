"""Targets that do not answer, and input that nobody should send."""

import os
import random
import resource
import select
import socket
import struct
import threading
import time
import urllib.error

import procs
import socks
from localnet import address, samples
from report import must

GRACE = 3  # seconds that a round trip through the mixnet may take on top of a stated time


class Misuse:
    def __init__(self, run):
        self.run, self.net, self.quick = run, run.net, run.quick
        self.proxy = run.net.socks[0]
        self.random = random.Random(2)

    def all(self, check):
        for name, host, port, codes, within in self.targets():
            check(f"6 target {name}", self.target, host, port, codes, within)
        check("6 target that does not answer", self.silent)
        check("6 a .shoal address of nobody", self.nobody)
        check("6 HTTP spoken to the SOCKS port", self.http)
        check("6 malformed SOCKS", self.malformed)
        check("6 half-open connections", self.half_open)
        check("6 idle connections", self.idle)
        check("7 rubbish to every node's link port", self.rubbish, "link")
        check("7 rubbish to every admin port", self.rubbish, "admin")
        check("7 rubbish to the SOCKS port", self.rubbish, "socks")
        check("7 all daemons live on and a page arrives", self.all_live)

    def works(self):
        body = socks.get(self.proxy, "127.0.0.1", self.run.web.port, timeout=30)
        must(body, "an empty page")

    def targets(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            closed = s.getsockname()[1]
        yield "refused", "127.0.0.1", closed, {5}, GRACE
        yield "whose name does not exist", "missing.exit-only.example", 80, {4}, 5 + GRACE
        yield "whose resolver is silent", "silent.exit-only.example", 80, {4, 6}, 5 + GRACE
        yield "forbidden: port 25", "public.exit-only.example", 25, {2}, GRACE
        yield "forbidden: a private address", "10.0.0.1", 80, {2}, GRACE
        yield "forbidden: a name with a private address", "private.exit-only.example", 80, {2}, GRACE
        # Where this machine has no IPv6, nor has the exit.
        with socket.socket(socket.AF_INET6) as s:
            s.settimeout(2)
            try:
                s.connect(("2606:4700::6810:84e5", 81))
                codes = {0}
            except TimeoutError:
                codes = {6, 5, 4, 3}
            except OSError as error:
                codes = {101: {3}, 113: {4}, 111: {5}}.get(error.errno, {3, 4})
        yield "unreachable", "2606:4700::6810:84e5", 81, codes, 10 + GRACE

    def target(self, host, port, codes, within):
        began = time.monotonic()
        code, _, s = socks.request(self.proxy, socks.CONNECT, host, port, timeout=45)
        took = time.monotonic() - began
        s.close()
        said = f"reply {code} ({socks.NAMES.get(code)}) after {took:.2f} s"
        must(code in codes and took <= within, f"{said}; wanted {sorted(codes)} within {within} s")
        return said

    def silent(self):
        """A listener whose queue is full drops every SYN."""
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            held = []
            for _ in range(4):
                s = socket.socket()
                s.setblocking(False)
                s.connect_ex(full.getsockname())
                held.append(s)
            time.sleep(0.2)
            try:
                return self.target("127.0.0.1", full.getsockname()[1], {6}, 10 + GRACE)
            finally:
                for s in held:
                    s.close()

    def nobody(self):
        identity, gateway, _ = self.net.service[0].split(".")
        wrong = identity[:-1] + ("a" if identity[-1] != "a" else "b")
        return self.target(f"{wrong}.{gateway}.shoal", 80, {4}, GRACE)

    def http(self):
        with socket.create_connection(self.proxy, timeout=10) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            page = b""
            while more := s.recv(1 << 16):
                page += more
        must(page.startswith(b"HTTP/1.") and b"SOCKS" in page and b"<html" in page, f"{page[:100]!r}")
        return page.split(b"\r\n")[0].decode()

    def tally(self):
        return self.net.status("client-1")["requests"]

    def malformed(self):
        before = self.tally()["malformed"]
        bad = [
            b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b"\x05\x00", b"\x05\x01\x01", b"\x05\x01\x00\x05\x09\x00\x01" + bytes(6),
            b"\x05\x01\x00\x05\x01\x00\x07", b"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50", b"\x05\x01\x02\x01\x00", b"\x05\x01\x02\x07",
            b"\x16\x03\x01\x02\x00", b"\x05\x01\x00\x05\x02\x00\x01" + bytes(6), b"\x05\x01\x00\x05\x01\x00\x03\x04a\0b\xff\0\x50",
        ]
        closed = 0
        for data in bad:
            with socket.create_connection(self.proxy, timeout=25) as s:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                try:
                    while s.recv(4096):
                        pass
                    closed += 1
                except ConnectionResetError:
                    closed += 1
                except TimeoutError:
                    pass
        time.sleep(1)
        counted = self.tally()["malformed"] - before
        must(closed == len(bad) and counted >= len(bad) - 4, f"{closed} of {len(bad)} closed, {counted} counted")
        self.works()
        return f"{len(bad)} of {len(bad)} closed, {counted} counted as malformed; a page still arrives"

    def half_open(self):
        held = []
        for n in range(100):
            s = socket.create_connection(self.proxy, timeout=5)
            s.sendall((b"\x05", b"\x05\x01", b"\x05\x01\x00\x05\x01", b"\x05\x02\x00")[n % 4])
            held.append(s)
        self.works()
        began, left = time.monotonic(), set(held)
        while left and time.monotonic() - began < 25:
            for s in select.select(list(left), [], [], 1)[0]:
                try:
                    more = s.recv(64)
                except OSError:
                    more = b""
                if not more:
                    left.discard(s)
                    s.close()
        for s in left:
            s.close()
        must(not left, f"{len(left)} of 100 still open after 25 s")
        return f"100 closed by the client within {time.monotonic() - began:.0f} s; a page arrived meanwhile"

    def idle(self):
        count = 500 if self.quick else 5000
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        count = min(count, hard - 500)
        pid = self.net.daemons["client-1"]["pid"]
        before, held = procs.rss_mb(pid), []
        try:
            for _ in range(count):
                held.append(socket.create_connection(self.proxy, timeout=10))
            time.sleep(1)
            full = procs.rss_mb(pid)
            began = time.monotonic()
            self.works()
            took = time.monotonic() - began
        finally:
            for s in held:
                s.close()
        time.sleep(2)
        after = procs.rss_mb(pid)
        said = f"{count} idle: client's memory {before:.0f} -> {full:.0f} -> {after:.0f} MB, a page in {took:.1f} s"
        must(full - before < 20 + count * 0.03 and full < 400, said)
        return said

    def blobs(self):
        rand = self.random.randbytes
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rand(507)
        agree = b"\x13/multistream/1.0.0\n"
        yield rand(1)
        yield rand(100)
        yield rand(2400)
        yield rand(1 << 20)
        yield bytes(1 << 16)
        yield hello
        yield hello[:40]
        yield agree
        yield agree + b"\x10/shoal/tls-pq/1\n"
        yield agree + b"\x10/shoal/tls-pq/1\n" + hello
        yield agree + b"\x10/shoal/tls-pq/1\n" + b"\x17\x03\x03\x40\x00" + rand(0x4000)
        yield agree + b"\x07/noise\n"
        yield b"\xff\xff\xff\xff\x0f" + rand(1000)
        yield b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"
        yield b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5_000
        yield b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n"
        yield b"\x05\xff" + bytes(255) + rand(2000)
        yield b"\x05\x01\x00\x05\x01\x00\x03\xff" + b"a" * 255 + b"\0\x50" + rand(70_000)

    def throw(self, at, data):
        try:
            with socket.create_connection(at, timeout=3) as s:
                s.settimeout(1)
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                while s.recv(1 << 16):
                    pass
        except OSError:
            pass

    def counters(self):
        total = 0.0
        for name, node in self.net.daemons.items():
            if node["kind"] == "node":
                found = samples(self.net.metrics(name))
                total += sum(found.get(f"shoal_node_link_{what}_total", 0) for what in
                             ("handshake_failures", "refused_peers", "refused_connections", "accept_errors"))
        return total

    def rubbish(self, where):
        nodes = self.net.daemons.values()
        if where == "link":
            places = [address(node["listen"]) for node in nodes if node["kind"] == "node"]
        elif where == "admin":
            places = [address(node["admin"]) for node in nodes]
        else:
            places = [self.proxy]
        rss = {name: procs.rss_mb(pid) for name, pid in self.net.pids().items()}
        before, malformed = self.counters(), self.tally()["malformed"]
        blobs = list(self.blobs())

        def at(place):
            threads = [threading.Thread(target=self.throw, args=(place, data)) for data in blobs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        workers = [threading.Thread(target=at, args=(place,)) for place in places]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        time.sleep(1.5)
        dead = [name for name in self.net.daemons if not self.net.live(name)]
        must(not dead, f"not live any more: {dead}")
        grown = max(procs.rss_mb(pid) - rss[name] for name, pid in self.net.pids().items())
        must(grown < 60, f"a daemon grew by {grown:.0f} MB")
        counted = ""
        if where == "link":
            more = self.counters() - before
            must(more >= len(places) * 8, f"only {more:.0f} counted of {len(places) * len(blobs)}")
            counted = f", {more:.0f} counted"
        elif where == "socks":
            more = self.tally()["malformed"] - malformed
            must(more >= 8, f"only {more} counted as malformed of {len(blobs)}")
            counted = f", {more} counted as malformed"
        return f"{len(blobs)} kinds to {len(places)} listeners{counted}; most memory gained {grown:.1f} MB"

    def all_live(self):
        dead = [name for name in self.net.daemons if not self.net.live(name)]
        must(not dead, f"{dead}")
        self.works()
        return f"{len(self.net.daemons)} of {len(self.net.daemons)}"
