"""Which package index uv uses: its own variables, else what pip is told by variables or configuration files.

uv reads nothing of pip's, and on many machines pip is all that was set up for the local mirror.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator, Mapping
from pathlib import Path

_OWN = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE")
_PASSED_ON = (
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    *("NETRC", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
)


def index_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that tell uv where packages come from, and how they are reached.

    Certificates are the system's, as pip's are on Debian: a mirror inside a company has its own.
    https://docs.astral.sh/uv/reference/environment/, https://pip.pypa.io/en/stable/topics/configuration/
    """
    found = {name: environ[name] for name in _PASSED_ON if name in environ}
    found["UV_SYSTEM_CERTS"] = environ.get("UV_SYSTEM_CERTS", "true")
    if not any(name in environ for name in _OWN) and (index := _pip_index(environ)):
        found["UV_DEFAULT_INDEX"] = index
    return found


def _pip_index(environ: Mapping[str, str]) -> str | None:
    if index := environ.get("PIP_INDEX_URL"):
        return index
    for path in _pip_files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
        if index := parser.get("global", "index-url", fallback=None):
            return index.strip()
    return None


def _pip_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """Give pip's configuration files, the one that overrules the others first."""
    if named := environ.get("PIP_CONFIG_FILE"):
        yield Path(named)
    home = environ.get("HOME")
    if home:
        yield Path(environ.get("XDG_CONFIG_HOME") or Path(home, ".config"), "pip", "pip.conf")
        yield Path(home, ".pip", "pip.conf")
    yield Path("/etc/pip.conf")
