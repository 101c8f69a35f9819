"""`moeflux chat --save --load --kv-dir --kv-disk`: what one process evaluated the next one need not.

Environment as for test_cli.py; all of it needs the model.
"""
import json
import os
import subprocess
import unittest

import test_cli
from test_cli import BIN, MODEL, TIMEOUT_S, Case, clean_env

GREEDY = ["--temp", "0", "--repeat-penalty", "1", "-c", "256"]
Q1, Q2 = "What is a lighthouse?", "What kind of thing is it?"


@unittest.skipUnless(os.path.isdir(MODEL), "no model folder at " + MODEL)
class State(Case):
    def turns(self, *messages, args=(), code=0):
        p = self.cli("chat", "-m", MODEL, *GREEDY, "--jsonl", *args, code=code,
                     stdin="".join(json.dumps(m) + "\n" for m in messages).encode())
        return [json.loads(line) for line in p.stdout.splitlines()], p.stderr.decode()

    def test_save_and_load(self):
        talk = self.path("talk.json")
        (first, second), _ = self.turns(Q1, Q2)
        (one,), _ = self.turns(Q1, args=["--save", talk])
        self.assertEqual(one["text"], first["text"])
        self.assertEqual(sorted(os.listdir(self.dir)), ["talk.json", "talk.json.state"])
        (two,), err = self.turns(Q2, args=["--load", talk, "--save", talk])
        self.assertEqual(two["text"], second["text"])
        self.assertEqual(two["reused_tokens"], one["context_tokens"])
        self.assertEqual(two["prompt_tokens"], second["prompt_tokens"])
        self.assertNotIn("anew", err)
        with open(talk, encoding="utf8") as f:
            self.assertEqual([m["content"] for m in json.load(f)["messages"]],
                             [Q1, one["text"], Q2, two["text"]])

    def test_bad_states_cost_time_only(self):
        talk = self.path("talk.json")
        (_, second), _ = self.turns(Q1, Q2)
        self.turns(Q1, args=["--save", talk])
        with open(talk + ".state", "r+b") as f:
            f.seek(5000)
            byte = f.read(1)
            f.seek(5000)
            f.write(bytes([byte[0] ^ 4]))
        (two,), err = self.turns(Q2, args=["--load", talk])
        self.assertIn("damaged", err)
        self.assertEqual((two["text"], two["reused_tokens"]), (second["text"], 0))
        os.remove(talk + ".state")
        (two,), err = self.turns(Q2, args=["--load", talk])
        self.assertIn("talk.json.state: none", err)
        self.assertEqual((two["text"], two["reused_tokens"]), (second["text"], 0))
        _, err = self.turns(Q2, args=["--load", self.path("nothing")], code=1)
        self.assertIn("nothing", err)

    def test_prefixes_on_disk(self):
        kv = self.path("kv")
        (one,), _ = self.turns(Q1, args=["--kv-dir", kv])
        self.assertEqual(one["reused_tokens"], 0)
        (again, two), _ = self.turns(Q1, Q2, args=["--kv-dir", kv])
        self.assertEqual(again["text"], one["text"])
        self.assertEqual(again["prompt_tokens"], 0)  # with the logits of where its prompt ended
        self.assertEqual(again["reused_tokens"], one["prompt_tokens"])
        (_, second), _ = self.turns(Q1, Q2)
        self.assertEqual(two["text"], second["text"])
        # /clear is no reason to evaluate it again, either.
        p = self.cli("chat", "-m", MODEL, *GREEDY, "--kv-dir", self.path("other"),
                     stdin=("%s\n/clear\n%s\n" % (Q1, Q1)).encode())
        self.assertIn(b"Prompt: 0 new", p.stderr)

    def test_same_files(self):
        """What --kv-dir wrote is a state that --load takes, and the other way round."""
        kv, talk = self.path("kv"), self.path("talk.json")
        (_, second), _ = self.turns(Q1, Q2)
        (one,), _ = self.turns(Q1, args=["--save", talk, "--kv-dir", kv])
        kept = max((os.path.join(kv, name) for name in os.listdir(kv)), key=os.path.getsize)
        os.replace(talk + ".state", self.path("saved"))
        os.replace(kept, talk + ".state")
        (two,), err = self.turns(Q2, args=["--load", talk])
        self.assertEqual((two["text"], two["reused_tokens"]), (second["text"], one["context_tokens"]))
        self.assertNotIn("anew", err)
        other = self.path("other")
        os.mkdir(other)
        os.replace(self.path("saved"), os.path.join(other, os.path.basename(kept)))
        os.remove(talk + ".state")
        (two,), _ = self.turns(Q2, args=["--load", talk, "--kv-dir", other])
        self.assertEqual((two["text"], two["reused_tokens"]), (second["text"], one["context_tokens"]))

    def test_disk_budget(self):
        kv = self.path("kv")

        def size():
            return sum(os.path.getsize(os.path.join(kv, n)) for n in os.listdir(kv))

        self.turns(Q1, args=["--kv-dir", kv])
        one = size()
        budget = one + one // 2
        for question in (Q2, "define whale", Q1 + " Again?"):
            self.turns(question, args=["--kv-dir", kv, "--kv-disk", str(budget)])
            self.assertLessEqual(size(), budget)
            self.assertGreater(size(), 0)
        self.turns(Q1, args=["--kv-dir", kv, "--kv-disk", "1K"])
        self.assertEqual(size(), 0)
        _, err = self.turns(Q1, args=["--kv-disk", "1M"], code=2)
        self.assertIn("--kv-dir", err)

    def test_one_process_at_a_time(self):
        kv = self.path("kv")
        p = subprocess.Popen([BIN, "chat", "-m", MODEL, "--jsonl", "--kv-dir", kv], env=clean_env(),
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            p.stdin.write(json.dumps(Q1).encode() + b"\n")
            p.stdin.flush()
            p.stdout.readline()  # it has its folder
            _, err = self.turns(Q1, args=["--kv-dir", kv], code=1)
            self.assertIn("another engine uses this folder", err)
        finally:
            p.stdin.close()
            p.wait(TIMEOUT_S)
            p.stdout.close()
        self.assertEqual(p.returncode, 0)


if __name__ == "__main__":
    test_cli.main()
