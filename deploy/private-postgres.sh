#!/usr/bin/env bash
# A private PostgreSQL server for tests: own folder, own port, gone when its caller is.
#
#   private-postgres.sh [--tls] [DIR [PORT]]
#
# Prints one line, the server's URL, once the server takes connections, and lives until its standard input closes,
# so that it also ends with a caller that was killed. SIGTERM and SIGINT end it too. Then it stops what it started.
# DIR is where the server keeps everything; without it a temporary folder is used and removed at the end. With it the
# folder is kept: started again with the same DIR and PORT, the server has its data back, whatever ended it.
# The first line of DIR/data/postmaster.pid is the PID of the server, for tests that kill it; DIR/log is where it logs.
# The superuser `kf` needs no password, and nobody else does but a role named `guarded`, for tests of wrong passwords.
# With --tls it takes TLS only, on 127.0.0.1 and localhost, by a certificate of its own authority, DIR/tls/ca.crt.
# PostgreSQL refuses to run as root: root's server runs as the package's user `postgres`, who then owns DIR.
# Whoever kills this script itself with SIGKILL leaves the server behind: close its standard input instead.
# KF_TEST_SERVERS_ROOT names the root folder of another system whose server it shall be; only root may, and paths are given whole.
# Exit code: 0 when it was told to end, 1 when the server didn't start or died, 69 where there is no PostgreSQL.
set -uo pipefail

READY_SECONDS=60
# How long a server that was told to end may take before it is killed.
END_TENTHS=100

fail() {
    local code=$1
    shift
    echo "private-postgres: $*" >&2
    exit "$code"
}

# Servers of another version, from the root folder of another system: all that follows happens in there.
if [ -n "${KF_TEST_SERVERS_ROOT:-}" ]; then
    root=$KF_TEST_SERVERS_ROOT
    unset KF_TEST_SERVERS_ROOT
    exec "$(dirname "$0")/in-root.sh" "$root" "$(realpath "$0")" "$@"
fi

# The package's own programs: PATH has wrappers for some of them, which choose among Debian's clusters, and others not at all.
programs=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1)
[ -n "$programs" ] || fail 69 "PostgreSQL isn't installed (apt-get install postgresql)"
programs=${programs%/initdb}

as=()
if [ "$(id -u)" = 0 ]; then
    id postgres >/dev/null 2>&1 || fail 69 "root can't run PostgreSQL, and the user postgres, which Debian's package makes, isn't there"
    as=(setpriv --reuid=postgres --regid=postgres --init-groups)
fi

encryption=off
host=host
if [ "${1:-}" = --tls ]; then
    command -v openssl >/dev/null || fail 69 "openssl isn't installed, and makes the certificates (apt-get install openssl)"
    encryption=on
    host=hostssl
    shift
fi

if [ $# -gt 0 ]; then
    keep=yes
    mkdir -p "$1" || fail 1 "can't make the folder $1"
    dir=$(cd "$1" && pwd)
    # It is about to change hands.
    [ -e "$dir/data" ] || [ -z "$(ls -A "$dir")" ] || fail 1 "$dir is neither empty nor the folder of an earlier run"
else
    keep=no
    dir=$(mktemp -d "${TMPDIR:-/tmp}/private-postgres.XXXXXX") || fail 1 "can't make a temporary folder"
fi

server='' watcher=''

# All that runs on the data has it as its working folder, and nothing else has: PostgreSQL writes over its environment, and
# puts each process into a session of its own. Root in a container may not look at others' processes, so their user looks.
ours() {
    # shellcheck disable=SC2016 # it is the inner shell that looks
    "${as[@]}" bash -c 'for process in /proc/[0-9]*; do [ "$process/cwd" -ef "$0" ] && echo "${process#/proc/}"; done' "$dir/data"
}

stop_all() {
    trap '' TERM INT HUP
    # The shell would tell of every job that is killed here.
    exec 2>/dev/null
    local tenths=0 pids memory
    # "Immediate": it lets go of everything at once, and what was committed is on disk anyway.
    [ -n "$server" ] && kill -QUIT "$server"
    while [ -n "$server" ] && kill -0 "$server" && [ "$tenths" -lt "$END_TENTHS" ]; do
        sleep 0.1
        tenths=$((tenths + 1))
    done
    while pids=$(ours); [ -n "$pids" ]; do
        # shellcheck disable=SC2086 # one word for each process
        kill -KILL $pids
        sleep 0.02
    done
    # A killed server leaves its PID, which another process may get, and a piece of System V shared memory.
    if [ -s "$dir/data/postmaster.pid" ]; then
        memory=$(sed -n '7s/.* //p' "$dir/data/postmaster.pid")
        "${as[@]}" ipcrm --shmem-id "$memory"
        rm -f "$dir/data/postmaster.pid"
    fi
    [ -n "$watcher" ] && kill -KILL "$watcher"
    [ "$keep" = yes ] || rm -rf "$dir"
}
trap stop_all EXIT
trap 'exit 0' TERM INT HUP

broken() {
    { echo "private-postgres: $*; the end of its log:"; tail -n 25 "$dir/log"; } >&2
    exit 1
}

if [ ${#as[@]} -gt 0 ]; then
    chown postgres: "$dir" || fail 1 "can't give $dir to the user postgres"
    "${as[@]}" test -w "$dir" || fail 1 "the user postgres can't reach $dir: choose another folder, or another TMPDIR"
fi
cd "$dir" || fail 1 "can't enter $dir"

# Each run looks from a place of its own, which its PID gives: two started at once don't find the same port free.
is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
port=${2:-}
if [ -z "$port" ]; then
    port=$((10000 + $$ * 3 % 20000))
    while ! is_free "$port"; do port=$((port + 1)); done
fi

exec 3<&0
cat <&3 >/dev/null 3<&- &
watcher=$!
exec </dev/null 3<&-

# An empty environment, so that no PG* of the caller's leads the server elsewhere.
run=(env -i PATH="$PATH" LC_ALL=C "${as[@]}")

# Not yet to disk, which only matters to a machine that crashes right now; what the server itself commits is.
if [ ! -s "$dir/data/PG_VERSION" ]; then
    "${run[@]}" "$programs/initdb" --pgdata="$dir/data" --username=kf --encoding=UTF8 --locale=C --auth=trust --no-sync >>"$dir/log" 2>&1 ||
        broken "initdb failed"
fi

# The caller may be the only one to read this file: PostgreSQL has made it, and it stays PostgreSQL's.
cat >"$dir/data/pg_hba.conf" <<END || broken "can't say who may connect"
local all all trust
$host all guarded 127.0.0.1/32 scram-sha-256
$host all all 127.0.0.1/32 trust
END

# An authority for this server alone, and a certificate by it that isn't an authority itself, as strict clients ask.
make_certificates() {
    local key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
    "${run[@]}" mkdir -p tls &&
        "${run[@]}" openssl req -x509 "${key[@]}" -days 30 -subj '/CN=private-postgres authority' -keyout tls/ca.key -out tls/ca.crt &&
        "${run[@]}" openssl req "${key[@]}" -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1,DNS:localhost \
            -keyout tls/server.key -out tls/server.csr &&
        "${run[@]}" openssl x509 -req -in tls/server.csr -copy_extensions copyall -CA tls/ca.crt -CAkey tls/ca.key -CAcreateserial \
            -days 30 -out tls/server.crt
}
if [ $encryption = on ] && [ ! -s "$dir/tls/server.crt" ]; then
    make_certificates >>"$dir/log" 2>&1 || broken "can't make certificates"
fi

# The socket's folder is named from the data's, since the path of a socket may only be short. Shared memory lies with the data
# too, so that none is left in /dev/shm by a server that is killed. A session of its own leaves Ctrl-C at a terminal to this script.
"${run[@]}" setsid "$programs/postgres" -D "$dir/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories=.. \
    -c dynamic_shared_memory_type=mmap -c max_connections=200 \
    -c ssl=$encryption -c ssl_cert_file="$dir/tls/server.crt" -c ssl_key_file="$dir/tls/server.key" >>"$dir/log" 2>&1 &
server=$!

# What PostgreSQL's own pg_ctl looks at: the eighth line says that recovery is done and connections are taken.
is_ready() {
    local lines=()
    mapfile -t lines <"$dir/data/postmaster.pid" && [ "${lines[0]:-}" = "$server" ] && [[ ${lines[7]:-} == ready* ]]
} 2>/dev/null
SECONDS=0
until is_ready; do
    kill -0 "$watcher" 2>/dev/null || exit 0
    kill -0 "$server" 2>/dev/null || broken "the server didn't start"
    [ $SECONDS -lt $READY_SECONDS ] || broken "the server wasn't ready after $READY_SECONDS s"
    sleep 0.05
done
echo "postgres://kf@127.0.0.1:$port/postgres"

# The redirection swallows the shell's own notice of a killed job.
{ wait -n "$server" "$watcher"; } 2>/dev/null
kill -0 "$server" 2>/dev/null && exit 0
[ "$keep" = no ] && broken "the server died"
fail 1 "the server died; its log is $dir/log"
