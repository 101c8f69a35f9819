"""`moeflux top`: what it shows, in a terminal and out of one, and that it gives the terminal back.

  test_top.py [-v]
"""
import contextlib
import fcntl
import http.server
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import tempfile
import termios
import threading
import time

import serving
from serving import BIN, MODEL, Case, Server

ASK = {"prompt": "A lighthouse is", "max_tokens": 12, "temperature": 0}


def environment(**more):
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LC_ALL")}
    return dict(env, TERM="xterm-256color", LC_ALL="C.UTF-8", **more)


def top(*args, code=0, **env):
    done = subprocess.run([BIN, "top", *args], capture_output=True, timeout=serving.TIMEOUT_S, env=environment(**env))
    if done.returncode != code:
        raise AssertionError("%d: %r" % (done.returncode, done.stderr))
    return done.stdout.decode(), done.stderr.decode()


class Terminal:
    """top in a terminal of its own."""

    def __init__(self, *args, rows=30, columns=100, **env):
        self.main, side = pty.openpty()
        self.resize(rows, columns)
        self.side = side
        self.before = termios.tcgetattr(side)
        self.process = subprocess.Popen([BIN, "top", "--interval", "0.1", *args], stdin=side, stdout=side, stderr=side,
                                        env=environment(**env), start_new_session=True)
        self.seen = b""

    def resize(self, rows, columns):
        fcntl.ioctl(self.main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def frames(self):
        return [f.split(b"\x1b[?2026l")[0] for f in self.seen.split(b"\x1b[?2026h\x1b[H")[1:] if b"\x1b[?2026l" in f]

    def until(self, what):
        end = time.monotonic() + serving.TIMEOUT_S
        while not what():
            if time.monotonic() > end:
                raise AssertionError("it never came: %r" % self.seen[-2000:])
            if select.select([self.main], [], [], 0.1)[0]:
                self.seen += os.read(self.main, 65536)

    def wait(self):
        """The exit code, once all was read that it wrote."""
        self.until(lambda: self.process.poll() is not None and not select.select([self.main], [], [], 0)[0])
        after = termios.tcgetattr(self.side)
        os.close(self.main)
        os.close(self.side)
        return self.process.returncode, after


@contextlib.contextmanager
def pretend(answers):
    """A server that says what it is told to: {path: (status, JSON)}; its URL."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, v = answers[self.path.split("?")[0]]
            body = json.dumps(v).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield "http://127.0.0.1:%d" % server.server_port
        finally:
            server.shutdown()
            thread.join()


class Top(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--parallel", "2").wait_ready()
        cls.url = "http://127.0.0.1:%d" % cls.server.port
        cls.server.post("/v1/completions", ASK)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def check_text(self, text):
        status = json.loads(self.server.get("/api/status"))
        self.assertIn("pocket-dictionary", text.splitlines()[0])
        for part in ("%d generated" % status["tokens"]["generated"], "of %d experts" % status["cache"]["experts_total"],
                     "0 of 2 running, 0 of 32 waiting"):
            self.assertIn(part, text)
        self.assertEqual(len(re.findall(r"^session +\d idle", text, re.M)), 2)

    def test_once(self):
        """Where there is no terminal: plain text, letters for experts, as many as the server says are cached."""
        text, _ = top("--url", self.url)
        self.check_text(text)
        self.assertNotIn("\x1b", text)
        self.assertEqual(top("--once", MOEFLUX_ARG_URL=self.url + "/")[0].splitlines()[0], text.splitlines()[0])
        experts = json.loads(self.server.get("/api/experts"))
        rows = [line[5:] for line in text.splitlines() if re.match(r" +\d+ ", line)]
        self.assertEqual((len(rows), {len(r) for r in rows}), (len(experts["layers"]), {experts["experts"]}))
        self.assertEqual(sum(c in "oxX%@" for r in rows for c in r), experts["counts"]["host"])
        self.assertTrue(all(len(line) <= 40 for line in top("--url", self.url, COLUMNS="40")[0].splitlines()))

    def test_json(self):
        v = json.loads(top("--url", self.url, "--json")[0])
        self.assertEqual((v["schema"], v["status"]["model"]["name"]), (1, "pocket-dictionary"))
        self.assertEqual(v["experts"]["experts"], v["status"]["model"]["experts"])

    def test_terminal(self):
        t = Terminal("--url", self.url, LANG="C.UTF-8")
        t.until(lambda: len(t.frames()) > 1)
        self.assertTrue(t.seen.startswith(b"\x1b[?1049h\x1b[?25l"))
        self.assertIn("▀".encode(), t.frames()[0])
        self.assertIn(b"\x1b[38;5;", t.frames()[0])
        self.assertLessEqual(t.frames()[-1].count(b"\n"), 29)
        t.resize(16, 50) # no more lines and columns than there are
        t.process.send_signal(signal.SIGWINCH)
        t.until(lambda: t.frames()[-1].count(b"\n") <= 15)
        for line in t.frames()[-1].split(b"\n"):
            self.assertLessEqual(len(re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", line).rstrip(b"\r").decode()), 50)
        os.write(t.main, b"xq")
        code, after = t.wait()
        self.assertEqual((code, after), (0, t.before))
        self.assertTrue(t.seen.endswith(b"\x1b[?25h\x1b[?1049l"))

    def test_given_back(self):
        """Also after signals, and where the server goes away meanwhile; without colours."""
        for sig, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)):
            t = Terminal("--url", self.url, NO_COLOR="1")
            t.until(t.frames)
            self.assertNotIn(b"\x1b[38;5;", t.seen)
            t.process.send_signal(sig)
            got, after = t.wait()
            self.assertEqual((got, after), (code, t.before))
            self.assertTrue(t.seen.endswith(b"\x1b[?25h\x1b[?1049l"))
        server = Server().wait_ready()
        t = Terminal("--url", "http://127.0.0.1:%d" % server.port)
        t.until(t.frames)
        server.stop()
        t.until(lambda: b"refused" in t.frames()[-1])
        os.write(t.main, b"q")
        self.assertEqual(t.wait()[0], 0)

    def test_unix_and_key(self):
        with tempfile.TemporaryDirectory() as folder:
            key, path = os.path.join(folder, "keys"), os.path.join(folder, "sock")
            with open(key, "w", encoding="utf-8") as f:
                f.write("# mine\nsecret-1\n")
            server = Server("--unix", path, "--api-key-file", key, port=False).wait_ready("listening on unix:")
            self.assertIn("pocket-dictionary", top("--unix", path, "--api-key-file", key)[0])
            self.assertIn("401", top("--unix", path, code=1)[1])
            server.stop()
            self.assertIn(path, top("--unix", path, code=1)[1])

    def test_refused(self):
        for args in (("--url", "https://x"), ("--url", "http://"), ("--url", "http://x:y"), ("--url", "http://x/y"),
                     ("--url", "http://x", "--unix", "y"), ("--stats", "x", "--json")):
            self.assertTrue(top(*args, code=2)[1], args)
        self.assertIn("refused", top("--url", "http://127.0.0.1:1", code=1)[1])

    def test_foreign_text(self):
        """What a server says can't work the terminal."""
        says = {"error": {"message": "no \x1b[2J\x07\u009b\x7f\nway"}}
        with pretend({"/api/status": (500, says)}) as url:
            _, err = top("--url", url, code=1)
        self.assertIn("status 500: no ?[2J?????way\n", err)

    def test_foreign_numbers(self):
        status, experts = (json.loads(self.server.get("/api/" + x)) for x in ("status", "experts"))
        experts["counts"].update(host=1e300, drive=-1e300)
        with pretend({"/api/status": (200, status), "/api/experts": (200, experts)}) as url:
            self.assertIn("%d in memory" % (2 ** 32 - 1), top("--url", url)[0])

    def test_stats(self):
        """A run that has ended, and a file that grows."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "stats.jsonl")
            subprocess.run([BIN, "run", "-m", MODEL, "-p", "What is a lamp?", "-n", "5", "--temp", "0", "--stats", path],
                           check=True, capture_output=True)
            with open(path, encoding="utf-8") as f:
                lines = [json.loads(line) for line in f]
            text, _ = top("--stats", path)
            self.assertIn("%d evaluated in all" % sum(x["tokens"] for x in lines[1:]), text)
            t = Terminal("--stats", path)
            t.until(t.frames)
            with open(path, "a", encoding="utf-8") as f:
                f.write(json.dumps(dict(lines[-1], tokens=1000)) + "\n")
            more = b"%d evaluated in all" % (1000 + sum(x["tokens"] for x in lines[1:]))
            t.until(lambda: more in t.frames()[-1])
            with open(path, "r+", encoding="utf-8") as f: # another run
                f.truncate()
                seen = len(t.frames())
                t.until(lambda: len(t.frames()) > seen + 1)
                self.assertIn(more, t.frames()[-1])
                f.write(json.dumps(lines[0]) + "\n" + json.dumps(dict(lines[1], tokens=77)) + "\n")
            t.until(lambda: b" 77 evaluated in all" in t.frames()[-1])
            os.write(t.main, b"q")
            self.assertEqual(t.wait()[0], 0)
            with open(path, "w", encoding="utf-8") as f:
                f.write("nothing\n")
            self.assertIn("statistics", top("--stats", path, code=1)[1])


if __name__ == "__main__":
    serving.main()
