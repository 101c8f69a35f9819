#!/usr/bin/env python3
"""What serving costs: time a token over HTTP beside `run`, and prompts that were evaluated before.

    bench/serve.py [MODEL] [--bin build/moeflux] [--tokens 256] [--prefix 2000] [--runs 7]

Greedy, warm page cache. Decoding: the same question to `run` and, streamed, to `serve`, in turns; the server's
own measure of decoding and what the client sees from the first token to the last. Prompt: a conversation
sent twice, the second time with a new question at its end: time to the first token against the first time's.
"""
import argparse
import json
import time

import benchlib

QUESTION = "What is a lighthouse?"


class Server(benchlib.Server):
    def stream(self, messages, max_tokens):
        """(seconds to the first token, from it to the last, the last chunk)"""
        c = self.connect()
        begin = time.monotonic()
        c.request("POST", "/v1/chat/completions", json.dumps({
            "messages": messages, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True}}))
        r = c.getresponse()
        first = last = chunk = None
        for line in r:
            if line.startswith(b'data: {"id'):
                now = time.monotonic()
                if b'"content":"' in line:
                    first, last = first or now, now
                chunk = line
        c.close()
        return first - begin, last - first, json.loads(chunk[6:])


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "serve.json")
    ap.add_argument("model", nargs="?", default=benchlib.SHIPPED)
    ap.add_argument("--tokens", type=int, default=256)
    ap.add_argument("--prefix", type=int, default=2000, help="words of the conversation that is sent again")
    ap.add_argument("--runs", type=int, default=7)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--wait", type=float, default=5, help="seconds to wait for a quiet machine")
    args = ap.parse_args()
    server = Server(args, args.model, "-t", str(args.threads), "-c", "4096")
    ask = [{"role": "user", "content": QUESTION}]
    server.stream(ask, 8)
    runs = []
    for i in range(args.runs):
        busy = benchlib.settle(args.wait)
        alone = benchlib.run_json([args.bin, "run", "-m", args.model, "-p", QUESTION, "--temp", "0", "--ignore-eos", "-n",
                                   str(args.tokens), "-t", str(args.threads), "-c", "4096", "--json", "--no-progress"])
        _, decode_s, last = server.stream(ask, args.tokens)
        long = [{"role": "user", "content": "%d " % i + "word " * args.prefix}]
        new_s, _, _ = server.stream(long, 2)
        again_s, _, again = server.stream(long + [{"role": "assistant", "content": "Yes."}] + ask, 2)
        own = last["timings"]["predicted_ms"] / (args.tokens - 1)
        runs.append({"run_ms_per_token": 1e3 / alone["timings"]["decode_per_second"],
                     "serve_ms_per_token": own, "client_ms_per_token": 1e3 * decode_s / (args.tokens - 1),
                     "first_token_new_s": new_s, "first_token_again_s": again_s,
                     "cached_tokens": again["usage"]["prompt_tokens_details"]["cached_tokens"], "busy_before": busy})
        runs[-1]["overhead"] = runs[-1]["client_ms_per_token"] / runs[-1]["run_ms_per_token"] - 1
        runs[-1]["again_of_new"] = again_s / new_s
    server.stop()
    for key in ("run_ms_per_token", "serve_ms_per_token", "client_ms_per_token", "overhead", "again_of_new"):
        print(key, benchlib.summary([r[key] for r in runs]))
    benchlib.record(args, "what serving costs a token, and what a prefix saves", __doc__.split("\n\n")[2].replace("\n", " "),
                    model=benchlib.model_name(args.model), runs=runs)


if __name__ == "__main__":
    main()
