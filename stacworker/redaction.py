"""Credentials out of texts for people: error reasons, logs, what commands print.

The texts of other people's errors quote URLs, and URLs carry passwords and signatures. This is the second line of
defence: no secret of ours is put in a text in the first place.
"""

from __future__ import annotations

import re

MASK = "…"

_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
_WORDS = r"access_?key|api_?key|bearer|credential|passphrase|passw(?:or)?d|pwd|secret|signature|token"
# What is looked back and ahead is bounded, or a long hostile text would take quadratic time.
_PARAMETER = re.compile(
    rf"((?<![\w.-])[\w.-]{{0,40}}(?:{_WORDS})[\w.-]{{0,40}}|(?<=[?&])(?:sig|key))=(?:'[^']*'|[^&\s'\"]+)",
    re.IGNORECASE,
)
# AWS' answer to a wrong signature holds the signed request.
_HEADER = re.compile(r"(?<![\w-])(authorization|cookie|x-amz-security-token): ?[^\n]+", re.IGNORECASE)


def redacted(text: str) -> str:
    """Return a text without credentials: before the @ of URLs, in `password=…`, `token=…` and headers."""
    text = _PARAMETER.sub(rf"\1={MASK}", _USERINFO.sub(f"{MASK}@", text))
    return _HEADER.sub(rf"\1:{MASK}", text)
