"""Three people of a localnet, two of them before a browser each: they find each other, write, answer, verify, and see the third one removed."""

import contextlib
import json
import shutil
import signal
import time
from pathlib import Path

from browser import Browser
from localnet import Localnet, scratch
from messages import Person
from organisation import Admin
from report import must, wait_until
from window import Window, camera, film

# Seconds; a removal stands in the document of the next epoch.
EPOCH = 10
# Seconds from the command to the first answer, by release builds.
ANSWERED = 60
# Seconds that the network runs at most, also if nobody is there any more to end it.
LONGEST = 1200
# Of a page without a window, and of a window.
SIZE, VISIBLE_SIZE = (1100, 700), (900, 760)

QUESTION, ANSWER = "Hello Bob, does this reach you?", "It does. And my answer, does it reach you?"


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def watch(binaries, chromium, tell=lambda text: None, is_visible=False, shots=None):
    """Goes through all of it, each step once the one before is seen to be done. What was measured, as a sentence."""
    people = Watch(binaries, chromium, tell, is_visible, shots)
    try:
        people.starts()
        people.lists()
        people.writes()
        people.verifies()
        people.removes()
        if is_visible:
            people.lingers()
    finally:
        with undisturbed():
            people.end()
    must(people.ended == (0, []), f"the localnet ended with {people.ended}")
    return f"first message answered {people.answered:.0f} s after the command, all of it in {people.seconds():.0f} s"


@contextlib.contextmanager
def undisturbed():
    """Passes over signals that would end this program, for what has to come to its end."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Watch:
    def __init__(self, binaries, chromium, tell, is_visible, shots):
        self.binaries, self.chromium, self.tell, self.is_visible, self.shots = binaries, chromium, tell, is_visible, shots
        self.dir, self.net, self.admin, self.browsers, self.ended = scratch(), None, None, [], None
        self.began, self.answered = time.monotonic(), None

    def end(self):
        for browser in self.browsers:
            browser.close()
        if self.admin:
            self.admin.end()
        if self.net:
            self.ended = self.net.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def seconds(self):
        return time.monotonic() - self.began

    def says(self, text):
        self.tell(f"{self.seconds():6.1f} s  {text}")
        if self.is_visible:
            # For whoever reads along.
            time.sleep(3)

    def keeps(self, window, name):
        """A picture of a page."""
        if self.shots:
            Path(self.shots).mkdir(parents=True, exist_ok=True)
            window.tab.shot(Path(self.shots) / f"people-{name}.png")

    def starts(self):
        # Without a window Alice's camera is a film. Before real people it is theirs, or none.
        cameras = [() if self.is_visible else camera(self.dir / "camera.y4m"), ()]
        self.browsers += [Browser(self.chromium, *options, is_visible=self.is_visible) for options in cameras]
        self.net = Localnet(self.binaries, "--people", 3, "--epoch", EPOCH, "--for", LONGEST, directory=self.dir / "net", program=[self.binaries.localnet])
        self.people = {person["name"]: Person.of(self.binaries, person["config"]) for person in self.net.info["people"]}
        must(list(self.people) == ["Alice", "Bob", "Carol"], f"the people are {list(self.people)}")
        self.says(f"A mixnet of {len(self.net.daemons)} programs runs on this machine. Alice, Bob and Carol are in one organisation, each with a client.")
        self.alice = self.opens("Alice", self.browsers[0])
        # Side by side, as far as the screen goes.
        self.bob = self.opens("Bob", self.browsers[1], max(self.alice.tab.js("screen.availWidth") - VISIBLE_SIZE[0], 0))
        self.says("Alice and Bob open their pages, each in a browser of his own.")

    def opens(self, name, browser, left=0):
        address, code = self.people[name].run("open", "--code").stdout.split()
        width, height = VISIBLE_SIZE if self.is_visible else SIZE
        window = Window(browser.tab(width=width, height=height, left=left))
        window.opens(f"{address}#{code}")
        return window

    def lists(self):
        found = self.alice.people(), self.bob.people()
        must(found == (["Bob", "Carol"], ["Alice", "Carol"]), f"the pages list {found}")
        self.says("All three are enrolled: Alice's page lists Bob and Carol, Bob's lists Alice and Carol.")
        self.alice.closes()
        self.bob.closes()

    def writes(self):
        found = self.alice.finds("bo")
        must(found == ["Bob"], f"the search finds {found}")
        self.says("Alice searches for “bo” and finds Bob.")
        self.alice.shows("Bob")
        self.alice.writes(QUESTION)
        self.says(f"She writes: “{QUESTION}”")
        self.bob.shows(QUESTION)
        self.bob.reads(QUESTION, 15)
        self.says("It is on Bob's page.")
        self.bob.writes(ANSWER)
        self.says(f"He answers: “{ANSWER}”")
        self.alice.reads(ANSWER, 90)
        self.answered = self.seconds()
        self.says(f"It is on Alice's page: first message answered {self.answered:.1f} s after the command.")
        if self.binaries.profile == "release" and not self.is_visible:
            must(self.answered <= ANSWERED, f"first message answered {self.answered:.1f} s after the command, and {ANSWERED} s are promised")
        # The answer says that the question came.
        self.alice.waits("document.querySelector('.own.message').innerText.includes('Delivered')", 30, "the question is not delivered")
        self.keeps(self.alice, "answered")

    def verifies(self):
        digits = self.alice.digits(), self.bob.digits()
        must(digits[0] == digits[1] and len(digits[0].split()) == 6, f"the digits differ: {digits}")
        self.says(f"They compare the digits of “Verify”, by telephone, and both have {digits[0]}.")
        if self.is_visible:
            self.alice.marks()
        else:
            film(self.dir / "camera.y4m", self.bob.code())
            self.alice.scans()
            self.alice.waits("document.querySelector('dialog .good')", 15, "the code of Bob's page is no mark")
            self.says("Alice's camera sees the code on Bob's page, which says the same.")
        self.bob.marks()
        self.keeps(self.bob, "verified")
        for window in (self.alice, self.bob):
            window.closes()
            window.waits("document.querySelector('.head .good')", 15, "the conversation is not marked as verified")
        self.says("Both say that they are the same: nobody stands between them.")

    def removes(self):
        carol = self.people["Carol"]
        for name, window in (("alice", self.alice), ("bob", self.bob)):
            carol.send(name, f"Carol here. {name.title()}, do you come to lunch at one?")
            window.shows("Carol here")
        self.says("Carol writes to both from a terminal, and both open what she wrote.")
        self.administers()
        self.says("Olga, their admin, starts the organisation's service, which gives members the directory.")
        self.admin.run("remove", "Carol")
        self.says("She removes Carol: shoal-org remove Carol")
        for window in (self.alice, self.bob):
            window.waits("document.querySelector('main').innerText.includes('no longer a member')", 15 * EPOCH, "Carol can still be written to")
            must(not window.tab.js("document.querySelector('textarea, .head .quiet')"), "Carol can still be written to or verified")
        self.keeps(self.alice, "removed")
        self.says("Once the network's document says so, both pages say that nothing can be sent to her.")
        for window, found in ((self.alice, ["Bob"]), (self.bob, ["Alice"])):
            must((people := window.people()) == found, f"the page lists {people}")
            window.closes()
            must((people := window.finds("carol")) == [], f"the search finds {people}")
        refused = self.people["Bob"].send("carol", "Are you there?", ok=False)
        must("was removed from" in refused.stderr, f"{refused.stdout}{refused.stderr}")
        self.says("Neither list of people has her any more. A search finds what she wrote, and not her.")
        told = lambda: json.loads(carol.run("organisation", "--json").stdout)["removed"]
        must(wait_until(told, 15 * EPOCH) is not None, "her client is not told")
        window = self.opens("Carol", self.browsers[1])
        window.waits("document.querySelector('.column > .strip').innerText.includes('Olga Owner removed this device')", 15, "her page does not say who removed her")
        must("This device was removed" in window.text(), window.text())
        self.keeps(window, "told")
        refused = carol.send("bob", "I am still here", ok=False)
        must(refused.returncode != 0, "she can still send")
        self.says("Carol's own page says that Olga removed her, and her client sends nothing.")

    def administers(self):
        """The files of the localnet's admin are ready for him."""
        self.admin = Admin(self.binaries, self.net.dir / "organisation")
        self.admin.serve(self.net.daemons["service"]["config"], "--publish")

    def lingers(self):
        self.says("The windows stay until Ctrl-C, for some minutes.")
        try:
            wait_until(lambda: any(browser.child.poll() is not None for browser in self.browsers), LONGEST)
        except KeyboardInterrupt:
            pass
