"""Letters between two clients that others can write to, by the command line: `shoal-client send` and `events`."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

from localnet import Localnet, query, scratch
from report import must, wait_until

# Seconds; short, so that a gateway whose keys are gone stands in a document again soon.
EPOCH = 20


class Person:
    """A client of the localnet's network with keys of its own."""

    def __init__(self, binaries, like, directory):
        self.client, self.dir = binaries.client, directory
        subprocess.run([self.client, "init", str(directory)], check=True, stdout=subprocess.DEVNULL)
        # The network, the gateways and the admission of another client, all else its own.
        self.options = ["-c", str(like)]
        for value in (f"data_dir={directory}/data", f"runtime_dir={directory}/run", "socks.listen=127.0.0.1:0",
                      "admin.listen=", "reachable=true", "class=web"):
            self.options += ["-o", value]
        self.child = None

    def run(self, verb, *args, text=None, ok=True):
        done = subprocess.run(
            [self.client, verb, *self.options, *args], input=text, capture_output=True, text=True, timeout=120
        )
        must(not ok or done.returncode == 0, f"{verb}: {done.stderr.strip()}")
        return done

    def start(self):
        log = open(self.dir / "log", "ab")
        self.child = subprocess.Popen(
            [self.client, "run", *self.options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        log.close()
        must(wait_until(self.ready, 60) is not None, f"not ready: {self.status()} {(self.dir / 'log').read_text()[-400:]}")

    def status(self):
        try:
            return query(self.dir / "run/control.sock")
        except (OSError, ValueError) as error:
            return {"error": str(error)}

    def ready(self):
        return self.status().get("ready") is True

    def kill(self):
        self.child.kill()
        self.child.wait()

    def address(self):
        """By the first of its gateways."""
        return self.run("address").stdout.split()[0]

    def send(self, to, text, *options, ok=True):
        return self.run("send", *options, to, text=text, ok=ok)

    def takes(self):
        """The letters that came since it was last asked."""
        lines = self.run("events", "--once", "--take").stdout.splitlines()
        return [event["text"] for event in map(json.loads, lines) if event["event"] == "received"]

    def takes_all(self, number, within=60):
        """So many letters, and whatever comes within five seconds after them."""
        found = []
        wait_until(lambda: found.extend(self.takes()) or len(found) >= number, within)
        wait_until(lambda: found.extend(self.takes()), 5)
        return found


class Letters:
    def __init__(self, run):
        self.dir = scratch()
        self.net = Localnet(
            run.binaries, "--clients", 1, "--epoch", EPOCH, "--log", "info", directory=self.dir / "net"
        )
        like = self.net.daemons["client-1"]["config"]
        self.a, self.b = (Person(run.binaries, like, self.dir / name) for name in ("a", "b"))

    def all(self, check):
        try:
            check("17 a letter arrives, and its writer is told that it left", self.arrives)
            check("17 a letter to nobody waits, with the reason", self.nobody)
            check("17 a letter that was taken survives kill -9 of its writer", self.killed)
            check("17 who was away gets all once, though his gateway was killed", self.away, False)
            check("17 who was away gets all once, though his gateway lost its runtime directory as by a reboot", self.away, True)
        finally:
            for person in (self.a, self.b):
                if person.child:
                    person.kill()
            self.net.stop()
            shutil.rmtree(self.dir, ignore_errors=True)

    def arrives(self):
        self.a.start()
        self.b.start()
        said = self.a.send(self.b.address(), "hello\n", "--wait").stdout
        must("left" in said, said)
        found = self.b.takes_all(1)
        must(found == ["hello"], f"{found}")
        must(self.b.takes() == [], "what was taken is told again")
        return f"{said.split()[1]}, {found[0]!r}"

    def nobody(self):
        identity, gateway, _ = self.b.address().split(".")
        stranger = self.a.address().split(".")[0]
        # The client in the middle of the localnet cannot be reached: it has published nothing.
        unknown = self.net.status("client-1")
        must("error" not in unknown, f"{unknown}")
        wrong = self.a.send(f"{identity[:-1]}.{gateway}.shoal", "x", ok=False)
        must(wrong.returncode != 0 and "characters" in wrong.stderr, wrong.stderr)
        empty = self.dir / "nobody"
        subprocess.run([self.a.client, "init", str(empty)], check=True, stdout=subprocess.DEVNULL)
        nobody = Person.__new__(Person)
        nobody.client = self.a.client
        nobody.options = [value.replace(str(self.a.dir), str(empty)) for value in self.a.options]
        to = nobody.address()
        must(stranger not in to, "an identity of its own")
        said = self.a.send(to, "x", "--wait", ok=False)
        must(said.returncode != 0 and "knows nobody" in said.stderr, f"{said.stdout} {said.stderr}")
        return said.stderr.strip().splitlines()[-1][:80]

    def killed(self):
        self.a.send(self.b.address(), "before the end")
        self.a.kill()
        self.a.start()
        found = self.b.takes_all(1)
        # Once more where it had left and that was not on the disk yet.
        must(set(found) == {"before the end"}, f"{found}")
        return f"came {len(found)} times"

    def away(self, reboots):
        to = self.b.address()
        gateway = "gateway-2" if self.b.status().get("gateway") == "second" else "gateway-1"
        must(gateway == "gateway-1", "the person is at his first gateway")
        self.b.kill()
        texts = [f"while you were away, {reboots}, {n}" for n in range(2)]
        must("left" in self.a.send(to, texts[0], "--wait").stdout, "it left")
        # It has arrived at the gateway by then.
        wait_until(lambda: False, 8)
        self.net.kill(gateway)
        if reboots:
            config = Path(self.net.daemons[gateway]["config"])
            runtime = config.parent / tomllib.loads(config.read_text())["runtime_dir"]
            must((runtime / "keys").exists(), f"{runtime} is its runtime directory")
            shutil.rmtree(runtime)
        self.net.restart(gateway)
        took = self.net.settle(gateway, within=8 * EPOCH)
        must(took is not None, f"the gateway is not ready: {self.net.status(gateway)}")
        wait_until(self.a.ready, 60)
        # Its document may take a moment to reach everybody.
        said = None
        for _ in range(8):
            said = self.a.send(to, texts[1], "--wait", ok=False)
            if said.returncode == 0:
                break
            wait_until(lambda: False, EPOCH / 2)
        must(said.returncode == 0, f"{said.stdout} {said.stderr}")
        wait_until(lambda: False, 8)
        self.b.start()
        found = self.b.takes_all(2, within=90)
        must(sorted(set(found)) == texts, f"{found}")
        must(found.count(texts[0]) == 1, f"{found}")
        return f"the gateway was ready after {took:.0f} s; {len(found)} came"


def letters(run, check):
    try:
        checks = Letters(run)
    except RuntimeError as error:
        check("17 localnet starts", lambda: (_ for _ in ()).throw(error))
        return
    checks.all(check)
