"""Inject faults and check that nothing is lost: `scripts/chaos --help`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.campaign import FAULTS, Places, Plan, plans
from tests.chaos.report import Row, say, show_round, show_table, write_json
from tests.chaos.round import Round
from tests.chaos.world import World

_MIXED = 4
_UNDER_WAY = 2
"""While one has its faults the next gets ready; two with faults at a time are more than two cores bear."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a campaign; return 0 when every promise was kept."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="what workloads and plans are drawn from (default: 1)")
    parser.add_argument("--minutes", type=float, help="go on with mixed rounds until so many minutes are over")
    parser.add_argument("--only", action="append", default=[], metavar="FAULT", help="only this fault (repeatable)")
    parser.add_argument("--mixed", type=int, help=f"how many mixed rounds (default: {_MIXED}, with --only: none)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round to this file")
    parser.add_argument("--list", action="store_true", help="list the faults and end")
    arguments = parser.parse_args(argv)
    if arguments.list:
        say("\n".join(FAULTS))
        return 0
    if unknown := [name for name in arguments.only if name not in FAULTS]:
        parser.error(f"no such fault: {', '.join(unknown)}; --list shows them")
    try:
        return asyncio.run(_campaign(arguments))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted")
        return 130


async def _campaign(arguments: argparse.Namespace) -> int:
    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    started = time.monotonic()
    mixed = arguments.mixed
    if mixed is None and arguments.minutes is None:
        mixed = 0 if arguments.only else _MIXED
    end = started + arguments.minutes * 60 if arguments.minutes else None
    rows: list[Row] = []
    places = Places(_UNDER_WAY)

    with World() as world:

        async def run(plan: Plan) -> None:
            try:
                result = await Round(world, plan.seed, plan.faults, scale=plan.scale, seconds=plan.seconds).run()
            finally:
                places.leave(plan)
            rows.append((plan, result))
            show_round(plan, result)

        async with asyncio.TaskGroup() as rounds:
            for plan in plans(arguments.seed, arguments.only, mixed):
                await places.take(plan)
                if end is not None and plan.mixed and time.monotonic() > end:
                    break
                rounds.create_task(run(plan))
    rows.sort(key=lambda row: row[0].number)
    show_table(rows)
    if arguments.json:
        write_json(arguments.json, arguments.seed, rows)
    broken = sum(len(result.violations) for _, result in rows)
    idle = [plan.name for plan, result in rows if not plan.mixed and not sum(result.injected.values())]
    say(
        f"seed {arguments.seed}: {broken} broken promises in {time.monotonic() - started:.0f} s"
        + (f"; not injected: {', '.join(idle)}" if idle else "")
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
