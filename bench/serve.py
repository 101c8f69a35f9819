#!/usr/bin/env python3
"""What serving costs: time a token over HTTP beside `run`, and prompts that were evaluated before.

    bench/serve.py [MODEL] [--bin build/moeflux] [--tokens 256] [--prefix 2000] [--runs 7] [--memory 8G]

Greedy, warm page cache. Decoding: the same question to `run` and, streamed, to `serve`, in turns; the server's
own measure of decoding and what the client sees from the first token to the last (--tokens 0: left out). Prompt: so
many random tokens sent twice, the second time with 16 more: time to the first token against the first time's
(--prefix 0: left out). `run` begins with no expert cached and the server doesn't, so `overhead`, their quotient, is
told for the model that ships only, which has them all within a few tokens.
"""
import argparse
import json
import random
import time

import benchlib

QUESTION = "What is a lighthouse?"


def options(args):
    """The same for `run` and `serve`."""
    more = ["--memory", args.memory] if args.memory else []
    return ["-t", str(args.threads), "-c", str(max(4096, args.prefix + 64)), *more]


class Server(benchlib.Server):
    def stream(self, path, max_tokens, **prompt):
        """(seconds to the first token, from it to the last, the last chunk)"""
        c = self.connect()
        begin = time.monotonic()
        c.request("POST", path, json.dumps({
            **prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True}}))
        r = c.getresponse()
        first = last = chunk = None
        for line in r:
            if line.startswith(b'data: {"id'):
                now = time.monotonic()
                if b'"content":"' in line or b'"text":"' in line:
                    first, last = first or now, now
                chunk = line
        c.close()
        return first - begin, last - first, json.loads(chunk[6:])

    def between(self, n):
        """Of the time of the last n evaluations, what lay between them: sampling, text, events."""
        c = self.connect()
        c.request("GET", "/api/status?last=%d" % min(n, 128))
        told = json.loads(c.getresponse().read())["evaluations"]
        at = {name: i for i, name in enumerate(told["fields"])}
        between, wall = (sum(row[at[name]] for row in told["rows"]) for name in ("between_ns", "wall_ns"))
        return between / (between + wall)

    def n_vocab(self):
        c = self.connect()
        c.request("GET", "/v1/models")
        return json.loads(c.getresponse().read())["data"][0]["meta"]["n_vocab"]


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "serve.json")
    ap.add_argument("model", nargs="?", default=benchlib.SHIPPED)
    ap.add_argument("--tokens", type=int, default=256)
    ap.add_argument("--prefix", type=int, default=2000, help="tokens that are sent again")
    ap.add_argument("--memory")
    ap.add_argument("--runs", type=int, default=7)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--wait", type=float, default=5, help="seconds to wait for a quiet machine")
    args = ap.parse_args()
    server = Server(args, args.model, *options(args))
    ask = {"messages": [{"role": "user", "content": QUESTION}]}
    server.stream("/v1/chat/completions", 8, **ask)
    n_vocab = server.n_vocab()
    runs = []
    for i in range(args.runs):
        one = {"busy_before": benchlib.settle(args.wait)}
        if args.tokens:
            alone = benchlib.run_json([args.bin, "run", "-m", args.model, "-p", QUESTION, "--temp", "0", "--ignore-eos", "-n",
                                       str(args.tokens), "--json", "--no-progress", *options(args)])
            _, decode_s, last = server.stream("/v1/chat/completions", args.tokens, **ask)
            own = last["timings"]["predicted_ms"] / (args.tokens - 1)
            one.update(run_ms_per_token=1e3 / alone["timings"]["decode_per_second"], serve_ms_per_token=own,
                       client_ms_per_token=1e3 * decode_s / (args.tokens - 1))
            one["between_share"] = server.between(args.tokens - 1)
            if args.model == benchlib.SHIPPED and not args.memory:
                one["overhead"] = one["client_ms_per_token"] / one["run_ms_per_token"] - 1
        if args.prefix:
            draw = random.Random(i)
            ids = [draw.randrange(n_vocab) for _ in range(args.prefix + 16)]
            new_s, _, _ = server.stream("/v1/completions", 2, prompt=ids[:args.prefix])
            again_s, _, again = server.stream("/v1/completions", 2, prompt=ids)
            one.update(first_token_new_s=new_s, first_token_again_s=again_s, again_of_new=again_s / new_s,
                       cached_tokens=again["usage"]["prompt_tokens_details"]["cached_tokens"])
        runs.append(one)
    server.stop()
    for key in ("run_ms_per_token", "serve_ms_per_token", "client_ms_per_token", "overhead", "between_share", "again_of_new"):
        if key in runs[0]:
            print(key, benchlib.summary([r[key] for r in runs]))
    benchlib.record(args, "what serving costs a token, and what a prefix saves", __doc__.split("\n\n")[2].replace("\n", " "),
                    model=benchlib.model_name(args.model), runs=runs)


if __name__ == "__main__":
    main()
