"""Fixtures: one throw-away Postgres for all tests, and a fresh database with pgstac for each.

A plain pytest plugin (`pytest_plugins = ["tests.integration.pg"]`). A test that asks for `pgstac_dsn`
runs once on each supported line of pgstac; one whose subject is not what pgstac does is marked `newest_pgstac`
and runs on the newest only.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stacworker.testing.postgres import Postgres

NEWEST_0_9 = "0.9.12"
NEWEST = "0.10.0"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL of its own until the last test is done."""
    with Postgres() as cluster:
        yield cluster


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "newest_pgstac: runs on the newest pgstac only, which is not its subject")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the versions of pgstac that a test runs on."""
    if "pgstac_version" in metafunc.fixturenames:
        newest_only = metafunc.definition.get_closest_marker("newest_pgstac") is not None
        metafunc.parametrize("pgstac_version", [NEWEST] if newest_only else [NEWEST_0_9, NEWEST], indirect=True)


@pytest.fixture
def pgstac_version(request: pytest.FixtureRequest) -> str:
    """Name the version of pgstac that the test's database has."""
    version: str = request.param
    return version


@pytest.fixture
def pgstac_dsn(postgres: Postgres, pgstac_version: str) -> Iterator[str]:
    """Lend a database with an empty pgstac; the URL is the superuser's."""
    with postgres.scratch(pgstac_version) as name:
        yield postgres.dsn(name)
