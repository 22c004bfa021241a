#!/usr/bin/env bash
# Sets up the examples of producers and consumers in Python and Node, ready to run, with the libraries that they need.
#
#   client-libraries.sh FOLDER
#
# Afterwards, whatever the current folder:
#   FOLDER/python/venv/bin/python FOLDER/python/produce.py …
#   node FOLDER/node/produce.mjs …
# The examples are copied from docs/examples at each call; the libraries are installed from PyPI and npm once, and again when
# the pinned versions change. Says nothing when all is there. Any number of calls may run at once for one FOLDER.
# Exit code: 0 when all is there, 2 for wrong arguments, 69 where something is missing to install with or a registry fails.
set -uo pipefail

fail() {
    local code=$1
    shift
    echo "client-libraries: $*" >&2
    exit "$code"
}

[ $# = 1 ] || fail 2 "usage: client-libraries.sh FOLDER"
examples=$(cd "$(dirname "$0")/../docs/examples" && pwd) || exit 69
mkdir -p "$1" || fail 69 "can't make the folder $1"
folder=$(cd "$1" && pwd) || exit 69

# Everything that is missing is told at once.
missing=()
python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
    missing+=("Python 3.10 or newer with venv (on Debian: apt-get install python3-venv)")
node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' 2>/dev/null ||
    missing+=("Node 18 or newer (on Debian: apt-get install nodejs)")
command -v npm >/dev/null || missing+=("npm (comes with Node; on Debian: apt-get install npm)")
for what in "${missing[@]}"; do echo "client-libraries: missing: $what" >&2; done
[ ${#missing[@]} = 0 ] || exit 69

# Held until this script ends, however it ends; a second call waits, and then finds everything there.
exec 9>"$folder/lock" || fail 69 "can't write in $folder"
flock 9

# A program that runs from the folder meanwhile sees the old file or the new one, never half of one.
copy() {
    local from=$1 to=$2 file
    mkdir -p "$to" || return 1
    for file in "$from"/*; do
        [ -f "$file" ] || continue
        cmp -s "$file" "$to/${file##*/}" && continue
        cp "$file" "$to/.new" && mv -f "$to/.new" "$to/${file##*/}" || return 1
    done
}

# Runs an installer where it has not succeeded with these pinned versions, and shows what it says only where it fails.
install_once() {
    local name=$1 into=$2 pinned=$3 wanted
    shift 3
    # The interpreter counts too: a venv is of no use to another Python.
    wanted=$("$name" --version && sha256sum <"$pinned") || return 1
    [ "$(cat "$into/installed" 2>/dev/null)" = "$wanted" ] && return
    rm -f "$into/installed"
    # The lock is not handed on: a process that outlives its installer would hold it for ever.
    "$@" >"$into/install.log" 2>&1 </dev/null 9>&- || {
        tail -n 15 "$into/install.log" >&2
        fail 69 "the libraries for $name can't be installed; the whole log is $into/install.log"
    }
    echo "$wanted" >"$into/installed"
}

install_python() {
    rm -rf "$folder/python/venv"
    python3 -m venv "$folder/python/venv" &&
        "$folder/python/venv/bin/pip" install --disable-pip-version-check --requirement "$folder/python/requirements.txt"
}
# `ci` takes the lock file as it is, removes what was there before, and runs no package's scripts here.
install_node() {
    npm ci --prefix "$folder/node" --ignore-scripts --no-audit --no-fund
}

copy "$examples/python" "$folder/python" && copy "$examples/node" "$folder/node" || fail 69 "can't copy the examples to $folder"
install_once python3 "$folder/python" "$folder/python/requirements.txt" install_python
install_once node "$folder/node" "$folder/node/package-lock.json" install_node
