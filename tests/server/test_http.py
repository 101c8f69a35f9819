"""The server as a server: what it takes for a request, what it refuses, who may ask, how it ends.

  test_http.py [-v] [Requests | Life]
"""
import json
import os
import re
import signal
import socket
import struct
import time

import serving
from serving import Case, Server, read_all

HOST = b"Host: localhost\r\n"
CLOSE = b"Connection: close\r\n"
QUESTION = {"messages": [{"role": "user", "content": "What is a lighthouse?"}], "temperature": 0}
LONG = dict(QUESTION, ignore_eos=True, stream=True)


def get(headers=b"", target=b"/health", version=b"HTTP/1.1", method=b"GET"):
    return method + b" " + target + b" " + version + b"\r\n" + headers + b"\r\n"


def post(headers, body):
    return b"POST /v1/models HTTP/1.1\r\n" + HOST + headers + b"\r\n" + body


def assert_overloaded(case, answer):
    """Anthropic's 503 is 529."""
    head, _, data = answer.partition(b"\r\n\r\n")
    case.assertTrue(head.startswith(b"HTTP/1.1 529 Overloaded\r\n"), head)
    case.assertIn(b"\r\nRetry-After: 1", head)
    error = json.loads(data)
    case.assertEqual((error["type"], error["error"]["type"]), ("error", "overloaded_error"))


CHUNKED = b"Transfer-Encoding: chunked\r\n"

# name, bytes, status. All are refused, and nothing after them on the connection is answered.
REFUSED = [
    ("several lengths", post(b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"), 400),
    ("the same length twice", post(b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"), 400),
    ("length and coding", post(b"Content-Length: 3\r\n" + CHUNKED, b"0\r\n\r\n"), 400),
    ("coding and length", post(CHUNKED + b"Content-Length: 3\r\n", b"0\r\n\r\n"), 400),
    ("another coding", post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), 501),
    ("two codings", post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    ("chunked, then none", post(CHUNKED + b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n"), 400),
    ("chunked twice", post(CHUNKED + CHUNKED, b"0\r\n\r\n"), 400),
    ("coding in quotes", post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"), 501),
    ("coding behind a vertical tab", post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), 400),
    ("space before the colon", post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"), 400),
    ("length with a plus", post(b"Content-Length: +3\r\n", b"abc"), 400),
    ("length with a minus", post(b"Content-Length: -3\r\n", b"abc"), 400),
    ("length in hex", post(b"Content-Length: 0x3\r\n", b"abc"), 400),
    ("length as a list", post(b"Content-Length: 3, 3\r\n", b"abc"), 400),
    ("length that overflows", post(b"Content-Length: 18446744073709551619\r\n", b"abc"), 400),
    ("length without a number", post(b"Content-Length: \r\n", b""), 400),
    ("chunk that is no number", post(CHUNKED, b"zz\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk with a sign", post(CHUNKED, b"-5\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk with 0x", post(CHUNKED, b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk that overflows", post(CHUNKED, b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk longer than its size", post(CHUNKED, b"3\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk lines without CR", post(CHUNKED, b"5\nhello\n0\n\n"), 400),
    ("chunk extensions without end", post(CHUNKED, b"5;" + b"a" * 20000 + b"\r\nhello\r\n0\r\n\r\n"), 400),
    ("trailers without end", post(CHUNKED, b"0\r\nX: " + b"a" * 20000 + b"\r\n\r\n"), 431),
    ("chunks' end without CR", post(CHUNKED, b"2\r\n{}\r\n0\r\n\n"), 400),
    ("last chunk without CR", post(CHUNKED, b"2\r\n{}\r\n0\n\r\n"), 400),
    ("chunk without CR", post(CHUNKED, b"2\r\n{}\n0\r\n\r\n"), 400),
    ("chunk shorter than its size", post(CHUNKED, b"5\r\n{}\r\n0\r\n\r\n"), 400),
    ("chunk without a size", post(CHUNKED, b";a=b\r\n{}\r\n0\r\n\r\n"), 400),
    ("space before a chunk's size", post(CHUNKED, b" 2\r\n{}\r\n0\r\n\r\n"), 400),
    ("space behind a chunk's size", post(CHUNKED, b"2 \r\n{}\r\n0\r\n\r\n"), 400),
    ("chunk extension without CR", post(CHUNKED, b"2;a\n{}\r\n0\r\n\r\n"), 400),
    ("lone CR in a chunk extension", post(CHUNKED, b"2;a\rb\r\n{}\r\n0\r\n\r\n"), 400),
    ("NUL in a chunk extension", post(CHUNKED, b"2;a\0\r\n{}\r\n0\r\n\r\n"), 400),
    ("trailer without CR", post(CHUNKED, b"0\r\nA: b\n\r\n"), 400),
    ("folded trailer", post(CHUNKED, b"0\r\nA: b\r\n c\r\n\r\n"), 400),
    ("NUL in a trailer", post(CHUNKED, b"0\r\nA: b\0\r\n\r\n"), 400),
    ("trailer without a name", post(CHUNKED, b"0\r\n: b\r\n\r\n"), 400),
    ("coding in a trailer", post(CHUNKED, b"0\r\n" + CHUNKED + b"\r\n"), 400),
    ("coding with a parameter", post(b"Transfer-Encoding: chunked;q=1\r\n", b"0\r\n\r\n"), 501),
    ("chunked twice in one", post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), 400),
    ("coding that is empty", post(b"Transfer-Encoding:\r\n", b"0\r\n\r\n"), 501),
    ("coding identity", post(b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n", b"abc"), 400),
    ("tab before the colon", post(b"Content-Length\t: 3\r\n", b"abc"), 400),
    ("NUL in a header's name", post(b"Transfer-Encoding\0: chunked\r\n", b"0\r\n\r\n"), 400),
    ("no ASCII in a header's name", post(b"Transfer-Encoding\x80: chunked\r\n", b"0\r\n\r\n"), 400),
    ("two lengths in one", post(b"Content-Length: 3 3\r\n", b"abc"), 400),
    ("length with a fraction", post(b"Content-Length: 3.0\r\n", b"abc"), 400),
    ("folded length", post(b"Content-Length:\r\n 3\r\n", b"abc"), 400),
    ("length and coding in HTTP/1.0", get(b"Connection: keep-alive\r\nContent-Length: 3\r\n" + CHUNKED,
                                          version=b"HTTP/1.0", method=b"POST") + b"0\r\n\r\n", 400),
    ("two Hosts in HTTP/1.0", get(HOST + HOST, version=b"HTTP/1.0"), 400),
    ("two Hosts in other letters", get(HOST + b"hOST: localhost\r\n"), 400),
    ("space behind Host", get(b"Host : localhost\r\n"), 400),
    ("absolute target without Host", get(b"", target=b"http://localhost/health"), 400),
    ("absolute target without a host", get(HOST, target=b"http:///health"), 400),
    ("absolute target of another kind", get(HOST, target=b"https://localhost/health"), 400),
    ("newline before the request", b"\n" + get(HOST), 400),
    ("carriage return before the request", b"\r" + get(HOST), 400),
    ("two spaces before the target", get(HOST, target=b" /health"), 400),
    ("two spaces behind the target", get(HOST, target=b"/health "), 400),
    ("tabs for spaces", b"GET\t/health\tHTTP/1.1\r\n" + HOST + b"\r\n", 501),
    ("version in small letters", get(HOST, version=b"http/1.1"), 400),
    ("version and a space", get(HOST, version=b"HTTP/1.1 "), 505),
    ("coding in HTTP/1.0", get(CHUNKED, version=b"HTTP/1.0", method=b"POST"), 400),
    ("folded header", get(HOST + b"X: a\r\n b\r\n"), 400),
    ("folded first header", get(b" X: a\r\n" + HOST), 400),
    ("NUL in a header", get(HOST + b"X: a\0b\r\n"), 400),
    ("lone CR", get(HOST + b"X: a\rY: b\r\n"), 400),
    ("lines without CR", b"GET /health HTTP/1.1\nHost: localhost\n\n", 400),
    ("control character", get(HOST + b"X: a\x01b\r\n"), 400),
    ("header without a name", get(HOST + b": x\r\n"), 400),
    ("header without a colon", get(HOST + b"X\r\n"), 400),
    ("space in a name", get(HOST + b"X Y: a\r\n"), 400),
    ("no Host", get(), 400),
    ("two Hosts", get(HOST + HOST), 400),
    ("space in the target", get(HOST, target=b"/health /x"), 400),
    ("target that is no path", get(HOST, target=b"health"), 400),
    ("target with a broken escape", get(HOST, target=b"/%zz"), 400),
    ("target with NUL", get(HOST, target=b"/%00"), 400),
    ("fragment", get(HOST, target=b"/health#x"), 400),
    ("user in the target", get(HOST, target=b"http://a@localhost/"), 400),
    ("long target", get(HOST, target=b"/" + b"a" * 9000), 414),
    ("long header", get(HOST + b"X: " + b"a" * 70000 + b"\r\n"), 431),
    ("many headers", get(HOST + b"X: a\r\n" * 120), 431),
    ("body too long", post(b"Content-Length: 99999999\r\n", b""), 413),
    ("chunks too long", post(CHUNKED, b"200000\r\n" + b"a" * 0x200000), 413),
    ("body in gzip", post(b"Content-Encoding: gzip\r\nContent-Length: 3\r\n", b"abc"), 415),
    ("another expectation", post(b"Expect: miracles\r\nContent-Length: 3\r\n", b"abc"), 417),
    ("two expectations", post(b"Expect: 100-continue\r\nExpect: x\r\nContent-Length: 3\r\n", b"abc"), 417),
    ("two content codings", post(b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n", b"abc"), 415),
    ("HTTP/3.1", get(HOST, version=b"HTTP/3.1"), 505),
    ("HTTP/0.9", b"GET /health\r\n\r\n", 505),
    ("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ("unknown method", get(HOST, method=b"FOO"), 501),
    ("a proxy's method", b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400),
]


class Requests(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--max-body", "1M", "--allow-host", "box.lan", "--cors-origin", "https://app.example",
                            "--request-timeout", "1", "--idle-timeout", "20").wait_ready()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def statuses(self, data):
        out = self.server.raw(data)
        return [int(x) for x in re.findall(rb"HTTP/1\.1 (\d+) [A-Z]", out)]

    def test_refused(self):
        for name, data, status in REFUSED:
            with self.subTest(name):
                # What follows must not be taken for a request of its own.
                self.assertEqual(self.statuses(data + get(HOST + CLOSE)), [status])
        self.assertEqual(json.loads(self.server.get("/health")), {"status": "ok"})

    def test_refused_in_pieces(self):
        for name, data, status in REFUSED:
            if len(data) > 1000 :
                continue
            with self.subTest(name), self.server.socket() as s:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                data += get(HOST + CLOSE)
                for i in range(0, len(data), 7):
                    try:
                        s.sendall(data[i:i + 7])
                    except OSError:
                        break
                self.assertEqual([int(x) for x in re.findall(rb"HTTP/1\.1 (\d+) [A-Z]", read_all(s))], [status])

    def test_taken(self):
        ok = get(HOST + CLOSE)
        for name, data, want in [
                ("plain", ok, [200]),
                ("empty lines before", b"\r\n\r\n" + ok, [200]),
                ("empty lines between", get(HOST) + b"\r\n" + ok, [200, 200]),
                ("body of a GET", get(HOST + b"Content-Length: 3\r\n") + b"abc" + ok, [200, 200]),
                ("chunks of a GET", get(HOST + CHUNKED) + b"3\r\nabc\r\n0\r\n\r\n" + ok, [200, 200]),
                ("trailers, then another", post(CHUNKED, b"0\r\nHost: x\r\nA:\r\n\r\n") + ok, [405, 200]),
                ("empty header", get(b"X-E:\r\n" + HOST + b"X-F: \r\n" + CLOSE), [200]),
                ("pipelined", get(HOST) + get(HOST, target=b"/nothing") + ok, [200, 404, 200]),
                ("chunk extension and trailer", post(CHUNKED + CLOSE, b"2;a=b\r\n{}\r\n0\r\nX-T: 1\r\n\r\n"), [405]),
                ("absolute target", get(HOST + CLOSE, target=b"http://localhost/health"), [200]),
                ("upgrade", get(HOST + b"Upgrade: h2c\r\nConnection: upgrade, close\r\n"), [200]),
                ("HTTP/1.0", get(version=b"HTTP/1.0"), [200]),
                ("HTTP/1.0 that stays", get(b"Connection: keep-alive\r\n", version=b"HTTP/1.0") + ok, [200, 200]),
                ("expectation", post(b"Expect: 100-continue\r\nContent-Length: 2\r\n" + CLOSE, b"{}"), [405]),
                ("HEAD", get(HOST + CLOSE, method=b"HEAD", target=b"/"), [200])]:
            with self.subTest(name):
                self.assertEqual(self.statuses(data), want)

    def test_continue(self):
        with self.server.socket() as s:
            s.sendall(post(b"Expect: 100-continue\r\nContent-Length: 2\r\n" + CLOSE, b""))
            self.assertEqual(s.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
            s.sendall(b"{}")
            self.assertTrue(read_all(s).startswith(b"HTTP/1.1 405 "))

    def test_slow_request(self):
        with self.server.socket() as s:
            begin = time.monotonic()
            s.sendall(b"GET /health HTTP/1.1\r\nHos")
            self.assertTrue(read_all(s).startswith(b"HTTP/1.1 408 "))
            self.assertGreater(time.monotonic() - begin, 0.9)

    def test_slow_loris(self):
        """Who sends a byte now and then has no more time than who sends none, in the head and in the body."""
        for begun in (b"GET /health HTTP/1.1\r\nX: ", post(b"Content-Length: 1000\r\n", b""), post(CHUNKED, b"1000\r\n")):
            with self.subTest(begun), self.server.socket() as s:
                end = time.monotonic() + serving.TIMEOUT_S
                s.sendall(begun)
                s.settimeout(0.05)
                seen = b""
                while not seen and time.monotonic() < end:  # for ever, if a byte gave more time
                    try:
                        s.sendall(b"a")
                    except OSError:  # it is closed: what was said before can be read
                        pass
                    try:
                        seen = s.recv(100)
                    except socket.timeout:
                        pass
                self.assertTrue(seen.startswith(b"HTTP/1.1 408 "), seen)

    def test_host(self):
        for host in (b"localhost", b"LOCALHOST:80", b"127.0.0.1:1", b"[::1]:8080", b"192.168.1.7", b"box.lan:80"):
            self.assertEqual(self.statuses(get(b"Host: " + host + b"\r\n" + CLOSE)), [200], host)
        for host in (b"evil.example", b"localhost.evil.example", b"", b"localhost:x", b"a b", b"127.0.0.1.evil.example",
                     b"[::1", b"box.lan.example"):
            self.assertEqual(self.statuses(get(b"Host: " + host + b"\r\n" + CLOSE)), [403], host)
        self.assertEqual(self.statuses(get(HOST + CLOSE, target=b"http://evil.example/health")), [403])

    def test_origin(self):
        local = {"Origin": "http://127.0.0.1:%d" % self.server.port}
        status, headers, _ = self.server.request("GET", "/health", headers=local)
        self.assertEqual((status, headers.get("access-control-allow-origin")), (200, None))
        for origin, host, expected in (("https://box.lan", "box.lan", 200), ("https://box.lan:8443", "box.lan:8443", 200),
                                       ("https://box.lan", "box.lan:8443", 403), ("httpx://box.lan", "box.lan", 403),
                                       ("https://evil.example", "evil.example", 403)):
            status, _, _ = self.server.request("GET", "/health", headers={"Origin": origin, "Host": host})
            self.assertEqual(status, expected, (origin, host))
        status, headers, _ = self.server.request("GET", "/health", headers={"Origin": "https://app.example"})
        self.assertEqual((status, headers["access-control-allow-origin"]), (200, "https://app.example"))
        status, headers, _ = self.server.request("OPTIONS", "/v1/chat/completions",
                                                 headers={"Origin": "https://app.example"})
        self.assertEqual(status, 204)
        self.assertIn("authorization", headers["access-control-allow-headers"])
        for origin in ("http://evil.example", "null", "https://app.example.evil.example", "http://app.example"):
            for method in ("GET", "OPTIONS", "POST"):
                status, headers, _ = self.server.request(method, "/health", headers={"Origin": origin})
                self.assertEqual((status, headers.get("access-control-allow-origin")), (403, None), origin)

    def test_room(self):
        """All bodies together have so much room; what is over is refused, and it comes back."""
        def begin(n, path=b"models"):
            s = self.server.socket()
            s.sendall(b"POST /v1/" + path + b" HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % n + b"a" * (n - 1))
            return s
        full = 1 << 20
        with Server("--max-body", "1M", "--request-timeout", "60") as server:
            self.server, shared = server, self.server
            try:
                waiting = [begin(full) for _ in range(4)]
                server.until(lambda: server.metric("http_body_bytes") == 4 * (full - 1))
                with begin(1000) as s:
                    answers = [s.recv(4096)]
                self.assertTrue(answers[-1].startswith(b"HTTP/1.1 503 "))
                self.assertIn(b"\r\nRetry-After: 1\r\n", answers[-1])
                self.assertIn(b"unavailable_error", answers[-1])
                with begin(1000, b"messages") as s:
                    assert_overloaded(self, s.recv(4096))
                chunked = server.raw(post(CHUNKED, b"400\r\n" + b"a" * 0x400))
                self.assertTrue(chunked.startswith(b"HTTP/1.1 503 "), chunked)
                self.assertEqual(server.get("/health"), b'{"status":"ok"}')
                waiting.pop().close()
                server.until(lambda: server.request("POST", "/tokenize", {"content": "a" * 3000})[0] == 200)
                for s in waiting:
                    s.close()
                server.until(lambda: server.metric("http_body_bytes") == 0)
            finally:
                self.server = shared

    def test_values(self):
        """JSON of very many values takes more than its text."""
        status, _, data = self.server.request("POST", "/tokenize", '{"content":"' + "," * 600000 + '"}')
        self.assertEqual(json.loads(data)["error"]["type"], "exceed_context_size_error") # read, that is
        status, _, data = self.server.request("POST", "/tokenize", '{"content":"x","a":[' + "0," * 500000 + "0]}")
        self.assertEqual(status, 200)
        with Server("--max-body", "4M") as server:
            status, _, data = server.request("POST", "/tokenize", '{"content":"x","a":[' + "0," * 600000 + "0]}")
            self.assertEqual((status, json.loads(data)["error"]["type"]), (413, "invalid_request_error"))

    def test_many_idle(self):
        idle = [self.server.socket() for _ in range(200)]
        try:
            self.assertEqual(self.server.get("/health"), b'{"status":"ok"}')
            self.assertEqual(self.server.metric("http_connections"), 201)
            idle[77].sendall(get(HOST + CLOSE)) # and they are served
            self.assertTrue(read_all(idle[77]).startswith(b"HTTP/1.1 200 "))
        finally:
            for s in idle:
                s.close()

    def test_unknown(self):
        self.server.get("/v2/nothing", 404)
        self.server.get("/v1/chat/completions", 405)
        self.assertEqual(self.server.request("POST", "/health", {})[0], 405)


class Life(Case):
    def test_keys(self):
        path = os.path.join(os.environ.get("TMPDIR", "/tmp"), "moeflux-keys-%d" % os.getpid())
        with open(path, "w", encoding="utf-8") as f:
            f.write("# keys\nalpha-1\n\nbeta-22\n")
        try:
            with Server("--api-key-file", path, "-a", "small") as server:
                self.assertEqual(server.get("/health"), b'{"status":"ok"}')
                for headers in ({}, {"Authorization": "Bearer alpha-"}, {"Authorization": "Bearer alpha-1x"},
                                {"Authorization": "Basic alpha-1"}, {"X-Api-Key": "# keys"}, {"X-Api-Key": ""}):
                    status, got, data = server.request("GET", "/v1/models", headers=headers)
                    self.assertEqual((status, got["www-authenticate"]), (401, "Bearer"), headers)
                    self.assertEqual(json.loads(data)["error"]["type"], "authentication_error")
                self.assertEqual(server.request("POST", "/v1/messages", QUESTION)[0], 401)
                for headers in ({"Authorization": "Bearer alpha-1"}, {"X-Api-Key": "beta-22"}):
                    self.assertEqual(json.loads(server.get("/v1/models", headers=headers))["data"][0]["id"], "small")
        finally:
            os.unlink(path)

    def test_unix_socket(self):
        server = Server(port=False, *("--unix", "sock"), cwd=serving.tempfile.gettempdir())
        try:
            server.wait_ready("listening on unix:sock")
            path = os.path.join(serving.tempfile.gettempdir(), "sock")
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o660)
            self.assertNotIn("http://", server.log())
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(path)
                s.sendall(get(b"Host: whatever\r\n" + CLOSE))
                self.assertTrue(read_all(s).startswith(b"HTTP/1.1 200 "))
        finally:
            server.stop()
        self.assertFalse(os.path.exists(path))

    def test_activation(self):
        """Sockets that were opened for it, and words to the supervisor."""
        with socket.socket() as listening, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            name = "\0moeflux-test-%d" % os.getpid()
            supervisor.bind(name)
            supervisor.settimeout(serving.TIMEOUT_S)
            fd = listening.fileno()

            def prepare():
                os.dup2(fd, 3)
                os.set_inheritable(3, True)
                os.environ["LISTEN_PID"] = str(os.getpid())

            # The process's own id is known in it alone, so a shell that becomes it says it.
            env = {"LISTEN_FDS": "1", "NOTIFY_SOCKET": "@" + name[1:], "REAL_BIN": serving.BIN}
            script = os.path.join(serving.tempfile.mkdtemp(), "activate")
            with open(script, "w", encoding="utf-8") as f:
                f.write('#!/bin/sh\nLISTEN_PID=$$ exec "$REAL_BIN" "$@"\n')
            os.chmod(script, 0o755)
            real, serving.BIN = serving.BIN, script
            try:
                server = Server(env=env, preexec_fn=prepare, close_fds=False)
            finally:
                serving.BIN = real
            with server:
                self.assertEqual(supervisor.recv(100), b"READY=1")
                self.assertEqual(server.port, listening.getsockname()[1])
                self.assertEqual(server.get("/health"), b'{"status":"ok"}')
            self.assertEqual(supervisor.recv(100), b"STOPPING=1")

    def test_connections(self):
        """Idle ones make room; who has a request doesn't."""
        with Server("--max-connections", "2", "--idle-timeout", "1") as server:
            first, second = server.socket(), server.socket()
            self.assertEqual(server.get("/health"), b'{"status":"ok"}')
            self.assertEqual(read_all(first), b"") # closed for it
            self.assertEqual(read_all(second), b"") # or by the idle timeout
            first.close()
            second.close()
            busy = []
            for _ in range(2):
                busy.append(server.socket())
                busy[-1].sendall(b"GET /health HTTP/1.1\r\nHos")
            time.sleep(0.1)
            self.assertTrue(server.raw(get(HOST)).startswith(b"HTTP/1.1 503 "))
            for s in busy:
                s.close()

    def stream(self, server, body=None):
        """A stream of which the first token came."""
        s = server.socket()
        text = json.dumps(body or LONG).encode()
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(text) + text)
        seen = b""
        while b'"content":"' not in seen:
            data = s.recv(4096)
            self.assertTrue(data)
            seen += data
        return s

    def test_disconnect_while_decoding(self):
        with Server() as server:
            s = self.stream(server)
            self.assertEqual(server.metric("num_requests_running"), 1)
            s.close()
            server.until(lambda: server.metric("num_requests_running") == 0)
            self.assertEqual(server.metric("request_aborted_total"), 1)
            self.assertLess(server.metric("generation_tokens_total"), 900)

    def test_disconnect_without_stream_and_in_queue(self):
        with Server() as server:
            text = json.dumps(dict(LONG, stream=False)).encode()
            data = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(text) + text
            a, b = server.socket(), server.socket()
            a.sendall(data)
            server.until(lambda: server.metric("num_requests_running") == 1)
            b.sendall(data)
            server.until(lambda: server.metric("num_requests_waiting") == 1)
            b.close()
            a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)) # a reset
            a.close()
            server.until(lambda: server.metric("request_aborted_total") == 2)
            self.assertEqual(server.metric("num_requests_running"), 0)

    def test_disconnect_in_prompt(self):
        """Evaluating the prompt ends, long before its end."""
        prompt = {"prompt": [100] * 3900, "max_tokens": 1}
        with Server("-c", "4096", "--chunk", "16") as server:
            text = json.dumps(prompt).encode()
            s = server.socket()
            s.sendall(b"POST /v1/completions HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(text) + text)
            server.until(lambda: server.metric("iteration_tokens_total") > 0)
            s.close()
            server.until(lambda: server.metric("request_aborted_total") == 1)
            self.assertLess(server.metric("iteration_tokens_total"), 3800)

    def test_queue_full(self):
        with Server("--queue", "1") as server:
            running = self.stream(server)
            text = json.dumps(LONG).encode()
            waiting = server.socket()
            waiting.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST +
                            b"Content-Length: %d\r\n\r\n" % len(text) + text)
            server.until(lambda: server.metric("num_requests_waiting") == 1)
            status, headers, data = server.request("POST", "/v1/chat/completions", QUESTION)
            self.assertEqual((status, headers["retry-after"]), (429, "1"))
            self.assertEqual(json.loads(data)["error"]["type"], "rate_limit_error")
            status, headers, data = server.request("POST", "/v1/messages", QUESTION)
            self.assertEqual((status, headers["retry-after"], json.loads(data)["error"]["type"]), (429, "1", "rate_limit_error"))
            self.assertEqual(server.metric("request_refused_total"), 2)
            running.close() # the next one's turn
            self.assertTrue(waiting.recv(100).startswith(b"HTTP/1.1 200 "))
            waiting.close()

    def test_slow_reader(self):
        """Who doesn't read is cut off, and doesn't hold anybody up."""
        with Server("--parallel", "2", "--write-timeout", "1", "-c", "4096") as server:
            body = json.dumps(dict(LONG, logprobs=True, top_logprobs=20)).encode()
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", server.port))
            s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            server.until(lambda: server.metric("num_requests_running") == 1)
            self.assertIn("Lighthouse", server.post("/v1/chat/completions", QUESTION)["choices"][0]["message"]["content"])
            server.until(lambda: server.metric("request_aborted_total") == 1)
            s.close()

    def test_ping(self):
        """A stream that waits says something, in time."""
        with Server("--sse-ping-interval", "1") as server:
            running = self.stream(server, dict(LONG, logit_bias={}))
            os.kill(server.process.pid, 0)
            text = json.dumps(LONG).encode()
            s = server.socket()
            s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(text) + text)
            seen = b""
            while b": ping\n\n" not in seen and b'"content":"' not in seen:
                seen += s.recv(4096)
            self.assertTrue(seen.startswith(b"HTTP/1.1 200 "))
            running.close()
            s.close()

    def test_drain(self):
        """An answer that runs ends; new connections are refused."""
        server = Server().wait_ready()
        s = self.stream(server, dict(LONG, max_tokens=40))
        server.process.send_signal(signal.SIGTERM)
        data = read_all(s)
        self.assertIn(b"data: [DONE]", data)
        self.assertIn(b'"finish_reason":"length"', data)
        s.close()
        server.stop(sig=0)

    def test_drain_refuses(self):
        """A request that comes to its end meanwhile is told so, in its protocol's form."""
        server = Server("--drain-timeout", "600", "-c", "4096").wait_ready()
        running = self.stream(server)
        body = json.dumps(dict(QUESTION, max_tokens=4)).encode()
        halves, held = [server.socket(), server.socket()], server.metric("http_body_bytes")
        for s, path in zip(halves, (b"messages", b"chat/completions")):
            s.sendall(b"POST /v1/" + path + b" HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(body) + body[:-1])
        server.until(lambda: server.metric("http_body_bytes") == held + 2 * (len(body) - 1))
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: not self.accepts(server))
        for s in halves:
            s.sendall(body[-1:])
        assert_overloaded(self, halves[0].recv(4096))
        head, _, data = halves[1].recv(4096).partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: 1\r\n" in head, head)
        self.assertEqual(json.loads(data)["error"]["type"], "unavailable_error")
        for s in (running, *halves):
            s.close()
        server.stop(sig=0)

    @staticmethod
    def accepts(server):
        try:
            server.socket().close()
        except ConnectionRefusedError:
            return False
        return True

    def test_drain_is_over(self):
        """What takes longer than the grace is cut off."""
        server = Server("--drain-timeout", "0", "-c", "4096").wait_ready()
        s = self.stream(server)
        begin = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        self.assertNotIn(b"[DONE]", read_all(s))
        s.close()
        server.stop(sig=0)
        self.assertLess(time.monotonic() - begin, 5 * serving.SLOW)

    def test_port_taken(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            server = Server("--port", str(taken.getsockname()[1]), port=False)
            self.assertIn("can't listen on 127.0.0.1", server.stop(sig=0, code=1))

    def test_warning(self):
        log = Server("--host", "0.0.0.0").wait_ready(r"listening on http://0\.0\.0\.0:(\d+)").stop()
        self.assertIn("reachable from other machines and needs no API key", log)


if __name__ == "__main__":
    serving.main()
