"""Programs that embed a client: the examples of client/examples, run as their comments say."""

import shutil
import subprocess
import threading
from pathlib import Path

import servers
from basics import curl
from localnet import address, scratch
from report import must, wait_until


class Program:
    """An example that runs until it is ended; its lines are kept."""

    def __init__(self, *command):
        self.lines = []
        self.child = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.child.stdout:
            self.lines.append(line.strip())

    def says(self, what, within=60):
        """The first line in which `what` finds something; a failure with all lines if none comes."""
        found = wait_until(lambda: any(map(what, self.lines)) or self.child.poll() is not None, within)
        line = next(filter(what, self.lines), None)
        must(found is not None and line is not None, f"it said {self.lines}, exit code {self.child.poll()}")
        return line

    def end(self):
        self.child.kill()
        self.child.wait()
        self.reader.join(5)


class Embedding:
    def __init__(self, run):
        self.net, self.at = run.net, Path(run.binaries.sim).parent / "examples"
        self.web = f"http://127.0.0.1:{run.web.port}"
        self.keys = scratch()

    def all(self, check):
        try:
            check("15 an embedded client fetches a page through the exit", self.fetch)
            check("15 an embedded client reaches the internal service", self.fetch_service)
            check("15 a wrong target and a wrong configuration are refused in words", self.refused)
            check("15 a hidden service inside a program answers a real client", self.hidden_service)
            check("15 an embedded SOCKS port serves curl", self.embed_socks)
        finally:
            shutil.rmtree(self.keys, ignore_errors=True)

    def config(self, name):
        return self.net.daemons[name]["config"]

    def _fetch(self, url, keys="fetch", config=None):
        command = [self.at / "fetch", config or self.config("client-2"), self.keys / keys, url]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)

    def fetch(self):
        done = self._fetch(self.web + "/")
        must(done.returncode == 0 and servers.MARK in done.stdout, f"{done.returncode}: {done.stderr[-300:]}")
        # Its keys are its own, and nobody else's to read.
        modes = [path.stat().st_mode & 0o77 for path in (self.keys / "fetch").rglob("*")]
        must(modes and not any(modes), f"modes {modes}")

    def fetch_service(self):
        host, port = self.net.service
        done = self._fetch(f"http://{host}:{port}/")
        must(done.returncode == 0 and "Shoal" in done.stdout, f"{done.returncode}: {done.stderr[-300:]}")

    def refused(self):
        done = self._fetch("http://nobody.invalid-.shoal/")
        must(done.returncode == 1 and "mistyped" in done.stderr, f"{done.returncode}: {done.stderr}")
        done = self._fetch(self.web, config=self.keys / "missing.toml")
        must(done.returncode == 1 and "missing.toml" in done.stderr, f"{done.returncode}: {done.stderr}")
        return done.stderr.strip().splitlines()[0]

    def hidden_service(self):
        # Reached by the gateways of services, which want a token.
        config = Path(self.config("service"))
        program = Program(self.at / "hidden_service", config, self.keys / "hidden", config.parent / "token")
        try:
            host = program.says(lambda line: ".shoal:80" in line)
            program.says(lambda line: line == "ready")
            code, page = curl(self.net.socks[0], f"http://{host.removesuffix(':80')}:8765/")
            must(code == 0 and b"asked port 8765" in page, f"curl {code}: {page[:300]!r}")
            # Also from a program that embeds a client.
            done = self._fetch(f"http://{host}/")
            must(done.returncode == 0 and "asked port 80" in done.stdout, f"{done.returncode}: {done.stderr[-300:]}")
        finally:
            program.end()

    def embed_socks(self):
        program = Program(self.at / "embed_socks", self.config("client-2"), self.keys / "socks")
        try:
            port = program.says(lambda line: line.startswith("socks5h://")).removeprefix("socks5h://")
            said = program.says(lambda line: line.startswith("Connected"))
            code, page = curl(address(port), self.web + "/")
            must(code == 0 and servers.MARK.encode() in page, f"curl {code}: {page[:200]!r}")
            return said
        finally:
            program.end()
