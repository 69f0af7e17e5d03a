"""The fleet: replicas, their load, leases and drains."""

from __future__ import annotations

from deploy.grafana.parts import (
    NAMESPACE,
    QUEUE,
    REPLICA,
    REPLICA_LEGEND,
    WORKER,
    Dashboard,
    Limits,
    Panel,
    Row,
    per_second,
    series,
)

_Q = 'queue=~"$queue"'
_IN_FLIGHT = 'state="in_flight"'
_START = series("process_start_time_seconds")

_REPLICAS = Row(
    "Replicas",
    [
        Panel(
            "Replicas",
            "Processes that answer scrapes, and of them those that drain.",
            [
                (f"count by (job) ({series('build_info')})", "{{job}}"),
                (f"sum by (job) ({series('draining')})", "{{job}} draining"),
            ],
            "short",
        ),
        Panel(
            "Restarts",
            "In the last half hour, of the same replica. A process that is replaced by another counts as new.",
            [(f"changes({_START}[30m])", REPLICA_LEGEND)],
            "short",
            limits=Limits(warn=1, bad=3),
        ),
        Panel(
            "Uptime",
            "Since the process started.",
            [(f"time() - max by ({REPLICA}) ({_START})", REPLICA_LEGEND)],
            "s",
        ),
        Panel(
            "Versions",
            "What runs where.",
            [(series("build_info"), REPLICA_LEGEND)],
            "short",
            "table",
            width=24,
            height=6,
        ),
    ],
)

_LOAD = Row(
    "Load of each replica",
    [
        Panel(
            "Memory",
            "Resident memory. Children of generators have their own.",
            [(f"max by ({REPLICA}) ({series('process_resident_memory_bytes')})", REPLICA_LEGEND)],
            "bytes",
            limits=Limits(warn=1_500_000_000, bad=3_000_000_000),
        ),
        Panel(
            "CPU",
            "Cores in use. The daemon itself can use one: near 1 add replicas.",
            [(per_second("process_cpu_seconds_total", REPLICA), REPLICA_LEGEND)],
            "short",
            limits=Limits(warn=0.7, bad=0.9),
        ),
        Panel(
            "Event loop lag",
            "How late the loop runs a timer.",
            [(f"max by ({REPLICA}) ({series('event_loop_lag_seconds')})", REPLICA_LEGEND)],
            "s",
            limits=Limits(warn=0.1, bad=0.5),
        ),
        Panel(
            "Messages in hand",
            "By replica: an uneven share is normal, none for long is not.",
            [(f"sum by ({REPLICA}) ({series('in_flight_messages', _Q)})", REPLICA_LEGEND)],
            "short",
        ),
        Panel(
            "Bytes in hand",
            "By replica.",
            [(f"sum by ({REPLICA}) ({series('in_flight_bytes', _Q)})", REPLICA_LEGEND)],
            "bytes",
        ),
        Panel(
            "Messages acknowledged",
            "By replica.",
            [(per_second("messages_total", REPLICA, _Q, 'outcome="acked"'), REPLICA_LEGEND)],
            "mps",
        ),
    ],
)

_LEASES = Row(
    "Leases and drain",
    [
        Panel(
            "Draining",
            "1 from SIGTERM to the end, at most drain_timeout_s.",
            [(f"max by ({REPLICA}) ({series('draining')})", REPLICA_LEGEND)],
            "short",
            at_most=1,
        ),
        Panel(
            "Given back",
            "Messages released: what a drain could not finish, or what waits for a dependency.",
            [(per_second("messages_total", "queue", _Q, 'outcome="released"'), "{{queue}}")],
            "mps",
        ),
        Panel(
            "Lease extensions",
            "By outcome: failed ones are tried again, lost ones belong to somebody else.",
            [(per_second("visibility_extensions_total", "queue, outcome", _Q), "{{queue}} {{outcome}}")],
            "ops",
        ),
        Panel(
            "Leases lost",
            "Messages whose lease ran out or was taken while they were worked on.",
            [(per_second("ownership_lost_total", "queue", _Q), "{{queue}}")],
            "mps",
            limits=Limits(warn=0.01, bad=1),
        ),
        Panel(
            "In flight, of SQS' 120,000",
            "Messages received and not deleted, of all receivers of the queue. Beyond 120,000 SQS hands out no more.",
            [(f"max by (queue) ({series('queue_messages', _Q, _IN_FLIGHT)}) / 120000", "{{queue}}")],
            "percentunit",
            limits=Limits(warn=0.5, bad=0.8),
            at_most=1,
        ),
        Panel(
            "Duplicate deliveries",
            "Deliveries of a message that was in hand already.",
            [(per_second("duplicate_deliveries_total", "queue", _Q), "{{queue}}")],
            "mps",
            limits=Limits(warn=1),
        ),
    ],
)

FLEET = Dashboard(
    "fleet",
    "Fleet and drain",
    "Replicas, their load, their leases, and how they end.",
    [NAMESPACE, WORKER, QUEUE],
    [_REPLICAS, _LOAD, _LEASES],
)
