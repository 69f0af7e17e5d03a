"""The environment variables that child processes see: what tools need, and no secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stacworker.generate.child.secrets import NAMES
from stacworker.redaction import redacted

_NAMES = frozenset(
    {
        "CURL_CA_BUNDLE",
        "HOME",
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "PATH",
        "PYTHONPATH",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TMPDIR",
        "TZ",
        "VIRTUAL_ENV",
    }
)
_PREFIXES = ("GDAL_", "LC_", "PROJ_")


def scrubbed(environ: Mapping[str, str], *, also: Iterable[str] = ()) -> dict[str, str]:
    """Return the part of `environ` that a child may see.

    That is a fixed list of harmless names, GDAL_*, PROJ_* and LC_* unless they sound like secrets
    (GDAL_HTTP_BEARER) or hold some (GDAL_HTTP_PROXY with a password), and the names in `also`, which the
    operator chose.
    """
    chosen = frozenset(also)
    return {name: value for name, value in environ.items() if name in chosen or _is_harmless(name, value)}


def _is_harmless(name: str, value: str) -> bool:
    if name in _NAMES:
        return True
    return name.startswith(_PREFIXES) and not NAMES.search(name) and redacted(value) == value
