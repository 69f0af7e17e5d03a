"""The pytest plugin, in a pytest run of its own as in somebody else's project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import stacworker

Run = Callable[..., str]
ROOT = Path(stacworker.__file__).parents[1]
DOCS = Path(__file__).parents[3] / "docs" / "testing.md"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Give a runner of pytest over one file, with no plugin but ours; it returns what was printed."""
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = --strict-markers -p no:cacheprovider\nfilterwarnings = error"
    )

    def run_(code: str, *arguments: str, conftest: str = "", **environment: str) -> str:
        (tmp_path / "test_theirs.py").write_text(code)
        (tmp_path / "conftest.py").write_text(conftest)
        # What is installed may bring the plugin by its entry point already, and a plugin cannot be loaded twice.
        alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT), "PY_COLORS": "0"}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "stacworker.testing.plugin", "-rA", *arguments],
            cwd=tmp_path,
            env={**os.environ, **alone, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return done.stdout + done.stderr

    return run_


def outcomes(output: str) -> dict[str, int]:
    last = output.strip().splitlines()[-1]
    return {name.rstrip("s"): int(count) for count, name in re.findall(r"(\d+) (\w+)", last) if name != "in"}


EVERYTHING = """
import asyncio
import json

async def create_items(request, gsd=10):
    return {"type": "Feature", "stac_version": "1.1.0", "id": request["key"], "collection": "mine",
            "geometry": {"type": "Point", "coordinates": [1, 2]}, "bbox": [1, 2, 1, 2], "links": [], "assets": {},
            "properties": {"datetime": "2024-05-01T00:00:00Z", "gsd": gsd}}

def test_a_request(generate_items):
    (item,) = generate_items(create_items, {"key": "a"}, options={"gsd": 30})
    assert item["properties"]["gsd"] == 30

def test_a_message(generate_items, memory_sink, fake_s3):
    generate_items(create_items, message=fake_s3.event("s3://b/scene 1.tif"))
    memory_sink.assert_loaded("scene 1.tif", collection="mine")

def test_samples(sample_messages, generate_items, memory_sink, fake_s3):
    samples = dict(sample_messages(bucket="b", key="k"))
    assert fake_s3.keys("b") == ("k", "k.payload", "second k")
    generate_items(create_items, message=samples["S3 event in SNS"])
    memory_sink.assert_loaded("k")

def test_samples_leave_what_is_there(sample_messages, fake_s3):
    fake_s3.put("s3://b/k", "mine")
    sample_messages(bucket="b", key="k", href="https://example.com/k")
    assert fake_s3.read("s3://b/k") == b"mine"

def test_queue(fake_queue):
    fake_queue.put("hello")
    assert len(fake_queue.stored) == 1

def test_sink_tells(memory_sink):
    memory_sink.assert_loaded("x")
"""


def test_the_fixtures(run: Run) -> None:
    """Each can be used with nothing but pytest; a failed assertion is readable."""
    output = run(EVERYTHING)
    assert outcomes(output) == {"passed": 5, "failed": 1}, output
    shown = [line.removeprefix("E").strip() for line in output.splitlines() if line.startswith("E ")]
    assert shown == ["AssertionError: not loaded: 'x'", "loaded: nothing", "refused: nothing"]
    assert ">       memory_sink.assert_loaded(" in output


@pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not beside the tests")
@pytest.mark.parametrize("name", ["test_my_items.py", "test_my_queue.py"])
def test_the_examples_of_the_documentation_work(run: Run, name: str) -> None:
    """As they stand there."""
    (code,) = re.findall(rf"```python\n# {name}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert outcomes(output := run(code)) == {"passed": 2}, output


def test_the_fixtures_need_none_of_the_extras(run: Run) -> None:
    """Where rasterio, stactools, moto and the like are not installed they work the same."""
    blocked = (
        "asyncpg_stubs",
        "httpx",
        "moto",
        "pytest_asyncio",
        "rasterio",
        "rio_cogeo",
        "rio_stac",
        "stactools",
        "uv",
    )
    output = run(EVERYTHING, conftest=f"import sys\nfor name in {blocked}: sys.modules[name] = None")
    assert outcomes(output) == {"passed": 5, "failed": 1}, output


def test_they_stand_in_the_list_of_fixtures(run: Run) -> None:
    """`pytest --fixtures` documents each."""
    output = run("", "--fixtures")
    found = re.findall(r"^(\w+)(?: \[session scope\])? -- .*testing/plugin.py", output, re.MULTILINE)
    assert sorted(found) == [
        "fake_queue",
        "fake_s3",
        "generate_items",
        "memory_sink",
        "pgstac",
        "sample_messages",
        "stacworker_postgres",
    ]


def test_a_project_s_own_fixtures_and_marks_win(run: Run) -> None:
    """The plugin is in every run of an environment, also in those that know nothing of it."""
    theirs = "import pytest\n@pytest.fixture\ndef pgstac(): return 'theirs'\n@pytest.fixture\ndef fake_s3(): return 1"
    code = (
        "import pytest\n"
        "def test_theirs(pgstac, fake_s3): assert (pgstac, fake_s3) == ('theirs', 1)\n"
        "@pytest.mark.pgstac\ndef test_marked(): pass\n"
    )
    output = run(code, "-m", "not pgstac", conftest=theirs)
    assert outcomes(output) == {"passed": 1, "deselected": 1}, output


def test_an_idle_plugin_costs_nothing() -> None:
    """Nothing of stacworker is imported before a fixture is asked for."""
    code = "import sys, stacworker.testing.plugin; print(*sorted(m for m in sys.modules if m.startswith('stacworker')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["stacworker", "stacworker.testing", "stacworker.testing.plugin"]


NO_POSTGRES = """
import stacworker.testing.postgres_server as server
server._candidates = lambda: iter(())
"""
USES_PGSTAC = "def test_search(pgstac): assert pgstac.search() == []\ndef test_other(): pass"


def test_without_postgres_the_tests_that_need_it_are_skipped(run: Run) -> None:
    """The reason says what to install."""
    output = run(USES_PGSTAC, conftest=NO_POSTGRES)
    assert outcomes(output) == {"passed": 1, "skipped": 1}, output
    assert "no pgstac: PostgreSQL's server programs were not found" in output
    assert "apt-get install -y postgresql postgresql-postgis" in output


def test_where_pgstac_is_required_they_fail(run: Run) -> None:
    """So that nobody's CI is green by skipping."""
    output = run(USES_PGSTAC, conftest=NO_POSTGRES, STACWORKER_REQUIRE_PGSTAC="1")
    assert outcomes(output) == {"passed": 1, "error": 1}, output
    assert "(STACWORKER_REQUIRE_PGSTAC is 1)" in output


def test_tests_that_need_pgstac_can_be_left_out(run: Run) -> None:
    """They have their mark by themselves."""
    assert outcomes(run(USES_PGSTAC, "-m", "not pgstac")) == {"passed": 1, "deselected": 1}
    assert outcomes(run(USES_PGSTAC, "-m", "pgstac", "--collect-only"))["deselected"] == 1
