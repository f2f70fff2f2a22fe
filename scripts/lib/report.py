"""Named checks: each prints PASS, FAIL or SKIP and what was measured; a failure does not end the run."""

import threading
import time
import traceback


class Failed(Exception):
    """The check's promise does not hold; the text says what was measured."""


class Skip(Exception):
    """The check cannot be made here; the text says why."""


class Report:
    def __init__(self, only=None):
        self.passed, self.failed, self.skipped = 0, [], 0
        self.only = only
        self.lock = threading.Lock()

    def check(self, name, body, *args):
        """Runs body(*args); what it returns is the measured value."""
        if self.only and not any(word in name for word in self.only):
            return
        began = time.monotonic()
        try:
            outcome, value = "PASS", body(*args)
        except Skip as why:
            outcome, value = "SKIP", why
        except Failed as why:
            outcome, value = "FAIL", why
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            outcome, value = "FAIL", f"{type(error).__name__}: {error} ({where.name}:{where.lineno})"
        took = time.monotonic() - began
        with self.lock:
            if outcome == "PASS":
                self.passed += 1
            elif outcome == "SKIP":
                self.skipped += 1
            else:
                self.failed.append(name)
            print(f"{outcome}  {name}: {value if value is not None else 'holds'}  [{took:.1f} s]", flush=True)

    def end(self):
        """Prints the sum; the exit code."""
        for name in self.failed:
            print(f"failed: {name}")
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        print(f"{self.passed} passed, {len(self.failed)} failed{skipped}", flush=True)
        return 1 if self.failed else 0


def must(holds, text):
    if not holds:
        raise Failed(text)


def wait_until(holds, seconds, step=0.25):
    """Seconds until holds() is true, or None if it was not within `seconds`."""
    began = time.monotonic()
    while True:
        if holds():
            return time.monotonic() - began
        if time.monotonic() - began > seconds:
            return None
        time.sleep(step)
