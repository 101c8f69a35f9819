"""Texts that are made from the program's table: help, manual page, completions; and the table of families.

  test_texts.py [-v] [Texts] [Lint]

Environment as for test_cli.py. Lint needs mandoc, zsh and fish, each for its part, and skips visibly
without.
"""
import json
import re
import shutil
import subprocess
import unittest

import test_cli
from test_cli import BIN, TIMEOUT_S, Case


class Texts(Case):
    def commands(self):
        text = self.cli("--help").stdout.decode()
        block = text[text.index("commands:\n"):text.index("\noptions:")]
        names = re.findall(r"(?m)^  (\S+) ", block)
        self.assertGreater(len(names), 8)
        self.assertIn("chat", names)
        names.remove("help")
        return names

    def options(self, command):
        """Groups of names that mean the same, as --help shows them."""
        text = self.cli(command, "--help").stdout.decode()
        groups = [g.split(", ") for g in re.findall(r"(?m)^  (-[^ ,]+(?:, -[^ ,]+)*)", text)]
        self.assertIn(["-h", "--help"], groups)
        return groups

    def test_help_lists_what_is_parsed(self):
        for command in self.commands():
            for name in sum(self.options(command), []):
                p = subprocess.run([BIN, command, name, "--zzzzzz"], capture_output=True,
                                   env=test_cli.clean_env(), timeout=TIMEOUT_S)
                self.assertNotIn(b"unknown option %s" % name.encode(), p.stderr)
                self.assertNotIn(b"no option of this command", p.stderr)

    def man_sections(self):
        page = self.cli("help", "--man").stdout.decode()
        parts = re.split(r"(?m)^\.Ss (\S+): ", page)
        return page, dict(zip(parts[1::2], parts[2::2]))

    def test_man_page_has_every_option(self):
        page, sections = self.man_sections()
        self.assertEqual(sorted(sections), sorted(self.commands()))
        for command, section in sections.items():
            found = set()
            for line in re.findall(r"(?m)^\.It Fl (.*)$", section):
                found.update("-" + n.replace("\\-", "-") for n in re.findall(r'"([^"]+)"(?= , |$| Ar)', line))
            for name in sum(self.options(command), []):
                self.assertIn(name, found, command)
        for word in ("MOEFLUX_ARG_THREADS", "XDG_STATE_HOME", ".Sh EXIT STATUS", ".It 130", ".Dt MOEFLUX 1"):
            self.assertIn(word, page)

    def test_bash_has_every_option(self):
        script = self.cli("completion", "bash").stdout.decode()
        for command in self.commands():
            line = re.search(r"(?m)^    %s\)\n        options='([^']*)'" % command, script).group(1)
            self.assertEqual(sorted(line.split()), sorted(sum(self.options(command), [])), command)

    def test_zsh_has_every_option(self):
        script = self.cli("completion", "zsh").stdout.decode()
        for command in self.commands():
            self.assertRegex(script, r"(?m)^        '%s:" % command)
            part = script[script.index("\n    %s)\n" % command):].split(";;")[0]
            found = set()
            for line in part.splitlines()[2:]:
                words = re.match(r"\s+'(?:\(.*?\)|\*)('\{)?([^}\[]*)", line)
                if words:
                    found.update(w.rstrip("=") for w in words.group(2).split(","))
            for name in sum(self.options(command), []):
                self.assertIn(name, found, command)

    def test_fish_has_every_option(self):
        lines = self.cli("completion", "fish").stdout.decode().splitlines()
        for command in self.commands():
            self.assertTrue(any("__fish_use_subcommand -a %s -d" % command in x for x in lines), command)
            own = [x for x in lines if "'__fish_seen_subcommand_from %s'" % command in x]
            for names in self.options(command):
                want = [" -l " + n[2:] if n.startswith("--") else (" -s " if len(n) == 2 else " -o ") + n[1:]
                        for n in names]
                self.assertTrue(any(all(w + " " in x for w in want) for x in own), (command, names))

    def complete(self, *words):
        """What bash offers for the last word."""
        script = self.write("moeflux.bash", self.cli("completion", "bash").stdout)
        quoted = " ".join("'%s'" % w for w in words)
        p = subprocess.run(["bash", "--norc", "-euc",
                            "source '%s'; COMP_WORDS=(%s); COMP_CWORD=%d; _moeflux || exit 9; "
                            "printf '%%s\\n' \"${COMPREPLY[@]+${COMPREPLY[@]}}\"" % (script, quoted, len(words) - 1)],
                           capture_output=True, timeout=TIMEOUT_S)
        self.assertEqual(p.stderr, b"")
        return p.stdout.decode().split()

    @unittest.skipUnless(shutil.which("bash"), "no bash")
    def test_bash_completes(self):
        self.assertEqual(self.complete("moeflux", "ru"), ["run"])
        self.assertEqual(sorted(set(self.complete("moeflux", "")) - {"--help", "--version", "help"}),
                         sorted(self.commands()))
        self.assertEqual(self.complete("moeflux", "run", "--thr"), ["--threads"])
        self.assertEqual(self.complete("moeflux", "run", "--activations", ""), ["auto", "f32", "q8", "q16"])
        self.assertEqual(self.complete("moeflux", "run", "--activations", "=", "q"), ["q8", "q16"])
        self.assertEqual(self.complete("moeflux", "run", "--activations", "="), ["auto", "f32", "q8", "q16"])
        self.assertEqual(self.complete("moeflux", "run", "--model", ""), [])  # files, by readline
        self.assertEqual(self.complete("moeflux", "convert", "a", "b", "--qua"), ["--quant"])
        self.assertEqual(self.complete("moeflux", "tokenize", "--temp"), [])
        self.assertEqual(self.complete("moeflux", "completion", "z"), ["zsh"])
        self.assertEqual(self.complete("moeflux", "help", "fam"), ["families"])
        p = subprocess.run(["bash", "--norc", "-c", "source <('%s' completion bash) && complete -p moeflux" % BIN],
                           capture_output=True, timeout=TIMEOUT_S)
        self.assertEqual(p.stdout, b"complete -o default -F _moeflux moeflux\n", p.stderr)

    def test_other_shells(self):
        self.usage("completion", "tcsh", says="bash, zsh and fish")
        self.usage("completion", says="SHELL is missing")

    def test_families(self):
        table = json.loads(self.cli("families", "--json").stdout)
        self.assertEqual(table["schema"], 1)
        names = [f["family"] for f in table["families"]]
        types = list(dict.fromkeys(t for f in table["families"] for t in f["model_types"]))
        self.assertIn("qwen3_5_moe", names)
        self.assertEqual(len(set(names)), len(names))
        text = self.cli("families").stdout.decode()
        for family in table["families"]:
            self.assertTrue(family["model_types"] or family["gguf_architecture"])
            self.assertRegex(text, r"(?m)^%s$" % re.escape(family["family"]))
            self.assertTrue(family["formats"], "%s: nothing says what it is held against" % family["family"])
            for f in family["formats"]:
                self.assertTrue(f["format"] and f["evidence"])
                self.assertIn(f["evidence"], text)
        # The registry that opens models is the same: what it refuses names the families.
        self.write("config.json", '{"model_type":"no_such_type"}')
        header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        self.write("model.safetensors", len(header).to_bytes(8, "little") + header + bytes(4))
        p = self.cli("plan", self.dir, code=3)
        known = re.search(rb"known: ([^)]*)\)", p.stderr)
        self.assertTrue(known, p.stderr)
        self.assertEqual(known.group(1).decode().split(", "), types)


class Lint(Case):
    @unittest.skipUnless(shutil.which("mandoc"), "no mandoc")
    def test_man_page(self):
        page = self.write("moeflux.1", self.cli("help", "--man").stdout)
        p = subprocess.run(["mandoc", "-T", "lint", page], capture_output=True, timeout=TIMEOUT_S)
        self.assertEqual(p.stdout + p.stderr, b"")
        self.assertEqual(p.returncode, 0)

    @unittest.skipUnless(shutil.which("zsh"), "no zsh")
    def test_zsh_parses(self):
        script = self.write("_moeflux", self.cli("completion", "zsh").stdout)
        p = subprocess.run(["zsh", "-n", script], capture_output=True, timeout=TIMEOUT_S)
        self.assertEqual((p.returncode, p.stderr), (0, b""))

    @unittest.skipUnless(shutil.which("fish"), "no fish")
    def test_fish_parses(self):
        script = self.write("moeflux.fish", self.cli("completion", "fish").stdout)
        p = subprocess.run(["fish", "-n", script], capture_output=True, timeout=TIMEOUT_S)
        self.assertEqual((p.returncode, p.stderr), (0, b""))


if __name__ == "__main__":
    test_cli.main()
