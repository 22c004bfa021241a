#!/usr/bin/env bash
# Sees to what the demo and the tests need: Rust, a C compiler, and RabbitMQ, which it installs where it is missing.
#
# Says nothing when all is there. Where KF_AMQP__URL names a broker RabbitMQ is only needed with the argument `own-nodes`: the
# tests kill nodes, and so need some of their own.
set -uo pipefail

fail() {
    echo "$*" >&2
    exit 1
}

command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs."
command -v cc >/dev/null || fail "A C compiler (cc) is missing: install one, on Debian with \`apt-get install gcc libc6-dev\`."

rabbitmq_is_there() { compgen -G '/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server' >/dev/null; }
[ -n "${KF_AMQP__URL:-}" ] && [ "${1:-}" != own-nodes ] && exit 0
rabbitmq_is_there && exit 0

by_hand="Install RabbitMQ by hand, or name a broker by KF_AMQP__URL=amqp://user:password@host:5672/%2f."
command -v apt-get >/dev/null || fail "RabbitMQ is missing, and there is no apt-get to install it with. $by_hand"
sudo=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "RabbitMQ is missing, and installing it needs root or sudo. $by_hand"
    sudo=sudo
fi

echo "RabbitMQ is missing: installing Debian's package rabbitmq-server with apt-get (a minute or so; its service is not started)."
log=$(mktemp)
# The package would start a broker of its own, now and at every boot: a policy forbids the first, `disable` the second.
# A policy that the machine has already is left alone.
policy=/usr/sbin/policy-rc.d
ours=no
clean_up() {
    [ $ours = yes ] && $sudo rm -f "$policy"
    rm -f "$log"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP
if [ ! -e "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null && $sudo chmod +x "$policy" || fail "Can't write $policy. $by_hand"
fi
# Old package lists may do, so that only the installation's own failure counts.
$sudo apt-get update >>"$log" 2>&1
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends rabbitmq-server >>"$log" 2>&1 </dev/null || {
    tail -n 15 "$log" >&2
    fail "apt-get could not install rabbitmq-server. $by_hand"
}
command -v systemctl >/dev/null && $sudo systemctl disable rabbitmq-server >>"$log" 2>&1
rabbitmq_is_there || fail "rabbitmq-server is installed, but not in /usr/lib/rabbitmq. $by_hand"
