"""An organisation on a network: the head of its directory in the document, on the word of most authorities."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from localnet import Localnet, scratch
from report import must

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
    finally:
        net.stop()
        shutil.rmtree(directory, ignore_errors=True)


class Organisation:
    def __init__(self, binaries, net, directory):
        self.binaries, self.net, self.dir = binaries, net, directory
        self.network = Path(net.daemons["client-1"]["config"]).parent.parent / "network.toml"
        self.authorities = [name for name in net.daemons if name.startswith("authority")]

    def run(self, *args, ok=True, directory=None):
        command = [self.binaries.org, "--dir", str(directory or self.dir), *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        must(not ok or done.returncode == 0, f"{args[0]}: {done.stderr.strip()}")
        return done

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
        must(self.shown() == 2, f"the document has {self.shown()} entries")
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

    def grows(self):
        self.run("announce", "Lunch is ready")
        self.run("announce", "Dinner too")
        said = self.run("publish").stdout.strip()
        must(self.shown() == 4, f"the document has {self.shown()} entries")
        return said

    def parts(self):
        other = self.dir.with_name("parted")
        shutil.copytree(self.dir, other)
        self.run("announce", "one")
        self.run("announce", "other", directory=other)
        self.run("publish")
        said = self.run("publish", directory=other, ok=False)
        must(said.returncode == 1 and "not the one whose head" in said.stderr, said.stderr)
        must(self.shown() == 5, f"the document has {self.shown()} entries")
        return said.stderr.strip()[:120]

    def restarts(self):
        for name in self.authorities:
            self.net.kill(name)
        for name in self.authorities:
            self.net.restart(name)
        must(self.net.settle(*self.authorities, within=60) is not None, "the authorities are not back")
        self.run("announce", "after the restart")
        said = self.run("publish").stdout.strip()
        must(self.shown() == 6, f"the document has {self.shown()} entries")
        return said
