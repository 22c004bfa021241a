"""Holds resources of KEDA and the Prometheus operator to the fields that these define: custom_resources.py RENDERED…

The definitions let unknown fields pass, as the cluster does; here whatever they drop is a fault.
"""

import sys

import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject, TriggerAuthentication
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor

from faults import expect, finish

MODELS = {model.__name__: model for model in (ScaledObject, TriggerAuthentication, PrometheusRule, ServiceMonitor)}
# Their schemas are Kubernetes' own.
BUILT_IN = ("v1", "apps/", "batch/", "networking.k8s.io/", "policy/")


def compare(given, kept, where):
    """Finds the fields that were given and not kept."""
    if isinstance(given, dict):
        for key, value in given.items():
            expect(isinstance(kept, dict) and key in kept, f"{where}.{key} is not a field that there is")
            if isinstance(kept, dict) and key in kept:
                compare(value, kept[key], f"{where}.{key}")
    elif isinstance(given, list):
        for index, value in enumerate(given):
            compare(value, kept[index], f"{where}[{index}]")


seen = set()
for path in sys.argv[1:]:
    for resource in yaml.safe_load_all(open(path)):
        kind, version = resource["kind"], resource["apiVersion"]
        if version.startswith(BUILT_IN):
            continue
        seen.add(kind)
        model = MODELS.get(kind)
        expect(model and version == model.model_fields["api_version"].default, f"{path}: {version} {kind} is not known here")
        if model:
            try:
                kept = model.model_validate(resource).model_dump(mode="json", by_alias=True, exclude_unset=True)
                compare(resource, kept, f"{path}: {kind}")
            except ValueError as error:
                expect(False, f"{path}: {kind}: {error}")
expect(seen == set(MODELS), f"of {sorted(MODELS)} only {sorted(seen)} were there to be checked")
finish()
