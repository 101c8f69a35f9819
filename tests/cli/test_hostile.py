"""Attacks the `moeflux` program from outside: model folders that change while it runs, and limits of
address space, threads and processes. Whatever happens it ends with an exit code and one line, never
by a signal.

  test_hostile.py [-v]

Environment: MOEFLUX_BIN the program; MOEFLUX_SOURCE the project. Python 3.9 or later, its library only.
"""
import fcntl
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

import test_cli
from test_cli import BIN, SANITIZED, SOURCE, clean_env

MODEL = os.path.join(SOURCE, "models", "pocket-dictionary")
TIMEOUT_S = 240
MIB = 1 << 20
F_SETPIPE_SZ = 1031  # fcntl has it from Python 3.10 on
ROOM = 128  # bytes of the answer that fit before the change


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="moeflux-hostile-")
        self.addCleanup(shutil.rmtree, self.dir, True)
        os.chmod(self.dir, 0o755)
        self.model = os.path.join(self.dir, "model")
        shutil.copytree(MODEL, self.model)
        self.weights = os.path.join(self.model, "model.safetensors")

    def ended(self, code, err, codes):
        """With an exit code, not by a signal, and told in one line."""
        self.assertGreaterEqual(code, 0, err)
        self.assertIn(code, codes, err)
        if code:
            said = [line for line in err.splitlines() if line.startswith("moeflux")]
            self.assertEqual(len(said), 1, err)
        for word in ("Sanitizer", "runtime error", "internal error", "Assert"):
            self.assertNotIn(word, err)


class Changes(Case):
    """A model folder that changes while the model runs."""

    # Room for a third of the experts, or for all of them, which are then read before the answer begins.
    MEMORY = {"streamed": ["--memory", "17M", "-n", "400"],
              "resident": ["--memory", "64M", "--streaming", "off", "-n", "80"]}

    def start(self, memory, stdout):
        return subprocess.Popen([BIN, "run", "-m", self.model, "-p", "lighthouse", "--ignore-eos", "-s", "1",
                                 "-c", "512", *memory],
                                stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, env=clean_env())

    def full_pipe(self):
        """A pipe with room for ROOM bytes, and what is in it: who writes an answer there waits after its first words."""
        reads, writes = os.pipe()
        filled = b""
        if sys.platform == "linux":
            filled = bytes(fcntl.fcntl(writes, F_SETPIPE_SZ, 4096) - ROOM)
            os.write(writes, filled)
        return reads, writes, len(filled)

    def attack(self, change, memory, codes, says=None):
        """The change comes when the answer has begun and can't go on. The whole answer is kept in self.answer."""
        reads, writes, filled = self.full_pipe()
        p = self.start(memory, writes)
        os.close(writes)
        try:
            end = time.monotonic() + TIMEOUT_S
            while struct.unpack("i", fcntl.ioctl(reads, termios.FIONREAD, bytes(4)))[0] <= filled:
                self.assertIsNone(p.poll(), "ended before its answer")
                self.assertLess(time.monotonic(), end)
                time.sleep(0.005)
            change()
            with open(reads, "rb") as f:
                self.answer = f.read()[filled:]
            _, err = p.communicate(timeout=TIMEOUT_S)
        finally:
            if p.poll() is None:
                p.kill()
                p.communicate()
        err = err.decode("utf8", "replace")
        self.ended(p.returncode, err, codes)
        if p.returncode and says:
            self.assertRegex(err, says)
        return p.returncode

    @unittest.skipIf(SANITIZED, "sanitizers take memory of their own")
    def test_truncated_while_streaming(self):
        # 64 KiB stay: what is read next lies behind them.
        code = self.attack(lambda: os.truncate(self.weights, 65536), self.MEMORY["streamed"], (5,),
                           r"layer \d+, expert \d+: .*model\.safetensors: ends at offset \d+|size changed from")
        self.assertEqual(code, 5)

    @unittest.skipIf(SANITIZED, "sanitizers take memory of their own")
    def test_truncated_to_nothing(self):
        self.assertEqual(self.attack(lambda: os.truncate(self.weights, 0), self.MEMORY["streamed"], (5,)), 5)

    def unharmed(self, change):
        """Nothing is read any more: the answer is the one that it would have been."""
        p = self.start(self.MEMORY["resident"], subprocess.PIPE)
        usual, err = p.communicate(timeout=TIMEOUT_S)
        self.assertEqual(p.returncode, 0, err)
        self.attack(change, self.MEMORY["resident"], (0,))
        self.assertGreater(len(usual), ROOM)
        self.assertEqual(self.answer, usual)

    def test_truncated_while_resident(self):
        self.unharmed(lambda: os.truncate(self.weights, 65536))

    @unittest.skipIf(SANITIZED, "sanitizers take memory of their own")
    def test_deleted(self):  # the open file stays whole
        self.attack(lambda: shutil.rmtree(self.model), self.MEMORY["streamed"], (0,))

    @unittest.skipIf(SANITIZED, "sanitizers take memory of their own")
    def test_replaced(self):
        def replace():
            other = self.weights + ".new"
            with open(other, "wb") as f:
                f.write(b"something else")
            os.rename(other, self.weights)
        self.attack(replace, self.MEMORY["streamed"], (0,))

    @unittest.skipIf(SANITIZED, "sanitizers take memory of their own")
    def test_written_in_place(self):
        """All reads succeed, and what they read belongs to no model."""
        def write():
            with open(self.weights, "r+b") as f:
                f.seek(os.path.getsize(self.weights) // 2)
                f.write(b"other bytes")
        code = self.attack(write, self.MEMORY["streamed"], (5,), r"model\.safetensors: was modified while open")
        self.assertEqual(code, 5)

    def test_written_in_place_while_resident(self):
        def write():
            with open(self.weights, "r+b") as f:
                f.write(bytes(os.path.getsize(self.weights)))
        self.unharmed(write)

    @unittest.skipIf(SANITIZED, "sanitizers take memory of their own")
    def test_touched(self):
        """Its bytes are as they were; nobody can know."""
        self.attack(lambda: os.utime(self.weights, (1, 1)), self.MEMORY["streamed"], (5,),
                    r"model\.safetensors: was modified while open")

    @unittest.skipIf(SANITIZED, "sanitizers take memory of their own")
    def test_forbidden(self):
        self.attack(lambda: os.chmod(self.weights, 0), self.MEMORY["streamed"], (0,))

    def test_truncated_while_opening(self):
        """Cut at some moment of opening and loading: an error of the model or of reading, or done."""
        size = os.path.getsize(self.weights)
        for ms in (0, 1, 2, 4, 8, 16, 32):
            shutil.copy(os.path.join(MODEL, "model.safetensors"), self.weights)
            p = subprocess.Popen([BIN, "run", "-m", self.model, "-p", "lighthouse", "-n", "2", "-s", "1"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 env=clean_env())
            time.sleep(ms / 1000)
            os.truncate(self.weights, size // 2)
            _, err = p.communicate(timeout=TIMEOUT_S)
            self.ended(p.returncode, err.decode("utf8", "replace"), (0, 3, 5))


class Limits(Case):
    """Too little of what the system gives."""

    def limited(self, prepare, *args):
        # LeakSanitizer looks for leaks from a process of its own, which these limits forbid as well.
        env = clean_env()
        env["ASAN_OPTIONS"] = ":".join(filter(None, (env.get("ASAN_OPTIONS"), "detect_leaks=0")))
        p = subprocess.run([BIN, "run", "-m", self.model, "-p", "lighthouse", "-n", "3", "-s", "1", *args],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           env=env, timeout=TIMEOUT_S, preexec_fn=prepare)
        return p.returncode, p.stderr.decode("utf8", "replace")

    @unittest.skipIf(SANITIZED, "sanitizers reserve terabytes of addresses")
    def test_address_space(self):
        codes = []
        for mib in list(range(10, 40, 2)) + [48, 64, 96, 192]:
            code, err = self.limited(lambda m=mib: resource.setrlimit(resource.RLIMIT_AS, (m * MIB, m * MIB)),
                                     "--memory", "24M", "-t", "4")
            # Below what the program itself takes, the system's loader ends it.
            if code in (127, -11) and ("shared librar" in err or not err):
                continue
            self.ended(code, err, (0, 4, 3))
            codes.append(code)
        self.assertIn(4, codes)
        self.assertEqual(codes[-1], 0)

    def test_processes(self):
        """Threads can't be started: compute threads are an error, readers aren't needed."""
        if os.getuid() != 0:
            self.skipTest("limits of processes count other processes of this user")
        for path, folders, _ in os.walk(self.dir):
            os.chmod(path, 0o755)

        def as_nobody(n):
            resource.setrlimit(resource.RLIMIT_NPROC, (n, n))
            os.setgid(54321)
            os.setuid(54321)
        if not subprocess.run([BIN, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              preexec_fn=lambda: as_nobody(100)).returncode == 0:
            self.skipTest("another user can't run the program")
        code, err = self.limited(lambda: as_nobody(1), "-t", "4")
        self.ended(code, err, (4,))
        self.assertRegex(err, r"can't start compute thread \d of 4")
        code, err = self.limited(lambda: as_nobody(1), "-t", "1")
        self.ended(code, err, (0,))
        code, err = self.limited(lambda: as_nobody(3), "-t", "2")
        self.ended(code, err, (0,))

    def test_many_threads(self):
        code, err = self.limited(None, "-t", "256", "--io-threads", "64")
        self.ended(code, err, (0,))
        code, err = self.limited(None, "-t", "257")
        self.ended(code, err, (2, 3))

    def test_open_files(self):
        for n in range(4, 12):
            code, err = self.limited(lambda k=n: resource.setrlimit(resource.RLIMIT_NOFILE, (k, k)))
            if "shared librar" in err:
                continue
            self.ended(code, err, (0, 1, 3))


if __name__ == "__main__":
    test_cli.main()
