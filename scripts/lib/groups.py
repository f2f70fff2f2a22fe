"""Groups of an organisation's members, by the command line and by a program."""

import json
import os
from pathlib import Path

import basics
from browser import Browser, chromium
from localnet import Localnet
from messages import Person
from report import Skip, must, wait_until
from window import Window

MARKUP = "<b>bold</b> <img src=x onerror=\"document.title='owned'\">"


class Groups:
    """Alice, Bob, Carol and a fourth person, who are members from the beginning."""

    def __init__(self, run):
        self.net = Localnet(run.binaries, "--people", 4)
        infos = {person["name"]: person for person in self.net.info["people"]}
        self.people = {name: Person.of(run.binaries, info["config"]) for name, info in infos.items()}
        self.names = list(self.people)
        self.alice, self.bob, self.carol, self.last = self.people.values()

    def all(self, check):
        check("18 a group is founded, and each who belongs to it reads what the others write", self.founded)
        check("18 who is added reads what is written from then on", self.added)
        check("18 two admins act at once, and all see the same", self.at_once)
        check("18 a member whose program was killed reads each message once", self.killed)
        check("18 who was removed reads nothing more, and cannot write", self.removed)
        check("18 messages of a group are edited, taken back, and erased when their time is over", self.changed)
        check("18 a group is founded, read, changed and left in the page", self.page)
        check("18 what a group does not allow says why", self.refused)

    def group(self, who, name="Finance"):
        """The group as somebody's program sees it, if it does."""
        groups = who.ask(word="groups")["groups"]
        return next((group for group in groups if group["name"] == name), None)

    def sees(self, who, people, name="Finance", within=60):
        """Waits until somebody sees that these people belong to the group."""
        names = lambda: {person["name"] for person in (self.group(who, name) or {"people": []})["people"]}
        must(wait_until(lambda: names() == set(people), within) is not None, f"{names()} in place of {people}")

    def says(self, who, text, name="Finance"):
        who.run("send", "--group", name, text=text)

    def read(self, who, name="Finance"):
        messages = who.ask(word="messages", group=name)["messages"]
        return [message["text"] for message in messages if "text" in message]

    def reads(self, who, text, name="Finance", within=60):
        # The group itself may have to come first.
        is_there = lambda: self.group(who, name) and self.read(who, name).count(text) == 1
        must(wait_until(is_there, within) is not None, f"no {text!r}")

    def founded(self):
        said = self.alice.run("group found", text=None, ok=False)
        must(said.returncode == 2, "without a name")
        said = self.alice.run("group found", "Finance", "bob", "carol").stdout
        must("3 people" in said and "Alice (you), owner" in said, said)
        for who in (self.bob, self.carol):
            self.sees(who, self.names[:3])
        self.says(self.alice, "hello all")
        # His answer acknowledges what he has.
        self.reads(self.bob, "hello all")
        self.says(self.bob, "hello Alice and Carol")
        self.reads(self.carol, "hello all")
        self.reads(self.carol, "hello Alice and Carol")
        self.reads(self.alice, "hello Alice and Carol")
        must(self.group(self.last) is None, "a stranger knows of it")
        inbox = self.carol.run("inbox").stdout
        must("Finance (group) (2 new)" in inbox, inbox)
        shown = self.carol.run("chat", "--group", "Finance", text="").stdout
        must("Alice: hello all" in shown and "Bob: hello Alice and Carol" in shown, shown)
        must("new" not in self.carol.run("inbox").stdout, "it counts as read")
        found = self.carol.run("search", "HELLO ALL").stdout
        must("in Finance: Alice: hello all" in found, found)
        # The acknowledgement rides on an answer.
        mine = lambda: next(m for m in self.alice.ask(word="messages", group="Finance")["messages"] if m.get("text") == "hello all")
        self.says(self.carol, "hello both")
        must(wait_until(lambda: mine().get("reached") == 2, 60) is not None, f"{mine()}")
        must(mine()["state"] == "delivered" and mine()["of"] == 2, f"{mine()}")
        events = [json.loads(line) for line in self.bob.run("events", "--once", "--take").stdout.splitlines()]
        must(any(event.get("group_name") == "Finance" and event["text"] == "hello all" for event in events), f"{events}")
        return said.splitlines()[0]

    def added(self):
        self.alice.run("group add", "Finance", self.names[3])
        self.sees(self.last, self.names)
        self.sees(self.bob, self.names)
        self.says(self.bob, "welcome")
        self.reads(self.last, "welcome")
        must(self.read(self.last) == ["welcome"], f"{self.read(self.last)}")
        shown = self.last.run("chat", "--group", "Finance", text="").stdout
        must(f"[Alice added {self.names[3]}]" in shown, shown)
        return f"{len(self.names)} people"

    def at_once(self):
        self.alice.run("group appoint", "Finance", "bob", "admin")
        is_admin = lambda: self.group(self.bob)["admin"]
        must(wait_until(is_admin, 60) is not None, "Bob is no admin")
        self.alice.run("group expire", "Finance", "86400")
        self.bob.run("group rename", "Finance", "Books")
        same = lambda: len({json.dumps([group["name"], group["expires_s"]]) for group in map(self.any, self.people.values())}) == 1
        done = lambda: same() and self.any(self.alice)["name"] == "Books" and self.any(self.alice)["expires_s"] == 86400
        must(wait_until(done, 120) is not None, f"{[self.any(who) for who in self.people.values()]}")
        self.bob.run("group expire", "Books", "0")
        self.bob.run("group rename", "Books", "Finance")
        back = lambda: all(self.any(who)["name"] == "Finance" and self.any(who)["expires_s"] == 0 for who in self.people.values())
        must(wait_until(back, 120) is not None, f"{[self.any(who) for who in self.people.values()]}")

    def any(self, who):
        return who.ask(word="groups")["groups"][0]

    def killed(self):
        daemon = "client-3"
        self.says(self.alice, "before it was killed")
        self.net.kill(daemon)
        self.says(self.alice, "while it was away")
        self.net.restart(daemon)
        wait_until(self.carol.ready, 60)
        self.says(self.alice, "and after")
        for text in ("before it was killed", "while it was away", "and after"):
            self.reads(self.carol, text, within=120)
        texts = self.read(self.carol)
        must(len(texts) == len(set(texts)), f"{texts}")
        return f"{len(texts)} messages"

    def removed(self):
        name = self.names[3]
        self.bob.run("group remove", "Finance", name)
        for who in self.people.values():
            self.sees(who, self.names[:3])
        self.says(self.alice, "without him")
        self.reads(self.carol, "without him")
        refused = self.last.run("send", "--group", "Finance", text="still here", ok=False)
        must(refused.returncode == 1 and "you do not belong to this group" in refused.stderr, refused.stderr)
        must("without him" not in self.read(self.last), "it was sent to him")
        must("no more" in self.last.run("group list").stdout, "nothing says so")

    def changed(self):
        self.says(self.alice, "to be edited")
        self.says(self.alice, "to be taken back")
        for text in ("to be edited", "to be taken back"):
            self.reads(self.bob, text)
        number = {m["text"]: m["number"] for m in self.alice.ask(word="messages", group="Finance")["messages"] if "text" in m}
        self.alice.ask(word="edit", number=number["to be edited"], text="edited")
        self.alice.ask(word="delete", number=number["to be taken back"], for_all=True)
        for who in (self.bob, self.carol):
            self.reads(who, "edited")
            gone = lambda: "to be taken back" not in self.read(who)
            must(wait_until(gone, 60) is not None, f"{self.read(who)}")
        self.alice.run("group expire", "Finance", "2")
        must(wait_until(lambda: self.group(self.bob)["expires_s"] == 2, 60) is not None, "not told")
        self.says(self.bob, "gone in two seconds")
        self.reads(self.carol, "gone in two seconds")
        self.carol.run("chat", "--group", "Finance", text="")
        gone = lambda: "gone in two seconds" not in self.read(self.carol) + self.read(self.bob)
        must(wait_until(gone, 20) is not None, "it is still there")

    def window(self, browser, who):
        address, code = who.run("open", "--code").stdout.split()
        window = Window(browser.tab(width=1100, height=700))
        window.opens(f"{address}#{code}")
        return window

    def shot(self, window, name):
        """A picture of a page, where somebody wants those."""
        if shots := os.environ.get("SHOAL_SHOTS"):
            window.tab.shot(Path(shots) / f"group-{name}.png")

    def page(self):
        path = chromium() or basics.install("chromium", "chromium")
        if not path:
            raise Skip("no chromium, and it cannot be installed")
        with_all = [Browser(path), Browser(path)]
        try:
            alice, bob = self.window(with_all[0], self.alice), self.window(with_all[1], self.bob)
            alice.people()
            alice.presses("New group")
            alice.waits("document.querySelector('dialog form input') === document.activeElement", 15, "no form for a group")
            alice.tab.types("Lunch")
            for name in ("Bob", "Carol"):
                alice.tab.js(f"[...document.querySelectorAll('dialog .choice label')].find(e => e.innerText.includes('{name}')).click()")
            self.shot(alice, "new")
            alice.presses("Found the group")
            alice.waits("!document.querySelector('dialog') && document.querySelector('.head h1')?.innerText.includes('Lunch')", 15, "no group")
            alice.writes("Who comes along?")
            bob.shows("Lunch")
            bob.reads("Who comes along?", 60)
            bob.waits("[...document.querySelectorAll('.notice')].some(e => e.textContent.includes('founded'))", 15, "no word of its founding")
            bob.waits("document.querySelector('.bubble > .name')?.textContent === 'Alice'", 15, "who wrote it does not show")
            said = bob.writes("I do")
            alice.reads("I do", 60)
            alice.waits("[...document.querySelectorAll('.own .meta')].some(e => e.innerText.includes('1 of 2 have it'))", 60, "nothing says who has it")
            must("On its way" in said or "Queued" in said, said)
            self.shot(alice, "talk")
            self.panel(alice, bob)
        finally:
            for browser in with_all:
                browser.close()

    def panel(self, alice, bob):
        """What an admin does, and what somebody sees who is none."""
        opens = "document.querySelector('.head .quiet').click()"
        bob.tab.js(opens)
        bob.waits("document.querySelectorAll('dialog .members li').length === 3", 15, "nobody is in it")
        must(not bob.tab.js("[...document.querySelectorAll('dialog button')].some(e => e.innerText === 'Make admin')"), "a member is offered what an admin may")
        bob.closes()
        alice.tab.js(opens)
        alice.waits("document.querySelector('dialog select')", 15, "no panel")
        self.shot(alice, "panel")
        alice.presses("Make admin")
        bob.waits("[...document.querySelectorAll('.notice')].some(e => e.textContent.includes('made Bob admin'))", 60, "Bob is not told")
        # Twice, as it cannot be undone by the one who is removed.
        remove = "[...[...document.querySelectorAll('dialog .members li')].find(e => e.innerText.includes('Carol')).querySelectorAll('button')].at(-1).click()"
        alice.tab.js(remove)
        alice.waits("document.querySelector('dialog .asks')?.innerText === 'Yes, do it'", 15, "it does not ask")
        alice.tab.js(remove)
        alice.waits("document.querySelectorAll('dialog .members li').length === 2", 15, "Carol is still there")
        bob.waits("[...document.querySelectorAll('.notice')].some(e => e.textContent.includes('removed Carol'))", 60, "Bob is not told")
        bob.tab.js(opens)
        bob.waits("document.querySelector('dialog select') && !document.querySelector('dialog select').disabled", 15, "Bob is no admin")
        for _ in range(2):
            bob.tab.js("[...document.querySelectorAll('dialog button')].filter(e => ['Leave the group', 'Yes, do it'].includes(e.innerText)).at(-1).click()")
            bob.waits("document.querySelector('dialog .asks') || document.body.innerText.includes('You no longer belong')", 15, "he does not leave")
        bob.closes()
        bob.waits("document.body.innerText.includes('You no longer belong to this group')", 15, "he can still write")
        self.shot(bob, "left")
        # A name full of markup is text.
        alice.tab.js("document.querySelector('dialog form input').select()")
        alice.tab.types(MARKUP)
        alice.presses("Rename")
        alice.closes()
        alice.waits(f"document.querySelector('.head h1').innerText.includes({json.dumps(MARKUP)})", 15, "it is not renamed")
        must(alice.tab.js("document.title").endswith("Shoal") and not alice.tab.js("!!document.querySelector('h1 b, h1 img, .notice b')"), "markup")

    def refused(self):
        said = []
        for who, args, why in (
            (self.carol, ("add", "Finance", self.names[3]), "only an admin"),
            (self.bob, ("remove", "Finance", "alice"), "Alice: this person is an admin as well"),
            (self.alice, ("add", "Finance", "bob"), "Bob: this person belongs to the group already"),
            (self.alice, ("add", "Finance", "nobody"), "nobody in the directory"),
            (self.alice, ("rename", "Finance", " "), "1 to 100 bytes"),
            (self.alice, ("show", "Sales"), "there is no group"),
            (self.alice, ("appoint", "Finance", "bob", "king"), "owner, admin or member"),
        ):
            refused = who.run(f"group {args[0]}", *args[1:], ok=False)
            must(refused.returncode == 1 and why in refused.stderr, f"{args}: {refused.stderr}")
            said.append(args[0])
        # Whoever leaves is told no more; and the last admin's place is taken.
        self.alice.run("group leave", "Finance")
        self.sees(self.bob, self.names[1:3])
        must(not self.group(self.alice)["member"], "Alice still belongs to it")
        return f"{len(said)} refusals"


def groups(run, check):
    try:
        all_of_them = Groups(run)
    except RuntimeError as error:
        check("18 localnet starts", lambda: (_ for _ in ()).throw(error))
        return
    try:
        all_of_them.all(check)
    finally:
        all_of_them.net.stop()
