"""An organisation on a network: the head of its directory in the document, and people who are invited, let in, found by their names, and
removed."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from messages import Person
from localnet import Localnet, free_port, page, scratch
from report import must, wait_until

# Seconds; a head stands in the document of the epoch after the one in which it came.
EPOCH = 10


def organisation(run, check):
    directory = scratch()
    try:
        net = Localnet(run.binaries, "--authorities", 4, "--epoch", EPOCH, "--clients", 1, directory=directory)
    except RuntimeError as error:
        check("16 a localnet for an organisation starts", lambda: (_ for _ in ()).throw(error))
        shutil.rmtree(directory, ignore_errors=True)
        return
    try:
        acme = Organisation(run.binaries, net, directory / "acme")
        check("16 an organisation that no authority lists is told what to do", acme.unlisted)
        check("16 its head is in the document once three of four authorities list it", acme.listed)
        check("16 the document has a longer directory in the next epochs", acme.grows)
        check("16 a directory that parted from the published one is refused", acme.parts)
        check("16 heads outlive a restart of all authorities", acme.restarts)
        check("16 the organisation's service runs inside the network", acme.serves)
        check("16 two people are invited, read their digits, and are let in", acme.enrols)
        check("16 the service says how many entries there are, and of nobody when he asked", acme.counts)
        check("16 they find each other by name and write", acme.writes)
        check("16 a device that a rogue admin adds alarms its owner, and others hold back", acme.twin)
        check("16 a member is killed, and is one when he is back", acme.killed)
        check("16 who was removed is nobody's contact, and is told", acme.removes)
    finally:
        acme.end()
        net.stop()
        shutil.rmtree(directory, ignore_errors=True)


class Admin:
    """The files of an organisation's admin, and the service that gives members its directory."""

    def __init__(self, binaries, directory):
        self.binaries, self.dir, self.service = binaries, directory, None

    def run(self, *args, ok=True, directory=None):
        command = [self.binaries.org, "--dir", str(directory or self.dir), *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        must(not ok or done.returncode == 0, f"{args[0]}: {done.stderr.strip()}")
        return done

    def serve(self, like, *options):
        """Runs the service by the gateways and the token of another one; what it says when it is ready."""
        config, path = Path(like), self.dir.with_name("service.log")
        command = [self.binaries.org, "--dir", str(self.dir), "serve", "-c", str(config), "--token", str(config.parent / "token"), *options]
        with open(path, "wb") as log:
            self.service = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        must(wait_until(lambda: "ready at" in path.read_text(), 60) is not None, path.read_text()[-400:])
        return path.read_text().splitlines()[0]

    def end(self):
        if self.service:
            self.service.terminate()
            try:
                self.service.wait(10)
            except subprocess.TimeoutExpired:
                self.service.kill()
                self.service.wait()


class Organisation(Admin):
    def __init__(self, binaries, net, directory):
        super().__init__(binaries, directory)
        self.net = net
        self.network = Path(net.daemons["client-1"]["config"]).parent.parent / "network.toml"
        self.authorities = [name for name in net.daemons if name.startswith("authority")]
        like = net.daemons["client-1"]["config"]
        self.alice, self.bob = (Person(binaries, like, directory.with_name(name)) for name in ("alice", "bob"))

    def end(self):
        for person in (self.alice, self.bob):
            if person.child:
                person.kill()
        super().end()

    def unlisted(self):
        self.run("init", "--name", "acme", "--owner", "Olga Owner", "--network", self.network)
        said = self.run("publish", ok=False)
        must(said.returncode == 1 and "[[authority.organisation]]" in said.stderr, said.stderr)
        return said.stderr.strip()[:100]

    def listed(self):
        """By SIGHUP, which the programs know and the daemons of a localnet do not."""
        for name in self.authorities:
            self.net.kill(name)
            self.net.spawn(name, [self.binaries.node, "run", "-c", self.net.daemons[name]["config"]])
        must(self.net.settle(*self.authorities, within=60) is not None, "the authorities are not back")
        key = json.loads(self.run("show", "--json").stdout)["key"]
        for name in self.authorities[:3]:
            node = self.net.daemons[name]
            with open(node["config"], "a") as config:
                config.write(f'\n[[authority.organisation]]\nname = "acme"\nkey = "{key}"\n')
            os.kill(node["pid"], signal.SIGHUP)
        said = self.run("publish").stdout.strip()
        self.has(2)
        return said

    def shown(self):
        """Entries of the directory in the document that the last authority holds, which does not list it."""
        config = Path(self.net.daemons[self.authorities[-1]]["config"])
        done = subprocess.run(
            [self.binaries.node, "topology", "show", str(config.with_name("topology")), "--json"], capture_output=True, text=True
        )
        must(done.returncode == 0, done.stderr)
        organisations = json.loads(done.stdout)["organisations"]
        return organisations[0]["size"] if organisations else None

    def has(self, entries):
        """The document has so many: each authority writes it down when it gets it."""
        must(wait_until(lambda: self.shown() == entries, EPOCH) is not None, f"the document has {self.shown()} entries")

    def grows(self):
        self.run("announce", "Lunch is ready")
        self.run("announce", "Dinner too")
        said = self.run("publish").stdout.strip()
        self.has(4)
        return said

    def parts(self):
        other = self.dir.with_name("parted")
        shutil.copytree(self.dir, other)
        self.run("announce", "one")
        self.run("announce", "other", directory=other)
        self.run("publish")
        said = self.run("publish", directory=other, ok=False)
        must(said.returncode == 1 and "not the one whose head" in said.stderr, said.stderr)
        self.has(5)
        return said.stderr.strip()[:120]

    def restarts(self):
        for name in self.authorities:
            self.net.kill(name)
        for name in self.authorities:
            self.net.restart(name)
        must(self.net.settle(*self.authorities, within=60) is not None, "the authorities are not back")
        self.run("announce", "after the restart")
        said = self.run("publish").stdout.strip()
        self.has(6)
        return said

    def serves(self):
        self.metrics = f"127.0.0.1:{free_port()}"
        said = self.serve(self.net.daemons["service"]["config"], "--metrics", self.metrics)
        # Nothing is held back from new devices here, but for those of marked people.
        self.run("policy", "--hold-s", 0)
        self.run("publish")
        return said

    def enrol(self, person, name, *options):
        """Seconds until somebody is a member, from when the document has him."""
        person.start()
        out = person.dir / "invitation.toml"
        self.run("invite", name, "--out", out, *options)
        must(wait_until(lambda: "acme" in self.join(person, out), 30) is not None, self.join(person, out))
        digits = json.loads(person.run("organisation", "--json").stdout)["digits"]
        asked = lambda: f"{name}: asks with the digits {digits}" in self.run("requests").stdout
        must(wait_until(asked, 90) is not None, self.run("requests").stdout)
        # Somebody else's digits let nobody in.
        other = "000000" if digits != "000000" else "000001"
        must(self.run("approve", other, ok=False).returncode == 1, "other digits were approved")
        self.run("approve", digits)
        self.run("publish")
        took = wait_until(lambda: self.shows(person)["member"], 120)
        must(took is not None, f"{self.shows(person)}")
        return took

    def counts(self):
        _, text = page(self.metrics, "/metrics")
        size = json.loads(self.run("show", "--json").stdout)["size"]
        # As of the beginning of this epoch, or of the one before.
        shown = int(re.search(r"^shoal_org_directory_entries (\d+)$", text, re.M).group(1))
        must(0 < shown <= size, f"{shown} of {size}")
        answers = dict(re.findall(r'shoal_org_answers_total\{answer="(\w+)"\} (\d+)', text))
        must("batches" in answers and all(int(count) % 8 == 0 for count in answers.values()), f"{answers}")
        must(not any(word in text for word in ("Alice", "Bob", "acme")), text[-600:])
        return f"{size} entries; {answers}"

    def enrols(self):
        took = [self.enrol(self.alice, "Alice Example", "--unit", "Finance"), self.enrol(self.bob, "Bob Beispiel", "--marked")]
        # Alice hears of Bob: by a head that all see, at an instant of her own.
        must(wait_until(lambda: "Bob Beispiel" in self.alice.run("contacts").stdout, 90) is not None, f"{self.shows(self.alice)}")
        return f"members {took[0]:.0f} s and {took[1]:.0f} s after the document has them"

    def join(self, person, invitation):
        done = person.run("join", str(invitation), "--no-wait", "--device", "laptop", ok=False)
        return done.stdout + done.stderr

    def shows(self, person):
        return json.loads(person.run("organisation", "--json").stdout)

    def writes(self):
        # Bob is marked, so a day passes before others write to his new device.
        self.alice.send("bob", "kept for a day")
        held = self.alice.messages("bob")[-1]
        must(held["state"] == "queued" and "is new" in held["why"], f"{held}")
        must("is new" in self.alice.run("contacts", "bob").stdout, "the contact does not say so")
        self.bob.send("alice example", "hello Alice", "--wait")
        found = self.alice.takes_all(1)
        must(found == ["hello Alice"] and self.bob.takes() == [], f"{found}")
        nobody = self.bob.send("carol", "x", ok=False)
        must("nobody in the directory" in nobody.stderr, nobody.stderr)
        return found[0]

    def twin(self):
        """The admin enrols a device of his own as another one of Alice."""
        rogue = Person(self.binaries, self.net.daemons["client-1"]["config"], self.dir.with_name("rogue"))
        rogue.start()
        try:
            out = rogue.dir / "invitation.toml"
            self.run("invite", "alice", "--device", "--out", out)
            must(wait_until(lambda: "acme" in self.join(rogue, out), 30) is not None, self.join(rogue, out))
            digits = self.shows(rogue)["digits"]
            must(wait_until(lambda: digits in self.run("requests").stdout, 90) is not None, self.run("requests").stdout)
            self.run("policy", "--hold-s", 3600)
            self.run("approve", digits)
            self.run("publish")
            alarmed = lambda: any("was added to you by Olga Owner" in alarm for alarm in self.shows(self.alice)["alarms"])
            took = wait_until(alarmed, 90)
            must(took is not None, f"{self.shows(self.alice)}")
            must(wait_until(lambda: "is new" in self.bob.run("contacts", "alice").stdout, 90) is not None, "Bob does not hold back")
            self.bob.send("alice", "for Alice alone", "--wait")
            must(self.alice.takes_all(1) == ["for Alice alone"], "Alice's own laptop did not get it")
            must(rogue.takes() == [], "the rogue device got it")
            self.run("remove", "--device", 2)
            self.run("publish")
            return f"alarmed {took:.0f} s after the document had it"
        finally:
            rogue.kill()

    def killed(self):
        self.alice.kill()
        self.alice.start()
        shown = self.shows(self.alice)
        must(shown["member"] and shown["alarms"], f"{shown}")
        return f"{shown['entries']} entries, {len(shown['alarms'])} alarms"

    def removes(self):
        self.run("remove", "Bob Beispiel")
        self.run("publish")
        gone = lambda: "Bob" not in self.alice.run("contacts").stdout
        took = wait_until(gone, 90)
        must(took is not None, self.alice.run("contacts").stdout)
        told = lambda: any("removed this device" in alarm for alarm in self.shows(self.bob)["alarms"])
        must(wait_until(told, 90) is not None, f"{self.shows(self.bob)}")
        refused = self.alice.send("bob", "x", ok=False)
        must("was removed from acme" in refused.stderr, refused.stderr)
        return f"gone {took:.0f} s after the document said so"
