#!/bin/sh
# What tools/packages.sh does on macOS, by stand-ins for `uname` and `brew`: nothing where all is there,
# an installation of what is missing and no more, and the line to type where there is no Homebrew.
# Usage: packages.sh SCRIPT
set -eu
script=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
libraries="pcre2 utf8proc json-c xxhash llhttp cmocka libedit"
say() {
    echo "packages.sh: $*" >&2
    exit 1
}
stub() { # NAME TEXT
    printf '#!/bin/sh\n%s\n' "$2" >"$dir/bin/$1"
    chmod +x "$dir/bin/$1"
}

mkdir "$dir/bin"
for tool in sh cat grep; do
    ln -s "$(command -v "$tool")" "$dir/bin/$tool"
done
stub uname "echo Darwin"
for tool in cmake ninja pkg-config xz; do
    stub "$tool" ""
done
stub brew "[ \"\$1\" = list ] && cat $dir/have || echo \"\$*\" >$dir/asked"
run() {
    PATH="$dir/bin" sh "$script" >"$dir/out" 2>&1
}

# shellcheck disable=SC2086 # a list of words
printf '%s\n' $libraries >"$dir/have"
run || say "fails where all is there"
[ ! -e "$dir/asked" ] || say "installs where all is there"

printf '%s\n' pcre2 json-c xxhash llhttp libedit other-cmocka >"$dir/have"
rm "$dir/bin/ninja"
run || say "fails to install"
[ "$(cat "$dir/asked")" = "install ninja utf8proc cmocka" ] || say "asked for: $(cat "$dir/asked")"

rm "$dir/bin/brew"
run && say "goes on without ninja"
grep -q "brew install ninja pcre2 utf8proc" "$dir/out" || say "doesn't say what to type"
exit 0
