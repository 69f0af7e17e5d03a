"""A LocalStack of one's own: SQS, SNS, S3 and Secrets Manager on a loopback port, without a container.

LocalStack pins other versions of our libraries, so it has a virtual environment to itself, which
`scripts/setup localstack` makes. There is no way to reset its state: use fresh names.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import stacworker
from stacworker.errors import ConfigError, Unavailable

__all__ = ["REGION", "SERVICES", "LocalStack"]

REGION = "us-east-1"
SERVICES = ("sqs", "sns", "s3", "secretsmanager")
_PYTHON_VARIABLE = "STACWORKER_LOCALSTACK_PYTHON"
_LOG_TAIL_LINES = 30

# Standard input is a pipe that only we hold: it closes when we end, however we end, and then LocalStack ends
# too and takes its files with it. Its S3 has a fixed folder below /tmp for all users of a machine; without one it
# makes a fresh folder in TMPDIR, which is ours.
_PROGRAM = """
import os, runpy, shutil, signal, threading

def end_with_parent():
    os.read(0, 1)
    shutil.rmtree(os.environ["FILESYSTEM_ROOT"], ignore_errors=True)
    os.killpg(0, signal.SIGKILL)

threading.Thread(target=end_with_parent, daemon=True).start()
import localstack.services.s3.provider as s3
s3.DEFAULT_S3_TMP_DIR = None
runpy.run_module("localstack.runtime.main", run_name="__main__")
"""


class LocalStack:
    """A LocalStack server as a context manager, which starts it and ends it.

    It listens on 127.0.0.1 only, on a free port; `endpoint_url` is its address while it runs. Any
    credentials do. Starting takes 2 to 5 seconds and blocks. It never outlives this process.

    `python` is the interpreter of the environment that LocalStack is installed in; by default what
    STACWORKER_LOCALSTACK_PYTHON names, else .cache/localstack of this checkout.
    """

    def __init__(
        self,
        *,
        python: Path | None = None,
        services: tuple[str, ...] = SERVICES,
        start_timeout_s: float = 60.0,
    ) -> None:
        self._python = python
        self._services = services
        self._start_timeout_s = start_timeout_s
        self._running = ExitStack()
        self.endpoint_url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return when every service runs.

        Raises ConfigError when LocalStack is not installed, and Unavailable, with the end of its log,
        when it ends or is not ready in time.
        """
        python = self._python or _installed_python()
        with ExitStack() as starting:
            folder = Path(
                starting.enter_context(
                    tempfile.TemporaryDirectory(prefix="stacworker-localstack-", ignore_cleanup_errors=True)
                )
            )
            log_path = folder / "localstack.log"
            port = _free_port()
            with log_path.open("wb") as log:
                process = _spawn(python, _environment(folder, port, self._services), log)
            starting.callback(_end, process)
            self._wait_until_ready(process, port, log_path)
            self.endpoint_url = f"http://127.0.0.1:{port}"
            self._running = starting.pop_all()

    def stop(self) -> None:
        """End the server and remove its files. Stopping what does not run does nothing."""
        self._running.close()
        self.endpoint_url = ""

    def _wait_until_ready(self, process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        states: Mapping[str, str] = {}
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise _not_ready(f"LocalStack ended with exit code {process.returncode} while it started", log_path)
            states = _service_states(port) or states
            seen = [states.get(service, "unknown") for service in self._services]
            if all(state == "running" for state in seen):
                return
            if "error" in seen:
                raise _not_ready(f"LocalStack could not start a service ({_listed(self._services, states)})", log_path)
            time.sleep(0.05)
        raise _not_ready(
            f"LocalStack is not ready after {self._start_timeout_s:g} s ({_listed(self._services, states)})", log_path
        )


def _installed_python() -> Path:
    """Return the interpreter of LocalStack's environment."""
    named = os.environ.get(_PYTHON_VARIABLE)
    checkout = Path(stacworker.__file__).parents[1]
    python = Path(named) if named else checkout / ".cache" / "localstack" / "bin" / "python"
    if not python.is_file():
        raise ConfigError(
            f"LocalStack is not installed: there is no {python}: run scripts/setup localstack, "
            f"or name the Python of an environment that has it in {_PYTHON_VARIABLE}"
        )
    return python


def _environment(folder: Path, port: int, services: tuple[str, ...]) -> dict[str, str]:
    """Return all that LocalStack sees of the environment: host mode, offline, everything written to `folder`."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "FILESYSTEM_ROOT": str(folder),
        "OVERRIDE_IN_DOCKER": "0",
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "LOCALSTACK_HOST": f"127.0.0.1:{port}",
        "SQS_ENDPOINT_STRATEGY": "path",
        "SERVICES": ",".join(services),
        "EAGER_SERVICE_LOADING": "1",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DNS_ADDRESS": "0",
        "LS_LOG": "warning",
    }


def _spawn(python: Path, environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - the interpreter that the caller or scripts/setup chose
        [python, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # a group of its own: Ctrl-C is for us, and stopping hits nobody else
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process with its group; it has nothing to save, and a polite stop takes it 3 seconds."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _service_states(port: int) -> dict[str, str]:
    """Ask for the state of each service; empty while the server does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/_localstack/health")
        body = connection.getresponse().read()
        states: dict[str, str] = json.loads(body)["services"]
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return {}
    else:
        return states
    finally:
        connection.close()


def _listed(services: tuple[str, ...], states: Mapping[str, str]) -> str:
    return ", ".join(f"{service}: {states.get(service, 'unknown')}" for service in services)


def _not_ready(what: str, log_path: Path) -> Unavailable:
    """Build the error, with LocalStack's own words: it tells of a failed import only in its log."""
    lines = log_path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    tail = "\n".join(f"  {line}" for line in lines) or "  (nothing)"
    return Unavailable(f"{what}; the end of its log:\n{tail}", dependency="localstack")
