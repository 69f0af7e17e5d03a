"""The overview: the golden signals of all workers."""

from __future__ import annotations

from deploy.grafana.parts import (
    NAMESPACE,
    QUEUE,
    WORKER,
    Dashboard,
    Limits,
    Panel,
    Row,
    per_second,
    quantile,
    ratio,
    series,
)

_Q = 'queue=~"$queue"'
_FAILED = 'outcome=~"retried|dead_lettered"'
_ENDED = 'outcome!="released"'
_DEAD = 'outcome="dead_lettered"'
_VISIBLE = 'state="visible"'
_AGE = Limits(warn=900, bad=1800)
_RATIO = Limits(warn=0.01, bad=0.05)


def _failure_ratio(by: str) -> str:
    return ratio(per_second("messages_total", by, _Q, _FAILED), per_second("messages_total", by, _Q, _ENDED))


def _stat(title: str, about: str, expression: str, unit: str, limits: Limits | None = None) -> Panel:
    return Panel(title, about, [(expression, title)], unit, "stat", limits or Limits(), width=3, height=4)


_NOW = Row(
    "Now",
    [
        _stat("Items loaded", "Items committed per second.", f"sum(rate({series('items_loaded_total')}[5m]))", "recps"),
        _stat(
            "Messages ended",
            "Messages acknowledged, retried or dead-lettered per second.",
            f"sum(rate({series('messages_total', _Q, _ENDED)}[5m]))",
            "mps",
        ),
        _stat(
            "Failures",
            "Share of the messages that ended in a retry or as a dead letter, in five minutes.",
            f"sum(rate({series('messages_total', _Q, _FAILED)}[5m])) "
            f"/ sum(rate({series('messages_total', _Q, _ENDED)}[5m]))",
            "percentunit",
            _RATIO,
        ),
        _stat(
            "Dead letters",
            "Messages that were moved to a dead-letter queue, in the time shown.",
            f"sum(increase({series('messages_total', _Q, _DEAD)}[$__range]))",
            "short",
            Limits(warn=1, bad=100),
        ),
        _stat(
            "Waiting",
            "Messages in the queues that nobody has received.",
            f"sum(max by (namespace, queue) ({series('queue_messages', _Q, _VISIBLE)}))",
            "short",
        ),
        _stat(
            "Oldest message",
            "Age of the oldest message in hand, since it was sent.",
            f"max({series('oldest_message_age_seconds', _Q)})",
            "s",
            _AGE,
        ),
        _stat(
            "Paused consumers",
            "Consumers that wait for a dependency (an open circuit).",
            f"sum({series('circuit_open')}) or vector(0)",
            "short",
            Limits(bad=1),
        ),
        _stat(
            "Replicas",
            "Processes that answered the last scrape.",
            f"count({series('build_info')})",
            "short",
            Limits(bad=1, warn=1, below=True),
        ),
    ],
)

_THROUGHPUT = Row(
    "Throughput",
    [
        Panel(
            "Messages by outcome",
            "How messages end. Released ones were given back: a drain, or a dependency that is away.",
            [(per_second("messages_total", "outcome", _Q), "{{outcome}}")],
            "mps",
            stacked=True,
        ),
        Panel(
            "Messages received",
            "By queue. More than what ends means that work piles up in hand.",
            [(per_second("messages_received_total", "queue", _Q), "{{queue}}")],
            "mps",
        ),
        Panel(
            "Items loaded",
            "Items committed, the ten busiest collections.",
            [(f"topk(10, {per_second('items_loaded_total', 'collection')})", "{{collection}}")],
            "recps",
            stacked=True,
        ),
    ],
)

_LATENCY = Row(
    "Latency",
    [
        Panel(
            "From sent to committed",
            "Over all queues: from the message's sent time to COMMIT, the wait in the queue included.",
            [
                (quantile(0.5, "end_to_end_latency_seconds", "", _Q), "p50"),
                (quantile(0.95, "end_to_end_latency_seconds", "", _Q), "p95"),
                (quantile(0.99, "end_to_end_latency_seconds", "", _Q), "p99"),
            ],
            "s",
            limits=_AGE,
        ),
        Panel(
            "From sent to committed, by queue",
            "The 95th percentile of each queue.",
            [(quantile(0.95, "end_to_end_latency_seconds", "queue", _Q), "{{queue}}")],
            "s",
            limits=_AGE,
        ),
        Panel(
            "Fetching an S3 object",
            "Bodies that messages point to.",
            [
                (quantile(0.5, "fetch_duration_seconds", ""), "p50"),
                (quantile(0.95, "fetch_duration_seconds", ""), "p95"),
            ],
            "s",
            limits=Limits(warn=1, bad=10),
        ),
    ],
)

_ERRORS = Row(
    "Errors and dead letters",
    [
        Panel(
            "Failure ratio",
            "Share of messages that ended in a retry or as a dead letter.",
            [(_failure_ratio("queue"), "{{queue}}")],
            "percentunit",
            limits=_RATIO,
            at_most=1,
        ),
        Panel(
            "Dead letters",
            "Messages moved to a dead-letter queue. Their attributes carry the reason.",
            [(per_second("messages_total", "queue", _Q, _DEAD), "{{queue}}")],
            "mps",
            limits=Limits(warn=0.01, bad=1),
        ),
        Panel(
            "Items refused",
            "Items that can never be loaded, by reason.",
            [(per_second("items_rejected_total", "collection, error_class"), "{{collection}} {{error_class}}")],
            "recps",
            limits=Limits(warn=0.01, bad=1),
        ),
        Panel(
            "Leases and deletes",
            "Deliveries of what was in hand already, leases that were lost, deletes that SQS refused. "
            "All are harmless to the catalogue; many of them cost work twice.",
            [
                (per_second("duplicate_deliveries_total", "", _Q), "duplicate deliveries"),
                (per_second("ownership_lost_total", "", _Q), "leases lost"),
                (per_second("delete_failures_total", "", _Q), "deletes refused"),
            ],
            "mps",
            limits=Limits(warn=1),
        ),
        Panel(
            "Since the last success",
            "Time since a consumer last acknowledged a message. Compare with what waits: an idle queue has no success.",
            [(f"time() - max by (consumer) ({series('last_success_timestamp_seconds')} > 0)", "{{consumer}}")],
            "s",
            limits=Limits(warn=900, bad=3600),
        ),
        Panel(
            "Paused for a dependency",
            "1 and more: consumers that pause because a dependency is away. The series appears with the first outage.",
            [(f"sum by (dependency) ({series('circuit_open')})", "{{dependency}}")],
            "short",
            limits=Limits(bad=1),
        ),
    ],
)

_SATURATION = Row(
    "Backlog and saturation",
    [
        Panel(
            "Messages in the queues",
            "As SQS counts them (approximately): visible, in flight with any receiver, delayed.",
            [
                (
                    f"max by (queue, state) ({series('queue_messages', _Q)})",
                    "{{queue}} {{state}}",
                )
            ],
            "short",
            limits=Limits(bad=120_000),
        ),
        Panel(
            "Oldest message",
            "Age of the oldest message in hand, since it was sent.",
            [(f"max by (queue) ({series('oldest_message_age_seconds', _Q)})", "{{queue}}")],
            "s",
            limits=_AGE,
        ),
        Panel(
            "Messages in hand",
            "Over all replicas; bounded by max_in_flight of each.",
            [(f"sum by (queue) ({series('in_flight_messages', _Q)})", "{{queue}}")],
            "short",
        ),
        Panel(
            "Bytes in hand",
            "Bodies of messages in hand, over all replicas; bounded by max_in_flight_bytes of each.",
            [(f"sum by (queue) ({series('in_flight_bytes', _Q)})", "{{queue}}")],
            "bytes",
        ),
        Panel(
            "Items that wait in batches",
            "Much for long: loads are slower than what comes. See the dashboard of the database.",
            [(f"sum by (collection) ({series('buffered_items')})", "{{collection}}")],
            "short",
        ),
        Panel(
            "Event loop lag",
            "How late the loop runs a timer, the worst replica. Lag delays leases and health checks.",
            [(f"max by (job) ({series('event_loop_lag_seconds')})", "{{job}}")],
            "s",
            limits=Limits(warn=0.1, bad=0.5),
        ),
    ],
)

OVERVIEW = Dashboard(
    "overview",
    "Overview",
    "Throughput, latency, errors and backlog of all workers.",
    [NAMESPACE, WORKER, QUEUE],
    [_NOW, _THROUGHPUT, _LATENCY, _ERRORS, _SATURATION],
)
