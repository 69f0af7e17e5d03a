"""The throw-away Postgres leaves nothing behind, whatever becomes of whoever uses it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stacworker.errors import ConfigError
from stacworker.testing import postgres_server
from stacworker.testing.postgres import Postgres

_PROGRAM = """
import sys, time
from stacworker.testing.postgres import Postgres

with Postgres() as postgres:
    print(postgres.folder, flush=True)
    sys.stdin.read()
"""


def gone(folder: Path, within_s: float = 20.0) -> bool:
    """Say whether a folder disappears in time."""
    deadline = time.monotonic() + within_s
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not folder.exists()


def test_it_ends_with_its_context() -> None:
    """Server and folder are gone; stopping again is harmless."""
    with Postgres() as postgres:
        folder = postgres.folder
        assert folder.exists()
    assert not folder.exists()
    postgres.stop()


def test_it_ends_with_a_process_that_is_killed() -> None:
    """Nothing of the process is left to clean up, and yet it is cleaned up."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()
        os.kill(process.pid, signal.SIGKILL)
    assert gone(folder)


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the command that installs it: the server, or PostGIS for the server that is there."""
    monkeypatch.setattr(postgres_server, "_candidates", lambda: iter(()))
    with pytest.raises(ConfigError, match="apt-get install -y postgresql postgresql-postgis"):
        postgres_server.find_server()
    bindir = tmp_path / "14" / "bin"
    bindir.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (bindir / name).touch()
    monkeypatch.setattr(postgres_server, "_candidates", lambda: iter([bindir]))
    with pytest.raises(ConfigError, match="apt-get install -y postgresql-14-postgis-3"):
        postgres_server.find_server()
