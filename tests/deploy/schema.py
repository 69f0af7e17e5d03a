"""values.schema.json: the shape of values.yaml, its comments, and stacworker's own settings."""

from __future__ import annotations

import json
from typing import Any

import yaml

from stacworker.settings import Settings
from tests.deploy.chart import CHART
from tests.deploy.comments import entries

SCHEMA = CHART / "values.schema.json"
Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_POSITIVE: Schema = {"type": "integer", "minimum": 1}
_SECONDS: Schema = {"type": "integer", "minimum": 1}
_FREE: Schema = {"type": "object"}
_LABELS: Schema = {"type": "object", "additionalProperties": _TEXT}
_OUR_LABELS = (
    r"^(app\.kubernetes\.io/(name|instance|component|version|managed-by|part-of)|helm\.sh/chart|stacworker/task)$"
)
_OTHER_LABELS: Schema = {**_LABELS, "propertyNames": {"not": {"pattern": _OUR_LABELS}}}
_MAPS: Schema = {"type": "array", "items": {"type": "object"}}
_NAMED: Schema = {"type": "array", "items": {"type": "object", "required": ["name"]}}
_WORDS: Schema = {"type": "array", "items": _TEXT}
_QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9.]+([EPTGMk]i?)?$"}
_ACCOUNT: Schema = {
    "type": ["object", "null"],
    "additionalProperties": False,
    "properties": {"create": {"type": "boolean"}, "name": _TEXT, "annotations": _LABELS},
}
_PROBE: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "initialDelaySeconds": _COUNT,
        "periodSeconds": _SECONDS,
        "timeoutSeconds": _SECONDS,
        "failureThreshold": _POSITIVE,
        "successThreshold": {"const": 1},
        "terminationGracePeriodSeconds": _SECONDS,
    },
}
"""Times only: the chart gives the handler, and Kubernetes takes no second one."""
_READINESS: Schema = {
    **_PROBE,
    "properties": {key: _PROBE["properties"][key] for key in list(_PROBE["properties"])[:4]}
    | {"successThreshold": _POSITIVE},
}
_STRATEGY: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "type": {"enum": ["RollingUpdate", "Recreate"]},
        "rollingUpdate": {
            "type": ["object", "null"],
            "additionalProperties": False,
            "properties": {key: {"type": ["integer", "string", "null"]} for key in ("maxSurge", "maxUnavailable")},
        },
    },
}
_BUDGET: Schema = {
    "type": ["object", "null"],
    "additionalProperties": False,
    "properties": {key: {"type": ["integer", "string", "null"]} for key in ("minAvailable", "maxUnavailable")},
}

# What the defaults' types alone do not say. Keys of workers stand under `defaults`.
_SAID: dict[str, Schema] = {
    "commonLabels": _OTHER_LABELS,
    "commonAnnotations": _LABELS,
    "image.repository": {"type": "string", "minLength": 1},
    "image.digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.pullSecrets": _NAMED,
    "defaults.config": {"$ref": "#/$defs/Settings"},
    "defaults.pipelines": {
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"},
        "additionalProperties": {
            "type": "object",
            "propertyNames": {"pattern": "^[A-Za-z0-9_.-]+$"},
            "additionalProperties": _TEXT,
            "required": ["pipeline.yaml"],
        },
    },
    "defaults.autoscaling.type": {"enum": ["keda", "hpa"]},
    "defaults.autoscaling.maxReplicas": _POSITIVE,
    "defaults.autoscaling.messagesPerReplica": _POSITIVE,
    "defaults.autoscaling.scaleDownStabilizationSeconds": {"type": "integer", "minimum": 0, "maximum": 3600},
    "defaults.autoscaling.scaleDownPeriodSeconds": {"type": "integer", "minimum": 1, "maximum": 1800},
    "defaults.autoscaling.scaleUpPods": _POSITIVE,
    "defaults.autoscaling.annotations": _LABELS,
    "defaults.autoscaling.keda.pollingIntervalSeconds": _SECONDS,
    "defaults.autoscaling.keda.identityOwner": {"enum": ["keda", "workload"]},
    "defaults.autoscaling.keda.extraQueueUrls": {
        "type": "array",
        "items": {"type": "string", "pattern": "^https?://[^/]+/."},
        "uniqueItems": True,
    },
    "defaults.autoscaling.keda.authenticationRef": _FREE,
    "defaults.autoscaling.keda.fallback": _FREE,
    "defaults.autoscaling.hpa.metricLabels": _LABELS,
    "defaults.autoscaling.hpa.metrics": _MAPS,
    "defaults.terminationGracePeriodSeconds": _SECONDS,
    "defaults.strategy": _STRATEGY,
    "defaults.startupProbe": _PROBE,
    "defaults.livenessProbe": _PROBE,
    "defaults.readinessProbe": _READINESS,
    "defaults.podDisruptionBudget": _BUDGET,
    "defaults.serviceAccount": _ACCOUNT,
    "defaults.extraEnv": _NAMED,
    "defaults.envFrom": _MAPS,
    "defaults.tmpSizeLimit": _QUANTITY,
    "defaults.extraVolumes": _NAMED,
    "defaults.extraVolumeMounts": _NAMED,
    "defaults.initContainers": _NAMED,
    "defaults.podLabels": _OTHER_LABELS,
    "defaults.podAnnotations": _LABELS,
    "defaults.nodeSelector": _LABELS,
    "defaults.tolerations": _MAPS,
    "defaults.topologySpreadConstraints": _MAPS,
    "databaseConnectionBudget": _POSITIVE,
    "database.secretArn": {"type": "string", "pattern": "^(arn:aws[a-z-]*:secretsmanager:.+)?$"},
    "serviceAccount.annotations": _LABELS,
    "migration.secretArn": {"type": "string", "pattern": "^(arn:aws[a-z-]*:secretsmanager:.+)?$"},
    "migration.pgstacVersion": {"type": "string", "pattern": r"^([0-9]+\.[0-9]+\.[0-9]+)?$"},
    "migration.serviceAccount.annotations": _LABELS,
    "migration.activeDeadlineSeconds": _SECONDS,
    "service.annotations": _LABELS,
    "monitoring.podMonitor.labels": _LABELS,
    "monitoring.serviceMonitor.labels": _LABELS,
    "monitoring.prometheusRule.labels": _LABELS,
    "monitoring.prometheusRule.disabledAlerts": _WORDS,
    "monitoring.dashboards.labels": _LABELS,
    "monitoring.dashboards.annotations": _LABELS,
    "networkPolicy.ingressFrom": _MAPS,
    "networkPolicy.httpsCidrs": _WORDS,
    "networkPolicy.databaseCidrs": _WORDS,
    "networkPolicy.databasePort": {"type": "integer", "minimum": 1, "maximum": 65535},
    "networkPolicy.extraEgress": _MAPS,
    "extraManifests": {"type": "array", "items": {"type": ["object", "string"]}},
}
# Kubernetes' own, checked when they get there.
_OF_KUBERNETES = {
    f"defaults.{key}"
    for key in (
        "resources",
        "affinity",
        "podSecurityContext",
        "securityContext",
    )
} | {"migration.resources"}

_NEEDED = ("autoscaling", "config")
"""Mappings of a worker that null must not remove."""


def schema() -> str:
    """Return values.schema.json as it has to be."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    said = {".".join(each.path): each.text for each in entries(text)}
    values = yaml.safe_load(text)
    properties = {key: _of(key, value, said) for key, value in values.items() if key not in ("workers", "defaults")}
    settings = Settings.model_json_schema()
    definitions = settings.pop("$defs")
    for each in settings["properties"].values():
        section = definitions[each["$ref"].rpartition("/")[2]] if "$ref" in each else each
        if section.get("type") in ("object", "array"):
            section["type"] = [section["type"], "null"]
    worker = _of("defaults", values["defaults"], said) | {"type": ["object", "null"]}
    for key, each in worker["properties"].items():
        if each.get("type") in ("object", "array") and key not in _NEEDED:
            each["type"] = [each["type"], "null"]
    whole = _whole({"properties": {**properties, "defaults": worker | {"type": "object"}}})
    found = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart stacworker",
        "type": "object",
        "additionalProperties": False,
        "allOf": [whole],
        "properties": {
            **properties,
            "global": {"type": "object", "description": "What a chart around this one may set; not used."},
            "defaults": {"$ref": "#/$defs/Worker"},
            "workers": {
                "description": said["workers"],
                "type": "object",
                "propertyNames": {"pattern": "^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$"},
                "additionalProperties": {"$ref": "#/$defs/Worker"},
            },
        },
        "$defs": {"Worker": worker, "Settings": settings, **definitions},
    }
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _whole(shape: Schema) -> Schema:
    """Return what a mapping must have: all that templates cannot do without.

    Helm takes a value away that is null, and templates would end in "nil pointer". Lists and free mappings may go.
    """
    properties = shape["properties"]
    groups = {key: _whole(each) for key, each in properties.items() if _is_group(each)}
    needed = [key for key, each in properties.items() if key in groups or not _is_collection(each)]
    return {"required": needed, **({"properties": groups} if groups else {})}


def _is_group(shape: Schema) -> bool:
    return shape.get("type") == "object" and "properties" in shape


def _is_collection(shape: Schema) -> bool:
    types = shape.get("type", ())
    return bool({"object", "array"} & {*([types] if isinstance(types, str) else types)})


def _of(path: str, default: Any, said: dict[str, str]) -> Schema:
    found = dict(_SAID.get(path) or _by_type(path, default, said))
    if path in said:
        found["description"] = said[path]
    return found


def _by_type(path: str, default: Any, said: dict[str, str]) -> Schema:
    if path in _OF_KUBERNETES:
        return _FREE
    match default:
        case bool():
            return {"type": "boolean"}
        case int():
            return _COUNT
        case str():
            return _TEXT
        case dict() if default:
            properties = {key: _of(f"{path}.{key}", value, said) for key, value in default.items()}
            return {"type": "object", "additionalProperties": False, "properties": properties}
    raise ValueError(f"{path}: say its schema in {__file__}")
