"""The pytest plugin's `pgstac`: a real database for a generator's tests, in a pytest run of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stacworker
from stacworker.errors import Rejected
from stacworker.testing.messages import sample_item
from stacworker.testing.pgstac import PgstacDatabase

DOCS = Path(__file__).parents[2] / "docs" / "testing.md"
(EXAMPLE,) = re.findall(r"```python\n# test_my_catalogue.py\n(.*?)```", DOCS.read_text(), re.DOTALL)
THEIRS = """
import pytest
from stacworker.testing.messages import sample_item

def test_one(pgstac):
    pgstac.load([sample_item("a"), sample_item("b", "other")])
    assert [item["id"] for item in pgstac.search(collections=["samples"])] == ["a"]

def test_each_test_has_an_empty_database(pgstac):
    assert pgstac.search() == []

@pytest.mark.pgstac(version="0.9.12")
def test_the_mark_chooses_a_version(pgstac):
    import psycopg
    with psycopg.connect(pgstac.dsn) as connection:
        assert connection.execute("SELECT pgstac.get_version()").fetchone() == ("0.9.12",)

@pytest.mark.asyncio
async def test_async(pgstac, generate_items):
    made = generate_items(lambda request: sample_item(request["key"]), {"key": "k"})
    pgstac.load(made)
    assert [item["id"] for item in pgstac.search(ids=["k"])] == ["k"]
"""


def test_the_fixture_in_a_project_of_its_own(tmp_path: Path) -> None:
    """One server for the session, a fresh database for each test, and nothing left behind."""
    (tmp_path / "test_theirs.py").write_text(THEIRS)
    (tmp_path / "test_example.py").write_text(EXAMPLE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    root = Path(stacworker.__file__).parents[1]
    plugins = ["-p", "stacworker.testing.plugin", "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "--strict-markers", "-W", "error", "-rA"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(root),
            "STACWORKER_REQUIRE_PGSTAC": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert "6 passed" in done.stdout.splitlines()[-1], done.stdout + done.stderr


def test_loading_newer_states_and_bad_items(pgstac_dsn: str) -> None:
    """By way of the daemon's own loading: the newest wins, and what is bad is refused with its reason."""
    database = PgstacDatabase(pgstac_dsn)
    database.load([sample_item("a", properties={"datetime": "2024-05-01T00:00:00Z", "state": 1})])
    with pytest.raises(Rejected, match="geometry is null"):
        database.load(
            [
                sample_item("a", properties={"datetime": "2024-05-02T00:00:00Z", "state": 2}),
                sample_item("b", geometry=None),
            ]
        )
    assert [(item["id"], item["properties"]["state"]) for item in database.search()] == [("a", 2)]


async def test_collections_of_one_s_own(pgstac_dsn: str) -> None:
    """Loaded before their items, also within an event loop."""
    database = PgstacDatabase(pgstac_dsn)
    database.load_collection(
        {
            "type": "Collection",
            "stac_version": "1.1.0",
            "id": "samples",
            "description": "mine",
            "license": "other",
            "links": [],
            "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        }
    )
    database.load([sample_item("a")])
    assert [item["id"] for item in database.search(collections=["samples"])] == ["a"]
