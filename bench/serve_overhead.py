#!/usr/bin/env python3
"""What the server adds to a token: beside `run`, by kind of request, alone and for eight streams.

    bench/serve_overhead.py MODEL [--bin build/moeflux] [--tokens 96] [--runs 3] [--streams 8]

A round is one `run` and one `serve` in turns, --streaming off, greedy, the same prompt of --prompt tokens' worth of
words, so that both evaluate the same tokens. Told of each: an evaluation (wall), what lies between two of them on the
engine's thread (between: sampling, text, events; medians over the answer, of --stats and of /api/status), and of the server
the processor time of the thread that writes to sockets (loop) and of a client that does nothing but receive (client).
`added` is between, less that of `run`, and all of loop; its share is of an evaluation and what lies before it; what drawing, masks
and log-probabilities cost the library is in it.
"""
import argparse
import json
import os
import resource
import selectors
import socket
import statistics
import tempfile
import time

import benchlib

SCHEMA = {"type": "object", "properties": {"words": {"type": "array", "minItems": 60, "items": {
    "type": "object", "properties": {"text": {"type": "string", "minLength": 12}, "kind": {"enum": ["noun", "verb"]},
                                     "count": {"type": "integer"}},
    "required": ["text", "kind", "count"], "additionalProperties": False}}}, "required": ["words"],
    "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": name, "description": "Does it.", "parameters": SCHEMA}}
         for name in ("look_up", "store", "send")]
CHAT, TEXT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
CASES = [("completions", TEXT, 1, {}),
         ("chat", CHAT, 1, {}),
         ("responses", RESPONSES, 1, {}),
         ("messages", MESSAGES, 1, {}),
         ("sampled", CHAT, 1, {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "seed": 1}),
         ("stop", CHAT, 1, {"stop": ["never this", "nor that", "\n\n\n\n", "</end>"]}),
         ("logprobs", CHAT, 1, {"logprobs": True, "top_logprobs": 5}),
         ("logprobs 20", CHAT, 1, {"logprobs": True, "top_logprobs": 20}),
         ("tools", CHAT, 1, {"tools": TOOLS}),
         ("schema", CHAT, 1, {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}),
         ("a call", CHAT, 1, {"tools": TOOLS, "tool_choice": "required"}),
         ("chat", CHAT, 0, {}), # as many streams as asked for
         ("logprobs", CHAT, 0, {"logprobs": True, "top_logprobs": 5})]


def median(values):
    return round(statistics.median(values), 4)


def words(n, seed):
    """Text of about n tokens: a made-up model has nearly only pairs of letters in its vocabulary."""
    return " ".join("%c%c" % (97 + (i * 7 + seed) % 26, 97 + (i * 11 + seed) % 26) for i in range(n // 2))


def run(args):
    """`run`: (ms an evaluation, ms between two), medians over the answer."""
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as f:
        benchlib.run_json([args.bin, "run", "-m", args.model, "-p", words(args.prompt, 0), "--raw", "--temp", "0",
                           "--ignore-eos", "-n", str(args.tokens), "--json", "--no-progress", "--stats", f.name, *options(args)])
        lines = [json.loads(line) for line in f][1:]
    rows = [x for x in lines if x["tokens"] == 1][1:]
    return {"wall_ms": median([x["wall_ns"] / 1e6 for x in rows]),
            "between_ms": median([x["between_ns"] / 1e6 for x in rows])}


def options(args):
    return ["-t", str(args.threads), "-c", str(2 * (args.prompt + args.tokens) + 1024), "--streaming", "off",
            *(["--memory", args.memory] if args.memory else [])]


class Server(benchlib.Server):
    def ask(self, path, body):
        s = socket.create_connection(("127.0.0.1", self.port))
        text = json.dumps(body).encode()
        s.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                  % (path.encode(), len(text), text))
        return s

    def status(self, n):
        c = self.connect()
        c.request("GET", "/api/status?last=%d" % n)
        told = json.loads(c.getresponse().read())["evaluations"]
        return [dict(zip(told["fields"], row)) for row in told["rows"]]

    def thread_ns(self):
        """Processor time of the engine's thread, of the loop, and of the desk and the curves; they begin in this
        order, those that compute and read between the second and the last two."""
        folder = "/proc/%d/task" % self.process.pid
        times = []
        for tid in sorted(map(int, os.listdir(folder))):
            with open("%s/%d/schedstat" % (folder, tid), encoding="ascii") as f:
                times.append(int(f.read().split()[0]))
        return {"engine": times[0], "loop": times[1], "desk": times[-2] + times[-1]}


def body_of(args, path, stream, more):
    text = words(args.prompt, stream)
    body = {"stream": True, "temperature": 0, "ignore_eos": True}
    if path == TEXT:
        body.update(prompt=text, max_tokens=args.tokens)
    elif path == RESPONSES:
        body.update(input=text, max_output_tokens=args.tokens)
    else:
        body.update(messages=[{"role": "user", "content": text}], max_tokens=args.tokens)
    return dict(body, **more)


def receive(sockets):
    """Reads all streams to their ends: (when each began and ended to come, their bytes)."""
    sel = selectors.DefaultSelector()
    for s in sockets:
        sel.register(s, selectors.EVENT_READ, [])
    came = []
    while sel.get_map():
        for key, _ in sel.select():
            data = key.fileobj.recv(1 << 20)
            if data:
                key.data.append((time.monotonic(), data))
            else:
                came.append(key.data)
                sel.unregister(key.fileobj)
                key.fileobj.close()
    return came


def case(args, server, name, path, n, more):
    """One answer, or several together."""
    bodies = [body_of(args, path, i, more) for i in range(n)]
    evaluated = max((r["number"] for r in server.status(1)), default=-1)
    before, own = server.thread_ns(), resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    came = receive([server.ask(path, body) for body in bodies])
    after, own_after = server.thread_ns(), resource.getrusage(resource.RUSAGE_SELF)
    seconds = time.monotonic() - began
    for stream in came:
        text = b"".join(data for _, data in stream)
        if b"200 OK" not in text[:40]:
            raise SystemExit(f"{name}: {text[:600]!r}")
    rows = [r for r in server.status(128) if r["number"] > evaluated and r["tokens"] == r["sequences"] == n][2:]
    if len(rows) < 8:
        raise SystemExit(f"{name}: {len(rows)} evaluations of {n} only: the answer ended early")
    n_passes = args.tokens
    client = (own_after.ru_utime + own_after.ru_stime - own.ru_utime - own.ru_stime) * 1e3
    return {"case": name, "streams": n, "passes_seen": len(rows), "seconds": round(seconds, 3),
            "wall_ms": median([r["wall_ns"] / 1e6 for r in rows]),
            "between_ms": median([r["between_ns"] / 1e6 for r in rows]),
            "between_mean_ms": round(statistics.mean(r["between_ns"] / 1e6 for r in rows), 4),
            "loop_ms": round((after["loop"] - before["loop"]) / 1e6 / n_passes, 4),
            "desk_ms": round((after["desk"] - before["desk"]) / 1e6 / n_passes, 4),
            "client_ms": round(client / n_passes, 4)}


def told(rounds):
    """A line for each case: medians over the rounds."""
    base = {key: median([r["run"][key] for r in rounds]) for key in ("wall_ms", "between_ms")}
    print("run: %.2f ms an evaluation, %.3f between" % (base["wall_ms"], base["between_ms"]))
    table = []
    for i, first in enumerate(rounds[0]["serve"]):
        m = {key: median([r["serve"][i][key] for r in rounds])
             for key in ("wall_ms", "between_ms", "between_mean_ms", "loop_ms", "client_ms")}
        token = m["wall_ms"] + m["between_ms"]
        added = median([r["serve"][i]["between_ms"] - r["run"]["between_ms"] + r["serve"][i]["loop_ms"] for r in rounds])
        m.update(case=first["case"], streams=first["streams"], added_ms=added, added_share=round(added / token, 5),
                 between_share=round(m["between_ms"] / token, 5))
        table.append(m)
        print("%-12s %d: wall %.2f between %.3f (mean %.3f) loop %.3f client %.3f; added %.3f ms, %.2f %%"
              % (m["case"], m["streams"], m["wall_ms"], m["between_ms"], m["between_mean_ms"], m["loop_ms"], m["client_ms"],
                 added, 100 * m["added_share"]))
    return {"run": base, "serve": table}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "serve-overhead.json")
    ap.add_argument("model")
    ap.add_argument("--tokens", type=int, default=96, help="at most 120: what /api/status remembers")
    ap.add_argument("--prompt", type=int, default=32)
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--streams", type=int, default=8)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--memory")
    ap.add_argument("--only", action="append", help="a case's name; may be repeated")
    ap.add_argument("--add", action="store_true", help="keep what the result file has of other models")
    args = ap.parse_args()
    rounds = []
    for _ in range(args.runs):
        one = {"busy_before": round(benchlib.busy(0.3), 2), "run": run(args), "serve": []}
        server = Server(args, args.model, "--parallel", str(args.streams), *options(args))
        try:
            case(args, server, "warm", CHAT, 1, {})
            for name, path, n, more in CASES:
                if not args.only or name in args.only:
                    one["serve"].append(case(args, server, name, path, n or args.streams, more))
        finally:
            server.stop()
        rounds.append(one)
    models = {}
    if args.add and os.path.exists(args.result):
        with open(args.result, encoding="utf-8") as f:
            models = json.load(f)["models"]
    models[benchlib.model_name(args.model)] = {**told(rounds), "rounds": rounds}
    benchlib.record(args, "what the server adds to a token", __doc__.strip().split("\n\n")[-1].replace("\n", " "),
                    models=models)


if __name__ == "__main__":
    main()
