"""What the measuring scripts share: facts of the machine, running the program, recording results.

A result file holds the machine, the commit, how it was measured, and every single run, so that a
median in the documentation can be checked against what it was taken from.
"""
import datetime
import http.client
import json
import os
import platform
import re
import statistics
import subprocess
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESULTS = os.path.join(TOP, "bench", "results")
SHIPPED = os.path.join(TOP, "models", "pocket-dictionary")


def add_arguments(parser, result):
    parser.set_defaults(commit=commit()) # now: by the end of a long run the tree may have moved on
    parser.add_argument("--bin", default=os.path.join(TOP, "build", "moeflux"),
                        help="the program; default build/moeflux")
    parser.add_argument("--result", default=os.path.join(RESULTS, result),
                        help="file to write; default bench/results/" + result)


def first_match(path, pattern):
    with open(path, encoding="utf-8") as f:
        found = re.search(pattern, f.read(), re.M)
    return found.group(1).strip() if found else "?"


def compiler_of(binary):
    """Compilers leave their names in what they make; clang's counts before that of the C start-up code."""
    with open(binary, "rb") as f:
        data = f.read()
    for pattern in (rb"clang version [\d.]+", rb"GCC: \([^)]*\) [\d.]+"):
        found = re.search(pattern, data)
        if found:
            return found.group(0).decode()
    return "?"


def machine():
    """Says what matters for speed, and nothing that names the machine."""
    cpu = "/proc/cpuinfo"
    return {"cpu": first_match(cpu, r"^model name\s*:(.*)$"),
            "cpu_family_model": first_match(cpu, r"^cpu family\s*:(.*)$") + "/" +
                                first_match(cpu, r"^model\s*:(.*)$"),
            "cores": len(os.sched_getaffinity(0)),
            "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
            "kernel": platform.system() + " " + re.match(r"[\d.]*\d", platform.release()).group(0),
            "priority": os.getpriority(os.PRIO_PROCESS, 0), # raised (below 0) where jobs share it
            "virtual": "hypervisor" in first_match(cpu, r"^flags\s*:(.*)$")}


def commit():
    """The commit, with + if what the program is built from differs from it."""
    def git(*args):
        return subprocess.run(["git", "-C", TOP, *args], capture_output=True, text=True,
                              check=True).stdout.strip()
    try:
        changed = git("status", "--porcelain", "--", "CMakeLists.txt", "cmake", "include", "src", "cli", "server")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "?"


def busy(seconds):
    """Share of the processors' time that was in use."""
    def read():
        with open("/proc/stat", encoding="ascii") as f:
            v = [int(x) for x in f.readline().split()[1:9]]
        return sum(v), v[3] + v[4]
    all0, idle0 = read()
    time.sleep(seconds)
    all1, idle1 = read()
    return 1 - (idle1 - idle0) / max(all1 - all0, 1)


def settle(limit_s):
    """Waits for a moment in which the machine has nothing else to do, at most so long; returns how
    busy it was just before the run, which is recorded with it."""
    end = time.monotonic() + limit_s
    while True:
        share = busy(0.3)
        if share < 0.1 or time.monotonic() > end:
            return round(share, 2)


def warm(folder):
    """Has the files of a model in the page cache."""
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as f:
            while f.read(1 << 20):
                pass


def run_json(command):
    """Runs a command that writes one JSON object."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[1]}: exit {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


class Server:
    """`serve` at a port of its own choosing."""

    def __init__(self, args, model, *options, env=None):
        self.process = subprocess.Popen([args.bin, "serve", "-m", model, "--port", "0", "--no-progress", *options],
                                        stderr=subprocess.PIPE, text=True, env=env)
        self.log = []
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                break
        else:
            raise SystemExit("the server ended: " + "".join(self.log))
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()

    def connect(self, timeout_s=None):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)

    def stop(self, timeout_s=None):
        self.process.terminate()
        return self.process.wait(timeout_s)


def summary(values):
    """Median and spread."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3),
            "max": round(max(values), 3)}


def model_name(path):
    return os.path.basename(os.path.normpath(path))


def shown(command):
    """A command without this machine's paths."""
    return " ".join(os.path.basename(word) if os.sep in word else word for word in command)


def record(args, what, how, **content):
    entry = {"what": what, "how": how, "date": datetime.date.today().isoformat(),
             "machine": machine(), "compiler": compiler_of(args.bin), "commit": args.commit, **content}
    os.makedirs(os.path.dirname(os.path.abspath(args.result)), exist_ok=True)
    text = json.dumps(entry, indent=1)
    # Lists of plain numbers on one line: they are read by eye.
    text = re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda m: "[" + " ".join(m.group(1).split()) + "]",
                  text)
    with open(args.result, "w", encoding="utf-8") as f:
        f.write(text + "\n")
