"""Every metric, declared in one place.

Labels are bounded: queue and consumer names come from settings, outcomes and error classes are fixed
words, and `collection` is capped (`collection_label`), because anybody who may send messages chooses
collection names.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_HOURS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)

MAX_COLLECTION_LABELS = 200
MAX_LABEL_LENGTH = 200
OTHER = "other"


class Metrics:
    """The metrics of one process, on a registry of their own (so that two can live in one test)."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._collections: set[str] = set()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"stacworker_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"stacworker_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"stacworker_{name}", text, labels, buckets=buckets, registry=self.registry)

        # queues
        self.messages_received = counter("messages_received_total", "Messages received.", "queue")
        self.messages = counter("messages_total", "Messages ended, by outcome.", "queue", "outcome")
        self.duplicate_deliveries = counter(
            "duplicate_deliveries_total", "Deliveries of a message that was in hand already.", "queue"
        )
        self.visibility_extensions = counter(
            "visibility_extensions_total", "Lease extensions, by outcome (ok, failed, lost).", "queue", "outcome"
        )
        self.ownership_lost = counter("ownership_lost_total", "Leases that ran out or were taken.", "queue")
        self.delete_failures = counter("delete_failures_total", "Deletes that SQS refused.", "queue")
        self.in_flight_messages = gauge("in_flight_messages", "Messages in hand.", "queue")
        self.in_flight_bytes = gauge("in_flight_bytes", "Bytes of message bodies in hand.", "queue")
        self.queue_messages = gauge(
            "queue_messages", "Messages in the queue, by state (visible, in_flight, delayed).", "queue", "state"
        )
        self.oldest_message_age = gauge(
            "oldest_message_age_seconds", "Age of the oldest message in hand, from its sent time.", "queue"
        )
        self.end_to_end_latency = histogram(
            "end_to_end_latency_seconds", "From a message's sent time to COMMIT.", _HOURS, "queue"
        )
        self.last_success = gauge("last_success_timestamp_seconds", "When a message was last acknowledged.", "consumer")
        # bodies
        self.fetch_duration = histogram("fetch_duration_seconds", "Fetching one S3 object.", _FAST)
        # generation
        self.items_generated = counter(
            "items_generated_total", "Items made (outcome ok) and requests failed.", "generator", "outcome"
        )
        self.generation_duration = histogram(
            "generation_duration_seconds", "One request in a child process.", _FAST, "generator"
        )
        # pipelines
        self.trigger_failures = counter(
            "trigger_failures_total", "Triggers of pipelines that failed and are tried again.", "pipeline"
        )
        self.pipelines = gauge("pipelines", "Pipelines, by state (running, broken).", "state")
        # loading
        self.items_loaded = counter("items_loaded_total", "Items committed.", "collection")
        self.items_rejected = counter("items_rejected_total", "Items refused for good.", "collection", "error_class")
        self.items_superseded = counter(
            "items_superseded_total", "Items not loaded because a newer version was.", "collection"
        )
        self.batch_bisections = counter(
            "batch_bisections_total", "Batches split in two because the database refused them.", "collection"
        )
        self.load_retries = counter("load_retries_total", "Load transactions tried again.", "collection", "error_class")
        self.load_duration = histogram(
            "load_duration_seconds", "One load transaction, locks included.", _FAST, "collection"
        )
        self.lock_wait = histogram(
            "lock_wait_seconds", "Waiting for a lock, by scope (collection, ddl).", _FAST, "collection", "scope"
        )
        self.batch_items = histogram("batch_items", "Items in one batch.", _SIZES, "collection")
        self.batch_wait = histogram(
            "batch_wait_seconds", "From a batch's first item to the start of its load.", _FAST, "collection"
        )
        self.buffered_items = gauge("buffered_items", "Items that wait in batches.", "collection")
        # process: memory, CPU, start time, file descriptors (Linux)
        ProcessCollector(namespace="stacworker", registry=self.registry)
        self.circuit_open = gauge("circuit_open", "1 while polling pauses for a dependency.", "dependency")
        self.event_loop_lag = gauge("event_loop_lag_seconds", "How late the event loop runs a timer.")
        self.draining = gauge("draining", "1 from SIGTERM to the end.")
        self.build_info = gauge("build_info", "1; versions as labels.", "version", "pypgstac", "pgstac")

    def collection_label(self, collection: str) -> str:
        """Return the label for a collection: its id, or `other` once there are too many."""
        if collection in self._collections:
            return collection
        if len(self._collections) >= MAX_COLLECTION_LABELS or len(collection) > MAX_LABEL_LENGTH:
            return OTHER
        self._collections.add(collection)
        return collection
