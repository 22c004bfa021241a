#!/usr/bin/env bash
# Makes the passwords, certificates and secret files of deploy/compose.yaml, each readable by the one container that needs it.
#
#   sudo deploy/compose/make-secrets.sh [FOLDER]
#
# FOLDER is `secrets` beside this script. What is there already is kept: run it again after removing one file of
# FOLDER/passwords, or a certificate, and that one is made anew with everything that rests on it. Needs root, because
# each file is given to the numeric user of its container (with rootless Podman: `podman unshare` before it), and openssl.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/secrets}

# Who reads each folder: the users that the containers of compose.yaml run as. The passwords of people's tools are for
# whoever has called this.
declare -A owner=(
    [passwords]=0 [authority]=0 [clients]=${SUDO_UID:-0}
    [kf-worker]=65532 [rabbitmq]=999 [postgres]=999 [wechat]=101 [grafana]=472
)

fail() {
    echo "make-secrets: $*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail "the files are given to the containers' users, which takes root: run it with sudo"
command -v openssl >/dev/null || fail "openssl is missing (apt-get install openssl)"

# Nobody else may read what is written here, also before it is given away.
umask 077
new_key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
# Each container is given a folder of its own, and nobody sees what else there is.
for place in "${!owner[@]}"; do
    mkdir -p "$folder/$place"
    chown "${owner[$place]}:${owner[$place]}" "$folder/$place"
done
chmod 0711 "$folder"

# Makes a file of standard input in one step: a container that runs never sees half of it, or one that it can't read.
put() {
    cat >"$folder/$1.new"
    chmod 0400 "$folder/$1.new"
    chown "${owner[${1%%/*}]}:${owner[${1%%/*}]}" "$folder/$1.new"
    mv "$folder/$1.new" "$folder/$1"
}

# 32 random bytes as hexadecimal digits, which need no quoting in a URL, in SQL or in JSON.
password() {
    [ -s "$folder/passwords/$1" ] || openssl rand -hex 32 | put "passwords/$1"
    cat "$folder/passwords/$1"
}

# An authority for this installation alone. Its key stays in this folder.
make_authority() {
    [ ! -s "$folder/authority/ca.pem" ] || return 0
    openssl req -x509 "${new_key[@]}" -days 3650 -subj '/CN=kf-worker compose authority' \
        -addext 'keyUsage=critical,keyCertSign,cRLSign' -keyout "$folder/authority/ca.key" -out "$folder/authority/ca.pem" 2>/dev/null
}

# A server's certificate for the names that clients call it by. One that is missing or has a month left is made anew.
make_certificate() {
    local new=$folder/authority/new names=$2
    if openssl verify -CAfile "$folder/authority/ca.pem" "$folder/$1/server.pem" >/dev/null 2>&1 &&
        openssl x509 -checkend $((30 * 24 * 3600)) -in "$folder/$1/server.pem" >/dev/null; then
        return 0
    fi
    openssl req "${new_key[@]}" -subj "/CN=$1" -addext "subjectAltName=$names" -addext extendedKeyUsage=serverAuth \
        -keyout "$new.key" -out "$new.csr" 2>/dev/null
    openssl x509 -req -in "$new.csr" -copy_extensions copyall -CA "$folder/authority/ca.pem" -CAkey "$folder/authority/ca.key" \
        -CAcreateserial -days 825 -out "$new.pem" 2>/dev/null
    put "$1/server.key" <"$new.key"
    put "$1/server.pem" <"$new.pem"
    rm "$new".*
}

# The users of RabbitMQ that are used here. Its definitions know others, who get no password.
users=(kf-worker hr-onboarding hr-offboarding hr-desk hr-results kf-operator kf-monitoring)

# Who sends and reads by hand does so with the management API, which takes a tag.
make_definitions() {
    local text user
    for user in "${users[@]}"; do password "$user" >/dev/null; done
    text=$("$here/../rabbitmq/make-definitions.sh" "$folder/passwords")
    sed '/"name": "hr-.*"tags"/s/"tags": ""/"tags": "management"/' <<<"$text" | put rabbitmq/definitions.json
}

# What `curl --config FILE` takes, so that no password stands in a command line, which everybody on the machine can see.
make_clients() {
    local user
    for user in "${users[@]:1}"; do
        put "clients/$user.curl" <<<"user = \"$user:$(password "$user")\""
    done
    put clients/ca.pem <"$folder/authority/ca.pem"
}

make_authority
make_certificate rabbitmq DNS:rabbitmq,DNS:localhost,IP:127.0.0.1
make_certificate postgres DNS:postgres
make_certificate wechat DNS:wechat
make_definitions
make_clients
password postgres-superuser | put postgres/superuser-password
password ledger | put postgres/ledger-password
password grafana | put grafana/admin-password
put kf-worker/ca.pem <"$folder/authority/ca.pem"
put kf-worker/amqp-url <<<"amqps://kf-worker:$(password kf-worker)@rabbitmq:5671/%2f"
put kf-worker/ledger-url <<<"postgres://kf:$(password ledger)@postgres:5432/kf?sslmode=verify-full&sslrootcert=/run/secrets/ca.pem"
# The AppSecret of an Official Account is WeChat's to give. Until yours is here, it is the one that the simulator takes.
[ -s "$folder/kf-worker/app-secret-test" ] || put kf-worker/app-secret-test <<<secret
echo "The secrets are in $folder. Start with: docker compose --file $(dirname "$here")/compose.yaml up --detach --build"
