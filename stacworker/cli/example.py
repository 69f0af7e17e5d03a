"""The commented example of all settings, made from the settings themselves so that it cannot lag behind.

Lines that start with `# ` are prose. Lines that start with `#` and a key are settings at their defaults:
take the `#` away to change one. All the rest is in force.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from stacworker.settings import CollectionSettings, ConsumerSettings, GeneratorSettings, Settings

_WIDTH = 110

_HEADER = """\
# Settings of stacworker, for `stacworker run --config FILE`. `stacworker check --config FILE` tries them.
# A line like `#key: value` shows a default: to change it, take the # away, and that of its section.
# The environment wins over this file: STACWORKER_HTTP__PORT=9000 sets http.port.
# The standard AWS_* and PG* variables work as well.
"""

_QUEUES = "https://sqs.us-west-2.amazonaws.com/123456789012/"
_CONSUMERS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("Items go into pgstac.", {"name": "items", "type": "load", "queue_url": f"{_QUEUES}items"}),
    (
        "Requests become items; the keys that are not shown are those of the first.",
        {"name": "requests", "type": "generate", "queue_url": f"{_QUEUES}requests", "output": "load"},
    ),
)
_COLLECTIONS: Mapping[str, Mapping[str, Any]] = {
    "default": {"max_batch_items": 500},
    "sentinel-2-l2a": {"max_concurrency": 2},
}
_GENERATORS: Mapping[str, Mapping[str, Any]] = {
    "stactools-naip": {"type": "stactools", "packages": ["stactools-naip==0.5.0"]},
}


def example() -> str:
    """Return the example, as YAML that `stacworker run` takes as it is."""
    lines = _HEADER.splitlines()
    for name, field in Settings.model_fields.items():
        lines += ["", *_prose(field, "")]
        if name == "consumers":
            lines += ["consumers:", *_consumers()]
        elif name == "collections":
            lines += ["collections:", *_entries(CollectionSettings, _COLLECTIONS)]
        elif name == "generators":
            lines += ["generators:", *_entries(GeneratorSettings, _GENERATORS)]
        else:
            lines += _key(name, field, "")
    return "\n".join(lines) + "\n"


def _consumers() -> Iterator[str]:
    for number, (prose, values) in enumerate(_CONSUMERS):
        yield f"  - # {prose}"
        for name, field in ConsumerSettings.model_fields.items():
            special = _belongs_to(field)
            if name in values or special == values["type"] or (special is None and number == 0):
                yield from _documented(name, field, values, "    ")


def _entries(model: type[BaseModel], entries: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Tell about every key in the first entry; show the other entries as they may be written."""
    for number, (entry, values) in enumerate(entries.items()):
        yield f"  {entry}:"
        if number == 0:
            for name, field in model.model_fields.items():
                yield from _documented(name, field, values, "    ")
        else:
            yield from (f"    {name}: {_yaml(value)}" for name, value in values.items())


def _documented(name: str, field: FieldInfo, values: Mapping[str, Any], indent: str) -> Iterator[str]:
    yield from _prose(field, indent)
    if name in values:
        yield f"{indent}{name}: {_yaml(values[name])}"
    else:
        yield from _key(name, field, indent)


def _key(name: str, field: FieldInfo, indent: str) -> Iterator[str]:
    """Yield a key at its default, commented out; a section with all its keys."""
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        yield f"{indent}#{name}:"
        for part, part_field in type(default).model_fields.items():
            yield from _documented(part, part_field, {}, indent + "  ")
    else:
        yield f"{indent}#{name}: {_yaml(TypeAdapter(Any).dump_python(default, mode='json'))}"


def _prose(field: FieldInfo, indent: str) -> Iterator[str]:
    text = " ".join((field.description or "").split())
    yield from textwrap.wrap(text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _belongs_to(field: FieldInfo) -> str | None:
    """Return the one type of consumer that a key is for: `type load: …` at the start of what it says."""
    start = (field.description or "").partition(":")[0]
    return start.removeprefix("type ") if start.startswith("type ") else None


def _yaml(value: Any) -> str:
    """Return a value in YAML's flow style, which JSON is; plain where no quotes are needed."""
    if isinstance(value, str) and value.replace("-", "").replace("_", "").isalnum() and value[:1].isalpha():
        return value if value.lower() not in ("null", "true", "false", "yes", "no", "on", "off") else json.dumps(value)
    return json.dumps(value, ensure_ascii=False)
