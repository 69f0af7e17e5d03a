"""A campaign is drawn from its seed."""

from __future__ import annotations

import asyncio
from itertools import islice

from tests.chaos.campaign import FAULTS, Places, Plan, plans


def test_each_fault_comes_alone_then_some_together() -> None:
    """Every kind once, then as many mixed rounds as are wanted."""
    alone, mixed = list(plans(1, mixed=3))[: len(FAULTS)], list(plans(1, mixed=3))[len(FAULTS) :]
    assert [plan.faults for plan in alone] == [(fault,) for fault in FAULTS.values()]
    assert [plan.mixed for plan in mixed] == [True, True, True]
    assert [plan.number for plan in [*alone, *mixed]] == list(range(len(FAULTS) + 3))


def test_a_seed_draws_the_same_plan_again() -> None:
    """Seeds and faults of every round come from the campaign's seed."""
    drawn = [[(plan.seed, plan.name) for plan in islice(plans(seed), 200)] for seed in (5, 5, 6)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_faults_of_a_mixed_round_do_not_clash() -> None:
    """Of faults with the same word there is one, and every fault that may be mixed is, sooner or later."""
    seen = set()
    for plan in islice(plans(3), len(FAULTS), len(FAULTS) + 300):
        words = [fault.clashes for fault in plan.faults if fault.clashes]
        assert len(words) == len(set(words))
        seen |= {fault.name for fault in plan.faults}
    left_out = {fault.name for fault in FAULTS.values() if fault.fifo or fault.settings or fault.troubles}
    assert seen == FAULTS.keys() - left_out


async def test_a_round_that_concerns_all_servers_runs_alone() -> None:
    """It waits for the others, and the others wait for it."""
    some, everything = (
        Plan(0, 0, (next(fault for fault in FAULTS.values() if fault.server_wide is wide),), 1.0, 1.0)
        for wide in (False, True)
    )
    places = Places(2)
    await places.take(some)
    waiting = asyncio.create_task(places.take(everything))
    later = asyncio.create_task(asyncio.sleep(0))
    await later
    assert not waiting.done()
    places.leave(some)
    await waiting
    after = asyncio.create_task(places.take(some))
    await asyncio.sleep(0)
    assert not after.done()
    places.leave(everything)
    await after
