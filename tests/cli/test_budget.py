#!/usr/bin/env python3
"""The budget inside a control group of our own, phase by phase.

  test_budget.py [-v] [Budget]

A conversation is held in a group: open, a long prompt, an answer, a context that grows. With a limit
of twice the budget the group's peak stays below the budget, page cache and all; with a limit of the
budget itself nothing is killed or swapped, and after opening the limit is never met and no page is
faulted in from a drive. Without --memory the limit decides. Version 2 where we may make groups of it, else version 1, else the peak of
the resident set is all that is looked at, and that is said. Environment as for test_cli.py.
"""
import json
import os
import subprocess
import time

import test_cli
from test_cli import BIN, MODEL, SANITIZED, Case, clean_env

MIB = 1 << 20
CONTEXT = "384"
LONG = "Tell me all about these things: " + ", ".join(
    "the lighthouse and the boat %d" % i for i in range(8)) + "."
SHORT = ["What is a lighthouse?", "And an anchor?"]


def text_of(path):
    try:
        with open(path, encoding="ascii") as f:
            return f.read()
    except OSError:
        return ""


def number_in(text, key):
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == key:
            return int(words[1])
    return 0


class Group:
    """A control group with a limit of memory, below our own."""

    def __init__(self, version, own):
        self.v2 = version == 2
        base = "/sys/fs/cgroup" if self.v2 else "/sys/fs/cgroup/memory"
        self.path = os.path.join(base + own, "moeflux-budget-%d" % os.getpid())
        os.mkdir(self.path)

    def number(self, v2, v1):
        return int(text_of(os.path.join(self.path, v2 if self.v2 else v1)).strip() or 0)

    def limit(self, limit):
        name = "memory.max" if self.v2 else "memory.limit_in_bytes"
        with open(os.path.join(self.path, name), "w", encoding="ascii") as f:
            f.write(str(limit))

    def usable(self):
        """With a limit to set and a peak to read (version 2 has that from Linux 5.19 on)."""
        names = ("memory.max", "memory.peak") if self.v2 else ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
        return all(os.path.exists(os.path.join(self.path, name)) for name in names)

    def enter(self):
        with open(os.path.join(self.path, "cgroup.procs"), "w", encoding="ascii") as f:
            f.write("0")

    def peak(self):
        return self.number("memory.peak", "memory.max_usage_in_bytes")

    def events(self):
        """How often the limit was met, and what was killed."""
        if self.v2:
            text = text_of(os.path.join(self.path, "memory.events"))
            return number_in(text, "max"), number_in(text, "oom_kill")
        control = text_of(os.path.join(self.path, "memory.oom_control"))
        return self.number("", "memory.failcnt"), number_in(control, "oom_kill")

    def swapped(self):
        if self.v2:
            return self.number("memory.swap.current", "")
        return number_in(text_of(os.path.join(self.path, "memory.stat")), "swap")

    def remove(self):
        for _ in range(200):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.01)


def make_group():
    """One that works, or None."""
    for line in text_of("/proc/self/cgroup").splitlines():
        number, controllers, own = line.split(":", 2)
        version = 2 if number == "0" else 1 if "memory" in controllers.split(",") else 0
        own = "" if own == "/" else own
        # In version 2 a group that has processes can't have controllers for groups below it: beside our own.
        for base in [own, os.path.dirname(own).rstrip("/")] if version == 2 and own else [own] if version else []:
            try:
                group = Group(version, base)
            except OSError:
                continue
            if group.usable():
                return group
            group.remove()
    return None


class Talk:
    """A conversation with the program, one phase at a time."""

    def __init__(self, case, budget, group):
        self.case, self.group = case, group
        self.stats = case.path("stats-%d" % budget)
        if os.path.exists(self.stats):
            os.unlink(self.stats)
        args = [BIN, "chat", "-m", MODEL, "--jsonl", "-c", CONTEXT, "--memory", str(budget), "--temp", "0", "-n", "10",
                "--ignore-eos", "--chunk", "16", "--stats", self.stats]
        self.p = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  env=clean_env(), preexec_fn=group.enter if group else None)
        case.addCleanup(self.p.kill)

    def opened(self):
        """The first line of statistics is written when opening is over."""
        for _ in range(6000):
            if text_of(self.stats).endswith("\n") or self.p.poll() is not None:
                return
            time.sleep(0.01)

    def ask(self, question):
        self.p.stdin.write((json.dumps(question) + "\n").encode())
        self.p.stdin.flush()
        return json.loads(self.p.stdout.readline())

    def major_faults(self):
        return int(text_of("/proc/%d/stat" % self.p.pid).rsplit(")", 1)[1].split()[9])

    def peak(self):
        return int(text_of("/proc/%d/status" % self.p.pid).split("VmHWM:")[1].split()[0]) << 10

    def swap(self):
        return int(text_of("/proc/%d/status" % self.p.pid).split("VmSwap:")[1].split()[0]) << 10

    def end(self):
        _, err = self.p.communicate(timeout=600)
        self.case.assertEqual(self.p.returncode, 0, err.decode("utf8", "replace"))


class Budget(Case):
    def plan(self, memory):
        p = self.cli("plan", "-m", MODEL, "-c", CONTEXT, "--chunk", "16", "--memory", str(memory), "--json")
        return json.loads(p.stdout)

    def budgets(self):
        """The smallest, one between, and one in which every expert has its slot."""
        plan = self.plan(256 * MIB)
        floor = plan["floor_bytes"] + MIB # processes differ a little
        whole = floor + plan["slots"] * plan["slot_bytes"] + 2 * MIB
        self.assertEqual(self.plan(whole)["slots"], plan["slots"])
        self.assertLess(self.plan(floor)["slots"], plan["slots"] // 4)
        return [floor, (floor + whole) // 2, whole]

    def hold(self, budget, group, strict):
        """One conversation; `strict`: the limit is the budget."""
        talk = Talk(self, budget, group)
        talk.opened()
        events, faults = group.events() if group else (0, 0), talk.major_faults()
        answers = []
        for phase, question in [("prompt and answer", LONG)] + [("growth", q) for q in SHORT]:
            answers.append(talk.ask(question).get("text"))
            what = "%s in %.1f MiB" % (phase, budget / MIB)
            self.assertLessEqual(talk.peak(), budget, what)
            self.assertEqual(talk.swap(), 0, what)
            if group:
                self.assertEqual(group.swapped(), 0, what)
            if group and strict:
                self.assertEqual(group.events(), events, what)
                self.assertEqual(talk.major_faults(), faults, what)
        talk.end()
        if group:
            self.assertEqual(group.events()[1], 0)
        return answers

    def test_every_phase(self):
        if SANITIZED:
            self.skipTest("sanitizers take memory of their own")
        answers = []
        for budget in self.budgets():
            for limit in (2 * budget, budget):
                group = make_group()
                if group:
                    self.addCleanup(group.remove)
                    group.limit(limit)
                answers.append(self.hold(budget, group, limit == budget))
                if group and limit > budget:
                    self.assertGreater(group.peak(), 0)
                    self.assertLessEqual(group.peak(), budget)
                if group:
                    group.remove()
        self.assertTrue(all(a == answers[0] for a in answers))
        self.assertTrue(all(answers[0]))
        if not group:
            self.skipTest("no control group that we may make: only resident sets were looked at, and they held")

    def test_limit_decides(self):
        """Without --memory the budget comes from the group's limit, and holds."""
        group = make_group()
        if SANITIZED or not group:
            self.skipTest("no control group that we may make" if not group else "sanitizers take memory of their own")
        self.addCleanup(group.remove)
        limit = 24 * MIB
        group.limit(limit)

        def inside(*args):
            p = subprocess.run([BIN, *args, "-m", MODEL], capture_output=True, env=clean_env(), check=False,
                               preexec_fn=group.enter)
            self.assertEqual(p.returncode, 0, p.stderr.decode("utf8", "replace"))
            return json.loads(p.stdout)
        plan = inside("plan", "--json")
        self.assertIn("cgroup", plan["budget_reason"])
        self.assertTrue(limit // 2 < plan["budget_bytes"] <= limit)
        out = inside("run", "--json", "-p", SHORT[0], "-n", "10", "--ignore-eos", "--temp", "0")
        self.assertLessEqual(out["memory"]["peak_bytes"], limit)
        self.assertEqual(group.events()[1], 0)
        self.assertEqual(group.swapped(), 0)


if __name__ == "__main__":
    test_cli.main()
