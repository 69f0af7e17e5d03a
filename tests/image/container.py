"""Containers of the image, as a cluster with strict rules runs them: any uid, nothing writable, no capabilities."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STRICT = (
    *(
        "--read-only",
        "--read-only-tmpfs=false",
        "--tmpfs=/tmp:rw,mode=1777,size=512m",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
    ),
    # What a container gets by default may be more than this machine may give.
    *("--ulimit=nofile=20000:20000", "--ulimit=nproc=9000:9000"),
    *("--network=host", "--http-proxy=false", "--log-driver=k8s-file"),
)


class Failed(Exception):  # noqa: N818 - a verdict
    """Something is not as it must be; the text says what."""


@dataclass(frozen=True, slots=True)
class Host:
    """The place where images and containers are: `podman` with the options that name it."""

    podman: Sequence[str]

    def podman_run(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a podman command; its output is text, its exit code not looked at."""
        return subprocess.run(
            [*self.podman, *arguments], capture_output=True, text=True, check=False, timeout=timeout_s
        )

    def told(self, *arguments: str) -> str:
        """Return what a podman command prints; raise Failed when it fails."""
        done = self.podman_run(*arguments)
        if done.returncode:
            raise Failed(f"podman {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
        return done.stdout.strip()

    def image(self, name: str) -> dict[str, Any]:
        """Return what is known of an image."""
        found: dict[str, Any] = json.loads(self.told("image", "inspect", name))[0]
        return found


class Container:
    """One container: a worker, or a single command."""

    def __init__(
        self, host: Host, name: str, image: str, uid: int, env: Mapping[str, str], mounts: Mapping[Path, str], port: int
    ) -> None:
        """`mounts`: folder or file here → where it is in the container, read-only; `port`: where a worker listens."""
        self.name = name
        self._host = host
        self._port = port
        self._image = image
        self._options = [
            *STRICT,
            f"--user={uid}:{uid}",
            *(f"--env={key}={value}" for key, value in {**env, "STACWORKER_HTTP__PORT": str(port)}.items()),
            *(f"--volume={here}:{there}:ro" for here, there in mounts.items()),
        ]

    def command(self, *arguments: str, entrypoint: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of the image to its end, in a container of its own."""
        chosen = [f"--entrypoint={entrypoint}"] if entrypoint else []
        return self._host.podman_run("run", "--rm", *self._options, *chosen, self._image, *arguments)

    async def start(self, within_s: float = 60) -> float:
        """Start a worker; return after how many seconds it was ready."""
        started = time.monotonic()
        await asyncio.to_thread(
            self._host.told, "run", "--detach", "--name", self.name, *self._options, self._image, "run"
        )
        while not await asyncio.to_thread(self.is_ready):
            if time.monotonic() - started > within_s or not self.state()["Running"]:
                raise Failed(f"not ready within {within_s:g} s:\n{self.log()[-3000:]}")
            await asyncio.sleep(0.02)
        return time.monotonic() - started

    def is_ready(self) -> bool:
        """Ask /readyz."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def state(self) -> dict[str, Any]:
        """Return what podman says of it."""
        found: dict[str, Any] = json.loads(self._host.told("inspect", self.name))[0]["State"]
        return found

    def is_healthy(self) -> bool:
        """Run the image's HEALTHCHECK."""
        return self._host.podman_run("healthcheck", "run", self.name).returncode == 0

    def status(self) -> dict[str, str]:
        """Return what the kernel says of its first process: uid, capabilities, privileges."""
        text = Path(f"/proc/{self.state()['Pid']}/status").read_text(encoding="utf-8")
        return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}

    async def stop(self, grace_s: int) -> tuple[int, float]:
        """SIGTERM, and SIGKILL after the grace period, as clusters do; return exit code and seconds taken."""
        began = time.monotonic()
        await asyncio.to_thread(
            self._host.podman_run, "stop", "--time", str(grace_s), self.name, timeout_s=grace_s + 60
        )
        return int(self.state()["ExitCode"]), time.monotonic() - began

    def log(self) -> str:
        """Return all that it has written."""
        done = self._host.podman_run("logs", self.name)
        return done.stdout + done.stderr

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return its log lines with this event name."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def remove(self) -> None:
        """Remove it, running or not."""
        self._host.podman_run("rm", "--force", "--time", "0", self.name)


def free_port() -> int:
    """Return a port of the loopback interface that nobody has now."""
    import socket  # noqa: PLC0415 - here alone

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def a_uid() -> int:
    """Return a uid such as a cluster may choose: one that nobody knows."""
    return 1_000_000 + int.from_bytes(os.urandom(2))
