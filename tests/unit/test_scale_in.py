"""When a task of ECS asks for protection, against an agent that notes what it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from structlog.testing import CapturingLogger

from stacworker import scale_in
from stacworker.scale_in import ScaleInProtection

PROTECTED = '{"protection": {"ProtectionEnabled": true}}'
REFUSED = '{"failure": {"Reason": "DEPLOYMENT_BLOCKED"}}'
ON = {"ProtectionEnabled": True, "ExpiresInMinutes": 5}
OFF = {"ProtectionEnabled": False}


class Answer:
    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self._text = text

    async def read(self) -> bytes:
        return self._text.encode()


class Agent:
    """Answers as it is told; `asked` has the requests."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answer: Answer | Exception = Answer(200, PROTECTED)

    @asynccontextmanager
    async def put(self, url: str, *, json: Any, allow_redirects: bool) -> AsyncIterator[Answer]:
        assert not allow_redirects
        assert url == "http://169.254.170.2/api/1/task-protection/v1/state"
        self.asked.append(json)
        if isinstance(self.answer, Exception):
            raise self.answer
        yield self.answer


class Task:
    """A task whose oldest message has been in hand for `held_s`, at the time `now`."""

    def __init__(self) -> None:
        self.held_s = 0.0
        self.now = 1000.0
        self.agent = Agent()
        self._protection = ScaleInProtection(
            "http://169.254.170.2/api/1/", lambda: self.held_s, after_s=30.0, monotonic=lambda: self.now
        )

    async def look(self, *, held_s: float, later_s: float = 0.0) -> list[Any]:
        """Return what the agent is asked at a look."""
        self.held_s = held_s
        self.now += later_s
        before = len(self.agent.asked)
        await self._protection.look(self.agent)  # type: ignore[arg-type]
        return self.agent.asked[before:]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    """Give what is logged, however earlier tests have set up logging."""
    log = CapturingLogger()
    monkeypatch.setattr(scale_in, "_log", log)
    return log


async def test_short_work_asks_for_nothing() -> None:
    """What a drain ends needs no protection, however much of it there is."""
    task = Task()
    assert await task.look(held_s=0.0) == []
    assert await task.look(held_s=30.0) == []


async def test_long_work_is_protected_until_it_ends() -> None:
    """Asked for once, renewed at half its time, given up when nothing in hand is old any more."""
    task = Task()
    assert await task.look(held_s=30.1) == [ON]
    assert await task.look(held_s=35, later_s=5) == []
    assert await task.look(held_s=179, later_s=144) == []
    assert await task.look(held_s=181, later_s=2) == [ON]
    assert await task.look(held_s=2, later_s=5) == [OFF]
    assert await task.look(held_s=7, later_s=5) == []
    assert await task.look(held_s=31, later_s=24) == [ON]


@pytest.mark.parametrize(
    "refusal",
    [Answer(200, REFUSED), Answer(500, PROTECTED), aiohttp.ClientError("away"), TimeoutError(), OSError("unreachable")],
    ids=["failure", "500", "client error", "timeout", "no route"],
)
async def test_a_refusal_is_told_once_and_tried_again(refusal: Answer | Exception, told: CapturingLogger) -> None:
    """The agent may refuse, be away or never answer: work goes on, each look asks again."""
    task = Task()
    task.agent.answer = refusal
    assert await task.look(held_s=40) == [ON]
    assert await task.look(held_s=45, later_s=5) == [ON]
    assert [each.args for each in told.calls] == [("scale_in.refused",)]
    assert told.calls[0].kwargs["error"]
    task.agent.answer = Answer(200, PROTECTED)
    assert await task.look(held_s=50, later_s=5) == [ON]
    task.agent.answer = refusal
    assert await task.look(held_s=0, later_s=5) == [OFF]
    task.agent.answer = Answer(200, PROTECTED)
    assert await task.look(held_s=0, later_s=5) == [OFF]
    assert await task.look(held_s=0, later_s=5) == []


async def test_a_protection_whose_answer_was_lost_is_ended() -> None:
    """It may be in force all the same: when the work is done the agent is told so."""
    task = Task()
    task.agent.answer = TimeoutError()
    assert await task.look(held_s=40) == [ON]
    task.agent.answer = Answer(200, PROTECTED)
    assert await task.look(held_s=0, later_s=5) == [OFF]
    assert await task.look(held_s=0, later_s=5) == []


async def test_what_is_wanted_of_an_agent_is_told(told: CapturingLogger) -> None:
    """The log says from when to when a task was protected."""
    task = Task()
    for held_s in (31, 36, 171, 176, 0, 0):
        await task.look(held_s=held_s, later_s=100)
    assert [each.args for each in told.calls] == [("scale_in.protected",), ("scale_in.free",)]
