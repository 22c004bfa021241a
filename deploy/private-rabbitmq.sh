#!/usr/bin/env bash
# A private RabbitMQ node for tests and the demo: own folder, own ports, own epmd, gone when its caller is.
#
#   private-rabbitmq.sh [--remove] [--metrics PORT] [--tls PORT FOLDER | --mutual-tls PORT FOLDER] [DIR [PORT]]
#
# Prints one line, the node's AMQP URL, once the node takes connections, and lives until its standard input closes,
# so that it also ends with a caller that was killed. SIGTERM and SIGINT end it too. Then it stops what it started.
# DIR is where the node keeps everything; without it a temporary folder is used and removed at the end. With it the
# folder is kept: started again with the same DIR and PORT, the node has its queues and messages back. With --remove DIR is
# removed at the end all the same.
# With --metrics it tells its metrics on that port, for Prometheus; it then takes some seconds longer to start.
# With --tls it also takes TLS on that port, by FOLDER/server.pem and FOLDER/server-key.pem. With --mutual-tls it takes in only
# who shows a certificate of an authority in FOLDER/ca.pem, and by the mechanism EXTERNAL as the user of that common name.
# DIR/rabbitmq.pid holds the PID of the Erlang node, for tests that kill it; DIR/log is where it logs.
# A quorum queue survives a killed node only once RabbitMQ has saved its name, up to a second after its declaration.
# Whoever kills this script itself with SIGKILL leaves the node behind: close its standard input instead.
# KF_TEST_SERVERS_ROOT names the root folder of another system whose server it shall be; only root may, and paths are given whole.
# Exit code: 0 when it was told to end, 1 when the node didn't start or died, 69 where there is no RabbitMQ.
set -uo pipefail

READY_SECONDS=60

fail() {
    local code=$1
    shift
    echo "private-rabbitmq: $*" >&2
    exit "$code"
}

# Servers of another version, from the root folder of another system: all that follows happens in there.
if [ -n "${KF_TEST_SERVERS_ROOT:-}" ]; then
    root=$KF_TEST_SERVERS_ROOT
    unset KF_TEST_SERVERS_ROOT
    exec "$(dirname "$0")/in-root.sh" "$root" "$(realpath "$0")" "$@"
fi

# The package's own script: the wrapper on PATH insists on being root or `rabbitmq` and switches user.
server=$(ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server 2>/dev/null | sort -V | tail -n 1)
[ -n "$server" ] || fail 69 "RabbitMQ isn't installed (apt-get install rabbitmq-server); or give a broker of your own by KF_AMQP__URL"

keep=yes
if [ "${1:-}" = --remove ]; then
    keep=no
    shift
fi
metrics='' tls='' tls_port='' tls_folder=''
while [[ ${1:-} == --* ]]; do
    [[ ${2:-} =~ ^[0-9]+$ ]] || fail 1 "$1 wants a port"
    case $1 in
    --metrics)
        metrics=$2
        shift 2
        ;;
    --tls | --mutual-tls)
        tls=$1 tls_port=$2 tls_folder=${3:-}
        # It becomes a word of Erlang's command line.
        [[ -r $tls_folder/server.pem && $tls_folder =~ ^/[A-Za-z0-9._/-]+$ ]] || fail 1 "$1 wants a folder with certificates, by its whole path"
        shift 3
        ;;
    *) fail 1 "$1 isn't known" ;;
    esac
done

if [ $# -gt 0 ]; then
    mkdir -p "$1" || fail 1 "can't make the folder $1"
    dir=$(cd "$1" && pwd)
else
    keep=no
    dir=$(mktemp -d "${TMPDIR:-/tmp}/private-rabbitmq.XXXXXX") || fail 1 "can't make a temporary folder"
fi

node= epmd= watcher= ready=no

# Everything that is started carries this mark, whatever session it moves to; some of it outlives the node for a moment.
mark="PRIVATE_RABBITMQ=$$@$dir"
ours() { grep -lzxF "$mark" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3; }

stop_all() {
    trap '' TERM INT HUP
    # The shell would tell of every job that is killed here.
    exec 2>/dev/null
    # Only data that is kept is worth an orderly stop; durable data survives either way.
    if [ $keep = yes ] && [ $ready = yes ] && kill -TERM "$node"; then
        for _ in {1..100}; do kill -0 "$node" && sleep 0.1; done
    fi
    local pids
    while pids=$(ours); [ -n "$pids" ]; do
        kill -KILL $pids
        sleep 0.02
    done
    [ -n "$watcher" ] && kill -KILL "$watcher"
    if [ $keep = yes ]; then rm -f "$dir/rabbitmq.pid"; else rm -rf "$dir"; fi
}
trap stop_all EXIT
trap 'exit 0' TERM INT HUP

broken() {
    { echo "private-rabbitmq: $*; the end of its log:"; tail -n 25 "$dir/log"; } >&2
    exit 1
}

# Each run looks from a place of its own, which its PID gives: two started at once don't find the same ports free. All are below those
# that the tests choose themselves.
is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
next=$((10000 + $$ * 3 % 9000))
free_port() {
    while ! is_free $next; do next=$((next + 1)); done
    eval "$1=$next"
    next=$((next + 1))
}
free_port epmd_port
free_port dist_port
if [ $# -gt 1 ]; then port=$2; else free_port port; fi

# The consistent-hash exchange is what partitions need; a plugin that nobody asked for would only slow the start.
plugins=rabbitmq_consistent_hash_exchange settings=
if [ -n "$metrics" ]; then
    plugins+=,rabbitmq_prometheus
    settings="-rabbitmq_prometheus tcp_config [{ip,\"127.0.0.1\"},{port,$metrics}]"
fi
if [ -n "$tls" ]; then
    certificates="{certfile,\"$tls_folder/server.pem\"},{keyfile,\"$tls_folder/server-key.pem\"}"
    if [ "$tls" = --mutual-tls ]; then
        plugins+=,rabbitmq_auth_mechanism_ssl
        certificates+=",{cacertfile,\"$tls_folder/ca.pem\"},{verify,verify_peer},{fail_if_no_peer_cert,true}"
        settings+=" -rabbit auth_mechanisms ['PLAIN','EXTERNAL'] -rabbit ssl_cert_login_from common_name"
    fi
    settings+=" -rabbit ssl_listeners [{\"127.0.0.1\",$tls_port}] -rabbit ssl_options [$certificates]"
fi
echo "[$plugins]." >"$dir/enabled_plugins"

exec 3<&0
cat <&3 >/dev/null 3<&- &
watcher=$!
exec </dev/null 3<&-

# Sessions of their own, so that Ctrl-C at a terminal leaves them to this script.
env -i "$mark" PATH="$PATH" HOME="$dir" setsid epmd -port "$epmd_port" -address 127.0.0.1 >>"$dir/log" 2>&1 &
epmd=$!

# An empty environment, so that no RABBITMQ_* of the caller's or of /etc/rabbitmq leads the node elsewhere.
# `detached` makes the server's script become the node instead of waiting for it, so that its PID is the one known here.
# Schedulers that spin a moment before they sleep (Erlang's default, which RabbitMQ turns off) halve the time to start.
env -i "$mark" PATH="$PATH" LANG=C.UTF-8 HOME="$dir" ERL_EPMD_PORT="$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1 \
    detached=yes RABBITMQ_SCHEDULER_BUSY_WAIT_THRESHOLD=medium \
    RABBITMQ_NODENAME=private@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
    RABBITMQ_NODE_PORT="$port" RABBITMQ_DIST_PORT="$dist_port" \
    RABBITMQ_MNESIA_BASE="$dir/data" RABBITMQ_LOG_BASE="$dir/logs" RABBITMQ_LOGS=- \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="$settings" RABBITMQ_SCHEMA_DIR="$dir/schema" RABBITMQ_PID_FILE="$dir/rabbitmq.pid" \
    RABBITMQ_CONF_ENV_FILE="$dir/none" RABBITMQ_CONFIG_FILE="$dir/none" \
    RABBITMQ_ADVANCED_CONFIG_FILE="$dir/none" RABBITMQ_ENABLED_PLUGINS_FILE="$dir/enabled_plugins" \
    setsid "$server" >>"$dir/log" 2>&1 &
node=$!

# The port opens as the last step of booting, so a node that answers the protocol's greeting is ready.
answers() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
        printf 'AMQP\0\0\11\1' >&3
        IFS= read -r -t 2 -n 1 -d '' first <&3 && [ "$first" = $'\1' ]
    ) 2>/dev/null
}
SECONDS=0
until answers; do
    kill -0 "$watcher" 2>/dev/null || exit 0
    kill -0 "$node" 2>/dev/null || broken "the node didn't start"
    [ $SECONDS -lt $READY_SECONDS ] || broken "the node wasn't ready after $READY_SECONDS s"
    sleep 0.05
done
ready=yes
echo "amqp://guest:guest@127.0.0.1:$port/%2f"

# The redirection swallows the shell's own notice of a killed job.
{ wait -n "$node" "$watcher" "$epmd"; } 2>/dev/null
kill -0 "$node" 2>/dev/null && exit 0
[ $keep = no ] && broken "the node died"
fail 1 "the node died; its log is $dir/log"
