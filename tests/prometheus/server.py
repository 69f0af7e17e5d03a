"""A Prometheus of one's own, from Debian's package: loopback, a temporary folder, gone with this process."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

_START_TIMEOUT_S = 30.0
SCRAPE_EVERY_S = 1
_SETPRIV = shutil.which("setpriv")
ENDS_WITH_US = (_SETPRIV, "--pdeathsig", "KILL") if _SETPRIV else ()
"""What a command begins with, so that its process does not outlive this one, not even after `kill -9` (util-linux)."""


class Failed(Exception):  # noqa: N818 - an answer, not a mistake in a program
    """Prometheus or promtool said no; the text is theirs."""


class Prometheus:
    """A running server; `query` and the others ask its HTTP API and raise Failed with its words."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression has now; values that are not a number do not count."""
        found = self._get("/api/v1/query", query=expression)["result"]
        return [each for each in found if each["value"][1] != "NaN"]

    def query_range(self, expression: str, start: float, end: float, step_s: float) -> list[dict[str, Any]]:
        """Return the series over a time, as [[time, text], …] in `values`."""
        asked = {"query": expression, "start": f"{start}", "end": f"{end}", "step": f"{step_s}"}
        found: list[dict[str, Any]] = self._get("/api/v1/query_range", **asked)["result"]
        return found

    def label_values(self, label: str, selector: str) -> list[str]:
        """Return the values of a label on the series that a selector finds."""
        found: list[str] = self._get(f"/api/v1/label/{label}/values", **{"match[]": selector})
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Return the loaded rules with their health."""
        return [rule for group in self._get("/api/v1/rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **asked: str) -> Any:
        request = urllib.request.Request(f"{self.url}{path}?{urllib.parse.urlencode(asked)}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise Failed(f"{error.code}: {json.load(error).get('error', '')}") from None
        except OSError as error:
            raise Failed(f"Prometheus does not answer: {error}") from None


def configuration(rule_files: Sequence[Path], targets: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a configuration that scrapes each target, by job: `{"port": …, "labels": {…}}`."""
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": f"{SCRAPE_EVERY_S}s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rule_files],
            "scrape_configs": [
                {
                    "job_name": job,
                    "static_configs": [
                        {"targets": [f"127.0.0.1:{target['port']}"], "labels": dict(target.get("labels", {}))}
                    ],
                }
                for job, target in targets.items()
            ],
        }
    )


def promtool(*arguments: str, cwd: Path, text: str | None = None) -> str:
    """Run promtool; return what it says. Raises Failed."""
    done = subprocess.run(
        [_program("promtool"), *arguments],
        cwd=cwd,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Failed(f"promtool {' '.join(arguments)}: {done.stdout.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def running(folder: Path, config: str) -> Iterator[Prometheus]:
    """Run a server in a folder while the context is open."""
    config_file, log_file = folder / "prometheus.yml", folder / "prometheus.log"
    config_file.write_text(config)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [
                *ENDS_WITH_US,
                _program("prometheus"),
                f"--config.file={config_file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    try:
        _wait_until_ready(process, port, log_file)
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log_file: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5):
            return
        time.sleep(0.1)
    raise Failed(f"Prometheus did not start: {log_file.read_text()[-2000:]}")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Failed(f"there is no {name}: scripts/prometheus gets it from Debian's package prometheus")
    return found
