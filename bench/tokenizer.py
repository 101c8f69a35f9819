#!/usr/bin/env python3
"""Bytes of text a second that tokenizers encode, on one thread, by its own CPU time.

    bench/tokenizer.py [--lib build/libmoeflux.so] [--runs 3] NAME=FOLDER ...

Where Python has Hugging Face's tokenizers, they take turns, too, and get the same text in parts of some
kilobytes cut at line ends, or at spaces (given 8 MB at once they take far longer), of which they get the first megabyte.

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


def parts_of(text, size=8192):
    """Parts of about that size, cut in front of a space or behind a newline."""
    text, parts, at = text.decode(), [], 0
    while at < len(text):
        end = min(at + size, len(text))
        if end < len(text):
            end = max(text.rfind("\n", at, end) + 1, text.rfind(" ", at, end))
            end = end if end > at else min(at + size, len(text))
        parts.append(text[at:end])
        at = end
    return parts


class HuggingFace:
    def __init__(self, folder):
        os.environ["RAYON_NUM_THREADS"] = "1"
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        import tokenizers # pylint: disable=import-outside-toplevel
        self.tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))

    def encode(self, parts):
        t0 = time.thread_time()
        n = sum(len(self.tokenizer.encode(part, add_special_tokens=False).ids) for part in parts)
        return time.thread_time() - t0, n


def hugging_face(folder):
    try:
        return HuggingFace(folder)
    except ImportError:
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchlib.add_arguments(parser, "tokenizer.json")
    parser.add_argument("--lib", default=os.path.join(benchlib.TOP, "build", "libmoeflux.so"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("tokenizers", nargs="+")
    args = parser.parse_args()
    library = Library(args.lib)
    paths = dict(t.split("=", 1) for t in args.tokenizers)
    opened = {name: library.open(path) for name, path in paths.items()}
    theirs = {name: hugging_face(path) for name, path in paths.items()}
    texts = {"english": english(), "syllables": syllables(), "one word": one_word()}
    copy = ctypes.create_string_buffer(TEXT_BYTES)
    rows = {name: {kind: {"cpu_s": []} for kind in texts} for name in
            ["copy"] + list(opened) + [f"{name} (Hugging Face)" for name in theirs if theirs[name]]}
    for _ in range(args.runs):
        for kind, text in texts.items():
            t0 = time.thread_time()
            ctypes.memmove(copy, text, len(text))
            rows["copy"][kind]["cpu_s"].append(round(time.thread_time() - t0, 6))
            for name, tokenizer in opened.items():
                took, n = library.encode(tokenizer, text)
                rows[name][kind]["cpu_s"].append(round(took, 6))
                rows[name][kind]["tokens"] = n
                if theirs[name]:
                    row = rows[f"{name} (Hugging Face)"][kind]
                    part = text[:1 << 20] # it is slower; the speed is what counts
                    took, n = theirs[name].encode(parts_of(part))
                    row["cpu_s"].append(round(took, 6))
                    row["tokens"], row["bytes"] = n, len(part)
    for name, kinds in rows.items():
        for kind, row in kinds.items():
            row.setdefault("bytes", len(texts[kind]))
            row["mb_per_second"] = round(row["bytes"] / statistics.median(row["cpu_s"]) / 1e6, 1)
            print(f"{name:28} {kind:10} {row['mb_per_second']:10.1f} MB/s")
    benchlib.record(args, "text encoded a second, one thread", "CPU time of the thread, by turns with a copy of the text",
                    load_average=[round(x, 1) for x in os.getloadavg()], runs=args.runs, results=rows)


main()
