"""Traces with OpenTelemetry, where they are switched on; off, everything here returns at once.

A message carries its trace in the attributes `traceparent` and `tracestate`, as instrumented producers send them; so do
the messages that go out. A batch is a span of its own, with links to the messages whose items it holds.
https://www.w3.org/TR/trace-context/, https://opentelemetry.io/docs/specs/semconv/messaging/sqs/
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from stacworker.errors import ConfigError, StacworkerError

_SHUTDOWN_S = 5.0
_LINKS_MAX = 10_000
_NAMES = ("traceparent", "tracestate")
_OFF: AbstractContextManager[Any] = nullcontext()
_tracer: Any = None
_provider: Any = None


def switch_on(version: str, *, sample_ratio: float = 1.0, exporter: Any = None) -> None:
    """Export spans to where the OTEL_EXPORTER_OTLP_… variables say; raises ConfigError without the extra.

    `sample_ratio` is for traces that begin here; one that a producer began is kept if the producer keeps it.
    `exporter` takes the place of OTLP's, for tests: its spans are exported at once.
    """
    global _tracer, _provider  # noqa: PLW0603 - as OpenTelemetry's own
    try:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

            processor: Any = BatchSpanProcessor(OTLPSpanExporter())
        else:
            processor = SimpleSpanProcessor(exporter)
    except ImportError as error:
        raise ConfigError(f"tracing.enabled: {error}: pip install 'stacworker[tracing]'") from error
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES overrule what is set here.
    resource = Resource.create().merge(Resource({"service.version": version}))
    if str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "stacworker"}))
    # A batch links to each of its messages; OpenTelemetry's own limit is 128 links.
    limits = SpanLimits(max_links=_LINKS_MAX)
    _provider = TracerProvider(resource=resource, sampler=ParentBasedTraceIdRatio(sample_ratio), span_limits=limits)
    _provider.add_span_processor(processor)
    _tracer = _provider.get_tracer("stacworker", version)


def switch_off() -> None:
    """Export what is left, and end it; harmless when it was never on."""
    global _tracer, _provider
    provider, _tracer, _provider = _provider, None, None
    if provider is not None:
        # A collector that does not answer must not keep us: whoever ends us does not wait for spans.
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(_SHUTDOWN_S)


def span(
    name: str,
    *,
    kind: Literal["internal", "consumer", "client", "producer"] = "internal",
    carried_by: Mapping[str, Mapping[str, Any]] | None = None,
    links: Iterable[Any] | None = None,
    **attributes: str | float | bool,
) -> AbstractContextManager[Any]:
    """Begin a span that ends with the context; gives the span, or None while tracing is off.

    It belongs to the trace that message attributes carry, if they do, else to the span around it. With `links`, which
    `here` returned elsewhere, it begins a trace of its own. In attributes' names `__` stands for a dot.
    """
    if _tracer is None:
        return _OFF
    from opentelemetry import context, trace  # noqa: PLC0415 - an extra

    there = {each.span_id: each for each in links or () if each is not None and each.is_valid}
    linked = [trace.Link(each) for each in there.values()]
    parent = context.Context() if links is not None else _extracted(carried_by) if carried_by else None
    told = {key.replace("__", "."): value for key, value in attributes.items()}
    found: AbstractContextManager[Any] = _tracer.start_as_current_span(
        name,
        context=parent,
        kind=trace.SpanKind[kind.upper()],
        links=linked,
        attributes=told,
        # What OpenTelemetry would record, message and stack, may hold secrets: `tell` says it in our own words.
        record_exception=False,
        set_status_on_exception=False,
    )
    return found


def tell(span: Any, error: StacworkerError | None, outcome: str = "") -> None:
    """Say on a span (or on None, while tracing is off) how what it stands for ended."""
    if span is None:
        return
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - an extra

    if outcome:
        span.set_attribute("stacworker.outcome", outcome)
    if error is not None:
        span.set_attribute("error.type", error.error_class)
        span.set_status(Status(StatusCode.ERROR, error.reason))


def here() -> Any:
    """Return what a later span may link to: the span that is under way; None while tracing is off."""
    if _tracer is None:
        return None
    from opentelemetry import trace  # noqa: PLC0415 - an extra

    return trace.get_current_span().get_span_context()


def carried() -> dict[str, dict[str, str]]:
    """Return the message attributes that carry the trace on to whoever gets the message; {} while tracing is off."""
    if _tracer is None:
        return {}
    from opentelemetry.propagate import inject  # noqa: PLC0415 - an extra

    headers: dict[str, str] = {}
    inject(headers)
    return {name: {"DataType": "String", "StringValue": headers[name]} for name in _NAMES if headers.get(name)}


def _extracted(attributes: Mapping[str, Mapping[str, Any]]) -> Any:
    from opentelemetry.propagate import extract  # noqa: PLC0415 - an extra

    values = {name: attributes.get(name, {}).get("StringValue") for name in _NAMES}
    return extract({name: value for name, value in values.items() if isinstance(value, str)})
