"""The folder of the children's folders: who may remove it, and when."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from stacworker.errors import ConfigError
from stacworker.generate.workspace import Workspace, remove_abandoned
from tests.unit.generate.conftest import make_generator

HOLD = "import sys, tempfile; tempfile.tempdir = sys.argv[1]; from stacworker.generate.workspace import Workspace\n"
HOLD += "held = Workspace(); held.open(); print(held.new(), flush=True); sys.stdin.read()"


def is_there(path: Path) -> bool:
    return path.exists()


def test_a_workspace_that_is_in_use_stays() -> None:
    """Neither ours nor that of another living process is removed; both are gone once they are closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tempfile.gettempdir()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        ours = Workspace()
        ours.open()
        folder = Path(ours.new())
        remove_abandoned()
        assert theirs.is_dir()
        assert folder.is_dir()
        other.kill()
    (theirs / "file").write_text("left behind")
    remove_abandoned()
    assert not theirs.parent.exists()
    assert folder.is_dir()
    ours.close()
    ours.close()
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


def test_folders_of_a_workspace_are_private() -> None:
    """Nobody else on the machine can look into what children work on."""
    workspace = Workspace()
    workspace.open()
    folder = Path(workspace.new())
    assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]
    workspace.close()


def test_what_looks_like_a_workspace_and_is_none_stays(tmp_path: Path) -> None:
    """Links, files and other folders are not touched, nor what a link leads to."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    place = Path(tempfile.gettempdir())
    (place / "stacworker-children-link").symlink_to(elsewhere)
    (place / "stacworker-children-file").touch()
    (place / "stacworker-other").mkdir()
    remove_abandoned()
    found = sorted(path.name for path in place.iterdir())
    assert found == ["stacworker-children-file", "stacworker-children-link", "stacworker-other"]
    assert (elsewhere / "precious").exists()
    (place / "stacworker-children-link").unlink()
    (place / "stacworker-children-file").unlink()
    (place / "stacworker-other").rmdir()


async def test_a_generator_starts_by_removing_what_a_crash_left() -> None:
    """A workspace that nobody holds is gone once a generator is there."""
    left = Path(tempfile.mkdtemp(prefix="stacworker-children-"))
    (left / "big").write_bytes(b"x")
    async with make_generator("item"):
        assert not is_there(left)


async def test_no_place_for_folders_stops_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A read-only file system is told as a wrong setting, with what to set."""
    nowhere = tmp_path / "nowhere"
    monkeypatch.setattr(tempfile, "tempdir", str(nowhere))
    with pytest.raises(ConfigError) as caught:
        async with make_generator("item"):
            pass
    (problem,) = caught.value.problems
    assert problem.startswith("generators.sample: no temporary folder can be made (TMPDIR): ")
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path / "temporary"))
