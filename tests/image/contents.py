"""What an image holds and how it is labelled."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.image.container import Container, Failed, Host

ROOT = Path(__file__).parents[2]
_INSTALLED = """
import importlib.metadata, json
print(json.dumps({each.name: each.version for each in importlib.metadata.distributions()}))
"""
_COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "ld", "rustc", "make")
_LOOK = f"""
for name in {" ".join(_COMPILERS)}; do command -v $name; done
test -s /etc/pip.conf && echo pip.conf
for each in / /opt/stacworker/environments /opt/stacworker/venv /pipelines /etc /var/tmp; do
  test -w $each && echo $each is writable
done
touch /tmp/here || echo /tmp is not writable
true
"""


def check_contents(host: Host, container: Container, image: str, locks: list[str]) -> dict[str, str]:
    """Check that the image holds what the locks pin and nothing else; return what to tell of it."""
    config = host.image(image)["Config"]
    labels = config["Labels"]
    for key in ("title", "description", "licenses", "version", "revision"):
        if not labels.get(f"org.opencontainers.image.{key}"):
            raise Failed(f"label {key} is missing")
    if config["User"].partition(":")[0] in ("", "0", "root"):
        raise Failed("the image runs as root by default")
    if (config["Entrypoint"], config["Cmd"]) != (["stacworker"], ["run"]):
        raise Failed(f"entrypoint {config['Entrypoint']}, command {config['Cmd']}")
    found = container.command("-c", _LOOK, entrypoint="sh")
    if found.returncode or found.stdout.strip():
        raise Failed(f"in the image there is what should not be: {found.stdout}{found.stderr[-500:]}")
    installed = json.loads(container.command("-c", _INSTALLED, entrypoint="python").stdout)
    pinned = {line for lock in locks for line in _pins(ROOT / "requirements" / lock)}
    ours = {name: version for name, version in installed.items() if _normal(name) != "stacworker"}
    strangers = sorted(f"{name}=={version}" for name, version in ours.items() if (_normal(name), version) not in pinned)
    if strangers:
        raise Failed(f"installed and not in the locks: {', '.join(strangers)}")
    return {
        "version": labels["org.opencontainers.image.version"],
        "revision": labels["org.opencontainers.image.revision"],
        "packages": f"{len(ours)}, each as {', '.join(locks)} pin it",
    }


_BROUGHT_IN = "cat /etc/ssl/certs/* | sha256sum; cat /etc/pip.conf 2>/dev/null; true"


def check_nothing_of_this_machine(base: Container, *images: Container) -> None:
    """Check that the certificates and the package index that were mounted for the build are in no image."""
    expected = base.command("-c", _BROUGHT_IN, entrypoint="sh").stdout
    for image in images:
        if (found := image.command("-c", _BROUGHT_IN, entrypoint="sh").stdout) != expected:
            raise Failed(f"the build left something of this machine in the image: {found} instead of {expected}")


def _pins(path: Path) -> set[tuple[str, str]]:
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {(_normal(name), version) for name, version in found}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
