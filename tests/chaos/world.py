"""The servers of a campaign: one LocalStack and one Postgres, and clients that reach them past all faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any, Self

import boto3
import psycopg
from botocore.config import Config

from stacworker.testing.localstack import REGION, LocalStack
from stacworker.testing.postgres import Postgres

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": "test"}
PGSTAC_VERSIONS = ("0.10.0", "0.9.12")
ROLE = "ingest"
_BATCH = 10


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of a round, with its dead-letter queue's URL."""

    name: str
    url: str
    dead_url: str


class World:
    """The servers; a context manager. Everything in it ends with this process."""

    def __init__(self) -> None:
        self.localstack = LocalStack()
        # A commit has to survive `kill -9` of the server; the machine itself does not crash here.
        self.postgres = Postgres(settings={"synchronous_commit": "on", "max_connections": "200"})
        self._running = ExitStack()
        self._cloning = asyncio.Lock()
        self.stage = asyncio.Lock()
        """Held by the round that has its faults; others start or end their workers meanwhile."""

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            starting.enter_context(self.localstack)
            starting.enter_context(self.postgres)
            self.sqs, self.s3 = (starting.enter_context(closing(self._client(name))) for name in ("sqs", "s3"))
            for version in PGSTAC_VERSIONS:
                with self.postgres.scratch(version):
                    pass
            self.postgres.execute(f"CREATE ROLE {ROLE} LOGIN IN ROLE pgstac_ingest")
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.localstack.endpoint_url,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(max_pool_connections=20, s3={"addressing_style": "path"}),
        )

    # -- queues and objects --------------------------------------------------------------------------

    def make_queue(self, name: str, *, tries: int, fifo: bool = False) -> Queue:
        """Create a queue whose messages may be received `tries` times, and its dead-letter queue."""
        suffix, attributes = (
            (".fifo", {"FifoQueue": "true", "ContentBasedDeduplication": "false"}) if fifo else ("", {})
        )
        dead_url = self.sqs.create_queue(QueueName=f"{name}-dead{suffix}", Attributes=attributes)["QueueUrl"]
        found = self.sqs.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["QueueArn"])
        policy = json.dumps({"deadLetterTargetArn": found["Attributes"]["QueueArn"], "maxReceiveCount": tries})
        created = self.sqs.create_queue(QueueName=f"{name}{suffix}", Attributes={**attributes, "RedrivePolicy": policy})
        return Queue(name, created["QueueUrl"], dead_url)

    def send(self, url: str, bodies: Mapping[str, str], group: str | None = None) -> dict[str, str]:
        """Send up to 10 messages; return the id of each message by its name in `bodies`."""
        more = {"MessageGroupId": group} if group else {}
        entries = [
            {
                "Id": name,
                "MessageBody": body,
                **more,
                **({"MessageDeduplicationId": f"{group}-{name}"} if group else {}),
            }
            for name, body in bodies.items()
        ]
        answer = self.sqs.send_message_batch(QueueUrl=url, Entries=entries)
        if answer.get("Failed"):
            raise RuntimeError(f"the queue does not take a message: {answer['Failed']}")
        return {entry["Id"]: entry["MessageId"] for entry in answer["Successful"]}

    def depth(self, url: str) -> int:
        """Count all messages of a queue, whatever their state."""
        names = [f"ApproximateNumberOfMessages{state}" for state in ("", "NotVisible", "Delayed")]
        found = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def take_all(self, url: str) -> list[dict[str, Any]]:
        """Receive and delete everything that is visible in a queue."""
        taken: list[dict[str, Any]] = []
        while True:
            answer = self.sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=_BATCH, MessageAttributeNames=["All"], AttributeNames=["All"]
            )
            messages = answer.get("Messages", [])
            if not messages:
                return taken
            entries = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(messages)]
            self.sqs.delete_message_batch(QueueUrl=url, Entries=entries)
            taken += messages

    # -- Postgres ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def database(self, pgstac_version: str) -> AsyncIterator[str]:
        """Lend a new database with an empty pgstac."""
        async with self._cloning:
            name = await asyncio.to_thread(self.postgres.clone, pgstac_version)
        try:
            yield name
        finally:
            await asyncio.to_thread(self.postgres.drop_database, name)

    async def execute(self, database: str, statement: str) -> None:
        """Run SQL as the superuser; an error of the server's is the caller's."""
        await asyncio.to_thread(self.postgres.execute, statement, database=database)

    def fetch(self, database: str, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query, asked as the superuser past the proxy."""
        with psycopg.connect(self.postgres.dsn(database), autocommit=True, connect_timeout=5) as connection:
            connection.execute("SET search_path TO pgstac, public")
            return connection.execute(query.encode(), arguments or None).fetchall()
