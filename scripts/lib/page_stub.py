#!/usr/bin/env python3
"""Speaks the words of docs/messages.md on a Unix socket, with people and messages that are made up: for whoever works on the page.

    scripts/lib/page_stub.py RUN/programs.sock              # takes the place of a running client's own socket
    scripts/lib/page_stub.py RUN/programs.sock --scene NAME  # members (the default), hostile, empty, new, asked, removed, alarms, offline, many

It answers what is written to "Echo Bot", lets states of messages move on, and has somebody write now and then.
"""

import argparse
import json
import os
import random
import socketserver
import threading
import time

MARKUP = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'
RTL = "\u202eevil\u202c \u2066\u202e.txt\u2069\u0007\u001b[31m"
LONG = "Maximiliane-Alexandra von und zu Hohenstein-Brandenburg-Ansbach-Bayreuth, Head of Everything"
PEOPLE = [
    ("Olga Owner", "Management", {}),
    ("Alice Example", "Finance", {"own": True}),
    ("Bob Beispiel", "Engineering", {}),
    ("Chiara Rossi", "Engineering", {}),
    ("Dmitri Ivanov", "Legal", {"external": True}),
    ("Echo Bot", "Automation", {}),
    ("Fatima Al-Sayed", "Operations", {"held": True}),
    ("Grace Okafor", "Board", {}),
    ("Mallory " + MARKUP, "Red team " + RTL, {}),
    ("\u202eMallory\u202c " + RTL, "Red team", {}),
    (LONG, "Department of Exceptionally Long Names, Subdivision for Names That Do Not Fit", {"external": True}),
    ("נועה כהן", "Tel Aviv", {}),
    # Nobody has written with him.
    ("Hugo Lindqvist", "Engineering", {}),
]
HOSTILE = {8, 9}
TALK = [
    (2, False, "Morning! Did the numbers for Q3 arrive?", 93000), (2, True, "Yes, last night. I am going through them now.", 92800),
    (2, True, "Two invoices are missing, I think: 2214 and 2219.", 92770), (2, False, "2219 was cancelled.\nI'll look for the other one.", 92000),
    (2, False, "Found it. It was filed under Operations 🙄", 5400), (2, True, "Perfect, thank you.", 5000),
    (2, True, "Then we can close the quarter on Thursday. Can you tell Chiara?", 4900), (2, False, "Will do. She is travelling, so it may take a while until she has it.", 1200),
    (2, True, "No hurry.", 900),
    (3, True, "The review is on Friday at ten.", 260000), (3, False, "Great, see you there", 259000), (3, False, "Room 4 or the small one?", 7000), (3, False, "Never mind, found it in the invitation.", 6900),
    (4, False, "Please treat the draft as confidential until the board has met.", 400000), (4, True, "Understood.", 399000),
    (6, True, "Welcome! Your laptop is set up?", 3000),
    (7, True, "The slides are ready for the meeting.", 1300000), (7, False, "Thank you. I will read them on the train.", 1290000),
    (8, False, MARKUP, 800), (8, False, "Signed: \u202ebaddie\u202c and \u0007\u001b[2J\u009b done", 790), (8, False, "Z̸̡̢͍̲̖͎̗̱̪͓̿̓̈́̈́̏̕a̸̧̨͇̝̮̝̍̂͗́̕͠l̵̢̛̛̖̱͔̝̪̗͋͂͒̊̄̋͠g̶̡̠͍̤̯̱̈́̌̓̀͂͆o̶̧̫̳͖̹͋͒̍͌ " + "W" * 400, 780),
    (9, False, "Who am I?", 700), (10, False, "My name does not fit anywhere.", 600), (11, False, "שלום! מה שלומך היום?", 500), (11, True, "All well, thanks.", 400),
    (0, False, "Please compare the safety digits with me when we meet.", 86400 * 12),
]


def number(name):
    """The number of the one whose name begins so."""
    return next(n for n, of in enumerate(PEOPLE) if of[0].startswith(name))


class World:
    def __init__(self, scene):
        self.scene, self.lock = scene, threading.RLock()
        self.messages, self.listeners, self.verified, self.taken = [], [], {2}, 0
        self.gone, self.entries = set(), 38
        self.alarms, self.announcements, self.connected = [], [], scene != "offline"
        self.people = [] if scene in ("new", "asked") else [self.person(n, *of) for n, of in enumerate(PEOPLE)]
        self.joined = None
        if scene == "asked":
            self.joined = {"digits": "482913", "sign_in": {"address": "https://login.example.com/device", "code": "WDJB-MJHT"}}
        if scene in ("new", "asked", "empty"):
            return
        now = int(time.time())
        for person, own, text, ago in sorted(TALK, key=lambda line: -line[3]):
            if scene == "hostile" or person not in HOSTILE:
                self.add(person, own, text, now - ago, read=ago > 1250)
        for m in self.messages:
            if m["own"]:
                m["state"] = "delivered"
        last = [m for m in self.messages if m["own"] and m["person"] == 2]
        last[-1]["state"] = "left"
        for m in self.messages:
            m.pop("why", None)
        self.note(6, "waiting", "nobody has acknowledged it", next_try=now + 7200)
        self.note(7, "expired", "it was not acknowledged within two weeks")
        self.note(11, "queued", "it waits for the reader's keys")
        if scene == "alarms":
            self.alarms = ["Olga Owner added the device \"phone\" to you on 12 May 2026.", "The directory that your gateway shows has parted from yours."]
        self.announcements = ["The office in Lisbon is closed on Friday.", "Second-factor tokens are handed out in room 12 from Monday on. Bring your badge."]
        if scene == "many":
            for n in range(len(PEOPLE), 400):
                name = f"Person {random.choice('ABCDEFGHIKLMNOPRSTUVW')}{n} {random.choice(['Silva', 'Nowak', 'Smith', 'Yilmaz', 'Dubois'])}"
                self.people.append(self.person(n, name, f"Unit {n % 9}", {}))
                self.add(n, n % 3 == 0, f"Message number {n} of many", now - n * 900, read=n % 7 != 0)
            for n in range(200):
                self.add(3, n % 4 == 0, f"Line {n} of a long conversation", now - 6800 + n)

    def person(self, n, name, unit, of):
        devices = [{"name": "laptop", "address": f"device{n}", "held_until": int(time.time()) + 50000 if of.get("held") else None}]
        return {"person": n, "name": name, "unit": unit, "external": of.get("external", False), "own": of.get("own", False), "devices": devices}

    def note(self, person, state, why, **more):
        mine = [m for m in self.messages if m["own"] and m["person"] == person]
        mine[-1].update(state=state, why=why, **more)

    def add(self, person, own, text, at=None, read=False, **more):
        at = at or int(time.time())
        number = len(self.messages) + 1
        m = {"number": number, "message": f"m{number}", "person": person, "name": self.people[person]["name"], "own": own, "text": text, "sent_at": at}
        m |= {"state": "queued", "why": "it waits for its turn"} if own else {"came_at": at + 4, "read": read}
        self.messages.append(m | more)
        return self.messages[-1]

    def tell(self, event):
        for listener in list(self.listeners):
            listener(event)

    def present(self):
        return [p for p in self.people if p["person"] not in self.gone]

    def named(self, name):
        """Whom a name means: the whole of it, or how one of its words begins. None of those who were removed."""
        lower = name.strip().lower()
        whole = [p for p in self.present() if p["name"].lower() == lower]
        return whole or [p for p in self.present() if lower and any(part.startswith(lower) for part in (p["name"].lower(), *p["name"].lower().split()))]

    def whom(self, said):
        # Of a number nobody asks whether it is somebody's.
        if said.get("person") is not None:
            return said["person"]
        found = self.named(said["name"])
        if not found:
            raise ValueError(f"nobody in the directory is called \"{said['name']}\"")
        if len(found) > 1:
            raise ValueError(f"\"{said['name']}\" can mean {' or '.join(p['name'] for p in found)}: say the whole name")
        return found[0]["person"]

    def name_of(self, person):
        return self.people[person]["name"] if person < len(self.people) else f"person {person}"

    def is_own(self, person):
        return person < len(self.people) and self.people[person]["own"]

    def of(self, person):
        return [m for m in self.messages if m["person"] == person]

    def later(self, seconds, what, *args):
        timer = threading.Timer(seconds, what, args)
        timer.daemon = True
        timer.start()

    def moves(self, m, state):
        with self.lock:
            if m not in self.messages:
                return
            m["state"] = state
            m.pop("why", None)
            self.tell({"event": "state", "number": m["number"], "message": m["message"], "person": m["person"], "state": state, "why": None, "next_try": None})

    def receives(self, person, text):
        with self.lock:
            self.tell({"event": "received"} | self.add(person, False, text))

    def removes(self, person):
        """An admin removes somebody: the directory is longer by that, and lists him no more."""
        with self.lock:
            self.gone.add(person)
            self.entries += 1
            self.tell({"event": "directory", "entries": self.entries})

    def answer(self, said):
        return getattr(self, "word_" + said["word"].replace("-", "_"))(said)

    def word_send(self, said):
        person = self.whom(said)
        if self.is_own(person):
            raise ValueError("this is you: write to somebody else")
        if self.scene == "removed":
            raise ValueError("this device was removed from the organisation")
        if person in self.gone or person >= len(self.people):
            raise ValueError(f"{self.name_of(person)}: this person has no device that could be written to")
        if len(said["text"].encode()) > 15000:
            raise ValueError(f"text: a message has at most 15000 bytes, not {len(said['text'].encode())}")
        more = {"expires_at": int(time.time()) + said["expires_s"]} if said.get("expires_s") else {}
        m = self.add(person, True, said["text"], **more)
        self.tell({"event": "sent"} | m)
        self.later(1.2, self.moves, m, "left")
        self.later(2.5, self.moves, m, "delivered")
        if "Echo" in self.people[person]["name"]:
            self.later(2.5, self.receives, person, "You said: " + said["text"])
        return {"message": m["message"]}

    def word_conversations(self, said):
        found = []
        for person in {m["person"] for m in self.messages if m["person"] >= 0}:
            of = self.of(person)
            unread = sum(not m["own"] and not m["read"] for m in of)
            found.append({"person": person, "name": self.people[person]["name"], "unread": unread, "last": of[-1], "verified": person in self.verified})
        return {"conversations": sorted(found, key=lambda c: -c["last"]["number"])}

    def word_groups(self, said):
        return {"groups": []}

    def word_messages(self, said):
        if "number" in said:
            return {"messages": [m for m in self.messages if m["number"] == said["number"] and m["person"] >= 0]}
        of = [m for m in self.of(self.whom(said)) if m["number"] < said.get("before", 1 << 60)]
        return {"messages": of[-min(said.get("last", 50), 500):]}

    def word_read(self, said):
        for m in self.of(self.whom(said)):
            if not m["own"] and m["number"] <= said["up_to"]:
                m["read"] = True
        return {}

    def word_search(self, said):
        text = said["text"].strip()
        if not text or len(said["text"].encode()) > 1000:
            raise ValueError("text: search for 1 to 1000 bytes")
        return {"messages": [m for m in reversed(self.messages) if m["person"] >= 0 and text.lower() in m["text"].lower()][:100]}

    def word_edit(self, said):
        for m in [m for m in self.messages if m["number"] == said["number"]]:
            if not m["own"]:
                raise ValueError("this message was written by somebody else, and its writer alone can change it")
            m |= {"text": said["text"], "edited": True}
            self.tell({"event": "changed", "number": m["number"], "person": m["person"]})
        return {}

    def word_delete(self, said):
        # Its number stays taken, and it is nobody's.
        for m in [m for m in self.messages if m["number"] == said["number"]]:
            self.messages[m["number"] - 1] = m | {"person": -1, "text": ""}
            self.tell({"event": "changed", "number": m["number"], "person": m["person"]})
        return {}

    def word_verify(self, said):
        person = self.whom(said)
        if self.scene in ("new", "asked", "removed"):
            raise ValueError("this client belongs to no organisation")
        if person >= len(self.people):
            raise ValueError(f"the directory has no person of the number {person}")
        if self.is_own(person):
            raise ValueError("this is you: compare with somebody else")
        # Of who was removed too: they say nothing then, as there is no key in them.
        digits = f"{random.Random(person).randrange(10**30):030}"
        digits = " ".join(digits[at:at + 5] for at in range(0, 30, 5))
        if said.get("digits", digits) != digits:
            raise ValueError("the digits are others now, since a device of one of you came or went: compare them again")
        if isinstance(said.get("same"), bool):
            (self.verified.add if said["same"] else self.verified.discard)(person)
        return {"person": person, "name": self.name_of(person), "digits": digits, "verified": person in self.verified}

    def word_join(self, said):
        if said["code"] == "wrong":
            raise ValueError("code: it has no 26 letters")
        self.joined = {"digits": "482913", "sign_in": {"address": "https://login.example.com/device", "code": "WDJB-MJHT"} if said["code"] == "sign-in" else None}
        return {"organisation": "acme", "key": "k" * 52, "digits": "482913"}

    def word_organisation(self, said):
        if self.scene in ("new", "asked"):
            if not self.joined:
                return {"organisation": None, "refused": None}
            return {"organisation": "acme", "key": "k" * 52, "member": False, "removed": False, "refused": None, "entries": 0, "head": 40, "alarms": [], "announcements": []} | self.joined
        shown = {"organisation": "acme", "key": "k" * 52, "member": self.scene != "removed", "removed": self.scene == "removed", "digits": None, "refused": None, "sign_in": None,
                 "entries": self.entries, "head": 40, "alarms": list(self.alarms), "announcements": self.announcements}
        if said.get("seen"):
            self.alarms = []
        return shown

    def word_contacts(self, said):
        return {"contacts": self.named(said["name"]) if isinstance(said.get("name"), str) else self.present()}

    def word_status(self, said):
        if not self.connected:
            return {"connected": False, "why": "the gateway does not answer", "summary": "Nothing of yours leaves: the gateway does not answer.", "warnings": []}
        if self.scene == "alarms":
            return {"connected": True, "why": None, "summary": "Connected, with less protection than usual: 2.31 bits of anonymity expected.",
                    "warnings": ["the expected anonymity is 2.31 bits: few others send now (the network warns below 6)", "3 of the last 40 loops were lost"]}
        return {"connected": True, "why": None, "summary": "Connected and protected: 9.4 bits of anonymity expected.", "warnings": []}

    def word_taken(self, said):
        self.taken = said["up_to"]
        return {}


class Handler(socketserver.StreamRequestHandler):
    def say(self, line):
        try:
            self.wfile.write((json.dumps(line) + "\n").encode())
        except OSError:
            pass

    def handle(self):
        world = self.server.world
        listener = None
        self.say({"protocol": 3, "shoal": "stub"})
        try:
            for line in self.rfile:
                try:
                    said = json.loads(line)
                    with world.lock:
                        if said["word"] == "events":
                            for m in [m for m in world.messages if not m["own"] and m["number"] > world.taken and not said.get("new")]:
                                self.say({"id": said.get("id"), "event": "received"} | m)
                            self.say({"id": said.get("id"), "end": True})
                            listener = lambda event, id=said.get("id"): self.say({"id": id} | event)
                            world.listeners.append(listener)
                            continue
                        answer = world.answer(said)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    answer = {"error": str(error)}
                    said = said if isinstance(said, dict) else {}
                self.say(answer | {"id": said.get("id")})
        except OSError:
            pass
        finally:
            if listener in world.listeners:
                world.listeners.remove(listener)


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def serve(path, scene="members"):
    """Serves a scene at a path, in threads of its own."""
    if os.path.lexists(path):
        os.unlink(path)
    server = Server(str(path), Handler)
    os.chmod(path, 0o600)
    server.world = World(scene)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("socket")
    parser.add_argument("--scene", default="members")
    parser.add_argument("--lively", type=float, default=0, help="somebody writes every so many seconds")
    args = parser.parse_args()
    world = serve(args.socket, args.scene).world
    while True:
        time.sleep(args.lively or 3600)
        if args.lively and world.people:
            world.receives(random.choice([2, 3, 5]), random.choice(["One more thing.", "Are you there?", "See you tomorrow."]))


if __name__ == "__main__":
    main()
