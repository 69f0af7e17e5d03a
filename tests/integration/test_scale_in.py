"""A worker that is told to be a task of ECS, and an agent that notes what it is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
    """Half of what a drain may take is long: then the agent is asked, and told when the request has ended."""
    (tmp_path / "slow.py").write_text(FUNCTION)
    requests = queue("requests")
    with recorder(b'{"protection": {}}') as agent:
        monkeypatch.setenv("ECS_AGENT_URI", f"{agent.url}/api/task-1")
        running = worker(
            {"name": "requests", "type": "generate", "queue_url": requests.url},
            generators={"slow": {"type": "slow:create_items"}},
            ecs={"scale_in_protection": True},
            drain_timeout_s=2,
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
