"""Options of `serve` that change answers: each does what it says.

  test_options.py [-v]

Sampling options are held against `moeflux run` with the same ones: they are what requests get that don't say otherwise.
"""
import functools
import json
import subprocess

import serving
from serving import BIN, MODEL, Case, Server
from test_tools import grammar, template

QUESTION = "What is a lighthouse?"
BODY = {"messages": [{"role": "user", "content": QUESTION}], "seed": 7, "max_tokens": 14}
HOT = ("--temp", "1.8")
PENALTY = HOT + ("--repeat-penalty", "4")
# Other options, one more that shows, and what a request says that takes it back: the model's own defaults.
SAMPLING = [((), HOT, {"temperature": 0.3}), (HOT, ("--top-k", "1"), {"top_k": 40}),
            (HOT, ("--top-p", "0.01"), {"top_p": 0.9}), (HOT, ("--min-p", "0.99"), {"min_p": 0.05}),
            (HOT, ("--repeat-penalty", "4"), {"repetition_penalty": 1.0}),
            (HOT, ("--presence-penalty", "2"), {"presence_penalty": 0}),
            (HOT, ("--frequency-penalty", "2"), {"frequency_penalty": 0}),
            (PENALTY, ("--repeat-last-n", "0"), None)]


@functools.lru_cache
def run(*args):
    out = subprocess.run([BIN, "run", "-m", MODEL, "-p", QUESTION, "-s", "7", "-n", "14", "--json", "--no-progress", *args],
                         check=True, capture_output=True)
    return json.loads(out.stdout)["text"]


class Options(Case):
    def text(self, server, **more):
        return server.post("/v1/chat/completions", dict(BODY, **more))["choices"][0]["message"]["content"]

    def test_sampling(self):
        for others, args, back in SAMPLING:
            with self.subTest(args), Server(*others, *args) as server:
                want, plain = run(*others, *args), run(*others)
                self.assertEqual(self.text(server), want)
                self.assertNotEqual(want, plain)
                if back: # a request's own word counts
                    self.assertEqual(self.text(server, **back), plain)

    def test_refused(self):
        """What could let nobody in, or does nothing."""
        for args, why in ((("--allow-host", "box.lan:8080"), "is not a name alone"), (("--allow-host", "http://box"), "is not a name alone"),
                          (("--allow-host", "box.lan."), "is not a name alone"),
                          (("--cors-origin", "app.example"), "is no origin"), (("--cors-origin", "https://app.example/"), "is no origin"),
                          (("--cors-origin", "https://"), "is no origin"), (("--cors-origin", "://a"), "is no origin"),
                          (("--unix", "/nowhere/s", "--port", "1"), "--port is a network's"), (("--kv-disk", "1M"), "--kv-dir")):
            p = subprocess.run([BIN, "serve", "-m", MODEL, *args], capture_output=True, timeout=serving.TIMEOUT_S)
            self.assertEqual(p.returncode, 2, (args, p.stderr))
            self.assertIn(why, p.stderr.decode())
        with Server("--allow-host", "box", "--cors-origin", "null", "--cors-origin", "*", "--cors-origin", "vscode-webview://a"):
            pass

    def test_now(self):
        path = template("none")
        with open(path, "w", encoding="utf-8") as f:
            f.write("It is {{ strftime_now('%Y-%m-%d %H:%M') }}.")
        with Server("--chat-template", path, "--now", "2031-05-06T07:08:09") as server:
            self.assertEqual(server.post("/apply-template", BODY)["prompt"], "It is 2031-05-06 07:08.")

    def test_reasoning_format(self):
        body = dict(BODY, grammar=grammar("<think>why</think>so"), tools=[
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}], max_tokens=99)
        for args, want in (((), {"content": "so", "reasoning_content": "why"}),
                           (("--reasoning-format", "none"), {"content": "<think>why</think>so"})):
            with Server("--chat-template", template("<tool_call>"), *args) as server:
                message = server.post("/v1/chat/completions", body)["choices"][0]["message"]
                self.assertEqual({k: v for k, v in message.items() if k in ("content", "reasoning_content")}, want)

    def test_engine(self):
        with Server("--memory", "300M", "--chunk", "64", "-ctk", "f16", "--policy", "lfu") as server:
            status = json.loads(server.get("/api/status"))
            self.assertEqual(status["memory"]["budget_bytes"], 300 << 20)
            self.assertEqual((status["model"]["chunk"], status["model"]["cache_type_k"], status["model"]["cache_type_v"]),
                             (64, "f16", "f32"))
            self.assertEqual((status["model"]["threads"], status["model"]["ctx"], status["cache"]["policy"]), (2, 1024, "lfu"))


if __name__ == "__main__":
    serving.main()
