"""What the chart refuses, and what it says then."""

from __future__ import annotations

from typing import Any

import pytest

from stacworker.settings import CollectionSettings, ConsumerSettings, DatabaseSettings, LimitsSettings, Settings
from tests.deploy.chart import Document, minimal, render

QUEUE = "https://sqs.us-west-2.amazonaws.com/123456789012/items"
LOAD = {"name": "items", "type": "load", "queue_url": QUEUE}
DIGEST = "sha256:" + "0" * 64


def refusal(values: Document) -> str:
    """Return the message with which the values are refused; "" when they are not."""
    from helm_python import HelmError  # noqa: PLC0415 - only these tests need it

    try:
        render(values)
    except HelmError as error:
        return str(error)
    return ""


def scaled(pods: int, **more: Any) -> Document:
    return {"autoscaling": {"enabled": True, "maxReplicas": pods}, **more}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workers": {}}, "workers: name at least one"),
        (minimal(items={"enabled": False}), "workers: name at least one"),
        (minimal(items={"config": {"consumers": []}}), "workers.items: it has nothing to do"),
        (minimal(workers={"migrate": {}}), "workers.migrate: the chart has another use for that name"),
        (minimal(workers={"a-pipelines": {}}), "workers.a-pipelines: the chart has another use for that name"),
        (minimal(image={"tag": "latest"}), "image.tag: latest is refused"),
        (minimal(image={"tag": ""}), "image.tag: name a version, or give image.digest"),
        (
            minimal(database={"secretArn": "arn:aws:secretsmanager:us-west-2:123456789012:secret:a"}),
            "database: give either existingSecret or secretArn, not both",
        ),
        (
            minimal(monitoring={"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}),
            "monitoring: enable either podMonitor or serviceMonitor",
        ),
        (
            minimal(items={"config": {"database": {"dsn": "postgresql://u:p@h/d"}}}),
            "workers.items.config.database.dsn: a DSN is a secret and this is a ConfigMap",
        ),
        (
            minimal(
                database={
                    "existingSecret": {"name": ""},
                    "secretArn": "arn:aws:secretsmanager:us-west-2:123456789012:secret:a",
                },
                items={"config": {"database": {"secret_arn": "b"}}},
            ),
            "workers.items.config.database.secret_arn: database.secretArn or existingSecret is given too",
        ),
        (
            minimal(items={"config": {"http": {"enabled": False}}}),
            "workers.items.config.http.enabled: probes need the port",
        ),
        (minimal(items={"config": {"http": {"port": 0}}}), "workers.items.config.http.port: probes need a port"),
        (
            minimal(items={"extraEnv": [{"name": "STACWORKER_DRAIN_TIMEOUT_S", "value": "600"}]}),
            "workers.items.extraEnv: STACWORKER_DRAIN_TIMEOUT_S would win over what the chart has checked",
        ),
        (
            minimal(items={"podDisruptionBudget": {"minAvailable": 1}}),
            "workers.items.podDisruptionBudget: give either minAvailable or maxUnavailable",
        ),
        (
            minimal(items={"terminationGracePeriodSeconds": 80}),
            "workers.items.terminationGracePeriodSeconds: 80 is too short: config.drain_timeout_s 60 + preStopSeconds",
        ),
        (
            minimal(items={"config": {"drain_timeout_s": 300}}),
            "workers.items.terminationGracePeriodSeconds: 90 is too short: config.drain_timeout_s 300",
        ),
        (
            minimal(items=scaled(11)),
            "databaseConnectionBudget: workers may need 88 connections (items 11 x 8), the budget is 80",
        ),
        (
            minimal(
                workers={"more": {"replicas": 5, "config": {"consumers": [LOAD], "database": {"max_connections": 10}}}},
                items=scaled(4),
            ),
            "databaseConnectionBudget: workers may need 82 connections (items 4 x 8, more 5 x 10), the budget is 80",
        ),
        (
            minimal(items={"config": {"consumers": [{**LOAD, "max_in_flight": 499}]}}),
            "collections.default.max_batch_items is 500, but consumer items holds only max_in_flight=499 messages",
        ),
        (
            minimal(items={"config": {"collections": {"big": {"max_batch_items": 2001}}}}),
            "collections.big.max_batch_items is 2001, but consumer items holds only max_in_flight=2000",
        ),
        (
            minimal(items={"autoscaling": {"enabled": True, "minReplicas": 5}}),
            "workers.items.autoscaling: minReplicas 5 is more than maxReplicas 4",
        ),
        (
            minimal(items={"autoscaling": {"enabled": True, "type": "hpa"}}),
            "workers.items.autoscaling.hpa: give metricName, or metrics",
        ),
        (
            minimal(items={"autoscaling": {"enabled": True, "type": "hpa", "minReplicas": 0}}),
            "workers.items.autoscaling.minReplicas: a HorizontalPodAutoscaler keeps at least 1 pod",
        ),
        (
            minimal(items=scaled(2, config={"consumers": [{**LOAD, "queue_url": "http://localstack:4566/0/items"}]})),
            "workers.items.autoscaling.keda.awsRegion: the URL of queue items does not say its region",
        ),
        (
            minimal(items=scaled(2, config={"consumers": [], "pipelines": {"folder": "/pipelines"}})),
            "workers.items.autoscaling: KEDA asks the queues of config.consumers, and there are none",
        ),
        (
            minimal(
                items={
                    "autoscaling": {"enabled": True, "minReplicas": 0},
                    "config": {"consumers": [LOAD], "pipelines": {"folder": "/pipelines"}},
                }
            ),
            "workers.items.autoscaling.minReplicas: with 0 pods nobody sees what waits for pipelines",
        ),
        (
            minimal(database={"existingSecret": {"name": ""}}, migration={"enabled": False}),
            "workers.items: it loads items and knows no database",
        ),
        (
            minimal(
                database={"existingSecret": {"name": ""}},
                items={"envFrom": [{"secretRef": {"name": "pg"}}]},
            ),
            "migration: it knows no database",
        ),
        (
            minimal(items={"extraEnv": [{"name": "STACWORKER_DATABASE", "value": '{"max_connections": 500}'}]}),
            "workers.items.extraEnv: STACWORKER_DATABASE would win over what the chart has checked",
        ),
        (
            minimal(items={"extraEnv": [{"name": "stacworker_consumers", "value": "[]"}]}),
            "workers.items.extraEnv: stacworker_consumers would win over what the chart has checked",
        ),
        (
            minimal(monitoring={"prometheusRule": {"disabledAlerts": ["StacworkerLoopLags"]}}),
            "monitoring.prometheusRule.disabledAlerts: there is no alert StacworkerLoopLags; there are Stacworker",
        ),
        (
            minimal(
                migration={
                    "existingSecret": {"name": "a"},
                    "secretArn": "arn:aws:secretsmanager:us-west-2:123456789012:secret:a",
                }
            ),
            "migration: give either existingSecret or secretArn, not both",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(values: Document, message: str) -> None:
    """The message names the value and says what to do."""
    assert message in refusal(values)


@pytest.mark.parametrize(
    "values",
    [
        minimal(image={"tag": "", "digest": DIGEST}),
        minimal(image={"tag": "latest", "digest": DIGEST}),
        minimal(items={"terminationGracePeriodSeconds": 81}),
        minimal(items={"config": {"drain_timeout_s": 0.5}, "terminationGracePeriodSeconds": 21}),
        minimal(items=scaled(10)),
        minimal(databaseConnectionBudget=100, items=scaled(11)),
        minimal(items={"config": {"consumers": [{**LOAD, "max_in_flight": 500}]}}),
        minimal(items={"singleItemMessages": False, "config": {"consumers": [{**LOAD, "max_in_flight": 5}]}}),
        minimal(items={"podDisruptionBudget": {"maxUnavailable": None, "minAvailable": 1}}),
        minimal(items={"podDisruptionBudget": None}),
        minimal(database={"existingSecret": {"name": ""}}, defaults={"envFrom": [{"secretRef": {"name": "pg"}}]}),
        minimal(database={"existingSecret": {"name": ""}}, defaults={"extraEnv": [{"name": "PGHOST", "value": "db"}]}),
        minimal(items={"extraEnv": [{"name": "STACWORKER_DATABASE__STATEMENT_TIMEOUT_S", "value": "30"}]}),
        minimal(monitoring={"prometheusRule": {"disabledAlerts": ["StacworkerLoopLag"]}}),
    ],
)
def test_what_is_just_allowed_is_taken(values: Document) -> None:
    """Each guard lets pass what is on the good side of its limit."""
    assert refusal(values) == ""


def test_only_workers_that_use_the_database_count_against_the_budget() -> None:
    """A worker that hands its items to a queue holds no connections, however many pods it has."""
    consumer = {**LOAD, "name": "requests", "type": "generate", "output": f"sqs:{QUEUE}-out"}
    config = {"consumers": [consumer], "generators": {"mine": {"type": "my_items:create_items"}}}
    assert refusal(minimal(workers={"requests": {**scaled(1000), "config": config}})) == ""
    config["consumers"][0]["output"] = "load"  # type: ignore[index]
    assert "databaseConnectionBudget" in refusal(minimal(workers={"requests": {**scaled(1000), "config": config}}))


@pytest.mark.parametrize("held", [100, 500, None])
@pytest.mark.parametrize("default", [100, 101, None])
@pytest.mark.parametrize("own", [100, 501, None])
def test_batches_are_refused_where_stacworker_would_warn(
    held: int | None, default: int | None, own: int | None
) -> None:
    """Chart and daemon agree on which batches would starve."""
    consumer = {**LOAD, **({"max_in_flight": held} if held else {})}
    collections: dict[str, Any] = {"mine": {"max_batch_items": own} if own else {}}
    if default:
        collections["default"] = {"max_batch_items": default}
    settings = Settings.model_validate({"consumers": [consumer], "collections": collections})
    starved = any("never fills" in line for line in settings.warnings())
    values = minimal(items={"config": {"consumers": [consumer], "collections": collections}})
    assert ("never fills" in refusal(values)) == starved


def test_the_guards_know_stacworkers_own_defaults() -> None:
    """What the guards take where a setting is not given is what stacworker takes."""
    assert LimitsSettings().max_in_flight == ConsumerSettings.model_fields["max_in_flight"].default == 2000
    assert CollectionSettings().max_batch_items == 500
    assert DatabaseSettings().max_connections == 8
    assert Settings.model_fields["drain_timeout_s"].default == 60
    assert Settings().http.port == 8080


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (minimal(wrokers={}), "additional properties 'wrokers' not allowed"),
        (minimal(items={"replica": 2}), "additional properties 'replica' not allowed"),
        (minimal(items={"replicas": -1}), "at '/workers/items/replicas': minimum: got -1, want 0"),
        (minimal(items={"replicas": "2"}), "at '/workers/items/replicas': got string, want integer"),
        (minimal(items={"autoscaling": {"type": "cron"}}), "at '/workers/items/autoscaling/type'"),
        (minimal(items={"autoscaling": {"maxReplicas": 0}}), "at '/workers/items/autoscaling/maxReplicas'"),
        (minimal(workers={"Items_2": {}}), "invalid propertyName 'Items_2'"),
        (minimal(workers={"a" * 21: {}}), f"invalid propertyName '{'a' * 21}'"),
        (
            minimal(commonLabels={"app.kubernetes.io/component": "a"}),
            "invalid propertyName 'app.kubernetes.io/component'",
        ),
        (
            minimal(items={"podLabels": {"app.kubernetes.io/name": "a"}}),
            "invalid propertyName 'app.kubernetes.io/name'",
        ),
        (minimal(image={"digest": "sha256:abc"}), "at '/image/digest'"),
        (minimal(image={"pullPolicy": "Sometimes"}), "at '/image/pullPolicy'"),
        (minimal(database={"secretArn": "pgstac"}), "at '/database/secretArn'"),
        (minimal(migration={"pgstacVersion": "latest"}), "at '/migration/pgstacVersion'"),
        (minimal(networkPolicy={"databasePort": 70000}), "at '/networkPolicy/databasePort'"),
        (minimal(items={"tmpSizeLimit": "4 GB"}), "at '/workers/items/tmpSizeLimit'"),
        (minimal(items={"pipelines": {"naip": {"items.py": ""}}}), "missing property 'pipeline.yaml'"),
        (minimal(items={"config": {"consumer": []}}), "additional properties 'consumer' not allowed"),
        (minimal(items={"config": {"consumers": [{"name": "items", "type": "load"}]}}), "missing property 'queue_url'"),
        (minimal(items={"config": {"consumers": [{**LOAD, "max_inflight": 5}]}}), "'max_inflight' not allowed"),
        (minimal(items={"config": {"collections": {"a": {"conflict": "replace"}}}}), "conflict"),
        (minimal(defaults={"config": {"database": {"max_connections": 1}}}), "minimum: got 1, want 2"),
    ],
)
def test_values_of_a_wrong_shape_are_refused(values: Document, message: str) -> None:
    """The schema names the place, down to stacworker's own settings."""
    assert message in refusal(values)
