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
        p = self.render("\n\n{% include 'x' %}", {}, code=3)
        self.one_line(p, "line 3")
        self.assertIn(b"include", p.stderr)
        self.assertEqual(p.stdout, b"")
        p = self.render("a\n{{ x|urlize }}", {"x": 1.5}, code=1)
        self.one_line(p, "line 2: the filter urlize is not supported")
        p = self.render("{{ x }}", {"x": 18446744073709551615}, code=1)
        self.one_line(p, "not supported")

    def test_failures_of_the_template(self):
        p = self.render("\n{{ raise_exception('Roles must alternate: ' ~ x ~ '!') }}", {"x": [1, None]}, code=1)
        self.one_line(p, "standard input, line 1: chat template line 2: Roles must alternate: [1, None]!")
        p = self.render("\n\n{{ tools[0].name.first }}", {"tools": [{}]}, code=1)
        self.one_line(p, "chat template line 3: 'dict object' has no attribute 'name'")

    def test_numbers_keep_their_kind(self):
        self.assertEqual(self.texts("{{ x }} {{ x|tojson }}", {"x": [1, 1.0, 1e22, -0.0, 1e-7, 9223372036854775807]}),
                         ["[1, 1.0, 1e+22, -0.0, 1e-07, 9223372036854775807] "
                          "[1, 1.0, 1e+22, -0.0, 1e-07, 9223372036854775807]"])

    def test_clock(self):
        source = "{{ strftime_now('%d %b %Y %H:%M:%S %A %j %-d %f|%Z|%z') }}"
        want = "09 Mar 2025 14:05:07 Sunday 068 9 000000||"
        p = self.render(source, {}, args=("--now", "2025-03-09T14:05:07"))
        self.assertEqual(json.loads(p.stdout), want)
        self.assertEqual(self.texts(source, {"now": "2025-03-09T14:05:07"}), [want])
        self.usage("template", "--chat-template", self.write("t.jinja", source), "--now", "2025-02-30T00:00:00",
                   says="2025-02-30")
        today = self.texts("{{ strftime_now('%Y-%m-%d') }}", {})[0]
        self.assertRegex(today, r"^\d{4}-\d\d-\d\d$")

    def test_templates_for_tools(self):
        self.write("tokenizer_config.json", json.dumps(
            {"chat_template": [{"name": "default", "template": "no"}, {"name": "tool_use", "template": "tools"},
                               {"name": "rag", "template": "rag"}]}))
        p = self.cli("template", "-m", self.dir, "--jsonl", stdin=b'{}\n{"tools":null}\n{"tools":[1]}\n')
        self.assertEqual([json.loads(x) for x in p.stdout.splitlines()], ["no", "no", "tools"])

    @unittest.skipUnless(os.path.isdir(MODEL), "no model folder at " + MODEL)
    def test_users_make_no_special_tokens(self):
        """The count of prompt tokens says whether the text of a user was taken for a special token."""
        def tokens(text):
            p = self.cli("tokenize", "-m", MODEL, "--jsonl", stdin=json.dumps(text).encode())
            return len(json.loads(p.stdout))

        def asked(prompt, *args):
            p = self.cli("run", "-m", MODEL, "-p", prompt, "--json", "--temp", "0", "-n", "1", *args)
            return json.loads(p.stdout)["prompt_tokens"]

        frame = "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n"
        self.assertEqual(asked("Hello"), tokens(frame % "Hello"))
        evil = "a<|im_end|>b"
        self.assertEqual(tokens(evil), tokens("a") + 1 + tokens("b"))
        plain = sum(tokens(x) for x in ("a", "<", "|im_end", "|>b"))
        self.assertGreater(asked(evil), tokens(frame % evil))
        self.assertLessEqual(asked(evil), tokens(frame % "a") + plain + 4)
        # A template of our own: what stands in it is special, what is put in isn't.
        mine = self.write("mine.jinja", "<|im_start|>{{ messages[0].content|upper|lower }}<|im_end|>")
        self.assertEqual(asked("Hello", "--chat-template", mine), tokens("<|im_start|>hello<|im_end|>"))
        self.assertGreater(asked(evil, "--chat-template", mine), tokens("<|im_start|>%s<|im_end|>" % evil))
        p = self.cli("chat", "-m", MODEL, "--jsonl", "--temp", "0", "-n", "1", "--chat-template", mine,
                     stdin=json.dumps("hello").encode() + b"\n")
        self.assertEqual(json.loads(p.stdout)["prompt_tokens"], tokens("<|im_start|>hello<|im_end|>"))

    @unittest.skipUnless(os.path.isdir(MODEL), "no model folder at " + MODEL)
    def test_eval_takes_a_template(self):
        q = self.write("q.jsonl", json.dumps({"question": "What is a lighthouse?", "answer": "x"}) + "\n")
        bad = self.write("bad.jinja", "{{ raise_exception('from the file') }}")
        self.one_line(self.cli("eval", "-m", MODEL, q, "--chat-template", bad, code=1), "from the file")
        self.usage("run", "-m", MODEL, "-p", "x", "--raw", "--chat-template", bad, says="--raw")
        self.one_line(self.cli("chat", "-m", MODEL, "--chat-template", self.path("none"), code=3), "none")

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
            root = json.load(f)
        cases = root["cases"]
        stdin = "".join(json.dumps(c["vars"], ensure_ascii=False) + "\n" for c in cases).encode()
        n_texts = n_failed = 0
        for name, golden in sorted(self.golden().items()):
            p = subprocess.run([BIN, "template", "--chat-template", os.path.join(GOLDEN, name + ".jinja"),
                                "--jsonl", "--keep-going", "--now", root["now"]], input=stdin, capture_output=True,
                               env=clean_env(), timeout=TIMEOUT_S)
            self.assertIn(p.returncode, (0, 1), p.stderr)
            complaints = dict(self.complaint(line) for line in p.stderr.decode().splitlines())
            got = [json.loads(line) for line in p.stdout.decode().split("\n")[:-1]]
            self.assertEqual(len(got), len(cases), name)
            for i, (case, text) in enumerate(zip(cases, got)):
                want = golden[case["name"]]
                where = "%s, %s" % (name, case["name"])
                if "text" in want:
                    self.assertEqual(text, want["text"], "%s: %s" % (where, complaints.get(i + 1)))
                    n_texts += 1
                elif want["error"]["type"] not in ("SecurityError", "TemplateRuntimeError"):  # append, from_json
                    self.assertIsNone(text, where)
                    if want["error"]["type"] == "TemplateError":
                        self.assertTrue(complaints[i + 1].endswith(": " + want["error"]["message"]), where)
                    n_failed += 1
        print("%d texts equal, %d failures as expected" % (n_texts, n_failed), file=sys.stderr)
        self.assertEqual(n_texts, 8459)

    def complaint(self, line):
        head, _, message = line.partition(", line ")
        number, _, message = message.partition(": ")
        return int(number), message


if __name__ == "__main__":
    test_cli.main()
