"""One round: fresh queues and a fresh catalogue, workers, a workload, faults, and then the truth."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.chaos import readback
from tests.chaos.fault import MANY_TRIES, Fault
from tests.chaos.fleet import Fleet
from tests.chaos.gateway import Gateway
from tests.chaos.oracle import Letter, Violation, judge
from tests.chaos.site import create_collections, worker_settings
from tests.chaos.tcp import TcpProxy
from tests.chaos.witness import Witness
from tests.chaos.workload import Maker, Parcel, Workload
from tests.chaos.world import PGSTAC_VERSIONS, Queue, World

_REPLICAS = 2
_SETTLE_S = 180.0
_LEASES_END_S = 2.0
_BATCH = 5
_SAMPLE = 100


@dataclass(frozen=True, slots=True)
class Result:
    """What a round was and how it ended. `injected` counts by fault; items are distinct ones."""

    seed: int
    injected: dict[str, int]
    messages: int
    items: int
    versions: int
    deletes_witnessed: int
    letters: int
    repeated_letters: int
    seconds: float
    violations: tuple[Violation, ...]

    @property
    def broken(self) -> Counter[str]:
        """How many promises of each kind were broken."""
        return Counter(each.kind for each in self.violations)


class Round:
    """What faults can reach: the proxies, the fleet, the database; `random` is the round's own.

    All that a round does is drawn from `seed`; what meets what in time is not.
    """

    def __init__(
        self, world: World, seed: int, faults: Sequence[Fault], *, scale: float = 1.0, seconds: float = 5.0
    ) -> None:
        self.world = world
        self.seed = seed
        self.faults = faults
        self.random = Random(seed)
        self.seconds = seconds
        self.injected: dict[str, int] = {}
        self._scale = scale
        self._tries = max(fault.tries for fault in faults)
        self._sent = 0
        self._waited_s = 0.0

    # -- the course of it ----------------------------------------------------------------------------

    async def run(self) -> Result:
        """Run to the end, and say what was found. An error of the round's own is a broken promise like others."""
        started = time.monotonic()
        workload, letters, violations, witnessed = Workload(()), list[Letter](), list[Violation](), 0
        try:
            async with self._open():
                workload = self._workload()
                violations += await self._work(workload)
                letters = await readback.letters(self.world, self.queues.values())
                left = await readback.bodies(self.world, self.queues.values())
                violations += judge(workload, await readback.rows(self.world, self.database), letters, left)
                winners = list(workload.winners.values())
                sample = self.random.sample(winners, min(_SAMPLE, len(winners)))
                violations += await readback.unfindable(self.world, self.database, sample)
                witnessed = self.witness.looked_at
        except Exception:  # noqa: BLE001 - hours of other rounds may be behind this one
            violations.append(Violation("unclean", f"the round itself failed: {traceback.format_exc()}"))
        return Result(
            seed=self.seed,
            injected=self.injected,
            messages=len(workload.parcels),
            items=len(workload.winners),
            versions=sum(1 for _ in workload.copies()),
            deletes_witnessed=witnessed,
            letters=len(letters),
            repeated_letters=max(0, len(letters) - len(workload.marks)),
            seconds=time.monotonic() - started - self._waited_s,
            violations=tuple(violations),
        )

    async def _work(self, workload: Workload) -> list[Violation]:
        """Let workers work under faults, then without, until all is done and they have ended."""
        self.fleet.env = self._environment
        await self.fleet.fill(_REPLICAS)
        began = time.monotonic()
        async with self.world.stage:
            self._waited_s = time.monotonic() - began
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(workload))
                for fault in self.faults:
                    group.create_task(self._inject(fault))
            self._heal()
            await self.fleet.fill(_REPLICAS)
            stalled = await self._settle()
        await self.witness.look_again()
        met = [Violation("unclean", f"the witness met {error!r}") for error in self.gateway.hook_errors]
        return [*stalled, *self.witness.violations, *met, *await self.fleet.drain()]

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="stacworker-chaos-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.database = await stack.enter_async_context(
                self.world.database(PGSTAC_VERSIONS[self.seed % len(PGSTAC_VERSIONS)])
            )
            await asyncio.to_thread(create_collections, self.world, self.database)
            self.proxy = await stack.enter_async_context(TcpProxy("127.0.0.1", self.world.postgres.port))
            self.witness = Witness(self.world, self.database)
            self.gateway = await stack.enter_async_context(
                Gateway(
                    self.world.localstack.endpoint_url,
                    random=Random(self.seed),
                    before_delete=self.witness.before_delete,
                    on_send=self.witness.on_send,
                )
            )
            self.bucket = f"chaos-{self.seed}"
            await asyncio.to_thread(self.world.s3.create_bucket, Bucket=self.bucket)
            self.queues = {name: await asyncio.to_thread(self._make_queue, name) for name in self._queue_names()}
            settings = worker_settings(
                self.faults,
                self.queues,
                aws_url=self.gateway.endpoint_url,
                postgres_port=self.proxy.port,
                database=self.database,
            )
            self.fleet = Fleet(self.folder, settings, self.random)
            stack.callback(self.fleet.close)
            yield

    def _queue_names(self) -> list[str]:
        return ["items", "requests"] if any(fault.generates for fault in self.faults) else ["items"]

    def _make_queue(self, name: str) -> Queue:
        fifo = any(fault.fifo for fault in self.faults)
        return self.world.make_queue(f"{self.folder.name}-{name}", tries=self._tries, fifo=fifo)

    def _environment(self, random: Random) -> Mapping[str, str]:
        return {name: value for fault in self.faults for name, value in fault.env(random).items()}

    def _workload(self) -> Workload:
        state = self.folder / "state"
        state.mkdir()
        maker = Maker(self.random, self.bucket, str(state))
        if any(fault.fifo for fault in self.faults):
            return maker.ordered(groups=round(12 * self._scale), versions=8)
        maker.singles(round(150 * self._scale))
        maker.bundles(round(25 * self._scale), 40)
        maker.objects(round(11 * self._scale), 400)
        maker.moving(200, versions=4, ties=40)
        maker.racing(round(30 * self._scale), items=4)
        maker.bad(round(24 * self._scale))
        if "requests" in self.queues:
            maker.requests(round(90 * self._scale), [each for fault in self.faults for each in fault.troubles])
        return maker.workload()

    async def _send(self, workload: Workload) -> None:
        """Send everything within the time of the faults."""
        batches = _batches(workload.parcels)
        pause_s = self.seconds * 0.8 / len(batches)
        for parcels in batches:
            started = time.monotonic()
            await asyncio.to_thread(self._send_batch, parcels)
            await asyncio.sleep(max(0.0, pause_s - (time.monotonic() - started)))

    def _send_batch(self, parcels: Sequence[Parcel]) -> None:
        for parcel in parcels:
            for key, data in parcel.objects:
                self.world.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
        self._sent += len(parcels)
        named = {f"{self._sent}-{n}": parcel for n, parcel in enumerate(parcels)}
        first = parcels[0]
        bodies = {name: parcel.body for name, parcel in named.items()}
        ids = self.world.send(self.queues[first.queue].url, bodies, first.group)
        for name, parcel in named.items():
            self.witness.expect(ids[name], parcel)

    async def _inject(self, fault: Fault) -> None:
        self.injected[fault.name] = await fault.inject(self)

    def _heal(self) -> None:
        """End all faults. What they did to the database each undoes itself."""
        self.fleet.env = lambda _: {}
        self.gateway.clear()
        self.proxy.pass_()

    async def _settle(self) -> list[Violation]:
        """Wait until the queues are empty; messages that are to come back much later are made to come now."""
        deadline = time.monotonic() + _SETTLE_S
        # Whose generators are in trouble needs all its receives for that; where there are many, one more costs nothing.
        patience_s = _LEASES_END_S if self._tries < MANY_TRIES else _LEASES_END_S / 2
        if any(fault.troubles for fault in self.faults):
            patience_s = _SETTLE_S
        expire_at = time.monotonic() + patience_s
        while left := sum([await asyncio.to_thread(self.world.depth, queue.url) for queue in self.queues.values()]):
            if time.monotonic() > deadline:
                tails = "\n".join(worker.log()[-1500:] for worker in self.fleet.alive)
                return [Violation("stalled", f"{left} messages are left: {tails}")]
            if time.monotonic() > expire_at:
                patience_s *= 2
                expire_at = time.monotonic() + patience_s
                await self.gateway.expire(100_000)
            await self.fleet.fill(1)
            await asyncio.sleep(0.1)
        return []


def _batches(parcels: Sequence[Parcel]) -> list[list[Parcel]]:
    """Cut into batches of neighbours that may go in one call."""
    batches: list[list[Parcel]] = []
    for parcel in parcels:
        last = batches[-1] if batches else None
        if last and len(last) < _BATCH and (last[0].queue, last[0].group) == (parcel.queue, parcel.group):
            last.append(parcel)
        else:
            batches.append([parcel])
    return batches
