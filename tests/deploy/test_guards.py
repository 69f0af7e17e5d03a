"""What the chart refuses, and what it says then."""

from __future__ import annotations

from typing import Any

import pytest

from stacworker.settings import CollectionSettings, ConsumerSettings, DatabaseSettings, LimitsSettings, Settings
from tests.deploy.chart import Document, minimal, refusal

QUEUE = "https://sqs.us-west-2.amazonaws.com/123456789012/items"
LOAD = {"name": "items", "type": "load", "queue_url": QUEUE}
LOADING: Document = {"config": {"consumers": [LOAD]}}
METRIC: Document = {
    "type": "External",
    "external": {"metric": {"name": "held"}, "target": {"type": "Value", "value": "10"}},
}
DIGEST = "sha256:" + "0" * 64


def scaled(pods: int, *, each: int = 2000, **more: Any) -> Document:
    return {"autoscaling": {"enabled": True, "maxReplicas": pods, "messagesPerReplica": each}, **more}


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
        (
            minimal(
                defaults={"config": {"database": {"dsn": "postgresql://u:p@h/d"}}}, items={"config": {"database": None}}
            ),
            "defaults.config.database.dsn: a DSN is a secret, and the migration's ConfigMap would hold it",
        ),
        (
            minimal(items=scaled(2, each=1999)),
            "workers.items.autoscaling.messagesPerReplica: 1999 is less than the max_in_flight=2000 of consumer items",
        ),
        (
            minimal(
                items={
                    "autoscaling": {"enabled": True, "type": "hpa", "hpa": {"metricName": "held"}},
                    "config": {"consumers": [{**LOAD, "max_in_flight": 2001}]},
                }
            ),
            "workers.items.autoscaling.messagesPerReplica: 2000 is less than the max_in_flight=2001 of consumer items",
        ),
        (
            minimal(items={"strategy": {"rollingUpdate": {"maxSurge": 0}}}),
            "workers.items.strategy.rollingUpdate: with maxSurge and maxUnavailable both 0 no pod could be replaced",
        ),
        (
            minimal(items={"strategy": {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": "0%"}}}),
            "workers.items.strategy.rollingUpdate: with maxSurge and maxUnavailable both 0",
        ),
        (
            minimal(items={"resources": {"requests": {"memory": "4Gi"}}}),
            "workers.items.resources: requests.memory 4Gi is more than limits.memory 2Gi: raise the limit too",
        ),
        *(
            (
                minimal(items={"resources": {"requests": {"memory": above}, "limits": {"memory": limit}}}),
                f"workers.items.resources: requests.memory {above} is more than limits.memory {limit}",
            )
            for above, limit in (("2049Mi", "2Gi"), ("2Mi", "2047Ki"), ("2M", "1999k"), ("2Ti", "2T"), ("3000", "2Ki"))
        ),
        (
            minimal(items={"resources": {"requests": {"cpu": 3}, "limits": {"cpu": "2500m"}}}),
            "workers.items.resources: requests.cpu 3 is more than limits.cpu 2500m",
        ),
        (
            minimal(migration={"resources": {"requests": {"memory": "1G"}}}),
            "migration.resources: requests.memory 1G is more than limits.memory 512Mi",
        ),
        (
            minimal(
                workers={"more": {**LOADING, "serviceAccount": {"name": "x", "annotations": {"a": "b"}}}},
                items={"serviceAccount": {"name": "x"}},
            ),
            "workers.more.serviceAccount: x is made once already, with other annotations: give it the same ones",
        ),
        (
            minimal(items={"serviceAccount": {"name": "demo-stacworker", "annotations": {"a": "b"}}}),
            "workers.items.serviceAccount: demo-stacworker is made once already, with other annotations",
        ),
        (
            minimal(serviceAccount={"name": "x"}, migration={"serviceAccount": {"name": "x"}}),
            "migration.serviceAccount.name: x is worker items's account too, and each upgrade would delete it",
        ),
        (
            minimal(serviceAccount={"name": "x", "create": False}, migration={"serviceAccount": {"name": "x"}}),
            "migration.serviceAccount.name: x is worker items's account too",
        ),
        (
            minimal(items={"serviceAccount": {"name": "y"}}, migration={"serviceAccount": {"name": "demo-stacworker"}}),
            "migration.serviceAccount.name: demo-stacworker is the release's account too",
        ),
        *(
            (
                minimal(
                    database={"existingSecret": {"name": ""}}, defaults={"extraEnv": [{"name": name, "value": "x"}]}
                ),
                "migration: it knows no database",
            )
            for name in ("PGSSLMODE", "PGHOSTS", "XPGHOST", "STACWORKER_DATABASE__LOCK_TIMEOUT_S")
        ),
        (
            minimal(
                database={"existingSecret": {"name": ""}},
                migration={"enabled": False},
                items={"extraEnv": [{"name": "PGPASSWORD", "value": "x"}]},
            ),
            "workers.items: it loads items and knows no database",
        ),
        *(
            (
                minimal(items={"extraEnv": [{"name": name, "value": "x"}]}),
                f"workers.items.extraEnv: {name} would win over what the chart has checked",
            )
            for name in (
                "STACWORKER_CONFIG",
                "STACWORKER_COLLECTIONS__DEFAULT__MAX_BATCH_ITEMS",
                "STACWORKER_HTTP__PORT",
                "STACWORKER_ECS__SCALE_IN_PROTECTION",
                "STACWORKER_PIPELINES",
                "STACWORKER_PIPELINES__FOLDER",
                "STACWORKER_DATABASE__MAX_CONNECTIONS",
            )
        ),
        (
            minimal(
                defaults={"extraEnv": [{"name": "STACWORKER_CONFIG", "value": "/mine.yaml"}]}, items={"extraEnv": []}
            ),
            "defaults.extraEnv: STACWORKER_CONFIG would win over what the chart has checked",
        ),
        (
            minimal(items={"config": {"drain_timeout_s": 5}}),
            "workers.items.config.drain_timeout_s: 5 is shorter than consumer items's wait_time_s 20",
        ),
        (
            minimal(items={"config": {"ecs": {"scale_in_protection": True}}}),
            "workers.items.config.ecs.scale_in_protection: it is for tasks of ECS",
        ),
        (
            minimal(items={"config": {"http": {"host": "127.0.0.1"}}}),
            "workers.items.config.http.host: probes come from outside the pod and could not reach 127.0.0.1",
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
        minimal(
            items={
                "config": {"drain_timeout_s": 0.5, "consumers": [{**LOAD, "wait_time_s": 0}]},
                "terminationGracePeriodSeconds": 21,
            }
        ),
        minimal(items={"config": {"drain_timeout_s": 20}}),
        minimal(items={"config": {"drain_timeout_s": 10, "consumers": [{**LOAD, "wait_time_s": 10}]}}),
        minimal(items={"config": {"http": {"host": "::"}}}),
        minimal(items={"config": {"ecs": {"scale_in_protection": False}}}),
        minimal(items=scaled(2, config={"consumers": [{**LOAD, "max_in_flight": 1000}]}, each=1000)),
        minimal(items={"autoscaling": {"messagesPerReplica": 200}}),
        minimal(
            items={
                "autoscaling": {"enabled": True, "type": "hpa", "messagesPerReplica": 1, "hpa": {"metrics": [METRIC]}}
            }
        ),
        minimal(items=scaled(2, config={"consumers": [{**LOAD, "type": "generate"}]}, each=200)),
        minimal(items={"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "1%"}}}),
        minimal(items={"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 0}}}),
        minimal(items={"resources": {"requests": {"memory": "2048Mi", "ephemeral-storage": "6e9"}}}),
        minimal(items={"resources": {"requests": {"memory": "8Gi"}, "limits": {"memory": None}}}),
        minimal(items={"resources": {"requests": {"cpu": "1500m"}, "limits": {"cpu": 2}}}),
        minimal(items={"resources": {"limits": None}}),
        minimal(migration={"resources": {"requests": {"memory": "512Mi"}}}),
        minimal(workers={"more": LOADING}, defaults={"serviceAccount": {"name": "x", "annotations": {"a": "b"}}}),
        minimal(items={"serviceAccount": {"name": "demo-stacworker"}}),
        minimal(items={"serviceAccount": {"name": "x", "create": False}}, migration={"serviceAccount": {"name": "y"}}),
        minimal(
            serviceAccount={"name": "x", "create": False},
            migration={"serviceAccount": {"name": "x", "create": False}},
        ),
        minimal(serviceAccount={"name": "x"}, migration={"enabled": False, "serviceAccount": {"name": "x"}}),
        minimal(items={"extraEnv": [{"name": "STACWORKER_PIPELINES__ON_BROKEN", "value": "skip"}]}),
        minimal(items={"extraEnv": [{"name": "STACWORKER_CONFIGURED", "value": "no setting"}]}),
        minimal(items={"startupProbe": {"initialDelaySeconds": 1}, "readinessProbe": {"successThreshold": 2}}),
        minimal(defaults={"tolerations": None, "livenessProbe": None, "podLabels": None}, commonLabels=None),
        minimal(items=scaled(10)),
        minimal(databaseConnectionBudget=100, items=scaled(11)),
        minimal(items={"config": {"consumers": [{**LOAD, "max_in_flight": 500}]}}),
        minimal(items={"singleItemMessages": False, "config": {"consumers": [{**LOAD, "max_in_flight": 5}]}}),
        minimal(items={"podDisruptionBudget": {"maxUnavailable": None, "minAvailable": 1}}),
        minimal(items={"podDisruptionBudget": None}),
        minimal(database={"existingSecret": {"name": ""}}, defaults={"envFrom": [{"secretRef": {"name": "pg"}}]}),
        *(
            minimal(database={"existingSecret": {"name": ""}}, defaults={"extraEnv": [{"name": name, "value": "db"}]})
            for name in (
                "PGHOST",
                "PGHOSTADDR",
                "PGSERVICE",
                "STACWORKER_DATABASE__DSN",
                "stacworker_database__secret_arn",
            )
        ),
        minimal(
            database={"existingSecret": {"name": ""}},
            defaults={"config": {"database": {"secret_arn": "arn:aws:secretsmanager:us-west-2:123456789012:secret:a"}}},
        ),
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


@pytest.mark.parametrize("drain", [5, 10, None])
@pytest.mark.parametrize("wait", [0, 6, 10, None])
def test_a_drain_is_refused_where_stacworker_would_warn(drain: float | None, wait: int | None) -> None:
    """Chart and daemon agree on which receives would be cut off."""
    consumer = {**LOAD, **({} if wait is None else {"wait_time_s": wait})}
    config = {"consumers": [consumer], **({} if drain is None else {"drain_timeout_s": drain})}
    cut = any("cut off" in line for line in Settings.model_validate(config).warnings())
    assert ("cut off" in refusal(minimal(items={"config": config}))) == cut


def test_the_guards_know_stacworkers_own_defaults() -> None:
    """What the guards take where a setting is not given is what stacworker takes."""
    assert LimitsSettings().max_in_flight == ConsumerSettings.model_fields["max_in_flight"].default == 2000
    assert CollectionSettings().max_batch_items == 500
    assert DatabaseSettings().max_connections == 8
    assert Settings.model_fields["drain_timeout_s"].default == 60
    assert Settings().http.port == 8080
    assert ConsumerSettings.model_fields["wait_time_s"].default == 20
