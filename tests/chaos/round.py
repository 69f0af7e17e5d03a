"""One round: fresh queues and a fresh catalogue, workers, a workload, faults, and then the truth."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.fleet import Environment, Fleet
from tests.chaos.gateway import Gateway
from tests.chaos.oracle import Letter, Row, Violation, judge
from tests.chaos.tcp import TcpProxy
from tests.chaos.witness import Witness
from tests.chaos.workload import COLLECTIONS, Maker, Parcel, Workload
from tests.chaos.world import PGSTAC_VERSIONS, ROLE, Queue, World

_SETTLE_S = 120.0
_BATCH = 5
_ROWS = """
SELECT collection, id, content->'properties'->>'rev',
       to_char(datetime AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), public.ST_X(geometry)
FROM pgstac.items
"""
_SEARCH = "SELECT pgstac.search(%s::jsonb)->'features'"


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong. `inject` does it to a running round for a while and returns how many times.

    `tries` is the queue's maxReceiveCount: 5 where nothing may cost a message its tries, more where workers
    are killed. `env` is what workers are started with. With `generates` there are requests too, some of which get
    their generator into `troubles`.
    """

    name: str
    inject: Callable[[Round], Awaitable[int]]
    tries: int = 5
    replicas: int = 2
    generates: bool = False
    troubles: tuple[str, ...] = ()
    fifo: bool = False
    env: Environment = lambda _: {}
    settings: Mapping[str, Any] = field(default_factory=dict)


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
    """What faults can reach: the proxies, the fleet, the database; `random` is the round's own."""

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
        self._fifo = any(fault.fifo for fault in faults)
        self._generates = any(fault.generates for fault in faults)
        self._replicas = max(fault.replicas for fault in faults)
        self._tries = max(fault.tries for fault in faults)
        self._sent = 0

    # -- the course of it ----------------------------------------------------------------------------

    async def run(self) -> Result:
        """Run to the end, and say what was found."""
        started = time.monotonic()
        async with self._open():
            workload = self._workload()
            self.fleet.env = self._environment
            await self.fleet.fill(self._replicas)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(workload))
                for fault in self.faults:
                    group.create_task(self._inject(fault))
            self._heal()
            await self.fleet.fill(2)
            violations = await self._settle()
            await self.witness.look_again()
            violations += self.witness.violations
            violations += [Violation("unclean", f"the witness met {error!r}") for error in self.gateway.hook_errors]
            violations += await self.fleet.drain()
            letters = [
                Letter(
                    each["Body"], each.get("MessageAttributes", {}).get("stacworker_reason", {}).get("StringValue", "")
                )
                for queue in self.queues.values()
                for each in await asyncio.to_thread(self.world.take_all, queue.dead_url)
            ]
            left = [
                each["Body"]
                for queue in self.queues.values()
                for each in await asyncio.to_thread(self.world.take_all, queue.url)
            ]
            violations += judge(workload, await self._rows(), letters, left)
            violations += await self._unfindable(workload)
        return Result(
            seed=self.seed,
            injected=self.injected,
            messages=len(workload.parcels),
            items=len(workload.winners),
            versions=sum(1 for _ in workload.copies()),
            deletes_witnessed=self.witness.looked_at,
            letters=len(letters),
            repeated_letters=max(0, len(letters) - len(workload.marks)),
            seconds=time.monotonic() - started,
            violations=tuple(violations),
        )

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="stacworker-chaos-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            version = PGSTAC_VERSIONS[self.seed % len(PGSTAC_VERSIONS)]
            self.database = await asyncio.to_thread(self.world.postgres.clone, version)
            stack.callback(self.world.postgres.drop_database, self.database)
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
            names = ["items", "requests"] if self._generates else ["items"]
            self.queues: dict[str, Queue] = {
                name: await asyncio.to_thread(
                    self.world.make_queue, f"{self.folder.name}-{name}", tries=self._tries, fifo=self._fifo
                )
                for name in names
            }
            await asyncio.to_thread(self._create_collections)
            self.fleet = Fleet(self.folder, self._settings(), self.random)
            stack.callback(self.fleet.close)
            yield

    def _create_collections(self) -> None:
        for collection, trunc in COLLECTIONS.items():
            body = (
                f'{{"id": "{collection}", "type": "Collection", "stac_version": "1.0.0", "description": "-", '
                '"license": "other", "links": [], "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, '
                '"temporal": {"interval": [[null, null]]}}}'
            )
            part = f"'{trunc}'" if trunc else "NULL"
            self.world.postgres.execute(
                f"SET search_path TO pgstac, public; SELECT pgstac.create_collection('{body}'); "
                f"UPDATE pgstac.collections SET partition_trunc = {part} WHERE id = '{collection}'",
                database=self.database,
            )

    def _settings(self) -> dict[str, Any]:
        common = {
            "max_in_flight": 100,
            "visibility_timeout_s": 4,
            "wait_time_s": 1,
            "backoff_base_s": 0.2,
            "backoff_max_s": 1.5,
        }
        consumers: list[dict[str, Any]] = [
            {"name": "items", "type": "load", "queue_url": self.queues["items"].url, **common}
        ]
        settings: dict[str, Any] = {
            "aws": {"endpoint_url": self.gateway.endpoint_url, "region": "us-east-1"},
            "database": {
                "dsn": f"postgresql://{ROLE}@127.0.0.1:{self.proxy.port}/{self.database}",
                "max_connections": 6,
                "lock_timeout_s": 1.5,
                "statement_timeout_s": 15,
            },
            "collections": {
                "default": {"max_batch_items": 300, "max_batch_wait_s": 0.3},
                "plain": {"max_concurrency": 2},
            },
            "drain_timeout_s": 20,
        }
        if self._generates:
            consumers.append(
                {"name": "requests", "type": "generate", "queue_url": self.queues["requests"].url, **common}
            )
            settings["generators"] = {
                "chaos": {
                    "type": "tests.chaos.generator:create_items",
                    "processes": 2,
                    "timeout_s": 3,
                    "memory_mb": 256,
                }
            }
        for fault in self.faults:
            consumers = [{**consumer, **fault.settings} for consumer in consumers]
        return {**settings, "consumers": consumers}

    def _environment(self, random: Random) -> Mapping[str, str]:
        return {name: value for fault in self.faults for name, value in fault.env(random).items()}

    def _workload(self) -> Workload:
        state = self.folder / "state"
        state.mkdir()
        maker = Maker(self.random, self.bucket, str(state))
        if self._fifo:
            return maker.ordered(groups=round(12 * self._scale), versions=8)
        maker.singles(round(150 * self._scale))
        maker.bundles(round(25 * self._scale), 40)
        maker.objects(round(11 * self._scale), 400)
        maker.moving(200, versions=4, ties=40)
        maker.bad(round(24 * self._scale))
        if self._generates:
            troubles = [each for fault in self.faults for each in fault.troubles]
            maker.requests(round(90 * self._scale), troubles)
        return maker.workload()

    async def _send(self, workload: Workload) -> None:
        """Send everything within the time of the faults."""
        batches = list(_batches(workload.parcels))
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
        """Wait until the queues are empty; what nobody works on any more is made visible now and then."""
        deadline = time.monotonic() + _SETTLE_S
        # Who is in trouble needs all its tries for itself.
        patience_s = 30.0 if any(fault.troubles for fault in self.faults) else 1.0
        expire_at = time.monotonic() + patience_s
        while left := sum([await asyncio.to_thread(self.world.depth, queue.url) for queue in self.queues.values()]):
            if time.monotonic() > deadline:
                return [Violation("stalled", f"{left} messages are left: {self._tails()}")]
            if time.monotonic() > expire_at:
                patience_s *= 2
                expire_at = time.monotonic() + patience_s
                await self.gateway.expire(100_000)
            await self.fleet.fill(1)
            await asyncio.sleep(0.1)
        return []

    def _tails(self) -> str:
        return "\n".join(worker.log()[-1500:] for worker in self.fleet.alive)

    # -- what is there -------------------------------------------------------------------------------

    async def _rows(self) -> list[Row]:
        return [Row(*row) for row in await asyncio.to_thread(self.world.fetch, self.database, _ROWS)]

    async def _unfindable(self, workload: Workload) -> list[Violation]:
        """Ask pgstac's search for a sample, by time: a partition without statistics is invisible to it."""
        winners = workload.winners
        sample = self.random.sample(list(winners.values()), min(100, len(winners)))
        by_collection: dict[str, list[Any]] = {}
        for copy in sample:
            by_collection.setdefault(copy.collection, []).append(copy)
        missing = []
        for collection, copies in by_collection.items():
            asked = {
                "collections": [collection],
                "ids": [copy.id for copy in copies],
                "datetime": "2023-12-31T00:00:00Z/2025-01-31T00:00:00Z",
                "limit": 200,
            }
            ((features,),) = await asyncio.to_thread(self.world.fetch, self.database, _SEARCH, json.dumps(asked))
            found = {feature["id"]: feature for feature in features}
            missing += [
                Violation("unfindable", f"search does not find {copy.key} as it was sent: {found.get(copy.id)}")
                for copy in copies
                if not _equal(found.get(copy.id), copy.body())
            ]
        return missing


def _equal(found: dict[str, Any] | None, sent: dict[str, Any]) -> bool:
    return found is not None and all(
        found.get(name) == sent[name] for name in sent if name not in ("links", "stac_version")
    )


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
