"""Has the worker judge what it would be started with: configuration.py ROOT PROGRAMS RENDERED-OVERLAY…

PROGRAMS is the folder of kf-worker and wechat-simulator. Secrets are placeholders, in a folder in place of /run/secrets.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

from faults import expect, finish

root, programs = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
PLACEHOLDERS = {
    "amqp-url": "amqps://kf-worker:placeholder@rabbitmq:5671/%2f",
    "ledger-url": "postgres://kf:placeholder@postgres:5432/kf?sslmode=verify-full",
    "app-secret-test": "placeholder",
}


def run(name, command, environment):
    """The program must take it."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    expect(done.returncode == 0, f"{name}: {' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}{done.stdout}")


def image_environment():
    """What the image sets, which goes before the configuration file."""
    file = root / "Dockerfile"
    text = file.read_text().replace("\\\n", " ") if file.exists() else ""
    lines = [line.removeprefix("ENV ") for line in text.splitlines() if line.startswith("ENV ")]
    return dict(pair for line in lines for pair in re.findall(r'(\w+)="?([^"\s]*)"?', line))


def authority(folder):
    """A certificate to stand for the authority's."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=placeholder -keyout"
    subprocess.run([*command.split(), os.devnull, "-out", folder / "ca.pem"], check=True, capture_output=True)


def check(name, toml, environment, commands):
    """The configuration by `kf-worker check`, and each command line by asking it for its help."""
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place) / "secrets"
        folder.mkdir(mode=0o700)
        for file, text in PLACEHOLDERS.items():
            (folder / file).write_text(text)
            (folder / file).chmod(0o600)
        authority(folder)
        file = pathlib.Path(place) / "kf-worker.toml"
        file.write_text(re.sub(r"/run/secrets(/kf-worker)?(?=/)", str(folder), toml))
        # The file is mounted where KF_CONFIG says.
        expect(environment.get("KF_CONFIG") == "/etc/kf-worker/kf-worker.toml", f"{name}: KF_CONFIG does not name the mounted file")
        clean = image_environment() | environment | {"KF_CONFIG": str(file)}
        run(name, [programs / "kf-worker", "check"], clean)
        for command in commands:
            run(name, [programs / command[0], *command[1:], "--help"], clean)


overriding = [name for name in image_environment() if name.startswith("KF_") and "__" in name]
expect(not overriding, f"Dockerfile: {overriding} by ENV goes before every configuration file that is mounted")
services = yaml.safe_load((root / "deploy/compose.yaml").read_text())["services"]
toml = (root / "deploy/compose/kf-worker.toml").read_text()
entry = re.search(r"^ENTRYPOINT (\[.*\])$", (root / "Dockerfile").read_text(), re.M) if (root / "Dockerfile").exists() else None
entrypoint = json.loads(entry[1]) if entry else ["kf-worker"]
commands = [services["wechat-simulator"]["entrypoint"], services["kf-worker"]["healthcheck"]["test"][1:]]
check("deploy/compose.yaml", toml, services["kf-worker"]["environment"], commands)

for rendered in map(pathlib.Path, sys.argv[3:]):
    resources = list(yaml.safe_load_all(rendered.read_text()))
    toml = next(resource["data"]["kf-worker.toml"] for resource in resources if resource["kind"] == "ConfigMap")
    for owner in (resource for resource in resources if resource["kind"] in ("Deployment", "Job")):
        pod = owner["spec"]["template"]["spec"]
        for container in pod.get("initContainers", []) + pod["containers"]:
            environment = {variable["name"]: variable["value"] for variable in container["env"]}
            command = container.get("command", entrypoint) + container["args"]
            check(f"{rendered.stem}: {container['name']}", toml, environment, [command])
finish()
