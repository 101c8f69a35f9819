#!/usr/bin/env python3
"""Looks after the tree's shape: who may include whom, sizes, banned calls, and what an editor should
have taken care of. Run without arguments it checks and prints what is wrong, a line each.

  tidy.py            check; exit status 1 if anything is wrong
  tidy.py --update   write today's exemptions; the difference is what a reviewer looks at

Exemptions are in tools/tidy_exempt.txt, visible to all, and form a ratchet: an exempt function, file
or number of wide lines may shrink, never grow.
"""
import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EXEMPT = os.path.join(TOP, "tools", "tidy_exempt.txt")

FUNCTION_LINES = 70
FILE_LINES = 800
COLUMNS = 100
GENERATED = {"src/text/unicode_tables.c"}

# A layer and the layers whose headers it may include, beside its own and the public header. More
# than this table is a change of the design: docs/architecture.md says why it is as it is.
EDGES = {
    "base": [],
    "os": ["base"],
    "io": ["base", "os"],
    "quant": ["base", "os"],
    "text": ["base", "os"],
    "format": ["base", "os", "io", "quant"],
    "op": ["base", "quant"],
    "model": ["base", "quant", "format", "op"],
    "plan": ["base", "os", "io", "quant", "format", "op", "model"],
    "kernels": ["base", "os/cpu.h", "quant", "op/routing.h"],
    "backend": ["base", "os", "quant", "op", "kernels"],
    "experts": ["base", "os", "io"],
    "forward": ["base", "os", "quant", "op", "plan", "experts", "backend/backend.h"],
    "sample": ["base"],
    "grammar": ["base"],
    "session": ["base", "os", "op", "plan", "forward", "sample", "grammar", "text"],
    "convert": ["base", "os", "io", "quant", "format", "model/model.h", "text/pre_types.h", "text/spm.h"],
    "synth": ["base", "os", "quant", "convert/gguf_write.h"],
}

# The library never exits, prints or reads the environment, and its strings have lengths.
BANNED = ["getenv", "secure_getenv", "setenv", "putenv", "exit", "_exit", "_Exit", "quick_exit", "abort",
          "assert", "printf", "vprintf", "puts", "putchar", "perror", "stdout", "stderr", "system",
          "popen", "setlocale", "signal", "sigaction", "rand", "srand", "random", "strtok", "strcpy",
          "strcat", "sprintf", "vsprintf", "gets", "scanf", "sscanf", "alloca", "atoi", "atol", "atof"]
BANNED_BUT = {"src/base/status.c": {"stderr", "abort"}}  # where our own faults end

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.M)
CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)
NAME = re.compile(r"([A-Za-z_]\w*)\s*\(")
WORD = re.compile(r"(?<![\w.])(?<!->)(?<!format\()(%s)\b(?=\s*\(|\s*[,;)])" % "|".join(BANNED))


def tracked():
    """The project's files: what git knows and what it doesn't ignore; without git, all there is."""
    try:
        out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=TOP, check=True,
                             capture_output=True).stdout.decode()
        names = [n for n in out.split("\0") if n]
    except (OSError, subprocess.CalledProcessError):
        names = []
        for folder in ("src", "include", "cli", "server", "tests", "tools", "examples", "cmake"):
            for root, _, files in os.walk(os.path.join(TOP, folder)):
                names += [os.path.relpath(os.path.join(root, f), TOP) for f in files]
    return sorted(n for n in names if os.path.isfile(os.path.join(TOP, n)))


def blank(text):
    """The code without comments and literals, its lines where they were."""
    return CODE.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def functions(code):
    """(name, lines from the signature to the closing brace); bodies open and close in column 0."""
    lines = code.split("\n")
    start = None
    for i, line in enumerate(lines):
        if line == "{":
            first = i
            while first > 0 and lines[first - 1].strip() and not re.match(r"[}#]|.*;$", lines[first - 1]):
                first -= 1
            names = NAME.findall(" ".join(lines[first:i]))
            names = [n for n in names if n not in ("__attribute__", "target")]
            start = (names[0] if names else "?", first)
        elif line.startswith("}") and start:
            yield start[0], i - start[1] + 1
            start = None


def check_includes(path, text, say):
    own = os.path.dirname(path)
    for header in INCLUDE.findall(text):
        if header in ("moeflux/moeflux.h", "moeflux/mf_status.h"):
            continue
        layer = header.split("/")[0]
        beside = "/" not in header and os.path.isfile(os.path.join(TOP, own, header))
        if path.startswith("src/"):
            if not os.path.isfile(os.path.join(TOP, "src", header)) and not beside:
                say(path, "includes \"%s\", which is no path below src/" % header)
            mine = path.split("/")[1] if path.count("/") > 1 else None
            if mine is None or beside or layer == mine:
                continue  # engine*.c puts everything together
            if mine not in EDGES:
                say(path, "the layer %s isn't in the table of tools/tidy.py" % mine)
            elif layer not in EDGES[mine] and header not in EDGES[mine]:
                say(path, "%s may not include %s" % (mine, header))
        elif path.startswith("cli/") and layer != "base" and not beside and header != "server/server.h":
            say(path, "the command line may not include %s" % header)
        elif path.startswith("server/") and layer != "base" and not beside:
            say(path, "the server may not include %s" % header)
        elif path.startswith("examples/"):
            say(path, "examples use the public header only, not %s" % header)


def check_c(path, text, say, measure):
    if not text.lstrip().startswith("/*"):
        say(path, "doesn't open with a comment that says what it is")
    check_includes(path, text, say)
    if path in GENERATED:
        return
    code = blank(text)
    if path.startswith("src/"):
        for m in WORD.finditer(code):
            if m.group(1) not in BANNED_BUT.get(path, ()):
                say(path, "line %d: %s has no place in the library" % (code.count("\n", 0, m.start()) + 1,
                                                                       m.group(1)))
    if path.startswith(("src/", "cli/", "server/", "examples/")):
        for name, n in functions(code):
            if n > FUNCTION_LINES:
                measure("function %s:%s" % (path, name), n)


NO_OPS = {"fetch_bytes"}  # a copy: what a stopped router waits for


def check_kernels(path, text, say):
    """Each CUDA kernel ends behind a router that stopped (src/backend/cuda/launch.cuh)."""
    code = blank(text)
    for m in re.finditer(r"\b__global__\b", code):
        at = code.find("{", m.end())
        depth = at + 1
        for depth in range(at, len(code)):
            if code[at:depth + 1].count("{") == code[at:depth + 1].count("}"):
                break
        name = re.search(r"(\w+)\s*\(", code[m.end():]).group(1)
        if name not in NO_OPS and not re.search(r"\bbegin_wait(_block)?\(\)", code[at:depth]):
            say(path, "line %d: a kernel without begin_wait()" % (code.count("\n", 0, m.start()) + 1))


def check_file(path, say, measure):
    with open(os.path.join(TOP, path), encoding="utf-8", newline="") as f:
        text = f.read()
    if "\t" in text and os.path.basename(path) != "Makefile":
        say(path, "has tabs")
    if "\r" in text:
        say(path, "has carriage returns")
    if text and not text.endswith("\n"):
        say(path, "doesn't end with a newline")
    lines = text.split("\n")
    for i, line in enumerate(lines):
        if line != line.rstrip():
            say(path, "line %d: space at the end" % (i + 1))
    if path not in GENERATED:
        n = len(lines) - 1
        if n > FILE_LINES:
            measure("lines %s" % path, n)
        wide = path.endswith((".c", ".h")) and sum(len(line) > COLUMNS for line in lines)
        if wide:
            measure("wide %s" % path, wide)
    if path.endswith((".c", ".h")):
        check_c(path, text, say, measure)
    if path.endswith((".cu", ".cuh")):
        check_kernels(path, text, say)


def read_exempt():
    exempt = {}
    if os.path.isfile(EXEMPT):
        with open(EXEMPT, encoding="utf-8") as f:
            for line in f:
                if line.strip() and not line.startswith("#"):
                    what, n = line.rsplit(None, 1)
                    exempt[what] = int(n)
    return exempt


HEAD = """# What is larger than tools/tidy.py allows, and how large it may be at most; made by tidy.py --update.
# function FILE:NAME  lines of a function over %d;  lines FILE  lines of a file over %d;
# wide FILE  lines of C over %d columns, how many.
""" % (FUNCTION_LINES, FILE_LINES, COLUMNS)


def main():
    wrong, measured = [], {}

    def measure(what, n):
        measured[what] = max(n, measured.get(what, 0))

    def say(path, what):
        wrong.append("%s: %s" % (path, what))

    for path in tracked():
        if path.startswith("tests/data/") or path.startswith("tests/fuzz/seeds/"):
            continue
        if path.endswith((".c", ".h", ".cu", ".cuh", ".py", ".sh", ".cmake")) or os.path.basename(path) == "CMakeLists.txt":
            check_file(path, say, measure)
    if "--update" in sys.argv[1:]:
        with open(EXEMPT, "w", encoding="utf-8") as f:
            f.write(HEAD)
            f.writelines("%s %d\n" % item for item in sorted(measured.items()))
    exempt = read_exempt()
    for what, n in sorted(measured.items()):
        limit = {"function": FUNCTION_LINES, "lines": FILE_LINES, "wide": 0}[what.split()[0]]
        if n > exempt.get(what, limit):
            wrong.append("%s: %d, allowed are %d" % (what, n, exempt.get(what, limit)))
    for line in wrong:
        print(line)
    slack = sum(measured.get(what, 0) < n for what, n in exempt.items())
    if slack:
        print("note: %d exemptions could shrink: tidy.py --update" % slack)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
