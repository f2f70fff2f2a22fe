#!/usr/bin/env python3
"""Reads a line of JSON and prints what was obtained beside what is promised.

usage: promises.py speed|packets|load|full-load|endurance|events|document|day|messages   (of `shoal-sim speed`, `shoal-node bench`, `shoal-sim load`,
`shoal-sim events`, measurements of shoal-topology and shoal-client, `shoal-sim run` of a day)
"""

import json
import sys

# Name, promise, unit, whether more is better.
SPEED = [
    ("ready_s", 10, "s", False),
    ("echo_web_p50_ms", 200, "ms", False),
    ("echo_web_p99_ms", 800, "ms", False),
    ("first_answers_under_2_s", 50, "of 50", True),
    ("first_answer_max_ms", 2000, "ms", False),
    ("download_web_kb_per_s", 145, "kB/s", True),
    ("download_fast_kb_per_s", 420, "kB/s", True),
    ("idle_share_of_a_core", 0.40, "", False),
]

# Times as fast as the reference: opening (in batches of 16 and of 8), sealing, SURBs.
BACKENDS = {"scalar": (1.8, 1.8, 4, 4), "avx512": (4, 4, 8, 8), "ifma": (8, 6, 15, 15)}

# What is promised of a node's rate depends on its CPU: without IFMA nothing is.
LOAD = [("excess_delay_p99_ms", 2, "ms", False)]
FULL_LOAD = [("ratio", 2.5, "", True)]
ENDURANCE = [("rss_beside_replay_mb", 100, "MB", False)]
EVENTS = [("events_per_s", 1_000_000, "/s", True)]
DAY = [("cpu_s", 600, "s", False)]
MESSAGES = [("searched_s", 0.5, "s", False)]
DOCUMENT = [("bytes", 1_000_000, "", False), ("verify_ms", 50, "ms", False)]


def packets(found):
    peel, peel_of_eight, seal, surb = BACKENDS[found["backend"]]
    promises = [("peel_ratio", peel if found["batch"] >= 16 else peel_of_eight, "", True)]
    if found["batch"] >= 16:
        promises += [("seal5_ratio", seal, "", True), ("surb_ratio", surb, "", True)]
    return promises


def main():
    what = sys.argv[1] if len(sys.argv) == 2 else ""
    promises = {
        "speed": lambda _: SPEED,
        "packets": packets,
        "load": lambda _: LOAD,
        "full-load": lambda _: FULL_LOAD,
        "endurance": lambda _: ENDURANCE,
        "events": lambda _: EVENTS,
        "document": lambda _: DOCUMENT,
        "day": lambda _: DAY,
        "messages": lambda _: MESSAGES,
    }.get(what)
    if promises is None:
        print(__doc__, file=sys.stderr)
        return 2
    line = sys.stdin.readline()
    if not line.startswith("{"):
        print(f"no measurement: {line!r}")
        return 1
    found = json.loads(line)
    missed = 0
    print(f"{'':28} {'obtained':>10} {'promised':>12}")
    if "lost" in found:
        missed += found["lost"] > 0
        print(f"{'lost':28} {found['lost']:>10} {'':>4} {0:>6} {'':6} {'MISSED' if found['lost'] else 'holds'}")
    for name, promise, unit, more in promises(found):
        value = found[name]
        good = value >= promise if more else value < promise
        missed += not good
        shown = f"{value:.2f}" if isinstance(value, float) else value
        print(f"{name:28} {shown:>10} {'>=' if more else '<':>4} {promise:>6} {unit:6} {'holds' if good else 'MISSED'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
