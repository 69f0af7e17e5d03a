"""STAC objects → forms, the same for a message's body and for an object in S3.

Only `type` decides here what something is; whether an item can be loaded is checked later, item by item.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from stacworker.api import Version
from stacworker.envelope.forms import CollectionForm, Form, ItemForm, Notice, Unwrapped
from stacworker.envelope.reasons import shown
from stacworker.errors import Permanent, Refusal

MAX_PART_BYTES = 240_000
"""A bad part larger than this is not sent alone: queues may be limited to 256 KiB, attributes included."""

_ILLEGAL_IN_SQS = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html"""


def stac_forms(value: dict[str, Any], version: Version, origin: str) -> Unwrapped | None:
    """Return the items or the collection that `value` is, or None when it is neither.

    Bad features of a FeatureCollection become refusals. Raises `Permanent` (`bad_feature_collection`)
    when the collection has no list of features, and `too_deep` when `value` as a whole is too deep.
    """
    kind = value.get("type")
    if kind == "FeatureCollection":
        return _features(value, version, origin)
    if kind not in ("Feature", "Collection"):
        return None
    check_depth(value, origin)
    form = ItemForm if kind == "Feature" else CollectionForm
    return Unwrapped((form(value, version, origin),))


def check_depth(value: dict[str, Any], origin: str) -> None:
    """Raise `Permanent` (`too_deep`) when the value cannot be written as JSON again.

    orjson reads 1,024 levels and writes 254, so without this an item could be read and never loaded. One
    level is kept for what a request is sent to a generator in.
    """
    try:
        orjson.dumps([value])
    except orjson.JSONEncodeError:
        raise Permanent(f"nested too deep, more than 253 levels: {origin}", error_class="too_deep") from None


def resendable(value: object) -> str | None:
    """Return JSON text that a queue accepts as a body, or None when there is none (too large, too deep)."""
    try:
        data = orjson.dumps(value)
    except orjson.JSONEncodeError:
        return None
    if len(data) > MAX_PART_BYTES:
        return None
    # JSON escapes control characters itself; what is left are U+FFFE and U+FFFF, only ever in strings.
    return _ILLEGAL_IN_SQS.sub(lambda match: f"\\u{ord(match.group()):04x}", data.decode())


def resendable_text(data: bytes) -> str | None:
    """Return unreadable bytes as near to what they were as a queue accepts, or None when too large."""
    if not data or len(data) > MAX_PART_BYTES:
        return None
    return _ILLEGAL_IN_SQS.sub("\ufffd", data.decode("utf-8", "replace"))


def _features(value: dict[str, Any], version: Version, origin: str) -> Unwrapped:
    features = value.get("features")
    if not isinstance(features, list):
        raise Permanent(
            f"a FeatureCollection needs a list as its features: {origin}", error_class="bad_feature_collection"
        )
    if not features:
        return Unwrapped((Notice(f"an empty FeatureCollection: {origin}"),))
    forms: list[Form] = []
    refusals: list[Refusal] = []
    for number, feature in enumerate(features, start=1):
        where = f"{origin} feature {number}"
        try:
            forms.append(_feature(feature, version, where))
        except Permanent as error:
            refusals.append(Refusal(error, resendable(feature)))
    return Unwrapped(tuple(forms), tuple(refusals))


def _feature(feature: object, version: Version, origin: str) -> ItemForm:
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise Permanent(
            f'not a STAC item: {origin}: features must be objects with "type": "Feature", this is {shown(feature)}',
            error_class="not_stac",
        )
    check_depth(feature, origin)
    return ItemForm(feature, version, origin)
