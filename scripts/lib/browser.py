"""Chromium, without a window or with one, driven over its DevTools protocol by a pipe: no port that others could use, and no library."""

import base64
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path


def chromium():
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)


class Browser:
    def __init__(self, path, *options, is_visible=False):
        self.is_visible = is_visible
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        ours_read, theirs_write = os.pipe()
        theirs_read, ours_write = os.pipe()

        def descriptors():
            # The browser reads commands at 3 and writes answers at 4.
            read, write = os.dup(theirs_read), os.dup(theirs_write)
            os.dup2(read, 3)
            os.dup2(write, 4)

        headless = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "about:blank"]
        # Its first window is the one that somebody asks for.
        visible = ["--no-startup-window", "--no-default-browser-check", *(["--no-sandbox", "--test-type"] if os.geteuid() == 0 else [])]
        self.child = subprocess.Popen(
            [path, "--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--remote-debugging-pipe", f"--user-data-dir={self.profile.name}", *options,
             *(visible if is_visible else headless)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=descriptors, start_new_session=True,
        )
        os.close(theirs_read)
        os.close(theirs_write)
        self.out, self.writing, self.number = os.fdopen(ours_write, "wb", 0), threading.Lock(), 0
        self.answers, self.events = {}, []
        threading.Thread(target=self._read, args=(ours_read,), daemon=True).start()

    def _read(self, fd):
        data = b""
        while more := os.read(fd, 1 << 16):
            *whole, data = (data + more).split(b"\0")
            for message in map(json.loads, whole):
                if "id" in message:
                    answer = self.answers.get(message["id"])
                    if answer:
                        answer.put(message)
                else:
                    self.events.append(message)
                    del self.events[:-2000]
        os.close(fd)

    def call(self, method, params=None, session=None, within=30):
        """The result of a command; an error of the browser is one here."""
        with self.writing:
            self.number += 1
            number, answer = self.number, queue.Queue()
            self.answers[number] = answer
            message = {"id": number, "method": method, "params": params or {}} | ({"sessionId": session} if session else {})
            self.out.write(json.dumps(message).encode() + b"\0")
        try:
            said = answer.get(timeout=within)
        except queue.Empty:
            raise RuntimeError(f"the browser does not answer {method}") from None
        finally:
            self.answers.pop(number, None)
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error'].get('message')}")
        return said["result"]

    def tab(self, url="about:blank", width=1280, height=800, left=0):
        if self.is_visible:
            place = {"newWindow": True, "left": left, "top": 0, "width": width, "height": height}
        else:
            # A context of its own, as a window of another user's: nothing that is kept is shared.
            place = {"browserContextId": self.call("Target.createBrowserContext")["browserContextId"]}
        target = self.call("Target.createTarget", {"url": "about:blank"} | place)["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        if self.is_visible:
            # Somebody looks at all windows, though one alone has the keyboard.
            tab.call("Emulation.setFocusEmulationEnabled", {"enabled": True})
        else:
            tab.size(width, height)
        if url != "about:blank":
            tab.go(url)
        return tab

    def close(self):
        try:
            # Its own session: the browser's helpers end with it.
            os.killpg(self.child.pid, 9)
        except ProcessLookupError:
            pass
        self.child.wait()
        self.profile.cleanup()


class Tab:
    def __init__(self, browser, session):
        self.browser, self.session = browser, session

    def call(self, method, params=None, within=30):
        return self.browser.call(method, params, self.session, within)

    def size(self, width, height, dark=False, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile})
        self.call("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})

    def go(self, url):
        """The text of an error of the network, or None."""
        return self.call("Page.navigate", {"url": url}).get("errorText")

    def js(self, expression, within=30):
        """The value of an expression; a promise is waited for."""
        said = self.call("Runtime.evaluate", {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True}, within)
        if "exceptionDetails" in said:
            details = said["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return said["result"].get("value")

    def until(self, expression, within=15):
        """Waits until an expression is true; its value, or None."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            try:
                # An element is no value.
                value = self.js(f"(value => value instanceof Node || value)({expression})")
                if value:
                    return value
            except RuntimeError:
                # In the middle of a navigation.
                pass
            time.sleep(0.1)
        return None

    def key(self, key, text=None, modifiers=0):
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowUp": 38, "ArrowDown": 40}
        params = {"key": key, "code": key, "modifiers": modifiers, "windowsVirtualKeyCode": codes.get(key, 0)}
        if key == "Enter":
            text = text or "\r"
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", **params, **({"text": text} if text else {})})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **params})

    def types(self, text):
        self.call("Input.insertText", {"text": text})

    def shot(self, path):
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", {"format": "png"})["data"]))

    def logged(self):
        """What the console and the browser itself said of this tab: refusals by policy among it."""
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            if event["method"] == "Log.entryAdded":
                found.append(event["params"]["entry"]["text"])
            elif event["method"] == "Runtime.exceptionThrown":
                details = event["params"]["exceptionDetails"]
                found.append(details.get("exception", {}).get("description") or details["text"])
            elif event["method"] == "Runtime.consoleAPICalled":
                found.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in event["params"]["args"]))
        return found
