"""The pytest plugin for tests of generators and consumers: docs/testing.md.

Loaded in every pytest run of an environment that has stacworker: so it imports nothing of it until a fixture is
asked for, and a fixture of the same name in a conftest.py wins.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from stacworker.testing.generating import GenerateItems
    from stacworker.testing.messages import SampleMessage
    from stacworker.testing.pgstac import PgstacDatabase
    from stacworker.testing.pipeline import PipelineUnderTest
    from stacworker.testing.postgres import Postgres
    from stacworker.testing.queue import FakeQueue
    from stacworker.testing.s3 import FakeS3
    from stacworker.testing.s3_server import S3Server
    from stacworker.testing.sink import MemorySink

_REQUIRE = "STACWORKER_REQUIRE_PGSTAC"


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    text = (
        "pgstac(version): needs a PostgreSQL of its own with pgstac; tests that use the fixture `pgstac` have this "
        "mark by themselves, it is only written to choose the version of pgstac"
    )
    config.addinivalue_line("markers", text)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what uses our fixture `pgstac`, so that `-m "not pgstac"` leaves it out."""
    # Not of pytest's public interface: where it is otherwise one day, no run may fail for it, least of all others'.
    known = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for definition in known.get("pgstac", ())[-1:]:
        if getattr(getattr(definition, "func", None), "__module__", None) == __name__:
            item.add_marker("pgstac")


@pytest.fixture(name="fake_queue")
def _fake_queue() -> FakeQueue:
    """Give an empty SQS queue in memory."""
    from stacworker.testing.queue import FakeQueue  # noqa: PLC0415 - see the module's docstring

    return FakeQueue()


@pytest.fixture(name="fake_s3")
def _fake_s3() -> FakeS3:
    """Give an empty S3 in memory."""
    from stacworker.testing.s3 import FakeS3  # noqa: PLC0415 - as above

    return FakeS3()


@pytest.fixture(name="memory_sink")
def _memory_sink() -> MemorySink:
    """Give an empty sink in memory that takes and refuses what a load queue would."""
    from stacworker.testing.sink import MemorySink  # noqa: PLC0415 - as above

    return MemorySink()


@pytest.fixture(name="sample_messages")
def _sample_messages(fake_s3: FakeS3) -> Callable[..., list[SampleMessage]]:
    """Give a maker of messages of every form, as (name, body); takes `bucket`, `key`, `href` and `item`.

    The objects that the messages name are put in `fake_s3`, where they are not there yet.
    """
    from stacworker.testing import messages  # noqa: PLC0415 - as above

    def make(**about: Any) -> list[SampleMessage]:
        found = messages.sample_messages(**about)
        about.pop("href", None)
        for url, content in messages.sample_objects(**about).items():
            if url not in fake_s3.list():
                fake_s3.put(url, content)
        return found

    return make


@pytest.fixture(name="generate_items")
def _generate_items(fake_s3: FakeS3, memory_sink: MemorySink) -> GenerateItems:
    """Give a caller of `create_items` functions."""
    from stacworker.testing.generating import GenerateItems  # noqa: PLC0415 - as above

    return GenerateItems(fake_s3, memory_sink)


@pytest.fixture(name="pipeline")
def _pipeline(request: pytest.FixtureRequest, fake_s3: FakeS3) -> Iterator[PipelineUnderTest]:
    """Give the pipeline in whose folder the test lies."""
    from stacworker.testing.pipeline import PipelineUnderTest, pipeline_folder  # noqa: PLC0415 - as above

    with PipelineUnderTest(pipeline_folder(request.path), fake_s3) as pipeline:
        yield pipeline


@pytest.fixture(name="s3_server")
def _s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Give an empty S3 on a loopback port, to which AWS' variables point."""
    from stacworker.testing.s3_server import CREDENTIALS, S3Server  # noqa: PLC0415 - as above

    with S3Server() as server:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": server.endpoint_url}.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture(scope="session", name="stacworker_postgres")
def _stacworker_postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL of its own for the session; skip where its programs are missing."""
    from stacworker.errors import ConfigError  # noqa: PLC0415 - as above
    from stacworker.testing.postgres import Postgres  # noqa: PLC0415 - as above
    from stacworker.testing.postgres_server import find_server  # noqa: PLC0415 - as above

    try:
        find_server()
    except ConfigError as error:
        if os.environ.get(_REQUIRE) == "1":
            pytest.fail(f"{error.reason} ({_REQUIRE} is 1)", pytrace=False)
        pytest.skip(f"no pgstac: {error.reason}")
    with Postgres() as server:
        yield server


@pytest.fixture(name="pgstac")
def _pgstac(request: pytest.FixtureRequest, stacworker_postgres: Postgres) -> Iterator[PgstacDatabase]:
    """Give a fresh database with an empty pgstac, of the version that the mark names or the newest."""
    from importlib.metadata import version as installed_version  # noqa: PLC0415 - as above

    from stacworker.testing.pgstac import PgstacDatabase  # noqa: PLC0415 - as above

    marks = (mark for mark in request.node.iter_markers("pgstac") if "version" in mark.kwargs)
    version = next((mark.kwargs["version"] for mark in marks), installed_version("pypgstac"))
    with stacworker_postgres.scratch(version) as name:
        yield PgstacDatabase(stacworker_postgres.dsn(name))
