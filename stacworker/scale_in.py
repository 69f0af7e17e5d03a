"""Scale-in protection on ECS: a task that has long work in hand is not the one to be stopped.

A drain ends what is short. This is for what takes longer than a drain may, which on Fargate is two minutes: while it is
in hand, scaling in takes other tasks and a deployment waits.
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import structlog

_log = structlog.get_logger()

_LOOK_EVERY_S = 5.0
_EXPIRES_MIN = 5
"""ECS forgets the protection of a process that died, or hangs, after this time."""
_TIMEOUT_S = 10.0
_TOLD_CHARACTERS = 500


class ScaleInProtection:
    """Asks the agent of ECS to protect this task while it has had a message in hand for longer than `after_s`."""

    def __init__(
        self,
        agent_uri: str,
        longest_held_s: Callable[[], float],
        *,
        after_s: float,
        timeout_s: float = _TIMEOUT_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`agent_uri` is what ECS puts in ECS_AGENT_URI."""
        self._url = f"{agent_uri.rstrip('/')}/task-protection/v1/state"
        self._longest_held_s = longest_held_s
        self._after_s = after_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._monotonic = monotonic
        self._asked = False
        self._until = 0.0
        self._refused = ""

    async def run(self) -> None:
        """Look again and again until cancelled. What the agent refuses is told once and tried again."""
        async with aiohttp.ClientSession(timeout=self._timeout) as http:
            while True:
                await self.look(http)
                await asyncio.sleep(min(_LOOK_EVERY_S, self._after_s / 2))

    async def look(self, http: aiohttp.ClientSession) -> None:
        """Protect the task, renew its protection at half its time, or end it, if that is what is wanted now."""
        now = self._monotonic()
        if self._longest_held_s() > self._after_s:
            if now < self._until - _EXPIRES_MIN * 30:
                return
            self._asked = True  # without an answer, too, it may be protected from here on
            if await self._put(http, protected=True):
                if not self._until:
                    _log.info("scale_in.protected")
                self._until = now + _EXPIRES_MIN * 60
        elif self._asked and await self._put(http, protected=False):
            _log.info("scale_in.free")
            self._asked, self._until = False, 0.0

    async def _put(self, http: aiohttp.ClientSession, *, protected: bool) -> bool:
        asked: dict[str, Any] = {"ProtectionEnabled": protected}
        if protected:
            asked["ExpiresInMinutes"] = _EXPIRES_MIN
        refused = ""
        try:
            async with http.put(self._url, json=asked, allow_redirects=False) as answer:
                # A refusal has `failure` or `error` in place of `protection`, whatever its status.
                text = (await answer.read()).decode(errors="replace")
                if answer.status != 200 or '"protection"' not in text:  # noqa: PLR2004 - HTTP's own
                    refused = f"{answer.status} {' '.join(text.split())[:_TOLD_CHARACTERS]}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            refused = str(error) or type(error).__name__
        if refused and refused != self._refused:
            _log.warning("scale_in.refused", error=refused, advice="may the task's role ecs:UpdateTaskProtection?")
        self._refused = refused
        return not refused
