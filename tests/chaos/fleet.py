"""The workers of a round: real processes of the daemon that come and go."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.fault import Environment
from tests.chaos.oracle import Violation
from tests.chaos.world import CREDENTIALS
from tests.integration.worker import Worker, metric_in

REPOSITORY = Path(__file__).parents[2]
_FORESEEN = 0, -signal.SIGKILL
_SIGNALLED = -signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGINT
"""By the system; the last by the command line, which turns a Ctrl-C into an exit code as shells do."""
_FORESEEN_ERRORS = (
    "circuit.opened",
    # asyncpg leaves a waiter behind when a connection ends that has just had an error.
    "Future exception was never retrieved\nfuture: <Future finished exception=ConnectionDoesNotExistError(",
)
"""How the messages of errors begin that workers may log."""
_READY_S = 120.0
_ENDED_S = 120.0
_OUTCOMES = ("acked", "retried", "dead_lettered", "released")


class Fleet:
    """Starts and ends workers with the same settings; `env` gives what each gets on top of its environment."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], random: Random) -> None:
        self._folder = folder
        self._settings = settings
        self._random = random
        self._all: list[Worker] = []
        self._violations: list[Violation] = []
        self.env: Environment = lambda _: {}

    @property
    def alive(self) -> list[Worker]:
        """The workers that run now."""
        return [worker for worker in self._all if worker.exit_code is None]

    def add(self) -> Worker:
        """Start one more worker; it is not ready yet."""
        env = {
            **CREDENTIALS,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONPATH": str(REPOSITORY),
            "TMPDIR": str(self._folder),
            **self.env(self._random),
        }
        name = f"worker-{len(self._all):02}"
        worker = Worker(self._folder, self._settings, env, name=name, module="tests.chaos.launcher")
        worker.spawn()
        self._all.append(worker)
        return worker

    async def fill(self, replicas: int, *, ready: bool = True) -> None:
        """Start workers until there are so many."""
        added = [self.add() for _ in range(replicas - len(self.alive))]
        if ready:
            await asyncio.gather(*map(self._until_ready, added))

    async def _until_ready(self, worker: Worker) -> None:
        deadline = time.monotonic() + _READY_S
        while worker.exit_code is None and not await asyncio.to_thread(worker.is_ready):
            if time.monotonic() > deadline:
                self._violations.append(Violation("stalled", f"not ready after {_READY_S} s: {worker.log()}"))
                return
            await asyncio.sleep(0.05)

    def one(self) -> Worker | None:
        """Return one that runs, at random."""
        alive = self.alive
        return self._random.choice(alive) if alive else None

    async def drain(self) -> list[Violation]:
        """End all that run with SIGTERM; return what was wrong with any of all workers."""
        violations = self._violations
        for worker in self.alive:
            violations += await asyncio.to_thread(_accounts, worker)
        for worker in self.alive:
            worker.signal(signal.SIGTERM)
        codes = await asyncio.gather(*(worker.ended(_ENDED_S) for worker in self._all))
        for worker, code in zip(self._all, codes, strict=True):
            # Before and after its work a worker leaves signals to the system.
            idle = not worker.events("started") or bool(worker.events("exit.clean"))
            signalled_twice = bool(worker.events("exit.forced"))
            if code not in _FORESEEN and not (code in _SIGNALLED and idle) and not signalled_twice:
                violations.append(
                    Violation("unclean", f"{worker.log_file.name} ended with {code}: {worker.log()[-2000:]}")
                )
            violations += _unforeseen(worker.log_file)
        return violations

    def close(self) -> None:
        """Kill what still runs."""
        for worker in self._all:
            worker.cleanup()


def _accounts(worker: Worker) -> list[Violation]:
    """Check that each message that a worker received had one outcome, or is in hand."""
    text = worker.get("/metrics")[1]  # once: the worker goes on
    received, in_hand = metric_in(text, "messages_received_total"), metric_in(text, "in_flight_messages")
    ended = sum(metric_in(text, "messages_total", outcome=outcome) for outcome in _OUTCOMES)
    if received == ended + in_hand:
        return []
    return [Violation("unclean", f"{worker.log_file.name} received {received}, ended {ended}, has {in_hand} in hand")]


def _unforeseen(log: Path) -> list[Violation]:
    """Check that a worker wrote nothing but its log, and no error in it that nobody foresaw."""
    whole_lines = log.read_text(errors="replace").split("\n")[:-1]  # who is killed may leave half a line
    wrong = [line for line in whole_lines if not line.startswith("{") or _is_unforeseen(json.loads(line))]
    return [Violation("unclean", f"{log.name} says {line[:1500]}") for line in wrong[:3]]


def _is_unforeseen(event: Mapping[str, Any]) -> bool:
    return event["level"] in ("error", "critical") and not event["event"].startswith(_FORESEEN_ERRORS)
