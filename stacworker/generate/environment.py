"""The environment variables that child processes see: what tools need, and no secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

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
_SECRET = re.compile(r"AUTH|BEARER|COOKIE|CREDENTIAL|HEADER|KEY|PASS|PWD|SECRET|TOKEN")


def scrubbed(environ: Mapping[str, str], *, also: Iterable[str] = ()) -> dict[str, str]:
    """Return the part of `environ` that a child may see.

    That is a fixed list of harmless names, GDAL_*, PROJ_* and LC_* unless they sound like secrets
    (GDAL_HTTP_BEARER), and the names in `also`, which the operator chose.
    """
    chosen = frozenset(also)
    return {name: value for name, value in environ.items() if name in chosen or _is_harmless(name)}


def _is_harmless(name: str) -> bool:
    return name in _NAMES or (name.startswith(_PREFIXES) and not _SECRET.search(name))
