#!/usr/bin/env bash
# A private Prometheus server for tests: own data, own port, gone when its caller is.
#
#   private-prometheus.sh CONFIG
#
# Prints one line, the server's URL, once it answers queries, and lives until its standard input closes, so that it also ends with
# a caller that was killed. SIGTERM and SIGINT end it too. Then it stops what it started and removes the data.
# CONFIG says what is scraped and which rules are loaded; paths in it are relative to its folder.
# Whoever kills this script itself with SIGKILL leaves the server behind: close its standard input instead.
# Exit code: 0 when it was told to end, 1 when the server didn't start or died, 69 where there is no Prometheus.
set -uo pipefail

READY_SECONDS=60

fail() {
    local code=$1
    shift
    echo "private-prometheus: $*" >&2
    exit "$code"
}

program=/usr/bin/prometheus
[ -x "$program" ] || fail 69 "Prometheus isn't installed (apt-get install prometheus)"
[ -r "${1:-}" ] || fail 1 "can't read the configuration ${1:-, which has to be named}"
config=$(realpath "$1")
dir=$(mktemp -d "${TMPDIR:-/tmp}/private-prometheus.XXXXXX") || fail 1 "can't make a temporary folder"

server= watcher=

stop_all() {
    trap '' TERM INT HUP
    # The shell would tell of every job that is killed here.
    exec 2>/dev/null
    # Nobody wants the data any more, so that there is nothing to end in order.
    [ -n "$server" ] && kill -KILL "$server" && wait "$server"
    [ -n "$watcher" ] && kill -KILL "$watcher"
    rm -rf "$dir"
}
trap stop_all EXIT
trap 'exit 0' TERM INT HUP

broken() {
    { echo "private-prometheus: $*; the end of its log:"; tail -n 25 "$dir/log"; } >&2
    exit 1
}

# Each run looks from a place of its own, which its PID gives: two started at once don't find the same port free.
is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
port=$((10000 + $$ * 3 % 20000))
while ! is_free $port; do port=$((port + 1)); done

exec 3<&0
cat <&3 >/dev/null 3<&- &
watcher=$!
exec </dev/null 3<&-

# A session of its own, so that Ctrl-C at a terminal leaves it to this script.
setsid "$program" --config.file="$config" --storage.tsdb.path="$dir/data" --web.listen-address="127.0.0.1:$port" \
    --log.level=warn >>"$dir/log" 2>&1 &
server=$!

is_ready() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
        printf 'GET /-/ready HTTP/1.0\r\n\r\n' >&3
        IFS= read -r -t 2 first <&3 && [[ $first == *" 200 "* ]]
    ) 2>/dev/null
}
SECONDS=0
until is_ready; do
    kill -0 "$watcher" 2>/dev/null || exit 0
    kill -0 "$server" 2>/dev/null || broken "the server didn't start"
    [ $SECONDS -lt $READY_SECONDS ] || broken "the server wasn't ready after $READY_SECONDS s"
    sleep 0.05
done
echo "http://127.0.0.1:$port"

# The redirection swallows the shell's own notice of a killed job.
{ wait -n "$server" "$watcher"; } 2>/dev/null
kill -0 "$server" 2>/dev/null && exit 0
broken "the server died"
