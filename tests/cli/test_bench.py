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
        self.assertEqual((r["isa"], r["activations"]), ("c", "q16"))

    def test_table_and_csv(self):
        lines = self.bench("-p", "8", "-n", "2", "-r", "1").splitlines()
        self.assertEqual(len(lines), 4)
        self.assertEqual([line.split("|")[5].strip() for line in lines[2:]], ["pp8", "tg2"])
        table = list(csv.DictReader(io.StringIO(self.bench("-p", "8", "-n", "2", "-r", "1", "-o", "csv"))))
        self.assertEqual([(r["n_prompt"], r["n_gen"]) for r in table], [("8", "0"), ("0", "2")])
        self.assertTrue(all(float(r["avg_ts"]) > 0 for r in table))


if __name__ == "__main__":
    test_cli.main()
