#!/usr/bin/env python3
"""Checks the shape of the Rust sources, without compiling them.

Usage: house.py [--root DIR]                the checks; prints file:line for each fault, and fails if there is one
       house.py --left                      the checks, and what LEFT excuses
       house.py --table [PATH...]           the measures of the tree, or of what lies under the paths
       house.py --words                     how often words occur in identifiers that the glossary would rather not have
       house.py --names                     structs, enums and traits of one name that are declared more than twice (not the `Error` of each crate)

It fails for:

- a function of more than 80 lines in production, without a comment `// Long: …` directly above it (or above its attributes and
  documentation) that says why it is not divided;
- a file of more than 600 lines of production, or a test file of more than 900. Of a file that has both, each part counts for itself;
- import circles between the modules of a crate. A module is a file. What counts is where an item is *declared*: a path that leads over a `pub use`
  leads to the file that the `pub use` leads to. A module may use what its submodules declare, and a submodule what the modules
  around it declare: `foo.rs` and `foo/*.rs` are one thing in several files, and `use super::*` is how it is divided. So a use of
  a module by one that lies inside of it counts for nothing. All else does: a circle through siblings, or one that leaves a
  folder and comes back to it (`link.rs`, `link/settings.rs`, `tls.rs`, `link.rs`);
- documentation of an item that has two words or fewer;
- a word in an identifier that docs/glossary.md has in its column "not".

What was there when this script came, and has not been mended yet, stands in LEFT with a number: no more than so many.

Production is what is compiled without `cfg(test)` and is no file of tests: `tests.rs`, what lies under `tests/`, `examples/` or
`fuzz_targets/`, and what only modules under `cfg(test)` include.
"""

import argparse
import bisect
import collections
import os
import pathlib
import re
import statistics
import subprocess
import sys

# Faults that are excused: what kind, under which paths (a circle: all of its modules), and how many at most.
LEFT = [
]

FUNCTION_LINES = 80
FILE_LINES = 600
TEST_FILE_LINES = 900
DOC_WORDS = 2
PARAMETERS = 6
WORDS = ("place standing letters bare row board sightings Held person council verdict").split()

TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<comment>//[^\n]*|/\*)
    | (?P<raw>(?:b|c)?r(?P<hashes>\#*)")
    | (?P<string>(?:b|c)?"(?:[^"\\]|\\.)*")
    | (?P<char>b?'(?:[^'\\\n]|\\(?:u\{[0-9a-fA-F_]+\}|x[0-9a-fA-F]{2}|.))')
    | (?P<lifetime>'[A-Za-z_]\w*)
    | (?P<number>\d(?:[\w]|\.(?=\d)|(?<=[eE])[+-](?=\d))*)
    | (?P<ident>(?:r\#)?[A-Za-z_]\w*)
    | (?P<punct>->|=>|::|.)
    """,
    re.X | re.S,
)

Token = collections.namedtuple("Token", "kind text line")


def tokens(text):
    """Tokens of a Rust source: comment, doc (outer), inner (doc), string, char, lifetime, number, ident, punct."""
    found, at, line = [], 0, 1
    while at < len(text):
        match = TOKEN.match(text, at)
        kind, end = match.lastgroup, match.end()
        if kind == "hashes" or match["raw"] is not None:
            # A raw string ends where its number of hashes stands behind a quote.
            close = '"' + match["hashes"]
            kind, end = "string", text.index(close, end) + len(close)
        elif match["comment"] == "/*":
            depth = 1
            while depth:
                part = re.compile(r"/\*|\*/").search(text, end)
                depth += 1 if part[0] == "/*" else -1
                end = part.end()
        said = text[at:end]
        if kind == "comment":
            if re.match(r"///(?!/)|/\*\*(?![*/])", said):
                kind = "doc"
            elif re.match(r"//!|/\*!", said):
                kind = "inner"
        if kind != "space":
            found.append(Token(kind, said, line))
        line += said.count("\n")
        at = end
    return found


OPEN, CLOSE = {"(", "[", "{"}, {")", "]", "}"}
NOTES = {"comment", "doc", "inner"}


def closing(code, at):
    """Index of what closes the bracket at `at`."""
    depth = 0
    for index in range(at, len(code)):
        if code[index].kind == "punct":
            if code[index].text in OPEN:
                depth += 1
            elif code[index].text in CLOSE:
                depth -= 1
                if depth == 0:
                    return index
    return len(code) - 1


def holds_without_tests(words):
    """Whether a cfg can hold where `test` does not; all else may hold or not as one likes."""

    def parse(at):
        name = words[at]
        if at + 1 < len(words) and words[at + 1] == "(":
            parts, at = [], at + 2
            while words[at] != ")":
                value, at = parse(at)
                parts.append(value)
                if words[at] == ",":
                    at += 1
            at += 1
            # Each value: (can it be true, can it be false).
            if name == "not":
                return (parts[0][1], parts[0][0]), at
            if name == "any":
                return (any(p[0] for p in parts), all(p[1] for p in parts)), at
            return (all(p[0] for p in parts), any(p[1] for p in parts)), at
        at += 1
        while at < len(words) and words[at] not in (",", ")"):
            at += 1
        return ((False, True) if name == "test" else (True, True)), at

    return parse(0)[0][0]


class Source:
    """A file: its tokens, which of them are tests, and what it declares."""

    def __init__(self, path, text, is_test=False):
        self.path, self.text, self.is_test = path, text, is_test
        self.all = tokens(text)
        self.code = [token for token in self.all if token.kind not in NOTES]
        self.lines = len(text.splitlines())
        # Ranges of lines that are tests, and modules in other files that are declared there.
        self.test_lines, self.modules = [], []
        self.walk()

    def walk(self):
        code, at = self.code, 0
        end_of_test = -1
        path, hidden, began = None, False, None
        while at < len(code):
            text = code[at].text
            if text == "#" and at + 1 < len(code) and code[at + 1].text == "[":
                end = closing(code, at + 1)
                words = [token.text for token in code[at + 2 : end]]
                began = began or code[at].line
                if words[:1] == ["test"] or (words[:2] == ["cfg", "("] and not holds_without_tests(words[2:-1])):
                    hidden = True
                if words[:2] == ["path", "="]:
                    path = words[2].strip('"')
                at = end + 1
                continue
            if hidden or path or text == "mod":
                # An item: up to its semicolon, or to the brace that closes it.
                end = at
                while end < len(code) and code[end].text not in (";", "{", ","):
                    end = closing(code, end) + 1 if code[end].text in ("(", "[") else end + 1
                end = min(end, len(code) - 1)
                if code[end].text == "{":
                    end = closing(code, end)
                words = [token.text for token in code[at : end + 1]]
                in_test = hidden or at <= end_of_test
                if "mod" in words[:5] and words[-1] == ";":
                    self.modules.append((words[words.index("mod") + 1], path, in_test or self.is_test))
                if hidden:
                    if not self.is_test and at > end_of_test:
                        self.test_lines.append((began, code[end].line))
                    end_of_test = max(end_of_test, end)
                path, hidden, began = None, False, None
                # Into modules and test modules too: they may declare others.
                at += 1
                continue
            path, hidden, began = None, False, None
            at += 1

    def tested(self, line):
        if self.is_test:
            return True
        at = bisect.bisect_right(self.test_lines, (line, float("inf"))) - 1
        return at >= 0 and self.test_lines[at][1] >= line

    def production_lines(self):
        return 0 if self.is_test else self.lines - sum(last - first + 1 for first, last in self.test_lines)


Function = collections.namedtuple("Function", "name line lines parameters why first last")


def functions(source):
    """Functions with a body in production."""
    found, all_tokens = [], source.all
    for at, token in enumerate(all_tokens[:-1]):
        name = all_tokens[at + 1]
        if token.text != "fn" or token.kind != "ident" or name.kind != "ident" or source.tested(token.line):
            continue
        # Generic parameters may have brackets of their own: `<F: Fn(A) -> B>`.
        index, angles = at + 2, 0
        while all_tokens[index].text != "(" or angles:
            if all_tokens[index].text == "<":
                angles += 1
            elif all_tokens[index].text == ">":
                angles -= 1
            elif all_tokens[index].text == "(":
                index = closing(all_tokens, index)
            index += 1
        end = closing(all_tokens, index)
        parameters = count_parameters([t for t in all_tokens[index + 1 : end] if t.kind not in NOTES])
        body = end + 1
        while all_tokens[body].text not in (";", "{"):
            body = closing(all_tokens, body) + 1 if all_tokens[body].text in ("(", "[") else body + 1
        if all_tokens[body].text == ";":
            continue
        last = all_tokens[closing(all_tokens, body)].line
        found.append(Function(name.text, token.line, last - token.line + 1, parameters, reason(all_tokens, at), token.line, last))
    return found


def count_parameters(inside):
    depth, angles, count, filled = 0, 0, 0, False
    for token in inside:
        if token.kind == "punct" and token.text in OPEN:
            depth += 1
        elif token.kind == "punct" and token.text in CLOSE:
            depth -= 1
        elif token.text == "<":
            angles += 1
        elif token.text == ">":
            angles -= 1
        elif token.text == "," and depth == 0 and angles == 0:
            count, filled = count + filled, False
            continue
        filled = True
    count += filled
    return count - any(token.text == "self" for token in inside[:4])


def reason(all_tokens, at):
    """Whether a comment above an item, its attributes and documentation begins with `// Long:` and says something."""
    at -= 1
    while at >= 0:
        token = all_tokens[at]
        if token.text in ("]", ")"):
            depth = 0
            while True:
                depth += (all_tokens[at].text in CLOSE) - (all_tokens[at].text in OPEN)
                if depth == 0:
                    break
                at -= 1
        elif token.kind == "comment":
            if re.match(r"// Long: \S+ \S+", token.text):
                return True
        elif token.kind not in ("doc", "string") and token.text not in ("#", "pub", "async", "const", "unsafe", "extern"):
            return False
        at -= 1
    return False


def documentation(source):
    """Blocks of `///`: (line, text)."""
    blocks, last = [], None
    for token in source.all:
        if token.kind == "doc":
            text = token.text.removeprefix("///") if token.text.startswith("///") else token.text[3:-2]
            if last is not None and last == token.line - 1:
                blocks[-1][1].append(text)
            else:
                blocks.append((token.line, [text]))
            last = token.line + token.text.count("\n")
        else:
            last = None
    return [(line, "\n".join(texts)) for line, texts in blocks]


def words_of(text):
    return [word for word in text.split() if re.search(r"\w", word)]


# The modules of a crate, and who uses whom.


class Module:
    def __init__(self, path, source, parent=None, name="crate"):
        self.path, self.source, self.parent, self.name = path, source, parent, name
        self.children, self.declared, self.imports, self.globs = {}, set(), {}, []

    def inside(self, other):
        """Whether this module lies inside of the other, or is it."""
        at = self
        while at is not None:
            if at is other:
                return True
            at = at.parent
        return False

    def root(self):
        return self if self.parent is None else self.parent.root()


DECLARES = {"struct", "enum", "trait", "fn", "const", "static", "type", "union", "macro_rules"}


def use_tree(code, at):
    """The paths of a `use` at `at`: ([segments], alias or None), and the index behind it."""
    found = []

    def tree(at, prefix):
        path = list(prefix)
        while True:
            text = code[at].text
            if text == "{":
                at += 1
                while code[at].text != "}":
                    at = tree(at, path)
                    if code[at].text == ",":
                        at += 1
                return at + 1
            if text == "::":
                at += 1
                continue
            if text in (",", ";", "}"):
                if path != list(prefix) or not prefix:
                    found.append((path, path[-1] if path[-1] != "self" else path[-2]))
                return at
            if text == "as":
                found.append((path, code[at + 1].text))
                return at + 2
            path.append(text)
            at += 1

    at = tree(at, [])
    return [(path[:-1] if path[-1] == "self" and len(path) > 1 else path, alias) for path, alias in found], at


def link(sources, root_path):
    """The tree of production modules under a crate's root file."""
    modules = []

    def add(path, parent, name):
        source = sources[path]
        module = Module(path, source, parent, name)
        modules.append(module)
        code = [token for token in source.code if not source.tested(token.line)]
        module.code = code
        directory = os.path.dirname(path)
        if parent is not None and os.path.basename(path) != "mod.rs":
            directory = path.removesuffix(".rs")
        for child, at_path, test in source.modules:
            if test:
                continue
            choices = [f"{os.path.dirname(path)}/{at_path}"] if at_path else [f"{directory}/{child}.rs", f"{directory}/{child}/mod.rs"]
            for choice in choices:
                if choice in sources and not sources[choice].is_test:
                    module.children[child] = add(choice, module, child)
        at = 0
        while at < len(code):
            text = code[at].text
            if code[at].kind == "ident" and text in DECLARES and at + 1 < len(code):
                name_at = at + 2 if code[at + 1].text in ("!", "mut") else at + 1
                if code[name_at].kind == "ident":
                    module.declared.add(code[name_at].text)
            # `use<'a>` says what a type captures.
            if code[at].kind == "ident" and text == "use" and code[at + 1].text != "<":
                paths, after = use_tree(code, at + 1)
                for segments, alias in paths:
                    if segments[-1] == "*":
                        module.globs.append((segments[:-1], code[at].line))
                    else:
                        module.imports[alias] = (segments, code[at].line)
                at = after
                continue
            at += 1
        return module

    add(root_path, None, "crate")
    return modules


def resolve(module, segments, seen=frozenset()):
    """The module that declares what a path leads to, from a module on; None if it is of another crate or not known."""
    here = module
    segments = list(segments)
    first = True
    while segments:
        name = segments[0]
        if name == "crate":
            here = here.root()
        elif name == "self":
            pass
        elif name == "super":
            if here.parent is None:
                return None
            here = here.parent
        elif name in here.children:
            here = here.children[name]
        elif name in here.declared:
            return here
        elif name in here.imports and (here, name) not in seen:
            path, _ = here.imports[name]
            # A name that an import of itself brought is of another crate: `use serde::…`.
            if path[0] == name and first:
                return None
            return resolve(here, [*path, *segments[1:]], seen | {(here, name)})
        else:
            for path, _ in here.globs:
                if (here, tuple(path), name) in seen:
                    continue
                base = resolve(here, path, seen | {(here, tuple(path), name)})
                if base is not None and base is not here:
                    found = resolve(base, segments, seen | {(here, tuple(path), name)})
                    if found is not None:
                        return found
            # Something that this does not see, as what a macro declares, is the module's own; at the start it is a crate.
            return None if first else here
        first = False
        segments.pop(0)
    return here


def uses(module):
    """Modules that a module uses, each with the first line that does."""
    found = {}

    def note(target, line):
        if target is not None and target is not module and not module.inside(target):
            found[target] = min(line, found.get(target, line))

    code = module.code
    through = {}
    for alias, (path, line) in module.imports.items():
        target = resolve(module, path)
        # A use of a whole module counts for what is taken out of it.
        if target is not None and target.name == path[-1] and target.path != module.path:
            through[alias] = (target, line)
        else:
            note(target, line)
    for path, line in module.globs:
        note(resolve(module, path), line)
    taken = set()
    at = 0
    while at < len(code):
        token = code[at]
        if token.text == "use" and token.kind == "ident" and code[at + 1].text != "<":
            _, at = use_tree(code, at + 1)
            continue
        starts = token.kind == "ident" and at + 1 < len(code) and code[at + 1].text == "::" and (at == 0 or code[at - 1].text not in ("::", "$", "."))
        if starts and (token.text in ("crate", "super", "self") or token.text in through or token.text in module.children):
            segments = [token.text]
            while at + 2 < len(code) and code[at + 1].text == "::" and code[at + 2].kind == "ident":
                segments.append(code[at + 2].text)
                at += 2
            if token.text in through:
                taken.add(token.text)
                note(resolve(through[token.text][0], ["self", *segments[1:]]), token.line)
            else:
                note(resolve(module, segments), token.line)
        at += 1
    for alias, (target, line) in through.items():
        if alias not in taken:
            note(target, line)
    return found


def circles(modules):
    """Circles: a list of [(module, line that uses the next one)], one for each set of modules that reach each other."""
    graph = {module: uses(module) for module in modules}
    found, left = [], set(graph)
    while left:
        start = left.pop()

        def reach(forward):
            seen, wait = set(), [start]
            while wait:
                at = wait.pop()
                nexts = graph[at] if forward else [m for m in graph if at in graph[m]]
                for other in nexts:
                    if other not in seen:
                        seen.add(other)
                        wait.append(other)
            return seen

        together = reach(True) & reach(False)
        if start not in together:
            continue
        left -= together
        shortest = None
        for first in together:
            before, wait = {first: None}, collections.deque([first])
            while wait:
                at = wait.popleft()
                if first in graph[at]:
                    way = [at]
                    while before[way[-1]] is not None:
                        way.append(before[way[-1]])
                    way.reverse()
                    if shortest is None or (len(way), way[0].path) < (len(shortest), shortest[0].path):
                        shortest = way
                    break
                for other in graph[at]:
                    if other in together and other not in before:
                        before[other] = at
                        wait.append(other)
        found.append(([(m, graph[m][shortest[(i + 1) % len(shortest)]]) for i, m in enumerate(shortest)], len(together)))
    return sorted(found, key=lambda circle: circle[0][0][0].path)


# The words.


def parts(name):
    """The words of an identifier, in lower case: snake_case and CamelCase."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def not_said(glossary):
    """Words that a table of the glossary has in its column "not": {word: what to say}."""
    found, column = {}, None
    for line in glossary.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.strip().startswith("|") else None
        if cells is None:
            column = None
        elif "not" in cells:
            column = cells.index("not")
        elif column is not None and not set("".join(cells)) <= set("-: "):
            for word in re.findall(r"`(\w+)`", cells[column]):
                found[word] = cells[0].replace("`", "")
    return found


def matches(word, name):
    """A word with a capital is a whole identifier; one without is a word of it."""
    return name == word if word != word.lower() else word in parts(name)


def identifiers(source):
    return [token for token in source.code if token.kind == "ident"]


# What is read, and what is said.


def read(root):
    """The sources under a directory: {path: Source}."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.rs"], cwd=root, capture_output=True, text=True, check=True)
    texts = {path: (root / path).read_text() for path in sorted(listed.stdout.split()) if (root / path).is_file()}
    return sort_out(texts)


def sort_out(texts):
    """Sources by their paths; those that only tests include are tests."""
    tests = {path for path in texts if re.search(r"(^|/)(tests|examples|fuzz_targets|benches)/|(^|/)tests\.rs$", path)}
    sources = {path: Source(path, text, path in tests) for path, text in texts.items()}
    while True:
        more = set()
        for path, source in sources.items():
            base = os.path.basename(path)
            directory = os.path.dirname(path) if base in ("lib.rs", "main.rs", "mod.rs") else path.removesuffix(".rs")
            for name, at_path, test in source.modules:
                if test:
                    choices = [os.path.normpath(f"{os.path.dirname(path)}/{at_path}")] if at_path else [f"{directory}/{name}.rs", f"{directory}/{name}/mod.rs"]
                    more |= {choice for choice in choices if choice in texts}
        if more <= tests:
            return sources
        for path in more - tests:
            sources[path] = Source(path, texts[path], is_test=True)
        tests |= more


def roots(sources):
    return [path for path in sources if re.search(r"(^|/)src/(lib|main)\.rs$", path)]


Wrong = collections.namedtuple("Wrong", "path line kind what paths")


def faults(sources, forbidden):
    """All that is wrong: where, of which kind, and what; and all paths that have to do with it."""
    found = []

    def wrong(path, line, kind, what, paths=None):
        found.append(Wrong(path, line, kind, what, paths or [path]))

    for path, source in sources.items():
        for function in functions(source):
            if function.lines > FUNCTION_LINES and not function.why:
                wrong(path, function.line, "function", f"`{function.name}` has {function.lines} lines; divide it, or say why not above it: `// Long: …`")
        production = source.production_lines()
        if production > FILE_LINES:
            wrong(path, 1, "file", f"{production} lines of production; {FILE_LINES} are the most")
        if source.lines - production > TEST_FILE_LINES:
            wrong(path, 1, "file", f"{source.lines - production} lines of tests; {TEST_FILE_LINES} are the most")
        for line, text in documentation(source):
            if len(words_of(text)) <= DOC_WORDS:
                wrong(path, line, "documentation", f"documentation that says nothing: {text.strip()!r}")
        for token in identifiers(source):
            for word, instead in forbidden.items():
                if matches(word, token.text):
                    wrong(path, token.line, "word", f"`{token.text}`: the glossary says {instead}, not {word}")
    for root in roots(sources):
        for way, together in circles(link(sources, root)):
            steps = " -> ".join(f"{module.path}:{line}" for module, line in way)
            others = f" ({together} modules reach each other)" if together > len(way) else ""
            paths = [module.path for module, _ in way]
            wrong(paths[0], way[0][1], "circle", f"import circle: {steps} -> {paths[0]}{others}", paths)
    return sorted(found)


def excused(found, left):
    """Faults, divided into those that stand and those that are excused; and rules that allow more than there is."""
    stand, spared, counts = [], [], [0] * len(left)
    for fault in found:
        for at, (kind, paths, most) in enumerate(left):
            if kind == fault.kind and counts[at] < most and all(path.startswith(paths) for path in fault.paths):
                counts[at] += 1
                spared.append(fault)
                break
        else:
            stand.append(fault)
    slack = [(rule, count) for rule, count in zip(left, counts) if count < rule[2]]
    return stand, spared, slack


def inline(source):
    """(lines with code, lines with comments) inside of the functions of production."""
    spans = [(function.first, function.last) for function in functions(source)]
    covered = set()
    for first, last in spans:
        covered.update(range(first, last + 1))
    code = {token.line for token in source.code if token.line in covered}
    comments = {token.line for token in source.all if token.kind == "comment" and token.line in covered}
    return len(code), len(comments)


def folder(path, sources):
    """The folder that a file is counted under: `foo.rs` with `foo/`."""
    own = path.removesuffix(".rs")
    return own if any(other.startswith(own + "/") for other in sources) and "/src/" in path else os.path.dirname(path)


ITEMS = {"fn", "struct", "enum", "trait", "const", "static", "type", "union", "mod", "async", "unsafe"}


def public_items(source):
    """(public items, lines of their documentation) in production."""
    items = lines = 0
    waiting = 0
    for at, token in enumerate(source.all):
        if token.kind == "doc":
            waiting += token.text.count("\n") + 1
        elif token.text == "pub" and not source.tested(token.line):
            if source.all[at + 1].text in ITEMS:
                items, lines = items + 1, lines + waiting
            waiting = 0
        elif token.text in ("}", ";", ",", "{"):
            waiting = 0
    return items, lines


def table(sources):
    production = {path: source for path, source in sources.items() if not source.is_test}
    sizes = [source.production_lines() for source in production.values()]
    all_functions = [function for source in production.values() for function in functions(source)]
    long = [function for function in all_functions if function.lines > FUNCTION_LINES]
    items, doc_lines = map(sum, zip(*(public_items(source) for source in production.values())))
    code, comments = map(sum, zip(*(inline(source) for source in production.values())))

    def count(found):
        return sum(found(source) for source in production.values())

    def follows(names, after):
        def in_source(source):
            tokens_of = [token for token in source.code if not source.tested(token.line)]
            return sum(a.text in names and b.text in after for a, b in zip(tokens_of, tokens_of[1:]))

        return in_source

    blocks = sum(text.count("```") // 2 for source in production.values() for _, text in documentation(source))
    blocks += count(lambda source: sum(token.text.count("```") for token in source.all if token.kind == "inner") // 2)
    todo = count(lambda source: sum(bool(re.search(r"\b(TODO|FIXME|XXX)\b", token.text)) for token in source.all if token.kind in NOTES))
    rows = [
        ("production lines", sum(sizes)),
        ("test lines", sum(source.lines for source in sources.values()) - sum(sizes)),
        ("file, median / longest", f"{statistics.median(sizes):.0f} / {max(sizes)}"),
        ("functions", len(all_functions)),
        ("function, longest; share over 80", f"{max((f.lines for f in all_functions), default=0)}; {100 * len(long) / max(1, len(all_functions)):.1f} %"),
        ("functions with more than 6 parameters", sum(f.parameters > PARAMETERS for f in all_functions)),
        ("public items", items),
        ("doc lines per public item", f"{doc_lines / max(1, items):.1f}"),
        ("inline comments per 100 code lines", f"{100 * comments / max(1, code):.1f}"),
        ("rustdoc code blocks", blocks),
        ("example programs", sum("/examples/" in path for path in sources)),
        ("unsafe", count(follows({"unsafe"}, {"{", "fn", "impl"}))),
        ("unwrap, expect", count(follows({"unwrap", "expect"}, {"("}))),
        ("TODO, FIXME, XXX", todo),
    ]
    print("| measure | |\n| --- | --- |")
    for name, value in rows:
        print(f"| {name} | {value} |")
    print("\n| folder | code lines in functions | inline comments | per 100 |\n| --- | --- | --- | --- |")
    by_folder = collections.defaultdict(lambda: [0, 0])
    for path, source in production.items():
        for index, number in enumerate(inline(source)):
            by_folder[folder(path, sources)][index] += number
    for name, (code, comments) in sorted(by_folder.items()):
        print(f"| {name} | {code} | {comments} | {100 * comments / max(1, code):.1f} |")


def words_report(sources):
    for word in WORDS:
        counts = collections.Counter(token.text for source in sources.values() for token in identifiers(source) if matches(word, token.text))
        most = ", ".join(f"{name} {count}" for name, count in counts.most_common(5))
        print(f"{word:12} {sum(counts.values()):5}  {most}")


def is_conventional(name, path):
    """Whether a name stands where every library has it: the one `Error` of a crate, in `src/error.rs`. From outside its path says whose it is, as with
    `std::io::Error`, and another name would say no more."""
    return name == "Error" and path.endswith("/src/error.rs")


def repeated_names(sources):
    """Names of types and traits of production that are declared more than twice: [(name, [path:line])], the most frequent first."""
    where = collections.defaultdict(list)
    for path, source in sources.items():
        for token, name in zip(source.code, source.code[1:]):
            is_declared = token.kind == name.kind == "ident" and token.text in ("struct", "enum", "trait") and not source.tested(token.line)
            if is_declared and not is_conventional(name.text, path):
                where[name.text].append(f"{path}:{token.line}")
    return [(name, places) for name, places in sorted(where.items(), key=lambda entry: (-len(entry[1]), entry[0])) if len(places) > 2]


def names_report(sources):
    for name, places in repeated_names(sources):
        print(f"{name} {len(places)}: {', '.join(places)}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].removeprefix("Usage: "))
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2])
    parser.add_argument("--table", nargs="*")
    parser.add_argument("--words", action="store_true")
    parser.add_argument("--names", action="store_true")
    parser.add_argument("--left", action="store_true")
    options = parser.parse_args()
    sources = read(options.root)
    if not roots(sources):
        sys.exit(f"{options.root} has no crate")
    if options.table is not None:
        chosen = {path: s for path, s in sources.items() if not options.table or any(path.startswith(p) for p in options.table)}
        table(chosen)
    elif options.words:
        words_report(sources)
    elif options.names:
        names_report(sources)
    else:
        forbidden = not_said((options.root / "docs/glossary.md").read_text())
        if not forbidden:
            sys.exit("docs/glossary.md has no column \"not\"")
        stand, spared, slack = excused(faults(sources, forbidden), LEFT)

        def text(found):
            return "\n".join(f"{fault.path}:{fault.line}: {fault.what}" for fault in found)

        if options.left and spared:
            print(text(spared))
        for (kind, paths, most), count in slack:
            print(f"LEFT allows {most} of the kind {kind} in {', '.join(paths)}, and there are {count}: lower it")
        if stand:
            sys.exit(text(stand))
        print(f"{len(sources)} files have the shape that they should, but for {len(spared)} faults that LEFT excuses")


if __name__ == "__main__":
    main()
