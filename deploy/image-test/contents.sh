#!/usr/bin/env bash
# Looks at the image itself: what is in it, what it says of itself, and what must not be there.

LARGEST_MB=60

look_inside() {
    local root base size label
    say "looking inside"
    size=$(podman image inspect --format '{{.Size}}' "$IMAGE")
    [ "$size" -lt $((LARGEST_MB * 1000000)) ] || fail "the image has $((size / 1000000)) MB, more than $LARGEST_MB"
    found "size" "$((size / 1000000)) MB"
    should_be "user" 65532:65532 "$(setting .User)"
    should_be "entry point and command" '["kf-worker"] ["run"]' "$(setting 'json .Entrypoint') $(setting 'json .Cmd')"
    should_be "stop signal" SIGTERM "$(setting .StopSignal)"
    should_be "volume" '{"/var/lib/kf-worker":{}}' "$(setting 'json .Volumes')"
    should_be "health check" '["CMD","kf-worker","healthcheck"]' "$(podman image inspect --format '{{json .HealthCheck.Test}}' "$IMAGE")"
    for label in title description licenses version revision; do
        [ -n "$(label $label)" ] || fail "the label $label is missing"
    done
    should_be "labelled version" "$VERSION" "$(label version)"
    should_be "labelled revision" "$REVISION" "$(label revision)"

    root=$(podman image mount "$IMAGE") || fail "the image can't be mounted"
    base=$(podman image mount "$RUN_FROM") || fail "its base can't be mounted"
    look_at_files "$root" "$base"
    podman image unmount "$IMAGE" >/dev/null
    podman image unmount "$RUN_FROM" >/dev/null
    look_for_secrets
}

setting() { podman image inspect --format "{{with .Config}}{{$1}}{{end}}" "$IMAGE"; }
label() { podman image inspect --format "{{index .Labels \"org.opencontainers.image.$1\"}}" "$IMAGE"; }

# Only what was meant to be added is there, so that nothing of the build's surroundings has come along.
look_at_files() {
    local root=$1 base=$2 added shells wanted
    wanted=$(printf '%s\n' usr/local/bin/kf-worker usr/local/bin/wechat-simulator usr/share/doc/kf-worker \
        usr/share/doc/kf-worker/LICENSE var/lib/kf-worker)
    added=$(LC_ALL=C comm -13 <(names_in "$base") <(names_in "$root") | grep -vxE 'usr/local|usr/local/bin|var/lib|usr/share/doc')
    [ "$added" = "$wanted" ] || fail "the image has other files than it should: $(diff <(echo "$wanted") <(echo "$added") | paste -sd ' ')"
    found "files beside the base" "the two programs, the licence, the ledger's folder"
    should_be "owner of /var/lib, and of the ledger's folder" "0:0 65532:65532" \
        "$(stat -c %u:%g "$root/var/lib" "$root/var/lib/kf-worker" | paste -sd ' ')"
    should_be "owner and mode of the programs" "0:0 755 0:0 755" "$(stat -c '%u:%g %a' "$root"/usr/local/bin/* | paste -sd ' ')"
    shells=$(cd "$root" && find . \( -type f -o -type l \) \
        \( -name '*sh' -path '*/bin/*' -o -name busybox -o -name apt-get -o -name dpkg -o -name 'perl*' -path '*/bin/*' \))
    should_be "shells and package managers" "" "$shells"
    [ -z "$(find "$root" -xdev -perm /6000 -type f)" ] || fail "there are programs in the image that change the user"
}

names_in() { (cd "$1" && find . -mindepth 1 -printf '%P\n' | LC_ALL=C sort); }

# Nothing that could be a secret is told by the environment or by the steps that made the image.
look_for_secrets() {
    local names suspicious
    names=$(podman image inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$IMAGE" | sed -n 's/=.*//p' | sort | paste -sd ' ')
    should_be "environment of the image" "PATH SSL_CERT_FILE" "$names"
    suspicious=$(podman history --no-trunc --format '{{.CreatedBy}}' "$IMAGE" | grep -iE 'secret|passw|token|amqps?://|postgres://')
    should_be "steps that tell of secrets" "" "$suspicious"
}
