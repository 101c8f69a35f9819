#!/bin/sh
# What a user of the library meets: installs a build into an empty folder, checks what is there, and
# builds and runs the example against it through pkg-config, shared and static.
# Usage: install.sh BUILD MODEL. Exit status 77 where there is no pkg-config or no Linux.
set -eu
build=$1
model=$2
top=$(cd "$(dirname "$0")/../.." && pwd)
cc=${CC:-cc}
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

say() {
    echo "install: $*" >&2
    exit 1
}

if [ "$(uname)" != Linux ] || ! command -v pkg-config >/dev/null; then
    echo "skipped: wants Linux and pkg-config"
    exit 77
fi

DESTDIR="$stage/root" cmake --install "$build" >"$stage/log" || {
    cat "$stage/log"
    exit 1
}
pc=$(find "$stage/root" -name moeflux.pc)
[ -n "$pc" ] || say "no moeflux.pc"
export PKG_CONFIG_PATH="${pc%/*}"
prefix="$stage/root$(pkg-config --variable=prefix moeflux)"
flags() {
    pkg-config --define-variable=prefix="$prefix" "$@" moeflux
}
libdir=$(flags --variable=libdir)

for f in "$prefix/bin/moeflux" "$prefix/include/moeflux/moeflux.h" "$libdir/libmoeflux.a" \
    "$libdir/libmoeflux.so"; do
    [ -e "$f" ] || say "$f is missing"
done
version=$(pkg-config --modversion moeflux)
[ "$("$prefix/bin/moeflux" --version)" = "moeflux $version" ] || say "the program isn't version $version"

# shellcheck disable=SC2046 # lists of flags
"$cc" -std=c11 -Wall -Wextra -Werror $(flags --cflags) "$top/examples/generate.c" $(flags --libs) \
    -o "$stage/shared"
export LD_LIBRARY_PATH="$libdir"
ldd "$stage/shared" | grep -q "libmoeflux.so.0 => $libdir" || say "the example doesn't load the library"

kinds=shared
echo 'int main(void) { return 0; }' >"$stage/empty.c"
if "$cc" -static "$stage/empty.c" -lpcre2-8 -lutf8proc -ljson-c -o "$stage/empty" 2>/dev/null; then
    # shellcheck disable=SC2046
    "$cc" -static $(flags --static --cflags) "$top/examples/generate.c" $(flags --static --libs) \
        -o "$stage/static"
    ldd "$stage/static" >/dev/null 2>&1 && say "the static example isn't static"
    kinds="shared static"
else
    echo "left out: no static libraries to link the example with"
fi

# The same through find_package.
mkdir "$stage/user"
cat >"$stage/user/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.22)
project(user LANGUAGES C)
find_package(moeflux $version REQUIRED)
add_executable(user "$top/examples/generate.c")
target_link_libraries(user PRIVATE moeflux::moeflux)
add_executable(user_static "$top/examples/generate.c")
target_link_libraries(user_static PRIVATE moeflux::moeflux_static)
EOF
{
    cmake -S "$stage/user" -B "$stage/user" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" &&
        cmake --build "$stage/user"
} >"$stage/log" 2>&1 || {
    cat "$stage/log"
    say "find_package(moeflux) doesn't serve"
}
cp "$stage/user/user" "$stage/find_package"
cp "$stage/user/user_static" "$stage/find_package_static"
kinds="$kinds find_package find_package_static"

# The program and the example put the same question with the same defaults and the seed 0.
question="what does stump mean"
want=$("$prefix/bin/moeflux" run -m "$model" --memory 18M -c 512 --seed 0 -p "$question" 2>/dev/null)
[ -n "$want" ] || say "the program has no answer"
for kind in $kinds; do
    got=$("$stage/$kind" "$model" "$question" 18 2>"$stage/stderr") || {
        cat "$stage/stderr"
        say "the $kind example failed"
    }
    echo "$kind: $got"
    [ "$got" = "$want" ] || say "the $kind example says '$got', the program '$want'"
    grep -q '[1-9][0-9]* misses' "$stage/stderr" || say "the $kind example read no experts"
done
