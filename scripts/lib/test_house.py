#!/usr/bin/env python3
"""What house.py takes for a token, a test, a long function, a circle and a word, and what not."""

import sys
import unittest

sys.dont_write_bytecode = True

import house

TOKENS = r'''
fn f<'a>(x: &'a str) -> char { // a comment with "a quote
    /* one /* in another */ fn g() {} */
    let s = "a string with // no comment and \" a quote";
    let r = r#"raw " with // nothing"#;
    let b = b"bytes"; let c = '\''; let d = '"'; let e = b'\\';
    'outer: loop { break 'outer }
    1.0e-3 + 0x_ff..=3
}
'''
TESTED = '''
/// Made for nothing.
pub fn production() {}

#[cfg(test)]
mod tests {
    fn helper() {}
}

#[cfg(all(test, feature = "x"))]
fn only_tests() {}

#[cfg(any(test, feature = "testing"))]
fn with_a_feature() {}

#[cfg(not(test))]
fn never_in_tests() {}

#[cfg(test)]
mod elsewhere;
mod kept;
'''


def lines(count, name="long", above=""):
    return f"{above}fn {name}() {{\n" + "    x();\n" * (count - 2) + "}\n"


def crate(**files):
    texts = {"a/src/" + name.replace("__", "/") + ".rs": text for name, text in files.items()}
    return house.sort_out(texts)


def kinds(sources, forbidden={}):
    return [(fault.kind, fault.path, fault.line) for fault in house.faults(sources, forbidden)]


def circle(**files):
    sources = crate(**files)
    ways = house.circles(house.link(sources, "a/src/lib.rs"))
    return [sorted(module.path.removeprefix("a/src/") for module, _ in way) for way, _ in ways]


class Tokens(unittest.TestCase):
    def of(self, kind):
        return [token.text for token in house.tokens(TOKENS) if token.kind == kind]

    def test_strings_comments_and_lifetimes_are_told_apart(self):
        self.assertEqual(self.of("comment"), ['// a comment with "a quote', "/* one /* in another */ fn g() {} */"])
        self.assertEqual(len(self.of("string")), 3)
        self.assertEqual(self.of("char"), [r"'\''", "'\"'", r"b'\\'"])
        self.assertEqual(self.of("lifetime"), ["'a", "'a", "'outer", "'outer"])
        self.assertEqual(self.of("number"), ["1.0e-3", "0x_ff", "3"])
        self.assertNotIn("g", self.of("ident"))

    def test_lines_are_counted_over_what_spans_them(self):
        found = [token.line for token in house.tokens('a "b\nc" d /* e\n */ f r"g\n" h') if token.kind == "ident"]
        self.assertEqual(found, [1, 2, 3, 4])

    def test_documentation_is_a_comment_of_three_strokes_and_no_more(self):
        kinds_of = [token.kind for token in house.tokens("/// a\n//// b\n//! c\n/** d */ /*** e */")]
        self.assertEqual(kinds_of, ["doc", "comment", "inner", "doc", "comment"])


class Tests(unittest.TestCase):
    def setUp(self):
        self.source = house.Source("a/src/lib.rs", TESTED)

    def test_what_only_tests_compile_is_no_production(self):
        names = [function.name for function in house.functions(self.source)]
        self.assertEqual(names, ["production", "with_a_feature", "never_in_tests"])
        self.assertEqual(self.source.modules, [("elsewhere", None, True), ("kept", None, False)])

    def test_files_that_only_tests_include_are_tests(self):
        sources = crate(lib=TESTED, elsewhere="mod deeper;", elsewhere__deeper="", kept="#[cfg(test)] mod t; #[cfg(test)] mod u;",
                        kept__t="", kept__u="", tests__x="")
        tests = {path.removeprefix("a/src/") for path, source in sources.items() if source.is_test}
        self.assertEqual(tests, {"elsewhere.rs", "elsewhere/deeper.rs", "kept/t.rs", "kept/u.rs", "tests/x.rs"})
        self.assertEqual(sources["a/src/elsewhere.rs"].production_lines(), 0)

    def test_lines_of_tests_are_no_production(self):
        self.assertEqual(self.source.production_lines(), self.source.lines - 4 - 2 - 2)


class Sizes(unittest.TestCase):
    def test_a_function_of_more_than_80_lines_needs_a_reason(self):
        self.assertEqual(kinds(crate(lib=lines(80))), [])
        self.assertEqual(kinds(crate(lib=lines(81))), [("function", "a/src/lib.rs", 1)])
        for above in ("// Long: it is a list.\n", "// Long: it is a list.\n/// Lists all that is.\n#[inline(always)]\npub(crate) async "):
            self.assertEqual(kinds(crate(lib=lines(81, above=above))), [], above)
        for above in ("// Long:\n", "// It is long.\n", "// Long: it is a list.\nfn other() {}\n"):
            self.assertEqual(len(kinds(crate(lib=lines(81, above=above)))), 1, above)

    def test_tests_may_be_longer(self):
        self.assertEqual(kinds(crate(lib="#[cfg(test)]\nmod tests {\n" + lines(200) + "}\n")), [])
        self.assertEqual([fault[0] for fault in kinds(crate(lib="\n" * 601))], ["file"])
        self.assertEqual(kinds(crate(lib="", tests="\n" * 900)), [])
        self.assertEqual([fault[0] for fault in kinds(crate(lib="", tests="\n" * 901))], ["file"])

    def test_parameters_are_counted_without_self_and_through_types(self):
        text = "fn f<F: Fn(A, B) -> C>(&mut self, a: F, (b, c): (A, B), d: BTreeMap<K, V>, e: impl Fn(A, B)) {}"
        self.assertEqual(house.functions(house.Source("x.rs", text))[0].parameters, 4)
        self.assertEqual(house.functions(house.Source("x.rs", "fn f() {}"))[0].parameters, 0)

    def test_functions_without_a_body_are_none(self):
        text = "trait T { fn f(&self) -> [u8; 3]; fn g(&self) {} }\ntype F = fn(u8);"
        self.assertEqual([function.name for function in house.functions(house.Source("x.rs", text))], ["g"])


class Circles(unittest.TestCase):
    def test_siblings_that_use_each_other(self):
        found = circle(lib="mod a; mod b;", a="use crate::b::B; pub struct A;", b="use super::a::A; pub struct B;")
        self.assertEqual(found, [["a.rs", "b.rs"]])
        found = circle(lib="mod a; mod b;", a="use crate::b::B;", b="pub struct B;")
        self.assertEqual(found, [])

    def test_a_module_and_what_it_is_divided_into_are_no_circle(self):
        found = circle(lib="mod a;", a="mod part; use part::P; struct A;", a__part="use super::*; pub struct P(A);")
        self.assertEqual(found, [])

    def test_one_that_leaves_the_folder_and_comes_back_is(self):
        found = circle(lib="mod link; mod tls;", link="mod settings; pub use settings::S; pub struct L;",
                       link__settings="use crate::tls::T; pub struct S;", tls="use crate::link::L; pub struct T;")
        self.assertEqual(found, [["link.rs", "link/settings.rs", "tls.rs"]])

    def test_a_path_leads_to_where_an_item_is_declared(self):
        # By name, by glob, by an alias, and through a whole module.
        for of_b in ("pub use low::B;", "pub use low::*;", "mod x { pub use super::low::B; }"):
            files = dict(lib="mod a; mod b;", a="use crate::b::B; pub struct A;", b="pub mod low; use crate::a::A; " + of_b)
            self.assertEqual(circle(**files, b__low="pub struct B;"), [], of_b)
        found = circle(lib="mod a; mod b;", a="use crate::b; fn f() { b::low::g() } pub struct A;",
                       b="pub mod low; use crate::a::A;", b__low="pub fn g() {}")
        self.assertEqual(found, [])
        found = circle(lib="mod a; mod b;", a="use crate::b; fn f() { b::g() } pub struct A;", b="use crate::a::A; pub fn g() {}")
        self.assertEqual(found, [["a.rs", "b.rs"]])

    def test_paths_without_a_use_count_and_tests_do_not(self):
        found = circle(lib="mod a; mod b;", a="fn f() { crate::b::g() } pub fn h() {}", b="pub fn g() { super::a::h() }")
        self.assertEqual(found, [["a.rs", "b.rs"]])
        tests = "#[cfg(test)] mod tests { use crate::a::h; }"
        self.assertEqual(circle(lib="mod a; mod b;", a="fn f() { crate::b::g() } pub fn h() {}", b="pub fn g() {} " + tests), [])

    def test_what_a_type_captures_is_no_import(self):
        found = circle(lib="mod a; mod b;", a="fn f() -> impl Sized + use<> { let x = 1; x } use crate::b::B; pub struct A;", b="use crate::a::A; pub struct B;")
        self.assertEqual(found, [["a.rs", "b.rs"]])


class Words(unittest.TestCase):
    def test_documentation_of_two_words_says_nothing(self):
        self.assertEqual(kinds(crate(lib="/// Whose.\nstruct A;")), [("documentation", "a/src/lib.rs", 1)])
        self.assertEqual(kinds(crate(lib="/// Whose key\n/// it is.\nstruct A;")), [])
        self.assertEqual(kinds(crate(lib="/// One, — two.\nstruct A;")), [("documentation", "a/src/lib.rs", 1)])

    def test_a_word_of_the_column_not_is_no_part_of_a_name(self):
        glossary = "# G\n\n| say | not |\n| --- | --- |\n| `AuthorityLinks` | `council`, `Seat` |\n\n| other | table |\n| --- | --- |\n| a | `b` |\n"
        forbidden = house.not_said(glossary)
        self.assertEqual(forbidden, {"council": "AuthorityLinks", "Seat": "AuthorityLinks"})
        for text in ("struct CouncilLink;", "fn the_council_of(x: u8) {}", "struct Seat;"):
            self.assertEqual([fault[0] for fault in kinds(crate(lib=text), forbidden)], ["word"], text)
        for text in ("struct Seats;", "fn councillors() {}", 'const A: &str = "council";', "// council\nfn seat() {}"):
            self.assertEqual(kinds(crate(lib=text), forbidden), [], text)

    def test_names_are_words_in_snake_and_camel_case(self):
        self.assertEqual(house.parts("TwoDocumentsOfTLS_at"), ["two", "documents", "of", "tls", "at"])

    def test_a_type_name_stands_twice_at_most_but_for_the_error_of_a_crate(self):
        texts = {"a/src/lib.rs": "struct A; struct B;", "b/src/lib.rs": "enum A {} struct B;", "c/src/lib.rs": "\ntrait A {}\n#[cfg(test)] struct B;"}
        errors = {f"{crate}/src/error.rs": "pub enum Error {}" for crate in "abc"}
        found = house.repeated_names(house.sort_out({**texts, **errors}))
        self.assertEqual(found, [("A", ["a/src/lib.rs:1", "b/src/lib.rs:1", "c/src/lib.rs:2"])])


class Left(unittest.TestCase):
    def test_what_is_excused_has_a_number(self):
        found = house.faults(crate(lib="/// A.\nstruct A;\n/// B.\nstruct B;"), {})
        for most, stand, slack in ((1, 1, 0), (2, 0, 0), (3, 0, 1)):
            rules = [("documentation", ("a/src/",), most)]
            standing, spared, loose = house.excused(found, rules)
            self.assertEqual((len(standing), len(spared), len(loose)), (stand, 2 - stand, slack))
        self.assertEqual(len(house.excused(found, [("documentation", ("b/",), 9)])[0]), 2)
        self.assertEqual(len(house.excused(found, [("circle", ("a/",), 9)])[0]), 2)


class Measures(unittest.TestCase):
    def test_comments_count_inside_of_functions(self):
        text = "// Outside.\nfn f() {\n    // Why.\n    x(); // And here.\n    /* More. */\n    y();\n}\n"
        self.assertEqual(house.inline(house.Source("x.rs", text)), (4, 3))

    def test_documentation_belongs_to_the_public_item_behind_it(self):
        text = "/// One.\n/// Two.\n#[derive(Debug)]\npub struct A {\n    /// A field.\n    pub x: u8,\n}\nstruct B;\npub fn f() {}\n"
        self.assertEqual(house.public_items(house.Source("x.rs", text)), (2, 2))

    def test_foo_and_its_folder_are_counted_together(self):
        paths = {"a/src/foo.rs": 0, "a/src/foo/bar.rs": 0, "a/src/lib.rs": 0}
        self.assertEqual([house.folder(path, paths) for path in paths], ["a/src/foo", "a/src/foo", "a/src"])


if __name__ == "__main__":
    unittest.main()
