"""The drill-down into collections: what is loaded, refused, and how batches come together."""

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
_LOADS = per_second("load_duration_seconds_count", "collection", _C)

_LOADED = per_second("items_loaded_total", "collection", _C)
_REFUSED = per_second("items_rejected_total", "collection", _C)

_ITEMS = Row(
    "Items",
    [
        Panel(
            "Loaded",
            "Items committed.",
            [(per_second("items_loaded_total", "collection", _C), "{{collection}}")],
            "recps",
            stacked=True,
        ),
        Panel(
            "Superseded",
            "Items that were not loaded because a newer version was: duplicates and late messages.",
            [(per_second("items_superseded_total", "collection", _C), "{{collection}}")],
            "recps",
        ),
        Panel(
            "Refused",
            "Items that can never be loaded, by reason; each is in a dead letter.",
            [(per_second("items_rejected_total", "collection, error_class", _C), "{{collection}} {{error_class}}")],
            "recps",
            limits=Limits(warn=0.01, bad=1),
        ),
        Panel(
            "Share refused",
            "Of the items that came to an end.",
            [
                (ratio(_REFUSED, f"({_REFUSED} + {_LOADED})"), "{{collection}}"),
            ],
            "percentunit",
            limits=Limits(warn=0.01, bad=0.05),
            at_most=1,
        ),
        Panel(
            "Waiting in batches",
            "Items that wait for their batch to go.",
            [(f"sum by (collection) ({series('buffered_items', _C)})", "{{collection}}")],
            "short",
        ),
        Panel(
            "Loads",
            "Transactions; pieces of split batches count, too.",
            [(_LOADS, "{{collection}}")],
            "ops",
        ),
    ],
)

_BATCHES = Row(
    "Batches",
    [
        Panel(
            "Items in a batch",
            "Small batches under load: messages come too slowly, or max_in_flight is below max_batch_items.",
            [
                (quantile(0.5, "batch_items", "collection", _C), "p50 {{collection}}"),
                (quantile(0.95, "batch_items", "collection", _C), "p95 {{collection}}"),
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
        Panel(
            "Wait in a batch",
            "From a batch's first item to the start of its load; max_batch_wait_s plus the load before it.",
            [
                (quantile(0.5, "batch_wait_seconds", "collection", _C), "p50 {{collection}}"),
                (quantile(0.95, "batch_wait_seconds", "collection", _C), "p95 {{collection}}"),
            ],
            "s",
            limits=Limits(warn=10, bad=60),
        ),
    ],
)

_LOADING = Row(
    "Loading",
    [
        Panel(
            "Load duration",
            "One transaction, the wait for locks included.",
            [
                (quantile(0.5, "load_duration_seconds", "collection", _C), "p50 {{collection}}"),
                (quantile(0.95, "load_duration_seconds", "collection", _C), "p95 {{collection}}"),
                (quantile(0.99, "load_duration_seconds", "collection", _C), "p99 {{collection}}"),
            ],
            "s",
            limits=Limits(warn=10, bad=60),
        ),
        Panel(
            "Wait for the collection",
            "The mean wait for a slot of the collection: others write to it.",
            [(mean("lock_wait_seconds", "collection", _C, 'scope="collection"'), "{{collection}}")],
            "s",
            limits=Limits(warn=1, bad=2.5),
        ),
        Panel(
            "Retries and splits",
            "Transactions tried again, by reason, and batches halved to find the item that the database refuses.",
            [
                (per_second("load_retries_total", "collection, error_class", _C), "{{collection}} {{error_class}}"),
                (per_second("batch_bisections_total", "collection", _C), "{{collection}} splits"),
            ],
            "ops",
            limits=Limits(warn=1),
        ),
    ],
)

COLLECTIONS = Dashboard(
    "collections",
    "Collections",
    "One collection, or all of them: items, batches, loads.",
    [NAMESPACE, WORKER, COLLECTION],
    [_ITEMS, _BATCHES, _LOADING],
)
