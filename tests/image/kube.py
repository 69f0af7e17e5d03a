"""deploy/k8s for real, as far as `podman kube play` goes: migration, workers, a drain, workers anew for the rest."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
import time
import urllib.request
from pathlib import Path

import yaml

from tests.image.container import Container, Failed, Host, a_uid, free_port
from tests.image.manifests import CHANGED, LEFT_OUT, SECRET, SECRET_KEY, WORKLOADS, Workload, settings_of, workload
from tests.image.world import World, all_is_taken, all_is_there, request_for, say, until, world
from tests.integration.worker import Catalogue, catalogue_at, item

ITEMS = 10_000
NOTHING_LEFT = (("ps", "--all"), ("pod", "ps"), ("volume", "ls"), ("secret", "ls"))


class Stage:
    """Where pods are played, and what is left of them afterwards: nothing."""

    def __init__(self, host: Host, servers: World) -> None:
        self._host = host
        self._files: dict[str, Path] = {}
        self._folder = servers.folder
        granules = servers.folder / "granules"
        made = [workload(name, servers.endpoint_url, free_port(), granules) for name in WORKLOADS]
        self.migration, *self.workers = made
        secret = {SECRET_KEY: base64.b64encode(servers.dsn.encode()).decode()}
        path = self._folder / "secret.json"
        path.write_text(json.dumps(secret), encoding="utf-8")
        path.chmod(0o600)
        host.told("secret", "create", SECRET, str(path))

    def play(self, load: Workload) -> None:
        """Start a pod."""
        path = self._folder / f"{load.name}.yaml"
        path.write_text(yaml.safe_dump_all(load.documents), encoding="utf-8")
        self._files[load.name] = path
        self._host.told("kube", "play", "--log-driver", "k8s-file", str(path))

    def migrate(self) -> None:
        """Run the migration's pod to its end."""
        self.play(self.migration)
        code = self._host.told("wait", self.migration.container)
        if code != "0":
            raise Failed(f"the migration ended with {code}")
        self.down(self.migration)

    async def start(self, load: Workload) -> float:
        """Start a worker; return after how many seconds all its probes were content."""
        began = time.monotonic()
        await asyncio.to_thread(self.play, load)

        async def is_content() -> bool:
            return all([await asyncio.to_thread(_answers, url) for url in load.probes().values()])

        await until(is_content, f"{load.name} is content with {', '.join(load.probes())}", 60)
        return time.monotonic() - began

    def confined(self, load: Workload) -> str:
        """Hold the running process against what its manifest says of rights and memory; return what to tell."""
        found = json.loads(self._host.told("inspect", load.container))[0]
        status = Path(f"/proc/{found['State']['Pid']}/status").read_text(encoding="utf-8")
        kernel = {name: value.strip() for name, _, value in (line.partition(":") for line in status.splitlines())}
        pod, limits = load.original["securityContext"], load.original["containers"][0]["resources"]["limits"]
        root = Path(f"/proc/{found['State']['Pid']}/mountinfo").read_text(encoding="utf-8").splitlines()
        options = next(line.split()[5] for line in root if line.split()[4] == "/").split(",")
        seen = {
            "uid": kernel["Uid"].split()[1],
            "gid": kernel["Gid"].split()[1],
            "capabilities": int(kernel["CapEff"], 16) | int(kernel["CapBnd"], 16),
            "no new privileges": kernel["NoNewPrivs"],
            "seccomp": kernel["Seccomp"],
            "root": "ro" if "ro" in options else "rw",
            "memory": found["HostConfig"]["Memory"],
        }
        expected = {
            "uid": str(pod["runAsUser"]),
            "gid": str(pod["runAsGroup"]),
            "capabilities": 0,
            "no new privileges": "1",
            "seccomp": "2",
            "root": "ro",
            "memory": int(limits["memory"].removesuffix("Gi")) << 30,
        }
        if seen != expected:
            raise Failed(f"{load.name}: {seen} instead of {expected}")
        return ", ".join(f"{name} {value}" for name, value in seen.items())

    async def stop(self, load: Workload) -> float:
        """SIGTERM, with the manifest's grace period: a clean drain; return the seconds it took, and take the pod down.

        `podman kube down` alone sends SIGKILL at once in 4.3.
        """
        began = time.monotonic()
        grace = ("--time", str(load.grace_s))
        await asyncio.to_thread(self._host.podman_run, "pod", "stop", *grace, load.pod, timeout_s=load.grace_s + 60)
        took_s = time.monotonic() - began
        code = json.loads(self._host.told("inspect", load.container))[0]["State"]["ExitCode"]
        log = self.log(load)
        if code or took_s >= load.grace_s or not all(f'"{event}"' in log for event in ("drain.started", "exit.clean")):
            raise Failed(f"{load.name}: no clean drain: exit code {code} after {took_s:.1f} s")
        self.down(load)
        return took_s

    def down(self, load: Workload) -> None:
        """Remove a pod, and the ConfigMap's volume, which podman leaves."""
        self._host.podman_run("kube", "down", str(self._files.pop(load.name)))
        self._host.podman_run("volume", "rm", "--force", load.name)

    def log(self, load: Workload) -> str:
        """Return all that a worker has written."""
        done = self._host.podman_run("logs", load.container)
        return done.stdout + done.stderr

    def logs(self) -> str:
        """Return the end of what those that are there have written."""
        there = [load for load in (self.migration, *self.workers) if load.name in self._files]
        return "\n".join(f"-- {load.name}\n{self.log(load)[-3000:]}" for load in there)

    def close(self) -> None:
        """Remove everything."""
        for load in (self.migration, *self.workers):
            if load.name in self._files:
                self.down(load)
        self._host.podman_run("secret", "rm", SECRET)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _make_collections(host: Host, servers: World, image: str) -> None:
    path = servers.folder / "settings" / "collections.ndjson"
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
    collections = [
        {"type": "Collection", "stac_version": "1.0.0", "id": name, "description": name, "license": "other"}
        | {"links": [], "extent": extent}
        for name in ("things", "naip")
    ]
    path.write_text("\n".join(map(json.dumps, collections)), encoding="utf-8")
    container = Container(host, "", image, a_uid(), servers.env(), servers.mounts(), free_port())
    done = container.command("collections", "load", "/etc/stacworker/collections.ndjson")
    if done.returncode:
        raise Failed(f"stacworker collections load: {done.stderr}")


async def _whole_job(stage: Stage, servers: World, catalogue: Catalogue) -> None:
    for load in stage.workers:
        say(f"▸ {load.name}: all probes are content {await stage.start(load):.2f} s after `podman kube play`")
        say(f"  {stage.confined(load)}")
    bodies = [json.dumps(item(f"item-{number:05}")) for number in range(ITEMS)]
    requests = [request_for(granule) for granule in servers.granules]
    sending = asyncio.create_task(asyncio.to_thread(servers.send, "items", bodies))
    await asyncio.to_thread(servers.send, "requests", requests)

    async def is_under_way() -> bool:
        return await catalogue.count("things") > ITEMS // 20 and await catalogue.count("naip") > 0

    await until(is_under_way, "some items loaded, some generated", 60)
    took = await asyncio.gather(*map(stage.stop, stage.workers))
    loaded, generated = await catalogue.count("things"), await catalogue.count("naip")
    grace = ", ".join(f"{load.grace_s} s" for load in stage.workers)
    say(
        f"▸ SIGTERM to both: exit codes 0 after {', '.join(f'{each:.1f}' for each in took)} s (of {grace}), with "
        f"{loaded} of {ITEMS} items and {generated} of {len(requests)} generated ones in the catalogue"
    )
    if loaded >= ITEMS:
        raise Failed("SIGTERM came when all was done: this says nothing")
    await sending
    await asyncio.gather(*map(stage.start, stage.workers))

    await all_is_taken(servers)
    took = await asyncio.gather(*map(stage.stop, stage.workers))
    say(f"▸ played again for the rest; SIGTERM while idle: exit codes 0 after {', '.join(f'{t:.1f}' for t in took)} s")
    await all_is_there(servers, catalogue, ITEMS)


async def _play(arguments: argparse.Namespace) -> None:
    host = Host([*arguments.podman.split()])
    say("▸ deploy/k8s, overlay localstack, with `podman kube play`; what differs from a cluster:")
    for line in (*CHANGED, *(f"{path}: not tried: {reason}" for path, reason in LEFT_OUT.items())):
        say(f"  - {line}")
    with world() as servers:
        stage = Stage(host, servers)
        try:
            stage.migrate()
            say("▸ stacworker-migrate: exit code 0")
            _make_collections(host, servers, arguments.image)
            async with catalogue_at(servers.dsn) as catalogue:
                await _whole_job(stage, servers, catalogue)
        except Failed as failed:
            raise Failed(f"{failed}\n{stage.logs()}") from failed
        finally:
            stage.close()
    if left := [kind for kind in NOTHING_LEFT if host.told(*kind, "--quiet")]:
        raise Failed(f"something is left: podman {' '.join(left[0])}")
    say("✓ no pod, volume or secret is left")


def main() -> int:
    """Return 0 when all is as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.image.kube", description=__doc__)
    parser.add_argument("--settings", metavar="WORKER", help="only print the settings that deploy/k8s gives a worker")
    parser.add_argument("--podman", help="the command with its global options")
    parser.add_argument("--image", help="the image that is called in deploy/k8s as this one")
    arguments = parser.parse_args()
    if arguments.settings:
        say(settings_of(arguments.settings))
        return 0
    try:
        asyncio.run(_play(arguments))
    except Failed as failed:
        say(f"✗ {failed}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
