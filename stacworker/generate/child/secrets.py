"""Values of secret variables out of what a child says: a crash often prints the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping

NAMES = re.compile(r"AUTH|BEARER|COOKIE|CREDENTIAL|HEADER|KEY|PASS|PWD|SECRET|TOKEN")
"""Variables that sound like secrets."""

_LEAST_CHARS = 6  # what is shorter stands in many words


def without_secrets(text: str, environ: Mapping[str, str]) -> str:
    """Return a text without the values of variables that sound like secrets; redact before cutting."""
    secrets = {value for name, value in environ.items() if NAMES.search(name) and len(value) >= _LEAST_CHARS}
    secrets |= {repr(value)[1:-1] for value in secrets}
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, "…")
    return text
