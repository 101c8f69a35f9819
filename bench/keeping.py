#!/usr/bin/env python3
"""What writing a state to the prefix cache costs those who are answered meanwhile.

    bench/keeping.py MODEL [--bin build/moeflux] [--prompt 3000] [--runs 5]

Two sessions. One answers a stream while the other one's conversation, of so many words, is replaced by a new
one: its state has to be written first. In turns with and without --kv-dir: the longest gap between two tokens
of the stream from the moment the new conversation was asked for, until its first token, and the median gap. The new
conversation is short, so that without a folder hardly anything happens.
"""
import argparse
import json
import shutil
import tempfile
import threading
import time

import benchlib


class Server(benchlib.Server):
    def stream(self, prompt, max_tokens, times=None, enough=None):
        c = self.connect()
        c.request("POST", "/v1/completions", json.dumps({"prompt": prompt, "max_tokens": max_tokens, "temperature": 0,
                                                         "ignore_eos": True, "stream": True}))
        for line in c.getresponse():
            if times is not None and line.startswith(b'data: {"id'):
                times.append(time.monotonic())
            if enough and enough.is_set():
                break
        c.close()


def one(args, kept):
    folder = tempfile.mkdtemp(prefix="moeflux-kv-")
    server = Server(args, args.model, "-t", str(args.threads), "--parallel", "2", "-c", str(args.prompt + 2048),
                    *(("--kv-dir", folder) if kept else ()))
    try:
        long = [11 + i % 977 for i in range(args.prompt)]
        times, other, enough = [], [], threading.Event()
        thread = threading.Thread(target=server.stream, args=([7, 8, 9], args.prompt, times, enough))
        thread.start() # or the state would be written before, while nobody is answered
        server.stream(long, 1)
        asked = time.monotonic()
        server.stream([21, 22, 23], 1, other)
        time.sleep(0.5)
        enough.set()
        thread.join()
        gaps = [b - a for a, b in zip(times, times[1:]) if b >= asked and a <= other[0]]
        return {"kept": kept, "longest_gap_s": max(gaps), "median_gap_s": benchlib.summary(
            [b - a for a, b in zip(times, times[1:])])["median"], "other_first_s": other[0] - asked}
    finally:
        server.stop()
        shutil.rmtree(folder)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "keeping.json")
    ap.add_argument("model")
    ap.add_argument("--prompt", type=int, default=3000)
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--threads", type=int, default=2)
    args = ap.parse_args()
    runs = []
    for _ in range(args.runs):
        for kept in (False, True):
            runs.append({"busy_before": round(benchlib.busy(0.3), 2), **one(args, kept)})
            print(runs[-1])
    both = {name: benchlib.summary([r["longest_gap_s"] for r in runs if r["kept"] == kept])
            for name, kept in (("without", False), ("with", True))}
    print("longest gap between tokens:", both)
    benchlib.record(args, "gaps between one stream's tokens while another conversation's state is written",
                    __doc__.split("\n\n")[2].replace("\n", " "), model=benchlib.model_name(args.model), runs=runs,
                    longest_gap_s=both)


if __name__ == "__main__":
    main()
