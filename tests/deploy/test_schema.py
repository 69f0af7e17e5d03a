"""What values.schema.json refuses, and where it says that it is."""

from __future__ import annotations

import pytest

from tests.deploy.chart import Document, minimal, refusal

LOAD = {"name": "items", "type": "load", "queue_url": "https://sqs.us-west-2.amazonaws.com/123456789012/items"}


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
        (
            minimal(items={"livenessProbe": {"exec": {"command": ["true"]}}}),
            "at '/workers/items/livenessProbe': additional properties 'exec' not allowed",
        ),
        (
            minimal(items={"livenessProbe": {"successThreshold": 2}}),
            "at '/workers/items/livenessProbe/successThreshold'",
        ),
        (minimal(items={"startupProbe": {"successThreshold": 2}}), "at '/workers/items/startupProbe/successThreshold'"),
        (minimal(items={"strategy": {"type": "BlueGreen"}}), "at '/workers/items/strategy/type'"),
        (minimal(items={"strategy": {"maxSurge": 1}}), "additional properties 'maxSurge' not allowed"),
        (
            minimal(items={"autoscaling": {"keda": {"extraQueueUrls": ["x"]}}}),
            "at '/workers/items/autoscaling/keda/extraQueueUrls/0'",
        ),
        (minimal(database={"existingSecret": None}), "at '/database': missing property 'existingSecret'"),
        (minimal(serviceAccount=None), "missing property 'serviceAccount'"),
        (minimal(migration=None), "missing property 'migration'"),
        (minimal(monitoring={"dashboards": None}), "at '/monitoring': missing property 'dashboards'"),
        (minimal(defaults=None), "missing property 'defaults'"),
        (minimal(defaults={"replicas": None}), "at '/defaults': missing property 'replicas'"),
        (minimal(defaults={"autoscaling": {"keda": None}}), "at '/defaults/autoscaling': missing property 'keda'"),
        (minimal(items={"autoscaling": {"hpa": None}}), "at '/workers/items/autoscaling/hpa': got null, want object"),
    ],
)
def test_values_of_a_wrong_shape_are_refused(values: Document, message: str) -> None:
    """The schema names the place, down to stacworker's own settings."""
    assert message in refusal(values)
