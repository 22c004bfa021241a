"""Holds deploy/compose.yaml to least rights: compose.py ROOT."""

import pathlib
import re
import sys
import tomllib

import yaml

from faults import expect, finish, seconds

root = pathlib.Path(sys.argv[1])
file = root / "deploy/compose.yaml"
compose = yaml.safe_load(file.read_text())
services = compose["services"]


def volumes(service):
    """Source and target of each volume, and whether it is read-only."""
    for volume in service.get("volumes", []):
        if isinstance(volume, str):
            source, target, *options = volume.split(":")
            yield source, target, options == ["ro"]
        else:
            yield volume["source"], volume["target"], volume.get("read_only", False)
            expect(volume["bind"] == {"create_host_path": False}, f"{volume['source']}: is made where it is missing")


def check_rights(name, service):
    """What every service must not be able to do."""
    expect(service.get("read_only") is True, f"{name}: its root can be written to")
    expect(service.get("cap_drop") == ["ALL"] and "cap_add" not in service, f"{name}: keeps capabilities")
    expect(service.get("security_opt") == ["no-new-privileges:true"], f"{name}: can gain rights")
    expect(not service.get("privileged") and "network_mode" not in service and "pid" not in service, f"{name}: is not apart from the host")
    expect(re.fullmatch(r"[1-9]\d*:\d+", service.get("user", "")), f"{name}: has no numeric user that isn't root")
    expect("mem_limit" in service and "pids_limit" in service, f"{name}: has no limits")
    for port in service.get("ports", []):
        expect(isinstance(port, str) and port.startswith("127.0.0.1:"), f"{name}: the port {port} is published to others than this machine")


def check_files(name, service):
    """What a service reads, and what it keeps."""
    for source, target, read_only in volumes(service):
        if not source.startswith("."):
            expect(source in compose["volumes"], f"{name}: the volume {source} is not declared")
            continue
        expect(read_only, f"{name}: can write to {source}")
        path = (file.parent / source).resolve()
        secret = "compose/secrets/" in source
        expect(secret or path.is_file(), f"{name}: there is no {source}")
        expect(not secret or target == "/run/secrets", f"{name}: the secrets are not in /run/secrets")
    for key, value in service.get("environment", {}).items():
        known = not re.search(r"PASSWORD|SECRET|TOKEN|URL", key) or re.search(r"_(FILE|PATH)$", key)
        expect(known and "://" not in str(value), f"{name}: {key} may hold a secret in the environment, which `docker inspect` shows")


def check_life(name, service):
    """That it is known when a service is well, and that it may end in order."""
    asked = service.get("healthcheck", {})
    expect("test" in asked or name == "wechat-simulator", f"{name}: nothing asks whether it is well")
    expect("stop_grace_period" in service, f"{name}: it is not said how long it may take to end")
    image = service["image"]
    expect(re.search(r":v?\d+\.\d+\.?\d*[\w.-]*$", image) or image.startswith("kf-worker:"), f"{name}: the tag of {image} is not pinned")
    for other, how in service.get("depends_on", {}).items():
        expect(how["condition"] != "service_healthy" or "test" in services[other]["healthcheck"], f"{name}: {other} never turns healthy")


for each, what in services.items():
    check_rights(each, what)
    check_files(each, what)
    check_life(each, what)

worker = services["kf-worker"]
settings = tomllib.loads((root / "deploy/compose/kf-worker.toml").read_text())
expect(
    seconds(settings["worker"]["drain"]) < seconds(worker["stop_grace_period"]),
    f"stop_grace_period {worker['stop_grace_period']} is not above worker.drain {settings['worker']['drain']}",
)
one_only = "container_name" in worker or any(re.match(r"127.0.0.1:\d+:", port) for port in worker["ports"])
expect(not one_only, "kf-worker: there can't be several, since the name or the port is fixed")
finish()
