"""What the API server would refuse, said without one: unknown fields too, which it would only drop."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

VERSIONS = ("1.30", "1.37")
"""The oldest that the chart installs on, and a current one."""
CRDS = Path(__file__).resolve().parents[1] / "data" / "crds"
UNKNOWN_GROUPS = ("external-secrets.io/",)
"""Examples of the user's own, for which we keep no CRD."""


def problems(document: dict[str, Any]) -> list[str]:
    """Return what is wrong with a document, a line each."""
    import jsonschema  # noqa: PLC0415 - as kubernetes_validate, which only these tests need
    import kubernetes_validate  # noqa: PLC0415

    if document["apiVersion"].startswith(UNKNOWN_GROUPS):
        return []
    schema = _custom().get((document["apiVersion"], document["kind"]))
    if schema is not None:
        errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
        return [f"{error.json_path}: {error.message}" for error in errors]
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError as error:
            found.append(error.message)
        except kubernetes_validate.ValidationError as error:
            found.append(f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}")
    return found


@cache
def _custom() -> dict[tuple[str, str], dict[str, Any]]:
    schemas = {}
    for path in CRDS.glob("*.yaml"):
        for crd in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = _strict(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                schemas[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return schemas


def _strict(schema: Any) -> Any:
    """Return the schema with unknown fields refused, where it does not itself allow them."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _strict(value) for key, value in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        open_ended = found.get("x-kubernetes-preserve-unknown-fields", False)
        found.setdefault("additionalProperties", bool(open_ended))
    if found.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
        found["type"] = ["integer", "string"]
    return found
