#!/usr/bin/env bash
# Runs the image: without a broker, with one, told to read its accounts again, and told to stop.

WORKER=kf-image-test
# The AppSecret, which nothing may tell.
SECRET=canary-of-the-secret
SIMULATOR=kf-image-test-simulator
# The worker's default of `worker.drain`.
DRAIN=20

run_it() {
    say "running the worker, with a simulated WeChat from the same image"
    start_simulator
    make_secrets
    free_port && admin=127.0.0.1:$free
    start_worker
    look_at_process
    without_broker
    say "starting a private RabbitMQ"
    start_broker
    with_broker
    stop_worker
}

# Its address, in `wechat`.
start_simulator() {
    podman run --detach --name $SIMULATOR "${LOCKED_DOWN[@]}" --no-healthcheck --entrypoint wechat-simulator "$IMAGE" \
        --listen 127.0.0.1:0 --account test:wx0123456789abcdef:$SECRET >/dev/null || fail "the simulator can't be started"
    eventually "the simulator" simulator_listens
    wechat=$(podman logs $SIMULATOR 2>/dev/null | sed -n 's|.*http://||p')
    found "simulator" "listens on 127.0.0.1"
}
simulator_listens() { podman logs $SIMULATOR 2>/dev/null | grep http://; }

# As files that only the worker's user can read.
make_secrets() {
    free_port && broker_port=$free
    mkdir -m 0700 "$RUN/secrets"
    printf 'amqp://guest:guest@127.0.0.1:%s/%%2f' "$broker_port" >"$RUN/secrets/amqp-url"
    printf %s $SECRET >"$RUN/secrets/app-secret"
    chmod 0400 "$RUN"/secrets/* && chown -R 65532:65532 "$RUN/secrets"
}

# All of its settings come from the environment; its secrets don't.
start_worker() {
    podman run --detach --name $WORKER "${LOCKED_DOWN[@]}" -v "$RUN/secrets:/run/secrets:ro" \
        -e KF_AMQP__URL_FILE=/run/secrets/amqp-url -e KF_WECHAT__BASE_URL="http://$wechat" -e KF_ADMIN__LISTEN="$admin" \
        -e KF_OFFICIAL_ACCOUNT__0__WECHAT_ID=test -e KF_OFFICIAL_ACCOUNT__0__APP_ID=wx0123456789abcdef \
        -e KF_OFFICIAL_ACCOUNT__0__APP_SECRET_FILE=/run/secrets/app-secret "$IMAGE" >/dev/null || fail "the worker can't be started"
}

# What the kernel says of the running process.
look_at_process() {
    local pid status
    pid=$(podman inspect --format '{{.State.Pid}}' $WORKER)
    status=$(cat "/proc/$pid/status") || fail "the worker ended at once: $(podman logs --tail 3 $WORKER 2>&1)"
    of() { awk -v key="$1:" '$1 == key { $1 = ""; print substr($0, 2) }' <<<"$status"; }
    should_be "program of the first process" /usr/local/bin/kf-worker "$(readlink "/proc/$pid/exe")"
    should_be "user of the process" "65532 65532 65532 65532" "$(of Uid)"
    should_be "group of the process" "65532 65532 65532 65532" "$(of Gid)"
    should_be "capabilities of the process (permitted, bounding)" "0000000000000000 0000000000000000" "$(of CapPrm) $(of CapBnd)"
    should_be "no new privileges" 1 "$(of NoNewPrivs)"
    [[ ,$(awk '$2 == "/" { print $4 }' "/proc/$pid/mounts"), == *,ro,* ]] || fail "the root file system is mounted for writing"
    if touch "/proc/$pid/root/usr/probe" 2>"$RUN/last"; then fail "the root file system can be written to"; fi
    grep -q 'Read-only file system' "$RUN/last" || fail "writing failed otherwise than it should: $(cat "$RUN/last")"
    found "root file system" "read-only"
    if podman run --rm "${LOCKED_DOWN[@]}" --no-healthcheck --entrypoint sh "$IMAGE" -c true 2>"$RUN/last"; then
        fail "a shell runs in the image"
    fi
}

without_broker() {
    eventually "the admin port" get "$admin/livez"
    if podman healthcheck run $WORKER >"$RUN/last" 2>&1; then fail "it calls itself healthy without a broker"; fi
    if get "$admin/readyz" >"$RUN/last"; then fail "it calls itself ready without a broker"; fi
    found "health without a broker" "unhealthy: $(cat "$RUN/last")"
    should_be "liveness without a broker" 0 "$(podman exec $WORKER kf-worker healthcheck --live >/dev/null 2>&1; echo $?)"
}

with_broker() {
    local volume
    eventually "health with a broker" podman healthcheck run $WORKER
    found "health with a broker" "healthy: $(get "$admin/readyz")"
    volume=$(podman inspect --format '{{range .Mounts}}{{if eq .Type "volume"}}{{.Source}}{{end}}{{end}}' $WORKER)
    should_be "owner of the ledger in the volume" "65532:65532" "$(stat -c %u:%g "$volume/kf-ledger.db")"
    podman kill --signal HUP $WORKER >/dev/null
    eventually "reading the Official Accounts again on SIGHUP" said "were read again"
    found "SIGHUP" "reads the Official Accounts again"
}
said() { podman logs $WORKER 2>&1 | grep -F "$1"; }

stop_worker() {
    local began=$SECONDS
    podman stop --time $((DRAIN + 10)) $WORKER >/dev/null || fail "the worker can't be stopped"
    should_be "exit code on SIGTERM" 0 "$(podman inspect --format '{{.State.ExitCode}}' $WORKER)"
    [ $((SECONDS - began)) -le $DRAIN ] || fail "it took $((SECONDS - began)) s to end, longer than the drain time"
    found "time to end on SIGTERM" "$((SECONDS - began)) s"
    if said $SECRET || podman inspect $WORKER | grep -F $SECRET; then fail "the log or the container tells a secret"; fi
    found "secrets in log and container's settings" "none"
    podman rm --volumes $WORKER >/dev/null
}
