#!/usr/bin/env python3
"""Each public header compiles alone, pedantically, as C99 and as C++: headers.py FOLDER CC [CXX]

Any C++ compiler serves: the one named, else c++, g++, clang++, or clang told so. Where there is none
that half is left out with a line that says so. Exit status 1 if a header fails.
"""
import os
import shutil
import subprocess
import sys
import tempfile


def compiles(command, source):
    p = subprocess.run([*command, "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", source],
                       capture_output=True, text=True)
    if p.returncode:
        print(" ".join(command), source)
        print(p.stderr)
    return p.returncode == 0


def cxx_command(named, source):
    for tool, more in ((named, []), ("c++", []), ("g++", []), ("clang++", []), ("clang", ["-x", "c++"])):
        if tool and shutil.which(tool):
            command = [tool, *more, "-std=c++11"]
            empty = subprocess.run([*command, "-fsyntax-only", source], capture_output=True)
            if empty.returncode == 0:
                return command
    return None


def main():
    folder, cc = sys.argv[1:3]
    include = os.path.dirname(os.path.abspath(folder))
    fine = True
    n = 0
    with tempfile.TemporaryDirectory() as tmp:
        empty = os.path.join(tmp, "empty.cc")
        with open(empty, "w") as f:
            f.write("#include <stddef.h>\n#include <stdint.h>\n")
        cxx = cxx_command(sys.argv[3] if len(sys.argv) > 3 else "", empty)
        if not cxx:
            print("left out: no C++ compiler")
        for header in sorted(os.listdir(folder)):
            n += 1
            for command, suffix in (([cc, "-std=c99"], ".c"), (cxx, ".cc")):
                if not command:
                    continue
                source = os.path.join(tmp, header.replace(".", "_") + suffix)
                with open(source, "w") as f:
                    f.write("#include <moeflux/%s>\nint only_%d(void);\nint only_%d(void) { return 0; }\n"
                            % (header, n, n))
                fine = compiles([*command, "-I", include], source) and fine
    print("%d headers" % n)
    return 0 if fine and n else 1


if __name__ == "__main__":
    sys.exit(main())
