"""A worker that is told to be a task of ECS, and an agent that notes what it is asked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from structlog.testing import CapturingLogger

from stacworker import scale_in
from stacworker.scale_in import ScaleInProtection
from tests.integration.aws import MakeQueue
from tests.integration.conftest import MakeWorker
from tests.integration.recorder import recorder
from tests.integration.worker import Catalogue

pytestmark = pytest.mark.newest_pgstac

FUNCTION = """
import time
def create_items(request):
    time.sleep(request["seconds"])
    return {"type": "Feature", "stac_version": "1.0.0", "id": request["id"], "collection": "things",
            "geometry": {"type": "Point", "coordinates": [1.0, 2.0]}, "bbox": [1.0, 2.0, 1.0, 2.0],
            "properties": {"datetime": "2024-05-01T00:00:00Z"}, "links": [], "assets": {}}
"""


async def test_a_task_is_protected_while_a_long_request_is_in_hand(
    worker: MakeWorker,
    queue: MakeQueue,
    catalogue: Catalogue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of what a drain may take is long: then the agent is asked, and told when the request has ended.

    A consumer that has nothing in hand does not matter.
    """
    (tmp_path / "slow.py").write_text(FUNCTION)
    requests = queue("requests")
    with recorder(b'{"protection": {}}') as agent:
        monkeypatch.setenv("ECS_AGENT_URI", f"{agent.url}/api/task-1")
        running = worker(
            {"name": "requests", "type": "generate", "queue_url": requests.url},
            {"name": "idle", "type": "generate", "queue_url": queue("idle").url},
            generators={"slow": {"type": "slow:create_items"}},
            ecs={"scale_in_protection": True},
            drain_timeout_s=4,
        )
        await running.start()
        await requests.send(json.dumps({"id": "a", "path": "x", "seconds": 3}))
        await running.until(lambda: len(agent.got) == 2)
        assert {path for path, _ in agent.got} == {"/api/task-1/task-protection/v1/state"}
        assert [json.loads(body) for _, body in agent.got] == [
            {"ProtectionEnabled": True, "ExpiresInMinutes": 5},
            {"ProtectionEnabled": False},
        ]
        await catalogue.until_count("things", 1)
        assert await running.stop() == 0


async def test_a_backlog_of_short_requests_is_not_long_work(
    worker: MakeWorker,
    queue: MakeQueue,
    catalogue: Catalogue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many wait: few are in hand, and each of these for a short time; else nothing could be replaced."""
    (tmp_path / "slow.py").write_text(FUNCTION)
    requests = queue("requests")
    with recorder(b'{"protection": {}}') as agent:
        monkeypatch.setenv("ECS_AGENT_URI", agent.url)
        running = worker(
            {"name": "requests", "type": "generate", "queue_url": requests.url},
            generators={"slow": {"type": "slow:create_items", "processes": 2}},
            ecs={"scale_in_protection": True},
            drain_timeout_s=30,
        )
        await running.start()
        for number in range(200):
            await requests.send(json.dumps({"id": f"item-{number}", "path": "x", "seconds": 0.2}))
        await catalogue.until_count("things", 30)
        assert running.metric("in_flight_messages") < 100
        assert await running.stop() == 0
        assert agent.got == []


async def test_an_agent_that_never_answers_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look ends after its time, and says so."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    told = CapturingLogger()
    monkeypatch.setattr(scale_in, "_log", told)
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        protection = ScaleInProtection(f"http://127.0.0.1:{port}", lambda: 9.0, after_s=1.0, timeout_s=0.2)
        running = asyncio.create_task(protection.run())
        async with asyncio.timeout(10):
            while not told.calls:
                await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.wait([running])
    assert told.calls[0].args == ("scale_in.refused",)


async def test_protection_outside_ecs_is_a_wrong_setting(
    worker: MakeWorker, queue: MakeQueue, catalogue: Catalogue
) -> None:
    """A process that no agent belongs to says so at start, and ends."""
    running = worker(
        {"name": "items", "type": "load", "queue_url": queue("items").url}, ecs={"scale_in_protection": True}
    )
    running.spawn()
    assert await running.ended() == 2
    assert "ecs.scale_in_protection: no ECS_AGENT_URI" in running.log()
