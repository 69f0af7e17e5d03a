"""The ground that the other integration tests stand on: LocalStack, its fixtures, and its end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote_plus

import pytest

from stacworker.aws import Aws
from stacworker.errors import ConfigError, Unavailable
from stacworker.testing.localstack import LocalStack
from tests.integration.aws import Depth, MakeBucket, MakeQueue, MakeTopic, Received


async def test_what_is_sent_is_drained(queue: MakeQueue) -> None:
    """Messages beyond one batch arrive all, with their attributes, and the queue is empty after."""
    items = queue("items")

    ids = await items.send(*(f"body {n:02}" for n in range(25)), attributes={"origin": "test"})
    assert await items.depth() == Depth(visible=25)
    drained = await items.drain(25)

    assert len(set(ids)) == 25
    assert sorted(drained, key=lambda message: message.body) == [
        Received(body=f"body {n:02}", attributes={"origin": "test"}, receive_count=1, group_id=None) for n in range(25)
    ]
    assert await items.depth() == Depth()


async def test_the_daemons_clients_reach_the_same_server(aws: Aws, queue: MakeQueue) -> None:
    """What an aioboto3 client sends, the fixture's client receives."""
    items = queue()

    async with aws.client("sqs") as client:
        await client.send_message(QueueUrl=items.url, MessageBody="hello")

    assert [message.body for message in await items.drain(1)] == ["hello"]


async def test_a_message_received_too_often_goes_to_the_dead_letter_queue(aws: Aws, queue: MakeQueue) -> None:
    """The redrive policy that the fixture sets is the one that SQS acts on."""
    items = queue(max_receive_count=1, visibility_timeout_s=0)
    assert items.dead_letters is not None
    await items.send("poison")

    async with aws.client("sqs") as client:
        first = await client.receive_message(QueueUrl=items.url, WaitTimeSeconds=1)
        second = await client.receive_message(QueueUrl=items.url, WaitTimeSeconds=1)

    assert [message["Body"] for message in first["Messages"]] == ["poison"]
    assert second.get("Messages", []) == []
    assert [message.body for message in await items.dead_letters.drain(1)] == ["poison"]


async def test_a_fifo_queue_keeps_the_order_of_a_group(queue: MakeQueue) -> None:
    """Messages of one group come in the order they were sent."""
    items = queue(fifo=True)

    await items.send("one", "two", "three", group_id="a")

    assert [(message.group_id, message.body) for message in await items.drain(3)] == [
        ("a", "one"),
        ("a", "two"),
        ("a", "three"),
    ]


async def test_an_object_is_announced_in_a_queue(bucket: MakeBucket, queue: MakeQueue) -> None:
    """S3 tells the queue of its configuration with a test event, then of the object, its key encoded."""
    items, arrivals = bucket("items"), queue("arrivals")
    items.notify(arrivals.arn)

    assert await items.put("a folder/é+1.json", b"{}") == f"s3://{items.name}/a folder/é+1.json"
    bodies = [json.loads(message.body) for message in await arrivals.drain(2)]

    events = [
        (record["eventName"], record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"]))
        for body in bodies
        for record in body.get("Records", [])
    ]
    assert [body["Event"] for body in bodies if "Event" in body] == ["s3:TestEvent"]
    assert events == [("ObjectCreated:Put", items.name, "a folder/é+1.json")]


async def test_a_topic_delivers_wrapped_and_raw(topic: MakeTopic, queue: MakeQueue) -> None:
    """One published message reaches one queue in SNS's envelope and another as it is."""
    news, wrapped, raw = topic("news"), queue("wrapped"), queue("raw")
    news.subscribe(wrapped)
    news.subscribe(raw, raw=True)

    await news.publish("hello")

    [envelope] = [json.loads(message.body) for message in await wrapped.drain(1)]
    assert (envelope["Type"], envelope["TopicArn"], envelope["Message"]) == ("Notification", news.arn, "hello")
    assert [message.body for message in await raw.drain(1)] == ["hello"]


def listens(host: str, port: int) -> bool:
    """Say whether somebody takes connections there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except ConnectionRefusedError:
        return False
    except (ConnectionError, TimeoutError):
        return True  # something is still there, if only to die
    return True


def test_localstack_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """Whoever starts LocalStack may die without a chance to stop it, and leaves no process and no file."""
    program = (
        "import time\n"
        "from stacworker.testing.localstack import LocalStack\n"
        "with LocalStack(services=('sqs',)) as server:\n"
        "    print(server.endpoint_url, flush=True)\n"
        "    time.sleep(600)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        host, port = parent.stdout.readline().strip().removeprefix("http://").split(":")
        assert listens(host, int(port))
        parent.kill()
    deadline = time.monotonic() + 10
    while listens(host, int(port)):
        assert time.monotonic() < deadline, "LocalStack still listens"
    assert list(tmp_path.iterdir()) == []


def test_a_localstack_that_cannot_start_says_why() -> None:
    """The error carries the end of the log, because LocalStack itself says next to nothing."""
    with pytest.raises(Unavailable, match=r"(?s)ended with exit code 1 while it started.*No module named 'localstack'"):
        LocalStack(python=Path(sys.executable)).start()


def test_a_missing_localstack_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A newcomer who runs pytest by hand learns which script installs LocalStack."""
    monkeypatch.setenv("STACWORKER_LOCALSTACK_PYTHON", str(tmp_path / "python"))
    with pytest.raises(ConfigError, match="run scripts/setup localstack"):
        LocalStack().start()
