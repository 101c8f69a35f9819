"""Where answers end and how sure they are: `--stop`, `--logprobs`.

  test_stop.py [-v]

Environment as for test_cli.py; needs the model.
"""
import array
import json
import math
import os
import re
import unittest

import test_cli
from test_cli import MODEL, Case

GREEDY = ["--temp", "0", "--repeat-penalty", "1"]
QUESTION = "What is a lighthouse?"


def text_of(piece):
    """With U+FFFD for each bad byte."""
    return re.sub("[\udc80-\udcff]", "\ufffd", piece.decode("utf8", "surrogateescape"))


@unittest.skipUnless(os.path.isdir(MODEL), "no model folder at " + MODEL)
class Stop(Case):
    def run_model(self, *args, **kw):
        return self.cli("run", "-m", MODEL, *GREEDY, "-p", QUESTION, *args, **kw)

    def json_of(self, *args, **kw):
        return json.loads(self.run_model("--json", *args, **kw).stdout)

    def test_the_answer_ends_before_it(self):
        whole = self.json_of()
        text, n = whole["text"], whole["generated_tokens"]
        self.assertEqual(whole["stop"], "eos")
        self.assertGreater(n, 6)
        middle = len(text) // 2
        # Wherever tokens end: pieces of every length, of one character and of several words.
        for begin, end in ((middle, middle + 1), (3, 5), (middle - 3, middle + 4), (1, len(text)), (0, 2)):
            stop = text[begin:end]
            got = self.json_of("--stop", stop)
            self.assertEqual(got["text"], text[:text.index(stop)], stop)
            self.assertEqual(got["stop"], "stop")
            self.assertLessEqual(got["generated_tokens"], n)
        shown = self.run_model("-r", text[middle - 3:middle + 4])
        self.assertEqual(shown.stdout.decode().rstrip("\n"), text[:text.index(text[middle - 3:middle + 4])])
        self.assertIn(b"stop: stop", shown.stderr)

    def test_what_is_held_back_is_shown_at_the_end(self):
        whole = self.json_of()
        for args in (("--stop", whole["text"] + "x"), ("--reverse-prompt", whole["text"][-4:] + "!"),
                     ("--reasoning-format", "none", "--stop", whole["text"] + "x")):
            got = self.json_of(*args)
            self.assertEqual((got["text"], got["stop"]), (whole["text"], "eos"))
        cut = self.json_of("-n", "5")
        self.assertEqual(self.json_of("-n", "5", "--stop", whole["text"])["text"], cut["text"])

    def test_the_first_of_several(self):
        text = self.json_of()["text"]
        early, late = text[8:12], text[20:24]
        self.assertLess(text.index(early), text.index(late))
        got = self.json_of("--stop", late, "--stop", early, "-r", "not in it")
        self.assertEqual(got["text"], text[:text.index(early)])

    def test_raw_text(self):
        text = self.json_of("--raw", "-n", "30", "--ignore-eos")["text"]
        stop = text[10:16]
        self.assertTrue(stop)
        for args in ((), ("--reasoning-format", "none")):
            got = self.json_of("--raw", "-n", "30", "--ignore-eos", *args, "--stop", stop)
            self.assertEqual(got["text"], text[:text.index(stop)])

    def test_chat(self):
        text = self.json_of()["text"]
        stop = text[9:14]
        p = self.cli("chat", "-m", MODEL, *GREEDY, "--jsonl", "--stop", stop,
                     stdin=(json.dumps(QUESTION) + "\n").encode() * 2)
        first, second = [json.loads(line) for line in p.stdout.splitlines()]
        self.assertEqual((first["text"], first["stop"]), (text[:text.index(stop)], "stop"))
        self.assertNotIn(stop, second["text"])

    def test_logprobs(self):
        """Against the rows of `logits` for the same ids, by a softmax of our own."""
        prompt = "What is a lighthouse"
        ids = [int(i) for i in self.cli("tokenize", "-m", MODEL, "--special", "-p", prompt).stdout.split()]
        sampled = ["--temp", "1.5", "--seed", "3", "--top-k", "5", "-l", "%d+3" % ids[0], "--repeat-penalty", "1.3"]
        for n, more in ((20, []), (3, sampled), (0, [])):
            p = self.cli("run", "-m", MODEL, *GREEDY, "--raw", "--ignore-eos", "-n", "8", "-p", prompt, "--json",
                         "--logprobs", str(n), *more)
            got = json.loads(p.stdout)
            self.assertEqual(len(got["logprobs"]), 8)
            chosen = [t["id"] for t in got["logprobs"]]
            path = self.write("ids", " ".join(map(str, ids + chosen)))
            self.cli("logits", "-m", MODEL, "--ids", path, "-o", self.path("rows"))
            rows = array.array("f")
            with open(self.path("rows"), "rb") as f:
                rows.frombytes(f.read())
            width = len(rows) // (len(ids) + 8)
            for i, token in enumerate(got["logprobs"]):
                at = (len(ids) - 1 + i) * width
                row = rows[at:at + width]
                peak = max(row)
                total = math.log(math.fsum(math.exp(x - peak) for x in row)) + peak
                best = sorted(range(width), key=lambda k: (-row[k], k))[:n]
                self.assertEqual([t["id"] for t in token["top"]], best)
                for t in [token] + token["top"]:
                    self.assertAlmostEqual(t["logprob"], row[t["id"]] - total, places=5)
                    self.assertLessEqual(t["logprob"], 0)
                    self.assertEqual(text_of(bytes(t["bytes"])), t["token"])
                if n == 20:  # greedy
                    self.assertEqual(token["id"], best[0])
            whole = b"".join(bytes(t["bytes"]) for t in got["logprobs"])
            self.assertEqual(re.sub(r"<\|\w+\|>", "", whole.decode("utf8")).strip(), got["text"].strip())
        self.assertNotIn("logprobs", self.json_of("-n", "2"))
        self.usage("run", "-m", "x", "-p", "a", "--logprobs", "3", says="--logprobs needs --json")
        self.usage("run", "-m", "x", "-p", "a", "--json", "--logprobs", "21", says="from 0 to 20")

    def test_refused(self):
        self.usage("run", "-m", "x", "-p", "a", "--stop", "", says="at least one byte")
        self.one_line(self.run_model("--stop", "\udcff", code=1), "UTF-8")
        self.one_line(self.run_model(*["-r", "x"] * 65, code=1), "stop strings")


if __name__ == "__main__":
    test_cli.main()
