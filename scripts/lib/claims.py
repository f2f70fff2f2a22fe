#!/usr/bin/env python3
"""Checks that what the documents claim is shown by something that runs.

Usage: claims.py RAN IGNORED PROGRAMS DOCUMENT...

RAN and IGNORED are what the test runner lists, both streams in one file: `cargo test --workspace -- --list --format terse`,
and the same with `--ignored`. PROGRAMS is the directory that has the programs. Of what stands in backticks:

- A name of words joined by underscores is a test that `cargo test` runs; or one that it ignores, where the paragraph
  says what runs it: `--ignored`, or `release-check` if that has a step that does. In THREAT-MODEL.md that is all, but for
  keys of the configurations' templates. The other documents may also name labels, settings and crates: a string or a public
  item of the sources, apart from tests, or a key of a TOML file. Variables, helpers of tests and words in comments are none of these.
- A command, there or in a block of code, names a program, a subcommand, options and files that there are.

`acceptance, checks 9` and the like name checks of those scripts.
"""

import fnmatch
import pathlib
import re
import subprocess
import sys

NAME = re.compile(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`")
COMMAND = re.compile(r"`((?:shoal-(?:sim|node|client|org)|cargo|scripts/|\.ci/)[^`]*)`")
CHECK = re.compile(r"\b(acceptance|release-check), checks? (\w+)")
BLOCK = re.compile(r"^```\n(.*?)^```", flags=re.M | re.S)
PARAGRAPH = re.compile(r"\n(?=\s*\n|- |\d+\. |\| )")


class Tests:
    """Tests by their names without modules, each with the binaries that have it."""

    def __init__(self, text):
        self.by_name = {}
        binary = ""
        for line in text.splitlines():
            if running := re.match(r"\s*Running (?:unittests )?(\S+) \(\S*?([^/\s]+)-[0-9a-f]+\)", line):
                # The library's own tests go by the crate, the others by their file.
                path, crate = running.groups()
                binary = f"--test {crate}" if "tests/" in path else f"{crate.replace('_', '-')} {pathlib.Path(path).name}"
            elif line.endswith(": test"):
                self.by_name.setdefault(line.removesuffix(": test").rsplit("::", 1)[-1], set()).add(binary)

    def __contains__(self, name):
        return name in self.by_name


def run_by(script):
    """Binaries whose ignored tests a script runs, each with the part of a name that it asks for."""
    found = set()
    for line in script.replace("\\\n", " ").splitlines():
        command = re.search(r"cargo test\b(.*?) -- (.*)", line)
        if not command or "--ignored" not in command[2]:
            continue
        part = next((word for word in command[2].split("|")[0].split() if re.fullmatch(r"[a-z0-9_]+", word)), "")
        for test in re.findall(r"--test (\w+)", command[1]):
            found.add((f"--test {test}", part))
        package = re.search(r"-p (\S+)", command[1])
        if package and "--lib" in command[1]:
            found.add((f"{package[1]} lib.rs", part))
    return found


def without_tests(text):
    """A source of Rust without comments and without its tests, which stand last."""
    text = re.sub(r"^\s*//.*$", "", text, flags=re.M)
    return re.split(r"^#\[cfg\(test\)\]\nmod \w+ \{", text, maxsplit=1, flags=re.M)[0]


def labels(sources):
    """Strings, public fields, functions and modules, and keys of templates and scenarios: {path: text} -> names."""
    found = set()
    for path, text in sources.items():
        if path.endswith(".toml"):
            # Keys of scenarios, and crates, whose names have underscores in sources.
            found |= {key.replace("-", "_") for key in re.findall(r"^([a-z0-9_-]+)(?:\.workspace)? *=", text, flags=re.M)}
        elif not re.search(r"(^|/)tests(/|\.rs$)", path):
            text = without_tests(text)
            found |= set(re.findall(r'"([a-z0-9_]+)"', text))
            found |= set(re.findall(r"^\s*pub(?:\(\w+\))? (?:fn |mod |const )?([a-z0-9_]+)\b", text, flags=re.M))
            found |= settings(text)
    return found


def settings(text):
    """Keys of the templates of configurations in a source."""
    templates = re.findall(r'r#"(# .*?)"#', text, flags=re.S)
    return {key for template in templates for key in re.findall(r"^#? ?([a-z0-9_]+) *=", template, flags=re.M)}


def wrong_name(name, paragraph, tests, others, by_release):
    """What is wrong with a name, or None."""
    ran, ignored = tests
    if name in ignored:
        if "--ignored" in paragraph:
            return None
        if "release-check" not in paragraph:
            return "is ignored, and the paragraph does not say what runs it"
        suits = any(binary in ignored.by_name[name] and part in name for binary, part in by_release)
        return None if suits else "is ignored, and release-check does not run it"
    if name in ran or name in others:
        return None
    return "is no test that runs"


def commands(text):
    """The commands of a document: in backticks, and in its blocks, where several may stand in a line."""
    found = COMMAND.findall(" ".join(BLOCK.sub("", text).split()))
    for block in BLOCK.findall(text):
        for line in block.splitlines():
            parts = re.split(r"\s{2,}", line.split("#")[0].strip())
            found += [part for part in parts if COMMAND.fullmatch(f"`{part}`")]
    return found


def wrong_command(command, ran, helps, directory=pathlib.Path(".")):
    """What is wrong with a command, or None. `helps(words)` is what a program says with `--help`, or None; files are
    looked for from a directory on, and from the root."""
    words = command.split()
    if words[0] == "cargo":
        if words[1] == "test":
            named = [word for word in words[2:] if re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", word)]
            missing = [word for word in named if not any(word in name for name in ran.by_name)]
            return f"no test has {missing} in its name" if missing else None
        if "--bin" in words and "--" in words:
            rest = [words[words.index("--bin") + 1], *words[words.index("--") + 1 :]]
            return wrong_command(" ".join(rest), ran, helps, directory)
        return None
    if "/" in words[0] and not pathlib.Path(words[0]).is_file():
        return "there is no such script"
    subcommands = []
    for word in words[1:]:
        if not re.fullmatch(r"[a-z][a-z-]*", word):
            break
        subcommands.append(word)
    text = ""
    if words[0].startswith("shoal-") or words[1:]:
        text = helps([words[0], *subcommands])
        if text is None:
            return "the program does not know this"
        usage = re.search(r"Usage: (.*)", text)
        if usage and subcommands:
            known = usage[1].split()
            arguments = [word for word in subcommands if word not in known]
            takes_any = re.search(r"<(DIR|FILE)>", usage[1])
            if not takes_any and any(not re.search(rf"(?<![\w-]){word}(?![\w-])", text) for word in arguments):
                return f"{arguments} is no subcommand and no argument that the program names"
    for word in words[1:]:
        if word.startswith("-") and word != "-" and not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text):
            return f"there is no {word}"
        # What begins with capitals stands for something.
        if re.search(r"^(?![A-Z]+/).*/.*\.\w+$", word) and not any((at / word).exists() for at in (directory, pathlib.Path("."))):
            return f"there is no file {word}"
    return None


def program_help(programs):
    known = {}

    def helps(words):
        key = tuple(words)
        if key not in known:
            program = words[0] if "/" in words[0] else f"{programs}/{words[0]}"
            done = subprocess.run([program, *words[1:], "--help"], capture_output=True, text=True, timeout=60)
            known[key] = done.stdout if done.returncode == 0 else None
        return known[key]

    return helps


def read(pattern):
    listed = subprocess.run(["git", "ls-files", *pattern.split()], capture_output=True, text=True, check=True).stdout
    files = [pathlib.Path(path) for path in listed.split() if pathlib.Path(path).is_file()]
    return {str(file): file.read_text(errors="replace") for file in files}


def main():
    ran, ignored = (Tests(pathlib.Path(path).read_text()) for path in sys.argv[1:3])
    if not ran.by_name or not ignored.by_name:
        sys.exit("the test runner lists no test")
    sources = read("*.rs *.toml")
    all_labels = labels(sources)
    in_templates = set().union(*(settings(text) for path, text in sources.items() if path.endswith(".rs")))
    scripts = "\n".join(read("scripts/acceptance scripts/lib/*.py").values())
    by_release = run_by(pathlib.Path("scripts/release-check").read_text())
    helps = program_help(sys.argv[3])
    wrong, named = set(), set()
    for path in sys.argv[4:]:
        text = pathlib.Path(path).read_text()
        for command in commands(text):
            if said := wrong_command(command, ran, helps, pathlib.Path(path).parent):
                wrong.add(f"{path}: {command}: {said}")
        others = in_templates if fnmatch.fnmatch(path, "*THREAT-MODEL.md") else all_labels
        for paragraph in PARAGRAPH.split(text):
            one_line = " ".join(paragraph.split())
            for name in NAME.findall(paragraph):
                named.add(name)
                if said := wrong_name(name, paragraph, (ran, ignored), others, by_release):
                    wrong.add(f"{path}: {name} {said}")
            for script, check in CHECK.findall(one_line):
                if not re.search(rf'check\(\s*f?"{check} ', scripts):
                    wrong.add(f"{path}: {script} has no checks {check}")
    if wrong:
        sys.exit("the documents claim what nothing that runs shows:\n" + "\n".join(sorted(wrong)))
    print(f"{len(set(ran.by_name) - set(ignored.by_name))} tests run; the documents name {len(named & set(ran.by_name))} of them, and all exist")


if __name__ == "__main__":
    main()
