#!/usr/bin/env bash
# Builds the image, each step a layer that the next run finds again.

build() {
    local began=$SECONDS version revision log=$WORK/build.log arguments=()
    version=$(sed -n '0,/^version = /s/^version = "\(.*\)"/\1/p' Cargo.toml)
    revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
    # The machine's certificates, for registries of crates that it reaches through a proxy of its own.
    arguments=(--pull-never -v /etc/ssl/certs:/etc/ssl/certs:ro)
    if is_stand_in "$BUILD_FROM"; then arguments+=(-v "$TOOLCHAIN:/usr/local/rust:ro"); fi
    say "building the image (some minutes at first; $STORAGE_DRIVER_USED storage)"
    # The docker format, since OCI's knows no health check.
    nice -n 10 buildah bud --format docker --layers --isolation chroot --network host "${arguments[@]}" \
        --build-arg VERSION="$version" --build-arg REVISION="$revision" --tag "$IMAGE" . >"$log" 2>&1 8>&- &
    # Waited for, since a signal is heeded only between commands.
    builder=$!
    wait $builder || { tail -n 15 "$log" >&2; fail "the image can't be built; all of it is in $log"; }
    VERSION=$version REVISION=$revision
    found "build" "$((SECONDS - began)) s, $(compiled "$log")"
}

# What the second compilation had to do: nothing, or this package alone, since all others are in the layer before.
compiled() {
    local packages
    packages=$(sed -n '/cargo build --frozen/,$ s/^ *Compiling \([^ ]*\) .*/\1/p' "$1" | sort -u | paste -sd ' ')
    case $packages in
    '') echo "nothing compiled" ;;
    kf-worker) if grep -q 'Compiling libc ' "$1"; then echo "dependencies and program compiled"; else echo "kf-worker alone compiled"; fi ;;
    *) fail "dependencies were compiled outside their layer: $packages" ;;
    esac
}
