"""`moeflux chat`, piped and on a terminal (a pty): turns, commands, signals, history, files.

  test_chat.py [-v] [Piped] [Terminal]

Environment as for test_cli.py; all of it needs the model. What is evaluated is seen in two ways that
share nothing: the engine's count in --jsonl, and the positions in the trace of expert choices.
"""
import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import time
import unittest

import test_cli
from test_cli import BIN, MODEL, TIMEOUT_S, Case, clean_env

GREEDY = ["--temp", "0", "--repeat-penalty", "1"]
Q1, Q2, Q3 = "What is a lighthouse?", "What kind of thing is it?", "define whale"
ESSAY = "Tell me about Elizabeth."


@unittest.skipUnless(os.path.isdir(MODEL), "no model folder at " + MODEL)
class Piped(Case):
    def setUp(self):
        super().setUp()
        self.env = {"XDG_STATE_HOME": self.path("state")}

    def chat(self, text, *args, **kw):
        return self.cli("chat", "-m", MODEL, *GREEDY, *args, stdin=text.encode(), env=self.env, **kw)

    def turns(self, *messages, args=()):
        p = self.chat("".join(json.dumps(m) + "\n" for m in messages), "--jsonl", *args)
        return [json.loads(line) for line in p.stdout.splitlines()], p.stderr.decode()

    def saved(self, name="talk.json"):
        with open(self.path(name), encoding="utf8") as f:
            talk = json.load(f)
        self.assertEqual(talk["schema"], 1)
        return [(m["role"], m["content"]) for m in talk["messages"]]

    def rendered(self, messages):
        talk = {"messages": [{"role": r, "content": c} for r, c in messages], "add_generation_prompt": True}
        return json.loads(self.cli("template", "-m", MODEL, "--jsonl", stdin=json.dumps(talk).encode()).stdout)

    def test_two_turns(self):
        p = self.chat(Q1 + "\n" + Q2 + "\n")
        first, second = p.stdout.decode().splitlines()
        alone = self.cli("run", "-m", MODEL, *GREEDY, "-p", Q1).stdout.decode()
        self.assertEqual(first + "\n", alone)
        # The second answer is what the whole conversation gives when it is evaluated at once.
        whole = self.rendered([("user", Q1), ("assistant", first), ("user", Q2)])
        want = self.cli("run", "-m", MODEL, *GREEDY, "--raw", "-f", "-", stdin=(whole + "\n").encode()).stdout
        self.assertEqual(second + "\n", want.decode())
        self.assertNotIn(b"rebuilding", p.stderr)
        self.assertEqual(p.stderr.count(b"[ Context: "), 2)
        self.assertFalse(os.path.exists(self.path("state")))  # no terminal, no history

    def test_nothing_is_evaluated_twice(self):
        trace = self.path("trace.jsonl")
        turns, err = self.turns(Q1, Q2, "two\nlines \u00e9\U0001f600", Q3, args=("--trace", trace))
        self.assertNotIn("rebuilding", err)
        context = 0
        for t in turns:
            self.assertEqual(t["stop"], "eos")
            self.assertEqual(t["reused_tokens"], context)
            self.assertEqual(t["evaluated_tokens"], t["prompt_tokens"] + t["generated_tokens"])
            self.assertEqual(t["context_tokens"], context + t["evaluated_tokens"])
            self.assertGreater(t["prompt_tokens"], 0)
            context = t["context_tokens"]
        with open(trace) as f:
            chosen = [json.loads(line) for line in f][1:]
        layers = {c["layer"] for c in chosen}
        for layer in layers:  # every position once, in order
            self.assertEqual([c["pos"] for c in chosen if c["layer"] == layer], list(range(context)))

    def test_cut_answers_are_not_evaluated_twice(self):
        turns, err = self.turns(Q1, Q2, Q3, args=("-n", "5", "--ignore-eos"))
        self.assertNotIn("rebuilding", err)
        context = 0
        for t in turns:
            self.assertEqual((t["stop"], t["generated_tokens"]), ("length", 5))
            self.assertEqual(t["reused_tokens"], context)
            self.assertEqual(t["evaluated_tokens"], t["prompt_tokens"] + 4)  # the fifth serves nobody
            context += t["evaluated_tokens"]
            self.assertEqual(t["context_tokens"], context)

    def test_rebuilding_is_told(self):
        p = self.chat("%s\n%s\n/system Be brief.\n%s\n" % (Q1, Q2, Q3))
        told = re.findall(rb"(?m)^rebuilding (\d+) tokens$", p.stderr)
        self.assertEqual(len(told), 1)
        self.assertGreater(int(told[0]), 60)
        costs = re.findall(rb"Prompt: (\d+) new", p.stderr)
        self.assertEqual(costs[2], told[0])
        p = self.chat("%s\n/clear\n%s\n%s\n" % (Q1, Q3, Q2))
        self.assertNotIn(b"rebuilding", p.stderr)
        self.assertEqual(p.stdout.decode().splitlines()[1],
                         self.chat(Q3 + "\n").stdout.decode().splitlines()[0])

    def test_system(self):
        p = self.chat("%s\n/save %s\n" % (Q1, self.path("talk.json")), "-sys", "Be brief.")
        self.assertEqual(self.saved()[0], ("system", "Be brief."))
        self.chat("/system One.\n/system Two  words. \n/save %s\n" % self.path("talk.json"))
        self.assertEqual(self.saved(), [("system", "Two  words.")])
        self.chat("/system\n/clear\n/save %s\n" % self.path("talk.json"), "-sys", "x")
        self.assertEqual(self.saved(), [])
        self.chat("/clear\n/save %s\n" % self.path("talk.json"), "-sys", "x")
        self.assertEqual(self.saved(), [("system", "x")])
        want = self.cli("run", "-m", MODEL, *GREEDY, "-sys", "Be brief.", "-p", Q1).stdout
        self.assertEqual(p.stdout, want)

    def test_save_and_load(self):
        path = self.path("talk.json")
        p = self.chat("%s\n/save %s\n%s\n" % (Q1, path, Q2))
        first, second = p.stdout.decode().splitlines()
        self.assertEqual(self.saved(), [("user", Q1), ("assistant", first)])
        self.assertEqual(os.listdir(self.dir), ["talk.json"])
        p = self.chat("/load %s\n%s\n" % (path, Q2))
        self.assertEqual(p.stdout.decode().splitlines(), [second])
        self.assertRegex(p.stderr, rb"(?m)^rebuilding \d+ tokens$")
        # What is on the timeline already isn't evaluated again.
        p = self.chat("%s\n/save %s\n/load %s\n%s\n" % (Q1, path, path, Q2))
        self.assertEqual(p.stdout.decode().splitlines(), [first, second])
        self.assertNotIn(b"rebuilding", p.stderr)
        with open(path, "w") as f:
            json.dump([{"role": "user", "content": Q1}, {"role": "assistant", "content": first}], f)
        self.assertEqual(self.chat("/load %s\n%s\n" % (path, Q2)).stdout.decode(), second + "\n")

    def test_answers_taken_apart(self):
        """A grammar makes the model write what a template's notation has; the template gives it back."""
        template = self.write("t.jinja", """{#- <tool_call>{"name": ...}</tool_call> -#}
{% for m in messages %}{% if m.role == 'assistant' %}<think>
{{ m.reasoning_content }}
</think>

{{ m.content }}{% for c in m.tool_calls %}{{ "\n<tool_call>\n" }}{"name": "{{ c.function.name }}", "arguments": {{
c.function.arguments | tojson }}}{{ "\n</tool_call>" }}{% endfor %}{{ "\n" }}{% else %}{{ m.role }}: {{ m.content }}
{% endif %}{% endfor %}{% if add_generation_prompt %}<think>
{% endif %}""")
        written = ('Hm.\n</think>\n\nLook.\n<tool_call>\n{"name": "f", "arguments": {"a": [1, "x"]}}\n</tool_call>\n'
                   '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>')
        calls = [{"type": "function", "function": {"name": "f", "arguments": {"a": [1, "x"]}}},
                 {"type": "function", "function": {"name": "g", "arguments": {}}}]
        args = ["--chat-template", template, "--grammar", "root ::= " + json.dumps(written)]
        turns, err = self.turns(Q1, Q2, Q3, args=args)
        self.assertEqual([(t["text"], t["reasoning"], t["tool_calls"]) for t in turns],
                         [("Look.", "Hm.", calls)] * 3)
        # The history is rendered to the very bytes that the model wrote.
        self.assertNotIn("rebuilding", err)
        self.assertEqual([t["reused_tokens"] for t in turns], [0] + [t["context_tokens"] for t in turns[:2]])
        talk = self.path("talk.json")
        p = self.chat("%s\n/save %s\n/load %s\n%s\n" % (Q1, talk, talk, Q2), *args)
        self.assertNotIn(b"rebuilding", p.stderr)
        with open(talk) as f:
            self.assertEqual(json.load(f)["messages"][1],
                             {"role": "assistant", "content": "Look.", "reasoning_content": "Hm.", "tool_calls": calls})
        self.assertEqual(p.stdout, 2 * b'Look.\n{"name":"f","arguments":{"a": [1, "x"]}}\n{"name":"g","arguments":{}}\n')
        self.assertEqual(p.stderr.split(b"\n").count(b"Hm."), 2)
        p = self.cli("run", "-m", MODEL, *GREEDY, *args, "-p", Q1)
        self.assertEqual(p.stdout, b'Look.\n{"name":"f","arguments":{"a": [1, "x"]}}\n{"name":"g","arguments":{}}\n')
        self.assertEqual(p.stderr.split(b"\n").count(b"Hm."), 1)
        one = json.loads(self.cli("run", "-m", MODEL, *GREEDY, *args, "-p", Q1, "--json").stdout)
        self.assertEqual((one["text"], one["reasoning"], one["tool_calls"]), ("Look.", "Hm.", calls))
        for more in (["--reasoning-format", "none"], ["--raw"]):
            base = args[2:] if more == ["--raw"] else args
            one = json.loads(self.cli("run", "-m", MODEL, *GREEDY, *base, *more, "-p", Q1, "--json").stdout)
            self.assertEqual((one["text"], one["reasoning"], one["tool_calls"]), (written, None, []))
        turns, err = self.turns(Q1, args=args + ["--reasoning-format", "none"])
        self.assertEqual((turns[0]["text"], turns[0]["reasoning"]), (written, None))
        # Under a schema the answer is that document.
        one = json.loads(self.cli("run", "-m", MODEL, *GREEDY, "--chat-template", template, "--json-schema",
                                  '{"const": "a </think> b"}', "-p", Q1, "--json").stdout)
        self.assertEqual((one["text"], one["reasoning"]), ('"a </think> b"', None))

    def test_tools_and_thinking(self):
        template = self.write("t.jinja", "{% if tools %}[{% for t in tools %}{{ t.function.name }},{% endfor %}]{% endif %}"
                              "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
                              "{% if enable_thinking is defined and not enable_thinking %}no{% endif %}assistant: ")
        tools = self.write("tools.json", '[{"type":"function","function":{"name":"look_up"}}]')
        args = ["--chat-template", template, "-n", "4", "--ignore-eos"]

        def n_prompt(*lines, code=0):
            p = self.chat("\n".join(lines + (Q1, "")), *args, code=code)
            return int(re.findall(rb"Prompt: (\d+) new", p.stderr)[0]), p

        def n_ids(text):
            return len(self.cli("tokenize", "-m", MODEL, "-p", text).stdout.split())
        plain = "user: %s\nassistant: " % Q1
        cases = (((), plain), (("/tools " + tools,), "[look_up,]" + plain),
                 (("/tools " + tools, "/tools"), plain), (("/think on",), plain),
                 (("/think off",), plain.replace("assistant", "noassistant")),
                 (("/think off", "/tools " + tools), "[look_up,]" + plain.replace("assistant", "noassistant")),
                 (("/think off", "/think on"), plain))
        for lines, text in cases:
            self.assertEqual(n_prompt(*lines)[0], n_ids(text), lines)
        self.assertIn(b"(1 tools)", n_prompt("/tools " + tools)[1].stderr)
        # What is wrong is told, changes nothing, and the conversation goes on.
        for line, says in (("/tools " + self.path("absent"), b"absent"), ("/think", b"on or off"),
                           ("/think maybe", b"on or off"),
                           ("/tools " + self.write("bad.json", '{"a":1}'), b"no array"),
                           ("/tools " + self.write("worse.json", "["), b"worse.json")):
            n, p = n_prompt(line, code=1)
            self.assertIn(says, p.stderr)
            self.assertEqual(n, n_ids(plain))
        p = self.chat("/think off\n/tools %s\n%s\n" % (tools, Q1), "-n", "4", code=1)  # the model's own template
        self.assertIn(b"does not read enable_thinking", p.stderr)
        self.assertIn(b"does not tell the model of tools", p.stderr)
        self.assertTrue(p.stdout.strip())
        self.assertIn(b"/think on|off", self.chat("/help\n").stderr)

    def test_broken_calls_are_text(self):
        template = self.write("t.jinja", "{# <tool_call> #}{% for m in messages %}{{ m.content }}{% endfor %}")
        written = 'a\n<tool_call>\n{"name": "f", "arguments": {"a": 1, "a": 2}}\n</tool_call>b'
        one = json.loads(self.cli("run", "-m", MODEL, *GREEDY, "--chat-template", template, "--grammar",
                                  "root ::= " + json.dumps(written), "-p", Q1, "--json").stdout)
        self.assertEqual((one["text"], one["tool_calls"]), (written, []))

    def test_bad_files(self):
        for text in ("", "[", "3", '{"messages":3}', '[{"role":"tool","content":"x"}]', '[{"role":"user"}]',
                     '[{"role":"user","content":["x"]}]', '[{"role":"user","content":"a\\u0000b"}]',
                     '[{"role":"user","content":"x"},{"role":"system","content":"x"}]', '["x"]',
                     '[{"role":"user","content":"x","tool_calls":{}}]', '[{"role":"user","content":"x","reasoning_content":1}]'):
            p = self.chat("/load %s\n%s\n" % (self.write("bad.json", text), Q1), code=1)
            self.assertEqual(p.stdout, b"")
            self.assertIn(b"bad.json", p.stderr)
        self.assertIn(b"absent", self.chat("/load %s\n" % self.path("absent"), code=1).stderr)
        self.chat("/save %s\n" % self.path("no/such/folder"), code=1)
        self.chat("/save\n", code=1)
        self.write("talk.json", "old")
        self.chat("%s\n/save /dev/full\n" % Q1, code=4)
        self.assertIn(b"/help lists", self.chat("/frobnicate\n" + Q1 + "\n", code=1).stderr)

    def test_messages_of_several_lines(self):
        self.chat('one\\\ntwo\\\n\nthree\n"""a\nb\n\n"c" """\n"""d"""\n//slash\n"""\ne\n"""\n\n  \n/save %s\n/quit\n%s\n'
                  % (self.path("talk.json"), Q1), "-n", "1")
        self.assertEqual([c for r, c in self.saved() if r == "user"],
                         ["one\ntwo\n", "three", 'a\nb\n\n"c" ', "d", "/slash", "\ne\n"])
        self.chat('last\\', "-n", "1")
        self.chat('"""open\n', "-n", "1")

    def test_jsonl_takes_text_as_it_is(self):
        turns, _ = self.turns("/quit", '"""', "a\\", "", " ", args=("-n", "2"))
        self.assertEqual(len(turns), 5)
        p = self.chat('"a"\n3\n"b"\n', "--jsonl", "-n", "1", code=1)
        self.assertEqual(p.stdout.count(b"\n"), 1)
        p = self.chat('"a\\u0000"\n', "--jsonl", "-n", "1", code=1)
        self.one_line(p, "NUL")
        self.assertIn(b"UTF-8", self.chat("x", "-n", "1", "-sys", "\udcff", code=1).stderr)

    def test_context(self):
        turns, _ = self.turns(Q1)
        n = turns[0]["prompt_tokens"]
        p = self.chat(Q1 + "\n", "-c", str(n + 4), "--ignore-eos")
        self.assertIn(b"context of %d tokens is full" % (n + 4), p.stderr)
        p = self.chat("%s\n%s\n" % (Q1, Q2), "-c", str(n + 4), code=1)
        self.assertRegex(p.stderr, rb"don't fit into a context of %d; /clear begins anew" % (n + 4))
        self.assertEqual(p.stdout.count(b"\n"), 1)
        p = self.chat("%s\n/clear\n%s\n" % (Q1, Q1), "-c", str(n + 4))
        self.assertEqual(len(set(p.stdout.splitlines())), 1)

    def test_seeds(self):
        def talk(seed):
            p = self.cli("chat", "-m", MODEL, "--temp", "1", "-n", "16", "-s", str(seed), "--jsonl",
                         stdin=(json.dumps(ESSAY) + "\n").encode() * 2)
            return [json.loads(x) for x in p.stdout.splitlines()]
        a, b = talk(7), talk(7)
        self.assertEqual([x["text"] for x in a], [x["text"] for x in b])
        self.assertEqual([x["seed"] for x in a], [7, 8])
        one = self.cli("run", "-m", MODEL, "--temp", "1", "-n", "16", "-s", "7", "-p", ESSAY).stdout
        self.assertEqual(one.decode().rstrip("\n"), a[0]["text"].rstrip("\n"))

    def test_bad_text(self):
        p = self.cli("chat", "-m", MODEL, stdin=b"a\0b\n", code=1)
        self.assertIn(b"NUL", p.stderr)
        p = self.cli("chat", "-m", MODEL, stdin=b"a\xffb\n", code=1)
        self.assertIn(b"UTF-8", p.stderr)

    def test_failures_before_the_talk(self):
        self.one_line(self.cli("chat", "-m", self.path("no-such-model"), code=3), "no-such-model")
        self.usage("chat", says="-m/--model DIR is required")
        self.assertEqual(self.chat("").stdout, b"")

    def start(self, *args):
        p = subprocess.Popen([BIN, "chat", "-m", MODEL, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env=clean_env(self.env))
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.stdin.close)
        self.addCleanup(p.kill)
        return p

    def test_signals_end_a_pipe(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            p = self.start("--ignore-eos", "--temp", "1", "-s", "1")
            p.stdin.write(ESSAY.encode() + b"\n")
            p.stdin.flush()
            self.assertTrue(os.read(p.stdout.fileno(), 1))
            p.send_signal(number)
            self.assertEqual(p.wait(TIMEOUT_S), 128 + number)

    def test_reader_goes_away(self):
        p = self.start("--ignore-eos", "--temp", "1", "-s", "1")
        p.stdin.write(ESSAY.encode() + b"\n")
        p.stdin.flush()
        self.assertTrue(os.read(p.stdout.fileno(), 1))
        p.stdout.close()
        self.assertEqual(p.wait(TIMEOUT_S), 1)


class Pty:
    """moeflux chat on a terminal of its own."""

    def __init__(self, test, *args, env=None, greedy=True):
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.execve(BIN, [BIN, "chat", "-m", MODEL, *(GREEDY if greedy else []), *args],
                          clean_env({"TERM": "xterm", **test.env, **(env or {})}))
            finally:
                os._exit(99)
        test.addCleanup(self.kill)

    def kill(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.fd)
            self.pid = 0

    def read(self, timeout):
        if not select.select([self.fd], [], [], timeout)[0]:
            return False
        try:
            part = os.read(self.fd, 65536)
        except OSError:  # the other side is closed
            return False
        self.seen += part
        return bool(part)

    def until(self, pattern, start=None):
        """Waits for a pattern behind what was waited for before, and gives the text up to its end."""
        begin = self.mark if start is None else start
        deadline = time.time() + TIMEOUT_S
        while True:
            found = re.search(pattern, self.seen[begin:], re.S)
            if found:
                self.mark = begin + found.end()
                return self.seen[begin:self.mark]
            if time.time() > deadline or not self.read(deadline - time.time()):
                raise AssertionError("no %r in %r" % (pattern, self.seen[begin:]))

    mark = 0

    def send(self, data):
        os.write(self.fd, data)

    def prompt(self):
        return self.until(rb"> $")

    def turn(self, data):
        """Sends a line and gives what comes up to the next prompt."""
        self.send(data + b"\r")
        return self.until(rb"\[ Context: [^\n]*\]\r\n.*> $")

    def wait(self):
        deadline = time.time() + TIMEOUT_S
        while self.read(max(0, deadline - time.time())):
            pass
        pid = 0
        while not pid:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if time.time() > deadline:
                raise AssertionError("still there after %r" % self.seen[-500:])
            time.sleep(0.01)
        os.close(self.fd)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)


@unittest.skipUnless(os.path.isdir(MODEL), "no model folder at " + MODEL)
class Terminal(Case):
    def setUp(self):
        super().setUp()
        self.env = {"XDG_STATE_HOME": self.path("state")}
        self.history = self.path("state/moeflux/history")

    def open(self, *args, **kw):
        t = Pty(self, *args, **kw)
        t.prompt()
        return t

    def answers(self, *messages):
        lines = "".join(json.dumps(m) + "\n" for m in messages).encode()
        p = self.cli("chat", "-m", MODEL, *GREEDY, "--jsonl", stdin=lines)
        return [json.loads(x)["text"].encode() for x in p.stdout.splitlines()]

    def edits(self):
        """Whether this program was built with the line editor: it shows in the history."""
        t = self.open()
        t.send(b"/help\r")
        t.prompt()
        t.send(b"\x04")
        t.wait()
        return os.path.exists(self.history)

    def need_editor(self):
        if not self.edits():
            self.skipTest("built without libedit")

    def test_two_turns_and_quit(self):
        first, second = self.answers(Q1, Q2)
        for args in ((), ("--simple-io",)):
            t = self.open(*args)
            self.assertIn(first, t.turn(Q1.encode()))
            seen = t.turn(Q2.encode())
            self.assertIn(second, seen)
            self.assertNotIn(b"rebuilding", seen)
            t.send(b"/quit\r")
            self.assertEqual(t.wait(), 0)

    def test_end_of_input_leaves(self):
        for args in ((), ("--simple-io",)):
            t = self.open(*args)
            t.send(b"\x04")
            self.assertEqual(t.wait(), 0)

    def stop_an_answer(self, *args):
        t = self.open("--ignore-eos", *args)
        t.send(ESSAY.encode() + b"\r")
        t.until(rb"Elizabeth\.\r\n")
        t.until(rb"\w\w\w+ \w+ \w+")  # some words of the answer
        t.send(b"\x03")
        self.assertIn(b"(stopped)", t.until(rb"\[ Context: [^\n]*\]\r\n.*> $"))
        return t

    def test_interrupt_stops_the_answer(self):
        for args in ((), ("--simple-io",)):
            t = self.stop_an_answer("--no-history", "--no-progress", *args)
            path = self.path("talk.json")
            t.send(b"/save %s\r" % path.encode())
            t.prompt()
            with open(path) as f:
                messages = json.load(f)["messages"]
            self.assertEqual([m["role"] for m in messages], ["user", "assistant"])
            self.assertTrue(messages[1]["content"])
            # The next turn goes on from what was evaluated.
            t.send(Q1.encode() + b"\r")
            t.until(rb"lighthouse\?\r\n")
            t.until(rb"\w\w\w+ \w+ \w+")
            self.assertNotIn(b"rebuilding", t.seen)
            t.send(b"\x03")
            t.until(rb"\(stopped\).*> $")
            t.send(b"\x03")  # at the prompt: a warning
            self.assertIn(b"once more", t.prompt())
            t.send(b"/help\r")
            self.assertIn(b"/clear", t.prompt())
            t.send(b"\x03")  # the warning doesn't last
            self.assertIn(b"once more", t.prompt())
            t.send(b"\x03")
            self.assertEqual(t.wait(), 130)

    def test_interrupt_during_a_long_message(self):
        t = self.open("--simple-io", "--chunk", "16", "-t", "1")
        with open(self.path("talk.json"), "w") as f:
            json.dump([{"role": "user", "content": "word " * 3500}, {"role": "assistant", "content": "x"}], f)
        t.send(b"/load %s\r" % self.path("talk.json").encode())
        t.prompt()
        t.send(Q1.encode() + b"\r")
        t.until(rb"rebuilding \d+ tokens")
        t.until(rb"prompt: ")
        t.send(b"\x03")
        self.assertIn(b"stopped before the answer", t.prompt())
        t.send(b"/clear\r")
        t.prompt()
        self.assertIn(self.answers(Q1)[0], t.turn(Q1.encode()))
        t.send(b"/quit\r")
        self.assertEqual(t.wait(), 0)

    def test_interrupt_discards_the_line(self):
        t = self.open()
        t.send(b"/quit and more")
        t.until(rb"more")
        t.send(b"\x03")
        t.prompt()
        self.assertIn(self.answers(Q1)[0], t.turn(Q1.encode()))
        t.send(b"/quit\r")
        self.assertEqual(t.wait(), 0)

    def test_paste(self):
        self.need_editor()
        t = self.open("-n", "3")
        t.send(b"\x1b[200~first \xc3\xa9 \xe6\xbc\xa2 \xf0\x9f\x98\x80\rsecond\r\x04\x1b[A/third\x1b[201~")
        time.sleep(0.2)
        t.turn(b" end")
        large = b"x" * 30000
        t.send(b"\x1b[200~%s\x1b[201~" % large)
        t.until(rb"x{70}")
        t.send(b"\x7f\x7f\r")
        t.until(rb"don't fit into a context|\[ Context: ")
        t.prompt()
        t.send(b"/save %s\r" % self.path("talk.json").encode())
        t.prompt()
        t.send(b"\x04")
        self.assertEqual(t.wait(), 0)
        with open(self.path("talk.json"), encoding="utf8") as f:
            messages = json.load(f)["messages"]
        self.assertEqual(messages[0]["content"], "first \u00e9 \u6f22 \U0001f600\nsecond\n\x04\x1b[A/third end")
        self.assertIn(b"\033[?2004h", t.seen)
        self.assertEqual(t.seen.rfind(b"\033[?2004l") > t.seen.rfind(b"\033[?2004h"), True)
        with open(self.history, encoding="utf8") as f:
            entries = [json.loads(line) for line in f]
        self.assertEqual(entries[-2], "x" * 29998)

    def test_blocks(self):
        t = self.open("-n", "3")
        t.send(b'"""a\r')
        t.until(rb"\.\.\. $")
        t.send(b"b\r")
        t.until(rb"\.\.\. $")
        t.turn(b'"""')
        t.send(b"c\\\r")
        t.until(rb"\.\.\. $")
        t.send(b"\x03")  # drops the message
        t.prompt()
        t.send(b"/save %s\r" % self.path("talk.json").encode())
        t.prompt()
        with open(self.path("talk.json")) as f:
            messages = json.load(f)["messages"]
        self.assertEqual([m["content"] for m in messages if m["role"] == "user"], ["a\nb\n"])

    def test_history(self):
        self.need_editor()
        os.chmod(self.history, 0o644)
        t = self.open("-n", "2")
        t.turn(b"remember me")
        t.send(b"/quit\r")
        self.assertEqual(t.wait(), 0)
        self.assertEqual(stat.S_IMODE(os.stat(self.history).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.dirname(self.history)).st_mode), 0o700)
        t = self.open("-n", "2")
        t.send(b"\x1b[A\x1b[A")
        t.until(rb"remember me")
        t.turn(b"")
        t.send(b"/quit\r")
        self.assertEqual(t.wait(), 0)
        with open(self.history) as f:
            entries = [json.loads(line) for line in f]
        self.assertEqual(entries, ["/help", "remember me", "/quit", "remember me", "/quit"])

    def test_history_elsewhere(self):
        self.need_editor()
        with open(self.history, "rb") as f:
            before = f.read()
        t = self.open("--no-history")
        t.send(b"/quit\r")
        self.assertEqual(t.wait(), 0)
        with open(self.history, "rb") as f:
            self.assertEqual(f.read(), before)
        home = self.path("home")
        os.mkdir(home)
        t = self.open(env={"XDG_STATE_HOME": "not/absolute", "HOME": home})
        t.send(b"/quit\r")
        self.assertEqual(t.wait(), 0)
        self.assertTrue(os.path.exists(os.path.join(home, ".local/state/moeflux/history")))
        self.write("file", "")
        t = self.open(env={"XDG_STATE_HOME": self.path("file")})  # no folder: told, and no more
        t.send(b"/help\r")
        self.assertIn(b"history: cannot write", t.prompt())
        t.send(b"/quit\r")
        self.assertEqual(t.wait(), 0)

    def test_foreign_history(self):
        os.makedirs(os.path.dirname(self.history))
        with open(self.history, "wb") as f:
            f.write(b'\xff\xfe\n"good"\n{"a":1}\n"open\n\n' + b'"x"' * 1000 + b'\n"\\u0000"\n"last"')
        t = self.open()
        t.send(b"/help\r")
        t.prompt()
        t.send(b"\x04")
        self.assertEqual(t.wait(), 0)

    def test_without_a_usable_terminal(self):
        first = self.answers(Q1)[0]
        for env in ({"TERM": "dumb"}, {"TERM": "no-such-terminal"}, {"TERM": "xterm", "LC_ALL": "C"}):
            t = self.open(env=env)
            self.assertIn(first, t.turn(Q1.encode()))
            t.send(b"/quit\r")
            self.assertEqual(t.wait(), 0)

    def test_failures_do_not_end_it(self):
        t = self.open("-c", "64")
        t.send(b"/frobnicate\r")
        self.assertIn(b"/help lists", t.prompt())
        t.send(b"/load %s\r" % self.path("absent").encode())
        self.assertIn(b"absent", t.prompt())
        t.send(b"word " * 100 + b"\r")
        self.assertIn(b"/clear begins anew", t.prompt())
        self.assertIn(self.answers(Q1)[0], t.turn(Q1.encode()))
        t.send(b"\x04")
        self.assertEqual(t.wait(), 0)

    def test_termination(self):
        for args in ((), ("--simple-io",)):
            t = self.open(*args)
            os.kill(t.pid, signal.SIGTERM)
            self.assertEqual(t.wait(), 143)

    def test_stopped_and_continued(self):
        self.need_editor()
        t = self.open("-n", "2")
        t.send(b"half")
        t.until(rb"half")
        os.kill(t.pid, signal.SIGSTOP)
        os.kill(t.pid, signal.SIGCONT)
        os.kill(t.pid, signal.SIGWINCH)
        t.until(rb"half")  # shown anew
        t.turn(b" and half")
        t.send(b"\x04")
        self.assertEqual(t.wait(), 0)
        with open(self.history) as f:
            self.assertIn('"half and half"\n', f.readlines())

    def test_answers_elsewhere(self):
        """Standard output is a file: no editor, and nothing but answers in it."""
        first, second = self.answers(Q1, Q2)
        parent, child = pty.openpty()
        with open(self.path("out"), "wb") as out:
            p = subprocess.Popen([BIN, "chat", "-m", MODEL, *GREEDY], stdin=child, stdout=out, stderr=child,
                                 env=clean_env(self.env))
            os.close(child)
            os.write(parent, ("%s\n%s\n/quit\n" % (Q1, Q2)).encode())
            deadline = time.time() + TIMEOUT_S
            while p.poll() is None and time.time() < deadline:
                if select.select([parent], [], [], 0.1)[0]:
                    try:
                        os.read(parent, 65536)
                    except OSError:
                        break
            self.assertEqual(p.wait(TIMEOUT_S), 0)
        os.close(parent)
        with open(self.path("out"), "rb") as f:
            self.assertEqual(f.read(), first + b"\n" + second + b"\n")
        self.assertFalse(os.path.exists(self.history))


if __name__ == "__main__":
    test_cli.main()
