#!/usr/bin/env bash
# Plays the demo with the worker and the simulator of the image: its commands go through RabbitMQ, and it checks each result.

play_the_demo() {
    say "building the demo, which publishes the commands and checks the results"
    nice -n 10 cargo build --locked --quiet --example demo 8>&- 9>&- || fail "the demo can't be built"
    write_programs
    say "playing the demo with containers"
    # The folder of its configuration is what the containers see of the machine.
    mkdir -p "$RUN/demo"
    KF_DEMO_PROGRAMS=$RUN/programs KF_AMQP__URL=$(cat "$RUN/broker.url") TMPDIR=$RUN/demo \
        cargo run --locked --quiet --example demo 8>&- 9>&- | tee "$RUN/demo.log" | sed 's/^/    /'
    [ "${PIPESTATUS[0]}" = 0 ] || fail "the demo did not go as it should"
    podman rm --force --volumes --time 1 kf-image-test-demo-wechat-simulator >/dev/null 2>&1
    found "demo's commands, each result checked" "$(grep -c ' demo-[0-9]' "$RUN/demo.log")"
}

# Scripts with the programs' names, which the demo starts and stops as it would the programs.
write_programs() {
    local program
    mkdir -p "$RUN/programs"
    for program in kf-worker wechat-simulator; do
        cat >"$RUN/programs/$program" <<SCRIPT
#!/bin/sh
# The demo's configuration is its owner's alone to read, and that is the image's user here.
chown -R 65532:65532 "$RUN/demo"
# The environment goes before the demo's configuration: the ledger lies in the image's volume.
exec podman run --rm --name kf-image-test-demo-$program ${LOCKED_DOWN[*]} --no-healthcheck -v "$RUN/demo:$RUN/demo:ro" \\
    -e KF_LEDGER__URL=sqlite:/var/lib/kf-worker/kf-ledger.db --entrypoint $program $IMAGE "\$@"
SCRIPT
        chmod 755 "$RUN/programs/$program"
    done
}
