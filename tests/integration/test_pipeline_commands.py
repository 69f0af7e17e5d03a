"""`stacworker pipelines`, as it is typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SIX = '{"triggers": {"once": true}, "generator": {"type": "items:create_items", "requirements": ["six>=1.16"]}}'


def stacworker(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "stacworker", "pipelines", *words],
        cwd=folder,
        env={
            **os.environ,
            "STACWORKER_ENVIRONMENTS__FOLDER": str(folder / "environments"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.mark.parametrize("kind", ["function", "raster", "stactools:stactools-naip==0.5.0"])
def test_a_new_pipeline_has_a_test_that_passes(tmp_path: Path, kind: str) -> None:
    """From nothing to a passing test with two commands."""
    made = stacworker(tmp_path, "new", "my-data", "--from", kind)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "pipelines" / "my-data" / "pipeline.yaml").read_text().count("${MY_DATA_QUEUE_URL}") == 1
    tested = stacworker(tmp_path, "test")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert " passed" in tested.stdout
    listed = stacworker(tmp_path, "list", "--json")
    assert [(row["id"], row["problems"]) for row in json.loads(listed.stdout)] == [("my-data", [])]


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    """Exit code 2, and what is there stays."""
    assert stacworker(tmp_path, "new", "a").returncode == 0
    (tmp_path / "pipelines" / "a" / "items.py").write_text("mine")
    again = stacworker(tmp_path, "new", "a")
    assert (again.returncode, again.stderr.strip()) == (2, "stacworker: pipelines/a is there already")
    assert (tmp_path / "pipelines" / "a" / "items.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("new", "../x"), "use letters, digits"),
        (("new", "x", "--from", "stactools:"), "allowed: stactools:PACKAGE, function, raster"),
        (("new", "x", "--from", "zarr"), "allowed: stactools:PACKAGE, function, raster"),
        (("list",), "pipelines is no folder"),
        (("install",), "pipelines is no folder"),
        (("test", "gone", "--pipelines", "."), "has a pipeline.yaml"),
        (("convert", "."), "cannot read settings from config.yaml"),
    ],
)
def test_bad_words_are_one_line_and_exit_code_2(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    """And nothing is written."""
    done = stacworker(tmp_path, *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_lock_and_install_make_a_pinned_environment_once(tmp_path: Path) -> None:
    """The lock names every package with its hashes; with it nothing else is installed."""
    folder = tmp_path / "pipelines" / "a"
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(SIX)
    (folder / "items.py").write_text("def create_items(request):\n    return []\n")
    (folder / "requirements.txt").write_text("attrs\n")
    locked = stacworker(tmp_path, "lock")
    assert locked.returncode == 0, locked.stderr
    lines = (folder / "requirements.lock").read_text().splitlines()
    assert [line.split("==")[0] for line in lines if "==" in line] == ["attrs", "six"]
    assert sum("--hash=sha256:" in line for line in lines) >= 4
    first = stacworker(tmp_path, "install", "--json")
    assert first.returncode == 0, first.stderr
    (row,) = json.loads(first.stdout)
    assert (row["generator"], row["packages"]) == ("a", 2)
    made = Path(row["environment"]).stat().st_mtime_ns
    again = stacworker(tmp_path, "install", "--json")
    assert json.loads(again.stdout) == [row]
    assert Path(row["environment"]).stat().st_mtime_ns == made


def test_a_failing_test_and_a_broken_pipeline_are_exit_code_1(tmp_path: Path) -> None:
    """Each is named at the end; the good one has run."""
    for name in ("good", "failing", "broken", "untested"):
        assert stacworker(tmp_path, "new", name).returncode == 0
    folder = tmp_path / "pipelines"
    (folder / "failing" / "tests" / "test_more.py").write_text("def test_it():\n    assert False\n")
    (folder / "broken" / "pipeline.yaml").write_text("triggers: []")
    (folder / "untested" / "tests" / "test_pipeline.py").unlink()
    done = stacworker(tmp_path, "test")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "failed: broken, failing, untested"
    assert "untested: has no tests" in done.stderr
    assert "triggers: " in done.stderr
    listed = stacworker(tmp_path, "list")
    assert listed.returncode == 1
    assert "broken: " in listed.stderr
