#!/usr/bin/env python3
"""What claims.py takes for a test, a label and a command, and what not."""

import sys
import unittest

sys.dont_write_bytecode = True

import claims

RAN = """
     Running unittests src/lib.rs (target/debug/deps/shoal_node-0a1b2c3d4e5f6071)
engine::tests::a_full_pool_drops_the_newest: test
     Running tests/epochs.rs (target/debug/deps/epochs-00a1b2c3d4e5f607)
an_hour_passes_quickly: test
nobody_runs_this_one: test
"""
IGNORED = """
     Running tests/epochs.rs (target/debug/deps/epochs-00a1b2c3d4e5f607)
an_hour_passes_quickly: test
     Running tests/view.rs (target/debug/deps/view-00a1b2c3d4e5f607)
nobody_runs_this_one: test
"""
SOURCE = '''
pub struct Counters {
    pub pool_was_full: u64,
    /// Not `in_a_comment_only`.
    private_field_of_it: u64,
}
const TEMPLATE: &str = r#"# A file.
# may_be_left_out = 3
max_packets_per_s = 2000
"#;
fn label() { let local_variable_here = "label_of_metric"; }

#[cfg(test)]
mod tests {
    const NAME: &str = "string_in_a_test";
    fn helper_of_a_test() { let variable_of_a_test = 1; }
}
'''
HELP = {
    ("shoal-sim", "run"): "Usage: shoal-sim run [OPTIONS] <FILE>\n  --seed <N>\n  --out <DIR>",
    ("shoal-sim", "gateway", "onsets"): 'Usage: shoal-sim gateway [OPTIONS] <QUESTION>\n "onsets"\n --pairs <N>',
    ("shoal-sim", "gateway", "sunsets"): 'Usage: shoal-sim gateway [OPTIONS] <QUESTION>\n "onsets"\n --pairs <N>',
}


class Claims(unittest.TestCase):
    def setUp(self):
        self.tests = claims.Tests(RAN), claims.Tests(IGNORED)
        self.labels = claims.labels({"node/src/x.rs": SOURCE, "node/tests/y.rs": 'let a = "string_of_an_integration_test";'})

    def wrong(self, name, paragraph="", others=frozenset(), by_release=frozenset()):
        return claims.wrong_name(name, paragraph, self.tests, others, by_release)

    def test_a_test_that_runs_is_one(self):
        self.assertIsNone(self.wrong("a_full_pool_drops_the_newest"))
        self.assertIsNotNone(self.wrong("a_full_pool_drops_the_oldest"))

    def test_an_ignored_one_is_one_if_something_runs_it(self):
        epochs = {("--test epochs", "hour")}
        self.assertIsNotNone(self.wrong("an_hour_passes_quickly", "", by_release=epochs))
        self.assertIsNone(self.wrong("an_hour_passes_quickly", "run by `--ignored`"))
        self.assertIsNone(self.wrong("an_hour_passes_quickly", "(release-check)", by_release=epochs))
        self.assertIsNotNone(self.wrong("an_hour_passes_quickly", "(release-check)", by_release={("--test epochs", "day")}))
        self.assertIsNotNone(self.wrong("nobody_runs_this_one", "(release-check)", by_release=epochs))

    def test_release_check_runs_what_its_steps_name(self):
        script = 'step "an hour" cargo test -p shoal-sim --test epochs -- --ignored\ncargo test -p shoal-sphinx \\\n--lib -- --ignored part_of | grep x\n'
        self.assertEqual(claims.run_by(script), {("--test epochs", ""), ("shoal-sphinx lib.rs", "part_of")})
        self.assertEqual(self.tests[0].by_name["a_full_pool_drops_the_newest"], {"shoal-node lib.rs"})

    def test_labels_are_strings_public_fields_and_keys_of_templates(self):
        for name in ("pool_was_full", "may_be_left_out", "max_packets_per_s", "label_of_metric"):
            self.assertIsNone(self.wrong(name, others=self.labels), name)
        self.assertEqual(claims.settings(SOURCE), {"may_be_left_out", "max_packets_per_s"})

    def test_variables_helpers_and_words_of_tests_are_no_evidence(self):
        for name in ("in_a_comment_only", "private_field_of_it", "local_variable_here", "string_in_a_test",
                     "helper_of_a_test", "variable_of_a_test", "string_of_an_integration_test"):
            self.assertIsNotNone(self.wrong(name, others=self.labels), name)

    def test_a_command_has_a_program_subcommands_options_and_files(self):
        def wrong(command):
            return claims.wrong_command(command, self.tests[0], lambda words: HELP.get(tuple(words)))

        for command in ("shoal-sim run scripts/lib/claims.py --seed N --out DIR", "shoal-sim gateway onsets --pairs 8",
                        "cargo run --release --bin shoal-sim -- gateway onsets", "cargo test --workspace full_pool_drops"):
            self.assertIsNone(wrong(command), command)
        for command in ("shoal-sim run no/such.toml", "shoal-sim run --sead 3", "shoal-sim walk", "scripts/none",
                        "shoal-sim gateway sunsets", "cargo run --bin shoal-sim -- gateway onsets --triples 3",
                        "cargo test --workspace empty_pool_drops"):
            self.assertIsNotNone(wrong(command), command)


    def test_commands_stand_in_backticks_and_in_blocks(self):
        text = "Say `shoal-sim run\nFILE`.\n\n```\nshoal-node run   shoal-node status  # both\ncurl x\n```\n`not_one`\n"
        self.assertEqual(claims.commands(text), ["shoal-sim run FILE", "shoal-node run", "shoal-node status"])


if __name__ == "__main__":
    unittest.main()
