"""Contention in the database: locks, retries, splits, batch sizes."""

from __future__ import annotations

from deploy.grafana.parts import (
    COLLECTION,
    NAMESPACE,
    WORKER,
    Dashboard,
    Limits,
    Panel,
    Row,
    mean,
    per_second,
    quantile,
    ratio,
    series,
)

_C = 'collection=~"$collection"'
_SLOT = 'scope="collection"'
_DATABASE = 'dependency="database"'
_WAIT = Limits(warn=1, bad=2.5)
_LOADED = per_second("items_loaded_total", "", _C)
_BUSY = per_second("load_duration_seconds_sum", "", _C)

_LOCKS = Row(
    "Locks",
    [
        Panel(
            "Lock wait",
            "collection: a slot to write to a collection; ddl: the one lock under which partitions are made.",
            [
                (quantile(0.5, "lock_wait_seconds", "scope", _C), "p50 {{scope}}"),
                (quantile(0.95, "lock_wait_seconds", "scope", _C), "p95 {{scope}}"),
                (quantile(0.99, "lock_wait_seconds", "scope", _C), "p99 {{scope}}"),
            ],
            "s",
            limits=_WAIT,
        ),
        Panel(
            "Lock wait by collection",
            "The 95th percentile of the ten worst.",
            [
                (
                    f"topk(10, {quantile(0.95, 'lock_wait_seconds', 'collection, scope', _C)})",
                    "{{collection}} {{scope}}",
                )
            ],
            "s",
            limits=_WAIT,
        ),
        Panel(
            "Share of load time spent waiting",
            "Near 1: replicas wait for each other, and more of them load no more.",
            [
                (
                    ratio(
                        per_second("lock_wait_seconds_sum", "collection", _C, _SLOT),
                        per_second("load_duration_seconds_sum", "collection", _C),
                    ),
                    "{{collection}}",
                )
            ],
            "percentunit",
            limits=Limits(warn=0.5, bad=0.9),
            at_most=1,
        ),
        Panel(
            "Transactions that wait",
            "How many wait for a lock at a time, on average; each holds a connection.",
            [(per_second("lock_wait_seconds_sum", "scope", _C), "{{scope}}")],
            "short",
        ),
        Panel(
            "Partitions made or widened",
            "Each takes strong locks for a moment, and readers wait behind them.",
            [(per_second("lock_wait_seconds_count", "collection", _C, 'scope="ddl"'), "{{collection}}")],
            "ops",
            limits=Limits(warn=1),
        ),
        Panel(
            "Paused for the database",
            "Consumers that pause because the database is away. The series appears with the first outage.",
            [(f"sum by (job) ({series('circuit_open', _DATABASE)})", "{{job}}")],
            "short",
            limits=Limits(bad=1),
        ),
    ],
)

_LOADS = Row(
    "Loads",
    [
        Panel(
            "Load duration",
            "How many transactions took how long, the wait for locks included.",
            [(f"sum by (le) (increase({series('load_duration_seconds_bucket', _C)}[$__rate_interval]))", "{{le}}")],
            "s",
            "heatmap",
        ),
        Panel(
            "Load duration by collection",
            "The mean of a transaction.",
            [(mean("load_duration_seconds", "collection", _C), "{{collection}}")],
            "s",
            limits=Limits(warn=10, bad=60),
        ),
        Panel(
            "Loads at a time",
            "On average, over all replicas: busy connections.",
            [(per_second("load_duration_seconds_sum", "job", _C), "{{job}}")],
            "short",
        ),
        Panel(
            "Retries",
            "Transactions tried again, by reason: deadlock, lock_timeout, serialization, connection and others.",
            [(per_second("load_retries_total", "error_class", _C), "{{error_class}}")],
            "ops",
            limits=Limits(warn=1, bad=10),
        ),
        Panel(
            "Splits",
            "Batches halved because the database refused something in them.",
            [(per_second("batch_bisections_total", "collection", _C), "{{collection}}")],
            "ops",
            limits=Limits(warn=1),
        ),
        Panel(
            "Items for a second of load time",
            "What the database gives for its time; falls with contention, small batches and bloat.",
            [(ratio(_LOADED, _BUSY), "items/s")],
            "recps",
        ),
        Panel(
            "Items in a batch",
            "Large batches cost the database least.",
            [
                (quantile(0.5, "batch_items", "", _C), "p50"),
                (quantile(0.95, "batch_items", "", _C), "p95"),
                (mean("batch_items", "", _C), "mean"),
            ],
            "short",
        ),
        Panel(
            "Batch sizes",
            "How many batches of which size.",
            [(f"sum by (le) (increase({series('batch_items_bucket', _C)}[$__rate_interval]))", "{{le}}")],
            "short",
            "heatmap",
        ),
    ],
)

DATABASE = Dashboard(
    "database",
    "Database contention",
    "What loads wait for, what they retry, and how large they are.",
    [NAMESPACE, WORKER, COLLECTION],
    [_LOCKS, _LOADS],
)
