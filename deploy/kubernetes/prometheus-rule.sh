#!/usr/bin/env bash
# Writes the alerts of dashboards/alerts as the Prometheus operator takes them: run it after every change of the rules.
#
#   deploy/kubernetes/prometheus-rule.sh [FILE]
#
# FILE is components/monitoring/prometheus-rule.yaml beside this script. deploy/validate.sh fails where the two differ.
set -euo pipefail
cd "$(dirname "$0")"

{
    cat <<'END'
# Made by deploy/kubernetes/prometheus-rule.sh from dashboards/alerts/kf-worker.rules.yml: change that file, not this one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: kf-worker
  labels:
    release: kube-prometheus-stack
spec:
END
    # From `groups:` on, two blanks deeper.
    sed -n '/^groups:/,$ { s/^./  &/; p }' ../../dashboards/alerts/kf-worker.rules.yml
} >"${1:-components/monitoring/prometheus-rule.yaml}"
