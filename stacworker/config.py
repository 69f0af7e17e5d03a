"""Read the settings: the environment over one YAML file, every mistake as a line that says what to do.

The lines name keys and never repeat a value: it may be a secret that got into the wrong place.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from stacworker.errors import ConfigError
from stacworker.settings import (
    AwsSettings,
    CollectionSettings,
    ConsumerSettings,
    DatabaseSettings,
    DeletesSettings,
    FetchSettings,
    GeneratorSettings,
    HttpSettings,
    LogSettings,
    Settings,
)
from stacworker.yaml_file import read_mapping

_ENV_ONLY = {"STACWORKER_CONFIG", "STACWORKER_PYTHON", "STACWORKER_LOCALSTACK_PYTHON", "STACWORKER_REQUIRE_PGSTAC"}
_WORD = re.compile(r"[\w.\- ]{1,63}")
_SERVICE_LINK = re.compile(r"STACWORKER(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9]+)*|PORT(_\d+_[A-Z0-9_]+)?)")
"""What Kubernetes adds to the environment of every pod beside a Service named stacworker…
https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables"""


def load_settings(config: Path | None = None) -> Settings:
    """Read settings from the environment over the YAML file `config` (default: STACWORKER_CONFIG).

    Raises ConfigError with one line for each mistake: the key, and what is wrong or allowed.
    """
    if config is None and os.environ.get("STACWORKER_CONFIG"):
        config = Path(os.environ["STACWORKER_CONFIG"])
    problems = _unknown_variables()
    if config is not None:
        try:
            read_mapping(config)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)

    class FromFile(Settings):
        _yaml_file: ClassVar[Path | None] = config

    try:
        return FromFile()
    except ValidationError as error:
        raise ConfigError(*_describe(error)) from None
    except SettingsError as error:
        raise ConfigError(f'{error}: give JSON, such as [{{"name": …}}]') from None


def _unknown_variables() -> list[str]:
    known = {f"STACWORKER_{name.upper()}" for name in Settings.model_fields} | _ENV_ONLY
    return [
        f"{name}: unknown variable{_did_you_mean(name.split('__')[0], known)}"
        for name in sorted(os.environ)
        if name.startswith("STACWORKER_")
        and name.upper().split("__")[0] not in known
        and not _SERVICE_LINK.fullmatch(name)
    ]


def _describe(error: ValidationError) -> list[str]:
    """One line per mistake: `key: what is wrong or allowed`."""
    lines: list[str] = []
    for found in error.errors(include_url=False):
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in found["loc"]).lstrip(".")
        message = found["msg"].removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            allowed = _allowed_keys(found["loc"])
            lines.append(f"{where}: unknown key{_did_you_mean(str(found['loc'][-1]), allowed)}")
        elif found["type"] == "missing":
            lines.append(f"{where}: missing: {_purpose(found['loc'])}")
        elif not where:
            lines += message.splitlines()
        else:
            lines.append(f"{where}: {message[:1].lower()}{message[1:]}")
    return list(dict.fromkeys(lines))


def _key(part: str) -> str:
    """Return a key of the file, unless it is no word: in flow style a DSN without its `dsn:` is a key."""
    return part if _WORD.fullmatch(part) else "…"


def _model_at(loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Return the section that holds the key at the end of `loc`."""
    sections: dict[str, type[BaseModel]] = {
        "aws": AwsSettings,
        "database": DatabaseSettings,
        "fetch": FetchSettings,
        "consumers": ConsumerSettings,
        "collections": CollectionSettings,
        "generators": GeneratorSettings,
        "http": HttpSettings,
        "log": LogSettings,
        "deletes": DeletesSettings,
    }
    for part in reversed(loc[:-1]):
        if part in sections:
            return sections[str(part)]
    return Settings


def _allowed_keys(loc: tuple[int | str, ...]) -> set[str]:
    model = _model_at(loc)
    return set(model.model_fields) if model else set()


def _purpose(loc: tuple[int | str, ...]) -> str:
    model = _model_at(loc)
    field = model.model_fields.get(str(loc[-1])) if model else None
    return (field.description if field and field.description else "this key is needed").rstrip(".")


def _did_you_mean(name: str, allowed: set[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean {close[0]}?" if close else f"; allowed: {', '.join(sorted(allowed))}"
