"""Ask a running worker whether it lives: for containers that have no curl.

Only the standard library, and YAML where there is a file: a probe runs every few seconds, so it must
not load what the worker loads. The settings themselves are checked by the worker, not here.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stacworker.errors import ConfigError, StacworkerError

DEFAULT_PORT = 8080
TIMEOUT_S = 2.0
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a worker listens on
_OK = 200


class Unhealthy(StacworkerError):  # noqa: N818 - named for what the worker is
    """The worker does not answer, or says that it is not well."""

    default_class = "unhealthy"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the worker listens."""

    host: str
    port: int


def healthcheck(
    environ: Mapping[str, str],
    config: Path | None = None,
    *,
    host: str | None = None,
    port: int | None = None,
    ready: bool = False,
) -> str:
    """Ask the worker that these settings describe for `/livez`, or `/readyz`; return what it says.

    Raises Unhealthy unless it says yes within 2 s, ConfigError when it cannot be told where it listens.
    """
    if port is None:
        found = find_address(environ, config)
        address = Address(host or found.host, found.port)
    else:
        address = Address(host or "127.0.0.1", port)
    return probe(address, "/readyz" if ready else "/livez")


def find_address(environ: Mapping[str, str], config: Path | None = None) -> Address:
    """Return where the worker of these settings listens: environment over the YAML file, as for `run`.

    Raises ConfigError when it opens no port, or one that cannot be known.
    """
    variables = {name.upper(): value for name, value in environ.items()}
    named = config or (Path(variables["STACWORKER_CONFIG"]) if variables.get("STACWORKER_CONFIG") else None)
    section = _section_of(named) if named else {}
    section |= _mapping("STACWORKER_HTTP", variables.get("STACWORKER_HTTP"))
    for key in ("host", "port", "enabled"):
        section[key] = variables.get(f"STACWORKER_HTTP__{key.upper()}", section.get(key))
    if str(section["enabled"]).lower() in ("false", "0", "no", "off", "f", "n"):
        raise ConfigError("http.enabled is false: the worker opens no port that could be asked")
    try:
        port = DEFAULT_PORT if section["port"] is None else int(section["port"])
    except (TypeError, ValueError):
        raise ConfigError("http.port: give a number") from None
    if port == 0:
        raise ConfigError("http.port is 0, a port chosen at start: give --port with the one that the worker logged")
    host = str(section["host"] or "")
    return Address(_ANY.get(host, host), port)


def _section_of(path: Path) -> dict[str, Any]:
    from stacworker.yaml_file import read_mapping  # noqa: PLC0415 - only where there is a file

    section = read_mapping(path).get("http")
    return dict(section) if isinstance(section, dict) else {}


def _mapping(name: str, text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f'{name}: give a JSON object, such as {{"port": 8080}}')
    return found


def probe(address: Address, path: str = "/livez", timeout_s: float = TIMEOUT_S) -> str:
    """GET a health page and return its text; raise Unhealthy unless the answer is 200."""
    where = f"http://{address.host}:{address.port}{path}"
    connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(4096).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        raise Unhealthy(f"{where} does not answer: {type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if answer.status != _OK:
        raise Unhealthy(f"{where}: {answer.status} {answer.reason}: {text}")
    return text
