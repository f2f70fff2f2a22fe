"""The main job: pages, files, names, the internal service, UDP, a browser, through one localnet."""

import hashlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import procs
import servers
import socks
from browser import chromium
from report import Failed, Skip, must, wait_until


def install(command, package):
    """The path of a command; Debian's package of it is installed when it is missing and we may."""
    if not shutil.which(command) and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        subprocess.run(["apt-get", "update", "-qq"], **quiet, check=False)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], **quiet, env=env, check=False)
    return shutil.which(command)


def curl(proxy, url, *options, timeout=60):
    """(exit code, body) of curl through the proxy, which also resolves the name."""
    command = ["curl", "-sS", "-f", "--max-time", str(timeout), "-x", f"socks5h://{proxy[0]}:{proxy[1]}", *options, url]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


class Basics:
    def __init__(self, run):
        self.run, self.net, self.quick = run, run.net, run.quick
        self.proxy = run.net.socks[0]
        self.web = f"http://127.0.0.1:{run.web.port}"

    def all(self, check):
        check("1 localnet is ready in under 10 s", self.is_ready)
        check("1 the line of JSON says what the issue wants", self.json_fields)
        check("2 curl fetches a page", self.page)
        check("2 fetches in a row", self.in_a_row)
        check("2 fetches at once", self.at_once)
        check("2 a file down, SHA-256", self.down)
        check("2 a file up, SHA-256", self.up)
        check("2 the internal service answers", self.service)
        check("2 a name that only the exit can resolve", self.name)
        check("2 two user names have tunnels of their own", self.isolation)
        check("5 UDP ASSOCIATE carries DNS", self.udp)
        check("5 RESOLVE and RESOLVE_PTR", self.resolve)
        check("5 curl under torsocks reaches the service", self.torsocks)
        check("3 Chromium: 40 assets and a WebSocket", self.chromium)

    def is_ready(self):
        seconds = self.net.info["seconds"]
        must(seconds < 10, f"{seconds} s")
        return f"{seconds} s"

    def json_fields(self):
        info = self.net.info
        must(info["ready"] is True and isinstance(info["seconds"], (int, float)), f"{info}")
        must(len(info["socks"]) == 2 and all(re.fullmatch(r"127\.0\.0\.1:\d+", at) for at in info["socks"]), f"{info['socks']}")
        must(re.fullmatch(r"[a-z0-9]+\.[a-z0-9]+\.shoal:\d+", info["service"]), info["service"])
        names = sorted(node["name"] for node in info["nodes"])
        expected = ["client-1", "client-2", "exit", "service"] + [f"gateway-{n}" for n in (1, 2, 3, 4)]
        expected += [f"mix-{layer}-{n}" for layer in (1, 2, 3) for n in (1, 2)]
        expected += [f"authority-{n}" for n in (1, 2, 3, 4)]
        must(names == sorted(expected), f"{names}")
        must(all(procs.alive(node["pid"]) for node in info["nodes"]), "a daemon has no process")
        return f"{len(names)} daemons, each a process"

    def page(self):
        code, body = curl(self.proxy, self.web + "/")
        must(code == 0 and servers.MARK.encode() in body, f"curl {code}: {body[:200]!r}")

    def in_a_row(self):
        count, times = (20 if self.quick else 200), []
        for n in range(count):
            began = time.monotonic()
            code, body = curl(self.proxy, f"{self.web}/row/{n}")
            must(code == 0 and servers.MARK.encode() in body, f"fetch {n + 1} of {count}: curl {code}: {body[:200]!r}")
            times.append(time.monotonic() - began)
        times.sort()
        return f"{count} of {count}, median {times[count // 2]:.2f} s, slowest {times[-1]:.2f} s"

    def at_once(self):
        with ThreadPoolExecutor(50) as pool:
            began = time.monotonic()
            done = list(pool.map(lambda n: curl(self.proxy, f"{self.web}/once/{n}"), range(50)))
        bad = [done[n] for n in range(50) if done[n][0] or servers.MARK.encode() not in done[n][1]]
        must(not bad, f"{len(bad)} of 50 failed, the first: curl {bad[:1]}")
        return f"50 of 50 in {time.monotonic() - began:.1f} s"

    def size(self):
        return 2_000_000 if self.quick else 20_000_000

    def down(self):
        began = time.monotonic()
        code, body = curl(self.proxy, f"{self.web}/bytes/{self.size()}", timeout=600)
        took = time.monotonic() - began
        must(code == 0, f"curl {code}: {body[:200]!r} after {took:.0f} s")
        wanted = hashlib.sha256(servers.body(self.size())).hexdigest()
        got = hashlib.sha256(body).hexdigest()
        must(got == wanted, f"{len(body)} bytes, {got[:16]} instead of {wanted[:16]}")
        return f"{self.size()} bytes, {self.size() / took / 1000:.0f} kB/s"

    def up(self):
        data = servers.body(self.size(), b"up")
        with tempfile.NamedTemporaryFile() as f:
            f.write(data)
            f.flush()
            began = time.monotonic()
            code, body = curl(self.proxy, self.web + "/upload", "-H", "Expect:", "--data-binary", f"@{f.name}", timeout=1200)
        took = time.monotonic() - began
        must(code == 0, f"curl {code}: {body[:200]!r} after {took:.0f} s")
        must(body.decode() == hashlib.sha256(data).hexdigest(), f"the server saw {body[:80]!r}")
        return f"{self.size()} bytes, {self.size() / took / 1000:.0f} kB/s"

    def service(self):
        host, port = self.net.service
        code, body = curl(self.proxy, f"http://{host}:{port}/")
        must(code == 0 and b"Shoal" in body, f"curl {code}: {body[:200]!r}")

    def name(self):
        """Resolved by the exit's process alone; the client makes no socket but those for SOCKS and its link."""
        pid, dns = self.net.daemons["client-1"]["pid"], self.run.dns
        try:
            socket.getaddrinfo(servers_name(0), 80)
            raise Skip(f"this machine itself resolves {servers_name(0)}")
        except socket.gaierror:
            pass
        procs.must_see(pid, self.net.daemons["exit"]["pid"])
        seen, stop = [], threading.Event()

        def sample():
            while not stop.is_set():
                seen.extend(procs.udp_sockets(pid))
                time.sleep(0.002)

        thread = threading.Thread(target=sample)
        thread.start()
        calls, tracer, first = None, None, len(dns.queries)
        if shutil.which("strace"):
            calls = tempfile.NamedTemporaryFile("r")
            tracer = subprocess.Popen(
                ["strace", "-f", "-qq", "-e", "trace=socket,connect,sendto,sendmsg,sendmmsg", "-e", "signal=none",
                 "-o", calls.name, "-p", str(pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            time.sleep(1)
        try:
            for n in range(5):
                code, body = curl(self.proxy, f"http://{servers_name(n)}:{self.run.web.port}/")
                must(code == 0 and servers.MARK.encode() in body, f"curl {code}: {body[:200]!r}")
        finally:
            stop.set()
            thread.join()
            if tracer:
                tracer.terminate()
                tracer.wait()
        asked = dns.queries[first:]
        # A second query of a name, for another kind of address, may be given up before it was looked whose it is.
        owners = {owner for _, _, _, owner in asked}
        of_exit = {name for name, _, _, owner in asked if owner == "exit"}
        must(asked and owners <= {"exit", None}, f"{len(asked)} queries, from {owners}")
        must(of_exit == {name for name, *_ in asked}, f"of {len(asked)} queries some came from nobody who is known")
        must(not seen, f"the client had UDP sockets: {seen[:3]}")
        traced = "no strace here"
        if calls:
            lines = calls.read().splitlines()
            must(lines, "strace saw no system call of the client, which answered five requests")
            bad = [line for line in lines if re.search(r"SOCK_DGRAM|htons\(53\)|nscd|AF_NETLINK", line)]
            must(not bad, f"the client's system calls: {bad[:2]}")
            traced = f"{len(lines)} socket calls of the client traced: none for a resolver"
        return f"{len(asked)} queries, all from the exit's process; {traced}"

    def isolation(self):
        def tunnels():
            return self.net.status("client-1")["tunnels"]["connected"]

        before, exits = tunnels(), self.net.status("exit")["tunnels"]
        for user in ("isolated one", "isolated two", "isolated one"):
            socks.get(self.proxy, "127.0.0.1", self.run.web.port, user=user)
        time.sleep(1)
        client, exit_ = tunnels() - before, self.net.status("exit")["tunnels"] - exits
        must(client == 2 and exit_ == 2, f"{client} new tunnels at the client, {exit_} at the exit, for 2 user names")
        return "3 requests of 2 user names: 2 new tunnels at both ends"

    def udp(self):
        dns = self.run.dns
        procs.must_see(self.net.daemons["exit"]["pid"])
        code, relay, control = socks.request(self.proxy, socks.UDP, "0.0.0.0", 0)
        must(code == 0, f"reply {code}")
        first, answers, times = len(dns.queries), 0, []
        with control, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(5)
            for n in range(10):
                query = servers.question(servers_name(n), number=0x1000 + n)
                packet = b"\0\0\0" + socks.pack("127.0.0.1", dns.port) + query
                for _ in range(3):  # UDP promises nothing
                    began = time.monotonic()
                    s.sendto(packet, relay)
                    try:
                        reply, _ = s.recvfrom(4096)
                    except TimeoutError:
                        continue
                    if reply[10:12] == query[:2] and socket.inet_aton("127.0.0.1") in reply[22:]:
                        answers += 1
                        times.append(time.monotonic() - began)
                        break
        owners = {owner for _, _, _, owner in dns.queries[first:]}
        must(answers == 10 and owners == {"exit"}, f"{answers} of 10 answered, queries from {owners}")
        return f"10 of 10 answered, all by way of the exit, median {sorted(times)[5] * 1000:.0f} ms"

    def resolve(self):
        code, at, s = socks.request(self.proxy, socks.RESOLVE, servers_name(1), 0)
        s.close()
        must(code == 0 and at[0] == "127.0.0.1", f"RESOLVE: reply {code}, {at}")
        code, at, s = socks.request(self.proxy, socks.RESOLVE, "public.exit-only.example", 0)
        s.close()
        must(code == 0 and at[0] == "93.184.216.34", f"RESOLVE: reply {code}, {at}")
        code, at, s = socks.request(self.proxy, socks.RESOLVE_PTR, "93.184.216.34", 0)
        s.close()
        must(code == 0 and at[0].rstrip(".") == "reverse.exit-only.example", f"RESOLVE_PTR: reply {code}, {at}")
        return f"93.184.216.34 <-> {at[0]}"

    def torsocks(self):
        """A program that knows no proxy: its look-ups become RESOLVE, and its connections CONNECT to what that gave."""
        if not install("torsocks", "torsocks"):
            raise Skip("torsocks is missing")
        host, port = self.net.service
        command = ["torsocks", "-a", self.proxy[0], "-P", str(self.proxy[1]), "curl", "-sS", "-f", "--max-time", "60"]
        done = subprocess.run([*command, f"http://{host}:{port}/"], capture_output=True, text=True, check=False)
        must(done.returncode == 0 and "Shoal" in done.stdout, f"{done.returncode}: {done.stdout[:100]!r} {done.stderr[-300:]!r}")

    def chromium(self):
        browser = chromium() or install("chromium", "chromium")
        if not browser:
            if self.quick:
                raise Skip("no chromium, and it cannot be installed")
            raise Failed("no chromium, and it cannot be installed")
        web = self.run.web
        reports, assets, echoes = len(web.reports), web.assets, web.websockets
        with tempfile.TemporaryDirectory() as profile:
            command = [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", "--remote-debugging-port=0",  # else a headless one ends with the page's first events
                f"--user-data-dir={profile}", f"--proxy-server=socks5://{self.proxy[0]}:{self.proxy[1]}",
                "--proxy-bypass-list=<-loopback>", f"http://{servers_name(2)}:{web.port}/assets",
            ]
            began = time.monotonic()
            with tempfile.TemporaryFile() as said:
                child = subprocess.Popen(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True)
                try:
                    wait_until(lambda: len(web.reports) > reports or child.poll() is not None, 90)
                    took = time.monotonic() - began
                finally:
                    # Its own session: the browser's helpers end with it.
                    try:
                        os.killpg(child.pid, 9)
                    except ProcessLookupError:
                        pass
                    child.wait()
                said.seek(0)
                text = said.read().decode(errors="replace").strip().splitlines()
        got = web.reports[reports:]
        seen = f"{web.assets - assets} assets served, {web.websockets - echoes} echoes"
        must(got, f"the page reported nothing in {took:.0f} s; {seen}; the browser: {text[-2:]}")
        wanted = f"loaded {sum(10 + n for n in range(servers.ASSETS))} through the mixnet"
        must(got[-1] == wanted and web.assets - assets >= servers.ASSETS, f"the page reported {got[-1]!r}; {seen}")
        return f"{servers.ASSETS} assets and a WebSocket echo in {took:.1f} s, browser's start included"


def servers_name(n):
    return f"page{n}.exit-only.example"


NAMES = {servers_name(n): "127.0.0.1" for n in range(10)} | {
    "public.exit-only.example": "93.184.216.34", "private.exit-only.example": "10.1.2.3",
}
POINTERS = {"34.216.184.93.in-addr.arpa": "reverse.exit-only.example"}
