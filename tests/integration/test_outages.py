"""Outages of the database and of AWS: they cost time, and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from stacworker.testing.localstack import LocalStack
from tests.chaos.aws_faults import Expired, Reset
from tests.chaos.gateway import Gateway
from tests.chaos.tcp import TcpProxy
from tests.integration.aws import MakeQueue, Queue
from tests.integration.conftest import MakeWorker
from tests.integration.worker import Catalogue, Worker, item

# How pgstac's version would matter to an outage, other tests show.
pytestmark = pytest.mark.newest_pgstac

TRIES = 3
FULL_DISK = """
    CREATE SEQUENCE public.refused;
    CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM nextval('public.refused');
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON pgstac.items FOR EACH ROW EXECUTE FUNCTION public.refuse();
"""


@pytest.fixture
async def gateway(localstack: LocalStack) -> AsyncIterator[Gateway]:
    """Stand between the workers and AWS."""
    async with Gateway(localstack.endpoint_url, random=Random(5)) as running:
        yield running


@pytest.fixture
async def proxy(pgstac_dsn: str) -> AsyncIterator[TcpProxy]:
    """Stand between the workers and the database."""
    at = urlsplit(pgstac_dsn)
    assert at.hostname is not None
    assert at.port is not None
    async with TcpProxy(at.hostname, at.port) as running:
        yield running


@pytest.fixture
async def admin(pgstac_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Interfere as the superuser, past the proxy."""
    connection = await asyncpg.connect(pgstac_dsn)
    yield connection
    await connection.close()


@pytest.fixture
def through(worker: MakeWorker, gateway: Gateway, proxy: TcpProxy, pgstac_dsn: str) -> Callable[..., Worker]:
    """Make workers that reach everything through the proxies."""
    port = urlsplit(pgstac_dsn).port
    dsn = pgstac_dsn.replace(f":{port}/", f":{proxy.port}/")

    def make(*consumers: dict[str, Any], **more: Any) -> Worker:
        aws = {"endpoint_url": gateway.endpoint_url, "region": "us-east-1"}
        return worker(*consumers, module="tests.integration.impatient", aws=aws, database={"dsn": dsn}, **more)

    return make


def loads(queue: Queue) -> dict[str, Any]:
    """Return the settings of a load consumer."""
    return {"name": "items", "type": "load", "queue_url": queue.url, "visibility_timeout_s": 10}


def bodies(first: int, count: int) -> list[str]:
    """Return messages of one item each."""
    return [json.dumps(item(f"i{number:03}")) for number in range(first, first + count)]


async def until_paused(running: Worker, dependency: str, *words: str) -> None:
    """Wait until polling pauses, and readiness and metrics say why; the first reason may be a lost connection."""
    expected = (f"items: waiting for {dependency}: ", *words)

    def says_why() -> bool:
        status, reasons = running.get("/readyz")
        return status == 503 and all(word in reasons for word in expected)

    await running.until(lambda: running.metric("circuit_open", dependency=dependency) == 1)
    await running.until(says_why)
    assert running.metric("circuit_open", dependency=dependency) == 1
    assert running.get("/livez")[0] == 200


def costs_one_receive(gateway: Gateway, queue: Queue) -> None:
    """Check, while it lasts, that the outage has cost no message more than one receive."""
    receives = {
        message["MessageId"]: int(message["Attributes"]["ApproximateReceiveCount"])
        for message in gateway.handed_out(queue.url)
    }
    assert max(receives.values(), default=1) == 1


async def recovers(running: Worker, gateway: Gateway, queue: Queue, catalogue: Catalogue, count: int) -> None:
    """Check that work goes on by itself, and that nothing was lost."""
    await running.until(running.is_ready)
    assert running.metric("circuit_open") == 0
    await gateway.expire(1000)  # what was released stays away for up to a minute: not in this test
    await catalogue.until_count("things", count)
    await queue.wait_until_empty()
    assert queue.dead_letters is not None
    assert await queue.dead_letters.drain() == []
    outcomes = running.outcomes()
    assert running.metric("messages_received_total") == sum(outcomes.values())
    assert outcomes["acked"] == count
    assert await running.stop() == 0


async def test_a_database_that_is_away_costs_nothing(
    catalogue: Catalogue, through: Callable[..., Worker], queue: MakeQueue, proxy: TcpProxy, gateway: Gateway
) -> None:
    """Messages are released once, polling pauses over many probes, and work goes on when the database is back."""
    items = queue("items", max_receive_count=TRIES)
    running = through(loads(items))
    await running.start()
    proxy.refuse()
    proxy.cut()
    await items.send(*bodies(0, 10))
    await until_paused(running, "database")
    refused = proxy.injected["refused"]
    await running.until(lambda: proxy.injected["refused"] >= refused + 2)  # what was under way has ended by now
    receives = gateway.calls["ReceiveMessage"]
    await items.send(*bodies(10, 10))
    await running.until(lambda: proxy.injected["refused"] >= refused + TRIES + 2)
    assert gateway.calls["ReceiveMessage"] == receives
    costs_one_receive(gateway, items)
    proxy.pass_()
    await recovers(running, gateway, items, catalogue, 20)


async def test_a_database_that_cannot_be_written_to_costs_nothing(
    catalogue: Catalogue,
    through: Callable[..., Worker],
    queue: MakeQueue,
    admin: asyncpg.Connection,
    gateway: Gateway,
) -> None:
    """A disk that is full lets every ping pass: one message stays in hand and is tried, the others wait."""
    await admin.execute(FULL_DISK)
    items = queue("items", max_receive_count=TRIES)
    running = through(loads(items))
    await running.start()
    await items.send(*bodies(0, 10))
    await until_paused(running, "database", "No space left on device")
    refused = await admin.fetchval("SELECT last_value FROM public.refused")
    for tries in range(1, TRIES + 3):
        while await admin.fetchval("SELECT last_value FROM public.refused") < refused + tries:
            await running.until(lambda: True)
    costs_one_receive(gateway, items)
    await admin.execute("DROP TRIGGER refuse ON pgstac.items")
    await recovers(running, gateway, items, catalogue, 10)


async def test_a_failover_to_a_read_only_database_costs_nothing(
    catalogue: Catalogue,
    through: Callable[..., Worker],
    queue: MakeQueue,
    admin: asyncpg.Connection,
    gateway: Gateway,
    proxy: TcpProxy,
) -> None:
    """Connections to what was the primary are of no use; polling pauses until there is one to write to."""
    database = await admin.fetchval("SELECT current_database()")
    items = queue("items", max_receive_count=TRIES)
    running = through(loads(items))
    await running.start()
    await admin.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    proxy.cut()
    await items.send(*bodies(0, 10))
    await until_paused(running, "database", "read-only")
    costs_one_receive(gateway, items)
    await admin.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = off")
    proxy.cut()
    await recovers(running, gateway, items, catalogue, 10)


@pytest.mark.parametrize("fault", [Reset(), Expired()], ids=["away", "expired"])
async def test_aws_that_is_away_costs_nothing(
    catalogue: Catalogue, through: Callable[..., Worker], queue: MakeQueue, gateway: Gateway, fault: Reset | Expired
) -> None:
    """What is in hand is finished or comes again; nothing is received meanwhile, and polling starts again by itself."""
    items = queue("items", max_receive_count=TRIES)
    running = through(loads(items))
    await running.start()
    gateway.add(fault)
    await until_paused(running, "sqs", "queue")
    await items.send(*bodies(0, 10))
    probes = gateway.injected[type(fault).__name__]
    await running.until(lambda: gateway.injected[type(fault).__name__] > probes + 2)
    costs_one_receive(gateway, items)
    gateway.clear()
    await recovers(running, gateway, items, catalogue, 10)


async def test_an_outage_pauses_only_those_who_need_what_is_away(
    catalogue: Catalogue,
    through: Callable[..., Worker],
    queue: MakeQueue,
    proxy: TcpProxy,
    tmp_path: Any,
) -> None:
    """A consumer that needs no database goes on while its neighbour waits for it."""
    (tmp_path / "made.py").write_text(
        f"def create_items(request):\n    return {{**{item('x')!r}, 'id': request['id']}}\n"
    )
    items, requests, made = queue("items", max_receive_count=TRIES), queue("requests"), queue("made")
    running = through(
        loads(items),
        {"name": "requests", "type": "generate", "queue_url": requests.url, "output": f"sqs:{made.url}"},
        generators={"made": {"type": "made:create_items", "processes": 1}},
    )
    await running.start()
    proxy.refuse()
    proxy.cut()
    await items.send(*bodies(0, 1))
    await until_paused(running, "database")
    await requests.send(*(json.dumps({"id": f"r{number}", "path": "p"}) for number in range(5)))
    published = await made.drain(5, timeout_s=30)
    assert sorted(json.loads(message.body)["id"] for message in published) == [f"r{number}" for number in range(5)]
    assert running.metric("circuit_open", dependency="database") == 1
    proxy.pass_()
    await catalogue.until_count("things", 1)
    assert await running.stop() == 0
