"""The page of a member in Chromium: what it shows, and what everybody else on the machine and every other site gets of it.

With `--stub` the client is a real one, and the words of its `programs.sock` are made up (page_stub.py); without, two people are let into
an organisation and write to each other.
"""

import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import basics
import page_stub
from browser import Browser, chromium
from localnet import Localnet, free_port, scratch
from organisation import EPOCH, Organisation, Person
from report import Skip, must
from watch import watch
from window import Window, camera, film

MARKUP = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script><b>bold</b> \u202edesrever\u202c"
# A user who is nobody's: what he can read, everybody can.
NOBODY = 65534


def page(run, check, stub):
    directory = scratch()
    try:
        browser = chromium() or basics.install("chromium", "chromium")
        if not browser:
            raise Skip("no chromium, and it cannot be installed")
        options = ("--clients", 1) if stub else ("--authorities", 4, "--epoch", EPOCH, "--clients", 1)
        net = Localnet(run.binaries, *options, directory=directory / "net")
    except (RuntimeError, Skip) as error:
        check("20 a localnet and a browser for the page", lambda: (_ for _ in ()).throw(error))
        shutil.rmtree(directory, ignore_errors=True)
        return
    checks = Page(run, net, directory, stub, browser)
    try:
        checks.all(check)
    finally:
        checks.end()
        net.stop()
        shutil.rmtree(directory, ignore_errors=True)
    if not stub:
        check("20 people of a localnet find each other, write, verify and see one of them removed, each at his page", watch, run.binaries, browser)


class Stranger(http.server.BaseHTTPRequestHandler):
    """Another server on the same machine: an empty page."""

    def do_GET(self):
        body = b"<!DOCTYPE html><title>stranger</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Page:
    def __init__(self, run, net, directory, stub, browser):
        self.dir, self.is_stub, self.port = directory, stub, free_port()
        self.organisation, self.words = None, None
        like = net.daemons["client-1"]["config"]
        if stub:
            self.person = Person(run.binaries, like, directory / "alice")
        else:
            self.organisation = Organisation(run.binaries, net, directory / "acme")
            self.person = self.organisation.alice
        # Those of a person turn it off, so that several have room on one machine.
        options = self.person.options
        options[options.index("page.listen=")] = f"page.listen=127.0.0.1:{self.port}"
        self.stranger = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
        threading.Thread(target=self.stranger.serve_forever, daemon=True).start()
        self.browser = Browser(browser, f"--host-resolver-rules=MAP rebound.example 127.0.0.1:{self.port}, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", *camera(directory / "camera.y4m"))
        self.window, self.tab, self.used = None, None, None

    def end(self):
        self.browser.close()
        self.stranger.shutdown()
        if self.organisation:
            self.organisation.end()
        elif self.person.child:
            self.person.kill()

    def all(self, check):
        check("20 a client serves its page, and `open` says where", self.starts)
        check("20 the file of `open` is for its user alone", self.private)
        check("20 the file takes a browser to the page, and no code stays in its address", self.opens)
        check("20 the page goes on over a reload, without cookies", self.reloads)
        check("20 the address with the code is worth nothing a second time", self.stolen)
        check("20 a page of another port reads nothing and connects to nothing", self.other_port)
        check("20 a name that was rebound to this machine gets nothing", self.rebound)
        check("20 a script that got into the page does not run, and sends nothing out", self.inline)
        check("20 another user without a token gets no word", self.no_token)
        check("20 digits that were compared count before there are messages, and afterwards", self.verifies)
        check("20 a code before the camera is compared, and another one raises an alarm", self.scans)
        check("20 a search for one letter ends, and one that the client refuses says why", self.searches)
        check("20 markup as message and name stays text", self.markup)
        check("20 what is written in the page is sent, and says how it stands", self.writes)
        check("20 what was written is edited, and deleted for both", self.changes)
        check("20 it is used by the keyboard alone", self.keyboard)
        if self.is_stub:
            check("20 who was removed keeps his name, and is shown as an ex-member", self.removed)
            check("20 who was removed is not to be verified, also while digits are compared", self.unverified)
        check("20 the page asked nobody but its own client, and nothing was refused or failed", self.quiet)
        check("20 tokens end with the client", self.ends)

    def unstub(self):
        if self.words:
            self.words.shutdown()
            self.words.server_close()
            os.unlink(self.words.server_address)

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"

    def code(self):
        return self.person.run("open", "--code").stdout.split()

    def starts(self):
        if self.organisation:
            self.organisation.unlisted()
            self.organisation.listed()
            self.organisation.serves()
            self.organisation.enrols()
        else:
            self.person.start()
            # The same socket, by another program: the page connects anew each time.
            self.words = page_stub.serve(self.person.dir / "run/programs.sock", "hostile")
        address, code = self.code()
        must(address == self.url() and len(code) == 43, f"{address}")
        return address

    def private(self):
        if os.geteuid() != 0:
            raise Skip("only root can be another user")
        file = Path(self.person.run("open", "--print").stdout.strip())
        must(file.stat().st_mode & 0o777 == 0o600, f"{file.stat().st_mode:o}")
        # Let in as far as to the directory itself: the file's own mode is what is left.
        seen = []
        for path in (file, file.with_name("page.sock"), file.with_name("programs.sock")):
            mode = file.parent.stat().st_mode
            os.chmod(file.parent, 0o755)
            try:
                look = "import socket,sys\np=sys.argv[1]\nif p.endswith('sock'):\n s=socket.socket(socket.AF_UNIX); s.connect(p)\nelse:\n open(p).read()"
                done = subprocess.run(["python3", "-c", look, str(path)], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, cwd="/")
            finally:
                os.chmod(file.parent, mode)
            must(done.returncode != 0 and "PermissionError" in done.stderr, f"{path.name}: {done.stderr[-200:]}")
            seen.append(path.name)
        arguments = b"".join(p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if os.access(p, os.R_OK))
        code = file.read_text().split("#", 1)[1].split('"')[0]
        must(code.encode() not in arguments, "the code is an argument of a process")
        return f"user {NOBODY} is refused {', '.join(seen)}"

    def opens(self):
        file = self.person.run("open", "--print").stdout.strip()
        self.used = Path(file).read_text().split("url=", 1)[1].split('"')[0]
        self.window = Window(self.browser.tab())
        self.tab = self.window.tab
        self.window.opens("file://" + file)
        must(self.tab.js("location.href") == self.url(), self.tab.js("location.href"))
        must(not Path(file).exists(), "the file is there though it was used")
        kept = self.tab.js("JSON.stringify([Object.keys(sessionStorage), Object.keys(localStorage), document.cookie])")
        must(kept == '[["token"],[],""]', kept)
        return self.tab.js("document.title")

    def reloads(self):
        self.tab.js("location.reload()")
        time.sleep(0.5)
        must(self.tab.until("document.querySelector('.frame')"), self.tab.js("document.body.innerText"))
        cookies = self.browser.call("Storage.getCookies")["cookies"]
        must(not cookies, f"{cookies}")

    def stolen(self):
        thief = self.browser.tab(self.used)
        said = thief.until("document.querySelector('.card')?.innerText")
        must(said and "not good" in said and not thief.js("!!document.querySelector('.frame')"), f"{said!r}")
        must(thief.js("Object.keys(sessionStorage).length") == 0, "a token was given")
        return "the page asks for another code"

    def other_port(self):
        tab = self.browser.tab(f"http://127.0.0.1:{self.stranger.server_port}/")
        must(tab.until("document.title === 'stranger'"), "the other page does not come")
        code = self.code()[1]
        results = {
            "fetch": f"fetch('{self.url()}').then(r => r.text(), () => 'refused')",
            "fetch of a script": f"fetch('{self.url('/app.js')}', {{mode: 'no-cors'}}).then(r => r.text(), () => 'refused')",
            "POST": f"fetch('{self.url('/words')}', {{method: 'POST', mode: 'no-cors', body: 'x'}}).then(r => r.text(), () => 'refused')",
            "script": f"new Promise(done => {{ const s = document.createElement('script'); s.type = 'module'; s.src = '{self.url('/texts.js')}';"
                      "s.onload = () => done('ran'); s.onerror = () => done('refused'); document.head.append(s) })",
            "image": f"new Promise(done => {{ const i = new Image(); i.onload = () => done('shown'); i.onerror = () => done('refused'); i.src = '{self.url('/icon.svg')}' }})",
            "WebSocket with a good code": f"new Promise(done => {{ const w = new WebSocket('ws://127.0.0.1:{self.port}/words');"
                                          f"w.onopen = () => w.send(JSON.stringify({{code: '{code}'}})); w.onmessage = () => done('open'); w.onerror = w.onclose = () => done('refused') }})",
            "frame": f"new Promise(done => {{ const f = document.createElement('iframe'); f.src = '{self.url()}';"
                     "f.onload = () => setTimeout(() => { let text; try { text = f.contentDocument?.body.innerText } catch { text = null } done(text ? 'readable' : f.contentWindow.length ? 'frames' : 'refused') }, 500);"
                     "document.body.append(f) })",
            "window": f"new Promise(done => {{ const w = window.open('{self.url()}'); setTimeout(() => {{ let text; try {{ text = w.document.body.innerText }} catch {{ }}"
                      "done(text ? 'readable' : w.closed ? 'refused' : 'held') }, 1500) })",
        }
        for name, expression in results.items():
            said = tab.js(expression)
            must(said == "refused", f"{name}: {said!r}")
        # The code is still good: nobody used it.
        own = Window(self.browser.tab())
        own.opens(self.url("/#" + code))
        own.tab.go("about:blank")
        return ", ".join(results) + ": refused"

    def rebound(self):
        tab = self.browser.tab("http://rebound.example/")
        said = tab.until("document.body?.innerText")
        must(said and "has one name" in said, f"{said!r}")
        status = raw(self.port, f"GET /app.js HTTP/1.1\r\nHost: rebound.example:{self.port}\r\n\r\n").split(" ")[1]
        must(status == "421", status)
        return f"421, {said.strip()!r}"

    def inline(self):
        tries = {
            "innerHTML": "document.body.innerHTML = '<b>x</b>'",
            "text of a script": "{ const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s) }",
            "source of a script": "{ const s = document.createElement('script'); s.src = 'data:text/javascript,window.ran=1'; document.body.append(s) }",
            "eval": "eval('window.ran = 1')",
            "handler": "{ const i = document.createElement('img'); i.setAttribute('onerror', 'window.ran = 1'); i.src = '/none'; document.body.append(i) }",
        }
        thrown = []
        for name, code in tries.items():
            # `Runtime.evaluate` may do what a page may not; what a timer runs is the page's own.
            said = self.tab.js(f"new Promise(done => setTimeout(() => {{ try {{ {code}; setTimeout(() => done(window.ran ? 'ran' : 'nothing'), 300) }} catch (e) {{ done(e.name) }} }}))")
            must(said != "ran", f"{name} ran")
            thrown.append(f"{name}: {said}")
        out = self.tab.js(f"fetch('http://127.0.0.1:{self.stranger.server_port}/', {{mode: 'no-cors'}}).then(() => 'sent', () => 'refused')")
        must(out == "refused", f"what is in the page was sent out: {out}")
        self.tab.js("document.querySelectorAll('body > img, body > script').forEach(e => e.remove())")
        return "; ".join(thrown)

    def no_token(self):
        # Without a browser, so without any header of one.
        for first in ({"token": "x" * 43}, {"code": ""}, {"word": "conversations", "id": 1}):
            said = websocket(self.port, json.dumps(first))
            must(said[0] & 15 == 8 and said[2:4] == (4401).to_bytes(2, "big"), f"{said[:80]!r}")
        said = raw(self.port, f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n")
        must(said.split(" ")[1] == "200" and "set-cookie" not in said.lower(), said[:200])
        return "closed with 4401"

    def verifies(self):
        name, is_marked = "Bob" if self.organisation else "Echo", "document.querySelector('.head .good')"
        self.window.chooses(name)
        digits = self.window.digits()
        must(len(digits) == 35, digits)
        self.window.marks()
        self.window.closes()
        must(not self.tab.js("document.querySelector('.message')"), "there are messages already")
        self.window.waits(is_marked, 5, "no mark without a message")
        self.reloads()
        self.window.chooses(name)
        self.window.waits(is_marked, 5, "no mark without a message after a reload")
        self.window.writes("the digits are the same")
        must(self.tab.js(f"!!{is_marked}"), "no mark beside a message")
        return digits

    def scans(self):
        """The code of a conversation before the camera, and one of other digits."""
        self.window.chooses("Bob")
        self.window.digits()
        if self.tab.js("!!document.querySelector('dialog .good')"):
            self.window.presses("Remove the mark")
            self.window.waits("!document.querySelector('dialog .good')", 5, "the mark stays")
        film(self.dir / "camera.y4m", self.window.code())
        self.window.scans()
        self.window.waits("document.querySelector('dialog .good')", 5, "the right code is no mark")
        rows = self.tab.js("import('/qr/index.js').then(qr => JSON.stringify(qr.default('SHOAL:' + '7'.repeat(30), 'raw')))")
        film(self.dir / "camera.y4m", [(x, y) for y, row in enumerate(json.loads(rows)) for x, is_black in enumerate(row) if is_black])
        self.window.scans()
        said = self.window.waits("document.querySelector('dialog .strip.bad')?.innerText", 5, "another code is taken")
        must("not that of your conversation" in said and not self.tab.js("!!document.querySelector('dialog .good')"), said)
        self.window.closes()
        return f"Bob's code marks, and of another it says: {said}"

    def changes(self):
        own = "[...document.querySelectorAll('.own.message')].at(-1)"
        self.window.writes("what I have wrote")
        self.window.details("what I have wrote")
        self.window.presses("Edit")
        self.window.waits("document.querySelector('dialog textarea') === document.activeElement", 5, "no field for another text")
        self.tab.js("document.querySelector('dialog textarea').select()")
        self.tab.types("what I have written")
        self.window.presses("Save")
        self.window.waits(f"{own}.innerText.includes('what I have written') && {own}.innerText.includes('edited')", 10, "the message is as it was")
        self.window.details("what I have written")
        self.window.presses("Delete for both")
        self.window.waits("![...document.querySelectorAll('.message')].some(e => e.textContent.includes('what I have'))", 10, "the message is there")
        must(not self.tab.js("document.querySelector('dialog')"), "the dialog stays")
        self.tab.js("document.querySelector('textarea').focus()")

    def searches(self):
        found = self.window.finds("b")
        must(any("Bob" in name for name in found), f"it finds {found}")
        # 1,200 bytes, in fewer letters than the field takes.
        must(self.window.finds("€" * 400) == [], "it finds somebody")
        said = self.tab.js("document.querySelector('.side h2[role=status]').innerText")
        must("1 to 1000 bytes" in said, said)
        self.tab.key("Escape")
        must(self.tab.until("document.getElementById('search').value === ''"), "Escape does not end the search")
        return f"{len(found)} people by one letter; {said!r}"

    def markup(self):
        if self.organisation:
            self.organisation.bob.send("alice example", MARKUP)
            self.window.shows("Bob")
            self.tab.until("[...document.querySelectorAll('.text')].some(e => e.textContent.includes('onerror'))", 60)
        else:
            self.words.world.receives(2, MARKUP)
            self.window.shows("onerror")
        must(self.tab.until("[...document.querySelectorAll('.text')].some(e => e.textContent.includes('<script>'))", 10), "the message does not come")
        found = self.tab.js("document.querySelectorAll('#app b, #app script, #app .text *, #app .name *, #app img:not([src=\"/icon.svg\"])').length")
        must(found == 0, f"{found} elements of markup")
        must("owned" not in self.tab.js("document.title"), "a script ran")
        loose = self.tab.js("[...document.querySelectorAll('.name, .text, bdi')].filter(e => !getComputedStyle(e).unicodeBidi.includes('isolate')).length")
        must(loose == 0, f"{loose} texts of others are not isolated")
        wide = self.tab.js("document.documentElement.scrollWidth - innerWidth")
        must(wide <= 0, f"the page is {wide} pixels wider than its window")
        return self.tab.js("[...document.querySelectorAll('.text')].map(e => e.textContent).find(t => t.includes('<script>')).slice(0, 30)")

    def writes(self):
        if not self.organisation:
            if self.tab.js("[...document.querySelectorAll('.side .row')].some(row => row.innerText.includes('Echo'))"):
                self.window.shows("Echo Bot")
            else:
                self.window.chooses("Echo")
        said = self.window.writes("written in the page")
        if not self.organisation:
            self.window.waits("[...document.querySelectorAll('.own.message')].at(-1).innerText.includes('Delivered')", 10, "it is not delivered")
            self.window.reads("You said: written in the page", 10)
        return said

    def keyboard(self):
        self.tab.key("Escape")
        must(self.tab.until("document.activeElement?.id === 'search'"), "Escape does not lead to the list")
        self.tab.key("ArrowDown", modifiers=1)
        must(self.tab.until("document.activeElement?.tagName === 'TEXTAREA'"), "Alt and down open no conversation")
        self.tab.key("k", modifiers=2)
        must(self.tab.until("document.activeElement?.id === 'search'"), "Ctrl and K do not search")
        unnamed = self.tab.js("[...document.querySelectorAll('button, input, textarea')].filter(e => !(e.innerText || e.ariaLabel || e.labels?.length)).length")
        must(unnamed == 0, f"{unnamed} controls have no name")
        order = []
        for _ in range(4):
            self.tab.key("Tab")
            order.append(self.tab.js("document.activeElement.tagName"))
        must("BUTTON" in order, f"{order}")
        must(self.tab.js("document.getElementById('live').ariaLive") == "polite", "nothing is said to screen readers")

    def removed(self):
        # Somebody without messages: nothing but the page has his name.
        self.window.chooses("Hugo")
        self.words.world.removes(page_stub.number("Hugo"))
        said = self.former("Hugo Lindqvist")
        must((found := self.window.finds("hugo")) == [], f"the search finds {found}")
        self.tab.key("Escape")
        return said

    def unverified(self):
        self.window.shows("Grace Okafor")
        self.window.digits()
        self.words.world.removes(page_stub.number("Grace"))
        self.window.waits("document.querySelector('dialog').innerText.includes('no longer a member')", 5, "the digits stay")
        must(not self.tab.js("document.querySelector('dialog .digits, dialog .primary')"), "she can still be verified")
        self.window.closes()
        self.former("Grace Okafor")
        must(not self.tab.js("document.querySelector('.head .quiet')"), "she can still be verified")
        row = self.tab.js("document.querySelector('.side [aria-current=true]').innerText")
        must("Ex-member" in row, row)

    def former(self, name):
        """What the open conversation says of somebody whom the organisation has removed."""
        self.window.waits("document.querySelector('main').innerText.includes('no longer a member')", 5, "the page does not say why nothing can be sent")
        said = self.tab.js("document.querySelector('.head .who').innerText")
        must(name in said and "Ex-member" in said, said)
        must(not self.tab.js("document.querySelector('textarea')"), f"{name} can be written to")
        return said.replace("\n", " ")

    def quiet(self):
        asked = {e["params"]["request"]["url"].split("#")[0] for e in self.browser.events
                 if e["method"] == "Network.requestWillBeSent" and e.get("sessionId") == self.tab.session}
        foreign = [url for url in asked if not url.startswith((self.url(), "file://", "data:")) and str(self.stranger.server_port) not in url]
        must(asked and not foreign, f"{foreign}")
        # What was tried on purpose was refused, and said so.
        bad = [text for text in self.tab.logged() if not any(word in text for word in ("Content Security Policy", "TrustedScript", "TrustedHTML", "TrustedScriptURL", "404", "Trusted Type"))]
        must(not bad, f"{bad[:2]}")
        return f"{len(asked)} addresses, all its own"

    def ends(self):
        self.person.kill()
        self.unstub()
        must(self.tab.until("document.body.innerText.includes('does not answer')", 10), self.tab.js("document.body.innerText")[:200])
        self.person.start()
        said = self.tab.until("document.querySelector('.card')?.innerText.includes('started anew') && document.querySelector('.card').innerText", 20)
        must(said, self.tab.js("document.body.innerText")[:200])
        address, code = self.code()
        self.tab.js("document.querySelector('input[name=code]').focus()")
        self.tab.types(code)
        if self.is_stub:
            self.words = page_stub.serve(self.person.dir / "run/programs.sock", "hostile")
        self.tab.key("Enter")
        must(self.tab.until("document.querySelector('.frame')"), self.tab.js("document.body.innerText")[:200])
        return "a typed code opens it again"


def raw(port, request):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.sendall(request.encode())
        data = b""
        while more := s.recv(1 << 16):
            data += more
    return data.decode(errors="replace")


def websocket(port, text):
    """The first frame that a server answers to one message."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.sendall(
            f"GET /words HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        data = b""
        while b"\r\n\r\n" not in data:
            data += s.recv(1)
        body = text.encode()
        must(data.split(b" ")[1] == b"101" and len(body) < 126, f"{data[:80]!r}")
        s.sendall(bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body)
        return s.recv(1 << 16)
