"""The session's own guard against processes that tests leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")

ROOT = Path(__file__).parents[2]


def start(folder: Path, test: str) -> subprocess.Popen[str]:
    """Start a pytest of its own over one test."""
    path = folder / "test_it.py"
    path.write_text(textwrap.dedent(test))
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "tests.leftovers", "-p", "no:cacheprovider", "-s", path],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_an_orphan_fails_the_session_and_is_killed(tmp_path: Path) -> None:
    """A grandchild whose parent has ended is found, named and killed, although its test passed."""
    session = start(
        tmp_path,
        """
        import subprocess

        def test_it():
            subprocess.run(["sh", "-c", "sleep 4242 >/dev/null 2>&1 &"], check=True)
        """,
    )
    output, _ = session.communicate()

    assert session.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 passed" in output
    [left] = [line for line in output.splitlines() if line.endswith(": sleep 4242")]
    assert not Path("/proc", left.partition(":")[0]).exists()


def test_a_session_that_cleans_up_passes(tmp_path: Path) -> None:
    """Children that ended, waited for or not, are nobody's concern."""
    session = start(
        tmp_path,
        """
        import subprocess

        def test_it():
            subprocess.run(["sh", "-c", "true & exit 0"], check=True)
        """,
    )
    output, _ = session.communicate()

    assert (session.returncode, "left behind" in output) == (pytest.ExitCode.OK, False)


def test_sigterm_tears_fixtures_down(tmp_path: Path) -> None:
    """A polite kill of the session stops what fixtures started."""
    session = start(
        tmp_path,
        """
        import time
        import pytest

        @pytest.fixture(scope="session")
        def server(tmp_path_factory):
            yield
            print("torn down")

        def test_it(server):
            print("running", flush=True)
            time.sleep(600)
        """,
    )
    assert session.stdout is not None
    while "running" not in (line := session.stdout.readline()):
        assert line, "the session ended before its test ran"
    session.send_signal(signal.SIGTERM)
    output, _ = session.communicate()

    assert session.returncode == pytest.ExitCode.INTERRUPTED
    assert "torn down" in output
