"""The bytes of an S3 object → the items and collections in it. Pure.

An object is one JSON text (Item, Collection, FeatureCollection), newline-delimited JSON, or a GeoJSON
text sequence (RFC 8142: each text starts with a record separator and may span lines).
"""

from __future__ import annotations

import orjson

from stacworker.api import Version
from stacworker.envelope.forms import Form, Notice, S3Location, Unwrapped
from stacworker.envelope.reasons import shown
from stacworker.envelope.stac import resendable_text, stac_forms
from stacworker.errors import Permanent, Refusal

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_RECORD_SEPARATOR = b"\x1e"
_LINE_SUFFIXES = (".ndjson", ".jsonl", ".geojsonl", ".geojsons", ".geojsonseq", ".nljson")


def object_forms(data: bytes, location: S3Location, version: Version) -> Unwrapped:
    """Return the items (or the collection) of an object, all with the `version` of its event.

    A line or feature that is bad becomes a refusal that holds it alone. Raises `Permanent` for the
    object as a whole: `not_json`, `not_stac`.
    """
    data = data.removeprefix(_BYTE_ORDER_MARK)
    if not data.strip():
        raise Permanent(f"the object is empty ({len(data)} bytes): {location}", error_class="not_json")
    if data.lstrip().startswith(_RECORD_SEPARATOR):
        return _texts(data.split(_RECORD_SEPARATOR), "record", location, version)
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        lines = data.split(b"\n")
        if _are_texts(lines, location):
            return _texts(lines, "line", location, version)
        raise Permanent(
            f"not JSON: {location}: {error}; it starts with {shown(data[:80].decode('utf-8', 'replace'))}; "
            "expected a STAC Item, Collection or FeatureCollection, or one item per line",
            error_class="not_json",
        ) from None
    return _stac(value, version, str(location))


def _are_texts(lines: list[bytes], location: S3Location) -> bool:
    """Tell whether text that is not one JSON text was meant as one per line.

    Its name says so, or else its first or last line that is not blank is an object of its own. (Of a
    cut-off or pretty-printed file neither is.)
    """
    name = location.key.lower().removesuffix(".gz")
    if name.endswith(_LINE_SUFFIXES):
        return True
    ends = [next(line for line in order if line.strip()) for order in (lines, reversed(lines))]
    return any(_is_object(line) for line in ends)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _texts(texts: list[bytes], unit: str, location: S3Location, version: Version) -> Unwrapped:
    forms: list[Form] = []
    refusals: list[Refusal] = []
    for number, text in enumerate(texts, start=0 if unit == "record" else 1):
        if not text.strip():
            continue
        try:
            found = _text(text, version, f"{location} {unit} {number}")
        except Permanent as error:
            refusals.append(Refusal(error, resendable_text(text.strip())))
        else:
            forms += found.forms
            refusals += found.refusals
    if not forms and not refusals:
        forms.append(Notice(f"nothing but blank lines: {location}"))
    return Unwrapped(tuple(forms), tuple(refusals))


def _text(text: bytes, version: Version, origin: str) -> Unwrapped:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Permanent(f"not JSON: {origin}: {error}", error_class="not_json") from None
    return _stac(value, version, origin)


def _stac(value: object, version: Version, origin: str) -> Unwrapped:
    found = stac_forms(value, version, origin) if isinstance(value, dict) else None
    if found is None:
        raise Permanent(
            f"not STAC: {origin}: expected an Item, a Collection or a FeatureCollection, this is {shown(value)}",
            error_class="not_stac",
        )
    return found
