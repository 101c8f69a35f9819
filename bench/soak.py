#!/usr/bin/env python3
"""Many clients with random requests for minutes: memory stays bounded, and answers stay right.

    bench/soak.py [MODEL] [--bin build/moeflux] [--minutes 10] [--clients 12] [--seed N]

A server with four sessions, a prefix cache on disk and a small queue; clients that ask in all protocols, streaming or
not, with tools, schemas, stop strings and log-probabilities, leave in the middle, send half a request, garbage, bodies
that are too long, and hold idle connections. Every second the server's resident memory is sampled. Fails if it ends, says
5xx other than 503, answers the same greedy question differently, still has requests or bodies at the end, or if its
memory grew: the highest of the last third of the time against the highest of the second third, by more than 5 % and 8 MiB.
"""
import argparse
import http.client
import json
import os
import random
import re
import shutil
import socket
import tempfile
import threading
import time

import benchlib

WORDS = "lighthouse lamp sea bird tree house river drum flute stone horse bread cloud winter ladder".split()
SCHEMA = {"type": "object", "properties": {"kind": {"enum": ["noun", "verb"]}, "ok": {"type": "boolean"}},
          "required": ["kind", "ok"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}]


class Soak:
    def __init__(self, args):
        self.args = args
        self.kv = tempfile.mkdtemp(prefix="moeflux-kv-")
        self.server = benchlib.Server(
            args, args.model, "-t", "2", "-c", "1024", "--parallel", "4", "--queue", "6", "--max-connections", "64",
            "--max-body", "256K", "--request-timeout", "3", "--idle-timeout", "5", "--write-timeout", "3",
            "--kv-dir", self.kv, "--kv-disk", "24M", env=dict(os.environ, XDG_CACHE_HOME=self.kv))
        self.faults = []
        self.lock = threading.Lock()
        self.counts, self.answers = {}, {}
        self.stop = threading.Event()

    def note(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def fault(self, text):
        with self.lock:
            self.faults.append(text)

    # ---- what clients do ----

    def body(self, r):
        ask = [{"role": "user", "content": "What is a %s? " % r.choice(WORDS) * r.choice((1, 1, 1, 8, 30))}]
        body = {"messages": ask, "max_tokens": r.randrange(1, 60), "temperature": r.choice((0, 0.7, 1.5)),
                "seed": r.randrange(1000)}
        more = r.randrange(6)
        if more == 0:
            body.update(tools=TOOLS, tool_choice="required")
        elif more == 1:
            body["response_format"] = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
        elif more == 2:
            body.update(logprobs=True, top_logprobs=r.randrange(20), n=r.randrange(1, 4))
        elif more == 3:
            body["stop"] = [" a ", "\n"]
        return body

    def path_and_body(self, r):
        body = self.body(r)
        kind = r.randrange(5)
        if kind == 0:
            return "/v1/completions", {"prompt": "A %s is" % r.choice(WORDS), "max_tokens": 20, "echo": bool(r.randrange(2)),
                                       "logprobs": r.randrange(5), "seed": 1}
        if kind == 1:
            return "/v1/messages", {k: body[k] for k in ("messages", "max_tokens", "temperature")}
        if kind == 2:
            return "/v1/responses", {"input": body["messages"][0]["content"], "max_output_tokens": body["max_tokens"]}
        return "/v1/chat/completions", body

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=60)

    def whole(self, r):
        path, body = self.path_and_body(r)
        body["stream"] = bool(r.randrange(2))
        c = self.server.connect(120)
        try:
            c.request("POST", path, json.dumps(body))
            reply = c.getresponse()
            data = reply.read()
        finally:
            c.close()
        self.note("status %d" % reply.status)
        if reply.status >= 400 and reply.status not in (429, 503, 529):
            self.fault("%d to %s %s: %r" % (reply.status, path, json.dumps(body), data[:300]))

    def same(self, r):
        word = r.choice(WORDS[:4])
        c = self.server.connect(120)
        try:
            c.request("POST", "/v1/chat/completions", json.dumps(
                {"messages": [{"role": "user", "content": "What is a %s?" % word}], "temperature": 0, "max_tokens": 20}))
            reply = c.getresponse()
            data = reply.read()
        finally:
            c.close()
        if reply.status == 200:
            text = json.loads(data)["choices"][0]["message"]["content"]
            with self.lock:
                first = self.answers.setdefault(word, text)
            if first != text:
                self.fault("%r, and before: %r" % (text, first))
            self.note("same")

    def leave(self, r):
        path, body = self.path_and_body(r)
        body.update(stream=bool(r.randrange(4)))
        text = json.dumps(body).encode()
        with self.connect() as s:
            s.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(text)) + text)
            time.sleep(r.random() * 0.3)
            if r.randrange(2):
                s.recv(100)
        self.note("left")

    def bad(self, r):
        kind = r.randrange(6)
        with self.connect() as s:
            if kind == 0:
                s.sendall(bytes(r.randrange(256) for _ in range(r.randrange(2000))))
            elif kind == 1:
                s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n{" + b" " * 90000)
                time.sleep(r.random())
            elif kind == 2:
                s.sendall(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n")
            elif kind == 3:
                s.sendall(b"GET /health HTTP/1.1\r\nHos")
                time.sleep(r.random())
            elif kind == 4:
                text = b'{"messages":[{"role":"user","content":[' + b"0," * 5000 + b"1]}]}"
                s.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
            else:
                time.sleep(2 * r.random()) # idle
            s.settimeout(0.2)
            try:
                s.recv(1000)
            except OSError:
                pass
        self.note("bad")

    def look(self, r):
        c = self.server.connect(60)
        try:
            c.request("GET", r.choice(("/", "/metrics", "/api/status", "/api/experts", "/api/cache", "/v1/models")))
            if c.getresponse().status != 200:
                self.fault("a GET was refused")
        finally:
            c.close()
        self.note("looked")

    def client(self, number):
        r = random.Random(self.args.seed * 1000 + number)
        while not self.stop.is_set():
            try:
                r.choice((self.whole, self.whole, self.whole, self.same, self.leave, self.leave, self.bad, self.look))(r)
            except OSError:
                self.note("connection refused or cut")
            except http.client.HTTPException:
                self.note("turned away")

    # ---- the watch ----

    def rss(self):
        with open("/proc/%d/status" % self.server.process.pid, encoding="utf-8") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) << 10

    def metric(self, name):
        c = self.server.connect(60)
        c.request("GET", "/metrics")
        text = c.getresponse().read().decode()
        c.close()
        return float(re.search(r"^moeflux_%s (\S+)$" % name, text, re.M).group(1))

    def run(self):
        threads = [threading.Thread(target=self.client, args=(i,)) for i in range(self.args.clients)]
        samples, end = [], time.monotonic() + 60 * self.args.minutes
        for t in threads:
            t.start()
        while time.monotonic() < end and self.server.process.poll() is None and not self.faults:
            samples.append(self.rss())
            time.sleep(1)
        self.stop.set()
        for t in threads:
            t.join()
        return samples

    def end(self):
        for _ in range(100):
            left = [self.metric(n) for n in ("num_requests_running", "num_requests_waiting", "http_body_bytes")]
            if not any(left):
                break
            time.sleep(0.1)
        if any(left):
            self.fault("requests running, waiting and bytes of bodies at the end: %s" % left)
        passes = self.metric("iterations_total")
        code = self.server.stop(60)
        if code != 0 or any("Sanitizer" in line for line in self.server.log):
            self.fault("exit code %d: %s" % (code, "".join(self.server.log)[-3000:]))
        kept = sum(os.path.getsize(os.path.join(self.kv, f)) for f in os.listdir(self.kv) if f.endswith(".mfx"))
        shutil.rmtree(self.kv)
        if kept > 24 << 20:
            self.fault("the prefix cache has %d bytes" % kept)
        return passes, kept


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    benchlib.add_arguments(ap, "soak.json")
    ap.add_argument("model", nargs="?", default=benchlib.SHIPPED)
    ap.add_argument("--minutes", type=float, default=10)
    ap.add_argument("--clients", type=int, default=12)
    ap.add_argument("--seed", type=int, default=int(time.time()) % 100000)
    ap.add_argument("--sanitized", action="store_true", help="a build with a sanitizer: memory isn't judged, nothing is recorded")
    args = ap.parse_args()
    print("seed", args.seed)
    soak = Soak(args)
    samples = soak.run()
    passes, kept = soak.end() if soak.server.process.poll() is None else (0, 0)
    if soak.server.process.returncode != 0:
        soak.fault("the server ended: " + "".join(soak.server.log)[-3000:])
    third = len(samples) // 3
    middle, last = max(samples[third:2 * third], default=0), max(samples[2 * third:], default=0)
    print("counts", soak.counts, "passes", passes, "MiB", [round(x / 2**20, 1) for x in (samples[0], middle, last)])
    if not args.sanitized and last > middle * 1.05 + (8 << 20):
        soak.fault("memory grew from %d to %d bytes" % (middle, last))
    for text in soak.faults:
        print("FAULT", text)
    if not soak.faults and not args.sanitized:
        benchlib.record(args, "many clients for minutes", "as bench/soak.py's head says; %g minutes, %d clients, seed %d"
                        % (args.minutes, args.clients, args.seed), counts=soak.counts, passes=passes, kept_bytes=kept,
                        rss_bytes={"first": samples[0], "most_of_second_third": middle, "most_of_last_third": last,
                                   "every_tenth_second": samples[::10]})
    raise SystemExit(bool(soak.faults))


if __name__ == "__main__":
    main()
