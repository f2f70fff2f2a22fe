#!/usr/bin/env python3
"""Checks that what the documents claim is tested by a test that runs.

Usage: claims.py TESTS IGNORED DOCUMENT...

TESTS and IGNORED are what the test runner lists: `cargo test --workspace -- --list --format terse`, and the same
with `--ignored`. Each name in backticks that has three words or more, joined by underscores, must be

- a test that `cargo test` runs; or
- a test that it ignores, where the paragraph says what runs it (`--ignored` or `release-check`); or
- a setting, a counter or a label: a string, a field or a key of the sources, outside of comments and of tests.

A word in a comment, a test that was removed, and a function that nothing marks as a test are no test.
"""

import pathlib
import re
import subprocess
import sys

NAME = re.compile(r"`([a-z0-9]+(?:_[a-z0-9]+){2,})`")


def tests(path):
    """Names of tests, without their modules."""
    names = set()
    for line in pathlib.Path(path).read_text().splitlines():
        if line.endswith(": test"):
            names.add(line.removesuffix(": test").rsplit("::", 1)[-1])
    return names


def sources():
    """The text of all sources, without comments."""
    listed = subprocess.run(
        ["git", "ls-files", "*.rs", "*.toml", "*.py", "scripts/*"], capture_output=True, text=True, check=True
    )
    texts = []
    for path in listed.stdout.split():
        file = pathlib.Path(path)
        if not file.is_file():
            continue
        text = file.read_text(errors="replace")
        texts.append(re.sub(r"^\s*(//|#(?!\[)).*$", "", text, flags=re.M))
    return "\n".join(texts)


def main():
    runs, ignored = tests(sys.argv[1]), tests(sys.argv[2])
    if not runs:
        sys.exit("the test runner lists no test")
    words = sources()
    wrong = []
    for path in sys.argv[3:]:
        for paragraph in re.split(r"\n(?=\s*\n|- |\d+\. |\| )", pathlib.Path(path).read_text()):
            for name in NAME.findall(paragraph):
                # The list of all tests has the ignored ones, too.
                if name in runs and name not in ignored:
                    continue
                if name in ignored:
                    if "--ignored" not in paragraph and "release-check" not in paragraph:
                        wrong.append(f"{path}: {name} is ignored, and the paragraph does not say what runs it")
                    continue
                if re.search(rf"fn {name}\b", words):
                    wrong.append(f"{path}: {name} is a function, and no test")
                elif not re.search(rf"""["']{name}["'=]|\b{name}\s*[:=]""", words):
                    wrong.append(f"{path}: {name} is neither a test nor a setting nor a counter")
    if wrong:
        sys.exit("the documents claim what no test shows:\n" + "\n".join(sorted(set(wrong))))
    print(f"{len(runs - ignored)} tests run; each that the documents name is one of them")


if __name__ == "__main__":
    main()
