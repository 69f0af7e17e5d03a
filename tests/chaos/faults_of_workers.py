"""Workers that are killed, come and go, or have a wrong clock, and generators that misbehave."""

from __future__ import annotations

import asyncio
import signal
import time
from random import Random

from tests.chaos.fault import MANY_TRIES, STARTS, Fault
from tests.chaos.generator import TROUBLES
from tests.chaos.launcher import POINTS
from tests.chaos.round import Round

_TRIES_IN_TROUBLE = 4
_MAX_REPLICAS = 8
_MORE_S = 60.0
"""How much longer a killer waits for its first victim, on a slow machine."""


def killed_at(point: str) -> Fault:
    """Return the fault of workers that are killed at one point, again and again."""

    async def inject(round_: Round) -> int:
        killed = 0
        end = time.monotonic() + round_.seconds
        known = set(map(id, round_.fleet.alive))
        while time.monotonic() < end or (not killed and time.monotonic() < end + _MORE_S):
            if (
                point in ("during_drain", "before_release")
                and (worker := round_.fleet.one()) is not None
                and worker.is_ready()
            ):
                worker.signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            gone = known - set(map(id, round_.fleet.alive))
            killed += len(gone)
            await round_.fleet.fill(2, ready=False)
            known = set(map(id, round_.fleet.alive))
        return killed

    def env(random: Random) -> dict[str, str]:
        # Early, so that it happens; not always at once, so that others are in the middle of something.
        return {"CHAOS_POINT": point, "CHAOS_PASS": str(random.choice((1, 1, 2, 3, 5)))}

    generates = point == "during_generation"
    return Fault(
        f"kill -9 {point.replace('_', ' ')}", inject, tries=MANY_TRIES, generates=generates, env=env, clashes=STARTS
    )


async def _killed_at_random(round_: Round) -> int:
    killed = 0
    end = time.monotonic() + round_.seconds
    while time.monotonic() < end:
        await asyncio.sleep(round_.random.uniform(0.2, 0.8))
        if (worker := round_.fleet.one()) is not None:
            await worker.kill()
            killed += 1
        await round_.fleet.fill(2, ready=False)
    return killed


async def _come_and_go(round_: Round) -> int:
    """Add, drain and kill replicas: from 2 to 8 of them."""
    changes = 0
    end = time.monotonic() + round_.seconds
    fleet, random = round_.fleet, round_.random
    while time.monotonic() < end:
        if len(fleet.alive) < 2 or (len(fleet.alive) < _MAX_REPLICAS and random.random() < 0.6):
            fleet.add()
        elif (worker := fleet.one()) is not None:
            worker.signal(random.choice((signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGKILL)))
        changes += 1
        await asyncio.sleep(0.3)
    return changes


async def _paused(round_: Round) -> int:
    """Stop processes for longer than their leases last, and let them go on: they do not know that time passed."""
    pauses = 0
    end = time.monotonic() + round_.seconds
    while time.monotonic() < end:
        worker = round_.fleet.one()
        await asyncio.sleep(0.3)
        if worker is not None and worker.exit_code is None:
            worker.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(5.0)
            finally:
                worker.signal(signal.SIGCONT)
            pauses += 1
    return pauses


async def _wrong_clock(round_: Round) -> int:
    await asyncio.sleep(round_.seconds)
    return len(round_.fleet.alive) * int(round_.seconds)


async def _bad_children(round_: Round) -> int:
    """Leave it to the requests to ask for trouble, and count how often a child was in it."""
    await asyncio.sleep(round_.seconds)
    workers = round_.fleet.alive
    return int(
        sum(
            worker.metric("items_generated_total") - worker.metric("items_generated_total", outcome="ok")
            for worker in workers
        )
    )


FAULTS = (
    *(killed_at(point) for point in POINTS),
    Fault("kill -9 at random", _killed_at_random, tries=MANY_TRIES, clashes=STARTS),
    Fault("FIFO: kill -9 at random", _killed_at_random, tries=MANY_TRIES, fifo=True),
    Fault("2 to 8 replicas come and go", _come_and_go, tries=MANY_TRIES, clashes=STARTS),
    Fault("workers stopped longer than a lease", _paused, tries=MANY_TRIES),
    Fault("wall clock jumps", _wrong_clock, env=lambda _: {"CHAOS_CLOCK": "0,3600,-7200,86400,-1,0"}),
    Fault(
        "generators crash, hang, leak, print, close",
        _bad_children,
        tries=_TRIES_IN_TROUBLE,
        generates=True,
        troubles=TROUBLES,
        settings={"visibility_timeout_s": 30},  # the tries are for the trouble, not for leases on a busy machine
    ),
)
