#!/bin/bash
# Runs the tests of the budget where memory is bound by control groups of version 2, in a kernel of its own:
# user-mode Linux, whose root is this machine's, read-only, with folders of its own for what is written. For
# machines whose groups are of version 1, or where none can be made. Takes a minute or two and 700 MB.
# Usage: cgroup2.sh PROGRAM [TEST.py [ARGUMENT...]]; default test: tests/cli/test_budget.py.
# Wants Debian's user-mode-linux (tools/packages.sh user-mode-linux); LINUX_UML names another kernel.
set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
if [ "${1:-}" = --inside ]; then # the first process of that kernel
    set +e
    export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/run TMPDIR=/run/tmp PYTHONDONTWRITEBYTECODE=1
    mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t tmpfs tmpfs /run && mkdir /run/tmp /run/bin
    mount -t cgroup2 none /sys/fs/cgroup && echo +memory >/sys/fs/cgroup/cgroup.subtree_control
    IFS=: read -ra words <<<"$MOEFLUX_INSIDE"
    # This root forgets a file's pages when nobody has it open: code would come from the drive each time.
    cp "${words[0]}" /run/bin/moeflux
    ldd "${words[0]}" | grep -o '/[^ ]*' | xargs -I{} cp {} /run/bin
    export LD_LIBRARY_PATH=/run/bin MOEFLUX_BIN=/run/bin/moeflux
    python3 -W ignore "${words[@]:1}"
    echo "cgroup2: exit $?"
    echo o >/proc/sysrq-trigger
    sleep 60
fi

program=$(realpath "${1:?usage: cgroup2.sh PROGRAM [TEST.py [ARGUMENT...]]}")
shift
[ $# -gt 0 ] || set -- "$top/tests/cli/test_budget.py" -v
kernel=$(command -v "${LINUX_UML:-linux.uml}") || {
    echo "no user-mode kernel: install user-mode-linux" >&2
    exit 1
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$kernel" mem=700M rootfstype=hostfs rootflags=/ ro con=null con0=null,fd:1 quiet "init=$top/tools/cgroup2.sh" \
    "MOEFLUX_INSIDE=$(IFS=:; echo "$program:$*")" -- --inside </dev/null 2>&1 | tee "$log"
grep -q "^cgroup2: exit 0" "$log"
