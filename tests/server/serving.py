"""A server under test, and clients that say exactly what they mean: used by the test_*.py beside it.

Environment: MOEFLUX_BIN, MOEFLUX_SOURCE, MOEFLUX_SANITIZED (as for tests/cli).
"""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

BIN = os.environ["MOEFLUX_BIN"]
SOURCE = os.environ["MOEFLUX_SOURCE"]
SANITIZED = os.environ.get("MOEFLUX_SANITIZED", "")
MODEL = os.path.join(SOURCE, "models", "pocket-dictionary")
SLOW = 10 if SANITIZED else 1 # how much longer things may take
TIMEOUT_S = 60 * SLOW


class Server:
    """A process with its address; a with block ends it and looks at its exit code."""

    def __init__(self, *args, model=MODEL, env=None, port=True, **more):
        self.dir = tempfile.mkdtemp()
        self.log_path = os.path.join(self.dir, "log")
        command = [BIN, "serve", "-m", model, "-c", "1024", "-t", "2", "--no-progress", *args]
        if port:
            command += ["--port", "0"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MOEFLUX_ARG_")}
        environment["XDG_CACHE_HOME"] = self.dir
        environment.update(env or {})
        self.log_file = open(self.log_path, "wb")
        self.process = subprocess.Popen(command, stderr=self.log_file, stdout=subprocess.DEVNULL,
                                        stdin=subprocess.DEVNULL, env=environment, **more)
        self.port = None

    def log(self):
        with open(self.log_path, encoding="utf-8") as f:
            return f.read()

    def wait_ready(self, pattern=r"listening on http://127\.0\.0\.1:(\d+)"):
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            found = re.search(pattern, self.log())
            if found:
                if found.groups():
                    self.port = int(found.group(1))
                return self
            if self.process.poll() is not None:
                raise AssertionError("the server ended: " + self.log())
            time.sleep(0.01)
        raise AssertionError("the server never got ready: " + self.log())

    def stop(self, sig=signal.SIGTERM, code=0):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            got = self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.log_file.close()
        text = self.log()
        shutil.rmtree(self.dir, ignore_errors=True)
        if got != code or "Sanitizer" in text or "runtime error" in text:
            raise AssertionError("exit code %d: %s" % (got, text))
        return text

    def __enter__(self):
        return self.wait_ready()

    def __exit__(self, kind, *_):
        try:
            self.stop()
        except AssertionError:
            if kind is None:
                raise

    # ---- clients ----

    def socket(self):
        s = socket.create_connection(("127.0.0.1", self.port))
        s.settimeout(TIMEOUT_S)
        return s

    def raw(self, data):
        """Sends bytes; the whole answer until the server closes."""
        with self.socket() as s:
            s.sendall(data)
            return read_all(s)

    def request(self, method, path, body=None, headers=None):
        """(status, headers, bytes)"""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        c.request(method, path, body, headers or {})
        r = c.getresponse()
        data = r.read()
        c.close()
        return r.status, {k.lower(): v for k, v in r.getheaders()}, data

    def get(self, path, status=200, headers=None):
        got, _, data = self.request("GET", path, headers=headers)
        if got != status:
            raise AssertionError("%d: %r" % (got, data))
        return data

    def post(self, path, body, status=200, headers=None):
        got, _, data = self.request("POST", path, body, headers)
        if got != status:
            raise AssertionError("%d: %r" % (got, data))
        return json.loads(data)

    def events(self, path, body):
        """A stream's events: (name or None, what `data:` holds, as JSON but for [DONE])."""
        status, headers, data = self.request("POST", path, dict(body, stream=True))
        if status != 200 or not headers["content-type"].startswith("text/event-stream"):
            raise AssertionError("%d %s %r" % (status, headers, data))
        events = []
        for block in data.decode().split("\n\n"):
            lines = [x for x in block.split("\n") if x and not x.startswith(":")]
            name = [x[7:] for x in lines if x.startswith("event: ")]
            text = [x[6:] for x in lines if x.startswith("data: ")]
            if text:
                events.append((name[0] if name else None, text[0] if text[0] == "[DONE]" else json.loads(text[0])))
        return events

    def metric(self, name):
        found = re.search(r"^moeflux_%s (\S+)$" % re.escape(name), self.get("/metrics").decode(), re.M)
        return float(found.group(1))

    def until(self, what, *args):
        """Waits until what() is true."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            if what(*args):
                return
            time.sleep(0.02)
        raise AssertionError("it never came to that")


def tight_budget(*args):
    """Options for a server with room for some experts only: 2 MiB more than the least."""
    server = Server("--memory", "1M", *args)
    server.process.wait(TIMEOUT_S)
    least = int(re.search(r"smallest that works with these options is (\d+)M", server.log()).group(1))
    server.stop(code=server.process.returncode)
    return ("--memory", "%dM" % (least + 2), *args)


def read_all(s):
    out = b""
    try:
        while True:
            data = s.recv(65536)
            if not data:
                return out
            out += data
    except ConnectionResetError:
        return out


class Case(unittest.TestCase):
    maxDiff = None


class Asked(Case):
    """A server that clients talk to, and what it answers to a question asked without them."""
    QUESTION = "What is a lighthouse?"
    MESSAGES = [{"role": "user", "content": QUESTION}]

    @classmethod
    def setUpClass(cls):
        cls.server = Server("--parallel", "2", "--temp", "0").wait_ready()
        cls.url = "http://127.0.0.1:%d" % cls.server.port
        reply = cls.server.post("/v1/chat/completions", {"messages": cls.MESSAGES})
        cls.answer = reply["choices"][0]["message"]["content"]

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()


def main():
    unittest.main()
