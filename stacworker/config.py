"""Read the settings: the environment over one YAML file, every mistake as a line that says what to do.

The lines name keys and never repeat a value: it may be a secret that got into the wrong place.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from stacworker.errors import ConfigError
from stacworker.settings import Settings
from stacworker.yaml_file import read_mapping

_ENV_ONLY = {"STACWORKER_CONFIG", "STACWORKER_PYTHON", "STACWORKER_LOCALSTACK_PYTHON", "STACWORKER_REQUIRE_PGSTAC"}
_WORD = re.compile(r"[\w.\- ]{1,63}")
_SERVICE_LINK = re.compile(r"STACWORKER(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9]+)*|PORT(_\d+_[A-Z0-9_]+)?)")
"""What Kubernetes adds to the environment of every pod beside a Service named stacworker…
https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables"""


def load_settings(config: Path | None = None, *, pipelines: Path | None = None) -> Settings:
    """Read settings from the environment over the YAML file `config` (default: STACWORKER_CONFIG).

    `pipelines` is the pipelines' folder in place of the one they name.

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
        settings = FromFile()
    except ValidationError as error:
        raise ConfigError(*describe(error)) from None
    except SettingsError as error:
        raise ConfigError(f'{error}: give JSON, such as [{{"name": …}}]') from None
    if pipelines is None:
        return settings
    named = settings.pipelines.model_copy(update={"folder": str(pipelines)})
    return settings.model_copy(update={"pipelines": named})


def _unknown_variables() -> list[str]:
    known = {f"STACWORKER_{name.upper()}" for name in Settings.model_fields} | _ENV_ONLY
    return [
        f"{name}: unknown variable{_did_you_mean(name.split('__')[0], known)}"
        for name in sorted(os.environ)
        if name.startswith("STACWORKER_")
        and name.upper().split("__")[0] not in known
        and not _SERVICE_LINK.fullmatch(name)
    ]


def describe(error: ValidationError, root: type[BaseModel] = Settings) -> list[str]:
    """Return a line for each mistake, `key: what is wrong or allowed`, in a file that `root` describes."""
    lines: list[str] = []
    for found in error.errors(include_url=False):
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in found["loc"]).lstrip(".")
        message = found["msg"].removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            allowed = set(_model_at(found["loc"], root).model_fields)
            lines.append(f"{where}: unknown key{_did_you_mean(str(found['loc'][-1]), allowed)}")
        elif found["type"] == "missing":
            lines.append(f"{where}: missing: {_purpose(found['loc'], root)}")
        elif not where:
            lines += message.splitlines()
        else:
            lines.append(f"{where}: {message[:1].lower()}{message[1:]}")
    return list(dict.fromkeys(lines))


def _key(part: str) -> str:
    """Return a key of the file, unless it is no word: in flow style a DSN without its `dsn:` is a key."""
    return part if _WORD.fullmatch(part) else "…"


def _model_at(loc: tuple[int | str, ...], root: type[BaseModel]) -> type[BaseModel]:
    """Return the section that holds the key at the end of `loc`."""
    model = root
    for part in loc[:-1]:
        field = model.model_fields.get(str(part))
        model = (_section(field.annotation) if field else None) or model
    return model


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the model in an annotation such as `Model | None`, `tuple[Model, ...]` or `dict[str, Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)


def _purpose(loc: tuple[int | str, ...], root: type[BaseModel]) -> str:
    field = _model_at(loc, root).model_fields.get(str(loc[-1]))
    return (field.description if field and field.description else "this key is needed").rstrip(".")


def _did_you_mean(name: str, allowed: set[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean {close[0]}?" if close else f"; allowed: {', '.join(sorted(allowed))}"
