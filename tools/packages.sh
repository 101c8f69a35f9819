#!/bin/sh
# Makes sure that what the build and the tests need is there. Installs Debian packages (on macOS
# Homebrew's, untried there) only where some are missing and this user may; otherwise prints the line
# that does it. Usage: packages.sh [PACKAGE...] with further ones of Debian's that are wanted.
set -eu

packages="cmake ninja-build gcc pkg-config libc6-dev libpcre2-dev libutf8proc-dev libjson-c-dev libxxhash-dev
          libcmocka-dev libedit-dev liburing-dev node-llhttp python3 python3-jsonschema xz-utils $*"

if [ "$(uname)" = Darwin ]; then
    missing=""
    for p in cmake ninja pkg-config xz; do # by whatever way they came
        command -v "$p" >/dev/null || missing="$missing $p"
    done
    have=$(brew list --formula -1 2>/dev/null || true)
    for p in pcre2 utf8proc json-c xxhash llhttp cmocka libedit; do
        echo "$have" | grep -qx "$p" || missing="$missing $p"
    done
    [ -z "$missing" ] && exit 0
    if ! command -v brew >/dev/null; then # libraries may be there all the same: CMake says which aren't
        command -v cmake >/dev/null && command -v ninja >/dev/null && exit 0
        echo "missing packages; with Homebrew (https://brew.sh) install them with:" >&2
        echo "  brew install$missing" >&2
        exit 1
    fi
    echo "installing:$missing"
    # shellcheck disable=SC2086 # a list of words
    exec brew install $missing
fi
if ! command -v dpkg-query >/dev/null; then
    exit 0 # another distribution: CMake says what is missing
fi

missing=""
for p in $packages; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q "install ok installed" || missing="$missing $p"
done
[ -z "$missing" ] && exit 0

# A tool that was installed another way serves as well.
still=""
for p in $missing; do
    case $p in
    cmake | gcc | python3 | pkg-config) command -v "$p" >/dev/null || still="$still $p" ;;
    ninja-build) command -v ninja >/dev/null || still="$still $p" ;;
    xz-utils) command -v xz >/dev/null || still="$still $p" ;;
    *) still="$still $p" ;;
    esac
done
[ -z "$still" ] && exit 0

if [ "$(id -u)" = 0 ]; then
    sudo=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo="sudo"
else
    case $still in # only the line editor of `chat` and `serve` need these
    " libedit-dev" | " node-llhttp" | " libedit-dev node-llhttp") exit 0 ;;
    esac
    echo "missing packages; install them with:" >&2
    echo "  sudo apt-get install -y$still" >&2
    exit 1
fi
echo "installing:$still"
$sudo apt-get update -q
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends $still
