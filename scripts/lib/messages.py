"""Messages between members of an organisation, by the command line and by a program."""

import collections
import json
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

from localnet import Localnet, query, scratch
from procs import rss_mb
from report import Failed, must, wait_until

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
                      "admin.listen=", "page.listen=", "reachable=true", "class=web"):
            self.options += ["-o", value]
        self.child = None

    @classmethod
    def of(cls, binaries, config):
        """Whose client runs already, with this configuration."""
        person = cls.__new__(cls)
        person.client, person.dir, person.options, person.child = binaries.client, Path(config).parent, ["-c", str(config)], None
        return person

    def run(self, verb, *args, text=None, ok=True):
        done = subprocess.run(
            [self.client, *verb.split(), *self.options, *args], input=text, capture_output=True, text=True, timeout=120
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

    def send(self, to, text, *options, ok=True):
        return self.run("send", *options, to, text=text, ok=ok)

    def ask(self, **request):
        """The answer to a word of the socket."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(str(self.dir / "run/programs.sock"))
            lines = s.makefile("rw", buffering=1)
            lines.readline()
            lines.write(json.dumps(request) + "\n")
            said = json.loads(lines.readline())
        must("error" not in said, f"{said}")
        return said

    def messages(self, name):
        """The last fifty of a conversation."""
        return self.ask(word="messages", name=name)["messages"]

    def all_messages(self, name):
        """All of a conversation."""
        found, before = [], None
        while more := self.ask(word="messages", name=name, last=500, before=before)["messages"]:
            found, before = more + found, more[0]["number"]
        return found

    def takes(self):
        """What came since it was last asked."""
        lines = self.run("events", "--once", "--take").stdout.splitlines()
        return [event["text"] for event in map(json.loads, lines) if event["event"] == "received"]

    def takes_all(self, number, within=60):
        """So many messages, and whatever comes within five seconds after them."""
        found = []
        wait_until(lambda: found.extend(self.takes()) or len(found) >= number, within)
        wait_until(lambda: found.extend(self.takes()), 5)
        return found


def cpu_ticks(pid):
    """What a process has computed, in ticks of the system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class Messages:
    """Alice and Bob of an organisation, who have just been let in."""

    def __init__(self, run, acme):
        self.run, self.net, self.acme = run, acme.net, acme
        self.alice, self.bob = acme.alice, acme.bob

    def all(self, check):
        check("17 two members are let in", self.enrol)
        check("17 a message is answered, and each says where it stands", self.answered)
        check("17 chat, inbox, search and verify", self.verbs)
        check("17 the bot of the documents answers", self.bot)
        check("17 a message with a time of its own is erased at both ends", self.erased)
        check("17 a message that was taken survives kill -9 of its writer", self.killed)
        check("17 who was away gets all once and in order, though his gateway was killed", self.away, False)
        check("17 who was away gets all once and in order, though his gateway lost its runtime directory as by a reboot", self.away, True)
        check("17 an idle member's client takes less than 60 MB", self.idle)
        check("17 no word, name or address of theirs lies in clear on any disk", self.at_rest)

    def enrol(self):
        self.acme.run("init", "--name", "acme", "--owner", "Olga Owner", "--network", self.acme.network)
        self.acme.listed()
        self.acme.serves()
        took = [self.acme.enrol(self.alice, "Alice Example"), self.acme.enrol(self.bob, "Bob Beispiel")]
        must(wait_until(lambda: "Bob Beispiel" in self.alice.run("contacts").stdout, 6 * EPOCH) is not None, "Alice does not hear of Bob")
        return " and ".join(f"{seconds:.0f} s" for seconds in took) + " after the document has them"

    def answered(self):
        said = self.alice.send("bob", "hello Bob\n", "--wait").stdout
        must("left" in said, said)
        must((found := self.bob.takes_all(1)) == ["hello Bob"], f"{found}")
        must(self.bob.takes() == [], "what was taken is told again")
        states = [message["state"] for message in self.alice.messages("bob")]
        must(states == ["left"], f"{states}")
        self.bob.send("alice", "hello Alice", "--wait")
        must((found := self.alice.takes_all(1)) == ["hello Alice"], f"{found}")
        states = [message.get("state") for message in self.alice.messages("bob")]
        must(states == ["delivered", None], f"{states}")
        nobody = self.bob.send("carol", "x", ok=False)
        must(nobody.returncode == 1 and "nobody in the directory" in nobody.stderr, nobody.stderr)
        return f"{states[0]}"

    def verbs(self):
        self.alice.run("chat", "bob", text="by chat\n\nand more\n")
        # They may overtake each other, and are shown in order.
        must(sorted(found := self.bob.takes_all(2)) == ["and more", "by chat"], f"{found}")
        shown = [message["text"] for message in self.bob.messages("alice")[-2:]]
        must(shown == ["by chat", "and more"], f"{shown}")
        inbox = self.bob.run("inbox").stdout
        must("Alice Example (3 new)" in inbox and "and more" in inbox, inbox)
        must("by chat" in self.bob.run("search", "BY CHAT").stdout, "not found")
        shown = self.bob.run("chat", "alice", text="").stdout
        must("hello Bob" in shown and "digits were not compared" in shown, shown)
        must("new" not in self.bob.run("inbox").stdout, self.bob.run("inbox").stdout)
        digits = [re.findall(r"(?:\d{5} ?){6}", who.run("verify", name).stdout) for who, name in ((self.alice, "bob"), (self.bob, "alice"))]
        must(digits[0] == digits[1] and len(digits[0]) == 1, f"{digits}")
        must("You have said" in self.bob.run("verify", "--same", "alice").stdout, "not kept")
        return digits[0][0]

    def killed(self):
        self.alice.send("bob", "before the end")
        self.alice.kill()
        self.alice.start()
        found = self.bob.takes_all(1)
        must(found == ["before the end"], f"{found}")
        return "came once"

    def away(self, reboots):
        gateway = "gateway-2" if self.bob.status().get("gateway") == "second" else "gateway-1"
        must(gateway == "gateway-1", "the person is at his first gateway")
        self.bob.kill()
        texts = [f"while you were away, {reboots}, {n}" for n in range(2)]
        must("left" in self.alice.send("bob", texts[0], "--wait").stdout, "it left")
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
        wait_until(self.alice.ready, 60)
        # Until a document has its new keys nothing gets there.
        wait_until(lambda: False, 2 * EPOCH)
        must("left" in self.alice.send("bob", texts[1], "--wait").stdout, "it left")
        wait_until(lambda: False, 8)
        self.bob.start()
        found = self.bob.takes_all(2, within=90)
        must(sorted(found) == texts, f"{found}")
        shown = [message["text"] for message in self.bob.messages("alice")[-2:]]
        must(shown == texts, f"{shown}")
        return f"the gateway was ready after {took:.0f} s"

    def bot(self):
        page = (Path(__file__).resolve().parents[2] / "docs/messages.md").read_text()
        code = re.search(r"```python\n(.*?)```", page, re.S)[1]
        self.bob.takes()
        bot = subprocess.Popen([sys.executable, "-c", code, str(self.bob.dir / "run/programs.sock")])
        try:
            self.alice.send("bob", "is anybody there?", "--wait")
            found = self.alice.takes_all(1)
            must(found == ["You said: is anybody there?"], f"{found}")
        finally:
            bot.kill()
            bot.wait()
        must(self.bob.takes() == [], "the bot has taken it")
        return f"{len(code.splitlines())} lines"

    def erased(self):
        self.alice.send("bob", "gone in two seconds", "--wait", "--expires", "2")
        must((found := self.bob.takes_all(1)) == ["gone in two seconds"], f"{found}")
        theirs = lambda: [message["text"] for message in self.bob.messages("alice")]
        must("gone in two seconds" in theirs(), "it goes before it was read")
        self.bob.run("chat", "alice", text="")
        must(wait_until(lambda: "gone in two seconds" not in theirs(), 10) is not None, f"{theirs()}")
        mine = [message["text"] for message in self.alice.messages("bob")]
        must("gone in two seconds" not in mine, f"{mine}")

    def idle(self):
        """Beside a client of the same class to which nobody writes."""
        other = Person(self.run.binaries, self.net.daemons["client-1"]["config"], self.acme.dir.with_name("alone"))
        other.options = [option.replace("reachable=true", "reachable=false") for option in other.options]
        other.start()
        try:
            pids = [self.alice.child.pid, other.child.pid]
            wait_until(lambda: False, 5)
            before = [cpu_ticks(pid) for pid in pids]
            wait_until(lambda: False, 15)
            member, alone = (cpu_ticks(pid) - ticks for pid, ticks in zip(pids, before))
            resident = [rss_mb(pid) for pid in pids]
        finally:
            other.kill()
        must(resident[0] < 60, f"{resident[0]:.0f} MB")
        return (f"{resident[0]:.0f} MB, {resident[1]:.0f} without messages; "
                f"{member / max(alone, 1):.2f} of the CPU of a client without them")

    def at_rest(self):
        words = [b"hello Bob", b"while you were away", b"before the end"]
        names = [b"Alice Example", b"Bob Beispiel"]
        looked = 0
        for path in self.acme.dir.parent.rglob("*"):
            if not path.is_file() or path.is_socket():
                continue
            content = path.read_bytes()
            looked += 1
            for word in words:
                must(word not in content, f"{path} has {word!r}")
            # The directory of the organisation is every member's, and its own.
            mine = "organisation" in path.parts or path.is_relative_to(self.acme.dir) or path.name == "invitation.toml"
            for name in names:
                must(mine or name not in content, f"{path} has {name!r}")
        return f"{looked} files"


def localnet_with_people(run):
    """Nobody enrols: who starts it writes to himself in the first minute."""
    began = time.monotonic()
    net = Localnet(run.binaries, "--people", 3)
    try:
        people = {person["name"]: Person.of(run.binaries, person["config"]) for person in net.info["people"]}
        must(list(people) == ["Alice", "Bob", "Carol"], f"{list(people)}")
        people["Alice"].send("bob", "first words")
        must((found := people["Bob"].takes_all(1)) == ["first words"], f"{found}")
        people["Bob"].send("alice", "an answer")
        must(wait_until(lambda: people["Alice"].takes() == ["an answer"], 30) is not None, "no answer")
        return f"{time.monotonic() - began:.0f} s from the command to the answer"
    finally:
        net.stop()


class Kills:
    """Two people write to each other while their clients and gateways are killed, over a mix that loses a tenth of its packets."""

    def __init__(self, run, count, kills):
        self.count, self.kills = count, kills
        self.net = Localnet(run.binaries, "--people", 2)
        self.people = [Person.of(run.binaries, person["config"]) for person in self.net.info["people"]]
        self.names = [person["name"] for person in self.net.info["people"]]
        lossy = self.net.daemons["mix-1-1"]["config"]
        self.net.kill("mix-1-1")
        self.net.spawn("mix-1-1", [run.binaries.sim, "daemon", "node", lossy, "--drop-share", "0.1"])
        # Texts that were taken, by their writer, and those of which nobody knows, as the answer was lost.
        self.taken, self.unsure = [set(), set()], [set(), set()]
        self.written = threading.Event()

    def write(self):
        for n in range(self.count):
            writer = n % 2
            text = f"message {n} of {self.names[writer]}"
            while True:
                try:
                    self.people[writer].ask(word="send", name=self.names[1 - writer], text=text)
                    self.taken[writer].add(text)
                    break
                except (FileNotFoundError, ConnectionRefusedError, Failed):
                    time.sleep(0.2)  # It is down and was told nothing, or has no keys yet and says so.
                except (OSError, ValueError):
                    self.unsure[writer].add(text)
                    break
        self.written.set()

    def kill(self):
        victims = ["client-1", "client-2", "gateway-1", "gateway-2"]
        for n in range(self.kills):
            for name in victims:
                self.net.kill(name)
                time.sleep(random.uniform(0, 1))
                self.net.restart(name)
                time.sleep(random.uniform(1, 3))

    def judge(self):
        """What every reader was shown of what was taken, once nothing comes any more."""
        said = {"once": 0, "on its way, as its writer is told": 0}
        for writer in (0, 1):
            reader, name = self.people[1 - writer], self.names[writer]
            shown = collections.Counter(m["text"] for m in reader.all_messages(name) if not m["own"])
            twice = [text for text, times in shown.items() if times > 1]
            must(not twice, f"shown more than once: {twice[:3]}")
            states = {m["text"]: m["state"] for m in self.people[writer].all_messages(self.names[1 - writer]) if m["own"]}
            for text in self.taken[writer]:
                if shown[text]:
                    said["once"] += 1
                else:
                    must(states.get(text) not in (None, "delivered"), f"{text!r} was lost; its writer is told {states.get(text)}")
                    said["on its way, as its writer is told"] += 1
            made_up = set(shown) - self.taken[writer] - self.unsure[writer]
            must(not made_up, f"nobody wrote {made_up}")
        return said

    def run(self):
        try:
            writer = threading.Thread(target=self.write, daemon=True)
            writer.start()
            self.kill()
            must(self.written.wait(1800), "the writers have not ended")
            taken = sum(map(len, self.taken))
            must(taken > 0.9 * self.count, f"{taken} alone were taken")
            # Second copies come within minutes; what lost both is tried again in hours.
            wait_until(lambda: self.judge()["once"] == taken, 600, 10)
            said = ", ".join(f"{count} {what}" for what, count in self.judge().items())
            return f"{taken} taken while {4 * self.kills} programs were killed: {said}; of {sum(map(len, self.unsure))} nobody was told"
        finally:
            self.net.stop()


def messages(run, check):
    import organisation

    if not run.quick:
        check("17 a thousand messages while clients and gateways are killed fifty times each", lambda: Kills(run, 1_000, 50).run())

    check("17 two people of a localnet write to each other at once", localnet_with_people, run)
    directory = scratch()
    try:
        net = Localnet(run.binaries, "--authorities", 4, "--epoch", EPOCH, "--clients", 1, "--log", "info", directory=directory)
    except RuntimeError as error:
        check("17 localnet starts", lambda: (_ for _ in ()).throw(error))
        shutil.rmtree(directory, ignore_errors=True)
        return
    acme = organisation.Organisation(run.binaries, net, directory / "acme")
    try:
        Messages(run, acme).all(check)
    finally:
        acme.end()
        net.stop()
        shutil.rmtree(directory, ignore_errors=True)
