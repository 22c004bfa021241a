#!/usr/bin/env bash
# Builds the image of the Dockerfile without a Docker daemon, runs it as locked down as an operator would, and checks both.
#
#   image-test.sh [MANIFESTS]
#
# MANIFESTS is the kustomization whose Deployment is played as a Pod, deploy/kubernetes/overlays/single where none is given.
# Wants root, on Debian; installs buildah and podman with apt where they are missing. Where the images of the FROM lines can't be
# pulled, stand-ins of the same names are made of Debian's packages and the machine's own Rust.
# Everything lies under target/image-test. What was built is kept there for the next run, which is quick by it; to be rid of it:
# `deploy/image-test.sh clean`. What was started is stopped and removed however it ends. Exit code: 0 where all is as it should
# be, else 1; 69 where a needed program is missing and can't be installed, 130 where it was told to stop.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

PARTS=$PWD/deploy/image-test
# shellcheck source-path=SCRIPTDIR
for part in engine stand-ins build contents running demo pod; do . "$PARTS/$part.sh"; done

if [ "${1:-}" = clean ]; then
    clean
    exit 0
fi
MANIFESTS=${1:-deploy/kubernetes/overlays/single}
[ -d "$MANIFESTS" ] || fail "there is no folder $MANIFESTS to take a Pod from"

prepare
make_stand_ins
build
look_inside
run_it
play_the_demo
play_a_pod
show_results
