"""The whole corpus of hostile messages, shuffled among good ones, through a real worker into a real catalogue."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

from tests.corpus.hostile import COLLECTION, LOADED, Case, corpus
from tests.integration.aws import MakeBucket, MakeQueue
from tests.integration.conftest import MakeWorker
from tests.integration.worker import Catalogue, item

_REASON_MAX_BYTES = 1024


async def test_each_is_loaded_or_a_dead_letter_with_a_reason(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, bucket: MakeBucket
) -> None:
    """None of them ends the process, stalls it, costs a neighbour, vanishes, or ends both ways."""
    items, files = queue("items", max_receive_count=3), bucket()
    assert items.dead_letters is not None
    cases: dict[str, Case] = {}
    for case in corpus():
        if case.object_bytes is not None:
            await files.put(case.key, case.object_bytes)
            cases[json.dumps({"href": f"s3://{files.name}/{case.key}"})] = case
        else:
            cases[case.body] = case
    good = [json.dumps(item(f"good-{n}")) for n in range(len(cases))]
    bodies = [*good, *(body for body in cases if _sendable(body))]
    Random(1).shuffle(bodies)
    running = worker({"name": "items", "type": "load", "queue_url": items.url})
    await running.start()
    await items.send(*bodies)
    await items.wait_until_empty(timeout_s=120)
    letters = {letter.body: letter for letter in await items.dead_letters.drain()}
    rows = await catalogue.ids(COLLECTION)
    assert [id_ for id_, count in Counter(rows).items() if count > 1] == []
    loaded = {each["id"]: each for each in await catalogue.search(collections=[COLLECTION], limit=10_000)}
    assert loaded.keys() == set(rows)
    assert {f"good-{n}" for n in range(len(good))} <= loaded.keys()
    wrong = {}
    for body, case in cases.items():
        if not _sendable(body):
            continue
        letter = letters.pop(body, None)
        became = LOADED if letter is None else letter.attributes["stacworker_error_class"]
        if case.becomes not in (None, became):
            wrong[case.name] = (became, letter and letter.attributes["stacworker_reason"])
        if letter is not None:
            reason = letter.attributes["stacworker_reason"]
            assert 0 < len(reason.encode()) <= _REASON_MAX_BYTES
        elif case.object_bytes is None and not _is_as_sent(loaded, case.body):
            wrong[case.name] = ("not found as sent", case.body[:200])
    assert wrong == {}
    assert letters == {}
    assert running.metric("messages_received_total") == sum(running.outcomes().values())
    assert running.events("message.unexpected_error") + running.events("load.unexpected") == []
    assert await running.stop() == 0


def _sendable(body: str) -> bool:
    """Say whether SQS takes a body: it refuses some characters."""
    return all(
        char in "\t\n\r" or " " <= char <= "\ud7ff" or "\ue000" <= char <= "\ufffd" or char > "\uffff" for char in body
    )


def _is_as_sent(loaded: dict[str, Any], body: str) -> bool:
    """Say whether search finds a bare item as it was sent; other bodies are not compared."""
    sent = json.loads(body) if body.startswith("{") else {}
    if not isinstance(sent, dict) or sent.get("type") != "Feature":
        return True
    found = _without_nulls(loaded.get(sent["id"]) or {})
    expected = _without_nulls(sent)
    return all(found.get(name) == expected.get(name) for name in ("id", "properties", "assets", "bbox"))


def _without_nulls(value: Any) -> Any:
    """Leave out what pgstac leaves out of what search answers."""
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
