#!/usr/bin/env bash
# Runs a program of another system, whose root folder lies on this one, with this machine's processes, network and temporary files.
#
#   in-root.sh ROOT PROGRAM [ARGUMENT...]
#
# The folder of this script and the one for temporary files are in there what they are out here, so a program may be one of the
# scripts beside this one, and paths that are given whole mean the same. It becomes the program, which so keeps its PID and its
# standard input. What is mounted for that, nobody else sees, and it is gone with the program. Only root may.
set -uo pipefail

fail() {
    echo "in-root: $*" >&2
    exit 69
}
[ $# -ge 2 ] || fail "wants a root folder and a program"
[ -x "$1/bin/sh" ] || fail "$1 isn't the root folder of a system"
[ "$(id -u)" = 0 ] || fail "only root can run what belongs to another system"
root=$(realpath "$1")
shift

export IN_ROOT=$root IN_ROOT_SHOWN
IN_ROOT_SHOWN="/proc
/dev
$(realpath "${TMPDIR:-/tmp}")
$(realpath "$(dirname "$0")")"
# shellcheck disable=SC2016 # it is the inner shell that has these
exec unshare --mount --propagation private bash -c '
    set -e
    while IFS= read -r folder; do
        mkdir -p "$IN_ROOT$folder"
        mount --rbind "$folder" "$IN_ROOT$folder"
    done <<<"$IN_ROOT_SHOWN"
    exec env -u IN_ROOT -u IN_ROOT_SHOWN chroot "$IN_ROOT" "$@"' in-root "$@"
