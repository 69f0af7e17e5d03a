"""Environments of generators: made once, found again, never half made. uv is a script that does as it is told."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from stacworker.errors import ConfigError
from stacworker.generate.package_index import index_variables
from stacworker.generate.venv import Venvs, Wanted, default_folder

UV = """#!/bin/sh
echo "$@" >> {log}
case "$1 $2" in
"venv --quiet") for last; do :; done; mkdir -p "$last/bin"; ln -sf "{python}" "$last/bin/python" ;;
"pip install") {install} ;;
"pip list") echo '[{{"name": "Six", "version": "1.17.0"}}]' ;;
esac
"""


class FakeUv:
    """Stands in for uv; `calls` are the commands it was given."""

    def __init__(self, folder: Path) -> None:
        self.path, self._log = folder / "uv", folder / "uv.log"
        self.install("exit 0")

    def install(self, script: str) -> None:
        self.path.write_text(UV.format(log=self._log, python=os.path.realpath("/bin/sh"), install=script))
        self.path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [" ".join(line.split()[:2]) for line in lines]


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeUv:
    fake = FakeUv(tmp_path)
    monkeypatch.setattr("stacworker.generate.venv.find_uv", lambda: str(fake.path))
    return fake


@pytest.fixture
def venvs(tmp_path: Path) -> Venvs:
    return Venvs(tmp_path / "environments", {"PATH": os.environ["PATH"]})


SIX = Wanted(("six==1.17.0",))


async def test_it_is_made_once(venvs: Venvs, uv: FakeUv, tmp_path: Path) -> None:
    """The second time nothing is run, also by another process."""
    made = await venvs.get(SIX)
    assert uv.calls == ["venv --quiet", "pip install", "pip list"]
    assert (made.packages, os.access(made.interpreter, os.X_OK)) == ({"Six": "1.17.0"}, True)
    assert await Venvs(tmp_path / "environments", {}).get(SIX) == made
    assert await venvs.get(SIX, install=False) == made
    assert len(uv.calls) == 3


async def test_several_at_once_make_it_once(venvs: Venvs, uv: FakeUv, tmp_path: Path) -> None:
    """The others wait, and find it."""
    others = [Venvs(tmp_path / "environments", {}) for _ in range(3)]
    made = await asyncio.gather(*(each.get(SIX) for each in (venvs, *others)))
    assert len(set(map(str, made))) == 1
    assert uv.calls.count("pip install") == 1


async def test_what_it_holds_decides_which_one(venvs: Venvs, uv: FakeUv, tmp_path: Path) -> None:
    """The order and blank lines of requirements do not."""
    file = tmp_path / "requirements.txt"
    file.write_text("\nattrs==23.1.0\n")
    both = await venvs.get(Wanted(("six==1.17.0",), file))
    file.write_text("six==1.17.0\n\nattrs==23.1.0")
    assert (await venvs.get(Wanted((), file))).folder == both.folder
    assert (await venvs.get(SIX)).folder != both.folder
    assert uv.calls.count("pip install") == 2


async def test_a_failure_is_told_in_uvs_words_and_leaves_nothing(venvs: Venvs, uv: FakeUv, tmp_path: Path) -> None:
    """And the next try makes it."""
    uv.install('echo "no version of six==1.17.0" >&2; exit 1')
    with pytest.raises(ConfigError, match=r"uv pip install failed: no version of six==1\.17\.0"):
        await venvs.get(SIX)
    assert [path.suffix for path in (tmp_path / "environments").iterdir()] == [".lock"]
    uv.install("exit 0")
    assert (await venvs.get(SIX)).packages == {"Six": "1.17.0"}


async def test_one_that_was_cut_off_is_made_anew(venvs: Venvs, uv: FakeUv) -> None:
    """Without the file that is written last, a folder is no environment."""
    made = await venvs.get(SIX)
    (made.folder / "stacworker.json").unlink()
    (made.folder / "left over").touch()
    assert (await venvs.get(SIX)).folder == made.folder
    assert not (made.folder / "left over").exists()
    assert uv.calls.count("pip install") == 2


async def test_one_without_its_python_is_made_anew(venvs: Venvs, uv: FakeUv) -> None:
    """As when the machine's Python has moved."""
    made = await venvs.get(SIX)
    (made.folder / "bin" / "python").unlink()
    (made.folder / "bin" / "python").symlink_to("/gone/python")
    assert os.access((await venvs.get(SIX)).interpreter, os.X_OK)
    assert uv.calls.count("pip install") == 2


async def test_cancelled_it_ends_uv_and_leaves_nothing(venvs: Venvs, uv: FakeUv, tmp_path: Path) -> None:
    """A SIGTERM during the start does not leave an installer behind."""
    uv.install(f"echo $$ > {tmp_path / 'pid'}; exec sleep 600")
    making = asyncio.create_task(venvs.get(SIX))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        await asyncio.sleep(0.01)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert [path.suffix for path in (tmp_path / "environments").iterdir()] == [".lock"]


async def test_a_lock_is_all_there_is(venvs: Venvs, uv: FakeUv, tmp_path: Path) -> None:
    """With hashes nothing is added to it; a requirement that it does not pin is told."""
    lock = tmp_path / "requirements.lock"
    lock.write_text("six==1.17.0 --hash=sha256:00\n")
    made = await venvs.get(Wanted(("six>=1",), lock))
    assert (made.folder / "requirements.txt").read_text() == lock.read_text()
    lock.write_text("six==1.17.0 --hash=sha256:01\n")
    with pytest.raises(ConfigError, match=r"does not pin attrs: run `stacworker pipelines lock`"):
        await venvs.get(Wanted(("attrs",), lock))
    assert uv.calls.count("pip install") == 2


async def test_missing_and_not_to_be_made(venvs: Venvs, uv: FakeUv) -> None:
    """It says with which command it is made."""
    with pytest.raises(ConfigError, match="stacworker pipelines install"):
        await venvs.get(SIX, install=False)
    assert uv.calls == []


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, uv: FakeUv) -> None:
    """As on a read-only file system."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"environments\.folder"):
        await Venvs(tmp_path / "file" / "below", {}).get(SIX)


def test_what_is_installed_here_needs_no_environment(tmp_path: Path) -> None:
    """Only when all of it is here as required, and no file asks for more."""
    assert Wanted(("pytest", "orjson>=3")).is_installed_here()
    assert not Wanted(("pytest==0.0.1",)).is_installed_here()
    assert not Wanted(("no-such-package-at-all",)).is_installed_here()
    assert Wanted(("no-such-package-at-all; python_version < '3'",)).is_installed_here()
    assert not Wanted((), tmp_path / "requirements.txt").is_installed_here()


def test_the_index_is_uvs_own_or_pips(tmp_path: Path) -> None:
    """Its own variables, else pip's variable, else pip's configuration."""
    conf = tmp_path / "pip.conf"
    conf.write_text("[global]\nindex-url = https://mirror.example/simple\n")
    pip = {"PIP_CONFIG_FILE": str(conf)}
    assert index_variables(pip)["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert index_variables({**pip, "PIP_INDEX_URL": "https://other.example"})["UV_DEFAULT_INDEX"] == (
        "https://other.example"
    )
    assert "UV_DEFAULT_INDEX" not in index_variables({**pip, "UV_INDEX_URL": "https://own.example"})


def test_environments_lie_in_the_users_cache() -> None:
    """Where the system says caches are."""
    assert default_folder({"HOME": "/home/a"}) == Path("/home/a/.cache/stacworker/environments")
    assert default_folder({"HOME": "/home/a", "XDG_CACHE_HOME": "/c"}) == Path("/c/stacworker/environments")
