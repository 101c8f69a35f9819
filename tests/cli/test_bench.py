"""`moeflux bench`: what it reports, and that each of its options changes that.

  test_bench.py [-v] [Bench]

Environment as for test_cli.py.
"""
import csv
import io
import json
import statistics
import unittest

import test_cli
from test_cli import MODEL, Case


class Bench(Case):
    def bench(self, *options):
        return self.cli("bench", "-m", MODEL, "--no-progress", *options).stdout.decode()

    def rows(self, *options):
        return json.loads(self.bench("-o", "json", *options))

    def test_json(self):
        rows = self.rows("-p", "40", "-n", "3", "-r", "4", "-t", "1")
        self.assertEqual([(r["n_prompt"], r["n_gen"]) for r in rows], [(40, 0), (0, 3)])
        for r in rows:
            self.assertEqual((len(r["samples_ns"]), len(r["samples_ts"]), r["n_threads"]), (4, 4, 1))
            tokens = r["n_prompt"] + r["n_gen"]
            for ns, ts in zip(r["samples_ns"], r["samples_ts"]):
                self.assertAlmostEqual(ts, tokens * 1e9 / ns, delta=ts * 1e-5)
            self.assertAlmostEqual(r["avg_ts"], statistics.mean(r["samples_ts"]), delta=1e-3)
            self.assertAlmostEqual(r["stddev_ts"], statistics.stdev(r["samples_ts"]), delta=1e-3)
            self.assertLess(0, r["ceiling_gb_s"])
        decode = rows[1]
        self.assertAlmostEqual(decode["gb_s"], decode["avg_ts"] * decode["token_bytes"] / 1e9, delta=2e-3)
        self.assertLess(decode["token_bytes"], decode["model_size"])

    def test_none_of_a_kind(self):
        self.assertEqual([r["n_gen"] for r in self.rows("-p", "0", "-n", "2", "-r", "1")], [2])
        self.assertEqual([r["n_prompt"] for r in self.rows("-p", "9", "-n", "0", "-r", "1")], [9])
        self.usage("bench", "-m", MODEL, "-p", "0", "-n", "0", says="nothing to measure")

    def test_isa_and_activations_are_used(self):
        r, = self.rows("-p", "4", "-n", "0", "-r", "1", "--isa", "c", "--activations", "q16")
        self.assertEqual((r["isa"], r["activations"], r["isa_verified"]), ("c", "q16", True))

    def test_every_level_can_be_asked_for(self):
        """Capability is the machine's, policy the user's: each runs as itself, or is refused by name."""
        ran = 0
        for isa in ("c", "avx2", "avx-vnni", "avx512", "neon", "i8mm"):
            p = self.cli("bench", "-m", MODEL, "--no-progress", "-p", "2", "-n", "0", "-r", "1", "-o", "json",
                         "--isa", isa, code=(0, 3))
            if p.returncode == 0:
                ran += 1
                row, = json.loads(p.stdout)
                self.assertEqual((row["isa"], row["isa_verified"]), (isa, isa in ("c", "avx2", "avx512")))
            else:
                self.one_line(p, "this processor has no " + isa)
        self.assertLess(0, ran)
        self.usage("bench", "-m", MODEL, "--isa", "sse2", says="not one of auto|c|avx2|avx-vnni|avx512|neon|i8mm")

    def test_cache_types_are_used(self):
        r, = self.rows("-p", "4", "-n", "0", "-r", "1", "-ctk", "f16", "--cache-type-v", "q8_0")
        self.assertEqual((r["type_k"], r["type_v"]), ("f16", "q8_0"))
        r, = self.rows("-p", "4", "-n", "0", "-r", "1")
        self.assertEqual((r["type_k"], r["type_v"]), ("f32", "f32"))

    def test_cache_types_take_the_bytes_that_the_plan_says(self):
        def bytes_of(*options):
            plan = json.loads(self.cli("plan", "-m", MODEL, "--json", "-c", "4096", *options).stdout)
            return next(item["bytes"] for item in plan["memory"] if item["item"] == "kv_bytes")
        # Two layers of attention with two heads of 64 each; q8_0: 34 bytes for 32 elements.
        self.assertEqual(bytes_of(), 4096 * 2 * 2 * 128 * 4)
        self.assertEqual(bytes_of("-ctk", "f16", "-ctv", "f16"), 4096 * 2 * 2 * 128 * 2)
        self.assertEqual(bytes_of("--cache-type-k", "q8_0"), 4096 * 2 * (4 * 34 + 128 * 4))
        self.usage("plan", "-m", MODEL, "-ctk", "q4_0", says="one of f32|f16|q8_0")

    def test_table_and_csv(self):
        lines = self.bench("-p", "8", "-n", "2", "-r", "1").splitlines()
        self.assertEqual(len(lines), 4)
        self.assertEqual([line.split("|")[5].strip() for line in lines[2:]], ["pp8", "tg2"])
        table = list(csv.DictReader(io.StringIO(self.bench("-p", "8", "-n", "2", "-r", "1", "-o", "csv"))))
        self.assertEqual([(r["n_prompt"], r["n_gen"]) for r in table], [("8", "0"), ("0", "2")])
        self.assertTrue(all(float(r["avg_ts"]) > 0 for r in table))

    def test_ops(self):
        """What all ops take is the whole, and what they move is what a token costs."""
        rows = self.rows("-p", "24", "-n", "6", "-r", "2", "-t", "2", "--ops")
        for r in rows:
            ops = {o["op"]: o for o in r["ops"]}
            tokens, runs = r["n_prompt"] + r["n_gen"], 2
            self.assertEqual(len(ops), len(r["ops"]))
            self.assertEqual(r["ops_total_ns"], sum(r["samples_ns"]))
            self.assertEqual(sum(o["ns"] for o in r["ops"]) + r["ops_stall_ns"] + r["ops_other_ns"],
                             r["ops_total_ns"])
            for o in r["ops"]:
                self.assertLess(0, o["ns"], o)
                self.assertAlmostEqual(o["share"], o["ns"] / r["ops_total_ns"], delta=1e-6)
                self.assertAlmostEqual(o["gb_s"], o["bytes"] / o["ns"], delta=1e-3)
            # Eight layers, two of them with attention; logits of the last token of each run.
            evals = runs * (1 if r["n_prompt"] else tokens)
            self.assertEqual(ops["matmul router"]["runs"], 8 * evals)
            self.assertEqual(ops["gdn o"]["runs"], 6 * evals)
            self.assertEqual(ops["attn o"]["runs"], 2 * evals)
            self.assertEqual(ops["matmul logits"]["runs"], evals)
            self.assertLessEqual(8 * evals, ops["experts ey"]["runs"])
            # Keys and values: 2 heads of 64, in both layers, of all positions so far.
            positions = tokens if r["n_prompt"] else tokens * (tokens + 1) // 2
            self.assertEqual(ops["attn o"]["bytes"], runs * positions * 2 * (2 * 2 * 64) * 4)
        decode = rows[1]
        weights = sum(o["bytes"] for o in decode["ops"]
                      if o["op"].startswith(("matmul", "experts", "embed"))) / 12
        self.assertAlmostEqual(weights, decode["token_bytes"], delta=0.05 * decode["token_bytes"])

    def test_ops_of_hints(self):
        """Looking ahead is among the ops, where it is on."""
        small = [] if test_cli.SANITIZED else ["--memory", "20M"]  # sanitizers need more
        for hints in ("off", "on"):
            for r in self.rows("-p", "8", "-n", "4", "-r", "1", *small, "--ops", "--hints", hints):
                self.assertEqual(sum(o["ns"] for o in r["ops"]) + r["ops_stall_ns"] + r["ops_other_ns"],
                                 r["ops_total_ns"])
                if small or hints == "off":  # with room for all there may be nothing to look ahead for
                    self.assertEqual(any("hints" in o["op"] for o in r["ops"]), hints == "on", r["ops"])

    def test_ops_as_tables(self):
        options = ("-p", "8", "-n", "2", "-r", "1", "--ops")
        text = self.bench(*options)
        self.assertRegex(text, r"(?m)^\| op in pp8 \|")
        self.assertRegex(text, r"(?m)^\| op in tg2 \|")
        self.assertEqual(len([line for line in text.splitlines() if line.startswith("| experts ey |")]), 2)
        shares = [float(line.split("|")[4].strip(" %")) for line in text.split("op in tg2")[1].splitlines()[2:]]
        self.assertAlmostEqual(sum(shares), 100, delta=0.1 * len(shares))
        first, second = self.bench(*options, "-o", "csv").split("\n\n")
        self.assertEqual(len(first.splitlines()), 3)
        table = list(csv.DictReader(io.StringIO(second)))
        self.assertEqual({r["test"] for r in table}, {"pp8", "tg2"})
        self.assertIn("matmul logits", {r["op"] for r in table})
        self.assertNotIn("op in", self.bench("-p", "8", "-n", "0", "-r", "1"))


if __name__ == "__main__":
    test_cli.main()
