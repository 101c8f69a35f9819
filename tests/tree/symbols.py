#!/usr/bin/env python3
"""What the libraries show the world: symbols.py LIBRARY.so LIBRARY.a NM HEADER_FOLDER

The shared library exports exactly the functions that the public headers declare; every global name of
the static library begins with mf_ or mfi_; and neither keeps state that can be written outside of its
handles. Exit status 77 if there is no nm.
"""
import os
import re
import subprocess
import sys


def nm(tool, *args):
    out = subprocess.run([tool, *args], check=True, capture_output=True, text=True).stdout
    return out.splitlines()


def declared(folder):
    names = set()
    for header in os.listdir(folder):
        with open(os.path.join(folder, header), encoding="utf-8") as f:
            text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
        text = re.sub(r"(?m)^\s*#.*(\\\n.*)*$", "", text)
        names.update(re.findall(r"\bMF_API\b[^;(]*?(\w+)\s*\(", text))
    return names


def main():
    shared, static, tool, headers = sys.argv[1:5]
    if not tool or tool.endswith("NOTFOUND"):
        print("skipped: no nm")
        return 77
    wrong = []
    exported = {line.split()[-1].split("@")[0] for line in nm(tool, "-D", "--defined-only", shared)}
    public = declared(headers)
    wrong += ["%s is declared in a public header and not exported" % n for n in sorted(public - exported)]
    wrong += ["%s is exported and in no public header" % n for n in sorted(exported - public)]
    wrong += ["%s doesn't begin with mf_" % n for n in sorted(exported) if not n.startswith("mf_")]
    for line in nm(tool, "-g", "--defined-only", static):
        words = line.split()
        if len(words) == 3 and not words[2].startswith(("mf_", "mfi_")):
            wrong.append("%s in the static library begins with neither mf_ nor mfi_" % words[2])
    for line in nm(tool, "--defined-only", "-f", "sysv", static):
        words = [w.strip() for w in line.split("|")]
        if len(words) == 7 and re.match(r"\.(t?bss|t?data)(\.(?!rel\.ro)|$)|\*COM\*", words[6]):
            wrong.append("%s (%s) can be written: state of the process" % (words[0], words[6]))
    for line in wrong:
        print(line)
    print("%d exported functions" % len(exported))
    return 1 if wrong or not exported else 0


if __name__ == "__main__":
    sys.exit(main())
