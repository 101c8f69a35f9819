"""A drive that is really full under --kv-dir: a small file system of the server's own, made in a mount namespace
that ends with it. Skipped (exit status 77) where that isn't allowed.

  test_disk.py [-v] [Full]
"""
import os
import shlex
import subprocess
import sys
import tempfile
import unittest

import serving
from serving import Case, Server

WORDS = ["drum", "bird", "sea", "lamp", "house", "river"]
# As root; as somebody who may make namespaces.
WAYS = [["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]]


def way_to_mount():
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            try:
                done = subprocess.run([*way, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
            except OSError:
                continue
            if done.returncode == 0:
                return way
    return None


class Full(Case):
    def ask(self, server, word):
        body = {"messages": [{"role": "user", "content": (word + " ") * 60}], "max_tokens": 4}
        reply = server.post("/v1/chat/completions", body)
        return reply["choices"][0]["message"]["content"], reply["usage"]["prompt_tokens_details"]["cached_tokens"]

    def without(self):
        """What the answers are, and the largest of the files that keep a conversation each."""
        with tempfile.TemporaryDirectory() as folder:
            with Server("--temp", "0", "--kv-dir", folder) as server:
                texts = {word: self.ask(server, word)[0] for word in WORDS}
            return texts, max(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))

    def test_full(self):
        way = way_to_mount()
        if not way:
            self.skipTest("no file system can be mounted here")
        texts, largest = self.without()
        room = 5 * largest // 2
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as scripts:
            script = os.path.join(scripts, "mounted")
            mount = "mount -t tmpfs -o size=%d tmpfs %s && exec %s \"$@\"" % (room, folder, shlex.quote(serving.BIN))
            with open(script, "w", encoding="utf-8") as f:
                f.write("#!/bin/sh\nexec %s sh -c %s sh \"$@\"\n" % (" ".join(way), shlex.quote(mount)))
            os.chmod(script, 0o755)
            real, serving.BIN = serving.BIN, script
            try:
                server = Server("--temp", "0", "--kv-dir", folder, "--kv-disk", "64M")
            finally:
                serving.BIN = real
            with server:
                inside = "/proc/%d/root%s" % (server.process.pid, folder)
                for word in WORDS: # one session: the next conversation waits until this one is kept, or can't be
                    self.assertEqual(self.ask(server, word)[0], texts[word])
                server.until(lambda: "No space left on device" in server.log())
                self.assertRegex(server.log(), folder + "/[^ ]*: .*No space left on device")
                kept = os.listdir(inside)
                self.assertFalse([name for name in kept if "tmp" in name])
                sizes = [os.path.getsize(os.path.join(inside, name)) for name in kept]
                self.assertGreater(max(sizes), largest // 2)
                self.assertLessEqual(sum(sizes), room)
                text, cached = self.ask(server, WORDS[0]) # what found room is used
                self.assertEqual(text, texts[WORDS[0]])
                self.assertGreater(cached, 32)
            self.assertEqual(os.listdir(folder), [])


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if result.testsRun and len(result.skipped) >= result.testsRun else 0)
