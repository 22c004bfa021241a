#!/usr/bin/env bash
# What the steps of image-test.sh share: how they speak and fail, the container engine in a folder of its own, and the end of it all.

WORK=$PWD/target/image-test
# What only one run needs, secrets among it; removed at its end.
RUN=$WORK/run
IMAGE=localhost/kf-worker:image-test
# As an operator would start it; without even the temporary file systems that podman gives a read-only container.
LOCKED_DOWN=(--read-only --read-only-tmpfs=false --cap-drop ALL --security-opt no-new-privileges --network host)
# How long anything may take to become what it should.
PATIENCE=60
results=()

say() { echo "image-test: $*"; }

fail() {
    echo "image-test: FAILED: $*" >&2
    exit 1
}

# `found WHAT VALUE`: WHAT is as it should be.
found() {
    results+=("$1|$2")
    say "  $1: $2"
}

# `should_be WHAT WANTED ACTUAL`
should_be() {
    [ "$2" = "$3" ] || fail "$1 should be \"$2\" and is \"$3\""
    found "$1" "${3:-none}"
}

# `eventually WHAT COMMAND…`: tries again until it succeeds or patience ends.
eventually() {
    local what=$1 until=$((SECONDS + PATIENCE))
    shift
    until "$@" >"$RUN/last" 2>&1; do
        [ $SECONDS -lt $until ] || fail "$what: not within $PATIENCE s; the last that was heard: $(tail -n 3 "$RUN/last")"
        sleep 0.1
    done
}

show_results() {
    echo
    printf '%s\n' "${results[@]}" | column -t -s '|'
    echo
    say "all of it is as it should be (${SECONDS} s)"
}

# What watches a container lives as long as that, and must hold neither the lock nor the broker's standard input for so long.
podman() { command podman "$@" 8>&- 9>&-; }

prepare() {
    [ "$(id -u)" = 0 ] || { say "wants root: containers with a user of their own, and the stand-ins, are made by root" >&2; exit 69; }
    install_missing
    mkdir -p "$WORK"/{storage,store-run,engine-run} || fail "can't make $WORK"
    exec 8>"$WORK/lock"
    flock --nonblock 8 || fail "another run is at work in $WORK"
    configure_engine
    # A run that was killed may have left containers behind.
    remove_containers
    trap clean_up EXIT
    trap 'exit 130' INT TERM HUP
    rm -rf "$RUN"
    mkdir -p "$RUN" || fail "can't make $RUN"
}

install_missing() {
    local missing=() program
    # On the path: the function of that name above is none.
    for program in buildah podman runc debootstrap catatonit; do type -P $program >/dev/null || missing+=("$program"); done
    command -v column >/dev/null || missing+=(bsdextrautils)
    if [ ${#missing[@]} -gt 0 ]; then
        say "${missing[*]} missing: installing from Debian with apt-get"
        mkdir -p "$WORK"
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
            >"$WORK/apt.log" 2>&1 </dev/null || { tail -n 5 "$WORK/apt.log" >&2; say "apt-get could not install them" >&2; exit 69; }
    fi
    # Podman's package has it listen for programs that want to be given containers; nobody asked for that.
    if [[ " ${missing[*]} " == *" podman "* ]] && command -v systemctl >/dev/null; then
        systemctl disable --now podman.socket podman.service >>"$WORK/apt.log" 2>&1
    fi
    KF_AMQP__URL='' deploy/prerequisites.sh || exit 69
}

# Nothing of the machine's own containers and settings is used or touched.
configure_engine() {
    local driver=vfs
    # Layers that share files are much quicker; not every machine has them.
    mkdir -p "$WORK"/overlay/{lower,upper,work,merged}
    if mount -t overlay overlay -o "lowerdir=$WORK/overlay/lower,upperdir=$WORK/overlay/upper,workdir=$WORK/overlay/work" \
        "$WORK/overlay/merged" 2>/dev/null; then
        umount "$WORK/overlay/merged"
        driver=overlay
    fi
    rm -rf "$WORK/overlay"
    printf '[storage]\ndriver = "%s"\ngraphroot = "%s"\nrunroot = "%s"\n' "$driver" "$WORK/storage" "$WORK/store-run" >"$WORK/storage.conf"
    # None of it asks for systemd, and the limits are below what any machine allows.
    cat >"$WORK/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
tmp_dir = "$WORK/engine-run"
CONF
    export CONTAINERS_CONF=$WORK/containers.conf CONTAINERS_STORAGE_CONF=$WORK/storage.conf
    # Health checks are run by hand here, and not by timers of systemd's, which may not be there.
    export DISABLE_HC_SYSTEMD=true
    STORAGE_DRIVER_USED=$driver
}

# A port on which nobody listens now, in `free`; each run looks from a place of its own.
next_port=$((30000 + $$ % 2000))
free_port() {
    while (exec 3<>"/dev/tcp/127.0.0.1/$next_port") 2>/dev/null; do next_port=$((next_port + 1)); done
    free=$next_port
    next_port=$((next_port + 1))
}

# What an address answers to a GET; exit code 1 where that isn't 200.
get() {
    local answer host=${1%%/*}
    answer=$(
        exec 3<>"/dev/tcp/${host/:/\/}" || exit 1
        printf 'GET /%s HTTP/1.0\r\nHost: localhost\r\n\r\n' "${1#*/}" >&3
        cat <&3
    ) 2>/dev/null || return 1
    echo "$answer" | tail -n 1
    [[ $answer == 'HTTP/1.'?' 200 '* ]]
}

# The private broker, in `$RUN/broker` and on `$broker_port`. It ends when descriptor 9 is closed.
start_broker() {
    [ -p "$RUN/broker.stdin" ] || mkfifo "$RUN/broker.stdin"
    exec 9<>"$RUN/broker.stdin"
    deploy/private-rabbitmq.sh "$RUN/broker" "$broker_port" <"$RUN/broker.stdin" >"$RUN/broker.url" 2>"$RUN/broker.err" 9>&- 8>&- &
    broker=$!
    eventually "the private RabbitMQ" grep -q amqp "$RUN/broker.url"
}

# Those that run and those in which something was built; all of them are in this test's own storage.
remove_containers() {
    podman pod rm --all --force >/dev/null 2>&1
    podman rm --all --force --volumes --time 1 >/dev/null 2>&1
    buildah rm --all >/dev/null 2>&1
    unmount_all
}

unmount_all() {
    local place
    # A step that failed leaves images mounted, and the storage its own folder on itself; the last mounted goes first.
    awk -v below="$WORK/storage/" 'index($2, below) == 1 { print $2 }' /proc/mounts | tac | while read -r place; do umount "$place"; done
}

clean_up() {
    local code=$?
    trap '' INT TERM HUP
    [ $code -eq 0 ] || say "stopping and removing what was started" >&2
    # With buildah ends what it runs.
    [ -z "${builder:-}" ] || { kill -TERM "$builder"; wait "$builder"; } 2>/dev/null
    remove_containers
    exec 9>&-
    [ -z "${broker:-}" ] || { kill -TERM "$broker"; wait "$broker"; } 2>/dev/null
    rm -rf "$RUN"
    exit $code
}

clean() {
    if [ -e "$WORK/storage.conf" ]; then
        export CONTAINERS_CONF=$WORK/containers.conf CONTAINERS_STORAGE_CONF=$WORK/storage.conf
        remove_containers
    fi
    unmount_all
    rm -rf "$WORK" 2>/dev/null || fail "$WORK can't be removed; something of it may still be mounted"
}
