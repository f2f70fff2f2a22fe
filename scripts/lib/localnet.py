"""A localnet of the real binaries, each daemon a process."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from report import wait_until

ROOT = Path(__file__).resolve().parents[2]


def free_port():
    """A port of 127.0.0.1 at which nobody listens now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def scratch():
    """A short path in memory where there is some: names of Unix sockets have 107 bytes at most."""
    return Path(tempfile.mkdtemp(prefix="shoal-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))


class Binaries:
    def __init__(self, profile):
        self.profile, self.at = profile, Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / profile
        names = ("shoal-sim", "shoal-localnet", "shoal-node", "shoal-client", "shoal-org")
        self.sim, self.localnet, self.node, self.client, self.org = (str(self.at / name) for name in names)

    def build(self, needed, *targets):
        """Has Cargo build these targets, if a file is missing that they give."""
        if not all(os.access(self.at / path, os.X_OK) for path in needed):
            release = ["--release"] if self.profile == "release" else []
            subprocess.run(["cargo", "build", "--locked", *targets, *release], cwd=ROOT, check=True)


def query(path):
    """Status over a control socket, as JSON."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(str(path))
        data = b""
        while more := s.recv(1 << 16):
            data += more
    return json.loads(data)


def page(admin, path):
    """(code, text) of an admin page."""
    try:
        with urllib.request.urlopen(f"http://{admin}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def is_gone(pid):
    """Whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


def samples(text):
    """Prometheus text as a dictionary."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


class Localnet:
    def __init__(self, binaries, *options, directory=None, ready_within=60, program=None):
        self.binaries, self.dir = binaries, directory
        program = program or [binaries.sim, "localnet"]
        command = [*program, "--processes", "--json", "--socks", "127.0.0.1:0", *map(str, options)]
        if directory:
            command += ["--dir", str(directory)]
        self.errors = tempfile.TemporaryFile()
        self.own = {}  # daemons that we restarted
        self.launcher = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.errors, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            line = self._line(ready_within)
            self.info = json.loads(line)
        except ValueError:
            self.launcher.kill()
            self.launcher.wait()
            self.errors.seek(0)
            said = self.errors.read().decode(errors="replace")
            raise RuntimeError(f"the localnet is not ready: {line!r} {said.strip()}") from None
        except BaseException:
            # Whoever is stopped while he waits leaves no network behind.
            self.stop()
            raise
        self.daemons = {node["name"]: node for node in self.info["nodes"]}
        self.socks = [address(text) for text in self.info["socks"]]
        self.service = address(self.info["service"])

    def _line(self, within):
        out, data, end = self.launcher.stdout, b"", time.monotonic() + within
        while not data.endswith(b"\n") and time.monotonic() < end:
            if select.select([out], [], [], 0.2)[0]:
                more = os.read(out.fileno(), 1 << 16)
                if not more:
                    break
                data += more
        return data.decode()

    def pids(self):
        return {name: node["pid"] for name, node in self.daemons.items() if node["pid"]}

    def status(self, name):
        return query(self.daemons[name]["control"])

    def live(self, name):
        try:
            return page(self.daemons[name]["admin"], "/livez")[0] == 200
        except OSError:
            return False

    def ready(self, name):
        try:
            return self.status(name).get("ready") is True
        except (OSError, ValueError):
            return False

    def metrics(self, name):
        return page(self.daemons[name]["admin"], "/metrics")[1]

    def kill(self, name):
        """kill -9."""
        node = self.daemons[name]
        os.kill(node["pid"], signal.SIGKILL)
        if name in self.own:
            self.own.pop(name).wait()
        else:
            # Whose parent is another program: it may take a moment to go.
            wait_until(lambda: is_gone(node["pid"]), 5)
        node["pid"] = None

    def restart(self, name):
        """What localnet does not do: starts a killed daemon again, as it did."""
        node = self.daemons[name]
        return self.spawn(name, [self.binaries.sim, "daemon", node["kind"], node["config"]])

    def spawn(self, name, command):
        """The same by another command."""
        node = self.daemons[name]
        log = open(Path(node["config"]).with_suffix(".again.log"), "ab")
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
        )
        log.close()
        node["pid"], self.own[name] = child.pid, child
        return child

    def stop(self, keep=False):
        """Ends everything and says how: the launcher's code, and daemons that did not go in order."""
        stray = []
        for child in self.own.values():
            child.stdin.close()
        if self.launcher.poll() is None:
            self.launcher.send_signal(signal.SIGINT)
        try:
            self.launcher.wait(15)
        except subprocess.TimeoutExpired:
            self.launcher.kill()
            stray.append("launcher")
        for name, child in self.own.items():
            try:
                child.wait(8)
            except subprocess.TimeoutExpired:
                child.kill()
                stray.append(name)
        self.launcher.stdout.close()
        if self.dir and not keep:
            shutil.rmtree(self.dir, ignore_errors=True)
        return self.launcher.returncode, stray

    def settle(self, *names, within=30):
        """Waits until these daemons are ready; seconds, or None."""
        return wait_until(lambda: all(self.ready(name) for name in names), within)
