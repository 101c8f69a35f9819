"""`moeflux perplexity`: its figures worked out again from rows of `moeflux logits`, its files taken apart
and made by hand, and what it refuses.

  test_perplexity.py [-v] [Perplexity]

Environment as for test_cli.py.
"""
import array
import json
import math
import os
import re
import struct
import unittest

import test_cli
from test_cli import MODEL, Case

CTX = 16
SCORED = range(CTX // 2, CTX - 1)  # positions whose rows tell of the token after them


def log_softmax(row):
    most = max(row)
    log_sum = most + math.log(math.fsum(math.exp(x - most) for x in row))
    return [x - log_sum for x in row]


def estimate(values):
    n, mean = len(values), math.fsum(values) / len(values)
    return mean, math.sqrt((math.fsum(v * v for v in values) / n - mean * mean) / (n - 1))


def quantile(values, fraction):
    values, at = sorted(values), fraction * (len(values) - 1)
    i = int(at)
    return values[i] + (at - i) * (values[min(i + 1, len(values) - 1)] - values[i])


class Perplexity(Case):
    cache = {}  # rows by kind of activations

    def setUp(self):
        super().setUp()
        with open(os.path.join(MODEL, "eval.jsonl"), encoding="utf-8") as f:
            items = [json.loads(line) for line in f][:6]
        self.text = self.write("text", "\n".join(i["question"] + " " + i["answer"] for i in items))
        self.ids = [int(i) for i in self.cli("tokenize", "-m", MODEL, "-f", self.text).stdout.split()]
        self.windows = [self.ids[i:i + CTX] for i in range(0, 3 * CTX, CTX)]

    def ppl(self, *options, **how):
        return self.cli("perplexity", "-m", MODEL, "-c", str(CTX), "--no-progress", *options, **how)

    def scored(self, activations):
        """(log-probabilities, token that came) of every scored position of three windows."""
        if activations in self.cache:
            return self.cache[activations]
        result = self.cache[activations] = []
        for window in self.windows:
            out = self.path("rows")
            self.cli("logits", "-m", MODEL, "--ids", self.write("ids", " ".join(map(str, window))), "-o", out,
                     "--activations", activations, "--no-progress")
            with open(out, "rb") as f:
                values = array.array("f", f.read())
            n_vocab = len(values) // CTX
            for i in SCORED:
                result.append((log_softmax(values[i * n_vocab:(i + 1) * n_vocab]), window[i + 1]))
        return result

    def test_figures(self):
        nll = [-row[next_id] for row, next_id in self.scored("f32")]
        mean, error = estimate(nll)
        text = self.ppl("-f", self.text, "--chunks", "3", "--activations", "f32").stdout.decode()
        after = [math.exp(math.fsum(nll[:n]) / n) for n in (7, 14, 21)]
        self.assertEqual(text.splitlines()[0], "".join("[%d]%.4f," % (i + 1, p) for i, p in enumerate(after)))
        final = re.search(r"(?m)^Final estimate: PPL = ([\d.]+) \+/- ([\d.]+)$", text)
        self.assertAlmostEqual(float(final.group(1)), math.exp(mean), delta=2e-4)
        self.assertAlmostEqual(float(final.group(2)), math.exp(mean) * error, delta=2e-4)
        r = json.loads(self.ppl("-f", self.text, "--chunks", "3", "--activations", "f32", "--json").stdout)
        self.assertEqual((r["n_ctx"], r["n_chunks"], r["n_scored"], r["activations"]), (CTX, 3, 21, "f32"))
        self.assertAlmostEqual(r["ppl"], math.exp(mean), delta=1e-4)
        for found, wanted in zip(r["ppl_after"], after):
            self.assertAlmostEqual(found, wanted, delta=1e-4)

    def test_all_windows_and_standard_input(self):
        with open(self.text, "rb") as f:
            r = json.loads(self.ppl("-f", "-", "--json", stdin=f.read()).stdout)
        self.assertEqual(r["n_chunks"], len(self.ids) // CTX)
        self.assertEqual(len(r["ppl_after"]), r["n_chunks"])

    def kept(self, path):
        """A base taken apart: windows of tokens, rows of (step, lowest, codes)."""
        with open(path, "rb") as f:
            data = f.read()
        self.assertEqual(data[:8], b"_logits_")
        n_ctx, n_vocab, n_chunks = struct.unpack_from("<III", data, 8)
        n = n_ctx * n_chunks
        tokens = list(struct.unpack_from("<%di" % n, data, 20))
        rows, at, even = [], 20 + 4 * n, (n_vocab + 1) // 2 * 2
        while at < len(data):
            step, lowest = struct.unpack_from("<ff", data, at)
            rows.append((step, lowest, struct.unpack_from("<%dH" % n_vocab, data, at + 8)))
            at += 8 + 2 * even
        self.assertEqual((n_ctx, at), (CTX, len(data)))
        return tokens, rows

    def keep(self, name, *options):
        path = self.path(name)
        self.ppl("-f", self.text, "--chunks", "3", "--kl-divergence-base", path, *options)
        return path

    def test_base_is_as_llama_cpp_writes_it(self):
        tokens, rows = self.kept(self.keep("base", "--activations", "f32"))
        self.assertEqual(tokens, self.ids[:3 * CTX])
        scored = self.scored("f32")
        self.assertEqual(len(rows), len(scored))
        for (step, lowest, codes), (log_p, next_id) in zip(rows, scored):
            self.assertLessEqual(max(codes), 65535)
            for i in list(range(0, len(log_p), 97)) + [next_id]:
                self.assertAlmostEqual(step * codes[i] + lowest, max(log_p[i], lowest), delta=2 * step + 1e-5)
            self.assertLessEqual(lowest, max(log_p) - 15.99)  # what lies above is all there
            self.assertLessEqual(lowest, log_p[next_id] + 1e-4)

    def test_comparison(self):
        base = self.scored("f32")
        this = self.scored("q8")
        kld = [math.fsum(math.exp(p) * (p - q) for p, q in zip(b, t)) for (b, _), (t, _) in zip(base, this)]
        dp = [math.exp(t[i]) - math.exp(b[i]) for (b, i), (t, _) in zip(base, this)]
        same = [b.index(max(b)) == t.index(max(t)) for (b, _), (t, _) in zip(base, this)]
        ratio = [b[i] - t[i] for (b, i), (t, _) in zip(base, this)]
        path = self.keep("base", "--activations", "f32")
        r = json.loads(self.ppl("--kl", path, "--activations", "q8", "--json").stdout)
        self.assertEqual(r["n_scored"], 21)
        self.assertAlmostEqual(r["kld"], estimate(kld)[0], delta=1e-5)  # codes of 16 bits
        self.assertAlmostEqual(r["kld_error"], estimate(kld)[1], delta=1e-5)
        self.assertLess(1e-4, r["kld"])
        self.assertAlmostEqual(r["kld_quantiles"]["0.9"], quantile(kld, 0.9), delta=2e-5)
        self.assertAlmostEqual(r["kld_quantiles"]["1"], max(kld), delta=2e-5)
        self.assertAlmostEqual(r["dp"], estimate(dp)[0], delta=1e-5)
        self.assertAlmostEqual(r["dp_rms"], math.sqrt(math.fsum(d * d for d in dp) / len(dp)), delta=1e-5)
        self.assertAlmostEqual(r["dp_quantiles"]["0.05"], quantile(dp, 0.05), delta=1e-5)
        self.assertEqual(r["same_top"], sum(same) / len(same))
        self.assertAlmostEqual(r["ln_ppl_ratio"], estimate(ratio)[0], delta=1e-3)
        self.assertAlmostEqual(r["ln_ppl_ratio_error"], estimate(ratio)[1], delta=1e-3)
        mean = estimate([-b[i] for b, i in base])[0]
        self.assertAlmostEqual(r["ppl_base"] / math.exp(mean), 1, delta=1e-3)
        # The same as lines, with llama.cpp's spelling of it.
        text = self.ppl("--kl-divergence", "--save-all-logits", path, "--activations", "q8").stdout.decode()
        for name, value, unit in (("Mean PPL\\(Q\\) +", r["ppl"], 1), ("Mean PPL\\(base\\) +", r["ppl_base"], 1),
                                  ("Mean    KLD", r["kld"], 1), ("99.0%   KLD", r["kld_quantiles"]["0.99"], 1),
                                  ("Median  KLD", r["kld_quantiles"]["0.5"], 1), ("RMS Δp    ", r["dp_rms"], 100),
                                  ("25.0%   Δp", r["dp_quantiles"]["0.25"], 100),
                                  ("Same top p", r["same_top"], 100)):
            found = re.search(r"(?m)^%s: +(-?[\d.]+)" % name, text)
            self.assertAlmostEqual(float(found.group(1)), unit * value, delta=6e-4 if unit == 100 else 1e-6, msg=name)
        self.assertEqual(len(re.findall(r"(?m)^ +[123]  ", text)), 3)

    def test_against_itself(self):
        path = self.keep("base")
        r = json.loads(self.ppl("--kl", path, "-f", self.text, "--json").stdout)
        self.assertLess(r["kld"], 1e-5)
        self.assertEqual(r["same_top"], 1)
        self.assertAlmostEqual(r["ppl_base"], r["ppl"], delta=1e-3 * r["ppl"])
        other = self.write("other", "Another text altogether, as long as that or longer. " * 9)
        self.one_line(self.ppl("--kl", path, "-f", other, code=1), "was not made of the text")

    def test_wrong_bases(self):
        with open(self.keep("base"), "rb") as f:
            data = f.read()
        row = 20 + 4 * 3 * CTX
        cases = [(b"GGUF" + data[4:], "doesn't begin with _logits_"), (b"", "ends at byte 0"),
                 (data[:15], "ends at byte 15"), (data[:-2], "don't make that"), (data + b"xx", "don't make that"),
                 (data[:8] + struct.pack("<I", 1) + data[12:], "windows of 1 tokens"),
                 (data[:12] + struct.pack("<I", 0) + data[16:], "a vocabulary of 0"),
                 (data[:16] + struct.pack("<I", 0xffffffff) + data[20:], "4294967295 windows"),
                 (data[:16] + struct.pack("<I", 0x7fffffff) + data[20:], "don't make that"),
                 (data[:24] + struct.pack("<i", -1) + data[28:], "byte 24: token -1"),
                 (data[:row] + struct.pack("<f", math.nan) + data[row + 4:], "byte %d: " % row),
                 (data[:row] + struct.pack("<ff", 1e-4, 3) + data[row + 8:], "byte %d: " % row)]
        for bad, says in cases:
            p = self.ppl("--kl", self.write("bad", bad), code=1)
            self.assertIn(says, p.stderr.decode().splitlines()[-1])
        p = self.cli("perplexity", "-m", MODEL, "--kl", self.path("none"), "--no-progress", code=1)
        self.one_line(p, "No such file")
        # Of another model: its vocabulary is one less.
        vocab, = struct.unpack_from("<I", data, 12)
        self.assertEqual(vocab % 2, 0)
        other = data[:12] + struct.pack("<I", vocab - 1) + data[16:]
        self.one_line(self.ppl("--kl", self.write("other", other), code=1), "a vocabulary of %d" % (vocab - 1))

    def test_usage_and_nothing_left(self):
        ppl = ("perplexity", "-m", MODEL)
        self.usage(*ppl, says="-f FILE is missing")
        self.usage(*ppl, "-f", self.text, "-c", "3", says="windows have 4 tokens at least")
        self.usage(*ppl, "-f", self.text, "--chunks", "0", says="nothing to measure")
        self.usage(*ppl, "-f", self.text, "--kl-divergence", says="compared with what?")
        self.usage(*ppl, "--kl", "a", "--kl-divergence-base", "b", says="give one of both")
        self.usage(*ppl, "-f", self.text, "--kl-divergence-base", "-", says="name a file")
        self.usage(*ppl, "--kl", self.keep("base"), "-c", "32", says="was made with 16")
        short = self.write("short", "One word.")
        new = self.path("new")
        p = self.ppl("-f", short, "--kl-divergence-base", new, code=1)
        self.one_line(p, "windows of 16 want 32 at least")
        self.ppl("-f", self.text, "--kl-divergence-base", os.path.join(self.dir, "none", "new"), code=(1, 4))
        self.assertEqual([n for n in os.listdir(self.dir) if n.startswith("new")], [])


if __name__ == "__main__":
    test_cli.main()
