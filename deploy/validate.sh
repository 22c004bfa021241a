#!/usr/bin/env bash
# Checks everything under deploy/ that other programs read: schemas, rights, and that the worker takes what it would be started with;
# and the AsyncAPI document of its messages.
#
#   deploy/validate.sh [ROOT]
#
# ROOT is the repository, this one by default; another one is for showing that a check can fail. Prints a line for each check.
# Installs nothing but Python's and Node's packages in target/validate; the worker is built where it is not, or taken from the folder
# that KF_PROGRAMS names. Exit code 1 where a check fails, after all of them; 69 where something is missing to check with.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repository=$(dirname "$here")
root=$(cd "${1:-$repository}" && pwd) || exit 69
work=$repository/target/validate
checks=$here/validate
failed=0

missing=()
command -v promtool >/dev/null || missing+=(prometheus)
command -v systemd-analyze >/dev/null || missing+=(systemd)
command -v openssl >/dev/null || missing+=(openssl)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if [ ${#missing[@]} -gt 0 ]; then
    echo "validate: to check with, Debian's packages are missing: apt-get install ${missing[*]}" >&2
    exit 69
fi

# Made anew when what is pinned changes.
tools=$work/tools-$(sha256sum <"$checks/requirements.txt" | cut -c1-12)
if [ ! -e "$tools/complete" ]; then
    rm -rf "$work"/tools-*
    install=("$tools/bin/pip" install --quiet --disable-pip-version-check --requirement "$checks/requirements.txt")
    if ! { python3 -m venv "$tools" && "${install[@]}"; }; then
        echo "validate: the checkers can't be installed from PyPI" >&2
        exit 69
    fi
    touch "$tools/complete"
fi
# The same from npm. No package needs to run anything to be installed, and one of them would tell its maker of it.
modules=$work/node-$(sha256sum <"$checks/package-lock.json" | cut -c1-12)
if [ ! -e "$modules/complete" ]; then
    rm -rf "$work"/node-*
    mkdir -p "$modules"
    cp "$checks/package.json" "$checks/package-lock.json" "$modules"
    if ! (cd "$modules" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2); then
        echo "validate: the AsyncAPI parser can't be installed from npm" >&2
        exit 69
    fi
    touch "$modules/complete"
fi
programs=${KF_PROGRAMS:-$repository/target/debug}
[ -n "${KF_PROGRAMS:-}" ] || (cd "$repository" && cargo build --locked --quiet --bins) || exit 69
rendered=$work/rendered
rm -rf "$rendered"
mkdir -p "$rendered"

# Says whether a check holds, with what it printed where it does not.
check() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "ok    $name"
    else
        echo "FAIL  $name"
        [ -z "$output" ] || echo "${output//$root\//}" | sed 's/^/      /'
        failed=1
    fi
}
python() { (cd "$checks" && "$tools/bin/python" -B "$@"); }

# An overlay as it would be applied, and the same with the alerts, as its comment says.
render() {
    local place=$root/deploy/kubernetes
    "$tools/bin/kubectl" kustomize "$place/$1" >"$rendered/${1##*/}.yaml" && [ -s "$rendered/${1##*/}.yaml" ]
}
render_with_alerts() {
    local place=$rendered/with-alerts
    mkdir -p "$place"
    cat >"$place/kustomization.yaml" <<END
resources: [$(realpath --relative-to="$place" "$root/deploy/kubernetes/overlays/fleet-autoscaled")]
components: [$(realpath --relative-to="$place" "$root/deploy/kubernetes/components/monitoring")]
namespace: kf-worker
END
    "$tools/bin/kubectl" kustomize "$place" >"$rendered/alerts.yaml"
}

# kubernetes-validate passes over kinds that it has no schema of; custom_resources.py takes those.
builtin_kinds() {
    "$tools/bin/kubernetes-validate" --strict --quiet --no-warn --kubernetes-version "$1" "$rendered"/*.yaml \
        "$root"/deploy/kubernetes/namespace.yaml "$root"/deploy/kubernetes/*/*/secret.example.yaml
}

made_anew() {
    local place=$root/deploy/kubernetes
    "$place/prometheus-rule.sh" "$rendered/rule" || return 1
    diff "$rendered/rule" "$place/components/monitoring/prometheus-rule.yaml" && return
    echo "run deploy/kubernetes/prometheus-rule.sh"
    return 1
}
same_rules() {
    python - "$root/dashboards/alerts/kf-worker.rules.yml" "$rendered/alerts.yaml" "$rendered/groups.yml" <<'END' || return 1
import sys, yaml
rules = yaml.safe_load(open(sys.argv[1]))
specs = [resource["spec"] for resource in yaml.safe_load_all(open(sys.argv[2])) if resource["kind"] == "PrometheusRule"]
yaml.safe_dump(specs[0], open(sys.argv[3], "w"), allow_unicode=True)
sys.exit(None if specs == [rules] else "the PrometheusRule and dashboards/alerts/kf-worker.rules.yml differ")
END
    promtool check rules "$rendered/groups.yml"
}
prometheus() {
    cp "$root/deploy/compose/prometheus.yml" "$root/dashboards/alerts/kf-worker.rules.yml" "$rendered" &&
        promtool check config "$rendered/prometheus.yml" && rm "$rendered/prometheus.yml"
}

# Secrets for nobody, by the script that an operator runs; only root can give files away.
secrets() {
    local folder faults
    folder=$(mktemp -d) || return 1
    faults=$("$root/deploy/compose/make-secrets.sh" "$folder/secrets" >/dev/null && look_at_secrets "$folder/secrets" 2>&1) ||
        faults="make-secrets.sh failed: $faults"
    rm -rf "$folder"
    echo "$faults"
    [ -z "$faults" ]
}
look_at_secrets() {
    find "$1" -mindepth 1 -perm /0077 -printf '%P can be read by others (%M)\n'
    find "$1/kf-worker" ! -uid 65532 -printf "%P is not the worker's\n"
    sed -n 's/.*"name": "\(.*\)", "password_hash": "".*/\1 has no password/p' "$1/rabbitmq/definitions.json" | grep -v '^kf-worker-checked '
    "$tools/bin/python" -m json.tool "$1/rabbitmq/definitions.json" >/dev/null
}
no_secrets_kept() {
    local kept
    kept=$(git -C "$root" ls-files deploy/compose/secrets 2>/dev/null)
    [ -z "$kept" ] && grep -qx '/secrets/' "$root/deploy/compose/.gitignore"
}

unit=$root/deploy/systemd/kf-worker.service
# With a program in the place of the one that is installed later.
unit_is_sound() {
    sed "s#/usr/local/bin/kf-worker#$(realpath "$programs")/kf-worker#" "$unit" >"$rendered/kf-worker.service"
    local said
    said=$(systemd-analyze verify --man=no "$rendered/kf-worker.service" 2>&1) || said="failed: $said"
    echo "$said"
    [ -z "$said" ]
}
# Offline, as a unit that isn't installed; the threshold is ten times the score.
unit_is_shut_in() { systemd-analyze security --offline=yes --no-pager --threshold=20 "$rendered/kf-worker.service"; }

compose_schema() { "$tools/bin/check-jsonschema" --builtin-schema vendor.compose-spec "$root/deploy/compose.yaml"; }

check "compose.yaml fits the Compose specification" compose_schema
check "compose.yaml: least rights, limits, health, time to end" python compose.py "$root"
check "compose: secrets are kept out of the repository" no_secrets_kept
if [ "$(id -u)" = 0 ]; then
    check "compose: make-secrets.sh, owners and modes" secrets
else
    echo "skip  compose: make-secrets.sh (needs root)"
fi
check "compose: prometheus.yml (promtool)" prometheus
for overlay in base overlays/{single,fleet,fleet-autoscaled,set-partitions,move}; do check "kubernetes: $overlay renders" render "$overlay"; done
check "kubernetes: components/monitoring renders" render_with_alerts
for version in 1.29 1.37; do check "kubernetes: fields of Kubernetes $version" builtin_kinds "$version"; done
check "kubernetes: fields of KEDA and the Prometheus operator" python custom_resources.py "$rendered"/*.yaml
check "kubernetes: the PrometheusRule is made of the alerts" made_anew
check "kubernetes: the PrometheusRule is the alerts (promtool)" same_rules
overlays=("$rendered"/{single,fleet,fleet-autoscaled,set-partitions,move}.yaml)
check "kubernetes: rights, probes, secrets, reach, time to end" python kubernetes.py "$root" "${overlays[@]}"
check "the worker takes every configuration and command line" python configuration.py "$root" "$(realpath "$programs")" "${overlays[@]}"
check "docs/asyncapi.json (AsyncAPI's parser)" node "$checks/asyncapi.mjs" "$modules/node_modules" "$root/docs/asyncapi.json"
if [ -e "$root/Dockerfile" ]; then check "Dockerfile (hadolint)" "$tools/bin/hadolint" "$root/Dockerfile"; fi
if [ -e "$unit" ]; then
    check "kf-worker.service (systemd-analyze verify)" unit_is_sound
    check "kf-worker.service: exposure below 2.0 (systemd-analyze security)" unit_is_shut_in
fi
[ $failed = 0 ] && echo "all well"
exit $failed
