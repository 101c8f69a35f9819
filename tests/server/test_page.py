"""The page at / and what it shows, as far as it takes no browser (browse.py has one): headers, who may ask,
and the numbers of /api/... against /metrics and against what was asked.

  test_page.py [-v] [Page]
"""
import base64
import hashlib
import json
import os
import re
import tempfile
import threading

import serving
from serving import Case, Server, SOURCE, tight_budget

QUESTION = {"messages": [{"role": "user", "content": "What is a lighthouse?"}], "temperature": 0}
PATHS = ("/api/status", "/api/experts", "/api/cache")


def evaluations(status):
    fields = status["evaluations"]["fields"]
    return [dict(zip(fields, row)) for row in status["evaluations"]["rows"]]


class Page(Case):
    @classmethod
    def setUpClass(cls):
        options = tight_budget("--parallel", "2")
        cls.budget_bytes = int(options[1][:-1]) << 20
        cls.server = Server(*options).wait_ready()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def api(self, path):
        return json.loads(self.server.get(path))

    # ---- the page ----

    def test_one_file_and_its_policy(self):
        status, headers, body = self.server.request("GET", "/")
        with open(os.path.join(SOURCE, "server", "page.html"), "rb") as f:
            self.assertEqual(body, f.read())
        self.assertEqual((status, headers["content-type"]), (200, "text/html; charset=utf-8"))
        policy = dict(x.strip().split(" ", 1) for x in headers["content-security-policy"].split(";"))
        for name in ("script", "style"):
            inside = re.search(b"<%s>(.*)</%s>" % (name.encode(), name.encode()), body, re.S).group(1)
            digest = base64.b64encode(hashlib.sha256(inside).digest()).decode()
            self.assertEqual(policy.pop(name + "-src"), "'sha256-%s'" % digest)
        self.assertEqual(policy, {"default-src": "'none'", "connect-src": "'self'", "img-src": "data:",
                                  "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"})
        self.assertEqual(headers["x-content-type-options"], "nosniff")
        self.assertEqual(headers["x-frame-options"], "DENY")
        self.assertEqual(headers["referrer-policy"], "no-referrer")
        self.assertEqual(headers["cache-control"], "no-cache")

    def test_nothing_from_outside_and_nothing_inline(self):
        text = self.server.get("/").decode()
        self.assertEqual(set(re.findall(r"https?://[^'\"\s)]+", text)), {"http://www.w3.org/2000/svg"})
        markup = re.sub(r"<(script|style)>.*?</\1>", "", text, flags=re.S)
        self.assertNotRegex(markup, r"\son[a-z]+\s*=|\sstyle\s*=|javascript:|<(iframe|object|embed|base)\b")
        self.assertNotRegex(markup, r"\ssrc\s*=")
        self.assertEqual(re.findall(r'href="([^"]*)"', markup), ["data:,", "#say"])
        self.assertNotRegex(text, r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function")
        ids = re.findall(r'\sid="([^"]+)"', markup)
        self.assertEqual(len(ids), len(set(ids)))
        for name in re.findall(r"\$\('([a-z-]+)'\)", text):
            self.assertIn(name, ids)

    def test_etag(self):
        _, headers, body = self.server.request("GET", "/")
        etag = headers["etag"]
        self.assertRegex(etag, r'^"[0-9a-f]{32}"$')
        for known in (etag, "W/" + etag, '"other", ' + etag, "*"):
            status, again, nothing = self.server.request("GET", "/", headers={"If-None-Match": known})
            self.assertEqual((status, nothing), (304, b""), known)
            self.assertEqual(again["etag"], etag)
            self.assertIn("content-security-policy", again)
            self.assertNotIn("content-length", again)
        for other in ('"other"', etag[:-2] + '"', etag.strip('"'), ""):
            status, _, again = self.server.request("GET", "/", headers={"If-None-Match": other})
            self.assertEqual((status, again), (200, body), other)
        # An answer without a body leaves the connection where it is.
        get = b"GET / HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\n%s\r\n"
        got = self.server.raw(get % b"" + get % b"Connection: close\r\n")
        self.assertEqual(got.count(b"HTTP/1.1 304 Not Modified\r\n"), 2)
        self.assertTrue(got.endswith(b"\r\n\r\n"))

    def test_methods(self):
        status, headers, body = self.server.request("HEAD", "/")
        self.assertEqual((status, body), (200, b""))
        self.assertEqual(int(headers["content-length"]), len(self.server.get("/")))
        for path in ("/",) + PATHS:
            self.server.post(path, {}, status=405)
        for path in ("/api", "/api/", "/api/status/", "/page.html", "/index.html"):
            self.server.get(path, status=404)

    def test_who_may_ask(self):
        for path in ("/",) + PATHS:
            self.server.get(path, status=403, headers={"Origin": "http://evil.example"})
            self.server.get(path, status=403, headers={"Host": "evil.example"})
            self.server.get(path, headers={"Origin": "http://127.0.0.1:%d" % self.server.port})

    def test_key(self):
        with tempfile.NamedTemporaryFile("w") as keys:
            keys.write("sesame\n")
            keys.flush()
            with Server("--api-key-file", keys.name) as server:
                server.get("/")
                for path in PATHS:
                    server.get(path, status=401)
                    server.get(path, status=401, headers={"Authorization": "Bearer sesam"})
                    server.get(path, headers={"Authorization": "Bearer sesame"})

    # ---- what it shows ----

    def test_malformed_queries(self):
        for query in ("last", "last=", "last=x", "last=-1", "last=129", "last=1x", "last=99999999999999999999",
                      "last=1&last=2", "first=1", "&", "last=%31", "LAST=1"):
            status, _, data = self.server.request("GET", "/api/status?" + query)
            self.assertEqual(status, 400, query)
            self.assertEqual(json.loads(data)["error"]["param"], "last")
        for query in ("", "last=0", "last=7", "last=128"):
            self.server.get("/api/status?" + query)

    def ask(self, **more):
        """Returns when the answer's session is free again, too."""
        answer = self.server.post("/v1/chat/completions", dict(QUESTION, **more))
        self.server.until(lambda: all(x["state"] == "idle" for x in self.api("/api/status?last=0")["sessions"]))
        return answer

    def test_status_and_metrics(self):
        before = self.api("/api/status?last=0")
        answer = self.ask()
        s = self.api("/api/status?last=128")
        metrics = self.server.metric
        usage = answer["usage"]
        self.assertTrue(s["evaluations"]["rows"])
        self.assertEqual(self.api("/api/status?last=0")["evaluations"]["rows"], [])
        self.assertEqual(s["state"], "ready")
        self.assertEqual(s["model"]["name"], "pocket-dictionary")
        self.assertEqual([s["model"][x] for x in ("layers", "experts", "top_k", "ctx")], [8, 32, 4, 1024])
        self.assertEqual(s["memory"]["budget_bytes"], self.budget_bytes)
        self.assertEqual(s["memory"]["slots_bytes"], s["cache"]["slots"] * s["cache"]["slot_bytes"])
        self.assertEqual(s["cache"]["experts_total"], 256)
        for name, value in [("memory_budget_bytes", s["memory"]["budget_bytes"]),
                            ("memory_peak_bytes", s["memory"]["peak_bytes"]),
                            ('expert_requests_total{result="hit"}', s["cache"]["hits"]),
                            ('expert_requests_total{result="miss"}', s["cache"]["misses"]),
                            ("expert_evictions_total", s["cache"]["evictions"]),
                            ("expert_bytes_read_total", s["drive"]["bytes_read"]),
                            ("generation_tokens_total", s["tokens"]["generated"]),
                            ("prompt_tokens_total", s["tokens"]["prompt"]),
                            ("iteration_tokens_total", s["tokens"]["evaluated"]),
                            ("prefix_cache_queries_total", s["prefix"]["queried_tokens"]),
                            ("prefix_cache_hits_total", s["prefix"]["cached_tokens"]),
                            ("num_requests_running", s["requests"]["running"]),
                            ("num_requests_waiting", s["requests"]["waiting"])]:
            self.assertEqual(metrics(name), value, name)
        self.assertEqual(s["requests"]["finished"] - before["requests"]["finished"], 1)
        self.assertEqual(s["tokens"]["generated"] - before["tokens"]["generated"], usage["completion_tokens"])
        self.assertEqual(s["prefix"]["queried_tokens"] - before["prefix"]["queried_tokens"], usage["prompt_tokens"])
        # The answer's session has its tokens, but for the last one, which was never evaluated.
        used = usage["prompt_tokens"] + usage["completion_tokens"]
        self.assertTrue(any(used - 1 <= x["used_tokens"] <= used for x in s["sessions"]), (used, s["sessions"]))
        self.assertEqual(len(s["sessions"]), 2)
        self.assertEqual({x["state"] for x in s["sessions"]}, {"idle"})
        self.assertEqual(s["kv"]["tokens"], 2 * 1024)
        self.assertEqual(s["kv"]["used_tokens"], sum(x["used_tokens"] for x in s["sessions"]))

    def test_rates(self):
        """Of the last ten seconds: more is evaluated than generated while the prompt is among it."""
        words = iter(range(1 << 20))

        def told():
            content = "%d lamps and a lighthouse: what are they?" % next(words) # no prompt is cached
            self.ask(messages=[{"role": "user", "content": content}], max_tokens=3, ignore_eos=True)
            s = self.api("/api/status?last=0")
            tokens, drive = s["tokens"], s["drive"]
            return (0 < tokens["generated_per_second"] < tokens["evaluated_per_second"]
                    and 0 < drive["reading"] <= 1 and drive["bytes_per_second"] > 0)
        self.server.until(told)

    def test_evaluations(self):
        before = self.api("/api/status?last=1")
        from_number = evaluations(before)[-1]["number"] + 1 if before["evaluations"]["rows"] else 0
        answer = self.ask(max_tokens=12, ignore_eos=True)
        s = self.api("/api/status?last=128")
        rows = [e for e in evaluations(s) if e["number"] >= from_number]
        self.assertEqual([e["number"] for e in rows], list(range(from_number, from_number + len(rows))))
        evaluated = s["tokens"]["evaluated"] - before["tokens"]["evaluated"]
        self.assertEqual(sum(e["tokens"] for e in rows), evaluated)
        self.assertEqual(answer["usage"]["completion_tokens"], 12)
        self.assertGreaterEqual(evaluated, 11)
        for e in rows:
            self.assertEqual(e["wall_ns"], e["arithmetic_ns"] + e["stall_ns"] + e["other_ns"])
            self.assertLessEqual(e["experts_ns"], e["arithmetic_ns"])
            self.assertLessEqual(e["begin_ns"] + e["wall_ns"], s["now_ns"])
            self.assertEqual(e["sequences"], 1)
        for name in ("hits", "misses", "evictions"):
            self.assertEqual(sum(e[name] for e in rows), s["cache"][name] - before["cache"][name], name)
        self.assertEqual(sum(e["bytes_read"] for e in rows), s["drive"]["bytes_read"] - before["drive"]["bytes_read"])
        self.assertEqual(sum(e["stall_ns"] for e in rows), s["drive"]["stall_ns"] - before["drive"]["stall_ns"])
        self.assertEqual(rows[-1]["hits"] + rows[-1]["misses"], 8 * 4)
        self.assertEqual(evaluations(self.api("/api/status?last=3")), rows[-3:])
        self.assertLessEqual(len(evaluations(self.api("/api/status"))), 32)

    def test_experts(self):
        self.ask()
        x, s = self.api("/api/experts"), self.api("/api/status")
        tiers, use = base64.b64decode(x["tiers"], validate=True), base64.b64decode(x["use"], validate=True)
        self.assertEqual((x["layers"], x["experts"], x["top_k"]), (list(range(8)), 32, 4))
        self.assertEqual((len(tiers), len(use)), (256, 256))
        counts = x["counts"]
        self.assertEqual(counts, {"drive": tiers.count(0), "loading": tiers.count(1), "host": tiers.count(2), "device": 0})
        self.assertEqual(counts["host"], s["cache"]["misses"] - s["cache"]["evictions"])
        self.assertEqual(counts["host"], s["cache"]["slots"]) # an answer needs more than there is room for
        for row in range(8):
            share = sum((u / 255) ** 2 for u in use[32 * row:32 * row + 32])
            self.assertAlmostEqual(share, 4, delta=0.1) # a token chooses four

    def test_cache(self):
        with Server(*tight_budget()) as server:
            cache = json.loads(server.get("/api/status"))["cache"]
            own = {name: cache[name] for name in ("slots", "slot_bytes", "policy")}
            self.assertEqual(json.loads(server.get("/api/cache")), {
                "tokens": 0, "choices": 0, "slots": [], "lru": [], "lfu": [], "odds": [], "bound": [], "own": own})
            server.post("/v1/completions", {"prompt": "Oak", "max_tokens": 30, "temperature": 0, "ignore_eos": True})
            c, s = json.loads(server.get("/api/cache")), json.loads(server.get("/api/status?last=128"))
            n = len(c["slots"])
            self.assertEqual(c["tokens"], s["tokens"]["evaluated"])
            self.assertEqual(c["choices"], c["tokens"] * 8 * 4)
            self.assertEqual(c["slots"], sorted(set(c["slots"])))
            self.assertIn(own["slots"], c["slots"])
            self.assertEqual(c["slots"][-1], 256)
            for name in ("lru", "lfu", "odds", "bound"):
                self.assertEqual(len(c[name]), n)
                self.assertTrue(all(0 <= v <= 1 for v in c[name]))
                for i in range(n):
                    self.assertLessEqual(c[name][i], c["bound"][i] + 1e-12)
            self.assertEqual(c["bound"], sorted(c["bound"]))
            # With room for all, what was chosen for the first time is what is missed.
            used = sum(v > 0 for v in base64.b64decode(json.loads(server.get("/api/experts"))["use"]))
            for name in ("lru", "lfu", "odds", "bound"):
                self.assertAlmostEqual(c[name][-1], 1 - used / c["choices"], places=9)
            # The replay of this very cache has the hits that there were, but for the prompt's chunk.
            replayed = c[own["policy"]][c["slots"].index(own["slots"])] * c["choices"]
            self.assertAlmostEqual(replayed, s["cache"]["hits"], delta=8 * 4 * s["tokens"]["prompt"])

    def test_while_it_answers(self):
        """A session is seen at work, and many ask at once without any harm."""
        seen, answers, wrong, stop = [], [], [], threading.Event()
        most = dict(max_tokens=24, ignore_eos=True)

        def watch(*looks):
            try:
                while not stop.is_set():
                    for look in looks:
                        look()
                    stop.wait(0.01)
            except Exception as e:
                wrong.append(e)

        def status():
            s = self.api("/api/status?last=128")
            numbers = [e["number"] for e in evaluations(s)]
            self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))) if numbers else [])
            seen.extend(x for x in s["sessions"] if x["state"] != "idle")

        def answer():
            answers.append(self.ask(**most)["choices"][0]["message"]["content"])
            return seen or wrong

        looks = [(status, lambda: self.api("/api/experts"))] * 2 + [(lambda: self.api("/api/cache"),)] * 2
        threads = [threading.Thread(target=watch, args=x) for x in looks]
        for t in threads:
            t.start()
        try:
            self.server.until(answer) # on a busy machine a look may miss one
        finally:
            stop.set()
            for t in threads:
                t.join()
        self.assertEqual(wrong, [])
        answers.append(self.ask(**most)["choices"][0]["message"]["content"])
        self.assertEqual(len(set(answers)), 1)
        self.assertTrue(seen)
        for x in seen:
            self.assertLessEqual(x["generated_tokens"], 24)
            self.assertLessEqual(x["prompt_done"], x["prompt_tokens"])
            self.assertGreaterEqual(x["seconds"], 0)


if __name__ == "__main__":
    serving.main()
