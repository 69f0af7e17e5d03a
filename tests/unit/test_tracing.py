"""What traces tell, and that nothing is needed and nothing done while they are off."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stacworker import tracing
from stacworker.errors import Permanent

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": {"DataType": "String", "StringValue": f"00-{TRACE}-b7ad6b7169203331-01"}}


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Switch tracing on; give the spans that have ended."""
    exporter = InMemorySpanExporter()
    tracing.switch_on("1.2.3", exporter=exporter)
    yield exporter
    tracing.switch_off()


def test_off_it_is_nothing() -> None:
    """No span, nothing to link to, nothing to carry."""
    with tracing.span("x", carried_by=PARENT, links=[None], a__b=1) as span:
        assert span is None
        assert tracing.here() is None
        assert tracing.carried() == {}


def test_off_it_needs_no_packages() -> None:
    """The extra may be missing; switched on without it, it says what to install."""
    code = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from stacworker import tracing\n"
        "from stacworker.errors import ConfigError\n"
        "with tracing.span('x'): pass\n"
        "try: tracing.switch_on('1')\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "pip install 'stacworker[tracing]'" in done.stdout


def test_a_message_goes_on_with_its_producers_trace(spans: InMemorySpanExporter) -> None:
    """And what is sent meanwhile carries it on, as a child."""
    with tracing.span("process q", kind="consumer", carried_by=PARENT, messaging__system="aws_sqs") as span:
        sent = tracing.carried()["traceparent"]["StringValue"]
        tracing.tell(span, Permanent("bad geometry", error_class="invalid_item"), "dead_lettered")
    (found,) = spans.get_finished_spans()
    assert sent == f"00-{TRACE}-{found.context.span_id:016x}-01"
    assert (found.context.trace_id, found.parent.span_id) == (int(TRACE, 16), 0xB7AD6B7169203331)
    assert found.attributes == {
        "messaging.system": "aws_sqs",
        "stacworker.outcome": "dead_lettered",
        "error.type": "invalid_item",
    }
    assert (found.status.status_code.name, found.status.description) == ("ERROR", "bad geometry")
    assert found.resource.attributes["service.name"] == "stacworker"


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"traceparent": {"DataType": "String", "StringValue": "nonsense"}},
        {"traceparent": {"DataType": "Binary", "BinaryValue": b"x"}},
    ],
)
def test_without_a_good_parent_a_trace_begins(spans: InMemorySpanExporter, attributes: dict[str, Any]) -> None:
    """Whatever stands in the attributes."""
    with tracing.span("process q", carried_by=attributes):
        pass
    (found,) = spans.get_finished_spans()
    assert found.parent is None


def test_a_batch_links_to_its_messages(spans: InMemorySpanExporter) -> None:
    """It is a trace of its own, whichever message's task began it; each message is linked once."""
    with tracing.span("process a"):
        a = tracing.here()
    with tracing.span("process b"):
        b = tracing.here()
        with tracing.span("load things", links=[a, b, a, None]):
            pass
    found = {span.name: span for span in spans.get_finished_spans()}
    assert [link.context.span_id for link in found["load things"].links] == [a.span_id, b.span_id]
    assert found["load things"].parent is None
    assert found["load things"].context.trace_id not in (a.trace_id, b.trace_id)


def test_a_large_batch_links_to_all_of_its_messages(spans: InMemorySpanExporter) -> None:
    """As many as a batch holds, not only the hundred and some that OpenTelemetry keeps by default."""
    there = []
    for _ in range(2000):
        with tracing.span("process a"):
            there.append(tracing.here())
    with tracing.span("load things", links=there):
        pass
    (load,) = [span for span in spans.get_finished_spans() if span.name == "load things"]
    assert len(load.links) == 2000


def test_what_an_exception_says_stays_here(spans: InMemorySpanExporter) -> None:
    """Nothing of it is exported unless it is told in our own words, which are redacted."""
    with pytest.raises(ValueError, match="hunter2"), tracing.span("generate x"):
        raise ValueError("https://user:hunter2@host/")
    (found,) = spans.get_finished_spans()
    assert (found.events, found.status.status_code.name) == ((), "UNSET")
    assert "hunter2" not in found.to_json()


def test_a_collector_that_hangs_does_not_keep_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end waits for it a few seconds and no longer."""
    monkeypatch.setattr(tracing, "_SHUTDOWN_S", 0.1)
    hanging = threading.Event()

    class Exporter(InMemorySpanExporter):
        def shutdown(self) -> None:
            hanging.wait(60)

    tracing.switch_on("1", exporter=Exporter())
    started = time.monotonic()
    tracing.switch_off()
    assert time.monotonic() - started < 5
    hanging.set()


def test_traces_that_begin_here_are_sampled() -> None:
    """None of them with 0; one that a producer keeps is kept."""
    exporter = InMemorySpanExporter()
    tracing.switch_on("1", sample_ratio=0.0, exporter=exporter)
    try:
        with tracing.span("ours"):
            pass
        with tracing.span("theirs", carried_by=PARENT):
            pass
    finally:
        tracing.switch_off()
    assert [span.name for span in exporter.get_finished_spans()] == ["theirs"]
