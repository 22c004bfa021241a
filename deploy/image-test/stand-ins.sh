#!/usr/bin/env bash
# The images of the FROM lines: pulled where a registry can be reached, else made of Debian's packages and the machine's own Rust.

# What the Dockerfile's ARG says.
from_line() { sed -n "s/^ARG $1=//p" Dockerfile; }

make_stand_ins() {
    BUILD_FROM=$(from_line BUILD_IMAGE) RUN_FROM=$(from_line RUN_IMAGE)
    [ -n "$BUILD_FROM" ] && [ -n "$RUN_FROM" ] || fail "the Dockerfile names no BUILD_IMAGE or RUN_IMAGE"
    TOOLCHAIN=$(rustc --print sysroot) || fail "there is no Rust whose toolchain could stand in"
    have "$BUILD_FROM" || pull "$BUILD_FROM" || stand_in_for_rust
    have "$RUN_FROM" || pull "$RUN_FROM" || stand_in_for_distroless
    is_stand_in "$BUILD_FROM" && found "build stage" "a stand-in for $BUILD_FROM, $(rustc --version | cut -d' ' -f1,2)"
    is_stand_in "$RUN_FROM" && found "run stage" "a stand-in for $RUN_FROM"
    return 0
}

have() { podman image exists "$1"; }
is_stand_in() { [ "$(podman image inspect --format '{{index .Labels "stand-in"}}' "$1" 2>/dev/null)" = yes ]; }

pull() {
    say "pulling $1"
    timeout 300 podman pull --quiet "$1" >/dev/null 2>&1 8>&-
}

# Debian with a C compiler. The toolchain is too large to be copied; it is mounted while the image is built.
stand_in_for_rust() {
    local mirror
    say "$BUILD_FROM can't be pulled: making a stand-in of Debian 12 and gcc (a minute or two)"
    mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[.*\] \)\?\([^ ]*\) .*/\2/p' /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list \
        2>/dev/null | head -n 1)
    rm -rf "$WORK/rust"
    debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev bookworm "$WORK/rust" \
        "${mirror:-http://deb.debian.org/debian}" >"$WORK/debootstrap.log" 2>&1 || {
        tail -n 3 "$WORK/debootstrap.log" >&2
        fail "debootstrap could not make a Debian"
    }
    mkdir -p "$WORK/rust/usr/local/rust" "$WORK/rust/usr/local/cargo"
    tar -C "$WORK/rust" --exclude=./var/cache/apt --exclude=./var/lib/apt/lists -c . | podman import --change 'LABEL stand-in=yes' \
        --change 'ENV CARGO_HOME=/usr/local/cargo' \
        --change 'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        - "$BUILD_FROM" >/dev/null 2>&1 || fail "podman could not import the stand-in for Rust"
    rm -rf "$WORK/rust"
}

# What the real one holds and a Rust program uses: the C library, certificates, time zones, and the user 65532. No shell.
stand_in_for_distroless() {
    local root=$WORK/distroless packages=(libc6 libgcc-s1 gcc-12-base ca-certificates tzdata base-files netbase) deb
    say "$RUN_FROM can't be pulled: making a stand-in of ${packages[*]}"
    rm -rf "$root" "$WORK/debs"
    mkdir -p "$root"/{etc/ssl/certs,home/nonroot} "$WORK/debs"
    (cd "$WORK/debs" && apt-get -o APT::Sandbox::User=root -t bookworm download "${packages[@]}") >"$WORK/apt.log" 2>&1 ||
        fail "apt-get could not download them: $(tail -n 2 "$WORK/apt.log")"
    for deb in "$WORK"/debs/*.deb; do dpkg-deb -x "$deb" "$root" || fail "$deb can't be unpacked"; done
    cat "$root"/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
    printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
    chown 65532:65532 "$root/home/nonroot"
    tar -C "$root" -c . | podman import --change 'LABEL stand-in=yes' --change 'USER 65532' --change 'WORKDIR /home/nonroot' \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' - "$RUN_FROM" >/dev/null 2>&1 ||
        fail "podman could not import the stand-in for distroless"
    rm -rf "$root" "$WORK/debs"
}
