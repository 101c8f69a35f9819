"""The page in a browser: headless Chromium against a server with the shipped model, and pictures of it.

  browse.py [--out FOLDER] [-v]      Debian: apt-get install chromium

Not among the ordinary tests: see docs/testing.md. Talks DevTools' protocol over a pipe, so that nothing
but Python and Chromium is needed. What the page asks of anybody but its server, errors of its script and
violations of its policy fail the test. Environment as for the other tests here; without it, build-dev's.
"""
import argparse
import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault("MOEFLUX_SOURCE", TOP)
os.environ.setdefault("MOEFLUX_BIN", os.path.join(TOP, "build-dev", "moeflux"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serving import Server, TIMEOUT_S, tight_budget  # noqa: E402

OUT = None
QUESTION = "What is a lighthouse?"
DESKTOP, PHONE = (1440, 900), (390, 844)


class Chromium:
    """One browser with one page at a time; `events` holds what DevTools said by itself."""

    def __init__(self):
        program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
        if not program:
            raise SystemExit("there is no chromium here: apt-get install chromium")
        self.dir = tempfile.mkdtemp()
        to_read, self.out = os.pipe()
        self.inp, to_write = os.pipe()

        def as_chromium_has_them():
            os.dup2(os.dup(to_read), 63)
            os.dup2(os.dup(to_write), 64)
            os.dup2(63, 3)
            os.dup2(64, 4)

        # Containers often can't make the sandbox; the page comes from a server of ours.
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
                   "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars", "--disable-background-networking",
                   "--user-data-dir=" + self.dir, "about:blank"]
        self.log = open(os.path.join(self.dir, "log"), "wb")
        self.process = subprocess.Popen(command, close_fds=False, preexec_fn=as_chromium_has_them,
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        os.close(to_read)
        os.close(to_write)
        self.buffer, self.number, self.session, self.context, self.events = b"", 0, None, None, []

    def close(self):
        try:
            self.send("Browser.close", session=False)
            self.process.wait(20)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.out)
        os.close(self.inp)
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def message(self, until):
        while b"\0" not in self.buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.inp], [], [], left)[0]:
                return None
            data = os.read(self.inp, 1 << 20)
            if not data:
                raise AssertionError("the browser ended: " + open(self.log.name, errors="replace").read()[-2000:])
            self.buffer += data
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def send(self, method, session=True, **params):
        self.number += 1
        call = {"id": self.number, "method": method, "params": params}
        if session:
            call["sessionId"] = self.session
        os.write(self.out, json.dumps(call).encode() + b"\0")
        until = time.monotonic() + TIMEOUT_S
        while True:
            m = self.message(until)
            if m is None:
                raise AssertionError("no answer to " + method)
            if m.get("id") == self.number:
                if "error" in m:
                    raise AssertionError("%s: %s" % (method, m["error"]))
                return m["result"]
            if "method" in m and m.get("sessionId") == self.session:
                self.events.append(m)

    def open(self, url, size=DESKTOP, dark=False, phone=False):
        """A fresh page, with nothing stored."""
        if self.context:
            self.send("Target.disposeBrowserContext", session=False, browserContextId=self.context)
        self.context = self.send("Target.createBrowserContext", session=False)["browserContextId"]
        target = self.send("Target.createTarget", session=False, url="about:blank", browserContextId=self.context)
        self.session = self.send("Target.attachToTarget", session=False, targetId=target["targetId"],
                                 flatten=True)["sessionId"]
        self.events = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(domain + ".enable")
        self.send("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1],
                  deviceScaleFactor=1, mobile=phone)
        self.theme(dark)
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def theme(self, dark):
        self.send("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def run(self, script):
        r = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in r:
            raise AssertionError("%s: %s" % (script, r["exceptionDetails"]))
        return r["result"].get("value")

    def until(self, script):
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            got = self.run(script)
            if got:
                return got
            time.sleep(0.05)
        raise AssertionError("it never came to: %s; the page says %r" % (script, self.run("document.body.innerText")))

    def type(self, text):
        self.send("Input.insertText", text=text)

    def key(self, name, shift=False):
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowRight": 39, "ArrowDown": 40, "End": 35}
        key = {"key": name, "code": name, "windowsVirtualKeyCode": codes[name], "modifiers": 8 if shift else 0}
        self.send("Input.dispatchKeyEvent", type="keyDown", **key, **({"text": "\r"} if name == "Enter" else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **key)

    def picture(self, name):
        self.run("new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))")
        data = base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])
        if OUT:
            with open(os.path.join(OUT, name + ".png"), "wb") as f:
                f.write(data)
        return data

    def complaints(self, but=()):
        """Errors of script, policy and network; drains what DevTools has said."""
        self.run("0")
        bad = []
        for e in self.events:
            p = e["params"]
            if e["method"] == "Runtime.exceptionThrown":
                bad.append(p["exceptionDetails"].get("exception", {}).get("description") or str(p["exceptionDetails"]))
            elif e["method"] == "Log.entryAdded" and p["entry"]["level"] == "error":
                bad.append(p["entry"]["text"])
            elif e["method"] == "Runtime.consoleAPICalled" and p["type"] in ("error", "assert"):
                bad.append(str(p["args"]))
        self.events = []
        return [x for x in bad if not any(known in x for known in but)]

    def asked(self):
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]


class Page(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.browser = Chromium()
        cls.server = Server(*tight_budget("--parallel", "2")).wait_ready()
        cls.url = "http://127.0.0.1:%d/" % cls.server.port

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.server.stop()

    def ask(self, text=QUESTION):
        b = self.browser
        before = b.run("document.querySelectorAll('.answer').length")
        b.run("document.getElementById('say').focus()")
        b.type(text)
        b.key("Enter")
        b.until("document.querySelectorAll('.answer').length > %d && "
                "document.getElementById('send').textContent === 'Send'" % before)

    def no_overflow(self):
        self.assertLessEqual(self.browser.run("document.documentElement.scrollWidth - innerWidth"), 0)

    def test_chat_and_board(self):
        b = self.browser
        b.open(self.url)
        b.until("document.getElementById('state-text').textContent === 'ready'")
        self.assertEqual(b.run("document.getElementById('model').textContent"), "pocket-dictionary")
        b.until("document.getElementById('tiles').innerText.includes('nothing asked yet')")
        b.picture("empty-light")
        b.run("document.getElementById('temperature').value = 0")
        self.ask()
        answer = b.run("document.querySelector('.answer .text').textContent")
        direct = self.server.post("/v1/chat/completions", {
            "messages": [{"role": "user", "content": QUESTION}], "temperature": 0})
        self.assertEqual(answer, direct["choices"][0]["message"]["content"])
        self.assertRegex(b.run("document.querySelector('.answer .meta').innerText"), r"(?s)\d+ tokens.*tokens/s.*hits")
        self.ask("What is an oak?")
        b.until("document.querySelectorAll('#time rect').length > 8 && document.querySelectorAll('#drive rect').length > 8")
        b.until("document.querySelectorAll('#curve path').length === 4")
        b.picture("desktop-light")
        b.theme(True)
        b.picture("desktop-dark")
        self.no_overflow()
        self.compare_map()
        asked = b.asked()
        self.assertTrue(asked and all(url.startswith((self.url, "data:")) for url in asked), asked)
        self.assertEqual(b.complaints(), [])

    def compare_map(self):
        """The heat map's pixels have the tiers that the server says."""
        b = self.browser
        experts = json.loads(self.server.get("/api/experts"))
        at_hand = experts["counts"]["host"]
        b.until("document.getElementById('map-says').textContent.includes('%d of 256 at hand')" % at_hand)
        cached = b.run("""(() => {
            const c = document.getElementById('map'), g = c.getContext('2d'); let n = 0;
            for (let y = 0; y < 8; y++) for (let x = 0; x < 32; x++) {
                const [r, , b] = g.getImageData((x + .5) * c.width / 32, (y + .5) * c.height / 8, 1, 1).data;
                n += b - r > 24;
            } return n; })()""")
        self.assertEqual(cached, at_hand)

    def test_keyboard(self):
        b = self.browser
        b.open(self.url)
        b.until("document.getElementById('map').height > 20 && document.getElementById('map-says').textContent")
        b.run("document.getElementById('map').focus()")
        b.key("ArrowRight")
        self.assertIn("Layer 0, expert 0\n", b.run("document.getElementById('tip').textContent"))
        b.key("ArrowRight")
        b.key("ArrowDown")
        self.assertIn("Layer 1, expert 1\n", b.run("document.getElementById('tip').textContent"))
        self.assertIn("Layer 1, expert 1", b.run("document.getElementById('tip-spoken').textContent"))
        b.key("Escape")
        self.assertTrue(b.run("document.getElementById('tip').hidden"))
        names = b.run("""[...document.querySelectorAll('button, input, textarea, canvas, [tabindex="0"]')].filter(e =>
            !(e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length))).length""")
        self.assertEqual(names, 0, "controls without a name")
        b.run("document.getElementById('theme').click(), document.getElementById('theme').click()")
        self.assertEqual(b.run("getComputedStyle(document.body).backgroundColor"), "rgb(16, 19, 23)")
        b.run("document.getElementById('new').focus()")
        self.assertEqual(b.complaints(), [])

    def test_stop_and_new(self):
        b = self.browser
        b.open(self.url)
        b.until("document.getElementById('state-text').textContent === 'ready'")
        aborted = self.server.metric("request_aborted_total")
        b.run("document.getElementById('system').value = 'You know many words.'; document.getElementById('say').focus()")
        # The page asks for no such thing; what has no end is there to be stopped.
        b.run("""(() => { const real = window.fetch; window.fetch = (url, o) => {
            if (o && o.body) o.body = JSON.stringify(Object.assign(JSON.parse(o.body), { ignore_eos: true }));
            return real(url, o); }; })()""")
        b.type("Tell me all words.")
        b.key("Enter")
        b.until("document.querySelector('.answer .text').textContent.length > 20")
        self.assertEqual(b.run("document.getElementById('send').textContent"), "Stop")
        b.key("Escape")
        b.until("document.getElementById('send').textContent === 'Send'")
        self.server.until(lambda: self.server.metric("request_aborted_total") > aborted)
        b.run("document.getElementById('new').click()")
        self.assertEqual(b.run("document.querySelectorAll('.turn').length"), 0)
        self.assertEqual(b.complaints(), [])

    def test_text_is_never_html(self):
        b = self.browser
        b.open(self.url)
        b.until("document.getElementById('state-text').textContent === 'ready'")
        evil = "<img src=x onerror=alert(1)><script>alert(2)</script> **bold** `code`\n- one\n- two\n\n```\n<b>&amp;</b>\n```"
        reasoning = "first <i>this</i>"
        b.run("""(() => { const real = window.fetch; window.fetch = (url, o) => {
            if (!o || !o.body) return real(url, o);
            const line = d => 'data: ' + JSON.stringify({ choices: [{ index: 0, delta: d, finish_reason: null }] }) + '\\n\\n';
            return Promise.resolve(new Response(': ping\\n\\n' + line({ reasoning_content: %s }) + line({ content: %s }) + 'data: [DONE]\\n\\n'));
        }; })()""" % (json.dumps(reasoning), json.dumps(evil)))
        self.ask("<u>x</u>")
        self.assertEqual(b.run("document.querySelectorAll('#log img, #log script, #log b, #log i, #log u').length"), 0)
        self.assertEqual(b.run("document.querySelector('.user .text').textContent"), "<u>x</u>")
        self.assertIn("<img src=x onerror=alert(1)>", b.run("document.querySelector('.answer .text').textContent"))
        self.assertEqual(b.run("document.querySelector('.answer pre code').textContent"), "<b>&amp;</b>")
        self.assertEqual(b.run("[...document.querySelectorAll('.answer li, .answer strong, .answer p code')].map(e => e.textContent).join()"),
                         "bold,code,one,two")
        self.assertEqual(b.run("document.querySelector('.think div').textContent"), reasoning)
        self.assertFalse(b.run("document.querySelector('.think').open"))
        b.run("document.querySelector('.think').open = true")
        b.picture("reasoning-light")
        self.assertEqual(b.complaints(), [])

    def test_phone(self):
        b = self.browser
        b.open(self.url, PHONE, dark=True, phone=True)
        b.until("document.getElementById('state-text').textContent === 'ready'")
        self.ask()
        b.picture("phone-chat-dark")
        self.no_overflow()
        self.assertEqual(b.run("document.getElementById('board').clientWidth"), 0)
        b.run("document.getElementById('tab-board').click()")
        b.until("document.querySelectorAll('#time rect').length > 8")
        b.until("document.querySelectorAll('#curve path').length === 4")
        self.no_overflow()
        b.picture("phone-board-dark")
        b.theme(False)
        b.run("document.getElementById('board').scrollTop = 620")
        b.picture("phone-board-light")
        small = b.run("""[...document.querySelectorAll('button')].filter(e => e.offsetHeight && e.offsetHeight < 30).length""")
        self.assertEqual(small, 0, "buttons too small for a finger")
        self.assertEqual(b.complaints(), [])

    def test_server_that_is_not_there(self):
        b = self.browser
        b.open(self.url)
        b.until("document.getElementById('state-text').textContent === 'ready'")
        b.run("""window.real = window.fetch; window.fetch = async () => new Response('{"error":{"message":"Loading model"}}', { status: 503 })""")
        b.until("document.getElementById('state-text').textContent === 'loading the model'")
        b.run("window.fetch = async () => { throw new TypeError('gone'); }")
        b.until("document.getElementById('state-text').textContent === 'no connection'")
        self.ask("Is anybody there?")
        self.assertIn("can’t be reached", b.run("document.querySelector('.answer .wrong').textContent"))
        b.picture("gone-light")
        # The next question goes alone: templates want turns by turns.
        b.run("""window.fetch = async (path, with_) => {
            if (with_ && with_.body) window.sent = JSON.parse(with_.body).messages;
            throw new TypeError('gone'); }""")
        self.ask("And now?")
        self.assertEqual(b.run("window.sent"), [{"role": "user", "content": "And now?"}])
        b.run("window.fetch = window.real")
        b.until("document.getElementById('state-text').textContent === 'ready'")
        b.run("[...document.querySelectorAll('.meta button')].find(e => e.textContent === 'Try again').click()")
        b.until("document.querySelectorAll('.wrong').length === 0 && document.querySelector('.answer .meta').textContent.includes('tok')")
        self.assertEqual(b.complaints(), [])

    def test_device_of_many_experts(self):
        """What no machine here has: 61 layers of 384 experts, in a device's slots and the host's below."""
        b = self.browser
        b.open(self.url, dark=True)
        b.until("document.getElementById('state-text').textContent === 'ready'")
        b.run("""(() => { const real = window.fetch, rows = 61, n = 384; let seed = 1;
            const random = () => (seed = seed * 1103515245 + 12345 & 0x7fffffff) / 0x7fffffff;
            const tiers = new Uint8Array(rows * n), use = new Uint8Array(rows * n), counts = [0, 0, 0, 0];
            for (let i = 0; i < rows * n; i++) {
                const hot = Math.pow(random(), 6);
                tiers[i] = hot > .5 ? 3 : random() > .4 ? 2 : random() > .99 ? 1 : 0;
                use[i] = 255 * hot * random(); counts[tiers[i]]++;
            }
            const base64 = a => { let s = ''; for (const v of a) s += String.fromCharCode(v); return btoa(s); };
            window.fetch = async (url, o) => {
                if (url === '/api/experts') return new Response(JSON.stringify({ layers: [...Array(rows).keys()].map(i => i + 1),
                    experts: n, top_k: 8, counts: { drive: counts[0], loading: counts[1], host: counts[2], device: counts[3] },
                    tiers: base64(tiers), use: base64(use) }));
                const r = await real(url, o);
                if (!url.startsWith('/api/status')) return r;
                const s = await r.json();
                Object.assign(s.model, { device: 'Some Device 80GB', layers: 62, experts: n, top_k: 8 });
                Object.assign(s.cache, { slots: 6000, host_slots: 12000, experts_total: rows * n, slot_bytes: 23e6 });
                s.drive.ceiling_bytes_per_second = 2e9;
                return new Response(JSON.stringify(s));
            }; })()""")
        b.until("document.getElementById('map-says').textContent.startsWith('61 layers')")
        self.assertIn("On the device", b.run("document.getElementById('map-legend').textContent"))
        b.run("document.getElementById('map').focus()")
        b.key("End")
        self.assertIn("Layer 1, expert 383\n", b.run("document.getElementById('tip').textContent"))
        b.picture("device-dark")
        b.run("document.getElementById('sort').click()")
        b.picture("device-sorted-dark")
        self.assertEqual(b.complaints(), [])

    def test_key(self):
        b = self.browser
        with tempfile.NamedTemporaryFile("w") as keys:
            keys.write("sesame\n")
            keys.flush()
            with Server("--api-key-file", keys.name) as server:
                b.open("http://127.0.0.1:%d/" % server.port)
                b.until("!document.getElementById('key-form').hidden")
                b.picture("key-light")
                b.type("wrong")
                b.key("Enter")
                b.until("document.getElementById('state-text').textContent === 'needs a key' && !document.getElementById('key-form').hidden")
                b.type("sesame")
                b.key("Enter")
                b.until("document.getElementById('state-text').textContent === 'ready'")
                self.assertEqual(b.run("[sessionStorage.getItem('moeflux-key'), localStorage.getItem('moeflux-key'), document.cookie]"),
                                 ["sesame", None, ""])
                self.ask()
                self.assertTrue(b.run("document.querySelector('.answer .text').textContent"))
                self.assertEqual(b.complaints(but=["401"]), [])


def main():
    global OUT
    parser = argparse.ArgumentParser()
    parser.add_argument("--out")
    options, rest = parser.parse_known_args()
    OUT = options.out
    if OUT:
        os.makedirs(OUT, exist_ok=True)
    unittest.main(argv=sys.argv[:1] + rest)


if __name__ == "__main__":
    main()
