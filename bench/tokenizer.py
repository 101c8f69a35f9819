#!/usr/bin/env python3
"""Bytes of text a second that tokenizers encode, on one thread, by its own CPU time.

    bench/tokenizer.py [--lib build/libmoeflux.so] [--runs 3] NAME=TOKENIZER ...

Three texts: English (this project's own documentation, over and over, so that words repeat as in any long
text, sentences more than that), words made of random syllables (few come twice, so that no word is
remembered), and one word of letters without a space. The tokenizers and a copy of the text (memmove, what
reading and writing it costs at least) take turns. CPU time is the thread's user and system time: other work
on the machine hardly adds to it, but shares caches and clock with it, so speeds are what this machine gave,
not the most it could give.
"""
import argparse
import ctypes
import glob
import os
import random
import statistics
import time

import benchlib

TEXT_BYTES = 8 << 20


def english():
    names = sorted(glob.glob(os.path.join(benchlib.TOP, "docs", "*.md"))) + [os.path.join(benchlib.TOP, "README.md")]
    text = b"\n".join(open(n, "rb").read() for n in names)
    return (text * (TEXT_BYTES // len(text) + 1))[:TEXT_BYTES].decode("utf-8", "ignore").encode()


def syllables():
    rng = random.Random(1)
    parts = [c + v + e for c in "bcdfghklmnprstvw" for v in "aeiou" for e in ("", "n", "r", "st", "l")]
    words, size = [], 0
    while size < TEXT_BYTES:
        word = "".join(rng.choice(parts) for _ in range(rng.randint(1, 4)))
        words.append(word)
        size += len(word) + 1
    return " ".join(words).encode()[:TEXT_BYTES]


def one_word():
    rng = random.Random(2)
    return bytes(rng.choice(b"etaoinshrdlu") for _ in range(TEXT_BYTES))


class Library:
    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        self.lib.mf_tokenizer_open.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        self.lib.mf_tokenizer_encode.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_bool,
                                                 ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        self.lib.mf_free.argtypes = [ctypes.c_void_p]

    def open(self, path):
        tokenizer = ctypes.c_void_p()
        if self.lib.mf_tokenizer_open(ctypes.byref(tokenizer), path.encode(), None):
            raise SystemExit(f"{path}: can't be opened")
        return tokenizer

    def encode(self, tokenizer, text):
        ids, n = ctypes.c_void_p(), ctypes.c_size_t()
        t0 = time.thread_time()
        status = self.lib.mf_tokenizer_encode(tokenizer, text, len(text), False, ctypes.byref(ids), ctypes.byref(n), None)
        took = time.thread_time() - t0
        if status:
            raise SystemExit("encoding failed")
        self.lib.mf_free(ids)
        return took, n.value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchlib.add_arguments(parser, "tokenizer.json")
    parser.add_argument("--lib", default=os.path.join(benchlib.TOP, "build", "libmoeflux.so"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("tokenizers", nargs="+")
    args = parser.parse_args()
    library = Library(args.lib)
    opened = {name: library.open(path) for name, path in (t.split("=", 1) for t in args.tokenizers)}
    texts = {"english": english(), "syllables": syllables(), "one word": one_word()}
    copy = ctypes.create_string_buffer(TEXT_BYTES)
    rows = {name: {kind: {"cpu_s": []} for kind in texts} for name in ["copy"] + list(opened)}
    for _ in range(args.runs):
        for kind, text in texts.items():
            t0 = time.thread_time()
            ctypes.memmove(copy, text, len(text))
            rows["copy"][kind]["cpu_s"].append(round(time.thread_time() - t0, 6))
            for name, tokenizer in opened.items():
                took, n = library.encode(tokenizer, text)
                rows[name][kind]["cpu_s"].append(round(took, 6))
                rows[name][kind]["tokens"] = n
    for name, kinds in rows.items():
        for kind, row in kinds.items():
            row["bytes"] = len(texts[kind])
            row["mb_per_second"] = round(row["bytes"] / statistics.median(row["cpu_s"]) / 1e6, 1)
            print(f"{name:12} {kind:10} {row['mb_per_second']:10.1f} MB/s")
    benchlib.record(args, "text encoded a second, one thread", "CPU time of the thread, by turns with a copy of the text",
                    load_average=[round(x, 1) for x in os.getloadavg()], runs=args.runs, results=rows)


main()
