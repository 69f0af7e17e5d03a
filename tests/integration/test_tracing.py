"""A trace from a producer through generate, an output queue and load, as an OTLP collector receives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.integration.aws import MakeQueue
from tests.integration.recorder import recorder
from tests.integration.worker import Catalogue, Worker

# What is tested is not pgstac: that loading works on each version, other tests show.
pytestmark = pytest.mark.newest_pgstac

TRACE = "0af7651916cd43dd8448eb211c80319c"


def spans_in(got: list[tuple[str, bytes]]) -> list[Any]:
    """Return the spans of what was exported over OTLP."""
    requests = [ExportTraceServiceRequest.FromString(body) for _, body in got]
    return [span for each in requests for r in each.resource_spans for scope in r.scope_spans for span in scope.spans]


async def test_one_trace_from_producer_to_commit(
    worker: Callable[..., Worker],
    queue: MakeQueue,
    catalogue: Catalogue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The request's trace goes on in the item's message and its load, whose batch links to it; a drain exports all."""
    (tmp_path / "made.py").write_text(
        "def create_items(request):\n"
        "    return {'type': 'Feature', 'stac_version': '1.0.0', 'id': request['id'], 'links': [], 'assets': {},\n"
        "      'collection': 'things', 'geometry': {'type': 'Point', 'coordinates': [1, 2]}, 'bbox': [1, 2, 1, 2],\n"
        "      'properties': {'datetime': '2024-01-01T00:00:00Z'}}\n"
    )
    requests, items = queue("requests"), queue("items")
    with recorder() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        running = worker(
            {"name": "requests", "type": "generate", "queue_url": requests.url, "output": f"sqs:{items.url}"},
            {"name": "items", "type": "load", "queue_url": items.url},
            generators={"made": {"type": "made:create_items"}},
            tracing={"enabled": True},
        )
        await running.start()
        await requests.send(
            json.dumps({"id": "a", "path": "x"}), attributes={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
        )
        await catalogue.until_count("things", 1)
        assert await running.stop() == 0
    spans = {span.name.split("-")[0]: span for span in spans_in(collector.got)}
    assert sorted(spans) == ["generate made", "load things", "process items", "process requests"]
    in_trace = [name for name, span in spans.items() if span.trace_id.hex() == TRACE]
    assert sorted(in_trace) == ["generate made", "process items", "process requests"]
    assert spans["process requests"].parent_span_id.hex() == "b7ad6b7169203331"
    assert spans["generate made"].parent_span_id == spans["process requests"].span_id
    assert spans["process items"].parent_span_id == spans["process requests"].span_id
    assert [link.span_id for link in spans["load things"].links] == [spans["process items"].span_id]
