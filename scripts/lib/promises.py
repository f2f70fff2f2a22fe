#!/usr/bin/env python3
"""Reads the line of `shoal-sim speed --json` and prints what was obtained beside what is promised."""

import json
import sys

# Name, promise, unit, whether more is better.
PROMISES = [
    ("ready_s", 10, "s", False),
    ("echo_web_p50_ms", 200, "ms", False),
    ("echo_web_p99_ms", 800, "ms", False),
    ("first_answers_under_2_s", 50, "of 50", True),
    ("first_answer_max_ms", 2000, "ms", False),
    ("download_web_kb_per_s", 145, "kB/s", True),
    ("download_fast_kb_per_s", 420, "kB/s", True),
    ("idle_share_of_a_core", 0.40, "", False),
]


def main():
    line = sys.stdin.readline()
    if not line.startswith("{"):
        print(f"no measurement: {line!r}")
        return 1
    found = json.loads(line)
    missed = 0
    print(f"{'':28} {'obtained':>10} {'promised':>12}")
    for name, promise, unit, more in PROMISES:
        value = found[name]
        good = value >= promise if more else value < promise
        missed += not good
        print(f"{name:28} {value:>10} {'>=' if more else '<':>4} {promise:>6} {unit:6} {'holds' if good else 'MISSED'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
