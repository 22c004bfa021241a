"""Holds the rendered overlays to what a schema can't say: kubernetes.py ROOT RENDERED-OVERLAY…"""

import pathlib
import re
import sys
import tomllib

import yaml

from faults import expect, finish, seconds

root = pathlib.Path(sys.argv[1])
routes = set(re.findall(r'route\("(/\w*)"', "".join(path.read_text() for path in (root / "src/admin").glob("*.rs"))))
expect({"/livez", "/readyz", "/metrics"} <= routes, f"src/admin: the routes are not found, only {sorted(routes)}")


def one(resources, kind):
    """The only resource of a kind, or nothing."""
    found = [resource for resource in resources if resource["kind"] == kind]
    return found[0] if len(found) == 1 else None


def check_pod(name, pod):
    """What the Pod Security Standard `restricted` asks for, and what goes beyond it."""
    security = pod["securityContext"]
    expect(security.get("runAsNonRoot") is True and security.get("runAsUser", 0) > 0, f"{name}: may run as root")
    expect(security.get("fsGroup") == 65532, f"{name}: the group of its files is not the image's")
    expect(security.get("seccompProfile") == {"type": "RuntimeDefault"}, f"{name}: has no seccomp profile")
    expect(pod.get("automountServiceAccountToken") is False, f"{name}: is given a token of Kubernetes")
    expect(pod.get("enableServiceLinks") is False, f"{name}: is given variables of services")
    for container in pod.get("initContainers", []) + pod["containers"]:
        rights = container["securityContext"]
        expect(rights.get("allowPrivilegeEscalation") is False, f"{name}: {container['name']} can gain rights")
        expect(rights.get("readOnlyRootFilesystem") is True, f"{name}: {container['name']} can write to its root")
        expect(rights.get("capabilities") == {"drop": ["ALL"]}, f"{name}: {container['name']} keeps capabilities")
        expect("memory" in container["resources"]["limits"] and "cpu" in container["resources"]["requests"], f"{name}: no resources")
        expect(not any("subPath" in mount for mount in container["volumeMounts"]), f"{name}: a subPath never changes")
        expect(re.search(r":\d+\.\d+\.\d+$", container["image"]), f"{name}: the tag of {container['image']} is not pinned")
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = container.get(probe, {}).get("httpGet", {}).get("path", "/livez")
            expect(path in routes, f"{name}: {probe} asks {path}, which the worker does not answer")
    for volume in pod["volumes"]:
        expect(volume.get("secret", {}).get("defaultMode", 0o440) == 0o440, f"{name}: everybody may read the Secret {volume['name']}")


def check_deployment(name, deployment, settings):
    """The worker's own: probes, and time to end."""
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    names = {deployment["metadata"]["name"], container["name"]}
    expect(names == {"kf-worker"}, f"{name}: the runbooks call deployment and container kf-worker, not {names}")
    wanted = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    for probe, path in wanted.items():
        expect(container.get(probe, {}).get("httpGet") == {"path": path, "port": "admin"}, f"{name}: {probe} does not ask {path}")
    port = int(settings["admin"]["listen"].rsplit(":", 1)[1])
    expect({"name": "admin", "containerPort": port} in container["ports"], f"{name}: the port admin is not that of admin.listen")
    expect(settings["admin"]["listen"].startswith("0.0.0.0:"), f"{name}: probes can't reach admin.listen")
    drain, grace = seconds(settings["worker"]["drain"]), pod["terminationGracePeriodSeconds"]
    expect(drain < grace, f"{name}: terminationGracePeriodSeconds {grace} is not above worker.drain {drain} s")


def check_reach(name, policy):
    """Who may come in: Prometheus alone, to the one port."""
    everything = policy["spec"]["podSelector"] == {} and set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    expect(everything, f"{name}: the NetworkPolicy is not for all Pods and both ways")
    for rule in policy["spec"]["ingress"]:
        expect([port["port"] for port in rule["ports"]] == [9464], f"{name}: more ports than the admin port are open")
        for peer in rule["from"]:
            label = peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name")
            expect(label == "prometheus" and "namespaceSelector" in peer, f"{name}: the admin port is open to more than Prometheus")
    expect(all("ports" in rule for rule in policy["spec"]["egress"]), f"{name}: everything can be reached")


def check_secret(name, settings):
    """The example has a key for each file that the configuration names."""
    named = {pathlib.Path(path) for path in re.findall(r'_file"?: "?(\S+?)"?[,}\s]', str(settings).replace("'", '"') + " ")}
    keys = {str(path.name) for path in named}
    given = yaml.safe_load((root / name / "secret.example.yaml").read_text())["stringData"]
    expect(keys == set(given), f"{name}: the configuration names {sorted(keys)}, the example of the Secret has {sorted(given)}")
    places = {str(path.parent) for path in named}
    expect(places == {"/run/secrets/kf-worker"}, f"{name}: secrets are sought in {places}, not where the Secret is mounted")
    expect(all("REPLACE-ME" in value for value in given.values()), f"{name}: the example holds what may be a secret")


def check_numbers(name, resources, partitions):
    """That what rests on the number of partitions has the same one."""
    if (scaled := one(resources, "ScaledObject")) is not None:
        cap, metadata = scaled["spec"]["maxReplicaCount"], scaled["spec"]["triggers"][0]["metadata"]
        expect(cap == partitions, f"{name}: up to {cap} workers for {partitions} partitions")
        expect(partitions <= int(metadata["pageSize"]) <= 500, f"{name}: RabbitMQ tells of at most 500 queues at once")
    for job in (resource for resource in resources if resource["kind"] == "Job"):
        arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
        right = arguments[0] != "partitions" or arguments[1:3] == ["set", str(partitions)]
        expect(right, f"{name}: a Job has {arguments} where there are {partitions} partitions")


for rendered in map(pathlib.Path, sys.argv[2:]):
    overlay = rendered.stem
    name = f"deploy/kubernetes/overlays/{overlay}"
    resources = list(yaml.safe_load_all(rendered.read_text()))
    expect(not any(resource["kind"] == "Secret" for resource in resources), f"{name}: a Secret is applied with it")
    deployment = one(resources, "Deployment")
    settings = tomllib.loads(one(resources, "ConfigMap")["data"]["kf-worker.toml"])
    check_deployment(name, deployment, settings)
    check_reach(name, one(resources, "NetworkPolicy"))
    for owner in resources:
        if owner["kind"] in ("Deployment", "Job"):
            check_pod(f"{name}: {owner['kind']}", owner["spec"]["template"]["spec"])
    check_numbers(name, resources, settings["amqp"].get("partitions", 1))
    if overlay in ("single", "fleet"):
        check_secret(name, settings)
finish()
