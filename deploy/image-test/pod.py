#!/usr/bin/env python3
"""Makes of a rendered Deployment one Pod that a single machine can play; everything that a machine can offer stays as it is.

usage: pod.py FOLDER IMAGE NAME=VALUE… < RENDERED > POD

What stays: the container's command, environment, mounts and security context, the ConfigMap's files and the names of the
Secret's files. What is replaced: the image by IMAGE; volumes by folders in FOLDER; the network by the machine's own; the
secrets' contents by those of the test; and the environment variables NAME, for what the cluster's network would lead to.
Beside the Pod, FOLDER/facts tells the paths of its probes and its grace period.
"""

import os
import sys
import tomllib

import yaml

# What each key that names a secret file gets as its content.
AMQP_URL, APP_SECRET = os.environ["AMQP_URL"], os.environ["APP_SECRET"]


def main():
    folder, image, *environment = sys.argv[1:]
    documents = [document for document in yaml.safe_load_all(sys.stdin) if document]
    deployments = [document for document in documents if document["kind"] in ("Deployment", "StatefulSet")]
    if len(deployments) != 1:
        sys.exit(f"there should be one Deployment, and there are {len(deployments)}")
    template = deployments[0]["spec"]["template"]
    spec = template["spec"]
    containers = spec["containers"]
    if [container["name"] for container in containers] != ["kf-worker"]:
        sys.exit("the Pod should have one container, kf-worker")
    container = containers[0]

    group = spec.get("securityContext", {}).get("fsGroup")
    if group is None:
        sys.exit("the Pod has no fsGroup, and so could not read its secrets")
    volumes = [folder_of(volume, folder, documents, group, container) for volume in spec.get("volumes", [])]
    write_facts(os.path.join(folder, "facts"), spec, container)

    container["image"] = image
    overridden = [entry.split("=", 1) for entry in environment]
    names = [name for name, _ in overridden]
    container["env"] = [entry for entry in container.get("env", []) if entry["name"] not in names]
    container["env"] += [{"name": name, "value": value} for name, value in overridden]
    # Podman would ask them with a shell and curl, which the image hasn't; the test asks them itself.
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        container.pop(probe, None)
    # On the machine's own network there is nothing to publish.
    container.pop("ports", None)
    # The group of a folder on this machine is no fsGroup: it is given to the process instead.
    security = {**spec.get("securityContext", {}), **container.get("securityContext", {})}
    container["securityContext"] = {key: value for key, value in security.items() if key not in ("fsGroup", "fsGroupChangePolicy")}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "kf-worker", "labels": template["metadata"].get("labels", {})},
        "spec": {"hostNetwork": True, "restartPolicy": "Never", "containers": containers, "volumes": volumes},
    }
    yaml.safe_dump(pod, sys.stdout, sort_keys=False)


def folder_of(volume, folder, documents, group, container):
    """The volume as a folder of this machine that the Pod's group can read, as the cluster would make it."""
    path = os.path.join(folder, volume["name"])
    os.mkdir(path)
    mode = 0o644
    if "configMap" in volume:
        contents = named(documents, "ConfigMap", volume["configMap"]["name"])["data"]
    elif "secret" in volume:
        contents = secrets(documents, [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == volume["name"]])
        mode = volume["secret"].get("defaultMode", 0o644)
        if mode & 0o007:
            sys.exit(f"the secrets of the volume {volume['name']} could be read by everybody (defaultMode {mode:o})")
    elif "emptyDir" in volume or "persistentVolumeClaim" in volume:
        contents = {}
        os.chmod(path, 0o2770)
    else:
        sys.exit(f"a volume of a kind that this test doesn't know: {volume}")
    for name, text in contents.items():
        file = os.path.join(path, name)
        with open(file, "w", encoding="utf-8") as opened:
            opened.write(text)
        os.chmod(file, mode)
        os.chown(file, 0, group)
    os.chown(path, 0, group)
    return {"name": volume["name"], "hostPath": {"path": path, "type": "Directory"}}


def named(documents, kind, name):
    """The one document of this kind and name."""
    found = [document for document in documents if document["kind"] == kind and document["metadata"]["name"] == name]
    if len(found) != 1:
        sys.exit(f"there should be one {kind} {name}, and there are {len(found)}")
    return found[0]


def secrets(documents, mounts):
    """The secret files that the configuration names below these paths, each with what the test has for it."""
    found = {}
    for document in documents:
        for text in document.get("data", {}).values() if document["kind"] == "ConfigMap" else []:
            collect(tomllib.loads(text), mounts, found)
    if not found:
        sys.exit(f"the configuration names no secret file below {mounts}")
    return found


def collect(value, mounts, found):
    """Walks through the configuration."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, (dict, list)):
            collect(inner, mounts, found)
        elif isinstance(inner, str) and str(key).endswith("_file") and os.path.dirname(inner) in mounts:
            found[os.path.basename(inner)] = AMQP_URL if key == "url_file" else APP_SECRET


def write_facts(path, spec, container):
    """What the test asks for later, as lines of a shell."""
    probes = {probe: container.get(probe, {}).get("httpGet", {}).get("path", "") for probe in ("livenessProbe", "readinessProbe")}
    with open(path, "w", encoding="utf-8") as facts:
        facts.write(f"live={probes['livenessProbe']}\nready={probes['readinessProbe']}\n")
        facts.write(f"grace={spec.get('terminationGracePeriodSeconds', 30)}\n")


main()
