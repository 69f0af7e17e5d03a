"""What scripts/setup says where it cannot help itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("bash", "basename", "cat", "cksum", "dirname", "env", "id", "mkdir")

Setup = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """Run the script in an empty checkout, on a machine without Python, apt-get and sudo."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    checkout = tmp_path / "a checkout"
    shutil.copytree(ROOT / "scripts", checkout / "scripts")

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [checkout / "scripts" / "setup", *arguments],
            env={"PATH": os.fspath(programs), **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_machine_without_python_is_told_what_to_install(setup: Setup) -> None:
    """The message names what is missing and what to do about it, and nothing was installed."""
    done = setup("python")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "setup: this machine lacks what only its owner can install:\n"
        "  - a Python between 3.11 and 3.13\n"
        "      Debian 12 or later, Ubuntu 24.04:  sudo apt-get install python3 python3-venv\n"
        "      elsewhere:  from python.org or your system's packages; "
        "name it in STACWORKER_PYTHON if it is not on the PATH\n"
        "setup: then run this again\n"
    )


def test_an_interpreter_that_does_not_fit_is_named(setup: Setup) -> None:
    """Where the user chose the interpreter, no other is taken instead."""
    done = setup("python", STACWORKER_PYTHON="/nowhere/python")

    assert done.returncode == 1
    assert "a Python between 3.11 and 3.13 (STACWORKER_PYTHON is /nowhere/python)" in done.stderr


def test_an_unknown_part_is_refused(setup: Setup) -> None:
    """A typing error names what there is."""
    done = setup("posgres")

    assert (done.returncode, done.stderr) == (
        2,
        "setup: unknown part 'posgres': there are uv, python, postgres and localstack\n",
    )
