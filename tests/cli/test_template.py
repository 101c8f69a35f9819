"""`moeflux template` against jinja2: every line of the template oracle that the engine accepts.

  test_template.py [-v] [Own] [Oracle]

A template with a construct outside of the subset is refused as a whole, with the construct's name and
line; of the others every line must be the golden text, or fail where jinja2 failed. Environment as for
test_cli.py; Oracle needs MOEFLUX_ORACLE.
"""
import json
import lzma
import os
import subprocess
import sys
import unittest

import test_cli
from test_cli import BIN, MODEL, ORACLE, TIMEOUT_S, Case, clean_env

GOLDEN = os.path.join(ORACLE, "oracle", "templates") if ORACLE else ""
CHATML = ("{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + "
          "'<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
          "{%- endif %}")
MIN_TEXTS = 122  # golden texts that are known to be reached; more is welcome


class Own(Case):
    def render(self, source, *objects, code=0, args=()):
        lines = "".join(x if isinstance(x, str) else json.dumps(x) + "\n" for x in objects)
        return self.cli("template", "--chat-template", self.write("t.jinja", source), "--jsonl", *args,
                        stdin=lines.encode(), code=code)

    def texts(self, source, *objects):
        return [json.loads(line) for line in self.render(source, *objects).stdout.decode().splitlines()]

    def test_chatml(self):
        talk = {"messages": [{"role": "system", "content": "Be \u00e9\U0001f600."},
                             {"role": "user", "content": "a\n\"b\"\\"}], "add_generation_prompt": True}
        want = "<|im_start|>system\nBe \u00e9\U0001f600.<|im_end|>\n<|im_start|>user\na\n\"b\"\\<|im_end|>\n"
        self.assertEqual(self.texts(CHATML, talk), [want + "<|im_start|>assistant\n"])
        talk["add_generation_prompt"] = False
        self.assertEqual(self.texts(CHATML, talk), [want])
        del talk["add_generation_prompt"]
        self.assertEqual(self.texts(CHATML, talk), [want])
        self.assertEqual(self.texts(CHATML, {"messages": []}, {}), ["", ""])

    def test_variables(self):
        self.assertEqual(self.texts("{{ a }}|{{ b }}|{{ c }}|{{ d.e }}|{{ f[1] }}|{{ nothing }}",
                                    {"a": True, "b": None, "c": -9223372036854775808, "d": {"e": "x"},
                                     "f": [1, 2]}), ["True|None|-9223372036854775808|x|2|"])
        self.assertEqual(self.texts("{% if tools %}yes{% else %}no{% endif %}", {"tools": [1]}, {"tools": []},
                                    {"tools": None}, {}, {"tools": {"a": 1}}), ["yes", "no", "no", "no", "yes"])

    def test_what_is_not_understood(self):
        p = self.render("\n\n{% macro m() %}{% endmacro %}", {}, code=3)
        self.one_line(p, "line 3")
        self.assertIn(b"macro", p.stderr)
        self.assertEqual(p.stdout, b"")
        p = self.render("{{ x }}", {"x": 1.5}, code=1)
        self.one_line(p, "line 1: ")
        p = self.render("{{ x }}", {"x": 18446744073709551615}, code=1)
        self.one_line(p, "not supported")

    def test_bad_lines(self):
        good = {"messages": [{"role": "user", "content": "x"}]}
        for bad in ("\n", "3\n", "[]\n", "{\n", '{"a":1,"a":2}\n', '{"messages":[{"role":"user"}]}\n',
                    '{"a":"\\ud800"}\n', "{} {}\n"):
            p = self.render(CHATML, good, bad, good, code=1)
            self.one_line(p, "line 2: ")
            self.assertEqual(p.stdout.count(b"\n"), 1)
            p = self.render(CHATML, good, bad, good, code=1, args=("--keep-going",))
            lines = [json.loads(x) for x in p.stdout.decode().splitlines()]
            self.assertEqual((lines[0], lines[1]), (lines[2], None))
        self.assertEqual(self.render(CHATML).stdout, b"")

    def test_deep_and_large(self):
        deep = '{"a":' * 200 + "1" + "}" * 200
        self.assertEqual(self.texts("{{ b }}x", deep + "\n"), ["x"])
        self.render("x", '{"a":' * 300 + "1" + "}" * 300 + "\n", code=1)
        text = "word " * 400000
        self.assertEqual(self.texts("{{ a }}", {"a": text}), [text])

    def test_plain(self):
        p = self.cli("template", "--chat-template", self.write("t", CHATML), "-f",
                     self.write("v", '{"messages":[{"role":"user","content":"h\\u00e9"}]}\n'))
        self.assertEqual(p.stdout.decode(), "<|im_start|>user\nh\u00e9<|im_end|>\n")

    def test_usage(self):
        self.usage("template", "--jsonl", says="-m DIR or --chat-template FILE is required")
        self.usage("template", "--chat-template", "x", "--keep-going", says="--jsonl")
        self.one_line(self.cli("template", "-m", self.path("no-such"), "--jsonl", code=3), "no-such")
        self.one_line(self.cli("template", "-m", self.dir, "--jsonl", code=3), "no chat template")
        self.one_line(self.cli("template", "--chat-template", self.write("t", b"\xff"), code=3), "UTF-8")

    def test_folder(self):
        """A folder needs nothing but its template; named tokens are seen unless they are given."""
        self.write("tokenizer_config.json", json.dumps(
            {"chat_template": "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}", "bos_token": "<B>",
             "eos_token": {"content": "<E>"}, "unk_token": None}))
        p = self.cli("template", "-m", self.dir, "--jsonl", stdin=b'{}\n{"eos_token":"mine"}\n')
        self.assertEqual([json.loads(x) for x in p.stdout.splitlines()], ["<B>|<E>|", "<B>|mine|"])

    @unittest.skipUnless(os.path.isdir(MODEL), "no model folder at " + MODEL)
    def test_model(self):
        talk = {"messages": [{"role": "user", "content": "x"}], "add_generation_prompt": True}
        p = self.cli("template", "-m", MODEL, "--jsonl", stdin=json.dumps(talk).encode())
        self.assertEqual(json.loads(p.stdout), "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n")


@unittest.skipUnless(GOLDEN and os.path.isdir(GOLDEN), "no template oracle")
class Oracle(Case):
    def golden(self):
        lines = {}
        with lzma.open(os.path.join(GOLDEN, "golden.jsonl.xz"), "rt", encoding="utf8", newline="\n") as f:
            for line in f:
                g = json.loads(line)
                lines.setdefault(g["template"], {})[g["case"]] = g
        return lines

    def test_golden(self):
        with open(os.path.join(GOLDEN, "cases.json"), encoding="utf8") as f:
            cases = json.load(f)["cases"]
        stdin = "".join(json.dumps(c["vars"], ensure_ascii=False) + "\n" for c in cases).encode()
        n_texts = n_failed = n_refused = 0
        used = []
        for name, golden in sorted(self.golden().items()):
            p = subprocess.run([BIN, "template", "--chat-template", os.path.join(GOLDEN, name + ".jinja"),
                                "--jsonl", "--keep-going"], input=stdin, capture_output=True,
                               env=clean_env(), timeout=TIMEOUT_S)
            if p.returncode == 3:
                self.assertRegex(p.stderr.decode(), r"chat template line \d+: .* is not supported\n$", name)
                continue
            self.assertIn(p.returncode, (0, 1), p.stderr)
            complaints = dict(self.complaint(line) for line in p.stderr.decode().splitlines())
            got = [json.loads(line) for line in p.stdout.decode().split("\n")[:-1]]
            self.assertEqual(len(got), len(cases), name)
            used.append(name)
            for i, (case, text) in enumerate(zip(cases, got)):
                want = golden[case["name"]]
                where = "%s, %s" % (name, case["name"])
                if text is not None:
                    self.assertEqual(text, want.get("text"), where)
                    n_texts += 1
                elif "error" in want:
                    n_failed += 1
                else:
                    self.assertIn("is not supported", complaints[i + 1], where)
                    n_refused += 1
        print("%d templates: %d texts equal, %d failures as expected, %d lines refused: %s" %
              (len(used), n_texts, n_failed, n_refused, ", ".join(used)), file=sys.stderr)
        self.assertGreaterEqual(n_texts, MIN_TEXTS)

    def complaint(self, line):
        head, _, message = line.partition(", line ")
        number, _, message = message.partition(": ")
        return int(number), message


if __name__ == "__main__":
    test_cli.main()
