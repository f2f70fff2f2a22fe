"""Sign-ins at an organisation's own provider, and accounts that the provider ends: with oidc-provider of npm, whose pages a script goes through as a
user's browser would, and requests as Entra and Okta write them."""

import html
import http.cookiejar
import json
import re
import shutil
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from basics import install
from messages import Person
from localnet import ROOT, Localnet, scratch
from organisation import EPOCH, Organisation
from report import Failed, Skip, must, wait_until

PACKAGE = "oidc-provider@9.13.3"


def oidc(run, check):
    directory = scratch()
    try:
        net = Localnet(run.binaries, "--authorities", 4, "--epoch", EPOCH, "--clients", 1, directory=directory)
    except RuntimeError as error:
        check("16 a localnet for sign-ins starts", lambda: (_ for _ in ()).throw(error))
        shutil.rmtree(directory, ignore_errors=True)
        return
    acme = Acme(run.binaries, net, directory / "acme")
    try:
        check("16 a service that may let people in unseen takes no owner's key", acme.founded)
        check("16 who has the code of an invitation that says so is let in unseen", acme.unseen)
        check("16 a provider of sign-ins starts", acme.starts)
        check("16 who signed in at the provider is let in after an admin's look", acme.signs_in)
        check("16 who is in no group that is let in is refused", acme.refused)
        check("16 where the provider's file says so, who signs in for the first time is let in unseen", acme.auto)
        check("16 a further device by a sign-in waits for an admin", acme.further)
        check("16 whose account the provider ends is removed, as Entra and Okta write it, and is told", acme.ends)
        check("16 the provider's secret and its tokens are in no log and no other file", acme.secrets)
    finally:
        acme.end()
        net.stop()
        shutil.rmtree(directory, ignore_errors=True)


def scim(url, token, method="GET", body=None):
    """The answer of the endpoint of SCIM."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/scim+json"}
    data = json.dumps(body).encode() if body is not None else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, data, headers, method=method), timeout=20) as answer:
        return json.loads(answer.read())


class Browser:
    """What a user does in a browser at the provider's pages: cookies, redirects, forms."""

    def __init__(self, ca):
        jar = http.cookiejar.CookieJar()
        context = ssl.create_default_context(cafile=str(ca))
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.HTTPCookieProcessor(jar), urllib.request.ProxyHandler({})
        )

    def open(self, url, fields=None):
        data = urllib.parse.urlencode(fields).encode() if fields is not None else None
        with self.opener.open(url, data, timeout=20) as answer:
            self.url, self.text = answer.geturl(), answer.read().decode()

    def submit(self, **typed):
        """The first form of the page, with what was typed."""
        form = re.search(r"<form[^>]*>.*?</form>", self.text, re.S)
        must(form, f"no form at {self.url}")
        action = re.search(r'action="([^"]*)"', form[0])
        fields = {}
        for tag in re.findall(r"<input[^>]*>", form[0]):
            name, value = re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag)
            if name:
                fields[name[1]] = html.unescape(value[1]) if value else ""
        fields.update({name: value for name, value in typed.items() if name in fields})
        self.open(urllib.parse.urljoin(self.url, html.unescape(action[1])), fields)

    def signs_in(self, page, code, login):
        """Types the code, confirms it, signs in, agrees."""
        self.open(page)
        for _ in range(6):
            if "Sign-in Success" in self.text:
                return
            self.submit(user_code=code, login=login, password="any")
        raise Failed(f"the provider does not end at {self.url}")


class Acme(Organisation):
    def __init__(self, binaries, net, directory):
        super().__init__(binaries, net, directory)
        like = net.daemons["client-1"]["config"]
        names = ("carol", "mallory", "tablet")
        self.carol, self.mallory, self.tablet = (Person(binaries, like, directory.with_name(name)) for name in names)
        self.provider = None

    def end(self):
        for person in (self.carol, self.mallory, self.tablet):
            if person.child:
                person.kill()
        super().end()
        if self.provider:
            self.provider.kill()
            self.provider.wait()

    def log(self):
        return self.dir.with_name("service.log").read_text()

    def serves(self, *options):
        if self.service:
            self.service.terminate()
            self.service.wait(10)
        config = Path(self.net.daemons["service"]["config"])
        log = open(self.dir.with_name("service.log"), "wb")
        command = [self.binaries.org, "--dir", str(self.dir), "serve", "-c", str(config), "--token", str(config.parent / "token"), *options]
        self.service = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        must(wait_until(lambda: "ready at" in self.log(), 60) is not None, self.log()[-400:])

    def is_member(self, person):
        return self.shows(person)["member"]

    def founded(self):
        self.run("init", "--name", "acme", "--owner", "Olga Owner", "--network", self.network)
        self.listed()
        said = self.run("serve", "--auto", ok=False)
        must(said.returncode == 1 and "--role issuer" in said.stderr, said.stderr)
        key = self.run("admin-key", 2).stdout.strip()
        self.run("admin", "add", "Service", "--role", "issuer", "--key", key, "--as", 1)
        self.run("policy", "--hold-s", 0, "--as", 1)
        # It publishes what is new itself, its own address first.
        self.serves("--auto", "--publish")
        must(wait_until(lambda: self.shown() == 4, 6 * EPOCH) is not None, f"the document has {self.shown()} entries: {self.log()[-400:]}")
        return said.stderr.strip()[:100]

    def unseen(self):
        self.carol.start()
        out = self.carol.dir / "invitation.toml"
        self.run("invite", "Carol Example", "--auto", "--account", "carol@example.org", "--out", out)
        must(wait_until(lambda: "acme" in self.join(self.carol, out), 30) is not None, self.join(self.carol, out))
        took = wait_until(lambda: self.is_member(self.carol), 240)
        must(took is not None, f"{self.shows(self.carol)} {self.log()[-400:]}")
        must("person 0, Carol Example; by Service (2)" in self.run("log").stdout, self.run("log").stdout)
        return f"in after {took:.0f} s"

    def starts(self):
        packages = ROOT / "target/tools/oidc"
        if not (install("node", "nodejs") and install("npm", "npm") and install("openssl", "openssl")):
            raise Skip("no Node.js or no openssl, and they cannot be installed")
        major = int(subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.lstrip("v").split(".")[0])
        if major < 20:
            raise Skip(f"Node.js {major} is too old for {PACKAGE}")
        if not (packages / "node_modules/oidc-provider").exists():
            packages.mkdir(parents=True, exist_ok=True)
            command = ["npm", "install", "--prefix", str(packages), "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
            done = subprocess.run(command, capture_output=True, text=True)
            must(done.returncode == 0, done.stderr[-400:])
        self.tls = self.dir.with_name("tls")
        self.tls.mkdir(mode=0o700)
        key, cert = str(self.tls / "key.pem"), str(self.tls / "cert.pem")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert,
                   "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
        subprocess.run(command, check=True, capture_output=True)
        self.secret = self.tls / "secret"
        self.secret.write_text("a+b c/%d=:of-these-checks\n")
        self.secret.chmod(0o600)
        script = str(ROOT / "scripts/lib/oidc-provider.mjs")
        self.provider_log = self.tls / "provider.log"
        log = open(self.provider_log, "wb")
        self.provider = subprocess.Popen(
            ["node", script, str(packages), str(self.tls), str(self.secret)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        log.close()
        said = lambda: self.provider_log.read_text()
        must(wait_until(lambda: "port " in said(), 30) is not None, said()[-400:])
        self.issuer = f"https://localhost:{re.search(r'port ([0-9]+)', said())[1]}"
        # Nobody whom this system knows vouches for its certificate.
        self.configure("false", ca="")
        self.serves("--auto", "--publish", "--oidc", str(self.tls / "oidc.toml"))
        must(wait_until(lambda: "certificate does not count" in self.log(), 20) is not None, self.log()[-400:])
        said = next(line for line in self.log().splitlines() if "does not count" in line)
        self.configure("false")
        self.serves("--auto", "--publish", "--oidc", str(self.tls / "oidc.toml"))
        return f"{PACKAGE}; without its certificate: {said}"

    def configure(self, auto, ca='ca = "cert.pem"\n'):
        (self.tls / "oidc.toml").write_text(
            f'issuer = "{self.issuer}"\nclient_id = "shoal"\nclient_secret_file = "secret"\n{ca}'
            f'unit = "department"\nallowed_groups = ["staff"]\nallowed_domains = ["example.org"]\nauto = {auto}\n'
        )

    def needs_provider(self):
        if not self.provider:
            raise Skip("no provider")

    def asks(self, person, login):
        """The device asks, and its owner signs in."""
        if not person.child:
            person.start()
        self.needs_provider()
        asked = lambda: "acme" in person.run("join", "--sign-in", "--organisation", "acme", "--no-wait", "--device", "laptop", ok=False).stdout
        must(wait_until(asked, 30) is not None, "it does not ask")
        page = lambda: self.shows(person)["sign_in"]
        must(wait_until(page, 90) is not None, f"{self.shows(person)} {self.log()[-400:]}")
        Browser(self.tls / "cert.pem").signs_in(page()["address"], page()["code"], login)

    def requests(self):
        return [json.loads(line) for line in self.run("requests", "--json").stdout.split("\n") if line]

    def signs_in(self):
        self.asks(self.alice, "alice")
        listed = lambda: [r for r in self.requests() if (r["signed_in"] or {}).get("account") == "alice@example.org"]
        must(wait_until(listed, 60) is not None, f"{self.run('requests').stdout} {self.log()[-400:]}")
        request = listed()[0]
        must(request["name"] == "Alice Example" and request["signed_in"]["subject"] == "alice" and not request["auto"], f"{request}")
        must(request["digits"] == self.shows(self.alice)["digits"], f"{request}")
        said = next(line for line in self.run("requests").stdout.splitlines() if "Alice" in line)
        must(f'signed in as "alice@example.org" at {self.issuer}' in said, said)
        must(not self.is_member(self.alice), "she is in before an admin looked")
        self.run("approve", request["digits"], "--as", 1)
        took = wait_until(lambda: self.is_member(self.alice), 240)
        must(took is not None, f"{self.shows(self.alice)}")
        must("Alice Example (Finance)" in self.run("show").stdout, self.run("show").stdout)
        return f"{said}; in {took:.0f} s after the approval"

    def refused(self):
        self.asks(self.mallory, "mallory")
        told = lambda: "does not let in this account" in (self.shows(self.mallory)["refused"] or "")
        must(wait_until(told, 90) is not None, f"{self.shows(self.mallory)}")
        must("Mallory" not in self.run("requests").stdout, self.run("requests").stdout)
        return self.shows(self.mallory)["refused"]

    def auto(self):
        self.needs_provider()
        self.configure("true")
        said = self.run("serve", "--oidc", self.tls / "oidc.toml", ok=False)
        must("`serve --auto` says that this service may" in said.stderr, said.stderr)
        self.serves("--auto", "--publish", "--oidc", str(self.tls / "oidc.toml"))
        self.asks(self.bob, "bob")
        took = wait_until(lambda: self.is_member(self.bob), 240)
        must(took is not None, f"{self.shows(self.bob)} {self.log()[-400:]}")
        must("Bob Beispiel; by Service (2)" in self.run("log").stdout, self.run("log").stdout)
        must("Bob Beispiel" in self.run("account").stdout, self.run("account").stdout)
        return f"in {took:.0f} s after he signed in"

    def further(self):
        self.asks(self.tablet, "alice")
        listed = lambda: "Alice Example (a further device): asks" in self.run("requests").stdout
        must(wait_until(listed, 60) is not None, self.run("requests").stdout)
        must(wait_until(lambda: self.is_member(self.tablet), 45) is None, "it is in without an admin")
        said = self.run("requests").stdout.strip()
        self.run("refuse", self.shows(self.tablet)["digits"])
        return said

    def ends(self):
        """Carol's by the form of Entra, Bob's by that of Okta; the service publishes it."""
        log = open(self.dir.with_name("scim.log"), "wb")
        command = [self.binaries.org, "--dir", str(self.dir), "scim", "--listen", "127.0.0.1:0"]
        endpoint = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        try:
            said = lambda: self.dir.with_name("scim.log").read_text()
            must(wait_until(lambda: "ready at" in said(), 10) is not None, said())
            base = re.search(r"http://\S+/scim/v2", said())[0]
            token = (self.dir / "keys/scim.token").read_text().strip()
            entra = {"op": "Replace", "path": "active", "value": "False"}
            okta = {"op": "replace", "value": {"active": False}}
            for account, operation in (("carol@example.org", entra), ("bob@example.org", okta)):
                query = urllib.parse.urlencode({"filter": f'userName eq "{account}"'})
                found = scim(f"{base}/Users?{query}", token)["Resources"]
                must(len(found) == 1 and found[0]["active"], f"{account}: {found}")
                patch = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [operation]}
                must(not scim(f"{base}/Users/{found[0]['id']}", token, "PATCH", patch)["active"], account)
            took = wait_until(lambda: "Bob" not in self.alice.run("contacts").stdout, 120)
            must(took is not None, self.alice.run("contacts").stdout)
            for person in (self.bob, self.carol):
                told = lambda: any("Service removed this device" in alarm for alarm in self.shows(person)["alarms"])
                must(wait_until(told, 90) is not None, f"{self.shows(person)}")
            return f"gone for others after {took:.0f} s"
        finally:
            endpoint.terminate()
            endpoint.wait(10)

    def secrets(self):
        self.needs_provider()
        searched = 0
        places = [self.dir, self.dir.with_name("service.log"), *(person.dir for person in (self.alice, self.bob, self.mallory, self.tablet))]
        for place in places:
            for path in [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]:
                text = path.read_bytes()
                for secret in (b"of-these-checks", b"eyJ"):
                    must(secret not in text, f"{path} has {secret}")
                searched += 1
        must("alice" not in self.log().lower() and "bob" not in self.log().lower(), self.log())
        return f"{searched} files"
