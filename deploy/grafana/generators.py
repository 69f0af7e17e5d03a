"""Generators and pipelines: what they make, how long it takes, what fails."""

from __future__ import annotations

from deploy.grafana.parts import (
    GENERATOR,
    NAMESPACE,
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

_G = 'generator=~"$generator"'
_FAILED = per_second("items_generated_total", "generator", _G, 'outcome!="ok"')
_REQUESTS = per_second("generation_duration_seconds_count", "generator", _G)
_SLOW = Limits(warn=30, bad=120)

_WORK = Row(
    "Generators",
    [
        Panel(
            "Items made",
            "By generator.",
            [(per_second("items_generated_total", "generator", _G, 'outcome="ok"'), "{{generator}}")],
            "recps",
            stacked=True,
        ),
        Panel(
            "Failed requests",
            "By reason. What may pass is retried, the rest are dead letters.",
            [
                (
                    per_second("items_generated_total", "generator, outcome", _G, 'outcome!="ok"'),
                    "{{generator}} {{outcome}}",
                )
            ],
            "reqps",
            limits=Limits(warn=0.1, bad=1),
        ),
        Panel(
            "Share of requests that fail",
            "Of the requests that reached a child process.",
            [(ratio(_FAILED, _REQUESTS), "{{generator}}")],
            "percentunit",
            limits=Limits(warn=0.01, bad=0.05),
            at_most=1,
        ),
        Panel(
            "Duration of a request",
            "In a child process; timeout_s ends it.",
            [
                (quantile(0.5, "generation_duration_seconds", "generator", _G), "p50 {{generator}}"),
                (quantile(0.95, "generation_duration_seconds", "generator", _G), "p95 {{generator}}"),
                (quantile(0.99, "generation_duration_seconds", "generator", _G), "p99 {{generator}}"),
            ],
            "s",
            limits=_SLOW,
        ),
        Panel(
            "Durations",
            "How many requests took how long.",
            [
                (
                    f"sum by (le) (increase({series('generation_duration_seconds_bucket', _G)}[$__rate_interval]))",
                    "{{le}}",
                )
            ],
            "s",
            "heatmap",
        ),
        Panel(
            "Busy child processes",
            "On average, over all replicas. Near processes times replicas: give the generator more of either.",
            [(per_second("generation_duration_seconds_sum", "generator", _G), "{{generator}}")],
            "short",
        ),
    ],
)

_PIPELINES = Row(
    "Pipelines",
    [
        Panel(
            "Pipelines",
            "The folders that run, and those that are broken and left out (on_broken: skip), the worst replica.",
            [(f"max by (job, state) ({series('pipelines')})", "{{job}} {{state}}")],
            "short",
            width=12,
        ),
        Panel(
            "Failed triggers",
            "Inventories, schedules and feeds that failed; each is tried again.",
            [(f"sum by (pipeline) (increase({series('trigger_failures_total')}[$__rate_interval]))", "{{pipeline}}")],
            "short",
            limits=Limits(warn=1, bad=3),
            width=12,
        ),
    ],
)

GENERATORS = Dashboard(
    "generators",
    "Generators",
    "Generators and pipelines.",
    [NAMESPACE, WORKER, GENERATOR],
    [_WORK, _PIPELINES],
)
