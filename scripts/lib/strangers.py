"""Strangers at listeners: silent connections, and a client that asks for all of an exit."""

import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import socks
from localnet import Localnet, address, query, samples, scratch
from report import must, wait_until

# Another /24 than that of the nodes and the clients, and the same one.
ELSEWHERE, HERE = "127.0.1.1", "127.0.0.1"


def strangers(run, check):
    """A localnet of its own, with an attacker at its listeners."""
    directory = scratch()
    try:
        net = Localnet(run.binaries, "--clients", 2, directory=directory)
    except RuntimeError as error:
        check("12 localnet for strangers starts", lambda: (_ for _ in ()).throw(error))
        shutil.rmtree(directory, ignore_errors=True)
        return
    try:
        times, count = (5, 200) if run.quick else (20, 1_000)
        check("12 a fresh client while silent connections of another address hold a gateway", fresh, net, ELSEWHERE, times, count, 2)
        check("12 the links of a mix while silent connections hold it", links, net, ELSEWHERE, count)
        check("12 the same, of the nodes' own address", links, net, HERE, count)
        check("12 one client that dials a silent host leaves the exit to another", dials, net)
    finally:
        net.stop()
        shutil.rmtree(directory, ignore_errors=True)


class Flood:
    """Silent connections from one address, renewed as fast as they are dropped."""

    def __init__(self, source, targets, count):
        self.stop, self.opened = False, 0
        self.threads = [threading.Thread(target=self.hold, args=(source, to, count), daemon=True) for to in targets]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *_):
        self.stop = True
        for thread in self.threads:
            thread.join()

    def hold(self, source, to, count):
        held = []
        while not self.stop:
            alive = []
            for one in held:
                try:
                    if one.recv(1) == b"":
                        one.close()
                    else:
                        alive.append(one)
                except BlockingIOError:
                    alive.append(one)
                except OSError:
                    one.close()
            held = alive
            while len(held) < count and not self.stop:
                try:
                    one = socket.create_connection(to, timeout=1, source_address=(source, 0))
                except OSError:
                    break
                one.setblocking(False)
                held.append(one)
                self.opened += 1
            time.sleep(0.005)
        for one in held:
            one.close()


def free():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def fresh(net, source, times, count, within):
    """Seconds until a client with nothing but its configuration and its identity is ready."""
    gateways = [address(node["listen"]) for name, node in net.daemons.items() if name.startswith("gateway")]
    took = []
    with Flood(source, gateways, count) as flood:
        for _ in range(times):
            took.append(ready(net))
    must(max(took) < within, f"a client was ready after {max(took):.1f} s")
    return f"{times} of {times} ready in under {within} s, the slowest after {max(took):.2f} s; {flood.opened} connections"


def ready(net):
    directory = scratch()
    try:
        subprocess.run([net.binaries.client, "init", str(directory)], stdout=subprocess.DEVNULL, check=True)
        config = Path(net.daemons["client-1"]["config"])
        text = config.read_text()
        text = text.replace("../network.toml", str(config.parent.parent / "network.toml"))
        text = re.sub(r'listen = "127\.0\.0\.1:\d+"', lambda _: f'listen = "127.0.0.1:{free()}"', text)
        (directory / "client.toml").write_text(text)
        client = subprocess.Popen(
            [net.binaries.client, "run", "-c", str(directory / "client.toml")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )
        began = time.monotonic()
        try:
            while time.monotonic() - began < 30:
                for control in directory.rglob("control.sock"):
                    try:
                        if (query(control) or {}).get("ready"):
                            return time.monotonic() - began
                    except (OSError, ValueError):
                        pass
                time.sleep(0.02)
            return float("inf")
        finally:
            client.terminate()
            client.wait(10)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def links(net, source, count):
    """Kills a mix and starts it again while its listener is held: until the gateways that send to it are linked."""
    mix = "mix-1-1"
    gateways = [name for name in net.daemons if name.startswith("gateway")]
    whole = lambda: all(linked(net, name) for name in gateways)
    wait_until(whole, 30)
    with Flood(source, [address(net.daemons[mix]["listen"])], count) as flood:
        net.kill(mix)
        wait_until(lambda: not whole(), 30)
        began = time.monotonic()
        net.restart(mix)
        wait_until(whole, 60)
        took = time.monotonic() - began
    must(took < 10, f"the links were back after {took:.1f} s")
    return f"links back {took:.2f} s after the mix was started anew; {flood.opened} connections"


def linked(net, name):
    links = net.status(name)["links"]
    return links["up"] == links["expected"]


def dials(net):
    """Another client's requests while one has hundreds under way to a host that answers nothing."""
    hole = socket.socket()
    hole.bind(("127.0.0.1", 0))
    hole.listen(1)
    fill = []
    for _ in range(6):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(hole.getsockname())
        fill.append(one)
    good = socket.create_server(("127.0.0.1", 0), backlog=100)
    threading.Thread(target=serve, args=(good,), daemon=True).start()
    stop = threading.Event()

    def attack(n):
        while not stop.is_set():
            try:
                with socks.connect(net.socks[0], "127.0.0.1", hole.getsockname()[1], user=f"a{n % 3}", timeout=25):
                    pass
            except (OSError, EOFError):
                time.sleep(0.05)

    for n in range(400):
        threading.Thread(target=attack, args=(n,), daemon=True).start()
    time.sleep(12)
    answered = 0
    for n in range(20):
        try:
            with socks.connect(net.socks[1], "127.0.0.1", good.getsockname()[1], user=f"v{n % 3}", timeout=40) as one:
                answered += one.recv(2) == b"hi"
        except (OSError, EOFError):
            pass
        time.sleep(0.3)
    stop.set()
    refused = net.status("exit")["refused"]
    for one in [hole, *fill, good]:
        one.close()
    must(answered >= 18, f"{answered} of 20 requests were answered; refused: {refused}")
    return f"{answered} of 20 answered; refused: {refused}"


def serve(listener):
    while True:
        try:
            one, _ = listener.accept()
        except OSError:
            return
        with one:
            one.sendall(b"hi")
