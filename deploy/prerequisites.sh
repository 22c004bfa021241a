#!/usr/bin/env bash
# Sees to what the demo and the tests need: Rust, a C compiler and the servers, which it installs where they are missing.
#
#   prerequisites.sh [servers | tests | validation | fuzzing]
#
# Says nothing when all is there. The demo needs RabbitMQ, and not even that where KF_AMQP__URL names a broker. With `servers`
# PostgreSQL and PgBouncer are needed too, and all of them here whatever is named, for runs that kill servers of their own.
# With `tests` also Prometheus, which judges the alerts and dashboards, Chromium, which looks at the status page, OpenSSL, libfaketime,
# which gives a worker a wrong clock, and Python and Node.js, whose libraries speak with the worker.
# With `validation` nothing but what judges the files under deploy/ and the AsyncAPI document; with `fuzzing` nothing but a C++
# compiler, for libFuzzer.
set -uo pipefail

fail() {
    echo "$*" >&2
    exit 1
}

command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs."
command -v cc >/dev/null || fail "A C compiler (cc) is missing: install one, on Debian with \`apt-get install gcc libc6-dev\`."

# For each of Debian's packages: what people call it, and its program, or the place where it puts it.
declare -A name=([rabbitmq-server]=RabbitMQ [postgresql]=PostgreSQL [pgbouncer]=PgBouncer [prometheus]=Prometheus [chromium]=Chromium
    [systemd]=systemd [openssl]=OpenSSL [libfaketime]=libfaketime [python3-venv]="Python's venv" [nodejs]=Node.js [npm]=npm
    [g++]="A C++ compiler")
declare -A program=(
    [rabbitmq-server]='/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server'
    [postgresql]='/usr/lib/postgresql/*/bin/initdb'
    [pgbouncer]='/usr/sbin/pgbouncer'
    [prometheus]='/usr/bin/promtool'
    [chromium]='/usr/bin/chromium'
    [systemd]='/usr/bin/systemd-analyze'
    [openssl]=openssl
    [libfaketime]='/usr/lib/*/faketime/libfaketime.so.1'
    [python3-venv]='/usr/lib/python3*/ensurepip/__init__.py'
    [nodejs]=node
    [npm]=npm
    [g++]=c++
)
# Where only a name stands, any place on the path will do: Node.js often comes from elsewhere than Debian.
is_there() {
    case ${program[$1]} in
    /*) compgen -G "${program[$1]}" ;;
    *) command -v "${program[$1]}" ;;
    esac >/dev/null
}

case "${1:-}" in
tests) needed=(rabbitmq-server postgresql pgbouncer prometheus chromium openssl libfaketime python3-venv nodejs npm) ;;
servers) needed=(rabbitmq-server postgresql pgbouncer) ;;
validation) needed=(prometheus systemd openssl python3-venv nodejs npm) ;;
fuzzing) needed=(g++) ;;
*) if [ -n "${KF_AMQP__URL:-}" ]; then needed=(); else needed=(rabbitmq-server); fi ;;
esac
missing=()
for package in "${needed[@]}"; do is_there "$package" || missing+=("$package"); done
[ ${#missing[@]} -gt 0 ] || exit 0

# `A`, `A and B`, `A, B and C`.
sentence() {
    local text=$1
    shift
    while [ $# -gt 1 ]; do
        text+=", $1"
        shift
    done
    echo "$text${1:+ and $1}"
}
names=()
for package in "${missing[@]}"; do names+=("${name[$package]}"); done
what=$(sentence "${names[@]}")
packages=$(sentence "${missing[@]}")
if [ ${#missing[@]} = 1 ]; then
    are=is these="package $packages" their="its service is" each=it
else
    are=are these="packages $packages" their="their services are" each=them
fi

by_hand="Install $what by hand."
[ -n "${1:-}" ] || by_hand="Install $what by hand, or name a broker by KF_AMQP__URL=amqp://user:password@host:5672/%2f."
command -v apt-get >/dev/null || fail "$what $are missing, and there is no apt-get to install $each with. $by_hand"
sudo=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "$what $are missing, and installing $each needs root or sudo. $by_hand"
    sudo=(sudo)
fi

echo "$what $are missing: installing Debian's $these with apt-get (a minute or so; $their not started)."
log=$(mktemp)
# The packages would start servers of their own, now and at every boot: a policy forbids the first, `disable` the second.
# A policy that the machine has already is left alone.
policy=/usr/sbin/policy-rc.d
# PostgreSQL's would also make a database cluster, which nobody asked for: another file beside what the operator has set says no.
no_cluster=/etc/postgresql-common/createcluster.d/kf-worker.conf
ours=()
clean_up() {
    [ ${#ours[@]} -gt 0 ] && "${sudo[@]}" rm -f "${ours[@]}"
    # Nobody's either, where nothing else is in it.
    [[ " ${ours[*]} " != *" $no_cluster "* ]] || "${sudo[@]}" rmdir "$(dirname "$no_cluster")" 2>/dev/null
    rm -f "$log"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP
# Writes a file with the given mode until the end of this script.
for_now() {
    ours+=("$1")
    if ! { "${sudo[@]}" mkdir -p "$(dirname "$1")" && "${sudo[@]}" tee "$1" >/dev/null && "${sudo[@]}" chmod "$2" "$1"; }; then
        fail "Can't write $1. $by_hand"
    fi
}
[ -e "$policy" ] || for_now "$policy" 755 < <(printf '#!/bin/sh\nexit 101\n')
# PgBouncer's package brings the tools for clusters too, but no server that one could be made for.
[[ " ${missing[*]} " != *" postgresql "* ]] || for_now "$no_cluster" 644 < <(echo 'create_main_cluster = false')

# Old package lists may do, so that only the installation's own failure counts.
"${sudo[@]}" apt-get update >>"$log" 2>&1
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1 </dev/null || {
    tail -n 15 "$log" >&2
    fail "apt-get could not install $packages. $by_hand"
}
# Each package's service has the package's name, where it has one.
if command -v systemctl >/dev/null; then
    for package in "${missing[@]}"; do "${sudo[@]}" systemctl disable "$package" >>"$log" 2>&1; done
fi
for package in "${missing[@]}"; do is_there "$package" || fail "$package is installed, but there is no ${program[$package]}. $by_hand"; done
