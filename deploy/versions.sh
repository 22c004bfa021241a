#!/usr/bin/env bash
# Runs the tests against the servers of several Debian releases, and tells what passed and failed with which versions of them.
#
#   deploy/versions.sh
#
# ONLY names one release, or several in quotes; FILTER narrows the tests down, as cargo's does. Each release lies unpacked in a folder
# of ROOTS (target/versions), a gigabyte each; where one is missing it is made with debootstrap from MIRROR (http://deb.debian.org/debian).
# The programs under test, and all that isn't RabbitMQ or PostgreSQL, are this machine's. Needs root on Debian, in whose folders
# servers of another version can run, and the network where a release is missing.
# Exit code: 0 when all passed, 1 when something failed, 69 where it can't run.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

RELEASES='bookworm trixie forky'

fail() {
    echo "versions: $*" >&2
    exit 69
}

roots=${ROOTS:-$PWD/target/versions}
mirror=${MIRROR:-http://deb.debian.org/debian}
[ "$(id -u)" = 0 ] || fail "only root can run the servers of another release"
[ -z "${KF_AMQP__URL:-}${KF_TEST_POSTGRES_URL:-}" ] || fail "KF_AMQP__URL or KF_TEST_POSTGRES_URL names a server that would be used instead"
mkdir -p "$roots" || fail "can't make the folder $roots"
roots=$(cd "$roots" && pwd)

# Under another name until it is whole. Its servers aren't started: debootstrap sees to that. It may not know newer releases by name.
make_root() { # RELEASE
    [ -d "$roots/$1" ] && return
    command -v debootstrap >/dev/null || fail "debootstrap is missing, which makes the folder of $1: apt-get install debootstrap"
    echo "versions: making $roots/$1, some minutes"
    rm -rf --one-file-system "$roots/$1.unfinished"
    debootstrap --variant=minbase --include=rabbitmq-server,postgresql,openssl "$1" "$roots/$1.unfinished" "$mirror" sid \
        >"$roots/$1.debootstrap.log" 2>&1 || fail "debootstrap failed: $roots/$1.debootstrap.log tells why"
    mv "$roots/$1.unfinished" "$roots/$1"
}

# What a server calls itself when it is really started: the table shall not tell of one that was merely unpacked.
version_of() { # RELEASE SCRIPT PATTERN
    local folder script_in script_out script version
    folder=$(mktemp -d) && chmod 711 "$folder"
    coproc SERVER { KF_TEST_SERVERS_ROOT=$roots/$1 "deploy/$2" "$folder/server" 2>"$folder/complaints"; }
    script=$SERVER_PID script_out=${SERVER[0]} script_in=${SERVER[1]}
    read -r _ <&"$script_out" || cat "$folder/complaints" >&2
    exec {script_in}>&-
    wait "$script"
    version=$(grep -aoPm1 "$3\\K[0-9.]+" "$folder/server/log")
    rm -rf "$folder"
    [ -n "$version" ] && echo "$version"
}

# All counts of cargo's lines of results together.
count() { # passed|failed LOG
    grep '^test result: ' "$2" | grep -o "[0-9]* $1" | awk '{ sum += $1 } END { print sum + 0 }'
}

deploy/prerequisites.sh tests || exit 69
cargo build --locked --bins --tests --examples || exit 1

verdict=0 table=()
for release in ${ONLY:-$RELEASES}; do
    make_root "$release"
    rabbitmq=$(version_of "$release" private-rabbitmq.sh 'Starting RabbitMQ ') || fail "RabbitMQ of $release doesn't start"
    postgres=$(version_of "$release" private-postgres.sh 'starting PostgreSQL ') || fail "PostgreSQL of $release doesn't start"
    echo "versions: $release, RabbitMQ $rabbitmq and PostgreSQL $postgres; the tests write to $roots/$release.log"
    KF_TEST_SERVERS_ROOT=$roots/$release cargo test --locked --no-fail-fast --lib --test it -- ${FILTER:+"$FILTER"} >"$roots/$release.log" 2>&1
    code=$?
    grep '^test .* FAILED$' "$roots/$release.log"
    passed=$(count passed "$roots/$release.log") failed=$(count failed "$roots/$release.log")
    # A filter that fits nothing has shown nothing.
    [ $code = 0 ] && [ "$passed" -gt 0 ] || verdict=1
    table+=("$(printf '%-10s  %-10s  %-10s  %6s  %6s' "$release" "$rabbitmq" "$postgres" "$passed" "$failed")")
done
printf '\n%-10s  %-10s  %-10s  %6s  %6s\n' Debian RabbitMQ PostgreSQL passed failed
printf '%s\n' "${table[@]}"
exit $verdict
