#!/usr/bin/env bash
# Builds the released program so that whoever builds the same source gets the same bytes, and tells their checksums.
#
#   deploy/reproduce.sh           into target/reproducible, and prints the SHA-256 of both binaries
#   deploy/reproduce.sh --twice   from two copies of the source in folders of different names, and compares; exit code 1 where they differ
#
# The same bytes need the same source with its Cargo.lock, the same rustc, C compiler, linker and C library, and the same
# processor architecture; where the folders are, who builds and when, makes no difference.
set -euo pipefail

build() { # SOURCE: builds there, and prints its checksums
    cd "$1"
    local cargo=${CARGO_HOME:-$HOME/.cargo} target=$1/target/reproducible
    # Panics name their source files, so folders stand in the program: they get names that don't tell of this machine.
    local flags="--remap-path-prefix=$1=/kf-worker --remap-path-prefix=$cargo=/cargo"
    local c_flags="-ffile-prefix-map=$1=/kf-worker -ffile-prefix-map=$cargo=/cargo"
    # What the C code of SQLite and ring would say of the time of its build.
    local epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
    env -u RUSTFLAGS -u CFLAGS -u CARGO_ENCODED_RUSTFLAGS RUSTFLAGS="$flags" CFLAGS="$c_flags" SOURCE_DATE_EPOCH="$epoch" \
        CARGO_INCREMENTAL=0 LC_ALL=C TZ=UTC cargo build --locked --release --bins --target-dir "$target" >&2
    (cd "$target/release" && sha256sum kf-worker wechat-simulator)
}

source=$(cd "$(dirname "$0")/.." && pwd)
case ${1:-} in
"") build "$source" ;;
--twice)
    copies=$(mktemp -d)
    trap 'rm -rf "$copies"' EXIT
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$source" log -1 --format=%ct 2>/dev/null || echo 0)}
    export SOURCE_DATE_EPOCH
    for name in first a/second-and-longer; do
        mkdir -p "$copies/$name"
        # What git knows and nothing else: ledgers and secrets may lie beside it.
        git -C "$source" ls-files -z | tar -C "$source" --null --files-from=- -cf - | tar -C "$copies/$name" -xf -
        (build "$copies/$name") >"$copies/sums-${name##*/}"
        # One after the other, so that both never need their room on the disk.
        [ "${KEEP:-}" ] || rm -rf "$copies/$name/target"
    done
    cat "$copies/sums-first"
    if cmp -s "$copies/sums-first" "$copies/sums-second-and-longer"; then
        echo "both builds are the same, byte for byte"
    else
        cat "$copies/sums-second-and-longer"
        echo "the builds differ" >&2
        exit 1
    fi
    ;;
*)
    echo "usage: deploy/reproduce.sh [--twice]" >&2
    exit 2
    ;;
esac
