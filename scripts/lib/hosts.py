#!/usr/bin/env python3
"""What daemons do to the hosts that they run on: cores, admin pages, and what an exit reaches.

    scripts/lib/hosts.py own PROFILE       # within a network namespace that has 44.1.2.3: what the exit of a localnet says
"""

import glob
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import socks
from localnet import Binaries, Localnet, address, scratch
from report import Skip, must

OWN, NOT_ALLOWED = "44.1.2.3", 2


def hosts(run, check):
    """On a localnet of its own, whose processes may leave cores of any size."""
    check("13 an exit does not reach its own host", own_host, run)
    before = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        pass  # What this system allows.
    directory, place, here = scratch(), tempfile.mkdtemp(), os.getcwd()
    os.chdir(place)
    net = None
    try:
        net = Localnet(run.binaries, directory=directory)
        check("13 admin pages answer no web page", pages, net)
        check("13 daemons allow themselves no core", limits, net)
        check("13 an aborted daemon leaves no core", aborted, net)
    finally:
        if net:
            net.stop()
        os.chdir(here)
        resource.setrlimit(resource.RLIMIT_CORE, before)


def own_host(run):
    setup = f"ip link set lo up && ip addr add {OWN}/32 dev lo && exec \"$0\" \"$@\""
    profile = Path(run.binaries.sim).parent.name
    command = ["unshare", "-n", "sh", "-c", setup, sys.executable, __file__, "own", profile]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise Skip("no unshare") from None
    if "unshare" in done.stderr or "RTNETLINK" in done.stderr or "ip: not found" in done.stderr:
        raise Skip(f"may not make a network namespace: {done.stderr.strip()}")
    must(done.returncode == 0, (done.stdout + done.stderr)[-400:])
    return done.stdout.strip()


def within_namespace(profile):
    server = socket.create_server(("0.0.0.0", 0))
    port = server.getsockname()[1]

    def serve():
        while True:
            near, _ = server.accept()
            near.sendall(b"what a firewall closes")
            near.close()

    threading.Thread(target=serve, daemon=True).start()
    net = Localnet(Binaries(profile))
    try:
        said = {}
        for host in ("127.0.0.1", OWN, f"::ffff:{OWN}", f"64:ff9b::{OWN}"):
            said[host], _, s = socks.request(net.socks[0], socks.CONNECT, host, port)
            s.close()
        # The control: this localnet's policy names loopback.
        must(said.pop("127.0.0.1") == 0, "the control is not reached")
        must(set(said.values()) == {NOT_ALLOWED}, f"{said}")
        print(f"{', '.join(said)}: reply {NOT_ALLOWED}; 127.0.0.1, which a rule names, is reached")
    finally:
        net.stop()


def pages(net):
    asked = 0
    for node in net.daemons.values():
        at = address(node["admin"])
        for fields, code in (
            ("Host: evil.example", 421),
            (f"Host: evil.example:{at[1]}", 421),
            ("Host: localhost\r\nOrigin: https://evil.example", 403),
            ("Host: localhost\r\nSec-Fetch-Site: cross-site", 403),
            (f"Host: 127.0.0.1:{at[1]}", 200),
        ):
            with socket.create_connection(at, timeout=5) as s:
                s.sendall(f"GET /metrics HTTP/1.1\r\n{fields}\r\n\r\n".encode())
                answer = b""
                while more := s.recv(1 << 16):
                    answer += more
            must(answer.split()[1] == str(code).encode(), f"{fields!r}: {answer[:80]!r}, wanted {code}")
            asked += 1
    return f"{asked} requests to {len(net.daemons)} daemons"


def abort(pid):
    os.kill(pid, signal.SIGABRT)
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}"):
            break
        with open(f"/proc/{pid}/stat") as f:
            if f.read().rsplit(")", 1)[1].split()[0] == "Z":
                break
        time.sleep(0.1)


def limits(net):
    for name, pid in net.pids().items():
        with open(f"/proc/{pid}/limits") as f:
            core = next(line for line in f if line.startswith("Max core file size")).split()[4:6]
        must(core == ["0", "0"], f"{name}: limit {core}")
    return f"{len(net.pids())} daemons allow themselves cores of no byte"


def aborted(net):
    control = subprocess.Popen(["sleep", "60"])
    time.sleep(0.2)
    abort(control.pid)
    control.wait()
    left = glob.glob("core*")
    for path in left:
        os.remove(path)
    if not left:
        raise Skip("this system leaves no core here of any program, so that none is missed")
    pids = net.pids()
    for name, pid in pids.items():
        try:
            here = os.readlink(f"/proc/{pid}/cwd")
        except PermissionError:
            raise Skip("where the daemons would leave a core does not show without CAP_SYS_PTRACE; run as root") from None
        abort(pid)
        found = glob.glob("core*") + glob.glob(f"{here}/core*")
        must(not found, f"{name} left {found}")
    return f"{len(pids)} daemons aborted, no core; another program leaves one here"


if __name__ == "__main__":
    within_namespace(sys.argv[2])
