#!/usr/bin/env bash
# Prints RabbitMQ definitions with the hashes of passwords filled in, to be imported or loaded at the start.
#
#   deploy/rabbitmq/make-definitions.sh [--vhost VHOST] FOLDER [FILE]
#
# FOLDER holds a file with the password of each user, named after the user; an end of line behind it doesn't count. A user
# without a file gets no password: nobody logs in as it with one, but a client certificate of that name still does. FILE is
# definitions.json beside this script; name topology.json there to give it another VHOST as well. VHOST takes the place of `/`.
# What is printed is as secret as a password file of Unix: keep it from others with `umask 077`. Needs openssl.
# Exit code: 0 when all was printed, 1 with a sentence when something is missing.
set -euo pipefail

fail() {
    echo "make-definitions: $*" >&2
    exit 1
}

vhost=/
if [ "${1:-}" = --vhost ]; then
    [[ ${2:-} =~ ^[A-Za-z0-9/._-]+$ ]] || fail "--vhost wants a name of letters, digits and /._-"
    vhost=$2
    shift 2
fi
[ $# = 1 ] || [ $# = 2 ] || fail "usage: make-definitions.sh [--vhost VHOST] FOLDER [FILE]"
folder=$1
file=${2:-$(dirname "$0")/definitions.json}
[ -d "$folder" ] || fail "there is no folder $folder with a password file for each user"
[ -r "$file" ] || fail "there is no file $file"
command -v openssl >/dev/null || fail "openssl is missing (apt-get install openssl)"

# RabbitMQ's own form: base64 of four random bytes and the SHA-256 of these and the password. `rabbitmqctl hash_password` makes the
# same, but takes the password in its command line, which everybody on the machine can see.
hash_of() {
    local password salt
    password=$(cat "$1") || fail "$1 can't be read"
    [ -n "$password" ] || fail "$1 is empty"
    salt=$(openssl rand -hex 4 | sed 's/../\\x&/g')
    {
        printf '%b' "$salt"
        { printf '%b' "$salt"; printf '%s' "$password"; } | openssl dgst -sha256 -binary
    } | openssl base64 -A
}

# Each user stands in a line of its own. Nothing is printed before all is known.
text=
while IFS= read -r line; do
    if [[ $line =~ \"name\":\ \"([^\"]+)\",\ \"password_hash\":\ \"\" && -e $folder/${BASH_REMATCH[1]} ]]; then
        hash=$(hash_of "$folder/${BASH_REMATCH[1]}")
        line=${line/'"password_hash": ""'/"\"password_hash\": \"$hash\""}
    fi
    line=${line//'"vhost": "/"'/"\"vhost\": \"$vhost\""}
    text+=${line/'"vhosts": [{ "name": "/" }]'/"\"vhosts\": [{ \"name\": \"$vhost\" }]"}$'\n'
done <"$file"
printf '%s' "$text"
