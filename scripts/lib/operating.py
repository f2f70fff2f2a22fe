"""Configuration, exit codes, and that nothing stays behind."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import procs
from localnet import Localnet
from report import must, wait_until


def run_(*command, timeout=30):
    """(exit code, what it said)."""
    env = {name: value for name, value in os.environ.items() if name != "SHOAL_LOG"}
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL, env=env, check=False)
    except subprocess.TimeoutExpired:
        return None, "goes on"
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace").strip()


class Operating:
    def __init__(self, run):
        self.run, self.net, self.binaries = run, run.net, run.binaries
        self.copies = run.net.dir.parent / (run.net.dir.name + "-copies")

    def all(self, check):
        for kind in ("node", "client"):
            check(f"10 shoal-{kind}: an unknown key is an error that names it; 78", self.unknown, kind)
            check(f"10 shoal-{kind}: a wrong value says file, line, what is allowed; 78", self.wrong, kind)
            check(f"10 shoal-{kind}: a port in use; 1", self.in_use, kind)
        check("10 shoal-sim: a port in use; 1", self.sim_in_use)
        check("10 wrong usage; 2", self.usage)
        check("10 init writes a configuration that check reads", self.init)
        check("10 status speaks over the control socket", self.status)
        shutil.rmtree(self.copies, ignore_errors=True)

    def copy(self, kind, line, add=""):
        """The configuration of a daemon that runs, with keys of its own, changed: (binary, path, number of the line)."""
        name = "mix-1-1" if kind == "node" else "client-1"
        config = Path(self.net.daemons[name]["config"])
        to = self.copies / name
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(config.parent, to, ignore=shutil.ignore_patterns("*.log", "*.sock", "run", "control*"))
        shutil.copy(self.net.dir / "network.toml", self.copies / "network.toml")
        lines = (to / config.name).read_text().splitlines()
        number = 0
        if line:
            key = line.split("=")[0].strip()
            for at, text in enumerate(lines):
                if re.match(rf"{key}\s*=", text):
                    lines[at], number = line, at + 1
                    break
            else:
                lines.insert(0, line)
                number = 1
        lines[0:0] = add.splitlines()
        (to / config.name).write_text("\n".join(lines) + "\n")
        return getattr(self.binaries, kind), to / config.name, number + len(add.splitlines())

    def unknown(self, kind):
        binary, path, _ = self.copy(kind, None, "no_such_key = 1")
        code, said = run_(binary, "check", "-c", path)
        must(code == 78 and "no_such_key" in said and "unknown key" in said, f"exit {code}: {said[:300]}")
        return [line for line in said.splitlines() if "no_such_key" in line][0].replace(str(self.copies), "")

    def wrong(self, kind):
        said_of = []
        cases = {
            "node": [('role = "mixer"', "mix"), ('listen = "nowhere"', ""), ("max_packets_per_s = -1", ""), ('log = "loud"', "debug")],
            "client": [("class = 7", "string"), ('min_mixes_per_layer = "two"', "whole number"), ('allow_shared_gateway = 1', "boolean")],
        }[kind]
        for line, allowed in cases:
            binary, path, number = self.copy(kind, line)
            for verb in ("check", "run"):
                code, said = run_(binary, verb, "-c", path, timeout=10)
                place = f"{path}:{number}" in said
                must(code == 78 and place and allowed in said, f"{verb} with {line}: exit {code}: {said[-300:]}; wanted 78, {path.name}:{number}, {allowed!r}")
            said_of.append(said.splitlines()[-1].replace(str(self.copies), ""))
        return " | ".join(said_of[:2])

    def in_use(self, kind):
        binary, path, _ = self.copy(kind, None)
        with socket.socket() as s, socket.socket() as free:
            s.bind(("127.0.0.1", 0))
            s.listen()
            free.bind(("127.0.0.1", 0))
            port, spare = s.getsockname()[1], free.getsockname()[1]
            free.close()
            said_of = []
            links, admin = (("listen", "admin") if kind == "node" else ("socks.listen", "admin.listen"))
            for taken, other in ((links, admin), (admin, links)):
                code, said = run_(binary, "run", "-c", path, "-o", f"{taken}=127.0.0.1:{port}", "-o", f"{other}=127.0.0.1:{spare}", timeout=10)
                must(code == 1 and str(port) in said and "use" in said, f"{taken}: exit {code}: {said[-300:]}")
                said_of.append(said.splitlines()[-1])
        return " | ".join(said_of)

    def sim_in_use(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            port = s.getsockname()[1]
            code, said = run_(self.binaries.sim, "localnet", "--json", "--for", 1, "--socks", f"127.0.0.1:{port}")
        must(code == 1 and str(port) in said and "use" in said, f"exit {code}: {said[-300:]}")
        return said.splitlines()[-1]

    def usage(self):
        b = self.binaries
        cases = [
            (b.node, "run", "--no-such-option"), (b.node, "no-such-verb"), (b.node, "init", "--role", "king", "/nowhere/x"),
            (b.client, "run", "--no-such-option"), (b.client, "no-such-verb"), (b.client,), (b.node,),
            (b.sim,), (b.sim, "localnet", "--no-such-option"), (b.sim, "localnet", "--class", "nonsense"),
            (b.sim, "localnet", "--gateways", "1"), (b.sim, "localnet", "--socks", "nowhere"), (b.sim, "localnet", "--log", "loud"),
        ]
        bad = []
        for case in cases:
            code, said = run_(*case)
            if code != 2 or not said:
                bad.append(f"{' '.join(map(str, (Path(case[0]).name, *case[1:])))}: exit {code}: {said[:150]}")
        must(not bad, "; ".join(bad))
        return f"{len(cases)} of {len(cases)}"

    def init(self):
        for binary, options in ((self.binaries.node, ("--role", "gateway")), (self.binaries.client, ())):
            to = self.copies / f"init-{Path(binary).name}"
            code, said = run_(binary, "init", *options, to)
            must(code == 0, f"exit {code}: {said}")
            config = next(to.glob("*.toml"))
            comments = sum(line.startswith("#") for line in config.read_text().splitlines())
            must(comments >= 15, f"only {comments} lines of comment in {config.name}")
            keys = [path for path in to.rglob("*.key")]
            must(keys and all(path.stat().st_mode & 0o077 == 0 for path in keys), f"keys: {keys}")
            code, said = run_(binary, "init", *options, to)
            must(code not in (0, None), "a second init overwrites the first")
            # Nothing is wrong with the file itself: what it lacks is the network, which init cannot know.
            code, said = run_(binary, "check", "-c", config)
            must(code in (0, 78) and re.search(r"network|gateway", said), f"check: exit {code}: {said}")
        return "commented, keys 0600, not overwritten; check then asks for the network or a gateway"

    def status(self):
        for binary, name in ((self.binaries.node, "mix-1-1"), (self.binaries.client, "client-1")):
            socket_ = self.net.daemons[name]["control"]
            code, said = run_(binary, "status", "--socket", socket_, "--json")
            must(code == 0 and '"ready":true' in said, f"exit {code}: {said[:200]}")
            code, said = run_(binary, "status", "--socket", socket_)
            must(code == 0 and "ready" in said, f"exit {code}: {said[:200]}")
            code, said = run_(binary, "status", "--socket", socket_ + ".none")
            must(code == 1 and said, f"where nothing runs: exit {code}: {said[:200]}")


def endings(run, check):
    def ended(net, how, directory_goes, within):
        pids = net.pids()
        directory = Path(net.info["nodes"][0]["config"]).parent.parent
        how(net)
        code = net.launcher.wait(20)
        left = wait_until(lambda: not any(procs.alive(pid) for pid in pids.values()), within)
        alive = [name for name, pid in pids.items() if procs.alive(pid)]
        for name in alive:
            os.kill(pids[name], signal.SIGKILL)
        there = directory.exists()
        shutil.rmtree(directory, ignore_errors=True)
        net.launcher.stdout.close()
        must(not alive, f"still there after {within} s: {alive}")
        must(not (directory_goes and there), f"{directory} is still there")
        return code, left

    def with_for():
        net = Localnet(run.binaries, "--for", 3)
        began = time.monotonic()
        code, _ = ended(net, lambda net: None, True, 1)
        took = time.monotonic() - began
        must(code == 0 and took < 10, f"exit {code} after {took:.1f} s")
        return f"exit 0 after {took:.1f} s, nothing left"

    def in_one_process():
        began = time.monotonic()
        command = [run.binaries.sim, "localnet", "--json", "--socks", "127.0.0.1:0", "--for", "3"]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
        config = re.search(rb'"config":"([^"]+)"', done.stdout)
        must(done.returncode == 0 and config, f"exit {done.returncode}: {done.stderr[-300:]!r}")
        directory = Path(config[1].decode()).parent.parent
        must(not directory.exists(), f"{directory} is still there")
        return f"{time.monotonic() - began:.1f} s from start to end, nothing left"

    def interrupt(number, directory_goes, codes):
        net = Localnet(run.binaries)
        code, left = ended(net, lambda net: os.killpg(net.launcher.pid, number), directory_goes, 8)
        must(code in codes, f"exit {code}")
        return f"exit {code}, all gone {left:.1f} s later"

    check("11 --for 3 leaves nothing behind", with_for)
    check("11 --for 3 in one process leaves nothing behind", in_one_process)
    check("11 Ctrl-C leaves nothing behind", interrupt, signal.SIGINT, True, {0})
    check("11 SIGTERM leaves nothing behind", interrupt, signal.SIGTERM, True, {0})
    check("11 SIGKILL of the launcher leaves no process behind", interrupt, signal.SIGKILL, False, {-9})
